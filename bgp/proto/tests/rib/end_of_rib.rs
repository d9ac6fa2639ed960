//! When the End-of-RIB marker is told (RFC 4724), and when it must not be.
use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Families,
    rib::AdjRibOut,
    wire::{CodecContext, Frame, Message, RouteRefresh},
};

use super::peer::{Parsed, drain, prefix, route, v4, v6};

fn ends(messages: &[Parsed]) -> Vec<AfiSafi> {
    messages.iter().filter_map(|message| message.end_of_rib).collect()
}

fn say(rib: &mut AdjRibOut) -> Vec<Parsed> {
    drain(rib, &CodecContext::default())
}

#[test]
fn before_the_first_sync_routes_leave_but_no_end_of_rib() {
    let mut rib = AdjRibOut::new();
    rib.session_up(Families::ALL);
    rib.set_desired(prefix("10.0.0.1/32"), Some(route(1, v4(1))));
    let messages = say(&mut rib);
    assert_eq!((messages.len(), ends(&messages)), (1, vec![]));
    assert!(!rib.end_of_rib_sent(AfiSafi::Ipv4Unicast));
    rib.release_end_of_rib();
    assert_eq!(ends(&say(&mut rib)), AfiSafi::ALL);
    assert!(rib.end_of_rib_sent(AfiSafi::Ipv4Unicast));
}

#[test]
fn every_family_ends_even_an_empty_one() {
    let mut rib = AdjRibOut::new();
    rib.release_end_of_rib();
    rib.session_up(Families::ALL);
    assert_eq!(ends(&say(&mut rib)), AfiSafi::ALL);
}

#[test]
fn only_negotiated_families_end() {
    let mut rib = AdjRibOut::new();
    rib.release_end_of_rib();
    rib.session_up(Families::from_iter([AfiSafi::Ipv6Unicast]));
    assert_eq!(ends(&say(&mut rib)), [AfiSafi::Ipv6Unicast]);
    assert!(!rib.end_of_rib_sent(AfiSafi::Ipv4Unicast));
}

#[test]
fn it_comes_last() {
    let mut rib = AdjRibOut::new();
    rib.set_desired(prefix("10.0.0.1/32"), Some(route(1, v4(1))));
    rib.set_desired(prefix("2001:db8::1/128"), Some(route(1, v6(1))));
    rib.release_end_of_rib();
    rib.session_up(Families::ALL);
    let last: Vec<bool> = say(&mut rib).iter().map(|message| message.end_of_rib.is_some()).collect();
    assert_eq!(last, [false, false, true, true]);
}

#[test]
fn once_a_session_and_not_after_a_refresh() {
    let mut rib = AdjRibOut::new();
    rib.set_desired(prefix("10.0.0.1/32"), Some(route(1, v4(1))));
    rib.release_end_of_rib();
    rib.session_up(Families::ALL);
    assert_eq!(ends(&say(&mut rib)).len(), 2);
    rib.refresh(AfiSafi::Ipv4Unicast);
    let messages = say(&mut rib);
    assert_eq!((messages.len(), ends(&messages)), (1, vec![]));
    rib.session_down();
    assert_eq!(say(&mut rib), []);
    rib.session_up(Families::ALL);
    assert_eq!(ends(&say(&mut rib)).len(), 2);
}

/// A refresh before the initial routes have ended must not end them early.
#[test]
fn a_refresh_before_the_end_delays_it() {
    let mut rib = AdjRibOut::new();
    rib.session_up(Families::ALL);
    rib.set_desired(prefix("10.0.0.1/32"), Some(route(1, v4(1))));
    say(&mut rib);
    rib.refresh(AfiSafi::Ipv4Unicast);
    rib.release_end_of_rib();
    let messages = say(&mut rib);
    assert_eq!(messages[0].announced.len(), 1);
    assert_eq!(ends(&messages).len(), 2);
}

/// What the bytes say, message by message: the marks of RFC 7313, UPDATEs and End-of-RIB.
fn told(rib: &mut AdjRibOut, context: &CodecContext) -> Vec<&'static str> {
    let mut bytes = BytesMut::new();
    while rib.poll_update(context, &mut bytes) {}
    let mut told = Vec::new();
    while let Some(frame) = Frame::poll(&mut bytes, 4096).unwrap() {
        told.push(match Message::decode(frame, context).unwrap() {
            Message::RouteRefresh(refresh) if refresh.subtype == RouteRefresh::BEGIN => "begin",
            Message::RouteRefresh(refresh) if refresh.subtype == RouteRefresh::END => "end",
            Message::Update(update, _) if update.end_of_rib.is_some() => "end-of-rib",
            Message::Update(update, _) if update.reach.is_empty() => "withdraw",
            Message::Update(..) => "announce",
            other => panic!("{other:?}"),
        });
    }
    told
}

#[test]
fn a_refresh_stands_between_its_marks_rfc_7313() {
    let enhanced = CodecContext { enhanced_refresh: true, ..CodecContext::default() };
    for (context, expected) in
        [(enhanced, vec!["begin", "announce", "end"]), (CodecContext::default(), vec!["announce"])]
    {
        let mut rib = AdjRibOut::new();
        rib.set_desired(prefix("10.0.0.1/32"), Some(route(1, v4(1))));
        rib.release_end_of_rib();
        rib.session_up(Families::ALL);
        assert_eq!(told(&mut rib, &context), ["announce", "end-of-rib", "end-of-rib"]);
        rib.refresh(AfiSafi::Ipv4Unicast);
        assert_eq!(told(&mut rib, &context), expected);
        assert_eq!(told(&mut rib, &context), [""; 0]);
    }
}

/// An empty family still has both marks: the peer is to drop what it holds of it.
#[test]
fn an_empty_refresh_has_its_marks_rfc_7313() {
    let enhanced = CodecContext { enhanced_refresh: true, ..CodecContext::default() };
    let mut rib = AdjRibOut::new();
    rib.release_end_of_rib();
    rib.session_up(Families::ALL);
    told(&mut rib, &enhanced);
    rib.refresh(AfiSafi::Ipv6Unicast);
    assert_eq!(told(&mut rib, &enhanced), ["begin", "end"]);
}

/// Section 4.1: who does graceful restart does not mark a refresh before End-of-RIB.
#[test]
fn a_refresh_before_end_of_rib_has_no_marks_rfc_7313() {
    let enhanced = CodecContext { enhanced_refresh: true, ..CodecContext::default() };
    let mut rib = AdjRibOut::new();
    rib.set_desired(prefix("10.0.0.1/32"), Some(route(1, v4(1))));
    rib.session_up(Families::ALL);
    assert_eq!(told(&mut rib, &enhanced), ["announce"]);
    rib.refresh(AfiSafi::Ipv4Unicast);
    rib.release_end_of_rib();
    assert_eq!(told(&mut rib, &enhanced), ["announce", "end-of-rib", "end-of-rib"]);
}
