//! The table as a value: sets, counters and chains of rules, in the kernel's terms and without its encoding.
use std::{collections::BTreeMap, sync::Arc};

/// All of table `inet plainroute`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) counters: BTreeMap<Arc<str>, ()>,
    pub(super) sets: BTreeMap<Arc<str>, Set>,
    pub(super) chains: BTreeMap<Arc<str>, Chain>,
}

/// A set, or a map when its elements have a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) shape: Shape,
    /// In order, each key once.
    pub(super) elements: Arc<Vec<Element>>,
}

/// What cannot be changed of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) key: Kind,
    pub(super) content: Option<Kind>,
    pub(super) interval: bool,
}

impl Shape {
    /// Of a set that is none of ours.
    pub(super) const FOREIGN: Shape = Shape { key: Kind::Verdict, content: None, interval: false };
}

/// The types of keys and contents that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
    Interface,
    Verdict,
    Counter,
}

/// An element, or the end of an interval.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) key: Key,
    /// An interval's end stands before the next one's start at the same key.
    pub(super) edge: Edge,
    pub(super) content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    End,
    Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    V4(u32),
    V6(u128),
    Interface([u8; 16]),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    /// Of a set's element, and of an interval's end.
    None,
    Goto(Arc<str>),
    V4(u32),
    V6(u128),
    Counter(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// `None`: others go to it.
    pub(super) base: Option<Base>,
    /// `None`: read from the kernel, where rules are not compared but written anew.
    pub(super) rules: Option<Arc<[Rule]>>,
}

/// Where a chain is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) nat: bool,
    pub(super) hook: Hook,
    pub(super) priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Postrouting,
    /// A hook that we never use.
    Other(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) expressions: Vec<Expression>,
    /// Shown by `nft list`.
    pub(super) comment: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub(super) fn kind(self) -> Kind {
        match self {
            Family::V4 => Kind::V4,
            Family::V6 => Kind::V6,
        }
    }

    /// As it ends the names of sets.
    pub(super) fn digit(self) -> char {
        match self {
            Family::V4 => '4',
            Family::V6 => '6',
        }
    }
}

/// A step of a rule; one that does not match ends the rule. All of them work on one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads the family of the packet, one byte.
    NetworkFamily,
    /// Loads the transport protocol, one byte.
    TransportProtocol,
    Mark,
    SetMark,
    /// Loads the name of the interface by which it came in.
    Incoming,
    Source(Family),
    Destination(Family),
    /// Loads the type of an ICMP message, one byte.
    IcmpType,
    /// Loads 0 for the direction of a flow's first packet, 1 for the other; one byte.
    FlowDirection,
    FlowStatus,
    /// Loads what kind of destination it is to this node: `RTN_LOCAL` and so on.
    DestinationType,
    Compare(Comparison, Vec<u8>),
    /// Value = (value & mask) ^ bits.
    Bits {
        mask: u32,
        bits: u32,
    },
    /// Matches when the value is, or is not, in the set.
    In {
        set: Arc<str>,
        not: bool,
    },
    /// Replaces the value by what the map has for it; no match when it has nothing.
    Map(Arc<str>),
    /// Goes where the map says; no match when it has nothing.
    GotoMap(Arc<str>),
    Count(Arc<str>),
    /// Counts where the map says; no match when it has nothing.
    CountMap(Arc<str>),
    Snat(Family),
    Accept,
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    AtMost,
    AtLeast,
}

impl Ruleset {
    /// Whether two are the same but for rules.
    pub(super) fn is_like(&self, other: &Ruleset) -> bool {
        let chains = |table: &Ruleset| -> Vec<_> {
            table.chains.iter().map(|(name, chain)| (Arc::clone(name), chain.base)).collect()
        };
        self.counters == other.counters && self.sets == other.sets && chains(self) == chains(other)
    }
}
