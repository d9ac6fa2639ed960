//! What a person at a node is told of its addresses, and can mend.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use plainroute_config::IpBlockSpec;
use plainroute_tests::netns::wait_until;
use serde_json::json;

use super::scene::{Scene, within};
use super::{POOL, SMALL, given};

const SOON: Duration = Duration::from_secs(30);

/// Waits until the command finds all well or not, and says all of this.
fn await_told(scene: &Scene, node: usize, words: &[&str], well: bool, expected: &[&str]) -> Result<String> {
    let mut told = String::new();
    wait_until(&format!("{words:?} to say {expected:?}"), SOON, || {
        let (found, said) = scene.ask_agent(node, words).map_err(|error| format!("{error:#}"))?;
        if found == well && expected.iter().all(|expected| said.contains(expected)) {
            told = said;
            return Ok(());
        }
        Err(format!("{found}: {said}"))
    })?;
    Ok(told)
}

/// Writes into the block of an address, as a person with too many rights does, that somebody else has it.
async fn forge(scene: &Scene, address: IpAddr) -> Result<()> {
    let blocks = scene.blocks().await?;
    let block: &IpBlockSpec =
        blocks.iter().find(|block| within(block, address)).context("no block has it")?;
    let mut allocations = block.allocations.clone();
    let one = allocations.iter_mut().find(|one| one.namespace.is_some()).context("nobody has an address")?;
    one.name = Some("mallory".to_owned());
    let patch = Patch::Merge(json!({ "spec": { "allocations": allocations } }));
    scene.api.custom("IPBlock").patch(&block.name(), &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_and_a_forged_block_are_explained_and_mended() -> Result<()> {
    let mut scene = Scene::start(POOL).await?;
    scene.look_seldom(0)?;
    for pod in ["app", "gone"] {
        scene.api.create_pod(&scene.pod(pod, 0)).await?;
    }
    let app = given(scene.add(0, "c-app", "app").await?)?;
    let gone = given(scene.add(0, "c-gone", "gone").await?)?;
    scene.await_allocations(&[("app", app), ("gone", gone)]).await?;
    let check = ["pools", "check"];
    await_told(&scene, 0, &check, true, &["of node node-a agree"])?;

    scene.api.delete_pod("erp", "gone").await?;
    forge(&scene, app).await?;
    let leaked = [
        &format!("{gone}\n  journal  held by Pod erp/gone"),
        "there is no sandbox c-gone, and there is no such Pod",
        "freed when two looks, at least 30 s apart, have not seen it; the agent looks every 86400 s",
    ];
    let forged = [&format!("{app}\n  journal  held by Pod erp/app"), "held by Pod erp/mallory"];
    await_told(&scene, 0, &check, false, &[&leaked[..], &forged[..]].concat())?;
    // Nothing mends it while nobody looks: still so for a block that is about to be written.
    let (well, said) = scene.ask_agent(0, &check)?;
    ensure!(!well && said.contains("mallory") && said.contains("`--repair` mends it now"), "{said}");

    let (well, said) = scene.ask_agent(0, &["pools", "check", "--repair"])?;
    ensure!(well && said.matches("  => mended\n").count() == 2, "{said}\n{}", scene.last_words());
    scene.await_allocations(&[("app", app)]).await?;
    await_told(&scene, 0, &check, true, &["of node node-a agree"])?;
    // What lives was left alone.
    ensure!(given(scene.add(0, "c-app", "app").await?)? == app);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_block_is_written_again_without_being_told() -> Result<()> {
    let scene = Scene::start(POOL).await?;
    scene.api.create_pod(&scene.pod("app", 0)).await?;
    let app = given(scene.add(0, "c-app", "app").await?)?;
    scene.await_allocations(&[("app", app)]).await?;
    forge(&scene, app).await?;
    scene.await_allocations(&[("mallory", app)]).await.context("it was forged")?;
    scene.await_allocations(&[("app", app)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_an_address_is_told_on_any_node_and_a_loan_by_name() -> Result<()> {
    let mut scene = Scene::start(SMALL).await?;
    scene.api.create_pod(&scene.pod("here", 0)).await?;
    let here = given(scene.add(0, "c-here", "here").await?)?;
    scene.api.create_pod(&scene.pod("there", 1)).await?;
    let there = scene.add_until_given(1, "c-there", "there", SOON).await?;
    scene.await_allocations(&[("here", here), ("there", there)]).await?;
    let (own, borrowed) = (here.to_string(), there.to_string());

    // Of its own Pods an agent knows; of the others' the blocks tell it.
    await_told(
        &scene,
        1,
        &["who", &borrowed, "-o", "json"],
        true,
        &["\"pod\": \"there\"", "\"node\": \"node-b\""],
    )?;
    let said = await_told(&scene, 0, &["who", &borrowed, "-o", "json"], true, &["\"pod\": \"there\""])?;
    ensure!(said.contains("\"node\": \"node-b\"") && said.contains("\"source\": \"Block\""), "{said}");
    await_told(&scene, 1, &["who", &own], true, &["here", "node-a"])?;
    // Nobody's is nobody's, by name of the block; of the past the owner's ledger tells.
    let free = ["who", "10.20.0.14"];
    await_told(
        &scene,
        1,
        &free,
        false,
        &["now: IPBlock 10-20-0-0-28 of node node-a (IPPool erp): nobody has it"],
    )?;
    let past = ["who", &borrowed, "--at", "2026-01-01T00:00:00Z"];
    let asks = format!("on node-b `plainroute who {borrowed} --at 2026-01-01T00:00:00Z`");
    await_told(&scene, 0, &past, false, &["lent to node node-b", &asks])?;

    let loan = "it is borrowed of IPBlock 10-20-0-0-28 of node node-a, which lends it to this node";
    let told = scene.ask_agent(1, &["explain", "erp/there"])?.1;
    ensure!(told.contains(loan), "{told}");
    let told = scene.ask_agent(0, &["explain", &borrowed])?.1;
    ensure!(told.contains("this node lends it, of its block 10.20.0.0/28, to node node-b"), "{told}");

    // A journal that cannot be read stops giving out and is told.
    let journal = scene.state_dir(0).join("ipam/journal");
    let mut content = fs::read(&journal)?;
    let line = content.iter().position(|octet| *octet == b'\n').context("no line")?;
    content[line + 20] ^= 1;
    fs::write(&journal, content)?;
    scene.restart_agent(0)?;
    await_told(
        &scene,
        0,
        &["check"],
        false,
        &["no address is given out or taken back: ", "ipam/journal: line 2: "],
    )?;
    let (well, said) = scene.ask_agent(0, &["pools", "check"])?;
    ensure!(!well && said.contains("ipam/journal: line 2: "), "{said}");
    Ok(())
}
