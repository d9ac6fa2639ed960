//! etcd: where the API keeps everything, and a copy of it to go back to.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::process::Process;
use crate::netns::Netns;

use super::ports::free_port;
use super::{ApiServer, RETRY, program};

/// What it logs once it has elected itself and listens; and when another process has taken a port of it.
const READY: &str = "ready to serve client requests";
const TAKEN: &str = "address already in use";
const PATIENCE: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 5;

/// Where the API server that agents know reaches etcd; a standby does so at 127.0.0.1. So the one can be cut off.
pub(super) const CUTTABLE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// One etcd over one directory, at ports of its own.
pub(super) struct Etcd {
    process: Process,
    pub(super) port: u16,
    peer_port: u16,
}

impl Etcd {
    /// Returns when it serves: kube-apiserver gives up on an etcd that it cannot reach.
    pub(super) async fn start(programs: &Path, directory: &Path, netns: Option<&str>) -> Result<Etcd> {
        let own = [Ipv4Addr::LOCALHOST.into(), CUTTABLE.into()];
        for _ in 0..ATTEMPTS {
            let (port, peer_port) = (free_port(&own)?, free_port(&own)?);
            let mut process = start(programs, directory, netns, (port, peer_port))?;
            match ready(&mut process).await {
                Ok(()) => return Ok(Etcd { process, port, peer_port }),
                Err(_) if process.has_said(TAKEN)? => continue,
                Err(error) => return Err(error),
            }
        }
        bail!("other processes took the ports of etcd {ATTEMPTS} times")
    }
}

async fn ready(process: &mut Process) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !process.has_said(READY)? {
        process.still_runs()?;
        if Instant::now() > deadline {
            bail!("etcd did not serve within {PATIENCE:?}; it said last:\n{}", process.last_words());
        }
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

fn start(
    programs: &Path,
    directory: &Path,
    netns: Option<&str>,
    (port, peer_port): (u16, u16),
) -> Result<Process> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = program(programs, "etcd", netns);
    command
        .arg(format!("--data-dir={}", directory.join("etcd").display()))
        .arg(format!("--listen-client-urls={client},http://{CUTTABLE}:{port}"))
        .arg(format!("--advertise-client-urls={client}"))
        .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
        .arg(format!("--initial-cluster=default={peer}"))
        .args(["--unsafe-no-fsync=true", "--log-level=info"]);
    Process::start("etcd", command, directory)
}

/// All that the API knew at one moment.
#[derive(Debug)]
pub struct Backup(PathBuf);

impl ApiServer {
    /// Copies etcd's directory while etcd stands still: what a machine that lost its power would start from.
    pub fn back_up(&self) -> Result<Backup> {
        let to = self.directory.path().join("backup");
        self.etcd.process.signal(Signal::SIGSTOP)?;
        let copied = copy(&self.directory.path().join("etcd"), &to);
        self.etcd.process.signal(Signal::SIGCONT)?;
        copied.map(|()| Backup(to))
    }

    /// Cuts the API server, but not its standby, off from etcd: it goes on with what it has in memory. Both run in `netns`.
    pub fn cut_off_from_etcd(&self, netns: &Netns) -> Result<()> {
        netns.exec("nft add table ip cut")?;
        netns.exec("nft add chain ip cut in { type filter hook input priority 0 ; }")?;
        for end in ["saddr", "daddr"] {
            netns.exec(&format!("nft add rule ip cut in ip {end} {CUTTABLE} drop"))?;
        }
        Ok(())
    }

    /// Undoes [`Self::cut_off_from_etcd`].
    pub fn join_to_etcd(&self, netns: &Netns) -> Result<()> {
        netns.exec("nft delete table ip cut").map(drop)
    }

    /// Puts a backup in etcd's place, as a disaster recovery does: every API server is stopped before, and started after.
    pub async fn restore(&mut self, backup: &Backup) -> Result<()> {
        self.kill().await?;
        if let Some(standby) = &mut self.standby
            && let Some(mut process) = standby.process.take()
        {
            process.kill().await?;
        }
        self.etcd.process.kill().await?;
        let data = self.directory.path().join("etcd");
        std::fs::remove_dir_all(&data)?;
        copy(&backup.0, &data)?;
        let ports = (self.etcd.port, self.etcd.peer_port);
        self.etcd.process =
            start(&self.programs, self.directory.path(), self.options.netns.as_deref(), ports)?;
        ready(&mut self.etcd.process).await?;
        self.restart().await?;
        self.start_standby().await
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status().context("cannot run cp")?;
    ensure!(status.success(), "cannot copy {} to {}: {status}", from.display(), to.display());
    Ok(())
}
