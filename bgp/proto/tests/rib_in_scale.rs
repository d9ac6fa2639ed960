//! A full table taken in: what it takes in memory, and how long. Alone in its binary, so that the resident set is its
//! own. Times are told always and judged in release builds only.
#![expect(
    clippy::disallowed_methods,
    reason = "a measurement needs the clock that the crate itself never reads"
)]
use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Asn, Prefix, RouterId,
    policy::{Accepted, ImportPolicy, ImportRule, PrefixRule},
    rib::{AdjRibIn, Identity},
    wire::{
        AsPath, AsPathSegment, CodecContext, EncodedAttributes, Frame, Message, NextHop, PathAttributes,
        SegmentKind, write_reach,
    },
};

/// Prefixes to an attribute set, as in a full table.
const SHARING: u32 = 50;
/// A record, its place in the index, and its share of an attribute set.
const OCTETS_PER_PREFIX: usize = 75;

/// Resident octets of this process.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn attributes(number: u32) -> PathAttributes {
    let asns = [64600, number + 1, number % 1000 + 70_000].map(|asn| Asn::new(asn).unwrap());
    let segments = vec![AsPathSegment { kind: SegmentKind::Sequence, asns: asns.to_vec() }];
    PathAttributes { as_path: AsPath { segments }, ..PathAttributes::default() }
}

/// A table of so many prefixes as one peer's UPDATEs.
fn table(prefixes: u32) -> Vec<BytesMut> {
    let context = CodecContext::default();
    let next_hop = NextHop::V4([192, 0, 2, 1].into());
    let update = |number: u32| {
        let encoded = EncodedAttributes::new(&attributes(number), &context);
        let prefix = |place: u32| Prefix::v4((0x0a00_0000 + number * SHARING + place).into(), 32).unwrap();
        let mut out = BytesMut::new();
        let written = write_reach(
            AfiSafi::Ipv4Unicast,
            &encoded,
            &next_hop,
            (0..SHARING).map(prefix),
            &context,
            &mut out,
        );
        assert_eq!(written, SHARING as usize);
        out
    };
    (0..prefixes / SHARING).map(update).collect()
}

#[test]
fn a_full_table_is_small_and_quick() {
    let prefixes = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let rule = PrefixRule::new("0.0.0.0/0".parse().unwrap(), None, Some(32)).unwrap();
    let accept = ImportRule::accept(rule, Accepted { install: false, local_pref: None });
    let policy = ImportPolicy::new(vec![accept]);
    let identity = Identity { asn: Asn::new(64512).unwrap(), router_id: RouterId::new(1).unwrap() };
    let context = CodecContext::default();
    let table = table(prefixes);
    for (name, policy, expected) in
        [("refused", ImportPolicy::DENY, 0), ("accepted", policy, prefixes as usize)]
    {
        let mut rib = AdjRibIn::new(identity, None);
        let (before, begin) = (resident(), Instant::now());
        for message in &table {
            let frame = Frame::poll(&mut message.clone(), context.max_message_length).unwrap().unwrap();
            let Ok(Message::Update(update, _)) = Message::decode(frame, &context) else {
                panic!("the table is well-formed")
            };
            rib.apply(&update, &policy);
        }
        let taken = begin.elapsed();
        let octets = resident().saturating_sub(before) / prefixes as usize;
        println!("{prefixes} prefixes {name}: {taken:?}, {octets} octets a prefix");
        assert_eq!(rib.count(AfiSafi::Ipv4Unicast), expected);
        if !cfg!(debug_assertions) {
            assert!(octets <= OCTETS_PER_PREFIX, "{octets} octets a prefix");
            // Aimed at 300 ms; the margin is for a busy machine.
            assert!(taken < Duration::from_millis(1500), "{taken:?}");
        }
    }
}
