//! Policy rules: which packets ask another table than the main one.
use std::fmt;

use plainroute_bgp::AfiSafi;

/// One rule of ours: packets with this mark go by that table, or nowhere. Ours carry our protocol number; no other is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The family of the packets.
    pub family: AfiSafi,
    /// The smaller, the earlier it is asked.
    pub priority: u32,
    /// The mark that packets have,
    pub mark: u32,
    /// in these bits.
    pub mask: u32,
    /// What becomes of them.
    pub action: RuleAction,
}

/// What becomes of the packets of a [`Rule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// They are routed by this table, if it has a route for them.
    Lookup(u32),
    /// They are dropped.
    Blackhole,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { priority, mark, mask, .. } = self;
        write!(f, "{priority}: fwmark {mark:#x}/{mask:#x} ")?;
        match self.action {
            RuleAction::Lookup(table) => write!(f, "lookup {table}"),
            RuleAction::Blackhole => f.write_str("blackhole"),
        }
    }
}
