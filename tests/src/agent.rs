//! The agent's own binary.
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The agent: `$PLAINROUTE`, or what was built beside this test (`cargo build -p plainroute-agent`).
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PLAINROUTE") {
        return Ok(path.into());
    }
    // A test stands in `deps`, a program one above.
    let path = std::env::current_exe()?.ancestors().nth(2).context("a directory")?.join("plainroute");
    ensure!(path.exists(), "no {}; run `cargo build -p plainroute-agent` first", path.display());
    Ok(path)
}
