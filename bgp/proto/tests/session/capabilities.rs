//! What two sessions make of the capabilities that both or only one of them offers.
use std::time::Duration;

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Asn, Families, Prefix,
    session::{DownReason, Event, Negotiated, SessionConfig},
    wire::{
        AsPath, Capability, CodecContext, EncodedAttributes, NextHop, Open, PathAttributes, Role,
        RouteRefresh, Update, write_reach,
    },
};

use crate::pair::{A, B, Pair, config};

const SECOND: Duration = Duration::from_secs(1);
const V4: AfiSafi = AfiSafi::Ipv4Unicast;

fn a() -> SessionConfig {
    config(1, 2, 10)
}

fn b() -> SessionConfig {
    config(2, 1, 20)
}

fn established(a: SessionConfig, b: SessionConfig) -> Pair {
    let mut pair = Pair::new(a, b);
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair
}

fn negotiated(pair: &Pair, side: usize) -> &Negotiated {
    pair.sides[side].session.established().expect("established").1
}

fn sent(pair: &Pair, side: usize) -> Vec<(u8, u8)> {
    let notifications = pair.sides[side].failures().into_iter().filter_map(|reason| match reason {
        DownReason::NotificationSent(sent) => Some((sent.code, sent.subcode)),
        _ => None,
    });
    notifications.collect()
}

/// An UPDATE of the longest kind that `context` allows; how many prefixes are in it, and its bytes.
fn long_update(context: &CodecContext) -> (usize, BytesMut) {
    let attributes =
        PathAttributes { as_path: AsPath::sequence([Asn::new(2).unwrap()]), ..PathAttributes::default() };
    let attributes = EncodedAttributes::new(&attributes, context);
    let prefixes = (0..20_000_u32).map(|n| Prefix::v4((0x0a00_0000 + (n << 8)).into(), 24).unwrap());
    let mut bytes = BytesMut::new();
    let next_hop = NextHop::V4([192, 0, 2, 1].into());
    let count = write_reach(V4, &attributes, &next_hop, prefixes, context, &mut bytes);
    (count, bytes)
}

fn updates(pair: &Pair, side: usize) -> Vec<&Update> {
    let updates = pair.sides[side].events.iter().filter_map(|event| match event {
        Event::Update(update, _) => Some(update),
        _ => None,
    });
    updates.collect()
}

#[test]
fn extended_messages_are_written_to_who_takes_them_rfc_8654() {
    let plain = |config| SessionConfig { extended_messages: false, ..config };
    for (a, b, to_a, to_b) in [
        (a(), b(), 65535, 65535),
        (plain(a()), b(), 4096, 65535),
        (a(), plain(b()), 65535, 4096),
        (plain(a()), plain(b()), 4096, 4096),
    ] {
        let pair = established(a, b);
        assert_eq!(negotiated(&pair, A).longest_received, to_a);
        assert_eq!(negotiated(&pair, B).context.max_message_length, to_a);
        assert_eq!(negotiated(&pair, B).longest_received, to_b);
        assert_eq!(negotiated(&pair, A).context.max_message_length, to_b);
    }
}

#[test]
fn an_extended_update_arrives_whole_and_is_refused_where_it_was_not_offered_rfc_8654() {
    let mut pair = established(a(), b());
    let (count, bytes) = long_update(&negotiated(&pair, B).context);
    assert!(bytes.len() > 65_000 && count > 16_000, "{count} prefixes in {} octets", bytes.len());
    pair.inject(A, &bytes);
    pair.run_for(SECOND);
    let received = updates(&pair, A);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].reach[0].nlri.len(), count);

    // Section 4: who did not offer it answers with Bad Message Length.
    let mut pair = established(SessionConfig { extended_messages: false, ..a() }, b());
    pair.inject(A, &bytes);
    pair.run_until(SECOND, |pair| !pair.a().downs().is_empty());
    assert!(matches!(pair.a().downs()[0], DownReason::NotificationSent(n) if (n.code, n.subcode) == (1, 2)));
}

#[test]
fn an_open_stays_within_4096_octets_whatever_is_offered_rfc_8654() {
    let mut header = vec![0xff; 16];
    header.extend([0x10, 0x01, 1]);
    let mut pair = established(a(), b());
    pair.inject(A, &header);
    pair.run_until(SECOND, |pair| !pair.a().downs().is_empty());
    assert!(matches!(pair.a().downs()[0], DownReason::NotificationSent(n) if (n.code, n.subcode) == (1, 2)));
}

#[test]
fn roles_that_fit_come_up_and_others_are_refused_rfc_9234() {
    use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
    let all = [Provider, RouteServer, RouteServerClient, Customer, Peer];
    let with = |role, config| SessionConfig { role: Some(role), ..config };
    for ours in all {
        for theirs in all {
            let fits = matches!(
                (ours, theirs),
                (Provider, Customer)
                    | (Customer, Provider)
                    | (RouteServer, RouteServerClient)
                    | (RouteServerClient, RouteServer)
                    | (Peer, Peer)
            );
            let mut pair = Pair::new(with(ours, a()), with(theirs, b()));
            pair.start_both();
            pair.run_for(SECOND);
            assert_eq!(pair.established(), fits, "{ours:?} with {theirs:?}");
            if !fits {
                let all = [sent(&pair, A), sent(&pair, B)].concat();
                assert!(all.contains(&(2, 11)), "{ours:?} with {theirs:?}: {all:?}");
            }
        }
    }
}

#[test]
fn a_peer_without_a_role_is_refused_only_in_strict_mode_rfc_9234() {
    let ours = SessionConfig { role: Some(Role::Customer), ..a() };
    assert_eq!(negotiated(&established(ours.clone(), b()), A).role, Some(Role::Customer));
    let mut pair = Pair::new(SessionConfig { role_required: true, ..ours }, b());
    pair.start_both();
    pair.run_for(SECOND);
    assert!(!pair.established());
    assert!(sent(&pair, A).contains(&(2, 11)));
}

#[test]
fn roles_are_for_external_peers_only_rfc_9234() {
    let internal = |id| SessionConfig { role: Some(Role::Provider), role_required: true, ..config(1, 1, id) };
    let pair = established(internal(10), internal(20));
    assert_eq!(negotiated(&pair, A).role, None);
    assert_eq!(negotiated(&pair, A).peer_open.roles().count(), 0);
}

#[test]
fn two_roles_at_once_are_a_mismatch_rfc_9234() {
    let mut pair =
        Pair::new(SessionConfig { role: Some(Role::Peer), ..a() }, SessionConfig { passive: true, ..b() });
    pair.start(A);
    let id = pair.accept_stranger(A);
    let open = Open {
        capabilities: vec![Capability::Role(Role::Peer), Capability::Role(Role::Customer)],
        ..open_of_b()
    };
    let mut bytes = BytesMut::new();
    open.encode(&mut bytes);
    pair.sides[A].session.handle_input(pair.now, id, &mut bytes);
    pair.drain(A);
    assert_eq!(sent(&pair, A), [(2, 11)]);
}

fn open_of_b() -> Open {
    let pair = established(a(), b());
    negotiated(&pair, A).peer_open.clone()
}

#[test]
fn path_identifiers_are_used_where_one_gives_and_the_other_takes_rfc_7911() {
    let only_v4 = Families::from_iter([V4]);
    let receiver = SessionConfig { add_path_receive: Families::ALL, ..a() };
    let sender = SessionConfig { add_path_send: only_v4, ..b() };
    let pair = established(receiver.clone(), sender);
    assert_eq!(negotiated(&pair, A).context.add_path_receive, only_v4);
    assert_eq!(negotiated(&pair, A).context.add_path_send, Families::NONE);
    assert_eq!(negotiated(&pair, B).context.add_path_send, only_v4);
    // Both receive, nobody sends.
    let pair = established(receiver.clone(), SessionConfig { add_path_receive: Families::ALL, ..b() });
    assert_eq!(negotiated(&pair, A).context.add_path_receive, Families::NONE);
}

#[test]
fn a_path_identifier_of_the_sender_reaches_the_receiver_rfc_7911() {
    let receiver = SessionConfig { add_path_receive: Families::ALL, ..a() };
    let mut pair = established(receiver, SessionConfig { add_path_send: Families::ALL, ..b() });
    let (_, bytes) = long_update(&negotiated(&pair, B).context);
    pair.inject(A, &bytes);
    pair.run_for(SECOND);
    let update = updates(&pair, A)[0];
    assert!(update.reach[0].nlri.iter().all(|nlri| nlri.path_id == Some(1)));
    assert!(pair.established());
}

fn refresh(subtype: u8) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    RouteRefresh { family: V4, subtype }.encode(&mut bytes);
    bytes.to_vec()
}

#[test]
fn without_both_offers_the_marks_of_a_refresh_mean_nothing_rfc_7313() {
    let mut pair = established(SessionConfig { enhanced_refresh: false, ..a() }, b());
    assert!(!negotiated(&pair, A).context.enhanced_refresh && !negotiated(&pair, B).context.enhanced_refresh);
    pair.inject(A, &refresh(RouteRefresh::BEGIN));
    pair.run_for(SECOND);
    assert!(!pair.a().events.iter().any(|event| matches!(event, Event::RefreshBegan(_))));
    assert!(pair.established() && negotiated(&pair, A).route_refresh);
}

#[test]
fn the_marks_of_a_refresh_are_handed_up_rfc_7313() {
    let mut pair = established(a(), b());
    assert!(negotiated(&pair, A).context.enhanced_refresh);
    pair.inject(A, &refresh(RouteRefresh::BEGIN));
    pair.inject(A, &refresh(RouteRefresh::END));
    pair.inject(A, &refresh(77));
    pair.run_for(SECOND);
    let marks: Vec<&Event> = pair
        .a()
        .events
        .iter()
        .filter(|e| matches!(e, Event::RefreshBegan(_) | Event::RefreshEnded(_) | Event::RefreshRequested(_)))
        .collect();
    assert_eq!(marks, [&Event::RefreshBegan(V4), &Event::RefreshEnded(V4)]);
    assert!(pair.established(), "an unknown subtype is ignored (section 5)");
}
