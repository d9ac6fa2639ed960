//! The Control packet: octets as the RFC draws them, both ways.
use plainroute_bfd::{
    Authentication, ControlPacket, Diagnostic, Discard, Discriminator, Interval, ReceivedPacket, State,
};
use proptest::prelude::*;

fn micros(micros: u32) -> Option<Interval> {
    Interval::from_micros(micros)
}

/// The first packet of a session: Down, knowing nothing of the peer.
const FIRST: [u8; 24] = [
    0x20, 0x40, 0x03, 0x18, // version 1, no diagnostic; Down; multiplier 3; length 24
    0x00, 0x00, 0x00, 0x07, // My Discriminator
    0x00, 0x00, 0x00, 0x00, // Your Discriminator
    0x00, 0x0f, 0x42, 0x40, // one second
    0x00, 0x01, 0x86, 0xa0, // 100 ms
    0x00, 0x00, 0x00, 0x00, // no Echo
];

fn first() -> ControlPacket {
    ControlPacket {
        diagnostic: Diagnostic::NONE,
        state: State::Down,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: 3.try_into().unwrap(),
        my_discriminator: Discriminator::new(7).unwrap(),
        your_discriminator: None,
        desired_min_tx: micros(1_000_000),
        required_min_rx: micros(100_000),
        required_min_echo_rx: None,
    }
}

/// `FIRST` with some octets changed.
fn changed(changes: &[(usize, u8)]) -> [u8; 24] {
    let mut octets = FIRST;
    for (index, octet) in changes {
        octets[*index] = *octet;
    }
    octets
}

fn vectors() -> Vec<([u8; 24], ControlPacket)> {
    let yours = (11, 9);
    let known = ControlPacket { your_discriminator: Discriminator::new(9), ..first() };
    vec![
        (FIRST, first()),
        (changed(&[(1, 0x00)]), ControlPacket { state: State::AdminDown, ..first() }),
        (changed(&[(1, 0x80), yours]), ControlPacket { state: State::Init, ..known }),
        (changed(&[(1, 0xc0), yours]), ControlPacket { state: State::Up, ..known }),
        (changed(&[(1, 0x60)]), ControlPacket { poll: true, ..first() }),
        (changed(&[(1, 0x50)]), ControlPacket { final_: true, ..first() }),
        (changed(&[(1, 0x48)]), ControlPacket { control_plane_independent: true, ..first() }),
        (changed(&[(1, 0xc2), yours]), ControlPacket { state: State::Up, demand: true, ..known }),
        (
            changed(&[(0, 0x21)]),
            ControlPacket { diagnostic: Diagnostic::CONTROL_DETECTION_TIME_EXPIRED, ..first() },
        ),
        (changed(&[(0, 0x3f)]), ControlPacket { diagnostic: Diagnostic::from_code(31).unwrap(), ..first() }),
        (changed(&[(2, 0xff)]), ControlPacket { detect_multiplier: 255.try_into().unwrap(), ..first() }),
        (
            changed(&[(4, 0xde), (5, 0xad), (6, 0xbe), (7, 0xef)]),
            ControlPacket { my_discriminator: Discriminator::new(0xdead_beef).unwrap(), ..first() },
        ),
        (
            changed(&[(13, 0), (14, 0), (15, 0)]), // the reserved zero, which no step discards
            ControlPacket { desired_min_tx: None, ..first() },
        ),
        (changed(&[(17, 0), (18, 0), (19, 0)]), ControlPacket { required_min_rx: None, ..first() }),
        (
            changed(&[(20, 1), (23, 2)]),
            ControlPacket { required_min_echo_rx: micros(0x0100_0002), ..first() },
        ),
    ]
}

#[test]
fn vectors_read_and_write_the_same() {
    for (octets, packet) in vectors() {
        let received = ReceivedPacket { control: packet, authentication: None };
        assert_eq!(ReceivedPacket::decode(&octets), Ok(received), "{octets:02x?}");
        assert_eq!(packet.encode(), octets, "{packet:?}");
    }
}

#[test]
fn each_step_of_section_6_8_6_discards_and_is_named() {
    let cases = [
        (changed(&[(0, 0x00)]), Discard::Version),
        (changed(&[(0, 0x40)]), Discard::Version),
        (changed(&[(3, 23)]), Discard::LengthTooSmall),
        (changed(&[(3, 0)]), Discard::LengthTooSmall),
        (changed(&[(1, 0x44), (3, 25)]), Discard::LengthTooSmall),
        (changed(&[(3, 25)]), Discard::LengthBeyondPayload),
        (changed(&[(1, 0x44), (3, 26)]), Discard::LengthBeyondPayload),
        (changed(&[(2, 0)]), Discard::DetectMultZero),
        (changed(&[(1, 0x41)]), Discard::Multipoint),
        (changed(&[(7, 0)]), Discard::MyDiscriminatorZero),
        (changed(&[(1, 0x80)]), Discard::YourDiscriminatorZero),
        (changed(&[(1, 0xc0)]), Discard::YourDiscriminatorZero),
    ];
    for (octets, discard) in cases {
        assert_eq!(ReceivedPacket::decode(&octets), Err(discard), "{octets:02x?}");
    }
}

#[test]
fn steps_are_taken_in_the_order_of_the_rfc() {
    // Each row breaks what the row before did, and one step more that comes earlier.
    let mut changes = vec![(1, 0xc0)];
    let steps = [
        (None, Discard::YourDiscriminatorZero),
        (Some((7, 0)), Discard::MyDiscriminatorZero),
        (Some((1, 0xc1)), Discard::Multipoint),
        (Some((2, 0)), Discard::DetectMultZero),
        (Some((3, 25)), Discard::LengthBeyondPayload),
        (Some((3, 20)), Discard::LengthTooSmall),
        (Some((0, 0x60)), Discard::Version),
    ];
    for (change, discard) in steps {
        changes.extend(change);
        assert_eq!(ReceivedPacket::decode(&changed(&changes)), Err(discard), "{changes:?}");
    }
}

#[test]
fn a_datagram_shorter_than_its_length_is_cut() {
    for length in 0..24 {
        assert_eq!(ReceivedPacket::decode(&FIRST[..length]), Err(Discard::LengthBeyondPayload), "{length}");
    }
}

#[test]
fn octets_beyond_length_are_ignored() {
    let mut octets = FIRST.to_vec();
    octets.extend([0xff; 8]);
    assert_eq!(ReceivedPacket::decode(&octets).unwrap().control, first());
    octets[3] = 30;
    assert_eq!(ReceivedPacket::decode(&octets).unwrap().control, first());
}

/// `FIRST` with the A bit and a section of this type, claimed length and true length.
fn authenticated(kind: u8, claimed: u8, length: u8) -> Vec<u8> {
    let mut octets = changed(&[(1, 0x44), (3, 24 + length)]).to_vec();
    let section = [kind, claimed, 5, 0, 0, 0, 1, 2];
    octets.extend((0..usize::from(length)).map(|index| section.get(index).copied().unwrap_or(0xaa)));
    octets
}

#[test]
fn authentication_is_told_apart() {
    let md5 = |meticulous| Authentication::KeyedMd5 { key_id: 5, meticulous, sequence: 0x0102 };
    let sha1 = |meticulous| Authentication::KeyedSha1 { key_id: 5, meticulous, sequence: 0x0102 };
    let cases = [
        ((1, 4, 4), Authentication::SimplePassword { key_id: 5 }),
        ((1, 19, 19), Authentication::SimplePassword { key_id: 5 }),
        ((2, 24, 24), md5(false)),
        ((3, 24, 24), md5(true)),
        ((4, 28, 28), sha1(false)),
        ((5, 28, 28), sha1(true)),
        ((1, 3, 3), Authentication::Invalid { kind: 1, length: 3 }),
        ((1, 20, 20), Authentication::Invalid { kind: 1, length: 20 }),
        ((2, 28, 28), Authentication::Invalid { kind: 2, length: 28 }),
        ((4, 24, 24), Authentication::Invalid { kind: 4, length: 24 }),
        ((0, 24, 24), Authentication::Invalid { kind: 0, length: 24 }),
        ((6, 28, 28), Authentication::Invalid { kind: 6, length: 28 }),
        ((2, 24, 23), Authentication::Invalid { kind: 2, length: 24 }),
        ((1, 0, 2), Authentication::Invalid { kind: 1, length: 0 }),
    ];
    for ((kind, claimed, length), authentication) in cases {
        let received = ReceivedPacket::decode(&authenticated(kind, claimed, length)).unwrap();
        assert_eq!(received.authentication, Some(authentication));
    }
}

fn interval() -> impl Strategy<Value = Option<Interval>> {
    prop_oneof![Just(0), Just(u32::MAX), any::<u32>()].prop_map(Interval::from_micros)
}

prop_compose! {
    fn packet()(
        code in 0u8..32,
        state in prop::sample::select(State::ALL.to_vec()),
        (poll, final_, control_plane_independent, demand) in any::<(bool, bool, bool, bool)>(),
        detect_multiplier in any::<std::num::NonZeroU8>(),
        mine in 1u32..,
        yours in any::<u32>(),
        desired_min_tx in interval(),
        required_min_rx in interval(),
        required_min_echo_rx in interval(),
    ) -> ControlPacket {
        let needs_yours = matches!(state, State::Init | State::Up);
        ControlPacket {
            diagnostic: Diagnostic::from_code(code).unwrap(),
            state, poll, final_, control_plane_independent, demand, detect_multiplier,
            my_discriminator: Discriminator::new(mine).unwrap(),
            your_discriminator: Discriminator::new(if needs_yours { yours.max(1) } else { yours }),
            desired_min_tx, required_min_rx, required_min_echo_rx,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(control in packet()) {
        let received = ReceivedPacket { control, authentication: None };
        prop_assert_eq!(ReceivedPacket::decode(&control.encode()), Ok(received));
    }

    #[test]
    fn arbitrary_octets_are_read_or_discarded(octets in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = ReceivedPacket::decode(&octets);
    }

    /// Nearly right octets get past the first steps; what is read of them can be written as it was.
    #[test]
    fn what_is_read_writes_the_same(octets in any::<[u8; 24]>(), flags in any::<u8>()) {
        let mut octets = octets;
        octets[0] = octets[0] & 0x1f | 0x20;
        octets[1] = flags & !0x05;
        octets[3] = 24;
        if let Ok(received) = ReceivedPacket::decode(&octets) {
            prop_assert_eq!(received.control.encode(), octets);
        }
    }
}
