//! An agent under the chart's own roles, on a real API server that writes down what it asks: nothing is refused, and
//! nothing is granted that nobody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::Api;
use plainroute_cni::protocol::{Attachment, Command, Pod, Reply, Request};
use plainroute_tests::agent;
use plainroute_tests::kubelab::audit::AuditLog;
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::kubelab::{ApiServer, Options};
use plainroute_tests::netns::{Daemon, Netns, tail, wait_until, wait_until_async};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api::{install, kubeconfig, token};
use super::chart::{NAME, NAMESPACE};

const SOON: Duration = Duration::from_secs(60);
const VALUES: &str = "secretNames: [tor]";
/// What every agent needs.
const NEEDED: [&str; 10] = [
    "watch namespaces",
    "watch nodes",
    "watch pods",
    "watch secrets",
    "watch bgppeers",
    "watch bgpadvertisements",
    "watch ippools",
    "watch egresses",
    "patch nodestates",
    "patch nodestates/status",
];
/// What one needs beside that gives addresses out.
const NEEDED_FOR_ADDRESSES: [&str; 7] = [
    "get ipblocks",
    "list ipblocks",
    "watch ipblocks",
    "create ipblocks",
    "update ipblocks",
    "delete ipblocks",
    "get statefulsets",
];

/// `verb resource`, for instance `watch pods`.
type Grants = BTreeSet<String>;

/// What is granted and not used by this test, and why it is granted all the same.
fn unused_and_why() -> BTreeMap<&'static str, Vec<&'static str>> {
    let list = "asked of an API server that cannot stream lists";
    let state = "of a NodeState that is not there yet, which the audit log calls a patch";
    let conditions = "conditions on our objects, by the agent that holds the Lease";
    let events = "events when something changes for the worse or the better";
    BTreeMap::from([
        (
            list,
            vec![
                "list pods",
                "list namespaces",
                "list nodes",
                "list secrets",
                "list bgppeers",
                "list bgpadvertisements",
                "list ippools",
                "list egresses",
            ],
        ),
        (state, vec!["create nodestates"]),
        (
            conditions,
            vec![
                "patch bgppeers/status",
                "patch bgpadvertisements/status",
                "patch ippools/status",
                "patch egresses/status",
                "list nodestates",
                "create leases",
                "get leases",
                "update leases",
            ],
        ),
        (events, vec!["create events", "patch events"]),
    ])
}

fn granted(objects: &[Value]) -> Result<Grants> {
    let mut grants = Grants::new();
    let words = |value: &Value| -> Result<Vec<String>> {
        serde_json::from_value(value.clone()).context("a rule without verbs or resources")
    };
    for role in objects.iter().filter(|object| object["kind"] == "ClusterRole" || object["kind"] == "Role") {
        for rule in role["rules"].as_array().context("a role without rules")? {
            ensure!(rule.get("nonResourceURLs").is_none(), "a URL is granted: {rule}");
            let secrets = rule["resources"] == json!(["secrets"]);
            ensure!(!secrets || rule["resourceNames"].is_array(), "Secrets without names: {rule}");
            for resource in words(&rule["resources"])? {
                grants.extend(words(&rule["verbs"])?.iter().map(|verb| format!("{verb} {resource}")));
            }
        }
    }
    ensure!(grants.iter().all(|grant| !grant.contains('*')), "a wildcard is granted: {grants:?}");
    Ok(grants)
}

/// What was asked, and what of it was refused.
#[derive(Debug, Default)]
struct Asked {
    allowed: Grants,
    refused: Grants,
}

impl Asked {
    fn read(log: &AuditLog) -> Result<Asked> {
        let mut asked = Asked::default();
        for event in log.events()? {
            let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let mut request = format!("{} {}", word(&event["verb"]), word(&event["objectRef"]["resource"]));
            if let Some(subresource) = event["objectRef"]["subresource"].as_str() {
                request = format!("{request}/{subresource}");
            }
            match event["annotations"]["authorization.k8s.io/decision"].as_str() {
                Some("allow") => asked.allowed.insert(request),
                _ => asked.refused.insert(format!("{request}: {event}")),
            };
        }
        Ok(asked)
    }
}

/// One node with an agent that has nothing but its Pod's token.
struct Scene {
    agent: Daemon,
    api: ApiServer,
    node: Netns,
    directory: TempDir,
    audit: AuditLog,
}

impl Scene {
    /// With the chart's values, and more of the AgentConfig.
    async fn start(values: &str, config: impl Fn(&Path) -> String) -> Result<(Scene, Vec<Value>)> {
        let node = Netns::new("node-a")?;
        let directory = tempfile::Builder::new().prefix("prt-grants-").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let account = format!("system:serviceaccount:{NAMESPACE}:{NAME}");
        let audit = AuditLog::new(directory.path(), &account, &["RequestReceived"])?;
        let arguments = audit.arguments();
        let netns = Some(node.name().to_owned());
        let api = ApiServer::start_with(Options { netns, arguments, ..Options::default() }).await?;
        let objects = install(&api, values).await?;
        api.create_node("node-a", &["127.0.0.1".parse()?]).await?;
        api.run_pod(&TestPod::new(NAMESPACE, "app", "node-a")).await?;
        let secret = json!({ "metadata": { "name": "tor" }, "stringData": { "password": "one" } });
        api.create::<Secret>(Api::namespaced(api.client(), NAMESPACE), secret).await?;

        // As a Pod has it, with the namespace that Secrets are in.
        let mut credentials: Value =
            serde_json::from_str(&kubeconfig(&api, &token(&api, Some("node-a")).await?)?)?;
        credentials["contexts"][0]["context"]["namespace"] = NAMESPACE.into();
        fs::write(path("kubeconfig"), credentials.to_string())?;
        fs::write(path("agent.yaml"), configuration(directory.path(), &config(directory.path())))?;
        let agent = start_agent(&node, directory.path())?;
        Ok((Scene { agent, api, node, directory, audit }, objects))
    }

    fn asked(&self) -> Result<Asked> {
        Asked::read(&self.audit)
    }

    fn await_asked(&self, what: &str, holds: impl Fn(&Asked) -> bool) -> Result<()> {
        wait_until(what, SOON, || match self.asked() {
            Ok(asked) if holds(&asked) => Ok(()),
            Ok(asked) => Err(format!("{asked:?}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .with_context(|| tail(&self.agent.log(), 12))
    }
}

fn configuration(directory: &Path, more: &str) -> String {
    let directory = directory.display();
    format!(
        r#"
apiVersion: plainroute.dev/v1alpha1
kind: AgentConfig
metadata: {{ name: agent }}
spec:
  nodeName: node-a
  source: {{ kubernetes: {{ kubeconfig: {directory}/kubeconfig }} }}
  adminSocket: {directory}/agent.sock
  stateDir: {directory}/state
  bfd: {{ socket: {directory}/bfd.sock, spawn: false }}
  {more}
---
apiVersion: plainroute.dev/v1alpha1
kind: BGPPeer
metadata: {{ name: tor }}
spec:
  localASN: 64512
  peerASN: 64600
  peerAddress: 127.0.0.2
  routerID: 172.16.0.1
  authSecretRef: {{ name: tor, key: password }}
"#
    )
}

fn start_agent(node: &Netns, directory: &Path) -> Result<Daemon> {
    let (program, config) =
        (agent::program()?.display().to_string(), directory.join("agent.yaml").display().to_string());
    node.spawn(&[&program, "agent", "--config", &config], &directory.join("agent.log"))
}

/// All that is granted, and what of it is not explained to be unused here.
fn granted_and_needed(objects: &[Value]) -> Result<(Grants, Grants)> {
    let granted = granted(objects)?;
    let unused = unused_and_why();
    let unused: Grants = unused.values().flatten().map(|grant| (*grant).to_owned()).collect();
    let unknown: Vec<_> = unused.difference(&granted).collect();
    ensure!(unknown.is_empty(), "explained and not granted: {unknown:?}");
    let needed = granted.difference(&unused).cloned().collect();
    Ok((granted, needed))
}

fn attachment(name: &str) -> Attachment {
    Attachment { container_id: name.to_owned(), ifname: "eth0".to_owned() }
}

/// Waits for Events of these reasons, each about an object of this kind and name.
async fn await_events(scene: &Scene, wanted: &[(&str, &str, &str)]) -> Result<()> {
    let events = Api::<Event>::all(scene.api.client());
    wait_until_async(&format!("{wanted:?}"), SOON, async || {
        let there = events.list(&Default::default()).await.map_err(|error| error.to_string())?.items;
        let about = |event: &Event| {
            let about = event.regarding.clone().unwrap_or_default();
            (
                event.reason.clone().unwrap_or_default(),
                about.kind.unwrap_or_default(),
                about.name.unwrap_or_default(),
            )
        };
        let there: Vec<_> = there.iter().map(about).collect();
        let is_there = |(reason, kind, name): &(&str, &str, &str)| {
            there.iter().any(|(r, k, n)| r == reason && k == kind && n == name)
        };
        if wanted.iter().all(is_there) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await
    .with_context(|| tail(&scene.agent.log(), 12))
}

/// As the CNI plugin asks.
async fn ask(directory: &Path, command: Command) -> Result<Vec<IpAddr>> {
    let socket = directory.join("ipam.sock");
    let request = Request::new("pods", command);
    let reply =
        tokio::task::spawn_blocking(move || plainroute_cni::agent::ask(&socket, &request, SOON)).await?;
    match reply {
        Ok(Reply::Addresses(addresses)) => Ok(addresses),
        other => bail!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_gives_addresses_out_is_refused_nothing_either() -> Result<()> {
    let values = "{ secretNames: [tor], ipam: { enabled: true } }";
    let ipam =
        |directory: &Path| format!("ipam: {{ socket: {}/ipam.sock, checkSeconds: 5 }}", directory.display());
    let (scene, objects) = Scene::start(values, ipam).await?;
    let (granted, needed) = granted_and_needed(&objects)?;
    let all: Grants = NEEDED.into_iter().chain(NEEDED_FOR_ADDRESSES).map(str::to_owned).collect();
    assert_eq!(needed, all);

    // Blocks of single addresses, which are given back soon; one address stays, kept for a Pod of a StatefulSet.
    let pool = json!({
        "apiVersion": "plainroute.dev/v1alpha1", "kind": "IPPool", "metadata": { "name": "all" },
        "spec": { "ipRanges": [{ "cidr": "10.20.0.0/31" }], "blockSize": 32, "ipCooldownSeconds": 0 },
    });
    scene.api.apply(pool).await?;
    let labels = json!({ "set": "db" });
    let container = json!([{ "name": "main", "image": "none.invalid/none" }]);
    let set = json!({
        "metadata": { "name": "db" },
        "spec": {
            "serviceName": "db", "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": container } },
        },
    });
    let sets = Api::<StatefulSet>::namespaced(scene.api.client(), NAMESPACE);
    let set = sets.create(&Default::default(), &serde_json::from_value(set)?).await?;
    scene.api.create_pod(&TestPod::new(NAMESPACE, "db-0", "node-a").of_stateful_set(&set)).await?;
    let directory = scene.directory.path();
    let socket = directory.join("ipam.sock");
    let connect = || std::os::unix::net::UnixStream::connect(&socket);
    wait_until("the CNI socket", SOON, || connect().map(drop).map_err(|error| error.to_string()))
        .with_context(|| tail(&scene.agent.log(), 12))?;
    let add = async |name: &str| {
        let pod = Pod { namespace: NAMESPACE.to_owned(), name: name.to_owned(), uid: None };
        let netns = format!("/run/netns/{name}");
        ask(directory, Command::Add { attachment: attachment(name), netns, pod }).await
    };
    for name in ["app", "db-0"] {
        let given = add(name).await.with_context(|| tail(&scene.agent.log(), 12))?;
        ensure!(given.len() == 1, "{given:?}");
    }
    // There is no third address, which the cluster is told about the Pod and about the pool.
    scene.api.create_pod(&TestPod::new(NAMESPACE, "late", "node-a")).await?;
    let refused = add("late").await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("no free address in all"), "{refused}");
    await_events(&scene, &[("NoAddress", "Pod", "late"), ("PoolExhausted", "IPPool", "all")]).await?;
    for name in ["app", "db-0"] {
        ask(directory, Command::Del { attachment: attachment(name), netns: None, pod: None }).await?;
    }
    // A repair reads each block again.
    let (program, socket) = (agent::program()?.display().to_string(), directory.join("agent.sock"));
    scene.node.run(&[&program, "pools", "check", "--repair", "--socket", &socket.display().to_string()])?;
    scene.await_asked("the agent to use all that it needs", |asked| needed.is_subset(&asked.allowed))?;
    let asked = scene.asked()?;
    assert_eq!(asked.refused, Grants::new());
    let more: Vec<_> = asked.allowed.difference(&granted).collect();
    ensure!(more.is_empty(), "used and granted by somebody else: {more:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_refused_nothing_and_granted_nothing_in_vain() -> Result<()> {
    let (scene, objects) = Scene::start(VALUES, |_| String::new()).await?;
    let (granted, needed) = granted_and_needed(&objects)?;
    assert_eq!(needed, NEEDED.map(str::to_owned).into());
    scene.await_asked("the agent to use all that it needs", |asked| needed.is_subset(&asked.allowed))?;
    let ready = ["curl", "-sf", "http://127.0.0.1:9179/readyz"];
    wait_until("the agent to be ready", SOON, || {
        scene.node.run(&ready).map(drop).map_err(|error| error.to_string())
    })
    .with_context(|| tail(&scene.agent.log(), 12))?;

    let asked = scene.asked()?;
    assert_eq!(asked.refused, Grants::new());
    let more: Vec<_> = asked.allowed.difference(&granted).collect();
    ensure!(more.is_empty(), "used and granted by somebody else: {more:?}");

    // Negative control: what is refused is seen.
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(scene.directory.path().join("kubeconfig"))?)?;
    let token = config["users"][0]["user"]["token"].take();
    let token = token.as_str().context("no token")?;
    let other = scene.node.run(&[
        "curl",
        "-sk",
        "-H",
        &format!("Authorization: Bearer {token}"),
        &format!("https://{}/api/v1/namespaces/{NAMESPACE}/secrets/other", scene.api.address()),
    ])?;
    ensure!(other.contains("\"code\": 403"), "another Secret is not refused: {other}");
    scene.await_asked("the refusal to be written down", |asked| {
        asked.refused.iter().any(|request| request.starts_with("get secrets"))
    })
}
