//! What two OPENs amount to (RFC 4271 section 4.2, RFC 5492): computed once, then only read.
use std::time::Duration;

use crate::{
    Families, HoldTime,
    wire::{CodecContext, GracefulRestart, Open},
};

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Families that both offered.
    pub families: Families,
    /// What the wire format depends on.
    pub context: CodecContext,
    /// The smaller of both hold times.
    pub hold_time: HoldTime,
    /// Time between our KEEPALIVEs; `None` where the hold time is zero.
    pub keepalive: Option<Duration>,
    /// What the peer said of graceful restart, where both sides offer it.
    pub graceful_restart: Option<GracefulRestart>,
    /// The peer understands ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// The peer's OPEN.
    pub peer_open: Open,
    /// Our OPEN.
    pub local_open: Open,
}
