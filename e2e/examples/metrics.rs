//! Prints the list of metrics; `make gen` writes it to `docs/metrics.md`.

fn main() -> anyhow::Result<()> {
    print!("{}", althing_e2e::metrics_document::document()?);
    Ok(())
}
