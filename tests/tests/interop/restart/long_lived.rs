//! A router stays away for longer than its restart time: its routes are the last resort, then go (RFC 9494).

use std::time::{Duration, Instant};

use plainroute_bgp::{AfiSafi, Asn, Community};
use plainroute_speaker::{Learned, PeerConfig, PeerName, SpeakerConfig, StopMode};
use plainroute_tests::routers::{Bird, Family, Router};

use super::graceful_setup;
use super::routers::bird_config;
use super::theirs::await_learned;
use crate::node::{GRACEFUL, Node, peer, peers};
use crate::scenario::{accept_default, plain};
use crate::{Link, OUR_ASN, OUR_V4, ROUTER_ASN, Setup, default_route, ip};

const OTHER: &str = "172.16.0.253";

fn via(learned: &Learned) -> Vec<String> {
    let paths = learned.get(&default_route(Family::V4).parse().unwrap());
    paths.into_iter().flatten().map(|path| path.peer.to_string()).collect()
}

/// Another router with an equal default route: a speaker of ours in the routers' namespace.
fn other_router(link: &Link) -> Node {
    link.theirs.address("eth0", &format!("{OTHER}/24")).unwrap();
    let asn = |number| Asn::new(number).unwrap();
    let mut config = PeerConfig::new(asn(ROUTER_ASN), asn(OUR_ASN), OTHER.parse().unwrap(), ip(OUR_V4));
    config.local_address = Some(ip(OTHER));
    config.families = [AfiSafi::Ipv4Unicast].into_iter().collect();
    let other = Node::start(&link.theirs, SpeakerConfig::default());
    other.apply([(PeerName::from(OUR_V4), config)].into());
    other.originate(&[default_route(Family::V4)], &plain());
    other.initial_sync_done();
    other
}

/// Our node, that has both routers as peers and listens.
fn node_of_both(link: &Link) -> Node {
    let mut both = peers::<Bird>(|config| {
        config.graceful_restart = Some(GRACEFUL);
        config.listen_port = 179;
        accept_default(config);
    });
    both.retain(|name, _| *name == peer(Family::V4));
    let mut other = both[&peer(Family::V4)].clone();
    (other.peer_address, other.passive) = (ip(OTHER), true);
    both.insert(PeerName::from(OTHER), other);
    let node = Node::with(&link.ours, both);
    node.initial_sync_done();
    node
}

#[test]
fn bird_stays_away_and_its_routes_are_the_last_resort_then_go() {
    const RESTART_TIME: u64 = 1;
    const STALE_TIME: u64 = 8;
    let link = Link::new();
    let setup = Setup { default_routes: true, ..graceful_setup() };
    let times = format!(
        "graceful restart time {RESTART_TIME};\nlong lived graceful restart on;\nlong lived stale time {STALE_TIME};"
    );
    let mut bird = Bird::launch(&link.theirs, &bird_config(setup, &times).unwrap()).unwrap();
    let (node, other) = (node_of_both(&link), other_router(&link));
    await_learned(&node, "both ways out", |learned| via(learned).len() == 2);
    let killed = Instant::now();
    bird.kill();
    node.await_received(Family::V4, "a route that is long-lived stale", |routes| {
        let marked = |route: &plainroute_speaker::ReceivedRoute| {
            route.stale && route.attributes.communities.contains(&Community::LLGR_STALE)
        };
        routes.len() == 1 && routes.iter().all(marked)
    });
    assert!(killed.elapsed() >= Duration::from_secs(RESTART_TIME));
    await_learned(&node, "the other way alone", |learned| via(learned) == [OTHER]);
    other.stop(StopMode::Withdraw);
    await_learned(&node, "the last resort", |learned| via(learned) == [peer(Family::V4).to_string()]);
    await_learned(&node, "nothing", Learned::is_empty);
    let stayed = killed.elapsed();
    assert!(stayed >= Duration::from_secs(RESTART_TIME + STALE_TIME), "only for {stayed:?}");
}
