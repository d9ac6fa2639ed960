//! Peers that are silent, slow, deaf or loud: their own sessions take what the RFCs say, those of others nothing.
//!
//! In each test a witness has a session beside the hostile one. It must stay the same session and be heard while
//! the other peer misbehaves.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use plainroute_bgp::{AfiSafi, Community, HoldTime, Prefix, session::State, wire::Message};
use plainroute_speaker::{OriginAttributes, Originated, PeerStatus};
use tokio::{net::TcpSocket, time::timeout};

use crate::{
    peer::{RawPeer, attributes, encoded, keepalive, update, valid, with},
    site::{DEADLINE, Site, Sort, name, prefix},
};

const HOSTILE: u8 = 2;
const WITNESS: u8 = 3;
/// How long a route of the witness may take while the other peer does its worst, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// A peer whose session must not be touched.
struct Witness {
    peer: RawPeer,
    before: PeerStatus,
}

impl Witness {
    async fn new(site: &Site) -> Witness {
        let peer = RawPeer::establish(site, WITNESS).await.unwrap();
        Witness { peer, before: site.status(WITNESS) }
    }

    /// A route arrives in time, on the session of the beginning.
    async fn check(&mut self, site: &Site) -> Result<()> {
        timeout(PATIENCE, self.peer.marker_arrives(site)).await??;
        let status = site.status(WITNESS);
        ensure!(
            status.since == self.before.since && status.counters.lost == 0,
            "another session: {status:?}"
        );
        Ok(())
    }
}

async fn site() -> (Site, Witness) {
    let site = Site::new([(HOSTILE, Sort::External), (WITNESS, Sort::Internal)]).await;
    let witness = Witness::new(&site).await;
    (site, witness)
}

/// RFC 4271 section 6.5, with the shortest hold time that there is.
#[tokio::test]
async fn a_peer_that_falls_silent() {
    let (site, mut witness) = site().await;
    // One that never says anything stays in OpenSent; the peer's next connection takes its place.
    let mut mute = RawPeer::connect(&site, HOSTILE).await.unwrap();
    assert!(matches!(mute.next().await.unwrap(), Some(Message::Open(_))));
    site.wait(HOSTILE, |status| status.state == State::OpenSent).await.unwrap();
    witness.check(&site).await.unwrap();

    let mut peer = RawPeer::connect(&site, HOSTILE).await.unwrap();
    let mut open = peer.open();
    open.hold_time = HoldTime::new(3).unwrap();
    peer.handshake(&site, &encoded(&open)).await.unwrap();
    let heard = Instant::now();
    peer.marker_arrives(&site).await.unwrap();
    let refusal = peer.refusal().await.unwrap();
    assert_eq!((refusal.code, refusal.subcode), (4, 0), "Hold Timer Expired");
    assert!(heard.elapsed() >= Duration::from_secs(3), "after {:?}", heard.elapsed());
    site.wait(HOSTILE, |status| status.counters.lost == 1).await.unwrap();
    assert!(site.received(HOSTILE).await.is_empty());
    witness.check(&site).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_sends_an_octet_at_a_time() {
    let (site, mut witness) = site().await;
    let mut peer = RawPeer::connect(&site, HOSTILE).await.unwrap();
    let open = encoded(&peer.open());
    let announcement = update(&[], &attributes(&valid(Sort::External)), &[24, 192, 0, 2]);
    let octets = [open, keepalive(), announcement].concat();
    for (place, octet) in octets.iter().enumerate() {
        // Without Nagle's delay each is a segment of its own.
        peer.send(&[*octet]).await.unwrap();
        if place.is_multiple_of(16) {
            witness.check(&site).await.unwrap();
        }
    }
    site.wait(HOSTILE, |status| status.counters.updates_received == 1).await.unwrap();
    assert!(site.route(HOSTILE, "192.0.2.0/24").await.is_some());
    witness.check(&site).await.unwrap();
}

/// Routes to one peer, each in an UPDATE of its own since it shares its attributes with none.
fn unlike_routes(number: u8, count: u32) -> Vec<Originated> {
    let communities = |n: u32| (0..120).map(|place| Community(n << 8 | place)).collect();
    (0..count)
        .map(|n| Originated {
            peer: name(number),
            prefix: Prefix::v4((0x0a00_0000 + n).into(), 32).unwrap(),
            attributes: Arc::new(OriginAttributes {
                communities: communities(n),
                ..OriginAttributes::default()
            }),
        })
        .collect()
}

/// RFC 9687 lets a peer that does not read stay for at least eight minutes; until then it costs what TCP takes and a
/// bounded buffer, and nobody else waits.
#[tokio::test]
async fn a_peer_that_does_not_read() {
    let (site, mut witness) = site().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = RawPeer::connect_with(&site, HOSTILE, socket).await.unwrap();
    let open = encoded(&deaf.open());
    deaf.handshake(&site, &open).await.unwrap();

    // 12 MB, more than the kernel takes for one connection.
    let count = 24_000;
    let told_deaf = site.speaker.originate("deaf", unlike_routes(HOSTILE, count)).await;
    site.speaker.originate("witness", unlike_routes(WITNESS, 10)).await;
    let all = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].advertised == 10;
    site.wait(WITNESS, all).await.unwrap();
    let stuck = |status: &PeerStatus| status.counters.updates_sent > 100;
    site.wait(HOSTILE, stuck).await.unwrap();
    for _ in 0..20 {
        witness.check(&site).await.unwrap();
    }
    let status = site.status(HOSTILE);
    assert!(!told_deaf.is_flushed(), "the kernel took all of it, so this proves nothing");
    assert!(status.counters.updates_sent < u64::from(count), "{:?}", status.counters);
    // It still is heard, for the session stands.
    deaf.marker_arrives(&site).await.unwrap();

    // What is no longer wanted is not sent once it reads: the set is desired, not queued.
    site.speaker.originate("deaf", unlike_routes(HOSTILE, 1)).await;
    let mut announced = 0_u64;
    let one = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].advertised == 1;
    while !one(&site.status(HOSTILE)) {
        match deaf.next().await.unwrap() {
            Some(Message::Update(..)) => announced += 1,
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
    assert!(announced < u64::from(count), "{announced} UPDATEs");
    assert_eq!(site.status(HOSTILE).counters.lost, 0);
    witness.check(&site).await.unwrap();
}

/// RFC 9687, with the shortest patience that a test has: a peer that reads nothing is left long before its hold
/// time, and nobody else notices. Negative control: with the usual patience it stays, as the test above shows.
#[tokio::test]
async fn a_peer_that_does_not_read_is_left_in_the_end_rfc_9687() {
    let (site, mut witness) = site().await;
    let mut peers = site.configs();
    let hostile = peers.get_mut(&name(HOSTILE)).expect("configured");
    hostile.send_hold = Some(Duration::from_secs(2));
    site.apply(peers).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = RawPeer::connect_with(&site, HOSTILE, socket).await.unwrap();
    let open = encoded(&deaf.open());
    deaf.handshake(&site, &open).await.unwrap();
    let before = Instant::now();
    site.speaker.originate("deaf", unlike_routes(HOSTILE, 24_000)).await;
    site.wait(HOSTILE, |status| status.counters.lost > 0).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(2));
    let (error, _) = site.status(HOSTILE).last_error.expect("why");
    assert!(error.contains("send hold timer expired"), "{error}");
    witness.check(&site).await.unwrap();
}

/// UPDATEs as fast as TCP takes them: valid ones that come and go, refused ones, and malformed ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_floods() {
    let (site, mut witness) = site().await;
    let mut loud = RawPeer::establish(&site, HOSTILE).await.unwrap();
    let nlri = |first: u8| (0..=u8::MAX).flat_map(|n| [32, first, 0, 2, n]).collect::<Vec<u8>>();
    let (accepted, refused) = (nlri(192), nlri(11));
    let list = attributes(&valid(Sort::External));
    let broken = attributes(&with(Sort::External, (0x40, 1, vec![9])));
    let burst = [
        update(&[], &list, &accepted),
        update(&[], &list, &refused),
        update(&[], &broken, &accepted),
        update(&accepted, &[], &[]),
    ]
    .concat();
    let (stop, bursts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood = tokio::spawn({
        let (stop, bursts) = (Arc::clone(&stop), Arc::clone(&bursts));
        async move {
            while !stop.load(Ordering::Relaxed) {
                loud.send(&burst).await.unwrap();
                bursts.fetch_add(1, Ordering::Relaxed);
            }
            loud
        }
    });
    let begun = site.wait(HOSTILE, |status| status.counters.updates_received > 100).await.unwrap();
    let enough = begun.counters.updates_received + 1000;
    let speak = async {
        let mut spoken = 0;
        while spoken < 50 || site.status(HOSTILE).counters.updates_received < enough {
            witness.check(&site).await.unwrap();
            spoken += 1;
        }
    };
    timeout(DEADLINE, speak).await.expect("the flood goes on while the witness speaks");
    stop.store(true, Ordering::Relaxed);
    let mut loud = flood.await.unwrap();
    let sent = bursts.load(Ordering::Relaxed);
    let status = site.taken(HOSTILE, sent * 4, 0).await.unwrap();
    assert_eq!(status.counters.malformed_updates, sent, "one in each burst");
    assert_eq!(status.families[&AfiSafi::Ipv4Unicast].rejected, sent * 256);
    assert!(site.received(HOSTILE).await.is_empty());
    loud.marker_arrives(&site).await.unwrap();
    witness.check(&site).await.unwrap();
}

/// Connections without end: each takes the place of the one before, and none is left behind.
#[tokio::test]
async fn a_peer_that_connects_again_and_again() {
    let (site, mut witness) = site().await;
    let mut held = Vec::new();
    for round in 0..200 {
        held.push(RawPeer::connect(&site, HOSTILE).await.unwrap());
        if round % 20 == 0 {
            witness.check(&site).await.unwrap();
        }
    }
    // The last is the one that counts; all others end, with or without a word.
    let mut last = held.pop().unwrap();
    let open = encoded(&last.open());
    last.handshake(&site, &open).await.unwrap();
    last.marker_arrives(&site).await.unwrap();
    for mut former in held {
        while let Ok(Some(_)) = former.next().await {}
    }
    witness.check(&site).await.unwrap();
}

/// Negative control: the witness notices that its session was touched, and that it is not heard.
#[tokio::test]
async fn a_touched_witness_is_found() {
    let (site, mut witness) = site().await;
    witness.check(&site).await.unwrap();
    let mut peers = site.configs();
    peers.get_mut(&name(WITNESS)).unwrap().hold_time = HoldTime::new(30).unwrap();
    site.apply(peers).await.unwrap();
    witness.peer.refusal().await.unwrap();
    witness.peer = RawPeer::establish(&site, WITNESS).await.unwrap();
    let error = witness.check(&site).await.expect_err("it is another session");
    assert!(error.to_string().contains("another session"), "{error:#}");
    assert_eq!(
        site.route(WITNESS, "198.51.100.0/24").await.map(|route| route.prefix),
        Some(prefix("198.51.100.0/24"))
    );
}
