//! Whose packets an Egress is about: whole pools where every namespace that a pool is bound to is meant, so that no Pod has
//! to be known, and single Pods where not.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use plainroute_bgp::Prefix;
use plainroute_config::{AppliedTo, Cidr, IpPool, Labels, Namespace, Pod, PoolUsage};
use serde::{Deserialize, Serialize};

use super::super::{Local, pool::Pools};
use crate::index::Snapshot;

/// Packets of these addresses leave under that one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressSource {
    /// The Pods' addresses.
    pub cidr: Cidr,
    /// The egress IP.
    pub address: IpAddr,
    /// The Pod, `NAMESPACE/NAME`, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pool, where it is a part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// Into how many parts a pool is cut at most, where an Egress has several addresses of a family.
const PARTS: u8 = 10;

/// Pods, namespaces and pools with what each lookup needs, computed once a plan.
pub(super) struct Sources<'a> {
    snapshot: &'a Snapshot,
    pools: &'a Pools<'a>,
    namespaces: BTreeMap<&'a str, &'a Labels>,
    /// What this node has given to Pods whose status does not say so yet, by namespace and name.
    given: BTreeMap<(&'a str, &'a str), Vec<IpAddr>>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, local: &'a Local, pools: &'a Pools<'a>) -> Sources<'a> {
        let namespaces = snapshot.namespaces().map(|(namespace, _)| (namespace.name(), namespace.labels()));
        let mut given: BTreeMap<_, Vec<IpAddr>> = BTreeMap::new();
        for (address, holder) in local.holdings.iter().flat_map(|holdings| holdings.held.iter()) {
            given.entry((holder.namespace.as_str(), holder.name.as_str())).or_default().push(*address);
        }
        Sources { snapshot, pools, namespaces: namespaces.collect(), given }
    }

    /// The labels of the namespaces that are meant.
    pub(super) fn namespaces(&self, applied: &AppliedTo) -> Vec<&'a Labels> {
        let all = self.namespaces.values().copied();
        all.filter(|labels| applied.namespace_selector.matches(labels)).collect()
    }

    /// Whose packets leave under which of `addresses`.
    pub(super) fn of(&self, applied: &AppliedTo, addresses: &[IpAddr]) -> Vec<EgressSource> {
        let pools: Vec<&IpPool> =
            self.pools.all().filter(|pool| self.is_meant_whole(pool, applied)).collect();
        let parts = pools.iter().flat_map(|pool| of_pool(pool, addresses));
        let pods = self.snapshot.pods().map(|(pod, _)| pod).filter(|pod| self.selects(applied, pod));
        let pods = pods.flat_map(|pod| {
            let given = self.given.get(&(pod.namespace(), pod.name())).into_iter().flatten();
            let known: BTreeSet<&IpAddr> = pod.pod_ips.iter().chain(given).collect();
            let lawful = known.into_iter().filter(|address| self.may_have(pod, **address));
            let single = lawful.filter(|address| !pools.iter().any(|pool| pool.spec.contains(**address)));
            single.filter_map(|address| {
                let prefix = Prefix::host(*address);
                Some(EgressSource {
                    cidr: prefix.into(),
                    address: choose(prefix, addresses)?,
                    pod: Some(format!("{}/{}", pod.namespace(), pod.name())),
                    pool: None,
                })
            })
        });
        parts.chain(pods).collect()
    }

    /// Whether the Pods that are meant can be told by the pool alone: all that may have its addresses are meant.
    fn is_meant_whole(&self, pool: &IpPool, applied: &AppliedTo) -> bool {
        let spec = &pool.spec;
        let mut bound =
            self.namespaces.values().filter(|labels| spec.namespace_selector.matches(labels)).peekable();
        spec.usage == PoolUsage::Pod
            && applied.pod_selector.is_empty()
            && bound.peek().is_some()
            && bound.all(|labels| applied.namespace_selector.matches(labels))
    }

    /// Whether there may be Pods that are meant and have addresses of no pool that is meant as a whole.
    pub(super) fn names_pods(&self, applied: &AppliedTo) -> bool {
        let whole: Vec<&IpPool> =
            self.pools.all().filter(|pool| self.is_meant_whole(pool, applied)).collect();
        let mut meant = self.namespaces(applied).into_iter();
        !applied.pod_selector.is_empty()
            || meant.any(|labels| {
                let bound = |pool: &&IpPool| {
                    pool.spec.usage == PoolUsage::Pod && pool.spec.namespace_selector.matches(labels)
                };
                let mut pools = self.pools.all().filter(bound).peekable();
                pools.peek().is_none() || pools.any(|pool| !whole.iter().any(|of| of.name() == pool.name()))
            })
    }

    fn selects(&self, applied: &AppliedTo, pod: &Pod) -> bool {
        if pod.host_network || pod.phase.is_terminal() || !applied.pod_selector.matches(&pod.metadata.labels)
        {
            return false;
        }
        match self.namespaces.get(pod.namespace()) {
            Some(labels) => applied.namespace_selector.matches(labels),
            None => applied.namespace_selector.matches(&Namespace::named(pod.namespace()).metadata.labels),
        }
    }

    /// An address of another namespace's pool is not the Pod's, whatever its status says.
    fn may_have(&self, pod: &Pod, address: IpAddr) -> bool {
        let mut holding = self
            .pools
            .all()
            .filter(|pool| pool.spec.usage == PoolUsage::Pod && pool.spec.contains(address))
            .peekable();
        let unknown = Namespace::named(pod.namespace()).metadata.labels;
        let labels = self.namespaces.get(pod.namespace()).copied().unwrap_or(&unknown);
        holding.peek().is_none() || holding.any(|pool| pool.spec.namespace_selector.matches(labels))
    }
}

/// A pool as prefixes, each with the egress IP of its Pods.
fn of_pool(pool: &IpPool, addresses: &[IpAddr]) -> Vec<EgressSource> {
    let set = pool.spec.addresses();
    let prefixes = set.intervals().flat_map(|(first, last)| prefixes(first, last));
    let parts = prefixes.flat_map(|prefix| {
        let several = of_family(addresses, prefix).nth(1).is_some();
        let length = match several {
            false => prefix.length(),
            true => pool
                .spec
                .block_size(prefix.family())
                .clamp(prefix.length(), prefix.length().saturating_add(PARTS)),
        };
        split(prefix, length)
    });
    parts
        .filter_map(|part| {
            let (cidr, pool) = (part.into(), Some(pool.name().to_owned()));
            Some(EgressSource { cidr, address: choose(part, addresses)?, pod: None, pool })
        })
        .collect()
}

fn of_family(addresses: &[IpAddr], source: Prefix) -> impl Iterator<Item = &IpAddr> {
    addresses.iter().filter(move |address| Prefix::host(**address).family() == source.family())
}

/// The egress IP of a source: the same for as long as the Egress has it.
fn choose(source: Prefix, addresses: &[IpAddr]) -> Option<IpAddr> {
    let text = source.address().to_string();
    of_family(addresses, source)
        .max_by_key(|address| (plainroute_blocks::hash(&[&text, &address.to_string()]), **address))
        .copied()
}

/// How many addresses there are from the first to the last.
pub(super) fn span(first: IpAddr, last: IpAddr) -> u128 {
    (bits(last) - bits(first)).saturating_add(1)
}

/// The address so many after `first`.
pub(super) fn nth(first: IpAddr, place: u128) -> IpAddr {
    from_bits(bits(first).saturating_add(place), first.is_ipv4())
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_bits(bits: u128, v4: bool) -> IpAddr {
    match v4 {
        true => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        false => Ipv6Addr::from_bits(bits).into(),
    }
}

/// The fewest prefixes that are exactly the addresses from `first` to `last`.
pub(crate) fn prefixes(first: IpAddr, last: IpAddr) -> Vec<Prefix> {
    let width = Prefix::host(first).length();
    let (v4, end) = (first.is_ipv4(), bits(last));
    let mut found = Vec::new();
    let mut next = Some(bits(first));
    while let Some(from) = next.filter(|from| *from <= end) {
        let fits = |free: u32| {
            let above = 1u128.checked_shl(free).map_or(u128::MAX, |size| size - 1);
            free <= width.into() && from & above == 0 && from.checked_add(above).is_some_and(|to| to <= end)
        };
        let free = (0..=u32::from(width)).take_while(|free| fits(*free)).last().unwrap_or(0);
        let length = width - u8::try_from(free).unwrap_or(0);
        let Ok(prefix) = Prefix::new(from_bits(from, v4), length) else { break };
        found.push(prefix);
        next = 1u128.checked_shl(free).and_then(|size| from.checked_add(size));
    }
    found
}

/// The parts of a prefix that have this length.
fn split(prefix: Prefix, length: u8) -> impl Iterator<Item = Prefix> {
    let free = Prefix::host(prefix.address()).length() - length;
    let count = 1u128 << (length - prefix.length());
    (0..count).filter_map(move |place| Prefix::new(nth(prefix.address(), place << free), length).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prefixes_are_exactly_the_range(a in any::<u32>(), b in any::<u32>()) {
            let (first, last) = (a.min(b), a.max(b));
            let mut next = u128::from(first);
            let found = prefixes(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into());
            for prefix in &found {
                prop_assert_eq!(bits(prefix.address()), next);
                next = bits(prefix.last_address()) + 1;
            }
            prop_assert_eq!(next, u128::from(last) + 1);
            prop_assert!(found.len() <= 62);
        }
    }

    #[test]
    fn the_ends_of_the_address_space_are_no_trap() {
        let all = |first: &str, last: &str| prefixes(first.parse().unwrap(), last.parse().unwrap());
        assert_eq!(all("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0".parse().unwrap()]);
        assert_eq!(all("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0".parse().unwrap()]);
        assert_eq!(all("255.255.255.255", "255.255.255.255"), ["255.255.255.255/32".parse().unwrap()]);
        assert_eq!(
            all("2001:db8::1", "2001:db8::2"),
            ["2001:db8::1/128".parse().unwrap(), "2001:db8::2/128".parse().unwrap()]
        );
    }

    #[test]
    fn several_addresses_share_the_sources_and_keep_them() {
        let addresses: Vec<IpAddr> = (1..=4u8).map(|last| [198, 51, 100, last].into()).collect();
        let sources: Vec<Prefix> = split("10.20.0.0/22".parse().unwrap(), 32).collect();
        assert_eq!(sources.len(), 1024);
        let before: Vec<_> = sources.iter().map(|source| choose(*source, &addresses).unwrap()).collect();
        for address in &addresses {
            let share = before.iter().filter(|of| *of == address).count();
            assert!((200..320).contains(&share), "{address}: {share}");
        }
        // One that goes moves its own sources only.
        for (source, before) in sources.iter().zip(before).filter(|(_, before)| *before != addresses[3]) {
            assert_eq!(choose(*source, &addresses[..3]), Some(before));
        }
        let v6 = choose("2001:db8::1/128".parse().unwrap(), &addresses);
        assert_eq!(v6, None, "an Egress is about the families that it has addresses of");
    }
}
