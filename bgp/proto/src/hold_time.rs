//! The hold time of RFC 4271 section 4.2: zero, or at least three seconds.
use std::{fmt, time::Duration};

/// A hold time in seconds: 0 (no keepalives, never expires) or 3 to 65535. One and two cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldTime(u16);

impl HoldTime {
    /// No hold timer at all.
    pub const NONE: HoldTime = HoldTime(0);
    /// What RFC 4271 section 10 suggests: 90 seconds.
    pub const DEFAULT: HoldTime = HoldTime(90);

    /// The hold time, unless RFC 4271 section 4.2 forbids it.
    pub const fn new(seconds: u16) -> Option<HoldTime> {
        match seconds {
            1 | 2 => None,
            _ => Some(HoldTime(seconds)),
        }
    }

    /// Seconds, as in an OPEN.
    pub const fn seconds(self) -> u16 {
        self.0
    }

    /// The time after which a silent peer is gone; `None` where the timer is off.
    pub fn duration(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(u64::from(self.0)))
    }

    /// A third of the hold time (RFC 4271 section 4.4); `None` where no keepalives are sent.
    pub fn keepalive_interval(self) -> Option<Duration> {
        self.duration().map(|hold| hold / 3)
    }
}

/// One and two seconds are no hold times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hold time is 0 or at least 3 seconds, not {0} (RFC 4271 section 4.2)")]
pub struct InvalidHoldTime(u16);

impl TryFrom<u16> for HoldTime {
    type Error = InvalidHoldTime;
    fn try_from(seconds: u16) -> Result<Self, InvalidHoldTime> {
        HoldTime::new(seconds).ok_or(InvalidHoldTime(seconds))
    }
}

impl fmt::Display for HoldTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_two_seconds_cannot_be_built() {
        let valid: Vec<u16> = (0..5).filter(|s| HoldTime::new(*s).is_some()).collect();
        assert_eq!(valid, [0, 3, 4]);
        assert_eq!(HoldTime(9).keepalive_interval(), Some(Duration::from_secs(3)));
        assert_eq!(HoldTime::NONE.keepalive_interval(), None);
    }
}
