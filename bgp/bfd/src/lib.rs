//! Bidirectional Forwarding Detection (RFC 5880) without I/O: no socket, clock, task or lock.
//!
//! Datagrams and the time come in by `handle_*`, packets and events come out by `poll_*`. The mode is asynchronous;
//! a peer in Demand mode is understood; we neither send nor loop back Echo packets, and use no authentication. Both
//! ends take the Active role, as RFC 5881 section 3 has it.
//!
//! Read [`Demux`] first (which session a datagram belongs to, under the rules of RFC 5881 and 5883), then
//! [`Session`] (one session: when to send what, and when the path has failed) and [`Liveness`] (what BGP is told,
//! RFC 5882).
//!
//! # Driving it
//! For each datagram: [`Demux::handle_datagram`], then [`Session::handle_packet`] of the session that it names. After
//! each `handle_*` of a session take [`Session::poll_transmit`] and [`Session::poll_event`] until they give nothing;
//! then wait for a datagram or until [`Session::poll_timeout`]. A driver that was held up reads its socket before it
//! calls [`Session::handle_timeout`], or what arrived in time counts as lost.
#![deny(missing_docs)]

mod demux;
mod diagnostic;
mod discard;
mod discriminator;
mod interval;
mod jitter;
mod liveness;
mod packet;
mod path;
mod poll;
mod session;
mod state;

pub use demux::{Datagram, Demux, PathTaken};
pub use diagnostic::Diagnostic;
pub use discard::{Discard, DiscardCounters};
pub use discriminator::Discriminator;
pub use interval::Interval;
pub use liveness::{Liveness, Side};
pub use packet::{Authentication, ControlPacket, ReceivedPacket};
pub use path::{HOP_LIMIT, Hops, Path, SOURCE_PORTS};
pub use session::{Event, Remote, Session, SessionConfig, SessionCounters, Timing};
pub use state::State;
