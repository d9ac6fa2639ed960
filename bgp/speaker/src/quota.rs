//! How much of what is originated a peer is told: where its configuration sets a limit, the lowest prefixes up to it.
//!
//! Without a limit nothing is kept in here, and a prefix costs nothing.
use std::{collections::BTreeMap, sync::Arc};

use plainroute_bgp::{AfiSafi, Prefix};

use crate::{OriginAttributes, originated::Change};

type Routes = BTreeMap<Prefix, Arc<OriginAttributes>>;

#[derive(Debug, Default)]
pub(crate) struct Quota {
    limit: Option<usize>,
    /// What is told; empty without a limit.
    within: Routes,
    beyond: Routes,
}

impl Quota {
    /// A limit of so many prefixes over all families; `told` gives all that is told now. What has to change of that
    /// goes to `tell`.
    pub(crate) fn set_limit(
        &mut self,
        limit: Option<u32>,
        told: impl FnOnce() -> Routes,
        mut tell: impl FnMut(Change),
    ) {
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        if limit == self.limit {
            return;
        }
        if self.limit.is_none() {
            self.within = told();
        }
        self.limit = limit;
        self.level(&mut tell);
        if limit.is_none() {
            self.within.clear();
        }
    }

    /// What is to be told of a change: itself, and what makes or gets room.
    pub(crate) fn admit(&mut self, (prefix, attributes): Change, mut tell: impl FnMut(Change)) {
        if self.limit.is_none() {
            return tell((prefix, attributes));
        }
        let told = self.within.remove(&prefix).is_some();
        self.beyond.remove(&prefix);
        match attributes {
            Some(attributes) if told => {
                self.within.insert(prefix, Arc::clone(&attributes));
                tell((prefix, Some(attributes)));
            }
            Some(attributes) => _ = self.beyond.insert(prefix, attributes),
            None if told => tell((prefix, None)),
            None => {}
        }
        self.level(&mut tell);
    }

    /// How many prefixes of the family are not told.
    pub(crate) fn beyond(&self, family: AfiSafi) -> usize {
        self.beyond.keys().filter(|prefix| prefix.family() == family).count()
    }

    /// The lowest go in while there is room or a higher one is in; the highest go out while there are too many.
    fn level(&mut self, tell: &mut impl FnMut(Change)) {
        let limit = self.limit.unwrap_or(usize::MAX);
        loop {
            let highest = self.within.last_key_value().map(|(prefix, _)| *prefix);
            let lowest = self.beyond.first_key_value().map(|(prefix, _)| *prefix);
            let crowded = self.within.len() > limit || (self.within.len() == limit && lowest < highest);
            if crowded && (lowest.is_some() || self.within.len() > limit) {
                let Some((prefix, attributes)) = self.within.pop_last() else { return };
                self.beyond.insert(prefix, attributes);
                tell((prefix, None));
            } else if self.within.len() < limit {
                let Some((prefix, attributes)) = self.beyond.pop_first() else { return };
                self.within.insert(prefix, Arc::clone(&attributes));
                tell((prefix, Some(attributes)));
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, u32),
        Remove(u8),
        Limit(Option<u32>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..10_u8, 0..3_u32).prop_map(|(prefix, med)| Step::Set(prefix, med)),
            3 => (0..10_u8).prop_map(Step::Remove),
            1 => prop::option::of(0..6_u32).prop_map(Step::Limit),
        ]
    }

    proptest! {
        #[test]
        fn the_lowest_up_to_the_limit_are_told(steps in prop::collection::vec(step(), 1..60)) {
            let (mut quota, mut told, mut all) = (Quota::default(), Routes::new(), Routes::new());
            let mut limit = None;
            for step in steps {
                let mut changes = Vec::new();
                match step {
                    Step::Set(last, med) => {
                        let prefix = Prefix::host([10, 0, 0, last].into());
                        let attributes =
                            Arc::new(OriginAttributes { med: Some(med), ..OriginAttributes::default() });
                        all.insert(prefix, Arc::clone(&attributes));
                        quota.admit((prefix, Some(attributes)), |change| changes.push(change));
                    }
                    Step::Remove(last) => {
                        let prefix = Prefix::host([10, 0, 0, last].into());
                        all.remove(&prefix);
                        quota.admit((prefix, None), |change| changes.push(change));
                    }
                    Step::Limit(new) => {
                        limit = new;
                        quota.set_limit(new, || told.clone(), |change| changes.push(change));
                    }
                }
                for (prefix, attributes) in changes {
                    match attributes {
                        Some(attributes) => _ = told.insert(prefix, attributes),
                        None => _ = told.remove(&prefix),
                    }
                }
                let most = limit.map_or(usize::MAX, |limit| limit as usize);
                let expected: Routes = all.clone().into_iter().take(most).collect();
                prop_assert_eq!(&told, &expected);
                prop_assert_eq!(quota.beyond(AfiSafi::Ipv4Unicast), all.len() - expected.len());
            }
        }
    }
}
