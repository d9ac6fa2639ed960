//! An agent under the chart's own roles, on a real API server that writes down what it asks: nothing is refused, and
//! nothing is granted that nobody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use plainroute_tests::agent;
use plainroute_tests::kubelab::audit::AuditLog;
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::kubelab::{ApiServer, Options};
use plainroute_tests::netns::{Daemon, Netns, tail, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api::{install, kubeconfig, token};
use super::chart::{NAME, NAMESPACE};

const SOON: Duration = Duration::from_secs(60);
const VALUES: &str = "secretNames: [tor]";

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
    async fn start() -> Result<(Scene, Vec<Value>)> {
        let node = Netns::new("node-a")?;
        let directory = tempfile::Builder::new().prefix("prt-grants-").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let account = format!("system:serviceaccount:{NAMESPACE}:{NAME}");
        let audit = AuditLog::new(directory.path(), &account, &["RequestReceived"])?;
        let arguments = audit.arguments();
        let netns = Some(node.name().to_owned());
        let api = ApiServer::start_with(Options { netns, arguments, ..Options::default() }).await?;
        let objects = install(&api, VALUES).await?;
        api.create_node("node-a", &["127.0.0.1".parse()?]).await?;
        api.run_pod(&TestPod::new(NAMESPACE, "app", "node-a")).await?;
        let secret = json!({ "metadata": { "name": "tor" }, "stringData": { "password": "one" } });
        api.create::<Secret>(Api::namespaced(api.client(), NAMESPACE), secret).await?;

        // As a Pod has it, with the namespace that Secrets are in.
        let mut config: Value =
            serde_json::from_str(&kubeconfig(&api, &token(&api, Some("node-a")).await?)?)?;
        config["contexts"][0]["context"]["namespace"] = NAMESPACE.into();
        fs::write(path("kubeconfig"), config.to_string())?;
        fs::write(path("agent.yaml"), configuration(directory.path()))?;
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

fn configuration(directory: &Path) -> String {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_refused_nothing_and_granted_nothing_in_vain() -> Result<()> {
    let (scene, objects) = Scene::start().await?;
    let granted = granted(&objects)?;
    let unused = unused_and_why();
    let unused: Grants = unused.values().flatten().map(|grant| (*grant).to_owned()).collect();
    let unknown: Vec<_> = unused.difference(&granted).collect();
    ensure!(unknown.is_empty(), "explained and not granted: {unknown:?}");

    let needed: Grants = granted.difference(&unused).cloned().collect();
    assert_eq!(
        needed,
        [
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
        ]
        .map(str::to_owned)
        .into()
    );
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
