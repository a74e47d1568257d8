//! Puts the source commit into the program for `--version`.

fn main() {
    println!("cargo:rerun-if-env-changed=ALTHING_COMMIT");
    let commit = std::env::var("ALTHING_COMMIT").unwrap_or_else(|_| "unknown".to_string());
    println!("cargo:rustc-env=ALTHING_BUILT_COMMIT={commit}");
}
