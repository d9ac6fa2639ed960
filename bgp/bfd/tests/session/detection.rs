//! How silence is found: not later than the Detection Time, and not before (RFC 5880 section 6.8.4).
use plainroute_bfd::{Diagnostic, Event, Liveness, State};

use crate::pair::{A, B, BOTH, Pair, ms, timing};

#[test]
fn silence_is_detected_after_the_detection_time_and_not_before() {
    for (transmit, receive, multiplier) in [(100, 100, 3), (50, 50, 3), (100, 300, 3), (300, 100, 5)] {
        let mut pair = Pair::up(timing(transmit, receive, multiplier));
        let expected = ms(u64::from(transmit.max(receive)) * u64::from(multiplier));
        assert_eq!(pair.a().session.detection_time(), Some(expected));
        pair.cut[A] = true;
        // What is under way still arrives.
        pair.run_for(pair.latency);
        let last_heard = pair.a().session.remote().unwrap().heard_at;
        pair.run_until(ms(5000), |pair| pair.a().state() != State::Up);
        assert_eq!(pair.now - last_heard, expected);
        assert_eq!(pair.a().state(), State::Down);
        assert_eq!(pair.a().session.diagnostic(), Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);
        assert_eq!(pair.a().session.counters().down, 1);
    }
}

#[test]
fn the_other_end_is_told_by_the_packets_that_still_get_through() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.cut[A] = true;
    pair.run_until(ms(500), |pair| pair.a().state() == State::Down);
    let took = pair.run_until(ms(500), |pair| pair.b().state() == State::Down);
    assert_eq!(took, pair.latency);
    assert_eq!(
        pair.b().told(),
        [Liveness::Failed {
            diagnostic: Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN,
            remote_diagnostic: Diagnostic::CONTROL_DETECTION_TIME_EXPIRED,
            control_plane_independent: true,
        }]
    );
}

#[test]
fn two_lost_packets_are_borne_and_three_are_not() {
    let mut downs = [0, 0];
    for seed in 0..100 {
        for (case, lost) in [2, 3].into_iter().enumerate() {
            let mut pair = Pair::seeded(timing(100, 100, 3), timing(100, 100, 3), seed);
            pair.run_for(ms(3000));
            assert!(pair.is_up());
            pair.sides[A].events.clear();
            let first_lost = pair.b().sent.len();
            pair.lose[A] = lost;
            pair.run_for(ms(1000));
            let gap = pair.b().sent[first_lost + lost].at - pair.b().sent[first_lost - 1].at;
            let is_down = !pair.a().events.is_empty();
            // With jitter, four intervals can be shorter than three without.
            assert_eq!(is_down, gap > ms(300), "seed {seed}, {lost} lost, {gap:?}");
            downs[case] += u32::from(is_down);
        }
    }
    assert_eq!(downs[0], 0, "two lost packets are borne whatever the jitter");
    assert!(downs[1] > 95, "three lost packets were borne in {} cases of 100", 100 - downs[1]);
}

#[test]
fn a_multiplier_of_one_bears_no_loss_and_has_no_false_alarm() {
    let mut pair = Pair::up(timing(100, 100, 1));
    pair.run_for(ms(60_000));
    assert!(pair.a().events.is_empty() && pair.b().events.is_empty());
    pair.lose[A] = 1;
    pair.run_for(ms(200));
    assert!(matches!(pair.a().events[0], Event::StateChanged { to: State::Down, .. }));
}

#[test]
fn there_is_no_false_alarm_in_an_hour() {
    let mut pair = Pair::up(timing(50, 50, 3));
    pair.run_for(ms(3_600_000));
    assert!(pair.a().events.is_empty() && pair.b().events.is_empty());
}

#[test]
fn after_the_detection_time_nothing_of_the_peer_is_believed() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.cut = [true; 2];
    pair.run_for(ms(2000));
    for side in BOTH {
        assert!(pair.sides[side].session.remote().is_none());
        assert_eq!(pair.last(side).packet.your_discriminator, None, "RFC 5880 section 6.8.1");
        assert_eq!(pair.sides[side].session.detection_time(), None);
    }
    pair.cut = [false; 2];
    pair.run_until(ms(2000), Pair::is_up);
    assert_eq!(pair.a().told().last(), Some(&Liveness::Up));
}

#[test]
fn each_direction_has_its_own_detection_time() {
    let mut pair = Pair::new(timing(100, 200, 3), timing(50, 400, 5));
    pair.run_until(ms(2000), Pair::is_up);
    pair.run_for(ms(2000));
    // A expects what B sends: max(50, 200) by B's multiplier; B: max(100, 400) by A's.
    assert_eq!(pair.a().session.detection_time(), Some(ms(1000)));
    assert_eq!(pair.b().session.detection_time(), Some(ms(1200)));
}

#[test]
fn a_failure_tells_whether_both_ends_are_independent_of_their_control_plane() {
    for theirs in [false, true] {
        let mut pair = Pair::up(timing(100, 100, 3));
        pair.run_for(ms(200));
        let mut packet = pair.last(B).packet;
        packet.control_plane_independent = theirs;
        pair.cut[A] = true;
        pair.run_for(pair.latency);
        pair.inject(A, packet);
        pair.run_for(ms(500));
        let expected = Liveness::Failed {
            diagnostic: Diagnostic::CONTROL_DETECTION_TIME_EXPIRED,
            remote_diagnostic: Diagnostic::NONE,
            control_plane_independent: theirs,
        };
        assert_eq!(pair.a().told(), [expected]);
    }
}
