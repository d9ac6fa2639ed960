//! From the API server to the router, with nothing in between that is not real: kube-apiserver and etcd, two nodes with
//! the agent's own binary, and BIRD as ToR, which is the judge of what was advertised.
//!
//! Needs `plainroute` built beside the tests: `cargo build -p plainroute-agent`.
//!
//! What the suite claims of an API server that is away:
//! - An agent that runs changes nothing: no withdrawal, no announcement, for however long it lasts
//!   (`PLAINROUTE_OUTAGE_SECONDS`, 20 by default). Afterwards what changed meanwhile arrives, and only that.
//! - An agent that is restarted then goes by what the API server said last, from a file: no route goes, however long it
//!   lasts. Without the file, or with one that is damaged, it knows nothing, so it says nothing: no End-of-RIB, which alone
//!   would have the ToR drop what was not sent again. The ToR keeps the routes for the restart time that the agent had
//!   offered, and the kernel keeps the paths; then the node's Pods are off the network.
//! - An API server that has just come back may refuse what it will allow a moment later, before it has read its roles. That
//!   too is ignorance and changes nothing.
//! - A ToR without graceful restart drops a restarting agent's routes at once, whatever the API server does.

mod cluster;
mod config;
mod node;
mod watcher;
mod worst;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster::{A, B, Cluster, HOLD_TIME, Scene, erp_pod};
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::netns::wait_until;
use plainroute_tests::routers::Router as _;
use serde_json::{Value, json};
use watcher::Watcher;

/// How long a change may take on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);
/// The agent asks the API server to end each watch after this time, and then asks for a new one.
const WATCH: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_route_appears_with_its_pod_moves_with_it_and_goes_with_it() -> Result<()> {
    let lab = Cluster::start(Scene::default()).await?;
    let (api, a, b) = (&lab.api, &lab.a, &lab.b);

    let ledger = erp_pod(a, "ledger", "10.20.0.5")?;
    a.path_of_others("ledger", "10.20.0.5")?;
    api.create_pod(&ledger).await?;
    a.await_reason("erp/ledger", "NoAddress")?;
    let cause = Instant::now();
    api.start_pod(&ledger).await?;
    lab.time_routes("a Pod's status", cause, &[("10.20.0.5", A)])?;

    api.delete_pod("erp", "ledger").await?;
    b.path_of_others("ledger", "10.20.0.5")?;
    let cause = Instant::now();
    api.run_pod(&erp_pod(b, "ledger", "10.20.0.5")?).await?;
    lab.time_routes("the Pod again on another node, same address", cause, &[("10.20.0.5", B)])?;

    api.delete_pod("erp", "ledger").await?;
    a.ns.run(&["ip", "route", "add", "10.20.0.6", "dev", "ledger"])?;
    let cause = Instant::now();
    api.run_pod(&erp_pod(a, "ledger", "10.20.0.6")?).await?;
    lab.time_routes("the Pod back with another address", cause, &[("10.20.0.6", A)])?;

    let cause = Instant::now();
    api.delete_pod("erp", "ledger").await?;
    lab.time_routes("the Pod's deletion", cause, &[])?;
    ensure!(a.own_routes()?.is_empty(), "the path is somebody else's, and the agent only looks at it");
    lab.check_requests()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_the_rules_refuse_never_reaches_the_tor() -> Result<()> {
    let lab = Cluster::start(Scene::default()).await?;
    let (api, a, b) = (&lab.api, &lab.a, &lab.b);
    let mark = lab.mark();

    // A Pod with an address that another namespace's firewall rules trust.
    a.path_of_others("imposter", "10.20.0.66")?;
    api.run_pod(&TestPod::new("crm", "imposter", a.name).address([10, 20, 0, 66])).await?;
    a.await_reason("10.20.0.66", "PoolOfOtherNamespace")?;
    a.path_of_others("stray", "10.99.0.1")?;
    api.run_pod(&erp_pod(a, "stray", "10.99.0.1")?).await?;
    a.await_reason("10.99.0.1", "NoPool")?;
    a.path_of_others("daemon", "10.20.0.67")?;
    api.run_pod(&erp_pod(a, "daemon", "10.20.0.67")?.host_network()).await?;
    a.await_reason("erp/daemon", "HostNetwork")?;
    // Bound to node-b; node-a has a path, which is nobody's business.
    a.path_of_others("elsewhere", "10.20.0.68")?;
    api.run_pod(&erp_pod(b, "elsewhere", "10.20.0.68")?).await?;
    b.await_reason("10.20.0.68", "NotDelivered")?;

    // Only a default route leads to it, until somebody makes a better one.
    api.run_pod(&erp_pod(a, "late", "10.20.0.1")?).await?;
    a.await_reason("10.20.0.1", "NotDelivered")?;
    let cause = Instant::now();
    a.path_of_others("late", "10.20.0.1")?;
    lab.time_routes("a path in the kernel", cause, &[("10.20.0.1", A)])?;
    let cause = Instant::now();
    a.ns.down("late")?;
    lab.time_routes("the loss of that path", cause, &[])?;

    lab.run_pod(b, "job", "10.20.0.2").await?;
    lab.await_routes(&[("10.20.0.2", B)])?;
    let cause = Instant::now();
    api.patch_pod_status("erp", "job", json!({ "phase": "Succeeded" })).await?;
    lab.time_routes("the end of a Pod that is still there", cause, &[])?;
    b.await_reason("erp/job", "Terminal")?;

    lab.run_pod(a, "one", "10.20.0.3").await?;
    lab.run_pod(b, "two", "10.20.0.4").await?;
    lab.await_routes(&[("10.20.0.3", A), ("10.20.0.4", B)])?;
    let cause = Instant::now();
    api.patch_namespace("erp", json!({ "labels": { "team": null } })).await?;
    lab.time_routes("a label that unbinds the pool", cause, &[])?;
    a.await_reason("10.20.0.3", "PoolOfOtherNamespace")?;
    api.patch_namespace("erp", json!({ "labels": { "team": "erp" } })).await?;
    lab.await_routes(&[("10.20.0.3", A), ("10.20.0.4", B)])?;

    let log = lab.log_since(&mark);
    for refused in ["10.20.0.66/32", "10.99.0.1/32", "10.20.0.67/32", "10.20.0.68/32"] {
        ensure!(!log.mentions(refused), "{refused} was at the ToR for a moment:\n{log}");
    }
    ensure!(log.mentions("10.20.0.3/32"), "the ToR's log does not tell:\n{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn readiness_and_deletion_withdraw_while_the_path_stays() -> Result<()> {
    let lab = Cluster::start(Scene { withdraw: "{ notReady: true }", ..Scene::default() }).await?;
    let (api, a, b) = (&lab.api, &lab.a, &lab.b);
    const PATH: &[&str] = &["10.20.0.5"];

    let web = erp_pod(a, "web", "10.20.0.5")?;
    api.run_pod(&web).await?;
    a.await_reason("10.20.0.5", "NotDelivered")?;
    let uid = api.pod_uid("erp", "web").await?;
    let cause = Instant::now();
    a.cni_result("erp", "web", &uid, "10.20.0.5")?;
    lab.time_routes("libcni's result", cause, &[("10.20.0.5", A)])?;
    ensure!(a.own_routes()? == PATH, "advertised, so the path must stand: {:?}", a.own_routes()?);

    let cause = Instant::now();
    api.set_pod_ready("erp", "web", false).await?;
    lab.time_routes("a Pod that is not ready", cause, &[])?;
    a.await_reason("10.20.0.5", "NotReady")?;
    ensure!(a.own_routes()? == PATH, "its connections still need the path: {:?}", a.own_routes()?);
    let cause = Instant::now();
    api.set_pod_ready("erp", "web", true).await?;
    lab.time_routes("ready again", cause, &[("10.20.0.5", A)])?;

    let cause = Instant::now();
    api.terminate_pod("erp", "web", 30).await?;
    lab.time_routes("a deletion with 30 s of grace", cause, &[])?;
    a.await_reason("10.20.0.5", "Terminating")?;
    ensure!(a.own_routes()? == PATH, "it answers its last requests over the path: {:?}", a.own_routes()?);

    // Its successor has the address before it is gone.
    lab.run_cni_pod(b, "web-2", "10.20.0.5").await?;
    lab.await_routes(&[("10.20.0.5", B)])?;
    let mark = lab.mark();
    api.delete_pod("erp", "web").await?;
    a.await_own_routes(&[])?;
    ensure!(b.own_routes()? == PATH, "the other node's path is another: {:?}", b.own_routes()?);
    lab.await_routes(&[("10.20.0.5", B)])?;
    ensure!(lab.log_since(&mark).removed().is_empty(), "the end of the old Pod disturbed the new one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_outage_of_the_api_server_withdraws_nothing_and_what_changed_arrives_after() -> Result<()> {
    let mut lab = Cluster::start(Scene::default()).await?;
    let watching = Instant::now();
    lab.run_cni_pod(&lab.a, "stays", "10.20.0.1").await?;
    lab.run_pod(&lab.a, "goes", "10.20.0.2").await?;
    lab.run_pod(&lab.b, "moves", "10.20.0.3").await?;
    let before = [("10.20.0.1", A), ("10.20.0.2", A), ("10.20.0.3", B)];
    lab.await_routes(&before)?;

    // Control: while the API server is there, a deletion does withdraw, and the judge does see it.
    lab.run_pod(&lab.a, "control", "10.20.0.9").await?;
    lab.await_routes(&[&before[..], &[("10.20.0.9", A)]].concat())?;
    let mark = lab.mark();
    let cause = Instant::now();
    lab.api.delete_pod("erp", "control").await?;
    lab.time_routes("a deletion while the API server is there", cause, &before)?;
    ensure!(lab.log_since(&mark).removed() == BTreeSet::from(["10.20.0.9/32"]), "BIRD's log missed it");

    let mark = lab.mark();
    let watcher = Watcher::start(&lab.tor);
    lab.api.kill().await?;
    let killed = Instant::now();
    lab.api.delete_pod("erp", "goes").await?;
    lab.api.set_pod_addresses("erp", "moves", &["10.20.0.30".parse()?]).await?;
    lab.b.ns.run(&["ip", "route", "add", "10.20.0.30", "dev", "moves"])?;
    lab.run_pod(&lab.b, "comes", "10.20.0.4").await?;
    lab.api.patch_namespace("crm", json!({ "labels": { "team": "erp" } })).await?;
    for node in [&lab.a, &lab.b] {
        node.await_check("the outage", |health| problems(health).contains("Connection refused"))?;
    }
    // The fault: as long as asked, several hold times, and past the end of every watch that was open.
    let over = (killed + outage()).max(killed + 3 * HOLD_TIME).max(watching + WATCH + Duration::from_secs(1));
    tokio::time::sleep_until(over.into()).await;
    let seen = watcher.finish()?;
    let lasted = killed.elapsed();
    let log = lab.log_since(&mark);
    ensure!(log.removed().is_empty(), "withdrawn while nothing was known:\n{log}");
    ensure!(seen.tables.len() == 1, "the ToR's table changed: {:#?}", seen.tables);
    ensure!(seen.looks as u64 > 2 * lasted.as_secs(), "looked only {} times in {lasted:?}", seen.looks);
    lab.await_routes(&before)?;
    for node in [&lab.a, &lab.b] {
        let session = node.session()?;
        let kept = session["state"] == "Established" && session["establishedCount"] == 1;
        ensure!(kept && session["lostCount"] == 0, "the session did not live through it: {session}");
        ensure!(session["holdTimeSeconds"] == HOLD_TIME.as_secs(), "{session}");
        ensure!(!log.says(node, "State changed"), "BIRD's session moved:\n{log}");
    }
    println!("API server away for {} s: {} looks at one table", lasted.as_secs(), seen.looks);

    let mark = lab.mark();
    lab.api.restart().await?;
    let cause = Instant::now();
    let after = [("10.20.0.1", A), ("10.20.0.30", B), ("10.20.0.4", B)];
    lab.time_routes("the API server's return", cause, &after)?;
    let log = lab.log_since(&mark);
    let gone = BTreeSet::from(["10.20.0.2/32", "10.20.0.3/32"]);
    ensure!(log.removed() == gone, "only what was deleted may go:\n{log}");
    for node in [&lab.a, &lab.b] {
        node.await_check("that all is well", |health| problems(health).is_empty())?;
    }
    // And the watches that follow are alive.
    lab.api.delete_pod("erp", "comes").await?;
    lab.await_routes(&[("10.20.0.1", A), ("10.20.0.30", B)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_agent_that_starts_without_an_api_server_goes_by_what_it_said_last_or_says_nothing() -> Result<()>
{
    // node-a asks the ToR to wait for it as long as an upgrade may take, node-b hardly at all.
    let scene = Scene { restart_time: [120, 4], ..Scene::default() };
    let mut lab = Cluster::without_agents(scene).await?;
    lab.run_cni_pod(&lab.a, "stays", "10.20.0.1").await?;
    lab.run_pod(&lab.a, "goes", "10.20.0.2").await?;
    lab.run_cni_pod(&lab.b, "late", "10.20.0.3").await?;
    let (paths_a, paths_b) = (["10.20.0.1"], ["10.20.0.3"]);

    lab.api.kill().await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    for node in [&lab.a, &lab.b] {
        node.await_check("what it waits for", |health| {
            let (awaited, problems) = (health["awaited"].to_string(), problems(health));
            health["ready"] == false
                && ["Pod", "Namespace", "Node"].iter().all(|kind| awaited.contains(kind))
                && problems.contains("Connection refused")
        })?;
    }
    lab.await_routes(&[])?;
    lab.api.restart().await?;
    let cause = Instant::now();
    lab.await_sessions()?;
    let all = [("10.20.0.1", A), ("10.20.0.2", A), ("10.20.0.3", B)];
    lab.time_routes("the API server's first appearance", cause, &all)?;

    // Now a restart that meets an outage. node-a has what the API server said last, node-b's file is damaged.
    lab.a.await_kept(&["Pod", "stays", "goes", "node-a"])?;
    lab.b.await_kept(&["Pod", "late", "node-b"])?;
    lab.api.kill().await?;
    lab.api.delete_pod("erp", "goes").await?;
    let mark = lab.mark();
    lab.a.terminate_agent()?;
    lab.b.terminate_agent()?;
    lab.b.damage_kept()?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.a.await_check("what it goes by", |health| {
        health["ready"] == true
            && problems(health).contains("API server: it has not answered since the start")
    })?;
    lab.b.await_check("that it waits", |health| {
        health["ready"] == false && problems(health).contains("Connection refused")
    })?;
    lab.tor.await_state(lab.a.address, "established", SOON)?;
    let too_late = || lab.log_since(&mark).says(&lab.b, "Neighbor graceful restart timeout");
    wait_until(
        "node-b's restart time to be over",
        SOON,
        || if too_late() { Ok(()) } else { Err("not yet") },
    )?;
    lab.await_routes(&[("10.20.0.1", A), ("10.20.0.2", A)])?;
    let log = lab.log_since(&mark);
    ensure!(log.says(&lab.a, "Neighbor graceful restart detected"), "a restart, not an end:\n{log}");
    ensure!(log.says(&lab.a, "Neighbor graceful restart done"), "node-a must have said all it has:\n{log}");
    ensure!(log.removed() == BTreeSet::from(["10.20.0.3/32"]), "node-a's routes must stay:\n{log}");
    ensure!(lab.a.own_routes()? == paths_a && lab.b.own_routes()? == paths_b, "the kernel must go on");

    let mark = lab.mark();
    lab.api.restart().await?;
    let cause = Instant::now();
    lab.time_routes("its return after that", cause, &[("10.20.0.1", A), ("10.20.0.3", B)])?;
    let log = lab.log_since(&mark);
    ensure!(
        log.removed() == BTreeSet::from(["10.20.0.2/32"]),
        "what was deleted meanwhile goes, and only that:\n{log}"
    );
    ensure!(lab.a.own_routes()? == paths_a && lab.b.own_routes()? == paths_b, "adopted, not made anew");
    for node in [&lab.a, &lab.b] {
        node.await_check("that all is well", |health| problems(health).is_empty())?;
    }
    // And what it says is kept again.
    lab.api.create_namespace("made-after-that", &[]).await?;
    lab.a.await_kept(&["made-after-that"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_killed_agents_routes_stay_at_a_tor_that_helps_and_go_at_one_that_does_not() -> Result<()> {
    let mut lab = Cluster::start(Scene { tor_helps: [true, false], ..Scene::default() }).await?;
    lab.run_cni_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.run_cni_pod(&lab.b, "two", "10.20.0.2").await?;
    let all = [("10.20.0.1", A), ("10.20.0.2", B)];
    lab.await_routes(&all)?;
    let mark = lab.mark();
    lab.a.kill_agent()?;
    lab.b.kill_agent()?;
    lab.await_routes(&[("10.20.0.1", A)])?;
    let detected = || lab.log_since(&mark).says(&lab.a, "Neighbor graceful restart detected");
    wait_until("BIRD to notice node-a's end", SOON, || if detected() { Ok(()) } else { Err("not yet") })?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    let cause = Instant::now();
    lab.await_sessions()?;
    lab.time_routes("new agents in place of the killed ones", cause, &all)?;
    // Both have said by now all that they have, so whatever they would not confirm is gone.
    for node in [&lab.a, &lab.b] {
        node.await_check("that all is well", |health| {
            health["ready"] == true && problems(health).is_empty()
        })?;
    }
    let log = lab.log_since(&mark);
    ensure!(
        log.removed() == BTreeSet::from(["10.20.0.2/32"]),
        "node-a's route must not go, even for a moment:\n{log}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_is_drained_while_its_object_asks_for_it_and_not_by_being_cordoned() -> Result<()> {
    let mut lab = Cluster::start(Scene::default()).await?;
    lab.run_cni_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.run_cni_pod(&lab.b, "two", "10.20.0.2").await?;
    let both = [("10.20.0.1", A), ("10.20.0.2", B)];
    lab.await_routes(&both)?;

    // Cordoned, as `kubectl cordon` and the node controller do it. The annotation that comes with it is seen by the
    // agent, so it has seen the rest.
    let mark = lab.mark();
    let cordon = json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" });
    lab.api
        .patch_node(
            lab.a.name,
            json!({
                "metadata": { "annotations": { "plainroute.dev/asn": "many" } },
                "spec": { "unschedulable": true, "taints": [cordon] },
            }),
        )
        .await?;
    lab.a.await_check("the annotation", |health| problems(health).contains("InvalidAnnotation"))?;
    lab.api
        .patch_node(lab.a.name, json!({ "metadata": { "annotations": { "plainroute.dev/asn": null } } }))
        .await?;
    lab.a.await_check("that all is well", |health| problems(health).is_empty())?;
    ensure!(lab.log_since(&mark).removed().is_empty(), "a cordon alone changes nothing");

    let asks = [
        json!({ "metadata": { "annotations": { "plainroute.dev/drain": "true" } } }),
        json!({ "spec": { "taints": [{ "key": "maintenance", "effect": "NoSchedule" }] } }),
    ];
    let asks_no_more = [
        json!({ "metadata": { "annotations": { "plainroute.dev/drain": null } } }),
        json!({ "spec": { "taints": null } }),
    ];
    for (ask, no_more) in asks.into_iter().zip(asks_no_more) {
        let cause = Instant::now();
        lab.api.patch_node(lab.a.name, ask).await?;
        lab.a.await_check("that it is being drained", |health| {
            problems(health).contains("the node is being drained, as the Node asks")
        })?;
        wait_until("the ToR to see the mark", SOON, || {
            let shown =
                lab.tor.birdc("show route for 10.20.0.1/32 all").map_err(|error| format!("{error:#}"))?;
            if shown.contains("(65535,0)") { Ok(()) } else { Err(shown) }
        })?;
        lab.time_routes("a drain that the Node asks for", cause, &[("10.20.0.2", B)])?;
        ensure!(cause.elapsed() >= Duration::from_secs(2), "it must wait");

        // A restart is not its end.
        lab.a.terminate_agent()?;
        lab.a.start_agent()?;
        lab.a.await_check("that it is drained", |health| {
            health["ready"] == true && problems(health).contains("nothing is advertised, as the Node asks")
        })?;
        lab.await_routes(&[("10.20.0.2", B)])?;
        lab.api.patch_node(lab.a.name, no_more).await?;
        lab.await_routes(&both)?;
    }
    Ok(())
}

/// For how long the API server is away.
fn outage() -> Duration {
    let asked = std::env::var("PLAINROUTE_OUTAGE_SECONDS").ok();
    Duration::from_secs(asked.map_or(20, |text| text.parse().expect("PLAINROUTE_OUTAGE_SECONDS is a number")))
}

fn problems(health: &Value) -> String {
    let problems = health["problems"].as_array().into_iter().flatten();
    problems.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}
