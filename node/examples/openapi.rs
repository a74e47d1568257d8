//! Prints the OpenAPI document of the gateway; `make gen` writes it to `docs/openapi.json`.

use althing_node::gateway::{json::Translator, openapi};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:#}", openapi::document(&Translator::new()?)?);
    Ok(())
}
