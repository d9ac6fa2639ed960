//! The same cluster with `plainroute-ipam` below `ptp`, as the chart with `ipam.enabled` brings it: no node has a range, each namespace
//! has a pool.
//!
//! What it claims:
//! - Pods of a namespace have addresses of its pool on either node, and are reached from outside by them; another namespace's
//!   have addresses of another pool.
//! - Scaled up, no address is given twice; scaled to nothing, none is held any more.
//! - A StatefulSet's Pod that is moved to the other node keeps its address, and both ToRs know the new way.
//! - A node that dies at once (kubelet, containerd, agent, cables) takes its blocks with it; its Pods come up elsewhere with
//!   addresses of their pools, and no address is given twice.
//! - All the while no two running Pods have the same address, and none has one outside its namespace's pool.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ListParams};
use plainroute_bgp::Prefix;
use plainroute_config::{IpBlock, IpBlockSpec};
use plainroute_tests::netns::wait_until_async;
use plainroute_tests::routers::{Family, Router, Table};
use tokio::sync::watch;

use super::SOON;
use super::cluster::Running;
use super::manifests::{NAMESPACE, OTHER_NAMESPACE, POOLS};
use super::scene::{Addressing, NODES, Scene};

const BOOKS: &str = "app=books";
const BOTH: [&str; 2] = [NAMESPACE, OTHER_NAMESPACE];

#[test]
fn pods_of_a_real_cluster_have_addresses_of_their_namespaces() -> Result<()> {
    let _turn = super::turn();
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut scene = Scene::start(Addressing::Agents).await?;
        scene.deploy_agents().await?;
        scene.await_sessions()?;
        println!("a cluster with agents that give addresses out after {} s", started.elapsed().as_secs());
        let (over, end) = watch::channel(false);
        let watcher = tokio::spawn(watch_pods(Api::all(scene.api.client()), end));
        let told = tell(&mut scene).await;
        over.send(true)?;
        let looks = watcher.await??;
        told?;
        ensure!(looks > 20, "the Pods were looked at only {looks} times");
        println!("{looks} looks at all Pods, {} s in all", started.elapsed().as_secs());
        Ok(())
    })
}

async fn tell(scene: &mut Scene) -> Result<()> {
    addresses_are_of_the_namespace(scene).await?;
    scaled_up_and_down(scene).await?;
    a_stateful_set_moves(scene).await?;
    a_node_dies(scene).await
}

async fn addresses_are_of_the_namespace(scene: &Scene) -> Result<()> {
    let cause = Instant::now();
    scene.deploy(NAMESPACE, "web", 4, 1).await?;
    scene.deploy(OTHER_NAMESPACE, "web", 2, 1).await?;
    println!("two Deployments: {} ms until all Pods run", cause.elapsed().as_millis());
    let pods = scene.check_addresses().await?;
    let nodes: BTreeSet<_> = pods.iter().map(|pod| &pod.node).collect();
    ensure!(pods.len() == 6 && nodes.len() == 2, "the Pods are not spread: {pods:?}");
    scene.await_ways(&pods)?;
    println!("two Deployments: {} ms until both ToRs know the way", cause.elapsed().as_millis());
    pods.iter().try_for_each(|pod| scene.ping(pod))?;
    // The control: an address of a block that no Pod has is not answered by anybody.
    let held: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.address).collect();
    let blocks = scene.blocks().await?;
    let all = blocks.iter().flat_map(|block| (0..8).filter_map(|ordinal| address(block, ordinal)));
    let nobodys = all.into_iter().find(|one| !held.contains(one)).context("every address is held")?;
    let answer = scene.outside.run(&["ping", "-c1", "-W1", &nobodys.to_string()]);
    ensure!(answer.is_err(), "somebody answers for {nobodys}");
    Ok(())
}

async fn scaled_up_and_down(scene: &Scene) -> Result<()> {
    let cause = Instant::now();
    scene.scale("web", 14).await?;
    println!("4 to 14 Pods: {} ms", cause.elapsed().as_millis());
    let pods = scene.check_addresses().await?;
    ensure!(pods.len() == 16, "{pods:?}");
    scene.await_ways(&pods)?;
    pods.iter().try_for_each(|pod| scene.ping(pod))?;
    let cause = Instant::now();
    scene.scale("web", 0).await?;
    scene.await_allocations(2).await?;
    println!("14 Pods to none: {} ms until no block names one", cause.elapsed().as_millis());
    let pods = scene.check_addresses().await?;
    ensure!(pods.len() == 2, "{pods:?}");
    Ok(())
}

async fn a_stateful_set_moves(scene: &Scene) -> Result<()> {
    scene.deploy_stateful_set("books").await?;
    let one = |pods: BTreeSet<Running>| pods.into_iter().next().context("no Pod");
    let before = one(scene.pods(NAMESPACE, BOOKS).await?)?;
    scene.await_ways([&before])?;
    scene.ping(&before)?;
    scene.cordon(&before.node, true).await?;
    let cause = Instant::now();
    scene.delete_pod(&before, None).await?;
    let after = wait_until_async("the Pod on the other node", SOON, || async {
        let pods = scene.pods(NAMESPACE, BOOKS).await.map_err(|error| format!("{error:#}"))?;
        pods.into_iter().find(|pod| pod.uid != before.uid).ok_or("it is not there".to_owned())
    })
    .await?;
    ensure!(after.node != before.node && after.address == before.address, "{before:?}, then {after:?}");
    scene.await_ways([&after])?;
    println!("a StatefulSet's Pod moved: {} ms until both ToRs know the way", cause.elapsed().as_millis());
    scene.ping(&after)?;
    scene.cordon(&before.node, false).await?;
    scene.check_addresses().await.map(drop)
}

async fn a_node_dies(scene: &mut Scene) -> Result<()> {
    let books = scene.pods(NAMESPACE, BOOKS).await?;
    let books = books.first().context("no Pod")?;
    // The other one dies, so that what the StatefulSet's Pod has borrowed there is put to the test too.
    let dead = NODES.iter().map(|(name, ..)| *name).find(|name| *name != books.node).context("a node")?;
    scene.scale("web", 6).await?;
    let before = scene.check_addresses().await?;
    let lost: BTreeSet<_> = before.iter().filter(|pod| pod.node == dead).cloned().collect();
    ensure!(lost.len() >= 2 && lost.len() < before.len(), "{before:?}");
    let cause = Instant::now();
    scene.nodes.retain(|node| node.name() != dead);
    // What an operator says of a machine that is known to be off.
    scene.taint(dead, "node.kubernetes.io/out-of-service").await?;
    for pod in &lost {
        scene.delete_pod(pod, Some(0)).await?;
    }
    scene.await_available(NAMESPACE, "web", 6).await?;
    scene.await_available(OTHER_NAMESPACE, "web", 2).await?;
    println!("a node dead: {} ms until its Pods run elsewhere", cause.elapsed().as_millis());
    let after = scene.check_addresses().await?;
    ensure!(after.len() == before.len() && after.iter().all(|pod| pod.node != dead), "{after:?}");
    scene.await_ways(&after)?;
    after.iter().try_for_each(|pod| scene.ping(pod))?;
    println!("a node dead: {} ms until they are reached", cause.elapsed().as_millis());
    let kept = scene.pods(NAMESPACE, BOOKS).await?;
    ensure!(kept.contains(books), "{books:?}, then {kept:?}");
    Ok(())
}

impl Scene {
    async fn blocks(&self) -> Result<Vec<IpBlockSpec>> {
        let list = self.api.custom("IPBlock").list(&ListParams::default()).await?;
        let read = |object: DynamicObject| {
            Ok(serde_json::from_value::<IpBlock>(serde_json::to_value(object)?)?.spec)
        };
        list.items.into_iter().map(read).collect()
    }

    /// All Pods of both namespaces, once each has an address of its pool, nobody else's, and an IPBlock of its node names it.
    async fn check_addresses(&self) -> Result<BTreeSet<Running>> {
        let mut pods = BTreeSet::new();
        for (namespace, range) in POOLS {
            let range: Prefix = range.parse()?;
            let of_namespace = self.pods(namespace, "").await?;
            let stray = of_namespace.iter().find(|pod| !range.contains_address(pod.address));
            ensure!(stray.is_none(), "{stray:?} has no address of {namespace}'s pool");
            pods.extend(of_namespace);
        }
        let addresses: BTreeSet<_> = pods.iter().map(|pod| pod.address).collect();
        ensure!(addresses.len() == pods.len(), "an address is given twice: {pods:?}");
        wait_until_async("the IPBlocks to name every Pod", SOON, || async {
            let held = holders(&self.blocks().await.map_err(|error| format!("{error:#}"))?)?;
            let wrong =
                pods.iter().find(|pod| held.get(&pod.address) != Some(&(pod.uid.clone(), pod.node.clone())));
            wrong.map_or(Ok(()), |pod| Err(format!("{pod:?} is not what is held: {held:?}")))
        })
        .await
        .with_context(|| self.last_words())?;
        Ok(pods)
    }

    /// Waits until so many addresses are held in all.
    async fn await_allocations(&self, count: usize) -> Result<()> {
        wait_until_async(&format!("{count} addresses held"), SOON, || async {
            let held = holders(&self.blocks().await.map_err(|error| format!("{error:#}"))?)?;
            if held.len() == count { Ok(()) } else { Err(format!("{held:?}")) }
        })
        .await
    }

    /// Waits until the longest match of both ToRs for each Pod leads to its node.
    fn await_ways<'a>(&self, pods: impl IntoIterator<Item = &'a Running>) -> Result<()> {
        let pods: Vec<&Running> = pods.into_iter().collect();
        let tors: [&dyn Router; 2] = [&self.frr, &self.bird];
        for (index, tor) in tors.into_iter().enumerate() {
            let known = |table: &Table| pods.iter().all(|pod| leads_to(table, pod, index));
            tor.await_learned(Family::V4, &format!("the ways to {pods:?}"), SOON, &known)
                .with_context(|| self.last_words())?;
        }
        Ok(())
    }
}

/// Whether the longest match leads to the Pod's node and nowhere else.
fn leads_to(table: &Table, pod: &Running, tor: usize) -> bool {
    let covers = |prefix: &str| {
        prefix
            .parse::<Prefix>()
            .ok()
            .filter(|prefix| prefix.contains_address(pod.address))
            .map(|one| one.length())
    };
    let best = table
        .iter()
        .filter_map(|(prefix, hops)| Some((covers(prefix)?, hops)))
        .max_by_key(|(length, _)| *length);
    let uplink = NODES.iter().find(|(name, ..)| *name == pod.node).and_then(|node| node.2[tor].parse().ok());
    best.zip(uplink).is_some_and(|((_, hops), uplink): (_, IpAddr)| *hops == BTreeSet::from([uplink]))
}

fn address(block: &IpBlockSpec, ordinal: u16) -> Option<IpAddr> {
    let IpAddr::V4(first) = block.cidr.prefix().address() else { return None };
    Some(Ipv4Addr::from_bits(first.to_bits() + u32::from(ordinal)).into())
}

/// Who holds each address by the IPBlocks: the Pod's UID and the block's node. Two holders are an error.
fn holders(blocks: &[IpBlockSpec]) -> Result<BTreeMap<IpAddr, (String, String)>, String> {
    let mut held = BTreeMap::new();
    for block in blocks {
        for one in &block.allocations {
            let (Some(uid), Some(address)) = (&one.pod_uid, address(block, one.ordinal)) else { continue };
            let other = held.insert(address, (uid.clone(), block.node.clone()));
            if let Some(other) = other {
                return Err(format!("{address} is held by {other:?}, and by {uid} in {block:?}"));
            }
        }
    }
    Ok(held)
}

/// Looks at all Pods until the end: no two that run have the same address, each has one of its namespace's pool.
async fn watch_pods(pods: Api<Pod>, mut end: watch::Receiver<bool>) -> Result<usize> {
    let mut looks = 0;
    while !*end.borrow() {
        let list = pods.list(&ListParams::default()).await?;
        judge(&list.items)?;
        looks += 1;
        let _ = tokio::time::timeout(Duration::from_millis(200), end.wait_for(|over| *over)).await;
    }
    Ok(looks)
}

fn judge(pods: &[Pod]) -> Result<()> {
    let mut seen: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
    for pod in pods {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        if !BOTH.contains(&namespace) || status.phase.as_deref() != Some("Running") {
            continue;
        }
        for one in status.pod_ips.iter().flatten() {
            let address: IpAddr = one.ip.parse()?;
            let range = POOLS.iter().find(|(name, _)| *name == namespace).context("a pool")?.1;
            ensure!(
                range.parse::<Prefix>()?.contains_address(address),
                "{address} of {:?}",
                pod.metadata.name
            );
            if let Some(other) = seen.insert(address, pod) {
                bail!("{address} is {:?}'s and {:?}'s", other.metadata.name, pod.metadata.name);
            }
        }
    }
    Ok(())
}

/// The negative control: what is watched for is seen.
#[test]
fn an_address_of_two_pods_and_one_of_no_pool_are_seen() -> Result<()> {
    let pod = |name: &str, namespace: &str, address: &str| -> Result<Pod> {
        Ok(serde_json::from_value(serde_json::json!({
            "metadata": { "name": name, "namespace": namespace },
            "status": { "phase": "Running", "podIPs": [{ "ip": address }] },
        }))?)
    };
    let one = pod("one", NAMESPACE, "10.20.0.1")?;
    judge(&[one.clone(), pod("other", OTHER_NAMESPACE, "10.30.0.1")?])?;
    assert!(judge(&[one, pod("other", NAMESPACE, "10.20.0.1")?]).is_err());
    assert!(judge(&[pod("stray", OTHER_NAMESPACE, "10.20.0.2")?]).is_err());
    Ok(())
}
