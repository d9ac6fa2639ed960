//! Parsers that several messages share.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, Bytes, BytesMut};
use nom::{
    Parser,
    bytes::complete::take,
    combinator::all_consuming,
    error::{Error, ErrorKind},
    number::complete::be_u128,
};

use super::Malformed;
use crate::wire::{Frame, frame, iana::MessageType};

pub(super) type Parsed<'a, T> = nom::IResult<&'a [u8], T>;

/// The value where `parser` takes all of `input`.
pub(super) fn whole<'a, T>(
    what: &'static str,
    parser: impl Parser<&'a [u8], Output = T, Error = Error<&'a [u8]>>,
    input: &'a [u8],
) -> Result<T, Malformed> {
    all_consuming(parser).parse(input).map(|(_, value)| value).map_err(|_| Malformed::Part(what))
}

/// An address in 16 octets: IPv4 stands in the last four (RFC 7854 section 4.2).
pub(super) fn address(v6: bool, input: &[u8]) -> Parsed<'_, IpAddr> {
    let (input, bits) = be_u128(input)?;
    // The low half of a half: IPv4 is what is left of the truncation.
    let address = if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() };
    Ok((input, address))
}

pub(super) fn put_address(address: IpAddr, out: &mut BytesMut) {
    out.put_u128(match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    });
}

/// One whole BGP message of this kind, as octets.
pub(super) fn bgp_message(kind: MessageType, input: &[u8]) -> Parsed<'_, Bytes> {
    let refused = || nom::Err::Failure(Error::new(input, ErrorKind::Verify));
    // The length stands behind the marker; a whole frame is checked by the reader of BGP itself.
    let length = match input.get(16..18) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => return Err(refused()),
    };
    let (rest, octets) = take(length).parse(input)?;
    let mut buffer = BytesMut::from(octets);
    match Frame::poll(&mut buffer, frame::MAX_EXTENDED_LENGTH) {
        Ok(Some(frame)) if frame.kind == kind => Ok((rest, Bytes::copy_from_slice(octets))),
        Ok(_) | Err(_) => Err(refused()),
    }
}
