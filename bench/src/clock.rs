//! The monotonic clock as a number, so that processes of one machine can compare what they read of it.
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment that is the same for every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    pub(crate) fn now() -> Moment {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
        Moment(u64::try_from(Duration::from(now).as_nanos()).expect("centuries away"))
    }

    /// Milliseconds since `earlier`; nothing where the two are the other way round.
    pub(crate) fn milliseconds_since(self, earlier: Moment) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e6
    }
}
