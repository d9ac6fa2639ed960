//! The decision process of RFC 4271 section 9.1.2.2, as a pure function over candidates.
//!
//! MED compares only between routes of the same neighbouring AS, so "better" is not transitive and sorting would
//! give answers that depend on the order of arrival. Like the RFC, this eliminates: each step removes candidates,
//! and a candidate remembers the step that removed it, which is what `explain` shows.
use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    Asn, Community, RouterId,
    wire::{AsPath, PathAttributes, SegmentKind},
};

/// One route to a prefix and what the decision needs to know about where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its attributes.
    pub attributes: &'a PathAttributes,
    /// Whether the peer is in our own AS.
    pub internal: bool,
    /// The peer's AS: the neighbouring AS of a route without a path of its own.
    pub peer_asn: Asn,
    /// The peer's BGP identifier.
    pub peer_router_id: RouterId,
    /// The peer's address.
    pub peer_address: IpAddr,
    /// The cost to reach the next hop; 0 where it is on a link of ours.
    pub next_hop_cost: u32,
}

/// The steps, in order. What removed a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// It is long-lived stale and another is not (RFC 9494 section 4.2).
    LongLivedStale,
    /// A lower LOCAL_PREF (RFC 4271 section 9.1.1).
    LocalPreference,
    /// A longer AS_PATH (9.1.2.2 a).
    AsPathLength,
    /// A higher ORIGIN (9.1.2.2 b).
    Origin,
    /// A higher MED from the same neighbouring AS (9.1.2.2 c).
    Med,
    /// Learned within the AS while another came from outside (9.1.2.2 d).
    Internal,
    /// A farther next hop (9.1.2.2 e).
    NextHopCost,
    /// A higher BGP identifier, or ORIGINATOR_ID in its place (9.1.2.2 f, RFC 4456 section 9).
    RouterId,
    /// A longer CLUSTER_LIST (RFC 4456 section 9).
    ClusterList,
    /// A higher peer address (9.1.2.2 g).
    PeerAddress,
}

impl Step {
    /// Whether losing here still leaves a route good enough to share the load: all that is left to compare are
    /// arbitrary numbers.
    pub const fn is_tie_break(self) -> bool {
        matches!(self, Step::RouterId | Step::ClusterList | Step::PeerAddress)
    }
}

/// The outcome; numbers are places in the slice of candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The best route.
    pub best: usize,
    /// All that are as good up to the tie-breaks, the best among them, ascending: the multipath set. AS paths
    /// need only be equally long, so that two routers of different ASes share the load.
    pub multipath: Vec<usize>,
    /// For each candidate the step that removed it; `None` for the best.
    pub lost: Vec<Option<Step>>,
}

/// LOCAL_PREF where a route has none: what routers take for granted.
const DEFAULT_LOCAL_PREFERENCE: u32 = 100;

/// Decides; `None` without candidates. The answer does not depend on the order of the candidates, except that
/// of two with the same peer address the first wins.
pub fn decide(candidates: &[Candidate<'_>]) -> Option<Decision> {
    let mut race =
        Race { candidates, alive: (0..candidates.len()).collect(), lost: vec![None; candidates.len()] };
    race.keep_lowest(Step::LongLivedStale, |c| c.attributes.communities.contains(&Community::LLGR_STALE));
    race.keep_lowest(Step::LocalPreference, |c| {
        Reverse(c.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREFERENCE))
    });
    race.keep_lowest(Step::AsPathLength, |c| path_length(&c.attributes.as_path));
    race.keep_lowest(Step::Origin, |c| c.attributes.origin);
    race.keep_lowest_med();
    race.keep_lowest(Step::Internal, |c| c.internal);
    race.keep_lowest(Step::NextHopCost, |c| c.next_hop_cost);
    let multipath = race.alive.clone();
    race.keep_lowest(Step::RouterId, router_id);
    race.keep_lowest(Step::ClusterList, |c| c.attributes.cluster_list.len());
    race.keep_lowest(Step::PeerAddress, |c| c.peer_address);
    let (best, same) = race.alive.split_first()?;
    for place in same {
        race.lost[*place] = Some(Step::PeerAddress);
    }
    Some(Decision { best: *best, multipath, lost: race.lost })
}

struct Race<'a> {
    candidates: &'a [Candidate<'a>],
    alive: Vec<usize>,
    lost: Vec<Option<Step>>,
}

impl Race<'_> {
    fn keep_lowest<K: Ord>(&mut self, step: Step, key: impl Fn(&Candidate<'_>) -> K) {
        let Some(lowest) = self.alive.iter().map(|place| key(&self.candidates[*place])).min() else { return };
        let (candidates, lost) = (self.candidates, &mut self.lost);
        self.alive.retain(|place| {
            let keep = key(&candidates[*place]) == lowest;
            if !keep {
                lost[*place] = Some(step);
            }
            keep
        });
    }

    /// 9.1.2.2 c: each candidate is measured against those of its own neighbouring AS only. A missing MED is the
    /// lowest value.
    fn keep_lowest_med(&mut self) {
        let before: Vec<(Option<Asn>, u32)> =
            self.alive.iter().map(|place| med(&self.candidates[*place])).collect();
        let mut at = 0;
        let lost = &mut self.lost;
        self.alive.retain(|place| {
            let (neighbour, own) = before[at];
            at += 1;
            let beaten = before.iter().any(|(other, med)| *other == neighbour && *med < own);
            if beaten {
                lost[*place] = Some(Step::Med);
            }
            !beaten
        });
    }
}

fn med(candidate: &Candidate<'_>) -> (Option<Asn>, u32) {
    (neighbour_asn(candidate), candidate.attributes.med.unwrap_or(0))
}

/// The neighbouring AS: the first of the path. An internal route without a path began in our own AS (`None`).
fn neighbour_asn(candidate: &Candidate<'_>) -> Option<Asn> {
    let first = candidate.attributes.as_path.segments.iter().find(|segment| !is_confederation(segment.kind));
    match first {
        Some(segment) if segment.kind == SegmentKind::Sequence => segment.asns.first().copied(),
        Some(_) | None if candidate.internal => None,
        Some(_) | None => Some(candidate.peer_asn),
    }
}

fn is_confederation(kind: SegmentKind) -> bool {
    match kind {
        SegmentKind::ConfedSequence | SegmentKind::ConfedSet => true,
        SegmentKind::Sequence | SegmentKind::Set => false,
    }
}

/// An AS_SET counts as one (9.1.2.2 a), confederation segments as nothing (RFC 5065 section 5.3).
fn path_length(path: &AsPath) -> usize {
    path.segments
        .iter()
        .map(|segment| match segment.kind {
            SegmentKind::Sequence => segment.asns.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        })
        .sum()
}

fn router_id(candidate: &Candidate<'_>) -> Ipv4Addr {
    candidate.attributes.originator_id.unwrap_or(candidate.peer_router_id.address())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AsPathSegment, Origin};

    /// A candidate's difference from the ordinary one.
    #[derive(Clone)]
    struct Case {
        attributes: PathAttributes,
        internal: bool,
        router: u32,
        address: [u8; 4],
        cost: u32,
    }

    fn path(asns: &[u32]) -> AsPath {
        segment(SegmentKind::Sequence, asns)
    }

    fn segment(kind: SegmentKind, asns: &[u32]) -> AsPath {
        let asns = asns.iter().map(|asn| Asn::new(*asn).unwrap()).collect();
        AsPath { segments: vec![AsPathSegment { kind, asns }] }
    }

    fn from(asns: &[u32]) -> Case {
        let attributes = PathAttributes { as_path: path(asns), ..PathAttributes::default() };
        Case { attributes, internal: false, router: 1, address: [192, 0, 2, 1], cost: 0 }
    }

    fn with(change: impl FnOnce(&mut Case)) -> Case {
        let mut case = from(&[65001, 65002]);
        change(&mut case);
        case
    }

    fn run(cases: &[Case]) -> Decision {
        let candidates: Vec<Candidate<'_>> = cases
            .iter()
            .map(|case| Candidate {
                attributes: &case.attributes,
                internal: case.internal,
                peer_asn: Asn::new(65001).unwrap(),
                peer_router_id: RouterId::new(case.router).unwrap(),
                peer_address: IpAddr::from(case.address),
                next_hop_cost: case.cost,
            })
            .collect();
        decide(&candidates).unwrap()
    }

    #[test]
    fn each_step_decides_where_all_before_it_are_equal() {
        let far = |case: &mut Case| {
            case.router = 9;
            case.address = [192, 0, 2, 9];
        };
        // (the better route, made worse in every later respect; the worse one; the step)
        let table: Vec<(Case, Case, Step)> = vec![
            (
                with(far),
                with(|c| {
                    c.attributes.communities = vec![Community::LLGR_STALE];
                    c.attributes.local_pref = Some(900);
                }),
                Step::LongLivedStale,
            ),
            (
                with(|c| {
                    c.attributes.local_pref = Some(101);
                    c.attributes.as_path = path(&[65001, 65002, 65003]);
                }),
                with(|_| ()),
                Step::LocalPreference,
            ),
            (with(|c| c.attributes.origin = Origin::Incomplete), from(&[65001, 1, 2]), Step::AsPathLength),
            (with(|c| c.attributes.med = Some(9)), with(|c| c.attributes.origin = Origin::Egp), Step::Origin),
            (
                with(|c| {
                    c.internal = true;
                    c.attributes.med = Some(1);
                }),
                with(|c| c.attributes.med = Some(2)),
                Step::Med,
            ),
            (with(|c| c.cost = 5), with(|c| c.internal = true), Step::Internal),
            (with(far), with(|c| c.cost = 1), Step::NextHopCost),
            (with(|c| c.address = [192, 0, 2, 9]), with(|c| c.router = 2), Step::RouterId),
            (
                with(|c| c.address = [192, 0, 2, 9]),
                with(|c| c.attributes.cluster_list = vec![Ipv4Addr::LOCALHOST]),
                Step::ClusterList,
            ),
            (with(|_| ()), with(|c| c.address = [192, 0, 2, 2]), Step::PeerAddress),
        ];
        for (better, worse, step) in table {
            let tie = step.is_tie_break();
            let forward = run(&[better.clone(), worse.clone()]);
            assert_eq!((forward.best, &forward.lost), (0, &vec![None, Some(step)]), "{step:?}");
            assert_eq!(forward.multipath, if tie { vec![0, 1] } else { vec![0] }, "{step:?}");
            let backward = run(&[worse, better]);
            assert_eq!((backward.best, &backward.lost), (1, &vec![Some(step), None]), "{step:?}");
        }
    }

    #[test]
    fn med_does_not_compare_across_neighbours() {
        let low = with(|c| {
            c.attributes.med = Some(1);
            c.router = 2;
        });
        let mut high = from(&[65009, 65002]);
        high.attributes.med = Some(100);
        let decision = run(&[low, high]);
        assert_eq!((decision.best, decision.multipath), (1, vec![0, 1]));
        assert_eq!(decision.lost, [Some(Step::RouterId), None]);
    }

    #[test]
    fn a_missing_med_is_the_lowest() {
        let decision = run(&[with(|c| c.attributes.med = Some(1)), with(|c| c.router = 9)]);
        assert_eq!((decision.best, decision.lost), (1, vec![Some(Step::Med), None]));
    }

    /// The classic knot: A beats B by MED, B beats C and C beats A by identifier. Whatever the order, the answer
    /// is the same.
    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let a = with(|c| {
            c.attributes.med = Some(1);
            c.router = 3;
        });
        let b = with(|c| {
            c.attributes.med = Some(2);
            c.router = 1;
        });
        let mut c = from(&[65009, 65002]);
        c.router = 2;
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let cases = order.map(|place: usize| [&a, &b, &c][place].clone());
            assert_eq!(order[run(&cases).best], 2, "{order:?}");
        }
    }

    #[test]
    fn an_as_set_counts_as_one_and_a_confederation_as_nothing() {
        assert_eq!(path_length(&segment(SegmentKind::Set, &[1, 2, 3])), 1);
        assert_eq!(path_length(&segment(SegmentKind::ConfedSequence, &[1, 2])), 0);
        assert_eq!(path_length(&segment(SegmentKind::ConfedSet, &[1, 2])), 0);
        assert_eq!(path_length(&path(&[1, 2, 3])), 3);
    }

    #[test]
    fn equal_routes_over_two_routers_share_the_load() {
        let mut other = from(&[65009, 65010]);
        other.router = 7;
        let longer = from(&[65009, 65010, 65011]);
        assert_eq!(run(&[from(&[65001, 65002]), longer, other]).multipath, [0, 2]);
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert_eq!(decide(&[]), None);
    }
}
