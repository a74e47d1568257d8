//! Writes the CustomResourceDefinitions beside the crate and, wrapped for Helm, into the chart.

use std::fs;
use std::path::Path;

use althing_crds::definitions;
use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for definition in definitions::all()? {
        let path = root.join(&definition.file);
        fs::write(&path, definition.yaml()?).with_context(|| format!("failed to write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
