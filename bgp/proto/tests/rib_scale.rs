//! A million prefixes: what they take in memory, and how long they take to leave. Alone in its binary, so that the
//! resident set is its own. Times are told always and judged in release builds only.
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
    AfiSafi, Families, Prefix,
    rib::{AdjRibOut, AttributeSet, Route},
    wire::{CodecContext, NextHop, PathAttributes},
};

const PREFIXES: u32 = 1_000_000;
/// What the table's records, its index and the lists may take.
const OCTETS_PER_PREFIX: usize = 100;

/// Resident octets of this process.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn prefix(family: AfiSafi, number: u32) -> Prefix {
    match family {
        AfiSafi::Ipv4Unicast => Prefix::v4((0x0a00_0000 + number).into(), 32).unwrap(),
        AfiSafi::Ipv6Unicast => {
            Prefix::v6(((0x2001_0db8_u128 << 96) + u128::from(number)).into(), 128).unwrap()
        }
    }
}

fn next_hop(family: AfiSafi) -> NextHop {
    match family {
        AfiSafi::Ipv4Unicast => NextHop::V4([192, 0, 2, 1].into()),
        AfiSafi::Ipv6Unicast => NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None },
    }
}

/// Polls as the speaker does: a buffer of a socket's size at a time.
fn drain(rib: &mut AdjRibOut) -> (usize, Duration) {
    let begin = Instant::now();
    let context = CodecContext::default();
    let mut out = BytesMut::with_capacity(256 << 10);
    let mut messages = 0;
    while rib.poll_update(&context, &mut out) {
        messages += 1;
        if out.len() > 192 << 10 {
            out.clear();
        }
    }
    (messages, begin.elapsed())
}

#[test]
fn a_million_prefixes_are_small_and_quick() {
    for family in AfiSafi::ALL {
        let mut rib = AdjRibOut::new();
        let sets: Vec<AttributeSet> = (0..10)
            .map(|med| AttributeSet::from(PathAttributes { med: Some(med), ..PathAttributes::default() }))
            .collect();
        let before = resident();
        let begin = Instant::now();
        for number in 0..PREFIXES {
            let set = sets[number as usize % sets.len()].clone();
            rib.set_desired(prefix(family, number), Some(Route::new(set, next_hop(family))));
        }
        let set = begin.elapsed();
        rib.session_up(Families::ALL);
        let (messages, announced) = drain(&mut rib);
        let octets = (resident() - before) / PREFIXES as usize;
        rib.refresh(family);
        let (again, refreshed) = drain(&mut rib);
        for number in 0..PREFIXES {
            rib.set_desired(prefix(family, number), None);
        }
        let (_, withdrawn) = drain(&mut rib);
        println!(
            "{family}: {octets} octets a prefix; set {set:?}, announced {announced:?} in {messages} \
             UPDATEs, refreshed {refreshed:?}, withdrawn {withdrawn:?}"
        );
        assert!(octets <= OCTETS_PER_PREFIX, "{octets} octets a prefix");
        assert_eq!(messages, again);
        assert_eq!(rib.desired(family), 0);
        if !cfg!(debug_assertions) {
            // Aimed at 100 ms; the margin is for a busy machine.
            assert!(announced < Duration::from_millis(400), "{announced:?}");
        }
    }
}
