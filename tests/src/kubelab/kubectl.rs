//! The program that people type: kubectl, of the same version as the API server.

use std::io::Write as _;
use std::process::{Output, Stdio};

use anyhow::{Context, Result};

use super::{ApiServer, program, programs};

impl ApiServer {
    /// Runs it as the administrator, where the API server runs, with `input` as its standard input.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let programs = tokio::task::spawn_blocking(|| programs(&["kubectl"])).await??;
        let mut command = program(&programs, "kubectl", self.options.netns.as_deref());
        command
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            // It keeps what it knows of the API, which is another one in the next test.
            .arg(format!("--cache-dir={}", self.directory.path().join("kubectl-cache").display()))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        // One that has failed need not have read all of it.
        if output.status.success() {
            written?;
        }
        Ok(output)
    }
}
