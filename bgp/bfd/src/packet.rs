//! The Control packet (RFC 5880 section 4): octets to values and back.
//!
//! Decoding takes the steps of section 6.8.6 that need nothing but the packet itself, in their order, and names the
//! one that fails. What the RFC forbids to be zero cannot be zero afterwards. We send no Authentication Section; one
//! that is received is read far enough to say what it is.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       My Discriminator                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                      Your Discriminator                       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Desired Min TX Interval                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                   Required Min RX Interval                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                 Required Min Echo RX Interval                 |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!   and, where A is set:
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Auth Type   |   Auth Len    |    Authentication Data...     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
use std::num::NonZeroU8;

use crate::{Diagnostic, Discard, Discriminator, Interval, State};

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION_PRESENT: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// The mandatory section of a Control packet (RFC 5880 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ControlPacket {
    /// Why the sender's session last changed its state.
    pub diagnostic: Diagnostic,
    /// The sender's state of the session.
    pub state: State,
    /// P: the sender wants an answer with the F bit.
    pub poll: bool,
    /// F: the answer to a packet with the P bit.
    pub final_: bool,
    /// C: the sender's BFD survives when its control plane is disrupted (RFC 5882 section 4.3).
    pub control_plane_independent: bool,
    /// D: the sender, being Up and knowing that we are, wants no periodic packets (Demand mode, section 6.6).
    pub demand: bool,
    /// How many packets in a row are missed before the sender counts as silent.
    pub detect_multiplier: NonZeroU8,
    /// By what the sender knows the session.
    pub my_discriminator: Discriminator,
    /// By what the receiver knows the session; none while the sender has not heard of it.
    pub your_discriminator: Option<Discriminator>,
    /// How fast the sender would like to send. Zero is reserved.
    pub desired_min_tx: Option<Interval>,
    /// How fast the sender can receive; none where it wants no periodic packets.
    pub required_min_rx: Option<Interval>,
    /// How fast the sender loops Echo packets back; none where it does not.
    pub required_min_echo_rx: Option<Interval>,
}

/// A Control packet as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReceivedPacket {
    /// Its mandatory section.
    pub control: ControlPacket,
    /// Its Authentication Section, where the A bit is set.
    pub authentication: Option<Authentication>,
}

/// What an Authentication Section claims to be (RFC 5880 sections 4.2 to 4.4). Secrets and digests are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// Type 1, a password of 1 to 16 octets.
    SimplePassword {
        /// Which password.
        key_id: u8,
    },
    /// Type 2 or 3, MD5.
    KeyedMd5 {
        /// Which key.
        key_id: u8,
        /// Whether the sequence number grows with every packet (type 3).
        meticulous: bool,
        /// The sequence number.
        sequence: u32,
    },
    /// Type 4 or 5, SHA1.
    KeyedSha1 {
        /// Which key.
        key_id: u8,
        /// Whether the sequence number grows with every packet (type 5).
        meticulous: bool,
        /// The sequence number.
        sequence: u32,
    },
    /// A type that we do not know, or a length that is not the type's or not within the packet.
    Invalid {
        /// Auth Type.
        kind: u8,
        /// Auth Len.
        length: u8,
    },
}

impl ControlPacket {
    /// How many octets it takes without an Authentication Section.
    pub const LENGTH: usize = 24;

    /// The packet in octets, with the A and M bits clear.
    pub fn encode(&self) -> [u8; ControlPacket::LENGTH] {
        let bit = |set: bool, mask: u8| if set { mask } else { 0 };
        let flags = bit(self.poll, POLL)
            | bit(self.final_, FINAL)
            | bit(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | bit(self.demand, DEMAND);
        let [m0, m1, m2, m3] = self.my_discriminator.value().to_be_bytes();
        let [y0, y1, y2, y3] = self.your_discriminator.map_or(0, Discriminator::value).to_be_bytes();
        let [t0, t1, t2, t3] = self.desired_min_tx.map_or(0, Interval::as_micros).to_be_bytes();
        let [r0, r1, r2, r3] = self.required_min_rx.map_or(0, Interval::as_micros).to_be_bytes();
        let [e0, e1, e2, e3] = self.required_min_echo_rx.map_or(0, Interval::as_micros).to_be_bytes();
        [
            (VERSION << 5) | self.diagnostic.code(),
            (self.state.code() << 6) | flags,
            self.detect_multiplier.get(),
            ControlPacket::LENGTH as u8,
            m0,
            m1,
            m2,
            m3, //
            y0,
            y1,
            y2,
            y3, //
            t0,
            t1,
            t2,
            t3, //
            r0,
            r1,
            r2,
            r3, //
            e0,
            e1,
            e2,
            e3, //
        ]
    }
}

impl ReceivedPacket {
    /// Reads the payload of a datagram. Octets beyond Length are ignored.
    ///
    /// The error is the first step of RFC 5880 section 6.8.6 that says to discard it, of those that look at nothing
    /// but the packet.
    pub fn decode(payload: &[u8]) -> Result<ReceivedPacket, Discard> {
        let &[first, flags, multiplier, length, ..] = payload else {
            return Err(Discard::LengthBeyondPayload);
        };
        if first >> 5 != VERSION {
            return Err(Discard::Version);
        }
        let has_authentication = flags & AUTHENTICATION_PRESENT != 0;
        if usize::from(length) < if has_authentication { 26 } else { ControlPacket::LENGTH } {
            return Err(Discard::LengthTooSmall);
        }
        let packet = payload.get(..usize::from(length)).ok_or(Discard::LengthBeyondPayload)?;
        let (header, rest) =
            packet.split_first_chunk::<{ ControlPacket::LENGTH }>().ok_or(Discard::LengthTooSmall)?;
        let &[
            ..,
            m0,
            m1,
            m2,
            m3, //
            y0,
            y1,
            y2,
            y3, //
            t0,
            t1,
            t2,
            t3, //
            r0,
            r1,
            r2,
            r3, //
            e0,
            e1,
            e2,
            e3, //
        ] = header;
        let detect_multiplier = NonZeroU8::new(multiplier).ok_or(Discard::DetectMultZero)?;
        if flags & MULTIPOINT != 0 {
            return Err(Discard::Multipoint);
        }
        let my_discriminator =
            Discriminator::new(u32::from_be_bytes([m0, m1, m2, m3])).ok_or(Discard::MyDiscriminatorZero)?;
        let your_discriminator = Discriminator::new(u32::from_be_bytes([y0, y1, y2, y3]));
        let state = State::from_high_bits(flags);
        if your_discriminator.is_none() && matches!(state, State::Init | State::Up) {
            return Err(Discard::YourDiscriminatorZero);
        }
        let control = ControlPacket {
            diagnostic: Diagnostic::from_low_bits(first),
            state,
            poll: flags & POLL != 0,
            final_: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_multiplier,
            my_discriminator,
            your_discriminator,
            desired_min_tx: Interval::from_micros(u32::from_be_bytes([t0, t1, t2, t3])),
            required_min_rx: Interval::from_micros(u32::from_be_bytes([r0, r1, r2, r3])),
            required_min_echo_rx: Interval::from_micros(u32::from_be_bytes([e0, e1, e2, e3])),
        };
        let authentication = has_authentication.then(|| Authentication::decode(rest));
        Ok(ReceivedPacket { control, authentication })
    }
}

impl Authentication {
    /// Reads a section of at least two octets; `section` ends where Length says that the packet does.
    fn decode(section: &[u8]) -> Authentication {
        let (kind, length) = match section {
            [kind, length, ..] => (*kind, *length),
            [] | [_] => (0, 0),
        };
        match (kind, length, section.get(..usize::from(length))) {
            (1, 4..=19, Some([_, _, key_id, ..])) => Authentication::SimplePassword { key_id: *key_id },
            (2 | 3, 24, Some([_, _, key_id, _, s0, s1, s2, s3, ..])) => Authentication::KeyedMd5 {
                key_id: *key_id,
                meticulous: kind == 3,
                sequence: u32::from_be_bytes([*s0, *s1, *s2, *s3]),
            },
            (4 | 5, 28, Some([_, _, key_id, _, s0, s1, s2, s3, ..])) => Authentication::KeyedSha1 {
                key_id: *key_id,
                meticulous: kind == 5,
                sequence: u32::from_be_bytes([*s0, *s1, *s2, *s3]),
            },
            (kind, length, _) => Authentication::Invalid { kind, length },
        }
    }
}
