//! Peers that come, change and go, and what each change costs.
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Families, HoldTime, RouterId,
    rib::{AdjRibOut, Route},
    session::State,
    wire::{
        AsPath, AsPathSegment, Capability, CodecContext, NextHop, Notification, Open, PathAttributes,
        SegmentKind, encode_keepalive,
    },
};
use plainroute_speaker::{ApplyError, Effect, Password, PeerChange, PeerConfig, PeerStatus, StopMode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::network::{Node, free_port, pair, prefix, within_deadline};

#[tokio::test]
async fn peers_come_change_and_go_without_touching_the_others() {
    let (a, b) = pair().await;
    let c = Node::new(3);
    c.peers([(&a, c.waits_for(&a))]).await;
    let (to_b, to_c) = (a.towards(&b), a.towards(&c));
    let apply = async |peers: Vec<(&Node, &PeerConfig)>| -> Vec<(String, Effect)> {
        let peers = peers.into_iter().map(|(node, config)| (node.name(), config.clone())).collect();
        let changes = a.speaker.apply(peers).await.unwrap();
        changes.into_iter().map(|PeerChange { peer, effect }| (peer.to_string(), effect)).collect()
    };
    let (node_b, node_c) = (b.name().to_string(), c.name().to_string());

    let changes = apply(vec![(&b, &to_b), (&c, &to_c)]).await;
    assert_eq!(changes, [(node_b.clone(), Effect::Unchanged), (node_c.clone(), Effect::Added)]);
    a.established(&c).await;

    let changed = PeerConfig { hold_time: HoldTime::new(30).unwrap(), ..to_c.clone() };
    let changes = apply(vec![(&b, &to_b), (&c, &changed)]).await;
    let reset = Effect::Reset { fields: vec!["holdTimeSeconds"] };
    assert_eq!(changes, [(node_b.clone(), Effect::Unchanged), (node_c.clone(), reset)]);
    a.status(&c, |status| status.counters.established == 2).await;

    let silent = PeerConfig { keepalive: Some(Duration::from_secs(1)), ..changed };
    let changes = apply(vec![(&b, &to_b), (&c, &silent)]).await;
    assert_eq!(changes[1].1, Effect::Silent { fields: vec!["keepAliveTimeSeconds"] });

    let changes = apply(vec![(&b, &to_b)]).await;
    assert_eq!(changes, [(node_b, Effect::Unchanged), (node_c, Effect::Removed)]);
    c.status(&a, |status| status.counters.lost == 2 && status.state != State::Established).await;

    let status = a.established(&b).await;
    assert_eq!((status.counters.established, status.counters.lost), (1, 0), "the other session is as it was");
    assert_eq!(a.speaker.peers().borrow().len(), 1);
}

#[tokio::test]
async fn a_changed_peer_as_takes_effect() {
    let (a, b) = pair().await;
    let wrong = PeerConfig { peer_asn: a.asn(), ..a.towards(&b) };
    a.peers([(&b, wrong)]).await;
    let refused = |status: &PeerStatus| {
        status.last_error.as_ref().is_some_and(|(error, _)| error.contains("Bad Peer AS"))
    };
    a.status(&b, |status| refused(status) && status.negotiated.is_none()).await;
    a.peers([(&b, a.towards(&b))]).await;
    a.established(&b).await;
}

#[tokio::test]
async fn both_sides_may_connect_at_once() {
    let (a, b) = (Node::new(1), Node::new(2));
    let active = |from: &Node, to: &Node| PeerConfig { passive: false, ..from.waits_for(to) };
    a.peers([(&b, active(&a, &b))]).await;
    b.peers([(&a, active(&b, &a))]).await;
    a.established(&b).await;
    b.established(&a).await;
    a.tell(&b, &["10.1.0.0/28"]).await;
    b.tell(&a, &["10.2.0.0/28"]).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;
    a.learned_prefixes(&["10.2.0.0/28"]).await;
}

#[tokio::test]
async fn a_peer_that_comes_late_is_met() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.peers([(&b, a.towards(&b))]).await;
    let refused =
        |status: &PeerStatus| status.last_error.as_ref().is_some_and(|(error, _)| error.contains("refused"));
    a.status(&b, refused).await;
    b.peers([(&a, b.waits_for(&a))]).await;
    a.established(&b).await;
}

#[tokio::test]
async fn a_blocked_peer_stays_down_and_shows_why() {
    let (a, b) = pair().await;
    let blocked = PeerConfig { blocked: Some("the secret tor-a is missing".into()), ..a.towards(&b) };
    a.peers([(&b, blocked)]).await;
    let status = a.status(&b, |status| status.blocked.is_some() && status.state == State::Idle).await;
    assert_eq!(status.blocked.as_deref(), Some("the secret tor-a is missing"));
    b.status(&a, |status| status.counters.lost == 1).await;
    a.peers([(&b, a.towards(&b))]).await;
    a.established(&b).await;
}

#[tokio::test]
async fn a_connection_from_elsewhere_is_closed_unanswered() {
    let (a, b) = pair().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("192.0.2.99:0".parse().unwrap()).unwrap();
    let mut stranger = socket.connect((b.address(), b.port).into()).await.unwrap();
    let mut said = Vec::new();
    // The end or a reset; in either case not an octet before it.
    let _ = within_deadline(stranger.read_to_end(&mut said)).await;
    assert_eq!(said, [0; 0]);
    assert_eq!(b.established(&a).await.counters.established, 1);
}

/// What a peer says to become Established.
fn opening(node: &Node) -> BytesMut {
    let open = Open {
        asn: node.asn(),
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId::new(1).unwrap(),
        capabilities: vec![Capability::FourOctetAsn(node.asn())],
    };
    let mut bytes = BytesMut::new();
    open.encode(&mut bytes);
    encode_keepalive(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_the_receipt_and_nothing_piles_up() {
    let (a, b) = (Node::new(1), Node::new(2));
    // TCP itself shall hold little.
    std::fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 4096 4096").unwrap();
    let idle = PeerConfig { hold_time: HoldTime::DEFAULT, ..b.waits_for(&a) };
    b.peers([(&a, idle)]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind((a.address(), 0).into()).unwrap();
    let mut stream = socket.connect((b.address(), b.port).into()).await.unwrap();
    stream.write_all(&opening(&a)).await.unwrap();
    b.established(&a).await;

    let prefixes: Vec<String> =
        (0..40_000).map(|n| format!("10.{}.{}.{}/32", n >> 16, (n >> 8) & 255, n & 255)).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let receipt = b.tell(&a, &prefixes).await;
    let sent = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].advertised;
    let status = b.status(&a, |status| sent(status) > 0).await;
    assert!(sent(&status) < 20_000, "{} prefixes packed for a peer that reads none", sent(&status));
    assert!(!receipt.is_flushed());

    let reading = tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    within_deadline(receipt.flushed()).await;
    b.status(&a, |status| sent(status) == 40_000).await;
    reading.abort();
}

#[tokio::test]
async fn a_session_that_is_over_within_one_read_leaves_nothing_behind() {
    let (a, b) = (Node::new(1), Node::new(2));
    b.peers([(&a, b.waits_for(&a))]).await;
    // A's whole life at once: routes, and a NOTIFICATION behind them.
    let mut bytes = opening(&a);
    let mut rib = AdjRibOut::new();
    let as_path =
        AsPath { segments: vec![AsPathSegment { kind: SegmentKind::Sequence, asns: vec![a.asn()] }] };
    let attributes = PathAttributes { as_path, ..PathAttributes::default() };
    let IpAddr::V4(address) = a.address() else { unreachable!("nodes have IPv4 addresses") };
    rib.set_desired(prefix("10.1.0.0/28"), Some(Route::new(attributes, NextHop::V4(address))));
    rib.session_up(Families::ALL);
    while rib.poll_update(&CodecContext::default(), &mut bytes) {}
    Notification::bare(6, 4).encode(&mut bytes);

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((a.address(), 0).into()).unwrap();
    let mut stream = socket.connect((b.address(), b.port).into()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let status = b.status(&a, |status| status.counters.lost == 1).await;
    assert_eq!((status.counters.established, status.counters.updates_received), (1, 1));
    assert_eq!(status.families[&AfiSafi::Ipv4Unicast].accepted, 0);
    b.learned_prefixes(&[]).await;
    assert!(b.speaker.received(&a.name()).await.is_empty());
}

#[tokio::test]
async fn a_port_that_cannot_be_had_changes_nothing() {
    let (a, b) = pair().await;
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let peers = BTreeMap::from([(b.name(), PeerConfig { listen_port: port, ..a.towards(&b) })]);
    let error = a.speaker.apply(peers).await.unwrap_err();
    assert!(matches!(error, ApplyError::Listen { port: refused, .. } if refused == port), "{error}");
    assert_eq!(a.established(&b).await.counters.established, 1);
}

#[tokio::test]
async fn nonsense_is_refused_whole() {
    let (a, b) = (Node::new(1), Node::new(2));
    let refused = async |change: fn(&mut PeerConfig)| {
        let mut config = a.towards(&b);
        change(&mut config);
        a.speaker.apply(BTreeMap::from([(b.name(), config)])).await.expect_err("must be refused").to_string()
    };
    let both = |config: &mut PeerConfig| (config.ttl_security, config.ebgp_multihop) = (Some(1), 2);
    assert!(refused(both).await.contains("node-2: ttlSecurity excludes ebgpMultihop"));
    assert!(refused(|config| config.passive = true).await.contains("listenPort"));
    assert!(refused(|config| config.peer_address = "fe80::1".parse().unwrap()).await.contains("interface"));
    let twice = BTreeMap::from([(b.name(), a.towards(&b)), (a.name(), a.towards(&b))]);
    assert!(matches!(a.speaker.apply(twice).await, Err(ApplyError::SameAddress { .. })));
    assert!(a.speaker.peers().borrow().is_empty());
}

#[tokio::test]
async fn the_same_password_is_needed_on_both_sides() {
    let (a, b) = (Node::new(1), Node::new(2));
    let with = |password: &str, config| PeerConfig {
        password: Some(Password::new(password.as_bytes()).unwrap()),
        ..config
    };
    b.peers([(&a, with("right", b.waits_for(&a)))]).await;
    a.peers([(&b, with("wrong", a.towards(&b)))]).await;
    let unanswered =
        |status: &PeerStatus| status.last_error.as_ref().is_some_and(|(error, _)| error.contains("password"));
    let status = a.status(&b, unanswered).await;
    assert_eq!(status.counters.established, 0);
    a.peers([(&b, a.towards(&b))]).await;
    let silence = |status: &PeerStatus| {
        status.last_error.as_ref().is_some_and(|(error, _)| error.contains("no answer"))
    };
    assert_eq!(a.status(&b, silence).await.counters.established, 0);
    a.peers([(&b, with("right", a.towards(&b)))]).await;
    a.established(&b).await;
    // A new password on the running listener, then on the other side.
    b.peers([(&a, with("new", b.waits_for(&a)))]).await;
    a.peers([(&b, with("new", a.towards(&b)))]).await;
    a.status(&b, |status| status.state == State::Established && status.counters.established == 2).await;
}

#[tokio::test]
async fn ttl_security_lets_neighbours_in_and_others_not() {
    let (a, b) = (Node::new(1), Node::new(2));
    let secure = |config| PeerConfig { ttl_security: Some(1), ..config };
    b.peers([(&a, secure(b.waits_for(&a)))]).await;
    // Sent with TTL 1, a packet looks 255 hops away.
    a.peers([(&b, a.towards(&b))]).await;
    let silence = |status: &PeerStatus| {
        status.last_error.as_ref().is_some_and(|(error, _)| error.contains("no answer"))
    };
    assert_eq!(a.status(&b, silence).await.counters.established, 0);
    a.peers([(&b, secure(a.towards(&b)))]).await;
    assert_eq!(a.established(&b).await.counters.established, 1);
}

#[tokio::test]
async fn a_receipt_does_not_wait_for_who_is_not_there() {
    let (a, b) = pair().await;
    let absent = Node { port: free_port(), ..Node::new(9) };
    a.peers([(&b, a.towards(&b)), (&absent, a.towards(&absent))]).await;
    let receipt = a.tell(&absent, &["10.1.0.0/28"]).await;
    within_deadline(receipt.flushed()).await;
    b.speaker.clone().stop(StopMode::Retain).await;
    let receipt = a.tell(&b, &["10.1.0.0/28"]).await;
    within_deadline(receipt.flushed()).await;
    let receipt = a.tell(&b, &[]).await;
    a.peers([]).await;
    within_deadline(receipt.flushed()).await;
    a.speaker.clone().stop(StopMode::Withdraw).await;
    assert!(matches!(a.speaker.apply(BTreeMap::new()).await, Err(ApplyError::Stopped)));
    within_deadline(a.tell(&b, &[]).await.flushed()).await;
}

/// The word to leave and the end of its task's inputs come together; the word counts.
#[tokio::test]
async fn a_peer_that_is_removed_is_told_so() {
    for _ in 0..8 {
        let (a, b) = pair().await;
        b.peers([]).await;
        let told = |status: &PeerStatus| status.last_error.is_some();
        let (text, _) = a.status(&b, told).await.last_error.unwrap();
        assert!(text.contains("Peer De-configured"), "{text}");
        a.speaker.stop(StopMode::HardReset).await;
    }
}
