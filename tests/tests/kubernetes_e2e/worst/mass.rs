//! Somebody deletes everything of a kind, or the kind itself.

use anyhow::{Result, ensure};
use plainroute_config::Kind;
use plainroute_tests::netns::wait_until;
use serde_json::json;

use super::{await_held, lost_none, undisturbed};
use crate::SOON;
use crate::cluster::{A, B, Cluster, Scene};
use crate::node::Node;

/// With the ToR, one more than is believed at once.
const OTHERS: u8 = 6;

/// Peers that nobody is behind.
async fn apply_others(lab: &Cluster) -> Result<()> {
    for other in 1..=OTHERS {
        let spec = json!({
            "localASN": 64512, "peerASN": 64600, "peerAddress": format!("172.16.0.{}", 100 + other),
            "families": ["ipv4-unicast"],
        });
        let metadata = json!({ "name": format!("tor-{other}") });
        let version = "plainroute.dev/v1alpha1";
        let object = json!({ "apiVersion": version, "kind": "BGPPeer", "metadata": metadata, "spec": spec });
        lab.api.apply(object).await?;
    }
    Ok(())
}

fn await_peers(node: &Node, count: usize) -> Result<()> {
    wait_until(&format!("{count} peers on {}", node.name), SOON, || match node.ask(&["peers"]) {
        Ok(peers) if peers.as_array().is_some_and(|peers| peers.len() == count) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_peer_or_the_kind_itself_deleted_ends_no_session_and_fewer_than_the_limit_do() -> Result<()> {
    let mut lab = Cluster::without_agents(Scene { kinds_in_files: [false; 2], ..Scene::default() }).await?;
    lab.apply_kinds().await?;
    apply_others(&lab).await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    let two = lab.run_answering_pod(&lab.b, "two", "10.20.0.2").await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.await_sessions()?;
    let all = [("10.20.0.1", A), ("10.20.0.2", B)];
    lab.await_routes(&all)?;
    let probes = [lab.probe(&one, "10.20.0.1")?, lab.probe(&two, "10.20.0.2")?];
    let mark = lab.mark();
    let mut peers: Vec<String> = (1..=OTHERS).map(|other| format!("BGPPeer/tor-{other}")).collect();
    peers.push("BGPPeer/tor".into());
    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();

    lab.api.delete_all(Kind::BgpPeer).await?;
    for node in [&lab.a, &lab.b] {
        await_held(node, &peers, "TooMany")?;
        await_peers(node, peers.len())?;
    }
    // Made again, they are as they were.
    lab.apply_kinds().await?;
    apply_others(&lab).await?;
    for node in [&lab.a, &lab.b] {
        await_held(node, &[], "TooMany")?;
    }
    undisturbed(&lab, &mark)?;

    // The kind itself: even one object of it stays.
    lab.api.delete_crd("bgpadvertisements.plainroute.dev").await?;
    for node in [&lab.a, &lab.b] {
        await_held(node, &["BGPAdvertisement/pods"], "KindGone")?;
    }
    undisturbed(&lab, &mark)?;
    lab.api.install_crds().await?;
    lab.apply_kinds().await?;
    for node in [&lab.a, &lab.b] {
        await_held(node, &[], "KindGone")?;
    }
    undisturbed(&lab, &mark)?;
    for probe in probes {
        lost_none("every peer, then a kind deleted", probe)?;
    }

    // Control: fewer than the limit are believed, and one of them is the ToR.
    for name in ["tor-1", "tor-2", "tor"] {
        lab.api.delete_custom(Kind::BgpPeer, name).await?;
    }
    lab.await_routes(&[])?;
    for node in [&lab.a, &lab.b] {
        await_peers(node, peers.len() - 3)?;
        ensure!(super::held(node)?.is_empty(), "held below the limit: {:?}", super::held(node)?);
    }
    Ok(())
}
