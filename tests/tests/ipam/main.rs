//! Addresses given out by real agents over a real API server: whoever asks as the CNI plugin does gets one address of the
//! namespace's pool that nobody else has, and the ToR (BIRD) knows the way to it.
//!
//! Needs `plainroute` built beside the tests: `cargo build -p plainroute-agent`.

mod checker;
mod failpoints;
mod fencing;
mod moves;
mod operator;
mod scene;
mod setup;
mod storm;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use plainroute_tests::netns::wait_until_async;

use scene::{Answer, Scene, within};

const POOL: &str = "{ ipRanges: [{ cidr: 10.20.0.0/26 }], blockSize: 28, ipCooldownSeconds: 1, \
                    namespaceSelector: { matchLabels: { team: erp } } }";
/// One block for all.
const SMALL: &str = "{ ipRanges: [{ cidr: 10.20.0.0/28 }], blockSize: 28, ipCooldownSeconds: 1, \
                     namespaceSelector: { matchLabels: { team: erp } } }";

fn given(answer: Answer) -> Result<IpAddr> {
    let addresses = answer.map_err(|failure| anyhow::anyhow!("{}: {}", failure.code, failure.message))?;
    ensure!(addresses.len() == 1, "{addresses:?}");
    Ok(addresses[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_pod_claims_a_block_which_is_a_route_and_the_next_needs_no_api_server() -> Result<()> {
    let mut scene = Scene::start(POOL).await?;
    scene.api.create_pod(&scene.pod("db-0", 0)).await?;
    let first = given(scene.add(0, "c0", "db-0").await?)?;
    let blocks = scene.blocks().await?;
    let block = blocks.iter().find(|block| within(block, first)).context("no block has it")?;
    ensure!(block.node == "node-a" && block.pool == "erp", "{block:?}");
    let cidr = block.cidr.to_string();
    scene.await_routes(&[(&cidr, 0)])?;
    // Asked again, as a kubelet does that heard nothing: the same.
    ensure!(given(scene.add(0, "c0", "db-0").await?)? == first);
    scene.api.create_pod(&scene.pod("db-1", 0)).await?;
    scene.await_pod(0, "db-1").await?;
    scene.api.kill().await?;
    let second = given(scene.add(0, "c1", "db-1").await?)?;
    ensure!(second != first && block.cidr.prefix().contains_address(second), "{second}");
    // The agent dies; what it said holds.
    scene.restart_agent(0)?;
    ensure!(given(scene.add(0, "c1", "db-1").await?)? == second, "another address after a restart");
    ensure!(given(scene.add(0, "c0", "db-0").await?)? == first, "another address after a restart");
    scene.api.restart().await?;
    scene.await_allocations(&[("db-0", first), ("db-1", second)]).await?;
    // Given back twice is given back.
    for _ in 0..2 {
        scene.del(0, "c1").await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    }
    scene.await_allocations(&[("db-0", first)]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_the_real_ptp_is_reached_before_the_api_server_knows_its_address() -> Result<()> {
    let mut scene = Scene::start(POOL).await?;
    scene.advertise(&["PodIP"]).await?;
    scene.api.create_pod(&scene.pod("db-0", 0)).await?;
    let pod = scene.plug(0, "db-0").await?;
    // Its kubelet has said nothing yet: `status.podIPs` is empty.
    scene.await_routes(&[(&format!("{}/32", pod.address), 0)])?;
    scene.ping(pod.address)?;
    scene.restart_agent(0)?;
    scene.ping(pod.address)?;
    scene.check(0, &pod).await?;
    // Given back by force, the address is not the Pod's any more, and so not advertised: by a person's word only.
    let refused = scene.release(0, pod.address, false)?;
    ensure!(refused.contains("erp/db-0") && refused.contains("confirm"), "{refused}");
    scene.ping(pod.address)?;
    scene.unplug(0, &pod).await?;
    scene.await_routes(&[])?;
    ensure!(scene.ping(pod.address).is_err(), "somebody answers for a Pod that is gone");
    scene.await_allocations(&[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_ask_at_once_share_no_address_and_no_block() -> Result<()> {
    let scene = Scene::start(POOL).await?;
    let names: Vec<(usize, String)> = (0..20).map(|number| (number % 2, format!("p-{number}"))).collect();
    for (node, name) in &names {
        scene.api.create_pod(&scene.pod(name, *node)).await?;
    }
    let asked = names.iter().map(|(node, name)| scene.add(*node, name, name));
    let answers = futures::future::try_join_all(asked).await?;
    let given: BTreeMap<IpAddr, usize> = answers
        .into_iter()
        .zip(&names)
        .map(|(answer, (node, _))| Ok((given(answer)?, *node)))
        .collect::<Result<_>>()?;
    ensure!(given.len() == names.len(), "an address was given out twice: {given:?}");
    let blocks = scene.blocks().await?;
    for (address, node) in &given {
        let owners: BTreeSet<&str> =
            blocks.iter().filter(|block| within(block, *address)).map(|block| block.node.as_str()).collect();
        ensure!(owners == BTreeSet::from([scene::NODES[*node]]), "{address} of {node}: {owners:?}");
    }
    let routes: Vec<(String, usize)> =
        blocks.iter().map(|block| (block.cidr.to_string(), usize::from(block.node == "node-b"))).collect();
    scene.await_routes(&routes.iter().map(|(cidr, node)| (cidr.as_str(), *node)).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_free_block_an_address_is_borrowed_and_goes_back() -> Result<()> {
    let scene = Scene::start(SMALL).await?;
    for (name, node) in [("db-0", 0), ("db-1", 1)] {
        scene.api.create_pod(&scene.pod(name, node)).await?;
    }
    let first = given(scene.add(0, "c0", "db-0").await?)?;
    scene.await_routes(&[("10.20.0.0/28", 0)])?;
    let borrowed = given(scene.add(1, "c1", "db-1").await?)?;
    ensure!(borrowed != first);
    // The one address leads to the borrower, the rest to the owner.
    scene.deliver(1, "c1", borrowed)?;
    scene.await_routes(&[("10.20.0.0/28", 0), (&format!("{borrowed}/32"), 1)])?;
    scene.del(1, "c1").await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    scene.await_routes(&[("10.20.0.0/28", 0)])?;
    scene.await_allocations(&[("db-0", first)]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_address_is_given_wherever_its_pod_runs_and_to_one_pod_at_a_time() -> Result<()> {
    let scene = Scene::start(POOL).await?;
    let fixed: IpAddr = "10.20.0.37".parse()?;
    let pod = |name: &str, node| scene.pod(name, node).annotation("plainroute.dev/ip", "10.20.0.37");
    scene.api.create_pod(&pod("old", 0)).await?;
    ensure!(given(scene.add(0, "c0", "old").await?)? == fixed);
    scene.deliver(0, "c0", fixed)?;
    // Another Pod asks for it: it waits, is told who has it, and gets it once it is free.
    scene.api.create_pod(&pod("new", 1)).await?;
    let refused = scene.add(1, "c1", "new").await?.err().context("two Pods have one address")?;
    ensure!(refused.code == 11 && refused.message.contains("erp/old"), "{refused:?}");
    scene.del(0, "c0").await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    scene.undeliver(0, "c0")?;
    let address = scene.add_until_given(1, "c2", "new", Duration::from_secs(30)).await?;
    ensure!(address == fixed);
    scene.deliver(1, "c2", fixed)?;
    scene.await_route("10.20.0.37/32", 1)?;
    // Outside the pools of its namespace there is none.
    let stray = scene.pod("stray", 0).annotation("plainroute.dev/ip", "10.99.0.1");
    scene.api.create_pod(&stray).await?;
    let refused = scene.add(0, "c3", "stray").await?.err().context("an address of no pool was given out")?;
    ensure!(refused.code == 7 && refused.message.contains("10.99.0.1"), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_a_stateful_set_keeps_its_address_on_another_node_until_the_set_is_gone() -> Result<()> {
    let scene = Scene::start(POOL).await?;
    let set = scene.create_stateful_set("books").await?;
    let pod = |node| scene.pod("books-0", node).of_stateful_set(&set);
    scene.api.create_pod(&pod(0)).await?;
    let address = given(scene.add(0, "c0", "books-0").await?)?;
    scene.del(0, "c0").await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    scene.api.delete_pod("erp", "books-0").await?;
    // Nobody else gets it meanwhile, who asks for as many as there are.
    for number in 0..16 {
        let name = format!("other-{number}");
        scene.api.create_pod(&scene.pod(&name, 0)).await?;
        ensure!(given(scene.add(0, &name, &name).await?)? != address);
    }
    scene.api.create_pod(&pod(1)).await?;
    ensure!(given(scene.add(1, "c1", "books-0").await?)? == address, "another address on another node");
    scene.deliver(1, "c1", address)?;
    scene.await_route(&format!("{address}/32"), 1)?;
    scene.del(1, "c1").await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    scene.api.delete_pod("erp", "books-0").await?;
    let kept = scene.allocation(address).await?.context("it is not kept")?;
    ensure!(kept.stateful_set.as_deref() == Some("books"), "{kept:?}");
    scene.delete_stateful_set("books").await?;
    wait_until_async("the address to be free", Duration::from_secs(90), async || {
        match scene.allocation(address).await.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(kept) => Err(format!("{kept:?}")),
        }
    })
    .await
}
