//! The kernel's rules about tables, as strict as they are: every difference must be one that it makes.
use std::collections::{BTreeMap, BTreeSet};

use plainroute_bgp::Prefix;
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

use super::*;
use crate::nat::{
    Fate, NatClass, NatDesired, NatSource,
    compile::compile,
    ruleset::{Content, Expression},
};

fn fate() -> impl Strategy<Value = Fate> {
    select(vec![Fate::Here, Fate::Drop, Fate::Leave, Fate::Away { slot: 1 }, Fate::Away { slot: 253 }])
}

fn prefix() -> impl Strategy<Value = Prefix> {
    select(
        ["10.20.0.1/32", "10.20.0.2/32", "10.20.0.0/24", "10.20.0.0/25", "0.0.0.0/0", "255.255.255.0/24"]
            .into_iter()
            .chain(["fd00::1/128", "fd00::/64", "ff00::/8", "::/0"])
            .map(|text| text.parse().unwrap())
            .collect::<Vec<Prefix>>(),
    )
}

pub(in crate::nat) fn source() -> impl Strategy<Value = (Prefix, NatSource)> {
    (prefix(), select(vec!["erp", "crm"]), 1..4u8, fate(), fate()).prop_map(
        |(prefix, egress, number, local, transit)| {
            let address = match prefix {
                Prefix::V4(_) => [198, 51, 100, number].into(),
                Prefix::V6(_) => std::net::Ipv6Addr::from_bits(number.into()).into(),
            };
            (prefix, NatSource { egress: egress.into(), address, local, transit })
        },
    )
}

pub(in crate::nat) fn desired() -> impl Strategy<Value = NatDesired> {
    let class = (btree_set(prefix(), 0..3), btree_set(prefix(), 0..3), vec(source(), 0..6)).prop_map(
        |(to, except, sources)| NatClass {
            to,
            except,
            sources: sources.into_iter().collect::<BTreeMap<_, _>>(),
        },
    );
    let mask = select(vec![0xffu32, 0xff00]);
    let addresses = btree_map(1..4u8, any::<bool>(), 0..3);
    (vec(class, 0..3), btree_set(prefix(), 0..3), btree_set(prefix(), 0..3), mask, addresses).prop_map(
        |(classes, inside, pods, mark_mask, addresses)| NatDesired {
            generation: 1,
            inside,
            uplinks: BTreeSet::from(["eth0".to_owned()]),
            classes,
            addresses: addresses.into_keys().map(|number| [198, 51, 100, number].into()).collect(),
            pods,
            mark_mask,
        },
    )
}

/// Makes one change as the kernel does, or says why the kernel would not.
fn make(table: &mut Option<Ruleset>, change: &Change) -> Result<(), String> {
    let fail = |why: &str| Err(format!("{change}: {why}"));
    if let Change::AddTable = change {
        *table = Some(Ruleset::default());
        return Ok(());
    }
    let Some(table) = table else { return fail("there is no table") };
    let rules = |table: &Ruleset| -> Vec<Expression> {
        let rules = table.chains.values().flat_map(|chain| chain.rules.iter().flat_map(|rules| rules.iter()));
        rules.flat_map(|rule| rule.expressions.clone()).collect()
    };
    let uses_set = |table: &Ruleset, wanted: &Arc<str>| {
        rules(table).iter().any(|step| match step {
            Expression::In { set, .. } => set == wanted,
            Expression::Map(set) | Expression::GotoMap(set) | Expression::CountMap(set) => set == wanted,
            _ => false,
        })
    };
    let elements = |table: &Ruleset| -> Vec<Element> {
        table.sets.values().flat_map(|set| set.elements.iter().cloned()).collect()
    };
    let key = |element: &Element| (element.key, element.edge);
    match change {
        Change::AddTable | Change::RemoveTable => return fail("not in the middle"),
        Change::AddCounter(name) => {
            if table.counters.insert(Arc::clone(name), ()).is_some() {
                return fail("it is there");
            }
        }
        Change::RemoveCounter(name) => {
            let counted =
                rules(table).iter().any(|step| matches!(step, Expression::Count(counter) if counter == name));
            let mapped =
                elements(table).iter().any(|element| element.content == Content::Counter(Arc::clone(name)));
            if counted || mapped || table.counters.remove(name).is_none() {
                return fail("it is in use, or not there");
            }
        }
        Change::AddSet(name, shape) => {
            let set = Set { shape: *shape, elements: Arc::default() };
            if table.sets.insert(Arc::clone(name), set).is_some() {
                return fail("it is there");
            }
        }
        Change::RemoveSet(name) => {
            if uses_set(table, name) || table.sets.remove(name).is_none() {
                return fail("it is in use, or not there");
            }
        }
        Change::AddElements(name, _, added) => {
            for element in added {
                let known = match &element.content {
                    Content::Goto(chain) => table.chains.contains_key(chain),
                    Content::Counter(counter) => table.counters.contains_key(counter),
                    Content::None | Content::V4(_) | Content::V6(_) => true,
                };
                let Some(set) = table.sets.get_mut(name).filter(|_| known) else {
                    return fail("no such set, chain or counter");
                };
                if set.elements.iter().any(|other| key(other) == key(element)) {
                    return fail("the key is there");
                }
                *set = Set::sorted(set.shape, set.elements.iter().chain([element]).cloned());
            }
        }
        Change::RemoveElements(name, _, removed) => {
            let Some(set) = table.sets.get_mut(name) else { return fail("no such set") };
            for element in removed {
                let before = set.elements.len();
                let left = set.elements.iter().filter(|other| key(other) != key(element));
                *set = Set::sorted(set.shape, left.cloned().collect::<Vec<_>>());
                if set.elements.len() + 1 != before {
                    return fail("the key is not there");
                }
            }
        }
        Change::AddChain(name, base) => {
            let chain = Chain { base: *base, rules: Some(Arc::default()) };
            if table.chains.insert(Arc::clone(name), chain).is_some() {
                return fail("it is there");
            }
        }
        Change::FlushChain(name) => match table.chains.get_mut(name) {
            Some(chain) => chain.rules = Some(Arc::default()),
            None => return fail("no such chain"),
        },
        Change::RemoveChain(name) => {
            let led =
                elements(table).iter().any(|element| element.content == Content::Goto(Arc::clone(name)));
            let chain = table.chains.remove(name);
            if led || chain.is_none_or(|chain| chain.rules.is_some_and(|rules| !rules.is_empty())) {
                return fail("it is in use, or not there");
            }
        }
        Change::AddRule(name, rule) => {
            let Some(chain) = table.chains.get_mut(name) else { return fail("no such chain") };
            let rules = chain.rules.iter().flat_map(|rules| rules.iter()).chain([rule]).cloned();
            chain.rules = Some(rules.collect());
            for step in &rule.expressions {
                let known = match step {
                    Expression::In { set, .. } | Expression::Map(set) => table.sets.contains_key(set),
                    Expression::GotoMap(set) | Expression::CountMap(set) => table.sets.contains_key(set),
                    Expression::Count(counter) => table.counters.contains_key(counter),
                    _ => true,
                };
                if !known {
                    return fail("it names what is not there");
                }
            }
        }
    }
    Ok(())
}

fn without_rules(table: &Ruleset) -> Ruleset {
    let mut table = table.clone();
    table.chains.values_mut().for_each(|chain| chain.rules = None);
    table
}

proptest! {
    #[test]
    fn the_kernel_makes_every_difference_and_it_leads_to_what_is_wanted(
        before in option::of(desired()), now in desired(), reread in any::<bool>(), hurry in any::<bool>(), last in desired(),
    ) {
        let before = before.map(|before| compile(&before).unwrap());
        let now = compile(&now).unwrap();
        let mut kernel = before.clone();
        let known = if reread { before.as_ref().map(without_rules) } else { before.clone() };
        let change = difference(known.as_ref(), &now);
        for change in &change.first {
            make(&mut kernel, change).map_err(TestCaseError::fail)?;
        }
        let known = after_first(known.as_ref(), &now);
        prop_assert_eq!(without_rules(kernel.as_ref().unwrap()), without_rules(&known));
        for (name, chain) in &now.chains {
            prop_assert_eq!(&kernel.as_ref().unwrap().chains[name], chain);
        }
        if hurry {
            // Something else is desired before the rest was taken away.
            let last = compile(&last).unwrap();
            let change = difference(Some(&known), &last);
            for change in change.first.iter().chain(&change.afterwards) {
                make(&mut kernel, change).map_err(TestCaseError::fail)?;
            }
            prop_assert_eq!(kernel.as_ref(), Some(&last));
            return Ok(());
        }
        for change in &change.afterwards {
            make(&mut kernel, change).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(kernel.as_ref(), Some(&now));
        prop_assert_eq!(difference(kernel.as_ref(), &now), Difference::default());
    }

    /// Whatever somebody has made under our names: what is wanted comes of it.
    #[test]
    fn other_shapes_under_our_names_give_way(now in desired(), places in vec(any::<proptest::sample::Index>(), 0..4)) {
        let now = compile(&now).unwrap();
        let mut kernel = Some(now.clone());
        if let Some(table) = &mut kernel {
            for place in &places {
                let name = place.get(&now.sets.keys().cloned().collect::<Vec<_>>()).clone();
                table.sets.insert(name, Set { shape: Shape::FOREIGN, elements: Arc::default() });
                let name = place.get(&now.chains.keys().cloned().collect::<Vec<_>>()).clone();
                let base = now.chains[&name].base.is_none().then_some(Base {
                    nat: false, hook: crate::nat::ruleset::Hook::Other(1), priority: 0,
                });
                let rules = now.chains[&name].rules.clone();
                table.chains.insert(name, Chain { base, rules });
            }
        }
        let change = difference(kernel.clone().as_ref().map(without_rules).as_ref(), &now);
        for change in change.first.iter().chain(&change.afterwards) {
            make(&mut kernel, change).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(kernel.as_ref(), Some(&now));
    }
}
