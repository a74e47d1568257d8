//! The bytes of everything that is hashed, signed or stored, frozen in `testdata/`.
//!
//! A difference here means that nodes of two versions no longer understand each other or can no longer read their
//! disks. If that is intended, raise the version byte and run the tests once with `UPDATE_TESTDATA=1`.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::samples::{Sample, documents, hashes, signing_bytes};
use crate::fixtures::Dice;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn hex_lines(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(40) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn compare(name: &str, text: &str) {
    if std::env::var_os("UPDATE_TESTDATA").is_some() {
        fs::write(path(name), text).unwrap();
    }
    let frozen = fs::read_to_string(path(name)).unwrap_or_default();
    assert_eq!(frozen, text, "testdata/{name} differs: the layout has changed");
}

#[test]
fn documents_have_their_frozen_bytes() {
    for Sample { name, bytes, .. } in documents() {
        compare(&format!("{name}.hex"), &hex_lines(&bytes));
    }
}

#[test]
fn signing_bytes_are_frozen() {
    for (name, bytes) in signing_bytes() {
        compare(&format!("signing-{name}.hex"), &hex_lines(&bytes));
    }
}

#[test]
fn hashes_are_frozen() {
    let mut text = String::new();
    for (name, hash) in hashes() {
        writeln!(text, "{name} {hash}").unwrap();
    }
    compare("hashes.txt", &text);
}

#[test]
fn signing_bytes_of_different_domains_never_coincide() {
    let mut all: Vec<Vec<u8>> = signing_bytes().into_iter().map(|(_, bytes)| bytes).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn documents_decode_to_what_was_encoded() {
    for Sample { name, bytes, again } in documents() {
        assert_eq!(again(&bytes).as_ref(), Ok(&bytes), "{name}");
    }
}

#[test]
fn truncated_documents_are_refused() {
    for Sample { name, bytes, again } in documents() {
        for length in 0..bytes.len() {
            assert!(again(&bytes[..length]).is_err(), "{name} cut to {length} bytes");
        }
    }
}

#[test]
fn documents_with_bytes_after_them_are_refused() {
    for Sample { name, mut bytes, again } in documents() {
        bytes.push(0);
        assert!(again(&bytes).is_err(), "{name}");
    }
}

/// Whatever bytes decode at all must be the one encoding of what they decode to.
#[test]
fn changed_documents_are_refused_or_canonical() {
    let mut dice = Dice::new(1);
    for Sample { name, bytes, again } in documents() {
        for position in 0..bytes.len() {
            for change in [1, 0x80, u8::try_from(dice.below(255)).unwrap() + 1] {
                let mut changed = bytes.clone();
                changed[position] ^= change;
                if let Ok(encoded) = again(&changed) {
                    assert_eq!(encoded, changed, "{name} with byte {position} changed by {change:#x}");
                }
            }
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut dice = Dice::new(2);
    for Sample { name, again, .. } in documents() {
        for _ in 0..300 {
            let length = dice.below(400);
            let mut bytes: Vec<u8> = (0..length).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
            // Most documents start with version or tag 1, after which the interesting fields come.
            if let Some(first) = bytes.first_mut() {
                *first %= 10;
            }
            if let Ok(encoded) = again(&bytes) {
                assert_eq!(encoded, bytes, "{name}");
            }
        }
    }
}
