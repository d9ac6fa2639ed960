//! From the table as it is to the table as it should be: pure.
//!
//! In two transactions. The first makes, and switches the rules over; the second takes away what no rule uses any more. A
//! packet that is in the middle of the old rules while they are switched still finds every map and chain that they
//! mention.
use std::{borrow::Cow, cmp::Ordering, fmt, sync::Arc};

use super::ruleset::{Base, Chain, Element, Kind, Rule, Ruleset, Set, Shape};

/// One message, or several of one kind, within a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    AddTable,
    RemoveTable,
    AddCounter(Arc<str>),
    RemoveCounter(Arc<str>),
    AddSet(Arc<str>, Shape),
    RemoveSet(Arc<str>),
    AddElements(Arc<str>, Shape, Vec<Element>),
    RemoveElements(Arc<str>, Shape, Vec<Element>),
    AddChain(Arc<str>, Option<Base>),
    /// Removes all its rules.
    FlushChain(Arc<str>),
    RemoveChain(Arc<str>),
    AddRule(Arc<str>, Rule),
}

/// What leads from one table to the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) first: Vec<Change>,
    pub(super) afterwards: Vec<Change>,
}

/// `before` is `None` where there is no table.
pub(super) fn difference(before: Option<&Ruleset>, now: &Ruleset) -> Difference {
    let mut first = Vec::new();
    if before.is_none() {
        first.push(Change::AddTable);
    }
    let before = reshaped(&mut first, before, now);
    let missing = now.counters.keys().filter(|name| !before.counters.contains_key(*name));
    first.extend(missing.map(|name| Change::AddCounter(Arc::clone(name))));
    // Rules name sets, and elements name chains: so all of these come before either.
    for (name, set) in now.sets.iter().filter(|(name, _)| !before.sets.contains_key(*name)) {
        first.push(Change::AddSet(Arc::clone(name), set.shape));
    }
    for (name, chain) in now.chains.iter().filter(|(name, _)| !before.chains.contains_key(*name)) {
        first.push(Change::AddChain(Arc::clone(name), chain.base));
    }
    for (name, chain) in &now.chains {
        rewrite(&mut first, name, before.chains.get(name), chain);
    }
    for (name, set) in &now.sets {
        let known = before.sets.get(name).map_or(&[][..], |known| &known.elements[..]);
        elements(&mut first, name, set, known);
    }
    Difference { first, afterwards: leavings(&before, now) }
}

/// The table without what has a name of ours and another form, which was made by somebody else or by another version: for
/// that to go, all rules go first.
fn reshaped<'a>(changes: &mut Vec<Change>, before: Option<&'a Ruleset>, now: &Ruleset) -> Cow<'a, Ruleset> {
    let Some(before) = before else { return Cow::Owned(Ruleset::default()) };
    let set = |(name, set): &(&Arc<str>, &Set)| now.sets.get(*name).is_some_and(|now| now.shape != set.shape);
    let chain =
        |(name, chain): &(&Arc<str>, &Chain)| now.chains.get(*name).is_some_and(|now| now.base != chain.base);
    let sets: Vec<&Arc<str>> = before.sets.iter().filter(set).map(|(name, _)| name).collect();
    let chains: Vec<&Arc<str>> = before.chains.iter().filter(chain).map(|(name, _)| name).collect();
    if sets.is_empty() && chains.is_empty() {
        return Cow::Borrowed(before);
    }
    let mut left = before.clone();
    for (name, chain) in &mut left.chains {
        changes.push(Change::FlushChain(Arc::clone(name)));
        chain.rules = Some(Arc::default());
    }
    for (name, set) in left.sets.iter_mut().filter(|(_, set)| set.shape.content == Some(Kind::Verdict)) {
        if !set.elements.is_empty() {
            changes.push(Change::RemoveElements(Arc::clone(name), set.shape, set.elements.to_vec()));
            set.elements = Arc::default();
        }
    }
    for name in sets {
        changes.push(Change::RemoveSet(Arc::clone(name)));
        left.sets.remove(name);
    }
    for name in chains {
        changes.push(Change::RemoveChain(Arc::clone(name)));
        left.chains.remove(name);
    }
    Cow::Owned(left)
}

fn rewrite(changes: &mut Vec<Change>, name: &Arc<str>, known: Option<&Chain>, chain: &Chain) {
    let rules = chain.rules.as_deref().unwrap_or_default();
    match known.map(|known| known.rules.as_deref()) {
        Some(Some(known)) if known == rules => return,
        Some(_) => changes.push(Change::FlushChain(Arc::clone(name))),
        None => {}
    }
    changes.extend(rules.iter().map(|rule| Change::AddRule(Arc::clone(name), rule.clone())));
}

/// Both lists are in order.
fn elements(changes: &mut Vec<Change>, name: &Arc<str>, set: &Set, known: &[Element]) {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (known.iter().peekable(), set.elements.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => (old.key, old.edge).cmp(&(new.key, new.edge)),
        };
        match order {
            Ordering::Less => removed.extend(old.next().cloned()),
            Ordering::Greater => added.extend(new.next().cloned()),
            Ordering::Equal => {
                if let (Some(old), Some(new)) = (old.next(), new.next())
                    && old.content != new.content
                {
                    removed.push(old.clone());
                    added.push(new.clone());
                }
            }
        }
    }
    removed.sort_unstable();
    if !removed.is_empty() {
        changes.push(Change::RemoveElements(Arc::clone(name), set.shape, removed));
    }
    if !added.is_empty() {
        changes.push(Change::AddElements(Arc::clone(name), set.shape, added));
    }
}

/// What no rule uses any more.
fn leavings(before: &Ruleset, now: &Ruleset) -> Vec<Change> {
    let mut changes = Vec::new();
    let chains = || before.chains.keys().filter(|name| !now.chains.contains_key(*name));
    let sets = before.sets.keys().filter(|name| !now.sets.contains_key(*name));
    let counters = before.counters.keys().filter(|name| !now.counters.contains_key(*name));
    changes.extend(chains().map(|name| Change::FlushChain(Arc::clone(name))));
    changes.extend(sets.map(|name| Change::RemoveSet(Arc::clone(name))));
    changes.extend(chains().map(|name| Change::RemoveChain(Arc::clone(name))));
    changes.extend(counters.map(|name| Change::RemoveCounter(Arc::clone(name))));
    changes
}

/// The table after the first transaction: what is wanted, and what is still to be taken away.
pub(super) fn after_first(before: Option<&Ruleset>, now: &Ruleset) -> Ruleset {
    let mut table = now.clone();
    let Some(before) = before else { return table };
    for name in before.counters.keys() {
        table.counters.entry(Arc::clone(name)).or_default();
    }
    for (name, chain) in &before.chains {
        table.chains.entry(Arc::clone(name)).or_insert_with(|| chain.clone());
    }
    for (name, set) in &before.sets {
        table.sets.entry(Arc::clone(name)).or_insert_with(|| set.clone());
    }
    table
}

impl Set {
    /// Elements in the order that [`difference`] relies on.
    pub(super) fn sorted(shape: Shape, elements: impl IntoIterator<Item = Element>) -> Set {
        let elements = elements.into_iter();
        let mut sorted = Vec::with_capacity(elements.size_hint().1.unwrap_or(0));
        sorted.extend(elements);
        sorted.sort_unstable();
        Set { shape, elements: Arc::new(sorted) }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddTable => f.write_str("the table"),
            Change::RemoveTable => f.write_str("the removal of the table"),
            Change::AddCounter(name) => write!(f, "counter {name}"),
            Change::RemoveCounter(name) => write!(f, "the removal of counter {name}"),
            Change::AddSet(name, _) => write!(f, "set {name}"),
            Change::RemoveSet(name) => write!(f, "the removal of set {name}"),
            Change::AddElements(name, _, elements) => write!(f, "{} elements of {name}", elements.len()),
            Change::RemoveElements(name, _, elements) => {
                write!(f, "the removal of {} elements of {name}", elements.len())
            }
            Change::AddChain(name, _) => write!(f, "chain {name}"),
            Change::FlushChain(name) => write!(f, "the removal of the rules of chain {name}"),
            Change::RemoveChain(name) => write!(f, "the removal of chain {name}"),
            Change::AddRule(chain, rule) => write!(f, "a rule of chain {chain} ({:?})", rule.expressions),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
