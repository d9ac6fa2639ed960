//! What one peer is to be told: originated routes turned into this session's attributes and next hop.
//!
//! Owned by the peer's task. The registry gives the whole desired set; the difference to the last one goes to the
//! Adj-RIB-Out, which keeps what was sent and packs what is pending.
use std::{
    collections::{BTreeMap, btree_map},
    net::IpAddr,
    sync::Arc,
};

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Community, Prefix,
    policy::Relation,
    rib::{AdjRibOut, AttributeSet, Route},
    session::Negotiated,
    wire::{AsPath, AsPathSegment, NextHop, Origin, PathAttributes, SegmentKind},
};

use crate::{
    AdvertisedRoute, OriginAttributes, PeerConfig,
    next_hop::{InterfaceAddress, next_hop_self},
};

/// What is originated to one peer, by all owners.
pub(crate) type Routes = BTreeMap<Prefix, Arc<OriginAttributes>>;

/// A version of the desired set; the number is what receipts wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desired {
    pub(crate) version: u64,
    pub(crate) routes: Arc<Routes>,
}

#[derive(Default)]
pub(crate) struct Outbound {
    rib: AdjRibOut,
    desired: Desired,
    /// The most routes that are told, of the desired ones those with the lowest prefixes.
    limit: usize,
    /// For each negotiated family ourselves as next hop, or why there is none; empty without a session.
    next_hops: BTreeMap<AfiSafi, Result<NextHop, String>>,
    template: Option<Template>,
    /// Per family, counted when the desired set or the limit changes: all that is originated, and what of it is
    /// beyond the limit.
    counts: BTreeMap<AfiSafi, Counts>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    originated: usize,
    beyond: usize,
}

/// The attributes that were built last, since neighbours in the set mostly share them.
struct Template {
    origin: Arc<OriginAttributes>,
    attributes: AttributeSet,
}

impl Outbound {
    pub(crate) fn new(config: &PeerConfig) -> Outbound {
        Outbound { limit: limit(config), ..Outbound::default() }
    }

    pub(crate) fn rib(&self) -> &AdjRibOut {
        &self.rib
    }

    /// The version of the desired set that is in here.
    pub(crate) fn version(&self) -> u64 {
        self.desired.version
    }

    /// How many prefixes of the family are originated.
    pub(crate) fn originated(&self, family: AfiSafi) -> usize {
        self.counts.get(&family).map_or(0, |counts| counts.originated)
    }

    /// Why some or all of what is originated is not told.
    pub(crate) fn not_advertised(&self, family: AfiSafi) -> Option<String> {
        if let Some(Err(reason)) = self.next_hops.get(&family) {
            return Some(reason.clone());
        }
        let beyond = self.counts.get(&family).map_or(0, |counts| counts.beyond);
        (beyond > 0).then(|| format!("{beyond} prefixes are beyond the limit of {}", self.limit))
    }

    pub(crate) fn set_desired(&mut self, desired: Desired, config: &PeerConfig) {
        let old = std::mem::replace(&mut self.desired, desired);
        self.change(&old.routes, self.limit, config);
    }

    pub(crate) fn set_limit(&mut self, config: &PeerConfig) {
        let old = std::mem::replace(&mut self.limit, limit(config));
        let routes = Arc::clone(&self.desired.routes);
        self.change(&routes, old, config);
    }

    /// The session stands: everything is to be told through it.
    pub(crate) fn session_up(
        &mut self,
        config: &PeerConfig,
        negotiated: &Negotiated,
        local: IpAddr,
        addresses: &[InterfaceAddress],
    ) {
        self.set_next_hops(config, negotiated, local, addresses);
        self.rib.session_up(negotiated.families);
    }

    /// Whether a family waits for an address to be its next hop.
    pub(crate) fn lacks_next_hop(&self) -> bool {
        self.next_hops.values().any(Result::is_err)
    }

    /// Chooses the next hops of the session and routes through them.
    pub(crate) fn set_next_hops(
        &mut self,
        config: &PeerConfig,
        negotiated: &Negotiated,
        local: IpAddr,
        addresses: &[InterfaceAddress],
    ) {
        let next_hop = |family| (family, next_hop_self(family, local, negotiated, addresses));
        self.next_hops = negotiated.families.iter().map(next_hop).collect();
        self.template = None;
        let routes = Arc::clone(&self.desired.routes);
        for (prefix, origin) in routes.iter().take(self.limit) {
            let route = self.route(*prefix, origin, config);
            self.rib.set_desired(*prefix, route);
        }
    }

    pub(crate) fn session_down(&mut self) {
        self.next_hops.clear();
        self.rib.session_down();
    }

    pub(crate) fn refresh(&mut self, family: AfiSafi) {
        self.rib.refresh(family);
    }

    pub(crate) fn release_end_of_rib(&mut self) {
        self.rib.release_end_of_rib();
    }

    /// Appends the next UPDATE; false where there is none.
    pub(crate) fn poll_update(&mut self, negotiated: &Negotiated, out: &mut BytesMut) -> bool {
        self.rib.poll_update(&negotiated.context, out)
    }

    /// What the peer was told, by prefix.
    pub(crate) fn advertised(&self) -> Vec<AdvertisedRoute> {
        let sent = self.rib.iter().filter(|advertised| advertised.sent);
        let mut routes: Vec<AdvertisedRoute> = sent
            .map(|advertised| AdvertisedRoute {
                prefix: advertised.prefix,
                next_hop: advertised.route.next_hop,
                attributes: Arc::clone(advertised.route.attributes.shared()),
            })
            .collect();
        routes.sort_by_key(|route| route.prefix);
        routes
    }

    /// Brings the RIB from the first `old_limit` of `old` to what is desired now.
    fn change(&mut self, old: &Routes, old_limit: usize, config: &PeerConfig) {
        let new = Arc::clone(&self.desired.routes);
        let mut changes: Vec<(Prefix, Option<&Arc<OriginAttributes>>)> = Vec::new();
        let mut old = old.iter().take(old_limit).peekable();
        for (prefix, origin) in new.iter().take(self.limit) {
            changes.extend(before(&mut old, *prefix).map(|gone| (gone, None)));
            let same = old.next_if(|(other, _)| *other == prefix).is_some_and(|(_, other)| other == origin);
            if !same {
                changes.push((*prefix, Some(origin)));
            }
        }
        changes.extend(old.map(|(gone, _)| (*gone, None)));
        self.counts.clear();
        for (place, prefix) in new.keys().enumerate() {
            let counts = self.counts.entry(prefix.family()).or_default();
            counts.originated += 1;
            counts.beyond += usize::from(place >= self.limit);
        }
        for (prefix, origin) in changes {
            let route = origin.and_then(|origin| self.route(prefix, origin, config));
            self.rib.set_desired(prefix, route);
        }
    }

    /// The route as this session says it; `None` without a session or a next hop.
    fn route(
        &mut self,
        prefix: Prefix,
        origin: &Arc<OriginAttributes>,
        config: &PeerConfig,
    ) -> Option<Route> {
        let next_hop = *self.next_hops.get(&prefix.family())?.as_ref().ok()?;
        let attributes = match &self.template {
            Some(template) if template.origin == *origin => template.attributes.clone(),
            Some(_) | None => {
                let attributes = AttributeSet::from(attributes(origin, config));
                self.template = Some(Template { origin: Arc::clone(origin), attributes: attributes.clone() });
                attributes
            }
        };
        Some(Route { attributes, next_hop })
    }
}

fn limit(config: &PeerConfig) -> usize {
    config.max_prefixes_out.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Takes what sorts before `prefix`.
fn before<'a>(
    routes: &mut std::iter::Peekable<std::iter::Take<btree_map::Iter<'a, Prefix, Arc<OriginAttributes>>>>,
    prefix: Prefix,
) -> impl Iterator<Item = Prefix> {
    std::iter::from_fn(move || routes.next_if(|(other, _)| **other < prefix).map(|(other, _)| *other))
}

/// The attributes as the peer sees them (RFC 4271 section 5.1).
fn attributes(origin: &OriginAttributes, config: &PeerConfig) -> PathAttributes {
    let internal = config.internal();
    // Within the AS the path stays empty: our own number in it would look like a loop.
    let own = if internal { 0 } else { 1 + usize::from(origin.as_path_prepend) };
    let segment = AsPathSegment { kind: SegmentKind::Sequence, asns: vec![config.local_asn; own] };
    // A segment holds 255 numbers on the wire.
    let segments =
        segment.asns.chunks(255).map(|asns| AsPathSegment { kind: segment.kind, asns: asns.to_vec() });
    let mut communities = origin.communities.clone();
    communities.extend(origin.drain.then_some(Community::GRACEFUL_SHUTDOWN));
    communities.sort();
    communities.dedup();
    let mut large_communities = origin.large_communities.clone();
    large_communities.sort();
    large_communities.dedup();
    let mut attributes = PathAttributes {
        origin: Origin::Igp,
        as_path: AsPath { segments: segments.collect() },
        med: origin.med,
        local_pref: internal.then(|| if origin.drain { 0 } else { origin.local_pref.unwrap_or(100) }),
        communities,
        large_communities,
        ..PathAttributes::default()
    };
    let relation = Relation { local_asn: config.local_asn, peer_asn: config.peer_asn, role: config.role };
    let sent = relation.send(&mut attributes);
    debug_assert!(sent.is_ok(), "only what came with Only to Customer can be a leak");
    attributes
}

#[cfg(test)]
mod tests {
    use plainroute_bgp::{Asn, RouterId, wire::Role};

    use super::*;

    fn config(local: u32, peer: u32) -> PeerConfig {
        let asn = |number| Asn::new(number).unwrap();
        PeerConfig::new(asn(local), asn(peer), RouterId::new(1).unwrap(), "192.0.2.1".parse().unwrap())
    }

    fn origin() -> OriginAttributes {
        OriginAttributes {
            communities: vec![Community(9), Community(3), Community(9)],
            as_path_prepend: 2,
            local_pref: Some(7),
            ..OriginAttributes::default()
        }
    }

    #[test]
    fn an_external_peer_sees_our_as_and_no_local_preference() {
        let attributes = attributes(&origin(), &config(1, 2));
        assert_eq!(attributes.as_path.segments[0].asns, vec![Asn::new(1).unwrap(); 3]);
        assert_eq!(attributes.local_pref, None);
        assert_eq!(attributes.communities, [Community(3), Community(9)]);
    }

    #[test]
    fn an_internal_peer_sees_the_local_preference_and_an_empty_path() {
        let attributes = attributes(&origin(), &config(1, 1));
        assert_eq!((attributes.local_pref, attributes.as_path.segments.len()), (Some(7), 0));
    }

    /// RFC 8326 section 4.1.
    #[test]
    fn a_drained_route_says_that_it_goes_away() {
        let drained = OriginAttributes { drain: true, ..origin() };
        let external = attributes(&drained, &config(1, 2));
        assert_eq!(external.communities, [Community(3), Community(9), Community::GRACEFUL_SHUTDOWN]);
        assert_eq!(attributes(&drained, &config(1, 1)).local_pref, Some(0));
        assert!(!attributes(&origin(), &config(1, 2)).communities.contains(&Community::GRACEFUL_SHUTDOWN));
    }

    /// RFC 9234 section 5: what we originate to a customer or peer is for their customers only.
    #[test]
    fn a_role_marks_what_we_originate() {
        let said =
            |role| attributes(&origin(), &PeerConfig { role: Some(role), ..config(1, 2) }).only_to_customer;
        assert_eq!(said(Role::Provider), Asn::new(1));
        assert_eq!(said(Role::Peer), Asn::new(1));
        assert_eq!(said(Role::Customer), None);
    }

    #[test]
    fn a_path_beyond_a_segment_is_split() {
        let attributes = attributes(&OriginAttributes { as_path_prepend: 255, ..origin() }, &config(1, 2));
        let lengths: Vec<usize> =
            attributes.as_path.segments.iter().map(|segment| segment.asns.len()).collect();
        assert_eq!(lengths, [255, 1]);
    }
}
