//! UPDATE (RFC 4271 section 4.3) with MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760), judged by RFC 7606.
//!
//! `decode` gives an [`Update`] and what was wrong with it; `write` is what packs many prefixes into messages.
mod decode;
mod write;

use std::sync::Arc;

pub(super) use decode::decode;
pub use write::{Unencodable, write_end_of_rib, write_reach, write_withdraw};

use super::{NextHop, Nlri, Notification, PathAttributes};
use crate::{AfiSafi, Families};

/// Prefixes of one family that are reachable through one next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The family.
    pub family: AfiSafi,
    /// Where they point.
    pub next_hop: NextHop,
    /// The prefixes, in the order of the wire.
    pub nlri: Vec<Nlri>,
}

/// Prefixes of one family that are withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreach {
    /// The family.
    pub family: AfiSafi,
    /// The prefixes, in the order of the wire.
    pub nlri: Vec<Nlri>,
}

/// A decoded UPDATE. After a verdict of treat-as-withdraw its reachable prefixes already stand among the
/// withdrawn ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Withdrawals; to be applied before `reach`.
    pub unreach: Vec<Unreach>,
    /// Announcements: at most one from the NLRI field and one from MP_REACH_NLRI.
    pub reach: Vec<Reach>,
    /// The attributes of all of `reach`.
    pub attributes: Arc<PathAttributes>,
    /// The family whose End-of-RIB marker this is (RFC 4724 section 2).
    pub end_of_rib: Option<AfiSafi>,
}

impl Update {
    /// Leaves only what is of these families: what a peer sends of another, which the session did not agree on,
    /// is to be ignored (RFC 4760 section 6). The decoder itself knows no families but its own.
    pub fn retain_families(&mut self, families: Families) {
        self.unreach.retain(|unreach| families.contains(unreach.family));
        self.reach.retain(|reach| families.contains(reach.family));
        self.end_of_rib = self.end_of_rib.filter(|family| families.contains(*family));
    }
}

/// What RFC 7606 section 2 asks for, weakest first. The session-resetting one is the `Err` of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Nothing wrong.
    Ok,
    /// Prefixes that make no sense were left out, the others stand (RFC 4271 section 6.3).
    IgnorePrefix,
    /// The attribute was dropped, the routes stand.
    DiscardAttribute,
    /// The routes were turned into withdrawals.
    TreatAsWithdraw,
}

/// One thing that was wrong with an UPDATE whose session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was done.
    pub verdict: Verdict,
    /// The type code of the attribute; 0 where none can be named.
    pub attribute: u8,
    /// What was wrong, with the RFC section.
    pub reason: &'static str,
}

/// What the decoder gives: the update and every finding; `Err` resets the session.
pub type Decoded = Result<(Update, Vec<Finding>), Notification>;
