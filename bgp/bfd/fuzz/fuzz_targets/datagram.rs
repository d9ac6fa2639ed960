//! The payload of a datagram after an octet of hop limit: what is read can be written as it was, and no session is
//! reached by chance.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use plainroute_bfd::{ControlPacket, Datagram, Demux, Hops, Path, ReceivedPacket};

fuzz_target!(|input: &[u8]| {
    let Some((&hop_limit, payload)) = input.split_first() else { return };
    let peer: IpAddr = [192, 0, 2, 1].into();
    let mut demux = Demux::new(1);
    let path = Path::SingleHop { remote: peer, interface: 2.try_into().expect("not zero") };
    let ours = demux.insert(path).expect("the first path");
    let datagram = Datagram {
        hops: Hops::Single,
        source: peer,
        destination: [192, 0, 2, 2].into(),
        interface: 2,
        hop_limit,
        payload,
    };
    let selected = demux.handle_datagram(&datagram);
    assert_eq!(demux.discarded().total(), u64::from(selected.is_err()));
    if let Ok((discriminator, received)) = selected {
        assert!(hop_limit == 255 && discriminator == ours);
        assert!(received.control.your_discriminator.is_none_or(|yours| yours == ours));
    }
    let Ok(received) = ReceivedPacket::decode(payload) else { return };
    let written = received.control.encode();
    // All but the A bit and Length, which are about the section that we never write.
    let unauthenticated = |octet: u8| octet & !0x04;
    assert_eq!(written[0], payload[0]);
    assert_eq!(written[1], unauthenticated(payload[1]));
    assert_eq!(written[2], payload[2]);
    assert_eq!(written[4..], payload[4..ControlPacket::LENGTH]);
    assert_eq!(received.authentication.is_some(), payload[1] & 0x04 != 0);
    let again = ReceivedPacket { authentication: None, ..received };
    assert_eq!(ReceivedPacket::decode(&written), Ok(again));
});
