//! Which flows the kernel still translates as it was desired before: pure.
//!
//! A flow is translated as it was when its first packet was seen, whatever the table says by now. Those that go otherwise
//! than desired are to be forgotten, and exactly those: the kernel then takes up the next packet of the flow as a first one.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ahash::AHashSet;
use plainroute_bgp::Prefix;

use super::{
    Fate, NatDesired, NatSource,
    intervals::{Intervals, bits, family},
    ruleset::Family,
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What conntrack knows of a flow, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Who answers: the destination after its translation.
    pub(super) reply_source: IpAddr,
    /// Whom the answers are sent to: the source after its translation.
    pub(super) reply_destination: IpAddr,
    pub(super) protocol: u8,
}

/// What is desired, to be asked for many flows.
pub(super) struct Decisions<'a> {
    desired: &'a NatDesired,
    families: [Tables<'a>; 2],
}

struct Tables<'a> {
    inside: Intervals<()>,
    classes: Vec<Class<'a>>,
}

struct Class<'a> {
    to: Intervals<()>,
    except: Intervals<()>,
    sources: &'a BTreeMap<Prefix, NatSource>,
    /// Of the sources' prefixes, the longest first.
    lengths: Vec<u8>,
}

impl<'a> Class<'a> {
    fn source(&self, address: IpAddr) -> Option<&'a NatSource> {
        let prefixes = self.lengths.iter().filter_map(|length| Prefix::new(address, *length).ok());
        prefixes.into_iter().find_map(|prefix| self.sources.get(&prefix))
    }
}

impl<'a> Decisions<'a> {
    pub(super) fn new(desired: &'a NatDesired) -> Decisions<'a> {
        let families = Family::BOTH.map(|family| {
            let set =
                |prefixes: &BTreeSet<_>| Intervals::new(family, prefixes.iter().map(|prefix| (*prefix, ())));
            let class = |class: &'a super::NatClass| {
                let of = |prefix: &&Prefix| self::family(prefix.address()) == family;
                let mut known = [false; 129];
                for prefix in class.sources.keys().filter(of) {
                    known.iter_mut().skip(prefix.length().into()).take(1).for_each(|known| *known = true);
                }
                let lengths = (0..=128u8).rev().zip(known.into_iter().rev());
                Class {
                    to: set(&class.to),
                    except: set(&class.except),
                    sources: &class.sources,
                    lengths: lengths.filter(|(_, known)| *known).map(|(length, _)| length).collect(),
                }
            };
            Tables { inside: set(&desired.inside), classes: desired.classes.iter().map(class).collect() }
        });
        Decisions { desired, families }
    }

    fn of(&self, flow: &Flow) -> Option<&'a NatSource> {
        let place = usize::from(family(flow.source) == Family::V6);
        let tables = self.families.get(place)?;
        let destination = bits(flow.reply_source);
        if tables.inside.find(destination).is_some() {
            return None;
        }
        let mut classes = tables
            .classes
            .iter()
            .filter(|class| class.to.find(destination).is_some() && class.except.find(destination).is_none());
        classes.find_map(|class| class.source(flow.source))
    }
}

/// Whether a flow goes otherwise than desired now. `egress` has the addresses that were translated to until now.
///
/// An entry does not tell whether the flow is of a Pod of this node or in transit: it may stay when it is right for one of
/// the two, unless the one for which it was right has changed.
pub(super) fn is_stale(
    flow: &Flow,
    before: Option<&Decisions<'_>>,
    now: &Decisions<'_>,
    egress: &AHashSet<IpAddr>,
) -> bool {
    let echo = matches!(flow.protocol, ICMP | ICMPV6);
    if now.desired.addresses.contains(&flow.destination) && !echo {
        // It came before the drop rule stood, and would keep the port of the flow that it belongs to elsewhere.
        return true;
    }
    let translated = flow.reply_destination != flow.source;
    let ours = translated
        && (egress.contains(&flow.reply_destination)
            || now.desired.addresses.contains(&flow.reply_destination));
    let right = |source: Option<&NatSource>, fate: Fate| match (source, fate) {
        (Some(source), Fate::Here) => flow.reply_destination == source.address,
        (Some(_), Fate::Away { .. } | Fate::Drop) => !translated,
        (Some(_), Fate::Leave) | (None, _) => !ours,
    };
    let fates = |decisions: &Decisions<'_>| {
        let source = decisions.of(flow);
        let (local, transit) =
            source.map_or((Fate::Leave, Fate::Leave), |source| (source.local, source.transit));
        [right(source, local), right(source, transit)]
    };
    let now = fates(now);
    let lost = before.is_some_and(|before| fates(before).iter().zip(now).any(|(was, is)| *was && !is));
    lost || now == [false, false]
}

#[cfg(test)]
mod tests {
    use super::{super::NatClass, *};

    fn source(address: &str, local: Fate, transit: Fate) -> NatSource {
        NatSource { egress: "erp".into(), address: address.parse().unwrap(), local, transit }
    }

    fn desired(sources: &[(&str, NatSource)]) -> NatDesired {
        let sources =
            sources.iter().map(|(prefix, source)| (prefix.parse().unwrap(), source.clone())).collect();
        let to = BTreeSet::from(["0.0.0.0/0".parse().unwrap()]);
        NatDesired {
            inside: ["10.0.0.0/8".parse().unwrap()].into(),
            addresses: ["198.51.100.7".parse().unwrap()].into(),
            classes: vec![NatClass { to, sources, ..NatClass::default() }],
            ..NatDesired::default()
        }
    }

    /// A flow of a Pod to the world, answered to an address.
    fn flow(source: &str, reply: &str) -> Flow {
        let world = "203.0.113.1".parse().unwrap();
        Flow {
            source: source.parse().unwrap(),
            destination: world,
            reply_source: world,
            reply_destination: reply.parse().unwrap(),
            protocol: 6,
        }
    }

    const POD: &str = "10.20.0.5";
    const NODE: &str = "172.16.0.1";
    const A: &str = "198.51.100.7";
    const B: &str = "198.51.100.8";

    #[test]
    fn exactly_what_goes_otherwise_than_desired_is_stale() {
        use Fate::{Away, Drop, Here, Leave};
        let away = Away { slot: 1 };
        let egress = AHashSet::from([A.parse().unwrap(), B.parse().unwrap()]);
        for (local, transit, reply, stale) in [
            (Here, Here, A, false),
            (Here, Here, B, true),
            (Here, Here, NODE, true),
            (Here, Here, POD, true),
            (away, away, POD, false),
            (away, away, A, true),
            (away, away, NODE, true),
            // A Pod of this node, or of another one: it cannot be told.
            (away, Here, POD, false),
            (away, Here, A, false),
            (away, Here, NODE, true),
            (Drop, Drop, POD, false),
            (Drop, Drop, A, true),
            (Leave, Leave, NODE, false),
            (Leave, Leave, POD, false),
            (Leave, Leave, A, true),
        ] {
            let now = desired(&[("10.20.0.5/32", source(A, local, transit))]);
            let now = Decisions::new(&now);
            let found = is_stale(&flow(POD, reply), None, &now, &egress);
            assert_eq!(found, stale, "{local:?} {transit:?} answered to {reply}");
            // Nobody else's flow is, unless it has one of our addresses.
            for (reply, stale) in [("10.20.0.6", false), (NODE, false), (A, true), (B, true)] {
                let other = flow("10.20.0.6", reply);
                assert_eq!(is_stale(&other, Some(&now), &now, &egress), stale, "other answered to {reply}");
            }
        }
    }

    #[test]
    fn what_was_right_for_one_fate_and_is_not_any_more_is_stale() {
        use Fate::{Away, Here};
        let away = Away { slot: 1 };
        let with = |local, transit| desired(&[("10.20.0.0/24", source(A, local, transit))]);
        let (both, split) = (with(Here, Here), with(away, Here));
        let (both, split) = (Decisions::new(&both), Decisions::new(&split));
        let egress = AHashSet::from([A.parse().unwrap()]);
        assert!(is_stale(&flow(POD, A), Some(&both), &split, &egress));
        assert!(!is_stale(&flow(POD, A), Some(&split), &split, &egress));
        assert!(!is_stale(&flow(POD, A), Some(&split), &both, &egress));
        assert!(is_stale(&flow(POD, POD), Some(&split), &both, &egress));
    }

    #[test]
    fn flows_inside_and_to_services_and_from_outside_stay() {
        let now = desired(&[("10.20.0.5/32", source(A, Fate::Here, Fate::Here))]);
        let now = Decisions::new(&now);
        let egress = AHashSet::from([A.parse().unwrap()]);
        let stale = |flow: Flow| is_stale(&flow, None, &now, &egress);
        let inside: IpAddr = "10.20.0.9".parse().unwrap();
        // The Service's address stands in the world, who answers does not.
        assert!(!stale(Flow { reply_source: inside, ..flow(POD, POD) }));
        assert!(stale(flow(POD, POD)));
        let pod: IpAddr = POD.parse().unwrap();
        let from_outside = Flow { destination: pod, reply_source: pod, ..flow("203.0.113.9", "203.0.113.9") };
        assert!(!stale(from_outside));
        // To the egress IP itself: only a ping is a flow.
        let to_us = Flow { destination: A.parse().unwrap(), ..from_outside };
        assert!(stale(to_us) && !stale(Flow { protocol: 1, ..to_us }));
    }
}
