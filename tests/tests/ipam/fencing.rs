//! A node is cut off, dies or is taken away: what it had goes to another only once it is fenced, and then the newer claim wins.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::scene::Scene;
use crate::{SMALL, given};

const BLOCK: &str = "10.20.0.0/28";
const PATIENCE: Duration = Duration::from_secs(60);

/// Node 0 owns the only block, and a Pod on it has the address that this gives.
async fn begin() -> Result<(Scene, IpAddr)> {
    let scene = Scene::start(SMALL).await?;
    for (name, node) in [("db-0", 0), ("db-1", 1)] {
        scene.api.create_pod(&scene.pod(name, node)).await?;
    }
    let first = given(scene.add(0, "c0", "db-0").await?)?;
    scene.await_routes(&[(BLOCK, 0)])?;
    scene.await_allocations(&[("db-0", first)]).await?;
    Ok((scene, first))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_still_advertises_and_loses_to_the_newer_claim_once_it_is_fenced() -> Result<()>
{
    let (scene, first) = begin().await?;
    scene.cut_off(0)?;
    // Not before somebody says that its Pods are dead: there is nobody to lend an address, and nothing is taken.
    let refused = scene.add(1, "early", "db-1").await?.err().context("an address of a live node's block")?;
    ensure!(refused.code == 11, "{refused:?}");
    scene.del(1, "early").await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    ensure!(
        scene.blocks().await?.iter().any(|block| block.node == "node-a"),
        "it was taken from a live node"
    );
    scene.take_out_of_service(0).await?;
    let second = scene.add_until_given(1, "c1", "db-1", PATIENCE).await?;
    ensure!(second != first, "an address that has not rested");
    scene.await_owner(1, 2, PATIENCE).await?;
    scene.await_best(BLOCK, 1)?;
    let learned = scene.learned(BLOCK)?;
    for said in ["via 172.16.0.1 ", "via 172.16.0.2 ", "BGP.med: 1000000", "BGP.med: 999999"] {
        ensure!(learned.contains(said), "no {said}: the older one is to be advertised still:\n{learned}");
    }
    // It is joined again, learns that the block is another's, and withdraws it with its last Pod.
    scene.join(0)?;
    scene.del(0, "c0").await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    scene.await_routes(&[(BLOCK, 1)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blocks_of_a_deleted_node_are_taken_over_after_two_looks_though_nobody_needs_them() -> Result<()>
{
    let (mut scene, _) = begin().await?;
    scene.kill_agent(0);
    let begun = Instant::now();
    scene.delete_node(0).await?;
    scene.await_owner(1, 2, Duration::from_secs(120)).await?;
    let took = begun.elapsed();
    println!("a deleted node's block was taken over after {took:?}");
    ensure!(took >= Duration::from_secs(30), "after one look: {took:?}");
    scene.await_allocations(&[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_may_say_that_a_node_is_dead_unless_it_is_ready() -> Result<()> {
    let (mut scene, first) = begin().await?;
    scene.kill_agent(0);
    let said = scene.release(1, first, false)?;
    ensure!(said.contains("node-a") && said.contains("confirm"), "{said}");
    scene.set_ready(0, "True").await?;
    let said = scene.release(1, first, true)?;
    ensure!(said.contains("which is Ready"), "{said}");
    scene.await_owner(0, 1, PATIENCE).await?;
    scene.set_ready(0, "Unknown").await?;
    scene.release(1, first, true)?;
    scene.await_owner(1, 2, PATIENCE).await?;
    let again = scene.release(1, "10.99.0.1".parse()?, true)?;
    ensure!(again.contains("is in no block"), "{again}");
    scene.await_allocations(&[]).await
}
