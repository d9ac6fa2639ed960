//! What a session says afterwards of what was on the wire: the OPENs, and the NOTIFICATION that ended it.
use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    session::{DownReason, Event, GracefulRestartConfig, Negotiated, SessionConfig, StopReason},
    wire::CeaseReason,
};

use crate::pair::{A, B, Pair, config};

const SECOND: Duration = Duration::from_secs(1);
const OPEN: u8 = 1;
const NOTIFICATION: u8 = 3;

fn established(a: SessionConfig, b: SessionConfig) -> Pair {
    let mut pair = Pair::new(a, b);
    pair.start_both();
    pair.run_until(SECOND, Pair::established);
    pair
}

fn last_sent(pair: &Pair, side: usize, kind: u8) -> Option<Bytes> {
    pair.sides[side].sent.iter().rev().find(|message| message[18] == kind).cloned()
}

fn negotiated(pair: &Pair, side: usize) -> Arc<Negotiated> {
    let last = pair.sides[side].events.iter().rev().find_map(|event| match event {
        Event::Established(_, negotiated) => Some(Arc::clone(negotiated)),
        _ => None,
    });
    last.expect("was established")
}

/// What the last session of `side` says that ended it, as octets.
fn told(pair: &Pair, side: usize) -> Option<Bytes> {
    let downs = pair.sides[side].downs();
    let notification = downs.last().expect("was established").notification(&negotiated(pair, side))?;
    let mut out = BytesMut::new();
    notification.encode(&mut out);
    Some(out.freeze())
}

#[test]
fn both_opens_are_kept_as_they_were_on_the_wire() {
    let pair = established(config(1, 2, 10), config(2, 1, 20));
    for side in [A, B] {
        let negotiated = negotiated(&pair, side);
        assert_eq!(Some(Bytes::from(pair.open_of(side))), last_sent(&pair, side, OPEN));
        assert_eq!(Some(negotiated.peer_open_octets.clone()), last_sent(&pair, 1 - side, OPEN));
    }
}

/// RFC 8538 wraps some reasons, where both sides offer to keep routes over a NOTIFICATION.
#[test]
fn the_notification_of_every_stop_is_known_afterwards() {
    let graceful = GracefulRestartConfig { restart_time: 60, notification: true, long_lived_stale_time: 0 };
    for graceful_restart in [None, Some(graceful)] {
        for code in 1..=10 {
            let reason = CeaseReason::from_code(code).unwrap();
            let of = |config| SessionConfig { graceful_restart, ..config };
            let mut pair = established(of(config(1, 2, 10)), of(config(2, 1, 20)));
            pair.stop(A, StopReason::Cease(reason, "why".to_owned()));
            let sent = last_sent(&pair, A, NOTIFICATION);
            assert!(sent.is_some());
            assert_eq!(told(&pair, A), sent, "{reason:?}");
            pair.run_until(SECOND, |pair| !pair.b().downs().is_empty());
            assert!(matches!(pair.b().downs()[..], [DownReason::NotificationReceived(_)]));
            assert_eq!(told(&pair, B), sent, "{reason:?}");
        }
    }
}

#[test]
fn an_error_is_told_and_silence_is_not() {
    let mut pair = established(config(1, 2, 10), config(2, 1, 20));
    pair.inject(A, &[0; 19]);
    pair.run_until(SECOND, |pair| !pair.a().downs().is_empty() && !pair.b().downs().is_empty());
    assert!(last_sent(&pair, A, NOTIFICATION).is_some());
    assert_eq!(told(&pair, A), last_sent(&pair, A, NOTIFICATION));
    assert_eq!(told(&pair, B), last_sent(&pair, A, NOTIFICATION));

    let mut pair = established(config(1, 2, 10), config(2, 1, 20));
    pair.stop(A, StopReason::Retain);
    pair.run_until(SECOND, |pair| !pair.b().downs().is_empty());
    assert_eq!((told(&pair, A), told(&pair, B)), (None, None));
}
