//! What a dead node had of the pools is another agent's to take over, and a live node's is not: the policy on a real API server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use plainroute_tests::kubelab::ApiServer;
use plainroute_tests::netns::wait_until_async;
use serde_json::{Value, json};

use super::admission::{block, block_name, blocks, create, refusal};
use super::api::{client, install, token};

const SOON: Duration = Duration::from_secs(60);
const VALUES: &str = "ipam: { enabled: true }";

async fn ready(api: &ApiServer, node: &str, status: &str) -> Result<()> {
    let said = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
    let nodes = Api::<Node>::all(api.client());
    nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(said)).await?;
    Ok(())
}

async fn taints(api: &ApiServer, node: &str, taints: Value) -> Result<()> {
    let said = Patch::Merge(json!({ "spec": { "taints": taints } }));
    Api::<Node>::all(api.client()).patch(node, &PatchParams::default(), &said).await?;
    Ok(())
}

/// Puts another label on the block.
async fn relabel(agent: &Client, name: &str) -> Result<(), Error> {
    let mut block = blocks(agent).get(name).await?;
    block.metadata.labels = Some([("taken".to_owned(), "yes".to_owned())].into());
    blocks(agent).replace(name, &PostParams::default(), &block).await.map(drop)
}

/// Whether an agent's deletion of a block would be let through, tried until it is as wanted: the policy hears of Nodes a moment
/// later.
async fn await_verdict(agent: &Client, name: &str, allowed: bool) -> Result<()> {
    let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let what = format!("the deletion of {name} to be allowed: {allowed}");
    wait_until_async(&what, SOON, async || {
        let answer = blocks(agent).delete(name, &dry_run).await.map(drop);
        let found = match answer {
            Ok(()) => Ok(true),
            Err(error) => refusal::<()>(Err(error)).map(|_| false),
        };
        if found.as_ref().is_ok_and(|found| *found == allowed) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
}

#[tokio::test]
async fn an_agent_deletes_blocks_of_a_node_that_is_dead_and_of_no_other() -> Result<()> {
    let api = ApiServer::start().await?;
    install(&api, VALUES).await?;
    for node in ["node-a", "node-b"] {
        api.create_node(node, &[]).await?;
        ready(&api, node, "True").await?;
    }
    let a = client(&api, &token(&api, Some("node-a")).await?).await?;
    let admin = api.client();
    for (first, node) in [(0, "node-a"), (16, "node-b")] {
        create(&blocks(&admin), block(first, node)).await?;
    }
    let (own, other) = (block_name(0), block_name(16));
    await_verdict(&a, &other, false).await.context("of a live node")?;
    await_verdict(&a, &own, true).await.context("its own")?;
    // Beside deleting it there is nothing that another's block may suffer.
    refusal(relabel(&a, &other).await).context("changes another's")?;
    taints(&api, "node-b", json!([{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }]))
        .await?;
    await_verdict(&a, &other, true).await.context("of a node that is out of service")?;
    taints(&api, "node-b", json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]))
        .await?;
    await_verdict(&a, &other, false).await.context("of a node that is only cordoned")?;
    // Not Ready is for a person to judge, who says so to an agent.
    ready(&api, "node-b", "Unknown").await?;
    await_verdict(&a, &other, true).await.context("of a node that is not Ready")?;
    ready(&api, "node-b", "True").await?;
    await_verdict(&a, &other, false).await.context("of a node that is back")?;
    Api::<Node>::all(admin).delete("node-b", &DeleteParams::default()).await?;
    await_verdict(&a, &other, true).await.context("of a node that is gone")?;
    let said = refusal(relabel(&a, &other).await).context("changes a dead node's")?;
    ensure!(said.contains("may not write ipblocks of node node-b"), "{said}");
    blocks(&a).delete(&other, &DeleteParams::default()).await?;
    Ok(())
}
