//! Our kinds on a real API server: it takes the definitions, and judges objects as our own loader does.
//!
//! One server serves the whole suite, so this is one test of several parts; each that fails is told by its name.
mod agreement;
mod cluster;
mod loader;
mod objects;
mod refused;
mod status;

use anyhow::{Result, bail};
use cluster::Cluster;

#[tokio::test]
async fn the_api_server_judges_as_the_loader_does() -> Result<()> {
    let cluster = Cluster::start().await?;
    let parts = [
        ("every bad object is refused with its message", refused::each_rule(&cluster).await),
        ("every rule has a bad object", refused::no_rule_is_untested()),
        ("what may not change does not", refused::changes(&cluster).await),
        ("what only the agent finds is as documented", refused::by_the_agent_only(&cluster).await),
        ("what only the API server finds is as documented", refused::by_the_api_server_only(&cluster).await),
        ("the largest objects are taken", refused::not_the_largest(&cluster).await),
        ("samples and labs are taken by both", agreement::good_files(&cluster).await),
        ("the loader's bad files are refused by both", agreement::bad_files(&cluster).await),
        ("both take the same forms of each value", agreement::forms(&cluster).await),
        ("both order ranges alike", agreement::ranges(&cluster).await),
        ("an agent's NodeState comes back as it was written", status::node_state(&cluster).await),
        ("a status cannot be written with the object", status::is_a_subresource(&cluster).await),
        ("an IPBlock comes back as it was written", status::ip_block(&cluster).await),
        ("IPBlocks are found by their fields", status::blocks_by_field(&cluster).await),
        ("an IPBlock's name is its CIDR's", refused::names_of_blocks(&cluster).await),
    ];
    let failed = parts.into_iter().filter_map(|(name, result)| Some(format!("{name}: {:#}", result.err()?)));
    let failed: Vec<_> = failed.collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("\n\n"));
    }
    Ok(())
}
