//! What becomes of each Pod: the rules, in the order in which they are asked.
use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use jiff::Timestamp;
use plainroute_bgp::Prefix;
use plainroute_blocks::Holder;
use plainroute_config::{Allocation, BgpAdvertisement, Cidr, IpPool, Labels, Namespace, Pod, annotation};
use serde::{Deserialize, Serialize};

use super::{
    BlockPlan, Local, Reason, RouteAttributes,
    advertisement::{self, Candidate, Of},
    peer::Peers,
    pool::{Pools, Tenant},
};
use crate::{
    index::Snapshot,
    source::{HostLink, SourceName},
};

/// What becomes of one Pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPlan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Why nothing of it is advertised, where that is a matter of the whole Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reason>,
    /// The addresses that it is known by, where it is refused as a whole.
    #[serde(rename = "podIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<IpAddr>,
    /// What becomes of each address.
    pub addresses: Vec<AddressPlan>,
}

/// What becomes of one address of a Pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPlan {
    /// The address.
    pub address: IpAddr,
    /// The pool by which the Pod has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// How this node delivers to it; none where it is not this node's to deliver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// The block of this node that it lies in, where nothing takes the address alone and the block is advertised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Cidr>,
    /// The BGPAdvertisements that select it, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertised_by: Vec<String>,
    /// To which peers it should be advertised, with which attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub advertise: BTreeMap<String, RouteAttributes>,
    /// The peers that a BGPAdvertisement selects and that do not get it, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub withheld: BTreeMap<String, Reason>,
    /// Why it should not be advertised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reason>,
}

/// How this node delivers to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "by")]
pub enum Delivery {
    /// By a host route of ours over this interface.
    Interface {
        /// The node's side of the Pod's link.
        interface: String,
        /// Who says so.
        source: InterfaceSource,
    },
    /// By somebody else's route, which the gate verifies.
    Foreign,
}

/// Who says which interface leads to a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InterfaceSource {
    /// The result that the CNI plugin left in libcni's cache.
    CniCache,
    /// The annotation `plainroute.dev/host-interface` of a Pod from a file.
    Annotation,
}

/// The plans of all Pods.
pub(super) struct Planned {
    pub(super) plans: Vec<PodPlan>,
    pub(super) next_change: Option<Timestamp>,
}

/// What all Pods are judged by.
struct Rules<'a> {
    snapshot: &'a Snapshot,
    local: &'a Local,
    pools: &'a Pools<'a>,
    peers: &'a Peers<'a>,
    blocks: &'a [BlockPlan],
    advertisements: Vec<&'a BgpAdvertisement>,
    /// The live Pod that has each address.
    holders: BTreeMap<IpAddr, &'a Pod>,
}

/// Every Pod that is known, by namespace and name.
pub(super) fn plan_pods(
    snapshot: &Snapshot,
    local: &Local,
    pools: &Pools<'_>,
    peers: &Peers<'_>,
    blocks: &[BlockPlan],
) -> Planned {
    let advertisements = snapshot.advertisements().map(|(advertisement, _)| advertisement).collect();
    let mut rules = Rules { snapshot, local, pools, peers, blocks, advertisements, holders: BTreeMap::new() };
    rules.holders = rules.holders();
    let mut planned = Planned { plans: Vec::new(), next_change: None };
    for (pod, source) in snapshot.pods() {
        planned.plans.push(rules.plan(pod, source, &mut planned.next_change));
    }
    planned
}

impl<'a> Rules<'a> {
    fn plan(&self, pod: &Pod, source: SourceName, next_change: &mut Option<Timestamp>) -> PodPlan {
        let refused = self.refuse_whole(pod);
        let local = refused.is_none();
        let known = self.addresses(pod);
        let addresses = known
            .iter()
            .filter(|_| local)
            .map(|address| self.plan_address(pod, source, *address, next_change))
            .collect();
        PodPlan {
            namespace: pod.namespace().to_owned(),
            name: pod.name().to_owned(),
            uid: pod.metadata.uid.clone(),
            refused,
            pod_ips: if local { Vec::new() } else { known },
            addresses,
        }
    }

    /// Why nothing of the Pod is this node's to route.
    fn refuse_whole(&self, pod: &Pod) -> Option<Reason> {
        let node = pod.node_name.as_deref().unwrap_or_default();
        if node != self.local.node {
            return Some(Reason::NotLocal { node: node.to_owned() });
        }
        if pod.host_network {
            return Some(Reason::HostNetwork);
        }
        if pod.phase.is_terminal() {
            return Some(Reason::Terminal { phase: format!("{:?}", pod.phase) });
        }
        self.addresses(pod).is_empty().then_some(Reason::NoAddress)
    }

    /// What the API server says that it has, and what this node has given it: that comes first, before its sandbox is
    /// whole.
    fn addresses(&self, pod: &Pod) -> Vec<IpAddr> {
        let held = self.local.holdings.iter().flat_map(|holdings| holdings.held.iter());
        let given = held.filter(|(_, holder)| is_of(holder, pod)).map(|(address, _)| *address);
        let given = given.filter(|address| !pod.pod_ips.contains(address));
        pod.pod_ips.iter().copied().chain(given).collect()
    }

    fn advertised_block(&self, address: IpAddr) -> Option<Cidr> {
        let block = self.blocks.iter().find(|block| block.cidr.prefix().contains_address(address))?;
        (!block.advertise.is_empty()).then_some(block.cidr)
    }

    /// The epoch of the smallest block of this node that the address lies in.
    fn epoch(&self, address: IpAddr) -> Option<u64> {
        let blocks = self.local.holdings.iter().flat_map(|holdings| holdings.blocks.iter());
        let around = blocks.filter(|(prefix, _)| prefix.contains_address(address));
        around.max_by_key(|(prefix, _)| prefix.length()).map(|(_, block)| block.epoch)
    }

    /// Whether the address is a block by itself.
    fn owns_alone(&self, address: IpAddr) -> bool {
        let holdings = self.local.holdings.as_ref();
        holdings.is_some_and(|holdings| holdings.blocks.contains_key(&Prefix::host(address)))
    }

    fn plan_address(
        &self,
        pod: &Pod,
        source: SourceName,
        address: IpAddr,
        next_change: &mut Option<Timestamp>,
    ) -> AddressPlan {
        let mut plan = AddressPlan {
            address,
            pool: None,
            delivery: None,
            block: None,
            advertised_by: Vec::new(),
            advertise: BTreeMap::new(),
            withheld: BTreeMap::new(),
            refused: None,
        };
        let pool = match self.admit(pod, address) {
            Ok(pool) => pool,
            Err(reason) => {
                plan.refused = Some(reason);
                return plan;
            }
        };
        plan.pool = Some(pool.name().to_owned());
        plan.delivery = Some(self.delivery(pod, source, address));
        let namespace_labels = self.namespace_labels(pod);
        let candidate = Candidate {
            prefix: Prefix::host(address),
            pool_labels: &pool.metadata.labels,
            epoch: self.epoch(address),
            of: Of::Pod { pod, namespace_labels: &namespace_labels, is_block: self.owns_alone(address) },
        };
        let selected = advertisement::select(&self.advertisements, &candidate, self.peers, self.local);
        *next_change = next_change.iter().copied().chain(selected.next_change).min();
        let block = selected.refused.as_ref().and_then(|_| self.advertised_block(address));
        AddressPlan {
            advertised_by: selected.by,
            advertise: selected.routes,
            withheld: selected.withheld,
            refused: selected.refused.filter(|_| block.is_none()),
            block,
            ..plan
        }
    }

    /// The pool by which the Pod has the address, unless another live Pod holds it.
    fn admit(&self, pod: &Pod, address: IpAddr) -> Result<&'a IpPool, Reason> {
        let namespace_labels = self.namespace_labels(pod);
        let namespace = self.snapshot.namespace(pod.namespace());
        let tenant = Tenant {
            pod,
            namespace_labels: &namespace_labels,
            namespace_pools: namespace
                .and_then(|namespace| namespace.metadata.annotation(annotation::IP_POOLS)),
        };
        let pool = self.pools.find(&tenant, address)?;
        if let (Some(holdings), Allocation::Block) = (&self.local.holdings, pool.spec.allocation) {
            match holdings.held.get(&address) {
                Some(holder) if is_of(holder, pod) => {}
                Some(Holder { namespace, name, .. }) if key(pod) != (namespace.as_str(), name.as_str()) => {
                    return Err(Reason::HeldByOther { pod: format!("{namespace}/{name}") });
                }
                // One of its name had it before.
                Some(_) | None => return Err(Reason::NotAllocated { pool: pool.name().to_owned() }),
            }
        }
        match self.holders.get(&address) {
            Some(holder) if !std::ptr::eq(*holder, pod) && key(holder) != key(pod) => {
                Err(Reason::HeldByOther { pod: format!("{}/{}", holder.namespace(), holder.name()) })
            }
            Some(_) | None => Ok(pool),
        }
    }

    /// A namespace that no source knows still has its name, the one label that Kubernetes sets on each.
    fn namespace_labels(&self, pod: &Pod) -> Labels {
        match self.snapshot.namespace(pod.namespace()) {
            Some(namespace) => namespace.labels().clone(),
            None => Namespace::named(pod.namespace()).metadata.labels,
        }
    }

    /// Of the local, live Pods that claim an address lawfully, the one that has it: a Pod that stays before one that
    /// is being deleted, then the older one.
    fn holders(&self) -> BTreeMap<IpAddr, &'a Pod> {
        let mut holders: BTreeMap<IpAddr, &'a Pod> = BTreeMap::new();
        let rank =
            |pod: &Pod| (pod.is_terminating(), pod.metadata.creation_timestamp.unwrap_or(Timestamp::MAX));
        for (pod, _) in self.snapshot.pods().filter(|(pod, _)| self.refuse_whole(pod).is_none()) {
            let known = self.addresses(pod).into_iter();
            for address in known.filter(|address| self.admit(pod, *address).is_ok()) {
                match holders.entry(address) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(pod);
                    }
                    Entry::Occupied(mut held) if rank(pod) < rank(held.get()) => {
                        held.insert(pod);
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        holders
    }

    /// The best that is known: the CNI's own record, the annotation of a Pod from a file, else the kernel's routes.
    fn delivery(&self, pod: &Pod, source: SourceName, address: IpAddr) -> Delivery {
        let mut links = self.snapshot.host_links().iter();
        let mine = |link: &&HostLink| {
            let same_uid = link.uid.is_none() || pod.metadata.uid.is_none() || link.uid == pod.metadata.uid;
            link.namespace == pod.namespace()
                && link.name == pod.name()
                && same_uid
                && link.addresses.contains(&address)
        };
        // The last record is the newest: a sandbox that was made anew leaves its predecessor's behind for a while.
        if let Some(link) = links.rfind(mine) {
            return Delivery::Interface {
                interface: link.interface.clone(),
                source: InterfaceSource::CniCache,
            };
        }
        let annotated = pod.metadata.annotation(annotation::HOST_INTERFACE).map(str::trim);
        match annotated.filter(|interface| source == SourceName::Files && !interface.is_empty()) {
            Some(interface) => {
                Delivery::Interface { interface: interface.to_owned(), source: InterfaceSource::Annotation }
            }
            None => Delivery::Foreign,
        }
    }
}

/// Whether the record is of this very Pod, and not of another of its name.
fn is_of(holder: &Holder, pod: &Pod) -> bool {
    let same_uid = pod.metadata.uid.as_ref().is_none_or(|uid| *uid == holder.pod_uid);
    same_uid && key(pod) == (holder.namespace.as_str(), holder.name.as_str())
}

fn key(pod: &Pod) -> (&str, &str) {
    (pod.namespace(), pod.name())
}
