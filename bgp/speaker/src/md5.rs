//! What the kernel counts of TCP MD5 (RFC 2385) and TCP-AO (RFC 5925) gone wrong.
//!
//! It drops such a segment without an answer and without an error on any socket, so that to us a wrong password looks
//! like a peer that is not there. Its counters are the only trace. They are those of the whole network namespace:
//! what another peer or a stranger did is among them, so they are a hint and never a verdict.
use std::{
    fs,
    time::{Duration, Instant},
};

use crate::PeerConfig;

/// Of this thread, whose network namespace need not be that of the process.
const COUNTERS: &str = "/proc/thread-self/net/netstat";
/// How often a peer with a password or keys looks; it costs the reading of one small file.
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

/// Segments that the kernel of this network namespace dropped for their TCP-AO (RFC 5925), from whomever they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpAoFailures {
    /// Without TCP-AO from where we have keys (`TCPAORequired`): the peer has none.
    pub required: u64,
    /// With a signature that is wrong (`TCPAOBad`): the secrets or the algorithms differ.
    pub bad: u64,
    /// With a KeyID that we have no key for (`TCPAOKeyNotFound`).
    pub key_not_found: u64,
}

/// What was counted of either kind; none where the kernel does not count, or cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) md5: Option<Md5Failures>,
    pub(crate) tcp_ao: Option<TcpAoFailures>,
}

impl Failures {
    /// Since the kernel started.
    fn counted() -> Failures {
        fs::read_to_string(COUNTERS).map(|text| Failures::parse(&text)).unwrap_or_default()
    }

    /// Reads pairs of lines, the names of the columns and their values, each headed by the group.
    fn parse(text: &str) -> Failures {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return Failures::default() };
        let column = |wanted: &str| -> Option<u64> {
            let mut columns = names.split_whitespace().zip(values.split_whitespace());
            columns.find(|(name, _)| *name == wanted)?.1.parse().ok()
        };
        let md5 = || {
            Some(Md5Failures {
                not_found: column("TCPMD5NotFound")?,
                unexpected: column("TCPMD5Unexpected")?,
                failure: column("TCPMD5Failure")?,
            })
        };
        let tcp_ao = || {
            Some(TcpAoFailures {
                required: column("TCPAORequired")?,
                bad: column("TCPAOBad")?,
                key_not_found: column("TCPAOKeyNotFound")?,
            })
        };
        Failures { md5: md5(), tcp_ao: tcp_ao() }
    }

    fn since(self, base: Failures) -> Failures {
        let md5 = self.md5.zip(base.md5).map(|(now, base)| Md5Failures {
            not_found: now.not_found.saturating_sub(base.not_found),
            unexpected: now.unexpected.saturating_sub(base.unexpected),
            failure: now.failure.saturating_sub(base.failure),
        });
        let tcp_ao = self.tcp_ao.zip(base.tcp_ao).map(|(now, base)| TcpAoFailures {
            required: now.required.saturating_sub(base.required),
            bad: now.bad.saturating_sub(base.bad),
            key_not_found: now.key_not_found.saturating_sub(base.key_not_found),
        });
        Failures { md5, tcp_ao }
    }
}

/// How the counters have grown under one peer's eyes.
#[derive(Debug)]
pub(crate) struct Md5Watch {
    base: Failures,
    growth: Failures,
    next: Instant,
}

impl Md5Watch {
    pub(crate) fn new(now: Instant) -> Md5Watch {
        let base = Failures::counted();
        Md5Watch { base, growth: base.since(base), next: now + INTERVAL }
    }

    /// Since the peer was last Established, or was given another configuration that took a new session.
    pub(crate) fn growth(&self) -> Failures {
        self.growth
    }

    /// When to look again, where there is a signature to look for.
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
        self.growth = Failures::counted().since(self.base);
    }

    /// What the counters say to a peer that does not answer. Without numbers: they would make each attempt news.
    pub(crate) fn hint(&self, config: &PeerConfig) -> Option<&'static str> {
        let Md5Failures { not_found, unexpected, failure } = self.growth.md5.unwrap_or_default();
        let TcpAoFailures { required, bad, key_not_found } = self.growth.tcp_ao.unwrap_or_default();
        if config.tcp_ao.is_some() {
            if bad > 0 {
                Some("this host counts segments with a wrong TCP-AO signature: does the secret differ there?")
            } else if key_not_found > 0 {
                Some(
                    "this host counts segments with a TCP-AO KeyID that is not configured: which has the peer?",
                )
            } else if required > 0 {
                Some("this host counts segments without the TCP-AO they need: has the peer the keys?")
            } else {
                None
            }
        } else if config.password.is_some() {
            if failure > 0 {
                Some(
                    "this host counts segments with a wrong TCP MD5 signature: does the password differ there?",
                )
            } else if not_found > 0 {
                Some(
                    "this host counts segments without the TCP MD5 signature they need: has the peer a password?",
                )
            } else {
                None
            }
        } else if unexpected > 0 {
            Some(
                "this host counts segments with a TCP MD5 signature but no password: does the peer want one?",
            )
        } else if key_not_found > 0 {
            Some("this host counts segments with TCP-AO but no key: does the peer want it?")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use plainroute_bgp::{Asn, RouterId};

    use super::*;
    use crate::{Password, TcpAoKeys, tcp_ao::tests::key};

    const TEXT: &str = "\
TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPMinTTLDrop TCPAORequired TCPAOBad TCPAOKeyNotFound
TcpExt: 7 1 2 3 9 4 5 6
IpExt: InNoRoutes
IpExt: 4
";

    #[test]
    fn the_counters_are_found_by_name() {
        let md5 = Some(Md5Failures { not_found: 1, unexpected: 2, failure: 3 });
        let tcp_ao = Some(TcpAoFailures { required: 4, bad: 5, key_not_found: 6 });
        let parse = Failures::parse;
        assert_eq!(parse(TEXT), Failures { md5, tcp_ao });
        assert_eq!(parse(&TEXT.replace("TCPMD5Failure", "TCPOther")), Failures { md5: None, tcp_ao });
        assert_eq!(parse(&TEXT.replace("TcpExt: 7 1 2", "TcpExt: 7 1 x")), Failures { md5: None, tcp_ao });
        // Before Linux 6.7.
        assert_eq!(parse(&TEXT.replace("TCPAO", "TCPOther")), Failures { md5, tcp_ao: None });
        assert_eq!(parse(""), Failures::default());
    }

    #[test]
    fn a_hint_speaks_of_what_this_peer_could_have_caused() {
        let asn = |number| Asn::new(number).unwrap();
        let address = "192.0.2.1".parse().unwrap();
        let plain = PeerConfig::new(asn(1), asn(2), RouterId::new(1).unwrap(), address);
        let md5 = PeerConfig { password: Some(Password::new(b"x").unwrap()), ..plain.clone() };
        let keys = TcpAoKeys::new(vec![key(1, 1, "x")]).unwrap();
        let tcp_ao = PeerConfig { tcp_ao: Some(keys), ..plain.clone() };
        let hint = |config: &PeerConfig, md5: [u64; 3], tcp_ao: [u64; 3]| {
            let [not_found, unexpected, failure] = md5;
            let [required, bad, key_not_found] = tcp_ao;
            let growth = Failures {
                md5: Some(Md5Failures { not_found, unexpected, failure }),
                tcp_ao: Some(TcpAoFailures { required, bad, key_not_found }),
            };
            let watch = Md5Watch { base: Failures::default(), growth, next: Instant::now() };
            watch.hint(config).unwrap_or_default()
        };
        assert!(hint(&md5, [1, 1, 1], [1; 3]).contains("does the password differ"));
        assert!(hint(&md5, [1, 1, 0], [1; 3]).contains("has the peer a password"));
        assert_eq!(hint(&md5, [0, 1, 0], [1; 3]), "");
        assert!(hint(&plain, [1; 3], [1; 3]).contains("does the peer want one"));
        assert!(hint(&plain, [0; 3], [1; 3]).contains("does the peer want it"));
        assert_eq!(hint(&plain, [1, 0, 1], [1, 1, 0]), "");
        assert!(hint(&tcp_ao, [1; 3], [1; 3]).contains("does the secret differ"));
        assert!(hint(&tcp_ao, [1; 3], [1, 0, 1]).contains("KeyID"));
        assert!(hint(&tcp_ao, [1; 3], [1, 0, 0]).contains("has the peer the keys"));
        assert_eq!(hint(&tcp_ao, [1; 3], [0; 3]), "");
    }
}
