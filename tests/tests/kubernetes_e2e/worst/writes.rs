//! The API server refuses what the agents write.

use anyhow::Result;
use plainroute_tests::netns::wait_until;

use super::{lost_none, undisturbed};
use crate::SOON;
use crate::cluster::{A, B, Cluster, Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn agents_that_may_write_nothing_route_all_the_same() -> Result<()> {
    let lab = Cluster::start(Scene { status: true, ..Scene::default() }).await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.await_routes(&[("10.20.0.1", A)])?;
    let probe = lab.probe(&one, "10.20.0.1")?;
    let mark = lab.mark();
    // Without this the test would show nothing.
    wait_until("a write that is refused", SOON, || match lab.has_refused("patch", "nodestates") {
        Ok(true) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    lab.run_cni_pod(&lab.b, "two", "10.20.0.2").await?;
    lab.await_routes(&[("10.20.0.1", A), ("10.20.0.2", B)])?;
    undisturbed(&lab, &mark)?;
    lost_none("writes refused", probe)?;

    // Control: what the agents may read still counts.
    lab.api.delete_pod("erp", "one").await?;
    lab.await_routes(&[("10.20.0.2", B)])
}
