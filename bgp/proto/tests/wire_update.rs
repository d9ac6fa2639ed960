//! UPDATEs from writing to reading: packing, both families, End-of-RIB.
use std::sync::Arc;

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Asn, Prefix,
    wire::{
        AsPath, CodecContext, EncodedAttributes, Frame, Message, NextHop, Nlri, PathAttributes, Reach,
        Unencodable, Unreach, Update, write_end_of_rib, write_reach, write_withdraw,
    },
};

fn attributes() -> PathAttributes {
    PathAttributes { as_path: AsPath::sequence([Asn::new(64512).unwrap()]), ..PathAttributes::default() }
}

fn decode(mut octets: BytesMut, context: &CodecContext) -> Vec<Update> {
    let mut updates = Vec::new();
    while let Some(frame) = Frame::poll(&mut octets, context.max_message_length).unwrap() {
        match Message::decode(frame, context).unwrap() {
            Message::Update(update, findings) => {
                assert_eq!(findings, [], "{update:?}");
                updates.push(update);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(octets.is_empty());
    updates
}

fn hosts(family: AfiSafi, count: u32) -> Vec<Prefix> {
    let address = |n: u32| match family {
        AfiSafi::Ipv4Unicast => std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(),
        AfiSafi::Ipv6Unicast => std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n)).into(),
    };
    (0..count).map(|n| Prefix::host(address(n))).collect()
}

fn v6() -> NextHop {
    NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: Some("fe80::1".parse().unwrap()) }
}

/// Writes all of `prefixes`, in as many messages as that takes.
fn pack(
    family: AfiSafi,
    prefixes: &[Prefix],
    mut write: impl FnMut(AfiSafi, &[Prefix], &mut BytesMut) -> usize,
) -> BytesMut {
    let mut out = BytesMut::new();
    let mut rest = prefixes;
    while !rest.is_empty() {
        let count = write(family, rest, &mut out);
        assert_ne!(count, 0);
        rest = &rest[count..];
    }
    out
}

#[test]
fn every_prefix_arrives_once_in_full_messages() {
    let v4 = NextHop::V4("192.0.2.1".parse().unwrap());
    let plain = CodecContext::default();
    let large = CodecContext { max_message_length: 65535, ..plain };
    let over_v6 = CodecContext { ipv4_over_ipv6: true, ..plain };
    // The messages that 10,000 host routes need: (4096 - overhead) / 5 or / 17 each.
    for (family, next_hop, context, messages) in [
        (AfiSafi::Ipv4Unicast, v4, plain, 13),
        (AfiSafi::Ipv4Unicast, v4, large, 1),
        (AfiSafi::Ipv4Unicast, v6(), over_v6, 13),
        (AfiSafi::Ipv6Unicast, v6(), plain, 43),
        (AfiSafi::Ipv6Unicast, v6(), large, 3),
    ] {
        let prefixes = hosts(family, 10_000);
        let encoded = EncodedAttributes::new(&attributes(), &context);
        let octets = pack(family, &prefixes, |family, rest, out| {
            write_reach(family, &encoded, &next_hop, rest, &context, out)
        });
        let updates = decode(octets, &context);
        assert_eq!(updates.len(), messages, "{family} {context:?}");
        let mut arrived = Vec::new();
        for update in updates {
            assert_eq!(*update.attributes, attributes());
            assert!(update.unreach.is_empty() && update.reach.len() == 1);
            assert_eq!((update.reach[0].family, update.reach[0].next_hop), (family, next_hop));
            arrived.extend(update.reach[0].nlri.iter().map(|nlri| nlri.prefix));
        }
        assert_eq!(arrived, prefixes);

        let octets = pack(family, &prefixes, |family, rest, out| write_withdraw(family, rest, &context, out));
        let updates = decode(octets, &context);
        let withdrawn: Vec<Prefix> =
            updates.iter().flat_map(|update| &update.unreach[0].nlri).map(|nlri| nlri.prefix).collect();
        assert!(updates.iter().all(|update| update.reach.is_empty() && update.end_of_rib.is_none()));
        assert_eq!(withdrawn, prefixes);
    }
}

#[test]
fn end_of_rib_is_read_for_both_families() {
    for family in AfiSafi::ALL {
        let mut out = BytesMut::new();
        write_end_of_rib(family, &mut out);
        let [update] = &decode(out, &CodecContext::default())[..] else { panic!("one message") };
        assert_eq!(update.end_of_rib, Some(family));
        assert!(update.reach.is_empty() && update.unreach.is_empty());
    }
}

#[test]
fn what_cannot_be_announced_leaves_the_buffer_alone() {
    let context = CodecContext::default();
    let encoded = EncodedAttributes::new(&attributes(), &context);
    let mut out = BytesMut::from(&b"before"[..]);
    let v4 = NextHop::V4("192.0.2.1".parse().unwrap());
    let ipv6 = hosts(AfiSafi::Ipv6Unicast, 1);
    assert_eq!(write_reach(AfiSafi::Ipv6Unicast, &encoded, &v4, &ipv6, &context, &mut out), 0);
    assert_eq!(write_reach(AfiSafi::Ipv4Unicast, &encoded, &v4, &ipv6, &context, &mut out), 0);
    assert_eq!(write_withdraw(AfiSafi::Ipv4Unicast, hosts(AfiSafi::Ipv4Unicast, 0), &context, &mut out), 0);
    let path = AsPath::sequence((1..2000).filter_map(Asn::new));
    let long = EncodedAttributes::new(&PathAttributes { as_path: path, ..attributes() }, &context);
    for family in AfiSafi::ALL {
        assert_eq!(write_reach(family, &long, &v6(), hosts(family, 1), &context, &mut out), 0);
    }
    assert_eq!(&out[..], b"before");
}

#[test]
fn an_update_that_needs_two_messages_is_not_encoded() {
    let reach = |family, next_hop| Reach {
        family,
        next_hop,
        nlri: hosts(family, 1).iter().map(Nlri::from).collect(),
    };
    let update = |reach| Update { reach, attributes: Arc::new(attributes()), ..Update::default() };
    let context = CodecContext::default();
    let mut out = BytesMut::new();
    let twice = vec![reach(AfiSafi::Ipv4Unicast, v6()), reach(AfiSafi::Ipv6Unicast, v6())];
    assert_eq!(update(twice).encode(&context, &mut out), Err(Unencodable::NotOneMessage));
    let v4 = NextHop::V4("192.0.2.1".parse().unwrap());
    let odd = vec![reach(AfiSafi::Ipv6Unicast, v4)];
    assert_eq!(update(odd).encode(&context, &mut out), Err(Unencodable::NextHop));
    let mut long = reach(AfiSafi::Ipv4Unicast, v4);
    long.nlri = hosts(AfiSafi::Ipv4Unicast, 1000).iter().map(Nlri::from).collect();
    assert_eq!(update(vec![long]).encode(&context, &mut out), Err(Unencodable::TooLong));
    assert!(out.is_empty());
}

#[test]
fn an_update_without_a_prefix_does_not_become_an_end_of_rib() {
    let (family, next_hop) = (AfiSafi::Ipv6Unicast, v6());
    let context = CodecContext::default();
    let mut out = BytesMut::new();
    let nothing = Update {
        unreach: vec![Unreach { family, nlri: vec![] }],
        reach: vec![Reach { family, next_hop, nlri: vec![] }],
        ..Update::default()
    };
    assert_eq!(Update::default().encode(&context, &mut out), Err(Unencodable::Empty));
    assert_eq!(nothing.encode(&context, &mut out), Err(Unencodable::Empty));
    assert!(out.is_empty());
}
