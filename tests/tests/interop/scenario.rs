//! What every router must pass, written once. [`scenarios`] makes the tests of one router.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use plainroute_bgp::record::{End, Replay};
use plainroute_bgp::session::{Event, GracefulRestartConfig, State};
use plainroute_bgp::{Families, Prefix};
use plainroute_speaker::{
    ImportRule, ListenRange, OriginAttributes, Password, PeerConfig, PeerName, PeerStatus, Recorder,
    SpeakerConfig, StopMode, TcpAoSupport,
};
use plainroute_tests::netns::{Netns, wait_until};
use plainroute_tests::routers::{Family, Table};

use crate::node::{GRACEFUL, Node, peer, peers, peers_of};
use crate::{
    DEADLINE, FAMILIES, Link, Neighbour, OUR_ASN, OUR_V4, OUR_V6, ROUTER_ASN, Sessions, Setup, default_route,
    ip, our_address, router_address,
};

pub(crate) const ONE: [&str; 2] = ["10.20.0.10/32", "fd20::10/128"];
pub(crate) const TWO: [&str; 2] = ["10.20.0.11/32", "fd20::11/128"];
pub(crate) const BOTH: [&str; 4] = [ONE[0], TWO[0], ONE[1], TWO[1]];

/// A process that follows another, whose routes in the kernel are still there.
pub(crate) const RESTARTED: SpeakerConfig = SpeakerConfig {
    restarting: true,
    forwarding_preserved: Families::ALL,
    tcp_ao: TcpAoSupport::UNASKED,
    recorder: None,
};

/// The tests of one router: the scenarios that are named.
macro_rules! scenarios {
    ($router:ty: $($scenario:ident),+ $(,)?) => {$(
        #[test]
        fn $scenario() {
            $crate::scenario::$scenario::<$router>();
        }
    )+};
}
pub(crate) use scenarios;

pub(crate) fn of(family: Family, prefixes: [&'static str; 2]) -> &'static str {
    match family {
        Family::V4 => prefixes[0],
        Family::V6 => prefixes[1],
    }
}

pub(crate) fn plain() -> OriginAttributes {
    OriginAttributes::default()
}

/// The prefixes that the router has through us. The link-local address alone does not count: ours has a global one too.
fn ours(table: &Table) -> Vec<String> {
    let through_us = |hops: &BTreeSet<IpAddr>| hops.contains(&ip(OUR_V4)) || hops.contains(&ip(OUR_V6));
    table.iter().filter(|(_, hops)| through_us(hops)).map(|(prefix, _)| prefix.clone()).collect()
}

/// Waits until the router has exactly these prefixes from us, both families, through our addresses.
pub(crate) fn await_table<R: Neighbour>(router: &R, prefixes: &[&str]) {
    for family in FAMILIES {
        let mut expected: Vec<&str> =
            prefixes.iter().copied().filter(|p| p.contains(':') == (family == Family::V6)).collect();
        expected.sort_unstable();
        let condition = |table: &Table| ours(table) == expected;
        router.await_learned(family, &format!("{expected:?}"), DEADLINE, &condition).unwrap();
    }
}

/// Both ends say Established, of the usual sessions.
pub(crate) fn await_established<R: Neighbour>(node: &Node, router: &R) {
    await_sessions(node, router, Sessions::OnePerFamily);
}

/// Both ends say Established.
fn await_sessions<R: Neighbour>(node: &Node, router: &R, sessions: Sessions) {
    node.await_established();
    for session in sessions.list() {
        router.await_state(ip(session.our_address), "established", DEADLINE).unwrap();
    }
}

pub(crate) fn accept_default(config: &mut PeerConfig) {
    let rule = |family| {
        let prefix: Prefix = default_route(family).parse().unwrap();
        ImportRule::new(prefix)
    };
    config.import = FAMILIES.map(rule).to_vec();
}

/// Ends a router that another is to follow: one that is killed may leave a child on the port for a moment.
fn stopped<R: Neighbour>(mut router: R) {
    router.stop().unwrap();
}

fn established_once(status: &PeerStatus) -> bool {
    status.state == State::Established && status.counters.established == 1 && status.counters.lost == 0
}

/// Established, both families; added, changed and withdrawn.
pub(crate) fn routes_come_change_and_go<R: Neighbour>() {
    let link = Link::new();
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    let node = Node::with(&link.ours, peers::<R>(|_| ()));
    node.initial_sync_done();
    await_established(&node, &router);
    node.originate(&ONE, &plain());
    await_table(&router, &ONE);
    node.originate(&BOTH, &plain());
    await_table(&router, &BOTH);
    node.originate(&TWO, &plain());
    await_table(&router, &TWO);
    let attributes = OriginAttributes {
        communities: vec!["64512:100".parse().unwrap()],
        large_communities: vec!["64512:1:2".parse().unwrap()],
        med: Some(50),
        ..plain()
    };
    node.originate(&TWO, &attributes);
    for prefix in TWO {
        for expected in R::ATTRIBUTES {
            let shown = wait_until(&format!("`{expected}` at {prefix}"), DEADLINE, || {
                let details = router.route_details(prefix).map_err(|error| format!("{error:#}"))?;
                if details.contains(expected) { Ok(()) } else { Err(details) }
            });
            shown.unwrap();
        }
    }
    node.originate(&[], &plain());
    await_table(&router, &[]);
    FAMILIES.iter().for_each(|family| assert!(established_once(&node.status(*family))));
    node.stop(StopMode::Withdraw);
}

/// One session over IPv4 for both families; IPv6 routes have the IPv6 address beside ours as next hop.
pub(crate) fn one_session_carries_both_families<R: Neighbour>() {
    carries_both_families::<R>(Sessions::OverIpv4);
}

/// The unnumbered cable of a data centre: one session over link-local addresses, IPv4 through an IPv6 next hop.
pub(crate) fn a_link_local_session_carries_both_families<R: Neighbour>() {
    carries_both_families::<R>(Sessions::OverLinkLocal);
}

fn carries_both_families<R: Neighbour>(sessions: Sessions) {
    let link = Link::new();
    let router = R::launch_as(&link.theirs, Setup { sessions, ..Setup::default() }).unwrap();
    let node = Node::with(&link.ours, peers_of::<R>(sessions, |_| ()));
    node.initial_sync_done();
    await_sessions(&node, &router, sessions);
    node.originate(&BOTH, &plain());
    await_table(&router, &BOTH);
    node.originate(&TWO, &plain());
    await_table(&router, &TWO);
}

/// What the router tells comes in only where a rule says so, and goes when the router takes it back.
pub(crate) fn its_default_route_comes_and_goes<R: Neighbour>() {
    let link = Link::new();
    let mut router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    let node = Node::with(&link.ours, peers::<R>(|_| ()));
    node.initial_sync_done();
    await_established(&node, &router);
    for family in FAMILIES {
        router.announce_default(family, true).unwrap();
        // The negative control: without a rule it is refused.
        node.await_status(family, "refusing the default route", |status| {
            status.families.values().any(|family| family.rejected > 0 && family.accepted == 0)
        });
    }
    // A new rule takes effect by asking the router to tell it all again; the session stays.
    node.apply(peers::<R>(accept_default));
    for family in FAMILIES {
        if !R::ANSWERS_REFRESH {
            router.announce_default(family, false).unwrap();
            router.announce_default(family, true).unwrap();
        }
        node.await_received(family, "a default route", |routes| {
            routes.iter().any(|route| {
                route.prefix.to_string() == default_route(family)
                    && route.install
                    && !route.stale
                    && next_hop_is(route, family)
            })
        });
        router.announce_default(family, false).unwrap();
        node.await_received(family, "no route any more", <[_]>::is_empty);
        assert!(established_once(&node.status(family)), "{:?}", node.status(family));
    }
}

/// The router's global or link-local address.
fn next_hop_is(route: &plainroute_speaker::ReceivedRoute, family: Family) -> bool {
    match route.next_hop_address() {
        IpAddr::V6(address) if address.is_unicast_link_local() => family == Family::V6,
        address => address == ip(router_address(family)),
    }
}

/// The router asks for everything again and gets it, in the same session.
pub(crate) fn a_refresh_tells_it_all_again<R: Neighbour>() {
    let link = Link::new();
    let mut router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    let node = Node::with(&link.ours, peers::<R>(|_| ()));
    node.initial_sync_done();
    node.originate(&BOTH, &plain());
    await_table(&router, &BOTH);
    for family in FAMILIES {
        node.await_status(family, "done with End-of-RIB", |status| {
            status.families.values().any(|family| family.end_of_rib_sent)
        });
        let before = (router.heard(family).unwrap(), node.status(family).counters.updates_sent);
        assert!(router.ask_refresh(family).unwrap());
        wait_until("the routes to be heard again", DEADLINE, || {
            let sent = node.status(family).counters.updates_sent;
            match router.heard(family) {
                Ok(heard) if heard > before.0 && sent > before.1 => Ok(()),
                heard => Err(format!("heard {heard:?}, sent {sent}, before {before:?}")),
            }
        })
        .unwrap();
        assert!(established_once(&node.status(family)), "{:?}", node.status(family));
    }
    await_table(&router, &BOTH);
}

/// The router is restarted by its operator, then crashes: each time it is told everything again.
pub(crate) fn it_restarts_and_hears_it_all_again<R: Neighbour>() {
    let link = Link::new();
    let mut router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    let node = Node::with(&link.ours, peers::<R>(|_| ()));
    node.initial_sync_done();
    node.originate(&BOTH, &plain());
    await_table(&router, &BOTH);
    router.stop().unwrap();
    FAMILIES.iter().for_each(|family| {
        node.await_status(*family, "down", |status| status.state != State::Established);
    });
    router.start().unwrap();
    await_table(&router, &BOTH);
    router.kill();
    FAMILIES.iter().for_each(|family| {
        node.await_status(*family, "down", |status| status.state != State::Established);
    });
    router.start().unwrap();
    await_table(&router, &BOTH);
    await_established(&node, &router);
}

/// We restart, and no route is lost meanwhile: no NOTIFICATION, R bit, End-of-RIB only when we are complete.
pub(crate) fn our_restart_keeps_the_routes<R: Neighbour>() {
    let (link, router, node) = graceful_node::<R>();
    node.stop(StopMode::Retain);
    let node = comes_back_complete(&link, &router);
    // The negative control to the waiting: complete without TWO, TWO goes.
    node.stop(StopMode::Retain);
    let node = Node::start(&link.ours, RESTARTED);
    node.apply(graceful::<R>());
    node.originate(&ONE, &plain());
    node.initial_sync_done();
    await_table(&router, &ONE);
}

/// As a restart, but the process ends without a word.
pub(crate) fn our_crash_keeps_the_routes<R: Neighbour>() {
    let (link, router, node) = graceful_node::<R>();
    node.crash();
    comes_back_complete(&link, &router);
}

pub(crate) fn graceful<R: Neighbour>() -> BTreeMap<PeerName, PeerConfig> {
    peers::<R>(|config| config.graceful_restart = Some(GRACEFUL))
}

/// A node whose routes the router has and knows to be restartable.
pub(crate) fn graceful_node<R: Neighbour>() -> (Link, R, Node) {
    let link = Link::new();
    let router = R::launch_as(&link.theirs, Setup { graceful_restart: true, ..Setup::default() }).unwrap();
    let node = Node::with(&link.ours, graceful::<R>());
    node.originate(&BOTH, &plain());
    node.initial_sync_done();
    await_table(&router, &BOTH);
    FAMILIES.iter().for_each(|family| {
        node.await_status(*family, "done with End-of-RIB", |status| {
            status.families.values().any(|family| family.end_of_rib_sent && family.end_of_rib_received)
        });
    });
    (link, router, node)
}

/// The router has kept everything; the next process tells one half, then the other, and nothing is lost meanwhile.
fn comes_back_complete<R: Neighbour>(link: &Link, router: &R) -> Node {
    for family in FAMILIES {
        wait_until("the router to see that we are gone", DEADLINE, || {
            match router.state(ip(our_address(family))) {
                Ok(state) if state != "established" => Ok(()),
                state => Err(format!("{state:?}")),
            }
        })
        .unwrap();
        let kept = router.learned(family).unwrap();
        assert_eq!(ours(&kept), [of(family, ONE), of(family, TWO)], "kept while we are away");
    }
    let node = Node::start(&link.ours, RESTARTED);
    node.apply(graceful::<R>());
    node.originate(&ONE, &plain());
    await_established(&node, router);
    FAMILIES.iter().for_each(|family| {
        node.await_status(*family, "telling the first route", |status| {
            status.families.values().any(|family| family.advertised == 1)
        });
    });
    // Not complete yet: what is missing must stay.
    await_table(router, &BOTH);
    node.originate(&BOTH, &plain());
    node.initial_sync_done();
    await_table(router, &BOTH);
    node
}

/// The negative control of the restart: where graceful restart was not agreed on, the routes go with the session.
pub(crate) fn without_graceful_restart_the_routes_go<R: Neighbour>() {
    let link = Link::new();
    let router = R::launch_as(&link.theirs, Setup { graceful_restart: true, ..Setup::default() }).unwrap();
    let node = Node::with(&link.ours, peers::<R>(|_| ()));
    node.initial_sync_done();
    node.originate(&BOTH, &plain());
    await_table(&router, &BOTH);
    node.stop(StopMode::Retain);
    await_table(&router, &[]);
}

/// Leaving for good: the routes go at once, although the router would keep them for one that restarts.
pub(crate) fn leaving_for_good_takes_the_routes_along<R: Neighbour>() {
    for mode in [StopMode::HardReset, StopMode::Withdraw] {
        // A router of its own for each: OpenBGPD takes no connection for half a minute after a session has ended.
        let link = Link::new();
        let setup = Setup { graceful_restart: true, ..Setup::default() };
        let router = R::launch_as(&link.theirs, setup).unwrap();
        // With the N bit a plain Cease would keep them too, where the router knows RFC 8538.
        let restart = GracefulRestartConfig { notification: true, ..GRACEFUL };
        let node = Node::with(&link.ours, peers::<R>(|config| config.graceful_restart = Some(restart)));
        node.originate(&BOTH, &plain());
        node.initial_sync_done();
        await_table(&router, &BOTH);
        node.stop(mode);
        await_table(&router, &[]);
    }
}

/// TTL security: a speaker that sends with a TTL of 1 is dropped by the router's kernel; one that sends with 255 is heard.
pub(crate) fn only_full_ttls_pass_ttl_security<R: Neighbour>() {
    for family in R::TTL_SECURITY {
        let link = Link::new();
        let setup = Setup { ttl_security: true, passive: true, ..Setup::default() };
        let router = R::launch_as(&link.theirs, setup).unwrap();
        let only = |ttl_security| {
            let mut peers = peers::<R>(|config| config.ttl_security = ttl_security);
            peers.retain(|name, _| *name == peer(*family));
            peers
        };
        let node = Node::with(&link.ours, only(None));
        node.initial_sync_done();
        node.originate(&ONE, &plain());
        wait_until("packets dropped for their TTL", DEADLINE, || match ttl_drops(&link.theirs) {
            0 => Err("none"),
            _ => Ok(()),
        })
        .unwrap();
        // A router may read our OPEN before it sets the limit on the connection, but nothing after.
        assert_ne!(router.state(ip(our_address(*family))).unwrap(), "established");
        // The router did not hear us close either, and would wait for minutes on the connection that it took.
        stopped(router);
        let router = R::launch_as(&link.theirs, setup).unwrap();
        node.apply(only(Some(1)));
        node.await_established();
        let prefix = of(*family, ONE);
        router.await_learned(*family, prefix, DEADLINE, &|table| ours(table) == [prefix]).unwrap();
    }
}

/// How many TCP packets the namespace's kernel has dropped for a TTL that was too low.
fn ttl_drops(netns: &Netns) -> u64 {
    let statistics = netns.run(&["cat", "/proc/net/netstat"]).unwrap();
    let mut lines = statistics.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    columns.find(|(name, _)| *name == "TCPMinTTLDrop").unwrap().1.parse().unwrap()
}

/// The router crashes and we keep its route until it is back.
pub(crate) fn its_restart_keeps_its_routes<R: Neighbour>() {
    let link = Link::new();
    let mut router = R::launch_as(
        &link.theirs,
        Setup { graceful_restart: true, default_routes: true, ..Setup::default() },
    )
    .unwrap();
    let node = Node::with(
        &link.ours,
        peers::<R>(|config| {
            config.graceful_restart = Some(GRACEFUL);
            accept_default(config);
        }),
    );
    node.initial_sync_done();
    await_established(&node, &router);
    for family in FAMILIES {
        node.await_received(family, "a default route", |routes| routes.iter().any(|route| !route.stale));
    }
    router.kill();
    for family in FAMILIES {
        node.await_received(family, "a route that is stale", |routes| routes.iter().any(|route| route.stale));
    }
    router.start().unwrap();
    for family in FAMILIES {
        node.await_received(family, "the route again", |routes| {
            routes.len() == 1 && routes.iter().all(|route| !route.stale)
        });
    }
}

/// TCP MD5: with another password than the router's never Established, and we say so; with the router's at once.
pub(crate) fn only_the_right_password_establishes<R: Neighbour>() {
    let link = Link::new();
    let router = R::launch_as(&link.theirs, Setup { password: Some("s3cret"), ..Setup::default() }).unwrap();
    let with = |password: &'static str| {
        peers::<R>(|config| config.password = Some(Password::new(password.as_bytes()).unwrap()))
    };
    let node = Node::with(&link.ours, with("wrong"));
    node.initial_sync_done();
    node.originate(&ONE, &plain());
    for family in FAMILIES {
        let status = node.await_status(family, "refused for its password", |status| {
            let said = status.last_error.as_ref().map(|(error, _)| error.to_lowercase());
            said.is_some_and(|error| error.contains("md5") || error.contains("password"))
        });
        assert_eq!(status.counters.established, 0);
        assert_ne!(router.state(ip(our_address(family))).unwrap(), "established");
    }
    node.apply(with("s3cret"));
    await_established(&node, &router);
    await_table(&router, &ONE);
}

/// We wait, the router connects; then the other way round; then both connect.
pub(crate) fn either_side_may_connect<R: Neighbour>() {
    let link = Link::new();
    let listening = |passive| {
        peers::<R>(move |config| {
            config.listen_port = 179;
            config.passive = passive;
        })
    };
    let node = Node::with(&link.ours, listening(true));
    node.initial_sync_done();
    node.originate(&BOTH, &plain());
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    await_table(&router, &BOTH);
    for family in FAMILIES {
        let local = node.status(family).local_address.expect("an Established session");
        assert_eq!(local.port(), 179, "the router connected");
    }
    stopped(router);
    node.apply(peers::<R>(|_| ()));
    let router = R::launch_as(&link.theirs, Setup { passive: true, ..Setup::default() }).unwrap();
    await_table(&router, &BOTH);
    for family in FAMILIES {
        let remote = node.status(family).remote_address.expect("an Established session");
        assert_eq!(remote.port(), 179, "we connected");
    }
    stopped(router);
    node.apply(listening(false));
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    await_table(&router, &BOTH);
    await_established(&node, &router);
}

/// The router connects from within a range that we listen for, signed; we know it by nothing else.
pub(crate) fn it_connects_from_within_our_range<R: Neighbour>() {
    let link = Link::new();
    let within = |range: [&'static str; 2]| {
        peers::<R>(move |config| {
            let v4 = config.peer_address.is_ipv4();
            let [nowhere, range] = if v4 { ["0.0.0.0", range[0]] } else { ["::", range[1]] };
            config.peer_address = ip(nowhere);
            config.listen_range = Some(ListenRange::new(range.parse().unwrap(), 1));
            config.listen_port = 179;
            config.password = Some(Password::new(b"s3cret").unwrap());
        })
    };
    let node = Node::with(&link.ours, within(["172.16.0.128/25", "fd00::/64"]));
    node.initial_sync_done();
    node.originate(&BOTH, &plain());
    let router = R::launch_as(&link.theirs, Setup { password: Some("s3cret"), ..Setup::default() }).unwrap();
    await_table(&router, &BOTH);
    // Negative control: it is of the range that it is a peer.
    node.apply(within(["172.16.0.0/25", "fd00:0:0:1::/64"]));
    await_table(&router, &[]);
}

/// A router of another AS than the one we expect is never Established, and we say why (RFC 4271 section 6.2).
pub(crate) fn a_router_of_another_as_is_refused<R: Neighbour>() {
    let link = Link::new();
    let other = plainroute_bgp::Asn::new(ROUTER_ASN + 1).unwrap();
    let node = Node::with(&link.ours, peers::<R>(|config| config.peer_asn = other));
    node.initial_sync_done();
    node.originate(&ONE, &plain());
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    await_bad_peer_as(&node, "sent notification");
    // A router that was refused waits for up to half a minute; a new one does not.
    stopped(router);
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    node.apply(peers::<R>(|_| ()));
    await_established(&node, &router);
    await_table(&router, &ONE);
}

/// A router that expects another AS than ours refuses us, and we pass on why.
pub(crate) fn our_as_is_refused_where_another_is_expected<R: Neighbour>() {
    let link = Link::new();
    let node = Node::with(&link.ours, peers::<R>(|_| ()));
    let router = R::launch_as(&link.theirs, Setup { our_asn: OUR_ASN + 1, ..Setup::default() }).unwrap();
    await_bad_peer_as(&node, "received notification");
    for family in FAMILIES {
        assert_ne!(router.state(ip(our_address(family))).unwrap(), "established");
    }
}

/// Both sessions say so at some time. Not necessarily at the same: what is said last is what went wrong last, and a router
/// that was refused closes the next connections without a word.
fn await_bad_peer_as(node: &Node, notification: &str) {
    let mut heard = BTreeSet::new();
    wait_until("both sessions to be down for the AS", DEADLINE, || {
        for family in FAMILIES {
            let status = node.status(family);
            assert_eq!(status.counters.established, 0);
            let said = status.last_error.map(|(error, _)| error.to_lowercase());
            if said.is_some_and(|said| said.contains("bad peer as") && said.contains(notification)) {
                heard.insert(family);
            }
        }
        if heard.len() == FAMILIES.len() { Ok(()) } else { Err(format!("said of {heard:?}")) }
    })
    .unwrap();
}

/// What the sessions with the router took in replays as the same: nothing that it sends is beyond the recording.
pub(crate) fn a_recorded_life_replays_as_the_same<R: Neighbour>() {
    let link = Link::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recording");
    let writing = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let recorder = writing.block_on(async { Recorder::create(&path) }).unwrap();
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    let node = Node::start(&link.ours, SpeakerConfig { recorder: Some(recorder), ..RESTARTED });
    node.apply(peers::<R>(accept_default));
    node.initial_sync_done();
    await_established(&node, &router);
    node.originate(&ONE, &plain());
    await_table(&router, &ONE);
    stopped(router);
    for family in FAMILIES {
        node.await_status(family, "without a session", |status| status.state != State::Established);
    }
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    await_established(&node, &router);
    await_table(&router, &ONE);
    node.stop(StopMode::Withdraw);

    let mut replay = Replay::new(std::fs::read(&path).unwrap().into(), Instant::now()).unwrap();
    let mut established = 0;
    let end = loop {
        match replay.poll().unwrap() {
            Ok(step) => {
                assert!(step.same, "{step:#?}");
                let up = |event: &&Event| matches!(event, Event::Established(..));
                established += step.events.iter().filter(up).count();
            }
            Err(end) => break end,
        }
    };
    assert_eq!(end, End::Whole);
    assert!(established >= 4, "twice in each of two families, not {established}");
}
