//! The scene: a node with the agent's own binary, BIRD as its ToR, and a Kubernetes API behind the ToR's address that
//! writes down what the agent asks. The agent may do what it needs, and nothing else.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::api::Api;
use plainroute_tests::agent;
use plainroute_tests::kubelab::audit::AuditLog;
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::kubelab::{ApiServer, Options, User, rights};
use plainroute_tests::netns::{Daemon, Netns, tail, veth, wait_until, wait_until_async};
use plainroute_tests::routers::{Bird, Family, Router as _};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a change may take on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The same of what waits for a Lease to end, and for the next count of all nodes.
const LATER: Duration = Duration::from_secs(120);
pub(crate) const NODE: &str = "node-a";
/// The namespace that agents share.
pub(crate) const NAMESPACE: &str = "default";
const ADDRESS: &str = "172.16.0.1";
const TOR: &str = "172.16.0.254";
const USER: &str = "plainroute-agent";
/// What the agent logs when a drain begins.
const DRAIN: &str = "routes are marked with GRACEFUL_SHUTDOWN";

pub(crate) struct Scene {
    // Dropped in this order: who talks before whom they talk to.
    agent: Option<Daemon>,
    pub(crate) tor: Bird,
    pub(crate) api: ApiServer,
    pub(crate) node: Netns,
    pods: Netns,
    directory: TempDir,
    audit: AuditLog,
    _tor: Netns,
}

impl Scene {
    /// The agent runs, and its session is up.
    pub(crate) async fn start() -> Result<Scene> {
        let scene = Self::without_agent().await?.start_agent()?;
        scene.await_session("established")?;
        Ok(scene)
    }

    pub(crate) fn start_agent(mut self) -> Result<Scene> {
        self.agent = Some(start_agent(&self.node, self.directory.path())?);
        Ok(self)
    }

    /// Everything but the agent.
    pub(crate) async fn without_agent() -> Result<Scene> {
        let (tor_ns, node, pods) = (Netns::new("tor")?, Netns::new(NODE)?, Netns::new("pods")?);
        veth((&tor_ns, "node"), (&node, "tor"))?;
        tor_ns.address("node", &format!("{TOR}/24"))?;
        node.address("tor", &format!("{ADDRESS}/24"))?;
        let directory = tempfile::Builder::new().prefix("prt-status-").tempdir()?;
        let audit = AuditLog::new(directory.path(), USER, &["RequestReceived"])?;
        let api = start_api(&tor_ns, &audit).await?;
        api.install_crds().await?;
        api.create_node(NODE, &[ADDRESS.parse()?]).await?;
        api.create_namespace("erp", &[("team", "erp")]).await?;
        let tor = Bird::launch(&tor_ns, &tor_config())?;
        std::fs::write(directory.path().join("agent.yaml"), agent_config(directory.path(), &api))?;
        Ok(Scene { agent: None, tor, api, node, pods, directory, audit, _tor: tor_ns })
    }

    pub(crate) fn await_session(&self, state: &str) -> Result<()> {
        self.tor.await_state(ADDRESS.parse()?, state, SOON).with_context(|| self.last_words())
    }

    /// Takes the session away at the ToR, or lets it come back.
    pub(crate) fn set_session(&self, up: bool) -> Result<()> {
        self.tor.birdc(if up { "enable node_a" } else { "disable node_a" })?;
        self.await_session(if up { "established" } else { "down" })
    }

    /// Waits until the ToR knows exactly these addresses.
    pub(crate) fn await_routes(&self, addresses: &[&str]) -> Result<()> {
        let wanted: Vec<String> = addresses.iter().map(|address| format!("{address}/32")).collect();
        let holds = |table: &plainroute_tests::routers::Table| table.keys().eq(wanted.iter());
        let routes = self.tor.await_learned(Family::V4, &format!("{wanted:?}"), SOON, &holds);
        routes.with_context(|| self.last_words()).map(drop)
    }

    /// A Pod of the namespace `erp` on the node, with a path in its kernel.
    pub(crate) async fn run_pod(&self, name: &str, address: &str) -> Result<()> {
        veth((&self.node, name), (&self.pods, name))?;
        self.node.run(&["ip", "route", "add", address, "dev", name])?;
        self.api.run_pod(&TestPod::new("erp", name, NODE).address(address.parse::<IpAddr>()?)).await
    }

    /// The node's NodeState; nothing where there is none.
    pub(crate) async fn node_state(&self) -> Result<Value> {
        let state = self.api.custom("NodeState").get_opt(NODE).await?;
        Ok(serde_json::to_value(state)?)
    }

    /// Waits for what the NodeState says.
    pub(crate) async fn await_state(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let asked = wait_until_async(what, SOON, async || match self.node_state().await {
            Ok(state) if holds(&state) => Ok(state),
            Ok(state) => Err(state.to_string()),
            Err(error) => Err(format!("{error:#}")),
        });
        asked.await.with_context(|| self.last_words())
    }

    /// Waits until a condition of an object has a status and a reason.
    pub(crate) async fn await_condition(
        &self,
        (kind, name): (&str, &str),
        condition: &str,
        says: &str,
    ) -> Result<()> {
        let what = format!("{kind}/{name}: {condition}: {says}");
        let asked =
            wait_until_async(&what, LATER, async || match self.condition(kind, name, condition).await {
                Ok(seen) if seen == says => Ok(()),
                Ok(seen) => Err(seen),
                Err(error) => Err(format!("{error:#}")),
            });
        asked.await.with_context(|| self.last_words())
    }

    async fn condition(&self, kind: &str, name: &str, condition: &str) -> Result<String> {
        let object = serde_json::to_value(self.api.custom(kind).get(name).await?)?;
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let found = conditions.into_iter().find(|of| of["type"] == condition);
        let word = |field: &str| found.and_then(|of| of[field].as_str()).unwrap_or("-");
        Ok(format!("{} {}", word("status"), word("reason")))
    }

    /// The Events that the agent has told, of a reason.
    pub(crate) async fn events(&self, reason: &str) -> Result<Vec<Event>> {
        let events = Api::<Event>::all(self.api.client()).list(&Default::default()).await?;
        let ours = |event: &Event| {
            event.reporting_controller.as_deref() == Some("plainroute.dev/agent")
                && event.reason.as_deref() == Some(reason)
        };
        Ok(events.items.into_iter().filter(ours).collect())
    }

    /// Waits until something has happened so often.
    pub(crate) async fn await_events(&self, reason: &str, times: i32) -> Result<Vec<Event>> {
        let what = format!("{times} {reason}");
        let asked = wait_until_async(&what, SOON, async || match self.events(reason).await {
            Ok(events) if happened(&events) == times => Ok(events),
            Ok(events) => Err(format!("{} times: {events:?}", happened(&events))),
            Err(error) => Err(format!("{error:#}")),
        });
        asked.await.with_context(|| self.last_words())
    }

    pub(crate) async fn node_uid(&self) -> Result<String> {
        let node = Api::<Node>::all(self.api.client()).get(NODE).await?;
        node.metadata.uid.context("a Node without a UID")
    }

    /// What the agent has asked to write so far: how often, by verb and resource. None of it was refused.
    pub(crate) fn writes(&self, request: &str) -> Result<usize> {
        let mut count = 0;
        for event in self.audit.events()? {
            ensure!(event["responseStatus"]["code"] != 403, "an agent's request was refused: {event}");
            let word = |value: &Value| value.as_str().map(str::to_owned);
            let parts = [&event["objectRef"]["resource"], &event["objectRef"]["subresource"]];
            let resource = parts.into_iter().filter_map(word).collect::<Vec<_>>().join("/");
            let verb = word(&event["verb"]).unwrap_or_default();
            count += usize::from(format!("{verb} {resource}") == request);
        }
        Ok(count)
    }

    /// Drains the node, or takes that back. The wait is so long that no route is withdrawn.
    pub(crate) fn set_drain(&self, drain: bool) -> Result<()> {
        let (program, socket) =
            (agent::program()?.display().to_string(), self.directory.path().join("agent.sock"));
        let socket = socket.display().to_string();
        if !drain {
            return self.node.run(&[&program, "drain", "--socket", &socket, "--undo"]).map(drop);
        }
        let log = self.directory.path().join("drain.log");
        let before = self.agent_log().matches(DRAIN).count();
        // It goes on until the drain is over; that of the node does not need it.
        let _asking = self.node.spawn(&[&program, "drain", "--socket", &socket, "--wait", "600"], &log)?;
        self.await_logged(DRAIN, before + 1)
    }

    pub(crate) fn agent_log(&self) -> String {
        self.agent.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Waits until the agent has logged this so often.
    pub(crate) fn await_logged(&self, what: &str, times: usize) -> Result<()> {
        wait_until(&format!("{what:?} in the agent's log"), SOON, || {
            match self.agent_log().matches(what).count() {
                count if count == times => Ok(()),
                count => Err(format!("{count} times:\n{}", self.agent_log())),
            }
        })
    }

    pub(crate) fn last_words(&self) -> String {
        format!("the agent logged last:\n{}\n", tail(&self.agent_log(), 20))
    }
}

/// How often these Events happened, those of a series included.
pub(crate) fn happened(events: &[Event]) -> i32 {
    events.iter().map(|event| event.series.as_ref().map_or(1, |series| series.count)).sum()
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
    let ours = ["bgppeers", "bgpadvertisements", "ippools", "egresses"];
    let statuses = ours.map(|resource| format!("{resource}/status"));
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["list", "watch"] },
        { "apiGroups": ["plainroute.dev"], "resources": ours, "verbs": ["list", "watch"] },
        { "apiGroups": ["plainroute.dev"], "resources": ["nodestates"], "verbs": ["create", "patch", "list"] },
        { "apiGroups": ["plainroute.dev"], "resources": statuses, "verbs": ["patch"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"] },
        { "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["absent"], "verbs": ["list", "watch"] },
        { "apiGroups": ["plainroute.dev"], "resources": ["nodestates/status"], "verbs": ["patch"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
    ]);
    api.grant(USER, rules, rights::user(USER)).await?;
    Ok(api)
}

fn tor_config() -> String {
    format!(
        "router id {TOR};\nlog stderr all;\nprotocol device {{}}\n\
         protocol bgp node_a {{\n\
         \x20   debug {{ states, routes }};\n\
         \x20   local {TOR} as 64600; neighbor {ADDRESS} as 64512; passive;\n\
         \x20   graceful restart aware;\n\
         \x20   ipv4 {{ import all; export none; }};\n\
         }}\n"
    )
}

fn agent_config(directory: &Path, api: &ApiServer) -> String {
    let kubeconfig = api.kubeconfig_of(USER);
    let (directory, kubeconfig) = (directory.display(), kubeconfig.display());
    format!(
        r#"
apiVersion: plainroute.dev/v1alpha1
kind: AgentConfig
metadata: {{ name: default }}
spec:
  nodeName: {NODE}
  source: {{ kubernetes: {{ kubeconfig: {kubeconfig} }} }}
  adminSocket: {directory}/agent.sock
  stateDir: {directory}/state
---
apiVersion: plainroute.dev/v1alpha1
kind: BGPPeer
metadata: {{ name: tor }}
spec:
  localASN: 64512
  peerASN: 64600
  peerAddress: {TOR}
  families: [ipv4-unicast]
  timers: {{ connectRetryTimeSeconds: 1, holdTimeSeconds: 6, keepAliveTimeSeconds: 2 }}
---
apiVersion: plainroute.dev/v1alpha1
kind: BGPAdvertisement
metadata: {{ name: pods }}
spec: {{ types: [PodIP] }}
---
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: {{ name: erp }}
spec:
  ipRanges: [{{ cidr: 10.20.0.0/24 }}]
  namespaceSelector: {{ matchLabels: {{ team: erp }} }}
  allocation: External
"#
    )
}

fn start_agent(node: &Netns, directory: &Path) -> Result<Daemon> {
    let program = agent::program()?.display().to_string();
    let config = directory.join("agent.yaml").display().to_string();
    // As in a Pod of this namespace.
    let namespace = format!("POD_NAMESPACE={NAMESPACE}");
    node.spawn(&["env", &namespace, &program, "agent", "--config", &config], &directory.join("agent.log"))
}
