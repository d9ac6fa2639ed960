//! What the kernel counts of TCP MD5 (RFC 2385) gone wrong.
//!
//! It drops such a segment without an answer and without an error on any socket, so that to us a wrong password looks
//! like a peer that is not there. Its counters are the only trace. They are those of the whole network namespace:
//! what another peer or a stranger did is among them, so they are a hint and never a verdict.
use std::{
    fs,
    time::{Duration, Instant},
};

/// Of this thread, whose network namespace need not be that of the process.
const COUNTERS: &str = "/proc/thread-self/net/netstat";
/// How often a peer with a password looks; it costs the reading of one small file.
const INTERVAL: Duration = Duration::from_secs(5);

/// Segments that the kernel of this network namespace dropped for their TCP MD5 signature, from whomever they came:
/// the kernel does not count by peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Md5Failures {
    /// Without a signature from where we have a password (`TCPMD5NotFound`): the peer has none.
    pub not_found: u64,
    /// With a signature from where we have no password (`TCPMD5Unexpected`).
    pub unexpected: u64,
    /// With a signature that is wrong (`TCPMD5Failure`): the passwords differ.
    pub failure: u64,
}

impl Md5Failures {
    /// What was counted since the kernel started; none where it does not count, or cannot be asked.
    fn counted() -> Option<Md5Failures> {
        Md5Failures::parse(&fs::read_to_string(COUNTERS).ok()?)
    }

    /// Reads pairs of lines, the names of the columns and their values, each headed by the group.
    fn parse(text: &str) -> Option<Md5Failures> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let column = |wanted: &str| {
            let mut columns = names.split_whitespace().zip(values.split_whitespace());
            columns.find(|(name, _)| *name == wanted)?.1.parse().ok()
        };
        Some(Md5Failures {
            not_found: column("TCPMD5NotFound")?,
            unexpected: column("TCPMD5Unexpected")?,
            failure: column("TCPMD5Failure")?,
        })
    }

    fn since(self, base: Md5Failures) -> Md5Failures {
        Md5Failures {
            not_found: self.not_found.saturating_sub(base.not_found),
            unexpected: self.unexpected.saturating_sub(base.unexpected),
            failure: self.failure.saturating_sub(base.failure),
        }
    }
}

/// How the counters have grown under one peer's eyes.
#[derive(Debug)]
pub(crate) struct Md5Watch {
    base: Option<Md5Failures>,
    growth: Option<Md5Failures>,
    next: Instant,
}

impl Md5Watch {
    pub(crate) fn new(now: Instant) -> Md5Watch {
        let base = Md5Failures::counted();
        Md5Watch { base, growth: base.map(|_| Md5Failures::default()), next: now + INTERVAL }
    }

    /// Since the peer was last Established, or was given another configuration that took a new session.
    pub(crate) fn growth(&self) -> Option<Md5Failures> {
        self.growth
    }

    /// When to look again, where there is a password to look for.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Looks, if it is time; true where it was.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.next <= now;
        if due {
            self.next = now + INTERVAL;
            self.look();
        }
        due
    }

    pub(crate) fn look(&mut self) {
        let counted = Md5Failures::counted();
        self.growth = counted.zip(self.base).map(|(counted, base)| counted.since(base));
    }

    /// What the counters say to a peer that does not answer. Without numbers: they would make each attempt news.
    pub(crate) fn hint(&self, password: bool) -> Option<&'static str> {
        let Md5Failures { not_found, unexpected, failure } = self.growth.unwrap_or_default();
        if password && failure > 0 {
            Some("this host counts segments with a wrong TCP MD5 signature: does the password differ there?")
        } else if password && not_found > 0 {
            Some(
                "this host counts segments without the TCP MD5 signature they need: has the peer a password?",
            )
        } else if !password && unexpected > 0 {
            Some(
                "this host counts segments with a TCP MD5 signature but no password: does the peer want one?",
            )
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPMinTTLDrop
TcpExt: 7 1 2 3 9
IpExt: InNoRoutes
IpExt: 4
";

    #[test]
    fn the_counters_are_found_by_name() {
        let expected = Md5Failures { not_found: 1, unexpected: 2, failure: 3 };
        assert_eq!(Md5Failures::parse(TEXT), Some(expected));
        assert_eq!(Md5Failures::parse(&TEXT.replace("TCPMD5Failure", "TCPOther")), None);
        assert_eq!(Md5Failures::parse(&TEXT.replace("TcpExt: 7 1 2", "TcpExt: 7 1 x")), None);
        assert_eq!(Md5Failures::parse(""), None);
    }

    #[test]
    fn a_hint_speaks_of_what_this_peer_could_have_caused() {
        let hint = |password, not_found, unexpected, failure| {
            let growth = Some(Md5Failures { not_found, unexpected, failure });
            Md5Watch { base: None, growth, next: Instant::now() }.hint(password).unwrap_or_default()
        };
        assert!(hint(true, 1, 1, 1).contains("does the password differ"));
        assert!(hint(true, 1, 1, 0).contains("has the peer a password"));
        assert_eq!(hint(true, 0, 1, 0), "");
        assert!(hint(false, 1, 1, 1).contains("does the peer want one"));
        assert_eq!(hint(false, 1, 0, 1), "");
    }
}
