//! Whatever can be built is read back as the same, and no octets bring the decoder down.
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    AfiSafi, Asn, HoldTime, RouterId,
    bmp::{self, MAX_LENGTH, Message, PeerDown, PeerHeader, PeerKind, PeerUp, Rib, Statistic, Tlv},
    wire::{Capability, Notification, Open, write_end_of_rib, write_withdraw},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{decode, encode};

fn octets(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), length).prop_map(Bytes::from)
}

fn tlvs() -> impl Strategy<Value = Vec<Tlv>> {
    vec((any::<u16>(), octets(0..40)).prop_map(|(kind, value)| Tlv { kind, value }), 0..5)
}

fn peer() -> impl Strategy<Value = PeerHeader> {
    let kind = select(vec![PeerKind::Global, PeerKind::RouteDistinguisher, PeerKind::Local]);
    let rib = select(vec![Rib::InPrePolicy, Rib::InPostPolicy, Rib::OutPrePolicy, Rib::OutPostPolicy]);
    let timestamp = (0..=u32::MAX, 0..1_000_000_u32)
        .prop_map(|(seconds, micros)| Duration::new(u64::from(seconds), micros * 1000))
        .prop_filter("zero is no time", |time| !time.is_zero());
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>());
    (kind, rib, any::<bool>(), any::<IpAddr>(), numbers, option::of(timestamp)).prop_map(
        |(kind, rib, two_octet_as_path, address, (distinguisher, asn, router_id), timestamp)| PeerHeader {
            kind,
            rib,
            two_octet_as_path,
            distinguisher,
            address,
            asn,
            router_id: Ipv4Addr::from_bits(router_id),
            timestamp,
        },
    )
}

fn open() -> impl Strategy<Value = Bytes> {
    (1..=u32::MAX, 1..=u32::MAX).prop_map(|(asn, router_id)| {
        let asn = Asn::new(asn).unwrap();
        let router_id = RouterId::new(router_id).unwrap();
        let capabilities = vec![Capability::FourOctetAsn(asn)];
        let mut out = BytesMut::new();
        Open { asn, hold_time: HoldTime::DEFAULT, router_id, capabilities }.encode(&mut out);
        out.freeze()
    })
}

fn notification() -> impl Strategy<Value = Bytes> {
    (any::<u8>(), any::<u8>(), octets(0..60)).prop_map(|(code, subcode, data)| {
        let mut out = BytesMut::new();
        Notification::new(code, subcode, data).encode(&mut out);
        out.freeze()
    })
}

fn update() -> impl Strategy<Value = Bytes> {
    let prefixes = vec(
        any::<u32>().prop_map(|bits| plainroute_bgp::Prefix::host(Ipv4Addr::from_bits(bits).into())),
        0..9,
    );
    prefixes.prop_map(|prefixes| {
        let mut out = BytesMut::new();
        if write_withdraw(AfiSafi::Ipv4Unicast, prefixes, &Default::default(), &mut out) == 0 {
            write_end_of_rib(AfiSafi::Ipv6Unicast, &mut out);
        }
        out.freeze()
    })
}

fn down() -> impl Strategy<Value = PeerDown> {
    prop_oneof![
        notification().prop_map(PeerDown::LocalNotification),
        any::<u16>().prop_map(PeerDown::LocalEvent),
        notification().prop_map(PeerDown::RemoteNotification),
        Just(PeerDown::Remote),
        Just(PeerDown::NotMonitored),
        (6..=u8::MAX, octets(0..9)).prop_map(|(reason, data)| PeerDown::Other { reason, data }),
    ]
}

fn statistic() -> impl Strategy<Value = Statistic> {
    let family = || select(&AfiSafi::ALL[..]);
    prop_oneof![
        any::<u32>().prop_map(Statistic::Rejected),
        any::<u64>().prop_map(Statistic::In),
        (family(), any::<u64>()).prop_map(|(family, count)| Statistic::InOf(family, count)),
        any::<u64>().prop_map(Statistic::Out),
        (family(), any::<u64>()).prop_map(|(family, count)| Statistic::OutOf(family, count)),
        (18..=u16::MAX, octets(0..12)).prop_map(|(kind, value)| Statistic::Other(Tlv { kind, value })),
    ]
}

fn up(header: PeerHeader) -> impl Strategy<Value = Message> {
    let local = match header.address {
        IpAddr::V4(_) => any::<Ipv4Addr>().prop_map(IpAddr::from).boxed(),
        IpAddr::V6(_) => any::<std::net::Ipv6Addr>().prop_map(IpAddr::from).boxed(),
    };
    let ports = (any::<u16>(), any::<u16>());
    (local, ports, open(), open(), tlvs()).prop_map(
        move |(local_address, (local_port, remote_port), sent_open, received_open, information)| {
            let up = PeerUp { local_address, local_port, remote_port, sent_open, received_open, information };
            Message::PeerUp { peer: header, up }
        },
    )
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (peer(), update()).prop_map(|(peer, update)| Message::RouteMonitoring { peer, update }),
        (peer(), vec(statistic(), 0..8))
            .prop_map(|(peer, statistics)| Message::Statistics { peer, statistics }),
        (peer(), down()).prop_map(|(peer, reason)| Message::PeerDown { peer, reason }),
        peer().prop_flat_map(up),
        tlvs().prop_map(Message::Initiation),
        tlvs().prop_map(Message::Termination),
        (peer(), tlvs()).prop_map(|(peer, items)| Message::RouteMirroring { peer, items }),
        (7..=u8::MAX, octets(0..30)).prop_map(|(kind, body)| Message::Unknown { kind, body }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(messages in vec(message(), 1..5)) {
        let mut stream = BytesMut::new();
        for message in &messages {
            prop_assert_eq!(decode(&encode(message)), Some(Ok(message.clone())));
            message.encode(&mut stream);
        }
        for message in &messages {
            prop_assert_eq!(bmp::poll(&mut stream, MAX_LENGTH).unwrap(), Some(message.clone()));
        }
        prop_assert!(stream.is_empty());
    }

    #[test]
    fn no_octets_bring_the_decoder_down(kind in 0..8_u8, body in vec(any::<u8>(), 0..300)) {
        let mut octets = vec![3];
        octets.extend_from_slice(&u32::try_from(body.len() + 6).unwrap().to_be_bytes());
        octets.push(kind);
        octets.extend_from_slice(&body);
        if let Some(Ok(message)) = decode(&octets) {
            prop_assert_eq!(decode(&encode(&message)), Some(Ok(message)));
        }
    }
}
