//! The binary: parses arguments and runs.
use std::process::ExitCode;

fn main() -> ExitCode {
    plainroute_agent::cli::run()
}
