//! A prefix with a range of lengths, in the sense that routers give to `ge` and `le`.
use std::fmt;

use crate::Prefix;

/// Matches prefixes within `prefix` whose length lies in a range. The range always fits the prefix.
///
/// Neither bound: exactly this prefix. `ge` alone: from there to the family's longest. `le` alone: from the
/// prefix's own length to there.
///
/// ```
/// # use plainroute_bgp::policy::PrefixRule;
/// let default_route = PrefixRule::new("0.0.0.0/0".parse().unwrap(), Some(0), Some(0)).unwrap();
/// assert!(default_route.matches("0.0.0.0/0".parse().unwrap()));
/// assert!(!default_route.matches("10.0.0.0/8".parse().unwrap()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixRule {
    prefix: Prefix,
    shortest: u8,
    longest: u8,
}

/// Why a rule cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefixRule {
    /// `ge` is shorter than the prefix: such prefixes cannot lie within it.
    #[error("ge {ge} is shorter than {prefix} itself")]
    ShorterThanPrefix {
        /// The prefix.
        prefix: Prefix,
        /// The bound, in bits.
        ge: u8,
    },
    /// `le` is below `ge`, or below the prefix's own length: nothing could match.
    #[error("le {le} is below {shortest}: nothing could match {prefix}")]
    Empty {
        /// The prefix.
        prefix: Prefix,
        /// The shortest length that could match, in bits.
        shortest: u8,
        /// The bound, in bits.
        le: u8,
    },
    /// A bound is beyond the family's longest length.
    #[error("length {length} is beyond {max}, the longest of {prefix}'s family")]
    TooLong {
        /// The prefix.
        prefix: Prefix,
        /// The bound, in bits.
        length: u8,
        /// What the family has, in bits.
        max: u8,
    },
}

impl PrefixRule {
    /// A rule for prefixes within `prefix`, with lengths from `ge` to `le` bits.
    pub fn new(prefix: Prefix, ge: Option<u8>, le: Option<u8>) -> Result<PrefixRule, InvalidPrefixRule> {
        let max = prefix.family().max_length();
        if let Some(length) = ge.into_iter().chain(le).find(|length| *length > max) {
            return Err(InvalidPrefixRule::TooLong { prefix, length, max });
        }
        if let Some(ge) = ge.filter(|ge| *ge < prefix.length()) {
            return Err(InvalidPrefixRule::ShorterThanPrefix { prefix, ge });
        }
        let shortest = ge.unwrap_or(prefix.length());
        let longest = match (ge, le) {
            (_, Some(le)) => le,
            (Some(_), None) => max,
            (None, None) => prefix.length(),
        };
        if longest < shortest {
            return Err(InvalidPrefixRule::Empty { prefix, shortest, le: longest });
        }
        Ok(PrefixRule { prefix, shortest, longest })
    }

    /// Exactly this prefix.
    pub fn exact(prefix: Prefix) -> PrefixRule {
        PrefixRule { prefix, shortest: prefix.length(), longest: prefix.length() }
    }

    /// Whether `candidate` matches.
    pub fn matches(&self, candidate: Prefix) -> bool {
        (self.shortest..=self.longest).contains(&candidate.length()) && self.prefix.contains(candidate)
    }
}

impl fmt::Display for PrefixRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix.fmt(f)?;
        if (self.shortest, self.longest) != (self.prefix.length(), self.prefix.length()) {
            write!(f, " ge {} le {}", self.shortest, self.longest)?;
        }
        Ok(())
    }
}

impl fmt::Debug for PrefixRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str, ge: Option<u8>, le: Option<u8>) -> Result<PrefixRule, InvalidPrefixRule> {
        PrefixRule::new(prefix.parse().unwrap(), ge, le)
    }

    #[test]
    fn bounds_mean_what_routers_mean() {
        // (rule, ge, le, matching, not matching)
        for (prefix, ge, le, yes, no) in [
            ("10.0.0.0/8", None, None, vec!["10.0.0.0/8"], vec!["10.0.0.0/9", "0.0.0.0/0"]),
            ("10.0.0.0/8", Some(24), None, vec!["10.1.1.0/24", "10.1.1.1/32"], vec!["10.1.0.0/16"]),
            ("10.0.0.0/8", None, Some(16), vec!["10.0.0.0/8", "10.1.0.0/16"], vec!["10.1.1.0/24"]),
            ("10.0.0.0/8", Some(16), Some(24), vec!["10.1.0.0/16"], vec!["10.0.0.0/8", "11.1.0.0/16"]),
            ("0.0.0.0/0", Some(0), Some(0), vec!["0.0.0.0/0"], vec!["128.0.0.0/1", "::/0"]),
            ("::/0", None, None, vec!["::/0"], vec!["0.0.0.0/0", "8000::/1"]),
            ("2001:db8::/32", Some(128), Some(128), vec!["2001:db8::1/128"], vec!["2001:db9::1/128"]),
        ] {
            let rule = rule(prefix, ge, le).unwrap();
            for prefix in yes {
                assert!(rule.matches(prefix.parse().unwrap()), "{rule} should match {prefix}");
            }
            for prefix in no {
                assert!(!rule.matches(prefix.parse().unwrap()), "{rule} should not match {prefix}");
            }
        }
    }

    #[test]
    fn a_rule_that_can_match_nothing_cannot_be_built() {
        assert!(matches!(
            rule("10.0.0.0/8", Some(7), None),
            Err(InvalidPrefixRule::ShorterThanPrefix { .. })
        ));
        assert!(matches!(rule("10.0.0.0/8", Some(24), Some(16)), Err(InvalidPrefixRule::Empty { .. })));
        assert!(matches!(rule("10.0.0.0/8", None, Some(7)), Err(InvalidPrefixRule::Empty { .. })));
        assert!(matches!(rule("10.0.0.0/8", None, Some(33)), Err(InvalidPrefixRule::TooLong { .. })));
        assert!(matches!(rule("::/0", Some(129), None), Err(InvalidPrefixRule::TooLong { .. })));
    }
}
