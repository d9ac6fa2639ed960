//! The worst days: what an operator, a backup or a network does to the API server, while packets from the ToR to the Pods
//! are counted. Each fault has its control, which fails in the expected way. The table is in docs/reliability.md.

mod compacted;
mod kinds;
mod leader;
mod mass;
mod older;
mod outage;
mod pods;
mod restored;
mod stale;
mod writes;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use plainroute_tests::lab::probe::Running as Probe;
use plainroute_tests::netns::wait_until;
use serde_json::Value;

use super::cluster::Mark;
use super::node::Node;
use super::{Cluster, SOON};

/// Ends a probe, of whose packets none may be lost, neither until now nor of the next.
fn lost_none(what: &str, probe: Probe) -> Result<()> {
    probe.await_sent(100)?;
    let count = probe.finish()?;
    ensure!(count.sent > 0 && count.lost == 0, "{what}: {count:?}");
    println!("{what}: {} packets to {}, none lost", count.sent, count.to);
    Ok(())
}

/// Ends a probe, some of whose packets must be lost: the control.
fn lost_some(what: &str, probe: Probe) -> Result<()> {
    probe.await_unanswered(20)?;
    let count = probe.finish()?;
    ensure!(count.lost > 0, "{what}: the control lost nothing: {count:?}");
    println!("{what}: control: {} of {} packets to {} lost", count.lost, count.sent, count.to);
    Ok(())
}

/// Checks that nothing left the ToR's table since, and that no session moved.
fn undisturbed(lab: &Cluster, mark: &Mark) -> Result<()> {
    let log = lab.log_since(mark);
    ensure!(log.removed().is_empty(), "withdrawn:\n{log}");
    for node in [&lab.a, &lab.b] {
        ensure!(!log.says(node, "State changed"), "the session of {} moved:\n{log}", node.name);
    }
    Ok(())
}

/// What a node holds: the objects, with the reasons.
fn held(node: &Node) -> Result<Vec<(String, String)>> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = node.ask(&["held"])?;
    Ok(rows
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| (word(&row["object"]), word(&row["reason"])))
        .collect())
}

/// Waits until a node holds exactly these objects, each for this reason.
fn await_held(node: &Node, objects: &[&str], reason: &str) -> Result<()> {
    let mut wanted: Vec<_> = objects.iter().map(|object| (object.to_string(), reason.to_owned())).collect();
    wanted.sort();
    wait_until(&format!("{} to hold {wanted:?}", node.name), SOON, || match held(node) {
        Ok(mut seen) => {
            seen.sort();
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}; {}", node.last_words())) }
        }
        Err(error) => Err(format!("{error:#}")),
    })
}

/// Waits until the ToR has the address with a community.
fn await_community(lab: &Cluster, address: &str, community: &str) -> Result<()> {
    wait_until(&format!("{address} with {community} at the ToR"), SOON, || {
        let shown =
            lab.tor.birdc(&format!("show route for {address} all")).map_err(|error| error.to_string())?;
        if shown.contains(community) { Ok(()) } else { Err(shown) }
    })
}

/// The table in docs/reliability.md names every test here and none that is not.
#[test]
fn the_table_of_the_worst_days_is_complete() {
    let table = include_str!("../../../../docs/reliability.md");
    let sources = [
        ("compacted", include_str!("compacted.rs")),
        ("kinds", include_str!("kinds.rs")),
        ("leader", include_str!("leader.rs")),
        ("mass", include_str!("mass.rs")),
        ("older", include_str!("older.rs")),
        ("outage", include_str!("outage.rs")),
        ("pods", include_str!("pods.rs")),
        ("restored", include_str!("restored.rs")),
        ("stale", include_str!("stale.rs")),
        ("writes", include_str!("writes.rs")),
    ];
    let name = |text: &str| text.split('(').next().map(str::to_owned);
    let tests: BTreeSet<String> = sources
        .iter()
        .flat_map(|(module, source)| {
            let after = source.split("#[tokio::test").skip(1);
            let names = after.filter_map(|test| name(test.split_once("async fn ")?.1));
            names.map(move |name| format!("worst::{module}::{name}"))
        })
        .collect();
    let told: BTreeSet<String> = table
        .split('`')
        .filter(|word| word.starts_with("worst::") && !word.contains(' '))
        .map(str::to_owned)
        .collect();
    assert!(tests.len() > 5, "{tests:?}");
    assert_eq!(tests, told);
}
