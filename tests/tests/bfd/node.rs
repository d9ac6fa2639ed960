//! A node with the real agent and one Pod, and two ToRs: FRR on eth1, BIRD on eth2.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plainroute_tests::lab::probe::Running;
use plainroute_tests::netns::{Daemon, Netns, tail, veth, wait_until};
use plainroute_tests::routers::{Bird, Frr};
use serde_json::Value;
use tempfile::TempDir;

use crate::{DEADLINE, ip};

const RUNNER: &str = env!("CARGO_BIN_EXE_plainroute-lab");
pub(crate) const POD: &str = "10.20.0.10";
pub(crate) const TORS: [&str; 2] = ["172.16.1.254", "172.16.2.254"];
pub(crate) const NODE: [&str; 2] = ["172.16.1.1", "172.16.2.1"];

/// How the sessions are set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// BFD at this interval, three times; without BFD where absent.
    pub(crate) interval: Option<u32>,
    pub(crate) hold_seconds: u16,
}

/// The node, its Pod and both ToRs.
pub(crate) struct World {
    pub(crate) node: Netns,
    pub(crate) pod: Netns,
    pub(crate) tors: [Netns; 2],
    agent: Option<Daemon>,
    pub(crate) frr: Frr,
    pub(crate) bird: Bird,
    dir: TempDir,
}

fn objects(setup: Setup, dir: &std::path::Path) -> String {
    let header = "apiVersion: plainroute.dev/v1alpha1";
    let dir = dir.display();
    let mut text = format!(
        "{header}\nkind: AgentConfig\nmetadata: {{ name: default }}\nspec: {{ nodeName: node-a, adminSocket: {dir}/agent.sock, \
         bfd: {{ socket: {dir}/bfd.sock }}, stateDir: {dir}/state }}\n"
    );
    for (number, (tor, asn)) in TORS.iter().zip([64601, 64602]).enumerate() {
        let bfd = setup.interval.map_or_else(String::new, |interval| {
            format!(
                "bfd: {{ receiveIntervalMilliseconds: {interval}, transmitIntervalMilliseconds: {interval} }}"
            )
        });
        let hold = setup.hold_seconds;
        text += &format!(
            "---\n{header}\nkind: BGPPeer\nmetadata: {{ name: tor-{number} }}\nspec:\n  localASN: 64512\n  peerASN: {asn}\n  \
             peerAddress: {tor}\n  families: [ipv4-unicast]\n  timers: {{ holdTimeSeconds: {hold} }}\n  \
             import: [{{ cidr: 0.0.0.0/0, install: true }}]\n  {bfd}\n"
        );
    }
    text += &format!(
        "---\n{header}\nkind: BGPAdvertisement\nmetadata: {{ name: pods }}\nspec: {{ types: [PodIP] }}\n---\n{header}\nkind: \
         IPPool\nmetadata: {{ name: erp }}\nspec: {{ ipRanges: [{{ cidr: 10.20.0.0/24 }}], allocation: External }}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {{ name: erp }}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: orders, \
         namespace: erp, uid: 00000000-0000-4000-8000-000000000001, annotations: {{ plainroute.dev/host-interface: pod0 }} }}\n\
         spec: {{ nodeName: node-a, containers: [{{ name: main, image: x }}] }}\nstatus:\n  phase: Running\n  podIPs: [{{ ip: \
         {POD} }}]\n  conditions: [{{ type: Ready, status: \"True\" }}]\n"
    );
    text
}

fn frr(setup: Setup) -> String {
    let us = NODE[0];
    let mut text = format!(
        "hostname tor-a\nlog stdout\nfrr defaults datacenter\nrouter bgp 64601\n bgp router-id {}\n no bgp \
         ebgp-requires-policy\n bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n neighbor {us} remote-as \
         64512\n neighbor {us} timers connect 1\n",
        TORS[0]
    );
    if setup.interval.is_some() {
        text += &format!(" neighbor {us} bfd\n neighbor {us} bfd profile fast\n");
    }
    text +=
        &format!(" address-family ipv4 unicast\n  neighbor {us} default-originate\n exit-address-family\n");
    if let Some(interval) = setup.interval {
        // Last: to bgpd, which does not know the words, the ends of sections would be the end of its configuration.
        text += &format!(
            "bfd\n profile fast\n  receive-interval {interval}\n  transmit-interval {interval}\n  detect-multiplier 3\n exit\nexit\n"
        );
    }
    text
}

fn bird(setup: Setup) -> String {
    let (us, them) = (NODE[1], TORS[1]);
    let (bfd, on) = match setup.interval {
        Some(interval) => (
            format!("protocol bfd {{ interface \"*\" {{ interval {interval} ms; multiplier 3; }}; }}\n"),
            "bfd on;",
        ),
        None => (String::new(), ""),
    };
    format!(
        "router id {them};\nlog stderr all;\nprotocol device {{ scan time 1; }}\nprotocol static {{ ipv4; route 0.0.0.0/0 unreachable; \
         }}\nprotocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n{bfd}protocol bgp node {{ local {them} \
         as 64602; neighbor {us} as 64512; connect delay time 1; error wait time 1, 2; error forget time 1; {on} ipv4 {{ import all; export where net = 0.0.0.0/0; next hop \
         self; }}; }}\n"
    )
}

impl World {
    /// Everything up: both sessions, the Pod at both ToRs, the default route by both.
    pub(crate) fn new(setup: Setup) -> World {
        let (node, pod) = (Netns::new("node").unwrap(), Netns::new("pod").unwrap());
        let tors = [Netns::new("tor-a").unwrap(), Netns::new("tor-b").unwrap()];
        for (number, tor) in tors.iter().enumerate() {
            let ours = format!("eth{}", number + 1);
            veth((&node, &ours), (tor, "eth0")).unwrap();
            node.address(&ours, &format!("{}/24", NODE[number])).unwrap();
            tor.address("eth0", &format!("{}/24", TORS[number])).unwrap();
            tor.sysctl("net.ipv4.ip_forward", "1").unwrap();
        }
        veth((&node, "pod0"), (&pod, "eth0")).unwrap();
        node.address("pod0", "169.254.1.1/32").unwrap();
        node.sysctl("net.ipv4.ip_forward", "1").unwrap();
        pod.address("eth0", &format!("{POD}/32")).unwrap();
        pod.exec("ip route add 169.254.1.1 dev eth0").unwrap();
        pod.exec("ip route add default via 169.254.1.1").unwrap();
        let dir = tempfile::Builder::new().prefix("prt-bfd-").tempdir().unwrap();
        std::os::unix::fs::symlink(RUNNER, dir.path().join("plainroute")).unwrap();
        std::fs::write(dir.path().join("config.yaml"), objects(setup, dir.path())).unwrap();
        let frr = Frr::launch(&tors[0], &frr(setup)).unwrap();
        let bird = Bird::launch(&tors[1], &bird(setup)).unwrap();
        let mut world = World { node, pod, tors, agent: None, frr, bird, dir };
        world.start_agent();
        world.await_whole(setup.interval.is_some());
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn start_agent(&mut self) {
        let program = self.path("plainroute").display().to_string();
        let config = self.path("config.yaml").display().to_string();
        let argv = [program.as_str(), "agent", "--config", &config];
        self.agent = Some(self.node.spawn(&argv, &self.path("agent.log")).unwrap());
    }

    /// SIGKILL, to the agent alone.
    pub(crate) fn crash_agent(&mut self) {
        let mut agent = self.agent.take().expect("an agent");
        agent.signal(Signal::SIGKILL).unwrap();
        agent.wait(DEADLINE).unwrap();
    }

    /// SIGTERM.
    pub(crate) fn stop_agent(&mut self) {
        self.agent.take().expect("an agent").terminate(DEADLINE).unwrap();
    }

    /// Other objects for the running agent.
    pub(crate) fn reconfigure(&self, setup: Setup) {
        std::fs::write(self.path("config.yaml"), objects(setup, self.dir.path())).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// `plainroute peers -o json`, by peer.
    pub(crate) fn peer(&self, number: usize) -> Result<Value, String> {
        let socket = self.path("agent.sock").display().to_string();
        let output = Command::new(self.path("plainroute"))
            .args(["peers", "-o", "json", "--socket", &socket])
            .output()
            .map_err(|error| error.to_string())?;
        let shown: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        Ok(shown[number].clone())
    }

    pub(crate) fn await_peer(&self, number: usize, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let result =
            wait_until(&format!("tor-{number} to be {what}"), DEADLINE, || match self.peer(number) {
                Ok(peer) if holds(&peer) => Ok(peer),
                Ok(peer) => Err(peer.to_string()),
                Err(error) => Err(error),
            });
        result.unwrap_or_else(|error| panic!("{error}\n{}", tail(&self.log(), 30)))
    }

    /// Waits until both sessions carry everything.
    pub(crate) fn await_whole(&self, bfd: bool) {
        for number in [0, 1] {
            self.await_peer(number, "whole", |peer| {
                let agreed =
                    peer["bfd"]["detectionTimeMicroseconds"].as_u64().is_some_and(|time| time < 1_000_000);
                let up = !bfd || (peer["bfd"]["path"] == "Up" && agreed);
                peer["state"] == "Established" && peer["families"]["ipv4-unicast"]["advertised"] == 1 && up
            });
        }
        self.await_default(&TORS);
        for tor in &self.tors {
            let what = format!("{} to forward to the Pod", tor.name());
            wait_until(&what, DEADLINE, || match tor.exec(&format!("ip route show {POD}")) {
                Ok(shown) if !shown.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .unwrap();
        }
    }

    /// Waits until the kernel's default route leads to these.
    pub(crate) fn await_default(&self, via: &[&str]) {
        wait_until(&format!("a default route by {via:?}"), DEADLINE, || {
            let shown = self.node.exec("ip route show default").unwrap();
            let right = TORS.iter().all(|tor| shown.contains(tor) == via.contains(tor));
            if right { Ok(()) } else { Err(shown) }
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", tail(&self.log(), 30)));
    }

    /// Drops every packet on a ToR's link, in both directions and without telling anybody: no link goes down, no sender
    /// hears of it. Gives when the node's and the ToR's first was dropped, at the earliest.
    pub(crate) fn cut(&self, tor: usize) -> [SystemTime; 2] {
        let drop = |device: &str| {
            format!(
                "nft add table netdev cut {{ chain in {{ type filter hook ingress device {device} priority 0 ; drop ; }} ; }}"
            )
        };
        let at_node = SystemTime::now();
        self.node.exec(&drop(&format!("eth{}", tor + 1))).unwrap();
        let at_tor = SystemTime::now();
        self.tors[tor].exec(&drop("eth0")).unwrap();
        [at_node, at_tor]
    }

    pub(crate) fn heal(&self, tor: usize) {
        self.node.exec("nft delete table netdev cut").unwrap();
        self.tors[tor].exec("nft delete table netdev cut").unwrap();
    }

    /// Packets from a ToR to the Pod and back.
    pub(crate) fn probe(&self, tor: usize) -> Running {
        Running::between(&self.tors[tor], &self.pod, ip(POD)).unwrap()
    }

    /// The process that the agent started.
    pub(crate) fn bfd_process(&self) -> Option<Pid> {
        let socket = self.path("bfd.sock").display().to_string();
        let numbers = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let is_it = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|octet| *octet == 0).collect();
            words.get(1) == Some(&&b"bfd"[..]) && words.contains(&socket.as_bytes())
        };
        let mut found = numbers.filter(is_it);
        found.next().map(Pid::from_raw)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent:\n{}", tail(&self.log(), 40));
        }
        drop(self.agent.take());
        // Nobody else ends it: it is made to outlive the agent.
        if let Some(pid) = self.bfd_process() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// What `ip monitor route` shows in a namespace, with the moment of each change.
pub(crate) struct Monitor {
    daemon: Daemon,
    _dir: TempDir,
}

impl Monitor {
    pub(crate) fn start(netns: &Netns) -> Monitor {
        let dir = tempfile::tempdir().unwrap();
        let argv = ["stdbuf", "-oL", "ip", "-tshort", "-oneline", "monitor", "route"];
        let daemon = netns.spawn(&argv, &dir.path().join("monitor.log")).unwrap();
        let monitor = Monitor { daemon, _dir: dir };
        // It listens once a change of ours shows.
        wait_until("the monitor to listen", DEADLINE, || {
            netns.exec("ip route replace 192.0.2.99/32 dev lo").unwrap();
            netns.exec("ip route delete 192.0.2.99/32 dev lo").unwrap();
            if monitor.daemon.log().contains("192.0.2.99") { Ok(()) } else { Err("nothing") }
        })
        .unwrap();
        monitor
    }

    /// Waits for the first change after a moment that satisfies a condition; gives how long after.
    pub(crate) fn await_change(
        &self,
        after: SystemTime,
        deadline: Duration,
        is: impl Fn(&str) -> bool,
    ) -> Duration {
        wait_until("a change of routes", deadline, || {
            let log = self.daemon.log();
            let found = log.lines().filter_map(|line| {
                let (stamp, rest) = line.strip_prefix('[')?.split_once(']')?;
                let stamp: jiff::civil::DateTime = stamp.parse().ok()?;
                let stamp = stamp.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp();
                let since = SystemTime::from(stamp).duration_since(after).ok()?;
                is(rest).then_some(since)
            });
            found.min().ok_or_else(|| tail(&log, 5))
        })
        .unwrap()
    }
}
