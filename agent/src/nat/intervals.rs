//! Prefixes that may overlap, made into intervals that do not: pure.
use std::net::IpAddr;

use plainroute_bgp::Prefix;

use super::ruleset::Family;

/// Disjoint intervals of one family in order, first and last address included; neighbours differ in their value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intervals<T> {
    list: Vec<Interval<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval<T> {
    pub(super) first: u128,
    pub(super) last: u128,
    pub(super) value: T,
}

impl<T: Clone + PartialEq> Intervals<T> {
    /// Of the prefixes of `family`; where several hold an address, the longest one's value stands.
    pub(super) fn new(family: Family, prefixes: impl IntoIterator<Item = (Prefix, T)>) -> Intervals<T> {
        let mut sorted: Vec<(u128, u128, T)> = prefixes
            .into_iter()
            .filter(|(prefix, _)| self::family(prefix.address()) == family)
            .map(|(prefix, value)| (bits(prefix.address()), bits(prefix.last_address()), value))
            .collect();
        // Prefixes never cross: by start, and the wider first, each one lies within the nearest before it that is still open.
        sorted.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut out = Intervals { list: Vec::with_capacity(sorted.len()) };
        let mut open: Vec<(u128, T)> = Vec::new();
        // The first address that no interval tells of yet.
        let mut next = 0;
        for (first, last, value) in sorted {
            out.close(&mut open, &mut next, Some(first));
            if let Some((_, outer)) = open.last()
                && next < first
            {
                out.push(next, first - 1, outer.clone());
            }
            next = first;
            open.push((last, value));
        }
        out.close(&mut open, &mut next, None);
        out
    }

    /// Ends the open prefixes that lie before an address.
    fn close(&mut self, open: &mut Vec<(u128, T)>, next: &mut u128, before: Option<u128>) {
        while let Some((last, value)) = open.pop_if(|(last, _)| before.is_none_or(|before| *last < before)) {
            // Another one may have ended at the very same address.
            if *next <= last && self.list.last().is_none_or(|told| told.last < last) {
                self.push(*next, last, value);
            }
            *next = last.saturating_add(1).max(*next);
        }
    }

    fn push(&mut self, first: u128, last: u128, value: T) {
        match self.list.last_mut() {
            Some(before) if before.last.checked_add(1) == Some(first) && before.value == value => {
                before.last = last;
            }
            _ => self.list.push(Interval { first, last, value }),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Interval<T>> {
        self.list.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The value that stands for an address.
    pub(super) fn find(&self, address: u128) -> Option<&T> {
        let after = self.list.partition_point(|interval| interval.first <= address);
        let interval = self.list.get(after.checked_sub(1)?)?;
        (address <= interval.last).then_some(&interval.value)
    }
}

/// An address as a number, IPv4's in the low bits.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

pub(super) fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    /// Prefixes in a small corner, at both ends of the family's space.
    fn prefix(v6: bool) -> impl Strategy<Value = Prefix> {
        (any::<u8>(), any::<bool>(), 0..=12u8).prop_map(move |(low, end, up)| {
            let low = u128::from(low);
            let bits = if end { u128::MAX - low } else { low };
            if v6 {
                Prefix::v6(bits.into(), 128 - up).unwrap()
            } else {
                Prefix::v4((bits as u32).into(), 32 - up).unwrap()
            }
        })
    }

    fn longest(prefixes: &BTreeMap<Prefix, u8>, address: IpAddr) -> Option<u8> {
        let holding = prefixes.iter().filter(|(prefix, _)| prefix.contains_address(address));
        holding.max_by_key(|(prefix, _)| prefix.length()).map(|(_, value)| *value)
    }

    proptest! {
        #[test]
        fn each_address_has_the_value_of_its_longest_prefix(
            (v6, prefixes) in any::<bool>().prop_flat_map(|v6| (Just(v6), btree_map(prefix(v6), 0..4u8, 0..12)))
        ) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let intervals = Intervals::new(family, prefixes.clone());
            for low in 0..=5000u128 {
                for bits in [low, u128::MAX - low] {
                    let address: IpAddr =
                        if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
                    prop_assert_eq!(
                        intervals.find(super::bits(address)).copied(), longest(&prefixes, address), "{}", address
                    );
                }
            }
            for pair in intervals.list.windows(2) {
                prop_assert!(pair[0].last < pair[1].first);
                prop_assert!(pair[0].last + 1 < pair[1].first || pair[0].value != pair[1].value);
            }
            prop_assert!(intervals.iter().all(|interval| interval.first <= interval.last));
        }
    }

    #[test]
    fn everything_is_one_interval_and_the_other_family_is_left_out() {
        let all = ["0.0.0.0/0", "::/0"].map(|text| (text.parse().unwrap(), ()));
        let v4 = Intervals::new(Family::V4, all);
        assert_eq!(v4.list, [Interval { first: 0, last: u128::from(u32::MAX), value: () }]);
        let v6 = Intervals::new(Family::V6, all);
        assert_eq!(v6.list, [Interval { first: 0, last: u128::MAX, value: () }]);
    }
}
