//! An API server that is there and knows less than was known: it fell silent, or its line to etcd is cut.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use plainroute_tests::netns::wait_until;

use super::{lost_none, lost_some, undisturbed};
use crate::cluster::{A, B, Cluster, Scene};
use crate::{SOON, WATCH, problems};

/// How long a silent API server may go unnoticed: the time of a watch and 10 s, then a first attempt of 10 s more.
const NOTICED: Duration = Duration::from_secs(WATCH.as_secs() + 10 + 10);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_api_server_that_falls_silent_is_noticed_and_costs_no_route() -> Result<()> {
    let lab = Cluster::start(Scene::default()).await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    let two = lab.run_answering_pod(&lab.b, "two", "10.20.0.2").await?;
    let all = [("10.20.0.1", A), ("10.20.0.2", B)];
    lab.await_routes(&all)?;
    let (to_one, to_two) = (lab.probe(&one, "10.20.0.1")?, lab.probe(&two, "10.20.0.2")?);
    let mark = lab.mark();

    lab.api.freeze()?;
    let frozen = Instant::now();
    lab.api.delete_pod("erp", "two").await?;
    for node in [&lab.a, &lab.b] {
        wait_until("the silence to be noticed", NOTICED + SOON, || match node.ask(&["check"]) {
            Ok(health) if problems(&health).contains("the server does not answer") => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
    }
    println!("an API server that fell silent was noticed after {} s", frozen.elapsed().as_secs());
    undisturbed(&lab, &mark)?;
    lab.await_routes(&all)?;
    lost_none("an API server that fell silent", to_one)?;

    // Control: as soon as it speaks, what was deleted meanwhile goes.
    lab.api.thaw()?;
    lab.await_routes(&all[..1])?;
    lost_some("a Pod deleted in the silence, after it", to_two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_api_server_cut_off_from_etcd_tells_nothing_that_an_agent_believes() -> Result<()> {
    let mut lab = Cluster::start(Scene::default()).await?;
    lab.run_cni_pod(&lab.a, "goes", "10.20.0.9").await?;
    lab.await_routes(&[("10.20.0.9", A)])?;

    // The API server that agents know is cut off; node-a gets to the other one, which goes on.
    lab.api.cut_off_from_etcd(&lab.tor_ns)?;
    lab.a.detour(lab.api.address(), lab.api.standby_address()?)?;
    lab.a.terminate_agent()?;
    lab.a.start_agent()?;
    // Control: one that is in touch is believed.
    lab.api.delete_pod("erp", "goes").await?;
    lab.await_routes(&[])?;
    let new = lab.run_answering_pod(&lab.a, "new", "10.20.0.1").await?;
    let there = [("10.20.0.1", A)];
    lab.await_routes(&there)?;
    lab.a.await_kept(&["new"])?;
    let probe = lab.probe(&new, "10.20.0.1")?;

    let mark = lab.mark();
    // Back to the one that was cut off before the Pod was made.
    lab.a.no_detour()?;
    lab.a.terminate_agent()?;
    lab.a.start_agent()?;
    lab.a.await_check("what it goes by", |health| {
        health["ready"] == true && problems(health).contains("what it said until ")
    })?;
    lab.await_routes(&there)?;
    let log = lab.log_since(&mark);
    ensure!(log.removed().is_empty(), "withdrawn by what a stale server says:\n{log}");

    lab.api.join_to_etcd(&lab.tor_ns)?;
    lab.a.await_check("that all is well", |health| problems(health).is_empty())?;
    let log = lab.log_since(&mark);
    ensure!(log.removed().is_empty(), "withdrawn on the way back:\n{log}");
    lost_none("an API server cut off from etcd, and back", probe)?;
    lab.api.delete_pod("erp", "new").await?;
    lab.await_routes(&[])
}
