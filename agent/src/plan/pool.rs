//! Which pool holds an address, and whether a Pod may use it.
use std::{collections::BTreeSet, net::IpAddr};

use plainroute_bgp::Prefix;
use plainroute_blocks::Holdings;
use plainroute_config::{AddressSet, Allocation, IpPool, IpRange, Labels, Node, Pod, PoolUsage, annotation};
use serde::{Deserialize, Serialize};

use super::{Local, PodPlan, Reason};
use crate::index::Snapshot;

/// One pool as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolPlan {
    /// The IPPool's name.
    pub name: String,
    /// Its ranges.
    pub ip_ranges: Vec<IpRange>,
    /// What it is for.
    pub usage: PoolUsage,
    /// Who gives its addresses out.
    pub allocation: Allocation,
    /// Whether it serves this node.
    pub serves_node: bool,
    /// The namespaces, among those that are known here, that it is bound to.
    pub namespaces: BTreeSet<String>,
    /// How many addresses of Pods of this node lie in it, by its rules.
    pub used_here: usize,
    /// How many blocks of it this node owns, single addresses among them, where this node gives addresses out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_here: Option<usize>,
    /// How many addresses of those blocks nobody has; those that rest after their last holder are among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_here: Option<usize>,
    #[serde(skip)]
    addresses: AddressSet,
}

impl PoolPlan {
    /// Whether all of `prefix` lies in the pool.
    pub fn holds(&self, prefix: Prefix) -> bool {
        holds(&self.addresses, prefix)
    }

    /// How many addresses it has.
    pub fn size(&self) -> u128 {
        let number = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let sizes =
            self.addresses.intervals().map(|(first, last)| (number(last) - number(first)).saturating_add(1));
        sizes.fold(0, u128::saturating_add)
    }

    /// Whether `prefix` lies within one of the ranges and has addresses of the pool in it. Holes that are excluded
    /// do not matter, a prefix that is nothing but such a hole is not claimed.
    pub(super) fn claims(&self, prefix: Prefix) -> bool {
        let (first, last) = (prefix.address(), prefix.last_address());
        self.ip_ranges.iter().any(|range| range.contains(first) && range.contains(last))
            && self.addresses.intervals().any(|(from, to)| from <= last && first <= to)
    }
}

/// The pools with what each lookup needs, computed once a plan.
pub(super) struct Pools<'a> {
    holdings: Option<&'a Holdings>,
    entries: Vec<Entry<'a>>,
    namespaces: Vec<(&'a str, &'a Labels)>,
}

struct Entry<'a> {
    pool: &'a IpPool,
    addresses: AddressSet,
    serves_node: bool,
}

/// A Pod, as the pools see it.
pub(super) struct Tenant<'a> {
    pub(super) pod: &'a Pod,
    pub(super) namespace_labels: &'a Labels,
    /// The annotation of the namespace.
    pub(super) namespace_pools: Option<&'a str>,
}

impl<'a> Pools<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, local: &'a Local) -> Pools<'a> {
        let no_labels = Labels::new();
        let node_labels = snapshot.node(&local.node).map_or(&no_labels, Node::labels);
        let entries = snapshot
            .pools()
            .map(|(pool, _)| Entry {
                pool,
                addresses: pool.spec.addresses(),
                serves_node: pool.spec.node_selector.matches(node_labels),
            })
            .collect();
        let namespaces =
            snapshot.namespaces().map(|(namespace, _)| (namespace.name(), namespace.labels())).collect();
        Pools { holdings: local.holdings.as_ref(), entries, namespaces }
    }

    /// The pool by which `tenant` may have `address`; else why the closest one does not let it.
    pub(super) fn find(&self, tenant: &Tenant<'_>, address: IpAddr) -> Result<&'a IpPool, Reason> {
        let mut refused = Reason::NoPool;
        for entry in self.entries.iter().filter(|entry| in_ranges(entry.pool, address)) {
            match entry.admit(tenant, address) {
                Ok(()) => return Ok(entry.pool),
                Err(reason) if refused == Reason::NoPool => refused = reason,
                Err(_) => {}
            }
        }
        Err(refused)
    }

    /// The labels of the pool of a block of this node, and of the namespaces that the pool is bound to; else why the block is
    /// none of the pool's any more.
    pub(super) fn find_block(
        &self,
        pool: &str,
        block: Prefix,
    ) -> Result<(&'a Labels, Vec<&'a Labels>), Reason> {
        let entry = self.entries.iter().find(|entry| entry.pool.name() == pool).ok_or(Reason::NoPool)?;
        if !holds(&entry.addresses, block) {
            return Err(Reason::Excluded { pool: pool.to_owned() });
        }
        if !entry.serves_node {
            return Err(Reason::PoolOfOtherNode { pool: pool.to_owned() });
        }
        let bound = |labels: &&Labels| entry.pool.spec.namespace_selector.matches(labels);
        Ok((
            &entry.pool.metadata.labels,
            self.namespaces.iter().map(|(_, labels)| *labels).filter(bound).collect(),
        ))
    }

    /// Pairs of pools that share addresses, by name.
    pub(super) fn overlaps(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.entries.iter().enumerate().flat_map(move |(index, entry)| {
            let later = self.entries.iter().skip(index + 1);
            later
                .filter(move |other| overlap(&entry.addresses, &other.addresses))
                .map(|other| (entry.pool.name(), other.pool.name()))
        })
    }

    /// The pools, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a IpPool> {
        self.entries.iter().map(|entry| entry.pool)
    }

    pub(super) fn into_plans(self, pods: &[PodPlan]) -> Vec<PoolPlan> {
        let Pools { holdings, entries, namespaces } = self;
        let plan = |entry: Entry<'a>| {
            let spec = &entry.pool.spec;
            let bound = namespaces.iter().filter(|(_, labels)| spec.namespace_selector.matches(labels));
            let addresses = pods.iter().flat_map(|pod| &pod.addresses);
            let owned = holdings.filter(|_| spec.is_in_blocks()).map(|holdings| {
                let of_pool = holdings.blocks.values().filter(|block| block.pool == entry.pool.name());
                of_pool.fold((0, 0), |(blocks, free), block| (blocks + 1, free + block.free))
            });
            PoolPlan {
                name: entry.pool.name().to_owned(),
                ip_ranges: spec.ip_ranges.clone(),
                usage: spec.usage,
                allocation: spec.allocation,
                serves_node: entry.serves_node,
                namespaces: bound.map(|(name, _)| (*name).to_owned()).collect(),
                used_here: addresses
                    .filter(|address| address.pool.as_deref() == Some(entry.pool.name()))
                    .count(),
                blocks_here: owned.map(|(blocks, _)| blocks),
                free_here: owned.map(|(_, free)| free),
                addresses: entry.addresses,
            }
        };
        entries.into_iter().map(plan).collect()
    }
}

impl Entry<'_> {
    fn admit(&self, tenant: &Tenant<'_>, address: IpAddr) -> Result<(), Reason> {
        let pool = || self.pool.name().to_owned();
        let spec = &self.pool.spec;
        if !self.addresses.contains(address) {
            return Err(Reason::Excluded { pool: pool() });
        }
        if spec.usage == PoolUsage::Egress {
            return Err(Reason::EgressPool { pool: pool() });
        }
        if !spec.namespace_selector.matches(tenant.namespace_labels) {
            return Err(Reason::PoolOfOtherNamespace { pool: pool() });
        }
        if !self.serves_node {
            return Err(Reason::PoolOfOtherNode { pool: pool() });
        }
        let namespace = tenant.pod.namespace();
        let of_pod = tenant.pod.metadata.annotation(annotation::IP_POOLS);
        for (list, on) in
            [(tenant.namespace_pools, format!("Namespace {namespace}")), (of_pod, "the Pod".to_owned())]
        {
            if list.is_some_and(|list| !names(list).any(|name| name == self.pool.name())) {
                return Err(Reason::PoolNotInAnnotation { pool: pool(), on });
            }
        }
        Ok(())
    }
}

/// The names in an annotation such as `plainroute.dev/ippools`.
pub(crate) fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

fn holds(addresses: &AddressSet, prefix: Prefix) -> bool {
    addresses.intervals().any(|(first, last)| first <= prefix.address() && prefix.last_address() <= last)
}

fn in_ranges(pool: &IpPool, address: IpAddr) -> bool {
    pool.spec.ip_ranges.iter().any(|range| range.contains(address))
}

pub(crate) fn overlap(one: &AddressSet, other: &AddressSet) -> bool {
    one.intervals().any(|(from, to)| other.intervals().any(|(first, last)| from <= last && first <= to))
}
