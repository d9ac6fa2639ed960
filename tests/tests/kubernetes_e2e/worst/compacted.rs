//! etcd has forgotten what the API server missed: watches are answered by 410 Gone, and agents list anew.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use plainroute_tests::netns::wait_until;
use serde_json::json;

use super::{lost_none, undisturbed};
use crate::cluster::{A, B, Cluster, Scene};
use crate::node::Node;
use crate::{SOON, problems};

/// What an agent asks for to begin from nothing.
const LIST: &str = "sendInitialEvents=true";
/// How many writes the API server misses beside the deletion.
const WRITES: u32 = 20;

/// How often a node's Pods were listed.
fn lists(lab: &Cluster, node: &Node) -> Result<usize> {
    Ok(lab.pod_watches(node)?.iter().filter(|uri| uri.contains(LIST)).count())
}

/// Deletes a Pod, and more, while the API server that agents know is away from etcd; `compacted`: and has etcd forget it.
async fn delete_unseen(lab: &Cluster, pod: &str, compacted: bool) -> Result<()> {
    lab.api.tear_off_from_etcd(&lab.tor_ns).await?;
    lab.api.delete_pod("erp", pod).await?;
    for write in 0..WRITES {
        let annotations = json!({ "annotations": { "write": write.to_string() } });
        lab.api.patch_namespace("crm", annotations).await?;
    }
    // It cannot come back before that is done.
    lab.api.freeze()?;
    lab.api.join_to_etcd(&lab.tor_ns)?;
    if compacted {
        println!("compacted at revision {}", lab.api.compact()?);
    }
    lab.api.thaw()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_watch_whose_history_is_compacted_is_answered_410_and_begins_anew_without_a_withdrawal()
-> Result<()> {
    let lab = Cluster::start(Scene::default()).await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.run_cni_pod(&lab.a, "two", "10.20.0.2").await?;
    lab.run_cni_pod(&lab.a, "three", "10.20.0.3").await?;
    lab.run_cni_pod(&lab.b, "four", "10.20.0.4").await?;
    let all = [("10.20.0.1", A), ("10.20.0.4", B), ("10.20.0.2", A), ("10.20.0.3", A)];
    lab.await_routes(&all)?;
    let probe = lab.probe(&one, "10.20.0.1")?;

    // Control: as long as etcd remembers, the API server goes on where it was, and so do the agents.
    let before = [lists(&lab, &lab.a)?, lists(&lab, &lab.b)?];
    ensure!(before.iter().all(|lists| *lists > 0), "the audit log does not tell: {before:?}");
    delete_unseen(&lab, "three", false).await?;
    lab.await_routes(&all[..3])?;
    let after = [lists(&lab, &lab.a)?, lists(&lab, &lab.b)?];
    ensure!(before == after, "listed anew although nothing was forgotten: {before:?}, {after:?}");

    let mark = lab.mark();
    delete_unseen(&lab, "two", true).await?;
    let cause = Instant::now();
    lab.time_routes("a deletion that nobody can tell any more", cause, &all[..2])?;
    for (node, before) in [&lab.a, &lab.b].into_iter().zip(before) {
        wait_until("a new list", SOON, || match lists(&lab, node) {
            Ok(lists) if lists > before => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        // The last watch before that list, asked for once more.
        let watches = lab.pod_watches(node)?;
        let list = watches.iter().rposition(|uri| uri.contains(LIST)).context("no list")?;
        let resumed = watches.get(list - 1).context("no watch before the list")?;
        ensure!(resumed.contains("resourceVersion=") && !resumed.contains(LIST), "{watches:#?}");
        let errors = lab.api.errors_of_watch(resumed).await?;
        ensure!(errors == [410], "{resumed}: {errors:?}");
        node.await_check("that all is well", |health| problems(health).is_empty())?;
    }
    let log = lab.log_since(&mark);
    ensure!(log.removed().into_iter().eq(["10.20.0.2/32"]), "only what was deleted may go:\n{log}");
    lost_none("an etcd that is compacted while the API server is away from it", probe)?;

    // The watches that follow are alive.
    let mark = lab.mark();
    lab.run_cni_pod(&lab.b, "five", "10.20.0.5").await?;
    lab.await_routes(&[&all[..2], &[("10.20.0.5", B)]].concat())?;
    undisturbed(&lab, &mark)
}
