//! Type, length, value: what Initiation, Termination, Peer Up and Route Mirroring consist of (RFC 7854 section 4.4).
use bytes::{BufMut, Bytes, BytesMut};
use nom::{Parser, multi::length_data, number::complete::be_u16};

use super::parse::Parsed;

/// Types within Initiation and Peer Up (RFC 7854 section 4.4).
pub mod information {
    /// Free text in UTF-8.
    pub const STRING: u16 = 0;
    /// sysDescr: what the router is.
    pub const SYS_DESCR: u16 = 1;
    /// sysName: what the router is called.
    pub const SYS_NAME: u16 = 2;
}

/// Types within Termination (RFC 7854 section 4.5).
pub mod termination {
    /// Free text in UTF-8.
    pub const STRING: u16 = 0;
    /// A [`super::TerminationReason`] in two octets.
    pub const REASON: u16 = 1;
}

/// Why a router closes its connection to the station (RFC 7854 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum TerminationReason {
    /// Administratively closed; it may be back.
    Closed = 0,
    /// For no reason that is known.
    Unspecified = 1,
    /// Out of resources.
    OutOfResources = 2,
    /// The station has another connection to the router.
    Redundant = 3,
    /// Administratively closed; it will not be back.
    ClosedForGood = 4,
}

impl TerminationReason {
    /// The reason as an item of a Termination.
    pub fn tlv(self) -> Tlv {
        Tlv { kind: termination::REASON, value: Bytes::copy_from_slice(&(self as u16).to_be_bytes()) }
    }
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlv {
    /// Its type; what it means depends on the message.
    pub kind: u16,
    /// Its value, 65535 octets at most; what is beyond is not written.
    pub value: Bytes,
}

impl Tlv {
    /// An item of text.
    pub fn text(kind: u16, text: &str) -> Tlv {
        Tlv { kind, value: Bytes::copy_from_slice(text.as_bytes()) }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let length = u16::try_from(self.value.len()).unwrap_or(u16::MAX);
        out.put_u16(self.kind);
        out.put_u16(length);
        out.put_slice(self.value.get(..usize::from(length)).unwrap_or_default());
    }
}

pub(super) fn parse(input: &[u8]) -> Parsed<'_, Tlv> {
    let (input, (kind, value)) = (be_u16, length_data(be_u16)).parse(input)?;
    Ok((input, Tlv { kind, value: Bytes::copy_from_slice(value) }))
}
