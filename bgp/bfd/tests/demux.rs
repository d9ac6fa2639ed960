//! Which session a datagram reaches, and why it reaches none.
use std::net::IpAddr;

use plainroute_bfd::{
    ControlPacket, Datagram, Demux, Diagnostic, Discard, Discriminator, Hops, Interval, Path, PathTaken,
    State,
};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn single(remote: &str, interface: u32) -> Path {
    Path::SingleHop { remote: ip(remote), interface: interface.try_into().unwrap() }
}

fn multi(remote: &str, local: &str, min_hop_limit: u8) -> Path {
    Path::MultiHop { remote: ip(remote), local: ip(local), min_hop_limit: min_hop_limit.try_into().unwrap() }
}

fn packet(your_discriminator: Option<Discriminator>) -> [u8; 24] {
    ControlPacket {
        diagnostic: Diagnostic::NONE,
        state: State::Down,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: 3.try_into().unwrap(),
        my_discriminator: Discriminator::new(1).unwrap(),
        your_discriminator,
        desired_min_tx: Some(Interval::SLOW),
        required_min_rx: Some(Interval::SLOW),
        required_min_echo_rx: None,
    }
    .encode()
}

/// A datagram to 192.0.2.1 by interface 2, from as near as can be.
fn datagram<'a>(hops: Hops, source: &str, payload: &'a [u8]) -> Datagram<'a> {
    Datagram { hops, source: ip(source), destination: ip("192.0.2.1"), interface: 2, hop_limit: 255, payload }
}

fn select(demux: &mut Demux, datagram: Datagram<'_>) -> Result<Discriminator, Discard> {
    demux.handle_datagram(&datagram).map(|(discriminator, _)| discriminator)
}

#[test]
fn a_first_packet_is_known_by_source_and_interface() {
    let mut demux = Demux::new(1);
    let here = demux.insert(single("fe80::1", 2)).unwrap();
    let there = demux.insert(single("fe80::1", 3)).unwrap();
    let payload = packet(None);
    let mut from = |source, interface| {
        select(&mut demux, Datagram { interface, ..datagram(Hops::Single, source, &payload) })
    };
    assert_eq!(from("fe80::1", 2), Ok(here));
    assert_eq!(from("fe80::1", 3), Ok(there));
    assert_eq!(from("fe80::1", 4), Err(Discard::NoSession));
    assert_eq!(from("fe80::2", 2), Err(Discard::NoSession));
}

#[test]
fn over_routers_a_first_packet_is_known_by_both_addresses() {
    let mut demux = Demux::new(1);
    let session = demux.insert(multi("198.51.100.1", "192.0.2.1", 250)).unwrap();
    let payload = packet(None);
    let right = Datagram { interface: 77, ..datagram(Hops::Multi, "198.51.100.1", &payload) };
    assert_eq!(select(&mut demux, right), Ok(session));
    let wrong = Datagram { destination: ip("192.0.2.2"), ..right };
    assert_eq!(select(&mut demux, wrong), Err(Discard::NoSession));
}

#[test]
fn our_discriminator_is_enough_wherever_the_packet_comes_from() {
    let mut demux = Demux::new(1);
    let session = demux.insert(single("192.0.2.9", 2)).unwrap();
    let payload = packet(Some(session));
    let moved = Datagram { interface: 5, ..datagram(Hops::Single, "192.0.2.99", &payload) };
    assert_eq!(select(&mut demux, moved), Ok(session));
    let stranger = packet(Discriminator::new(session.value() ^ 1));
    let unknown = datagram(Hops::Single, "192.0.2.9", &stranger);
    assert_eq!(select(&mut demux, unknown), Err(Discard::YourDiscriminatorUnknown));
}

#[test]
fn mapped_ipv4_addresses_are_ipv4_addresses() {
    let mut demux = Demux::new(1);
    let session = demux.insert(single("192.0.2.9", 2)).unwrap();
    let payload = packet(None);
    assert_eq!(select(&mut demux, datagram(Hops::Single, "::ffff:192.0.2.9", &payload)), Ok(session));
    assert_eq!(demux.insert(single("::ffff:192.0.2.9", 2)), Err(PathTaken { by: session }));
}

#[test]
fn one_hop_means_a_hop_limit_of_255() {
    let mut demux = Demux::new(1);
    let session = demux.insert(single("192.0.2.9", 2)).unwrap();
    for payload in [packet(None), packet(Some(session))] {
        for hop_limit in [0, 1, 64, 254] {
            let far = Datagram { hop_limit, ..datagram(Hops::Single, "192.0.2.9", &payload) };
            assert_eq!(select(&mut demux, far), Err(Discard::HopLimit), "{hop_limit}");
        }
        assert_eq!(select(&mut demux, datagram(Hops::Single, "192.0.2.9", &payload)), Ok(session));
    }
    assert_eq!(demux.discarded().of(Discard::HopLimit), 8);
}

#[test]
fn more_hops_mean_the_least_hop_limit_of_the_path() {
    let mut demux = Demux::new(1);
    let session = demux.insert(multi("198.51.100.1", "192.0.2.1", 250)).unwrap();
    for payload in [packet(None), packet(Some(session))] {
        let near = Datagram { hop_limit: 250, ..datagram(Hops::Multi, "198.51.100.1", &payload) };
        assert_eq!(select(&mut demux, near), Ok(session));
        let far = Datagram { hop_limit: 249, ..near };
        assert_eq!(select(&mut demux, far), Err(Discard::HopLimit));
    }
}

#[test]
fn a_session_is_reached_by_its_own_port_only() {
    let mut demux = Demux::new(1);
    let near = demux.insert(single("192.0.2.9", 2)).unwrap();
    let far = demux.insert(multi("192.0.2.9", "192.0.2.1", 1)).unwrap();
    assert_ne!(near, far);
    let cases = [
        (Hops::Single, None, Ok(near)),
        (Hops::Multi, None, Ok(far)),
        (Hops::Single, Some(near), Ok(near)),
        (Hops::Multi, Some(far), Ok(far)),
        // Else the lower limit of the other port would serve to reach a session on the link.
        (Hops::Multi, Some(near), Err(Discard::Port)),
        (Hops::Single, Some(far), Err(Discard::Port)),
    ];
    for (hops, yours, expected) in cases {
        let payload = packet(yours);
        assert_eq!(select(&mut demux, datagram(hops, "192.0.2.9", &payload)), expected);
    }
}

#[test]
fn what_is_removed_is_reached_no_more_and_its_path_is_free() {
    let mut demux = Demux::new(1);
    let path = single("192.0.2.9", 2);
    let former = demux.insert(path).unwrap();
    assert_eq!(demux.insert(path), Err(PathTaken { by: former }));
    assert_eq!(demux.remove(former), Some(path));
    assert_eq!(demux.remove(former), None);
    let (first, later) = (packet(None), packet(Some(former)));
    assert_eq!(select(&mut demux, datagram(Hops::Single, "192.0.2.9", &first)), Err(Discard::NoSession));
    let unknown = Err(Discard::YourDiscriminatorUnknown);
    assert_eq!(select(&mut demux, datagram(Hops::Single, "192.0.2.9", &later)), unknown);
    let next = demux.insert(path).unwrap();
    assert_ne!(next, former);
    assert_eq!(select(&mut demux, datagram(Hops::Single, "192.0.2.9", &first)), Ok(next));
}

#[test]
fn every_discard_is_counted_under_its_reason() {
    let mut demux = Demux::new(1);
    let payload = packet(None);
    let mut version = payload;
    version[0] = 0;
    let _ = select(&mut demux, datagram(Hops::Single, "192.0.2.9", &version));
    let _ = select(&mut demux, datagram(Hops::Single, "192.0.2.9", &payload));
    let _ = select(&mut demux, datagram(Hops::Single, "192.0.2.9", &[]));
    let counted: Vec<_> = demux.discarded().iter().filter(|(_, number)| *number > 0).collect();
    assert_eq!(counted, [(Discard::Version, 1), (Discard::LengthBeyondPayload, 1), (Discard::NoSession, 1)]);
    assert_eq!(demux.discarded().total(), 3);
}

#[test]
fn ports_and_hop_limits_are_those_of_the_rfcs() {
    assert_eq!((Hops::Single.port(), Hops::Multi.port()), (3784, 4784));
    assert_eq!(plainroute_bfd::HOP_LIMIT, 255);
    assert_eq!(plainroute_bfd::SOURCE_PORTS, 49152..=65535);
    assert_eq!(single("192.0.2.9", 2).min_hop_limit(), 255);
}

proptest! {
    #[test]
    fn discriminators_are_unique_and_repeat_with_the_seed(seed in any::<u64>()) {
        let draw = |seed| {
            let mut demux = Demux::new(seed);
            (1..100).map(|interface| demux.insert(single("fe80::1", interface)).unwrap()).collect::<Vec<_>>()
        };
        let drawn = draw(seed);
        let unique: std::collections::BTreeSet<_> = drawn.iter().collect();
        prop_assert_eq!(unique.len(), drawn.len());
        prop_assert_eq!(draw(seed), drawn);
    }

    #[test]
    fn no_stranger_gets_through(
        octets in prop::collection::vec(any::<u8>(), 0..48),
        hop_limit in any::<u8>(),
        single_hop in any::<bool>(),
    ) {
        let mut demux = Demux::new(1);
        demux.insert(single("192.0.2.9", 2)).unwrap();
        let hops = if single_hop { Hops::Single } else { Hops::Multi };
        // From nobody that we know; the chance to guess the discriminator is left aside.
        let datagram = Datagram { hop_limit, ..datagram(hops, "203.0.113.1", &octets) };
        prop_assert!(demux.handle_datagram(&datagram).is_err());
    }
}
