//! The state machine of RFC 4271 section 8 for one TCP connection, as a function: a state and an event give the
//! next state and what has to be done. It knows no time, no bytes and no other connection.
//!
//! Departures from section 8.2.2, each to be back sooner when a peer comes late: a connection attempt that fails
//! leads to Active and not to Idle, where the peer's own connection would be refused; and a NOTIFICATION is never
//! answered by one (section 6.4 of the RFC says why). DelayOpen (events 12 and 20) is an optional attribute that
//! is off, so those events do not exist here.
use std::sync::Arc;

use super::{DownReason, Negotiated, State, StopReason, timer::Timer};
use crate::wire::{CeaseReason, Finding, Notification, RouteRefresh, Update, iana::error};

/// A state with what is known in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm(Arc<Negotiated>),
    Established(Arc<Negotiated>),
}

impl Phase {
    pub(super) fn state(&self) -> State {
        match self {
            Phase::Idle => State::Idle,
            Phase::Connect => State::Connect,
            Phase::Active => State::Active,
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established(_) => State::Established,
        }
    }

    pub(super) fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        match self {
            Phase::OpenConfirm(negotiated) | Phase::Established(negotiated) => Some(negotiated),
            Phase::Idle | Phase::Connect | Phase::Active | Phase::OpenSent => None,
        }
    }
}

/// An event of RFC 4271 section 8.1, with its number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// 1, 3 to 7: start, by hand or by itself.
    Start { passive: bool },
    /// 2, 8.
    Stop(StopReason),
    /// 9.
    ConnectRetryExpired,
    /// 10.
    HoldExpired,
    /// 11.
    KeepaliveExpired,
    /// 13.
    IdleHoldExpired { passive: bool },
    /// 14 to 17: TCP is connected, whoever opened it.
    Connected,
    /// 18: TCP failed or was closed, or the attempt failed.
    ConnectionFailed,
    /// 19, and it passed every check.
    Open(Arc<Negotiated>),
    /// 21.
    HeaderError(Notification),
    /// 22.
    OpenError(Notification),
    /// 23.
    CollisionDump,
    /// 24, 25.
    Notification(Notification),
    /// 26.
    Keepalive,
    /// 27.
    Update(Update, Vec<Finding>),
    /// 28.
    UpdateError(Notification),
    /// 29 (RFC 9687).
    SendHoldExpired,
    /// ROUTE-REFRESH (RFC 2918, RFC 7313); `None` for a family that we do not speak, or a subtype without a
    /// meaning.
    RouteRefresh(Option<RouteRefresh>),
    /// The peer is back on another connection while this one stands (RFC 4724 section 5).
    PeerRestarted,
}

/// What has to be done, in order. How long a timer runs is not decided here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Connect,
    SendOpen,
    SendKeepalive,
    SendNotification(Notification),
    Close,
    Set(Timer),
    Stop(Timer),
    Established(Arc<Negotiated>),
    Update(Update, Vec<Finding>),
    Refresh(RouteRefresh),
    Down(DownReason),
}

/// One step. Every pair of state and event stands here; entering Idle stops all timers.
pub(super) fn step(phase: Phase, input: Input, effects: &mut Vec<Effect>) -> Phase {
    match phase {
        Phase::Idle => idle(input, effects),
        Phase::Connect => connect(input, effects),
        Phase::Active => active(input, effects),
        Phase::OpenSent => open_sent(input, effects),
        Phase::OpenConfirm(negotiated) => open_confirm(negotiated, input, effects),
        Phase::Established(negotiated) => established(negotiated, input, effects),
    }
}

fn idle(input: Input, effects: &mut Vec<Effect>) -> Phase {
    match input {
        Input::Start { passive } | Input::IdleHoldExpired { passive } => start(passive, effects),
        // A connection that comes now is refused.
        Input::Connected => {
            effects.push(Effect::Close);
            Phase::Idle
        }
        Input::Stop(_)
        | Input::ConnectRetryExpired
        | Input::HoldExpired
        | Input::KeepaliveExpired
        | Input::ConnectionFailed
        | Input::Open(_)
        | Input::HeaderError(_)
        | Input::OpenError(_)
        | Input::CollisionDump
        | Input::Notification(_)
        | Input::Keepalive
        | Input::Update(..)
        | Input::UpdateError(_)
        | Input::SendHoldExpired
        | Input::RouteRefresh(_)
        | Input::PeerRestarted => Phase::Idle,
    }
}

fn start(passive: bool, effects: &mut Vec<Effect>) -> Phase {
    if passive {
        return Phase::Active;
    }
    effects.extend([Effect::Set(Timer::ConnectRetry), Effect::Connect]);
    Phase::Connect
}

fn connect(input: Input, effects: &mut Vec<Effect>) -> Phase {
    match input {
        Input::Start { .. } => Phase::Connect,
        Input::Stop(reason) => drop_connection(DownReason::Stopped(reason), effects),
        // The attempt took too long; a fresh SYN is quicker than TCP's own backoff.
        Input::ConnectRetryExpired => {
            effects.extend([Effect::Close, Effect::Set(Timer::ConnectRetry), Effect::Connect]);
            Phase::Connect
        }
        Input::Connected => open(effects),
        // The timer goes on running, so the next try is where it would have been.
        Input::ConnectionFailed => {
            effects.extend([Effect::Close, Effect::Down(DownReason::ConnectionLost)]);
            Phase::Active
        }
        Input::CollisionDump | Input::PeerRestarted => drop_connection(DownReason::Collision, effects),
        Input::HoldExpired
        | Input::KeepaliveExpired
        | Input::IdleHoldExpired { .. }
        | Input::Open(_)
        | Input::HeaderError(_)
        | Input::OpenError(_)
        | Input::Notification(_)
        | Input::Keepalive
        | Input::Update(..)
        | Input::UpdateError(_)
        | Input::SendHoldExpired
        | Input::RouteRefresh(_) => drop_connection(DownReason::ConnectionLost, effects),
    }
}

fn active(input: Input, effects: &mut Vec<Effect>) -> Phase {
    match input {
        Input::Start { .. } => Phase::Active,
        Input::Stop(reason) => drop_connection(DownReason::Stopped(reason), effects),
        Input::ConnectRetryExpired => {
            effects.extend([Effect::Set(Timer::ConnectRetry), Effect::Connect]);
            Phase::Connect
        }
        Input::Connected => open(effects),
        Input::CollisionDump | Input::PeerRestarted => drop_connection(DownReason::Collision, effects),
        Input::HoldExpired
        | Input::KeepaliveExpired
        | Input::IdleHoldExpired { .. }
        | Input::ConnectionFailed
        | Input::Open(_)
        | Input::HeaderError(_)
        | Input::OpenError(_)
        | Input::Notification(_)
        | Input::Keepalive
        | Input::Update(..)
        | Input::UpdateError(_)
        | Input::SendHoldExpired
        | Input::RouteRefresh(_) => drop_connection(DownReason::ConnectionLost, effects),
    }
}

fn open(effects: &mut Vec<Effect>) -> Phase {
    effects.extend([Effect::Stop(Timer::ConnectRetry), Effect::SendOpen, Effect::Set(Timer::Hold)]);
    Phase::OpenSent
}

fn open_sent(input: Input, effects: &mut Vec<Effect>) -> Phase {
    match input {
        Input::Start { .. } => Phase::OpenSent,
        // TCP is connected already; another connection has a machine of its own.
        Input::Connected => Phase::OpenSent,
        Input::Stop(reason) => stop(None, reason, effects),
        Input::HoldExpired => fail(Notification::hold_timer_expired(), effects),
        Input::ConnectionFailed => drop_connection(DownReason::ConnectionLost, effects),
        Input::Open(negotiated) => {
            effects.extend([Effect::SendKeepalive, Effect::Set(Timer::Keepalive), Effect::Set(Timer::Hold)]);
            Phase::OpenConfirm(negotiated)
        }
        Input::HeaderError(sent) | Input::OpenError(sent) => fail(sent, effects),
        Input::CollisionDump | Input::PeerRestarted => collision(effects),
        Input::Notification(received) => drop_connection(DownReason::NotificationReceived(received), effects),
        Input::Keepalive | Input::Update(..) | Input::UpdateError(_) | Input::RouteRefresh(_) => {
            fail(Notification::fsm(error::UNEXPECTED_IN_OPEN_SENT), effects)
        }
        // None of these timers runs in this state.
        Input::ConnectRetryExpired
        | Input::KeepaliveExpired
        | Input::IdleHoldExpired { .. }
        | Input::SendHoldExpired => fail(Notification::fsm(error::UNSPECIFIC), effects),
    }
}

fn open_confirm(negotiated: Arc<Negotiated>, input: Input, effects: &mut Vec<Effect>) -> Phase {
    match input {
        Input::Start { .. } | Input::Connected => Phase::OpenConfirm(negotiated),
        Input::Stop(reason) => stop(Some(&negotiated), reason, effects),
        Input::HoldExpired => fail(Notification::hold_timer_expired(), effects),
        Input::KeepaliveExpired => {
            effects.extend([Effect::SendKeepalive, Effect::Set(Timer::Keepalive)]);
            Phase::OpenConfirm(negotiated)
        }
        Input::ConnectionFailed => drop_connection(DownReason::ConnectionLost, effects),
        Input::Notification(received) => drop_connection(DownReason::NotificationReceived(received), effects),
        Input::HeaderError(sent) | Input::OpenError(sent) => fail(sent, effects),
        Input::CollisionDump | Input::PeerRestarted => collision(effects),
        Input::Keepalive => {
            effects.extend([
                Effect::Set(Timer::Hold),
                Effect::Set(Timer::SendHold),
                Effect::Established(Arc::clone(&negotiated)),
            ]);
            Phase::Established(negotiated)
        }
        // A second OPEN on the same connection among them: collisions are between connections.
        Input::Open(_) | Input::Update(..) | Input::UpdateError(_) | Input::RouteRefresh(_) => {
            fail(Notification::fsm(error::UNEXPECTED_IN_OPEN_CONFIRM), effects)
        }
        Input::ConnectRetryExpired | Input::IdleHoldExpired { .. } | Input::SendHoldExpired => {
            fail(Notification::fsm(error::UNSPECIFIC), effects)
        }
    }
}

fn established(negotiated: Arc<Negotiated>, input: Input, effects: &mut Vec<Effect>) -> Phase {
    match input {
        Input::Start { .. } | Input::Connected => Phase::Established(negotiated),
        Input::Stop(reason) => stop(Some(&negotiated), reason, effects),
        Input::HoldExpired => fail(Notification::hold_timer_expired(), effects),
        Input::KeepaliveExpired => {
            effects.extend([Effect::SendKeepalive, Effect::Set(Timer::Keepalive)]);
            Phase::Established(negotiated)
        }
        Input::ConnectionFailed => drop_connection(DownReason::ConnectionLost, effects),
        Input::Notification(received) => drop_connection(DownReason::NotificationReceived(received), effects),
        Input::HeaderError(sent) | Input::OpenError(sent) | Input::UpdateError(sent) => fail(sent, effects),
        Input::CollisionDump => collision(effects),
        Input::PeerRestarted => drop_connection(DownReason::PeerRestarted, effects),
        Input::Keepalive => {
            effects.push(Effect::Set(Timer::Hold));
            Phase::Established(negotiated)
        }
        Input::Update(update, findings) => {
            effects.extend([Effect::Set(Timer::Hold), Effect::Update(update, findings)]);
            Phase::Established(negotiated)
        }
        Input::RouteRefresh(refresh) => {
            effects.push(Effect::Set(Timer::Hold));
            effects.extend(refresh.map(Effect::Refresh));
            Phase::Established(negotiated)
        }
        Input::Open(_) => fail(Notification::fsm(error::UNEXPECTED_IN_ESTABLISHED), effects),
        // Most likely the NOTIFICATION gets stuck behind what the peer does not read; RFC 9687 section 3.2 lets us try.
        Input::SendHoldExpired => {
            effects.push(Effect::SendNotification(Notification::send_hold_timer_expired()));
            drop_connection(DownReason::SendHoldTimerExpired, effects)
        }
        Input::ConnectRetryExpired | Input::IdleHoldExpired { .. } => {
            fail(Notification::fsm(error::UNSPECIFIC), effects)
        }
    }
}

/// Leaves without a word.
fn drop_connection(reason: DownReason, effects: &mut Vec<Effect>) -> Phase {
    effects.extend([Effect::Close, Effect::Down(reason)]);
    Phase::Idle
}

/// Leaves and says why.
fn fail(sent: Notification, effects: &mut Vec<Effect>) -> Phase {
    effects.push(Effect::SendNotification(sent.clone()));
    drop_connection(DownReason::NotificationSent(sent), effects)
}

fn collision(effects: &mut Vec<Effect>) -> Phase {
    effects.push(Effect::SendNotification(collision_cease()));
    drop_connection(DownReason::Collision, effects)
}

/// What the connection that loses a collision is told.
pub(super) fn collision_cease() -> Notification {
    Notification::cease(CeaseReason::ConnectionCollision, "")
}

fn stop(negotiated: Option<&Negotiated>, reason: StopReason, effects: &mut Vec<Effect>) -> Phase {
    effects.extend(farewell(negotiated, &reason).map(Effect::SendNotification));
    drop_connection(DownReason::Stopped(reason), effects)
}

/// What the peer is told when we stop. Where both sides keep routes over a NOTIFICATION, a Cease that shall flush them
/// is wrapped in a Hard Reset; elsewhere every Cease flushes and the wrapping would not be understood (RFC 8538 section
/// 3).
pub(super) fn farewell(negotiated: Option<&Negotiated>, reason: &StopReason) -> Option<Notification> {
    let (cease, text, flushes) = match reason {
        StopReason::Cease(cease, text) => (*cease, text, flushes(*cease)),
        StopReason::HardReset(cease, text) => (*cease, text, true),
        StopReason::Retain => return None,
    };
    let inner = match cease {
        CeaseReason::HardReset => Notification::cease(CeaseReason::AdministrativeShutdown, text),
        cease => Notification::cease(cease, text),
    };
    let wrapped = flushes && negotiated.is_some_and(Negotiated::notification_restart);
    Some(if wrapped { inner.into_hard_reset() } else { inner })
}

/// Whether a Cease for this reason means that our routes are to go: it does where the session is not to come back by
/// itself (RFC 8538 section 5.1).
fn flushes(reason: CeaseReason) -> bool {
    match reason {
        CeaseReason::MaxPrefixes
        | CeaseReason::AdministrativeShutdown
        | CeaseReason::PeerDeconfigured
        | CeaseReason::HardReset
        // RFC 9384 section 3: no packet takes the path, so nothing is worth keeping.
        | CeaseReason::BfdDown => true,
        CeaseReason::AdministrativeReset
        | CeaseReason::ConnectionRejected
        | CeaseReason::OtherConfigurationChange
        | CeaseReason::ConnectionCollision
        | CeaseReason::OutOfResources => false,
    }
}
