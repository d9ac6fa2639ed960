//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760). Their errors reset the session, since without them nobody knows
//! which prefixes are meant (RFC 7606 sections 5.3 and 7.11).
use nom::{
    Parser,
    multi::length_data,
    number::complete::{be_u8, be_u16},
};

use super::{
    super::{CodecContext, Reach, Unreach, nlri, parse::Parsed},
    NextHop,
};
use crate::AfiSafi;

/// What is wrong with the attribute, and thus which subcode the NOTIFICATION has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The fields before the prefixes: Malformed Attribute List.
    Fields,
    /// The prefixes: Optional Attribute Error (RFC 4760 section 7).
    Network,
}

impl From<nlri::InvalidNetwork> for Unreadable {
    fn from(_: nlri::InvalidNetwork) -> Self {
        Unreadable::Network
    }
}

/// AFI and SAFI; `None` for those that we do not speak, whose rest is not looked at.
fn family(input: &[u8]) -> Parsed<'_, Option<AfiSafi>> {
    let (rest, (afi, safi)) = (be_u16, be_u8).parse(input)?;
    Ok((rest, AfiSafi::from_code(afi, safi)))
}

/// The value of MP_REACH_NLRI.
pub(super) fn reach(value: &[u8], context: &CodecContext) -> Result<Option<Reach>, Unreadable> {
    let (rest, family) = family(value).map_err(|_| Unreadable::Fields)?;
    let Some(family) = family else { return Ok(None) };
    let fields: Parsed<'_, (&[u8], u8)> = (length_data(be_u8), be_u8).parse(rest);
    let (prefixes, (next_hop, _reserved)) = fields.map_err(|_| Unreadable::Fields)?;
    let next_hop = NextHop::from_octets(next_hop).filter(|next_hop| match (family, next_hop) {
        (AfiSafi::Ipv4Unicast, NextHop::V4(_)) => true,
        (AfiSafi::Ipv4Unicast, NextHop::V6 { .. }) => context.ipv4_over_ipv6,
        (AfiSafi::Ipv6Unicast, NextHop::V4(_)) => false,
        (AfiSafi::Ipv6Unicast, NextHop::V6 { .. }) => true,
    });
    let next_hop = next_hop.ok_or(Unreadable::Fields)?;
    let add_path = context.add_path_receive.contains(family);
    Ok(Some(Reach { family, next_hop, nlri: nlri::decode_all(family, prefixes, add_path)? }))
}

/// The value of MP_UNREACH_NLRI.
pub(super) fn unreach(value: &[u8], context: &CodecContext) -> Result<Option<Unreach>, Unreadable> {
    let (prefixes, family) = family(value).map_err(|_| Unreadable::Fields)?;
    let Some(family) = family else { return Ok(None) };
    let add_path = context.add_path_receive.contains(family);
    Ok(Some(Unreach { family, nlri: nlri::decode_all(family, prefixes, add_path)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(afi: u8, next_hop: &[u8]) -> Vec<u8> {
        let length = u8::try_from(next_hop.len()).unwrap();
        [&[0, afi, 1, length][..], next_hop, &[0, 8, 10]].concat()
    }

    #[test]
    fn the_next_hop_length_must_suit_the_family() {
        let plain = CodecContext::default();
        let extended = CodecContext { ipv4_over_ipv6: true, ..plain };
        let ok = |afi, length: usize, context: &CodecContext| {
            reach(&value(afi, &vec![1; length]), context).map(|_| ())
        };
        assert_eq!(ok(1, 4, &plain), Ok(()));
        assert_eq!(ok(1, 16, &plain), Err(Unreadable::Fields));
        assert_eq!(ok(1, 16, &extended), Ok(()));
        assert_eq!(ok(1, 32, &extended), Ok(()));
        assert_eq!(ok(2, 4, &extended), Err(Unreadable::Fields));
        assert_eq!(ok(2, 16, &plain), Ok(()));
        assert_eq!(ok(2, 24, &plain), Err(Unreadable::Fields));
        assert_eq!(ok(2, 0, &plain), Err(Unreadable::Fields));
    }

    #[test]
    fn a_family_that_we_do_not_speak_is_not_looked_at() {
        assert_eq!(reach(&[0, 25, 70], &CodecContext::default()), Ok(None));
        assert_eq!(unreach(&[0, 25, 70, 255, 255], &CodecContext::default()), Ok(None));
        assert_eq!(unreach(&[0, 25], &CodecContext::default()), Err(Unreadable::Fields));
    }
}
