//! TCP-AO between two agents, from their files to what `plainroute peers` says: signed and rolled where this host's
//! kernel can, else kept down by name on both sides.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plainroute_speaker::{TcpAoAlgorithm, TcpAoSupport};
use plainroute_tests::netns::{Daemon, Netns, veth, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// The lab runner is the program too, under its name.
const RUNNER: &str = env!("CARGO_BIN_EXE_plainroute-lab");
const DEADLINE: Duration = Duration::from_secs(30);
const MISSING: &str = "TCP-AO is not in this kernel (needs Linux 6.7 with CONFIG_TCP_AO)";

/// An agent in a namespace of its own; number 1 connects to number 2.
struct Node {
    number: u8,
    ns: Netns,
    disk: TempDir,
    agent: Option<Daemon>,
}

impl Node {
    fn new(number: u8) -> Result<Node> {
        let disk = tempfile::Builder::new().prefix("prt-ao-").tempdir()?;
        symlink(RUNNER, disk.path().join("plainroute"))?;
        Ok(Node { number, ns: Netns::new(&format!("ao-{number}"))?, disk, agent: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    /// Writes the configuration, with these keys in order: the IDs as node 1 has them; the secret is in the file of
    /// that send ID.
    fn configure(&self, keys: &[(u8, u8)]) -> Result<()> {
        let disk = self.disk.path().display();
        let (number, other) = (self.number, 3 - self.number);
        let keys: String = keys
            .iter()
            .map(|(a, b)| {
                let (send, receive) = if number == 1 { (a, b) } else { (b, a) };
                format!(
                    "      - {{ sendID: {send}, receiveID: {receive}, algorithm: cmac(aes128), file: {disk}/key-{a} }}\n"
                )
            })
            .collect();
        let role = if number == 1 { "peerPort: 1790" } else { "listenPort: 1790\n  passive: true" };
        let text = format!(
            "apiVersion: plainroute.dev/v1alpha1\nkind: AgentConfig\nmetadata: {{ name: agent }}\n\
             spec:\n  nodeName: node-{number}\n  adminSocket: {disk}/agent.sock\n  stateDir: {disk}/state\n---\n\
             apiVersion: plainroute.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{ name: other }}\n\
             spec:\n  localASN: {}\n  peerASN: {}\n  peerAddress: 192.0.2.{other}\n  routerID: 192.0.2.{number}\n  \
             {role}\n  tcpAO:\n    keys:\n{keys}",
            64600 + u32::from(number),
            64600 + u32::from(other),
        );
        // At once, so that no half of it is read.
        fs::write(self.path("new"), text)?;
        Ok(fs::rename(self.path("new"), self.path("agent.yaml"))?)
    }

    fn start(&mut self) -> Result<()> {
        let (program, config) = (self.path("plainroute"), self.path("agent.yaml"));
        let argv = [&*program.to_string_lossy(), "agent", "--config", &*config.to_string_lossy()];
        self.agent = Some(self.ns.spawn(&argv, &self.path("agent.log"))?);
        Ok(())
    }

    fn peer(&self) -> Result<Value> {
        let mut command = Command::new(self.path("plainroute"));
        let output =
            command.args(["peers", "-o", "json", "--socket"]).arg(self.path("agent.sock")).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let peers: Value = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
        Ok(peers[0].clone())
    }

    fn await_peer(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_until(&format!("node {} to show {what}", self.number), DEADLINE, || match self.peer() {
            Ok(peer) if holds(&peer) => Ok(peer),
            Ok(peer) => Err(peer.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
        .with_context(|| fs::read_to_string(self.path("agent.log")).unwrap_or_default())
    }

    /// Waits until the session stands with this key in use both ways, by node 1's IDs, and no other is left.
    fn await_key(&self, (a, b): (u8, u8)) -> Result<Value> {
        let (send, receive) = if self.number == 1 { (a, b) } else { (b, a) };
        self.await_peer(&format!("key {send}/{receive} in use"), |peer| {
            let signed = &peer["authentication"];
            peer["state"] == "Established"
                && signed["method"] == "TCP-AO"
                && signed["currentKeyID"] == send
                && signed["nextKeyID"] == receive
                && signed["retiringKeys"].is_null()
        })
    }
}

fn is_blocked(peer: &Value, reason: &str) -> bool {
    peer["blocked"].as_str().is_some_and(|blocked| blocked.contains(reason))
}

#[test]
fn two_agents_sign_and_roll_or_say_that_the_kernel_cannot() -> Result<()> {
    const OLD: (u8, u8) = (1, 2);
    const NEW: (u8, u8) = (3, 4);
    let mut nodes = [Node::new(1)?, Node::new(2)?];
    veth((&nodes[0].ns, "eth0"), (&nodes[1].ns, "eth0"))?;
    for node in &mut nodes {
        node.ns.up("lo")?;
        node.ns.address("eth0", &format!("192.0.2.{}/24", node.number))?;
        node.configure(&[OLD])?;
        node.start()?;
    }
    // A secret that is not there keeps the session down by its name, whatever the kernel can.
    for node in &nodes {
        let peer = node.await_peer("the missing file", |peer| is_blocked(peer, "key-1: No such file"))?;
        ensure!(peer["state"] == "Idle" && peer["authentication"]["method"] == "TCP-AO", "{peer}");
        fs::write(node.path("key-1"), "the old secret\n")?;
    }
    if TcpAoSupport::probe().refusal(TcpAoAlgorithm::CmacAes128).is_some() {
        for node in &nodes {
            let peer = node.await_peer("what the kernel lacks", |peer| is_blocked(peer, MISSING))?;
            ensure!(peer["state"] == "Idle" && peer["establishedCount"] == 0, "{peer}");
        }
        return Ok(());
    }

    for node in &nodes {
        node.await_key(OLD)?;
    }
    // A key whose secret is still to come costs nothing; with it the session moves on, and the old one goes.
    for node in &nodes {
        node.configure(&[NEW, OLD])?;
        fs::write(node.path("key-3"), "the new secret\n")?;
    }
    for node in &nodes {
        node.await_key(NEW)?;
        node.configure(&[NEW])?;
    }
    for node in &nodes {
        let peer = node.await_key(NEW)?;
        ensure!(peer["establishedCount"] == 1 && peer["lostCount"] == 0, "{peer}");
        ensure!(peer["tcpAOFailures"]["bad"] == 0, "{peer}");
    }
    Ok(())
}
