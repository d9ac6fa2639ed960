//! The agent that writes the conditions of objects is killed, and another one goes on where it was.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::events::v1::Event;
use kube::api::Api;
use plainroute_tests::netns::wait_until_async;
use serde_json::{Value, json};

use super::kinds::{loosen_peers, peer};
use super::lost_none;
use super::writes::allow_writes;
use crate::cluster::{A, B, Cluster, OWN_NAMESPACE, Scene, erp_pod};
use crate::node::Node;

/// Who does not hold the Lease looks every 15 to 30 s, sees once who renewed it last, and takes it when it is the same
/// 15 s later; then it counts and writes at once.
const TAKEN_OVER: Duration = Duration::from_secs(60 + 10);
/// The same and the next look at the objects, on a machine that is busy with other tests.
const LATER: Duration = Duration::from_secs(120);

async fn lease(lab: &Cluster) -> Result<LeaseSpec> {
    let lease = Api::<Lease>::namespaced(lab.api.client(), OWN_NAMESPACE).get("plainroute-status").await?;
    lease.spec.context("an empty Lease")
}

async fn await_holder(lab: &Cluster, node: &Node) -> Result<()> {
    let what = format!("{} to hold the Lease", node.name);
    let held = wait_until_async(&what, LATER, async || match lease(lab).await {
        Ok(lease) if lease.holder_identity.as_deref() == Some(node.name) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    held.await.with_context(|| node.last_words())
}

/// Waits for status and reason of a condition of an object, as the API server has it.
async fn await_condition(lab: &Cluster, (kind, name): (&str, &str), of: &str, says: &str) -> Result<Value> {
    let condition = async || -> Result<Value> {
        let object = serde_json::to_value(lab.api.custom(kind).get(name).await?)?;
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().find(|condition| condition["type"] == of).cloned().context("not there")
    };
    let what = format!("{kind}/{name}: {of}: {says}");
    let awaited = wait_until_async(&what, LATER, async || match condition().await {
        Ok(seen) if says == format!("{} {}", word(&seen["status"]), word(&seen["reason"])) => Ok(seen),
        other => Err(format!("{other:?}")),
    });
    awaited.await.with_context(|| lab.a.last_words() + &lab.b.last_words())
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// How often something was told of an object or node, those of a series included.
async fn told(lab: &Cluster, reason: &str, of: &str) -> Result<i32> {
    let events = Api::<Event>::all(lab.api.client()).list(&Default::default()).await?;
    let is_it = |event: &&Event| {
        let regarding = event.regarding.as_ref().and_then(|object| object.name.as_deref());
        event.reason.as_deref() == Some(reason) && regarding == Some(of)
    };
    Ok(events.items.iter().filter(is_it).map(|event| event.series.as_ref().map_or(1, |of| of.count)).sum())
}

async fn await_told(lab: &Cluster, reason: &str, of: &str, times: i32) -> Result<()> {
    let what = format!("{reason} of {of} to be told {times} times");
    let awaited = wait_until_async(&what, LATER, async || match told(lab, reason, of).await {
        Ok(seen) if seen == times => Ok(()),
        other => Err(format!("{other:?}")),
    });
    awaited.await.with_context(|| lab.a.last_words() + &lab.b.last_words())
}

fn pool(name: &str, cidr: &str) -> Value {
    json!({
        "apiVersion": "plainroute.dev/v1alpha1", "kind": "IPPool", "metadata": { "name": name },
        "spec": { "ipRanges": [{ "cidr": cidr }], "allocation": "External" },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn conditions_are_told_on_by_another_agent_and_nothing_is_told_twice() -> Result<()> {
    // node-a has the kinds in its files too, so those of the cluster are not in force there.
    let scene = Scene { status: true, kinds_in_files: [true, false], ..Scene::default() };
    let mut lab = Cluster::without_agents(scene).await?;
    allow_writes(&lab).await?;
    lab.apply_kinds().await?;
    lab.a.start_agent()?;
    await_holder(&lab, &lab.a).await?;
    lab.b.start_agent()?;
    lab.await_sessions()?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.await_routes(&[("10.20.0.1", A)])?;
    let probe = lab.probe(&one, "10.20.0.1")?;
    await_told(&lab, "SessionEstablished", lab.a.name, 1).await?;
    await_told(&lab, "SessionEstablished", lab.b.name, 1).await?;

    // What stands on the objects of the API server.
    await_condition(&lab, ("BGPPeer", "tor"), "Established", "True Established").await?;
    let shadowed = await_condition(&lab, ("BGPPeer", "tor"), "Conflict", "True Shadowed").await?;
    ensure!(word(&shadowed["message"]).starts_with("on 1 nodes: "), "{shadowed}");
    await_condition(&lab, ("IPPool", "erp"), "Accepted", "True Valid").await?;
    loosen_peers(&lab).await?;
    lab.api.apply_once_accepted(&peer("broken", &json!({ "peerAddress": "nonsense" }))).await?;
    let invalid = await_condition(&lab, ("BGPPeer", "broken"), "Accepted", "False Invalid").await?;
    ensure!(word(&invalid["message"]).contains("what was known of it stays in force"), "{invalid}");
    await_told(&lab, "NotAccepted", "broken", 1).await?;
    ensure!(told(&lab, "NotAccepted", "tor").await? == 0, "others are not concerned");
    // Control: as long as its holder lives, nobody takes the Lease.
    let before = lease(&lab).await?;
    ensure!(before.holder_identity.as_deref() == Some(lab.a.name), "{before:?}");
    ensure!(before.lease_transitions == Some(0), "{before:?}");

    lab.a.kill_agent()?;
    let killed = Instant::now();
    lab.api.apply(pool("late", "10.40.0.0/24")).await?;
    await_holder(&lab, &lab.b).await?;
    let taken = killed.elapsed();
    await_condition(&lab, ("IPPool", "late"), "Accepted", "True Valid").await?;
    println!("another agent held the Lease after {taken:?}, and had written after {:?}", killed.elapsed());
    ensure!(taken < TAKEN_OVER, "taken over after {taken:?} only");
    ensure!(lease(&lab).await?.lease_transitions == Some(1), "{:?}", lease(&lab).await?);
    let again = await_condition(&lab, ("BGPPeer", "broken"), "Accepted", "False Invalid").await?;
    ensure!(again["lastTransitionTime"] == invalid["lastTransitionTime"], "{invalid} became {again}");

    // The first one is back. It tells what is new, after what it would tell for the second time, and does not take over.
    lab.a.start_agent()?;
    lab.await_sessions()?;
    lab.api.run_pod(&erp_pod(&lab.a, "stray", "10.99.0.1")?).await?;
    await_told(&lab, "NotAdvertised", "stray", 1).await?;
    let state = serde_json::to_value(lab.api.custom("NodeState").get(lab.a.name).await?)?;
    ensure!(state["status"]["sessions"][0]["state"] == "Established", "{state}");
    ensure!(told(&lab, "SessionEstablished", lab.a.name).await? == 1, "a restart is no news");
    ensure!(told(&lab, "SessionLost", lab.a.name).await? == 0, "a restart is no loss");
    ensure!(told(&lab, "NotAccepted", "broken").await? == 1, "the second agent told it again");
    ensure!(lease(&lab).await?.holder_identity.as_deref() == Some(lab.b.name), "taken from who lives");
    lost_none("the agent that writes conditions killed, another goes on", probe)?;

    // Mended, it is told as well; and a session that is lost for real is, as the control of what was not told.
    lab.api.apply(peer("broken", &json!({ "localASN": 64512, "peerASN": 64600, "peerAddress": B }))).await?;
    await_condition(&lab, ("BGPPeer", "broken"), "Accepted", "True Valid").await?;
    await_told(&lab, "Accepted", "broken", 1).await?;
    lab.tor.birdc("disable node_a").map_err(|error| anyhow::anyhow!("{error:#}"))?;
    await_told(&lab, "SessionLost", lab.a.name, 1).await?;
    lab.tor.birdc("enable node_a").map_err(|error| anyhow::anyhow!("{error:#}"))?;
    await_told(&lab, "SessionEstablished", lab.a.name, 2).await
}
