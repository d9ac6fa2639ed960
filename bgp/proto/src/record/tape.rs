//! A session whose inputs can be recorded: the one place through which they enter.
use std::{collections::VecDeque, ops::Deref, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{Input, Record, digest::Digest};
use crate::{
    AfiSafi,
    session::{Action, ConnectionId, Event, Rejected, Session, SessionConfig},
};

/// A [`Session`], recorded or not. Without a tape each call goes straight through.
#[derive(Debug)]
pub struct TapedSession {
    session: Session,
    tape: Option<Box<Tape>>,
}

#[derive(Debug)]
struct Tape {
    number: u64,
    peer: String,
    origin: Instant,
    /// What came out already, since each input's own output is digested at once.
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    records: BytesMut,
    /// Only what came out before is still to be handed over.
    stopped: bool,
}

impl TapedSession {
    /// A session that nobody records.
    pub fn new(config: SessionConfig) -> TapedSession {
        TapedSession { session: Session::new(config), tape: None }
    }

    /// A session whose inputs are recorded under the peer's name and a number that no other session of the recording
    /// has. `origin` is when the recording began.
    pub fn recorded(
        config: SessionConfig,
        number: u64,
        peer: &str,
        origin: Instant,
        now: Instant,
    ) -> TapedSession {
        let tape = Tape {
            number,
            peer: peer.to_owned(),
            origin,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            records: BytesMut::new(),
            stopped: false,
        };
        let mut taped = TapedSession { session: Session::new(config.clone()), tape: Some(Box::new(tape)) };
        taped.note(now, || Input::New(Box::new(config)), 0);
        taped
    }

    /// What was recorded since the last time, whole records; empty without a tape.
    pub fn take_records(&mut self) -> Bytes {
        self.tape.as_mut().map(|tape| tape.records.split().freeze()).unwrap_or_default()
    }

    /// Ends the recording of this session; the session goes on.
    pub fn stop_recording(&mut self) {
        if let Some(tape) = &mut self.tape {
            tape.stopped = true;
            tape.records.clear();
        }
    }

    /// Takes an input; what it gives back is part of its digest.
    pub fn handle(&mut self, now: Instant, input: Input) -> Option<ConnectionId> {
        // Only a recording needs the input once more.
        let again = self.is_recorded().then(|| input.clone());
        let answer = apply(&mut self.session, now, input);
        if let Some(input) = again {
            self.note(now, || input, answer.map_or(0, |id| id.0));
        }
        answer
    }

    /// As [`Session::handle_input`], whose buffer keeps the rest of a message.
    pub fn handle_input(&mut self, now: Instant, id: ConnectionId, buffer: &mut BytesMut) {
        let octets = self.is_recorded().then(|| Bytes::copy_from_slice(buffer));
        self.session.handle_input(now, id, buffer);
        if let Some(octets) = octets {
            self.note(now, || Input::Octets(id, octets), 0);
        }
    }

    /// As [`Session::poll_action`].
    pub fn poll_action(&mut self) -> Option<Action> {
        let taken = self.tape.as_mut().and_then(|tape| tape.actions.pop_front());
        taken.or_else(|| self.session.poll_action())
    }

    /// As [`Session::poll_event`].
    pub fn poll_event(&mut self) -> Option<Event> {
        let taken = self.tape.as_mut().and_then(|tape| tape.events.pop_front());
        taken.or_else(|| self.session.poll_event())
    }

    fn is_recorded(&self) -> bool {
        self.tape.as_ref().is_some_and(|tape| !tape.stopped)
    }

    /// Records an input with the digest of what it led to.
    fn note(&mut self, now: Instant, input: impl FnOnce() -> Input, answer: u64) {
        let Some(tape) = self.tape.as_mut().filter(|tape| !tape.stopped) else { return };
        let (actions, events, digest) = outcome(&mut self.session, answer);
        tape.actions.extend(actions);
        tape.events.extend(events);
        let at = now.saturating_duration_since(tape.origin);
        let record = Record { session: tape.number, peer: tape.peer.clone(), at, input: input(), digest };
        record.encode(&mut tape.records);
    }
}

/// To look at. What changes a session goes through [`TapedSession::handle`].
impl Deref for TapedSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// All that waits in a session, and its digest together with what the call gave back.
pub(super) fn outcome(session: &mut Session, answer: u64) -> (Vec<Action>, Vec<Event>, u64) {
    let actions: Vec<Action> = std::iter::from_fn(|| session.poll_action()).collect();
    let events: Vec<Event> = std::iter::from_fn(|| session.poll_event()).collect();
    let mut digest = Digest::new();
    digest.answer(answer);
    actions.iter().for_each(|action| digest.action(action));
    events.iter().for_each(|event| digest.event(event));
    (actions, events, digest.number())
}

/// The one way of an input into a session. Gives the id of a connection that was accepted, and 0 or 1 as one for
/// whether a refresh was asked for.
pub(super) fn apply(session: &mut Session, now: Instant, input: Input) -> Option<ConnectionId> {
    match input {
        Input::New(config) => *session = Session::new(*config),
        Input::Start => session.handle_start(now),
        Input::Stop(reason) => session.handle_stop(now, reason),
        Input::Connected(id) => session.handle_connected(now, id),
        Input::ConnectFailed(id) => session.handle_connect_failed(now, id),
        Input::Accepted => match session.handle_accepted(now) {
            Ok(id) => return Some(id),
            Err(Rejected::Stopped) => {}
        },
        Input::Octets(id, octets) => session.handle_input(now, id, &mut BytesMut::from(&octets[..])),
        Input::Closed(id) => session.handle_closed(now, id),
        Input::Timeout => session.handle_timeout(now),
        Input::Sent => session.handle_sent(now),
        Input::RestartComplete => session.handle_restart_complete(),
        Input::Config(config) => session.handle_config(now, &config),
        Input::RequestRefresh(family) => return refresh(session, family),
    }
    None
}

fn refresh(session: &mut Session, family: AfiSafi) -> Option<ConnectionId> {
    session.request_refresh(family).then_some(ConnectionId(1))
}
