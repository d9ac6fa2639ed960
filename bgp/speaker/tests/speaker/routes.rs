//! What leaves and what enters.
use std::sync::Arc;

use plainroute_bgp::{
    AfiSafi, Community, Families, Prefix,
    policy::{Action, AsPathFilter},
    session::State,
    wire::NextHop,
};
use plainroute_speaker::{
    Effect, ImportRule, LearnedPath, OriginAttributes, Originated, Password, PeerConfig, PeerStatus,
    RouteChange,
};

use crate::network::{Node, ip, originated, pair, prefix, wait_for, within_deadline};

#[tokio::test]
async fn a_route_comes_and_goes() {
    let (a, b) = pair().await;
    let receipt = a.tell(&b, &["10.1.0.0/28", "10.2.0.0/28"]).await;
    within_deadline(receipt.flushed()).await;
    let learned = b.learned(|learned| learned.len() == 2).await;
    let path = LearnedPath { peer: a.name(), next_hop: a.address(), interface: None, stale: false };
    assert_eq!(learned[&prefix("10.1.0.0/28")], [path]);

    let advertised = a.speaker.advertised(&b.name()).await;
    assert_eq!(
        advertised.iter().map(|route| route.prefix).collect::<Vec<_>>(),
        [prefix("10.1.0.0/28"), prefix("10.2.0.0/28")]
    );
    let received = b.speaker.received(&a.name()).await;
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].attributes.as_path.segments[0].asns, [a.asn()]);

    a.tell(&b, &["10.2.0.0/28"]).await;
    b.learned_prefixes(&["10.2.0.0/28"]).await;
}

#[tokio::test]
async fn what_is_followed_is_told_apart_from_what_is_for_the_kernel() {
    let (a, b) = pair().await;
    let mut config = b.waits_for(&a);
    a.tell(&b, &["10.1.0.0/28", "10.9.0.7/32"]).await;
    b.learned_prefixes(&["10.1.0.0/28", "10.9.0.7/32"]).await;
    config.followed = Arc::new([prefix("10.9.0.7/32")].into());
    b.peers([(&a, config.clone())]).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;
    let followed = wait_for(b.speaker.followed(), |followed| !followed.is_empty()).await;
    let [path] = followed[&prefix("10.9.0.7/32")].as_slice() else { panic!("{followed:?}") };
    assert_eq!((&path.peer, path.stale), (&a.name(), false));
    assert_eq!(path.attributes.as_path.segments[0].asns, [a.asn()]);
    config.followed = Arc::default();
    b.peers([(&a, config)]).await;
    b.learned_prefixes(&["10.1.0.0/28", "10.9.0.7/32"]).await;
    assert!(b.speaker.followed().borrow().is_empty());
}

#[tokio::test]
async fn attributes_arrive_as_they_were_chosen_and_change_in_place() {
    let (a, b) = pair().await;
    let with = |attributes: OriginAttributes| {
        vec![Originated { peer: b.name(), prefix: prefix("10.1.0.0/28"), attributes: Arc::new(attributes) }]
    };
    let first = OriginAttributes { med: Some(7), as_path_prepend: 2, ..OriginAttributes::default() };
    a.speaker.originate("test", with(first)).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;
    let received = b.speaker.received(&a.name()).await;
    assert_eq!(received[0].attributes.med, Some(7));
    assert_eq!(received[0].attributes.as_path.segments[0].asns, [a.asn(); 3]);

    let second =
        OriginAttributes { communities: vec![Community::GRACEFUL_SHUTDOWN], ..OriginAttributes::default() };
    let before = b.established(&a).await.counters.updates_received;
    a.speaker.originate("test", with(second)).await;
    b.status(&a, |status| status.counters.updates_received > before).await;
    let received = b.speaker.received(&a.name()).await;
    assert_eq!(received[0].attributes.communities, [Community::GRACEFUL_SHUTDOWN]);
    assert_eq!(received[0].attributes.med, None);
}

#[tokio::test]
async fn owners_replace_their_own_routes_only() {
    let (a, b) = pair().await;
    a.speaker.originate("pods", originated(&b, &["10.1.0.0/28", "10.2.0.0/28"])).await;
    a.speaker.originate("egress", originated(&b, &["10.2.0.0/28", "10.3.0.0/28"])).await;
    b.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28", "10.3.0.0/28"]).await;
    a.speaker.originate("pods", Vec::new()).await;
    b.learned_prefixes(&["10.2.0.0/28", "10.3.0.0/28"]).await;
}

#[tokio::test]
async fn an_update_touches_only_what_it_names() {
    let (a, b) = pair().await;
    a.tell(&b, &["10.1.0.0/28", "10.2.0.0/28"]).await;
    b.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;
    let before = b.established(&a).await.counters.updates_received;
    let change = |text, attributes| RouteChange { peer: b.name(), prefix: prefix(text), attributes };
    let changes = vec![
        change("10.1.0.0/28", None),
        change("10.2.0.0/28", Some(Arc::default())),
        change("10.3.0.0/28", Some(Arc::default())),
        change("10.4.0.0/28", None),
    ];
    within_deadline(a.speaker.update("test", changes).await.flushed()).await;
    b.learned_prefixes(&["10.2.0.0/28", "10.3.0.0/28"]).await;
    let after = b.established(&a).await.counters.updates_received;
    assert_eq!(after - before, 2, "one withdraws, one announces; what stays is not told again");
    // The whole set of the owner is what it was with the changes.
    a.tell(&b, &["10.3.0.0/28"]).await;
    b.learned_prefixes(&["10.3.0.0/28"]).await;
}

/// A peer is told of a large set in pieces; End-of-RIB waits for the last of them, also where the peer comes late.
#[tokio::test]
async fn a_peer_that_comes_late_hears_everything_before_end_of_rib() {
    let (a, b) = (Node::new(1), Node::new(2));
    let count = 20_000_u32;
    let route = |number: u32| Originated {
        peer: b.name(),
        prefix: Prefix::v4((0x0a00_0000 + number).into(), 32).unwrap(),
        attributes: Arc::default(),
    };
    a.speaker.originate("test", (0..count).map(route).collect()).await;
    a.speaker.initial_sync_done();
    let all =
        ImportRule { ge: Some(0), le: Some(32), install: false, ..ImportRule::new(prefix("0.0.0.0/0")) };
    b.peers([(&a, PeerConfig { import: vec![all], ..b.waits_for(&a) })]).await;
    a.peers([(&b, a.towards(&b))]).await;
    let ipv4 = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].clone();
    let status = b.status(&a, |status| ipv4(status).end_of_rib_received).await;
    assert_eq!(ipv4(&status).accepted, count as usize);
}

#[tokio::test]
async fn routes_wait_for_their_peer() {
    let (a, b) = (Node::new(1), Node::new(2));
    let receipt = a.tell(&b, &["10.1.0.0/28"]).await;
    within_deadline(receipt.flushed()).await;
    b.peers([(&a, b.waits_for(&a))]).await;
    a.peers([(&b, a.towards(&b))]).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;
}

#[tokio::test]
async fn what_the_import_does_not_name_stays_out() {
    let (a, b) = pair().await;
    a.tell(&b, &["10.1.0.0/28", "192.0.2.0/24"]).await;
    let status = b.status(&a, |status| status.families[&AfiSafi::Ipv4Unicast].rejected == 1).await;
    assert_eq!(status.families[&AfiSafi::Ipv4Unicast].accepted, 1);
    b.learned_prefixes(&["10.1.0.0/28"]).await;
    // A, which imports nothing, takes nothing from B.
    b.tell(&a, &["10.9.0.0/28"]).await;
    let status = a.status(&b, |status| status.families[&AfiSafi::Ipv4Unicast].rejected == 1).await;
    assert_eq!(status.families[&AfiSafi::Ipv4Unicast].accepted, 0);
    assert!(a.speaker.received(&b.name()).await.is_empty());
}

#[tokio::test]
async fn a_wider_import_asks_again_without_a_reset() {
    let (a, b) = pair().await;
    a.tell(&b, &["10.1.0.0/28", "192.0.2.0/24"]).await;
    b.status(&a, |status| status.families[&AfiSafi::Ipv4Unicast].rejected == 1).await;
    let mut wider = b.waits_for(&a);
    wider.import.push(ImportRule::new(prefix("192.0.2.0/24")));
    b.peers([(&a, wider)]).await;
    b.learned_prefixes(&["10.1.0.0/28", "192.0.2.0/24"]).await;
    b.peers([(&a, PeerConfig { import: Vec::new(), ..b.waits_for(&a) })]).await;
    b.learned_prefixes(&[]).await;
    assert_eq!(b.established(&a).await.counters.established, 1);
}

#[tokio::test]
async fn communities_and_the_as_path_decide_and_a_change_of_it_resets_nothing() {
    let (a, b) = pair().await;
    let community = |value: u32| Community((64513 << 16) | value);
    // .1 and .2 differ in their community, .3 has a longer path.
    let route = |prefix_text: &str, value, as_path_prepend| {
        let communities = vec![community(value), Community::NO_EXPORT];
        let attributes = OriginAttributes { communities, as_path_prepend, ..OriginAttributes::default() };
        Originated { peer: b.name(), prefix: prefix(prefix_text), attributes: Arc::new(attributes) }
    };
    let routes = vec![route("10.1.0.0/28", 1, 0), route("10.2.0.0/28", 2, 0), route("10.3.0.0/28", 1, 3)];
    a.speaker.originate("test", routes).await;
    b.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28", "10.3.0.0/28"]).await;
    let ten = ImportRule { le: Some(32), ..ImportRule::new(prefix("10.0.0.0/8")) };
    let takes = |import| PeerConfig { import, ..b.waits_for(&a) };
    let short = AsPathFilter { max_length: Some(1), ..AsPathFilter::default() };

    let by_community = ImportRule { communities: vec![community(1)], local_pref: Some(300), ..ten.clone() };
    let peers = [(a.name(), takes(vec![by_community.clone()]))];
    let changes = b.speaker.apply(peers.into()).await.unwrap();
    assert_eq!(changes[0].effect, Effect::Refreshed { fields: vec!["import"] });
    b.learned_prefixes(&["10.1.0.0/28", "10.3.0.0/28"]).await;
    assert!(b.speaker.received(&a.name()).await.iter().all(|route| route.attributes.local_pref == Some(300)));

    // 10.2.0.0/28 was refused, so is not held: only the router's answer to a refresh brings it.
    b.peers([(&a, takes(vec![ImportRule { as_path: short, ..ten.clone() }]))]).await;
    b.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;
    assert!(b.speaker.received(&a.name()).await.iter().all(|route| route.attributes.local_pref.is_none()));

    let not_those = ImportRule { action: Action::Reject, ..by_community };
    b.peers([(&a, takes(vec![not_those, ten]))]).await;
    b.learned_prefixes(&["10.2.0.0/28"]).await;
    assert_eq!(b.established(&a).await.counters.established, 1);
    assert_eq!(a.established(&b).await.counters.established, 1);
}

#[tokio::test]
async fn two_equal_paths_are_both_learned() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    a.peers([(&b, a.waits_for(&b)), (&c, a.waits_for(&c))]).await;
    for node in [&b, &c] {
        node.peers([(&a, node.towards(&a))]).await;
        node.tell(&a, &["10.0.0.0/8"]).await;
    }
    let learned = a.learned(|learned| learned.values().any(|paths| paths.len() == 2)).await;
    let hops: Vec<_> = learned[&prefix("10.0.0.0/8")].iter().map(|path| path.next_hop).collect();
    assert_eq!(hops, [b.address(), c.address()]);
    // A longer path is no equal.
    let attributes = Arc::new(OriginAttributes { as_path_prepend: 1, ..OriginAttributes::default() });
    let longer = Originated { peer: a.name(), prefix: prefix("10.0.0.0/8"), attributes };
    c.speaker.originate("test", vec![longer]).await;
    a.learned(|learned| learned.values().all(|paths| paths.len() == 1 && paths[0].peer == b.name())).await;
}

#[tokio::test]
async fn a_family_without_a_next_hop_says_so() {
    let (a, b) = (Node::new(1), Node::new(2));
    let both = |config| PeerConfig { families: Families::ALL, ..config };
    b.peers([(&a, both(b.waits_for(&a)))]).await;
    a.peers([(&b, both(a.towards(&b)))]).await;
    a.tell(&b, &["10.1.0.0/28", "2001:db8::/64"]).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;
    let status = a.established(&b).await;
    let v6 = &status.families[&AfiSafi::Ipv6Unicast];
    // Loopback has no global IPv6 address.
    assert!(v6.not_advertised.as_ref().is_some_and(|reason| reason.contains("IPv6 address")), "{v6:?}");
    assert_eq!((v6.originated, v6.advertised), (1, 0));
    assert_eq!(status.families[&AfiSafi::Ipv4Unicast].not_advertised, None);
    // It gets one, and the session need not be touched for that.
    ip("address add 2001:db8:ffff::1/128 dev lo nodad");
    a.tell(&b, &["10.1.0.0/28", "2001:db8::/64"]).await;
    a.tell(&b, &["2001:db8::/64"]).await;
    let advertised = |status: &PeerStatus| status.families[&AfiSafi::Ipv6Unicast].advertised == 1;
    assert_eq!(a.status(&b, advertised).await.counters.established, 1);
    let global = "2001:db8:ffff::1".parse().unwrap();
    let sent = a.speaker.advertised(&b.name()).await;
    assert_eq!(sent[0].next_hop, NextHop::V6 { global, link_local: None });
}

#[tokio::test]
async fn a_session_over_ipv6_carries_both_families() {
    let (a, b) = (Node::new(1), Node::new(2));
    ip("address add 2001:db8::1/128 dev lo nodad\naddress add 2001:db8::2/128 dev lo nodad");
    let over_ipv6 = |config: PeerConfig, local: &str, peer: &str| PeerConfig {
        peer_address: peer.parse().unwrap(),
        local_address: Some(local.parse().unwrap()),
        families: Families::ALL,
        password: Some(Password::new(b"the same").unwrap()),
        ttl_security: Some(1),
        ..config
    };
    let mut to_a = over_ipv6(b.waits_for(&a), "2001:db8::2", "2001:db8::1");
    to_a.import.push(ImportRule { le: Some(128), ..ImportRule::new(prefix("fd00::/8")) });
    b.peers([(&a, to_a)]).await;
    a.peers([(&b, over_ipv6(a.towards(&b), "2001:db8::1", "2001:db8::2"))]).await;
    a.tell(&b, &["10.1.0.0/28", "fd00:1::/64"]).await;
    let learned = b.learned(|learned| learned.len() == 2).await;
    let hops: Vec<String> = learned.values().map(|paths| paths[0].next_hop.to_string()).collect();
    // For IPv4 the first address of the interface that owns ours.
    assert_eq!(hops, ["192.0.2.1", "2001:db8::1"]);
}

#[tokio::test]
async fn no_more_than_the_limit_leaves_and_the_status_says_so() {
    let (a, b) = (Node::new(1), Node::new(2));
    b.peers([(&a, b.waits_for(&a))]).await;
    let limited = |limit| PeerConfig { max_prefixes_out: limit, ..a.towards(&b) };
    a.peers([(&b, limited(Some(2)))]).await;
    a.tell(&b, &["10.1.0.0/28", "10.2.0.0/28", "10.3.0.0/28"]).await;
    b.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;
    let limit = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].not_advertised.is_some();
    a.status(&b, limit).await;
    // A lower prefix pushes the highest out.
    a.tell(&b, &["10.0.0.0/28", "10.1.0.0/28", "10.2.0.0/28"]).await;
    b.learned_prefixes(&["10.0.0.0/28", "10.1.0.0/28"]).await;
    a.peers([(&b, limited(None))]).await;
    b.learned_prefixes(&["10.0.0.0/28", "10.1.0.0/28", "10.2.0.0/28"]).await;
    assert_eq!(a.status(&b, |status| !limit(status)).await.counters.established, 1);
}

#[tokio::test]
async fn too_many_prefixes_end_the_session() {
    let (a, b) = (Node::new(1), Node::new(2));
    b.peers([(&a, PeerConfig { max_prefixes_in: Some(1), ..b.waits_for(&a) })]).await;
    a.peers([(&b, a.towards(&b))]).await;
    a.tell(&b, &["10.1.0.0/28"]).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;
    a.tell(&b, &["10.1.0.0/28", "10.2.0.0/28"]).await;
    let status = b.status(&a, |status| status.state == State::Idle && status.counters.lost == 1).await;
    assert!(status.last_error.is_some_and(|(error, _)| error.contains("more than 1 prefixes")));
    b.learned_prefixes(&[]).await;
    let told = |status: &PeerStatus| {
        status.last_error.as_ref().is_some_and(|(error, _)| error.contains("Maximum Number of Prefixes"))
    };
    a.status(&b, told).await;
    // A higher limit need not wait for the end of the pause.
    b.peers([(&a, PeerConfig { max_prefixes_in: Some(2), ..b.waits_for(&a) })]).await;
    b.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;
}

#[tokio::test]
async fn a_big_table_arrives_whole_and_its_receipt_means_it() {
    let (a, b) = pair().await;
    let attributes = Arc::new(OriginAttributes::default());
    let routes: Vec<Originated> = (0..20_000_u32)
        .map(|n| Originated {
            peer: b.name(),
            prefix: prefix(&format!("10.{}.{}.{}/32", n >> 16, (n >> 8) & 255, n & 255)),
            attributes: attributes.clone(),
        })
        .collect();
    let receipt = a.speaker.originate("test", routes).await;
    within_deadline(receipt.flushed()).await;
    assert!(receipt.is_flushed());
    let sent = a.established(&b).await;
    assert_eq!(sent.families[&AfiSafi::Ipv4Unicast].advertised, 20_000);
    assert!(sent.counters.updates_sent < 40, "{} UPDATEs", sent.counters.updates_sent);
    b.learned(|learned| learned.len() == 20_000).await;
    let next_hop = b.speaker.received(&a.name()).await[0].next_hop;
    assert_eq!(next_hop, NextHop::V4("192.0.2.1".parse().unwrap()));
}
