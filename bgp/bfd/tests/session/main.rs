//! The session, against itself over a network that delays and loses, and against packets made by hand.
mod admin;
mod detection;
mod lone;
mod pair;
mod timing;

use pair::{A, BOTH, Pair, ms, timing};
use plainroute_bfd::{Diagnostic, Liveness, State};

#[test]
fn two_that_start_together_come_up_in_two_round_trips() {
    let mut pair = Pair::new(timing(100, 100, 3), timing(100, 100, 3));
    let took = pair.run_until(ms(1000), Pair::is_up);
    assert!(took <= ms(4), "{took:?}");
    for side in BOTH {
        assert_eq!(pair.sides[side].states(), [State::Init, State::Up]);
        assert_eq!(pair.sides[side].told(), [Liveness::Up]);
        assert_eq!(pair.sides[side].session.diagnostic(), Diagnostic::NONE);
        assert_eq!(pair.sides[side].session.counters().up, 1);
    }
}

#[test]
fn each_learns_the_discriminator_of_the_other() {
    let mut pair = Pair::new(timing(100, 100, 3), timing(100, 100, 3));
    assert!(pair.a().session.remote().is_none());
    pair.run_until(ms(1000), Pair::is_up);
    for side in BOTH {
        let other = pair.sides[1 - side].discriminator();
        assert_eq!(pair.sides[side].session.remote().unwrap().discriminator, other);
        assert_eq!(pair.last(side).packet.your_discriminator, Some(other));
        assert_eq!(pair.sides[side].sent[0].packet.your_discriminator, None);
    }
}

#[test]
fn a_peer_that_starts_late_is_found_within_the_slow_interval() {
    let mut pair = Pair::new(timing(100, 100, 3), timing(100, 100, 3));
    pair.cut = [true; 2];
    pair.run_for(ms(10_500));
    assert_eq!([pair.a().state(), pair.b().state()], [State::Down; 2]);
    // At most one a second less jitter: RFC 5880 section 6.8.3.
    assert!(pair.a().sent.len() <= 15, "{}", pair.a().sent.len());
    assert!(pair.a().told().is_empty(), "a peer without BFD has not failed");
    pair.cut = [false; 2];
    let took = pair.run_until(ms(2000), Pair::is_up);
    assert!(took <= ms(1010), "{took:?}");
}

#[test]
fn it_comes_up_and_stays_up_where_one_packet_in_ten_is_lost() {
    for seed in 0..20 {
        let mut pair = Pair::seeded(timing(100, 100, 5), timing(100, 100, 5), seed);
        pair.loss = 25;
        pair.latency = ms(20);
        pair.run_until(ms(10_000), Pair::is_up);
        pair.loss = 0;
        pair.run_for(ms(10_000));
        assert!(pair.is_up(), "seed {seed}");
    }
}

#[test]
fn one_side_restarted_is_noticed_at_once_and_comes_up_again() {
    let mut pair = Pair::up(timing(100, 100, 3));
    let former = pair.a().discriminator();
    pair.restart(A, 99);
    let took = pair.run_until(ms(300), |pair| pair.b().state() != State::Up);
    assert!(took <= ms(2), "{took:?}");
    assert_eq!(pair.b().session.diagnostic(), Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN);
    pair.run_until(ms(2000), Pair::is_up);
    assert_ne!(pair.a().discriminator(), former);
    assert_eq!(pair.b().session.remote().unwrap().discriminator, pair.a().discriminator());
    let failed = Liveness::Failed {
        diagnostic: Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN,
        remote_diagnostic: Diagnostic::NONE,
        control_plane_independent: true,
    };
    assert_eq!(pair.b().told(), [failed, Liveness::Up]);
    assert_eq!(pair.a().told(), [Liveness::Up], "the restarted one has seen no failure");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut pair = Pair::up(timing(50, 50, 3));
        let start = pair.now;
        pair.loss = 60;
        pair.run_for(ms(20_000));
        pair.a().sent.iter().map(|sent| (sent.at - start, sent.packet)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
