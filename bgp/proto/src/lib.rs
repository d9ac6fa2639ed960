//! BGP-4 (RFC 4271) without I/O: no socket, clock, task or lock.
//!
//! Bytes and the time come in by `handle_*`, actions and events come out by `poll_*`; the crate
//! `plainroute-speaker` drives it with tokio. It never reads a clock, never spawns and never blocks, so a whole
//! pair of routers runs in a unit test on a virtual clock.
//!
//! Read [`session::Session`] first (one peer, both TCP connections of a collision), then [`wire::Update`]
//! (what a decoded UPDATE is, with its RFC 7606 verdict) and [`rib::AdjRibOut`] (desired versus sent).
#![deny(missing_docs)]

mod asn;
mod community;
mod family;
mod hold_time;
mod prefix;
mod router_id;

pub mod bmp;
pub mod policy;
pub mod record;
pub mod rib;
pub mod session;
pub mod wire;

pub use asn::{Asn, InvalidAsn};
pub use community::{Community, ExtendedCommunity, InvalidCommunity, LargeCommunity};
pub use family::{AfiSafi, Families};
pub use hold_time::{HoldTime, InvalidHoldTime};
pub use prefix::{InvalidPrefix, Prefix, Prefix4, Prefix6};
pub use router_id::{InvalidRouterId, RouterId};
