//! What one peer is to be told: originated routes turned into this session's attributes and next hop.
//!
//! Owned by the peer's task. The registry gives changes; they go to the Adj-RIB-Out, which keeps what was sent and
//! packs what is pending. What the session makes of a set of attributes is asked once, when it is first told.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Community, Prefix,
    policy::Relation,
    rib::{AdjRibOut, Route},
    session::Negotiated,
    wire::{AsPath, AsPathSegment, NextHop, Origin, PathAttributes, SegmentKind},
};

use crate::{
    AdvertisedRoute, OriginAttributes, PeerConfig,
    next_hop::{InterfaceAddress, next_hop_self},
    originated::Change,
    quota::Quota,
};

/// A piece of a change. A large one comes in several, so that no more than that is under way at a time.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) routes: Vec<Change>,
    /// The number that receipts wait for, in the last piece.
    pub(crate) version: Option<u64>,
}

impl Changes {
    /// How many routes a piece has at most.
    pub(crate) const ROUTES: usize = 2048;
}

/// For each negotiated family ourselves as next hop, or why there is none; empty without a session.
type NextHops = BTreeMap<AfiSafi, Result<NextHop, String>>;

#[derive(Default)]
pub(crate) struct Outbound {
    rib: AdjRibOut<Arc<OriginAttributes>>,
    quota: Quota,
    /// Of the last change that is in here whole; `None` before what was there when the peer came.
    version: Option<u64>,
    next_hops: NextHops,
}

impl Outbound {
    pub(crate) fn new(config: &PeerConfig) -> Outbound {
        let mut outbound = Outbound::default();
        outbound.set_limit(config);
        outbound
    }

    pub(crate) fn rib(&self) -> &AdjRibOut<Arc<OriginAttributes>> {
        &self.rib
    }

    /// The version of the originated routes that is in here, once there is a whole one.
    pub(crate) fn version(&self) -> Option<u64> {
        self.version
    }

    /// How many prefixes of the family are originated.
    pub(crate) fn originated(&self, family: AfiSafi) -> usize {
        self.rib.desired(family) + self.quota.beyond(family)
    }

    /// Why some or all of what is originated is not told.
    pub(crate) fn not_advertised(&self, family: AfiSafi, config: &PeerConfig) -> Option<String> {
        if let Some(Err(reason)) = self.next_hops.get(&family) {
            return Some(reason.clone());
        }
        let beyond = self.quota.beyond(family);
        let limit = config.max_prefixes_out.filter(|_| beyond > 0)?;
        Some(format!("{beyond} prefixes are beyond the limit of {limit}"))
    }

    pub(crate) fn apply(&mut self, changes: Changes) {
        for change in changes.routes {
            self.quota.admit(change, |(prefix, desired)| _ = self.rib.set_desired(prefix, desired));
        }
        self.version = changes.version.or(self.version);
    }

    /// Nothing is to be told any more.
    pub(crate) fn withdraw(&mut self) {
        let told: Vec<Prefix> = self.rib.iter().map(|advertised| advertised.prefix).collect();
        for prefix in told {
            self.rib.set_desired(prefix, None);
        }
        self.quota = Quota::default();
    }

    pub(crate) fn set_limit(&mut self, config: &PeerConfig) {
        let mut changes = Vec::new();
        let rib = &self.rib;
        let told = || rib.iter().map(|told| (told.prefix, Arc::clone(told.desired))).collect();
        self.quota.set_limit(config.max_prefixes_out, told, |change| changes.push(change));
        for (prefix, desired) in changes {
            self.rib.set_desired(prefix, desired);
        }
    }

    /// The session stands: everything is to be told through it.
    pub(crate) fn session_up(
        &mut self,
        negotiated: &Negotiated,
        local: IpAddr,
        addresses: &[InterfaceAddress],
    ) {
        self.next_hops = next_hops(negotiated, local, addresses);
        self.rib.session_up(negotiated.families);
    }

    /// Whether a family waits for an address to be its next hop.
    pub(crate) fn lacks_next_hop(&self) -> bool {
        self.next_hops.values().any(Result::is_err)
    }

    /// Chooses the next hops of the session anew.
    pub(crate) fn set_next_hops(
        &mut self,
        config: &PeerConfig,
        negotiated: &Negotiated,
        local: IpAddr,
        addresses: &[InterfaceAddress],
    ) {
        let next_hops = next_hops(negotiated, local, addresses);
        if next_hops != self.next_hops {
            self.rib.say_again(|family, origin| say(family, origin, &next_hops, config));
            self.next_hops = next_hops;
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
    pub(crate) fn poll_update(
        &mut self,
        config: &PeerConfig,
        negotiated: &Negotiated,
        out: &mut BytesMut,
    ) -> bool {
        let next_hops = &self.next_hops;
        let say = |family, origin: &Arc<OriginAttributes>| say(family, origin, next_hops, config);
        self.rib.poll_update_with(&negotiated.context, say, out)
    }

    /// What the peer was told, by prefix.
    pub(crate) fn advertised(&self) -> Vec<AdvertisedRoute> {
        let sent = self.rib.iter().filter(|advertised| advertised.sent);
        let mut routes: Vec<AdvertisedRoute> = sent
            .filter_map(|advertised| {
                let route = advertised.route?;
                let attributes = Arc::clone(route.attributes.shared());
                Some(AdvertisedRoute { prefix: advertised.prefix, next_hop: route.next_hop, attributes })
            })
            .collect();
        routes.sort_unstable_by_key(|route| route.prefix);
        routes
    }
}

fn next_hops(negotiated: &Negotiated, local: IpAddr, addresses: &[InterfaceAddress]) -> NextHops {
    let next_hop = |family| (family, next_hop_self(family, local, negotiated, addresses));
    negotiated.families.iter().map(next_hop).collect()
}

/// The route as the session says it; `None` where it has no next hop.
fn say(
    family: AfiSafi,
    origin: &OriginAttributes,
    next_hops: &NextHops,
    config: &PeerConfig,
) -> Option<Route> {
    let next_hop = *next_hops.get(&family)?.as_ref().ok()?;
    Some(Route::new(attributes(origin, config), next_hop))
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
    let mut extended_communities = origin.extended_communities.clone();
    extended_communities.sort();
    extended_communities.dedup();
    let mut large_communities = origin.large_communities.clone();
    large_communities.sort();
    large_communities.dedup();
    let mut attributes = PathAttributes {
        origin: Origin::Igp,
        as_path: AsPath { segments: segments.collect() },
        med: origin.med,
        local_pref: internal.then(|| if origin.drain { 0 } else { origin.local_pref.unwrap_or(100) }),
        communities,
        extended_communities,
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
