//! The session: one peer, both TCP connections of a collision (RFC 4271 sections 6.8 and 8).
//!
//! [`Session`] has no socket and no clock. What happens goes in by `handle_*`, together with the time; after each
//! of these, [`Session::poll_action`] says what to do, [`Session::poll_event`] what happened, and
//! [`Session::poll_timeout`] when to call [`Session::handle_timeout`]. The state machine proper is the function
//! `fsm::step`; `connection` gives it timers and bytes, `collision` chooses between two connections.
mod collision;
mod config;
mod connection;
mod damping;
mod event;
mod fsm;
#[cfg(test)]
mod fsm_table;
mod negotiated;
mod retention;
mod state;
mod timer;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::BytesMut;

pub use config::{GracefulRestartConfig, SessionConfig};
pub use event::{Action, ConnectionId, DownReason, Event, Rejected, StopReason};
pub use negotiated::Negotiated;
pub use retention::Retention;
pub use state::State;

use crate::{
    AfiSafi, Families,
    wire::{
        CodecContext, Frame, Message, Notification, Open, RouteRefresh,
        frame::MAX_LENGTH,
        iana::{MessageType, error},
    },
};
use collision::{Identity, Initiator, winner};
use connection::{Connection, Shared};
use damping::Damping;
use fsm::{Input, Phase};
use timer::{Jitter, Timer};

/// What a session counts, over all its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// How often it became Established.
    pub established: u64,
    /// How often it was lost after that.
    pub lost: u64,
    /// Messages of every kind that came.
    pub messages_received: u64,
    /// Messages that the session itself sent: all but UPDATEs.
    pub messages_sent: u64,
    /// UPDATEs that came.
    pub updates_received: u64,
    /// UPDATEs in which RFC 7606 found something.
    pub malformed_updates: u64,
}

/// One BGP session, without I/O.
#[derive(Debug)]
pub struct Session {
    /// The peer's state machine: tries to connect, and carries the session once there is one.
    main: Connection,
    /// A connection that the peer opened beside it; becomes `main` as soon as it is further along.
    second: Option<Connection>,
    started: bool,
    damping: Damping,
    reported: State,
    shared: Shared,
}

impl Session {
    /// A stopped session.
    pub fn new(config: SessionConfig) -> Session {
        Session {
            main: Connection::new(Initiator::Local, Phase::Idle, None),
            second: None,
            started: false,
            damping: Damping::default(),
            reported: State::Idle,
            shared: Shared {
                jitter: Jitter::new(config.jitter_seed),
                config,
                next_id: 0,
                actions: VecDeque::new(),
                events: VecDeque::new(),
                counters: SessionCounters::default(),
            },
        }
    }

    /// Starts to connect, or to wait for the peer. Does nothing where it was started.
    pub fn handle_start(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.started, true) {
            let passive = self.shared.config.passive;
            self.drive_main(now, Input::Start { passive });
            self.settle(now);
        }
    }

    /// Ends all connections as `reason` says and stays down until it is started again.
    pub fn handle_stop(&mut self, now: Instant, reason: StopReason) {
        self.started = false;
        self.damping = Damping::default();
        if let Some(mut second) = self.second.take() {
            second.drive(now, Input::Stop(reason.clone()), &mut self.shared);
        }
        self.drive_main(now, Input::Stop(reason));
    }

    /// The TCP connection that [`Action::Connect`] asked for stands.
    pub fn handle_connected(&mut self, now: Instant, id: ConnectionId) {
        if self.main.id == Some(id) && self.main.phase == Phase::Connect {
            self.drive_main(now, Input::Connected);
            self.settle(now);
        } else if self.connection(id).is_none() {
            // Given up in the meantime.
            self.shared.actions.push_back(Action::Close(id));
        }
    }

    /// The TCP connection that [`Action::Connect`] asked for cannot be had.
    pub fn handle_connect_failed(&mut self, now: Instant, id: ConnectionId) {
        self.handle_closed(now, id);
    }

    /// The peer opened a TCP connection. Where this gives an id, the connection is part of the session.
    ///
    /// It is taken in every state but stopped, Idle among them: Idle holds back our own attempts only, so that a
    /// peer that comes back need not wait for us.
    pub fn handle_accepted(&mut self, now: Instant) -> Result<ConnectionId, Rejected> {
        if !self.started {
            return Err(Rejected::Stopped);
        }
        // A peer that connects anew has given up on what it opened before.
        if let Some(mut former) = self.second.take() {
            former.drive(now, Input::CollisionDump, &mut self.shared);
        }
        let id = self.shared.new_id();
        let mut second = Connection::new(Initiator::Peer, Phase::Active, Some(id));
        second.drive(now, Input::Connected, &mut self.shared);
        self.second = Some(second);
        self.report_state();
        self.settle(now);
        Ok(id)
    }

    /// Takes whole messages out of what was read from a connection; the rest of a message stays in `buffer`.
    pub fn handle_input(&mut self, now: Instant, id: ConnectionId, buffer: &mut BytesMut) {
        while let Some(connection) = self.connection(id) {
            let (context, longest) = connection
                .phase
                .negotiated()
                .map_or((CodecContext::default(), MAX_LENGTH), |n| (n.context, n.longest_received));
            let decoded = match Frame::poll(buffer, longest) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if frame.kind == MessageType::Open {
                        connection.peer_open = frame.whole();
                    }
                    self.shared.counters.messages_received += 1;
                    Message::decode(frame, &context)
                }
                Err(notification) => Err(notification),
            };
            match decoded {
                Ok(message) => self.handle_message(now, id, message),
                Err(notification) => self.drive_by_id(now, id, error_input(notification)),
            }
            self.settle(now);
        }
        // The session has no more use for this connection.
        buffer.clear();
    }

    /// A connection failed or the peer closed it.
    pub fn handle_closed(&mut self, now: Instant, id: ConnectionId) {
        let is_main = self.main.id == Some(id);
        let Some(connection) = self.connection(id) else { return };
        // There is nothing left to be closed.
        connection.id = None;
        self.drive(now, is_main, Input::ConnectionFailed);
        self.settle(now);
    }

    /// Timers may have run out.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.main.timers.take_expired(now) {
            let input = self.expired(timer);
            self.drive_main(now, input);
            self.settle(now);
        }
        while let Some(timer) = self.second.as_mut().and_then(|second| second.timers.take_expired(now)) {
            let input = self.expired(timer);
            self.drive_second(now, input);
            self.settle(now);
        }
    }

    /// TCP took bytes for the peer: it reads, so the send hold timer starts again (RFC 9687).
    pub fn handle_sent(&mut self, now: Instant) {
        if self.main.timers.is_running(Timer::SendHold) {
            self.main.set(Timer::SendHold, now, &mut self.shared);
        }
    }

    /// End-of-RIB went out for every family: our start or restart is over (RFC 4724). From now on a session that is
    /// lost is no restart, and forwarding goes on meanwhile: the next OPEN has no R bit and every F bit. Until then
    /// both are as configured, however often the session is lost in between.
    pub fn handle_restart_complete(&mut self) {
        self.shared.config.restarting = false;
        self.shared.config.forwarding_preserved = Families::ALL;
    }

    /// Takes those settings that need no new session: passive, connect retry, keepalive and send hold time. The
    /// others are ignored.
    pub fn handle_config(&mut self, now: Instant, config: &SessionConfig) {
        let ours = &mut self.shared.config;
        ours.passive = config.passive;
        ours.connect_retry = config.connect_retry;
        ours.keepalive = config.keepalive;
        ours.send_hold = config.send_hold;
        if let Phase::OpenConfirm(negotiated) | Phase::Established(negotiated) = &mut self.main.phase {
            let longest = negotiated.hold_time.keepalive_interval();
            let keepalive = longest.map(|longest| config.keepalive.map_or(longest, |ours| ours.min(longest)));
            Arc::make_mut(negotiated).keepalive = keepalive;
            self.main.set(Timer::Keepalive, now, &mut self.shared);
        }
        if self.main.phase == Phase::Active
            && !config.passive
            && !self.main.timers.is_running(Timer::ConnectRetry)
        {
            self.drive_main(now, Input::ConnectRetryExpired);
        }
    }

    /// Asks the peer for all routes of a family again (RFC 2918); false where there is no session or the peer does
    /// not understand.
    pub fn request_refresh(&mut self, family: AfiSafi) -> bool {
        let Phase::Established(negotiated) = &self.main.phase else { return false };
        let able = negotiated.route_refresh && negotiated.families.contains(family);
        if able {
            let refresh = RouteRefresh { family, subtype: RouteRefresh::REQUEST };
            self.shared.send(self.main.id, |out| refresh.encode(out));
        }
        able
    }

    /// When [`Session::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let second = self.second.as_ref().and_then(|second| second.timers.next_timeout());
        self.main.timers.next_timeout().into_iter().chain(second).min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// The connection that carries routes, and what was agreed on it.
    pub fn established(&self) -> Option<(ConnectionId, &Arc<Negotiated>)> {
        match (&self.main.phase, self.main.id) {
            (Phase::Established(negotiated), Some(id)) => Some((id, negotiated)),
            _ => None,
        }
    }

    /// The state: of both connections the one further along.
    pub fn state(&self) -> State {
        let second = self.second.as_ref().map_or(State::Idle, |second| second.phase.state());
        self.main.phase.state().max(second)
    }

    /// What was counted so far.
    pub fn counters(&self) -> SessionCounters {
        self.shared.counters
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        if self.main.id == Some(id) {
            return Some(&mut self.main);
        }
        self.second.as_mut().filter(|second| second.id == Some(id))
    }

    fn handle_message(&mut self, now: Instant, id: ConnectionId, message: Message) {
        let input = match message {
            Message::Open(open) => return self.handle_open(now, id, open),
            Message::Update(update, findings) => Input::Update(update, findings),
            Message::Notification(notification) => Input::Notification(notification),
            Message::Keepalive => Input::Keepalive,
            Message::RouteRefresh(refresh) => {
                let negotiated = self.connection(id).and_then(|connection| connection.phase.negotiated());
                Input::RouteRefresh(negotiated.and_then(|negotiated| meant(refresh, negotiated)))
            }
            Message::RouteRefreshUnknownFamily { .. } => Input::RouteRefresh(None),
        };
        self.drive_by_id(now, id, input);
    }

    /// An OPEN is checked, then held against the other connection (RFC 4271 section 6.8).
    fn handle_open(&mut self, now: Instant, id: ConnectionId, open: Open) {
        let Some(connection) = self.connection(id) else { return };
        let initiator = connection.initiator;
        let Some(local) = connection.local_open.clone() else { return };
        let collides = connection.phase == Phase::OpenSent;
        let octets = std::mem::take(&mut connection.peer_open);
        let negotiated = match Negotiated::new(&self.shared.config, &local, open, octets) {
            Ok(negotiated) => Arc::new(negotiated),
            Err(notification) => return self.drive_by_id(now, id, Input::OpenError(notification)),
        };
        let this_is_main = self.main.id == Some(id);
        let other = if this_is_main { self.second.as_ref() } else { Some(&self.main) };
        match other.map(|other| (&other.phase, other.initiator)) {
            Some((Phase::Established(theirs), _)) if collides => {
                let restarted = negotiated.peer_restarted() && theirs.graceful_restart.is_some();
                if !restarted {
                    self.drive_by_id(now, id, Input::CollisionDump);
                    // Should the peer have lost the old connection, this makes its TCP say so at once.
                    return self.drive(now, !this_is_main, Input::KeepaliveExpired);
                }
                self.drive(now, !this_is_main, Input::PeerRestarted);
            }
            Some((Phase::OpenConfirm(_), other_initiator)) if collides => {
                let local = Identity { router_id: local.router_id, asn: local.asn };
                let peer = &negotiated.peer_open;
                let peer = Identity { router_id: peer.router_id, asn: peer.asn };
                // Two connections by the same side: it has given up on the former.
                let stays = initiator == other_initiator || initiator == winner(local, peer);
                if !stays {
                    return self.drive_by_id(now, id, Input::CollisionDump);
                }
                self.drive(now, !this_is_main, Input::CollisionDump);
            }
            _ => {}
        }
        self.drive_by_id(now, id, Input::Open(negotiated));
    }

    fn expired(&self, timer: Timer) -> Input {
        match timer {
            Timer::ConnectRetry => Input::ConnectRetryExpired,
            Timer::Hold => Input::HoldExpired,
            Timer::Keepalive => Input::KeepaliveExpired,
            Timer::SendHold => Input::SendHoldExpired,
            Timer::IdleHold => Input::IdleHoldExpired { passive: self.shared.config.passive },
        }
    }

    fn drive_by_id(&mut self, now: Instant, id: ConnectionId, input: Input) {
        self.drive(now, self.main.id == Some(id), input);
    }

    fn drive(&mut self, now: Instant, main: bool, input: Input) {
        if main {
            self.drive_main(now, input);
        } else {
            self.drive_second(now, input);
        }
    }

    fn drive_main(&mut self, now: Instant, input: Input) {
        let ended = self.main.drive(now, input, &mut self.shared);
        self.report_state();
        if let Some(ended) = ended.filter(|_| self.main.phase == Phase::Idle && self.started) {
            let delay = self.damping.hold_off(&ended, &mut self.shared.jitter);
            self.main.timers.set(Timer::IdleHold, now + delay);
        }
    }

    fn drive_second(&mut self, now: Instant, input: Input) {
        if let Some(second) = &mut self.second {
            second.drive(now, input, &mut self.shared);
            if second.phase == Phase::Idle {
                self.second = None;
            }
            self.report_state();
        }
    }

    /// Makes the connection that is further along the main one, and starts again what may start again.
    fn settle(&mut self, now: Instant) {
        let second = self.second.as_ref().map_or(State::Idle, |second| second.phase.state());
        let main = self.main.phase.state();
        let promote = match second {
            State::Established => true,
            State::OpenConfirm => main < State::OpenSent,
            State::Idle | State::Connect | State::Active | State::OpenSent => false,
        };
        if promote && let Some(second) = self.second.take() {
            let mut former = std::mem::replace(&mut self.main, second);
            former.drive(now, Input::CollisionDump, &mut self.shared);
            self.report_state();
        }
        // A hold-off of zero needs no trip through the driver's clock.
        if self.main.phase == Phase::Idle && self.started && self.main.timers.take_expired(now).is_some() {
            let passive = self.shared.config.passive;
            self.drive_main(now, Input::IdleHoldExpired { passive });
        }
    }

    fn report_state(&mut self) {
        let to = self.state();
        let from = std::mem::replace(&mut self.reported, to);
        if from != to {
            self.shared.events.push_back(Event::StateChanged { from, to });
        }
    }
}

/// A refresh of a family of the session; its begin and end only where both sides offered to mark them (RFC 7313
/// section 4).
fn meant(refresh: RouteRefresh, negotiated: &Negotiated) -> Option<RouteRefresh> {
    let marks = matches!(refresh.subtype, RouteRefresh::BEGIN | RouteRefresh::END);
    let agreed =
        negotiated.families.contains(refresh.family) && (!marks || negotiated.context.enhanced_refresh);
    agreed.then_some(refresh)
}

/// The event that a decoding error is (RFC 4271 section 8.1.5).
fn error_input(notification: Notification) -> Input {
    match notification.code {
        error::OPEN => Input::OpenError(notification),
        error::UPDATE | error::ROUTE_REFRESH => Input::UpdateError(notification),
        _ => Input::HeaderError(notification),
    }
}
