//! How few messages it takes, and that none is too long.
use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Asn, Community, Families, Prefix,
    rib::{AdjRibOut, Route},
    wire::{AsPath, AsPathSegment, CodecContext, PathAttributes, SegmentKind},
};
use proptest::prelude::*;

use super::peer::{Parsed, drain, parse, prefix, route, v4, v6};

fn established() -> AdjRibOut {
    let mut rib = AdjRibOut::new();
    rib.session_up(Families::ALL);
    rib
}

fn hosts4(count: u32) -> impl Iterator<Item = Prefix> {
    (0..count).map(|number| Prefix::v4((0x0a00_0000 + number).into(), 32).unwrap())
}

fn hosts6(count: u128) -> impl Iterator<Item = Prefix> {
    (0..count).map(|number| Prefix::v6(((0x2001_0db8 << 96) + number).into(), 128).unwrap())
}

/// Octets of the prefixes that a message carries.
fn nlri(message: &Parsed) -> usize {
    let octets = |prefix: &Prefix| 1 + usize::from(prefix.length()).div_ceil(8);
    message.announced.iter().map(|(prefix, _)| octets(prefix)).sum::<usize>()
        + message.withdrawn.iter().map(octets).sum::<usize>()
}

#[test]
fn a_thousand_hosts_leave_in_two_messages() {
    let mut rib = established();
    for prefix in hosts4(1000) {
        rib.set_desired(prefix, Some(route(1, v4(1))));
    }
    let messages = drain(&mut rib, &CodecContext::default());
    assert_eq!(messages.len(), 2);
    for prefix in hosts4(1000) {
        rib.set_desired(prefix, None);
    }
    assert_eq!(drain(&mut rib, &CodecContext::default()).len(), 2);
}

#[test]
fn ipv6_is_packed_as_tightly() {
    let mut rib = established();
    for prefix in hosts6(100_000) {
        rib.set_desired(prefix, Some(route(1, v6(1))));
    }
    let messages = drain(&mut rib, &CodecContext::default());
    let overhead = messages[0].length - nlri(&messages[0]);
    assert_eq!(messages.len(), 100_000_usize.div_ceil((4096 - overhead) / 17));
    assert!(messages.len() <= 425, "{}", messages.len());
    for prefix in hosts6(100_000) {
        rib.set_desired(prefix, None);
    }
    assert_eq!(drain(&mut rib, &CodecContext::default()).len(), 100_000_usize.div_ceil((4096 - 30) / 17));
}

#[test]
fn extended_messages_are_filled_too() {
    let mut rib = established();
    for prefix in hosts4(10_000) {
        rib.set_desired(prefix, Some(route(1, v4(1))));
    }
    let context = CodecContext { max_message_length: 65_535, ..CodecContext::default() };
    assert_eq!(drain(&mut rib, &context).len(), 1);
}

#[test]
fn withdrawals_leave_before_announcements() {
    let mut rib = established();
    rib.set_desired(prefix("10.0.0.1/32"), Some(route(1, v4(1))));
    rib.set_desired(prefix("2001:db8::1/128"), Some(route(1, v6(1))));
    drain(&mut rib, &CodecContext::default());
    rib.set_desired(prefix("10.0.0.2/32"), Some(route(1, v4(1))));
    rib.set_desired(prefix("2001:db8::1/128"), None);
    rib.set_desired(prefix("10.0.0.1/32"), None);
    let messages = drain(&mut rib, &CodecContext::default());
    let kinds: Vec<bool> = messages.iter().map(|message| message.announced.is_empty()).collect();
    assert_eq!(kinds, [true, true, false]);
}

#[test]
fn a_change_and_its_opposite_cost_nothing() {
    let mut rib = established();
    let (one, two) = (prefix("10.0.0.1/32"), prefix("10.0.0.2/32"));
    rib.set_desired(one, Some(route(1, v4(1))));
    drain(&mut rib, &CodecContext::default());
    rib.set_desired(one, None);
    rib.set_desired(one, Some(route(1, v4(1))));
    rib.set_desired(two, Some(route(1, v4(1))));
    rib.set_desired(two, None);
    assert!(rib.pending_empty());
    assert_eq!(drain(&mut rib, &CodecContext::default()), []);
}

/// Too many communities for one message.
fn fat_route() -> Route {
    let communities = (0..1100).map(Community).collect();
    Route::new(PathAttributes { communities, ..PathAttributes::default() }, v4(1))
}

#[test]
fn a_route_that_fits_no_message_is_not_sent_and_the_old_one_goes() {
    let mut rib = established();
    let (one, two) = (prefix("10.0.0.1/32"), prefix("10.0.0.2/32"));
    rib.set_desired(one, Some(route(1, v4(1))));
    drain(&mut rib, &CodecContext::default());
    rib.set_desired(one, Some(fat_route()));
    rib.set_desired(two, Some(fat_route()));
    let messages = drain(&mut rib, &CodecContext::default());
    assert_eq!(messages.len(), 1);
    assert_eq!((&messages[0].withdrawn, messages[0].announced.len()), (&vec![one], 0));
    assert!(rib.pending_empty() && rib.flushed_version() == rib.version());
    assert!(rib.iter().all(|advertised| !advertised.sent));
    // The next session may have longer messages.
    rib.session_up(Families::ALL);
    let context = CodecContext { max_message_length: 65_535, ..CodecContext::default() };
    assert_eq!(drain(&mut rib, &context)[0].announced.len(), 2);
}

/// The next session may be with a peer that knows two-octet AS numbers only.
#[test]
fn attributes_are_encoded_anew_for_each_session() {
    let mut rib = established();
    let asns = vec![Asn::new(4_200_000_000).unwrap()];
    let as_path = AsPath { segments: vec![AsPathSegment { kind: SegmentKind::Sequence, asns }] };
    let route = Route::new(PathAttributes { as_path, ..PathAttributes::default() }, v4(1));
    rib.set_desired(prefix("10.0.0.1/32"), Some(route));
    assert_eq!(drain(&mut rib, &CodecContext::default())[0].codes, [1, 2, 3]);
    rib.session_up(Families::ALL);
    let context = CodecContext { four_octet_asn: false, ..CodecContext::default() };
    assert_eq!(drain(&mut rib, &context)[0].codes, [1, 2, 3, 17], "AS4_PATH for an old peer");
}

#[test]
fn a_full_socket_takes_one_message_at_a_time() {
    let mut rib = established();
    for prefix in hosts4(2000) {
        rib.set_desired(prefix, Some(route(1, v4(1))));
    }
    let context = CodecContext::default();
    let mut out = BytesMut::new();
    assert!(rib.poll_update(&context, &mut out));
    let first = parse(&out, &context).announced.len();
    assert_eq!(rib.pending(AfiSafi::Ipv4Unicast), 2000 - first);
    assert!(rib.flushed_version() < rib.version());
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        (0..0xe000_0000_u32, 0..=32_u8).prop_map(|(bits, length)| Prefix::v4(bits.into(), length).unwrap()),
        (0..0xfe00_u128 << 112, 0..=128_u8)
            .prop_map(|(bits, length)| Prefix::v6(bits.into(), length).unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    /// A message is left only when the next prefix did not fit, so no message but the last of its kind is
    /// emptier than the longest prefix.
    #[test]
    fn only_the_last_message_of_a_group_has_room(
        prefixes in prop::collection::btree_map(any_prefix(), 0..3_u32, 1..1500),
        max_message_length in 150..1000_usize,
    ) {
        let context = CodecContext { max_message_length, ..CodecContext::default() };
        let mut rib = established();
        for (prefix, med) in &prefixes {
            let next_hop = if prefix.family() == AfiSafi::Ipv4Unicast { v4(1) } else { v6(1) };
            rib.set_desired(*prefix, Some(route(*med, next_hop)));
        }
        let announced = drain(&mut rib, &context);
        for prefix in prefixes.keys() {
            rib.set_desired(*prefix, None);
        }
        let withdrawn = drain(&mut rib, &context);
        prop_assert_eq!(announced.iter().map(|m| m.announced.len()).sum::<usize>(), prefixes.len());
        prop_assert_eq!(withdrawn.iter().map(|m| m.withdrawn.len()).sum::<usize>(), prefixes.len());
        for messages in [announced, withdrawn] {
            let mut roomy = std::collections::BTreeMap::new();
            for message in &messages {
                prop_assert!(message.length <= max_message_length);
                let family = message.announced.first().map_or_else(
                    || message.withdrawn[0].family(), |(prefix, _)| prefix.family());
                let med = message.announced.first().map(|(_, (med, _))| *med);
                if message.length + 17 < max_message_length {
                    *roomy.entry((family, med)).or_insert(0) += 1;
                }
            }
            prop_assert!(roomy.values().all(|count| *count <= 1), "{:?}", roomy);
        }
    }
}
