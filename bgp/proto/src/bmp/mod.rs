//! BMP, the BGP Monitoring Protocol (RFC 7854, with Adj-RIB-Out of RFC 8671): bytes to messages and back.
//!
//! BGP messages inside are octets as they stood on the wire; [`crate::wire`] reads them. A router only writes BMP;
//! reading is for collectors, such as those of the tests.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]
mod message;
mod parse;
mod peer;
mod statistics;
mod tlv;
mod up_down;

pub use message::{COMMON_HEADER_LENGTH, MAX_LENGTH, Message, poll};
pub use peer::{PeerHeader, PeerKind, Rib};
pub use statistics::Statistic;
pub use tlv::{TerminationReason, Tlv, information, termination};
pub use up_down::{PeerDown, PeerUp};

/// Why octets are not BMP. The stream is worthless after it: the connection must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A version other than 3.
    #[error("BMP version {0}; only version 3 is known")]
    Version(u8),
    /// A message shorter than its header, or longer than the reader takes.
    #[error("a message of {0} octets is shorter than its header, or longer than is taken")]
    Length(u32),
    /// A part of a message is cut short, has octets left over, or is no BGP message of its kind.
    #[error("malformed {0}")]
    Part(&'static str),
}
