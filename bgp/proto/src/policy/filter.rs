//! What a rule asks of a route before it decides: pure comparisons, shared by both directions.
use super::PrefixRule;
use crate::{Asn, Community, LargeCommunity, Prefix, wire::AsPath};

/// What a rule does with a route that it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// The route passes.
    #[default]
    Accept,
    /// The route stays where it is, and no later rule is asked.
    Reject,
}

/// Matches a route by its prefix and its communities; all of it must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Which prefixes.
    pub prefixes: PrefixRule,
    /// Standard communities (RFC 1997) that the route must all carry.
    pub communities: Vec<Community>,
    /// Large communities (RFC 8092) that the route must all carry.
    pub large_communities: Vec<LargeCommunity>,
}

impl Filter {
    /// Whether a route to `prefix` that carries these communities matches.
    pub fn matches(&self, prefix: Prefix, communities: &[Community], large: &[LargeCommunity]) -> bool {
        self.prefixes.matches(prefix)
            && self.communities.iter().all(|wanted| communities.contains(wanted))
            && self.large_communities.iter().all(|wanted| large.contains(wanted))
    }
}

impl From<PrefixRule> for Filter {
    /// These prefixes, whatever their communities.
    fn from(prefixes: PrefixRule) -> Filter {
        Filter { prefixes, communities: Vec::new(), large_communities: Vec::new() }
    }
}

/// Matches an AS path; what is absent is not asked, so the default matches every path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPathFilter {
    /// This AS is anywhere in the path, sets and confederations included.
    pub contains: Option<Asn>,
    /// This AS originated the route: it is the last of the path. A path that ends in a set, as an aggregate's does,
    /// has no such AS and does not match.
    pub originated_by: Option<Asn>,
    /// The path is at most so long, as best path selection counts (RFC 4271 section 9.1.2.2 a).
    pub max_length: Option<u16>,
}

impl AsPathFilter {
    /// Whether `path` matches.
    pub fn matches(&self, path: &AsPath) -> bool {
        self.contains.is_none_or(|asn| path.contains(asn))
            && self.originated_by.is_none_or(|asn| path.origin_asn() == Some(asn))
            && self.max_length.is_none_or(|most| path.hop_count() <= usize::from(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AsPathSegment, SegmentKind};

    fn filter(communities: &[&str], large: &[&str]) -> Filter {
        Filter {
            communities: communities.iter().map(|text| text.parse().unwrap()).collect(),
            large_communities: large.iter().map(|text| text.parse().unwrap()).collect(),
            ..Filter::from(PrefixRule::new("10.0.0.0/8".parse().unwrap(), Some(16), Some(24)).unwrap())
        }
    }

    #[test]
    fn prefix_and_every_community_must_hold() {
        let carried: [Community; 2] = ["64512:100".parse().unwrap(), "no-export".parse().unwrap()];
        let large: [LargeCommunity; 1] = ["64512:1:2".parse().unwrap()];
        // (prefix, wanted, wanted large, matches)
        for (prefix, wanted, wanted_large, matches) in [
            ("10.1.0.0/16", &[][..], &[][..], true),
            ("10.0.0.0/8", &[], &[], false),
            ("11.1.0.0/16", &[], &[], false),
            ("10.1.0.0/16", &["64512:100"], &[], true),
            ("10.1.0.0/16", &["no-export", "64512:100"], &[], true),
            ("10.1.0.0/16", &["64512:100", "64512:101"], &[], false),
            ("10.1.0.0/16", &[], &["64512:1:2"], true),
            ("10.1.0.0/16", &[], &["64512:1:3"], false),
            ("10.1.0.0/16", &["64512:100"], &["64512:1:2"], true),
            ("10.1.0.0/16", &["64512:101"], &["64512:1:2"], false),
            ("10.0.0.0/8", &["64512:100"], &["64512:1:2"], false),
        ] {
            let filter = filter(wanted, wanted_large);
            let said = filter.matches(prefix.parse().unwrap(), &carried, &large);
            assert_eq!(said, matches, "{prefix} {filter:?}");
        }
    }

    fn segment(kind: SegmentKind, asns: &[u32]) -> AsPathSegment {
        AsPathSegment { kind, asns: asns.iter().map(|n| Asn::new(*n).unwrap()).collect() }
    }

    #[test]
    fn each_part_of_an_as_path_filter_is_asked() {
        use SegmentKind::{ConfedSequence, Sequence, Set};
        let sequence = vec![segment(Sequence, &[64600, 64601, 64602])];
        let aggregate = vec![segment(Sequence, &[64600]), segment(Set, &[64601, 64602])];
        let confederation = vec![segment(ConfedSequence, &[65001, 65002]), segment(Sequence, &[64600])];
        let none = Vec::new();
        // (path, contains, originated by, longest, matches)
        for (segments, contains, originated_by, max_length, matches) in [
            (&sequence, None, None, None, true),
            (&none, None, None, None, true),
            (&sequence, Some(64601), None, None, true),
            (&sequence, Some(64603), None, None, false),
            (&none, Some(64600), None, None, false),
            (&sequence, None, Some(64602), None, true),
            (&sequence, None, Some(64600), None, false),
            (&none, None, Some(64600), None, false),
            (&aggregate, Some(64602), None, None, true),
            (&aggregate, None, Some(64602), None, false),
            (&sequence, None, None, Some(3), true),
            (&sequence, None, None, Some(2), false),
            // A set is one hop, and a confederation's segments are none.
            (&aggregate, None, None, Some(2), true),
            (&aggregate, None, None, Some(1), false),
            (&confederation, None, None, Some(1), true),
            (&confederation, Some(65001), Some(64600), Some(1), true),
            (&none, None, None, Some(0), true),
            (&sequence, Some(64600), Some(64602), Some(2), false),
        ] {
            let asn = |number: Option<u32>| number.map(|number| Asn::new(number).unwrap());
            let filter =
                AsPathFilter { contains: asn(contains), originated_by: asn(originated_by), max_length };
            let path = AsPath { segments: segments.clone() };
            assert_eq!(filter.matches(&path), matches, "{path} {filter:?}");
        }
    }
}
