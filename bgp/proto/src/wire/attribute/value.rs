//! The values of single attributes, and what is wrong with those that cannot be read (RFC 7606 section 7).
use std::net::Ipv4Addr;

use super::{
    super::{CodecContext, Verdict, iana::error},
    Aggregator, AsPath, Origin,
};
use crate::{Asn, LargeCommunity};

/// One thing wrong with an attribute.
pub(super) struct Fault {
    pub(super) verdict: Verdict,
    /// Of UPDATE Message Error, in case the session has to be reset.
    pub(super) subcode: u8,
    pub(super) reason: &'static str,
}

pub(super) const fn withdraw(subcode: u8, reason: &'static str) -> Fault {
    Fault { verdict: Verdict::TreatAsWithdraw, subcode, reason }
}

pub(super) const fn discard(reason: &'static str) -> Fault {
    Fault { verdict: Verdict::DiscardAttribute, subcode: error::OPTIONAL_ATTRIBUTE, reason }
}

const WRONG_LENGTH: Fault = withdraw(error::ATTRIBUTE_LENGTH, "wrong attribute length (RFC 7606 section 7)");

pub(super) fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], Fault> {
    value.try_into().map_err(|_| WRONG_LENGTH)
}

/// At least one item of `N` octets, and nothing left over.
pub(super) fn list<const N: usize, T>(value: &[u8], item: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Fault> {
    match value.as_chunks::<N>() {
        (items @ [_, ..], []) => Ok(items.iter().map(|octets| item(*octets)).collect()),
        _ => Err(WRONG_LENGTH),
    }
}

pub(super) fn origin(value: &[u8]) -> Result<Origin, Fault> {
    match fixed::<1>(value)? {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        _ => Err(withdraw(error::INVALID_ORIGIN, "undefined ORIGIN (RFC 7606 section 7.1)")),
    }
}

pub(super) fn as_path(value: &[u8], context: &CodecContext) -> Result<AsPath, Fault> {
    let malformed = |reason| withdraw(error::MALFORMED_AS_PATH, reason);
    let path = AsPath::decode(value, context.four_octet_asn).map_err(malformed)?;
    if path.has_confederation() && !context.internal {
        return Err(malformed("confederation segment from outside (RFC 5065 section 5)"));
    }
    Ok(path)
}

/// RFC 7606 section 7.7, RFC 7607 section 2.
pub(super) fn aggregator(value: &[u8], four_octets: bool) -> Result<Aggregator, Fault> {
    let (number, address) = match (value, four_octets) {
        (&[a, b, c, d, ref address @ ..], true) => (u32::from_be_bytes([a, b, c, d]), address),
        (&[a, b, ref address @ ..], false) => (u32::from(u16::from_be_bytes([a, b])), address),
        _ => (0, value),
    };
    let address: [u8; 4] =
        address.try_into().map_err(|_| discard("wrong AGGREGATOR length (RFC 7606 section 7.7)"))?;
    let asn = Asn::new(number).ok_or(discard("AS 0 in AGGREGATOR (RFC 7607 section 2)"))?;
    Ok(Aggregator { asn, address: Ipv4Addr::from(address) })
}

pub(super) fn large_community(octets: [u8; 12]) -> LargeCommunity {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = octets;
    LargeCommunity {
        global: u32::from_be_bytes([a, b, c, d]),
        local1: u32::from_be_bytes([e, f, g, h]),
        local2: u32::from_be_bytes([i, j, k, l]),
    }
}
