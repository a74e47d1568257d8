//! One decoder of the node, named by `ALTHING_FUZZ_TARGET`, under libFuzzer. `tools/fuzz` runs it for each.
#![no_main]

use std::{env, fs, path::Path, process::exit, sync::LazyLock};

use althing_node::fuzzed::{Target, seeds, targets};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = env::var("ALTHING_FUZZ_TARGET").unwrap_or_default();
    if let Some(target) = targets().find(|target| target.name == name) {
        return target;
    }
    // Asked for something else, it says what there is, and writes the committed inputs of each.
    let folder = env::var("ALTHING_FUZZ_SEEDS").unwrap_or_default();
    for target in targets() {
        println!("{}", target.name);
        let folder = Path::new(&folder).join(target.name);
        fs::create_dir_all(&folder).expect("a folder can be made");
        for (number, seed) in seeds(target).expect("the inputs can be read").into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).expect("a file can be written");
        }
    }
    exit(0);
});

fuzz_target!(
    init: {
        LazyLock::force(&TARGET);
    },
    |input: &[u8]| (TARGET.run)(input)
);
