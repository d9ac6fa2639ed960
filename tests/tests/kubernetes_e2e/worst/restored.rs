//! etcd is restored from a backup that is older than what the nodes do.

use anyhow::Result;
use jiff::Timestamp;
use plainroute_config::Kind;
use serde_json::json;

use super::{await_held, lost_none, lost_some, undisturbed};
use crate::cluster::{A, B, Cluster, OWN_NAMESPACE, Scene};
use crate::problems;

/// How many writes the backup lacks: an API server writes some itself when it starts, and must not catch up by that.
const WRITES: u32 = 400;
const KINDS: [&str; 4] = ["BGPAdvertisement/pods", "BGPPeer/tor", "IPPool/crm", "IPPool/erp"];
const CONFIRMED: &str = "plainroute.dev/deletions-confirmed-until";

/// All that the backup does not have: our own kinds, and two Pods on each node.
async fn since_the_backup(lab: &Cluster) -> Result<()> {
    lab.apply_kinds().await?;
    for write in 0..WRITES {
        lab.api.patch_namespace("crm", json!({ "annotations": { "write": write.to_string() } })).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_restored_etcd_withdraws_nothing_until_somebody_confirms_and_then_only_that() -> Result<()> {
    let mut lab = Cluster::without_agents(Scene { kinds_in_files: [false; 2], ..Scene::default() }).await?;
    let backup = lab.api.back_up()?;
    since_the_backup(&lab).await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    let two = lab.run_answering_pod(&lab.a, "two", "10.20.0.2").await?;
    let three = lab.run_answering_pod(&lab.b, "three", "10.20.0.3").await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.await_sessions()?;
    let all = [("10.20.0.1", A), ("10.20.0.2", A), ("10.20.0.3", B)];
    lab.await_routes(&all)?;
    let probes =
        [lab.probe(&one, "10.20.0.1")?, lab.probe(&two, "10.20.0.2")?, lab.probe(&three, "10.20.0.3")?];

    let mark = lab.mark();
    lab.api.restore(&backup).await?;
    let of_a = [&KINDS[..], &["Pod/erp/one", "Pod/erp/two"]].concat();
    let of_b = [&KINDS[..], &["Pod/erp/three"]].concat();
    await_held(&lab.a, &of_a, "Rewound")?;
    await_held(&lab.b, &of_b, "Rewound")?;
    for node in [&lab.a, &lab.b] {
        node.await_check("what is held", |health| problems(health).contains("plainroute held"))?;
    }
    undisturbed(&lab, &mark)?;
    lab.await_routes(&all)?;
    let [to_one, to_two, to_three] = probes;

    // One object, on one node: that and nothing else.
    lab.a.ask(&["held", "--confirm", "Pod/erp/two"])?;
    lab.await_routes(&[all[0], all[2]])?;
    lost_some("the Pod whose deletion was confirmed", to_two)?;
    await_held(&lab.a, &of_a[..5], "Rewound")?;
    await_held(&lab.b, &of_b, "Rewound")?;

    // A time before the deletions confirms none of them; the agents have read it.
    let mark = lab.mark();
    let before = "2020-02-02T02:02:02Z";
    let confirm = |until: &str| json!({ "annotations": { CONFIRMED: until } });
    lab.api.patch_namespace(OWN_NAMESPACE, confirm(before)).await?;
    for node in [&lab.a, &lab.b] {
        node.await_kept(&[before])?;
    }
    await_held(&lab.a, &of_a[..5], "Rewound")?;
    await_held(&lab.b, &of_b, "Rewound")?;
    undisturbed(&lab, &mark)?;
    lost_none("an etcd restored to an older revision", to_one)?;
    lost_none("an etcd restored to an older revision", to_three)?;

    // The present confirms all, on every node.
    lab.api.patch_namespace(OWN_NAMESPACE, confirm(&Timestamp::now().to_string())).await?;
    lab.await_routes(&[])?;
    for node in [&lab.a, &lab.b] {
        await_held(node, &[], "Rewound")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_same_deletions_by_hand_do_withdraw() -> Result<()> {
    let mut lab = Cluster::without_agents(Scene { kinds_in_files: [false; 2], ..Scene::default() }).await?;
    lab.apply_kinds().await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    let two = lab.run_answering_pod(&lab.a, "two", "10.20.0.2").await?;
    let three = lab.run_answering_pod(&lab.b, "three", "10.20.0.3").await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.await_sessions()?;
    let all = [("10.20.0.1", A), ("10.20.0.2", A), ("10.20.0.3", B)];
    lab.await_routes(&all)?;
    let probes = [lab.probe(&one, "10.20.0.1")?, lab.probe(&two, "10.20.0.2")?];
    let to_three = lab.probe(&three, "10.20.0.3")?;

    lab.api.delete_pod("erp", "two").await?;
    lab.await_routes(&[all[0], all[2]])?;
    lab.api.delete_custom(Kind::BgpAdvertisement, "pods").await?;
    lab.await_routes(&[])?;
    for name in ["erp", "crm"] {
        lab.api.delete_custom(Kind::IpPool, name).await?;
    }
    lab.api.delete_custom(Kind::BgpPeer, "tor").await?;
    for node in [&lab.a, &lab.b] {
        plainroute_tests::netns::wait_until("the last peer to go", crate::SOON, || {
            match node.ask(&["peers"]) {
                Ok(peers) if peers.as_array().is_some_and(Vec::is_empty) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        await_held(node, &[], "Rewound")?;
    }
    for probe in probes.into_iter().chain([to_three]) {
        lost_some("deletions by hand", probe)?;
    }
    Ok(())
}
