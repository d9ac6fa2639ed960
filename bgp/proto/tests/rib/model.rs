//! Whatever happens in whatever order, the peer ends up with exactly what is desired.
use std::collections::BTreeMap;

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Families, Prefix,
    rib::{AdjRibOut, Route},
    wire::{CodecContext, NextHop},
};
use proptest::prelude::*;

use super::peer::{Peer, parse, prefix, route, v4, v6};

#[derive(Clone, Debug)]
enum Step {
    Set(usize, usize),
    Withdraw(usize),
    Up(Families),
    Down,
    Refresh(AfiSafi),
    Poll(usize),
    Release,
    Manner(Manner),
}

const PREFIXES: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/32",
    "10.0.0.1/32",
    "192.0.2.0/25",
    "::/0",
    "2001:db8::/32",
    "2001:db8::/64",
    "2001:db8::/128",
    "2001:db8::1/128",
    "2001:db8:0:1::/65",
];

/// Routes by number; the last of them cannot be said of IPv6 prefixes, and the one before of IPv4 prefixes only
/// where RFC 8950 was agreed on.
fn numbered(number: usize) -> (u32, NextHop) {
    let med = number as u32 % 3;
    match number {
        0..3 => (med, v4(1)),
        3..6 => (med, v6(1)),
        6 => (med, v6(2)),
        _ => (med, v4(2)),
    }
}

fn families() -> impl Strategy<Value = Families> {
    prop_oneof![
        3 => Just(Families::ALL),
        1 => Just(Families::from_iter([AfiSafi::Ipv4Unicast])),
        1 => Just(Families::from_iter([AfiSafi::Ipv6Unicast])),
        1 => Just(Families::NONE),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..PREFIXES.len(), 0..8_usize).prop_map(|(prefix, route)| Step::Set(prefix, route)),
        6 => (0..PREFIXES.len()).prop_map(Step::Withdraw),
        2 => families().prop_map(Step::Up),
        1 => Just(Step::Down),
        2 => prop_oneof![Just(AfiSafi::Ipv4Unicast), Just(AfiSafi::Ipv6Unicast)].prop_map(Step::Refresh),
        6 => (1..5_usize).prop_map(Step::Poll),
        1 => Just(Step::Release),
        1 => prop::sample::select(&[Manner::Plain, Manner::OtherMed, Manner::NoIpv6][..]).prop_map(Step::Manner),
    ]
}

/// How the session says what is desired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Plain,
    OtherMed,
    NoIpv6,
}

impl Manner {
    fn med(self, med: u32) -> u32 {
        if self == Manner::OtherMed { med + 1000 } else { med }
    }

    fn say(self, family: AfiSafi, desired: &Route) -> Option<Route> {
        let med = self.med(desired.attributes.med.unwrap());
        let said = self != Manner::NoIpv6 || family == AfiSafi::Ipv4Unicast;
        said.then(|| route(med, desired.next_hop))
    }
}

struct World {
    rib: AdjRibOut,
    context: CodecContext,
    desired: BTreeMap<Prefix, (u32, NextHop)>,
    peer: Option<Peer>,
    released: bool,
    manner: Manner,
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Set(at, number) => {
                let (prefix, (med, next_hop)) = (prefix(PREFIXES[at]), numbered(number));
                let changed = self.rib.set_desired(prefix, Some(route(med, next_hop)));
                assert_eq!(changed, self.desired.insert(prefix, (med, next_hop)) != Some((med, next_hop)));
            }
            Step::Withdraw(at) => {
                let prefix = prefix(PREFIXES[at]);
                assert_eq!(self.rib.set_desired(prefix, None), self.desired.remove(&prefix).is_some());
            }
            Step::Up(families) => {
                self.rib.session_up(families);
                self.peer = Some(Peer::new(families));
            }
            Step::Down => {
                self.rib.session_down();
                self.peer = None;
                assert!(self.rib.pending_empty());
            }
            Step::Refresh(family) => {
                self.rib.refresh(family);
                if let Some(peer) = &mut self.peer {
                    peer.ask(family);
                }
            }
            Step::Poll(times) => (0..times).for_each(|_| _ = self.poll()),
            Step::Release => {
                self.rib.release_end_of_rib();
                self.released = true;
            }
            Step::Manner(manner) => {
                self.manner = manner;
                self.rib.say_again(|family, desired| manner.say(family, desired));
                if let Some(peer) = &mut self.peer {
                    peer.expect_repetitions();
                }
            }
        }
        let flushed = self.rib.flushed_version() == self.rib.version();
        assert!(flushed || !self.rib.pending_empty(), "a receipt would never be answered");
        assert!(!flushed || self.rib.pending_empty(), "a receipt would be answered too early");
    }

    fn poll(&mut self) -> bool {
        let mut out = BytesMut::new();
        let manner = self.manner;
        let say = |family, desired: &Route| manner.say(family, desired);
        let written = self.rib.poll_update_with(&self.context, say, &mut out);
        assert_eq!(written, !out.is_empty());
        if written {
            let message = parse(&out, &self.context);
            let end = message.end_of_rib;
            let peer = self.peer.as_mut().expect("nothing is said without a session");
            peer.hear(message);
            if let Some(family) = end {
                assert!(self.released, "End-of-RIB before it was released");
                self.check_family(family);
            }
        }
        written
    }

    /// What the peer is to hold: families of the session, as far as they can be said.
    fn expected(&self, family: AfiSafi) -> BTreeMap<Prefix, (Option<u32>, NextHop)> {
        let said = |next_hop: &NextHop| match (family, next_hop) {
            (AfiSafi::Ipv4Unicast, NextHop::V4(_)) => true,
            (AfiSafi::Ipv6Unicast, NextHop::V6 { .. }) => self.manner != Manner::NoIpv6,
            (AfiSafi::Ipv4Unicast, NextHop::V6 { .. }) => self.context.ipv4_over_ipv6,
            (AfiSafi::Ipv6Unicast, NextHop::V4(_)) => false,
        };
        self.desired
            .iter()
            .filter(|(prefix, (_, next_hop))| prefix.family() == family && said(next_hop))
            .map(|(prefix, (med, next_hop))| (*prefix, (Some(self.manner.med(*med)), *next_hop)))
            .collect()
    }

    fn check_family(&self, family: AfiSafi) {
        let peer = self.peer.as_ref().unwrap();
        let held: BTreeMap<_, _> =
            peer.routes.iter().filter(|(p, _)| p.family() == family).map(|(p, k)| (*p, *k)).collect();
        assert_eq!(held, self.expected(family));
        for prefix in held.keys() {
            assert!(peer.heard.contains(prefix), "{prefix} was not told again after the refresh");
        }
    }

    fn finish(&mut self) {
        while self.poll() {}
        assert!(self.rib.pending_empty());
        if let Some(families) = self.peer.as_ref().map(|peer| peer.families) {
            families.iter().for_each(|family| self.check_family(family));
            let held = |family| peer_count(self.peer.as_ref(), family);
            AfiSafi::ALL.iter().for_each(|family| assert_eq!(self.rib.sent(*family), held(*family)));
            let told = &self.peer.as_ref().unwrap().end_of_rib;
            let expected: Vec<_> = families.iter().filter(|_| self.released).collect();
            assert_eq!(*told, expected);
        }
        let desired: usize = AfiSafi::ALL.map(|family| self.rib.desired(family)).iter().sum();
        assert_eq!(desired, self.desired.len());
        let shown: BTreeMap<Prefix, Route> = self.rib.iter().map(|a| (a.prefix, a.desired.clone())).collect();
        let wanted: BTreeMap<Prefix, Route> =
            self.desired.iter().map(|(prefix, (med, hop))| (*prefix, route(*med, *hop))).collect();
        assert_eq!(shown, wanted);
    }
}

fn peer_count(peer: Option<&Peer>, family: AfiSafi) -> usize {
    peer.map_or(0, |peer| peer.routes.keys().filter(|prefix| prefix.family() == family).count())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_peer_ends_up_with_exactly_the_desired_set(
        steps in prop::collection::vec(step(), 1..80),
        max_message_length in 100..160_usize,
        ipv4_over_ipv6: bool,
    ) {
        let context = CodecContext { max_message_length, ipv4_over_ipv6, ..CodecContext::default() };
        let mut world = World {
            rib: AdjRibOut::new(), context, desired: BTreeMap::new(), peer: None, released: false,
            manner: Manner::Plain,
        };
        for step in steps {
            world.take(step);
        }
        world.finish();
    }
}
