//! When packets are sent, and how intervals change (RFC 5880 sections 6.8.2, 6.8.3 and 6.8.7).
use std::time::Duration;

use plainroute_bfd::{Session, State, Timing};

use crate::pair::{A, B, BOTH, Pair, Sent, interval, ms, timing};

/// The times between packets, replies to Polls left out.
fn gaps(sent: &[Sent]) -> Vec<Duration> {
    let periodic: Vec<_> = sent.iter().filter(|sent| !sent.packet.final_).collect();
    periodic.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}

fn change(pair: &mut Pair, side: usize, timing: Timing) {
    pair.act(side, |session, _| session.handle_timing(timing));
}

#[test]
fn jitter_takes_up_to_a_quarter_of_the_interval_and_a_tenth_at_least_at_multiplier_one() {
    for (multiplier, most) in [(1, ms(90)), (2, ms(100)), (3, ms(100))] {
        let mut pair = Pair::up(timing(100, 100, multiplier));
        pair.run_for(ms(60_000));
        let gaps = gaps(&pair.a().sent);
        let (shortest, longest) = (*gaps.iter().min().unwrap(), *gaps.iter().max().unwrap());
        assert!(gaps.len() > 600);
        assert!(shortest >= ms(75) && shortest < ms(77), "{shortest:?}");
        assert!(longest <= most && longest > most - ms(2), "{longest:?}");
        let mean = gaps.iter().sum::<Duration>() / gaps.len() as u32;
        let middle = (ms(75) + most) / 2;
        assert!(mean.abs_diff(middle) < ms(2), "{mean:?}");
    }
}

#[test]
fn the_two_sides_do_not_send_in_step() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.run_for(ms(2000));
    assert_ne!(gaps(&pair.a().sent), gaps(&pair.b().sent));
}

#[test]
fn the_slower_of_both_ends_sets_the_rate() {
    let mut pair = Pair::new(timing(50, 200, 3), timing(100, 400, 3));
    pair.run_until(ms(2000), Pair::is_up);
    pair.run_for(ms(1000));
    assert_eq!(pair.a().session.transmit_interval(), interval(400));
    assert_eq!(pair.b().session.transmit_interval(), interval(200));
    for (side, most) in [(A, ms(400)), (B, ms(200))] {
        pair.sides[side].sent.clear();
        pair.run_for(ms(10_000));
        let gaps = gaps(&pair.sides[side].sent);
        assert!(gaps.iter().all(|gap| (most * 3 / 4..=most).contains(gap)), "{gaps:?}");
    }
}

#[test]
fn while_not_up_at_most_one_packet_a_second_leaves_however_fast_we_would_like() {
    let mut pair = Pair::new(timing(10, 10, 3), timing(10, 10, 3));
    pair.cut = [true; 2];
    pair.run_for(ms(30_000));
    assert!(gaps(&pair.a().sent).iter().all(|gap| (ms(750)..=ms(1000)).contains(gap)));
    for sent in &pair.a().sent {
        assert_eq!(sent.packet.desired_min_tx, Some(interval(1000)));
        assert_eq!(sent.packet.required_min_rx, Some(interval(10)));
        assert!(!sent.packet.poll);
    }
}

#[test]
fn coming_up_the_fast_interval_is_polled_for_and_used_at_once() {
    let mut pair = Pair::new(timing(100, 100, 3), timing(100, 100, 3));
    pair.run_until(ms(1000), Pair::is_up);
    pair.run_for(ms(10));
    for side in BOTH {
        let first_up = pair.sides[side].sent.iter().find(|sent| sent.packet.state == State::Up).unwrap();
        assert!(first_up.packet.poll);
        assert_eq!(first_up.packet.desired_min_tx, Some(interval(100)));
        assert!(pair.sides[1 - side].sent.iter().any(|sent| sent.packet.final_));
        assert_eq!(pair.sides[side].session.detection_time(), Some(ms(300)));
    }
    pair.run_for(ms(300));
    for side in BOTH {
        assert!(!pair.last(side).packet.poll, "the sequence has ended");
    }
}

#[test]
fn a_poll_is_answered_at_once_and_without_the_poll_bit() {
    let mut pair = Pair::up(timing(1000, 1000, 3));
    pair.run_for(ms(2000));
    let mut packet = pair.last(B).packet;
    packet.poll = true;
    pair.sides[A].sent.clear();
    pair.inject(A, packet);
    assert_eq!(pair.a().sent.len(), 1);
    assert!(pair.last(A).packet.final_ && !pair.last(A).packet.poll);
    assert_eq!(pair.last(A).at, pair.now);
}

#[test]
fn answers_to_polls_do_not_put_off_periodic_packets() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.run_for(ms(500));
    let mut packet = pair.last(B).packet;
    packet.poll = true;
    pair.sides[A].sent.clear();
    for _ in 0..100 {
        pair.run_for(ms(10));
        pair.inject(A, packet);
    }
    assert!(pair.a().sent.iter().filter(|sent| sent.packet.final_).count() >= 100);
    assert!(gaps(&pair.a().sent).iter().all(|gap| (ms(75)..=ms(100)).contains(gap)));
}

#[test]
fn to_send_less_often_waits_until_the_peer_knows() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.cut[B] = true;
    change(&mut pair, A, timing(200, 100, 3));
    assert!(pair.last(A).packet.poll, "the change is told at once");
    assert_eq!(pair.last(A).packet.desired_min_tx, Some(interval(200)));
    pair.run_for(ms(150));
    assert_eq!(pair.a().session.transmit_interval(), interval(100), "the peer has not answered");
    pair.cut[B] = false;
    pair.run_for(ms(120));
    assert_eq!(pair.a().session.transmit_interval(), interval(200));
    assert_eq!(pair.b().session.detection_time(), Some(ms(600)));
    pair.run_for(ms(5000));
    assert!(pair.is_up() && pair.a().events.is_empty() && pair.b().events.is_empty());
    assert!(!pair.last(A).packet.poll);
}

#[test]
fn to_send_more_often_is_done_at_once() {
    let mut pair = Pair::up(timing(1000, 50, 3));
    pair.run_for(ms(10_000));
    change(&mut pair, A, timing(100, 50, 3));
    assert_eq!(pair.a().session.transmit_interval(), interval(100));
    pair.run_for(ms(10));
    assert_eq!(pair.b().session.detection_time(), Some(ms(300)));
    pair.run_for(ms(5000));
    assert!(pair.is_up() && pair.b().events.is_empty());
}

#[test]
fn to_expect_more_waits_until_the_peer_knows() {
    let mut pair = Pair::up(timing(100, 400, 3));
    assert_eq!(pair.a().session.detection_time(), Some(ms(1200)));
    pair.cut[B] = true;
    change(&mut pair, A, timing(100, 100, 3));
    assert_eq!(pair.last(A).packet.required_min_rx, Some(interval(100)));
    pair.run_for(ms(500));
    assert_eq!(pair.a().session.detection_time(), Some(ms(1200)), "the peer still sends at the old rate");
    pair.cut[B] = false;
    pair.run_for(ms(450));
    assert_eq!(pair.a().session.detection_time(), Some(ms(300)));
    assert_eq!(pair.b().session.transmit_interval(), interval(100));
    pair.run_for(ms(5000));
    assert!(pair.is_up() && pair.a().events.is_empty() && pair.b().events.is_empty());
}

#[test]
fn to_expect_less_is_done_at_once() {
    let mut pair = Pair::up(timing(100, 100, 3));
    change(&mut pair, A, timing(100, 500, 3));
    assert_eq!(pair.a().session.detection_time(), Some(ms(1500)));
    pair.run_for(pair.latency);
    assert_eq!(pair.b().session.transmit_interval(), interval(500));
    pair.run_for(ms(5000));
    assert!(pair.is_up() && pair.a().events.is_empty());
}

#[test]
fn a_peer_that_can_receive_faster_again_need_not_wait_for_the_old_interval() {
    let mut pair = Pair::up(timing(100, 100, 3));
    change(&mut pair, B, timing(100, 60_000, 3));
    pair.run_for(ms(1000));
    assert_eq!(pair.a().session.transmit_interval(), interval(60_000));
    pair.sides[A].sent.clear();
    change(&mut pair, B, timing(100, 100, 3));
    pair.run_for(pair.latency);
    // The new interval has passed since the last packet.
    assert!(pair.a().sent.iter().any(|sent| sent.at == pair.now && !sent.packet.final_));
    pair.run_for(ms(2000));
    assert!(pair.is_up() && pair.b().events.is_empty());
}

#[test]
fn a_change_during_a_poll_sequence_gets_a_sequence_of_its_own() {
    let mut pair = Pair::up(timing(100, 100, 3));
    pair.latency = ms(40);
    pair.run_for(ms(200));
    change(&mut pair, A, timing(300, 100, 3));
    pair.run_for(ms(10));
    change(&mut pair, A, timing(900, 100, 3));
    // The answer to the first Poll comes 80 ms after it, and says nothing of the second change.
    pair.run_for(ms(75));
    assert_eq!(pair.a().session.transmit_interval(), interval(100));
    pair.run_for(ms(1000));
    assert_eq!(pair.a().session.transmit_interval(), interval(900));
    pair.run_for(ms(10_000));
    assert!(!pair.last(A).packet.poll);
    assert!(pair.is_up() && pair.a().events.is_empty() && pair.b().events.is_empty());
}

#[test]
fn a_changed_multiplier_is_told_at_once_and_without_a_poll() {
    let mut pair = Pair::up(timing(100, 100, 3));
    change(&mut pair, A, timing(100, 100, 10));
    assert_eq!(pair.last(A).at, pair.now);
    assert_eq!(pair.last(A).packet.detect_multiplier.get(), 10);
    assert!(!pair.last(A).packet.poll);
    pair.run_for(pair.latency);
    assert_eq!(pair.b().session.detection_time(), Some(ms(1000)));
}

#[test]
fn parameters_changed_again_and_again_under_loss_never_take_the_session_down() {
    for seed in 0..20 {
        let mut pair = Pair::seeded(timing(100, 100, 5), timing(100, 100, 5), seed);
        pair.run_until(ms(2000), Pair::is_up);
        pair.run_for(ms(1000));
        pair.sides.iter_mut().for_each(|side| side.events.clear());
        for (round, millis) in [300, 50, 700, 20, 100, 1000, 10].into_iter().enumerate() {
            pair.lose = [1, 1];
            change(&mut pair, round % 2, timing(millis, millis, 5));
            pair.run_for(ms(30));
            change(&mut pair, 1 - round % 2, timing(millis, 2 * millis, 5));
            pair.run_for(ms(8000));
            assert!(pair.is_up(), "seed {seed}, round {round}");
            let expected = interval(2 * millis);
            assert_eq!(pair.sides[round % 2].session.transmit_interval(), expected);
        }
        assert!(pair.a().events.is_empty() && pair.b().events.is_empty(), "seed {seed}");
    }
}

/// A packet of a peer in Demand mode.
fn demand(pair: &mut Pair) {
    let mut packet = pair.last(B).packet;
    packet.demand = true;
    pair.inject(A, packet);
}

#[test]
fn a_peer_in_demand_mode_gets_no_periodic_packets_but_answers_and_changes() {
    let mut pair = Pair::up(timing(100, 100, 10));
    pair.run_for(ms(500));
    pair.cut[A] = true;
    pair.run_for(pair.latency);
    demand(&mut pair);
    pair.sides[A].sent.clear();
    pair.run_for(ms(500));
    assert!(pair.a().sent.is_empty());
    let mut poll = pair.last(B).packet;
    (poll.demand, poll.poll) = (true, true);
    pair.inject(A, poll);
    assert!(pair.a().sent.len() == 1 && pair.last(A).packet.final_);
    // A Poll Sequence of our own is sent until it is answered.
    change(&mut pair, A, timing(200, 100, 10));
    pair.run_for(ms(500));
    assert!(pair.a().sent.len() >= 5 && pair.last(A).packet.poll);
    let mut answer = poll;
    (answer.poll, answer.final_) = (false, true);
    pair.inject(A, answer);
    pair.sides[A].sent.clear();
    pair.run_for(ms(500));
    assert!(pair.a().sent.is_empty());
    assert_eq!(pair.a().state(), State::Up);
}

#[test]
fn demand_mode_ends_with_the_bit_or_the_session() {
    let mut pair = Pair::up(timing(100, 100, 10));
    pair.run_for(ms(500));
    pair.cut[A] = true;
    pair.run_for(pair.latency);
    demand(&mut pair);
    pair.run_for(ms(500));
    let mut ended = pair.last(B).packet;
    ended.demand = false;
    pair.sides[A].sent.clear();
    pair.inject(A, ended);
    pair.run_for(ms(1));
    assert_eq!(pair.a().sent.len(), 1, "the interval has long passed");
    demand(&mut pair);
    pair.sides[A].sent.clear();
    // Silence is still found, and then packets are sent.
    pair.run_for(ms(3000));
    assert_eq!(pair.a().state(), State::Down);
    assert!(pair.a().sent.len() >= 2);
}

#[test]
fn a_peer_that_wants_no_packets_gets_none_but_changes_of_state() {
    let mut pair = Pair::up(timing(100, 100, 10));
    pair.run_for(ms(500));
    pair.cut[A] = true;
    pair.run_for(pair.latency);
    let mut packet = pair.last(B).packet;
    packet.required_min_rx = None;
    pair.inject(A, packet);
    pair.sides[A].sent.clear();
    pair.run_for(ms(900));
    assert!(pair.a().sent.is_empty());
    pair.act(A, Session::handle_admin_down);
    assert_eq!(pair.a().sent.len(), 1);
}
