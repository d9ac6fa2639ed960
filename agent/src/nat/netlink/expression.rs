//! One step of a rule as the kernel reads it (nf_tables.h, `enum nft_*_attributes`).
use super::{
    kernel::{
        NF_ACCEPT, NF_DROP, NFPROTO_IPV4, NFPROTO_IPV6, NFT_OBJECT_COUNTER, NFTA_DATA_VALUE,
        NFTA_DATA_VERDICT, NFTA_LIST_ELEM, NFTA_VERDICT_CODE,
    },
    wire::Writer,
};
use crate::nat::ruleset::{Comparison, Expression, Family};

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

/// The register of verdicts, and the one of 16 bytes that all our steps use.
const VERDICT: u32 = 0;
const VALUE: u32 = 1;

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_FLAG_DADDR: u32 = 1 << 1;
const LOOKUP_INVERT: u32 = 1;
const NAT_SNAT: u32 = 0;

/// Appends the step to a rule's list.
pub(super) fn write(writer: &mut Writer, expression: &Expression) {
    match expression {
        Expression::NetworkFamily => meta(writer, META_NFPROTO),
        Expression::TransportProtocol => meta(writer, META_L4PROTO),
        Expression::Mark => meta(writer, META_MARK),
        Expression::Incoming => meta(writer, META_IIFNAME),
        // 3: the register to take it from.
        Expression::SetMark => step(writer, "meta", |w| numbers(w, [(2, META_MARK), (3, VALUE)])),
        Expression::Source(family) => {
            let (offset, length) = match family {
                Family::V4 => (12, 4),
                Family::V6 => (8, 16),
            };
            payload(writer, PAYLOAD_NETWORK_HEADER, offset, length);
        }
        Expression::Destination(family) => {
            let (offset, length) = match family {
                Family::V4 => (16, 4),
                Family::V6 => (24, 16),
            };
            payload(writer, PAYLOAD_NETWORK_HEADER, offset, length);
        }
        Expression::IcmpType => payload(writer, PAYLOAD_TRANSPORT_HEADER, 0, 1),
        Expression::FlowDirection => step(writer, "ct", |w| numbers(w, [(1, VALUE), (2, CT_DIRECTION)])),
        Expression::FlowStatus => step(writer, "ct", |w| numbers(w, [(1, VALUE), (2, CT_STATUS)])),
        Expression::DestinationType => step(writer, "fib", |w| {
            numbers(w, [(1, VALUE), (2, FIB_RESULT_ADDRTYPE), (3, FIB_FLAG_DADDR)]);
        }),
        Expression::Compare(comparison, value) => step(writer, "cmp", |w| {
            let operator = match comparison {
                Comparison::Equal => 0,
                Comparison::NotEqual => 1,
                Comparison::AtMost => 3,
                Comparison::AtLeast => 5,
            };
            numbers(w, [(1, VALUE), (2, operator)]);
            w.nest(3, |w| w.bytes_of(NFTA_DATA_VALUE, value));
        }),
        Expression::Bits { mask, bits } => step(writer, "bitwise", |w| {
            numbers(w, [(1, VALUE), (2, VALUE), (3, 4)]);
            w.nest(4, |w| w.bytes_of(NFTA_DATA_VALUE, &mask.to_ne_bytes()));
            w.nest(5, |w| w.bytes_of(NFTA_DATA_VALUE, &bits.to_ne_bytes()));
        }),
        Expression::In { set, not } => step(writer, "lookup", |w| {
            w.text(1, set);
            w.number(2, VALUE);
            if *not {
                w.number(5, LOOKUP_INVERT);
            }
        }),
        Expression::Map(map) => lookup_into(writer, map, VALUE),
        Expression::GotoMap(map) => lookup_into(writer, map, VERDICT),
        Expression::Count(counter) => step(writer, "objref", |w| {
            w.number(1, NFT_OBJECT_COUNTER);
            w.text(2, counter);
        }),
        Expression::CountMap(map) => step(writer, "objref", |w| {
            // The register with the key, and the map.
            w.number(3, VALUE);
            w.text(4, map);
        }),
        Expression::Snat(family) => step(writer, "nat", |w| {
            let family = match family {
                Family::V4 => NFPROTO_IPV4,
                Family::V6 => NFPROTO_IPV6,
            };
            numbers(w, [(1, NAT_SNAT), (2, family.into()), (3, VALUE)]);
        }),
        Expression::Accept => verdict(writer, NF_ACCEPT),
        Expression::Drop => verdict(writer, NF_DROP),
    }
}

fn step(writer: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    writer.nest(NFTA_LIST_ELEM, |writer| {
        writer.text(NFTA_EXPR_NAME, name);
        writer.nest(NFTA_EXPR_DATA, body);
    });
}

fn numbers<const N: usize>(writer: &mut Writer, numbers: [(u16, u32); N]) {
    numbers.iter().for_each(|(kind, number)| writer.number(*kind, *number));
}

fn meta(writer: &mut Writer, key: u32) {
    step(writer, "meta", |w| numbers(w, [(2, key), (1, VALUE)]));
}

fn payload(writer: &mut Writer, base: u32, offset: u32, length: u32) {
    step(writer, "payload", |w| numbers(w, [(1, VALUE), (2, base), (3, offset), (4, length)]));
}

fn lookup_into(writer: &mut Writer, map: &str, register: u32) {
    step(writer, "lookup", |w| {
        w.text(1, map);
        numbers(w, [(2, VALUE), (3, register)]);
    });
}

fn verdict(writer: &mut Writer, code: u32) {
    step(writer, "immediate", |w| {
        w.number(1, VERDICT);
        w.nest(2, |w| w.nest(NFTA_DATA_VERDICT, |w| w.number(NFTA_VERDICT_CODE, code)));
    });
}
