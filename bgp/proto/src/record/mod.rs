//! Record and replay of sessions, without I/O: what a [`crate::session::Session`] took in, with the time of each input,
//! and a digest of what came out, so that a replay can check itself.
//!
//! A recording is a header, records and an end mark ([`Reader`], [`write_header`], [`write_end`]). A
//! [`TapedSession`] writes the records while it drives a session; [`Replay`] drives the same code again on a virtual
//! clock. All that is not deterministic is input: the time, the jitter's seed (part of the configuration), the octets.
//! A password is no part of a session's configuration, so none is recorded.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used))]
mod codec;
mod digest;
mod file;
mod replay;
mod tape;

use bytes::Bytes;

use crate::{
    AfiSafi,
    session::{ConnectionId, SessionConfig, StopReason},
};

pub use file::{Corrupt, End, Reader, Record, write_end, write_header};
pub use replay::{Replay, Step};
pub use tape::TapedSession;

/// One input of a session, by the name of the method that takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A new session takes the place of the one before.
    New(Box<SessionConfig>),
    /// `handle_start`.
    Start,
    /// `handle_stop`.
    Stop(StopReason),
    /// `handle_connected`.
    Connected(ConnectionId),
    /// `handle_connect_failed`.
    ConnectFailed(ConnectionId),
    /// `handle_accepted`.
    Accepted,
    /// `handle_input`: all that was in the buffer.
    Octets(ConnectionId, Bytes),
    /// `handle_closed`.
    Closed(ConnectionId),
    /// `handle_timeout`.
    Timeout,
    /// `handle_sent`.
    Sent,
    /// `handle_restart_complete`.
    RestartComplete,
    /// `handle_config`.
    Config(Box<SessionConfig>),
    /// `request_refresh`.
    RequestRefresh(AfiSafi),
}
