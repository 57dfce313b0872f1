//! The `kchaos` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    kchaos::cli::main()
}
