//! The program: started by a CNI plugin such as `ptp`, once for each command; or by hand, to put itself into a directory.
use std::{
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
};

use crate::{agent, install, plugin};

/// A network configuration with a previous result is some kilobytes.
const LONGEST_INPUT: u64 = 16 << 20;

const USAGE: &str = "plainroute-ipam is a CNI IPAM plugin: container runtimes start it, by the environment of the CNI specification.
By hand:
  plainroute-ipam install DIRECTORY   copy it into a node's directory of CNI plugins, like /opt/cni/bin
  plainroute-ipam --version";

/// Does what the environment or the arguments say.
pub fn run() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    match words[..] {
        [] => {}
        ["install", _] => return installed(Path::new(&arguments[1])),
        ["--version" | "-V"] => {
            println!("plainroute-ipam {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    let mut input = Vec::new();
    // What could not be read is seen as cut off, and refused as such.
    let _ = io::stdin().take(LONGEST_INPUT).read_to_end(&mut input);
    let outcome = plugin::run(&|name| std::env::var_os(name), &input, &agent::ask);
    // Whoever started us may be gone.
    let _ = io::stdout().write_all(outcome.output.as_bytes());
    if outcome.done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn installed(directory: &Path) -> ExitCode {
    match install::into(directory) {
        Ok(file) => {
            println!("plainroute-ipam {} is {}", env!("CARGO_PKG_VERSION"), file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("plainroute-ipam: install into {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
