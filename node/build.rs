//! Puts the git commit of the sources and the way they are built into the binary, for `--version` and `bench`.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=ALTHING_COMMIT");
    // An image build has no checkout: there the caller states the commit.
    let commit = match std::env::var("ALTHING_COMMIT") {
        Ok(stated) if !stated.is_empty() => stated,
        _ => from_git().unwrap_or_else(|| "unknown".to_owned()),
    };
    println!("cargo:rustc-env=ALTHING_COMMIT={commit}");
    // For the reports of `bench`.
    let of_cargo = |name: &str| std::env::var(name).unwrap_or_default();
    println!("cargo:rustc-env=ALTHING_PROFILE={}", of_cargo("PROFILE"));
    println!("cargo:rustc-env=ALTHING_OPT_LEVEL={}", of_cargo("OPT_LEVEL"));
    println!("cargo:rustc-env=ALTHING_RUSTFLAGS={}", of_cargo("CARGO_ENCODED_RUSTFLAGS"));
}

fn from_git() -> Option<String> {
    let directory = git(&["rev-parse", "--absolute-git-dir"])?;
    let directory = Path::new(&directory);
    for name in ["HEAD", "logs/HEAD"] {
        let path = directory.join(name);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
