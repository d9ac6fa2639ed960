//! Router Solicitation and Router Advertisement (RFC 4861 sections 4.1 and 4.2): octets to values and back.
//!
//! What reaches [`Message::decode`] has a right checksum, since the kernel drops the rest. The other rules of sections
//! 6.1.1 and 6.1.2 are asked here, and the one that a packet breaks is named.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Type (134)   |   Code (0)    |           Checksum            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Cur Hop Limit |M|O|  Reserved |       Router Lifetime         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                         Reachable Time                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                          Retrans Timer                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Options: type, length in units of eight octets, value ...
//! +-+-+-+-+-+-+-+-+-+-+-+-
//! ```
//! A solicitation (133) has a reserved word between the checksum and the options.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
use std::{fmt, net::Ipv6Addr};

/// Where advertisements go: every node on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Where solicitations go: every router on the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const SOLICITATION_LENGTH: usize = 8;
const ADVERTISEMENT_LENGTH: usize = 16;
const OPTION_UNIT: usize = 8;
const SOURCE_LINK_LAYER: u8 = 1;
/// Only a packet that no router forwarded has it.
const HOP_LIMIT: u8 = 255;

/// An Ethernet address.
pub type LinkLayerAddress = [u8; 6];

/// A packet as it came: the ICMPv6 message, and of the IPv6 header what the rules ask for.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// The hop limit on arrival; none where the kernel did not tell.
    pub hop_limit: Option<u8>,
    /// From the ICMPv6 type on.
    pub payload: &'a [u8],
}

/// What a packet says, as far as BGP unnumbered asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Routers are asked to advertise themselves.
    Solicitation {
        /// The sender's link-layer address.
        source: Option<LinkLayerAddress>,
    },
    /// A router advertises itself.
    Advertisement(Advertisement),
}

/// A router's advertisement of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// Seconds for which hosts may take it for a default router; 0 for not at all. It says nothing of the router's being
    /// there (RFC 4861 section 4.2).
    pub router_lifetime: u16,
    /// The sender's link-layer address.
    pub source: Option<LinkLayerAddress>,
}

/// Why a packet is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its hop limit is not 255, so it may come from beyond the link.
    HopLimit,
    /// An advertisement whose source is not a link-local address.
    Source,
    /// The ICMPv6 code is not 0.
    Code,
    /// It is shorter than its fixed part.
    Short,
    /// An option of no length, or of one beyond the end; or a link-layer address of a sender without an address.
    Option,
}

impl Refusal {
    /// Every one.
    pub const ALL: [Refusal; 5] =
        [Refusal::HopLimit, Refusal::Source, Refusal::Code, Refusal::Short, Refusal::Option];

    /// A word, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::HopLimit => "hopLimit",
            Refusal::Source => "source",
            Refusal::Code => "code",
            Refusal::Short => "short",
            Refusal::Option => "option",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::HopLimit => "its hop limit is not 255: it may come from beyond the link",
            Refusal::Source => "its source is not a link-local address",
            Refusal::Code => "its code is not 0",
            Refusal::Short => "it is too short",
            Refusal::Option => "an option is malformed",
        })
    }
}

impl Message {
    /// Reads a packet; `Ok(None)` is one of another type.
    pub fn decode(packet: &Packet<'_>) -> Result<Option<Message>, Refusal> {
        let payload = packet.payload;
        let Some(kind @ (SOLICITATION | ADVERTISEMENT)) = payload.first().copied() else {
            return Ok(None);
        };
        if packet.hop_limit != Some(HOP_LIMIT) {
            return Err(Refusal::HopLimit);
        }
        if payload.get(1).is_some_and(|code| *code != 0) {
            return Err(Refusal::Code);
        }
        if kind == SOLICITATION {
            let options = payload.get(SOLICITATION_LENGTH..).ok_or(Refusal::Short)?;
            let source = source_link_layer(options)?;
            if packet.source.is_unspecified() && source.is_some() {
                return Err(Refusal::Option);
            }
            return Ok(Some(Message::Solicitation { source }));
        }
        if !packet.source.is_unicast_link_local() {
            return Err(Refusal::Source);
        }
        let options = payload.get(ADVERTISEMENT_LENGTH..).ok_or(Refusal::Short)?;
        let lifetime = payload.get(6..8).and_then(|octets| octets.try_into().ok()).ok_or(Refusal::Short)?;
        let source = source_link_layer(options)?;
        let router_lifetime = u16::from_be_bytes(lifetime);
        Ok(Some(Message::Advertisement(Advertisement { router_lifetime, source })))
    }

    /// The message, with no checksum: the kernel computes it. All that is not said is unspecified (0).
    pub fn encode(&self) -> Vec<u8> {
        let (mut octets, source) = match self {
            Message::Solicitation { source } => {
                let mut octets = vec![0; SOLICITATION_LENGTH];
                octets.splice(..1, [SOLICITATION]);
                (octets, source)
            }
            Message::Advertisement(Advertisement { router_lifetime, source }) => {
                let mut octets = vec![0; ADVERTISEMENT_LENGTH];
                octets.splice(..1, [ADVERTISEMENT]);
                octets.splice(6..8, router_lifetime.to_be_bytes());
                (octets, source)
            }
        };
        if let Some(address) = source {
            octets.extend([SOURCE_LINK_LAYER, 1]);
            octets.extend(address);
        }
        octets
    }
}

/// Walks all options, since a single malformed one condemns the packet; gives the first source link-layer address of
/// Ethernet's length.
fn source_link_layer(mut options: &[u8]) -> Result<Option<LinkLayerAddress>, Refusal> {
    let mut source = None;
    while let Some((kind, rest)) = options.split_first() {
        let units = usize::from(*rest.first().ok_or(Refusal::Option)?);
        let length = units.saturating_mul(OPTION_UNIT);
        if length == 0 {
            return Err(Refusal::Option);
        }
        let (option, rest) = options.split_at_checked(length).ok_or(Refusal::Option)?;
        if *kind == SOURCE_LINK_LAYER && source.is_none() {
            source = option.get(2..).and_then(|value| value.try_into().ok());
        }
        options = rest;
    }
    Ok(source)
}
