//! What a Statistics Report counts (RFC 7854 section 4.8, RFC 8671 section 6.2).
use bytes::{BufMut, Bytes, BytesMut};
use nom::{
    Parser,
    combinator::all_consuming,
    number::complete::{be_u8, be_u16, be_u32, be_u64},
};

use super::tlv::Tlv;
use crate::AfiSafi;

/// One number of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// 0: prefixes that the import policy refused, counted up.
    Rejected(u32),
    /// 7: routes in Adj-RIB-In now.
    In(u64),
    /// 9: routes of a family in Adj-RIB-In now.
    InOf(AfiSafi, u64),
    /// 15: routes in Adj-RIB-Out after policy now (RFC 8671).
    Out(u64),
    /// 17: routes of a family in Adj-RIB-Out after policy now (RFC 8671).
    OutOf(AfiSafi, u64),
    /// Any other, as it came.
    Other(Tlv),
}

impl Statistic {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut value = BytesMut::new();
        let kind = match self {
            Statistic::Rejected(count) => {
                value.put_u32(*count);
                0
            }
            Statistic::In(count) => {
                value.put_u64(*count);
                7
            }
            Statistic::InOf(family, count) => {
                put_of_family(*family, *count, &mut value);
                9
            }
            Statistic::Out(count) => {
                value.put_u64(*count);
                15
            }
            Statistic::OutOf(family, count) => {
                put_of_family(*family, *count, &mut value);
                17
            }
            Statistic::Other(tlv) => return tlv.encode(out),
        };
        Tlv { kind, value: value.freeze() }.encode(out);
    }
}

impl From<Tlv> for Statistic {
    fn from(tlv: Tlv) -> Statistic {
        let value = &tlv.value;
        let known = match tlv.kind {
            0 => four(value).map(Statistic::Rejected),
            7 => eight(value).map(Statistic::In),
            9 => of_family(value).map(|(family, count)| Statistic::InOf(family, count)),
            15 => eight(value).map(Statistic::Out),
            17 => of_family(value).map(|(family, count)| Statistic::OutOf(family, count)),
            _ => None,
        };
        known.unwrap_or(Statistic::Other(tlv))
    }
}

fn put_of_family(family: AfiSafi, count: u64, value: &mut BytesMut) {
    value.put_u16(family.afi());
    value.put_u8(family.safi());
    value.put_u64(count);
}

fn four(value: &Bytes) -> Option<u32> {
    all_consuming(be_u32::<_, nom::error::Error<&[u8]>>).parse(value).ok().map(|(_, count)| count)
}

fn eight(value: &Bytes) -> Option<u64> {
    all_consuming(be_u64::<_, nom::error::Error<&[u8]>>).parse(value).ok().map(|(_, count)| count)
}

/// `None` for a family that we do not know, too.
fn of_family(value: &Bytes) -> Option<(AfiSafi, u64)> {
    let mut parser = all_consuming((be_u16::<_, nom::error::Error<&[u8]>>, be_u8, be_u64));
    let (_, (afi, safi, count)) = parser.parse(value).ok()?;
    Some((AfiSafi::from_code(afi, safi)?, count))
}
