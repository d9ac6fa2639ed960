//! Peers that are not configured one by one: whoever connects from within a range.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use plainroute_bgp::{AfiSafi, Asn, session::State};
use plainroute_speaker::{
    Effect, ListenRange, OriginAttributes, Password, PeerConfig, PeerName, PeerStatus, RouteChange,
    SpeakerConfig, StopMode,
};

use crate::network::{Node, ip, prefix, wait_for};

/// All callers are in one AS, which is what the range expects.
const THEIRS: u32 = 64600;

/// How `hub` waits for whoever connects from within a prefix.
fn range(hub: &Node, within: &str) -> PeerConfig {
    let any = if within.contains(':') { "::" } else { "0.0.0.0" };
    PeerConfig {
        peer_asn: Asn::new(THEIRS).unwrap(),
        peer_address: any.parse().unwrap(),
        local_address: None,
        listen_range: Some(ListenRange::new(prefix(within), 64)),
        ..hub.waits_for(hub)
    }
}

fn at_most(most: usize, config: PeerConfig) -> PeerConfig {
    let range = config.listen_range.map(|range| ListenRange { max_peers: most, ..range });
    PeerConfig { listen_range: range, ..config }
}

fn signed(password: &str, config: PeerConfig) -> PeerConfig {
    PeerConfig { password: Some(Password::new(password.as_bytes()).unwrap()), ..config }
}

/// How `node` connects to the hub.
fn calls(node: &Node, hub: &Node) -> PeerConfig {
    PeerConfig { local_asn: Asn::new(THEIRS).unwrap(), ..node.towards(hub) }
}

async fn call(node: &Node, hub: &Node) {
    node.peers([(hub, calls(node, hub))]).await;
}

async fn apply<const N: usize>(hub: &Node, peers: [(&str, PeerConfig); N]) -> BTreeMap<String, Effect> {
    let peers = peers.into_iter().map(|(name, config)| (PeerName::from(name), config)).collect();
    let changes = hub.speaker.apply(peers).await.unwrap();
    changes.into_iter().map(|change| (change.peer.to_string(), change.effect)).collect()
}

async fn status(node: &Node, name: &str, met: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
    let name = PeerName::from(name);
    let peers = wait_for(node.speaker.peers(), |peers| peers.get(&name).is_some_and(&met)).await;
    peers[&name].clone()
}

async fn up(node: &Node, name: &str) -> PeerStatus {
    status(node, name, |status| status.state == State::Established).await
}

/// Waits until these are all the peers.
async fn peers_are(node: &Node, names: &[&str]) {
    wait_for(node.speaker.peers(), |peers| peers.keys().map(PeerName::as_str).eq(names.iter().copied()))
        .await;
}

async fn refused(node: &Node, hub: &Node) -> PeerStatus {
    let status = node.status(hub, |status| status.last_error.is_some()).await;
    assert_eq!(status.counters.established, 0, "{status:?}");
    status
}

#[tokio::test]
async fn whoever_connects_from_within_is_a_peer_and_nobody_from_outside() {
    let (hub, a, b, outside) = (Node::new(9), Node::new(1), Node::new(2), Node::new(99));
    apply(&hub, [("range", range(&hub, "192.0.2.0/29"))]).await;
    peers_are(&hub, &["range"]).await;
    call(&a, &hub).await;
    call(&outside, &hub).await;
    let first = up(&hub, "range@192.0.2.1").await;
    assert_eq!((first.peer_address, first.listening), (a.address(), None));
    assert_eq!(first.member_of, Some(PeerName::from("range")));

    let route = |text: &str| RouteChange {
        peer: PeerName::from("range"),
        prefix: prefix(text),
        attributes: Some(OriginAttributes::default().into()),
    };
    hub.speaker.update("test", vec![route("10.9.0.0/28")]).await.flushed().await;
    let ten = |node: &Node| PeerConfig { import: hub.waits_for(&hub).import, ..calls(node, &hub) };
    a.peers([(&hub, ten(&a))]).await;
    a.learned_prefixes(&["10.9.0.0/28"]).await;
    // Who comes later is told what there is, and a change goes to all.
    b.peers([(&hub, ten(&b))]).await;
    b.learned_prefixes(&["10.9.0.0/28"]).await;
    hub.speaker.update("test", vec![route("10.9.1.0/28")]).await.flushed().await;
    for node in [&a, &b] {
        node.learned_prefixes(&["10.9.0.0/28", "10.9.1.0/28"]).await;
    }
    hub.speaker.originate("test", Vec::new()).await.flushed().await;
    for node in [&a, &b] {
        node.learned_prefixes(&[]).await;
    }
    // The import rules of the range hold for each.
    a.tell(&hub, &["10.1.0.0/28", "172.20.0.0/28"]).await;
    b.tell(&hub, &["10.2.0.0/28"]).await;
    hub.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;
    let received = hub.speaker.received(&PeerName::from("range@192.0.2.2")).await;
    assert_eq!(received.iter().map(|route| route.prefix).collect::<Vec<_>>(), [prefix("10.2.0.0/28")]);

    refused(&outside, &hub).await;
    peers_are(&hub, &["range", "range@192.0.2.1", "range@192.0.2.2"]).await;
}

#[tokio::test]
async fn more_than_there_is_room_for_are_refused_and_counted() {
    let (hub, a, b) = (Node::new(9), Node::new(1), Node::new(2));
    let wide = range(&hub, "192.0.2.0/24");
    apply(&hub, [("range", at_most(1, wide.clone()))]).await;
    call(&a, &hub).await;
    up(&hub, "range@192.0.2.1").await;
    call(&b, &hub).await;
    let full = status(&hub, "range", |status| status.listening.is_some_and(|it| it.refused > 1)).await;
    assert_eq!(full.listening.unwrap().peers, 1);
    refused(&b, &hub).await;

    let effects = apply(&hub, [("range", at_most(2, wide))]).await;
    assert_eq!(effects["range"], Effect::Silent { fields: vec!["listenRange"] });
    up(&hub, "range@192.0.2.2").await;
    let first = up(&hub, "range@192.0.2.1").await;
    assert_eq!((first.counters.established, first.counters.lost), (1, 0), "the other session went on");
}

#[tokio::test]
async fn an_address_goes_before_a_range_and_a_longer_range_before_a_shorter() {
    let (hub, a, b, c) = (Node::new(9), Node::new(1), Node::new(2), Node::new(99));
    let ranges = || [("longer", range(&hub, "192.0.2.0/30")), ("range", range(&hub, "192.0.2.0/24"))];
    let exact = PeerConfig { peer_asn: Asn::new(THEIRS).unwrap(), ..hub.waits_for(&a) };
    let [longer, shorter] = ranges();
    apply(&hub, [("exact", exact.clone()), longer, shorter]).await;
    for node in [&a, &b, &c] {
        call(node, &hub).await;
    }
    for name in ["exact", "longer@192.0.2.2", "range@192.0.2.99"] {
        up(&hub, name).await;
    }
    peers_are(&hub, &["exact", "longer", "longer@192.0.2.2", "range", "range@192.0.2.99"]).await;

    // Without its own configuration it is one of the range, and the other way round.
    apply(&hub, ranges()).await;
    up(&hub, "longer@192.0.2.1").await;
    let [longer, shorter] = ranges();
    let effects = apply(&hub, [("exact", exact), longer, shorter]).await;
    assert_eq!(effects["longer"], Effect::Unchanged);
    up(&hub, "exact").await;
    peers_are(&hub, &["exact", "longer", "longer@192.0.2.2", "range", "range@192.0.2.99"]).await;
    let other = up(&hub, "longer@192.0.2.2").await;
    assert_eq!((other.counters.established, other.counters.lost), (1, 0), "{other:?}");
}

#[tokio::test]
async fn a_password_holds_for_the_whole_range() {
    let (hub, a, b, c) = (Node::new(9), Node::new(1), Node::new(2), Node::new(3));
    let wide = range(&hub, "192.0.2.0/24");
    // One that cannot be had lets nobody in, signed or not.
    let blocked = PeerConfig { blocked: Some("the secret is missing".into()), ..wide.clone() };
    apply(&hub, [("range", blocked)]).await;
    c.peers([(&hub, calls(&c, &hub))]).await;
    refused(&c, &hub).await;

    apply(&hub, [("range", signed("right", wide.clone()))]).await;
    a.peers([(&hub, signed("right", calls(&a, &hub)))]).await;
    b.peers([(&hub, signed("wrong", calls(&b, &hub)))]).await;
    up(&hub, "range@192.0.2.1").await;
    let says = |status: &PeerStatus, text: &str| {
        status.last_error.as_ref().is_some_and(|(error, _)| error.contains(text))
    };
    b.status(&hub, |status| says(status, "does the password differ there?")).await;
    c.status(&hub, |status| says(status, "no answer")).await;
    peers_are(&hub, &["range", "range@192.0.2.1"]).await;

    // Negative control: it is the password that kept them out.
    let effects = apply(&hub, [("range", signed("wrong", wide.clone()))]).await;
    assert_eq!(effects["range"], Effect::Reset { fields: vec!["password"] });
    up(&hub, "range@192.0.2.2").await;
    status(&hub, "range@192.0.2.1", |status| status.state != State::Established).await;
    a.status(&hub, |status| says(status, "no answer")).await;
    apply(&hub, [("range", wide)]).await;
    up(&hub, "range@192.0.2.3").await;
}

#[tokio::test]
async fn a_range_of_ipv6_has_a_password_too() {
    let (hub, a, b) = (Node::new(9), Node::new(1), Node::new(2));
    ip("address add 2001:db8::9/128 dev lo nodad\naddress add 2001:db8::1/128 dev lo nodad\n\
        address add 2001:db8::2/128 dev lo nodad\n");
    let v6 = |node: &Node, password: &str| {
        let address = |node: &Node| format!("2001:db8::{}", node.number).parse().unwrap();
        let config = calls(node, &hub);
        signed(
            password,
            PeerConfig { peer_address: address(&hub), local_address: Some(address(node)), ..config },
        )
    };
    let four = range(&hub, "192.0.2.0/24");
    apply(&hub, [("four", four), ("six", signed("right", range(&hub, "2001:db8::/64")))]).await;
    a.peers([(&hub, v6(&a, "right"))]).await;
    b.peers([(&hub, v6(&b, "wrong"))]).await;
    up(&hub, "six@2001:db8::1").await;
    b.status(&hub, |status| status.last_error.is_some()).await;
    peers_are(&hub, &["four", "six", "six@2001:db8::1"]).await;
}

#[tokio::test]
async fn a_range_that_shrinks_or_goes_takes_its_peers_along() {
    let (hub, a, b) = (Node::new(9), Node::new(1), Node::new(2));
    apply(&hub, [("range", range(&hub, "192.0.2.0/24"))]).await;
    for node in [&a, &b] {
        call(node, &hub).await;
        up(node, hub.name().as_str()).await;
    }
    up(&hub, "range@192.0.2.2").await;
    a.tell(&hub, &["10.1.0.0/28"]).await;
    b.tell(&hub, &["10.2.0.0/28"]).await;
    hub.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;

    let effects = apply(&hub, [("range", range(&hub, "192.0.2.2/31"))]).await;
    assert_eq!(effects["range"], Effect::Silent { fields: vec!["listenRange"] });
    hub.learned_prefixes(&["10.2.0.0/28"]).await;
    peers_are(&hub, &["range", "range@192.0.2.2"]).await;
    a.status(&hub, |status| status.counters.lost == 1).await;
    assert_eq!(up(&hub, "range@192.0.2.2").await.counters.lost, 0);

    let effects = apply(&hub, []).await;
    assert_eq!(effects["range"], Effect::Removed);
    peers_are(&hub, &[]).await;
    hub.learned_prefixes(&[]).await;
    let error = b.status(&hub, |status| status.counters.lost == 1).await.last_error;
    assert!(error.is_some());
}

#[tokio::test]
async fn one_that_restarts_is_kept_for_its_time_and_then_no_longer() {
    const RESTART: u16 = 2;
    let (hub, a, b) = (Node::new(9), Node::new(1), Node::new(2));
    let wide = range(&hub, "192.0.2.0/24");
    let listen = wide.listen_range.map(|range| ListenRange { linger: Duration::from_millis(50), ..range });
    apply(&hub, [("range", PeerConfig { listen_range: listen, ..wide })]).await;
    let restarts = |node: &Node| {
        let config = calls(node, &hub);
        let restart = config.graceful_restart.map(|mut restart| {
            restart.restart_time = RESTART;
            restart
        });
        PeerConfig { graceful_restart: restart, ..config }
    };
    a.peers([(&hub, restarts(&a))]).await;
    // Who has no graceful restart leaves nothing behind.
    b.peers([(&hub, PeerConfig { graceful_restart: None, ..restarts(&b) })]).await;
    a.tell(&hub, &["10.1.0.0/28"]).await;
    b.tell(&hub, &["10.2.0.0/28"]).await;
    hub.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;

    let (again, parting) = (a.clone(), b.speaker.clone());
    a.speaker.stop(StopMode::Retain).await;
    parting.stop(StopMode::Retain).await;
    let kept = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].stale == 1;
    status(&hub, "range@192.0.2.1", kept).await;
    peers_are(&hub, &["range", "range@192.0.2.1"]).await;
    assert_eq!(status(&hub, "range@192.0.2.1", |_| true).await.counters.established, 1);

    // It comes back in time, and is the same peer.
    let a = again.again(SpeakerConfig { restarting: true, ..SpeakerConfig::default() });
    a.peers([(&hub, restarts(&a))]).await;
    a.tell(&hub, &["10.1.0.0/28"]).await;
    a.speaker.initial_sync_done();
    let back = status(&hub, "range@192.0.2.1", |status| status.counters.established == 2).await;
    assert_eq!(back.counters.lost, 1, "{back:?}");
    hub.learned(|learned| learned.values().flatten().all(|path| !path.stale)).await;

    let left = Instant::now();
    a.speaker.stop(StopMode::Retain).await;
    peers_are(&hub, &["range"]).await;
    assert!(left.elapsed() >= Duration::from_secs(u64::from(RESTART)), "{:?}", left.elapsed());
    hub.learned_prefixes(&[]).await;
}
