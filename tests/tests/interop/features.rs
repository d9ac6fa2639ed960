//! What goes beyond the plain session, one feature at a time, against each router that has it: which side sets what, and
//! what of it is seen at the other end. docs/reference/interop.md has the table.

use std::collections::BTreeSet;
use std::sync::Arc;

use plainroute_bgp::session::Negotiated;
use plainroute_bgp::wire::Role;
use plainroute_bgp::{AfiSafi, Asn, Community, Families, Prefix};
use plainroute_speaker::{ImportRule, OriginAttributes, PeerConfig, PeerName, StopMode};
use plainroute_tests::netns::{Netns, veth, wait_until};
use plainroute_tests::routers::{Bird, Exabgp, Family, Frr, Gobgp, Openbgpd, Table};

use crate::node::{GRACEFUL, Node, peer, peers};
use crate::scenario::{ONE, TWO, accept_default, plain};
use crate::wire::{Towards, WIRE_PORT, WIRE_V4, Wire};
use crate::{DEADLINE, Link, Neighbour, OUR_ASN, OUR_V4, ROUTER_ASN, Setup, default_route, ip};

const V4: Family = Family::V4;

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

/// The IPv4 session alone, changed by `change`.
fn ipv4<R: Neighbour>(change: impl Fn(&mut PeerConfig)) -> std::collections::BTreeMap<PeerName, PeerConfig> {
    let mut peers = peers::<R>(change);
    peers.retain(|name, _| *name == peer(V4));
    peers
}

/// The same, over a wire of ours.
fn over_wire<R: Neighbour>(
    change: impl Fn(&mut PeerConfig),
) -> std::collections::BTreeMap<PeerName, PeerConfig> {
    ipv4::<R>(|config| {
        config.peer_address = ip(WIRE_V4);
        config.peer_port = WIRE_PORT;
        config.local_address = Some(ip(OUR_V4));
        change(config);
    })
}

fn await_ipv4<R: Neighbour>(router: &R, prefixes: &[&str]) {
    let expected: BTreeSet<&str> = prefixes.iter().copied().collect();
    let condition = |table: &Table| {
        table.keys().map(String::as_str).filter(|p| p.starts_with("10.20.")).eq(expected.clone())
    };
    router.await_learned(V4, &format!("{expected:?}"), DEADLINE, &condition).unwrap();
}

fn negotiated(node: &Node) -> Arc<Negotiated> {
    let status = node.await_status(V4, "Established", |status| status.negotiated.is_some());
    status.negotiated.expect("just seen")
}

/// Waits until what the router shows of a route contains a text.
fn await_details<R: Neighbour>(router: &R, prefix: &str, text: &str) {
    wait_until(&format!("`{text}` at {prefix}"), DEADLINE, || match router.route_details(prefix) {
        Ok(details) if details.contains(text) => Ok(()),
        details => Err(format!("{details:?}")),
    })
    .unwrap();
}

fn accept_more(config: &mut PeerConfig) {
    accept_default(config);
    let all: Prefix = "10.0.0.0/8".parse().unwrap();
    config.import.push(ImportRule { le: Some(32), ..ImportRule::new(all) });
}

/// RFC 7313: a withdrawal is lost on its way to the router, then one on its way to us. Nobody notices until a refresh.
fn a_refresh_sweeps_what_was_lost<R: Neighbour>(more: &'static str) {
    let link = Link::new();
    let wire = Wire::start(&link.ours);
    let setup = Setup { more, graceful_restart: true, ..Setup::default() };
    let mut router = R::launch_as(&link.theirs, setup).unwrap();
    let graceful = |config: &mut PeerConfig| {
        // FRR sweeps only a neighbour that does graceful restart: https://github.com/FRRouting/frr/issues/23432
        config.graceful_restart = Some(GRACEFUL);
        accept_default(config);
    };
    let node = Node::with(&link.ours, over_wire::<R>(graceful));
    node.initial_sync_done();
    node.originate(&[ONE[0], TWO[0]], &plain());
    await_ipv4(&router, &[ONE[0], TWO[0]]);
    assert!(negotiated(&node).context.enhanced_refresh);
    wire.lose(Towards::Router, || node.originate(&[ONE[0]], &plain()));
    // A route that comes later shows that the router has read past it: it does not know, as without RFC 7313 nobody would.
    node.originate(&[ONE[0], "10.20.0.12/32"], &plain());
    await_ipv4(&router, &[ONE[0], TWO[0], "10.20.0.12/32"]);
    router.ask_refresh(V4).unwrap();
    wire.await_passed(Towards::Router, "an end of a refresh", |passed| passed.refreshes.contains(&2));
    await_ipv4(&router, &[ONE[0], "10.20.0.12/32"]);
    assert_eq!(wire.passed(Towards::Router).refreshes, [1, 2], "begin and end, once each");

    if !R::ANSWERS_REFRESH {
        return;
    }
    router.announce_default(V4, true).unwrap();
    node.await_received(V4, "a default route", |routes| routes.len() == 1);
    node.await_status(V4, "told all", |status| {
        status.families[&AfiSafi::Ipv4Unicast].end_of_rib_received || status.counters.updates_received > 1
    });
    wire.lose(Towards::Us, || router.announce_default(V4, false).unwrap());
    node.await_received(V4, "what it has taken back", |routes| routes.len() == 1);
    node.apply(over_wire::<R>(|config| {
        graceful(config);
        accept_more(config);
    }));
    node.await_received(V4, "no route any more", <[_]>::is_empty);
    let marks: Vec<u8> =
        wire.passed(Towards::Us).refreshes.into_iter().filter(|subtype| *subtype != 0).collect();
    assert_eq!(marks, [1, 2], "its begin and its end");
    assert_eq!(node.status(V4).counters.lost, 0);
}

#[test]
fn frr_sweeps_what_was_lost_and_so_do_we_rfc_7313() {
    a_refresh_sweeps_what_was_lost::<Frr>("");
}

#[test]
fn bird_sweeps_what_was_lost_and_so_do_we_rfc_7313() {
    a_refresh_sweeps_what_was_lost::<Bird>("");
}

/// ExaBGP 4.2 puts its mark of the begin into an UPDATE as if it were a list of prefixes (`rib/outgoing.py`, `updates`);
/// encoding that raises "TypeError: 'RouteRefresh' object is not iterable" (`Update.messages`), which drops the session
/// without a word. Nothing that we send brings it about but the request itself.
#[test]
fn exabgp_fails_to_mark_a_refresh_rfc_7313() {
    let link = Link::new();
    let _router =
        Exabgp::launch_as(&link.theirs, Setup { default_routes: true, ..Setup::default() }).unwrap();
    let node = Node::with(&link.ours, ipv4::<Exabgp>(|config| config.enhanced_refresh = true));
    node.initial_sync_done();
    assert!(negotiated(&node).context.enhanced_refresh);
    node.apply(ipv4::<Exabgp>(|config| {
        config.enhanced_refresh = true;
        accept_default(config);
    }));
    let left = node.await_status(V4, "left", |status| status.counters.lost > 0);
    let said = left.last_error.map(|(error, _)| error).unwrap_or_default();
    assert!(!said.contains("NOTIFICATION"), "{said}");
    // The negative control: as agreed before, it answers.
    node.apply(ipv4::<Exabgp>(|_| ()));
    assert!(!negotiated(&node).context.enhanced_refresh);
    node.apply(ipv4::<Exabgp>(accept_default));
    node.await_received(V4, "a default route", |routes| routes.len() == 1);
}

/// The namespace behind the router from which two ASes announce the same prefix to it.
const UPSTREAM: [(&str, u32); 2] = [("172.16.1.1", 64701), ("172.16.1.2", 64702)];
const UPSTREAM_ROUTER: &str = "172.16.1.254";
const TWICE: &str = "10.9.0.0/24";

struct Upstream {
    _netns: Netns,
    nodes: Vec<Node>,
}

impl Upstream {
    fn new(link: &Link) -> Upstream {
        let netns = Netns::new("upstream").unwrap();
        veth((&netns, "eth0"), (&link.theirs, "eth1")).unwrap();
        link.theirs.address("eth1", &format!("{UPSTREAM_ROUTER}/24")).unwrap();
        let node = |(address, number): (&str, u32)| {
            netns.address("eth0", &format!("{address}/24")).unwrap();
            let mut config =
                PeerConfig::new(asn(number), asn(ROUTER_ASN), address.parse().unwrap(), ip(UPSTREAM_ROUTER));
            config.local_address = Some(ip(address));
            config.families = Families::from_iter([AfiSafi::Ipv4Unicast]);
            let node = Node::with(&netns, [(PeerName::from("router"), config)].into());
            node.initial_sync_done();
            node.originate(&[TWICE], &plain());
            node
        };
        let nodes = UPSTREAM.map(node).into();
        Upstream { _netns: netns, nodes }
    }
}

fn several_paths(config: &mut PeerConfig) {
    config.add_path_receive = Families::from_iter([AfiSafi::Ipv4Unicast]);
    accept_more(config);
}

/// RFC 7911: both paths of the router come in, each by its own; and one goes when its origin does.
fn both_paths_come_in<R: Neighbour>(setup: Setup) {
    let link = Link::new();
    let mut upstream = Upstream::new(&link);
    let _router = R::launch_as(&link.theirs, setup).unwrap();
    let node = Node::with(&link.ours, ipv4::<R>(several_paths));
    node.initial_sync_done();
    upstream.nodes.iter().for_each(Node::await_established);
    await_paths(&node, &[64701, 64702]);
    assert!(negotiated(&node).context.add_path_receive.contains(AfiSafi::Ipv4Unicast));
    upstream.nodes.remove(0).stop(StopMode::Withdraw);
    await_paths(&node, &[64702]);
}

/// Waits until the paths to the prefix end in exactly these ASes.
fn await_paths(node: &Node, origins: &[u32]) {
    node.await_received(V4, &format!("paths by {origins:?}"), |routes| {
        let twice = routes.iter().filter(|route| route.prefix.to_string() == TWICE);
        let mut seen: Vec<u32> =
            twice.filter_map(|route| route.attributes.as_path.origin_asn()).map(Asn::number).collect();
        seen.sort_unstable();
        seen == origins
    });
}

#[test]
fn frr_gives_both_paths_rfc_7911() {
    let global = " neighbor 172.16.1.1 remote-as 64701\n neighbor 172.16.1.1 timers connect 1\n \
        neighbor 172.16.1.2 remote-as 64702\n neighbor 172.16.1.2 timers connect 1\n address-family ipv4 unicast\n  \
        neighbor 172.16.1.1 activate\n  neighbor 172.16.1.2 activate\n exit-address-family\n";
    both_paths_come_in::<Frr>(Setup { channel: "addpath-tx-all-paths", global, ..Setup::default() });
}

#[test]
fn bird_gives_both_paths_rfc_7911() {
    let global = "protocol bgp one from node { local 172.16.1.254 as 64600; neighbor 172.16.1.1 as 64701; \
        ipv4 { import all; export none; }; }\nprotocol bgp two from node { local 172.16.1.254 as 64600; \
        neighbor 172.16.1.2 as 64702; ipv4 { import all; export none; }; }\n";
    let channel = "add paths tx; export all;";
    both_paths_come_in::<Bird>(Setup { channel, global, ..Setup::default() });
}

#[test]
fn gobgp_gives_both_paths_rfc_7911() {
    let global = "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"172.16.1.1\"\npeer-as = 64701\n\
        [neighbors.timers.config]\nconnect-retry = 1\n[[neighbors]]\n[neighbors.config]\n\
        neighbor-address = \"172.16.1.2\"\npeer-as = 64702\n[neighbors.timers.config]\nconnect-retry = 1\n";
    let channel = "[neighbors.afi-safis.add-paths.config]\nsend-max = 8";
    both_paths_come_in::<Gobgp>(Setup { channel, global, ..Setup::default() });
}

#[test]
fn openbgpd_gives_both_paths_rfc_7911() {
    let global = "neighbor 172.16.1.1 {\nremote-as 64701\n}\nneighbor 172.16.1.2 {\nremote-as 64702\n}\n";
    both_paths_come_in::<Openbgpd>(Setup { more: "announce add-path send all", global, ..Setup::default() });
}

#[test]
fn exabgp_gives_both_paths_rfc_7911() {
    let link = Link::new();
    let setup = Setup { more: "add-path send;", ..Setup::default() };
    let mut router = Exabgp::launch_as(&link.theirs, setup).unwrap();
    let node = Node::with(&link.ours, ipv4::<Exabgp>(several_paths));
    node.initial_sync_done();
    assert!(negotiated(&node).context.add_path_receive.contains(AfiSafi::Ipv4Unicast));
    for (id, origin) in [(1, 64701), (2, 64702)] {
        let path = format!("next-hop self path-information 0.0.0.{id} as-path [ {ROUTER_ASN} {origin} ]");
        router.command(&format!("neighbor {OUR_V4} announce route {TWICE} {path}")).unwrap();
    }
    await_paths(&node, &[64701, 64702]);
    let first = format!("neighbor {OUR_V4} withdraw route {TWICE} next-hop self path-information 0.0.0.1");
    router.command(&first).unwrap();
    await_paths(&node, &[64702]);
}

/// More communities than 4096 octets hold.
fn long_route() -> OriginAttributes {
    OriginAttributes { communities: (0..1200).map(|n| Community((64512 << 16) | n)).collect(), ..plain() }
}

/// RFC 8654: a route whose attributes alone exceed 4096 octets reaches the router, and the session stands.
fn a_long_update_arrives<R: Neighbour>(more: &'static str, last: &str) {
    let link = Link::new();
    let wire = Wire::start(&link.ours);
    let router = R::launch_as(&link.theirs, Setup { more, ..Setup::default() }).unwrap();
    let node = Node::with(&link.ours, over_wire::<R>(|_| ()));
    node.initial_sync_done();
    node.originate(&[ONE[0]], &long_route());
    await_ipv4(&router, &[ONE[0]]);
    assert!(wire.passed(Towards::Router).longest > 4096, "{:?}", wire.passed(Towards::Router));
    await_details(&router, ONE[0], last);
    assert_eq!(node.status(V4).counters.lost, 0);
    // The negative control: where it is not offered the route stays here, and the session stands.
    node.apply(over_wire::<R>(|config| config.extended_messages = false));
    await_ipv4(&router, &[]);
}

#[test]
fn bird_takes_a_long_update_rfc_8654() {
    a_long_update_arrives::<Bird>("enable extended messages on;", "(64512,1199)");
}

#[test]
fn frr_takes_a_long_update_rfc_8654() {
    // vtysh cuts what it shows of a long list.
    a_long_update_arrives::<Frr>("", "64512:800");
}

/// RFC 8654 the other way: a route of BIRD's whose attributes exceed 4096 octets.
#[test]
fn bird_sends_a_long_update_rfc_8654() {
    let link = Link::new();
    let wire = Wire::start(&link.ours);
    let communities: String = (0..1200).map(|n| format!("bgp_community.add((64600,{n})); ")).collect();
    let route = format!("route {TWICE} unreachable {{ {communities}}};");
    let global: &'static str = format!("protocol static wide {{ ipv4; {route} }}\n").leak();
    let setup = Setup { more: "enable extended messages on;", global, ..Setup::default() };
    let _router = Bird::launch_as(&link.theirs, setup).unwrap();
    let node = Node::with(&link.ours, over_wire::<Bird>(accept_more));
    node.await_received(V4, "a route of 1200 communities", |routes| {
        routes.iter().any(|route| route.attributes.communities.len() == 1200)
    });
    assert!(wire.passed(Towards::Us).longest > 4096, "{:?}", wire.passed(Towards::Us));
    assert_eq!(node.status(V4).counters.lost, 0);
}

#[test]
fn exabgp_sends_a_long_update_rfc_8654() {
    let link = Link::new();
    let setup = Setup { more: "extended-message enable;", ..Setup::default() };
    let mut router = Exabgp::launch_as(&link.theirs, setup).unwrap();
    let node = Node::with(&link.ours, ipv4::<Exabgp>(accept_more));
    node.initial_sync_done();
    assert_eq!(negotiated(&node).longest_received, 65535);
    let communities: String = (0..1200).map(|n| format!("64600:{n} ")).collect();
    let route = format!("route {TWICE} next-hop self community [ {communities}]");
    router.command(&format!("neighbor {OUR_V4} announce {route}")).unwrap();
    node.await_received(V4, "a route of 1200 communities", |routes| {
        routes.iter().any(|route| route.attributes.communities.len() == 1200)
    });
    assert_eq!(node.status(V4).counters.lost, 0);
}

/// RFC 9234: the roles are agreed on, and what comes from a provider or goes to a customer is marked Only to Customer.
fn roles_are_agreed_on<R: Neighbour>(role: fn(&str) -> &'static str, only_to_customer: &str) {
    let link = Link::new();
    let with = |ours| {
        move |config: &mut PeerConfig| {
            config.role = Some(ours);
            config.role_required = true;
            accept_default(config);
        }
    };
    let mut router =
        R::launch_as(&link.theirs, Setup { more: role("provider"), ..Setup::default() }).unwrap();
    // A mismatch is refused, by whoever reads the other's OPEN first.
    let node = Node::with(&link.ours, ipv4::<R>(with(Role::Peer)));
    node.initial_sync_done();
    let status = node.await_status(V4, "refused for its role", |status| {
        let said = status.last_error.as_ref().map(|(error, _)| error.to_lowercase());
        said.is_some_and(|said| said.contains("role mismatch"))
    });
    assert_eq!(status.counters.established, 0);
    // Its customer hears that the route is for customers only.
    node.apply(ipv4::<R>(with(Role::Customer)));
    assert_eq!(negotiated(&node).role, Some(Role::Customer));
    router.announce_default(V4, true).unwrap();
    node.await_received(V4, "a route only to customers", |routes| {
        routes.iter().any(|route| {
            route.prefix.to_string() == default_route(V4)
                && route.attributes.only_to_customer == Some(asn(ROUTER_ASN))
        })
    });
    router.stop().unwrap();

    let router = R::launch_as(&link.theirs, Setup { more: role("customer"), ..Setup::default() }).unwrap();
    node.apply(ipv4::<R>(with(Role::Provider)));
    node.originate(&[ONE[0]], &plain());
    await_ipv4(&router, &[ONE[0]]);
    assert_eq!(negotiated(&node).role, Some(Role::Provider));
    await_details(&router, ONE[0], only_to_customer);
}

#[test]
fn frr_agrees_on_roles_rfc_9234() {
    let role = |role: &str| match role {
        "provider" => "local-role provider strict-mode",
        _ => "local-role customer strict-mode",
    };
    roles_are_agreed_on::<Frr>(role, "otc 64512");
}

#[test]
fn bird_agrees_on_roles_rfc_9234() {
    let role = |role: &str| match role {
        "provider" => "local role provider; require roles;",
        _ => "local role customer; require roles;",
    };
    roles_are_agreed_on::<Bird>(role, "BGP.otc: 64512");
}

#[test]
fn openbgpd_agrees_on_roles_rfc_9234() {
    // OpenBGPD writes what the neighbour is.
    let role = |role: &str| match role {
        "provider" => "announce policy provider",
        _ => "announce policy customer",
    };
    roles_are_agreed_on::<Openbgpd>(role, "OTC: 64512");
}

/// RFC 9003: what an operator says on one side is read on the other.
fn shutdown_texts_arrive<R: Neighbour>(shut: impl Fn(&R), sees: impl Fn(&R) -> String) {
    let link = Link::new();
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    let node = Node::with(&link.ours, ipv4::<R>(|_| ()));
    node.initial_sync_done();
    node.await_established();
    shut(&router);
    let said = node.await_status(V4, "told why", |status| {
        status.last_error.as_ref().is_some_and(|(error, _)| error.contains("maintenance of the hall"))
    });
    assert!(said.last_error.unwrap().0.contains("Administrative"), "with the reason (RFC 4486)");
    drop(router);

    let link = Link::new();
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    let node = Node::with(&link.ours, ipv4::<R>(|_| ()));
    node.initial_sync_done();
    node.await_established();
    router.await_state(ip(OUR_V4), "established", DEADLINE).unwrap();
    node.stop(StopMode::HardReset);
    wait_until("the router to have read why", DEADLINE, || {
        let seen = sees(&router);
        if seen.contains("shutting down") { Ok(()) } else { Err(seen) }
    })
    .unwrap();
}

#[test]
fn frr_reads_and_says_why_rfc_9003() {
    shutdown_texts_arrive::<Frr>(
        |frr| {
            let line = format!("neighbor {OUR_V4} shutdown message maintenance of the hall");
            frr.configure(&[&format!("router bgp {ROUTER_ASN}"), &line]).unwrap();
        },
        |frr| frr.vtysh(&format!("show bgp neighbors {OUR_V4}")).unwrap() + &frr.log(),
    );
}

#[test]
fn bird_reads_and_says_why_rfc_9003() {
    shutdown_texts_arrive::<Bird>(
        |bird| bird.birdc_line("disable node_ipv4 \"maintenance of the hall\"").map(drop).unwrap(),
        Bird::log,
    );
}

#[test]
fn openbgpd_reads_and_says_why_rfc_9003() {
    shutdown_texts_arrive::<Openbgpd>(
        |openbgpd| {
            openbgpd
                .bgpctl_arguments(&["neighbor", OUR_V4, "down", "maintenance of the hall"])
                .map(drop)
                .unwrap()
        },
        Openbgpd::log,
    );
}

/// RFC 6793: a speaker of two-octet AS numbers; one that does not mind takes us for AS_TRANS. And routes pass both ways.
fn an_old_speaker_is_met<R: Neighbour>(more: &'static str, asn_of_ours: u32, seen_as: u32) {
    let link = Link::new();
    let setup = Setup { more, our_asn: seen_as, default_routes: true, ..Setup::default() };
    let router = R::launch_as(&link.theirs, setup).unwrap();
    let node = Node::with(
        &link.ours,
        ipv4::<R>(|config| {
            config.local_asn = asn(asn_of_ours);
            accept_default(config);
        }),
    );
    node.initial_sync_done();
    node.originate(&[ONE[0]], &plain());
    await_ipv4(&router, &[ONE[0]]);
    await_details(&router, ONE[0], &seen_as.to_string());
    assert!(!negotiated(&node).context.four_octet_asn);
    node.await_received(V4, "a default route", |routes| {
        routes.iter().any(|route| route.attributes.as_path.first_asn() == Some(asn(ROUTER_ASN)))
    });
}

#[test]
fn bird_without_four_octets_is_met_rfc_6793() {
    an_old_speaker_is_met::<Bird>("enable as4 off;", OUR_ASN, OUR_ASN);
}

#[test]
fn exabgp_without_four_octets_is_met_rfc_6793() {
    an_old_speaker_is_met::<Exabgp>("asn4 disable;", 4_200_000_000, 23456);
}

#[test]
fn openbgpd_without_four_octets_is_met_rfc_6793() {
    an_old_speaker_is_met::<Openbgpd>("announce as-4byte no", OUR_ASN, OUR_ASN);
}

/// RFC 4360 and RFC 5668: route targets and origins, each kind of administrator, as the router writes them.
fn extended_communities_arrive<R: Neighbour>(expected: [&str; 3]) {
    let link = Link::new();
    let router = R::launch_as(&link.theirs, Setup::default()).unwrap();
    let node = Node::with(&link.ours, ipv4::<R>(|_| ()));
    node.initial_sync_done();
    let texts = ["rt:64512:100", "ro:192.0.2.1:7", "rt:4200000000:5"];
    let extended_communities = texts.map(|text| text.parse().unwrap()).to_vec();
    node.originate(&[ONE[0]], &OriginAttributes { extended_communities, ..plain() });
    await_ipv4(&router, &[ONE[0]]);
    expected.iter().for_each(|text| await_details(&router, ONE[0], text));
}

#[test]
fn frr_sees_extended_communities_rfc_4360() {
    extended_communities_arrive::<Frr>(["RT:64512:100", "SoO:192.0.2.1:7", "RT:4200000000:5"]);
}

#[test]
fn bird_sees_extended_communities_rfc_4360() {
    extended_communities_arrive::<Bird>(["(rt, 64512, 100)", "(ro, 192.0.2.1, 7)", "(rt, 4200000000, 5)"]);
}

#[test]
fn gobgp_sees_extended_communities_rfc_4360() {
    extended_communities_arrive::<Gobgp>(["64512:100", "192.0.2.1:7", "64086.59904:5"]);
}

#[test]
fn openbgpd_sees_extended_communities_rfc_4360() {
    extended_communities_arrive::<Openbgpd>(["rt 64512:100", "soo 192.0.2.1:7", "rt 4200000000:5"]);
}

#[test]
fn exabgp_sees_extended_communities_rfc_4360() {
    extended_communities_arrive::<Exabgp>(["target:64512:100", "origin:7:192.0.2.1", "target:4200000000L:5"]);
}

/// RFC 4486 subcode 1, both ways: who hears more than it wants ends the session and says so; and we send no more than we
/// are told to.
#[test]
fn too_many_prefixes_between_frr_and_us_rfc_4486() {
    let link = Link::new();
    let setup = Setup { channel: "maximum-prefix 1", ..Setup::default() };
    let frr = Frr::launch_as(&link.theirs, setup).unwrap();
    let node = Node::with(&link.ours, ipv4::<Frr>(|config| config.max_prefixes_out = Some(1)));
    node.initial_sync_done();
    node.originate(&[ONE[0], TWO[0]], &plain());
    await_ipv4(&frr, &[ONE[0]]);
    let status = node.await_status(V4, "holding back", |status| {
        status.families[&AfiSafi::Ipv4Unicast].not_advertised.is_some()
    });
    assert_eq!(status.counters.lost, 0);
    node.apply(ipv4::<Frr>(|_| ()));
    await_ipv4(&frr, &[ONE[0], TWO[0]]);
    // FRR counts what it has when the next one comes.
    node.originate(&[ONE[0], TWO[0], "10.20.0.12/32"], &plain());
    node.await_status(V4, "refused for its prefixes", |status| {
        let said = status.last_error.as_ref().map(|(error, _)| error.to_lowercase());
        status.counters.lost == 1 && said.is_some_and(|said| said.contains("maximum number of prefixes"))
    });
    drop(frr);

    let global = " network 10.9.1.0/24\n network 10.9.2.0/24\n no bgp network import-check\n";
    let link = Link::new();
    let frr = Frr::launch_as(&link.theirs, Setup { global, ..Setup::default() }).unwrap();
    let node = Node::with(
        &link.ours,
        ipv4::<Frr>(|config| {
            config.max_prefixes_in = Some(1);
            accept_more(config);
        }),
    );
    node.await_status(V4, "down for too many prefixes", |status| {
        status.last_error.as_ref().is_some_and(|(error, _)| error.contains("more than 1 prefixes"))
    });
    wait_until("FRR to know why", DEADLINE, || {
        let shown =
            frr.vtysh(&format!("show bgp neighbors {OUR_V4}")).map_err(|error| format!("{error:#}"))?;
        if shown.contains("Cease/Maximum Number of Prefixes") { Ok(()) } else { Err(shown) }
    })
    .unwrap();
}
