//! Two sessions joined by a network of two queues, on a virtual clock.
//!
//! Datagrams go through the codec and the demultiplexer as they would behind sockets. Nothing here reads a clock but
//! once, for the origin of time.
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use plainroute_bfd::{
    ControlPacket, Datagram, Demux, Discriminator, Event, Hops, Interval, Liveness, Path, ReceivedPacket,
    Session, SessionConfig, State, Timing,
};

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const BOTH: [usize; 2] = [A, B];

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn interval(millis: u32) -> Interval {
    Interval::from_millis(millis).unwrap()
}

/// Milliseconds to send and receive at, and the multiplier.
pub(crate) fn timing(transmit: u32, receive: u32, multiplier: u8) -> Timing {
    Timing {
        desired_min_tx: interval(transmit),
        required_min_rx: interval(receive),
        detect_multiplier: multiplier.try_into().unwrap(),
    }
}

/// A packet that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) packet: ControlPacket,
}

pub(crate) struct Side {
    pub(crate) session: Session,
    pub(crate) events: Vec<Event>,
    pub(crate) sent: Vec<Sent>,
    demux: Demux,
}

impl Side {
    fn new(now: Instant, side: usize, timing: Timing, seed: u64) -> Side {
        let mut demux = Demux::new(seed);
        let path = Path::SingleHop { remote: address(1 - side), interface: 2.try_into().unwrap() };
        let local_discriminator = demux.insert(path).unwrap();
        let config =
            SessionConfig { local_discriminator, timing, control_plane_independent: true, jitter_seed: seed };
        Side { session: Session::new(now, config), events: Vec::new(), sent: Vec::new(), demux }
    }

    pub(crate) fn state(&self) -> State {
        self.session.state()
    }

    pub(crate) fn states(&self) -> Vec<State> {
        let to = |event: &Event| if let Event::StateChanged { to, .. } = event { Some(*to) } else { None };
        self.events.iter().filter_map(to).collect()
    }

    /// What clients were told, in order.
    pub(crate) fn told(&self) -> Vec<Liveness> {
        let told =
            |event: &Event| if let Event::LivenessChanged(liveness) = event { Some(*liveness) } else { None };
        self.events.iter().filter_map(told).collect()
    }

    pub(crate) fn discriminator(&self) -> Discriminator {
        self.session.local_discriminator()
    }
}

fn address(side: usize) -> IpAddr {
    ["192.0.2.1", "192.0.2.2"][side].parse().unwrap()
}

struct InFlight {
    at: Instant,
    to: usize,
    octets: [u8; ControlPacket::LENGTH],
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) sides: [Side; 2],
    pub(crate) latency: Duration,
    /// Of 256 packets, how many are lost.
    pub(crate) loss: u8,
    /// Whether what is sent to this side is lost.
    pub(crate) cut: [bool; 2],
    /// How many of the next packets to this side are lost.
    pub(crate) lose: [usize; 2],
    in_flight: Vec<InFlight>,
    random: u64,
}

impl Pair {
    pub(crate) fn new(a: Timing, b: Timing) -> Pair {
        Pair::seeded(a, b, 1)
    }

    pub(crate) fn seeded(a: Timing, b: Timing, seed: u64) -> Pair {
        #[expect(clippy::disallowed_methods, reason = "the origin of the virtual clock")]
        let now = Instant::now();
        Pair {
            now,
            sides: [Side::new(now, A, a, seed), Side::new(now, B, b, seed ^ 0x5555)],
            latency: ms(1),
            loss: 0,
            cut: [false; 2],
            lose: [0; 2],
            in_flight: Vec::new(),
            random: seed,
        }
    }

    /// Both sides with the same timing, Up, and their first Poll Sequences done.
    pub(crate) fn up(timing: Timing) -> Pair {
        let mut pair = Pair::new(timing, timing);
        pair.run_until(ms(5000), Pair::is_up);
        pair.run_for(timing.desired_min_tx.as_duration() * 10);
        assert!(pair.is_up() && BOTH.iter().all(|side| !pair.last(*side).packet.poll));
        for side in &mut pair.sides {
            side.events.clear();
            side.sent.clear();
        }
        pair
    }

    pub(crate) fn a(&self) -> &Side {
        &self.sides[A]
    }

    pub(crate) fn b(&self) -> &Side {
        &self.sides[B]
    }

    pub(crate) fn is_up(&self) -> bool {
        self.sides.iter().all(|side| side.state() == State::Up)
    }

    pub(crate) fn last(&self, side: usize) -> Sent {
        *self.sides[side].sent.last().expect("something was sent")
    }

    /// Does something to the session of a side.
    pub(crate) fn act(&mut self, side: usize, action: impl FnOnce(&mut Session, Instant)) {
        action(&mut self.sides[side].session, self.now);
        self.drain(side);
    }

    /// The process of a side dies and another takes its place, knowing nothing.
    pub(crate) fn restart(&mut self, side: usize, seed: u64) {
        let timing = self.sides[side].session.timing();
        self.sides[side] = Side::new(self.now, side, timing, seed);
        self.drain(side);
    }

    /// Delivers a packet as if the other side had sent it.
    pub(crate) fn inject(&mut self, to: usize, packet: ControlPacket) {
        self.deliver(to, packet.encode());
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until the condition holds; the time that took. Panics after `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, condition: impl Fn(&Pair) -> bool) -> Duration {
        let start = self.now;
        while !condition(self) {
            let states = [self.a().state(), self.b().state()];
            assert!(self.step(start + limit), "not within {limit:?}; states {states:?}");
        }
        self.now - start
    }

    /// The next packet or timer that is due until `end`; packets first, as a driver reads before it looks at the clock.
    fn step(&mut self, end: Instant) -> bool {
        for side in BOTH {
            self.drain(side);
        }
        let packet = (0..self.in_flight.len()).min_by_key(|index| self.in_flight[*index].at);
        let packet_at = packet.map(|index| self.in_flight[index].at);
        let timeout =
            BOTH.into_iter().filter_map(|side| Some((self.sides[side].session.poll_timeout()?, side))).min();
        match (packet, packet_at, timeout) {
            (Some(index), Some(at), timeout) if at <= end && timeout.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                let InFlight { to, octets, .. } = self.in_flight.remove(index);
                self.deliver(to, octets);
            }
            (_, _, Some((due, side))) if due <= end => {
                self.now = self.now.max(due);
                self.sides[side].session.handle_timeout(self.now);
                self.drain(side);
            }
            _ => return false,
        }
        true
    }

    fn deliver(&mut self, to: usize, octets: [u8; ControlPacket::LENGTH]) {
        let side = &mut self.sides[to];
        let datagram = Datagram {
            hops: Hops::Single,
            source: address(1 - to),
            destination: address(to),
            interface: 2,
            hop_limit: 255,
            payload: &octets,
        };
        if let Ok((discriminator, received)) = side.demux.handle_datagram(&datagram) {
            assert_eq!(discriminator, side.discriminator());
            // What is discarded is counted.
            let _ = side.session.handle_packet(self.now, &received);
        }
        self.drain(to);
    }

    /// Takes what the session of a side has to send and to tell.
    fn drain(&mut self, from: usize) {
        while let Some(packet) = self.sides[from].session.poll_transmit(self.now) {
            assert!(!(packet.poll && packet.final_), "RFC 5880 section 6.5");
            assert!(!packet.demand && packet.required_min_echo_rx.is_none());
            let octets = packet.encode();
            assert!(ReceivedPacket::decode(&octets).is_ok(), "{packet:?}");
            self.sides[from].sent.push(Sent { at: self.now, packet });
            let to = 1 - from;
            self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let is_unlucky = ((self.random >> 33) as u8) < self.loss;
            let is_chosen = self.lose[to] > 0;
            self.lose[to] -= usize::from(is_chosen);
            if !(self.cut[to] || is_chosen || is_unlucky) {
                self.in_flight.push(InFlight { at: self.now + self.latency, to, octets });
            }
        }
        while let Some(event) = self.sides[from].session.poll_event() {
            self.sides[from].events.push(event);
        }
    }
}
