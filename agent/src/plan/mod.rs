//! What this node should do: `plan(&Snapshot, &Local) -> Plan`, a pure, deterministic and total function.
//!
//! The same input gives the same plan, in order. Each Pod that is *not* advertised carries the reason, and
//! `plainroute plan` and `plainroute explain` print this very value. Whether a planned route is really in the
//! kernel is not known here; that is for the [`gate`](crate::gate).
mod advertisement;
mod block;
mod condition;
mod egress;
mod peer;
mod pod;
mod pool;
mod reason;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use plainroute_bgp::{Prefix, RouterId};
use plainroute_blocks::Holdings;
use plainroute_speaker::PeerName;
use serde::{Deserialize, Serialize};

pub use advertisement::RouteAttributes;
pub use block::BlockPlan;
pub use condition::Condition;
pub use egress::{EgressAddressPlan, EgressPlan, EgressReason, EgressSource, GATEWAY_FUNCTION, Gateway};
pub(crate) use egress::{not_supported, prefixes};
pub use peer::{FoundBy, PeerPlan, Remote};
pub use pod::{AddressPlan, Delivery, InterfaceSource, PodPlan};
pub use pool::PoolPlan;
pub(crate) use pool::{names, overlap};
pub use reason::Reason;

use crate::{
    discovery::Found,
    fib::Target,
    flaps::{Damped, PodKey},
    index::Snapshot,
};

/// What the plan must know beside the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The name of this node.
    pub node: String,
    /// The router ID where neither the peer nor the Node says one: the node's first IPv4 address.
    pub router_id: Option<RouterId>,
    /// The routers that no BGPPeer names by address.
    pub found: Found,
    /// The Pods whose readiness comes and goes.
    pub damped: BTreeMap<PodKey, Damped>,
    /// What this node holds of pools that are given out in blocks; none where it gives no addresses out. Then such a
    /// pool is checked like one of another IPAM.
    pub holdings: Option<Holdings>,
    /// The time, for `withdraw.minReadySeconds`.
    pub now: jiff::Timestamp,
}

/// What this node should do, and why not more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The node that it is for.
    pub node: String,
    /// The peers of this node, by name.
    pub peers: Vec<PeerPlan>,
    /// The pools, by name.
    pub pools: Vec<PoolPlan>,
    /// The blocks that this node owns, by prefix, single addresses not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockPlan>,
    /// The Egresses, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egresses: Vec<EgressPlan>,
    /// Every Pod that is known, by namespace and name.
    pub pods: Vec<PodPlan>,
    /// What is to be said about objects, by object.
    pub conditions: Vec<Condition>,
    /// When time alone changes the plan next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_change: Option<jiff::Timestamp>,
}

/// One prefix to be advertised to one peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advertisement<'a> {
    /// To whom.
    pub peer: &'a str,
    /// What.
    pub prefix: Prefix,
    /// With which attributes.
    pub attributes: &'a RouteAttributes,
}

impl Plan {
    /// All that should be advertised, once it is delivered.
    pub fn advertisements(&self) -> impl Iterator<Item = Advertisement<'_>> {
        let addresses = self.addresses().map(|(_, plan)| (Prefix::host(plan.address), &plan.advertise));
        let blocks = self.blocks.iter().map(|block| (block.cidr.prefix(), &block.advertise));
        let egress = self.egress_here().map(|address| (Prefix::host(address.address), &address.advertise));
        blocks.chain(addresses).chain(egress).flat_map(|(prefix, advertise)| {
            advertise.iter().map(move |(peer, attributes)| Advertisement { peer, prefix, attributes })
        })
    }

    /// The routes that the agent itself keeps in the kernel, besides those that it learned: to Pods, and for what of its
    /// blocks no Pod has.
    pub fn local_routes(&self) -> BTreeMap<Prefix, Target> {
        let to_pods = self.addresses().filter_map(|(_, address)| match &address.delivery {
            Some(Delivery::Interface { interface, .. }) => {
                Some((Prefix::host(address.address), Target::Device { interface: interface.clone() }))
            }
            Some(Delivery::Foreign) | None => None,
        });
        // A packet to an address that is free must not go back to whoever sent it here.
        let unreachable = self.blocks.iter().map(|block| (block.cidr.prefix(), Target::Unreachable));
        let egress = self.egress_here().map(|address| (Prefix::host(address.address), Target::Local));
        unreachable.chain(to_pods).chain(egress).collect()
    }

    /// The egress IPs that this node is to hold.
    pub fn egress_here(&self) -> impl Iterator<Item = &EgressAddressPlan> {
        self.egresses.iter().flat_map(|egress| &egress.addresses).filter(|address| address.is_here())
    }

    /// Whether packets of Pods may leave by this node that only their own objects name.
    pub fn needs_all_pods(&self) -> bool {
        self.egresses
            .iter()
            .any(|egress| egress.names_pods && egress.addresses.iter().any(EgressAddressPlan::is_here))
    }

    /// The egress IPs that anybody holds: of these it is learned who is preferred.
    pub fn egress_prefixes(&self) -> BTreeSet<Prefix> {
        let addresses = self.egresses.iter().flat_map(|egress| &egress.addresses);
        addresses
            .filter(|address| address.refused.is_none())
            .map(|address| Prefix::host(address.address))
            .collect()
    }

    /// Addresses to which somebody else's route must lead before they are advertised.
    pub fn foreign_addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses()
            .filter(|(_, address)| address.delivery == Some(Delivery::Foreign))
            .map(|(_, address)| address.address)
            .collect()
    }

    /// Every address of every Pod, with its Pod.
    pub fn addresses(&self) -> impl Iterator<Item = (&PodPlan, &AddressPlan)> {
        self.pods.iter().flat_map(|pod| pod.addresses.iter().map(move |address| (pod, address)))
    }

    /// Whether `prefix` lies within a declared pool: what nobody may teach us.
    pub fn in_pool(&self, prefix: Prefix) -> bool {
        self.pools.iter().any(|pool| pool.claims(prefix))
    }

    /// The peer's name in the speaker, for each peer that is planned.
    pub fn peer_names(&self) -> impl Iterator<Item = PeerName> {
        self.peers.iter().map(|peer| PeerName::from(peer.name.as_str()))
    }
}

/// What `local` should do, given everything that is known.
pub fn plan(snapshot: &Snapshot, local: &Local) -> Plan {
    let peers = peer::plan_peers(snapshot, local);
    let pools = pool::Pools::new(snapshot, local);
    let blocks = block::plan_blocks(snapshot, local, &pools, &peers);
    let egresses = egress::plan_egresses(snapshot, local, &pools, &peers);
    let pods = pod::plan_pods(snapshot, local, &pools, &peers, &blocks);
    let mut conditions = condition::collect(local, snapshot, &peers, &pools, &egresses);
    conditions.sort();
    Plan {
        node: local.node.clone(),
        peers: peers.here,
        pools: pools.into_plans(&pods.plans),
        blocks,
        egresses,
        pods: pods.plans,
        conditions,
        next_change: pods.next_change,
    }
}
