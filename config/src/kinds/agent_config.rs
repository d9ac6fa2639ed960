//! AgentConfig: what the agent itself needs to run. It comes from a file only, and there is one at most.
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Node, Resource, annotation};
use crate::{
    Kind,
    bounded::Bounded,
    rules::{Spec, Violations},
    taint::TaintPattern,
    value::{Cidr, MarkMask, Parsed, RouteTable},
};

/// How one agent runs.
pub type AgentConfig = Resource<AgentConfigSpec>;

/// What the agent of a node needs to run. It comes from a file only, there is one at most, and without one every
/// field has its default. A change of `bmp` takes effect at once, any other when the agent is restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AgentConfigSpec {
    /// The name of this node, as Kubernetes knows it: Pods whose `spec.nodeName` it is are ours. Default: the
    /// environment variable `NODE_NAME`, then the hostname.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Where objects come from besides the files given with `--config`.
    pub source: Source,
    /// The Unix socket on which the commands ask the agent, an absolute path. It is root's, mode 0600.
    #[schemars(with = "String")]
    pub admin_socket: PathBuf,
    /// Where metrics are served.
    pub metrics: Metrics,
    /// What `/readyz` waits for beside the sources and the kernel.
    pub readiness: Readiness,
    /// The numbers in the kernel that mark what is ours. No two agents of one node may share them.
    pub routing: Routing,
    /// The BFD process, where a BGPPeer asks for BFD.
    pub bfd: BfdProcess,
    /// When the Node's object asks for a drain.
    pub drain: Drain,
    /// The ledger of who held which address when, in `stateDir`.
    pub ledger: Ledger,
    /// What no Egress is about, on this node.
    pub egress: EgressSettings,
    /// Whether this agent gives out the addresses of pools with `allocation: Block`, for the CNI plugin `plainroute-ipam`; `{}`
    /// is enough. Absent: it does not, and checks such a pool like one with `allocation: External`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
    /// The directory of what must survive a restart, an absolute path.
    #[schemars(with = "String")]
    pub state_dir: PathBuf,
    /// Monitoring stations (BMP, RFC 7854) that are told of the peers' sessions and routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bmp: Vec<BmpStation>,
}

/// One monitoring station, to which the agent connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BmpStation {
    /// ADDRESS:PORT where the station listens. Without encryption, so keep it on a trusted network.
    #[serde(deserialize_with = "address_and_port")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// Time between statistics; 0 for none.
    #[serde(default = "every_minute")]
    pub statistics_seconds: Bounded<u32, 0, 86400>,
    /// Tell the routes that peers sent and the import rules accepted. What they refused is not kept.
    #[serde(default = "yes")]
    pub adj_rib_in: bool,
    /// Tell the routes that peers were sent (RFC 8671).
    #[serde(default = "yes")]
    pub adj_rib_out: bool,
}

fn every_minute() -> Bounded<u32, 0, 86400> {
    Bounded::literal(60)
}

fn yes() -> bool {
    true
}

/// Where objects come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Source {
    /// Take Pods, Namespaces, the Node and our own kinds from the API server too; `{}` is enough inside a cluster. Absent:
    /// files only. An object in both is taken from the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesSource>,
}

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesSource {
    /// A kubeconfig file. Absent: the service account of the agent's own Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub kubeconfig: Option<PathBuf>,
    /// Take BGPPeers, BGPAdvertisements, IPPools and Egresses from it. Without their CustomResourceDefinitions there are
    /// none, which is said; turn this off where that is meant.
    pub custom_resources: bool,
    /// Whether the agent tells the API server how its node is: a NodeState, Events, and, from one
    /// agent of the cluster, conditions of objects. Nothing else depends on it.
    pub status: bool,
    /// Which deletions are not believed at once.
    pub deletions: Deletions,
}

/// How many objects of one kind may vanish from the API server before the rest is held: kept in force, and shown, until a
/// person confirms (`plainroute held --confirm`). What was marked for deletion before, what has ended, and Pods that the
/// node leads to no more do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Deletions {
    /// So many within the window are always believed.
    pub hold_above: Bounded<u32, 0, 1_000_000>,
    /// And so many of a hundred that there are; 100 is all of them.
    pub hold_above_percent: Bounded<u8, 0, 100>,
    /// The window.
    pub window_seconds: Bounded<u32, 1, 86400>,
}

impl Default for KubernetesSource {
    fn default() -> Self {
        KubernetesSource {
            kubeconfig: None,
            custom_resources: true,
            status: true,
            deletions: Deletions::default(),
        }
    }
}

impl Default for Deletions {
    fn default() -> Self {
        Deletions {
            hold_above: Bounded::literal(5),
            hold_above_percent: Bounded::literal(10),
            window_seconds: Bounded::literal(60),
        }
    }
}

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Metrics {
    /// ADDRESS:PORT of `/metrics`, `/healthz` and `/readyz`. Without encryption, so keep it on a trusted network.
    #[serde(deserialize_with = "address_and_port")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
}

/// When the agent counts as ready. What does not hold any more makes it unready again, and changes nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Readiness {
    /// How many of the node's BGP sessions must be Established. A node without a BGPPeer waits for none.
    pub established: ReadinessSessions,
}

/// How many BGP sessions must be Established for the agent to be ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReadinessSessions {
    /// It does not matter.
    #[default]
    None,
    /// At least one.
    Any,
    /// Each, those included that are kept down for want of a password.
    All,
}

/// The process that runs BFD, so that a restart of the agent is no failure of any path: `plainroute bfd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BfdProcess {
    /// The Unix socket on which it answers, an absolute path.
    #[schemars(with = "String")]
    pub socket: PathBuf,
    /// Whether the agent starts it if nobody answers there, once a BGPPeer asks for BFD. It then outlives the agent, unless
    /// whoever runs the agent ends all of its processes; there, run it beside the agent and turn this off.
    pub spawn: bool,
}

/// What of the Node's object has the node drained, as `plainroute drain` does, until it is gone. Cordoning a node alone
/// changes nothing, unless its taint, `node.kubernetes.io/unschedulable`, is named here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drain {
    /// The annotation whose value `true` does.
    pub annotation: String,
    /// The taints of which any does, each as kubectl writes it: `KEY`, `KEY=VALUE`, `KEY:EFFECT` or `KEY=VALUE:EFFECT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<TaintPattern>,
    /// How long the routes carry GRACEFUL_SHUTDOWN (RFC 8326) before they are withdrawn.
    pub wait_seconds: Bounded<u32, 0, 86400>,
}

impl Drain {
    /// What of the Node asks for it.
    pub fn asked_by(&self, node: &Node) -> Option<String> {
        if node.metadata.annotation(&self.annotation) == Some("true") {
            return Some(format!("annotation {}", self.annotation));
        }
        let taint = node.taints.iter().find(|taint| self.taints.iter().any(|asks| asks.matches(taint)))?;
        Some(format!("taint {}", taint.key))
    }
}

/// The ledger of who held which address when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ledger {
    /// How long its rows are kept.
    pub days: Bounded<u32, 1, 36500>,
}

/// What no Egress is about, on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EgressSettings {
    /// Destinations that Pods reach under their own address, whatever an Egress says, like the cluster's Services where
    /// nothing translates them on the node. The pools of Pods and the nodes' addresses always are.
    #[serde(rename = "excludedCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub excluded_cidrs: Vec<Cidr>,
}

/// How the agent gives addresses out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ipam {
    /// The Unix socket on which the CNI plugin asks, an absolute path. It is root's, mode 0600.
    #[schemars(with = "String")]
    pub socket: PathBuf,
    /// How often what Pods hold is held against the sandboxes that there are.
    pub check_seconds: Bounded<u32, 5, 86400>,
}

/// The kernel's numbers that are ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Routing {
    /// The route protocol that marks our routes, as `ip route show proto NUMBER` lists them. 0 to 4 are the
    /// kernel's own.
    pub protocol: Bounded<u8, 5, 255>,
    /// The table of the routes to this node's Pods: a number, `main` or `default`.
    pub table: RouteTable,
    /// The first of the 256 tables that are kept for egress: one for each gateway that Pods of this node leave by. The
    /// policy rules that lead there have priorities from 1881 to 2135.
    pub egress_table_base: Bounded<u32, 256, 0xffff_0000>,
    /// The table of the routes learned from peers: a number, `main` or `default`.
    pub import_table: RouteTable,
    /// The eight bits of the packet mark that are ours while a packet of a Pod is on its way to its egress gateway.
    /// kube-proxy has 0x4000 and 0x8000, Calico by default 0xffff0000, Cilium 0xffff0f00.
    pub egress_mark_mask: Parsed<MarkMask>,
}

impl Default for AgentConfigSpec {
    fn default() -> Self {
        AgentConfigSpec {
            node_name: None,
            source: Source::default(),
            admin_socket: "/run/plainroute/agent.sock".into(),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            routing: Routing::default(),
            bfd: BfdProcess::default(),
            drain: Drain::default(),
            ledger: Ledger::default(),
            egress: EgressSettings::default(),
            ipam: None,
            state_dir: "/var/lib/plainroute".into(),
            bmp: Vec::new(),
        }
    }
}

impl Default for BfdProcess {
    fn default() -> Self {
        BfdProcess { socket: "/run/plainroute/bfd.sock".into(), spawn: true }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { days: Bounded::literal(400) }
    }
}

impl Default for Ipam {
    fn default() -> Self {
        Ipam { socket: "/run/plainroute/ipam.sock".into(), check_seconds: Bounded::literal(60) }
    }
}

impl Default for Drain {
    fn default() -> Self {
        let annotation = annotation::DRAIN.to_owned();
        Drain { annotation, taints: Vec::new(), wait_seconds: Bounded::literal(10) }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { listen: SocketAddr::from(([127, 0, 0, 1], 9179)) }
    }
}

impl Default for Routing {
    fn default() -> Self {
        Routing {
            protocol: Bounded::literal(188),
            table: RouteTable::MAIN,
            egress_table_base: Bounded::literal(1880),
            import_table: RouteTable::MAIN,
            egress_mark_mask: Parsed(MarkMask::DEFAULT),
        }
    }
}

fn address_and_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::custom(format!("`{text}` is not ADDRESS:PORT, like 127.0.0.1:9179")))
}

impl Spec for AgentConfigSpec {
    const KIND: Kind = Kind::AgentConfig;

    fn check(&self, broken: &mut Violations) {
        if self.node_name.as_deref() == Some("") {
            broken.add("nodeName", "is empty; leave it out for $NODE_NAME or the hostname");
        }
        let ipam = self.ipam.iter().map(|ipam| ("ipam.socket", &ipam.socket));
        let paths = [
            ("adminSocket", &self.admin_socket),
            ("bfd.socket", &self.bfd.socket),
            ("stateDir", &self.state_dir),
        ];
        for (field, path) in paths.into_iter().chain(ipam) {
            if !path.is_absolute() {
                broken.add(field, format!("`{}` is not an absolute path", path.display()));
            }
        }
        let mut stations = BTreeSet::new();
        for (place, station) in self.bmp.iter().enumerate() {
            let address = station.address;
            if address.port() == 0 || address.ip().is_unspecified() {
                broken
                    .add(format_args!("bmp[{place}].address"), format!("`{address}` cannot be connected to"));
            } else if !stations.insert(address) {
                broken.add(format_args!("bmp[{place}].address"), format!("`{address}` stands there twice"));
            }
        }
        let base = self.routing.egress_table_base.get();
        for (field, table) in [("table", self.routing.table), ("importTable", self.routing.import_table)] {
            if table.number() >= base && table.number() < base.saturating_add(EGRESS_TABLES) {
                let last = base.saturating_add(EGRESS_TABLES - 1);
                broken.add(
                    format_args!("routing.{field}"),
                    format!("table {table} is one of the egress tables, {base} to {last}"),
                );
            }
        }
    }
}

/// How many tables from `egressTableBase` on are kept for egress.
const EGRESS_TABLES: u32 = 256;
