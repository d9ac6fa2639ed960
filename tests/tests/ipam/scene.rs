//! The scene: an API server, a ToR (BIRD) and two nodes or more with agents that give addresses out.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::Api;
use plainroute_cni::agent::ask;
use plainroute_cni::protocol::{Attachment, Command, Failure, Pod, Reply, Request};
use plainroute_config::{IpAllocation, IpBlock, IpBlockSpec};
use plainroute_tests::agent;
use plainroute_tests::kubelab::ApiServer;
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::netns::{Daemon, Netns, tail, veth, wait_until, wait_until_async};
use plainroute_tests::routers::{Bird, Family, Router as _, Table};
use serde_json::json;
use tempfile::TempDir;

use super::setup::{agent_config, start_api, tor_config};

pub(crate) const NODES: [&str; 6] = ["node-a", "node-b", "node-c", "node-d", "node-e", "node-f"];
pub(crate) const ADDRESSES: [&str; 6] =
    ["172.16.0.1", "172.16.0.2", "172.16.0.3", "172.16.0.4", "172.16.0.5", "172.16.0.6"];
pub(crate) const TOR: &str = "172.16.0.254";
const SOON: Duration = Duration::from_secs(30);

/// What a request comes to: addresses, or why not.
pub(crate) type Answer = std::result::Result<Vec<IpAddr>, Failure>;

pub(super) struct Node {
    pub(super) agent: Daemon,
    pub(super) ns: Netns,
    pods: Netns,
    disk: TempDir,
}

pub(crate) struct Scene {
    // Dropped in this order: who talks before whom they talk to.
    pub(super) nodes: Vec<Node>,
    pub(super) tor: Bird,
    pub(crate) api: ApiServer,
    pub(super) tor_ns: Netns,
}

/// A Pod with a network namespace of its own.
pub(crate) struct Plugged {
    name: String,
    sandbox: Netns,
    pub(crate) address: IpAddr,
}

impl Scene {
    /// Both agents run and their sessions are up; `pool` is the spec of the IPPool `erp`, for the namespace `erp`.
    pub(crate) async fn start(pool: &str) -> Result<Scene> {
        Scene::start_with(2, &[("erp", pool)]).await
    }

    /// So many nodes, and for each namespace, labelled `team: NAME`, a pool of its name.
    pub(crate) async fn start_with(count: usize, pools: &[(&str, &str)]) -> Result<Scene> {
        let tor_ns = Netns::new("tor")?;
        tor_ns.exec("ip link add subnet type bridge")?;
        tor_ns.address("subnet", &format!("{TOR}/24"))?;
        tor_ns.up("subnet")?;
        let api = start_api(&tor_ns).await?;
        api.install_crds().await?;
        let kind = |kind: &str, name: &str, spec: serde_json::Value| {
            json!({
                "apiVersion": "plainroute.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
            })
        };
        let timers =
            json!({ "connectRetryTimeSeconds": 1, "holdTimeSeconds": 60, "keepAliveTimeSeconds": 20 });
        let peer = json!({ "localASN": 64512, "peerASN": 64600, "peerAddress": TOR, "families": ["ipv4-unicast"], "timers": timers });
        for (name, pool) in pools {
            api.apply(kind("IPPool", name, serde_saphyr::from_str(pool)?)).await?;
            api.create_namespace(name, &[("team", name)]).await?;
        }
        api.apply(kind("BGPPeer", "tor", peer)).await?;
        api.apply(kind("BGPAdvertisement", "blocks", json!({ "types": ["PodBlock"] }))).await?;
        let tor = Bird::launch(&tor_ns, &tor_config())?;
        let mut nodes = Vec::new();
        for (name, address) in NODES.into_iter().zip(ADDRESSES).take(count) {
            api.create_node(name, &[address.parse()?]).await?;
            let (ns, pods) = (Netns::new(name)?, Netns::new("pods")?);
            veth((&tor_ns, name), (&ns, "eth0"))?;
            tor_ns.run(&["ip", "link", "set", name, "master", "subnet"])?;
            ns.address("eth0", &format!("{address}/24"))?;
            let disk = tempfile::Builder::new().prefix("prt-ipam-").tempdir()?;
            std::fs::write(disk.path().join("agent.yaml"), agent_config(name, disk.path(), &api))?;
            nodes.push(Node { agent: start_agent(&ns, disk.path(), &[])?, ns, pods, disk });
        }
        let scene = Scene { nodes, tor, api, tor_ns };
        for address in ADDRESSES.iter().take(count) {
            let up = scene.tor.await_state(address.parse()?, "established", SOON);
            up.with_context(|| scene.last_words())?;
        }
        Ok(scene)
    }

    pub(crate) fn last_words(&self) -> String {
        let log = |node: &Node| tail(&node.agent.log(), 20);
        self.nodes.iter().map(|node| format!("{}:\n{}\n", node.ns.name(), log(node))).collect()
    }

    /// A Pod of the namespace `erp` that is scheduled to this node.
    pub(crate) fn pod(&self, name: &str, node: usize) -> TestPod {
        TestPod::new("erp", name, NODES[node])
    }

    /// What the plugin would be told.
    pub(crate) async fn add(&self, node: usize, container: &str, pod: &str) -> Result<Answer> {
        let pod = Pod { namespace: "erp".to_owned(), name: pod.to_owned(), uid: None };
        let netns = format!("/run/netns/{container}");
        self.ask(node, Command::Add { attachment: attachment(container), netns, pod }).await
    }

    /// As a kubelet, which tries again with a sandbox anew: each attempt ends with a DEL.
    pub(crate) async fn add_until_given(
        &self,
        node: usize,
        container: &str,
        pod: &str,
        patience: Duration,
    ) -> Result<IpAddr> {
        let deadline = Instant::now() + patience;
        for attempt in 0.. {
            let container = format!("{container}-{attempt}");
            match self.add(node, &container, pod).await? {
                Ok(addresses) => return addresses.first().copied().context("no address"),
                Err(failure) if failure.code == 11 && Instant::now() < deadline => {
                    drop(self.del(node, &container).await?);
                }
                Err(failure) => bail!("{failure:?}\n{}", self.last_words()),
            }
        }
        bail!("never")
    }

    pub(crate) async fn del(&self, node: usize, container: &str) -> Result<Answer> {
        self.ask(node, Command::Del { attachment: attachment(container), netns: None, pod: None }).await
    }

    /// Where the node's agent takes what the plugin asks.
    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.nodes[node].disk.path().join("ipam.sock")
    }

    async fn ask(&self, node: usize, command: Command) -> Result<Answer> {
        let socket = self.socket(node);
        let request = Request::new("pods", command);
        let reply = tokio::task::spawn_blocking(move || ask(&socket, &request, SOON)).await?;
        match reply {
            Ok(Reply::Addresses(addresses)) => Ok(Ok(addresses)),
            Ok(Reply::Refused(failure)) => Ok(Err(failure)),
            Err(error) => bail!("{error:?}\n{}", self.last_words()),
        }
    }

    /// Says anew what is advertised.
    pub(crate) async fn advertise(&self, types: &[&str]) -> Result<()> {
        let advertisement = json!({
            "apiVersion": "plainroute.dev/v1alpha1", "kind": "BGPAdvertisement", "metadata": { "name": "blocks" },
            "spec": { "types": types },
        });
        self.api.apply(advertisement).await.map(drop)
    }

    /// Makes a Pod's sandbox as a container runtime does, by Debian's `ptp` with our plugin below it.
    pub(crate) async fn plug(&self, node: usize, name: &str) -> Result<Plugged> {
        let sandbox = Netns::new(name)?;
        let output = self.ptp(node, "ADD", name, &sandbox)?;
        let result: serde_json::Value = serde_json::from_slice(&output)?;
        let address = result["ips"][0]["address"].as_str().and_then(|text| text.split('/').next());
        let address = address.with_context(|| format!("no address: {result}"))?.parse()?;
        Ok(Plugged { name: name.to_owned(), sandbox, address })
    }

    pub(crate) async fn unplug(&self, node: usize, pod: &Plugged) -> Result<()> {
        self.ptp(node, "DEL", &pod.name, &pod.sandbox).map(drop)
    }

    /// That the agent holds for the Pod what it has.
    pub(crate) async fn check(&self, node: usize, pod: &Plugged) -> Result<()> {
        let netns = pod.sandbox.path().display().to_string();
        let held =
            self.ask(node, Command::Check { attachment: attachment(&pod.name), netns, pod: None }).await?;
        let held = held.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        ensure!(held == [pod.address], "{held:?}, not {}", pod.address);
        Ok(())
    }

    fn ptp(&self, node: usize, command: &str, name: &str, sandbox: &Netns) -> Result<Vec<u8>> {
        let Node { ns, disk, .. } = &self.nodes[node];
        let socket = disk.path().join("ipam.sock");
        let network = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "ptp",
            "ipam": { "type": "plainroute-ipam", "socket": socket },
        });
        let program = agent::program()?;
        let plugins = program.parent().context("a directory")?.display();
        let mut ptp = ns.command(&["/usr/lib/cni/ptp"]);
        ptp.env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", name)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", sandbox.path())
            .env("CNI_PATH", format!("/usr/lib/cni:{plugins}"))
            .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=erp;K8S_POD_NAME={name}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = ptp.spawn()?;
        child.stdin.take().context("stdin")?.write_all(network.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ptp {command}: {said}\n{}", self.last_words());
        Ok(output.stdout)
    }

    /// From the ToR, by the route that it has learned.
    pub(crate) fn ping(&self, address: IpAddr) -> Result<()> {
        self.tor_ns.run(&["ping", "-c", "1", "-W", "2", &address.to_string()]).map(drop)
    }

    /// `plainroute release`, and what it says.
    pub(crate) fn release(&self, node: usize, address: IpAddr, confirm: bool) -> Result<String> {
        let Node { ns, disk, .. } = &self.nodes[node];
        let (program, socket) =
            (agent::program()?.display().to_string(), disk.path().join("agent.sock").display().to_string());
        let address = address.to_string();
        let mut words = vec![&*program, "release", "--socket", &socket, &address];
        words.extend(confirm.then_some("--confirm"));
        let output = ns.output(&words)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    }

    /// What the main plugin does: a link from the node to the Pod, and the route to it.
    pub(crate) fn deliver(&self, node: usize, link: &str, address: IpAddr) -> Result<()> {
        let Node { ns, pods, .. } = &self.nodes[node];
        veth((ns, link), (pods, link))?;
        ns.run(&["ip", "route", "add", &address.to_string(), "dev", link]).map(drop)
    }

    pub(crate) fn undeliver(&self, node: usize, link: &str) -> Result<()> {
        self.nodes[node].ns.run(&["ip", "link", "del", link]).map(drop)
    }

    /// SIGKILL, and another process over the same state.
    pub(crate) fn restart_agent(&mut self, node: usize) -> Result<()> {
        self.restart_agent_with(node, &[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn restart_agent_with(&mut self, node: usize, environment: &[(&str, &str)]) -> Result<()> {
        self.kill_agent(node);
        let one = &mut self.nodes[node];
        one.agent = start_agent(&one.ns, one.disk.path(), environment)?;
        let socket = self.socket(node);
        wait_until("the CNI socket", SOON, || std::os::unix::net::UnixStream::connect(&socket)).map(drop)
    }

    /// SIGKILL.
    pub(crate) fn kill_agent(&mut self, node: usize) {
        self.nodes[node].agent.kill();
    }

    /// Another process over the same state.
    pub(crate) fn start_agent(&mut self, node: usize) -> Result<()> {
        let node = &mut self.nodes[node];
        node.agent = start_agent(&node.ns, node.disk.path(), &[])?;
        Ok(())
    }

    /// From here on the agent of the node looks at what runs there only when it is told to.
    pub(crate) fn look_seldom(&mut self, node: usize) -> Result<()> {
        let file = self.nodes[node].disk.path().join("agent.yaml");
        let config = std::fs::read_to_string(&file)?;
        ensure!(config.contains("checkSeconds: 5 "), "{config}");
        std::fs::write(&file, config.replace("checkSeconds: 5 ", "checkSeconds: 86400 "))?;
        self.restart_agent(node)
    }

    /// A command of `plainroute` on the node: whether it found all well, and what it says.
    pub(crate) fn ask_agent(&self, node: usize, words: &[&str]) -> Result<(bool, String)> {
        let Node { ns, disk, .. } = &self.nodes[node];
        let (program, socket) =
            (agent::program()?.display().to_string(), disk.path().join("agent.sock").display().to_string());
        let mut all = vec![&*program];
        all.extend(words);
        all.extend(["--socket", &socket]);
        let output = ns.output(&all)?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), said))
    }

    /// The state of the agent of the node.
    pub(crate) fn state_dir(&self, node: usize) -> PathBuf {
        self.nodes[node].disk.path().join("state")
    }

    /// Waits until the node's agent has heard of the Pod.
    pub(crate) async fn await_pod(&self, node: usize, name: &str) -> Result<()> {
        let node = &self.nodes[node];
        let (program, socket) =
            (agent::program()?.display().to_string(), node.disk.path().join("agent.sock"));
        let socket = socket.display().to_string();
        wait_until(&format!("the agent to know {name}"), SOON, || {
            let pods = node
                .ns
                .output(&[&program, "plan", "--socket", &socket, "-o", "json"])
                .map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&pods.stdout).into_owned();
            if text.contains(&format!("\"{name}\"")) { Ok(()) } else { Err(text) }
        })
    }

    pub(crate) async fn create_stateful_set(&self, name: &str) -> Result<StatefulSet> {
        let labels = json!({ "set": name });
        let set = json!({
            "metadata": { "name": name },
            "spec": {
                "serviceName": name, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "main", "image": "none.invalid/none" }] } },
            },
        });
        let sets = Api::<StatefulSet>::namespaced(self.api.client(), "erp");
        Ok(sets.create(&Default::default(), &serde_json::from_value(set)?).await?)
    }

    pub(crate) async fn delete_stateful_set(&self, name: &str) -> Result<()> {
        Api::<StatefulSet>::namespaced(self.api.client(), "erp").delete(name, &Default::default()).await?;
        Ok(())
    }

    /// What the blocks say of an address.
    pub(crate) async fn allocation(&self, address: IpAddr) -> Result<Option<IpAllocation>> {
        let blocks = self.blocks().await?;
        let IpAddr::V4(wanted) = address else { return Ok(None) };
        let of = |block: &IpBlockSpec| {
            let IpAddr::V4(first) = block.cidr.prefix().address() else { return None };
            let ordinal = u16::try_from(wanted.to_bits().checked_sub(first.to_bits())?).ok()?;
            block.allocations.iter().find(|one| within(block, address) && one.ordinal == ordinal).cloned()
        };
        Ok(blocks.iter().find_map(of))
    }

    pub(crate) async fn blocks(&self) -> Result<Vec<IpBlockSpec>> {
        let list = self.api.custom("IPBlock").list(&Default::default()).await?;
        let block = |object| Ok(serde_json::from_value::<IpBlock>(serde_json::to_value(object)?)?.spec);
        list.items.into_iter().map(block).collect()
    }

    /// Waits until the IPBlocks say exactly this: Pods and their addresses.
    pub(crate) async fn await_allocations(&self, wanted: &[(&str, IpAddr)]) -> Result<()> {
        let wanted: BTreeSet<(String, IpAddr)> =
            wanted.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        wait_until_async("the allocations", SOON, async || {
            let blocks = self.blocks().await.map_err(|error| error.to_string())?;
            let held: BTreeSet<(String, IpAddr)> = blocks.iter().flat_map(allocated).collect();
            if held == wanted { Ok(()) } else { Err(format!("{held:?}")) }
        })
        .await
        .with_context(|| self.last_words())
    }

    /// Waits until the ToR has exactly these routes, by node.
    pub(crate) fn await_routes(&self, routes: &[(&str, usize)]) -> Result<()> {
        let wanted: Table = routes
            .iter()
            .map(|(prefix, node)| Ok(((*prefix).to_owned(), BTreeSet::from([ADDRESSES[*node].parse()?]))))
            .collect::<Result<_>>()?;
        let learned = self
            .tor
            .await_learned(Family::V4, &format!("exactly {routes:?}"), SOON, &|table| *table == wanted);
        learned.with_context(|| self.last_words()).map(drop)
    }

    /// Waits until the ToR has this route among others.
    pub(crate) fn await_route(&self, prefix: &str, node: usize) -> Result<()> {
        let wanted: BTreeSet<IpAddr> = BTreeSet::from([ADDRESSES[node].parse()?]);
        let has = |table: &Table| table.get(prefix) == Some(&wanted);
        self.tor.await_learned(Family::V4, prefix, SOON, &has).with_context(|| self.last_words()).map(drop)
    }
}

/// Whether the block has the address.
pub(crate) fn within(block: &IpBlockSpec, address: IpAddr) -> bool {
    block.cidr.prefix().contains_address(address)
}

/// Who has which address by a block, borrowed ones at the borrower's.
fn allocated(block: &IpBlockSpec) -> Vec<(String, IpAddr)> {
    let first = match block.cidr.prefix().address() {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(_) => return Vec::new(),
    };
    let held = block.allocations.iter().filter(|one| one.lent_to.is_none());
    held.filter_map(|one| {
        let address = std::net::Ipv4Addr::from_bits(first + u32::from(one.ordinal));
        Some((one.name.clone()?, address.into()))
    })
    .collect()
}

pub(crate) fn attachment(container: &str) -> Attachment {
    Attachment { container_id: container.to_owned(), ifname: "eth0".to_owned() }
}

fn start_agent(ns: &Netns, disk: &Path, environment: &[(&str, &str)]) -> Result<Daemon> {
    let (program, config) =
        (agent::program()?.display().to_string(), disk.join("agent.yaml").display().to_string());
    let mut command = ns.command(&[&program, "agent", "--config", &config]);
    command.envs(environment.iter().copied());
    Daemon::spawn(command, &disk.join("agent.log"))
}
