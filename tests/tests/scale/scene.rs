//! The scene: an API server with everything in it, a ToR (BIRD), and as many nodes as have agents, on one subnet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use plainroute_tests::kubelab::audit::AuditLog;
use plainroute_tests::kubelab::{ApiServer, Options, User, rights};
use plainroute_tests::netns::{Netns, wait_until, wait_until_async};
use plainroute_tests::routers::{Bird, Family, Router as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::agent::Agent;
use super::content::{Size, node_address};

pub(crate) const TOR: &str = "172.16.0.254";
const USER: &str = "plainroute-agent";
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Scene {
    // Dropped in this order: who talks before whom they talk to.
    pub(crate) agents: Vec<Agent>,
    tor: Bird,
    pub(crate) api: ApiServer,
    pub(crate) size: Size,
    audit: AuditLog,
    _directory: TempDir,
    hub: Netns,
}

/// What the API server wrote down of one agent's requests: how often each was made.
pub(crate) type Requests = BTreeMap<(String, String), u32>;

impl Scene {
    /// The cluster, without agents.
    pub(crate) async fn new(size: Size) -> Result<Scene> {
        let hub = Netns::new("hub")?;
        hub.exec("ip link add subnet type bridge")?;
        hub.address("subnet", &format!("{TOR}/16"))?;
        hub.up("subnet")?;
        let directory = tempfile::Builder::new().prefix("prt-scale-").tempdir()?;
        let begin = Instant::now();
        let audit = AuditLog::new(directory.path(), USER, &["ResponseStarted", "ResponseComplete"])?;
        let api = start_api(&hub, &audit).await?;
        api.install_crds().await?;
        for object in peering() {
            api.apply(object).await?;
        }
        println!("API server: {:.1} s", begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        api.store((0..size.pools).map(|number| size.pool(number)))?;
        api.store((0..size.namespaces).map(|number| size.namespace(number, 0)))?;
        api.store((0..size.nodes).map(|number| size.node(number)))?;
        api.store(size.others().chain(0..size.agents * size.pods_of_agent).map(|pod| size.pod(pod, 0)))?;
        let all = Api::<Pod>::all(api.client());
        wait_until_async("the API server to have seen every Pod", PATIENCE, async || {
            let listed = all
                .list_metadata(&ListParams::default().limit(1))
                .await
                .map_err(|error| error.to_string())?;
            let seen = 1 + listed.metadata.remaining_item_count.unwrap_or_default();
            if seen == i64::from(size.pods) { Ok(()) } else { Err(format!("{seen} Pods")) }
        })
        .await?;
        println!("{size:?} stored: {:.1} s", begin.elapsed().as_secs_f64());
        let tor = Bird::launch(&hub, &tor_config())?;
        Ok(Scene { agents: Vec::new(), tor, api, size, audit, _directory: directory, hub })
    }

    /// Starts all agents, at once.
    pub(crate) fn start_agents(&mut self) -> Result<()> {
        for number in 0..self.size.agents {
            self.agents.push(Agent::start(number, &self.hub, &self.api.kubeconfig_of(USER))?);
        }
        Ok(())
    }

    /// Waits until the ToR has exactly the Pods of the agents, but for these.
    pub(crate) fn await_routes(&self, missing: &[u32]) -> Result<()> {
        let missing: BTreeSet<String> = missing.iter().map(|pod| self.size.prefix(*pod)).collect();
        let mut wanted = BTreeMap::new();
        for agent in 0..self.size.agents {
            let node = BTreeSet::from([node_address(agent).into()]);
            let prefixes = self.size.pods_of(agent).map(|pod| self.size.prefix(pod));
            wanted.extend(
                prefixes.filter(|prefix| !missing.contains(prefix)).map(|prefix| (prefix, node.clone())),
            );
        }
        let what = format!("{} routes", wanted.len());
        self.tor
            .await_learned(Family::V4, &what, PATIENCE, &|table| *table == wanted)
            .map(drop)
            .with_context(|| self.agents.first().map(Agent::last_words).unwrap_or_default())
    }

    /// Waits until each agent has kept what the API server said.
    pub(crate) fn await_kept(&self) -> Result<()> {
        wait_until("every agent's last-good", PATIENCE, || match self.agents.iter().all(Agent::has_kept) {
            true => Ok(()),
            false => Err("missing"),
        })
    }

    /// What each agent has asked so far. Fails where one asks for Pods of others.
    pub(crate) fn requests(&self) -> Result<Vec<Requests>> {
        let mut requests = vec![Requests::new(); self.agents.len()];
        for event in self.audit.events()? {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let from = word(&event["sourceIPs"][0]);
            let number = (0..self.size.agents).find(|number| node_address(*number).to_string() == from);
            let number = number.with_context(|| format!("a request from {from:?}"))?;
            let (resource, uri) = (word(&event["objectRef"]["resource"]), word(&event["requestURI"]));
            let own = match resource.as_str() {
                "pods" => Some(format!("fieldSelector=spec.nodeName%3Dnode-{number}&")),
                "nodes" => Some(format!("fieldSelector=metadata.name%3Dnode-{number}&")),
                _ => None,
            };
            if let Some(own) = own {
                ensure!(format!("{uri}&").contains(&own), "objects of other nodes are asked for: {uri}");
            }
            *requests[number as usize].entry((word(&event["verb"]), resource)).or_default() += 1;
        }
        Ok(requests)
    }
}

async fn start_api(hub: &Netns, audit: &AuditLog) -> Result<ApiServer> {
    let options = Options {
        listen: TOR.parse()?,
        netns: Some(hub.name().to_owned()),
        users: vec![User { name: USER.into(), groups: Vec::new() }],
        arguments: audit.arguments(),
        ..Options::default()
    };
    let api = ApiServer::start_with(options).await?;
    let own = ["bgppeers", "bgpadvertisements", "ippools", "egresses"];
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["list", "watch"] },
        { "apiGroups": ["plainroute.dev"], "resources": own, "verbs": ["list", "watch"] },
        { "apiGroups": ["plainroute.dev"], "resources": ["nodestates"], "verbs": ["create", "patch"] },
        { "apiGroups": ["plainroute.dev"], "resources": ["nodestates/status"], "verbs": ["patch"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
    ]);
    api.grant(USER, rules, rights::user(USER)).await?;
    Ok(api)
}

fn peering() -> [Value; 2] {
    let version = "plainroute.dev/v1alpha1";
    [
        json!({
            "apiVersion": version, "kind": "BGPPeer", "metadata": { "name": "tor" },
            "spec": { "localASN": 64512, "peerASN": 64600, "peerAddress": TOR, "families": ["ipv4-unicast"] },
        }),
        json!({
            "apiVersion": version, "kind": "BGPAdvertisement", "metadata": { "name": "pods" },
            "spec": { "types": ["PodIP"] },
        }),
    ]
}

fn tor_config() -> String {
    format!(
        "router id {TOR};\nprotocol device {{}}\nprotocol bgp nodes {{\n\
         \x20   local {TOR} as 64600; neighbor range 172.16.0.0/16 as 64512;\n\
         \x20   ipv4 {{ import all; export none; }};\n}}\n"
    )
}
