//! UPDATEs: every length field, next-hop length, segment count and octet of valid ones, changed.
use anyhow::{Context, Result};
use plainroute_bgp::{AfiSafi, Families};
use plainroute_speaker::PeerConfig;

use crate::{
    peer::{MARKER, RawPeer, UPDATE, attributes, message, update, update_body, valid, with},
    site::{Site, Sort, name},
};

const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
const SORT: Sort = Sort::External;

async fn established() -> (Site, RawPeer) {
    let site = Site::new([(2, SORT)]).await;
    let peer = RawPeer::establish(&site, 2).await.unwrap();
    (site, peer)
}

/// MP_REACH_NLRI of 2001:db8:1::/48 with a next hop field of these octets, whose length octet is `length`.
fn mp_reach(length: u8, next_hop: &[u8]) -> Vec<u8> {
    [&[0, 2, 1, length][..], next_hop, &[0, 48, 0x20, 1, 0xd, 0xb8, 0, 1]].concat()
}

/// 2001:db8::1, and fe80::1 beside it, as far as `length` goes.
fn next_hop(length: usize) -> Vec<u8> {
    let mut octets = vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xfe, 0x80];
    octets.resize(31, 0);
    octets.push(1);
    octets.resize(length, 0);
    octets
}

/// Splits a field with its length of two octets off the front.
fn field(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn are_prefixes(mut octets: &[u8]) -> bool {
    while let Some((length, rest)) = octets.split_first() {
        match rest.get(usize::from(length.div_ceil(8))..) {
            Some(rest) if *length <= 32 => octets = rest,
            _ => return false,
        }
    }
    true
}

/// What the RFCs say of a body without MP_REACH_NLRI and MP_UNREACH_NLRI, told apart from the decoder's own way:
/// the NOTIFICATION, or none where the session goes on.
fn fault(body: &[u8]) -> Option<(u8, u8)> {
    // RFC 4271 section 6.3: lengths beyond the message.
    let fields = field(body).and_then(|(withdrawn, rest)| Some((withdrawn, field(rest)?)));
    let Some((withdrawn, (mut list, nlri))) = fields else { return Some((3, 1)) };
    // RFC 7606 section 5.3.
    if !are_prefixes(withdrawn) || !are_prefixes(nlri) {
        return Some((3, 10));
    }
    while let [flags, code, rest @ ..] = list {
        // RFC 4271 section 6.3: an unrecognized attribute that says to be well-known.
        let recognized = (1..=10).contains(code);
        let value = match (flags & 0x10, rest) {
            (0, [length, value @ ..]) => value.split_at_checked(usize::from(*length)),
            (0, []) => None,
            _ => field(rest),
        };
        match value {
            Some(_) if flags & 0x80 == 0 && !recognized => return Some((3, 2)),
            Some((_, rest)) => list = rest,
            None => break,
        }
    }
    // RFC 7606 section 5.2: an attribute beyond the list, and nothing that could be withdrawn.
    (!list.is_empty() && nlri.is_empty()).then_some((3, 1))
}

/// Sends an UPDATE with this body: refused as expected, or taken in on the session that stands.
async fn check(site: &Site, peer: &mut RawPeer, body: &[u8], expected: Option<(u8, u8)>) -> Result<()> {
    let octets = message(UPDATE, body);
    match expected {
        Some(codes) => peer.is_refused(site, &octets, codes).await.map(|_| ()),
        None => peer.update(site, &octets).await.map(|_| ()),
    }
}

/// RFC 4271 section 6.3: both length fields of the message, each with every value that the message could hold,
/// and some beyond.
#[tokio::test]
async fn the_length_fields_of_the_message() {
    let (site, mut peer) = established().await;
    let (withdrawn, list, nlri) = ([8, 10], attributes(&valid(SORT)), [24, 192, 0, 2, 24, 192, 0, 2]);
    let right = update_body(&withdrawn, &list, &nlri);
    assert_eq!(fault(&right), None);
    let mut refused = 0;
    for place in [0, 2 + withdrawn.len()] {
        for length in (0..u16::try_from(right.len()).unwrap() + 3).chain([255, 256, 4096, 65535]) {
            let mut body = right.clone();
            body[place..place + 2].copy_from_slice(&length.to_be_bytes());
            let expected = fault(&body);
            refused += usize::from(expected.is_some());
            let what = || format!("length {length} at {place}: {expected:?}");
            check(&site, &mut peer, &body, expected).await.with_context(what).unwrap();
        }
    }
    assert!(refused > 60, "only {refused} were wrong");
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 7606 section 5.3: a prefix length beyond the family's, or beyond the field, in each of the four places.
#[tokio::test]
async fn prefix_lengths() {
    let (site, mut peer) = established().await;
    let list = attributes(&valid(SORT));
    for length in 0..=u8::MAX {
        // Four octets follow: all that IPv4 can want.
        let fits = (25..=32).contains(&length);
        let field = [length, 192, 0, 2, 0];
        for body in [update_body(&[], &list, &field), update_body(&field, &[], &[])] {
            // Shorter ones leave octets that are read as prefixes again.
            let expected = if fits { None } else { fault(&body) };
            check(&site, &mut peer, &body, expected)
                .await
                .with_context(|| format!("IPv4 /{length}"))
                .unwrap();
        }
        if length > 128 {
            let network = [&[length][..], &[0x20; 16]].concat();
            let reach = [&[0, 2, 1, 16][..], &next_hop(16), &[0], &network].concat();
            let unreach = [&[0, 2, 1][..], &network].concat();
            for (code, value) in [(MP_REACH, reach), (MP_UNREACH, unreach)] {
                // RFC 4760 section 7: Optional Attribute Error.
                let body = update_body(&[], &attributes(&with(SORT, (0x80, code, value))), &[]);
                check(&site, &mut peer, &body, Some((3, 9)))
                    .await
                    .with_context(|| format!("IPv6 /{length}"))
                    .unwrap();
            }
        }
    }
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 7606 section 7.11: the length of the next hop is 16 or 32 octets for IPv6 (RFC 2545 section 3); anything else
/// resets, since nobody knows where the prefixes begin.
#[tokio::test]
async fn next_hop_lengths() {
    let (site, mut peer) = established().await;
    for length in 0..=u8::MAX {
        let exact = mp_reach(length, &next_hop(usize::from(length)));
        let fixed = mp_reach(length, &next_hop(16));
        for (value, right) in [(exact, matches!(length, 16 | 32)), (fixed, length == 16)] {
            let body = update_body(&[], &attributes(&with(SORT, (0x80, MP_REACH, value))), &[]);
            let expected = (!right).then_some((3, 1));
            check(&site, &mut peer, &body, expected)
                .await
                .with_context(|| format!("next hop of {length}"))
                .unwrap();
            assert_eq!(site.route(2, "2001:db8:1::/48").await.is_some(), right, "next hop of {length}");
        }
    }
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 7606 section 7.2: a segment count that does not meet the end of AS_PATH withdraws, and never resets; so does a
/// type that does not exist, and from outside one of a confederation (RFC 5065 section 5).
#[tokio::test]
async fn segment_counts_and_types() {
    let (site, mut peer) = established().await;
    // The paths begin with whatever there is.
    let any_first = PeerConfig { enforce_first_as: false, ..site.config(2) };
    site.apply([(name(2), any_first)].into()).await.unwrap();
    let announce = |path: Vec<u8>| update(&[], &attributes(&with(SORT, (0x40, 2, path))), &[24, 192, 0, 2]);
    for octet in 0..=u8::MAX {
        for (path, right) in [
            (vec![2, octet, 0, 0, 0xfd, 0xe9], octet == 1),
            (vec![octet, 1, 0, 0, 0xfd, 0xe9], matches!(octet, 1 | 2)),
            // A second segment behind a right one.
            (vec![2, 1, 0, 0, 0xfd, 0xe9, 2, octet, 0, 0, 0xfd, 0xe9], octet == 1),
        ] {
            let found = peer.update(&site, &announce(path.clone())).await.unwrap();
            assert_eq!(found, !right, "{path:?}");
            assert_eq!(site.route(2, "192.0.2.0/24").await.is_some(), right, "{path:?}");
        }
    }
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 7606 section 2: no attribute that does not name prefixes resets, whatever its length; known or not, as long as
/// its flags say that it is optional.
#[tokio::test]
async fn attribute_lengths() {
    let (site, mut peer) = established().await;
    let before = site.status(2).since;
    let known = [
        (0x40, [1, 2, 3, 5, 6].as_slice()),
        (0x80, &[4, 9, 10, 26, 29]),
        (0xc0, &[7, 8, 16, 17, 18, 22, 23, 25, 32, 35, 40, 99]),
    ];
    for (flags, codes) in known {
        for code in codes {
            for length in (0..=40).chain([255, 256, 1000]) {
                for octet in [0, 1, 0xff] {
                    let list = with(SORT, (flags, *code, vec![octet; length]));
                    let octets = update(&[], &attributes(&list), &[24, 192, 0, 2]);
                    let what = || format!("attribute {code} of {length} octets {octet}");
                    peer.update(&site, &octets).await.with_context(what).unwrap();
                }
            }
        }
    }
    // One that goes beyond the list (RFC 7606 section 4).
    let whole = attributes(&valid(SORT));
    let last = whole.len() - 5;
    for length in 5..=u8::MAX {
        let mut list = whole.clone();
        list[last] = length;
        let body = update_body(&[], &list, &[24, 192, 0, 2]);
        assert!(peer.update(&site, &message(UPDATE, &body)).await.unwrap(), "length {length}");
        assert!(site.route(2, "192.0.2.0/24").await.is_none(), "length {length}");
    }
    peer.marker_arrives(&site).await.unwrap();
    assert_eq!(site.status(2).since, before);
}

/// Every octet of an UPDATE that has all there is, changed: taken in, or refused by an UPDATE Message Error; and
/// the speaker goes on.
#[tokio::test]
async fn every_octet() {
    let (site, mut peer) = established().await;
    let mut list = valid(SORT);
    list.extend([
        (0x80, 4, vec![0, 0, 0, 1]),
        (0xc0, 8, vec![0xff, 0xff, 0, 1]),
        (0x80, MP_REACH, mp_reach(16, &next_hop(16))),
        (0x80, MP_UNREACH, vec![0, 2, 1, 48, 0x20, 1, 0xd, 0xb8, 0, 2]),
        (0xc0, 32, vec![0; 12]),
        (0xc0, 99, vec![1, 2, 3]),
    ]);
    let right = update_body(&[24, 198, 51, 100], &attributes(&list), &[24, 192, 0, 2]);
    assert!(!peer.update(&site, &message(UPDATE, &right)).await.unwrap());
    let (mut kept, mut refused) = (0, 0);
    for place in 0..right.len() {
        let now = right[place];
        for octet in [now ^ 1, now ^ 0x80, now.wrapping_add(7), 0, 0xff] {
            let mut body = right.clone();
            body[place] = octet;
            let before = site.status(2).counters;
            peer.send(&message(UPDATE, &body)).await.unwrap();
            let over = |status: &plainroute_speaker::PeerStatus| {
                status.counters.updates_received > before.updates_received
                    || status.counters.lost > before.lost
            };
            if site.wait(2, over).await.unwrap().counters.lost == before.lost {
                kept += 1;
                continue;
            }
            refused += 1;
            let refusal = peer.refusal().await.unwrap();
            assert_eq!(refusal.code, 3, "octet {place} is {octet}: {refusal}");
            peer = RawPeer::establish(&site, 2).await.unwrap();
        }
    }
    assert!(kept > 200 && refused > 50, "{kept} kept, {refused} refused");
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 4760 section 6: what the session did not agree on is ignored, and the session goes on.
#[tokio::test]
async fn a_family_that_was_not_agreed_on_is_ignored() {
    let (site, peer) = established().await;
    peer.leave(&site).await.unwrap();
    let only_v4 = PeerConfig { families: Families::from_iter([AfiSafi::Ipv4Unicast]), ..site.config(2) };
    site.apply([(name(2), only_v4)].into()).await.unwrap();
    let mut peer = RawPeer::establish(&site, 2).await.unwrap();
    let list = attributes(&with(SORT, (0x80, MP_REACH, mp_reach(16, &next_hop(16)))));
    peer.update(&site, &update(&[], &list, &[24, 192, 0, 2])).await.unwrap();
    let received = site.received(2).await;
    assert_eq!(received.iter().map(|route| route.prefix.to_string()).collect::<Vec<_>>(), ["192.0.2.0/24"]);
    peer.marker_arrives(&site).await.unwrap();
}

/// A received route that no rule lets in costs no memory: it is counted and forgotten.
/// RFC 4271 section 6.3: what a peer says of another AS's path does not come in, unless it is a route server.
#[tokio::test]
async fn the_first_as_of_a_path_is_the_peers() {
    let (site, mut peer) = established().await;
    let foreign = (0x40, 2, vec![2, 2, 0, 0, 0, 9, 0, 0, 0xfd, 0xe9]);
    let update = update(&[], &attributes(&with(peer.sort, foreign)), &[24, 198, 51, 100]);
    peer.marker_arrives(&site).await.unwrap();
    assert!(!peer.update(&site, &update).await.unwrap(), "the UPDATE itself is well formed");
    assert!(site.route(2, MARKER).await.is_none(), "the route that was there is withdrawn");

    let lenient = PeerConfig { enforce_first_as: false, ..site.config(2) };
    site.apply([(name(2), lenient)].into()).await.unwrap();
    peer.update(&site, &update).await.unwrap();
    assert!(site.route(2, MARKER).await.is_some());
    // Back to the default: what is held goes at once, and the session stays.
    site.apply(site.configs()).await.unwrap();
    site.wait(2, |status| status.families[&AfiSafi::Ipv4Unicast].accepted == 0).await.unwrap();
    assert_eq!(site.status(2).counters.lost, 0);
}

#[tokio::test]
async fn rejected_prefixes_leave_nothing_but_a_count() {
    let (site, mut peer) = established().await;
    let mut left: u32 = 100_000;
    let mut messages = 0;
    while left > 0 {
        let count = left.min(700);
        let nlri: Vec<u8> = (0..count)
            .flat_map(|n| [[32].as_slice(), &(0x0b00_0000 + left - n).to_be_bytes()].concat())
            .collect();
        // Attributes of its own for each, so that they cannot be shared.
        let list = with(SORT, (0x80, 4, left.to_be_bytes().to_vec()));
        peer.send(&update(&[], &attributes(&list), &nlri)).await.unwrap();
        (left, messages) = (left - count, messages + 1);
    }
    let status = site.taken(2, messages, 0).await.unwrap();
    let family = &status.families[&AfiSafi::Ipv4Unicast];
    assert_eq!((family.rejected, family.accepted), (100_000, 0));
    assert_eq!((status.counters.updates_received, status.counters.malformed_updates), (messages, 0));
    assert!(site.received(2).await.is_empty());
    assert!(site.speaker.learned().borrow().is_empty());
    // Withdrawing what was never kept is no error.
    peer.update(&site, &update(&[32, 11, 0, 0, 1], &[], &[])).await.unwrap();
    peer.marker_arrives(&site).await.unwrap();
}

/// Negative control: the checks tell a reset from none, and one reset from another.
#[tokio::test]
async fn a_wrong_verdict_is_found() {
    for (body, expected) in [
        (update_body(&[33, 1, 2, 3, 4, 5], &[], &[]), None),
        (update_body(&[33, 1, 2, 3, 4, 5], &[], &[]), Some((3, 1))),
    ] {
        let (site, mut peer) = established().await;
        let error = check(&site, &mut peer, &body, expected).await.expect_err("it is Invalid Network Field");
        assert!(format!("{error:#}").contains("Invalid Network Field"), "{error:#}");
    }
}
