//! A real cluster: API server, controllers and scheduler, two nodes with containerd and kubelet, Pods on the CNI plugin
//! `ptp`, the agent as the Helm chart and our image deliver it, FRR and BIRD as ToRs, and a host outside that has never heard of
//! Kubernetes.
//!
//! The agent's image is `$PLAINROUTE_IMAGE`, or made by scripts/image.sh, which takes minutes the first time. It is one test, because the cluster is what
//! takes time; its parts stand in the order in which a platform team would meet them. [`ipam`] is another, with a cluster whose
//! addresses are the agents'.
//!
//! What it claims:
//! - Pods are reached from outside by their own addresses, through either ToR, and each ToR knows them behind their node.
//!   Pods of a namespace that no pool is bound to are not, although they have an address of the same range.
//! - A rolling restart of the DaemonSet loses no packet and no BFD session, as long as the ToRs help restarting peers. With ToRs that do
//!   not, it does (the control).
//! - A rollout waits for each agent to be ready: one that cannot come in sync holds the rest back, and loses nothing.
//! - Cordoning a node changes nothing. Draining it withdraws each Pod before it dies, and a node that is uncordoned gets
//!   Pods that are reached again. `plainroute drain` in an agent's container takes its node out and back, and ends no Pod.

mod cluster;
mod ipam;
mod leftovers;
mod manifests;
mod release;
mod scene;
mod traffic;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::Running;
use manifests::{NAMESPACE, OTHER_NAMESPACE, WEB};
use plainroute_tests::netns::wait_until_async;
use scene::{Addressing, Scene};
use traffic::Traffic;

/// How long a change may take on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);
/// How many seconds Pods take to end, where that is looked at.
const GRACE: u32 = 8;

/// One cluster at a time: on a small machine two would make each other late.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn pods_of_a_real_cluster_stay_reachable_through_restarts_rollouts_and_drains() -> Result<()> {
    let _turn = turn();
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut scene = Scene::start(Addressing::HostLocal).await?;
        scene.deploy_agents().await?;
        println!("a cluster with agents after {} s", started.elapsed().as_secs());
        reached_by_their_own_addresses(&scene).await?;
        rolling_restart_loses_nothing(&scene).await?;
        rollout_waits_for_readiness(&scene).await?;
        drain_withdraws_before_pods_die(&scene).await?;
        agents_drain_takes_a_node_out_and_back(&scene).await?;
        rolling_restart_without_graceful_restart_loses(&mut scene).await?;
        for node in &scene.nodes {
            let memory = node.peak_memory().map(|bytes| bytes / 1024 / 1024);
            println!("{} had {memory:?} MiB at most, page cache included", node.name());
        }
        Ok(())
    })
}

async fn reached_by_their_own_addresses(scene: &Scene) -> Result<()> {
    let cause = Instant::now();
    scene.deploy(NAMESPACE, "web", 4, GRACE).await?;
    scene.deploy(OTHER_NAMESPACE, "web", 2, GRACE).await?;
    let pods = scene.pods(NAMESPACE, WEB).await?;
    let nodes: BTreeSet<_> = pods.iter().map(|pod| &pod.node).collect();
    ensure!(nodes.len() == 2, "the Pods are not spread: {pods:?}");
    scene.time_routes("two Deployments", cause, &pods)?;
    pods.iter().try_for_each(|pod| scene.ping(pod))?;

    for agent in scene.agents().await? {
        let peers = scene.ask(&agent, &["peers"])?;
        let states: Vec<_> = peers.as_array().into_iter().flatten().map(|peer| &peer["state"]).collect();
        ensure!(states == ["Established", "Established"], "{}: {peers}", agent.name);
        for pod in scene.pods(OTHER_NAMESPACE, WEB).await? {
            if pod.node == agent.node {
                let explanation = scene.ask(&agent, &["explain", &pod.address.to_string()])?;
                let reason = &explanation["addresses"][0]["reason"];
                ensure!(reason == "PoolOfOtherNamespace", "{pod:?}: {explanation}");
            }
        }
    }
    Ok(())
}

async fn rolling_restart_loses_nothing(scene: &Scene) -> Result<()> {
    let (pods, agents) = (scene.pods(NAMESPACE, WEB).await?, scene.agents().await?);
    scene.await_bfd()?;
    let log = scene.bird.log().len();
    let traffic = Traffic::start(scene, &pods)?;
    let cause = Instant::now();
    scene.restart_agents("an upgrade").await?;
    scene.await_rollout().await?;
    println!("rolling restart: {} ms until all agents are ready", cause.elapsed().as_millis());
    scene.await_sessions()?;
    ensure!(scene.agents().await?.is_disjoint(&agents), "an agent was not replaced");
    scene.time_routes("rolling restart", cause, &pods)?;
    // It has a DaemonSet of its own, so this is no failure to it.
    scene.await_bfd()?;
    traffic.finish_without_loss("rolling restart")?;
    let log = scene.bird.log().split_off(log);
    for node in ["node_a", "node_b"] {
        let detected = format!("{node}: Neighbor graceful restart detected");
        ensure!(log.contains(&detected), "BIRD did not see {node} restart:\n{log}");
    }
    ensure!(!log.contains("> removed"), "a route was away for a moment:\n{log}");
    Ok(())
}

/// The newest agents may not ask the API server, nor find what it said last, so they know of no Pod.
async fn rollout_waits_for_readiness(scene: &Scene) -> Result<()> {
    let (pods, agents) = (scene.pods(NAMESPACE, WEB).await?, scene.agents().await?);
    let traffic = Traffic::start(scene, &pods)?;
    // Where a directory stands, no file can be read or written.
    const KEPT: &str = "/var/lib/plainroute/last-good";
    for node in &scene.nodes {
        node.run(&["sh", "-c", &format!("rm -f {KEPT} && mkdir {KEPT}")])?;
    }
    scene.forbid_agents().await?;
    scene.restart_agents("a release that does not work").await?;
    let newest = wait_until_async("the first new agent", SOON, || async {
        let now = scene.agents().await.map_err(|error| format!("{error:#}"))?;
        now.difference(&agents).next().cloned().ok_or(format!("{now:?}"))
    })
    .await?;
    scene.await_unready(&newest).await?;
    let now = scene.agents().await?;
    ensure!(now.difference(&agents).eq([&newest]), "the rollout went on without it: {now:?}, was {agents:?}");
    scene.time_routes("an agent that is not ready", Instant::now(), &pods)?;

    scene.allow_agents().await?;
    scene.await_rollout().await?;
    ensure!(scene.agents().await?.is_disjoint(&agents), "the rollout did not go on");
    for node in &scene.nodes {
        node.run(&["rmdir", KEPT])?;
    }
    scene.await_sessions()?;
    scene.time_routes("the rollout that was held", Instant::now(), &pods)?;
    traffic.finish_without_loss("a rollout that was held")
}

async fn drain_withdraws_before_pods_die(scene: &Scene) -> Result<()> {
    const NODE: &str = "node-b";
    let before = scene.pods(NAMESPACE, WEB).await?;
    let (leaving, staying): (BTreeSet<_>, BTreeSet<_>) =
        before.iter().cloned().partition(|pod| pod.node == NODE);
    ensure!(!leaving.is_empty() && !staying.is_empty(), "{before:?}");
    let others = Traffic::start(scene, &staying)?;

    let traffic = Traffic::start(scene, &leaving)?;
    scene.cordon(NODE, true).await?;
    // What happens after the cordon is seen, so the cordon is.
    let cause = Instant::now();
    scene.scale("web", 5).await?;
    let cordoned = scene.pods(NAMESPACE, WEB).await?;
    ensure!(cordoned.is_superset(&before) && cordoned.len() == 5, "{cordoned:?}");
    ensure!(cordoned.difference(&before).all(|pod| pod.node != NODE), "{NODE} is cordoned: {cordoned:?}");
    scene.time_routes("a cordoned node, and a new Pod on the other", cause, &cordoned)?;
    traffic.finish_without_loss("a cordoned node")?;

    let cause = Instant::now();
    for pod in &leaving {
        scene.evict(pod).await?;
    }
    scene.await_withdrawn(&leaving)?;
    println!("eviction: {} ms until both ToRs had withdrawn", cause.elapsed().as_millis());
    for pod in &leaving {
        ensure!(scene.is_terminating(pod).await?, "{pod:?}");
        // It lives, and from the node itself, which needs no ToR, it is reached.
        scene.node(NODE)?.run(&["ping", "-c1", "-W2", &pod.address.to_string()])?;
    }
    for pod in &leaving {
        scene.await_gone(pod).await?;
    }
    scene.await_available(NAMESPACE, "web", 5).await?;
    let drained = scene.pods(NAMESPACE, WEB).await?;
    ensure!(drained.iter().all(|pod| pod.node != NODE), "{NODE} is drained: {drained:?}");
    scene.time_routes("a drained node", cause, &drained)?;
    others.finish_without_loss("the drain of another node")?;

    scene.cordon(NODE, false).await?;
    let cause = Instant::now();
    scene.scale("web", 7).await?;
    let after = scene.pods(NAMESPACE, WEB).await?;
    let back: Vec<_> = after.iter().filter(|pod| pod.node == NODE).collect();
    ensure!(!back.is_empty(), "no Pod came to {NODE}: {after:?}");
    scene.time_routes("a node that is back", cause, &after)?;
    back.into_iter().try_for_each(|pod| scene.ping(pod))
}

/// `plainroute drain`, typed in the agent's container: nothing on the node ends, and nothing is sent there.
async fn agents_drain_takes_a_node_out_and_back(scene: &Scene) -> Result<()> {
    let pods = scene.pods(NAMESPACE, WEB).await?;
    let agents = scene.agents().await?;
    let agent = agents.first().context("an agent")?;
    let (here, elsewhere): (BTreeSet<_>, BTreeSet<_>) =
        pods.iter().cloned().partition(|pod| pod.node == agent.node);
    ensure!(!here.is_empty() && !elsewhere.is_empty(), "{pods:?}");
    let cause = Instant::now();
    scene.ask(agent, &["drain", "--wait", "0"])?;
    scene.time_routes("plainroute drain", cause, &elsewhere)?;
    elsewhere.iter().try_for_each(|pod| scene.ping(pod))?;
    for pod in &here {
        scene.node(&agent.node)?.run(&["ping", "-c1", "-W2", &pod.address.to_string()])?;
    }
    let cause = Instant::now();
    scene.ask(agent, &["drain", "--undo"])?;
    scene.time_routes("plainroute drain --undo", cause, &pods)?;
    here.iter().try_for_each(|pod| scene.ping(pod))
}

/// The control: the same restart, the same probe, ToRs that do not help.
async fn rolling_restart_without_graceful_restart_loses(scene: &mut Scene) -> Result<()> {
    let pods = scene.pods(NAMESPACE, WEB).await?;
    scene.stop_helping()?;
    scene.await_sessions()?;
    scene.time_routes("ToRs that do not help", Instant::now(), &pods)?;
    pods.iter().try_for_each(|pod| scene.ping(pod))?;
    let one_each: Vec<&Running> =
        scene::NODES.iter().filter_map(|(name, ..)| pods.iter().find(|pod| pod.node == *name)).collect();
    let traffic = Traffic::start(scene, one_each)?;
    scene.restart_agents("a control").await?;
    scene.await_rollout().await?;
    scene.await_sessions()?;
    scene.time_routes("after the control", Instant::now(), &pods)?;
    let counts = traffic.finish()?;
    for count in counts.values().flatten() {
        println!("without graceful restart: {count:?}");
    }
    ensure!(
        counts.len() == 2 && counts.values().flatten().all(|count| count.lost > 0),
        "the probe sees no loss"
    );
    Ok(())
}
