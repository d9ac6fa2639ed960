//! Bytes to messages and back (RFC 4271 section 4 and its extensions).
//!
//! Decoding has two phases: framing finds one message in O(1), then a typed parse whose *return type* carries the
//! RFC 7606 verdict. Nothing here indexes a slice or does unchecked arithmetic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]
pub mod attribute;
pub mod capability;
pub mod frame;
pub mod iana;
pub mod message;
pub mod nlri;
pub mod notification;
pub mod open;
mod parse;
pub mod refresh;
pub mod update;

pub use attribute::{
    Aggregator, AsPath, AsPathSegment, EncodedAttributes, NextHop, Origin, PathAttributes, RawAttribute,
    SegmentKind,
};
pub use capability::{
    AddPathFamily, Capability, GracefulRestart, GracefulRestartFamily, LongLivedFamily, Role,
};
pub use frame::Frame;
pub use message::{CodecContext, Message, encode_keepalive};
pub use nlri::Nlri;
pub use notification::{CeaseReason, Notification};
pub use open::Open;
pub use refresh::RouteRefresh;
pub use update::{
    Finding, Reach, Unencodable, Unreach, Update, Verdict, write_end_of_rib, write_reach, write_withdraw,
};
