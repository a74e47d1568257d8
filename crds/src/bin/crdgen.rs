//! Writes the CustomResourceDefinitions beside the crate and, wrapped for Helm, into the chart.

use std::fs;
use std::path::Path;

use althing_crds::definitions;
use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chart = crds.join("../charts/althing/templates/crds");
    fs::create_dir_all(&chart).with_context(|| format!("failed to make {}", chart.display()))?;
    for definition in definitions::all()? {
        let files = [
            (crds.join(&definition.file), definition.yaml()?),
            (chart.join(&definition.file), definition.chart_template()?),
        ];
        for (path, text) in files {
            fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        println!("{}", definition.file);
    }
    Ok(())
}
