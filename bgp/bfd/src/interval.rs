//! Intervals as BFD has them on the wire: whole microseconds in 32 bits.
use std::{fmt, num::NonZeroU32, time::Duration};

/// The time between two packets, in microseconds, 1 to 2^32-1 (RFC 5880 section 4.1). What zero means differs from
/// field to field, so zero is an absent `Interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(NonZeroU32);

impl Interval {
    /// The least interval, and what a peer is taken to accept until it says otherwise (RFC 5880 section 6.8.1).
    pub const MIN: Interval = Interval(NonZeroU32::MIN);
    /// One second: a session that is not Up does not send faster (RFC 5880 section 6.8.3).
    pub const SLOW: Interval = Interval(NonZeroU32::MIN.saturating_add(999_999));

    /// The interval of so many microseconds, or none where that is zero.
    pub const fn from_micros(micros: u32) -> Option<Interval> {
        match NonZeroU32::new(micros) {
            Some(micros) => Some(Interval(micros)),
            None => None,
        }
    }

    /// The interval of so many milliseconds, or none where that is zero or more than 71 minutes.
    pub const fn from_millis(millis: u32) -> Option<Interval> {
        match millis.checked_mul(1000) {
            Some(micros) => Interval::from_micros(micros),
            None => None,
        }
    }

    /// In microseconds.
    pub const fn as_micros(self) -> u32 {
        self.0.get()
    }

    /// As a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_micros(self.0.get() as u64)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_duration())
    }
}
