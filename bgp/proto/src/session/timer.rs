//! The timers of one connection's state machine as a table of instants, and the jitter of RFC 4271 section 10.
use std::time::{Duration, Instant};

/// What can run out. DelayOpen (RFC 4271 section 8.1.1) is an optional attribute that we do not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The next try to connect.
    ConnectRetry,
    /// The peer is silent.
    Hold,
    /// Our next KEEPALIVE.
    Keepalive,
    /// The peer does not take what we send (RFC 9687).
    SendHold,
    /// The end of holding off after an error.
    IdleHold,
}

impl Timer {
    pub(super) const ALL: [Timer; 5] =
        [Timer::ConnectRetry, Timer::Hold, Timer::Keepalive, Timer::SendHold, Timer::IdleHold];
}

/// When each timer runs out; `None` where it does not run.
#[derive(Clone, Debug, Default)]
pub(super) struct TimerTable([Option<Instant>; Timer::ALL.len()]);

impl TimerTable {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn stop_all(&mut self) {
        *self = TimerTable::default();
    }

    pub(super) fn is_running(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes a timer that has run out, the earliest first.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = Timer::ALL
            .into_iter()
            .filter_map(|timer| Some((self.0[timer as usize]?, timer)))
            .min_by_key(|(at, _)| *at)?;
        (at <= now).then(|| {
            self.stop(timer);
            timer
        })
    }
}

/// A deterministic source of jitter (splitmix64): the same seed gives the same run.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// `duration` times a factor between 0.75 and 1 (RFC 4271 section 10).
    pub(super) fn apply(&mut self, duration: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let quarter = duration / 4;
        // 0 to 255 of 255 parts of the last quarter.
        duration - quarter + quarter * u32::from(mixed as u8) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_timer_runs_out_first_and_once() {
        #[expect(clippy::disallowed_methods, reason = "an origin of time")]
        let start = Instant::now();
        let mut table = TimerTable::default();
        table.set(Timer::Hold, start + Duration::from_secs(9));
        table.set(Timer::Keepalive, start + Duration::from_secs(3));
        assert_eq!(table.next_timeout(), Some(start + Duration::from_secs(3)));
        assert_eq!(table.take_expired(start), None);
        let late = start + Duration::from_secs(10);
        assert_eq!(table.take_expired(late), Some(Timer::Keepalive));
        assert_eq!(table.take_expired(late), Some(Timer::Hold));
        assert_eq!(table.take_expired(late), None);
        assert_eq!(table.next_timeout(), None);
    }

    #[test]
    fn jitter_stays_within_the_last_quarter_and_repeats() {
        let whole = Duration::from_secs(4);
        let run = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..100).map(|_| jitter.apply(whole)).collect::<Vec<_>>()
        };
        assert!(run(7).iter().all(|d| (Duration::from_secs(3)..=whole).contains(d)));
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
