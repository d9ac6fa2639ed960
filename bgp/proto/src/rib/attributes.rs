//! Attribute sets as the RIBs share them, with their hash computed once.
use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::{Arc, OnceLock},
};

use ahash::RandomState;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn med(med: u32) -> PathAttributes {
        PathAttributes { med: Some(med), ..PathAttributes::default() }
    }

    #[test]
    fn sets_compare_by_what_they_hold() {
        assert_eq!(AttributeSet::from(med(7)), AttributeSet::from(med(7)));
        assert_ne!(AttributeSet::from(med(7)), AttributeSet::from(med(8)));
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
