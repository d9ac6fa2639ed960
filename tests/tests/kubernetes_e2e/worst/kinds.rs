//! The definitions of our own kinds are missing or of another version, and objects cannot be read.

use anyhow::{Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use plainroute_config::Kind;
use serde_json::{Value, json};

use super::{lost_none, lost_some, undisturbed};
use crate::cluster::{A, B, Cluster, Scene};
use crate::problems;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_its_kinds_in_the_api_an_agent_goes_by_its_files_and_says_so() -> Result<()> {
    // Control: node-b has none in its files either.
    let mut lab =
        Cluster::without_agents(Scene { kinds_in_files: [true, false], ..Scene::default() }).await?;
    for plural in ["bgppeers", "bgpadvertisements", "ippools", "egresses"] {
        lab.api.delete_crd(&format!("{plural}.plainroute.dev")).await?;
    }
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.run_cni_pod(&lab.b, "two", "10.20.0.2").await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.await_routes(&[("10.20.0.1", A)])?;
    let probe = lab.probe(&one, "10.20.0.1")?;
    for node in [&lab.a, &lab.b] {
        node.await_check("that the kinds are missing", |health| {
            let problems = problems(health);
            health["ready"] == true
                && ["bgppeers", "bgpadvertisements", "ippools", "egresses"].iter().all(|plural| {
                    problems.contains(&format!("{plural}: the server does not know plainroute.dev/v1alpha1"))
                })
        })?;
    }
    ensure!(lab.b.ask(&["peers"])? == json!([]), "{}", lab.b.ask(&["peers"])?);
    lab.await_routes(&[("10.20.0.1", A)])?;
    lost_none("no kinds of ours in the API, all in files", probe)
}

/// Replaces what is known of BGPPeers by "anything goes", as the definition of another version may be.
pub(super) async fn loosen_peers(lab: &Cluster) -> Result<()> {
    let api = Api::<CustomResourceDefinition>::all(lab.api.client());
    let name = "bgppeers.plainroute.dev";
    let mut definition = api.get(name).await?;
    let anything =
        json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    for version in &mut definition.spec.versions {
        version.schema = serde_json::from_value(anything.clone())?;
    }
    api.replace(name, &PostParams::default(), &definition).await?;
    Ok(())
}

pub(super) fn peer(name: &str, spec: &Value) -> Value {
    let version = "plainroute.dev/v1alpha1";
    json!({ "apiVersion": version, "kind": "BGPPeer", "metadata": { "name": name }, "spec": spec })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn objects_that_cannot_be_read_change_nothing_but_what_is_said_of_them() -> Result<()> {
    let scene = Scene { kinds_in_files: [false; 2], ..Scene::default() };
    let mut lab = Cluster::without_agents(scene).await?;
    lab.apply_kinds().await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.await_sessions()?;
    lab.await_routes(&[("10.20.0.1", A)])?;
    let probe = lab.probe(&one, "10.20.0.1")?;
    let mark = lab.mark();

    loosen_peers(&lab).await?;
    // The definition is in force a moment after it was accepted; until then the API server refuses what we cannot read.
    lab.api.apply_once_accepted(&peer("broken", &json!({ "peerAddress": "nonsense" }))).await?;
    lab.api.apply(peer("tor", &json!({ "localASN": "many" }))).await?;
    for node in [&lab.a, &lab.b] {
        node.await_check("what cannot be read", |health| {
            problems(health).contains("cannot be read") && problems(health).contains("and 1 more")
        })?;
    }
    // Others keep working.
    lab.run_cni_pod(&lab.b, "two", "10.20.0.2").await?;
    lab.await_routes(&[("10.20.0.1", A), ("10.20.0.2", B)])?;
    undisturbed(&lab, &mark)?;

    lab.api.delete_custom(Kind::BgpPeer, "broken").await?;
    lab.apply_kinds().await?;
    for node in [&lab.a, &lab.b] {
        node.await_check("that all is well", |health| problems(health).is_empty())?;
    }
    undisturbed(&lab, &mark)?;
    lost_none("a peer that cannot be read, and the ToR's own made so", probe)?;

    // Control: the same object deleted.
    let probe = lab.probe(&one, "10.20.0.1")?;
    lab.api.delete_custom(Kind::BgpPeer, "tor").await?;
    lab.await_routes(&[])?;
    lost_some("the ToR's own deleted", probe)
}
