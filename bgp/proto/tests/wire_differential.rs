//! What our codec reads and writes, held against two other decoders (bgpkit-parser and routecore): the same
//! prefixes, next hops, AS path and communities from the byte vectors and from random valid UPDATEs; the same
//! fields from random OPENs.
//!
//! Compared are external sessions with AS numbers of four octets. Extended communities and attributes that only
//! one side knows are not.
use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::Path, sync::Arc};

use bgpkit_parser::{
    models::{AsnLength, BgpMessage, MetaCommunity, NetworkPrefix, NextHopAddress},
    parser::bgp::parse_bgp_message,
};
use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    AfiSafi, Asn, Community, HoldTime, LargeCommunity, Prefix, RouterId,
    wire::{
        AsPath, Capability, CodecContext, Frame, Message, NextHop, Nlri, Open, PathAttributes, Reach,
        SegmentKind, Unreach, Update,
    },
};
use proptest::{collection::vec, option, prelude::*};
use routecore::bgp::{
    message::{OpenMessage, SessionConfig, UpdateMessage},
    types::NextHop as OtherNextHop,
};

/// What an UPDATE says, in words that all three decoders have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    announced: BTreeSet<String>,
    withdrawn: BTreeSet<String>,
    next_hops: BTreeSet<String>,
    as_path: Vec<u32>,
    communities: BTreeSet<u32>,
    large_communities: BTreeSet<(u32, u32, u32)>,
    med: Option<u32>,
}

fn context() -> CodecContext {
    CodecContext { ipv4_over_ipv6: true, ..CodecContext::default() }
}

fn ours(octets: &[u8]) -> Message {
    let frame = Frame::poll(&mut BytesMut::from(octets), 4096).unwrap().expect("whole");
    Message::decode(frame, &context()).unwrap()
}

fn said_by_us(update: &Update) -> Said {
    let names = |nlri: &Nlri| nlri.prefix.to_string();
    let next_hop = |reach: &Reach| match reach.next_hop {
        NextHop::V4(address) => address.to_string(),
        NextHop::V6 { global, .. } => global.to_string(),
    };
    let set = &update.attributes;
    Said {
        announced: update.reach.iter().flat_map(|reach| reach.nlri.iter().map(names)).collect(),
        withdrawn: update.unreach.iter().flat_map(|unreach| unreach.nlri.iter().map(names)).collect(),
        next_hops: update.reach.iter().map(next_hop).collect(),
        as_path: set.as_path.asns().map(Asn::number).collect(),
        communities: set.communities.iter().map(|community| community.0).collect(),
        large_communities: set.large_communities.iter().map(|c| (c.global, c.local1, c.local2)).collect(),
        med: set.med,
    }
}

/// Host bits mean nothing (RFC 4271 section 4.3); the others keep them.
fn masked(prefix: impl ToString) -> String {
    prefix.to_string().parse::<Prefix>().unwrap().to_string()
}

fn bgpkit(octets: &[u8]) -> BgpMessage {
    parse_bgp_message(&mut Bytes::copy_from_slice(octets), false, &AsnLength::Bits32).unwrap()
}

fn said_by_bgpkit(octets: &[u8]) -> Said {
    let BgpMessage::Update(update) = bgpkit(octets) else { panic!("an UPDATE") };
    let set = &update.attributes;
    let names = |list: &[NetworkPrefix]| list.iter().map(|p| masked(p.prefix)).collect::<Vec<_>>();
    let reach = set.get_reachable_nlri();
    let unreach = set.get_unreachable_nlri();
    let mp_next_hop = reach.and_then(|reach| reach.next_hop).map(|next_hop| match next_hop {
        NextHopAddress::Ipv4(address) => address.to_string(),
        NextHopAddress::Ipv6(address) | NextHopAddress::Ipv6LinkLocal(address, _) => address.to_string(),
        other => panic!("{other:?}"),
    });
    let classic = (!update.announced_prefixes.is_empty()).then(|| set.next_hop()).flatten();
    let mut said = Said {
        announced: names(&update.announced_prefixes).into_iter().collect(),
        withdrawn: names(&update.withdrawn_prefixes).into_iter().collect(),
        next_hops: classic.map(|address| address.to_string()).into_iter().chain(mp_next_hop).collect(),
        as_path: set.as_path().and_then(|path| path.to_u32_vec_opt(false)).unwrap_or_default(),
        med: set.multi_exit_discriminator(),
        ..Said::default()
    };
    said.announced.extend(reach.iter().flat_map(|reach| names(&reach.prefixes)));
    said.withdrawn.extend(unreach.iter().flat_map(|unreach| names(&unreach.prefixes)));
    for community in set.iter_communities() {
        use bgpkit_parser::models::Community as Other;
        match community {
            MetaCommunity::Plain(Other::NoExport) => said.communities.insert(Community::NO_EXPORT.0),
            MetaCommunity::Plain(Other::NoAdvertise) => said.communities.insert(Community::NO_ADVERTISE.0),
            MetaCommunity::Plain(Other::NoExportSubConfed) => {
                said.communities.insert(Community::NO_EXPORT_SUBCONFED.0)
            }
            MetaCommunity::Plain(Other::Custom(asn, value)) => {
                said.communities.insert((u32::from(asn) << 16) | u32::from(value))
            }
            MetaCommunity::Large(large) => {
                let [local1, local2] = large.local_data;
                said.large_communities.insert((large.global_admin, local1, local2))
            }
            MetaCommunity::Extended(_) | MetaCommunity::Ipv6Extended(_) => false,
        };
    }
    said
}

fn said_by_routecore(octets: &[u8]) -> Said {
    let update = UpdateMessage::from_octets(octets, &SessionConfig::modern()).unwrap();
    let announced: Vec<String> = update.announcements_vec().unwrap().iter().map(masked).collect();
    let withdrawn: Vec<String> = update.withdrawals_vec().unwrap().iter().map(masked).collect();
    let address = |next_hop| match next_hop {
        OtherNextHop::Unicast(address) => address.to_string(),
        OtherNextHop::Ipv6LL { global, .. } => global.to_string(),
        other => panic!("{other:?}"),
    };
    let classic = update.has_conventional_nlri().then(|| update.conventional_next_hop().unwrap()).flatten();
    let mp = update.mp_next_hop().unwrap();
    let asns = |path: routecore::bgp::aspath::AsPath<_>| {
        path.segments().flat_map(|segment| segment.asns().map(u32::from).collect::<Vec<_>>()).collect()
    };
    let large = update.large_communities().unwrap();
    let numbers = |octets: [u8; 12]| {
        let number = |at: usize| u32::from_be_bytes(octets[at..at + 4].try_into().unwrap());
        (number(0), number(4), number(8))
    };
    Said {
        next_hops: classic.into_iter().chain(mp).map(address).collect(),
        as_path: if announced.is_empty() {
            Vec::new()
        } else {
            update.aspath().unwrap().map(asns).unwrap_or_default()
        },
        communities: update.communities().unwrap().into_iter().flatten().map(|c| c.to_u32()).collect(),
        large_communities: large.into_iter().flatten().map(|c| numbers(c.to_raw())).collect(),
        med: update.multi_exit_disc().unwrap().map(|med| med.0),
        announced: announced.into_iter().collect(),
        withdrawn: withdrawn.into_iter().collect(),
    }
}

/// The vectors of external four-octet sessions whose attributes all three can say.
#[test]
fn the_vectors_mean_the_same_to_others() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors");
    let mut compared = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        if !text.contains("# context: external\n") {
            continue;
        }
        let digits: String = text.lines().filter_map(|line| line.split('#').next()).collect();
        let digits: String = digits.split_whitespace().collect();
        let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let octets: Vec<u8> = (0..digits.len()).step_by(2).map(octet).collect();
        if let Message::Update(update, findings) = ours(&octets)
            && update.end_of_rib.is_none()
            && findings.is_empty()
        {
            let said = said_by_us(&update);
            assert_eq!(said, said_by_bgpkit(&octets), "{}", path.display());
            // Host bits that a peer left set are an error to routecore; to RFC 4271 they are nothing.
            if !path.ends_with("update-unsorted.hex") {
                assert_eq!(said, said_by_routecore(&octets), "{}", path.display());
            }
            compared += 1;
        }
    }
    assert!(compared >= 5, "{compared} vectors were compared");
}

fn asn() -> impl Strategy<Value = Asn> {
    (1..=u32::MAX).prop_map(|number| Asn::new(number).unwrap())
}

/// Without the default route: bgpkit-parser takes a list that begins with a zero octet for one with path
/// identifiers. The vectors have it.
fn prefixes(family: AfiSafi) -> BoxedStrategy<Vec<Nlri>> {
    let one = match family {
        AfiSafi::Ipv4Unicast => (0..0xe000_0000_u32, 1..=32_u8)
            .prop_map(|(bits, length)| Prefix::v4(bits.into(), length).unwrap())
            .boxed(),
        AfiSafi::Ipv6Unicast => (0..0xfe00_u128 << 112, 1..=128_u8)
            .prop_map(|(bits, length)| Prefix::v6(bits.into(), length).unwrap())
            .boxed(),
    };
    vec(one.prop_map(Nlri::from), 1..30).boxed()
}

fn update() -> impl Strategy<Value = Update> {
    let (four, six) = (AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast);
    let sets =
        (vec(asn(), 1..6), vec(any::<u32>(), 0..5), vec(any::<[u32; 3]>(), 0..4), any::<Option<u32>>());
    let reach = (option::of(prefixes(four)), option::of(prefixes(six)));
    let unreach = (option::of(prefixes(four)), option::of(prefixes(six)));
    (reach, unreach, sets).prop_filter_map("names a prefix", move |(reach, unreach, sets)| {
        let (path, mut communities, large, med) = sets;
        communities.sort_unstable();
        communities.dedup();
        let mut large: Vec<LargeCommunity> = large
            .into_iter()
            .map(|[global, local1, local2]| LargeCommunity { global, local1, local2 })
            .collect();
        large.sort_unstable();
        large.dedup();
        let v4 = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
        let v6 = NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None };
        let announced = [(four, v4, reach.0), (six, v6, reach.1)].into_iter();
        let reach: Vec<Reach> = announced
            .filter_map(|(family, next_hop, nlri)| Some(Reach { family, next_hop, nlri: nlri? }))
            .collect();
        let withdrawn = [(four, unreach.0), (six, unreach.1)].into_iter();
        let unreach: Vec<Unreach> =
            withdrawn.filter_map(|(family, nlri)| Some(Unreach { family, nlri: nlri? })).collect();
        let attributes = PathAttributes {
            as_path: AsPath::sequence(path),
            communities: communities.into_iter().map(Community).collect(),
            large_communities: large,
            med,
            ..PathAttributes::default()
        };
        assert!(attributes.as_path.segments.iter().all(|segment| segment.kind == SegmentKind::Sequence));
        let attributes = Arc::new(if reach.is_empty() { PathAttributes::default() } else { attributes });
        let says = !reach.is_empty() || !unreach.is_empty();
        says.then_some(Update { reach, unreach, attributes, end_of_rib: None })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_update_means_the_same_to_others(update in update()) {
        let mut octets = BytesMut::new();
        update.encode(&context(), &mut octets).unwrap();
        let said = said_by_us(&update);
        let Message::Update(read, findings) = ours(&octets) else { panic!("an UPDATE") };
        prop_assert!(findings.is_empty());
        prop_assert_eq!(&said_by_us(&read), &said);
        prop_assert_eq!(&said_by_bgpkit(&octets), &said);
        prop_assert_eq!(&said_by_routecore(&octets), &said);
    }

    #[test]
    fn an_open_means_the_same_to_others(asn in asn(), seconds in 3..=u16::MAX, id in 1..=u32::MAX) {
        let capabilities = vec![
            Capability::MultiProtocol(AfiSafi::Ipv6Unicast),
            Capability::RouteRefresh,
            Capability::FourOctetAsn(asn),
        ];
        let hold_time = HoldTime::new(seconds).unwrap();
        let open = Open { asn, hold_time, router_id: RouterId::new(id).unwrap(), capabilities };
        let mut octets = BytesMut::new();
        open.encode(&mut octets);
        let BgpMessage::Open(other) = bgpkit(&octets) else { panic!("an OPEN") };
        prop_assert_eq!((other.hold_time, other.bgp_identifier), (seconds, Ipv4Addr::from_bits(id)));
        let other = OpenMessage::from_octets(&octets[..]).unwrap();
        prop_assert_eq!(u32::from(other.my_asn()), asn.number());
        prop_assert_eq!((other.holdtime(), other.identifier()), (seconds, &id.to_be_bytes()[..]));
        prop_assert!(other.four_octet_capable());
        prop_assert_eq!(other.multiprotocol_ids().count(), 1);
    }
}
