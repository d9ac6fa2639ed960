//! OPEN (RFC 4271 section 4.2) with capabilities (RFC 5492) and extended optional parameters (RFC 9072).
use super::Capability;
use crate::{Asn, HoldTime, RouterId};

/// An OPEN, sent or received. Invalid ones cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: the four-octet one where the capability carries it (RFC 6793).
    pub asn: Asn,
    /// The proposed hold time.
    pub hold_time: HoldTime,
    /// The sender's BGP Identifier.
    pub router_id: RouterId,
    /// The capabilities, in the order of the wire.
    pub capabilities: Vec<Capability>,
}
