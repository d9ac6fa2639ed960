//! What bgpkit-parser reads in our vectors, and in what we write of random messages: the same peers, RIBs, times,
//! OPENs, reasons and numbers. Free text, and reasons and types that it does not know, are left out.
use bgpkit_parser::{
    models::BgpMessage,
    parser::bmp::{
        messages::{
            BmpMessage, BmpMessageBody, BmpPerPeerHeader, PerPeerFlags, StatsData, TerminationTlvValue,
        },
        parse_bmp_msg,
    },
};
use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    bmp::{Message, PeerDown, PeerHeader, Rib, Statistic, information, termination},
    wire::{self, CodecContext, Frame},
};
use proptest::prelude::*;

use super::{decode, encode, properties::message, vectors::vectors};

/// What a message says, in words that both decoders have.
type Said = Vec<String>;

fn peer(peer: &PeerHeader) -> Said {
    let (out, post) = match peer.rib {
        Rib::InPrePolicy => (false, false),
        Rib::InPostPolicy => (false, true),
        Rib::OutPrePolicy => (true, false),
        Rib::OutPostPolicy => (true, true),
    };
    // The other has the time as a floating-point number.
    let time = peer.timestamp.unwrap_or_default().as_secs();
    let words = format!(
        "{} {} {} {} {out} {post} {time}",
        peer.kind as u8, peer.distinguisher, peer.address, peer.router_id
    );
    let asn = if peer.two_octet_as_path { peer.asn & 0xffff } else { peer.asn };
    vec![words, asn.to_string()]
}

fn other_peer(peer: &BmpPerPeerHeader) -> Said {
    let PerPeerFlags::PeerFlags(flags) = peer.peer_flags else { panic!("{peer:?}") };
    let words = format!(
        "{} {} {} {} {} {} {}",
        u8::from(peer.peer_type),
        peer.peer_distinguisher,
        peer.peer_ip,
        peer.peer_bgp_id,
        flags.is_adj_rib_out(),
        flags.is_post_policy(),
        peer.timestamp.trunc(),
    );
    vec![words, peer.peer_asn.to_u32().to_string()]
}

/// Who sent an OPEN and its hold time; the differential test of BGP itself looks deeper.
fn open(octets: &Bytes) -> String {
    let frame = Frame::poll(&mut BytesMut::from(&octets[..]), 4096).unwrap().unwrap();
    match wire::Message::decode(frame, &CodecContext::default()).unwrap() {
        wire::Message::Open(open) => format!("{} {}", open.router_id, open.hold_time.seconds()),
        other => panic!("{other:?}"),
    }
}

fn other_open(message: &BgpMessage) -> String {
    let BgpMessage::Open(open) = message else { panic!("{message:?}") };
    format!("{} {}", open.bgp_identifier, open.hold_time)
}

fn said(message: &Message) -> Option<Said> {
    Some(match message {
        Message::RouteMonitoring { peer: of, update } => {
            let context = CodecContext { four_octet_asn: !of.two_octet_as_path, ..CodecContext::default() };
            let frame = Frame::poll(&mut BytesMut::from(&update[..]), 4096).unwrap().unwrap();
            let Ok(wire::Message::Update(update, _)) = wire::Message::decode(frame, &context) else {
                panic!()
            };
            let announced: usize = update.reach.iter().map(|reach| reach.nlri.len()).sum();
            let withdrawn: usize = update.unreach.iter().map(|unreach| unreach.nlri.len()).sum();
            [peer(of), vec![format!("{announced} {withdrawn}")]].concat()
        }
        Message::Statistics { peer: of, statistics } => {
            let one = |statistic: &Statistic| match statistic {
                Statistic::Rejected(count) => Some(format!("0 {count}")),
                Statistic::In(count) => Some(format!("7 {count}")),
                Statistic::InOf(family, count) => {
                    Some(format!("9 {} {} {count}", family.afi(), family.safi()))
                }
                Statistic::Out(count) => Some(format!("15 {count}")),
                Statistic::OutOf(family, count) => {
                    Some(format!("17 {} {} {count}", family.afi(), family.safi()))
                }
                Statistic::Other(_) => None,
            };
            [peer(of), statistics.iter().map(one).collect::<Option<_>>()?].concat()
        }
        Message::PeerDown { peer: of, reason } => {
            let reason = match reason {
                PeerDown::LocalNotification(octets) => format!("1 {octets:?}"),
                PeerDown::LocalEvent(event) => {
                    format!("2 {:?}", Bytes::copy_from_slice(&event.to_be_bytes()))
                }
                PeerDown::RemoteNotification(octets) => format!("3 {octets:?}"),
                PeerDown::Remote => "4".to_owned(),
                PeerDown::NotMonitored => "5".to_owned(),
                PeerDown::Other { .. } => return None,
            };
            [peer(of), vec![reason]].concat()
        }
        Message::PeerUp { peer: of, up } => {
            let ends = format!("{} {} {}", up.local_address, up.local_port, up.remote_port);
            [peer(of), vec![ends, open(&up.sent_open), open(&up.received_open)]].concat()
        }
        Message::Initiation(items) => {
            let known = |kind| matches!(kind, information::STRING..=information::SYS_NAME);
            let one = |kind: u16, value: &Bytes| {
                known(kind)
                    .then(|| String::from_utf8(value.to_vec()).ok())
                    .flatten()
                    .map(|text| format!("{kind} {text}"))
            };
            items.iter().map(|tlv| one(tlv.kind, &tlv.value)).collect::<Option<_>>()?
        }
        Message::Termination(items) => {
            let one = |kind: u16, value: &Bytes| match (kind, &value[..]) {
                (termination::REASON, [high, low]) => {
                    Some(format!("reason {}", u16::from_be_bytes([*high, *low])))
                }
                (termination::STRING, text) => {
                    String::from_utf8(text.to_vec()).ok().map(|text| format!("text {text}"))
                }
                _ => None,
            };
            items.iter().map(|tlv| one(tlv.kind, &tlv.value)).collect::<Option<_>>()?
        }
        Message::RouteMirroring { .. } | Message::Unknown { .. } => return None,
    })
}

fn other_said(message: &BmpMessage) -> Said {
    let mut said = message.per_peer_header.as_ref().map(other_peer).unwrap_or_default();
    match &message.message_body {
        BmpMessageBody::RouteMonitoring(monitoring) => {
            let BgpMessage::Update(update) = &monitoring.bgp_message else { panic!("{monitoring:?}") };
            let reach = update.attributes.get_reachable_nlri().map_or(0, |nlri| nlri.prefixes.len());
            let unreach = update.attributes.get_unreachable_nlri().map_or(0, |nlri| nlri.prefixes.len());
            let announced = update.announced_prefixes.len() + reach;
            said.push(format!("{announced} {}", update.withdrawn_prefixes.len() + unreach));
        }
        BmpMessageBody::StatsReport(report) => {
            said.extend(report.counters.iter().map(|counter| {
                let kind = u16::from(counter.stat_type);
                match &counter.stat_data {
                    StatsData::Counter(count) => format!("{kind} {count}"),
                    StatsData::Gauge(count) => format!("{kind} {count}"),
                    StatsData::AfiSafiGauge(afi, safi, count) => format!("{kind} {afi} {safi} {count}"),
                    StatsData::Unknown(octets) => panic!("{octets:?}"),
                }
            }));
        }
        BmpMessageBody::PeerDownNotification(down) => {
            let data = down.data.clone().map(|data| format!(" {:?}", Bytes::from(data)));
            said.push(format!("{}{}", u8::from(down.reason), data.unwrap_or_default()));
        }
        BmpMessageBody::PeerUpNotification(up) => {
            said.push(format!("{} {} {}", up.local_addr, up.local_port, up.remote_port));
            said.extend([other_open(&up.sent_open), other_open(&up.received_open)]);
        }
        BmpMessageBody::InitiationMessage(initiation) => {
            said.extend(
                initiation.tlvs.iter().map(|tlv| format!("{} {}", u16::from(tlv.info_type), tlv.info)),
            );
        }
        BmpMessageBody::TerminationMessage(termination) => {
            said.extend(termination.tlvs.iter().map(|tlv| match &tlv.info_value {
                TerminationTlvValue::String(text) => format!("text {text}"),
                TerminationTlvValue::Reason(reason) => format!("reason {}", u16::from(*reason)),
            }));
        }
        BmpMessageBody::RouteMirroring(mirroring) => panic!("{mirroring:?}"),
    }
    said
}

fn read_by_the_other(octets: &[u8]) -> Said {
    other_said(&parse_bmp_msg(&mut Bytes::copy_from_slice(octets)).unwrap())
}

#[test]
fn the_vectors_say_the_same_to_both() {
    let mut compared = 0;
    for (name, octets) in vectors() {
        let message = decode(&octets).unwrap().unwrap();
        // One statistic of a family that we do not know, which the other has as a number.
        let Some(said) = said(&message) else { continue };
        assert_eq!(said, read_by_the_other(&octets), "{name}");
        compared += 1;
    }
    assert!(compared >= 12, "{compared}");
}

proptest! {
    #[test]
    fn what_we_write_says_the_same_to_both(message in message()) {
        if let Some(said) = said(&message) {
            prop_assert_eq!(said, read_by_the_other(&encode(&message)));
        }
    }
}
