//! IPPool: addresses, and the namespaces and nodes that they are for.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use plainroute_bgp::{AfiSafi, Prefix};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IpBlockSpec, Resource};
use crate::{
    Kind,
    bounded::Bounded,
    rules::{Spec, Violations},
    selector::LabelSelector,
    value::{AddressOrCidr, Cidr, Parsed, refuse_mapped},
};

/// A pool of addresses.
pub type IpPool = Resource<IpPoolSpec>;

/// Addresses, and the namespaces and nodes that they are for. A Pod's address is advertised only if it lies in a pool
/// that is bound to the Pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::IP_POOL))]
pub struct IpPoolSpec {
    /// The addresses: each entry is either `cidr`, or `start` and `end`. They must not overlap, and at least one is
    /// needed.
    #[schemars(length(min = 1))]
    pub ip_ranges: Vec<IpRange>,
    /// Addresses and CIDRs within the ranges that are not to be used, such as a gateway's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<AddressOrCidr>,
    /// The namespaces that the pool is bound to. Empty: every one.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub namespace_selector: LabelSelector,
    /// The nodes on which the pool may be used. Empty: every one.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub node_selector: LabelSelector,
    /// What the addresses are for.
    #[serde(default)]
    pub usage: PoolUsage,
    /// Who gives the addresses out.
    #[serde(default)]
    pub allocation: Allocation,
    /// The prefix length of the blocks that nodes take from the pool; 32 (IPv6: 128) makes single addresses.
    /// Default: 28 (IPv6: 124), 16 addresses; 20 (IPv6: 116) makes the largest. What is too small for a block becomes single
    /// addresses. A pool of both families cannot set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<Bounded<u8, 1, 128>>,
    /// Seconds that a freed address rests before it is given out again.
    #[serde(default = "one_minute")]
    pub ip_cooldown_seconds: u32,
}

/// What a pool's addresses are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolUsage {
    /// Addresses of Pods.
    #[default]
    Pod,
    /// Source addresses on the way out.
    Egress,
}

/// Who gives a pool's addresses out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Allocation {
    /// Plainroute, in blocks, where the agents do so (AgentConfig `ipam`); a Pod then has only what its node gave it. Agents that do
    /// not check the pool like `External`.
    #[default]
    Block,
    /// Another IPAM does; we only check that the address lies in the pool.
    External,
}

/// A range of addresses: a CIDR, or from one address to another. An empty or mixed one cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "WrittenRange", into = "WrittenRange")]
pub struct IpRange {
    form: RangeForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RangeForm {
    Cidr(Cidr),
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::RANGE))]
struct WrittenRange {
    /// All addresses of this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cidr: Option<Cidr>,
    /// The first address, where the range is no CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<Parsed<IpAddr>>,
    /// The last address, of the same family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<Parsed<IpAddr>>,
}

impl TryFrom<WrittenRange> for IpRange {
    type Error = String;
    fn try_from(written: WrittenRange) -> Result<Self, String> {
        for address in [written.start, written.end].into_iter().flatten() {
            refuse_mapped(*address)?;
        }
        let form = match (written.cidr, written.start, written.end) {
            (Some(cidr), None, None) => RangeForm::Cidr(cidr),
            (None, Some(start), Some(end)) => match (*start, *end) {
                (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => RangeForm::V4(first, last),
                (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => RangeForm::V6(first, last),
                (first, last) if first.is_ipv4() == last.is_ipv4() => {
                    return Err(format!("end {last} is before start {first}"));
                }
                (first, last) => {
                    return Err(format!("start {first} and end {last} are of different families"));
                }
            },
            _ => return Err("a range is either `cidr`, or both `start` and `end`".to_owned()),
        };
        Ok(IpRange { form })
    }
}

impl From<IpRange> for WrittenRange {
    fn from(range: IpRange) -> Self {
        match range.form {
            RangeForm::Cidr(cidr) => WrittenRange { cidr: Some(cidr), start: None, end: None },
            RangeForm::V4(..) | RangeForm::V6(..) => {
                let (first, last) = (Parsed(range.first()), Parsed(range.last()));
                WrittenRange { cidr: None, start: Some(first), end: Some(last) }
            }
        }
    }
}

impl From<Prefix> for IpRange {
    fn from(prefix: Prefix) -> Self {
        IpRange { form: RangeForm::Cidr(prefix.into()) }
    }
}

impl IpRange {
    /// The first address.
    pub fn first(&self) -> IpAddr {
        match self.form {
            RangeForm::Cidr(cidr) => cidr.prefix().address(),
            RangeForm::V4(first, _) => first.into(),
            RangeForm::V6(first, _) => first.into(),
        }
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        match self.form {
            RangeForm::Cidr(cidr) => cidr.prefix().last_address(),
            RangeForm::V4(_, last) => last.into(),
            RangeForm::V6(_, last) => last.into(),
        }
    }

    /// The CIDR, where the range was written as one.
    pub fn cidr(&self) -> Option<Cidr> {
        match self.form {
            RangeForm::Cidr(cidr) => Some(cidr),
            RangeForm::V4(..) | RangeForm::V6(..) => None,
        }
    }

    /// The family.
    pub fn family(&self) -> AfiSafi {
        if self.first().is_ipv4() { AfiSafi::Ipv4Unicast } else { AfiSafi::Ipv6Unicast }
    }

    /// Whether `address` lies within.
    pub fn contains(&self, address: IpAddr) -> bool {
        // Addresses of one family lie together in the order of `IpAddr`, so the bounds decide the family too.
        self.first() <= address && address <= self.last()
    }

    fn overlaps(&self, other: &IpRange) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }
}

/// A set of addresses for fast tests of membership: disjoint intervals, found by their first address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet(BTreeMap<IpAddr, IpAddr>);

impl AddressSet {
    /// Whether `address` is in the set. O(log n) in the number of intervals.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.range(..=address).next_back().is_some_and(|(_, last)| address <= *last)
    }

    /// The intervals, first and last address of each, in order.
    pub fn intervals(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    fn remove(&mut self, first: IpAddr, last: IpAddr) {
        let hit: Vec<_> = self.intervals().filter(|(from, to)| *from <= last && first <= *to).collect();
        for (from, to) in hit {
            self.0.remove(&from);
            if let Some(before) = neighbour(first, false).filter(|before| from <= *before) {
                self.0.insert(from, before);
            }
            if let Some(after) = neighbour(last, true).filter(|after| *after <= to) {
                self.0.insert(after, to);
            }
        }
    }
}

/// The address just after or before; `None` at the end of the family.
fn neighbour(address: IpAddr, after: bool) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let next = if after { bits.checked_add(1) } else { bits.checked_sub(1) };
            next.map(|bits| Ipv4Addr::from_bits(bits).into())
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let next = if after { bits.checked_add(1) } else { bits.checked_sub(1) };
            next.map(|bits| Ipv6Addr::from_bits(bits).into())
        }
    }
}

impl IpPoolSpec {
    /// Whether `address` lies in a range and is not excluded. For many tests build [`IpPoolSpec::addresses`] once.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ip_ranges.iter().any(|range| range.contains(address))
            && !self.excluded.iter().any(|excluded| excluded.prefix().contains_address(address))
    }

    /// The ranges without what is excluded.
    pub fn addresses(&self) -> AddressSet {
        let mut set = AddressSet(self.ip_ranges.iter().map(|range| (range.first(), range.last())).collect());
        for excluded in &self.excluded {
            set.remove(excluded.prefix().address(), excluded.prefix().last_address());
        }
        set
    }

    /// Whether agents give its addresses to Pods, in blocks.
    pub fn is_in_blocks(&self) -> bool {
        self.usage == PoolUsage::Pod && self.allocation == Allocation::Block
    }

    /// The prefix length of a block of this family; by default a block has 16 addresses.
    pub fn block_size(&self, family: AfiSafi) -> u8 {
        self.block_size.map_or(family.max_length() - 4, Bounded::get)
    }
}

impl Spec for IpPoolSpec {
    const KIND: Kind = Kind::IpPool;

    fn check(&self, broken: &mut Violations) {
        if self.ip_ranges.is_empty() {
            broken.add("ipRanges", "is empty; a pool has at least one range");
        }
        for (index, range) in self.ip_ranges.iter().enumerate() {
            if let Some(other) = self.ip_ranges[..index].iter().position(|other| other.overlaps(range)) {
                broken.add(format_args!("ipRanges[{index}]"), format!("overlaps ipRanges[{other}]"));
            }
        }
        for (index, excluded) in self.excluded.iter().enumerate() {
            let (first, last) = (excluded.prefix().address(), excluded.prefix().last_address());
            let within = |range: &IpRange| range.contains(first) && range.contains(last);
            if !self.ip_ranges.iter().any(within) {
                broken.add(format_args!("excluded[{index}]"), format!("{excluded} lies in none of ipRanges"));
            }
        }
        if self.is_in_blocks() {
            self.check_block_size(broken);
        }
    }
}

impl IpPoolSpec {
    fn check_block_size(&self, broken: &mut Violations) {
        let Some(size) = self.block_size else { return };
        let families: Vec<_> = self.ip_ranges.iter().map(IpRange::family).collect();
        if families.contains(&AfiSafi::Ipv4Unicast) && families.contains(&AfiSafi::Ipv6Unicast) {
            let message = "fits one family only, and the ranges are of both; leave it out or make two pools";
            return broken.add("blockSize", message);
        }
        for (index, range) in self.ip_ranges.iter().enumerate() {
            let longest = range.family().max_length();
            if size.get() > longest {
                return broken.add("blockSize", format!("{size} is beyond {longest}, a single address"));
            }
            if longest - size.get() > IpBlockSpec::MOST_ORDINAL_BITS {
                let shortest = longest - IpBlockSpec::MOST_ORDINAL_BITS;
                let message = format!("{size} makes blocks of more than 4096 addresses; {shortest} or more");
                return broken.add("blockSize", message);
            }
            if !range.holds_block(size.get()) {
                let message = format!("a block of /{size} does not fit into ipRanges[{index}]");
                return broken.add("blockSize", message);
            }
        }
    }
}

impl IpRange {
    /// Whether an aligned block of that prefix length lies within.
    fn holds_block(&self, length: u8) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let host = u32::from(self.family().max_length() - length);
        let Some(size) = 1_u128.checked_shl(host) else { return bits(self.first()) == 0 };
        // The first address of the first aligned block at or after the range's start, then its last address.
        let start = bits(self.first()).checked_next_multiple_of(size);
        start.and_then(|start| start.checked_add(size - 1)).is_some_and(|end| end <= bits(self.last()))
    }
}

fn one_minute() -> u32 {
    60
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(json: &str) -> IpPoolSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_excluded_is_no_member() {
        let pool = pool(
            r#"{"ipRanges":[{"cidr":"10.20.0.0/24"},{"start":"2001:db8::5","end":"2001:db8::9"}],
                "excluded":["10.20.0.0/28","10.20.0.255","10.20.0.77","2001:db8::7"]}"#,
        );
        let set = pool.addresses();
        let intervals: Vec<_> = set.intervals().map(|(first, last)| format!("{first}-{last}")).collect();
        assert_eq!(
            intervals,
            [
                "10.20.0.16-10.20.0.76",
                "10.20.0.78-10.20.0.254",
                "2001:db8::5-2001:db8::6",
                "2001:db8::8-2001:db8::9"
            ]
        );
    }

    #[test]
    fn the_ends_of_the_address_space_are_addresses() {
        let pool = pool(
            r#"{"ipRanges":[{"cidr":"0.0.0.0/0"},{"cidr":"::/0"}],"excluded":["255.255.255.255","::"]}"#,
        );
        let set = pool.addresses();
        for (address, member) in [("0.0.0.0", true), ("255.255.255.255", false), ("::", false), ("::1", true)]
        {
            assert_eq!(set.contains(address.parse().unwrap()), member, "{address}");
        }
    }

    #[test]
    fn a_block_fits_only_where_it_is_aligned() {
        let range = |start: &str, end: &str| -> IpRange {
            serde_json::from_value(serde_json::json!({ "start": start, "end": end })).unwrap()
        };
        assert!(range("10.0.0.16", "10.0.0.31").holds_block(28));
        assert!(range("10.0.0.1", "10.0.0.31").holds_block(28));
        assert!(!range("10.0.0.17", "10.0.0.40").holds_block(28));
        assert!(range("10.0.0.17", "10.0.0.17").holds_block(32));
        assert!(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").holds_block(1));
        assert!(!range("255.255.255.250", "255.255.255.255").holds_block(28));
    }

    proptest! {
        #[test]
        fn the_set_and_the_ranges_agree(
            ranges in prop::collection::vec((any::<u8>(), any::<u8>()), 1..4),
            excluded in prop::collection::vec((any::<u8>(), 24_u8..=32), 0..4),
        ) {
            let address = |last: u8| Ipv4Addr::new(10, 0, 0, last);
            // Disjoint, as the rules want them: each range in a /24 of its own, the excluded in the first.
            let ranges = ranges.iter().enumerate().map(|(i, (a, b))| {
                let at = |last: u8| Ipv4Addr::new(10, 0, i as u8, last);
                IpRange { form: RangeForm::V4(at(*a.min(b)), at(*a.max(b))) }
            });
            let excluded = excluded.iter().map(|(last, length)| {
                let prefix = plainroute_bgp::Prefix::v4(address(*last), *length).unwrap();
                prefix.to_string().parse().unwrap()
            });
            let mut pool = pool(r#"{"ipRanges":[]}"#);
            pool.ip_ranges = ranges.collect();
            pool.excluded = excluded.collect();
            let set = pool.addresses();
            for n in 0..=1023_u32 {
                let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n));
                prop_assert_eq!(set.contains(address), pool.contains(address), "{}", address);
            }
        }
    }
}
