//! The API server is away for long, and meanwhile the agents are upgraded and crash.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plainroute_tests::netns::wait_until;
use plainroute_tests::routers::Router as _;

use super::{lost_none, lost_some};
use crate::cluster::{A, B, Cluster, Scene};
use crate::node::Node;
use crate::{SOON, problems};

/// For how long the ToR shall wait for a restarting agent.
const RESTART_TIME: u16 = 5;

/// Until when the API server was heard, as the agent says that goes by that.
fn goes_by(node: &Node) -> Result<String> {
    node.await_check("until when the API server was heard", |health| {
        problems(health).contains("what it said until ") && health["ready"] == true
    })?;
    let said = problems(&node.ask(&["check"])?);
    let until = said.split_once("what it said until ").map(|(_, rest)| rest);
    Ok(until.and_then(|rest| rest.split_whitespace().next()).context("no time")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn agents_that_restart_in_a_long_outage_lose_no_packet_unless_their_file_is_gone() -> Result<()> {
    let scene = Scene { restart_time: [RESTART_TIME; 2], ..Scene::default() };
    let mut lab = Cluster::start(scene).await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    let two = lab.run_answering_pod(&lab.b, "two", "10.20.0.2").await?;
    let all = [("10.20.0.1", A), ("10.20.0.2", B)];
    lab.await_routes(&all)?;
    lab.a.await_kept(&["one"])?;
    lab.b.await_kept(&["two"])?;
    let (to_one, to_two) = (lab.probe(&one, "10.20.0.1")?, lab.probe(&two, "10.20.0.2")?);

    let mark = lab.mark();
    lab.api.kill().await?;
    let killed = Instant::now();
    lab.a.terminate_agent()?;
    lab.a.start_agent()?;
    let first = goes_by(&lab.a)?;
    lab.tor.await_state(lab.a.address, "established", SOON)?;
    lab.a.kill_agent()?;
    lab.a.start_agent()?;
    lab.tor.await_state(lab.a.address, "established", SOON)?;
    ensure!(goes_by(&lab.a)? == first, "the age is that of the API server's word, not of a restart");
    ensure!(first.parse::<jiff::Timestamp>()? < jiff::Timestamp::now(), "{first}");

    // Control: an agent that has lost its file knows nothing, so its routes end with the restart time.
    lab.b.terminate_agent()?;
    lab.b.remove_kept()?;
    lab.b.start_agent()?;
    let restarted = Instant::now();
    lab.await_routes(&all[..1])?;
    println!("without the file: the ToR dropped the route after {:?}", restarted.elapsed());
    lost_some("an agent without its file", to_two)?;

    // The fault lasts longer than any patience that was agreed on.
    let over = killed + Duration::from_secs(3 * u64::from(RESTART_TIME));
    tokio::time::sleep_until(over.into()).await;
    wait_until("the session of node-a", SOON, || match lab.a.session() {
        Ok(session) if session["state"] == "Established" => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let log = lab.log_since(&mark);
    ensure!(log.removed() == BTreeSet::from(["10.20.0.2/32"]), "node-a's route must stay:\n{log}");
    lost_none(&format!("an outage of {} s with two restarts", killed.elapsed().as_secs()), to_one)?;

    let mark = lab.mark();
    lab.api.restart().await?;
    lab.await_routes(&all)?;
    lab.a.await_check("that all is well", |health| problems(health).is_empty())?;
    ensure!(lab.log_since(&mark).removed().is_empty(), "its return withdraws nothing");
    Ok(())
}
