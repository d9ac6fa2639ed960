//! The agent dies at each step of an ADD: neither does an address leak nor has it two holders. It is killed by itself at the step
//! that `PLAINROUTE_FAILPOINT` names, which only a build with debug assertions looks at.

use std::time::Duration;

use anyhow::{Result, ensure};

use plainroute_tests::netns::wait_until_async;

use crate::given;
use crate::scene::Scene;

/// Every Pod has a block of its own, so that each ADD goes through all the steps.
const SINGLES: &str = "{ ipRanges: [{ cidr: 10.20.0.0/27 }], blockSize: 32, ipCooldownSeconds: 1, \
                       namespaceSelector: { matchLabels: { team: erp } } }";
const POINTS: [&str; 6] = ["claim", "answered", "journal", "journaled", "published", "replied"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_at_any_step_of_an_add_neither_leaks_nor_doubles() -> Result<()> {
    let mut scene = Scene::start(SINGLES).await?;
    scene.api.create_pod(&scene.pod("stays", 0)).await?;
    let stays = given(scene.add(0, "stays", "stays").await?)?;
    for point in POINTS {
        scene.api.create_pod(&scene.pod(point, 0)).await?;
        scene.restart_agent_with(0, &[("PLAINROUTE_FAILPOINT", point)])?;
        // A reply may be out when it dies after having handed it over, and no sooner.
        let heard = scene.add(0, point, point).await.ok().and_then(Result::ok);
        ensure!(heard.is_none() || point == "replied", "{point}: {heard:?}");
        scene.await_death(0)?;
        scene.restart_agent(0)?;
        // The runtime asks again for the same sandbox, as one that has heard nothing.
        let again = given(scene.add(0, point, point).await?)?;
        ensure!(again != stays, "{point}: {again} has two holders");
        ensure!(heard.is_none_or(|heard| heard == [again]), "{point}: it was told another address");
        scene.await_allocations(&[("stays", stays), (point, again)]).await?;
        scene.del(0, point).await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        // The other way: it dies, and the runtime gives up.
        let (pod, container) = (format!("{point}-2"), format!("{point}-c2"));
        scene.api.create_pod(&scene.pod(&pod, 0)).await?;
        scene.restart_agent_with(0, &[("PLAINROUTE_FAILPOINT", point)])?;
        drop(scene.add(0, &container, &pod).await);
        scene.await_death(0)?;
        scene.restart_agent(0)?;
        scene.del(0, &container).await?.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        scene.await_allocations(&[("stays", stays)]).await?;
        ensure!(given(scene.add(0, "stays", "stays").await?)? == stays, "{point}");
    }
    // No claim is left over either.
    wait_until_async("one block", Duration::from_secs(90), async || {
        let blocks = scene.blocks().await.map_err(|error| error.to_string())?;
        if blocks.len() == 1 { Ok(()) } else { Err(format!("{blocks:?}")) }
    })
    .await
}
