//! What this node should do: `plan(&Snapshot, &Local) -> Plan`, a pure, deterministic and total function.
//!
//! The same input gives the same plan, in order. Each Pod that is *not* advertised carries the reason, and
//! `plainroute plan` and `plainroute explain` print this very value. Whether a planned route is really in the
//! kernel is not known here; that is for the [`gate`](crate::gate).
mod advertisement;
mod condition;
mod peer;
mod pod;
mod pool;
mod reason;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use plainroute_bgp::{Prefix, RouterId};
use plainroute_speaker::PeerName;
use serde::{Deserialize, Serialize};

pub use advertisement::RouteAttributes;
pub use condition::Condition;
pub use peer::{FoundBy, PeerPlan, Remote};
pub use pod::{AddressPlan, Delivery, InterfaceSource, PodPlan};
pub use pool::PoolPlan;
pub(crate) use pool::overlap;
pub use reason::Reason;

use crate::{
    discovery::Found,
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
        self.addresses().flat_map(|(_, address)| {
            address.advertise.iter().map(|(peer, attributes)| Advertisement {
                peer,
                prefix: Prefix::host(address.address),
                attributes,
            })
        })
    }

    /// The host routes that the agent itself keeps in the kernel: prefix and interface.
    pub fn local_routes(&self) -> BTreeMap<Prefix, &str> {
        self.addresses()
            .filter_map(|(_, address)| match &address.delivery {
                Some(Delivery::Interface { interface, .. }) => {
                    Some((Prefix::host(address.address), interface.as_str()))
                }
                Some(Delivery::Foreign) | None => None,
            })
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
    let pods = pod::plan_pods(snapshot, local, &pools, &peers);
    let mut conditions = condition::collect(&local.node, snapshot, &peers, &pools);
    conditions.sort();
    Plan {
        node: local.node.clone(),
        peers: peers.here,
        pools: pools.into_plans(&pods.plans),
        pods: pods.plans,
        conditions,
        next_change: pods.next_change,
    }
}
