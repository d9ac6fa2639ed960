//! Sessions held down on purpose, which is no failure (RFC 5880 section 6.8.16, RFC 5882 section 4.2).
use plainroute_bfd::{Diagnostic, Liveness, Session, Side, State};

use crate::pair::{A, B, Pair, ms, timing};

#[test]
fn a_peer_held_down_is_seen_as_such_and_not_as_failed() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.act(A, Session::handle_admin_down);
    let took = pair.run_until(ms(500), |pair| pair.b().state() == State::Down);
    assert_eq!(took, pair.latency);
    assert_eq!(pair.a().state(), State::AdminDown);
    assert_eq!(pair.last(A).packet.diagnostic, Diagnostic::ADMINISTRATIVELY_DOWN);
    assert_eq!(pair.b().session.diagnostic(), Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN);
    pair.run_for(ms(10_000));
    assert_eq!(pair.a().told(), [Liveness::AdminDown(Side::Local)]);
    assert_eq!(pair.b().told(), [Liveness::AdminDown(Side::Remote)]);
    // The peer's packets are read but have no effect.
    assert_eq!(pair.a().state(), State::AdminDown);
    let discarded = pair.a().session.counters().discarded;
    assert!(discarded.of(plainroute_bfd::Discard::AdminDown) > 5, "{discarded:?}");
}

#[test]
fn held_down_no_longer_it_comes_up_without_a_failure_on_either_side() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.act(A, Session::handle_admin_down);
    pair.run_for(ms(5000));
    pair.act(A, |session, _| session.handle_admin_up());
    pair.run_until(ms(2000), Pair::is_up);
    assert_eq!(pair.a().told(), [Liveness::AdminDown(Side::Local), Liveness::Pending, Liveness::Up]);
    let last = *pair.b().told().last().unwrap();
    assert_eq!(last, Liveness::Up);
    assert!(!pair.b().told().iter().any(|told| matches!(told, Liveness::Failed { .. })));
}

#[test]
fn a_peer_that_goes_silent_after_it_was_held_down_has_not_failed() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.act(A, Session::handle_admin_down);
    pair.run_for(ms(100));
    pair.cut[B] = true;
    pair.run_for(ms(10_000));
    assert!(pair.b().session.remote().is_none());
    assert_eq!(pair.b().told(), [Liveness::AdminDown(Side::Remote), Liveness::Pending]);
}

#[test]
fn a_failed_session_that_the_peer_then_holds_down_is_failed_no_more() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.cut = [true; 2];
    pair.run_for(ms(1000));
    assert!(matches!(pair.b().session.liveness(), Liveness::Failed { .. }));
    pair.cut = [false; 2];
    pair.act(A, Session::handle_admin_down);
    pair.run_for(ms(100));
    assert_eq!(pair.b().session.liveness(), Liveness::AdminDown(Side::Remote));
}

#[test]
fn a_session_may_end_once_the_peer_knows() {
    let mut pair = Pair::up(timing(100, 100, 3));
    assert_eq!(pair.a().session.may_end_at(), None);
    pair.act(A, Session::handle_admin_down);
    let since = pair.now;
    assert_eq!(pair.a().session.may_end_at(), Some(since + ms(300)), "the peer's Detection Time");
    pair.run_for(pair.latency * 2);
    assert!(pair.a().session.may_end_at() <= Some(pair.now), "the peer said that it is Down");
    pair.act(A, |session, _| session.handle_admin_up());
    assert_eq!(pair.a().session.may_end_at(), None);
}

#[test]
fn a_session_that_nobody_knows_may_end_at_once() {
    let mut pair = Pair::new(timing(100, 100, 3), timing(100, 100, 3));
    pair.cut = [true; 2];
    pair.run_for(ms(500));
    pair.act(A, Session::handle_admin_down);
    assert_eq!(pair.a().session.may_end_at(), Some(pair.now));
}

#[test]
fn the_peer_is_told_again_where_the_first_packet_was_lost() {
    let mut pair = Pair::up(timing(500, 500, 3));
    pair.lose[B] = 1;
    pair.act(A, Session::handle_admin_down);
    pair.run_for(ms(1100));
    assert_eq!(pair.b().told(), [Liveness::AdminDown(Side::Remote)]);
}

#[test]
fn a_forwarding_plane_reset_takes_the_session_down_at_both_ends_and_up_again() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.act(A, |session, _| session.handle_forwarding_plane_reset());
    assert_eq!(pair.a().state(), State::Down);
    assert_eq!(pair.last(A).packet.diagnostic, Diagnostic::FORWARDING_PLANE_RESET);
    pair.run_until(ms(100), |pair| pair.b().state() == State::Down);
    assert!(matches!(
        pair.b().session.liveness(),
        Liveness::Failed { remote_diagnostic: Diagnostic::FORWARDING_PLANE_RESET, .. }
    ));
    pair.run_until(ms(2000), Pair::is_up);
}
