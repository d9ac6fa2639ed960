//! What the agents tell the cluster: NodeState and Events, by the agent's own binary, on a real API server, with BIRD as
//! ToR. The API server's audit log is the judge of how often is written; the ToR's table of what that costs BGP.
//!
//! Needs `plainroute` built beside the tests: `cargo build -p plainroute-agent`.

mod scene;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use plainroute_tests::kubelab::objects::TestPod;
use scene::{NAMESPACE, NODE, Scene};
use serde_json::{Value, json};

const STATUS: &str = "patch nodestates/status";

/// Whether a condition holds.
fn says(state: &Value, condition: &str, status: &str) -> bool {
    let conditions = state["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|of| of["type"] == condition && of["status"] == status)
}

fn is_up(state: &Value) -> bool {
    state["status"]["sessions"][0]["state"] == "Established" && says(state, "SessionsEstablished", "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_state_follows_sessions_and_counts_and_is_left_alone_otherwise() -> Result<()> {
    let scene = Scene::start().await?;
    let well = |state: &Value| is_up(state) && says(state, "Ready", "True") && says(state, "InSync", "True");
    let state = scene.await_state("a node that is well", well).await?;
    let owner = &state["metadata"]["ownerReferences"][0];
    ensure!(
        owner["kind"] == "Node" && owner["uid"] == scene.node_uid().await?,
        "it goes with its Node: {owner}"
    );
    let events = scene.await_events("SessionEstablished", 1).await?;
    let regarding = events[0].regarding.clone().unwrap_or_default();
    ensure!(
        regarding.name.as_deref() == Some(NODE) && regarding.kind.as_deref() == Some("Node"),
        "{events:?}"
    );

    scene.run_pod("one", "10.20.0.1").await?;
    scene.await_routes(&["10.20.0.1"])?;
    let one =
        |state: &Value| state["status"]["advertised"] == json!({ "pods": 1, "podIPs": 1, "prefixes": 1 });
    scene
        .await_state("a Pod that is advertised", |state| {
            one(state) && state["status"]["sessions"][0]["prefixesSent"] == 1
        })
        .await?;

    // Fifty Pods that come and flap change nothing that is told: they have no path, and readiness is not asked for.
    for number in 100..150 {
        let address = std::net::IpAddr::from([10, 20, 0, number]);
        scene.api.run_pod(&TestPod::new("erp", &format!("flaps-{number}"), NODE).address(address)).await?;
    }
    let before = scene.node_state().await?;
    let writes = scene.writes(STATUS)?;
    for ready in [false, true, false] {
        for number in 100..150 {
            scene.api.set_pod_ready("erp", &format!("flaps-{number}"), ready).await?;
        }
    }
    let after = scene.node_state().await?;
    ensure!(
        before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "{before} became {after}"
    );
    ensure!(scene.writes(STATUS)? == writes, "it was written without need");

    // A Pod that breaks a rule comes after all of that, so what is told of it is told later.
    scene.api.run_pod(&TestPod::new("erp", "stray", NODE).address([10, 99, 0, 1])).await?;
    let told = |state: &Value| state["status"]["refusedPods"] == 1;
    let state = scene.await_state("a Pod that is refused", told).await?;
    ensure!(one(&state) && state["status"]["objects"].to_string().contains("erp/stray"), "{state}");
    ensure!(scene.writes(STATUS)? == writes + 1, "one change is one write");
    let events = scene.await_events("NotAdvertised", 1).await?;
    let regarding = events[0].regarding.clone().unwrap_or_default();
    let uid = scene.api.pod_uid("erp", "stray").await?;
    ensure!(regarding.uid == Some(uid) && regarding.namespace.as_deref() == Some("erp"), "{events:?}");

    let established = state["status"]["sessions"][0]["since"].clone();
    scene.set_session(false)?;
    let lost =
        scene.await_state("the session's end", |state| says(state, "SessionsEstablished", "False")).await?;
    ensure!(lost["status"]["sessions"][0]["lastError"].is_string(), "{lost}");
    ensure!(one(&lost), "a session that is down is no Pod that is not advertised to others: {lost}");
    let events = scene.await_events("SessionLost", 1).await?;
    ensure!(events[0].type_.as_deref() == Some("Warning"), "{events:?}");
    scene.set_session(true)?;
    let state = scene.await_state("its return", is_up).await?;
    ensure!(state["status"]["sessions"][0]["since"] != established, "it is another session: {state}");
    // The second of the same is one of a series.
    ensure!(scene.await_events("SessionEstablished", 2).await?.len() == 1, "no series");
    ensure!(scene.events("SessionLost").await?.len() == 1, "told twice");
    ensure!(scene.writes("create nodestates")? + scene.writes("patch nodestates")? == 1, "it was made twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_or_lacks_the_kind_costs_one_line_and_no_route() -> Result<()> {
    let mut scene = Scene::start().await?;
    scene.run_pod("one", "10.20.0.1").await?;
    scene.await_routes(&["10.20.0.1"])?;
    let state = scene.await_state("a session that is up", is_up).await?;
    let log = scene.tor.log().len();

    // The agents' API server is away; the test's own is not.
    scene.api.kill().await?;
    // A drain is much to tell, and withdraws nothing until its wait is over.
    scene.set_drain(true)?;
    scene.await_logged("this node's state is not told", 1)?;
    scene.await_routes(&["10.20.0.1"])?;
    ensure!(scene.node_state().await? == state, "somebody else wrote it");
    scene.api.restart().await?;
    // What is taken back before the agent has looked was never told.
    scene.await_events("DrainStarted", 1).await?;
    scene.set_drain(false)?;
    scene.await_events("DrainEnded", 1).await?;
    scene.await_logged("takes this node's state again", 1)?;

    // Its definition is deleted, and all NodeStates with it; then it is back.
    scene.api.delete_crd("nodestates.plainroute.dev").await?;
    scene.set_drain(true)?;
    scene.await_logged("knows no NodeState", 1)?;
    scene.set_drain(false)?;
    scene.api.install_crds().await?;
    scene.await_state("a NodeState once more", is_up).await?;

    let said = scene.tor.log().split_off(log);
    ensure!(!said.contains("removed"), "a route went:\n{said}");
    ensure!(!said.contains("State changed to"), "the session went:\n{said}");
    let lines = scene.agent_log().matches("is not told").count();
    ensure!(lines <= 3, "{lines} lines:\n{}", scene.agent_log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_have_conditions_once_the_lease_of_a_dead_agent_is_over() -> Result<()> {
    let scene = Scene::without_agent().await?;
    let leases = || Api::<Lease>::namespaced(scene.api.client(), NAMESPACE);
    let (now, name) = (Timestamp::now(), "plainroute-status");
    let spec =
        json!({ "holderIdentity": "node-z", "leaseDurationSeconds": 15, "renewTime": format!("{now:.6}") });
    scene.api.create(leases(), json!({ "metadata": { "name": name }, "spec": spec })).await?;

    let object = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "plainroute.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let peer = |name: &str, more: Value| {
        let mut spec = json!({ "localASN": 64512, "peerASN": 64600, "peerAddress": "172.16.0.99" });
        spec.as_object_mut()
            .into_iter()
            .for_each(|spec| spec.extend(more.as_object().cloned().unwrap_or_default()));
        object("BGPPeer", name, spec)
    };
    let pool = |name: &str, cidr: &str| {
        object("IPPool", name, json!({ "ipRanges": [{ "cidr": cidr }], "allocation": "External" }))
    };
    scene
        .api
        .apply(peer("secret", json!({ "authSecretRef": { "name": "absent", "key": "password" } })))
        .await?;
    scene
        .api
        .apply(peer("nowhere", json!({ "nodeSelector": { "matchLabels": { "rack": "none" } } })))
        .await?;
    for (name, cidr) in [("one", "10.50.0.0/24"), ("two", "10.50.0.128/25"), ("three", "10.60.0.0/24")] {
        scene.api.apply(pool(name, cidr)).await?;
    }
    let scene = scene.start_agent()?;
    scene.await_condition(("BGPPeer", "nowhere"), "Established", "False NoMatchingNode").await?;
    scene.await_condition(("BGPPeer", "nowhere"), "Accepted", "True Valid").await?;
    scene.await_condition(("BGPPeer", "secret"), "SecretsResolved", "False MissingSecret").await?;
    scene.await_condition(("IPPool", "one"), "Conflict", "True Overlap").await?;
    scene.await_condition(("IPPool", "two"), "Conflict", "True Overlap").await?;
    scene.await_condition(("IPPool", "three"), "Conflict", "False None").await?;
    let lease = Api::<Lease>::namespaced(scene.api.client(), NAMESPACE).get(name).await?;
    let spec = lease.spec.unwrap_or_default();
    ensure!(spec.holder_identity.as_deref() == Some(NODE) && spec.lease_transitions == Some(1), "{spec:?}");
    let waited = Timestamp::now().duration_since(now);
    ensure!(waited.as_secs() >= 15, "it was taken from who may still live, after {waited}");
    // The file's session is not touched by any of it.
    scene.await_session("established")?;
    scene.writes("patch bgppeers/status").map(drop)
}
