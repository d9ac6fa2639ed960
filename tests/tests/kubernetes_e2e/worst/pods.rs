//! Two Pods have one address: a Pod and its successor on another node, or one that runs and one that has ended.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Api, DeleteParams};
use plainroute_tests::lab::probe::Running as Probe;
use plainroute_tests::netns::Netns;
use plainroute_tests::routers::{Family, Router as _, Table};
use serde_json::json;

use super::{lost_none, lost_some, undisturbed};
use crate::cluster::{A, B, Cluster, Scene, erp_pod};
use crate::problems;

const SHARED: &str = "10.20.0.5";

/// A Pod on node-b with the shared address, which answers before anybody is told of it.
async fn run_successor(lab: &Cluster) -> Result<(Netns, Probe)> {
    let inside = lab.b.answering_link("web-2", SHARED)?;
    lab.b.ns.run(&["ip", "route", "add", SHARED, "dev", "web-2"])?;
    let answers = Probe::between(&lab.b.ns, &inside, SHARED.parse()?)?;
    lab.run_linked_pod(&lab.b, "web-2", SHARED).await?;
    Ok((inside, answers))
}

fn await_both(lab: &Cluster) -> Result<()> {
    let both = [A.parse()?, B.parse()?].into();
    let holds = |table: &Table| table.get(&format!("{SHARED}/32")) == Some(&both);
    lab.tor.await_learned(Family::V4, "the address from both nodes", crate::SOON, &holds).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pod_that_terminates_goes_from_the_tor_before_its_path_does_and_no_packet_is_lost() -> Result<()> {
    let lab = Cluster::start(Scene::default()).await?;
    let old = lab.run_answering_pod(&lab.a, "web", SHARED).await?;
    lab.await_routes(&[(SHARED, A)])?;
    let probe = lab.probe(&old, SHARED)?;
    let (new, answers) = run_successor(&lab).await?;
    await_both(&lab)?;
    lab.await_way(SHARED, A)?;

    lab.api.terminate_pod("erp", "web", 30).await?;
    lab.await_routes(&[(SHARED, B)])?;
    ensure!(lab.a.own_routes()? == [SHARED], "it ends what it has begun: {:?}", lab.a.own_routes()?);
    let mark = lab.mark();
    lab.api.delete_pod("erp", "web").await?;
    lab.a.await_own_routes(&[])?;
    undisturbed(&lab, &mark)?;
    lost_none("a Pod deleted with a grace period, a second one there", probe)?;

    // Control: the path ends before anybody says so.
    answers.finish()?;
    let probe = lab.probe(&new, SHARED)?;
    lab.b.ns.down("web-2")?;
    lab.await_routes(&[])?;
    lost_some("a path that ends before its withdrawal", probe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pod_made_again_elsewhere_wins_over_the_old_one_that_still_terminates() -> Result<()> {
    let lab = Cluster::start(Scene { withdraw: "{ terminating: false }", ..Scene::default() }).await?;
    let old = lab.run_answering_pod(&lab.a, "web", SHARED).await?;
    lab.await_routes(&[(SHARED, A)])?;
    let probe = lab.probe(&old, SHARED)?;
    let mark = lab.mark();
    lab.api.terminate_pod("erp", "web", 30).await?;
    super::await_community(&lab, SHARED, "(65535,0)")?;
    let (_new, answers) = run_successor(&lab).await?;
    await_both(&lab)?;
    lab.await_way(SHARED, B)?;
    ensure!(lab.log_since(&mark).removed().is_empty(), "break before make:\n{}", lab.log_since(&mark));
    lab.api.delete_pod("erp", "web").await?;
    lab.await_routes(&[(SHARED, B)])?;
    lost_none("a Pod made again on another node, make before break", probe)?;
    answers.finish().map(drop)
}

/// The control: a ToR that does not heed the community goes on to the old Pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_tor_that_does_not_heed_graceful_shutdown_goes_on_to_the_old_pod() -> Result<()> {
    let scene = Scene { withdraw: "{ terminating: false }", tor_heeds_shutdown: false, ..Scene::default() };
    let lab = Cluster::start(scene).await?;
    let _old = lab.run_answering_pod(&lab.a, "web", SHARED).await?;
    lab.await_routes(&[(SHARED, A)])?;
    lab.api.terminate_pod("erp", "web", 30).await?;
    super::await_community(&lab, SHARED, "(65535,0)")?;
    let (_new, _answers) = run_successor(&lab).await?;
    await_both(&lab)?;
    lab.await_way(SHARED, A)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pods_that_have_ended_and_a_node_that_is_deleted_take_no_route_along() -> Result<()> {
    let lab = Cluster::start(Scene::default()).await?;
    lab.api.run_pod(&erp_pod(&lab.a, "job", SHARED)?).await?;
    lab.api.patch_pod_status("erp", "job", json!({ "phase": "Succeeded" })).await?;
    lab.a.await_reason("erp/job", "Terminal")?;
    // Kubernetes gives the address of a Pod that has ended to the next.
    let web = lab.run_answering_pod(&lab.a, "web", SHARED).await?;
    lab.await_routes(&[(SHARED, A)])?;
    let probe = lab.probe(&web, SHARED)?;
    let mark = lab.mark();
    lab.api.delete_pod("erp", "job").await?;
    lab.a.await_reason("erp/job", "none")?;

    let nodes = Api::<NodeObject>::all(lab.api.client());
    nodes.delete(lab.a.name, &DeleteParams::default()).await?;
    lab.a.await_check("that its Node is gone", |health| problems(health).contains("it was deleted"))?;
    undisturbed(&lab, &mark)?;
    lab.await_routes(&[(SHARED, A)])?;
    lost_none("the end of a Pod with the same address, then of the Node", probe)?;

    // Control: the Pod itself, which the deletion of a Node takes along in the end.
    let probe = lab.probe(&web, SHARED)?;
    lab.api.delete_pod("erp", "web").await?;
    lab.await_routes(&[])?;
    lost_some("the Pod itself deleted", probe)
}
