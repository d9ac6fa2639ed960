//! Router advertisements (RFC 4861) without I/O: no socket, clock, task or lock.
//!
//! Two routers that shall speak BGP over a link without configured addresses (BGP unnumbered) find each other by these.
//! Packets and the time come in by `handle_*`, packets go out by [`Link::poll_transmit`]. We are a router that is no
//! default router and offers no prefix: hosts on the link learn nothing from us.
//!
//! Read [`Link`] first (one interface: when to send what, and who was heard), then [`Message`] (what a packet says, and
//! which packets are refused).
#![deny(missing_docs)]

mod link;
mod packet;
mod random;

pub use link::{Counters, Link, Transmit};
pub use packet::{ALL_NODES, ALL_ROUTERS, Advertisement, LinkLayerAddress, Message, Packet, Refusal};
