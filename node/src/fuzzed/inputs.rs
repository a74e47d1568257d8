//! The committed inputs of a target, and what becomes of them when bytes are changed, cut out, doubled or joined.

use std::{fs, io, path::Path};

use super::{Target, made};

/// No mutated input is longer.
const INPUT_BYTES_MAX: usize = 1 << 14;

/// The committed inputs of a target: its folder, and what is made of its frozen files, in the order of their names.
pub fn seeds(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut seeds, mut frozen) = (Vec::new(), Vec::new());
    let folder = crate_folder.join("testdata/fuzz").join(target.name);
    if folder.exists() {
        for path in files(&folder)? {
            seeds.push(fs::read(path)?);
        }
    }
    for path in files(&crate_folder.join("core/testdata"))? {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let rest = stem.strip_prefix(target.frozen).filter(|_| !target.frozen.is_empty());
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
            let digits: String = fs::read_to_string(&path)?.split_whitespace().collect();
            frozen.extend(hex::decode(digits).ok());
        }
    }
    seeds.extend(made::inputs(target.name, &frozen));
    Ok(seeds)
}

fn files(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Gives `visit` each input, and so many mutations of each. The same inputs give the same mutations.
pub fn mutated(inputs: &[Vec<u8>], mutations: u64, mut visit: impl FnMut(&[u8])) {
    let mut dice = Dice(41);
    for input in inputs {
        visit(input);
        for _ in 0..mutations {
            let mut bytes = input.clone();
            for _ in 0..=dice.below(4) {
                change(&mut bytes, inputs, &mut dice);
            }
            bytes.truncate(INPUT_BYTES_MAX.max(input.len()));
            visit(&bytes);
        }
    }
}

fn change(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], dice: &mut Dice) {
    let place = dice.below(bytes.len());
    let other = inputs.get(dice.below(inputs.len())).map_or(&[][..], Vec::as_slice);
    let kind = dice.below(7);
    match bytes.get_mut(place) {
        Some(_) if kind == 0 => bytes.truncate(place),
        _ if kind == 1 => bytes.extend_from_slice(other.get(dice.below(other.len())..).unwrap_or_default()),
        Some(_) if kind == 2 => bytes.extend_from_within(place..),
        Some(_) if kind == 3 => drop(bytes.remove(place)),
        Some(_) if kind == 4 => {
            // What a length may look like: none, all, and numbers between.
            let length = [0, u32::MAX, 1 << 10, 1 << 24].get(dice.below(4)).copied().unwrap_or_default();
            bytes.iter_mut().skip(place).zip(length.to_be_bytes()).for_each(|(byte, new)| *byte = new);
        }
        Some(byte) => *byte = dice.byte(),
        None => bytes.push(dice.byte()),
    }
}

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or_default()
    }
}
