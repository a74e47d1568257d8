//! Compiles the protobuf files into OUT_DIR: message and call types, and the descriptor set that reflection serves.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 9] = [
    "althing/v1/transactions.proto",
    "althing/v1/accounts.proto",
    "althing/v1/blocks.proto",
    "althing/v1/validators.proto",
    "althing/v1/node.proto",
    "althing/v1/lifecycle.proto",
    "althing/v1/votes.proto",
    "althing/v1/events.proto",
    "althing/v1/peer.proto",
];

/// Bodies that are large or frequent are shared slices of what was received, not copies.
const SHARED_BYTES: [&str; 8] = [
    ".althing.v1.SubmitRequest.transaction",
    ".althing.v1.SubmitBatchRequest.transactions",
    ".althing.v1.SubmitStreamRequest.transactions",
    ".althing.v1.Receipt.receipt",
    ".althing.v1.Block.block",
    ".althing.v1.Block.certificate",
    ".althing.v1.SeenVote.vote",
    ".althing.v1.Frame.body",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("althing.v1.descriptors.bin"), descriptors.encode_to_vec())?;
    // Without the generated `connect`: it would clash with `Peer.Connect`, and `client.rs` has the only way to dial.
    let mut builder = tonic_prost_build::configure().build_transport(false);
    for path in SHARED_BYTES {
        builder = builder.bytes(path);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
