//! Our own binaries.
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The agent: `$PLAINROUTE`, or what was built beside this test (`cargo build -p plainroute-agent`).
pub fn program() -> Result<PathBuf> {
    beside("PLAINROUTE", "plainroute", "plainroute-agent")
}

/// The CNI plugin: `$PLAINROUTE_IPAM`, or what was built beside this test (`cargo build -p plainroute-ipam`).
pub fn ipam_plugin() -> Result<PathBuf> {
    beside("PLAINROUTE_IPAM", "plainroute-ipam", "plainroute-ipam")
}

fn beside(variable: &str, name: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    // A test stands in `deps`, a program one above.
    let path = std::env::current_exe()?.ancestors().nth(2).context("a directory")?.join(name);
    ensure!(path.exists(), "no {}; run `cargo build -p {package}` first", path.display());
    Ok(path)
}
