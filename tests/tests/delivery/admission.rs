//! An agent writes what is its own node's and nothing else: the policy on a real API server, with the tokens of Pods.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use plainroute_tests::kubelab::ApiServer;
use plainroute_tests::netns::wait_until_async;
use serde_json::{Value, json};

use super::api::{client, install, token};
use super::chart::{NAME, NAMESPACE};

const SOON: Duration = Duration::from_secs(60);

pub(crate) fn of(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("plainroute.dev", "v1alpha1", kind);
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural))
}

fn node_states(client: &Client) -> Api<DynamicObject> {
    of(client, "NodeState", "nodestates")
}

pub(crate) fn blocks(client: &Client) -> Api<DynamicObject> {
    of(client, "IPBlock", "ipblocks")
}

fn node_state(node: &str) -> Value {
    json!({ "apiVersion": "plainroute.dev/v1alpha1", "kind": "NodeState", "metadata": { "name": node } })
}

/// The block of 10.20.0.0/20 that begins at this address, whose name is its CIDR's.
pub(crate) fn block(first: u8, node: &str) -> Value {
    json!({
        "apiVersion": "plainroute.dev/v1alpha1", "kind": "IPBlock", "metadata": { "name": block_name(first) },
        "spec": { "cidr": format!("10.20.0.{first}/28"), "within": "10.20.0.0/20", "node": node, "pool": "erp" },
    })
}

pub(crate) fn block_name(first: u8) -> String {
    format!("10-20-0-{first}-28")
}

/// Why the policy refuses it.
pub(crate) fn refusal<T>(answer: Result<T, Error>) -> Result<String> {
    match answer {
        Ok(_) => bail!("it was allowed"),
        Err(Error::Api(status))
            if status.code == 403 && status.message.contains("ValidatingAdmissionPolicy") =>
        {
            Ok(status.message.clone())
        }
        Err(error) => bail!("something else is wrong: {error}"),
    }
}

pub(crate) async fn create(api: &Api<DynamicObject>, object: Value) -> Result<(), Error> {
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.map(drop)
}

/// What the chart does not grant yet, and the policy is about all the same.
async fn allow_blocks(api: &ApiServer) -> Result<()> {
    let verbs = ["create", "update", "patch", "delete"];
    let rules = json!([
        { "apiGroups": ["plainroute.dev"], "resources": ["ipblocks", "nodestates"], "verbs": verbs },
    ]);
    let subject = json!({ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE });
    api.grant("blocks", rules, subject).await
}

/// Waits until the API server goes by what it was told a moment ago: that the policy holds, or that it does not.
async fn await_enforcement(client: &Client, enforced: bool) -> Result<()> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let foreign: DynamicObject = serde_json::from_value(node_state("nobody"))?;
    let what = format!("the policy to be enforced: {enforced}");
    wait_until_async(&what, SOON, async || {
        let answer = node_states(client).create(&dry_run, &foreign).await.map(drop);
        let found = match &answer {
            Ok(()) => Ok(false),
            Err(_) => refusal(answer).map(|_| true),
        };
        if found.as_ref().is_ok_and(|found| *found == enforced) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
}

#[tokio::test]
async fn an_agent_writes_only_what_is_its_own_nodes() -> Result<()> {
    let api = ApiServer::start().await?;
    install(&api, "").await?;
    for node in ["node-a", "node-b"] {
        api.create_node(node, &[]).await?;
    }
    allow_blocks(&api).await?;
    let (a, b) = (
        client(&api, &token(&api, Some("node-a")).await?).await?,
        client(&api, &token(&api, Some("node-b")).await?).await?,
    );
    await_enforcement(&a, true).await?;

    // Its own.
    create(&node_states(&a), node_state("node-a")).await.context("its own NodeState")?;
    let status = Patch::Merge(json!({ "status": { "agentVersion": "0.1.0" } }));
    node_states(&a)
        .patch_status("node-a", &PatchParams::default(), &status)
        .await
        .context("its own status")?;
    create(&blocks(&a), block(0, "node-a")).await.context("its own block")?;
    create(&node_states(&b), node_state("node-b")).await.context("the other agent's own")?;
    create(&blocks(&b), block(16, "node-b")).await.context("the other agent's own block")?;

    // Another's: made, changed, its status changed, deleted, taken over, given away.
    let said = refusal(create(&node_states(&a), node_state("node-c")).await)?;
    ensure!(said.contains("the agent of node node-a may not write nodestates of node node-c"), "{said}");
    let merge = |value: Value| Patch::Merge(value);
    let parameters = PatchParams::default();
    let label = merge(json!({ "metadata": { "labels": { "taken": "yes" } } }));
    refusal(node_states(&a).patch("node-b", &parameters, &label).await).context("another's NodeState")?;
    refusal(node_states(&a).patch_status("node-b", &parameters, &status).await)
        .context("another's status")?;
    refusal(node_states(&a).delete("node-b", &DeleteParams::default()).await).context("deletes another's")?;
    let said = refusal(create(&blocks(&a), block(32, "node-b")).await)?;
    ensure!(said.contains("may not write ipblocks of node node-b"), "{said}");
    refusal(blocks(&a).patch(&block_name(16), &parameters, &label).await).context("another's block")?;
    refusal(blocks(&a).delete(&block_name(16), &DeleteParams::default()).await)
        .context("deletes another's block")?;
    blocks(&a).delete(&block_name(0), &DeleteParams::default()).await.context("deletes its own block")?;

    // A token that is bound to no Pod, and one of somebody else altogether.
    let unbound = client(&api, &token(&api, None).await?).await?;
    let said = refusal(create(&node_states(&unbound), node_state("node-c")).await)?;
    ensure!(said.contains("this token is bound to no node"), "{said}");
    create(&node_states(&api.client()), node_state("node-c")).await.context("an administrator")?;

    // Negative control: it is the policy that refuses.
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(api.client());
    bindings.delete(&format!("{NAME}-own-node"), &DeleteParams::default()).await?;
    await_enforcement(&a, false).await?;
    create(&node_states(&a), node_state("node-d")).await.context("without the policy")
}
