//! The router configurations in docs/operations.md that it calls tested: the routers' own parsers take them, a router runs
//! with them, and a node's Pods of the pools are learned by them, no other. The rest is for routers that cannot be had here.
//!
//! Needs `plainroute` built beside the tests: `cargo build -p plainroute-agent`.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plainroute_tests::agent;
use plainroute_tests::netns::{Netns, veth};
use plainroute_tests::routers::{Bird, Family, Frr, Router};

const PAGE: &str = include_str!("../../docs/operations.md");

/// The blocks of a language, as they stand in the page.
fn blocks(language: &str) -> Vec<String> {
    let (opening, mut found, mut block) = (format!("```{language}"), Vec::new(), None::<String>);
    for line in PAGE.lines() {
        match &mut block {
            Some(text) if line == "```" => found.extend(block.take().filter(|text| !text.is_empty())),
            Some(text) => *text += &format!("{line}\n"),
            None if line == opening => block = Some(String::new()),
            None => {}
        }
    }
    found
}

fn only(language: &str) -> Result<String> {
    let mut blocks = blocks(language);
    ensure!(blocks.len() == 1, "{} blocks of {language} in docs/operations.md", blocks.len());
    blocks.pop().context("one block")
}

fn written(name: &str, text: &str) -> Result<(tempfile::TempDir, String)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join(name);
    fs::write(&path, text)?;
    let path = path.display().to_string();
    Ok((directory, path))
}

fn vtysh(text: &str) -> Result<Output> {
    let (directory, path) = written("frr.conf", text)?;
    let directory = directory.path().display().to_string();
    Ok(Command::new("vtysh").args(["-C", "--config_dir", &directory, "--inputfile", &path]).output()?)
}

fn bird(text: &str) -> Result<Output> {
    let (_directory, path) = written("bird.conf", text)?;
    Ok(Command::new("bird").args(["-p", "-c", &path]).output()?)
}

/// Takes what is in the page, and refuses it with one word misspelt.
fn check(parse: fn(&str) -> Result<Output>, text: &str, word: &str) -> Result<()> {
    let parsed = parse(text)?;
    ensure!(parsed.status.success(), "{}", said(&parsed));
    ensure!(text.contains(word), "no {word:?} in the configuration");
    let misspelt = parse(&text.replacen(word, "mispelt", 1))?;
    ensure!(!misspelt.status.success(), "a parser that takes anything: {}", said(&misspelt));
    Ok(())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const TOR: &str = "172.16.0.254";
const NODE: &str = "172.16.0.1";
const PATIENCE: Duration = Duration::from_secs(30);

/// A node with the page's own objects, two Pods in its namespace, and one pool that the page's routers do not know.
fn configuration(directory: &str) -> String {
    let objects = only("yaml").expect("the page has objects");
    let pool = "kind: IPPool\nmetadata: { name: unknown }\nspec:\n  ipRanges: [{ cidr: 10.99.0.0/24 }]\n  \
                namespaceSelector: { matchLabels: { team: erp } }\n  allocation: External\n";
    let agent = format!(
        "kind: AgentConfig\nmetadata: {{ name: default }}\nspec:\n  nodeName: node-a\n  \
         adminSocket: {directory}/agent.sock\n  stateDir: {directory}/state\n  \
         bfd: {{ socket: {directory}/bfd.sock, spawn: false }}\n"
    );
    let mut all = objects;
    for own in [&agent, pool] {
        all += &format!("---\napiVersion: plainroute.dev/v1alpha1\n{own}");
    }
    all += "---\napiVersion: v1\nkind: Namespace\nmetadata: { name: erp, labels: { team: erp } }\n\
            ---\napiVersion: v1\nkind: Node\nmetadata: { name: node-a }\n";
    for (name, address) in [("orders", "10.20.0.5"), ("stray", "10.99.0.5")] {
        all += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: erp\n  annotations:\n    \
             plainroute.dev/host-interface: {name}\nspec:\n  nodeName: node-a\n  \
             containers: [{{ name: main, image: nothing }}]\nstatus:\n  phase: Running\n  \
             podIPs: [{{ ip: {address} }}]\n  conditions: [{{ type: Ready, status: \"True\" }}]\n"
        );
    }
    all
}

/// The router of this configuration learns the Pod that it should from an agent, and not the other that it is sent.
fn serves<R: Router>(launch: fn(&Netns, &str) -> Result<R>, text: &str) -> Result<()> {
    let (tor_ns, node, pods) = (Netns::new("tor")?, Netns::new("node-a")?, Netns::new("pods")?);
    veth((&tor_ns, "eth0"), (&node, "eth0"))?;
    tor_ns.address("eth0", &format!("{TOR}/24"))?;
    node.address("eth0", &format!("{NODE}/24"))?;
    for pod in ["orders", "stray"] {
        veth((&node, pod), (&pods, pod))?;
    }
    let tor = launch(&tor_ns, text)?;
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    fs::write(path("node.yaml"), configuration(&directory.path().display().to_string()))?;
    let (program, config) =
        (agent::program()?.display().to_string(), path("node.yaml").display().to_string());
    let agent = node.spawn(&[&program, "agent", "--config", &config], &path("log"))?;
    let neighbor: IpAddr = NODE.parse()?;
    tor.await_state(neighbor, "established", PATIENCE).with_context(|| agent.log())?;
    let wanted = [("10.20.0.5/32".to_owned(), BTreeSet::from([neighbor]))].into();
    tor.await_learned(Family::V4, "the Pod of the pool", PATIENCE, &|table| *table == wanted)
        .with_context(|| agent.log())?;
    let socket = path("agent.sock").display().to_string();
    let sent = Command::new(&program).args(["routes", "advertised", "--socket", &socket]).output()?;
    ensure!(said(&sent).contains("10.99.0.5/32"), "the router was to refuse it itself: {}", said(&sent));
    Ok(())
}

#[test]
fn frr_takes_its_configuration_and_no_other() -> Result<()> {
    check(vtysh, &only("frr")?, "maximum-prefix")
}

#[test]
fn bird_takes_its_configuration_and_no_other() -> Result<()> {
    check(bird, &only("bird")?, "receive limit")
}

#[test]
fn frr_learns_the_pods_of_the_pools_by_it() -> Result<()> {
    serves(Frr::launch, &only("frr")?)
}

#[test]
fn bird_learns_the_pods_of_the_pools_by_it() -> Result<()> {
    serves(Bird::launch, &only("bird")?)
}
