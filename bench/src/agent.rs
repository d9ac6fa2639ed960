//! The release agent with files, as a node without a cluster runs it.
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plainroute_tests::netns::{Daemon, Netns, tail};
use tempfile::TempDir;

use crate::bfd::{INTERVAL, MULTIPLIER};
use crate::clock::Moment;
use crate::site::{self, HOST, address, asn};
use crate::usage::Usage;
use crate::wire::{Family, HOLD_TIME, Numbering};

/// The link that the node's Pods are behind.
const LINK: &str = "pods0";

/// The CNI socket's name.
#[cfg(feature = "kubernetes")]
const SOCKET: &str = "ipam.sock";

/// How the agent's one peer is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peering {
    /// The agent waits for it.
    Waits,
    /// The agent connects to it.
    Connects,
}

/// A running agent and its files.
pub(crate) struct Agent {
    daemon: Daemon,
    /// `plainroute bfd`, where the peer is watched. The agent would leave one behind that it starts itself.
    _bfd: Option<Daemon>,
    /// When it was started.
    pub(crate) started: Moment,
    directory: TempDir,
}

impl Agent {
    /// Starts it on a node with so many Pods and one peer, from which everything is taken into the kernel.
    pub(crate) fn start(netns: &Netns, peer: u8, peering: Peering, pods: u32) -> Result<Agent> {
        let directory = tempfile::Builder::new().prefix("plainroute-bench-").tempdir()?;
        let mut all = vec![configuration(directory.path(), peer, peering, None)];
        all.push(NODE.to_owned());
        all.extend((0..pods).map(pod));
        Agent::run(netns, directory, &all.join("---\n"))
    }

    /// Starts it without Pods, and watches its one peer by BFD.
    pub(crate) fn watching(netns: &Netns, peer: u8) -> Result<Agent> {
        let directory = tempfile::Builder::new().prefix("plainroute-bench-").tempdir()?;
        let interval = INTERVAL.as_millis();
        let socket = directory.path().join("bfd.sock").display().to_string();
        let bfd = format!(
            "families: [ipv4-unicast]\n  bfd: {{ receiveIntervalMilliseconds: {interval}, \
             transmitIntervalMilliseconds: {interval}, detectMultiplier: {MULTIPLIER} }}\n"
        );
        let text = configuration(directory.path(), peer, Peering::Waits, None)
            .replace("families: [ipv4-unicast]\n", &bfd)
            .replace("  stateDir:", &format!("  bfd: {{ socket: {socket}, spawn: false }}\n  stateDir:"));
        let program = program()?.display().to_string();
        let beside =
            netns.spawn(&[&program, "bfd", "--socket", &socket], &directory.path().join("bfd.log"))?;
        let mut agent = Agent::run(netns, directory, &[&text, NODE].join("---\n"))?;
        agent._bfd = Some(beside);
        Ok(agent)
    }

    /// Starts it with a peer that connects to it, and all else from an API server.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn in_cluster(netns: &Netns, peer: u8, kubeconfig: &Path) -> Result<Agent> {
        let directory = tempfile::Builder::new().prefix("plainroute-bench-").tempdir()?;
        let text = configuration(directory.path(), peer, Peering::Waits, Some(kubeconfig));
        Agent::run(netns, directory, &text)
    }

    /// Starts one that gives out the addresses of a pool of this namespace, and is told of `more`; of Pods by an API server, if
    /// there is one.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn giving_addresses(
        netns: &Netns,
        peer: u8,
        kubeconfig: Option<&Path>,
        namespace: &str,
        more: &str,
    ) -> Result<Agent> {
        let directory = tempfile::Builder::new().prefix("plainroute-bench-").tempdir()?;
        let ipam = format!("  ipam: {{ socket: {} }}\n  stateDir:", directory.path().join(SOCKET).display());
        let blocks = format!(
            "allocation: Block\n  blockSize: 23\n  ipCooldownSeconds: 1\n  \
             namespaceSelector: {{ matchLabels: {{ kubernetes.io/metadata.name: {namespace} }} }}"
        );
        let text = configuration(directory.path(), peer, Peering::Waits, kubeconfig)
            .replace("  stateDir:", &ipam)
            .replace("allocation: External", &blocks);
        Agent::run(netns, directory, &(text + more))
    }

    /// Where the CNI plugin asks it.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn ipam_socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    fn run(netns: &Netns, directory: TempDir, configuration: &str) -> Result<Agent> {
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("config"))?;
        fs::create_dir(path("state"))?;
        fs::write(path("config/node.yaml"), configuration)?;
        let program = program()?.display().to_string();
        let config = path("config").display().to_string();
        let started = Moment::now();
        let daemon = netns.spawn(&[&program, "agent", "--config", &config], &path("log"))?;
        Ok(Agent { daemon, _bfd: None, started, directory })
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of_group(self.daemon.pid())
    }

    /// The end of its log, for an error.
    pub(crate) fn log(&self) -> String {
        tail(&self.daemon.log(), 5)
    }

    /// Adds a file with one Pod, whole at once; gives the moment before it was there.
    pub(crate) fn add(&self, number: u32) -> Result<Moment> {
        let beside = self.directory.path().join("pod.yaml");
        fs::write(&beside, pod(number))?;
        let begin = Moment::now();
        fs::rename(&beside, self.file(number))?;
        Ok(begin)
    }

    /// Removes it.
    pub(crate) fn remove(&self, number: u32) -> Result<()> {
        Ok(fs::remove_file(self.file(number))?)
    }

    fn file(&self, number: u32) -> PathBuf {
        self.directory.path().join(format!("config/pod-{number}.yaml"))
    }
}

/// Lays the link that the Pods are behind.
pub(crate) fn lay_link(netns: &Netns) -> Result<()> {
    netns.run(&["ip", "link", "add", LINK, "type", "veth", "peer", "name", "pods1"])?;
    netns.up(LINK)?;
    netns.up("pods1")
}

/// The agent that was built beside this program.
fn program() -> Result<PathBuf> {
    beside("plainroute")
}

/// What was built beside this program.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?.parent().context("a directory")?.join(name);
    ensure!(program.exists(), "{} is missing: scripts/bench.sh builds it", program.display());
    Ok(program)
}

/// What the agent is told, but for the Pods.
fn configuration(directory: &Path, peer: u8, peering: Peering, kubeconfig: Option<&Path>) -> String {
    let way = match peering {
        Peering::Waits => "passive: true\n  listenPort: 179",
        Peering::Connects => "passive: false",
    };
    let source = kubeconfig.map_or_else(String::new, |path| {
        format!("  source: {{ kubernetes: {{ kubeconfig: {} }} }}\n", path.display())
    });
    let mut text = format!(
        "apiVersion: plainroute.dev/v1alpha1\nkind: AgentConfig\nmetadata: {{ name: node }}\nspec:\n  \
         nodeName: node-a\n  adminSocket: {0}/agent.sock\n  stateDir: {0}/state\n{source}---\n",
        directory.display()
    );
    let _ = write!(
        text,
        "apiVersion: plainroute.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{ name: tor }}\nspec:\n  localASN: {}\n  \
         peerASN: {}\n  peerAddress: {}\n  localAddress: {}\n  routerID: {}\n  {way}\n  families: [ipv4-unicast]\n  \
         timers: {{ holdTimeSeconds: {HOLD_TIME}, keepAliveTimeSeconds: {} }}\n  \
         maxPrefixes: {{ in: 0, out: 0 }}\n  import:\n    - {{ cidr: 0.0.0.0/0, le: 32, install: true }}\n---\n",
        asn(HOST),
        asn(peer),
        address(Family::V4, peer),
        address(Family::V4, HOST),
        site::router_id(HOST),
        HOLD_TIME / 3,
    );
    text + "apiVersion: plainroute.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: { name: pods }\nspec:\n  \
            types: [PodIP]\n---\n\
            apiVersion: plainroute.dev/v1alpha1\nkind: IPPool\nmetadata: { name: pods }\nspec:\n  \
            ipRanges: [{ cidr: 10.0.0.0/20 }]\n  allocation: External\n"
}

/// What an API server would say beside the Pods.
const NODE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: { name: bench }\n---\n\
                    apiVersion: v1\nkind: Node\nmetadata: { name: node-a }\n";

fn pod(number: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: pod-{number}\n  namespace: bench\n  \
         uid: 00000000-0000-4000-8000-{number:012}\n  annotations:\n    plainroute.dev/host-interface: {LINK}\nspec:\n  \
         nodeName: node-a\n  containers: [{{ name: main, image: nothing }}]\nstatus:\n  phase: Running\n  \
         podIPs: [{{ ip: {} }}]\n  conditions: [{{ type: Ready, status: \"True\" }}]\n",
        Numbering::Hosts4.v4(number)
    )
}
