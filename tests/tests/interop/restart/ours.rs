//! We restart, and the router helps.

use std::collections::BTreeMap;

use plainroute_bgp::session::{GracefulRestartConfig, State};
use plainroute_bgp::{Families, HoldTime};
use plainroute_speaker::{PeerConfig, PeerName, SpeakerConfig, StopMode};
use plainroute_tests::routers::Family;

use super::{Offer, Restarting, Road, await_stale, graceful_setup};
use crate::node::{GRACEFUL, Node, peers};
use crate::scenario::{BOTH, ONE, RESTARTED, await_established, await_table, graceful, graceful_node, plain};
use crate::{FAMILIES, Link, Setup};

/// Waits until the routes are told and the router has had the word that they are complete.
fn await_complete(node: &Node) {
    for family in FAMILIES {
        node.await_status(family, "complete", |status| {
            status.families.values().any(|family| family.end_of_rib_sent && family.end_of_rib_received)
        });
    }
}

/// The next process, that has told `prefixes` but not that these are all.
fn successor<R: Restarting>(link: &Link, router: &R, config: SpeakerConfig, prefixes: &[&str]) -> Node {
    let node = Node::start(&link.ours, config);
    node.apply(graceful::<R>());
    node.originate(prefixes, &plain());
    await_established(&node, router);
    for family in FAMILIES {
        let told = prefixes.iter().filter(|prefix| prefix.contains(':') == (family == Family::V6));
        let told = told.count();
        node.await_status(family, "telling its routes", |status| {
            status.families.values().map(|family| family.advertised).sum::<usize>() == told
        });
    }
    node
}

/// The process ends with and without a word to its sockets. Meanwhile the routes are stale and carry every packet; a route
/// that does not come back goes when we say that we are complete, not before.
pub(crate) fn our_restarts_lose_no_packet<R: Restarting>() {
    let road = Road::new();
    let router = R::launch_restarting(&road.link.theirs, graceful_setup(), Offer::default()).unwrap();
    let node = Node::with(&road.link.ours, graceful::<R>());
    node.originate(&BOTH, &plain());
    node.initial_sync_done();
    await_table(&router, &BOTH);
    await_complete(&node);
    await_stale(&router, false);
    let probes = road.probes::<R>();

    node.stop(StopMode::Retain);
    await_stale(&router, true);
    let node = successor(&road.link, &router, RESTARTED, &BOTH);
    node.initial_sync_done();
    await_complete(&node);
    await_stale(&router, false);
    await_table(&router, &BOTH);

    node.crash();
    await_stale(&router, true);
    let node = successor(&road.link, &router, RESTARTED, &ONE);
    await_table(&router, &BOTH);
    node.initial_sync_done();
    await_table(&router, &ONE);

    for probe in probes {
        let count = probe.finish().unwrap();
        assert!(count.sent > 0 && count.lost == 0, "{count:?}");
    }
}

/// The negative control: the same restart where graceful restart is off at the router.
pub(crate) fn without_graceful_restart_packets_are_lost<R: Restarting>() {
    let road = Road::new();
    let setup = Setup { graceful_restart: false, ..graceful_setup() };
    let router = R::launch_restarting(&road.link.theirs, setup, Offer::default()).unwrap();
    let node = Node::with(&road.link.ours, peers::<R>(|_| ()));
    node.originate(&BOTH, &plain());
    node.initial_sync_done();
    await_table(&router, &BOTH);
    let probes = road.probes::<R>();
    node.stop(StopMode::Retain);
    await_table(&router, &[]);
    let node = Node::start(&road.link.ours, RESTARTED);
    node.apply(peers::<R>(|_| ()));
    node.originate(&BOTH, &plain());
    await_table(&router, &BOTH);
    for probe in probes {
        let count = probe.finish().unwrap();
        assert!(count.lost > 0, "{count:?}");
    }
}

/// A node on which nothing runs any more says so: End-of-RIB of a family without a route is heard and sweeps.
pub(crate) fn families_without_a_route_end_too<R: Restarting>() {
    let (link, router, node) = graceful_node::<R>();
    node.stop(StopMode::Retain);
    let node = successor(&link, &router, RESTARTED, &[]);
    await_table(&router, &BOTH);
    node.initial_sync_done();
    await_table(&router, &[]);
}

/// After a reboot the kernel's routes are gone, the F bit is not set, and what the router kept would lead nowhere.
pub(crate) fn without_forwarding_state_the_routes_go_at_the_open<R: Restarting>() {
    let (link, router, node) = graceful_node::<R>();
    node.stop(StopMode::Retain);
    await_stale(&router, true);
    let rebooted = SpeakerConfig { forwarding_preserved: Families::NONE, ..RESTARTED };
    let node = successor(&link, &router, rebooted, &[]);
    await_table(&router, &[]);
    for family in FAMILIES {
        let status = node.status(family);
        assert!(status.families.values().all(|family| !family.end_of_rib_sent), "{status:?}");
        assert_eq!((status.state, status.counters.established), (State::Established, 1));
    }
}

/// The peers, kept down from now on: for a router in session that is a Cease, as a Hard Reset where the N bit is agreed on.
fn blocked<R: Restarting>(restart: GracefulRestartConfig) -> BTreeMap<PeerName, PeerConfig> {
    peers::<R>(|config| {
        config.graceful_restart = Some(restart);
        config.blocked = Some("blocked by the test".to_owned());
    })
}

/// Without the N bit a Cease ends what the router would have kept (RFC 4724 section 4).
pub(crate) fn without_the_n_bit_a_cease_flushes<R: Restarting>() {
    let (_link, router, node) = graceful_node::<R>();
    node.apply(blocked::<R>(GRACEFUL));
    await_table(&router, &[]);
}

/// With the N bit on both sides a NOTIFICATION keeps the routes, here that our hold timer has expired, and a Hard Reset
/// flushes (RFC 8538). Every Cease of ours for good is a Hard Reset then, so that a peer that is blocked loses them too.
pub(crate) fn with_the_n_bit_only_a_hard_reset_flushes<R: Restarting>() {
    let restart = GracefulRestartConfig { notification: true, ..GRACEFUL };
    let with_n_bit = || {
        peers::<R>(|config| {
            config.graceful_restart = Some(restart);
            config.hold_time = HoldTime::new(3).unwrap();
        })
    };
    let link = Link::new();
    let offer = Offer { notification: true, ..Offer::default() };
    let router = R::launch_restarting(&link.theirs, graceful_setup(), offer).unwrap();
    let node = Node::with(&link.ours, with_n_bit());
    node.originate(&BOTH, &plain());
    node.initial_sync_done();
    await_table(&router, &BOTH);
    await_complete(&node);
    // Deaf, not mute: the NOTIFICATION leaves.
    link.ours
        .exec("nft add table inet deaf { chain in { type filter hook input priority 0 ; meta l4proto tcp drop ; } ; }")
        .unwrap();
    await_stale(&router, true);
    await_table(&router, &BOTH);
    link.ours.exec("nft delete table inet deaf").unwrap();
    await_established(&node, &router);
    await_stale(&router, false);
    await_table(&router, &BOTH);
    node.apply(blocked::<R>(restart));
    await_table(&router, &[]);
    node.apply(with_n_bit());
    await_established(&node, &router);
    await_table(&router, &BOTH);
    node.stop(StopMode::HardReset);
    await_table(&router, &[]);
}
