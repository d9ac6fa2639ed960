//! etcd: where the API keeps everything, a copy of it to go back to, and the end of its history.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::process::Process;
use crate::netns::{Netns, wait_until, within};

use super::ports::free_port;
use super::{ApiServer, RETRY, program, relay};

/// What it logs once it has elected itself and listens; and when another process has taken a port of it.
const READY: &str = "ready to serve client requests";
const TAKEN: &str = "address already in use";
const PATIENCE: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 5;
/// How long the API server takes for an answer that needs etcd, at most.
const ANSWER: Duration = Duration::from_secs(5);

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
        self.etcd.process.freeze()?;
        let copied = copy(&self.directory.path().join("etcd"), &to);
        self.etcd.process.thaw()?;
        copied.map(|()| Backup(to))
    }

    /// Cuts the API server, but not its standby, off from etcd: it goes on with what it has in memory. Both run in `netns`.
    pub fn cut_off_from_etcd(&self, netns: &Netns) -> Result<()> {
        cut(netns, "drop")
    }

    /// The same with its connections torn, so that it has to ask etcd for all that it misses. Returns once it has noticed.
    pub async fn tear_off_from_etcd(&self, netns: &Netns) -> Result<()> {
        cut(netns, "meta l4proto tcp reject with tcp reset")?;
        // It asks etcd for the most recent state, and only then learns of the end of the connection.
        let pods = Api::<Pod>::all(self.instance.client.clone());
        let deadline = Instant::now() + PATIENCE;
        // The client asks again where it is told to, so without a word of its own it never ends.
        while let Ok(Ok(_)) = timeout(ANSWER, pods.list(&ListParams::default().limit(1))).await {
            ensure!(Instant::now() < deadline, "the API server still reaches etcd after {PATIENCE:?}");
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }

    /// Undoes [`Self::cut_off_from_etcd`] and [`Self::tear_off_from_etcd`].
    pub fn join_to_etcd(&self, netns: &Netns) -> Result<()> {
        netns.exec("nft delete table ip cut").map(drop)
    }

    /// Has etcd forget all of its history before the present, as the API server has it do every five minutes. Returns the
    /// revision of the present. The gateway of etcd reaches it as the API server does, so it must not be cut off.
    pub fn compact(&self) -> Result<u64> {
        wait_until("etcd to compact its history", PATIENCE, || {
            let compact = || -> Result<u64> {
                let status: Value =
                    serde_json::from_str(&self.ask_etcd("/v3/maintenance/status", &json!({}))?)?;
                let present = status["header"]["revision"].as_str();
                let present = present.context("etcd tells no revision")?.parse()?;
                self.ask_etcd("/v3/kv/compaction", &json!({ "revision": present, "physical": true }))?;
                Ok(present)
            };
            compact().map_err(|error| format!("{error:#}"))
        })
    }

    /// Asks etcd by its gateway from HTTP; what it answers.
    pub(super) fn ask_etcd(&self, path: &str, question: &Value) -> Result<String> {
        let ask = || ask(self.etcd.port, path, &question.to_string());
        match &self.options.netns {
            Some(netns) => within(Path::new(&relay::netns_path(netns)), ask),
            None => ask(),
        }
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

fn cut(netns: &Netns, verdict: &str) -> Result<()> {
    netns.exec("nft add table ip cut")?;
    netns.exec("nft add chain ip cut in { type filter hook input priority 0 ; }")?;
    // Of a connection that is torn its ends have to hear.
    netns.exec("nft add rule ip cut in tcp flags rst accept")?;
    for end in ["saddr", "daddr"] {
        netns.exec(&format!("nft add rule ip cut in ip {end} {CUTTABLE} {verdict}"))?;
    }
    Ok(())
}

fn ask(port: u16, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot reach etcd")?;
    // HTTP/1.0: the answer ends with the connection, and is not in pieces.
    write!(stream, "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, answer) = answer.split_once("\r\n\r\n").context("etcd's answer has no end of its head")?;
    ensure!(head.contains(" 200 "), "etcd refused {path} of {} octets: {head}\n{answer}", body.len());
    Ok(answer.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status().context("cannot run cp")?;
    ensure!(status.success(), "cannot copy {} to {}: {status}", from.display(), to.display());
    Ok(())
}
