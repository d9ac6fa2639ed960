//! How long a session holds off after an end (DampPeerOscillations, RFC 4271 section 8.1.1): not at all after the
//! first, then twice as long each time, up to a bound that is low, since a peer that comes back is worth more than
//! a few packets.
use std::time::Duration;

use super::{DownReason, connection::Ended, timer::Jitter};
use crate::wire::{CeaseReason, Notification, iana::error};

/// An Established session that lasted this long was no quick failure.
const STABLE: Duration = Duration::from_secs(10);
/// The hold-off after the second quick failure; each further one doubles it.
const FIRST: Duration = Duration::from_millis(250);
/// The longest hold-off.
const LONGEST: Duration = Duration::from_secs(8);
/// The longest hold-off where the peer only closes: it is starting up, and has nothing against us.
const LONGEST_STARTING: Duration = Duration::from_secs(1);

/// The quick failures in a row.
#[derive(Debug, Default)]
pub(super) struct Damping {
    failures: u32,
}

impl Damping {
    /// How long our own attempts pause after this end.
    pub(super) fn hold_off(&mut self, ended: &Ended, jitter: &mut Jitter) -> Duration {
        match &ended.reason {
            // The peer's new connection takes over.
            DownReason::PeerRestarted => return Duration::ZERO,
            // The other connection takes over; should it die too, jitter keeps the next two from colliding.
            DownReason::Collision => return jitter.apply(FIRST),
            DownReason::NotificationReceived(n)
                if n.cease_reason() == Some(CeaseReason::ConnectionCollision) =>
            {
                return jitter.apply(FIRST);
            }
            // RFC 5492 section 3: saying the same again at once leads nowhere.
            DownReason::NotificationSent(n) | DownReason::NotificationReceived(n)
                if is_about_capabilities(n) =>
            {
                return LONGEST;
            }
            DownReason::Stopped(_)
            | DownReason::NotificationSent(_)
            | DownReason::NotificationReceived(_)
            | DownReason::ConnectionLost
            | DownReason::SendHoldTimerExpired => {}
        }
        if ended.established_for.is_some_and(|lasted| lasted >= STABLE) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            0 | 1 => Duration::ZERO,
            // The shift is bounded so that the product is.
            quick => {
                let starting = ended.reason == DownReason::ConnectionLost && ended.established_for.is_none();
                let longest = if starting { LONGEST_STARTING } else { LONGEST };
                jitter.apply((FIRST * (1 << (quick - 2).min(8))).min(longest))
            }
        }
    }
}

fn is_about_capabilities(notification: &Notification) -> bool {
    notification.code == error::OPEN
        && matches!(
            notification.subcode,
            error::UNSUPPORTED_CAPABILITY | error::UNSUPPORTED_OPTIONAL_PARAMETER
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(reason: DownReason, established_for: Option<u64>) -> Ended {
        Ended { reason, established_for: established_for.map(Duration::from_secs) }
    }

    #[test]
    fn the_first_failure_is_free_and_the_rest_are_bounded() {
        let (mut damping, mut jitter) = (Damping::default(), Jitter::new(1));
        let lost = ended(DownReason::ConnectionLost, Some(1));
        let holds: Vec<Duration> = (0..50).map(|_| damping.hold_off(&lost, &mut jitter)).collect();
        assert_eq!(holds[0], Duration::ZERO);
        assert!(holds[1] <= FIRST && holds[1] >= FIRST * 3 / 4);
        assert!(holds.iter().all(|hold| *hold <= LONGEST));
        assert!(holds[49] >= LONGEST * 3 / 4);
        let stable = ended(DownReason::ConnectionLost, Some(10));
        assert_eq!(damping.hold_off(&stable, &mut jitter), Duration::ZERO);
    }

    #[test]
    fn a_peer_that_only_closes_is_starting_and_is_asked_again_every_second() {
        let (mut damping, mut jitter) = (Damping::default(), Jitter::new(1));
        let closed = ended(DownReason::ConnectionLost, None);
        let longest = (0..50).map(|_| damping.hold_off(&closed, &mut jitter)).max();
        assert!(longest > Some(LONGEST_STARTING / 2) && longest <= Some(LONGEST_STARTING), "{longest:?}");
    }

    #[test]
    fn capabilities_wait_long_and_a_restarted_peer_not_at_all() {
        let (mut damping, mut jitter) = (Damping::default(), Jitter::new(1));
        let unsupported = Notification::open(error::UNSUPPORTED_CAPABILITY);
        let refused = ended(DownReason::NotificationReceived(unsupported), None);
        assert_eq!(damping.hold_off(&refused, &mut jitter), LONGEST);
        assert_eq!(damping.hold_off(&ended(DownReason::PeerRestarted, Some(1)), &mut jitter), Duration::ZERO);
    }
}
