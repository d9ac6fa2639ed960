//! Totals that outlive the kernel's counters: pure.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ahash::AHashSet;

use super::{
    NatCounters, NatDesired,
    compile::{STRAY, UNSOLICITED, dropped, out},
};

/// Packets and bytes by the counter's name.
pub(super) type Readings = BTreeMap<Arc<str>, (u64, u64)>;

#[derive(Default)]
pub(super) struct Totals {
    totals: Readings,
    /// What the kernel's counter had when it was read last.
    last: Readings,
    egresses: BTreeSet<Arc<str>>,
}

impl Totals {
    /// Takes a reading in. A counter that has less than before, or was not there, has begun anew.
    pub(super) fn add(&mut self, readings: Readings) {
        for (name, (packets, bytes)) in &readings {
            let last = self.last.get(name).filter(|last| last.0 <= *packets && last.1 <= *bytes);
            let (last_packets, last_bytes) = last.copied().unwrap_or_default();
            let total = self.totals.entry(Arc::clone(name)).or_default();
            total.0 += packets - last_packets;
            total.1 += bytes - last_bytes;
        }
        self.last = readings;
    }

    /// The kernel's counters are gone, all or those of these names.
    pub(super) fn forget<'a>(&mut self, gone: impl IntoIterator<Item = &'a Arc<str>>) {
        for name in gone {
            self.last.remove(name);
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.last.clear();
    }

    /// Remembers the names of those that are counted.
    pub(super) fn note(&mut self, desired: &NatDesired) {
        // Many share one.
        let mut seen = AHashSet::new();
        for source in desired.classes.iter().flat_map(|class| class.sources.values()) {
            if seen.insert(&source.egress) {
                self.egresses.insert(Arc::clone(&source.egress));
            }
        }
    }

    pub(super) fn counters(&self) -> BTreeMap<Arc<str>, NatCounters> {
        let total = |name: Arc<str>| self.totals.get(&name).copied().unwrap_or_default();
        let counters = |egress: &Arc<str>| {
            let (out_packets, out_bytes) = total(out(egress));
            let (dropped_packets, dropped_bytes) = total(dropped(egress));
            let counters = NatCounters { out_packets, out_bytes, dropped_packets, dropped_bytes };
            (Arc::clone(egress), counters)
        };
        self.egresses.iter().map(counters).collect()
    }

    pub(super) fn stray_packets(&self) -> u64 {
        self.totals.get(STRAY).map_or(0, |total| total.0)
    }

    pub(super) fn unsolicited_packets(&self) -> u64 {
        self.totals.get(UNSOLICITED).map_or(0, |total| total.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(packets: u64) -> Readings {
        Readings::from([(STRAY.into(), (packets, packets * 100))])
    }

    #[test]
    fn totals_outlive_counters_that_begin_anew() {
        let mut totals = Totals::default();
        for (reading, total) in [(reading(3), 3), (reading(5), 5), (reading(1), 6), (reading(1), 6)] {
            totals.add(reading);
            assert_eq!(totals.stray_packets(), total);
        }
        // Gone and back, with more than it had before.
        totals.add(Readings::new());
        totals.add(reading(4));
        assert_eq!(totals.stray_packets(), 10);
        totals.forget_all();
        totals.add(reading(9));
        assert_eq!(totals.stray_packets(), 19);
        totals.forget([&Arc::from(STRAY)]);
        totals.add(reading(9));
        assert_eq!((totals.stray_packets(), totals.unsolicited_packets()), (28, 0));
    }
}
