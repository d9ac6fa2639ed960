//! `plainroute agent --record` and `plainroute replay`, as they are typed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use plainroute_tests::netns::{Daemon, Netns, veth, wait_until};
use tempfile::TempDir;

/// The lab runner is the program too, under its name.
const RUNNER: &str = env!("CARGO_BIN_EXE_plainroute-lab");
const DEADLINE: Duration = Duration::from_secs(30);

/// An agent in a namespace of its own; number 1 connects to number 2, which advertises nothing either.
struct Node {
    number: u8,
    ns: Netns,
    disk: TempDir,
}

impl Node {
    fn new(number: u8) -> Result<Node> {
        let disk = tempfile::Builder::new().prefix("prt-rec-").tempdir()?;
        symlink(RUNNER, disk.path().join("plainroute"))?;
        fs::write(disk.path().join("password"), "a well kept secret\n")?;
        Ok(Node { number, ns: Netns::new(&format!("rec-{number}"))?, disk })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    fn configure(&self) -> Result<()> {
        let disk = self.disk.path().display();
        let (number, other) = (self.number, 3 - self.number);
        let role = if number == 1 { "peerPort: 1790" } else { "listenPort: 1790\n  passive: true" };
        let text = format!(
            "apiVersion: plainroute.dev/v1alpha1\nkind: AgentConfig\nmetadata: {{ name: agent }}\n\
             spec:\n  nodeName: node-{number}\n  adminSocket: {disk}/agent.sock\n  stateDir: {disk}/state\n---\n\
             apiVersion: plainroute.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{ name: other }}\n\
             spec:\n  localASN: {}\n  peerASN: {}\n  peerAddress: 192.0.2.{other}\n  routerID: 192.0.2.{number}\n  \
             {role}\n  authFile: {disk}/password\n",
            64600 + u32::from(number),
            64600 + u32::from(other),
        );
        Ok(fs::write(self.path("agent.yaml"), text)?)
    }

    fn start(&self) -> Result<Daemon> {
        let paths =
            ["plainroute", "agent.yaml", "recording"].map(|name| self.path(name).display().to_string());
        let argv = [&*paths[0], "agent", "--config", &*paths[1], "--record", &*paths[2]];
        self.ns.spawn(&argv, &self.path("agent.log"))
    }

    fn replay(&self, arguments: &[&str]) -> Result<Replayed> {
        let mut command = Command::new(self.path("plainroute"));
        let Output { status, stdout, stderr } =
            command.arg("replay").arg(self.path("recording")).args(arguments).output()?;
        let text = |octets| String::from_utf8(octets);
        Ok(Replayed { code: status.code(), stdout: text(stdout)?, stderr: text(stderr)? })
    }
}

#[derive(Debug)]
struct Replayed {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

#[test]
fn what_agents_recorded_is_replayed_whole_cut_and_altered() -> Result<()> {
    let nodes = [Node::new(1)?, Node::new(2)?];
    veth((&nodes[0].ns, "eth0"), (&nodes[1].ns, "eth0"))?;
    let mut agents = Vec::new();
    for node in &nodes {
        node.ns.up("lo")?;
        node.ns.up("eth0")?;
        node.ns.address("eth0", &format!("192.0.2.{}/24", node.number))?;
        node.configure()?;
        agents.push(node.start()?);
    }
    // Before anybody stops: what is told is in the file within a second or so.
    for node in &nodes {
        wait_until("the recording to show the session", DEADLINE, || {
            let replayed = node.replay(&[]).map_err(|error| error.to_string())?;
            let up = replayed.stdout.contains("OpenConfirm to Established");
            let log = fs::read_to_string(node.path("agent.log")).unwrap_or_default();
            if up { Ok(()) } else { Err(format!("{replayed:?}\n{log}")) }
        })?;
        let mode = fs::metadata(node.path("recording"))?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{mode:o}");
    }
    // One is told to stop, the other has no time to say that it ends.
    agents[0].terminate(DEADLINE)?;
    agents[1].signal(Signal::SIGKILL)?;
    agents[1].wait(DEADLINE)?;

    let whole = nodes[0].replay(&[])?;
    ensure!(whole.code == Some(0) && whole.stdout.ends_with("all is as recorded\n"), "{whole:?}");
    for line in [
        "OPEN AS 64602, router ID 192.0.2.2",
        "received  KEEPALIVE (connection ",
        "Idle; 1 times Established",
    ] {
        ensure!(whole.stdout.contains(line), "no {line:?}: {}", whole.stdout);
    }
    let killed = nodes[1].replay(&["--peer", "other"])?;
    ensure!(
        killed.code == Some(0) && killed.stdout.contains("the file was cut short at octet"),
        "{killed:?}"
    );
    let stranger = nodes[0].replay(&["--peer", "nobody"])?;
    ensure!(
        stranger.code == Some(2) && stranger.stderr.contains("no session with a peer nobody"),
        "{stranger:?}"
    );

    let recording = fs::read(nodes[0].path("recording"))?;
    let secret = b"a well kept secret";
    ensure!(
        !recording.windows(secret.len()).any(|octets| octets == secret),
        "a password is in the recording"
    );

    // What somebody recorded is not written over.
    let mut second = nodes[0].start()?;
    ensure!(second.wait(DEADLINE)?.code() == Some(2));
    ensure!(second.log().contains("the file exists and is not empty"), "{}", second.log());
    ensure!(fs::read(nodes[0].path("recording"))? == recording);

    let mut altered = recording;
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    fs::write(nodes[0].path("recording"), &altered)?;
    let altered = nodes[0].replay(&[])?;
    ensure!(altered.code == Some(1) && altered.stdout.contains(" is corrupt; "), "{altered:?}");
    Ok(())
}
