//! What befalls the nodes of the scene, and what the ToR makes of two that advertise one block.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use plainroute_tests::netns::{wait_until, wait_until_async};
use serde_json::json;

use super::scene::{ADDRESSES, NODES, Scene};

const SOON: Duration = Duration::from_secs(30);

impl Scene {
    /// Waits until the node's agent has died by itself.
    pub(crate) fn await_death(&mut self, node: usize) -> Result<()> {
        let status = self.nodes[node].agent.wait(SOON)?;
        ensure!(!status.success(), "it ended well: {status}");
        Ok(())
    }

    /// The node does not reach the API server any more, though it reaches the ToR.
    pub(crate) fn cut_off(&self, node: usize) -> Result<()> {
        let (ns, port) = (&self.nodes[node].ns, self.api.address().port());
        ns.exec("nft add table ip cut")?;
        ns.exec("nft add chain ip cut out { type filter hook output priority 0 ; }")?;
        ns.exec(&format!("nft add rule ip cut out tcp dport {port} drop")).map(drop)
    }

    /// Undoes [`Self::cut_off`].
    pub(crate) fn join(&self, node: usize) -> Result<()> {
        self.nodes[node].ns.exec("nft delete table ip cut").map(drop)
    }

    /// As a person does who knows that the node is down.
    pub(crate) async fn take_out_of_service(&self, node: usize) -> Result<()> {
        let taints = json!([{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }]);
        self.api.patch_node(NODES[node], json!({ "spec": { "taints": taints } })).await
    }

    pub(crate) async fn delete_node(&self, node: usize) -> Result<()> {
        Api::<Node>::all(self.api.client()).delete(NODES[node], &Default::default()).await?;
        Ok(())
    }

    /// The status of the node's condition Ready.
    pub(crate) async fn set_ready(&self, node: usize, status: &str) -> Result<()> {
        let said =
            Patch::Strategic(json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } }));
        let nodes = Api::<Node>::all(self.api.client());
        nodes.patch_status(NODES[node], &PatchParams::default(), &said).await?;
        Ok(())
    }

    /// Waits until the only block is the node's, of this epoch.
    pub(crate) async fn await_owner(&self, node: usize, epoch: u32, patience: Duration) -> Result<()> {
        wait_until_async("the block's owner", patience, async || {
            let blocks = self.blocks().await.map_err(|error| error.to_string())?;
            let owners: Vec<_> = blocks.iter().map(|block| (block.node.as_str(), block.epoch)).collect();
            if owners == [(NODES[node], epoch)] { Ok(()) } else { Err(format!("{owners:?}")) }
        })
        .await
        .with_context(|| self.last_words())
    }

    /// Waits until the ToR sends what is for this prefix to the node, whoever else advertises it.
    pub(crate) fn await_best(&self, prefix: &str, node: usize) -> Result<()> {
        let leads = wait_until(&format!("{prefix} to lead to {}", NODES[node]), SOON, || {
            let routes =
                self.tor_ns.run(&["ip", "route", "show", prefix]).map_err(|error| error.to_string())?;
            let leads = routes.contains(&format!("via {} ", ADDRESSES[node])) && routes.lines().count() == 1;
            if leads { Ok(()) } else { Err(routes) }
        });
        leads.with_context(|| self.last_words())
    }

    /// What the ToR has of a prefix, of all peers and with all attributes.
    pub(crate) fn learned(&self, prefix: &str) -> Result<String> {
        self.tor.birdc(&format!("show route {prefix} all"))
    }
}
