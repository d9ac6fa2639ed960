//! A fixed address moves to another node while both are alive: how long nobody has it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::scene::Scene;
use crate::{POOL, given};

/// From the DEL of the Pod before.
const REPLY: Duration = Duration::from_secs(3);
const ROUTE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_address_moves_within_seconds_to_a_pod_that_waits_for_it() -> Result<()> {
    let scene = Scene::start(POOL).await?;
    let fixed: IpAddr = "10.20.0.37".parse()?;
    let pod = |name: &str, node| scene.pod(name, node).annotation("plainroute.dev/ip", "10.20.0.37");
    scene.api.create_pod(&pod("old", 0)).await?;
    scene.api.create_pod(&pod("new", 1)).await?;
    ensure!(given(scene.add(0, "c0", "old").await?)? == fixed);
    scene.deliver(0, "c0", fixed)?;
    scene.await_routes(&[("10.20.0.32/28", 0)])?;
    scene.await_pod(1, "new").await?;
    // The new Pod asks while the old one has it, as in a rolling update: its claim is made before the old one breaks.
    let mut asked = std::pin::pin!(scene.add(1, "c1", "new"));
    let early = tokio::time::timeout(Duration::from_secs(2), &mut asked).await;
    ensure!(early.is_err(), "two Pods have one address, or the second does not wait: {early:?}");
    scene.undeliver(0, "c0")?;
    let begun = Instant::now();
    scene.del(0, "c0").await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    ensure!(given(asked.await?)? == fixed);
    let replied = begun.elapsed();
    scene.deliver(1, "c1", fixed)?;
    scene.await_best("10.20.0.37", 1)?;
    let routed = begun.elapsed();
    println!("old Pod's DEL to new Pod's ADD reply: {replied:?}; to the route on the ToR: {routed:?}");
    ensure!(replied < REPLY && routed < ROUTE, "{replied:?}, {routed:?}");
    scene.await_route("10.20.0.37/32", 1)
}
