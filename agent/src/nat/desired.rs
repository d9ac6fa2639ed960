//! What nftables should do, said without its words: the input of [`run`](super::run).
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use plainroute_bgp::Prefix;

/// The whole of what nftables should do; each value replaces the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatDesired {
    /// Chosen by whoever makes the value, growing; [`NatInstalled`](super::NatInstalled) says which one it reflects.
    pub generation: u64,
    /// Destinations that no egress is about: Pods, nodes, Services. East-west traffic is never touched.
    pub inside: BTreeSet<Prefix>,
    /// Interfaces by which packets of other nodes' Pods come in ("transit"); what comes in elsewhere is of this node's
    /// own Pods ("local").
    pub uplinks: BTreeSet<String>,
    /// Sources grouped by the destinations that are meant. The first class that takes a packet wins.
    pub classes: Vec<NatClass>,
    /// Egress IPs that stand on this node: what arrives for them and belongs to no flow is dropped without an answer.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses of Pods (all declared Pod pools): a transit packet from them to somewhere outside that no class takes is
    /// dropped, since it would leave with a wrong source.
    pub pods: BTreeSet<Prefix>,
    /// Bits of the packet mark that are ours; all of them set means "SNAT here", less is a gateway's slot.
    pub mark_mask: u32,
}

impl NatDesired {
    /// Whether nothing is to be done, so that there need not be a table.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.addresses.is_empty()
    }

    /// Whether every flow fares the same with both.
    pub(super) fn decides_like(&self, other: &NatDesired) -> bool {
        self.inside == other.inside && self.addresses == other.addresses && self.classes == other.classes
    }

    /// Whether all that `before` decides is decided alike, and sources are added at most.
    pub(super) fn adds_to(&self, before: &NatDesired) -> bool {
        let adds = |(now, before): (&NatClass, &NatClass)| {
            let mut sources = now.sources.iter();
            let kept = before.sources.iter().all(|source| sources.any(|now| now == source));
            kept && now.to == before.to && now.except == before.except
        };
        self.inside == before.inside
            && self.addresses == before.addresses
            && self.classes.len() == before.classes.len()
            && self.classes.iter().zip(&before.classes).all(adds)
    }
}

/// Sources that are treated when they speak to certain destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatClass {
    /// The destinations; 0.0.0.0/0 or ::/0 means everywhere of that family.
    pub to: BTreeSet<Prefix>,
    /// Destinations within `to` that are not meant.
    pub except: BTreeSet<Prefix>,
    /// Where several match, the longest wins.
    pub sources: BTreeMap<Prefix, NatSource>,
}

/// What becomes of the packets of a Pod, or of a pool's prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatSource {
    /// The Egress by whose name packets are counted.
    pub egress: Arc<str>,
    /// The egress IP of this source, of its own family.
    pub address: IpAddr,
    /// What becomes of packets that come from this node's Pods.
    pub local: Fate,
    /// What becomes of packets that come in by an uplink.
    pub transit: Fate,
}

impl NatSource {
    /// Whether something of it is to leave this node as its egress IP.
    pub(super) fn is_here(&self) -> bool {
        [self.local, self.transit].contains(&Fate::Here)
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// It leaves here, with the egress IP as its source.
    Here,
    /// It is marked for the policy route of a gateway.
    Away {
        /// The gateway's slot, 1..=253.
        slot: u8,
    },
    /// It is dropped and counted.
    Drop,
    /// It goes as if there were no egress.
    Leave,
}
