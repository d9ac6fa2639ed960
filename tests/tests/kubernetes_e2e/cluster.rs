//! The scene: a ToR (BIRD) and two nodes on one subnet, and a Kubernetes API behind the ToR's address.
//!
//! The nodes reach the API server over the same wire as the ToR's BGP, as they do in a rack. Agents log in as a user
//! that may list and watch three kinds, and the API server writes down all that this user asks.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plainroute_tests::kubelab::audit::AuditLog;
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::kubelab::{ApiServer, Options, User, rights};
use plainroute_tests::lab::probe::Running as Probe;
use plainroute_tests::netns::{Netns, veth, wait_until};
use plainroute_tests::routers::{Bird, Family, Router, Table};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::SOON;
use super::config::{agent_config, kinds, tor_config};
use super::node::Node;

pub(crate) const A: &str = "172.16.0.1";
pub(crate) const B: &str = "172.16.0.2";
pub(crate) const TOR: &str = "172.16.0.254";
/// Our own kinds that agents watch.
const OWN_KINDS: [&str; 4] = ["bgppeers", "bgpadvertisements", "ippools", "egresses"];
/// The namespace that the agents believe to run in.
pub(crate) const OWN_NAMESPACE: &str = "plainroute";
/// Who the agents are.
pub(crate) const USER: &str = "plainroute-agent";
/// The negotiated hold time, so that an outage of seconds outlasts it several times.
pub(crate) const HOLD_TIME: Duration = Duration::from_secs(6);

/// What differs from test to test; of two values the first is node-a's.
pub(crate) struct Scene {
    /// `withdraw` of the BGPAdvertisement.
    pub(crate) withdraw: &'static str,
    /// For how long the ToR shall keep a restarting agent's routes, in seconds.
    pub(crate) restart_time: [u16; 2],
    /// Whether the ToR knows graceful restart at all.
    pub(crate) tor_helps: [bool; 2],
    /// Whether the ToR makes a route with GRACEFUL_SHUTDOWN its last choice, as RFC 8326 asks.
    pub(crate) tor_heeds_shutdown: bool,
    /// Whether the agents tell the cluster how they are, which they have no right to here.
    pub(crate) status: bool,
    /// Whether our own kinds are in each agent's file; else they are for the test to apply ([`Cluster::apply_kinds`]).
    pub(crate) kinds_in_files: [bool; 2],
}

impl Default for Scene {
    fn default() -> Self {
        Scene {
            withdraw: "{}",
            restart_time: [120, 120],
            tor_helps: [true, true],
            tor_heeds_shutdown: true,
            status: false,
            kinds_in_files: [true; 2],
        }
    }
}

pub(crate) struct Cluster {
    // Dropped in this order: who talks before whom they talk to.
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) tor: Arc<Bird>,
    pub(crate) api: ApiServer,
    kinds: String,
    audit: AuditLog,
    _directory: TempDir,
    pub(crate) tor_ns: Netns,
}

impl Cluster {
    /// Everything but the agents. Namespaces `erp` and `crm` (label `team`) have a pool each, 10.20.0.0/24 and
    /// 10.30.0.0/24.
    pub(crate) async fn without_agents(scene: Scene) -> Result<Cluster> {
        let tor_ns = Netns::new("tor")?;
        tor_ns.exec("ip link add subnet type bridge")?;
        tor_ns.address("subnet", &format!("{TOR}/24"))?;
        tor_ns.up("subnet")?;
        let directory = tempfile::Builder::new().prefix("prt-e2e-").tempdir()?;
        let audit = AuditLog::new(directory.path(), USER, &["RequestReceived"])?;
        let api = start_api(&tor_ns, &audit).await?;
        api.install_crds().await?;
        let tor = Arc::new(Bird::launch(&tor_ns, &tor_config(&scene))?);
        let node = |index: usize, name, address: &str| -> Result<Node> {
            let config = |disk: &Path| agent_config(name, disk, &api, &scene, index);
            let node = Node::new(name, address, config)?;
            veth((&tor_ns, name), (&node.ns, "eth0"))?;
            tor_ns.run(&["ip", "link", "set", name, "master", "subnet"])?;
            node.ns.address("eth0", &format!("{address}/24"))?;
            node.ns.run(&["ip", "route", "add", "default", "via", TOR])?;
            Ok(node)
        };
        let (a, b) = (node(0, "node-a", A)?, node(1, "node-b", B)?);
        for node in [&a, &b] {
            api.create_node(node.name, &[node.address]).await?;
        }
        for name in ["erp", "crm"] {
            api.create_namespace(name, &[("team", name)]).await?;
        }
        api.create_namespace(OWN_NAMESPACE, &[]).await?;
        let kinds = kinds(&scene, 0);
        Ok(Cluster { a, b, tor, api, kinds, audit, _directory: directory, tor_ns })
    }

    /// With both agents running and their sessions up.
    pub(crate) async fn start(scene: Scene) -> Result<Cluster> {
        let mut cluster = Self::without_agents(scene).await?;
        cluster.a.start_agent()?;
        cluster.b.start_agent()?;
        cluster.await_sessions()?;
        Ok(cluster)
    }

    pub(crate) fn await_sessions(&self) -> Result<()> {
        for node in [&self.a, &self.b] {
            self.tor.await_state(node.address, "established", SOON).with_context(|| node.last_words())?;
        }
        Ok(())
    }

    /// Waits until the ToR's table is exactly this: host addresses and the nodes that they lie behind.
    pub(crate) fn await_routes(&self, routes: &[(&str, &str)]) -> Result<()> {
        self.await_routes_within(routes, SOON)
    }

    /// [`await_routes`](Self::await_routes) for what takes longer.
    pub(crate) fn await_routes_within(&self, routes: &[(&str, &str)], patience: Duration) -> Result<()> {
        let wanted: Table = routes
            .iter()
            .map(|(address, node)| Ok((format!("{address}/32"), BTreeSet::from([node.parse()?]))))
            .collect::<Result<_>>()?;
        let what = format!("exactly {routes:?}");
        self.tor
            .await_learned(Family::V4, &what, patience, &|table| *table == wanted)
            .with_context(|| self.a.last_words() + &self.b.last_words())
            .map(drop)
    }

    /// [`await_routes`](Self::await_routes), telling how long that took after `cause`.
    pub(crate) fn time_routes(&self, what: &str, cause: Instant, routes: &[(&str, &str)]) -> Result<()> {
        self.await_routes(routes)?;
        println!("{what}: {} ms until BIRD showed it", cause.elapsed().as_millis());
        Ok(())
    }

    /// A running Pod on a node to which somebody else's route leads.
    pub(crate) async fn run_pod(&self, node: &Node, name: &str, address: &str) -> Result<()> {
        node.path_of_others(name, address)?;
        self.api.run_pod(&erp_pod(node, name, address)?).await
    }

    /// A running Pod on a node that libcni left a result for.
    pub(crate) async fn run_cni_pod(&self, node: &Node, name: &str, address: &str) -> Result<()> {
        node.link(name)?;
        self.run_linked_pod(node, name, address).await
    }

    /// A Pod as by [`run_cni_pod`](Self::run_cni_pod) that answers; it does so as long as the value lives.
    pub(crate) async fn run_answering_pod(&self, node: &Node, name: &str, address: &str) -> Result<Netns> {
        let inside = node.answering_link(name, address)?;
        self.run_linked_pod(node, name, address).await?;
        Ok(inside)
    }

    /// A Pod as by [`run_cni_pod`](Self::run_cni_pod) whose link is there already.
    pub(crate) async fn run_linked_pod(&self, node: &Node, name: &str, address: &str) -> Result<()> {
        let pod = erp_pod(node, name, address)?;
        self.api.create_pod(&pod).await?;
        node.cni_record("erp", name, &self.api.pod_uid("erp", name).await?, address)?;
        self.api.start_pod(&pod).await
    }

    /// Packets from the ToR to a Pod, by the ToR's own routes, until the probe is finished.
    pub(crate) fn probe(&self, pod: &Netns, address: &str) -> Result<Probe> {
        Probe::between(&self.tor_ns, pod, address.parse()?)
    }

    /// Makes the objects of our own kinds, the same as would be in the files of node-a.
    pub(crate) async fn apply_kinds(&self) -> Result<()> {
        self.apply_kinds_without("").await
    }

    /// The same without a field of `spec`.
    pub(crate) async fn apply_kinds_without(&self, field: &str) -> Result<()> {
        for document in self.kinds.split("---\n").filter(|document| !document.is_empty()) {
            let mut object: Value = serde_saphyr::from_str(document)?;
            object["spec"].as_object_mut().context("no spec")?.remove(field);
            self.api.apply(object).await?;
        }
        Ok(())
    }

    /// The node by which the ToR forwards to an address; the ToR may know others.
    pub(crate) fn await_way(&self, address: &str, node: &str) -> Result<()> {
        wait_until(&format!("the ToR to forward to {address} by {node}"), SOON, || {
            let shown =
                self.tor.birdc(&format!("show route for {address}")).map_err(|error| error.to_string())?;
            if shown.contains(&format!("via {node} ")) { Ok(()) } else { Err(shown) }
        })
    }

    /// From here on the ToR's log is new.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.tor.log().len())
    }

    /// What the ToR has logged since.
    pub(crate) fn log_since(&self, mark: &Mark) -> TorLog {
        TorLog(self.tor.log().split_off(mark.0))
    }

    /// How often the API server has answered an agent so to this verb on this resource.
    pub(crate) fn answers(&self, verb: &str, resource: &str, code: u16) -> Result<usize> {
        let answered = |event: &Value| {
            event["verb"] == verb
                && event["objectRef"]["resource"] == resource
                && event["responseStatus"]["code"] == code
        };
        Ok(self.audit.events()?.iter().filter(|event| answered(event)).count())
    }

    /// The watches of a node's Pods that were begun, in order, by what was asked.
    pub(crate) fn pod_watches(&self, node: &Node) -> Result<Vec<String>> {
        let selector = format!("spec.nodeName%3D{}", node.name);
        let watches = self.audit.events()?.into_iter().filter(|event| event["stage"] == "ResponseStarted");
        let asked = watches.filter_map(|event| event["requestURI"].as_str().map(str::to_owned));
        Ok(asked.filter(|uri| uri.contains("watch=true") && uri.contains(&selector)).collect())
    }

    /// Checks that the agents asked for nothing but what their role allows, and that it sufficed.
    pub(crate) fn check_requests(&self) -> Result<()> {
        let mut asked = BTreeSet::new();
        for event in self.audit.events()? {
            let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
            // A kind that was defined a moment ago is not served yet (429): that is asked again.
            ensure!(code < 400 || code == 429, "an agent's request was refused: {event}");
            let uri = event["requestURI"].as_str().unwrap_or_default();
            ensure!(!uri.contains("resourceVersion=0"), "what may be out of date is asked for: {uri}");
            let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            asked.insert((word(&event["verb"]), word(&event["objectRef"]["resource"])));
            if event["objectRef"]["resource"] == "pods" {
                let uri = word(&event["requestURI"]);
                ensure!(
                    uri.contains("fieldSelector=spec.nodeName"),
                    "Pods of every node are asked for: {uri}"
                );
            }
        }
        let resources = || ["pods", "namespaces", "nodes"].into_iter().chain(OWN_KINDS);
        for resource in resources() {
            ensure!(asked.contains(&("watch".into(), resource.into())), "no watch of {resource}: {asked:?}");
        }
        let allowed = |(verb, resource): &&(String, String)| {
            ["list", "watch"].contains(&verb.as_str()) && resources().any(|of| of == resource)
        };
        let more: Vec<_> = asked.iter().filter(|request| !allowed(request)).collect();
        ensure!(more.is_empty(), "more was asked than the role allows: {more:?}");
        Ok(())
    }
}

/// A Pod of the namespace `erp`.
pub(crate) fn erp_pod(node: &Node, name: &str, address: &str) -> Result<TestPod> {
    Ok(TestPod::new("erp", name, node.name).address(address.parse::<std::net::IpAddr>()?))
}

/// A moment in the ToR's log.
pub(crate) struct Mark(usize);

/// What BIRD itself wrote down: it logs each change of its table, also those that are over before anybody looks.
pub(crate) struct TorLog(String);

impl TorLog {
    /// The prefixes that were removed from its table.
    pub(crate) fn removed(&self) -> BTreeSet<&str> {
        let removed = self.0.lines().filter_map(|line| line.split_once(".ipv4 > removed ["));
        removed.filter_map(|(_, rest)| rest.split_whitespace().nth(1)).collect()
    }

    /// Whether it says anything of a prefix.
    pub(crate) fn mentions(&self, prefix: &str) -> bool {
        self.0.lines().any(|line| line.split_whitespace().any(|word| word == prefix))
    }

    /// Whether it says this of a node's session.
    pub(crate) fn says(&self, node: &Node, what: &str) -> bool {
        let name = protocol(node.name);
        self.0.lines().any(|line| line.contains(&format!(" {name}: {what}")))
    }
}

impl fmt::Display for TorLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn protocol(node: &str) -> String {
    node.replace('-', "_")
}

async fn start_api(tor: &Netns, audit: &AuditLog) -> Result<ApiServer> {
    let options = Options {
        listen: TOR.parse()?,
        netns: Some(tor.name().to_owned()),
        users: vec![User { name: USER.into(), groups: Vec::new() }],
        standby: true,
        arguments: audit.arguments(),
        ..Options::default()
    };
    let api = ApiServer::start_with(options).await?;
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["list", "watch"] },
        { "apiGroups": ["plainroute.dev"], "resources": OWN_KINDS, "verbs": ["list", "watch"] },
    ]);
    api.grant(USER, rules, rights::user(USER)).await?;
    Ok(api)
}
