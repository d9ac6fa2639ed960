//! Whatever can be built can be written, and is read back as the same; and no octets at all bring the decoder
//! down or make it hold more than they say.
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use plainroute_bgp::{
    AfiSafi, Asn, Community, ExtendedCommunity, Families, HoldTime, LargeCommunity, Prefix, RouterId,
    wire::{
        AddPathFamily, Aggregator, AsPath, AsPathSegment, Capability, CodecContext, EncodedAttributes, Frame,
        GracefulRestart, GracefulRestartFamily, LongLivedFamily, Message, NextHop, Nlri, Notification, Open,
        Origin, PathAttributes, RawAttribute, Reach, Role, RouteRefresh, SegmentKind, Unreach, Update,
        iana::{MessageType, attribute as code},
        write_reach, write_withdraw,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=65535_u32, 1..=u32::MAX].prop_map(|number| Asn::new(number).unwrap())
}

fn family() -> impl Strategy<Value = AfiSafi> {
    select(&AfiSafi::ALL[..])
}

fn octets(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), length).prop_map(Bytes::from)
}

/// A unicast prefix.
fn prefix(family: AfiSafi) -> BoxedStrategy<Prefix> {
    match family {
        AfiSafi::Ipv4Unicast => {
            let address = (0..0xe000_0000_u32).prop_map(Ipv4Addr::from_bits);
            (address, 0..=32_u8).prop_map(|(address, length)| Prefix::v4(address, length).unwrap()).boxed()
        }
        AfiSafi::Ipv6Unicast => {
            let address = (0..0xfe00_u128 << 112).prop_map(Ipv6Addr::from_bits);
            (address, 0..=128_u8).prop_map(|(address, length)| Prefix::v6(address, length).unwrap()).boxed()
        }
    }
}

/// With path identifiers where the session has them.
fn nlri(family: AfiSafi, add_path: Families) -> impl Strategy<Value = Vec<Nlri>> {
    let with_id = add_path.contains(family);
    let one = (prefix(family), any::<u32>())
        .prop_map(move |(prefix, id)| Nlri { prefix, path_id: with_id.then_some(id) });
    vec(one, 1..40)
}

fn next_hop_v4() -> impl Strategy<Value = NextHop> {
    any::<u32>()
        .prop_map(|bits| NextHop::V4(Ipv4Addr::from_bits(bits)))
        .prop_filter("a host", |next_hop| !next_hop.is_martian())
}

fn next_hop_v6() -> impl Strategy<Value = NextHop> {
    let link_local = || any::<u64>().prop_map(|host| Ipv6Addr::from_bits((0xfe80 << 112) | u128::from(host)));
    let global = any::<u64>().prop_map(|host| Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(host)));
    prop_oneof![
        (global, option::of(link_local()))
            .prop_map(|(global, link_local)| NextHop::V6 { global, link_local }),
        link_local().prop_map(|global| NextHop::V6 { global, link_local: None }),
    ]
}

fn capability() -> impl Strategy<Value = Capability> {
    let restart_family = (family(), any::<bool>())
        .prop_map(|(family, forwarding_preserved)| GracefulRestartFamily { family, forwarding_preserved });
    let restart = (any::<bool>(), any::<bool>(), 0..4096_u16, vec(restart_family, 0..3)).prop_map(
        |(restarting, notification, restart_time, families)| {
            Capability::GracefulRestart(GracefulRestart { restarting, notification, restart_time, families })
        },
    );
    let add_path = (family(), 1..=3_u8).prop_map(|(family, directions)| AddPathFamily {
        family,
        receive: directions & 1 != 0,
        send: directions & 2 != 0,
    });
    let long_lived = (family(), any::<bool>(), 0..0x0100_0000_u32).prop_map(
        |(family, forwarding_preserved, stale_time)| LongLivedFamily {
            family,
            forwarding_preserved,
            stale_time,
        },
    );
    let unknown =
        (72..=255_u8, octets(0..=255)).prop_map(|(code, value)| Capability::Unknown { code, value });
    prop_oneof![
        family().prop_map(Capability::MultiProtocol),
        Just(Capability::RouteRefresh),
        Just(Capability::EnhancedRouteRefresh),
        Just(Capability::ExtendedMessage),
        restart,
        vec(family(), 0..3).prop_map(Capability::ExtendedNextHop),
        (0..=4_u8).prop_map(|code| Capability::Role(Role::from_code(code).unwrap())),
        vec(add_path, 0..3).prop_map(Capability::AddPath),
        vec(long_lived, 0..3).prop_map(Capability::LongLivedGracefulRestart),
        unknown,
    ]
}

fn open() -> impl Strategy<Value = Open> {
    let hold_time = any::<u16>().prop_filter_map("a hold time", HoldTime::new);
    (asn(), hold_time, 1..=u32::MAX, vec(capability(), 0..12), any::<bool>()).prop_map(
        |(asn, hold_time, router_id, mut capabilities, say_asn)| {
            // A wide number is lost without the capability, as the RFC says.
            if say_asn || asn.number() > 65535 {
                capabilities.push(Capability::FourOctetAsn(asn));
            }
            Open { asn, hold_time, router_id: RouterId::new(router_id).unwrap(), capabilities }
        },
    )
}

fn as_path(confederations: bool) -> impl Strategy<Value = AsPath> {
    // A set longer than 255 has no wire form of its own; a sequence has.
    let segment = select(&[SegmentKind::Set, SegmentKind::Sequence][..]).prop_flat_map(|kind| {
        let longest: usize = if kind == SegmentKind::Sequence { 300 } else { 255 };
        let count = prop_oneof![9 => 1..6_usize, 1 => 250..=longest];
        count.prop_flat_map(move |count| vec(asn(), count).prop_map(move |asns| AsPathSegment { kind, asns }))
    });
    let confed = select(&[SegmentKind::ConfedSequence, SegmentKind::ConfedSet][..]);
    // AS4_PATH must not carry a confederation, so that wide numbers within are lost to an OLD speaker.
    let narrow = (1..=65535_u32).prop_map(|number| Asn::new(number).unwrap());
    let confed = (confed, vec(narrow, 1..4)).prop_map(|(kind, asns)| AsPathSegment { kind, asns });
    (option::of(confed), vec(segment, 0..3)).prop_map(move |(confed, segments)| {
        let mut segments: Vec<_> = confed.filter(|_| confederations).into_iter().chain(segments).collect();
        // Two sequences side by side are one.
        segments.dedup_by(|a, b| a.kind == SegmentKind::Sequence && b.kind == SegmentKind::Sequence);
        AsPath { segments }
    })
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}

fn raw() -> impl Strategy<Value = RawAttribute> {
    (prop_oneof![Just(24_u8), 41..=255_u8], octets(0..300)).prop_map(|(code, value)| RawAttribute {
        flags: 0xe0,
        code,
        value,
    })
}

fn attributes(context: CodecContext) -> impl Strategy<Value = PathAttributes> {
    let internal = context.internal;
    let origin = select(&[Origin::Igp, Origin::Egp, Origin::Incomplete][..]);
    let aggregator =
        (asn(), any::<u32>()).prop_map(|(asn, bits)| Aggregator { asn, address: Ipv4Addr::from_bits(bits) });
    // AS_TRANS in AGGREGATOR means that AS4_AGGREGATOR follows, which it does only for a wide number.
    let aggregator = option::of(aggregator.prop_filter("no AS_TRANS", |a| a.asn != Asn::TRANS));
    let first =
        (origin, as_path(internal), option::of(any::<u32>()), any::<u32>(), any::<bool>(), aggregator);
    let large = any::<(u32, u32, u32)>().prop_map(|(global, local1, local2)| LargeCommunity {
        global,
        local1,
        local2,
    });
    let lists = (
        vec(any::<u32>().prop_map(Community), 0..80).prop_map(sorted),
        vec(any::<[u8; 8]>().prop_map(ExtendedCommunity), 0..40).prop_map(sorted),
        vec(large, 0..30).prop_map(sorted),
        vec(any::<u32>().prop_map(Ipv4Addr::from_bits), 0..4),
        vec(raw(), 0..3).prop_map(|list| {
            let mut list = sorted(list);
            list.dedup_by_key(|raw| raw.code);
            list
        }),
    );
    let last = (option::of(any::<u32>().prop_map(Ipv4Addr::from_bits)), option::of(asn()));
    (first, lists, last).prop_map(move |(first, lists, (originator_id, only_to_customer))| {
        let (origin, as_path, med, local_pref, atomic_aggregate, aggregator) = first;
        let (communities, extended_communities, large_communities, cluster_list, unknown) = lists;
        PathAttributes {
            origin,
            as_path,
            med,
            local_pref: internal.then_some(local_pref),
            atomic_aggregate,
            aggregator,
            communities,
            extended_communities,
            large_communities,
            originator_id: originator_id.filter(|_| internal),
            cluster_list: if internal { cluster_list } else { Vec::new() },
            only_to_customer,
            unknown,
        }
    })
}

fn context() -> impl Strategy<Value = CodecContext> {
    any::<[bool; 4]>().prop_map(|[four_octet_asn, internal, ipv4_over_ipv6, add_path]| {
        let add_path = if add_path { Families::ALL } else { Families::NONE };
        CodecContext {
            four_octet_asn,
            internal,
            max_message_length: 65535,
            ipv4_over_ipv6,
            add_path_receive: add_path,
            add_path_send: add_path,
            enhanced_refresh: false,
        }
    })
}

/// An update that fits one message: up to one of each field.
fn update(context: CodecContext) -> impl Strategy<Value = Update> {
    let ids = context.add_path_send;
    let unreach = |family| option::of(nlri(family, ids).prop_map(move |nlri| Unreach { family, nlri }));
    let reach = |family, next_hop: BoxedStrategy<NextHop>| {
        option::of((nlri(family, ids), next_hop).prop_map(move |(nlri, next_hop)| Reach {
            family,
            next_hop,
            nlri,
        }))
    };
    let (four, six) = (AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast);
    let mp_family = if context.ipv4_over_ipv6 { four } else { six };
    (
        (unreach(four), unreach(six)),
        (reach(four, next_hop_v4().boxed()), reach(mp_family, next_hop_v6().boxed())),
        attributes(context),
    )
        .prop_map(|((unreach4, unreach6), (classic, mp), attributes)| {
            let reach: Vec<Reach> = classic.into_iter().chain(mp).collect();
            let attributes = Arc::new(if reach.is_empty() { PathAttributes::default() } else { attributes });
            let unreach = unreach4.into_iter().chain(unreach6).collect();
            Update { unreach, reach, attributes, end_of_rib: None }
        })
        // Empty, it would be the End-of-RIB of IPv4.
        .prop_filter("says something", |update| !update.reach.is_empty() || !update.unreach.is_empty())
}

fn round_trip(message: &Message, context: &CodecContext) -> Message {
    let mut out = BytesMut::new();
    message.encode(context, &mut out).unwrap();
    let frame = Frame::poll(&mut out, context.max_message_length).unwrap().unwrap();
    assert!(out.is_empty());
    Message::decode(frame, context).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn open_comes_back(open in open()) {
        let message = Message::Open(open);
        prop_assert_eq!(round_trip(&message, &CodecContext::default()), message);
    }

    #[test]
    fn notification_comes_back(code: u8, subcode: u8, data in octets(0..4075)) {
        let message = Message::Notification(Notification { code, subcode, data });
        prop_assert_eq!(round_trip(&message, &CodecContext::default()), message.clone());
        let Message::Notification(notification) = message else { panic!("as built") };
        prop_assert!(notification.to_string().len() < 1200, "an operator reads it");
    }

    #[test]
    fn refresh_comes_back(family in family(), subtype: u8) {
        let message = Message::RouteRefresh(RouteRefresh { family, subtype });
        prop_assert_eq!(round_trip(&message, &CodecContext::default()), message);
    }

    #[test]
    fn update_comes_back((context, update) in context().prop_flat_map(|c| (Just(c), update(c)))) {
        let message = Message::Update(update, Vec::new());
        prop_assert_eq!(round_trip(&message, &context), message);
    }

    /// The packing functions say how many prefixes went, and those arrive, in a message that is no longer than
    /// allowed and has no room for another.
    #[test]
    fn what_is_packed_arrives(
        (context, family, prefixes) in (context(), family())
            .prop_flat_map(|(context, family)| (Just(context), Just(family), vec(prefix(family), 1..1500))),
        small in 60..4096_usize,
        next_hop in next_hop_v6(),
    ) {
        let context = CodecContext { max_message_length: small, ipv4_over_ipv6: true, ..context };
        let local_pref = context.internal.then_some(100);
        let attributes = PathAttributes { local_pref, ..PathAttributes::default() };
        let encoded = EncodedAttributes::new(&attributes, &context);
        let mut out = BytesMut::new();
        let reached = write_reach(family, &encoded, &next_hop, &prefixes, &context, &mut out);
        let reach_length = out.len();
        let withdrawn = write_withdraw(family, &prefixes, &context, &mut out);
        prop_assert!(reach_length <= small && out.len() - reach_length <= small);
        // The longest prefix takes 17 octets and its path identifier 4, and a length octet may have been saved
        // after the fact.
        let longest = if context.add_path_send.contains(family) { 22 } else { 18 };
        prop_assert!(reached == prefixes.len() || reach_length == 0 || reach_length + longest > small);
        prop_assert!(withdrawn == prefixes.len() || out.len() - reach_length + longest > small);
        for count in [reached, withdrawn].into_iter().filter(|count| *count > 0) {
            let frame = Frame::poll(&mut out, small).unwrap().unwrap();
            let Ok(Message::Update(update, _)) = Message::decode(frame, &context) else { panic!("an update") };
            let nlri = update.reach.iter().map(|r| &r.nlri).chain(update.unreach.iter().map(|u| &u.nlri));
            let arrived: Vec<Prefix> = nlri.flatten().map(|nlri| nlri.prefix).collect();
            prop_assert_eq!(&arrived[..], &prefixes[..count]);
        }
    }

    #[test]
    fn any_stream_is_answered(stream in vec(any::<u8>(), 0..300), kind in 0..7_u8, length in 0..300_u16) {
        let mut buffer = BytesMut::from(&[0xff; 16][..]);
        buffer.put_u16(length);
        buffer.put_u8(kind);
        buffer.put_slice(&stream);
        let before = buffer.len();
        if let Ok(Some(frame)) = Frame::poll(&mut buffer, 4096) {
            prop_assert_eq!(before - buffer.len(), frame.body.len() + 19);
            let _ = Message::decode(frame, &CodecContext::default());
        }
    }

    #[test]
    fn any_body_holds_no_more_than_it_says(kind in 1..=5_u8, body in octets(0..600), context in context()) {
        let frame = Frame { kind: MessageType::from_code(kind).unwrap(), body: body.clone() };
        if let Ok(message) = Message::decode(frame, &context) {
            prop_assert!(held(&message) <= body.len(), "{message:?}");
        }
    }

    /// As above, but with an attribute list that goes beyond the first few octets.
    #[test]
    fn any_attributes_hold_no_more_than_they_say(list in attribute_list(), nlri in octets(0..40), context in context()) {
        let mut body = BytesMut::new();
        body.put_u16(0);
        body.put_u16(u16::try_from(list.len()).unwrap());
        body.put_slice(&list);
        body.put_slice(&nlri);
        let length = body.len();
        let frame = Frame { kind: MessageType::Update, body: body.freeze() };
        if let Ok(message) = Message::decode(frame, &context) {
            prop_assert!(held(&message) <= length, "{message:?}");
        }
    }
}

/// Attributes with mostly sensible flags and lengths around any value.
fn attribute_list() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![Just(0x40_u8), Just(0x80), Just(0xc0), Just(0xe0), any::<u8>()];
    let code = prop_oneof![1..=10_u8, 14..=18_u8, Just(code::LARGE_COMMUNITIES), any::<u8>()];
    let attribute = (flags, code, octets(0..40), 0..100_u8).prop_map(|(flags, code, value, odd)| {
        let length = u8::try_from(value.len()).unwrap();
        let length = if odd == 0 { length.wrapping_add(1) } else { length };
        let mut out = vec![flags & !0x10, code, length];
        out.extend_from_slice(&value);
        out
    });
    vec(attribute, 0..12).prop_map(|list| list.concat())
}

/// How many things a message keeps on the heap; each took at least one octet on the wire.
fn held(message: &Message) -> usize {
    match message {
        Message::Open(open) => open.capabilities.iter().map(capability_size).sum(),
        Message::Update(update, findings) => {
            let reach = update.reach.iter().map(|reach| reach.nlri.len());
            let unreach = update.unreach.iter().map(|unreach| unreach.nlri.len());
            let set = &update.attributes;
            let path: usize = set.as_path.segments.iter().map(|segment| segment.asns.len()).sum();
            let raw: usize = set.unknown.iter().map(|raw| raw.value.len()).sum();
            // What is missing has no octets, but there are four such attributes at most.
            let findings = findings.len().saturating_sub(4);
            let lists = set.communities.len() + set.extended_communities.len() + set.large_communities.len();
            reach.chain(unreach).sum::<usize>() + path + raw + findings + lists + set.cluster_list.len()
        }
        Message::Notification(notification) => notification.data.len(),
        Message::Keepalive | Message::RouteRefresh(_) | Message::RouteRefreshUnknownFamily { .. } => 0,
    }
}

fn capability_size(capability: &Capability) -> usize {
    match capability {
        Capability::GracefulRestart(restart) => restart.families.len(),
        Capability::ExtendedNextHop(families) => families.len(),
        Capability::Unknown { value, .. } => value.len(),
        _ => 1,
    }
}
