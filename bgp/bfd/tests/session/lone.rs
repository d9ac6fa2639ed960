//! One session against packets made by hand, also such as no sane peer sends.
use std::time::{Duration, Instant};

use plainroute_bfd::{
    ControlPacket, Diagnostic, Discard, Discriminator, Event, Interval, Liveness, ReceivedPacket, Session,
    SessionConfig, State,
};
use proptest::prelude::*;

use crate::pair::{interval, ms, timing};

const OURS: u32 = 0x0a0b_0c0d;

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the origin of the virtual clock")]
    Instant::now()
}

fn session(now: Instant) -> Session {
    let config = SessionConfig {
        local_discriminator: Discriminator::new(OURS).unwrap(),
        timing: timing(100, 100, 3),
        control_plane_independent: true,
        jitter_seed: 1,
    };
    Session::new(now, config)
}

fn packet(state: State) -> ControlPacket {
    ControlPacket {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: 3.try_into().unwrap(),
        my_discriminator: Discriminator::new(7).unwrap(),
        your_discriminator: Discriminator::new(OURS),
        desired_min_tx: Some(interval(100)),
        required_min_rx: Some(interval(100)),
        required_min_echo_rx: None,
    }
}

fn receive(session: &mut Session, now: Instant, control: ControlPacket) -> Result<(), Discard> {
    session.handle_packet(now, &ReceivedPacket { control, authentication: None })
}

fn drain(session: &mut Session, now: Instant) -> Vec<ControlPacket> {
    std::iter::from_fn(|| session.poll_transmit(now)).collect()
}

/// A session in this state, by packets and commands alone.
fn in_state(now: Instant, state: State) -> Session {
    let mut session = session(now);
    match state {
        State::Down => {}
        State::AdminDown => session.handle_admin_down(now),
        State::Init => receive(&mut session, now, packet(State::Down)).unwrap(),
        State::Up => receive(&mut session, now, packet(State::Init)).unwrap(),
    }
    assert_eq!(session.state(), state);
    drain(&mut session, now);
    while session.poll_event().is_some() {}
    session
}

/// RFC 5880 section 6.8.6, by state and received state: the next state.
const TRANSITIONS: [[State; 4]; 4] = {
    use State::{AdminDown, Down, Init, Up};
    [
        // received: AdminDown, Down, Init, Up
        [AdminDown, AdminDown, AdminDown, AdminDown], // in AdminDown
        [Down, Init, Up, Down],                       // in Down
        [Down, Init, Up, Up],                         // in Init
        [Down, Down, Up, Up],                         // in Up
    ]
};

#[test]
fn each_state_and_received_state_leads_where_section_6_8_6_says() {
    let now = origin();
    for (state, row) in State::ALL.into_iter().zip(TRANSITIONS) {
        for (received, expected) in State::ALL.into_iter().zip(row) {
            let mut session = in_state(now, state);
            let taken = receive(&mut session, now, packet(received));
            assert_eq!(taken.is_err(), state == State::AdminDown);
            assert_eq!(session.state(), expected, "{state} receives {received}");
            // A change is told at once, and nothing else is.
            assert_eq!(drain(&mut session, now).len(), usize::from(state != expected));
            let mut events = std::iter::from_fn(|| session.poll_event());
            let change = events.find(|event| matches!(event, Event::StateChanged { .. }));
            let diagnostic = session.diagnostic();
            let told = Event::StateChanged { from: state, to: expected, diagnostic };
            assert_eq!(change, (state != expected).then_some(told));
            if expected == State::Down && state != State::Down {
                assert_eq!(diagnostic, Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN);
            }
        }
    }
}

#[test]
fn authentication_that_is_not_in_use_is_discarded_without_effect() {
    let now = origin();
    let mut session = in_state(now, State::Up);
    let remote = *session.remote().unwrap();
    let mut octets = packet(State::Down).encode().to_vec();
    octets[1] |= 0x04;
    octets[3] = 24 + 9;
    octets.extend([1, 9, 1, b's', b'e', b'c', b'r', b'e', b't']);
    let received = ReceivedPacket::decode(&octets).unwrap();
    let later = now + ms(50);
    assert_eq!(session.handle_packet(later, &received), Err(Discard::AuthenticationNotInUse));
    assert_eq!((session.state(), session.remote()), (State::Up, Some(&remote)));
    assert_eq!(session.counters().discarded.of(Discard::AuthenticationNotInUse), 1);
    assert_eq!(session.counters().received, 1);
}

#[test]
fn a_packet_for_another_session_is_discarded() {
    let now = origin();
    let mut session = in_state(now, State::Up);
    let other = ControlPacket { your_discriminator: Discriminator::new(1), ..packet(State::Down) };
    assert_eq!(receive(&mut session, now, other), Err(Discard::YourDiscriminatorUnknown));
    assert_eq!(session.state(), State::Up);
}

#[test]
fn a_packet_holds_off_the_end_from_when_it_arrived_even_if_read_out_of_order() {
    let now = origin();
    let mut session = in_state(now, State::Up);
    receive(&mut session, now + ms(100), packet(State::Up)).unwrap();
    receive(&mut session, now + ms(50), packet(State::Up)).unwrap();
    session.handle_timeout(now + ms(399));
    assert_eq!(session.state(), State::Up);
    session.handle_timeout(now + ms(400));
    assert_eq!(session.state(), State::Down);
}

#[test]
fn the_reserved_zero_as_desired_interval_counts_as_what_we_require() {
    let now = origin();
    let mut session = in_state(now, State::Up);
    receive(&mut session, now, ControlPacket { desired_min_tx: None, ..packet(State::Up) }).unwrap();
    assert_eq!(session.detection_time(), Some(ms(300)));
}

#[test]
fn the_longest_intervals_do_not_overflow() {
    let now = origin();
    let longest = Interval::from_micros(u32::MAX);
    let mut session = in_state(now, State::Up);
    let slow = ControlPacket {
        desired_min_tx: longest,
        required_min_rx: longest,
        detect_multiplier: 255.try_into().unwrap(),
        ..packet(State::Up)
    };
    receive(&mut session, now, slow).unwrap();
    assert_eq!(session.detection_time(), Some(Duration::from_micros(u64::from(u32::MAX) * 255)));
    assert_eq!(Some(session.transmit_interval()), longest);
    session.handle_admin_down(now);
    assert!(session.may_end_at() > Some(now));
}

#[test]
fn a_peer_that_flaps_is_answered_once_for_each_packet_at_most() {
    let now = origin();
    let mut session = in_state(now, State::Up);
    for round in 0..100 {
        let flapped = [State::Down, State::Init][round % 2];
        receive(&mut session, now, packet(flapped)).unwrap();
        assert_eq!(drain(&mut session, now).len(), 1);
    }
    assert_eq!(session.counters().down, 50);
}

#[test]
fn why_a_session_failed_is_told_until_it_is_up() {
    let now = origin();
    let mut session = in_state(now, State::Up);
    session.handle_timeout(now + ms(300));
    let said = |session: &mut Session| drain(session, now + ms(300)).pop().unwrap().diagnostic;
    assert_eq!(said(&mut session), Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);
    receive(&mut session, now + ms(300), packet(State::Down)).unwrap();
    assert_eq!(session.state(), State::Init);
    assert_eq!(said(&mut session), Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);
    receive(&mut session, now + ms(300), packet(State::Up)).unwrap();
    assert_eq!(said(&mut session), Diagnostic::NONE);
}

#[test]
fn a_session_that_was_never_up_has_not_failed() {
    let now = origin();
    let mut session = in_state(now, State::Init);
    session.handle_timeout(now + ms(60_000));
    assert_eq!(session.state(), State::Down);
    assert_eq!(session.liveness(), Liveness::Pending);
}

#[derive(Clone, Debug)]
enum Step {
    Packet(Box<ControlPacket>),
    Wait(u64),
    AdminDown,
    AdminUp,
    Reset,
    Timing(u32, u32, u8),
}

prop_compose! {
    fn any_packet()(
        state in prop::sample::select(State::ALL.to_vec()),
        (poll, final_, control_plane_independent, demand) in any::<(bool, bool, bool, bool)>(),
        detect_multiplier in any::<std::num::NonZeroU8>(),
        mine in 1u32..4,
        knows_us in any::<bool>(),
        desired in prop_oneof![0u32..500_000, any::<u32>()],
        required in prop_oneof![0u32..500_000, any::<u32>()],
    ) -> ControlPacket {
        let knows_us = knows_us || matches!(state, State::Init | State::Up);
        ControlPacket {
            poll, final_, control_plane_independent, demand, detect_multiplier,
            my_discriminator: Discriminator::new(mine).unwrap(),
            your_discriminator: Discriminator::new(if knows_us { OURS } else { 0 }),
            desired_min_tx: Interval::from_micros(desired),
            required_min_rx: Interval::from_micros(required),
            ..packet(state)
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_packet().prop_map(|packet| Step::Packet(Box::new(packet))),
        8 => (0u64..2000).prop_map(Step::Wait),
        1 => Just(Step::AdminDown),
        1 => Just(Step::AdminUp),
        1 => Just(Step::Reset),
        2 => (1u32..2000, 1u32..2000, 1u8..10).prop_map(|(tx, rx, multiplier)| Step::Timing(tx, rx, multiplier)),
    ]
}

proptest! {
    /// Whatever the peer sends and the operator does: what we send is valid, the timers advance, and the clients are
    /// told what the state is.
    #[test]
    fn any_course_of_events_keeps_the_rules(steps in prop::collection::vec(step(), 1..60)) {
        let mut now = origin();
        let mut session = session(now);
        for step in steps {
            match step {
                Step::Packet(packet) => drop(receive(&mut session, now, *packet)),
                Step::Wait(millis) => {
                    let end = now + ms(millis);
                    let mut turns = 0;
                    while let Some(due) = session.poll_timeout().filter(|due| *due <= end) {
                        now = now.max(due);
                        session.handle_timeout(now);
                        drain(&mut session, now);
                        turns += 1;
                        prop_assert!(turns <= 2 * 2000 + 10, "the timers stand still");
                    }
                    now = end;
                }
                Step::AdminDown => session.handle_admin_down(now),
                Step::AdminUp => session.handle_admin_up(),
                Step::Reset => session.handle_forwarding_plane_reset(),
                Step::Timing(tx, rx, multiplier) => session.handle_timing(timing(tx, rx, multiplier)),
            }
            let sent = drain(&mut session, now);
            prop_assert!(sent.len() <= 2);
            for packet in sent {
                prop_assert!(!(packet.poll && packet.final_));
                prop_assert!(ReceivedPacket::decode(&packet.encode()).is_ok(), "{:?}", packet);
                prop_assert_eq!(packet.state, session.state());
                let floor = if session.state() == State::Up { Interval::MIN } else { Interval::SLOW };
                prop_assert!(packet.desired_min_tx >= Some(floor));
            }
            prop_assert_eq!(session.liveness() == Liveness::Up, session.state() == State::Up);
            let held_down = session.state() == State::AdminDown;
            prop_assert_eq!(session.may_end_at().is_some(), held_down);
            // A session that knows nothing of its peer is Down, or held down.
            if session.remote().is_none() {
                prop_assert!(matches!(session.state(), State::Down | State::AdminDown));
            }
        }
    }
}
