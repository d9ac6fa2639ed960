//! The definitions of our own kinds are those of an older version: another version of the API, or without newer fields.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use plainroute_config::crd;
use plainroute_tests::netns::wait_until_async;
use serde_json::{Value, json};

use super::writes::{allow_writes, await_told_pods};
use super::{lost_none, undisturbed};
use crate::cluster::{A, B, Cluster, Scene};
use crate::{SOON, problems};

/// What was called our API before.
const BEFORE: &str = "v1alpha0";
/// How long an agent waits for a kind that it never saw, beside its other waits.
const ABSENT: Duration = Duration::from_secs(60);
const WATCHED: [&str; 4] = ["bgppeers", "bgpadvertisements", "ippools", "egresses"];
/// What a BGPPeer and a NodeState could say before.
const PEER: [&str; 6] = ["localASN", "peerASN", "peerAddress", "families", "timers", "nodeSelector"];
const STATE: [&str; 3] = ["agentVersion", "sessions", "conditions"];

fn definitions() -> Result<Vec<Value>> {
    crd::definitions().into_iter().map(|of| Ok(serde_saphyr::from_str(&of.yaml())?)).collect()
}

/// The definition as of the version before: `beside` today's, which is not served, or alone.
fn of_the_version_before(definition: &mut Value, beside: bool) {
    let mut before = definition["spec"]["versions"][0].clone();
    before["name"] = BEFORE.into();
    let versions = definition["spec"]["versions"].as_array_mut().expect("versions");
    if beside {
        (versions[0]["served"], versions[0]["storage"]) = (false.into(), false.into());
        versions.push(before);
    } else {
        *versions = vec![before];
    }
}

/// Today's definition, in a cluster where the version before was there.
fn and_the_version_before(definition: &mut Value) {
    of_the_version_before(definition, true);
    for version in definition["spec"]["versions"].as_array_mut().expect("versions") {
        let today = version["name"] != BEFORE;
        (version["served"], version["storage"]) = (today.into(), today.into());
    }
}

/// The definition with these fields only, of its `spec` or `status`.
fn with_fields(definition: &mut Value, of: &str, fields: &[&str]) -> Result<()> {
    let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][of]
        .as_object_mut()
        .context("no schema")?;
    // The rules name fields that were not there yet.
    schema.remove("x-kubernetes-validations");
    let known = schema["properties"].as_object_mut().context("no fields")?;
    let before = known.len();
    known.retain(|name, _| fields.contains(&name.as_str()));
    ensure!(known.len() == fields.len() && known.len() < before, "{known:?}");
    Ok(())
}

/// Puts definitions in the place of those that are there, as `kubectl replace` does, or makes them.
async fn define(lab: &Cluster, definitions: &[Value]) -> Result<()> {
    let api = Api::<CustomResourceDefinition>::all(lab.api.client());
    for definition in definitions {
        let definition: CustomResourceDefinition = serde_json::from_value(definition.clone())?;
        let name = definition.metadata.name.clone().context("no name")?;
        // One that was deleted a moment ago goes first.
        wait_until_async(&format!("{name} to be defined"), SOON, async || {
            let mut definition = definition.clone();
            let made = match api.get_opt(&name).await.map_err(|error| error.to_string())? {
                Some(there) => {
                    definition.metadata.resource_version = there.metadata.resource_version;
                    api.replace(&name, &PostParams::default(), &definition).await
                }
                None => api.create(&PostParams::default(), &definition).await,
            };
            made.map(drop).map_err(|error| error.to_string())
        })
        .await?;
    }
    Ok(())
}

fn await_unknown(lab: &Cluster) -> Result<()> {
    for node in [&lab.a, &lab.b] {
        node.await_check("that its kinds are not known", |health| {
            WATCHED.iter().all(|plural| {
                problems(health)
                    .contains(&format!("{plural}: the server does not know plainroute.dev/v1alpha1"))
            })
        })?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_api_that_serves_only_the_version_before_is_said_and_ends_nothing() -> Result<()> {
    let mut lab =
        Cluster::without_agents(Scene { kinds_in_files: [true, false], ..Scene::default() }).await?;
    let (mut before, mut both) = (definitions()?, definitions()?);
    before.iter_mut().for_each(|definition| of_the_version_before(definition, false));
    both.iter_mut().for_each(and_the_version_before);
    for definition in &before {
        lab.api.delete_crd(definition["metadata"]["name"].as_str().context("no name")?).await?;
    }
    define(&lab, &before).await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    let two = lab.run_answering_pod(&lab.b, "two", "10.20.0.2").await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.await_routes(&[("10.20.0.1", A)])?;
    let to_one = lab.probe(&one, "10.20.0.1")?;
    await_unknown(&lab)?;
    // Control: what is in no file is in no API that this agent knows.
    ensure!(lab.b.ask(&["peers"])? == json!([]), "{}", lab.b.ask(&["peers"])?);
    ensure!(lab.b.ask(&["check"])?["ready"] == true, "it is ready: it has heard all that there is");

    // The definitions of today: nobody restarts anything.
    define(&lab, &both).await?;
    for kind in ["BGPPeer", "BGPAdvertisement", "IPPool"] {
        wait_until_async("today's version to be served", SOON, async || {
            lab.api.custom(kind).list(&Default::default()).await.map(drop)
        })
        .await?;
    }
    lab.apply_kinds().await?;
    let all = [("10.20.0.1", A), ("10.20.0.2", B)];
    lab.await_routes_within(&all, ABSENT)?;
    let to_two = lab.probe(&two, "10.20.0.2")?;
    let mark = lab.mark();

    // And back, with all that was made since: objects of today's version are there, and nobody may ask for them.
    let mut back = definitions()?;
    back.iter_mut().for_each(|definition| of_the_version_before(definition, true));
    define(&lab, &back).await?;
    await_unknown(&lab)?;
    lab.b.await_check("what is held", |health| problems(health).contains("plainroute held"))?;
    lab.b.terminate_agent()?;
    lab.b.start_agent()?;
    await_unknown(&lab)?;
    lab.await_sessions()?;
    lab.await_routes(&all)?;
    define(&lab, &both).await?;
    for node in [&lab.a, &lab.b] {
        node.await_check_within("that all is well", ABSENT, |health| problems(health).is_empty())?;
    }
    ensure!(lab.log_since(&mark).removed().is_empty(), "withdrawn:\n{}", lab.log_since(&mark));
    lost_none("definitions of the version before, agents by their files", to_one)?;
    lost_none("definitions of the version before, agents by what was known", to_two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn definitions_without_newer_fields_refuse_them_by_name_and_cost_the_node_state_only() -> Result<()> {
    let scene = Scene { status: true, kinds_in_files: [false; 2], ..Scene::default() };
    let mut lab = Cluster::without_agents(scene).await?;
    allow_writes(&lab).await?;
    let mut older = definitions()?;
    for definition in &mut older {
        match definition["spec"]["names"]["kind"].as_str() {
            Some("BGPPeer") => with_fields(definition, "spec", &PEER)?,
            Some("NodeState") => with_fields(definition, "status", &STATE)?,
            _ => {}
        }
    }
    define(&lab, &older).await?;
    // What the definition does not know is refused by its name, not dropped.
    wait_until_async("the newer field to be refused", SOON, async || match lab.apply_kinds().await {
        Err(error) if format!("{error:#}").contains("gracefulRestart") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    lab.apply_kinds_without("gracefulRestart").await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.await_sessions()?;
    lab.await_routes(&[("10.20.0.1", A)])?;
    let probe = lab.probe(&one, "10.20.0.1")?;
    let mark = lab.mark();
    for node in [&lab.a, &lab.b] {
        node.await_logged("this node's state is not told: the API server answers 500", SOON)?;
        node.await_logged("field not declared in schema", SOON)?;
        node.await_check("that all is well", |health| problems(health).is_empty())?;
    }

    // Today's definitions: both are there, and nobody restarts anything.
    define(&lab, &definitions()?).await?;
    await_told_pods(&lab, &lab.a, 1).await?;
    wait_until_async("the newer field to be taken", SOON, async || lab.apply_kinds().await).await?;
    undisturbed(&lab, &mark)?;
    lost_none("definitions without newer fields, and their upgrade", probe)
}
