//! NOTIFICATION (RFC 4271 section 4.5), with the subcodes of RFC 4486, 6608, 7313, 8538, 9384 and 9003's text.
//!
//! It is also the error type of the decoders: what cannot be forgiven is exactly what the peer is told.
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    frame,
    iana::{MessageType, error},
};

/// The most data that fits a message of 4096 octets, which RFC 8654 keeps as the limit for every peer that
/// may not read more.
const MAX_DATA: usize = 4096 - 21;

/// A NOTIFICATION, sent or received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// The error subcode.
    pub subcode: u8,
    /// The data.
    pub data: Bytes,
}

/// Why a session is ceased on purpose (RFC 4486, RFC 8538).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CeaseReason {
    /// More prefixes than configured.
    MaxPrefixes = 1,
    /// Shut down by the operator.
    AdministrativeShutdown = 2,
    /// The peer was removed from the configuration.
    PeerDeconfigured = 3,
    /// Reset by the operator.
    AdministrativeReset = 4,
    /// The connection was not wanted.
    ConnectionRejected = 5,
    /// Some other configuration change.
    OtherConfigurationChange = 6,
    /// This connection lost the collision (RFC 4271 section 6.8).
    ConnectionCollision = 7,
    /// Out of resources.
    OutOfResources = 8,
    /// Do not keep the routes (RFC 8538).
    HardReset = 9,
    /// BFD says that the path is down (RFC 9384).
    BfdDown = 10,
}

impl CeaseReason {
    /// The reason with this subcode.
    pub const fn from_code(subcode: u8) -> Option<CeaseReason> {
        Some(match subcode {
            1 => CeaseReason::MaxPrefixes,
            2 => CeaseReason::AdministrativeShutdown,
            3 => CeaseReason::PeerDeconfigured,
            4 => CeaseReason::AdministrativeReset,
            5 => CeaseReason::ConnectionRejected,
            6 => CeaseReason::OtherConfigurationChange,
            7 => CeaseReason::ConnectionCollision,
            8 => CeaseReason::OutOfResources,
            9 => CeaseReason::HardReset,
            10 => CeaseReason::BfdDown,
            _ => return None,
        })
    }

    /// The subcode.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl Notification {
    /// Any code with its data.
    pub fn new(code: u8, subcode: u8, data: impl Into<Bytes>) -> Notification {
        Notification { code, subcode, data: data.into() }
    }

    /// A code without data.
    pub const fn bare(code: u8, subcode: u8) -> Notification {
        Notification { code, subcode, data: Bytes::new() }
    }

    /// OPEN Message Error (RFC 4271 section 6.2).
    pub const fn open(subcode: u8) -> Notification {
        Notification::bare(error::OPEN, subcode)
    }

    /// UPDATE Message Error with the offending attribute, or nothing, as its data (RFC 4271 section 6.3).
    pub fn update(subcode: u8, data: &[u8]) -> Notification {
        Notification::new(error::UPDATE, subcode, Bytes::copy_from_slice(data))
    }

    /// Bad Message Length; the data is the erroneous length field (RFC 4271 section 6.1).
    pub fn bad_length(length: u16) -> Notification {
        Notification::new(error::HEADER, error::BAD_MESSAGE_LENGTH, length.to_be_bytes().to_vec())
    }

    /// Unsupported Version Number; the data is the version that we do speak (RFC 4271 section 6.2).
    pub const fn unsupported_version() -> Notification {
        Notification {
            code: error::OPEN,
            subcode: error::UNSUPPORTED_VERSION,
            data: Bytes::from_static(&[0, 4]),
        }
    }

    /// Hold Timer Expired (RFC 4271 section 6.5).
    pub const fn hold_timer_expired() -> Notification {
        Notification::bare(error::HOLD_TIMER_EXPIRED, error::UNSPECIFIC)
    }

    /// Send Hold Timer Expired (RFC 9687).
    pub const fn send_hold_timer_expired() -> Notification {
        Notification::bare(error::SEND_HOLD_TIMER_EXPIRED, error::UNSPECIFIC)
    }

    /// Finite State Machine Error with a subcode of RFC 6608.
    pub const fn fsm(subcode: u8) -> Notification {
        Notification::bare(error::FSM, subcode)
    }

    /// Cease. The text goes out as RFC 9003 says with the two administrative reasons, cut at 255 octets between
    /// characters; other reasons have no room for one. A hard reset wraps an administrative reset with the text.
    pub fn cease(reason: CeaseReason, text: &str) -> Notification {
        let data = match reason {
            CeaseReason::AdministrativeShutdown | CeaseReason::AdministrativeReset => communication(text),
            CeaseReason::HardReset => {
                return Notification::cease(CeaseReason::AdministrativeReset, text).into_hard_reset();
            }
            CeaseReason::MaxPrefixes
            | CeaseReason::PeerDeconfigured
            | CeaseReason::ConnectionRejected
            | CeaseReason::OtherConfigurationChange
            | CeaseReason::ConnectionCollision
            | CeaseReason::OutOfResources
            | CeaseReason::BfdDown => Bytes::new(),
        };
        Notification::new(error::CEASE, reason.code(), data)
    }

    /// This error as a Hard Reset, so that a peer with the N bit does not keep the routes (RFC 8538 section 3.1).
    pub fn into_hard_reset(self) -> Notification {
        let mut data = BytesMut::new();
        data.put_slice(&[self.code, self.subcode]);
        data.put_slice(&self.data);
        Notification::new(error::CEASE, CeaseReason::HardReset.code(), data)
    }

    /// The reason, where this is a Cease with one that we know.
    pub fn cease_reason(&self) -> Option<CeaseReason> {
        (self.code == error::CEASE).then(|| CeaseReason::from_code(self.subcode)).flatten()
    }

    /// What a Hard Reset wraps (RFC 8538 section 3.1).
    pub fn wrapped(&self) -> Option<Notification> {
        match (self.cease_reason(), self.data.split_at_checked(2)) {
            (Some(CeaseReason::HardReset), Some((&[code, subcode], data))) => {
                Some(Notification::copied(code, subcode, data))
            }
            _ => None,
        }
    }

    /// The shutdown communication (RFC 9003), with what is not UTF-8 or not printable replaced, since it ends up
    /// on an operator's terminal.
    pub fn text(&self) -> Option<String> {
        match self.cease_reason()? {
            CeaseReason::AdministrativeShutdown | CeaseReason::AdministrativeReset => {}
            CeaseReason::HardReset => return self.wrapped_once()?.text(),
            _ => return None,
        }
        let (length, rest) = self.data.split_first()?;
        let text = rest.get(..usize::from(*length)).filter(|text| !text.is_empty())?;
        let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Some(String::from_utf8_lossy(text).chars().map(clean).collect())
    }

    /// A hard reset within a hard reset means nothing, and would let a peer choose how deep we look.
    fn wrapped_once(&self) -> Option<Notification> {
        self.wrapped().filter(|inner| inner.cease_reason() != Some(CeaseReason::HardReset))
    }

    fn copied(code: u8, subcode: u8, data: &[u8]) -> Notification {
        Notification::new(code, subcode, Bytes::copy_from_slice(data))
    }

    /// Reads the body. Whatever it says is a NOTIFICATION: there is no way to complain about one (RFC 4271
    /// section 6.4). `None` where the two codes are not there, which framing rules out.
    pub(super) fn decode(body: &[u8]) -> Option<Notification> {
        match body.split_at_checked(2) {
            Some((&[code, subcode], data)) => Some(Notification::copied(code, subcode, data)),
            _ => None,
        }
    }

    /// Writes the whole message; data beyond what a message of 4096 octets holds is cut.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = frame::begin(MessageType::Notification, out);
        out.put_slice(&[self.code, self.subcode]);
        out.put_slice(self.data.get(..MAX_DATA).unwrap_or(&self.data));
        frame::finish(start, out);
    }
}

/// The data field of RFC 9003: a length octet and UTF-8.
fn communication(text: &str) -> Bytes {
    let end = text.floor_char_boundary(255.min(text.len()));
    let text = text.get(..end).unwrap_or_default();
    match u8::try_from(text.len()) {
        Ok(length) if length > 0 => {
            let mut data = BytesMut::new();
            data.put_u8(length);
            data.put_slice(text.as_bytes());
            data.freeze()
        }
        _ => Bytes::new(),
    }
}

impl std::error::Error for Notification {}

impl fmt::Display for Notification {
    /// `Cease / Administrative Shutdown: "maintenance"`; numbers where we know no name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match error::name(self.code) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "error {}", self.code)?,
        }
        match error::subcode_name(self.code, self.subcode) {
            Some(name) => write!(f, " / {name}")?,
            None if self.subcode == 0 => {}
            None => write!(f, " / subcode {}", self.subcode)?,
        }
        if let Some(inner) = self.wrapped_once() {
            return write!(f, " ({inner})");
        }
        if let Some(text) = self.text() {
            return write!(f, ": {text:?}");
        }
        if let Some(data) = self.data.get(..16.min(self.data.len())).filter(|data| !data.is_empty()) {
            f.write_str(" [")?;
            data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
            f.write_str(if self.data.len() > data.len() { "...]" } else { "]" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_shown() {
        let shown = |n: Notification| n.to_string();
        assert_eq!(
            shown(Notification::cease(CeaseReason::AdministrativeShutdown, "maintenance")),
            "Cease / Administrative Shutdown: \"maintenance\""
        );
        assert_eq!(
            shown(Notification::cease(CeaseReason::HardReset, "")),
            "Cease / Hard Reset (Cease / Administrative Reset)"
        );
        assert_eq!(shown(Notification::bad_length(18)), "Message Header Error / Bad Message Length [0012]");
        assert_eq!(shown(Notification::hold_timer_expired()), "Hold Timer Expired");
        assert_eq!(shown(Notification::bare(99, 7)), "error 99 / subcode 7");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let cease = Notification::cease(CeaseReason::AdministrativeReset, &"ü".repeat(200));
        assert_eq!(cease.data.len(), 255);
        assert_eq!(cease.text().unwrap(), "ü".repeat(127));
    }

    #[test]
    fn a_hostile_text_is_made_harmless() {
        let hostile = Notification::new(6, 2, vec![4, b'a', 0x1b, 0xff, b'b', b'x']);
        assert_eq!(hostile.text().unwrap(), "a\u{fffd}\u{fffd}b");
        let overrun = Notification::new(6, 2, vec![200, b'a']);
        assert_eq!(overrun.text(), None);
        let mut nested = Notification::cease(CeaseReason::HardReset, "x");
        for _ in 0..1000 {
            nested = nested.into_hard_reset();
        }
        assert_eq!(nested.text(), None);
        assert!(nested.to_string().len() < 100);
    }

    #[test]
    fn a_hard_reset_keeps_what_it_wraps() {
        let inner = Notification::hold_timer_expired();
        assert_eq!(inner.clone().into_hard_reset().wrapped(), Some(inner));
        assert_eq!(Notification::hold_timer_expired().wrapped(), None);
        assert_eq!(Notification::cease(CeaseReason::HardReset, "bye").text().as_deref(), Some("bye"));
    }

    #[test]
    fn every_reason_has_its_code_and_name() {
        for code in 1..=10 {
            assert_eq!(CeaseReason::from_code(code).map(CeaseReason::code), Some(code));
            assert!(error::subcode_name(error::CEASE, code).is_some());
        }
    }
}
