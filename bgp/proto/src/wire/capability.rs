//! Capabilities (RFC 5492) and what each means.
use bytes::{BufMut, Bytes, BytesMut};
use nom::{
    Parser,
    combinator::all_consuming,
    multi::{length_data, many0},
    number::complete::{be_u8, be_u16, be_u32},
};

use super::{
    Notification,
    iana::{capability as code, error},
    parse::{Parsed, refuse},
};
use crate::{AfiSafi, Asn};

/// One capability of an OPEN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Multiprotocol extensions (RFC 4760) for a family that we speak.
    MultiProtocol(AfiSafi),
    /// Route refresh (RFC 2918).
    RouteRefresh,
    /// Enhanced route refresh (RFC 7313).
    EnhancedRouteRefresh,
    /// Extended messages (RFC 8654).
    ExtendedMessage,
    /// Four-octet AS numbers (RFC 6793).
    FourOctetAsn(Asn),
    /// Graceful restart (RFC 4724, RFC 8538).
    GracefulRestart(GracefulRestart),
    /// IPv4 over an IPv6 next hop (RFC 8950): the families whose next hop may be IPv6.
    ExtendedNextHop(Vec<AfiSafi>),
    /// The sender's role towards us (RFC 9234).
    Role(Role),
    /// Several paths for a prefix (RFC 7911): the families that we speak, each with the directions; others are
    /// not kept.
    AddPath(Vec<AddPathFamily>),
    /// Long-lived graceful restart (RFC 9494): the families that we speak; others are not kept. Without any the
    /// sender only keeps routes of others.
    LongLivedGracefulRestart(Vec<LongLivedFamily>),
    /// Any other, or one for families that we do not speak.
    Unknown {
        /// The capability code.
        code: u8,
        /// The value.
        value: Bytes,
    },
}

/// The value of the graceful restart capability (RFC 4724 section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted.
    pub restarting: bool,
    /// N bit (RFC 8538): a NOTIFICATION does not flush.
    pub notification: bool,
    /// Restart time in seconds, up to 4095; more is written as 4095.
    pub restart_time: u16,
    /// The families that we speak, each with its F bit; others are not kept.
    pub families: Vec<GracefulRestartFamily>,
}

/// One family of the graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GracefulRestartFamily {
    /// The family.
    pub family: AfiSafi,
    /// F bit: forwarding state was preserved.
    pub forwarding_preserved: bool,
}

/// What a speaker is to its neighbour (RFC 9234 section 4.1), by its code point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// It sells transit to the neighbour.
    Provider = 0,
    /// A route server of an exchange.
    RouteServer = 1,
    /// A client of the route server.
    RouteServerClient = 2,
    /// It buys transit from the neighbour.
    Customer = 3,
    /// Neither: each exports its own customers' routes.
    Peer = 4,
}

impl Role {
    /// The role with this code.
    pub const fn from_code(code: u8) -> Option<Role> {
        match code {
            0 => Some(Role::Provider),
            1 => Some(Role::RouteServer),
            2 => Some(Role::RouteServerClient),
            3 => Some(Role::Customer),
            4 => Some(Role::Peer),
            _ => None,
        }
    }

    /// The code point.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What the neighbour must be (RFC 9234 section 4.2, table 2).
    pub const fn counterpart(self) -> Role {
        match self {
            Role::Provider => Role::Customer,
            Role::Customer => Role::Provider,
            Role::RouteServer => Role::RouteServerClient,
            Role::RouteServerClient => Role::RouteServer,
            Role::Peer => Role::Peer,
        }
    }
}

/// One family of the add-path capability (RFC 7911 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddPathFamily {
    /// The family.
    pub family: AfiSafi,
    /// The sender takes several paths.
    pub receive: bool,
    /// The sender gives several paths.
    pub send: bool,
}

/// One family of the long-lived graceful restart capability (RFC 9494 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LongLivedFamily {
    /// The family.
    pub family: AfiSafi,
    /// F bit: forwarding state was preserved.
    pub forwarding_preserved: bool,
    /// How long routes stay after the restart time, in seconds, up to 24 bits; more is written as that.
    pub stale_time: u32,
}

const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const RESTART_TIME: u16 = 0x0fff;
const FORWARDING: u8 = 0x80;
const LONGEST_STALE_TIME: u32 = 0x00ff_ffff;
const ADD_PATH_RECEIVE: u8 = 1;
const ADD_PATH_SEND: u8 = 2;

impl Capability {
    /// Writes code, length and value; nothing where the value is longer than its length octet can say.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut value = BytesMut::new();
        let code = match self {
            Capability::MultiProtocol(family) => {
                value.put_u16(family.afi());
                value.put_u8(0);
                value.put_u8(family.safi());
                code::MULTI_PROTOCOL
            }
            Capability::RouteRefresh => code::ROUTE_REFRESH,
            Capability::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Capability::ExtendedMessage => code::EXTENDED_MESSAGE,
            Capability::FourOctetAsn(asn) => {
                value.put_u32(asn.number());
                code::FOUR_OCTET_ASN
            }
            Capability::GracefulRestart(restart) => {
                restart.encode(&mut value);
                code::GRACEFUL_RESTART
            }
            Capability::ExtendedNextHop(families) => {
                for family in families {
                    value.put_u16(family.afi());
                    value.put_u16(u16::from(family.safi()));
                    value.put_u16(AfiSafi::Ipv6Unicast.afi());
                }
                code::EXTENDED_NEXT_HOP
            }
            Capability::Role(role) => {
                value.put_u8(role.code());
                code::ROLE
            }
            Capability::AddPath(families) => {
                families.iter().for_each(|family| family.encode(&mut value));
                code::ADD_PATH
            }
            Capability::LongLivedGracefulRestart(families) => {
                families.iter().for_each(|family| family.encode(&mut value));
                code::LONG_LIVED_GRACEFUL_RESTART
            }
            Capability::Unknown { code, value: raw } => {
                value.put_slice(raw);
                *code
            }
        };
        if let Ok(length) = u8::try_from(value.len()) {
            out.put_u8(code);
            out.put_u8(length);
            out.put_slice(&value);
        }
    }
}

impl GracefulRestart {
    fn encode(&self, out: &mut BytesMut) {
        let restarting = if self.restarting { RESTARTING } else { 0 };
        let notification = if self.notification { NOTIFICATION } else { 0 };
        out.put_u16(restarting | notification | self.restart_time.min(RESTART_TIME));
        for family in &self.families {
            out.put_u16(family.family.afi());
            out.put_u8(family.family.safi());
            out.put_u8(if family.forwarding_preserved { FORWARDING } else { 0 });
        }
    }
}

impl AddPathFamily {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.family.afi());
        out.put_u8(self.family.safi());
        out.put_u8(
            if self.receive { ADD_PATH_RECEIVE } else { 0 } | if self.send { ADD_PATH_SEND } else { 0 },
        );
    }
}

impl LongLivedFamily {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.family.afi());
        out.put_u8(self.family.safi());
        let forwarding = u32::from(if self.forwarding_preserved { FORWARDING } else { 0 });
        out.put_u32((forwarding << 24) | self.stale_time.min(LONGEST_STALE_TIME));
    }
}

/// One capability. A known one whose value cannot be read makes the optional parameter malformed, which is
/// OPEN Message Error / Unspecific (RFC 4271 section 6.2).
pub(super) fn parse(input: &[u8]) -> Parsed<'_, Capability> {
    let (input, code) = be_u8(input)?;
    let (input, value) = length_data(be_u8).parse(input)?;
    match all_consuming(|value| parse_value(code, value)).parse(value) {
        Ok((_, capability)) => Ok((input, capability)),
        Err(nom::Err::Failure(error)) => Err(nom::Err::Failure(error)),
        Err(_) => Err(refuse(Notification::open(error::UNSPECIFIC))),
    }
}

fn parse_value(code: u8, value: &[u8]) -> Parsed<'_, Capability> {
    match code {
        code::MULTI_PROTOCOL => {
            let (rest, (afi, _, safi)) = (be_u16, be_u8, be_u8).parse(value)?;
            let unknown = || Capability::Unknown { code, value: Bytes::copy_from_slice(value) };
            let family = AfiSafi::from_code(afi, safi);
            Ok((rest, family.map_or_else(unknown, Capability::MultiProtocol)))
        }
        code::ROUTE_REFRESH => Ok((value, Capability::RouteRefresh)),
        code::ENHANCED_ROUTE_REFRESH => Ok((value, Capability::EnhancedRouteRefresh)),
        code::EXTENDED_MESSAGE => Ok((value, Capability::ExtendedMessage)),
        code::FOUR_OCTET_ASN => {
            let (rest, number) = be_u32(value)?;
            let asn = Asn::new(number).ok_or_else(|| refuse(Notification::open(error::BAD_PEER_AS)))?;
            Ok((rest, Capability::FourOctetAsn(asn)))
        }
        code::GRACEFUL_RESTART => {
            let (rest, bits) = be_u16(value)?;
            let (rest, families) = many0((be_u16, be_u8, be_u8)).parse(rest)?;
            let family = |(afi, safi, flags): (u16, u8, u8)| {
                let forwarding_preserved = flags & FORWARDING != 0;
                AfiSafi::from_code(afi, safi)
                    .map(|family| GracefulRestartFamily { family, forwarding_preserved })
            };
            let restart = GracefulRestart {
                restarting: bits & RESTARTING != 0,
                notification: bits & NOTIFICATION != 0,
                restart_time: bits & RESTART_TIME,
                families: families.into_iter().filter_map(family).collect(),
            };
            Ok((rest, Capability::GracefulRestart(restart)))
        }
        code::EXTENDED_NEXT_HOP => {
            let (rest, tuples) = many0((be_u16, be_u16, be_u16)).parse(value)?;
            let family = |(afi, safi, next_hop): (u16, u16, u16)| {
                let ours = next_hop == AfiSafi::Ipv6Unicast.afi();
                ours.then(|| AfiSafi::from_code(afi, u8::try_from(safi).ok()?)).flatten()
            };
            Ok((rest, Capability::ExtendedNextHop(tuples.into_iter().filter_map(family).collect())))
        }
        // A role that nobody has assigned is no role of ours to judge; it is refused where one is needed.
        code::ROLE => {
            let (rest, role) = be_u8(value)?;
            let unknown = || Capability::Unknown { code, value: Bytes::copy_from_slice(value) };
            Ok((rest, Role::from_code(role).map_or_else(unknown, Capability::Role)))
        }
        code::ADD_PATH => add_path(value),
        code::LONG_LIVED_GRACEFUL_RESTART => {
            let (rest, families) = many0((be_u16, be_u8, be_u32)).parse(value)?;
            let family = |(afi, safi, bits): (u16, u8, u32)| {
                let forwarding_preserved = bits & (u32::from(FORWARDING) << 24) != 0;
                let stale_time = bits & LONGEST_STALE_TIME;
                AfiSafi::from_code(afi, safi).map(|family| LongLivedFamily {
                    family,
                    forwarding_preserved,
                    stale_time,
                })
            };
            let families = families.into_iter().filter_map(family).collect();
            Ok((rest, Capability::LongLivedGracefulRestart(families)))
        }
        _ => Ok((&[], Capability::Unknown { code, value: Bytes::copy_from_slice(value) })),
    }
}

/// RFC 7911 section 4: with a Send/Receive of anything but 1 to 3 the capability is ignored.
fn add_path(value: &[u8]) -> Parsed<'_, Capability> {
    let (rest, families) = many0((be_u16, be_u8, be_u8)).parse(value)?;
    if families.iter().any(|(_, _, directions)| !(1..=3).contains(directions)) {
        let value = Bytes::copy_from_slice(value);
        return Ok((rest, Capability::Unknown { code: code::ADD_PATH, value }));
    }
    let family = |(afi, safi, directions): (u16, u8, u8)| {
        let receive = directions & ADD_PATH_RECEIVE != 0;
        let send = directions & ADD_PATH_SEND != 0;
        AfiSafi::from_code(afi, safi).map(|family| AddPathFamily { family, receive, send })
    };
    Ok((rest, Capability::AddPath(families.into_iter().filter_map(family).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(octets: &[u8]) -> Option<Capability> {
        parse(octets).ok().map(|(_, capability)| capability)
    }

    #[test]
    fn a_known_capability_of_wrong_length_is_malformed() {
        for octets in [
            &[1, 3, 0, 1, 0][..],
            &[1, 5, 0, 1, 0, 1, 0],
            &[2, 1, 0],
            &[6, 1, 0],
            &[70, 1, 0],
            &[65, 2, 0, 1],
            &[64, 1, 0],
            &[64, 3, 0, 0, 0],
            &[64, 5, 0, 0, 0, 1, 1],
            &[5, 5, 0, 1, 0, 1, 0],
        ] {
            assert!(decode(octets).is_none(), "{octets:?}");
        }
    }

    #[test]
    fn families_that_we_do_not_speak_stay_raw_or_are_skipped() {
        let evpn = [1, 4, 0, 25, 0, 70];
        assert_eq!(
            decode(&evpn),
            Some(Capability::Unknown { code: 1, value: Bytes::from_static(&[0, 25, 0, 70]) })
        );
        let restart = decode(&[64, 10, 0xc0, 120, 0, 25, 70, 0x80, 0, 2, 1, 0x80]);
        let families =
            vec![GracefulRestartFamily { family: AfiSafi::Ipv6Unicast, forwarding_preserved: true }];
        let expected = GracefulRestart { restarting: true, notification: true, restart_time: 120, families };
        assert_eq!(restart, Some(Capability::GracefulRestart(expected)));
        let next_hop = decode(&[5, 12, 0, 1, 0, 128, 0, 2, 0, 1, 0, 1, 0, 2]);
        assert_eq!(next_hop, Some(Capability::ExtendedNextHop(vec![AfiSafi::Ipv4Unicast])));
    }
}
