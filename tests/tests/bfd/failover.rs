//! A path dies without a word; how long until the node and the router send by another.

use std::time::Duration;

use crate::node::{Monitor, POD, Setup, TORS, World};

const LIMIT: Duration = Duration::from_millis(350);
/// FRR's own way from its bfdd by bgpd and zebra to the kernel comes on top.
const LIMIT_OF_FRR: Duration = Duration::from_millis(450);

/// What one cut took: until the node's kernel sent by the other ToR, and until the ToR forgot the way to the Pod.
#[derive(Clone, Copy, Debug)]
struct Round {
    node: Duration,
    router: Duration,
}

fn round(world: &World, at_node: &Monitor, at_router: &Monitor, tor: usize, deadline: Duration) -> Round {
    let (lost, other) = (TORS[tor], TORS[1 - tor]);
    let [cut_at_node, cut_at_router] = world.cut(tor);
    let node = at_node.await_change(cut_at_node, deadline, |change| {
        change.contains("default")
            && change.contains(other)
            && !change.contains(lost)
            && !change.contains("Deleted")
    });
    let router = at_router
        .await_change(cut_at_router, deadline, |change| change.contains("Deleted") && change.contains(POD));
    Round { node, router }
}

fn rounds(interval: u32, tor: usize, number: usize) -> Vec<Round> {
    let world = World::new(Setup { interval: Some(interval), hold_seconds: 90 });
    let (at_node, at_router) = (Monitor::start(&world.node), Monitor::start(&world.tors[tor]));
    let mut rounds = Vec::new();
    for _ in 0..number {
        rounds.push(round(&world, &at_node, &at_router, tor, Duration::from_secs(10)));
        let peer = world.await_peer(tor, "told", |peer| peer["bfd"]["path"] == "Down");
        assert_eq!(peer["bfd"]["diagnostic"], "control detection time expired", "{peer}");
        assert!(peer["lastError"].as_str().unwrap().starts_with("BFD: the path is down"), "{peer}");
        world.heal(tor);
        world.await_whole(true);
    }
    rounds
}

/// The largest and the median, printed for the reader.
fn judge(what: &str, limit: Duration, mut all: Vec<Duration>) {
    all.sort();
    let (median, largest) = (all[all.len() / 2], all[all.len() - 1]);
    println!("{what}: {} rounds, median {median:.1?}, largest {largest:.1?}", all.len());
    assert!(largest <= limit, "{what}: {all:?}");
}

#[test]
fn three_times_100_ms_move_the_node_within_350_ms_and_frr_within_450_ms() {
    let rounds = rounds(100, 0, 10);
    judge("3 x 100 ms, node to the other ToR", LIMIT, rounds.iter().map(|round| round.node).collect());
    judge("3 x 100 ms, FRR drops the Pod", LIMIT_OF_FRR, rounds.iter().map(|round| round.router).collect());
}

#[test]
fn three_times_100_ms_move_the_node_within_350_ms_with_bird() {
    let rounds = rounds(100, 1, 5);
    judge("3 x 100 ms, node to the other ToR", LIMIT, rounds.iter().map(|round| round.node).collect());
    // BIRD 2.0.12 may sit in its main loop for some seconds; what counts here is that it does so at all.
    let theirs = Duration::from_secs(5);
    judge("3 x 100 ms, BIRD drops the Pod", theirs, rounds.iter().map(|round| round.router).collect());
}

#[test]
fn three_times_50_ms_move_the_node_within_250_ms() {
    let rounds = rounds(50, 0, 10);
    let limit = Duration::from_millis(250);
    judge("3 x 50 ms, node to the other ToR", limit, rounds.iter().map(|round| round.node).collect());
    let limit = Duration::from_millis(350);
    judge("3 x 50 ms, FRR drops the Pod", limit, rounds.iter().map(|round| round.router).collect());
}

/// The negative control: the hold timer, here 3 s, the shortest that there is.
#[test]
fn without_bfd_it_takes_the_hold_time() {
    let world = World::new(Setup { interval: None, hold_seconds: 3 });
    let (at_node, at_router) = (Monitor::start(&world.node), Monitor::start(&world.tors[0]));
    let Round { node, router } = round(&world, &at_node, &at_router, 0, Duration::from_secs(200));
    println!("without BFD, hold time 3 s: node {node:.1?}, FRR {router:.1?}");
    assert!(node > Duration::from_secs(1) && node < Duration::from_secs(5), "{node:?}");
    assert!(router > Duration::from_secs(1), "{router:?}");
}
