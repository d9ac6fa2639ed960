//! Randomness that repeats: the jitter of RFC 5880 section 6.8.7, and discriminators.
use std::{num::NonZeroU8, time::Duration};

use crate::Interval;

/// splitmix64: the same seed gives the same run.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 75 to 100 % of the interval; to 90 % where a single lost packet ends the session, so that it is never the
    /// jitter that does (RFC 5880 section 6.8.7).
    pub(crate) fn jitter(&mut self, interval: Interval, multiplier: NonZeroU8) -> Duration {
        let thousandths = if multiplier == NonZeroU8::MIN { 900 } else { 1000 };
        let micros = u64::from(interval.as_micros());
        // A thousandth of a microsecond is a nanosecond.
        let (least, most) = (micros * 750, micros * thousandths);
        let part = self.next() >> 48;
        Duration::from_nanos(least + (most - least) * part / u64::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, interval: Interval, multiplier: u8) -> Vec<Duration> {
        let mut random = Random::new(seed);
        let multiplier = NonZeroU8::new(multiplier).unwrap();
        (0..1000).map(|_| random.jitter(interval, multiplier)).collect()
    }

    #[test]
    fn jitter_spreads_over_the_last_quarter_and_repeats() {
        let interval = Interval::from_millis(100).unwrap();
        let all = run(7, interval, 3);
        let (least, most) = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
        assert!(least >= Duration::from_millis(75) && least < Duration::from_millis(76), "{least:?}");
        assert!(most <= Duration::from_millis(100) && most > Duration::from_millis(99), "{most:?}");
        assert_eq!(all, run(7, interval, 3));
        assert_ne!(all, run(8, interval, 3));
    }

    #[test]
    fn with_a_multiplier_of_one_jitter_leaves_a_tenth() {
        let all = run(7, Interval::from_millis(100).unwrap(), 1);
        let (least, most) = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
        assert!(least >= Duration::from_millis(75), "{least:?}");
        assert!(most <= Duration::from_millis(90) && most > Duration::from_millis(89), "{most:?}");
    }

    #[test]
    fn the_longest_interval_does_not_overflow() {
        let longest = Interval::from_micros(u32::MAX).unwrap();
        let three_quarters = Duration::from_nanos(u64::from(u32::MAX) * 750);
        assert!(run(1, longest, 3).iter().all(|d| (three_quarters..=longest.as_duration()).contains(d)));
    }
}
