//! How a pool falls into blocks: by its own addresses alone, so that every node carves alike, and lazily, since an IPv6 pool
//! has more blocks than could be listed.
//!
//! A block is an aligned CIDR of the pool's block size that lies whole in one range without what is excluded, so that to
//! advertise it never leaves the pool. What is left over becomes single addresses.
use std::net::IpAddr;

use plainroute_bgp::{AfiSafi, Prefix};
use plainroute_config::IpPoolSpec;

/// One family of a pool, carved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carving {
    family: AfiSafi,
    blocks: Vec<Run>,
    singles: Vec<Run>,
}

/// Neighbouring blocks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u128,
    length: u8,
    size: u128,
    count: u128,
}

impl Carving {
    /// The blocks of `family` that `pool` falls into.
    pub fn new(pool: &IpPoolSpec, family: AfiSafi) -> Carving {
        let longest = family.max_length();
        let length = pool.block_size(family).min(longest);
        let host = u32::from(longest - length);
        let mut carving = Carving { family, blocks: Vec::new(), singles: Vec::new() };
        for (first, last) in pool.addresses().intervals() {
            if first.is_ipv4() != (family == AfiSafi::Ipv4Unicast) {
                continue;
            }
            let (first, last) = (number(first), number(last));
            match whole_blocks(first, last, host) {
                Some((start, end, count)) => {
                    carving.singles.extend(Run::singles(first, start.checked_sub(1), longest));
                    carving.blocks.push(Run { first: start, length, size: 1 << host, count });
                    carving
                        .singles
                        .extend(end.checked_add(1).and_then(|next| Run::singles(next, Some(last), longest)));
                }
                None => carving.singles.extend(Run::singles(first, Some(last), longest)),
            }
        }
        carving
    }

    /// Every block once, those of more than one address before the single ones, from a place that `hash` says: nodes that
    /// begin at different places seldom want the same block.
    pub fn from(&self, hash: u64) -> impl Iterator<Item = Prefix> + '_ {
        around(&self.blocks, hash)
            .chain(around(&self.singles, hash))
            .map(|(first, length)| self.prefix(first, length))
    }

    /// The block that `address` lies in.
    pub fn block_of(&self, address: IpAddr) -> Option<Prefix> {
        if address.is_ipv4() != (self.family == AfiSafi::Ipv4Unicast) {
            return None;
        }
        let wanted = number(address);
        self.blocks.iter().chain(&self.singles).find_map(|run| {
            let index = wanted.checked_sub(run.first)? / run.size;
            (index < run.count).then(|| self.prefix(wanted, run.length))
        })
    }

    fn prefix(&self, bits: u128, length: u8) -> Prefix {
        Prefix::new(address(self.family, bits), length)
            .unwrap_or_else(|_| Prefix::host(address(self.family, bits)))
    }
}

impl Run {
    fn singles(first: u128, last: Option<u128>, longest: u8) -> Option<Run> {
        let count = last?.checked_sub(first)?.saturating_add(1);
        Some(Run { first, length: longest, size: 1, count })
    }
}

/// The first and last address of the aligned blocks of `host` bits within, and how many they are.
fn whole_blocks(first: u128, last: u128, host: u32) -> Option<(u128, u128, u128)> {
    let size = 1_u128.checked_shl(host)?;
    let start = first.checked_next_multiple_of(size)?;
    if start > last {
        return None;
    }
    // Of the last block the last address counts, so that the end of the address space is one.
    let all = (u128::MAX >> host).saturating_add(1);
    let count = (last - start).checked_add(1).map_or(all, |addresses| addresses / size);
    let end = start + count.checked_sub(1)? * size + (size - 1);
    Some((start, end, count))
}

/// The blocks of the runs, from a place that the hash says, around to that place again.
fn around(runs: &[Run], hash: u64) -> impl Iterator<Item = (u128, u8)> + '_ {
    let total = runs.iter().fold(0_u128, |total, run| total.saturating_add(run.count));
    let start = u128::from(hash).checked_rem(total).unwrap_or(0);
    (0..total).filter_map(move |step| {
        let to_end = total - start;
        let mut index = if step < to_end { start + step } else { step - to_end };
        runs.iter().find_map(|run| {
            if index < run.count {
                return Some((run.first + index * run.size, run.length));
            }
            index -= run.count;
            None
        })
    })
}

/// The number that an address is.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address that a number is.
pub(crate) fn address(family: AfiSafi, bits: u128) -> IpAddr {
    match family {
        AfiSafi::Ipv4Unicast => IpAddr::V4(u32::try_from(bits).unwrap_or(u32::MAX).into()),
        AfiSafi::Ipv6Unicast => IpAddr::V6(bits.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use plainroute_config::{AddressOrCidr, Bounded, IpRange};
    use proptest::prelude::*;

    use super::*;

    fn pool(json: &str) -> IpPoolSpec {
        serde_json::from_str(json).unwrap()
    }

    fn carved(pool: &IpPoolSpec, family: AfiSafi) -> Vec<String> {
        Carving::new(pool, family).from(0).map(|prefix| prefix.to_string()).collect()
    }

    #[test]
    fn what_is_too_small_for_a_block_becomes_single_addresses() {
        let pool = pool(
            r#"{"ipRanges":[{"start":"10.0.0.6","end":"10.0.0.18"}],"excluded":["10.0.0.12"],"blockSize":30}"#,
        );
        let wanted = [
            "10.0.0.8/30",
            "10.0.0.6/32",
            "10.0.0.7/32",
            "10.0.0.13/32",
            "10.0.0.14/32",
            "10.0.0.15/32",
            "10.0.0.16/32",
            "10.0.0.17/32",
            "10.0.0.18/32",
        ];
        // 10.0.0.12 is excluded, so its /30 is no block, and 10.0.0.16/30 is cut off.
        assert_eq!(carved(&pool, AfiSafi::Ipv4Unicast), wanted);
    }

    #[test]
    fn a_pool_of_any_size_is_carved_lazily() {
        let pool = pool(r#"{"ipRanges":[{"cidr":"::/0"},{"cidr":"0.0.0.0/0"}]}"#);
        let v6 = Carving::new(&pool, AfiSafi::Ipv6Unicast);
        assert_eq!(v6.from(3).next(), Some("::30/124".parse().unwrap()));
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(v6.block_of(last), Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124".parse().unwrap()));
        let v4 = Carving::new(&pool, AfiSafi::Ipv4Unicast);
        assert_eq!(
            v4.block_of("255.255.255.255".parse().unwrap()),
            Some("255.255.255.240/28".parse().unwrap())
        );
        assert_eq!(v4.block_of(last), None);
    }

    fn pools() -> impl Strategy<Value = IpPoolSpec> {
        let ranges = prop::collection::vec((any::<u8>(), any::<u8>()), 1..4);
        let excluded = prop::collection::vec((any::<u8>(), 24_u8..=32), 0..5);
        (ranges, excluded, 22_u32..=32).prop_map(|(ranges, excluded, size)| {
            let mut pool = pool(r#"{"ipRanges":[]}"#);
            let range = |(index, (a, b)): (usize, (u8, u8))| -> IpRange {
                let (start, end) = (a.min(b), a.max(b));
                let json = format!(r#"{{"start":"10.0.{index}.{start}","end":"10.0.{index}.{end}"}}"#);
                serde_json::from_str(&json).unwrap()
            };
            pool.ip_ranges = ranges.into_iter().enumerate().map(range).collect();
            let out = |(host, length): (u8, u8)| -> AddressOrCidr {
                Prefix::v4([10, 0, 0, host].into(), length).unwrap().to_string().parse().unwrap()
            };
            pool.excluded = excluded.into_iter().map(out).collect();
            pool.block_size = Bounded::new(size);
            pool
        })
    }

    proptest! {
        #[test]
        fn blocks_are_disjoint_and_are_the_pool(pool in pools(), hash in any::<u64>()) {
            let carving = Carving::new(&pool, AfiSafi::Ipv4Unicast);
            let mut seen = BTreeSet::new();
            for block in carving.from(hash) {
                let (first, last) = (number(block.address()), number(block.last_address()));
                for bits in first..=last {
                    prop_assert!(seen.insert(bits), "{} is in two blocks", block);
                    let address = address(AfiSafi::Ipv4Unicast, bits);
                    prop_assert!(pool.contains(address), "{} leaves the pool", block);
                    prop_assert_eq!(carving.block_of(address), Some(block));
                }
            }
            for bits in 0..=0x3ff_u128 {
                let bits = 0x0a00_0000 + bits;
                let inside = pool.contains(address(AfiSafi::Ipv4Unicast, bits));
                prop_assert_eq!(seen.contains(&bits), inside);
                prop_assert_eq!(carving.block_of(address(AfiSafi::Ipv4Unicast, bits)).is_some(), inside);
            }
        }

        #[test]
        fn where_it_begins_changes_nothing_but_the_order(pool in pools(), a in any::<u64>(), b in any::<u64>()) {
            let carving = Carving::new(&pool, AfiSafi::Ipv4Unicast);
            let from = |hash| carving.from(hash).collect::<BTreeSet<_>>();
            prop_assert_eq!(from(a), from(b));
        }
    }
}
