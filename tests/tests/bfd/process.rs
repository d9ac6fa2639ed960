//! The process under test, and an agent's side of its socket.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plainroute_agent::bfd::protocol::{BfdPath, BfdView, SessionSpec, TargetSpec, Told, Wanted};
use plainroute_tests::netns::{Daemon, Netns, wait_until};
use tempfile::TempDir;

use crate::{DEADLINE, THEIRS, ip};

/// The lab runner is the program too, under its name.
const RUNNER: &str = env!("CARGO_BIN_EXE_plainroute-lab");

/// `plainroute bfd` in a namespace.
pub(crate) struct Process {
    pub(crate) daemon: Daemon,
    dir: TempDir,
}

impl Process {
    /// Starts it; returns once its socket is there.
    pub(crate) fn start(netns: &Netns) -> Process {
        Process::start_with(netns, &[])
    }

    pub(crate) fn start_with(netns: &Netns, more: &[&str]) -> Process {
        let dir = tempfile::Builder::new().prefix("prt-bfd-").tempdir().unwrap();
        std::os::unix::fs::symlink(RUNNER, dir.path().join("plainroute")).unwrap();
        let daemon = Process::launch(netns, &dir, more);
        let mut process = Process { daemon, dir };
        let socket = process.socket();
        let ready = wait_until("the BFD process to listen", DEADLINE, || {
            process.daemon.ensure_running().unwrap();
            if socket.exists() { Ok(()) } else { Err("no socket") }
        });
        ready.unwrap();
        process
    }

    fn launch(netns: &Netns, dir: &TempDir, more: &[&str]) -> Daemon {
        let program = dir.path().join("plainroute").display().to_string();
        let socket = dir.path().join("bfd.sock").display().to_string();
        let argv = [&[program.as_str(), "bfd", "--socket", &socket][..], more].concat();
        netns.spawn(&argv, &dir.path().join("bfd.log")).unwrap()
    }

    /// Starts another one on the same socket.
    pub(crate) fn rival(&self, netns: &Netns) -> Daemon {
        Process::launch(netns, &self.dir, &[])
    }

    /// A new one on the same socket after the end of this.
    pub(crate) fn restart(&mut self, netns: &Netns) {
        let _ = std::fs::remove_file(self.socket());
        self.daemon = Process::launch(netns, &self.dir, &[]);
        let socket = self.socket();
        wait_until("the socket", DEADLINE, || if socket.exists() { Ok(()) } else { Err("none") }).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("bfd.sock")
    }

    /// Connects to it as an agent does.
    pub(crate) fn attach(&self) -> Agent {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Agent { stream, lines }
    }
}

/// An agent's connection.
pub(crate) struct Agent {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Agent {
    /// Says which sessions there shall be.
    pub(crate) fn want(&mut self, sessions: &[SessionSpec]) {
        let wanted = Wanted { sessions: sessions.to_vec() };
        self.say(&serde_json::to_string(&wanted).unwrap());
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next that it is told; none where the connection has ended.
    pub(crate) fn hear(&mut self) -> Option<Told> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        (length > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// Listens until what it is told satisfies a condition, and gives it.
    pub(crate) fn await_told(&mut self, what: &str, condition: impl Fn(&Told) -> bool) -> Told {
        let (start, mut last) = (Instant::now(), None);
        while start.elapsed() < DEADLINE {
            let told = self.hear().unwrap_or_else(|| panic!("it hung up before {what}; last: {last:?}"));
            if condition(&told) {
                return told;
            }
            last = Some(told);
        }
        panic!("never {what}; last: {last:?}")
    }

    /// Until every session is up at the agreed pace.
    pub(crate) fn await_up(&mut self) -> Told {
        self.await_told("all up", |told| {
            let up = |view: &BfdView| {
                let fast = view.detection_time_microseconds.is_some_and(|time| time < 2_500_000);
                view.path == BfdPath::Up && fast
            };
            !told.sessions.is_empty() && told.sessions.iter().all(|session| up(&session.status))
        })
    }
}

/// A session at these intervals.
pub(crate) fn session(peer: &str, receive: u32, transmit: u32, multiplier: u8) -> SessionSpec {
    let peer_address = ip(peer);
    let link_local = peer.starts_with("fe80");
    SessionSpec {
        target: TargetSpec {
            peer_address,
            interface: link_local.then(|| "eth0".to_owned()),
            local_address: None,
            hops: Some(NonZeroU8::MIN),
        },
        receive_interval_milliseconds: NonZeroU32::new(receive).unwrap(),
        transmit_interval_milliseconds: NonZeroU32::new(transmit).unwrap(),
        detect_multiplier: NonZeroU8::new(multiplier).unwrap(),
    }
}

/// Sessions with all addresses of the router, three times 100 ms.
pub(crate) fn all() -> Vec<SessionSpec> {
    THEIRS.iter().map(|peer| session(peer, 100, 100, 3)).collect()
}

/// How the session with a peer is.
pub(crate) fn of(told: &Told, peer: &str) -> BfdView {
    let peer: IpAddr = ip(peer);
    let session = told.sessions.iter().find(|session| session.target.peer_address == peer);
    session.unwrap_or_else(|| panic!("no session with {peer}: {told:?}")).status.clone()
}

/// Our discriminators, in the order of the sessions.
pub(crate) fn discriminators(told: &Told) -> Vec<u32> {
    told.sessions.iter().map(|session| session.status.local_discriminator).collect()
}

/// Waits for what a router says.
pub(crate) fn await_router<T>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    await_router_within(what, DEADLINE, ask)
}

pub(crate) fn await_router_within<T>(
    what: &str,
    deadline: Duration,
    ask: impl FnMut() -> Result<T, String>,
) -> T {
    wait_until(&format!("the router to say: {what}"), deadline, ask).unwrap()
}
