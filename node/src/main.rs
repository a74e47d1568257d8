//! The `althing-node` program: parses the command line, runs one command, and turns its result into an exit code.

use althing_node::commands;

fn main() -> std::process::ExitCode {
    commands::main()
}
