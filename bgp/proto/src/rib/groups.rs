//! Numbers for what many routes have in common: equal keys have one number, which lives as long as somebody names it.
//!
//! A node announces thousands of prefixes with a handful of attribute sets; a peer may send a full table with a hundred
//! thousand. So both RIBs keep a number with each prefix, and what it stands for once in here.
use std::{
    hash::Hash,
    ops::{Index, IndexMut},
};

use hashbrown::HashTable;

use super::attributes::hash_key;

#[derive(Debug)]
struct Group<K, V> {
    /// `None` in a free group, and in the one without a key.
    key: Option<K>,
    hash: u64,
    references: u32,
    value: V,
}

/// Groups by key, each with a value of its user's.
#[derive(Debug)]
pub(super) struct Groups<K, V = ()> {
    groups: Vec<Group<K, V>>,
    free: Vec<u32>,
    numbers: HashTable<u32>,
}

impl<K, V> Default for Groups<K, V> {
    fn default() -> Groups<K, V> {
        Groups { groups: Vec::new(), free: Vec::new(), numbers: HashTable::new() }
    }
}

impl<K: Eq + Hash, V: Default> Groups<K, V> {
    /// No groups but number 0, which has no key and stays.
    pub(super) fn with_keyless() -> Groups<K, V> {
        let keyless = Group { key: None, hash: 0, references: 0, value: V::default() };
        Groups { groups: vec![keyless], ..Groups::default() }
    }

    /// The number of `key`, made where there is none. Without [`Self::retain`] soon it is a leak.
    pub(super) fn number(&mut self, key: K) -> u32 {
        let hash = hash_key().hash_one(&key);
        let groups = &self.groups;
        let same = |number: &u32| groups[*number as usize].key.as_ref() == Some(&key);
        if let Some(number) = self.numbers.find(hash, same) {
            return *number;
        }
        let new = Group { key: Some(key), hash, references: 0, value: V::default() };
        let number = match self.free.pop() {
            Some(number) => {
                self.groups[number as usize] = new;
                number
            }
            None => {
                self.groups.push(new);
                (self.groups.len() - 1) as u32
            }
        };
        let groups = &self.groups;
        self.numbers.insert_unique(hash, number, |number| groups[*number as usize].hash);
        number
    }

    pub(super) fn key(&self, number: u32) -> Option<&K> {
        self.groups[number as usize].key.as_ref()
    }

    /// So many more name the group.
    pub(super) fn retain(&mut self, number: u32, count: u32) {
        self.groups[number as usize].references += count;
    }

    /// One less names the group; the last one's going frees it.
    pub(super) fn release(&mut self, number: u32) {
        let group = &mut self.groups[number as usize];
        group.references -= 1;
        if group.references == 0 {
            (group.key, group.value) = (None, V::default());
            if let Ok(entry) = self.numbers.find_entry(group.hash, |other| *other == number) {
                entry.remove();
            }
            self.free.push(number);
        }
    }

    /// Every group by number, free ones included.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Option<&K>, &mut V)> {
        self.groups.iter_mut().map(|group| (group.key.as_ref(), &mut group.value))
    }

    /// How many keys have a number.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// How many groups are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// How many groups there is room for, free ones included.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.groups.len()
    }
}

impl<K, V> Index<u32> for Groups<K, V> {
    type Output = V;
    fn index(&self, number: u32) -> &V {
        &self.groups[number as usize].value
    }
}

impl<K, V> IndexMut<u32> for Groups<K, V> {
    fn index_mut(&mut self, number: u32) -> &mut V {
        &mut self.groups[number as usize].value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_have_one_number() {
        let mut groups: Groups<u32> = Groups::default();
        let (a, b, c) = (groups.number(1), groups.number(1), groups.number(2));
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert_eq!(groups.len(), 2);
    }

    #[test]
    fn unused_groups_go_away_and_leave_no_places_behind() {
        let mut groups: Groups<u32, Vec<u32>> = Groups::default();
        let kept = groups.number(0);
        groups.retain(kept, 1);
        for key in 1..10_000 {
            let number = groups.number(key);
            groups.retain(number, 2);
            groups[number].push(key);
            groups.release(number);
            assert_eq!((groups.key(number), &groups[number]), (Some(&key), &vec![key]));
            groups.release(number);
            assert_eq!((groups.key(number), &groups[number]), (None, &Vec::new()));
        }
        assert_eq!((groups.len(), groups.places()), (1, 2));
        assert_eq!(groups.number(0), kept);
    }
}
