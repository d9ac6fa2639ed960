//! RFC 7606: each fault has the answer that the RFC asks for. The cases of tests/data/frr-rfc7606 cover malformed
//! attributes; the rest is here.
use bytes::{BufMut, BytesMut};
use plainroute_bgp::{
    AfiSafi, Families, Prefix,
    wire::{CodecContext, Finding, Frame, Message, Notification, PathAttributes, Update, Verdict},
};
use serde_json::Value;

type Attribute = (u8, u8, Vec<u8>);

const EXTERNAL: CodecContext = CodecContext {
    four_octet_asn: true,
    internal: false,
    max_message_length: 4096,
    ipv4_over_ipv6: false,
    add_path_receive: Families::NONE,
    add_path_send: Families::NONE,
    enhanced_refresh: false,
};
const INTERNAL: CodecContext = CodecContext { internal: true, ..EXTERNAL };
const PREFIX: [u8; 4] = [24, 192, 0, 2];
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;

/// What a valid UPDATE has: ORIGIN, AS_PATH, NEXT_HOP and within an AS LOCAL_PREF.
fn valid(context: &CodecContext) -> Vec<Attribute> {
    let mut list =
        vec![(0x40, 1, vec![0]), (0x40, 2, vec![2, 1, 0, 0, 0xfd, 0xe9]), (0x40, 3, vec![10, 0, 0, 1])];
    if context.internal {
        list.push((0x40, 5, vec![0, 0, 0, 100]));
    }
    list
}

/// The valid list with `attribute` in the place of its like, or at the end.
fn with(context: &CodecContext, attribute: Attribute) -> Vec<Attribute> {
    let mut list = valid(context);
    match list.iter().position(|(_, code, _)| *code == attribute.1) {
        Some(at) => list[at] = attribute,
        None => list.push(attribute),
    }
    list
}

fn attribute_octets(list: &[Attribute]) -> Vec<u8> {
    let mut out = Vec::new();
    for (flags, code, value) in list {
        out.extend_from_slice(&[*flags, *code, u8::try_from(value.len()).unwrap()]);
        out.extend_from_slice(value);
    }
    out
}

fn decode_parts(
    withdrawn: &[u8],
    attributes: &[u8],
    nlri: &[u8],
    context: &CodecContext,
) -> Result<(Update, Vec<Finding>), Notification> {
    let mut octets = BytesMut::from(&[0xff; 16][..]);
    octets.put_u16(u16::try_from(23 + withdrawn.len() + attributes.len() + nlri.len()).unwrap());
    octets.put_u8(2);
    octets.put_u16(u16::try_from(withdrawn.len()).unwrap());
    octets.put_slice(withdrawn);
    octets.put_u16(u16::try_from(attributes.len()).unwrap());
    octets.put_slice(attributes);
    octets.put_slice(nlri);
    let frame = Frame::poll(&mut octets, context.max_message_length).unwrap().unwrap();
    match Message::decode(frame, context)? {
        Message::Update(update, findings) => Ok((update, findings)),
        other => panic!("{other:?}"),
    }
}

fn decode(list: &[Attribute], context: &CodecContext) -> Result<(Update, Vec<Finding>), Notification> {
    decode_parts(&[], &attribute_octets(list), &PREFIX, context)
}

fn attributes_of(list: &[Attribute], context: &CodecContext) -> PathAttributes {
    let (update, findings) = decode(list, context).unwrap();
    assert_eq!(findings, []);
    (*update.attributes).clone()
}

fn announced(update: &Update) -> Vec<Prefix> {
    update.reach.iter().flat_map(|reach| &reach.nlri).map(|nlri| nlri.prefix).collect()
}

fn withdrawn(update: &Update) -> Vec<Prefix> {
    update.unreach.iter().flat_map(|unreach| &unreach.nlri).map(|nlri| nlri.prefix).collect()
}

fn strongest(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Asserts that the one route of [`decode`] was withdrawn.
fn assert_withdrawn(result: Result<(Update, Vec<Finding>), Notification>, why: &str) {
    let (update, findings) = result.unwrap_or_else(|reset| panic!("{why}: {reset}"));
    assert_eq!(announced(&update), [], "{why}");
    assert_eq!(withdrawn(&update), prefixes(&["192.0.2.0/24"]), "{why}");
    assert_eq!(strongest(&findings), Verdict::TreatAsWithdraw, "{why}");
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Where Plainroute gives another answer than the file, and why.
const DEVIATIONS: [(&str, &str); 1] = [(
    "as4path-seg-type-0",
    "RFC 6793 section 6 says to discard a malformed AS4_PATH, and section 4.1 to discard any between two speakers \
     of four octets; the route stands by its AS_PATH",
)];

/// Attributes that Plainroute does not know: transitive ones are kept, marked as partial (RFC 4271 section 5), and
/// the route stands, which is what the file means by `discard` here.
const KEPT_AS_UNKNOWN: [&str; 3] = ["unknown-fe-transitive", "nhc-bad-afi-safi", "nhc-tlv-overrun"];

#[test]
fn the_cases_of_frr_have_their_outcome() {
    let text = include_str!("data/frr-rfc7606/cases.json");
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    let mut run = 0;
    for case in &cases {
        for (sort, context) in [("ebgp", EXTERNAL), ("ibgp", INTERNAL)] {
            if !case["skip_sorts"].as_array().unwrap().iter().any(|skipped| skipped == sort) {
                run_case(case, sort, &context);
                run += 1;
            }
        }
    }
    assert_eq!((cases.len(), run), (88, 169));
}

fn run_case(case: &Value, sort: &str, context: &CodecContext) {
    let name = case["name"].as_str().unwrap();
    let why = format!("{name} {sort}");
    let number = |key: &str| u8::try_from(case[key].as_u64().unwrap()).unwrap();
    let list = match case["nexthop"].as_str() {
        Some(address) => {
            let address: std::net::Ipv4Addr = address.parse().unwrap();
            with(context, (0x40, 3, address.octets().to_vec()))
        }
        None => {
            let value = hex(case["value_hex"].as_str().unwrap());
            with(context, (number("flags"), number("attr_type"), value))
        }
    };
    let expected = match DEVIATIONS.iter().any(|(deviation, _)| *deviation == name) {
        true => "discard",
        false => case["outcome"][sort].as_str().unwrap(),
    };
    let result = decode(&list, context);
    match expected {
        "withdraw" => assert_withdrawn(result, &why),
        "discard" => {
            let (update, findings) = result.unwrap_or_else(|reset| panic!("{why}: {reset}"));
            assert_eq!(announced(&update), prefixes(&["192.0.2.0/24"]), "{why}");
            let mut plain = attributes_of(&valid(context), context);
            if KEPT_AS_UNKNOWN.contains(&name) {
                let [raw] = &update.attributes.unknown[..] else { panic!("{why}: {update:?}") };
                assert_eq!((raw.flags, raw.code), (0xe0, number("attr_type")), "{why}");
                plain.unknown.clone_from(&update.attributes.unknown);
            } else if name != "unknown-fd-nontransitive" {
                assert_eq!(strongest(&findings), Verdict::DiscardAttribute, "{why}");
            }
            assert_eq!(*update.attributes, plain, "{why}");
        }
        "session-reset" => {
            let expected = case["expect_notification"].as_array().unwrap();
            let reset = result.unwrap_err();
            assert_eq!(
                (expected[0].as_u64(), expected[1].as_u64()),
                (Some(reset.code.into()), Some(reset.subcode.into())),
                "{why}"
            );
        }
        other => panic!("{why}: unknown outcome {other}"),
    }
}

#[test]
fn a_missing_mandatory_attribute_withdraws() {
    for context in [EXTERNAL, INTERNAL] {
        for missing in valid(&context) {
            let mut list = valid(&context);
            list.retain(|attribute| *attribute != missing);
            assert_withdrawn(decode(&list, &context), &format!("without {}", missing.1));
        }
    }
    assert_withdrawn(decode_parts(&[], &[], &PREFIX, &EXTERNAL), "without any attribute");
}

/// An MP_REACH_NLRI of 2001:db8:1::/48 through 2001:db8::1.
fn mp_reach() -> Attribute {
    (
        0x80,
        MP_REACH,
        hex("00020110 20010db8000000000000000000000001 00 30 20010db80001".replace(' ', "").as_str()),
    )
}

/// An MP_UNREACH_NLRI of 2001:db8:2::/48.
fn mp_unreach() -> Attribute {
    (0x80, MP_UNREACH, hex("000201 30 20010db80002".replace(' ', "").as_str()))
}

#[test]
fn the_strongest_verdict_wins_and_reaches_both_families() {
    let list = |origin: u8| {
        let mut list = with(&EXTERNAL, (0x40, 1, vec![origin]));
        list.extend([mp_reach(), mp_unreach(), (0x40, 6, vec![1])]);
        attribute_octets(&list)
    };
    let (good, findings) = decode_parts(&[8, 10], &list(0), &PREFIX, &EXTERNAL).unwrap();
    assert_eq!(strongest(&findings), Verdict::DiscardAttribute);
    assert_eq!(announced(&good), prefixes(&["192.0.2.0/24", "2001:db8:1::/48"]));
    assert_eq!(withdrawn(&good), prefixes(&["10.0.0.0/8", "2001:db8:2::/48"]));

    let (bad, findings) = decode_parts(&[8, 10], &list(3), &PREFIX, &EXTERNAL).unwrap();
    assert_eq!(findings.iter().map(|f| f.attribute).collect::<Vec<_>>(), [1, 6]);
    assert_eq!(announced(&bad), []);
    assert_eq!(
        withdrawn(&bad),
        prefixes(&["10.0.0.0/8", "2001:db8:2::/48", "192.0.2.0/24", "2001:db8:1::/48"])
    );
}

#[test]
fn of_a_repeated_attribute_the_first_counts() {
    let mut list = valid(&EXTERNAL);
    list.extend([(0x80, 4, vec![0, 0, 0, 1]), (0x80, 4, vec![0, 0, 0, 2]), (0x40, 1, vec![9])]);
    let (update, findings) = decode(&list, &EXTERNAL).unwrap();
    assert_eq!(update.attributes.med, Some(1));
    assert_eq!(
        findings.iter().map(|f| (f.verdict, f.attribute)).collect::<Vec<_>>(),
        [(Verdict::DiscardAttribute, 4), (Verdict::DiscardAttribute, 1)]
    );
    for twice in [mp_reach(), mp_unreach()] {
        let mut list = valid(&EXTERNAL);
        list.extend([twice.clone(), twice]);
        assert_eq!(decode(&list, &EXTERNAL), Err(Notification::bare(3, 1)));
    }
}

#[test]
fn an_attribute_beyond_the_list_withdraws() {
    let whole = attribute_octets(&valid(&EXTERNAL));
    for (tail, why) in [
        (&[0x80][..], "flags only"),
        (&[0x80, 4], "no length"),
        (&[0x80, 4, 4, 0, 0, 0], "one octet short"),
        (&[0x90, 8, 0], "half an extended length"),
        (&[0xd0, 8, 0xff, 0xff, 0, 0, 0, 1], "far too long"),
    ] {
        assert_withdrawn(decode_parts(&[], &[&whole[..], tail].concat(), &PREFIX, &EXTERNAL), why);
    }
    // Prefixes that nobody can name cannot be withdrawn (section 3 j).
    for code in [MP_REACH, MP_UNREACH] {
        let overrun = [&whole[..], &[0x80, code, 200, 0, 2, 1]].concat();
        assert_eq!(decode_parts(&[], &overrun, &PREFIX, &EXTERNAL), Err(Notification::bare(3, 1)));
    }
}

#[test]
fn lengths_beyond_the_message_reset() {
    for body in [&[0, 1, 0, 0][..], &[0, 0, 0, 1], &[0xff, 0xff, 0, 0], &[0, 2, 8, 10, 0], &[0, 1, 0, 0, 1]] {
        let mut octets = BytesMut::from(&[0xff; 16][..]);
        octets.put_u16(u16::try_from(19 + body.len()).unwrap());
        octets.put_u8(2);
        octets.put_slice(body);
        let frame = Frame::poll(&mut octets, 4096).unwrap().unwrap();
        assert_eq!(Message::decode(frame, &EXTERNAL), Err(Notification::bare(3, 1)), "{body:?}");
    }
}

#[test]
fn prefixes_that_cannot_be_read_reset() {
    let list = attribute_octets(&valid(&EXTERNAL));
    let invalid_network = Err(Notification::bare(3, 10));
    for field in [&[33, 1, 2, 3, 4, 5][..], &[24, 10, 0], &[255]] {
        assert_eq!(decode_parts(&[], &list, field, &EXTERNAL), invalid_network);
        assert_eq!(decode_parts(field, &list, &PREFIX, &EXTERNAL), invalid_network);
    }
    let mut list = valid(&EXTERNAL);
    let mut broken = mp_reach();
    broken.2.extend_from_slice(&[129, 0]);
    let data = attribute_octets(std::slice::from_ref(&broken));
    list.push(broken);
    assert_eq!(decode(&list, &EXTERNAL), Err(Notification::new(3, 9, data)));
}

#[test]
fn a_multicast_prefix_is_ignored_alone() {
    let list = attribute_octets(&valid(&EXTERNAL));
    let (update, findings) = decode_parts(&[], &list, &[8, 225, 8, 10, 32, 239, 0, 0, 1], &EXTERNAL).unwrap();
    assert_eq!((announced(&update), withdrawn(&update)), (prefixes(&["10.0.0.0/8"]), vec![]));
    assert_eq!(strongest(&findings), Verdict::IgnorePrefix);
    let (update, _) = decode_parts(&[], &list, &[8, 225], &EXTERNAL).unwrap();
    assert_eq!(update.reach, []);
}

#[test]
fn a_fault_without_a_prefix_to_withdraw_resets() {
    // Section 5.2: attributes, none of them MP_UNREACH_NLRI, and nothing reachable.
    let bad_med = attribute_octets(&[(0x80, 4, vec![1])]);
    assert_eq!(decode_parts(&[], &bad_med, &[], &EXTERNAL), Err(Notification::new(3, 5, bad_med.clone())));
    // Withdrawals beside it do not help; discarding an attribute does no harm.
    assert!(decode_parts(&[8, 10], &bad_med, &[], &EXTERNAL).is_err());
    let bad_atomic = attribute_octets(&[(0x40, 6, vec![1])]);
    let (update, findings) = decode_parts(&[8, 10], &bad_atomic, &[], &EXTERNAL).unwrap();
    assert_eq!(
        (withdrawn(&update), strongest(&findings)),
        (prefixes(&["10.0.0.0/8"]), Verdict::DiscardAttribute)
    );
    // An MP_UNREACH_NLRI alone whose flags are wrong still says what to withdraw.
    let (_, code, value) = mp_unreach();
    let (update, findings) =
        decode_parts(&[], &attribute_octets(&[(0xc0, code, value)]), &[], &EXTERNAL).unwrap();
    assert_eq!(withdrawn(&update), prefixes(&["2001:db8:2::/48"]));
    assert_eq!(strongest(&findings), Verdict::TreatAsWithdraw);
}

#[test]
fn an_unknown_well_known_attribute_resets_with_the_attribute() {
    let unknown = (0x40, 200, vec![1, 2, 3]);
    let data = attribute_octets(std::slice::from_ref(&unknown));
    assert_eq!(decode(&with(&EXTERNAL, unknown), &EXTERNAL), Err(Notification::new(3, 2, data)));
}

#[test]
fn unknown_optional_attributes_are_kept_or_ignored_by_their_flags() {
    let mut list = valid(&EXTERNAL);
    list.extend([(0xc0, 201, vec![1]), (0x80, 202, vec![2]), (0xe0, 199, vec![3])]);
    let kept = attributes_of(&list, &EXTERNAL).unknown;
    let shown: Vec<_> = kept.iter().map(|raw| (raw.flags, raw.code, raw.value.to_vec())).collect();
    assert_eq!(shown, [(0xe0, 199, vec![3]), (0xe0, 201, vec![1])]);
}

#[test]
fn only_an_internal_peer_says_what_is_internal() {
    let internal_only =
        [(0x40, 5, vec![0, 0, 0, 7]), (0x80, 9, vec![10, 0, 0, 9]), (0x80, 10, vec![10, 0, 0, 8])];
    let list = |context: &CodecContext| {
        internal_only.iter().fold(valid(context), |mut list, attribute| {
            list.retain(|(_, code, _)| *code != attribute.1);
            list.push(attribute.clone());
            list
        })
    };
    let kept = attributes_of(&list(&INTERNAL), &INTERNAL);
    assert_eq!((kept.local_pref, kept.originator_id), (Some(7), Some([10, 0, 0, 9].into())));
    assert_eq!(kept.cluster_list, [std::net::Ipv4Addr::from([10, 0, 0, 8])]);
    let (update, findings) = decode(&list(&EXTERNAL), &EXTERNAL).unwrap();
    assert_eq!(*update.attributes, attributes_of(&valid(&EXTERNAL), &EXTERNAL));
    assert_eq!(findings.len(), 3);
    assert_eq!(strongest(&findings), Verdict::DiscardAttribute);
}

#[test]
fn a_confederation_is_not_seen_from_outside() {
    let confed = (0x40, 2, vec![3, 1, 0, 0, 0xfd, 0xe9]);
    assert_withdrawn(decode(&with(&EXTERNAL, confed.clone()), &EXTERNAL), "confederation segment");
    assert_eq!(attributes_of(&with(&INTERNAL, confed), &INTERNAL).as_path.hop_count(), 0);
}

#[test]
fn next_hop_is_ignored_without_classic_prefixes() {
    let mut list = with(&EXTERNAL, (0x40, 3, vec![0, 0, 0, 0]));
    list.push(mp_reach());
    let (update, findings) = decode_parts(&[], &attribute_octets(&list), &[], &EXTERNAL).unwrap();
    assert_eq!(findings, []);
    assert_eq!(announced(&update), prefixes(&["2001:db8:1::/48"]));
}

#[test]
fn a_martian_ipv6_next_hop_withdraws() {
    for next_hop in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
        let address: std::net::Ipv6Addr = next_hop.parse().unwrap();
        let mut list = valid(&EXTERNAL);
        let mut reach = mp_reach();
        reach.2[4..20].copy_from_slice(&address.octets());
        list.push(reach);
        let (update, _) = decode_parts(&[], &attribute_octets(&list), &[], &EXTERNAL).unwrap();
        assert_eq!((announced(&update), withdrawn(&update)), (vec![], prefixes(&["2001:db8:1::/48"])));
    }
}

#[test]
fn families_that_we_do_not_speak_are_ignored() {
    let mut list = valid(&EXTERNAL);
    list.extend([
        (0x80, MP_REACH, vec![0, 25, 70, 4, 1, 2, 3, 4, 0, 9, 9]),
        (0x80, MP_UNREACH, vec![0, 25, 70]),
    ]);
    let (update, findings) = decode_parts(&[], &attribute_octets(&list), &[], &EXTERNAL).unwrap();
    assert_eq!((update, findings), (Update::default(), vec![]));
}

#[test]
fn families_that_the_session_did_not_agree_on_can_be_left_out() {
    let mut list = valid(&EXTERNAL);
    list.extend([mp_reach(), mp_unreach()]);
    let (mut update, _) = decode_parts(&[8, 10], &attribute_octets(&list), &PREFIX, &EXTERNAL).unwrap();
    update.retain_families([AfiSafi::Ipv6Unicast].into_iter().collect());
    assert_eq!(announced(&update), prefixes(&["2001:db8:1::/48"]));
    assert_eq!(withdrawn(&update), prefixes(&["2001:db8:2::/48"]));
    let (mut update, _) = decode_parts(&[], &[], &[], &EXTERNAL).unwrap();
    assert_eq!(update.end_of_rib, Some(AfiSafi::Ipv4Unicast));
    update.retain_families(Families::NONE);
    assert_eq!(update, Update::default());
}

#[test]
fn an_old_speaker_s_path_is_merged() {
    let old = CodecContext { four_octet_asn: false, ..EXTERNAL };
    let path = |value: Vec<u8>| (0x40, 2, value);
    let mut list = with(&old, path(vec![2, 2, 0xfd, 0xe9, 0x5b, 0xa0]));
    list.push((0xc0, 17, vec![2, 1, 0, 1, 0x11, 0x70]));
    list.push((0xc0, 7, vec![0x5b, 0xa0, 10, 0, 0, 9]));
    list.push((0xc0, 18, vec![0, 1, 0x11, 0x70, 10, 0, 0, 9]));
    let merged = attributes_of(&list, &old);
    assert_eq!(merged.as_path.to_string(), "65001 70000");
    assert_eq!(merged.aggregator.unwrap().asn.number(), 70_000);
    // An AGGREGATOR that is not AS_TRANS was set after the wide ones, which then are stale (RFC 6793 section 4.2.3).
    list.iter_mut().find(|(_, code, _)| *code == 7).unwrap().2[..2].copy_from_slice(&[0xfd, 0xe9]);
    let stale = attributes_of(&list, &old);
    assert_eq!(stale.as_path.to_string(), "65001 23456");
    assert_eq!(stale.aggregator.unwrap().asn.number(), 65001);
    // Malformed, it is discarded and the route stands (section 6).
    list.iter_mut().find(|(_, code, _)| *code == 17).unwrap().2[0] = 9;
    let (update, findings) = decode(&list, &old).unwrap();
    assert_eq!(update.attributes.as_path.to_string(), "65001 23456");
    assert_eq!(strongest(&findings), Verdict::DiscardAttribute);
}
