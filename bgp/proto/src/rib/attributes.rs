//! Interned attribute sets: equal sets are one allocation, with their hash computed once.
//!
//! A node announces thousands of prefixes with a handful of attribute sets; a peer may send a full table with a
//! hundred thousand. Sets are referenced by count and the table holds them weakly, so that a set that no route
//! uses goes away, and the table itself never holds more than twice as many places as there are live sets.
use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::{Arc, OnceLock, Weak},
};

use ahash::RandomState;
use hashbrown::HashTable;

use crate::wire::{NextHop, PathAttributes};

/// One key for the process, so that sets hashed in different tables compare; random, so that a peer cannot
/// choose attributes that collide.
pub(super) fn hash_key() -> &'static RandomState {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    KEY.get_or_init(RandomState::new)
}

/// A canonical attribute set, shared, with its hash beside it.
///
/// ```
/// # use plainroute_bgp::{rib::AttributeSet, wire::PathAttributes};
/// let set = AttributeSet::from(PathAttributes { med: Some(5), ..PathAttributes::default() });
/// assert_eq!(set.med, Some(5));
/// ```
#[derive(Clone)]
pub struct AttributeSet {
    hash: u64,
    set: Arc<PathAttributes>,
}

impl AttributeSet {
    /// The set itself, shared.
    pub fn shared(&self) -> &Arc<PathAttributes> {
        &self.set
    }
}

impl From<Arc<PathAttributes>> for AttributeSet {
    fn from(set: Arc<PathAttributes>) -> AttributeSet {
        AttributeSet { hash: hash_key().hash_one(&*set), set }
    }
}

impl From<PathAttributes> for AttributeSet {
    fn from(set: PathAttributes) -> AttributeSet {
        AttributeSet::from(Arc::new(set))
    }
}

impl Deref for AttributeSet {
    type Target = PathAttributes;
    fn deref(&self) -> &PathAttributes {
        &self.set
    }
}

impl PartialEq for AttributeSet {
    fn eq(&self, other: &AttributeSet) -> bool {
        Arc::ptr_eq(&self.set, &other.set) || (self.hash == other.hash && self.set == other.set)
    }
}

impl Eq for AttributeSet {}

impl Hash for AttributeSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for AttributeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.set.fmt(f)
    }
}

/// What is said of a prefix: its attributes and where it points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The attributes.
    pub attributes: AttributeSet,
    /// The next hop.
    pub next_hop: NextHop,
}

impl Route {
    /// A route of these attributes through `next_hop`.
    pub fn new(attributes: impl Into<AttributeSet>, next_hop: NextHop) -> Route {
        Route { attributes: attributes.into(), next_hop }
    }
}

/// The table that makes equal sets one allocation.
#[derive(Default)]
pub struct AttributeSets {
    sets: HashTable<(u64, Weak<PathAttributes>)>,
    sweep_at: usize,
}

impl AttributeSets {
    /// Below this many places a sweep is not worth its while.
    const SMALL: usize = 64;

    /// The shared set that equals `set`; `set` itself where it is the first of its kind.
    pub fn intern(&mut self, set: impl Into<AttributeSet>) -> AttributeSet {
        let set = set.into();
        let found = self.sets.find(set.hash, |(hash, held)| {
            *hash == set.hash && held.upgrade().is_some_and(|held| held == set.set)
        });
        if let Some(held) = found.and_then(|(_, held)| held.upgrade()) {
            return AttributeSet { hash: set.hash, set: held };
        }
        if self.sets.len() >= self.sweep_at.max(Self::SMALL) {
            self.sets.retain(|(_, held)| held.strong_count() > 0);
            self.sweep_at = self.sets.len().saturating_mul(2);
        }
        self.sets.insert_unique(set.hash, (set.hash, Arc::downgrade(&set.set)), |(hash, _)| *hash);
        set
    }

    /// How many different sets are in use.
    pub fn live(&self) -> usize {
        self.sets.iter().filter(|(_, held)| held.strong_count() > 0).count()
    }
}

impl fmt::Debug for AttributeSets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttributeSets").field("places", &self.sets.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn med(med: u32) -> PathAttributes {
        PathAttributes { med: Some(med), ..PathAttributes::default() }
    }

    #[test]
    fn equal_sets_become_one_allocation() {
        let mut sets = AttributeSets::default();
        let (a, b, c) = (sets.intern(med(1)), sets.intern(med(1)), sets.intern(med(2)));
        assert!(Arc::ptr_eq(a.shared(), b.shared()));
        assert_ne!(a, c);
        assert_eq!(sets.live(), 2);
    }

    #[test]
    fn sets_of_different_tables_still_compare() {
        let (mut one, mut two) = (AttributeSets::default(), AttributeSets::default());
        assert_eq!(one.intern(med(7)), two.intern(med(7)));
        assert_eq!(one.intern(med(7)), AttributeSet::from(med(7)));
    }

    #[test]
    fn unused_sets_go_away_and_leave_no_places_behind() {
        let mut sets = AttributeSets::default();
        let kept = sets.intern(med(0));
        for number in 1..10_000 {
            sets.intern(med(number));
        }
        assert_eq!(sets.live(), 1);
        assert!(sets.sets.len() <= AttributeSets::SMALL, "{sets:?}");
        assert!(Arc::ptr_eq(sets.intern(med(0)).shared(), kept.shared()));
    }

    #[test]
    fn a_route_differs_by_its_next_hop() {
        let set = AttributeSet::from(med(1));
        let (a, b) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let (a, b) = (Route::new(set.clone(), NextHop::V4(a)), Route::new(set, NextHop::V4(b)));
        assert_ne!(a, b);
        assert_ne!(hash_key().hash_one(a), hash_key().hash_one(b));
    }
}
