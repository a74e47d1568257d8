//! The `althing-node` program: parses the command line, runs one command, and turns its result into an exit code.

use althing_node::commands;
use mimalloc::MiMalloc;

/// The allocator of libc costs a transaction a tenth more (docs/performance.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    commands::main()
}
