//! An octet of hop limit, then an ICMPv6 message: what is believed came over one hop and can be written and read again.
#![no_main]

use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use plainroute_ra::{Link, Message, Packet};

fuzz_target!(|input: &[u8]| {
    let Some((&hop_limit, payload)) = input.split_first() else { return };
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let packet = Packet { source, hop_limit: Some(hop_limit), payload };
    let decoded = Message::decode(&packet);
    if let Ok(Some(message)) = decoded {
        assert!(hop_limit == 255 && payload[1] == 0);
        let written = message.encode();
        let again = Packet { payload: &written, ..packet };
        assert_eq!(Message::decode(&again), Ok(Some(message)));
    }
    let now = Instant::now();
    let mut link = Link::new(1);
    link.handle_up(now, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2), None);
    let taken = link.handle_packet(now, &packet);
    assert_eq!(taken.is_err(), decoded.is_err());
    let heard = matches!(decoded, Ok(Some(Message::Advertisement(_))));
    assert_eq!(link.routers().contains_key(&source), heard);
    // Whoever hears a router need not ask for one.
    let sent = std::iter::from_fn(|| link.poll_transmit(now)).count();
    assert_eq!(sent, if heard { 1 } else { 2 });
    assert!(link.poll_timeout().is_some_and(|next| next >= now + Duration::from_secs(3)));
});
