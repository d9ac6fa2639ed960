//! What every owner originates to each peer, and what a change of it means to the peer.
//!
//! Plain state of the registry. A peer is told changes, not sets: what one prefix costs must not depend on how many
//! there are beside it.
use std::{
    collections::{BTreeMap, btree_map},
    iter::Peekable,
    sync::Arc,
};

use plainroute_bgp::Prefix;

use crate::{OriginAttributes, Originated, PeerName, RouteChange};

/// What is to become of a prefix; `None`: it is withdrawn.
pub(crate) type Change = (Prefix, Option<Arc<OriginAttributes>>);

/// What one owner originates to one peer.
type Routes = BTreeMap<Prefix, Arc<OriginAttributes>>;
type Peers = BTreeMap<PeerName, Routes>;

/// By owner. Where two originate the same prefix to a peer, the one whose name sorts first gives the attributes.
#[derive(Debug, Default)]
pub(crate) struct OriginatedSets {
    owners: BTreeMap<String, Peers>,
}

/// What an owner's set was before it was replaced.
#[derive(Debug)]
pub(crate) struct Replaced {
    owner: String,
    old: Peers,
}

impl OriginatedSets {
    /// Makes `routes` all that `owner` originates. Of a prefix that is there twice for a peer the last counts.
    pub(crate) fn replace(&mut self, owner: String, routes: Vec<Originated>) -> Replaced {
        let mut by_peer: BTreeMap<PeerName, Vec<_>> = BTreeMap::new();
        for Originated { peer, prefix, attributes } in routes {
            by_peer.entry(peer).or_default().push((prefix, attributes));
        }
        let new: Peers =
            by_peer.into_iter().map(|(peer, routes)| (peer, routes.into_iter().collect())).collect();
        let old = match new.is_empty() {
            true => self.owners.remove(&owner),
            false => self.owners.insert(owner.clone(), new),
        };
        Replaced { owner, old: old.unwrap_or_default() }
    }

    /// What a replacement changes for `peer`.
    pub(crate) fn changes<'a>(
        &'a self,
        replaced: &'a Replaced,
        peer: &'a PeerName,
    ) -> impl Iterator<Item = Change> + 'a {
        let none = const { &Routes::new() };
        let old = replaced.old.get(peer).unwrap_or(none);
        let new = self.owners.get(&replaced.owner).and_then(|peers| peers.get(peer)).unwrap_or(none);
        Differences { old: old.iter().peekable(), new: new.iter().peekable() }
            .filter_map(move |(prefix, old, new)| self.effect(&replaced.owner, peer, prefix, old, new))
    }

    /// Changes some of what `owner` originates; gives what that changes for each peer, in the order given.
    pub(crate) fn update(
        &mut self,
        owner: &str,
        changes: Vec<RouteChange>,
    ) -> BTreeMap<PeerName, Vec<Change>> {
        let mut told: BTreeMap<PeerName, Vec<Change>> = BTreeMap::new();
        for RouteChange { peer, prefix, attributes } in changes {
            let routes = self.owners.entry(owner.to_owned()).or_default().entry(peer.clone()).or_default();
            let old = match &attributes {
                Some(attributes) => routes.insert(prefix, Arc::clone(attributes)),
                None => routes.remove(&prefix),
            };
            if old == attributes {
                continue;
            }
            let effect = self.effect(owner, &peer, prefix, old.as_ref(), attributes.as_ref());
            if let Some(change) = effect {
                told.entry(peer).or_default().push(change);
            }
        }
        self.forget_empty(owner);
        told
    }

    /// All that is originated to `peer`.
    pub(crate) fn routes_to<'a>(&'a self, peer: &'a PeerName) -> impl Iterator<Item = Change> + 'a {
        self.owners.iter().flat_map(move |(owner, peers)| {
            let earlier = self.owners.range::<String, _>(..owner);
            let earlier: Vec<&Routes> = earlier.filter_map(|(_, peers)| peers.get(peer)).collect();
            let routes = peers.get(peer).into_iter().flatten();
            let first = routes.filter(move |(prefix, _)| earlier.iter().all(|it| !it.contains_key(prefix)));
            first.map(|(prefix, attributes)| (*prefix, Some(Arc::clone(attributes))))
        })
    }

    /// What it means to the peer that `owner` had `old` and now has `new` of the prefix; `None`: nothing.
    fn effect(
        &self,
        owner: &str,
        peer: &PeerName,
        prefix: Prefix,
        old: Option<&Arc<OriginAttributes>>,
        new: Option<&Arc<OriginAttributes>>,
    ) -> Option<Change> {
        let mut others = self.owners.iter().filter(|(other, _)| *other != owner);
        let other = others.find_map(|(other, peers)| Some((other, peers.get(peer)?.get(&prefix)?)));
        match other {
            Some((other, _)) if other.as_str() < owner => None,
            Some((_, later)) if old.unwrap_or(later) == new.unwrap_or(later) => None,
            Some((_, later)) => Some((prefix, Some(Arc::clone(new.unwrap_or(later))))),
            None => Some((prefix, new.cloned())),
        }
    }

    fn forget_empty(&mut self, owner: &str) {
        if let Some(peers) = self.owners.get_mut(owner) {
            peers.retain(|_, routes| !routes.is_empty());
            if peers.is_empty() {
                self.owners.remove(owner);
            }
        }
    }
}

type Iter<'a> = Peekable<btree_map::Iter<'a, Prefix, Arc<OriginAttributes>>>;

/// The prefixes at which two sets differ, in order, with what each has of them.
struct Differences<'a> {
    old: Iter<'a>,
    new: Iter<'a>,
}

impl<'a> Iterator for Differences<'a> {
    type Item = (Prefix, Option<&'a Arc<OriginAttributes>>, Option<&'a Arc<OriginAttributes>>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let prefix = match (self.old.peek(), self.new.peek()) {
                (Some((old, _)), Some((new, _))) => **old.min(new),
                (Some((prefix, _)), None) | (None, Some((prefix, _))) => **prefix,
                (None, None) => return None,
            };
            let take = |routes: &mut Iter<'a>| routes.next_if(|(at, _)| **at == prefix);
            let (old, new) = (take(&mut self.old), take(&mut self.new));
            let (old, new) = (old.map(|(_, attributes)| attributes), new.map(|(_, attributes)| attributes));
            if old != new {
                return Some((prefix, old, new));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWNERS: [&str; 3] = ["a", "b", "c"];

    fn attributes(med: u32) -> Arc<OriginAttributes> {
        Arc::new(OriginAttributes { med: Some(med), ..OriginAttributes::default() })
    }

    fn prefix(last: u8) -> Prefix {
        Prefix::host([10, 0, 0, last].into())
    }

    fn peer(number: u8) -> PeerName {
        PeerName::from(format!("peer-{number}"))
    }

    /// Peer, prefix, MED; `None`: withdrawn.
    type Edit = (u8, u8, Option<u32>);

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        prop::collection::vec((0..2_u8, 0..6_u8, prop::option::of(0..3_u32)), 0..12)
    }

    proptest! {
        /// What a peer is told, change by change, adds up to the union of all owners, first owner first; and nothing
        /// is told that it was told already.
        #[test]
        fn changes_add_up_to_the_sets(
            steps in prop::collection::vec((0..OWNERS.len(), any::<bool>(), edits()), 1..20)
        ) {
            let mut sets = OriginatedSets::default();
            let mut model: BTreeMap<(usize, u8), BTreeMap<Prefix, Arc<OriginAttributes>>> = BTreeMap::new();
            let mut told: [Routes; 2] = Default::default();
            for (owner, whole, edits) in steps {
                if whole {
                    (0..2).for_each(|peer| _ = model.remove(&(owner, peer)));
                }
                for (peer, last, med) in &edits {
                    let routes = model.entry((owner, *peer)).or_default();
                    match med {
                        Some(med) => _ = routes.insert(prefix(*last), attributes(*med)),
                        None if whole => {}
                        None => _ = routes.remove(&prefix(*last)),
                    }
                }
                let changes: BTreeMap<PeerName, Vec<Change>> = if whole {
                    let routes = edits.iter().filter_map(|(to, last, med)| Some(Originated {
                        peer: peer(*to), prefix: prefix(*last), attributes: attributes((*med)?),
                    }));
                    let replaced = sets.replace(OWNERS[owner].to_owned(), routes.collect());
                    (0..2).map(|to| (peer(to), sets.changes(&replaced, &peer(to)).collect())).collect()
                } else {
                    let changes = edits.iter().map(|(to, last, med)| RouteChange {
                        peer: peer(*to), prefix: prefix(*last), attributes: med.map(attributes),
                    });
                    sets.update(OWNERS[owner], changes.collect())
                };
                for (number, told) in (0..2).zip(&mut told) {
                    for (prefix, attributes) in changes.get(&peer(number)).into_iter().flatten() {
                        let old = match attributes {
                            Some(attributes) => told.insert(*prefix, Arc::clone(attributes)),
                            None => told.remove(prefix),
                        };
                        prop_assert_ne!(&old, attributes, "told twice");
                    }
                    let mut union = Routes::new();
                    for owner in 0..OWNERS.len() {
                        for (prefix, attributes) in model.get(&(owner, number)).into_iter().flatten() {
                            union.entry(*prefix).or_insert_with(|| Arc::clone(attributes));
                        }
                    }
                    prop_assert_eq!(&*told, &union);
                    let late: Routes = sets.routes_to(&peer(number))
                        .map(|(prefix, attributes)| (prefix, attributes.unwrap())).collect();
                    prop_assert_eq!(&late, &union, "a peer that comes later");
                }
            }
        }
    }
}
