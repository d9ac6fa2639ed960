//! One TCP connection's state machine with its timers: carries out what `fsm` decides.
//!
//! What both connections of a session share, such as the queues to the driver, stands in [`Shared`] and is lent
//! for each step.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    Action, ConnectionId, DownReason, Event, SessionConfig, SessionCounters,
    collision::Initiator,
    fsm::{self, Effect, Input, Phase},
    negotiated::local_open,
    timer::{Jitter, Timer, TimerTable},
};
use crate::{
    Families,
    wire::{Open, RouteRefresh, encode_keepalive},
};

/// How long a connected peer may wait with its OPEN. RFC 4271 section 8.2.2 suggests four minutes; a minute is
/// large enough for any router and frees the peer's address sooner from a connection that nobody answers.
pub(super) const OPEN_WAIT: Duration = Duration::from_secs(60);

/// The least that RFC 9687 section 3.1 suggests for the send hold time.
const SEND_HOLD_MIN: Duration = Duration::from_secs(8 * 60);

/// What both connections of a session share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: SessionConfig,
    pub(super) jitter: Jitter,
    pub(super) next_id: u64,
    pub(super) actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event>,
    pub(super) counters: SessionCounters,
}

impl Shared {
    pub(super) fn new_id(&mut self) -> ConnectionId {
        self.next_id += 1;
        ConnectionId(self.next_id)
    }

    pub(super) fn send(&mut self, id: Option<ConnectionId>, encode: impl FnOnce(&mut BytesMut)) {
        let Some(id) = id else { return };
        let mut bytes = BytesMut::new();
        encode(&mut bytes);
        self.counters.messages_sent += 1;
        self.actions.push_back(Action::Send(id, bytes.freeze()));
    }
}

/// What a connection's end means to the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) reason: DownReason,
    /// How long it had been Established; `None` where it never was.
    pub(super) established_for: Option<Duration>,
}

/// One connection, from the wish to connect to its end.
#[derive(Debug)]
pub(super) struct Connection {
    /// The TCP connection or the attempt; `None` while there is neither.
    pub(super) id: Option<ConnectionId>,
    pub(super) initiator: Initiator,
    pub(super) phase: Phase,
    pub(super) timers: TimerTable,
    /// What we said in our OPEN, once it left.
    pub(super) local_open: Option<Open>,
    /// The peer's OPEN as it came, until it is judged.
    pub(super) peer_open: Bytes,
    established_at: Option<Instant>,
}

impl Connection {
    pub(super) fn new(initiator: Initiator, phase: Phase, id: Option<ConnectionId>) -> Connection {
        let timers = TimerTable::default();
        Connection {
            id,
            initiator,
            phase,
            timers,
            local_open: None,
            peer_open: Bytes::new(),
            established_at: None,
        }
    }

    /// One step of the state machine, and all that it asks for.
    pub(super) fn drive(&mut self, now: Instant, input: Input, shared: &mut Shared) -> Option<Ended> {
        let mut effects = Vec::new();
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        self.phase = fsm::step(phase, input, &mut effects);
        if self.phase == Phase::Idle {
            self.timers.stop_all();
        }
        let mut ended = None;
        for effect in effects {
            match effect {
                Effect::Connect => {
                    let id = shared.new_id();
                    self.id = Some(id);
                    self.initiator = Initiator::Local;
                    shared.actions.push_back(Action::Connect(id));
                }
                Effect::SendOpen => {
                    let open = local_open(&shared.config);
                    shared.send(self.id, |out| open.encode(out));
                    self.local_open = Some(open);
                }
                Effect::SendKeepalive => shared.send(self.id, encode_keepalive),
                Effect::SendNotification(notification) => {
                    shared.send(self.id, |out| notification.encode(out))
                }
                Effect::Close => shared.actions.extend(self.id.take().map(Action::Close)),
                Effect::Set(timer) => self.set(timer, now, shared),
                Effect::Stop(timer) => self.timers.stop(timer),
                Effect::Established(negotiated) => {
                    self.established_at = Some(now);
                    shared.counters.established += 1;
                    shared.events.extend(self.id.map(|id| Event::Established(id, negotiated)));
                }
                Effect::Update(mut update, findings) => {
                    // RFC 4760 section 6: routes of a family that was not agreed on are ignored.
                    let families = self.phase.negotiated().map_or(Families::NONE, |n| n.families);
                    update.retain_families(families);
                    shared.counters.updates_received += 1;
                    shared.counters.malformed_updates += u64::from(!findings.is_empty());
                    shared.events.push_back(Event::Update(update, findings));
                }
                Effect::Refresh(refresh) => shared.events.extend(refresh_event(refresh)),
                Effect::Down(reason) => ended = Some(self.end(reason, now, shared)),
            }
        }
        ended
    }

    fn end(&mut self, reason: DownReason, now: Instant, shared: &mut Shared) -> Ended {
        self.local_open = None;
        let established_for = self.established_at.take().map(|at| now.saturating_duration_since(at));
        if established_for.is_some() {
            shared.counters.lost += 1;
            shared.events.push_back(Event::Down(reason.clone()));
        } else {
            match reason {
                // Nothing went wrong.
                DownReason::Stopped(_) | DownReason::Collision | DownReason::PeerRestarted => {}
                DownReason::NotificationSent(_)
                | DownReason::NotificationReceived(_)
                | DownReason::ConnectionLost
                | DownReason::SendHoldTimerExpired => {
                    shared.events.push_back(Event::Failed(reason.clone()));
                }
            }
        }
        Ended { reason, established_for }
    }

    /// Starts a timer with the duration that the state gives it, or stops it where that is none.
    pub(super) fn set(&mut self, timer: Timer, now: Instant, shared: &mut Shared) {
        let negotiated = self.phase.negotiated();
        let hold = negotiated.and_then(|negotiated| negotiated.hold_time.duration());
        let duration = match timer {
            Timer::ConnectRetry => Some(shared.jitter.apply(shared.config.connect_retry)),
            Timer::Hold if negotiated.is_none() => Some(OPEN_WAIT),
            Timer::Hold => hold,
            Timer::Keepalive => negotiated
                .and_then(|negotiated| negotiated.keepalive)
                .map(|keepalive| shared.jitter.apply(keepalive)),
            // Without a hold time nothing need be sent, so silence proves nothing (RFC 9687 section 3.1).
            Timer::SendHold => {
                hold.map(|hold| shared.config.send_hold.unwrap_or(SEND_HOLD_MIN.max(hold.saturating_mul(2))))
            }
            // Set by the session, which knows how long.
            Timer::IdleHold => None,
        };
        match duration {
            Some(duration) => self.timers.set(timer, now + duration),
            None => self.timers.stop(timer),
        }
    }
}

/// RFC 7313 section 5: a subtype that nobody knows is ignored.
fn refresh_event(refresh: RouteRefresh) -> Option<Event> {
    match refresh.subtype {
        RouteRefresh::REQUEST => Some(Event::RefreshRequested(refresh.family)),
        RouteRefresh::BEGIN => Some(Event::RefreshBegan(refresh.family)),
        RouteRefresh::END => Some(Event::RefreshEnded(refresh.family)),
        _ => None,
    }
}
