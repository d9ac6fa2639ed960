//! What an Adj-RIB-In holds: a small record for each route, and what they have in common once.
//!
//! A full table is a million prefixes in some ten thousand attribute sets. So a record names its attributes and next
//! hop by number, and is found through an index of slots: 36 octets and the index for a route.
use super::{
    Change, Received, Route,
    groups::Groups,
    index::{KeyHash, SlotIndex},
};
use crate::{AfiSafi, wire::Nlri};

/// As a group: the record is free.
const FREE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Record {
    nlri: Nlri,
    group: u32,
    install: bool,
    stale: bool,
    /// The peer is telling its family again and has not come to this one yet (RFC 7313).
    untold: bool,
}

/// What routes with the same attributes and next hop share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shared {
    route: Route,
    sent_local_pref: Option<u32>,
}

/// A group that the caller holds for a while; to be given back by [`Held::release`].
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupId(u32);

#[derive(Debug, Default)]
pub(super) struct Held {
    records: Vec<Record>,
    free_records: Vec<u32>,
    index: SlotIndex,
    groups: Groups<Shared>,
    counts: [usize; 2],
    stale: [usize; 2],
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// How many routes of the family are held.
    pub(super) fn count(&self, family: AfiSafi) -> usize {
        self.counts[family.place()]
    }

    /// How many of them are stale.
    pub(super) fn stale(&self, family: AfiSafi) -> usize {
        self.stale[family.place()]
    }

    pub(super) fn get(&self, nlri: &Nlri) -> Option<Received> {
        self.slot(nlri).and_then(|slot| self.received(&self.records[slot as usize]))
    }

    pub(super) fn contains(&self, nlri: &Nlri) -> bool {
        self.slot(nlri).is_some()
    }

    /// Every route, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Nlri, Received)> {
        self.records.iter().filter_map(|record| Some((record.nlri, self.received(record)?)))
    }

    /// The group of routes with these attributes and this next hop, held for the caller.
    pub(super) fn hold(&mut self, route: Route, sent_local_pref: Option<u32>) -> GroupId {
        let group = self.groups.number(Shared { route, sent_local_pref });
        self.groups.retain(group, 1);
        GroupId(group)
    }

    pub(super) fn release(&mut self, GroupId(group): GroupId) {
        self.groups.release(group);
    }

    /// The peer has told `nlri`; gives the route where that is another one than before, or no longer stale.
    pub(super) fn put(&mut self, nlri: Nlri, GroupId(group): GroupId, install: bool) -> Option<Received> {
        let new = Record { nlri, group, install, stale: false, untold: false };
        let hash = self.index.hash(&nlri);
        let slot = match self.index.find(hash, |slot| self.records[slot as usize].nlri == nlri) {
            Some(slot) => {
                let old = &mut self.records[slot as usize];
                old.untold = false;
                if (old.group, old.install, old.stale) == (group, install, false) {
                    return None;
                }
                slot
            }
            None => self.add(nlri, hash),
        };
        self.set(slot, new);
        self.received(&new)
    }

    /// False where it was not held.
    pub(super) fn remove(&mut self, nlri: &Nlri) -> bool {
        let slot = self.slot(nlri);
        if let Some(slot) = slot {
            self.free(slot);
        }
        slot.is_some()
    }

    /// From now on it counts which routes of the family the peer tells.
    pub(super) fn begin_telling(&mut self, family: AfiSafi) {
        for record in &mut self.records {
            record.untold = record.nlri.prefix.family() == family;
        }
    }

    /// Lets `edit` change every route of the family; where it gives false, the route goes. It is told of each whether
    /// the peer has yet to tell it again.
    pub(super) fn edit(
        &mut self,
        family: AfiSafi,
        mut edit: impl FnMut(&Nlri, &mut Received, bool) -> bool,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.count(family) == 0 {
            return changes;
        }
        for slot in 0..self.records.len() as u32 {
            let record = self.records[slot as usize];
            let nlri = record.nlri;
            let Some(before) = self.received(&record).filter(|_| nlri.prefix.family() == family) else {
                continue;
            };
            let mut after = before.clone();
            if !edit(&nlri, &mut after, record.untold) {
                self.free(slot);
                changes.push(Change { nlri, route: None });
            } else if after != before {
                let Received { route, sent_local_pref, install, stale } = after.clone();
                let group = self.groups.number(Shared { route, sent_local_pref });
                self.set(slot, Record { group, install, stale, ..record });
                changes.push(Change { nlri, route: Some(after) });
            }
        }
        changes
    }

    fn slot(&self, nlri: &Nlri) -> Option<u32> {
        self.index.find(self.index.hash(nlri), |slot| self.records[slot as usize].nlri == *nlri)
    }

    /// A record without a route as yet.
    fn add(&mut self, nlri: Nlri, hash: KeyHash) -> u32 {
        let record = Record { nlri, group: FREE, install: false, stale: false, untold: false };
        let slot = match self.free_records.pop() {
            Some(slot) => {
                self.records[slot as usize] = record;
                slot
            }
            None => {
                self.records.push(record);
                (self.records.len() - 1) as u32
            }
        };
        self.index.insert(hash, slot);
        self.counts[nlri.prefix.family().place()] += 1;
        slot
    }

    fn set(&mut self, slot: u32, new: Record) {
        if new.group != FREE {
            self.groups.retain(new.group, 1);
        }
        let old = std::mem::replace(&mut self.records[slot as usize], new);
        let stale = &mut self.stale[new.nlri.prefix.family().place()];
        *stale = *stale + usize::from(new.stale) - usize::from(old.stale);
        if old.group != FREE {
            self.groups.release(old.group);
        }
    }

    fn free(&mut self, slot: u32) {
        let nlri = self.records[slot as usize].nlri;
        self.set(slot, Record { nlri, group: FREE, install: false, stale: false, untold: false });
        self.index.remove(self.index.hash(&nlri), slot);
        self.counts[nlri.prefix.family().place()] -= 1;
        self.free_records.push(slot);
    }

    fn received(&self, record: &Record) -> Option<Received> {
        if record.group == FREE {
            return None;
        }
        let Shared { route, sent_local_pref } = self.groups.key(record.group)?.clone();
        Some(Received { route, sent_local_pref, install: record.install, stale: record.stale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Prefix,
        wire::{NextHop, PathAttributes},
    };

    fn route(med: u32) -> Route {
        let attributes = PathAttributes { med: Some(med), ..PathAttributes::default() };
        Route::new(attributes, NextHop::V4([192, 0, 2, 1].into()))
    }

    fn nlri(last: u8) -> Nlri {
        Prefix::host([10, 0, 0, last].into()).into()
    }

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Record>(), 36);
    }

    /// A peer that flaps for a year must not cost memory by it.
    #[test]
    fn churn_leaves_nothing_behind() {
        let mut held = Held::default();
        for number in 0..10_000_u32 {
            let group = held.hold(route(number), None);
            held.put(nlri((number % 7) as u8), group, true);
            held.release(group);
            if number % 3 == 0 {
                held.remove(&nlri((number % 5) as u8));
            }
        }
        assert!(held.records.len() <= 7 && held.groups.places() <= 9, "{held:?}");
        let family = AfiSafi::Ipv4Unicast;
        assert_eq!(held.count(family), held.iter().count());
        held.edit(family, |_, received, _| {
            received.stale = true;
            true
        });
        assert_eq!(held.stale(family), held.count(family));
        held.edit(family, |_, _, _| false);
        assert_eq!((held.len(), held.count(family), held.stale(family)), (0, 0, 0));
        assert_eq!((held.index.len(), held.groups.len()), (0, 0));
    }
}
