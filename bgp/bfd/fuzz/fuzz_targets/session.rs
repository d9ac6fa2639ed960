//! A course of events for one session, 26 octets each: what, how long, and a packet. The timers must advance, and what
//! is sent must be valid and keep the rules.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use plainroute_bfd::{
    ControlPacket, Discriminator, Interval, Liveness, ReceivedPacket, Session, SessionConfig, State, Timing,
};

/// An interval of 1 to 256 times 10 ms, so that a wait is a bounded number of packets.
fn interval(octet: u8) -> Interval {
    Interval::from_millis(10 * (u32::from(octet) + 1)).expect("not zero")
}

fn timing(transmit: u8, receive: u8, multiplier: u8) -> Timing {
    let detect_multiplier = multiplier.max(1).try_into().expect("not zero");
    Timing { desired_min_tx: interval(transmit), required_min_rx: interval(receive), detect_multiplier }
}

fn take_sent(session: &mut Session, now: Instant) {
    for number in 0.. {
        let Some(packet) = session.poll_transmit(now) else { break };
        assert!(number < 2, "an answer to a Poll and a packet of our own at most");
        assert!(!(packet.poll && packet.final_) && !packet.demand);
        assert_eq!(packet.state, session.state());
        assert!(packet.state == State::Up || packet.desired_min_tx >= Some(Interval::SLOW));
        assert_eq!(
            ReceivedPacket::decode(&packet.encode()),
            Ok(ReceivedPacket { control: packet, authentication: None })
        );
    }
}

fuzz_target!(|input: &[u8]| {
    let ours = Discriminator::new(0x0102_0304).expect("not zero");
    let mut now = Instant::now();
    let config = SessionConfig {
        local_discriminator: ours,
        timing: timing(9, 9, 3),
        control_plane_independent: true,
        jitter_seed: 1,
    };
    let mut session = Session::new(now, config);
    for event in input.chunks_exact(2 + ControlPacket::LENGTH) {
        let (choice, amount) = (event[0], event[1]);
        match choice % 8 {
            0..4 => {
                if let Ok(received) = ReceivedPacket::decode(&event[2..]) {
                    let heard_before = session.remote().map(|remote| remote.heard_at);
                    let taken = session.handle_packet(now, &received);
                    assert!(taken.is_err() || session.remote().map(|remote| remote.heard_at) >= heard_before);
                }
            }
            4 => {
                let end = now + Duration::from_millis(10 * u64::from(amount));
                let mut turns = 0;
                while let Some(due) = session.poll_timeout().filter(|due| *due <= end) {
                    now = now.max(due);
                    session.handle_timeout(now);
                    take_sent(&mut session, now);
                    turns += 1;
                    assert!(turns < 1000, "the timers stand still");
                }
                now = end;
            }
            5 => session.handle_admin_down(now),
            6 => session.handle_admin_up(),
            _ if amount == 0 => session.handle_forwarding_plane_reset(),
            _ => session.handle_timing(timing(amount, event[2], event[3])),
        }
        take_sent(&mut session, now);
        while session.poll_event().is_some() {}
        assert_eq!(session.liveness() == Liveness::Up, session.state() == State::Up);
        assert_eq!(session.may_end_at().is_some(), session.state() == State::AdminDown);
        assert!(session.remote().is_some() || matches!(session.state(), State::Down | State::AdminDown));
    }
});
