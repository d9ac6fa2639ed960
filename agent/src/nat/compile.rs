//! From what is desired to the table that does it: pure, and the same names for the same meaning, so that a restarted
//! agent finds its own table again and a change touches no more than it is about.
//!
//! Sets of intervals, and the chains that maps lead to, are named by what they hold and never change under a name. Maps of
//! hosts keep their name and change by element.
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ahash::{AHashMap, AHashSet};
use plainroute_bgp::Prefix;

use self::rules::{INSIDE, Names, PODS};
use super::{
    Fate, NatClass, NatDesired, NatSource,
    intervals::{Intervals, bits, family},
    ruleset::{Content, Edge, Element, Family, Key, Kind, Ruleset, Set, Shape},
};

pub(super) use rules::{ADDRESSES, OUTS, STRAY, UNSOLICITED, dropped, out};

/// Destinations that have no route beyond this link, or beyond this node, or are many.
const NEVER: [&str; 7] = [
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "::/127",
    "fe80::/10",
    "ff00::/8",
    // IPv4-mapped addresses never stand in a packet.
    "::ffff:0:0/96",
];
/// What an interface's name may have, without the byte that ends it.
const INTERFACE_LENGTH: usize = 15;

/// The whole table, or why there is no such table.
pub(super) fn compile(desired: &NatDesired) -> Result<Ruleset, String> {
    check(desired)?;
    let treatments = Treatments::new(desired);
    let mut table = Ruleset::default();
    table.counters.extend([STRAY, UNSOLICITED].map(|name| (name.into(), ())));
    for (treatment, _) in treatments.iter() {
        table.counters.insert(out(treatment.egress), ());
        table.counters.insert(dropped(treatment.egress), ());
    }
    let mut names = Names::default();
    for family in Family::BOTH {
        let of = |address: &&IpAddr| self::family(**address) == family;
        let addresses =
            desired.addresses.iter().filter(of).map(|address| member(key(family, bits(*address))));
        table.sets.insert(named(ADDRESSES, family), hash(family.kind(), None, addresses.collect()));
        let outs = treatments.outs.iter().filter(|(address, _)| of(address));
        let outs = outs.map(|(address, counter)| Element {
            content: Content::Counter(Arc::clone(counter)),
            ..member(key(family, bits(*address)))
        });
        table.sets.insert(named(OUTS, family), hash(family.kind(), Some(Kind::Counter), outs.collect()));
        let inside = desired.inside.iter().copied().chain(never());
        names.inside.extend(add_intervals(&mut table, INSIDE, family, inside).map(|name| (family, name)));
        let pods = desired.pods.iter().copied();
        names.pods.extend(add_intervals(&mut table, PODS, family, pods).map(|name| (family, name)));
    }
    let uplinks = desired.uplinks.iter().map(|name| member(Key::Interface(interface(name))));
    table.sets.insert(rules::UPLINKS.into(), hash(Kind::Interface, None, uplinks.collect()));
    let mut used = BTreeMap::new();
    for class in &desired.classes {
        let nth = used.entry((&class.to, &class.except)).and_modify(|nth| *nth += 1).or_insert(0u32);
        for family in Family::BOTH {
            add_class(&mut table, &mut names, class, *nth, family, &treatments);
        }
    }
    rules::add(&mut table, &names, &treatments, desired.mark_mask);
    Ok(table)
}

fn check(desired: &NatDesired) -> Result<(), String> {
    let mask = desired.mark_mask;
    // All bits set is "here", none is "not ours": a slot needs a number in between.
    let room = mask.checked_shr(mask.trailing_zeros()).unwrap_or(0);
    if room < 0xff || (room & room.wrapping_add(1)) != 0 {
        return Err(format!("mark mask {mask:#x}: it takes at least eight bits, one beside the other"));
    }
    if let Some(name) = desired.uplinks.iter().find(|name| name.is_empty() || name.len() > INTERFACE_LENGTH) {
        return Err(format!("uplink `{name}`: no interface can have this name"));
    }
    for (prefix, source) in desired.classes.iter().flat_map(|class| &class.sources) {
        let (egress, address) = (&source.egress, source.address);
        if family(prefix.address()) != family(address) {
            return Err(format!("egress {egress}: {address} cannot be the source of {prefix}"));
        }
        for fate in [source.local, source.transit] {
            if let Fate::Away { slot } = fate
                && !(1..=253).contains(&slot)
            {
                return Err(format!("egress {egress}: there is no gateway slot {slot}"));
            }
        }
    }
    Ok(())
}

/// What becomes of a source's packets; what they leave as does not matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Treatment<'a> {
    pub(super) egress: &'a str,
    pub(super) local: Fate,
    pub(super) transit: Fate,
}

impl<'a> Treatment<'a> {
    fn of(source: &'a NatSource) -> Treatment<'a> {
        Treatment { egress: &source.egress, local: source.local, transit: source.transit }
    }
}

/// Each distinct treatment, and its chain.
pub(super) struct Treatments<'a> {
    chains: AHashMap<Treatment<'a>, Arc<str>>,
    /// From each egress IP that is translated to here to the counter of what leaves as it. Who shares one with another
    /// Egress is counted by the first.
    outs: BTreeMap<IpAddr, Arc<str>>,
}

impl<'a> Treatments<'a> {
    fn new(desired: &'a NatDesired) -> Treatments<'a> {
        let (mut distinct, mut addresses) = (AHashSet::new(), AHashSet::new());
        for source in desired.classes.iter().flat_map(|class| class.sources.values()) {
            distinct.insert(Treatment::of(source));
            if source.is_here() {
                addresses.insert((source.address, &*source.egress));
            }
        }
        let mut outs = BTreeMap::new();
        for (address, egress) in addresses.into_iter().collect::<BTreeSet<_>>() {
            outs.entry(address).or_insert_with(|| out(egress));
        }
        let mut taken = BTreeSet::new();
        let mut chain = |treatment: Treatment<'a>| {
            let mut number = digest(&treatment);
            while !taken.insert(number) {
                number = number.wrapping_add(1);
            }
            (treatment, format!("egress-{number:08x}").into())
        };
        // In order, so that the same ones get the same numbers.
        let chains = distinct.into_iter().collect::<BTreeSet<_>>().into_iter().map(&mut chain).collect();
        Treatments { chains, outs }
    }

    fn chain(&self, source: &NatSource) -> Content {
        self.chains.get(&Treatment::of(source)).cloned().map_or(Content::None, Content::Goto)
    }

    fn iter(&self) -> impl Iterator<Item = (&Treatment<'a>, &Arc<str>)> {
        self.chains.iter()
    }
}

/// The maps of a class's sources for one family, and the rules' way to them.
fn add_class(
    table: &mut Ruleset,
    names: &mut Names,
    class: &NatClass,
    nth: u32,
    family: Family,
    treatments: &Treatments<'_>,
) {
    let of = |prefix: &&Prefix| self::family(prefix.address()) == family;
    if !class.to.iter().any(|prefix| of(&prefix)) {
        return;
    }
    let sources = || class.sources.iter().filter(|(prefix, _)| of(prefix));
    let (hosts, wide): (Vec<_>, Vec<_>) = sources().partition(|(prefix, _)| prefix.is_host());
    let mut set = |base: &str, prefixes: &BTreeSet<Prefix>| {
        add_intervals(table, base, family, prefixes.iter().copied())
    };
    let everywhere = class.to.iter().any(|prefix| of(&prefix) && prefix.is_default());
    let to = if everywhere { None } else { set("to", &class.to) };
    let except = set("except", &class.except);
    let id = format!("{:08x}-{nth}", digest(&(&class.to, &class.except)));
    let chain = |source: &NatSource| treatments.chain(source);
    // Only what is to leave here is translated.
    let address = |source: &NatSource| match source.is_here() {
        true => address(source.address),
        false => Content::None,
    };
    let mut add = |base: &str, kind: Kind, content: &dyn Fn(&NatSource) -> Content| {
        let maps = [
            host_map(&format!("{base}{}-{id}", family.digit()), family, kind, &hosts, content),
            prefix_map(&format!("{base}-prefixes{}", family.digit()), family, kind, &wide, content),
        ];
        maps.into_iter()
            .flatten()
            .map(|(name, set)| {
                table.sets.insert(Arc::clone(&name), set);
                name
            })
            .collect::<Vec<_>>()
    };
    let sources = add("sources", Kind::Verdict, &chain);
    let snats = add("snat", family.kind(), &address);
    names.ways.push(rules::Way { family, to, except, sources, snats });
}

/// A map of single addresses, which change by element.
fn host_map(
    name: &str,
    family: Family,
    kind: Kind,
    hosts: &[(&Prefix, &NatSource)],
    content: &dyn Fn(&NatSource) -> Content,
) -> Option<(Arc<str>, Set)> {
    let shape = Shape { key: family.kind(), content: Some(kind), interval: false };
    let element = |(prefix, source): &(&Prefix, &NatSource)| {
        let (key, content) = (key(family, bits(prefix.address())), content(source));
        (content != Content::None).then_some(Element { key, edge: Edge::Start, content })
    };
    let set = Set::sorted(shape, hosts.iter().filter_map(element));
    (!set.elements.is_empty()).then(|| (name.into(), set))
}

/// A map of prefixes as intervals, under a name that tells its content.
fn prefix_map(
    base: &str,
    family: Family,
    kind: Kind,
    prefixes: &[(&Prefix, &NatSource)],
    content: &dyn Fn(&NatSource) -> Content,
) -> Option<(Arc<str>, Set)> {
    let shape = Shape { key: family.kind(), content: Some(kind), interval: true };
    let intervals =
        Intervals::new(family, prefixes.iter().map(|(prefix, source)| (**prefix, content(source))));
    let elements = interval_elements(family, &intervals, true);
    (!elements.is_empty()).then(|| {
        let name = format!("{base}-{:08x}", digest(&elements));
        (name.into(), Set::sorted(shape, elements))
    })
}

/// A set of intervals under a name that tells its content; `None` for an empty one.
fn add_intervals(
    table: &mut Ruleset,
    base: &str,
    family: Family,
    prefixes: impl IntoIterator<Item = Prefix>,
) -> Option<Arc<str>> {
    let intervals = Intervals::new(family, prefixes.into_iter().map(|prefix| (prefix, Content::None)));
    if intervals.is_empty() {
        return None;
    }
    let shape = Shape { key: family.kind(), content: None, interval: true };
    let elements = interval_elements(family, &intervals, false);
    let name: Arc<str> = format!("{base}{}-{:08x}", family.digit(), digest(&elements)).into();
    table.sets.insert(Arc::clone(&name), Set::sorted(shape, elements));
    Some(name)
}

fn interval_elements(family: Family, intervals: &Intervals<Content>, map: bool) -> Vec<Element> {
    let highest = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    let mut elements = Vec::new();
    // In a map, what has no content has no element.
    for interval in intervals.iter().filter(|interval| !map || interval.value != Content::None) {
        let start = key(family, interval.first);
        elements.push(Element { key: start, edge: Edge::Start, content: interval.value.clone() });
        // What reaches the last address there is has no end.
        if interval.last < highest {
            let end = key(family, interval.last + 1);
            elements.push(Element { key: end, edge: Edge::End, content: Content::None });
        }
    }
    elements.sort_unstable();
    elements
}

fn address(address: IpAddr) -> Content {
    match address {
        IpAddr::V4(address) => Content::V4(address.to_bits()),
        IpAddr::V6(address) => Content::V6(address.to_bits()),
    }
}

fn never() -> impl Iterator<Item = Prefix> {
    NEVER.iter().filter_map(|text| text.parse().ok())
}

fn hash(key: Kind, content: Option<Kind>, elements: Vec<Element>) -> Set {
    Set::sorted(Shape { key, content, interval: false }, elements)
}

fn member(key: Key) -> Element {
    Element { key, edge: Edge::Start, content: Content::None }
}

fn key(family: Family, bits: u128) -> Key {
    match family {
        Family::V4 => Key::V4(bits as u32),
        Family::V6 => Key::V6(bits),
    }
}

fn interface(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    padded.iter_mut().zip(name.bytes().take(INTERFACE_LENGTH)).for_each(|(to, from)| *to = from);
    padded
}

fn named(base: &str, family: Family) -> Arc<str> {
    format!("{base}{}", family.digit()).into()
}

/// FNV-1a of the value's text: short, and the same in every version of the program.
fn digest(value: &impl std::fmt::Debug) -> u32 {
    struct Fnv(u32);
    impl std::fmt::Write for Fnv {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0 =
                text.bytes().fold(self.0, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
            Ok(())
        }
    }
    let mut fnv = Fnv(2_166_136_261);
    let _ = std::fmt::Write::write_fmt(&mut fnv, format_args!("{value:?}"));
    fnv.0
}

#[cfg(test)]
mod tests;
