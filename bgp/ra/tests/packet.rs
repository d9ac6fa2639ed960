//! Packets: what is written is read, what breaks a rule is refused by its name, and no octets do harm.
use std::net::Ipv6Addr;

use plainroute_ra::{Advertisement, Message, Packet, Refusal};
use proptest::{array::uniform6, collection::vec, option, prelude::*};

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn decode(source: Ipv6Addr, hop_limit: u8, payload: &[u8]) -> Result<Option<Message>, Refusal> {
    Message::decode(&Packet { source, hop_limit: Some(hop_limit), payload })
}

/// What FRR 8.4.4 sends on an interface with an unnumbered peer: a lifetime of 0 or 30 s, the interval, the prefix of
/// none, its Ethernet address.
const FRR: [u8; 24] = [134, 0, 0x12, 0x34, 64, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x02, 0, 0, 0, 0, 1];

#[test]
fn an_advertisement_is_read() {
    let source = Some([2, 0, 0, 0, 0, 1]);
    assert_eq!(
        decode(ROUTER, 255, &FRR),
        Ok(Some(Message::Advertisement(Advertisement { router_lifetime: 30, source })))
    );
    // Options that are not known are passed over: here a prefix.
    let mut with_prefix = FRR[..16].to_vec();
    with_prefix.extend([3, 4].into_iter().chain([7; 30]));
    with_prefix.extend(&FRR[16..]);
    assert_eq!(decode(ROUTER, 255, &with_prefix), decode(ROUTER, 255, &FRR));
}

/// RFC 4861 section 6.1.2.
#[test]
fn an_advertisement_that_breaks_a_rule_is_refused() {
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = FRR.to_vec();
        change(&mut octets);
        decode(ROUTER, 255, &octets)
    };
    assert_eq!(decode(ROUTER, 254, &FRR), Err(Refusal::HopLimit));
    assert_eq!(
        Message::decode(&Packet { source: ROUTER, hop_limit: None, payload: &FRR }),
        Err(Refusal::HopLimit)
    );
    for source in ["2001:db8::1", "::", "ff02::1", "::1"] {
        assert_eq!(decode(source.parse().unwrap(), 255, &FRR), Err(Refusal::Source), "{source}");
    }
    assert_eq!(changed(&|octets| octets[1] = 1), Err(Refusal::Code));
    assert_eq!(changed(&|octets| octets.truncate(15)), Err(Refusal::Short));
    assert_eq!(changed(&|octets| octets[17] = 0), Err(Refusal::Option));
    assert_eq!(changed(&|octets| octets[17] = 2), Err(Refusal::Option));
    assert_eq!(changed(&|octets| octets.truncate(17)), Err(Refusal::Option));
    // As it stands it is believed.
    assert!(changed(&|_| {}).is_ok());
}

/// RFC 4861 section 6.1.1.
#[test]
fn a_solicitation_that_breaks_a_rule_is_refused() {
    let asked = Message::Solicitation { source: Some([2, 0, 0, 0, 0, 1]) }.encode();
    assert!(matches!(decode(ROUTER, 255, &asked), Ok(Some(Message::Solicitation { .. }))));
    assert_eq!(decode(ROUTER, 64, &asked), Err(Refusal::HopLimit));
    assert_eq!(decode(Ipv6Addr::UNSPECIFIED, 255, &asked), Err(Refusal::Option));
    assert!(decode(Ipv6Addr::UNSPECIFIED, 255, &asked[..8]).is_ok());
    assert_eq!(decode(ROUTER, 255, &asked[..7]), Err(Refusal::Short));
}

#[test]
fn other_messages_are_not_for_us() {
    for kind in (0..=255).filter(|kind| !(133..=134).contains(kind)) {
        assert_eq!(decode(ROUTER, 1, &[kind, 9, 9]), Ok(None));
    }
    assert_eq!(decode(ROUTER, 255, &[]), Ok(None));
}

fn message() -> impl Strategy<Value = Message> {
    let source = || option::of(uniform6(any::<u8>()));
    prop_oneof![
        source().prop_map(|source| Message::Solicitation { source }),
        (any::<u16>(), source()).prop_map(|(router_lifetime, source)| Message::Advertisement(
            Advertisement { router_lifetime, source }
        )),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in message()) {
        prop_assert_eq!(decode(ROUTER, 255, &message.encode()), Ok(Some(message)));
    }

    #[test]
    fn no_octets_do_harm_and_what_is_believed_came_over_one_hop(
        kind in prop_oneof![Just(133u8), Just(134), any::<u8>()],
        rest in vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..64),
        hop_limit in prop_oneof![Just(255u8), any::<u8>()],
        source in any::<u128>(),
    ) {
        let payload: Vec<u8> = [kind].into_iter().chain(rest).collect();
        let source = Ipv6Addr::from(source);
        if let Ok(Some(message)) = decode(source, hop_limit, &payload) {
            prop_assert!(hop_limit == 255 && payload[1] == 0);
            let asked = matches!(message, Message::Solicitation { .. });
            prop_assert!(asked || source.is_unicast_link_local());
            prop_assert_eq!(decode(ROUTER, 255, &message.encode()), Ok(Some(message)));
        }
    }
}
