//! Restart is not drain, and drain is not uninstall.
use plainroute_bgp::{AfiSafi, Families, HoldTime, session::State};
use plainroute_speaker::{Learned, PeerConfig, PeerStatus, SpeakerConfig, StopMode};

use crate::network::{Node, pair, prefix, within_deadline};

fn restarted() -> SpeakerConfig {
    SpeakerConfig { restarting: true, forwarding_preserved: Families::ALL, ..SpeakerConfig::default() }
}

/// A and B with two routes of A's at B, and A's initial set complete.
async fn settled() -> (Node, Node) {
    let (a, b) = pair().await;
    a.tell(&b, &["10.1.0.0/28", "10.2.0.0/28"]).await;
    a.speaker.initial_sync_done();
    b.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;
    b.status(&a, |status| status.families[&AfiSafi::Ipv4Unicast].end_of_rib_received).await;
    (a, b)
}

#[tokio::test]
async fn a_restart_keeps_the_routes_and_drops_what_did_not_come_back() {
    let (a, b) = settled().await;
    let mut seen = b.speaker.learned();
    seen.mark_unchanged();
    a.speaker.clone().stop(StopMode::Retain).await;
    b.learned(|learned| learned.len() == 2 && learned.values().flatten().all(|path| path.stale)).await;

    let a = a.again(restarted());
    a.peers([(&b, a.towards(&b))]).await;
    a.tell(&b, &["10.1.0.0/28"]).await;
    let fresh = |text, learned: &Learned| {
        learned.get(&prefix(text)).is_some_and(|paths| paths.iter().all(|path| !path.stale))
    };
    b.learned(|learned| fresh("10.1.0.0/28", learned)).await;
    let status = b.established(&a).await;
    assert!(status.negotiated.is_some_and(|negotiated| negotiated.peer_restarted()));
    assert!(
        !status.families[&AfiSafi::Ipv4Unicast].end_of_rib_received,
        "nobody said that the set is complete"
    );
    assert_eq!(b.speaker.learned().borrow().len(), 2, "the second route waits, stale, for End-of-RIB");

    a.speaker.initial_sync_done();
    b.learned_prefixes(&["10.1.0.0/28"]).await;
}

#[tokio::test]
async fn end_of_rib_waits_for_the_initial_sync_and_routes_do_not() {
    let (a, b) = pair().await;
    a.tell(&b, &["10.1.0.0/28"]).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;
    assert!(!a.established(&b).await.families[&AfiSafi::Ipv4Unicast].end_of_rib_sent);
    a.speaker.initial_sync_done();
    a.status(&b, |status| status.families[&AfiSafi::Ipv4Unicast].end_of_rib_sent).await;
    b.status(&a, |status| status.families[&AfiSafi::Ipv4Unicast].end_of_rib_received).await;
}

#[tokio::test]
async fn the_r_bit_is_gone_once_the_restart_is_over() {
    let (a, b) = (Node::with(1, restarted()), Node::new(2));
    b.peers([(&a, b.waits_for(&a))]).await;
    a.peers([(&b, a.towards(&b))]).await;
    let restarted = |status: &PeerStatus| {
        status.negotiated.as_ref().is_some_and(|negotiated| negotiated.peer_restarted())
    };
    b.status(&a, restarted).await;
    // Lost before End-of-RIB: still restarting.
    b.peers([]).await;
    a.status(&b, |status| status.counters.lost == 1).await;
    b.peers([(&a, b.waits_for(&a))]).await;
    b.status(&a, restarted).await;
    a.speaker.initial_sync_done();
    a.status(&b, |status| status.families[&AfiSafi::Ipv4Unicast].end_of_rib_sent).await;
    b.peers([]).await;
    a.status(&b, |status| status.counters.lost == 2).await;
    b.peers([(&a, b.waits_for(&a))]).await;
    assert!(!restarted(&b.established(&a).await));
}

/// The fewest routes that were learned while `change` happened.
async fn fewest_learned(node: &Node, change: impl Future<Output = ()>) -> usize {
    let mut learned = node.speaker.learned();
    let mut fewest = learned.borrow_and_update().len();
    tokio::pin!(change);
    loop {
        tokio::select! {
            biased;
            Ok(()) = learned.changed() => fewest = fewest.min(learned.borrow_and_update().len()),
            () = &mut change => return fewest,
        }
    }
}

#[tokio::test]
async fn a_session_built_anew_for_its_timers_interrupts_no_route_on_either_side() {
    let (a, b) = settled().await;
    let taking = PeerConfig { import: b.waits_for(&a).import, ..a.towards(&b) };
    a.peers([(&b, taking.clone())]).await;
    b.tell(&a, &["10.9.0.0/28"]).await;
    b.speaker.initial_sync_done();
    a.learned_prefixes(&["10.9.0.0/28"]).await;
    let both = async |change: PeerConfig| {
        let lost = a.established(&b).await.counters.lost;
        let again = async {
            a.peers([(&b, change)]).await;
            a.status(&b, |status| status.counters.lost == lost + 1 && status.state == State::Established)
                .await;
            let told = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].end_of_rib_received;
            b.status(&a, told).await;
            a.status(&b, told).await;
        };
        let at_b = std::pin::pin!(fewest_learned(&b, again));
        fewest_learned_at(&a, at_b).await
    };
    let slower = PeerConfig { hold_time: HoldTime::new(30).unwrap(), ..taking };
    assert_eq!(both(slower.clone()).await, (1, 2), "fewest routes at a and at b");

    // Negative control: another identity is another router, and its predecessor's routes go.
    let other = PeerConfig { router_id: "192.0.2.99".parse().unwrap(), ..slower };
    assert_eq!(both(other).await, (0, 0));
}

/// The fewest routes that were learned here while `other` found its own number.
async fn fewest_learned_at(node: &Node, other: impl Future<Output = usize>) -> (usize, usize) {
    let mut there = 0;
    let here = fewest_learned(node, async { there = other.await }).await;
    (here, there)
}

#[tokio::test]
async fn a_withdrawing_stop_leaves_nothing_behind() {
    let (a, b) = settled().await;
    within_deadline(a.speaker.clone().stop(StopMode::Withdraw)).await;
    b.learned_prefixes(&[]).await;
    let status = b.status(&a, |status| status.state != State::Established).await;
    assert!(status.last_error.is_some_and(|(error, _)| error.contains("Administrative Shutdown")));
}

#[tokio::test]
async fn a_hard_reset_flushes_what_graceful_restart_would_keep() {
    let (a, b) = settled().await;
    within_deadline(a.speaker.clone().stop(StopMode::HardReset)).await;
    b.learned_prefixes(&[]).await;
}

#[tokio::test]
async fn dropping_every_handle_looks_like_a_crash() {
    let (a, b) = settled().await;
    drop(a.speaker);
    b.learned(|learned| learned.len() == 2 && learned.values().flatten().all(|path| path.stale)).await;
}

#[tokio::test]
async fn a_removed_peer_s_routes_go_at_once() {
    let (a, b) = settled().await;
    b.peers([]).await;
    b.learned_prefixes(&[]).await;
    a.status(&b, |status| status.counters.lost == 1).await;
}
