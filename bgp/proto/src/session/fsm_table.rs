//! The whole table of states and events, and what must hold in every cell of it.
use std::sync::Arc;

use super::{
    Negotiated, SessionConfig, State, StopReason,
    fsm::{Effect, Input, Phase, step},
    negotiated::local_open,
    timer::Timer,
};
use crate::{
    AfiSafi, Asn, RouterId,
    wire::{CeaseReason, Notification, RouteRefresh, Update},
};

const REFRESH: RouteRefresh = RouteRefresh { family: AfiSafi::Ipv4Unicast, subtype: RouteRefresh::REQUEST };

fn negotiated() -> Arc<Negotiated> {
    let config = |local, peer, id| {
        SessionConfig::new(Asn::new(local).unwrap(), Asn::new(peer).unwrap(), RouterId::new(id).unwrap())
    };
    let (ours, theirs) = (config(1, 2, 1), config(2, 1, 2));
    Arc::new(Negotiated::new(&ours, &local_open(&ours), local_open(&theirs), Default::default()).unwrap())
}

fn phases() -> [Phase; 6] {
    let negotiated = negotiated();
    [
        Phase::Idle,
        Phase::Connect,
        Phase::Active,
        Phase::OpenSent,
        Phase::OpenConfirm(Arc::clone(&negotiated)),
        Phase::Established(negotiated),
    ]
}

/// Every event, with the name that the table gives it.
fn inputs() -> Vec<(&'static str, Input)> {
    vec![
        ("Start", Input::Start { passive: false }),
        ("Start passive", Input::Start { passive: true }),
        ("Stop (cease)", Input::Stop(StopReason::Cease(CeaseReason::AdministrativeShutdown, String::new()))),
        ("Stop (retain)", Input::Stop(StopReason::Retain)),
        ("ConnectRetryExpired", Input::ConnectRetryExpired),
        ("HoldExpired", Input::HoldExpired),
        ("KeepaliveExpired", Input::KeepaliveExpired),
        ("IdleHoldExpired", Input::IdleHoldExpired { passive: false }),
        ("IdleHoldExpired passive", Input::IdleHoldExpired { passive: true }),
        ("Connected", Input::Connected),
        ("ConnectionFailed", Input::ConnectionFailed),
        ("Open", Input::Open(negotiated())),
        ("HeaderError", Input::HeaderError(Notification::bare(1, 1))),
        ("OpenError", Input::OpenError(Notification::bare(2, 2))),
        ("CollisionDump", Input::CollisionDump),
        ("Notification", Input::Notification(Notification::bare(6, 4))),
        ("Keepalive", Input::Keepalive),
        ("Update", Input::Update(Update::default(), Vec::new())),
        ("UpdateError", Input::UpdateError(Notification::bare(3, 1))),
        ("SendHoldExpired", Input::SendHoldExpired),
        ("RouteRefresh", Input::RouteRefresh(Some(REFRESH))),
        ("RouteRefresh unknown", Input::RouteRefresh(None)),
        ("PeerRestarted", Input::PeerRestarted),
    ]
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::Connect => "connect".into(),
        Effect::SendOpen => "open".into(),
        Effect::SendKeepalive => "keepalive".into(),
        Effect::SendNotification(n) => format!("notify {}/{}", n.code, n.subcode),
        Effect::Close => "close".into(),
        Effect::Set(timer) => format!("set {timer:?}"),
        Effect::Stop(timer) => format!("stop {timer:?}"),
        Effect::Established(_) => "established".into(),
        Effect::Update(..) => "update".into(),
        Effect::Refresh(_) => "refresh".into(),
        Effect::Down(_) => "down".into(),
    }
}

#[test]
fn the_table_is_as_reviewed() {
    let mut table = String::new();
    for phase in phases() {
        table += &format!("{}\n", phase.state());
        for (name, input) in inputs() {
            let mut effects = Vec::new();
            let next = step(phase.clone(), input, &mut effects);
            let effects: Vec<String> = effects.iter().map(short).collect();
            let cell = format!("  {name:<24} {:<12} {}", next.state().name(), effects.join(", "));
            table += &format!("{}\n", cell.trim_end());
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn in_every_cell_what_ends_is_closed_and_explained() {
    for phase in phases() {
        for (name, input) in inputs() {
            let mut effects = Vec::new();
            let next = step(phase.clone(), input, &mut effects).state();
            let cell = format!("{} + {name}", phase.state());
            let closes = effects.contains(&Effect::Close);
            let down = effects.iter().any(|effect| matches!(effect, Effect::Down(_)));
            if phase.state() != State::Idle && next == State::Idle {
                assert!(closes && down, "{cell}: the end of a connection closes it and says why");
            }
            if phase.state() >= State::OpenSent && closes {
                assert_eq!(next, State::Idle, "{cell}: a closed connection leaves nothing behind");
            }
            let notified = effects.iter().position(|effect| matches!(effect, Effect::SendNotification(_)));
            if let Some(at) = notified {
                assert_eq!(
                    effects.get(at + 1),
                    Some(&Effect::Close),
                    "{cell}: a NOTIFICATION is the last word"
                );
            }
            if next == State::Established && phase.state() != State::Established {
                assert_eq!((phase.state(), name), (State::OpenConfirm, "Keepalive"), "{cell}");
            }
            if next >= State::OpenSent {
                assert!(
                    !effects.contains(&Effect::Set(Timer::ConnectRetry)),
                    "{cell}: no retry when connected"
                );
            }
        }
    }
}

#[test]
fn retain_never_says_a_word() {
    for phase in phases() {
        let mut effects = Vec::new();
        step(phase, Input::Stop(StopReason::Retain), &mut effects);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::SendNotification(_))), "{effects:?}");
    }
}

#[test]
fn unexpected_messages_get_the_subcode_of_their_state() {
    let subcode = |phase: Phase, input: Input| {
        let mut effects = Vec::new();
        step(phase, input, &mut effects);
        effects.iter().find_map(|effect| match effect {
            Effect::SendNotification(n) => Some((n.code, n.subcode)),
            _ => None,
        })
    };
    let update = || Input::Update(Update::default(), Vec::new());
    assert_eq!(subcode(Phase::OpenSent, Input::Keepalive), Some((5, 1)));
    assert_eq!(subcode(Phase::OpenSent, update()), Some((5, 1)));
    assert_eq!(subcode(Phase::OpenConfirm(negotiated()), update()), Some((5, 2)));
    assert_eq!(subcode(Phase::OpenConfirm(negotiated()), Input::Open(negotiated())), Some((5, 2)));
    assert_eq!(subcode(Phase::Established(negotiated()), Input::Open(negotiated())), Some((5, 3)));
}
