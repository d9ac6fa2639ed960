//! Graceful restart (RFC 4724) and what tells it from a goodbye (RFC 8538).
use std::time::Duration;

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Families,
    session::{DownReason, Event, GracefulRestartConfig, Negotiated, SessionConfig, StopReason},
    wire::{Capability, CeaseReason, GracefulRestart, Open},
};

use crate::pair::{A, B, Pair, config, shutdown};

const SECOND: Duration = Duration::from_secs(1);

fn graceful(notification: bool, config: SessionConfig) -> SessionConfig {
    SessionConfig {
        graceful_restart: Some(GracefulRestartConfig {
            restart_time: 120,
            notification,
            long_lived_stale_time: 0,
        }),
        ..config
    }
}

fn established(notification: bool) -> Pair {
    let mut pair =
        Pair::new(graceful(notification, config(1, 2, 10)), graceful(notification, config(2, 1, 20)));
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair.run_for(Duration::from_secs(30));
    pair
}

/// What A said of graceful restart in its present session.
fn said_by_a(pair: &Pair) -> GracefulRestart {
    let (_, negotiated) = pair.b().session.established().expect("established");
    negotiated.graceful_restart.clone().expect("offered")
}

fn last_session(pair: &Pair, side: usize) -> &Negotiated {
    let mut events = pair.sides[side].events.iter().rev();
    events
        .find_map(|e| if let Event::Established(_, n) = e { Some(&**n) } else { None })
        .expect("was established")
}

fn retained(pair: &Pair, side: usize) -> bool {
    let downs = pair.sides[side].downs();
    downs.last().expect("a lost session").retains_routes(last_session(pair, side))
}

#[test]
fn retain_closes_without_a_word_and_the_peer_keeps_the_routes() {
    let mut pair = established(false);
    pair.stop(A, StopReason::Retain);
    pair.run_for(SECOND);
    assert_eq!(pair.b().downs(), [&DownReason::ConnectionLost]);
    assert!(retained(&pair, B));
}

#[test]
fn a_cease_flushes_the_routes() {
    let mut pair = established(false);
    pair.stop(A, shutdown());
    pair.run_for(SECOND);
    assert!(!retained(&pair, B));
}

#[test]
fn without_graceful_restart_nothing_is_kept() {
    let mut pair = Pair::active();
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair.stop(A, StopReason::Retain);
    pair.run_for(SECOND);
    assert!(!retained(&pair, B));
}

#[test]
fn with_the_n_bit_only_a_hard_reset_flushes() {
    let stop = |reason| {
        let mut pair = established(true);
        pair.stop(A, reason);
        pair.run_for(SECOND);
        let DownReason::NotificationReceived(received) = pair.b().downs()[0].clone() else {
            panic!("{:?}", pair.b().downs())
        };
        (received.cease_reason().expect("a Cease"), retained(&pair, B))
    };
    let stop_with = |reason| stop(StopReason::Cease(reason, String::new()));
    assert_eq!(stop_with(CeaseReason::HardReset), (CeaseReason::HardReset, false));
    assert_eq!(stop_with(CeaseReason::AdministrativeShutdown), (CeaseReason::HardReset, false));
    assert_eq!(stop_with(CeaseReason::PeerDeconfigured), (CeaseReason::HardReset, false));
    assert_eq!(stop_with(CeaseReason::BfdDown), (CeaseReason::HardReset, false));
    let other = CeaseReason::OtherConfigurationChange;
    assert_eq!(stop_with(other), (other, true));
    let hard = StopReason::HardReset(other, String::new());
    assert_eq!(stop(hard), (CeaseReason::HardReset, false), "the same reason, but nobody will be back");
}

#[test]
fn without_the_n_bit_a_hard_reset_is_an_ordinary_shutdown() {
    let mut pair = established(false);
    pair.stop(A, StopReason::Cease(CeaseReason::HardReset, String::new()));
    pair.run_for(SECOND);
    let DownReason::NotificationReceived(received) = pair.b().downs()[0] else {
        panic!("{:?}", pair.b().downs())
    };
    assert_eq!(received.cease_reason(), Some(CeaseReason::AdministrativeShutdown));
}

#[test]
fn with_the_n_bit_an_expired_hold_timer_keeps_the_routes() {
    for notification in [false, true] {
        let mut pair = established(notification);
        pair.cut = true;
        pair.run_until(Duration::from_secs(91), |pair| !pair.b().downs().is_empty());
        assert_eq!(retained(&pair, B), notification);
    }
}

#[test]
fn the_r_bit_stays_until_the_restart_is_complete() {
    let restarted = SessionConfig {
        restarting: true,
        forwarding_preserved: [AfiSafi::Ipv4Unicast].into_iter().collect(),
        ..graceful(false, config(1, 2, 10))
    };
    let mut pair = established(false);
    assert!(!said_by_a(&pair).restarting);
    pair.replace(A, restarted, true);
    pair.start(A);
    pair.run_until(SECOND, Pair::established);
    let said = said_by_a(&pair);
    assert!(said.restarting);
    let preserved: Vec<bool> = said.families.iter().map(|family| family.forwarding_preserved).collect();
    assert_eq!(preserved, [true, false], "F is what the configuration says after a restart");

    // Lost before End-of-RIB: the restart is not over.
    pair.run_for(Duration::from_secs(30));
    pair.reset_connections();
    pair.run_until(SECOND, |pair| !pair.established());
    pair.run_until(SECOND, Pair::established);
    assert!(said_by_a(&pair).restarting);

    pair.sides[A].session.handle_restart_complete();
    pair.run_for(Duration::from_secs(30));
    pair.reset_connections();
    pair.run_until(SECOND, |pair| !pair.established());
    pair.run_until(SECOND, Pair::established);
    let said = said_by_a(&pair);
    assert!(!said.restarting);
    assert!(said.families.iter().all(|family| family.forwarding_preserved), "a mere reconnect forwards on");
}

#[test]
fn a_host_that_booted_claims_no_forwarding_until_everything_is_told() {
    let mut pair = established(false);
    let claims = |pair: &Pair| said_by_a(pair).families.iter().any(|family| family.forwarding_preserved);
    assert!(!claims(&pair), "nothing stood in the kernel when this process began");
    pair.reset_connections();
    pair.run_until(SECOND, |pair| !pair.established());
    pair.run_until(SECOND, Pair::established);
    assert!(!claims(&pair));
    pair.sides[A].session.handle_restart_complete();
    pair.reset_connections();
    pair.run_until(SECOND, |pair| !pair.established());
    pair.run_until(SECOND, Pair::established);
    assert!(claims(&pair));
}

#[test]
fn a_peer_that_restarted_unnoticed_takes_its_session_over() {
    let mut pair = established(false);
    let restarted = SessionConfig { restarting: true, ..graceful(false, config(2, 1, 20)) };
    // Its host died with it: no FIN. The new process opens a connection beside the old one.
    pair.replace(B, restarted, false);
    pair.sides[B].listening = false;
    pair.start(B);
    pair.run_until(SECOND, |pair| !pair.a().downs().is_empty());
    assert_eq!(pair.a().downs(), [&DownReason::PeerRestarted]);
    assert!(retained(&pair, A));
    pair.run_until(SECOND, Pair::established);
    assert!(last_session(&pair, A).peer_restarted());
    pair.run_for(Duration::from_secs(300));
    assert!(pair.established() && pair.connections() == 1);
}

#[test]
fn a_peer_that_came_back_without_graceful_restart_is_noticed_at_once() {
    let mut pair = Pair::active();
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair.run_for(Duration::from_secs(30));
    pair.replace(B, config(2, 1, 20), false);
    pair.start(B);
    // Its new connection makes us ask on the old one, which its TCP knows nothing of.
    pair.run_until(Duration::from_millis(100), |pair| !pair.a().downs().is_empty());
    pair.run_until(SECOND, Pair::established);
}

#[test]
fn the_peer_s_bits_are_read() {
    let mut pair = established(false);
    let (_, negotiated) = pair.a().session.established().expect("established");
    let mut open: Open = negotiated.peer_open.clone();
    for capability in &mut open.capabilities {
        if let Capability::GracefulRestart(graceful) = capability {
            graceful.restarting = true;
            graceful.restart_time = 33;
            graceful.families.retain(|family| family.family == AfiSafi::Ipv6Unicast);
            graceful.families.iter_mut().for_each(|family| family.forwarding_preserved = true);
        }
    }
    let mut bytes = BytesMut::new();
    open.encode(&mut bytes);
    pair.accept_stranger(A);
    pair.inject(A, &bytes);
    let mut keepalive = BytesMut::new();
    plainroute_bgp::wire::encode_keepalive(&mut keepalive);
    pair.inject(A, &keepalive);
    pair.run_until(SECOND, |pair| pair.a().session.counters().established == 2);
    let negotiated = last_session(&pair, A);
    assert!(negotiated.peer_restarted());
    assert_eq!(negotiated.restart_time(), Duration::from_secs(33));
    let only_v6: Families = [AfiSafi::Ipv6Unicast].into_iter().collect();
    assert_eq!(negotiated.retained_families(), only_v6);
    assert_eq!(negotiated.forwarding_preserved(), only_v6);
}
