//! One more Pod among many: what changes in the table, without making all of it up again. Pure.
use std::sync::Arc;

use super::{
    NatClass, NatDesired,
    compile::{OUTS, compile},
    diff::Change,
    ruleset::{Kind, Ruleset},
};

/// What `wanted` has more than `made`, alone; `None` when it is not just more Pods.
pub(super) fn more_hosts(made: &NatDesired, wanted: &NatDesired) -> Option<NatDesired> {
    let same =
        wanted.uplinks == made.uplinks && wanted.pods == made.pods && wanted.mark_mask == made.mark_mask;
    if !same || !wanted.adds_to(made) {
        return None;
    }
    let more = |(now, before): (&NatClass, &NatClass)| {
        let mut known = before.sources.keys().peekable();
        let new = now.sources.iter().filter(|(prefix, _)| known.next_if_eq(prefix).is_none());
        let sources = new.map(|(prefix, source)| (*prefix, source.clone())).collect();
        NatClass { to: now.to.clone(), except: now.except.clone(), sources }
    };
    let classes: Vec<NatClass> = wanted.classes.iter().zip(&made.classes).map(more).collect();
    let hosts = classes.iter().flat_map(|class| class.sources.keys()).all(|prefix| prefix.is_host());
    hosts.then(|| NatDesired {
        generation: wanted.generation,
        uplinks: wanted.uplinks.clone(),
        mark_mask: wanted.mark_mask,
        classes,
        ..NatDesired::default()
    })
}

/// The elements to add to the table for these hosts, which are taken into `table`; `None` when they need more than elements.
/// Names tell contents, so that what is wanted for them alone has the names that the whole has.
pub(super) fn elements(table: &mut Ruleset, more: &NatDesired) -> Option<Vec<Change>> {
    let alone = compile(more).ok()?;
    let led_to =
        |(name, _): &(&Arc<str>, _)| alone.chains.get(*name).is_some_and(|chain| chain.base.is_none());
    let known = |(name, chain)| table.chains.get(name) == Some(chain);
    if !alone.chains.iter().filter(led_to).all(known) {
        return None;
    }
    let mut changes = Vec::new();
    for (name, set) in alone.sets.iter().filter(|(_, set)| !set.elements.is_empty()) {
        let known = || table.sets.get(name).filter(|known| known.shape == set.shape);
        match set.shape.content {
            Some(Kind::Counter) if name.starts_with(OUTS) => {
                let known = known()?;
                if !set.elements.iter().all(|element| known.elements.binary_search(element).is_ok()) {
                    return None;
                }
            }
            Some(_) => {
                known()?;
                changes.push(Change::AddElements(Arc::clone(name), set.shape, set.elements.to_vec()));
            }
            None => {}
        }
    }
    for change in &changes {
        if let Change::AddElements(name, _, elements) = change
            && let Some(set) = table.sets.get_mut(name)
        {
            let known = Arc::make_mut(&mut set.elements);
            for element in elements {
                let place = known.partition_point(|other| other < element);
                known.insert(place, element.clone());
            }
        }
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::diff::{
            difference,
            tests::{desired, source},
        },
        *,
    };

    proptest! {
        /// As if all of it had been made up again.
        #[test]
        fn more_hosts_are_the_same_as_a_new_table(
            made in desired(), new in vec((any::<prop::sample::Index>(), source()), 0..3),
        ) {
            let mut wanted = made.clone();
            for (class, (prefix, source)) in new {
                if !wanted.classes.is_empty() {
                    let class = class.index(wanted.classes.len());
                    wanted.classes[class].sources.insert(prefix, source);
                }
            }
            let (before, now) = (compile(&made).unwrap(), compile(&wanted).unwrap());
            if let Some(more) = more_hosts(&made, &wanted) {
                let mut table = before.clone();
                if let Some(changes) = elements(&mut table, &more) {
                    prop_assert_eq!(&table, &now);
                    prop_assert_eq!(changes, difference(Some(&before), &now).first);
                }
            } else {
                prop_assert!(made != wanted);
            }
        }
    }

    #[test]
    fn a_host_like_another_one_needs_elements_only() {
        use super::super::{Fate, NatSource};
        let source = |egress: &str| NatSource {
            egress: egress.into(),
            address: "198.51.100.7".parse().unwrap(),
            local: Fate::Here,
            transit: Fate::Here,
        };
        let with = |more: &[(&str, &str)]| {
            let hosts = [("10.20.0.5/32", "erp")].iter().chain(more);
            let sources = hosts.map(|(host, egress)| (host.parse().unwrap(), source(egress))).collect();
            let to = ["0.0.0.0/0".parse().unwrap()].into();
            let classes = vec![NatClass { to, sources, ..NatClass::default() }];
            NatDesired { mark_mask: 0xff, classes, ..NatDesired::default() }
        };
        let made = with(&[]);
        let mut table = compile(&made).unwrap();
        let more = more_hosts(&made, &with(&[("10.20.0.4/32", "erp")])).unwrap();
        assert_eq!(elements(&mut table, &more).map(|changes| changes.len()), Some(2));
        // Another Egress has chains and counters of its own, and a prefix is no host.
        let more = more_hosts(&made, &with(&[("10.20.0.6/32", "crm")])).unwrap();
        assert_eq!(elements(&mut table, &more), None);
        assert_eq!(more_hosts(&made, &with(&[("10.20.1.0/24", "erp")])), None);
    }
}
