//! One family's half of the Adj-RIB-Out: a small record for each prefix, and what is still to be sent.
//!
//! What is desired is numbered: prefixes of which the same is to be said form a group, and a record holds two group
//! numbers, desired and sent. While they differ, the record is linked into the list of its desired group (group 0
//! is "no route", whose list are the withdrawals). So a change moves a record from list to list, which is how a
//! later change cancels its pending opposite, memory does not grow with churn, and a group is ready to be packed.
//! What a session makes of it, attributes and next hop, stands once in the group: a new session costs no prefix
//! more than its place in a list.
use std::{collections::BTreeSet, hash::Hash};

use super::{
    Advertised, Route,
    groups::Groups,
    index::{KeyHash, SlotIndex},
};
use crate::{AfiSafi, Prefix};

/// Group 0: no route.
pub(super) const NO_ROUTE: u32 = 0;
/// As `sent`: the peer holds some route of ours that is to be replaced, whatever it is (after a refresh).
const OUTDATED: u32 = u32::MAX;
/// As a link: the end of a list.
const END: u32 = u32::MAX;

struct Record {
    prefix: Prefix,
    desired: u32,
    sent: u32,
    /// Neighbours in the list of pending records; `next` also links the free records.
    previous: u32,
    next: u32,
}

impl Record {
    /// A record without any route is free.
    const fn is_free(&self) -> bool {
        self.desired == NO_ROUTE && self.sent == NO_ROUTE
    }
}

/// Prefixes of which the same is said, or is to be said, as far as the session goes.
struct Pending {
    /// As this session says it, from the first time that it does.
    said: Option<Route>,
    /// It does not fit into a message of this session, or its next hop cannot be said in it.
    unsendable: bool,
    head: u32,
    tail: u32,
}

impl Default for Pending {
    fn default() -> Pending {
        Pending { said: None, unsendable: false, head: END, tail: END }
    }
}

pub(super) struct Table<D> {
    pub(super) family: AfiSafi,
    records: Vec<Record>,
    free_records: u32,
    index: SlotIndex,
    groups: Groups<D, Pending>,
    /// Groups whose list is not empty.
    ready: BTreeSet<u32>,
    pending: usize,
    desired: usize,
    sent: usize,
    up: bool,
}

impl<D: Eq + Hash> Table<D> {
    pub(super) fn new(family: AfiSafi) -> Table<D> {
        Table {
            family,
            records: Vec::new(),
            free_records: END,
            index: SlotIndex::default(),
            groups: Groups::with_keyless(),
            ready: BTreeSet::new(),
            pending: 0,
            desired: 0,
            sent: 0,
            up: false,
        }
    }

    /// Prefixes that are to be announced.
    pub(super) const fn desired(&self) -> usize {
        self.desired
    }

    /// Prefixes of which the peer holds a route.
    pub(super) const fn sent(&self) -> usize {
        self.sent
    }

    /// Prefixes that are to be announced or withdrawn yet.
    pub(super) const fn pending(&self) -> usize {
        self.pending
    }

    /// What is desired of `prefix` from now on; false where it was that already.
    pub(super) fn set_desired(&mut self, prefix: Prefix, desired: Option<D>) -> bool {
        let group = desired.map_or(NO_ROUTE, |desired| self.groups.number(desired));
        let hash = self.index.hash(&prefix);
        let found = self.index.find(hash, |slot| self.records[slot as usize].prefix == prefix);
        let slot = match found {
            Some(slot) if self.records[slot as usize].desired == group => return false,
            Some(slot) => slot,
            None if group == NO_ROUTE => return false,
            None => self.add_record(prefix, hash),
        };
        self.unlink_if_pending(slot);
        let old = std::mem::replace(&mut self.records[slot as usize].desired, group);
        self.desired = self.desired + usize::from(group != NO_ROUTE) - usize::from(old != NO_ROUTE);
        self.retain_group(group);
        self.release_group(old);
        self.settle(slot);
        true
    }

    /// A new session, in which the peer holds nothing of ours.
    pub(super) fn session_up(&mut self) {
        self.session_down();
        self.up = true;
        for slot in 0..self.slots() {
            self.settle(slot);
        }
    }

    /// No session: nothing is sent and nothing is pending.
    pub(super) fn session_down(&mut self) {
        for slot in 0..self.slots() {
            if !self.records[slot as usize].is_free() {
                self.unlink_if_pending(slot);
                self.set_sent(slot, NO_ROUTE);
                if self.records[slot as usize].is_free() {
                    self.remove_record(slot);
                }
            }
        }
        self.up = false;
        for (_, group) in self.groups.iter_mut() {
            (group.said, group.unsendable) = (None, false);
        }
    }

    /// The session says things otherwise from now on, another next hop for one: what it said differently is told
    /// again.
    pub(super) fn say_again(&mut self, mut say: impl FnMut(&D) -> Option<Route>) {
        for slot in 0..self.slots() {
            self.unlink_if_pending(slot);
        }
        let differs: Vec<bool> = self
            .groups
            .iter_mut()
            .map(|(desired, group)| {
                group.unsendable = false;
                let differs = group.said.is_some() && group.said != desired.and_then(&mut say);
                if differs {
                    group.said = None;
                }
                differs
            })
            .collect();
        for slot in 0..self.slots() {
            let sent = self.records[slot as usize].sent;
            if differs.get(sent as usize) == Some(&true) {
                self.set_sent(slot, OUTDATED);
            }
            self.settle(slot);
        }
    }

    /// The peer wants to hear it all again (RFC 2918).
    pub(super) fn refresh(&mut self) {
        for slot in 0..self.slots() {
            let record = &self.records[slot as usize];
            if record.sent != NO_ROUTE && record.desired != NO_ROUTE {
                self.unlink_if_pending(slot);
                self.set_sent(slot, OUTDATED);
                self.settle(slot);
            }
        }
    }

    /// The next group that has something to send: withdrawals (nothing desired) before any announcement.
    pub(super) fn next_ready(&self) -> Option<(u32, Option<&D>)> {
        let group = *self.ready.first()?;
        Some((group, self.groups.key(group)))
    }

    /// How this session says `group`, if it has been asked.
    pub(super) fn said(&self, group: u32) -> Option<&Route> {
        self.groups[group].said.as_ref()
    }

    /// How this session says `group`.
    pub(super) fn set_said(&mut self, group: u32, route: Route) {
        self.groups[group].said = Some(route);
    }

    /// The pending prefixes of `group`, in the order in which they became so.
    pub(super) fn pending_of(&self, group: u32) -> impl Iterator<Item = Prefix> {
        let mut slot = self.groups[group].head;
        std::iter::from_fn(move || {
            let record = self.records.get(slot as usize)?;
            slot = record.next;
            Some(record.prefix)
        })
    }

    /// The first `count` pending prefixes of `group` have been written. They leave its list in one piece.
    pub(super) fn mark_sent(&mut self, group: u32, count: usize) {
        let mut slot = self.groups[group].head;
        for _ in 0..count {
            let record = &mut self.records[slot as usize];
            let (written, old) = (slot, std::mem::replace(&mut record.sent, group));
            slot = record.next;
            if record.is_free() {
                self.remove_record(written);
            }
            self.sent = self.sent + usize::from(group != NO_ROUTE) - usize::from(old != NO_ROUTE);
            self.release_group(old);
        }
        let list = &mut self.groups[group];
        list.head = slot;
        if slot == END {
            list.tail = END;
            self.ready.remove(&group);
        } else {
            self.records[slot as usize].previous = END;
        }
        if group != NO_ROUTE {
            self.groups.retain(group, count as u32);
        }
        self.pending -= count;
    }

    /// The route of `group` cannot be said in this session: what the peer holds of it is to be withdrawn.
    pub(super) fn refuse(&mut self, group: u32) {
        let mut slots = Vec::new();
        let mut slot = self.groups[group].head;
        while slot != END {
            slots.push(slot);
            slot = self.records[slot as usize].next;
        }
        for slot in &slots {
            self.unlink_if_pending(*slot);
        }
        self.groups[group].unsendable = true;
        for slot in slots {
            self.settle(slot);
        }
    }

    /// Every desired prefix.
    pub(super) fn iter(&self) -> impl Iterator<Item = Advertised<'_, D>> {
        self.records.iter().filter_map(|record| {
            let desired = self.groups.key(record.desired)?;
            let route = self.groups[record.desired].said.as_ref();
            let sent = self.up && record.sent == record.desired;
            Some(Advertised { prefix: record.prefix, desired, route, sent })
        })
    }

    fn slots(&self) -> u32 {
        self.records.len() as u32
    }

    /// What the peer is to hold: the desired group, or nothing where that cannot be said.
    fn target(&self, record: &Record) -> u32 {
        if self.groups[record.desired].unsendable { NO_ROUTE } else { record.desired }
    }

    /// The group in whose list the record is.
    fn linked_in(&self, slot: u32) -> Option<u32> {
        let record = &self.records[slot as usize];
        let target = self.target(record);
        (self.up && target != record.sent).then_some(target)
    }

    /// Links the record where it is pending now; frees it where nothing is left of it.
    fn settle(&mut self, slot: u32) {
        if let Some(group) = self.linked_in(slot) {
            self.link(slot, group);
        } else if self.records[slot as usize].is_free() {
            // A slot that was free before has no place in the index; then this does nothing.
            self.remove_record(slot);
        }
    }

    fn link(&mut self, slot: u32, group: u32) {
        let list = &mut self.groups[group];
        let tail = std::mem::replace(&mut list.tail, slot);
        if tail == END {
            list.head = slot;
            self.ready.insert(group);
        } else {
            self.records[tail as usize].next = slot;
        }
        let record = &mut self.records[slot as usize];
        (record.previous, record.next) = (tail, END);
        self.pending += 1;
    }

    fn unlink_if_pending(&mut self, slot: u32) {
        let Some(group) = self.linked_in(slot) else { return };
        let Record { previous, next, .. } = self.records[slot as usize];
        match previous {
            END => self.groups[group].head = next,
            previous => self.records[previous as usize].next = next,
        }
        match next {
            END => self.groups[group].tail = previous,
            next => self.records[next as usize].previous = previous,
        }
        if self.groups[group].head == END {
            self.ready.remove(&group);
        }
        self.pending -= 1;
    }

    fn set_sent(&mut self, slot: u32, sent: u32) {
        let old = std::mem::replace(&mut self.records[slot as usize].sent, sent);
        self.sent = self.sent + usize::from(sent != NO_ROUTE) - usize::from(old != NO_ROUTE);
        self.retain_group(sent);
        self.release_group(old);
    }

    fn add_record(&mut self, prefix: Prefix, hash: KeyHash) -> u32 {
        let record = Record { prefix, desired: NO_ROUTE, sent: NO_ROUTE, previous: END, next: END };
        let slot = if self.free_records == END {
            // `END` itself must stay free.
            assert!(self.slots() < END - 1, "fewer than 2^32 prefixes fit into memory");
            self.records.push(record);
            self.slots() - 1
        } else {
            let slot = self.free_records;
            let free = std::mem::replace(&mut self.records[slot as usize], record);
            self.free_records = free.next;
            slot
        };
        self.index.insert(hash, slot);
        slot
    }

    fn remove_record(&mut self, slot: u32) {
        if self.index.remove(self.index.hash(&self.records[slot as usize].prefix), slot) {
            self.records[slot as usize].next = self.free_records;
            self.free_records = slot;
        }
    }

    fn retain_group(&mut self, group: u32) {
        if group != NO_ROUTE && group != OUTDATED {
            self.groups.retain(group, 1);
        }
    }

    fn release_group(&mut self, group: u32) {
        if group != NO_ROUTE && group != OUTDATED {
            self.groups.release(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{NextHop, PathAttributes};

    fn route(med: u32) -> Option<Route> {
        let attributes = PathAttributes { med: Some(med), ..PathAttributes::default() };
        Some(Route::new(attributes, NextHop::V4([192, 0, 2, 1].into())))
    }

    /// A peer that does not read for a day must not cost memory by what changes meanwhile.
    #[test]
    fn churn_leaves_nothing_behind() {
        let mut table = Table::new(AfiSafi::Ipv4Unicast);
        table.session_up();
        for number in 0..10_000_u32 {
            let prefix = Prefix::host([10, 0, 0, number as u8 % 7].into());
            table.set_desired(prefix, route(number));
            if number % 3 == 0 {
                table.set_desired(prefix, None);
            }
            if number % 5 == 0
                && let Some((group, _)) = table.next_ready()
            {
                table.mark_sent(group, 1);
            }
        }
        assert!(table.records.len() <= 7 && table.index.len() <= 7);
        // Seven desired, seven sent, and group 0.
        assert!(table.groups.places() <= 15 && table.groups.len() <= 14, "{} groups", table.groups.places());
        table.session_down();
        for last in 0..7 {
            table.set_desired(Prefix::host([10, 0, 0, last].into()), None);
        }
        assert_eq!((table.index.len(), table.groups.len(), table.pending), (0, 0, 0));
        assert_eq!(table.groups.free(), table.groups.places() - 1);
    }
}
