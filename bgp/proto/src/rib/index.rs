//! From a key to the slot of its record, in the eight octets that the slot and half of the hash take.
//!
//! The hash stands beside the slot so that neither a growing index nor a key that is not there touches the records:
//! with a million of them each look would miss the processor's caches.
use std::hash::Hash;

use ahash::RandomState;
use hashbrown::HashTable;

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    slot: u32,
}

impl Entry {
    /// The table chooses places by the low bits and tells neighbours apart by the high ones: spread over both.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A key's hash, to be computed once for several steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash(u32);

#[derive(Debug, Default)]
pub(super) struct SlotIndex {
    entries: HashTable<Entry>,
    hasher: RandomState,
}

impl SlotIndex {
    pub(super) fn hash(&self, key: &impl Hash) -> KeyHash {
        KeyHash(self.hasher.hash_one(key) as u32)
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The slot of the key with this hash for which `is_key` holds.
    pub(super) fn find(&self, KeyHash(hash): KeyHash, is_key: impl Fn(u32) -> bool) -> Option<u32> {
        let same = |entry: &Entry| entry.hash == hash && is_key(entry.slot);
        self.entries.find(Entry::spread(hash), same).map(|entry| entry.slot)
    }

    /// Adds a key that is not there yet.
    pub(super) fn insert(&mut self, KeyHash(hash): KeyHash, slot: u32) {
        let entry = Entry { hash, slot };
        self.entries.insert_unique(Entry::spread(hash), entry, |entry| Entry::spread(entry.hash));
    }

    /// Removes the key of `slot`; false where it is not there.
    pub(super) fn remove(&mut self, KeyHash(hash): KeyHash, slot: u32) -> bool {
        let found = self.entries.find_entry(Entry::spread(hash), |entry| entry.slot == slot);
        found.map(|entry| entry.remove()).is_ok()
    }
}
