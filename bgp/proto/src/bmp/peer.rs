//! The header that says which peer, and which of its RIBs, a message is about (RFC 7854 section 4.2).
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use nom::{
    Parser,
    error::{Error, ErrorKind},
    number::complete::{be_u8, be_u32, be_u64},
};

use super::parse::{Parsed, address, put_address};

/// The peer's address is an IPv6 one.
const IPV6: u8 = 0x80;
/// The RIB is the one after policy.
const POST_POLICY: u8 = 0x40;
/// AS_PATH and AGGREGATOR are in the form of two octets.
const TWO_OCTETS: u8 = 0x20;
/// The RIB is Adj-RIB-Out (RFC 8671 section 4).
const OUT: u8 = 0x10;

/// The kind of a peer. That of a Loc-RIB (RFC 9069) is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PeerKind {
    /// Of the router's one table.
    Global = 0,
    /// Of a VRF with a route distinguisher.
    RouteDistinguisher = 1,
    /// Of an instance that is local to the router.
    Local = 2,
}

/// Which of the peer's RIBs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rib {
    /// What the peer sent.
    InPrePolicy,
    /// What of that our policy accepted, as it left it.
    InPostPolicy,
    /// What the peer would be told without our policy (RFC 8671).
    OutPrePolicy,
    /// What the peer is told (RFC 8671).
    OutPostPolicy,
}

/// The per-peer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerHeader {
    /// The kind of the peer.
    pub kind: PeerKind,
    /// The RIB; in messages that are not about routes [`Rib::InPrePolicy`], which has no flags.
    pub rib: Rib,
    /// The UPDATE has AS numbers of two octets, as the session has.
    pub two_octet_as_path: bool,
    /// The route distinguisher or the instance; 0 for [`PeerKind::Global`].
    pub distinguisher: u64,
    /// The peer's end of the TCP connection.
    pub address: IpAddr,
    /// The peer's AS.
    pub asn: u32,
    /// The peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// When the routes came or went, or what the message tells happened, since 1970, in whole microseconds; `None`
    /// where it is not known.
    pub timestamp: Option<Duration>,
}

impl PeerHeader {
    pub(super) fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let rib = match self.rib {
            Rib::InPrePolicy => 0,
            Rib::InPostPolicy => POST_POLICY,
            Rib::OutPrePolicy => OUT,
            Rib::OutPostPolicy => OUT | POST_POLICY,
        };
        let v6 = if self.is_ipv6() { IPV6 } else { 0 };
        let two_octets = if self.two_octet_as_path { TWO_OCTETS } else { 0 };
        out.put_u8(self.kind as u8);
        out.put_u8(v6 | rib | two_octets);
        out.put_u64(self.distinguisher);
        put_address(self.address, out);
        out.put_u32(self.asn);
        out.put_u32(self.router_id.to_bits());
        let timestamp = self.timestamp.unwrap_or_default();
        // Good until 2106; beyond it the time is not known.
        let seconds = u32::try_from(timestamp.as_secs());
        out.put_u32(seconds.unwrap_or_default());
        out.put_u32(if seconds.is_ok() { timestamp.subsec_micros() } else { 0 });
    }
}

pub(super) fn parse(input: &[u8]) -> Parsed<'_, PeerHeader> {
    let (rest, (kind, flags)) = (be_u8, be_u8).parse(input)?;
    let kind = match kind {
        0 => PeerKind::Global,
        1 => PeerKind::RouteDistinguisher,
        2 => PeerKind::Local,
        _ => return Err(nom::Err::Failure(Error::new(input, ErrorKind::Tag))),
    };
    let rib = match (flags & OUT != 0, flags & POST_POLICY != 0) {
        (false, false) => Rib::InPrePolicy,
        (false, true) => Rib::InPostPolicy,
        (true, false) => Rib::OutPrePolicy,
        (true, true) => Rib::OutPostPolicy,
    };
    let (rest, distinguisher) = be_u64(rest)?;
    let (rest, address) = address(flags & IPV6 != 0, rest)?;
    let (rest, (asn, router_id, seconds, micros)) = (be_u32, be_u32, be_u32, be_u32).parse(rest)?;
    // A million microseconds or more make no sense; a second is not added for them.
    let micros = Duration::from_micros(u64::from(micros.min(999_999)));
    let timestamp = Duration::from_secs(u64::from(seconds)).saturating_add(micros);
    let header = PeerHeader {
        kind,
        rib,
        two_octet_as_path: flags & TWO_OCTETS != 0,
        distinguisher,
        address,
        asn,
        router_id: Ipv4Addr::from_bits(router_id),
        timestamp: Some(timestamp).filter(|timestamp| !timestamp.is_zero()),
    };
    Ok((rest, header))
}
