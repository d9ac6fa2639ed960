//! Headers, NOTIFICATIONs, ROUTE-REFRESHes, and messages that come in the wrong state.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plainroute_bgp::{AfiSafi, session::State, wire::Capability};
use plainroute_speaker::{PeerConfig, PeerStatus};

use crate::{
    peer::{
        KEEPALIVE, NOTIFICATION, OPEN, ROUTE_REFRESH, RawPeer, UPDATE, encoded, keepalive, message, update,
    },
    site::{Site, Sort, name},
};

async fn established() -> (Site, RawPeer) {
    let site = Site::new([(2, Sort::External)]).await;
    let peer = RawPeer::establish(&site, 2).await.unwrap();
    (site, peer)
}

/// A header with any length field, without what would follow.
fn header(length: u16, kind: u8) -> Vec<u8> {
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind]].concat()
}

/// RFC 4271 section 6.1: each fault of the header on an Established session.
#[tokio::test]
async fn header_faults() {
    let (site, mut peer) = established().await;
    let mut faults: Vec<(String, Vec<u8>, (u8, u8))> = Vec::new();
    for place in 0..16 {
        let mut octets = keepalive();
        octets[place] ^= 1;
        faults.push((format!("marker octet {place}"), octets, (1, 1)));
    }
    for length in (0..19).chain([4097, 4098, 8192, 65535]) {
        for kind in [UPDATE, NOTIFICATION, KEEPALIVE, ROUTE_REFRESH] {
            faults.push((format!("type {kind} of {length} octets"), header(length, kind), (1, 2)));
        }
    }
    // The least and the most that each type may have.
    for (kind, short) in [(OPEN, 28), (UPDATE, 22), (NOTIFICATION, 20), (ROUTE_REFRESH, 22)] {
        faults.push((format!("type {kind} of {short} octets"), header(short, kind), (1, 2)));
    }
    faults
        .extend((20..40).map(|length| (format!("KEEPALIVE of {length}"), header(length, KEEPALIVE), (1, 2))));
    for kind in (6..=u8::MAX).chain([0]) {
        faults.push((format!("type {kind}"), message(kind, &[]), (1, 3)));
    }
    for (what, octets, expected) in faults {
        let told = peer.is_refused(&site, &octets, expected).await.context(what.clone()).unwrap();
        // The data is the erroneous field.
        let field = match expected {
            (1, 2) => &octets[16..18],
            (1, 3) => &octets[18..19],
            _ => &[],
        };
        assert_eq!(told, field, "{what}");
    }
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 7313 section 4: a refresh that is begun and never ended is over at its limit.
#[tokio::test]
async fn a_refresh_that_is_never_ended_rfc_7313() {
    let site = Site::new([(2, Sort::External)]).await;
    let limit = Duration::from_millis(500);
    let config = PeerConfig { refresh_limit: limit, ..site.config(2) };
    site.apply([(name(2), config)].into()).await.unwrap();
    let mut peer = RawPeer::connect(&site, 2).await.unwrap();
    let mut open = peer.open();
    open.capabilities.push(Capability::EnhancedRouteRefresh);
    peer.handshake(&site, &encoded(&open)).await.unwrap();
    peer.marker_arrives(&site).await.unwrap();
    // Negative control: without a beginning it stays, and so it does until the limit.
    let began = Instant::now();
    peer.send(&message(ROUTE_REFRESH, &[0, 1, 1, 1])).await.unwrap();
    let accepted = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].accepted;
    site.wait(2, |status| accepted(status) == 0).await.unwrap();
    assert!(began.elapsed() >= limit);
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 4271 sections 6.4 and 8.2.2: whatever a NOTIFICATION says, the connection ends and nothing is answered.
#[tokio::test]
async fn notifications_of_every_form() {
    let (site, mut peer) = established().await;
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for code in (0..=10).chain([255]) {
        bodies.extend([0, 1, 4, 9, 255].map(|subcode| vec![code, subcode]));
    }
    for (code, subcode) in [(1, 2), (2, 7), (3, 1), (6, 2), (6, 4), (6, 9), (99, 99)] {
        // A shutdown text whose length is wrong, controls and octets that are no UTF-8, and all that fits.
        let data = [vec![0], vec![255, b'x'], vec![4, 0x1b, 0xff, b'[', 7], vec![0xff; 4075]];
        bodies.extend(data.map(|data| [vec![code, subcode], data].concat()));
    }
    for body in bodies {
        let what = format!("NOTIFICATION {:?}", &body[..body.len().min(8)]);
        let lost = site.status(2).counters.lost;
        peer.send(&message(NOTIFICATION, &body)).await.unwrap();
        peer.silent_end().await.context(what.clone()).unwrap();
        let status = site.wait(2, |status| status.counters.lost == lost + 1).await.unwrap();
        let (error, _) = status.last_error.unwrap();
        assert!(error.contains("received NOTIFICATION"), "{what}: {error}");
        assert!(!error.contains(|c: char| c.is_control()), "{what}: {error:?}");
        peer = RawPeer::establish(&site, 2).await.unwrap();
    }
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 2918 and RFC 7313 section 5: unknown subtypes and families are ignored, wrong lengths are not.
#[tokio::test]
async fn route_refreshes_of_every_form() {
    let (site, mut peer) = established().await;
    let before = site.status(2);
    for subtype in 0..=u8::MAX {
        peer.send(&message(ROUTE_REFRESH, &[0, 1, subtype, 1])).await.unwrap();
    }
    for afi in 0..=30 {
        for safi in [0, 1, 2, 4, 70, 128, 255] {
            peer.send(&message(ROUTE_REFRESH, &[0, afi, 0, safi])).await.unwrap();
        }
    }
    peer.marker_arrives(&site).await.unwrap();
    let after = site.status(2);
    assert_eq!((after.since, after.counters.lost), (before.since, 0));
    let received = after.counters.messages_received - before.counters.messages_received;
    assert_eq!(received, 256 + 31 * 7 + 1, "each was read");
    for length in (5..40).chain([255, 4077]) {
        let body = [&[0, 1, 0, 1][..], &vec![0; length - 4]].concat();
        peer.is_refused(&site, &message(ROUTE_REFRESH, &body), (7, 1)).await.unwrap();
    }
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 6608: an unexpected message is told by the state in which it came.
#[tokio::test]
async fn messages_in_the_wrong_state() {
    let site = Site::new([(2, Sort::External)]).await;
    let open = encoded(&RawPeer::connect(&site, 2).await.unwrap().open());
    let refresh = message(ROUTE_REFRESH, &[0, 1, 0, 1]);
    let empty = update(&[], &[], &[]);
    let broken = message(UPDATE, &[0xff; 4]);
    for unexpected in [&keepalive(), &empty, &broken, &refresh] {
        expect_refusal(&site, &[], unexpected, (5, 1)).await.unwrap();
    }
    for unexpected in [&open, &empty, &broken, &refresh] {
        expect_refusal(&site, &open, unexpected, (5, 2)).await.unwrap();
    }
    let mut peer = RawPeer::establish(&site, 2).await.unwrap();
    peer.is_refused(&site, &open, (5, 3)).await.unwrap();
    // Beside a session that stands, another connection loses (RFC 4271 section 6.8), and the session goes on.
    expect_refusal(&site, &[], &open, (6, 7)).await.unwrap();
    peer.marker_arrives(&site).await.unwrap();
    assert_eq!(site.status(2).counters.lost, 1);
}

/// On a connection of its own: what comes first, then what must be refused.
async fn expect_refusal(site: &Site, first: &[u8], then: &[u8], expected: (u8, u8)) -> Result<()> {
    let mut peer = RawPeer::connect(site, 2).await?;
    peer.send(&[first, then].concat()).await?;
    let refusal = peer.refusal().await?;
    ensure!((refusal.code, refusal.subcode) == expected, "{refusal} instead of {expected:?}");
    Ok(())
}

/// Negative control: a valid message is no fault.
#[tokio::test]
async fn a_fault_that_is_none_is_found() {
    let (site, mut peer) = established().await;
    // The speaker answers nothing; so that the check ends, the connection does.
    let octets = [keepalive(), message(NOTIFICATION, &[6, 2])].concat();
    let error = peer.is_refused(&site, &octets, (1, 2)).await.expect_err("nothing was wrong");
    assert!(error.to_string().contains("without a NOTIFICATION"), "{error:#}");
    site.wait(2, |status| status.state != State::Established).await.unwrap();
}
