//! A session that is handed anything in any order neither panics nor gets stuck.
use std::time::{Duration, Instant};

use bytes::BytesMut;
use plainroute_bgp::{
    session::{Action, ConnectionId, Event, Session, SessionConfig, State, StopReason},
    wire::{Notification, Open, encode_keepalive},
};
use proptest::prelude::*;

use crate::pair::{config, shutdown};

#[derive(Clone, Debug)]
enum Step {
    Start,
    Stop,
    Retain,
    Accept,
    Connected(usize),
    Closed(usize),
    Open(usize),
    Keepalive(usize),
    Notification(usize),
    Octets(usize, Vec<u8>),
    Wait(u16),
    Timeout,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = || 0..4_usize;
    let step = prop_oneof![
        4 => Just(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Retain),
        3 => Just(Step::Accept),
        6 => which().prop_map(Step::Connected),
        2 => which().prop_map(Step::Closed),
        6 => which().prop_map(Step::Open),
        6 => which().prop_map(Step::Keepalive),
        1 => which().prop_map(Step::Notification),
        1 => (which(), prop::collection::vec(any::<u8>(), 0..64)).prop_map(|(id, octets)| Step::Octets(id, octets)),
        2 => any::<u16>().prop_map(Step::Wait),
        3 => Just(Step::Timeout),
    ];
    prop::collection::vec(step, 0..60)
}

/// The session with what its driver would know.
struct Driver {
    session: Session,
    now: Instant,
    started: bool,
    /// The connections and attempts that the session has not closed, the newest last.
    live: Vec<ConnectionId>,
    established: u64,
}

impl Driver {
    fn step(&mut self, step: Step, peer_open: &Open) {
        let now = self.now;
        match step {
            Step::Start => {
                self.started = true;
                self.session.handle_start(now);
            }
            Step::Stop => {
                self.started = false;
                self.session.handle_stop(now, shutdown());
            }
            Step::Retain => {
                self.started = false;
                self.session.handle_stop(now, StopReason::Retain);
            }
            Step::Accept => match self.session.handle_accepted(now) {
                Ok(id) => self.live.push(id),
                Err(_) => assert!(!self.started),
            },
            Step::Connected(place) => {
                if let Some(id) = self.id(place) {
                    self.session.handle_connected(now, id);
                }
            }
            Step::Closed(place) => {
                if let Some(id) = self.id(place) {
                    self.live.retain(|live| *live != id);
                    self.session.handle_closed(now, id);
                }
            }
            Step::Open(place) => self.input(place, |out| peer_open.encode(out)),
            Step::Keepalive(place) => self.input(place, encode_keepalive),
            Step::Notification(place) => self.input(place, |out| Notification::bare(6, 4).encode(out)),
            Step::Octets(place, octets) => self.input(place, |out| out.extend_from_slice(&octets)),
            Step::Wait(milliseconds) => self.now += Duration::from_millis(u64::from(milliseconds)),
            Step::Timeout => {
                if let Some(at) = self.session.poll_timeout() {
                    self.now = self.now.max(at);
                    self.session.handle_timeout(self.now);
                }
            }
        }
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect(id) => self.live.push(id),
                Action::Send(id, bytes) => {
                    assert!(self.live.contains(&id), "sends on what it has closed");
                    assert!(!bytes.is_empty());
                }
                Action::Close(id) => self.live.retain(|live| *live != id),
            }
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Established(id, _) => {
                    assert!(self.live.contains(&id));
                    self.established += 1;
                }
                Event::Down(_) => self.established -= 1,
                Event::StateChanged { .. }
                | Event::Failed(_)
                | Event::Update(..)
                | Event::RefreshRequested(_)
                | Event::RefreshBegan(_)
                | Event::RefreshEnded(_) => {}
            }
        }
    }

    fn id(&self, place: usize) -> Option<ConnectionId> {
        self.live.iter().rev().nth(place).copied()
    }

    fn input(&mut self, place: usize, write: impl FnOnce(&mut BytesMut)) {
        if let Some(id) = self.id(place) {
            let mut buffer = BytesMut::new();
            write(&mut buffer);
            self.session.handle_input(self.now, id, &mut buffer);
            assert!(buffer.len() < 4096, "unread messages pile up");
        }
    }

    fn check(&self, passive: bool) {
        assert!(self.live.len() <= 2, "{} connections at once", self.live.len());
        assert!(self.established <= 1, "up twice, or down twice");
        assert_eq!(self.established == 1, self.session.state() == State::Established);
        assert_eq!(self.session.established().is_some(), self.session.state() == State::Established);
        let waits = self.session.poll_timeout().is_some();
        if self.started {
            assert!(waits || passive, "started, in {}, and nothing will ever happen", self.session.state());
        } else {
            assert_eq!((self.session.state(), waits, self.live.len()), (State::Idle, false, 0));
        }
    }
}

proptest! {
    #[test]
    fn anything_in_any_order(steps in steps(), passive: bool, higher: bool) {
        let theirs = config(2, 1, if higher { 20 } else { 5 });
        let peer_open = {
            // The OPEN that such a peer would send.
            let mut peer = Session::new(theirs);
            #[expect(clippy::disallowed_methods, reason = "an origin of time")]
            let id = { peer.handle_start(Instant::now()); peer.handle_accepted(Instant::now()).unwrap() };
            let bytes = std::iter::from_fn(|| peer.poll_action()).find_map(|action| match action {
                Action::Send(to, bytes) if to == id => Some(bytes),
                _ => None,
            });
            Open::decode(&bytes.expect("an OPEN")[19..]).unwrap()
        };
        #[expect(clippy::disallowed_methods, reason = "the origin of the virtual clock")]
        let now = Instant::now();
        let session = Session::new(SessionConfig { passive, ..config(1, 2, 10) });
        let mut driver = Driver { session, now, started: false, live: Vec::new(), established: 0 };
        for step in steps {
            driver.step(step, &peer_open);
            driver.check(passive);
        }
    }
}
