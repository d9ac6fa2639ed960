//! How a session comes up, stays, and goes.
use std::time::Duration;

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Families, HoldTime, Prefix,
    session::{Action, DownReason, Event, Session, SessionConfig, State},
    wire::{CodecContext, Notification, write_withdraw},
};

use crate::pair::{A, B, Pair, config, shutdown};

const SECOND: Duration = Duration::from_secs(1);

fn established() -> Pair {
    let mut pair = Pair::active();
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair
}

fn hold(seconds: u16, config: SessionConfig) -> SessionConfig {
    SessionConfig { hold_time: HoldTime::new(seconds).unwrap(), ..config }
}

fn sent(pair: &Pair, side: usize) -> Vec<(u8, u8)> {
    let reasons = [pair.sides[side].downs(), pair.sides[side].failures()].concat();
    let sent = |reason: &DownReason| match reason {
        DownReason::NotificationSent(n) => Some((n.code, n.subcode)),
        _ => None,
    };
    reasons.into_iter().filter_map(sent).collect()
}

fn received(pair: &Pair, side: usize) -> Vec<(u8, u8)> {
    let reasons = [pair.sides[side].downs(), pair.sides[side].failures()].concat();
    let received = |reason: &DownReason| match reason {
        DownReason::NotificationReceived(n) => Some((n.code, n.subcode)),
        _ => None,
    };
    reasons.into_iter().filter_map(received).collect()
}

fn bytes_of(notification: &Notification) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    notification.encode(&mut bytes);
    bytes.to_vec()
}

#[test]
fn an_active_side_reaches_a_passive_one_in_a_few_round_trips() {
    let mut pair = Pair::new(config(1, 2, 10), SessionConfig { passive: true, ..config(2, 1, 20) });
    pair.latency = Duration::from_millis(10);
    pair.start_both();
    let took = pair.run_until(SECOND, Pair::established);
    assert!(took <= Duration::from_millis(50), "{took:?}");
    assert_eq!(pair.b().connects, 0);
    pair.run_for(Duration::from_secs(60));
    assert!(pair.established());
}

#[test]
fn the_states_come_in_their_order() {
    let mut pair = Pair::new(config(1, 2, 10), SessionConfig { passive: true, ..config(2, 1, 20) });
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    let states: Vec<State> = pair
        .a()
        .events
        .iter()
        .filter_map(|e| if let Event::StateChanged { to, .. } = e { Some(*to) } else { None })
        .collect();
    assert_eq!(states, [State::Connect, State::OpenSent, State::OpenConfirm, State::Established]);
}

#[test]
fn a_peer_that_comes_late_is_met_within_a_second() {
    let mut pair = Pair::new(config(1, 2, 10), SessionConfig { passive: true, ..config(2, 1, 20) });
    pair.sides[B].listening = false;
    pair.start_both();
    pair.run_for(Duration::from_secs(3600));
    pair.sides[B].listening = true;
    pair.run_until(Duration::from_millis(1010), Pair::established);
}

#[test]
fn a_peer_that_answers_no_syn_is_tried_every_second() {
    let mut pair = Pair::active();
    pair.cut = true;
    pair.start(A);
    pair.run_for(Duration::from_secs(60));
    assert!((60..=80).contains(&pair.a().connects), "{} attempts", pair.a().connects);
    assert_eq!(pair.a().state(), State::Connect);
    pair.cut = false;
    pair.start(B);
    pair.run_until(Duration::from_millis(1010), Pair::established);
}

#[test]
fn a_lost_session_is_back_within_a_second() {
    for fin in [true, false] {
        let mut pair = Pair::new(config(1, 2, 10), SessionConfig { passive: true, ..config(2, 1, 20) });
        pair.start_both();
        pair.run_until(SECOND, Pair::established);
        pair.run_for(Duration::from_secs(30));
        pair.replace(B, SessionConfig { passive: true, ..config(2, 1, 20) }, fin);
        pair.start(B);
        // Without a FIN the next KEEPALIVE has to draw the RST.
        let limit = if fin { SECOND } else { Duration::from_secs(31) };
        pair.run_until(limit, |pair| pair.a().downs().len() == 1);
        pair.run_until(SECOND, Pair::established);
    }
}

#[test]
fn keepalives_carry_an_idle_session_through_a_day() {
    let mut pair = Pair::new(hold(9, config(1, 2, 10)), config(2, 1, 20));
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair.run_for(Duration::from_secs(86_400));
    assert!(pair.established());
    assert_eq!(pair.a().session.counters().established, 1);
    // A third of nine seconds, less the jitter.
    let keepalives = pair.a().session.counters().messages_sent;
    assert!((28_800..=38_500).contains(&keepalives), "{keepalives}");
}

#[test]
fn without_a_hold_time_nothing_is_sent_and_nothing_expires() {
    let mut pair = Pair::new(hold(0, config(1, 2, 10)), config(2, 1, 20));
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    let before = pair.a().session.counters().messages_sent;
    pair.run_for(Duration::from_secs(86_400));
    assert!(pair.established());
    assert_eq!(pair.a().session.counters().messages_sent, before);
}

#[test]
fn a_cut_line_expires_the_hold_timer() {
    let mut pair = Pair::new(hold(9, config(1, 2, 10)), config(2, 1, 20));
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair.cut = true;
    let took = pair.run_until(Duration::from_secs(10), |pair| pair.a().downs().len() == 1);
    assert!(took >= Duration::from_secs(6), "{took:?}");
    assert_eq!(sent(&pair, A), [(4, 0)]);
    pair.run_for(Duration::from_secs(20));
    pair.cut = false;
    pair.run_until(Duration::from_secs(3), Pair::established);
}

#[test]
fn a_peer_that_never_opens_is_dropped_and_tried_again() {
    let mut pair = Pair::active();
    pair.sides[B].reading = false;
    let mut raw = Session::new(config(1, 2, 10));
    raw.handle_start(pair.now);
    let connect = raw.poll_action();
    let Some(Action::Connect(id)) = connect else { panic!("{connect:?}") };
    raw.handle_connected(pair.now, id);
    assert_eq!(raw.state(), State::OpenSent);
    let timeout = raw.poll_timeout().expect("a hold timer");
    assert!(timeout - pair.now >= Duration::from_secs(30));
    raw.handle_timeout(timeout);
    let failed = std::iter::from_fn(|| raw.poll_event()).find(|event| matches!(event, Event::Failed(_)));
    assert_eq!(failed, Some(Event::Failed(DownReason::NotificationSent(Notification::hold_timer_expired()))));
    assert_eq!(raw.state(), State::Connect);
}

#[test]
fn a_peer_that_does_not_read_trips_the_send_hold_timer() {
    // The hold time is longer here, so that B does not give up first.
    let patient = |config| hold(300, SessionConfig { send_hold: Some(Duration::from_secs(120)), ..config });
    let mut pair = Pair::new(patient(config(1, 2, 10)), patient(config(2, 1, 20)));
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair.run_for(Duration::from_secs(600));
    assert!(pair.established(), "a peer that reads never trips it");
    // B goes on sending its KEEPALIVEs and leaves ours unread: its process hangs in part.
    pair.sides[B].reading = false;
    let took = pair.run_until(Duration::from_secs(121), |pair| !pair.a().downs().is_empty());
    assert!(took >= Duration::from_secs(20), "{took:?}");
    assert_eq!(pair.a().downs(), [&DownReason::SendHoldTimerExpired]);
    // What B reads in the end, should it ever, ends in the reason.
    pair.sides[B].reading = true;
    pair.run_until(SECOND, |pair| received(pair, B) == [(8, 0)]);
}

#[test]
fn a_notification_ends_the_connection_in_each_state() {
    let notification = Notification::bare(6, 4);
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        let mut pair = Pair::new(config(1, 2, 10), SessionConfig { passive: true, ..config(2, 1, 20) });
        pair.start_both();
        pair.run_until(SECOND, |pair| pair.a().state() == state);
        // In front of what is under way already.
        let (id, mut buffer) = (pair.connection_of(A), BytesMut::from(&bytes_of(&notification)[..]));
        pair.sides[A].session.handle_input(pair.now, id, &mut buffer);
        pair.drain(A);
        assert_eq!(received(&pair, A), [(6, 4)], "{state}");
        assert_eq!(sent(&pair, A), [], "{state}: a NOTIFICATION is not answered");
        assert_eq!(pair.a().downs().len(), usize::from(state == State::Established));
        assert_eq!(pair.a().state(), State::Connect, "{state}: the first failure is forgiven at once");
        pair.run_until(Duration::from_secs(2), Pair::established);
    }
}

#[test]
fn broken_framing_is_answered_in_each_state() {
    let mut broken = vec![0xff; 16];
    broken.extend([0, 18, 4]);
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        let mut pair = Pair::new(config(1, 2, 10), SessionConfig { passive: true, ..config(2, 1, 20) });
        pair.start_both();
        pair.run_until(SECOND, |pair| pair.a().state() == state);
        let (id, mut buffer) = (pair.connection_of(A), BytesMut::from(&broken[..]));
        pair.sides[A].session.handle_input(pair.now, id, &mut buffer);
        pair.drain(A);
        assert_eq!(sent(&pair, A), [(1, 2)], "{state}");
        assert!(buffer.is_empty(), "{state}: nothing is kept of a closed connection");
        pair.run_until(Duration::from_secs(2), Pair::established);
    }
}

#[test]
fn messages_out_of_turn_are_errors_of_the_state_machine() {
    let mut pair = established();
    let open = pair.open_of(B);
    pair.inject(A, &open);
    pair.run_until(SECOND, |pair| !pair.a().downs().is_empty());
    assert_eq!(sent(&pair, A), [(5, 3)]);
    pair.run_until(SECOND, |pair| !pair.b().downs().is_empty());
    assert_eq!(received(&pair, B), [(5, 3)]);
}

#[test]
fn the_wrong_as_is_told_and_not_hammered() {
    let mut pair = Pair::new(config(1, 2, 10), config(3, 1, 20));
    pair.start_both();
    pair.run_for(Duration::from_secs(120));
    assert!(sent(&pair, A).contains(&(2, 2)));
    assert!(received(&pair, B).contains(&(2, 2)));
    assert_ne!(pair.a().state(), State::Established);
    let connects = pair.a().connects + pair.b().connects;
    assert!((10..120).contains(&connects), "{connects} attempts in two minutes");
}

#[test]
fn a_refused_capability_is_not_repeated_in_a_hurry() {
    let only = |family, config| SessionConfig { families: [family].into_iter().collect(), ..config };
    let mut pair =
        Pair::new(only(AfiSafi::Ipv4Unicast, config(1, 2, 10)), only(AfiSafi::Ipv6Unicast, config(2, 1, 20)));
    pair.start_both();
    pair.run_for(Duration::from_secs(80));
    assert!(sent(&pair, A).iter().chain(&sent(&pair, B)).all(|sent| *sent == (2, 7)));
    let connects = pair.a().connects + pair.b().connects;
    assert!(connects <= 40, "{connects} attempts");
}

#[test]
fn quick_failures_are_damped_and_never_given_up() {
    let mut pair = Pair::new(config(1, 2, 10), SessionConfig { passive: true, ..config(2, 1, 20) });
    pair.start_both();
    let mut gaps = Vec::new();
    for _ in 0..20 {
        let gap = pair.run_until(Duration::from_secs(10), Pair::established);
        gaps.push(gap);
        pair.reset_connections();
        pair.run_until(SECOND, |pair| !pair.established());
    }
    assert!(gaps[1] < Duration::from_millis(20), "the first loss costs nothing: {:?}", gaps[1]);
    assert!(gaps[19] > Duration::from_secs(5) && gaps[19] < Duration::from_secs(9), "{:?}", gaps[19]);
    // One that lasted clears the record.
    pair.run_until(Duration::from_secs(10), Pair::established);
    pair.run_for(Duration::from_secs(60));
    pair.reset_connections();
    pair.run_until(SECOND, |pair| !pair.established());
    pair.run_until(Duration::from_millis(20), Pair::established);
}

#[test]
fn a_stopped_session_stays_down_and_says_why() {
    let mut pair = established();
    pair.stop(A, shutdown());
    pair.run_for(Duration::from_secs(60));
    assert_eq!(pair.a().state(), State::Idle);
    assert_ne!(pair.b().state(), State::Established);
    let DownReason::NotificationReceived(cease) = pair.b().downs()[0] else {
        panic!("{:?}", pair.b().downs())
    };
    assert_eq!((cease.code, cease.subcode, cease.text().as_deref()), (6, 2, Some("maintenance")));
    assert_eq!(pair.a().session.poll_timeout(), None, "no timer runs while stopped");
    pair.start(A);
    pair.run_until(Duration::from_secs(10), Pair::established);
}

#[test]
fn a_stop_is_final_in_every_state() {
    for state in State::ALL {
        let mut pair = Pair::new(config(1, 2, 10), SessionConfig { passive: true, ..config(2, 1, 20) });
        pair.start(B);
        if state == State::Active {
            pair.sides[B].listening = false;
        }
        if state != State::Idle {
            pair.start(A);
            pair.run_until(SECOND, |pair| pair.a().state() == state);
        }
        pair.stop(A, shutdown());
        pair.run_for(Duration::from_secs(60));
        assert_eq!((pair.a().state(), pair.connections()), (State::Idle, 0), "{state}");
    }
}

#[test]
fn a_refresh_reaches_the_peer() {
    let mut pair = established();
    assert!(pair.sides[A].session.request_refresh(AfiSafi::Ipv6Unicast));
    pair.drain(A);
    pair.run_for(SECOND);
    assert!(pair.b().events.contains(&Event::RefreshRequested(AfiSafi::Ipv6Unicast)));
    assert!(!Session::new(config(1, 2, 3)).request_refresh(AfiSafi::Ipv4Unicast), "no session to ask on");
}

#[test]
fn an_update_is_handed_on_even_when_it_comes_octet_by_octet() {
    let mut pair = established();
    let mut end_of_rib = vec![0xff; 16];
    end_of_rib.extend([0, 23, 2, 0, 0, 0, 0]);
    for octet in end_of_rib {
        pair.inject(A, &[octet]);
    }
    pair.run_for(SECOND);
    let markers = pair.a().events.iter().filter(
        |event| matches!(event, Event::Update(update, _) if update.end_of_rib == Some(AfiSafi::Ipv4Unicast)),
    );
    assert_eq!(markers.count(), 1);
}

/// RFC 4760 section 6: what a peer sends of a family that was not agreed on is ignored.
#[test]
fn a_family_that_was_not_agreed_on_is_ignored() {
    let withdrawal = |prefix: Prefix| {
        let mut bytes = BytesMut::new();
        assert_eq!(write_withdraw(prefix.family(), [prefix], &CodecContext::default(), &mut bytes), 1);
        bytes
    };
    let v4: Prefix = "192.0.2.0/24".parse().unwrap();
    let v6: Prefix = "2001:db8::/32".parse().unwrap();
    for (families, seen) in
        [(Families::ALL, vec![v4, v6]), (Families::from_iter([AfiSafi::Ipv4Unicast]), vec![v4])]
    {
        let mut pair = Pair::new(SessionConfig { families, ..config(1, 2, 10) }, config(2, 1, 20));
        pair.start_both();
        pair.run_until(SECOND, Pair::established);
        pair.inject(A, &withdrawal(v4));
        pair.inject(A, &withdrawal(v6));
        pair.run_for(SECOND);
        let updates = pair.a().events.iter().filter_map(|event| match event {
            Event::Update(update, _) => Some(&update.unreach),
            _ => None,
        });
        let withdrawn: Vec<Prefix> =
            updates.flatten().flat_map(|unreach| &unreach.nlri).map(|nlri| nlri.prefix).collect();
        assert_eq!(withdrawn, seen, "{families:?}");
        assert!(pair.established());
    }
}

#[test]
fn a_shorter_keepalive_needs_no_new_session() {
    let mut pair = established();
    let before = pair.a().session.counters().messages_sent;
    let often = SessionConfig { keepalive: Some(SECOND), ..config(1, 2, 10) };
    pair.sides[A].session.handle_config(pair.now, &often);
    pair.run_for(Duration::from_secs(60));
    assert!(pair.a().session.counters().messages_sent - before >= 60);
    assert_eq!(pair.a().session.counters().established, 1);
}

#[test]
fn the_same_seeds_give_the_same_run() {
    let trace = |seed| {
        let passive = SessionConfig { passive: true, ..config(2, 1, 20) };
        let mut pair = Pair::new(SessionConfig { jitter_seed: seed, ..config(1, 2, 10) }, passive);
        (pair.latency, pair.loss) = (Duration::from_millis(7), 40);
        pair.sides[B].listening = false;
        pair.start(A);
        pair.run_for(Duration::from_secs(10));
        pair.sides[B].listening = true;
        pair.start(B);
        pair.run_until(Duration::from_secs(10), Pair::established);
        (pair.elapsed(), pair.a().connects)
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1).0, trace(2).0);
}
