//! What the peers taught us and the kernel shall know: the best paths over all peers, with their equals.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use plainroute_bgp::{
    Asn, Prefix, RouterId,
    rib::best_path::{self, Candidate},
    wire::{NextHop, Nlri, PathAttributes},
};

use crate::{PeerName, config::is_link_local, origin::next_hop_address};

/// Accepted routes with `install: true`: for each prefix the best path and those equal to it, by peer.
pub type Learned = BTreeMap<Prefix, Vec<LearnedPath>>;

/// One way to a prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LearnedPath {
    /// Who taught it.
    pub peer: PeerName,
    /// Where to send.
    pub next_hop: IpAddr,
    /// Over which interface, where the next hop is link-local.
    pub interface: Option<String>,
    /// The peer is restarting and has not confirmed the route yet; it still forwards (RFC 4724).
    pub stale: bool,
}

/// Routes to the prefixes of [`PeerConfig::followed`](crate::PeerConfig::followed): for each the best path and those
/// equal to it, by peer.
pub type Followed = BTreeMap<Prefix, Vec<FollowedPath>>;

/// Whom one peer prefers for a prefix that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedPath {
    /// Who told it.
    pub peer: PeerName,
    /// What came with it; a large community names the holder.
    pub attributes: Arc<PathAttributes>,
    /// The peer is restarting and has not confirmed the route yet.
    pub stale: bool,
}

/// One peer's routes for the kernel; several for a prefix where it has add-path (RFC 7911).
pub(crate) type PeerRoutes = BTreeMap<Nlri, PeerRoute>;

/// A route of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerRoute {
    pub(crate) attributes: Arc<PathAttributes>,
    pub(crate) next_hop: NextHop,
    pub(crate) stale: bool,
}

/// What one peer teaches, and who it is as far as the choice of paths asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Teaching {
    pub(crate) internal: bool,
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
    pub(crate) address: IpAddr,
    /// The interface towards the peer, as far as it is known.
    pub(crate) interface: Option<String>,
    pub(crate) routes: Arc<PeerRoutes>,
    pub(crate) followed: Arc<PeerRoutes>,
}

/// What one peer offers for a prefix.
type Offer<'a> = (Prefix, &'a PeerName, &'a Teaching, &'a PeerRoute);

/// The best paths over all peers (RFC 4271 section 9.1.2.2).
pub(crate) fn best(teachings: &BTreeMap<PeerName, Teaching>) -> Learned {
    best_of(teachings, |teaching| &teaching.routes, path)
}

/// The same of what is followed.
pub(crate) fn best_followed(teachings: &BTreeMap<PeerName, Teaching>) -> Followed {
    best_of(
        teachings,
        |teaching| &teaching.followed,
        |(_, peer, _, route)| FollowedPath {
            peer: PeerName::clone(peer),
            attributes: Arc::clone(&route.attributes),
            stale: route.stale,
        },
    )
}

fn best_of<T>(
    teachings: &BTreeMap<PeerName, Teaching>,
    routes: impl Fn(&Teaching) -> &PeerRoutes,
    path: impl Fn(&Offer<'_>) -> T,
) -> BTreeMap<Prefix, Vec<T>> {
    let mut offers: Vec<Offer<'_>> = Vec::with_capacity(teachings.values().map(|t| routes(t).len()).sum());
    for (peer, teaching) in teachings {
        offers.extend(routes(teaching).iter().map(|(nlri, route)| (nlri.prefix, peer, teaching, route)));
    }
    // Each peer's are in order already, so this only merges; it keeps the order of peers and of paths.
    offers.sort_by_key(|(prefix, ..)| *prefix);
    offers
        .chunk_by(|(a, ..), (b, ..)| a == b)
        .map(|offers| (offers[0].0, chosen(offers).map(&path).collect()))
        .collect()
}

/// Of the offers for one prefix the best and its equals.
fn chosen<'a, 'b>(offers: &'a [Offer<'b>]) -> impl Iterator<Item = &'a Offer<'b>> {
    let places = match offers {
        [_] => vec![0],
        _ => decide(offers),
    };
    places.into_iter().filter_map(|place| offers.get(place))
}

fn decide(offers: &[Offer<'_>]) -> Vec<usize> {
    let candidates: Vec<Candidate<'_>> = offers
        .iter()
        .map(|(_, _, teaching, route)| Candidate {
            attributes: &route.attributes,
            internal: teaching.internal,
            peer_asn: teaching.asn,
            peer_router_id: teaching.router_id,
            peer_address: teaching.address,
            next_hop_cost: 0,
        })
        .collect();
    best_path::decide(&candidates).map(|decision| decision.multipath).unwrap_or_default()
}

fn path((_, peer, teaching, route): &Offer<'_>) -> LearnedPath {
    let next_hop = next_hop_address(route.next_hop);
    let interface = teaching.interface.clone().filter(|_| is_link_local(next_hop));
    LearnedPath { peer: PeerName::clone(peer), next_hop, interface, stale: route.stale }
}
