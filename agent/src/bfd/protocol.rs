//! What agent and BFD process say to each other over the socket: one JSON object a line.
//!
//! The agent sends [`Wanted`], the whole set of sessions, as often as it likes. From the first of these on it is told
//! [`Told`], the whole state, at once and whenever a session changes; every few seconds for the counters' sake.
//! Fields that one side does not know are ignored, so that agent and process may be of different versions.
use std::{
    collections::BTreeMap,
    net::IpAddr,
    num::{NonZeroU8, NonZeroU32},
};

use plainroute_bfd::{Interval, Liveness, Timing};
use plainroute_speaker::bfd::{Reach, Report, SessionReport, Target};
use serde::{Deserialize, Serialize};

/// Longer lines are not read: no node has so many sessions.
pub(super) const LONGEST_LINE: u64 = 4 * 1024 * 1024;

/// The sessions that there shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// All of them, in any order.
    pub sessions: Vec<SessionSpec>,
}

/// A session that there shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionSpec {
    /// With whom.
    #[serde(flatten)]
    pub target: TargetSpec,
    /// The shortest interval at which we take packets.
    pub receive_interval_milliseconds: NonZeroU32,
    /// The interval at which we want to send packets.
    pub transmit_interval_milliseconds: NonZeroU32,
    /// How many missed packets mean down.
    pub detect_multiplier: NonZeroU8,
}

/// With whom a session is: what tells sessions apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetSpec {
    /// The peer's address.
    pub peer_address: IpAddr,
    /// The interface that it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Our address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// How many hops away it may be: 1 on a link of ours. Absent: on a link of ours if a subnet there has it, else
    /// anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<NonZeroU8>,
}

impl From<&TargetSpec> for Target {
    fn from(spec: &TargetSpec) -> Target {
        Target {
            remote: spec.peer_address,
            interface: spec.interface.clone(),
            local: spec.local_address,
            reach: match spec.hops {
                Some(NonZeroU8::MIN) => Reach::SingleHop,
                Some(hops) => Reach::MultiHop(hops),
                None => Reach::Either,
            },
        }
    }
}

impl From<&Target> for TargetSpec {
    fn from(target: &Target) -> TargetSpec {
        TargetSpec {
            peer_address: target.remote,
            interface: target.interface.clone(),
            local_address: target.local,
            hops: match target.reach {
                Reach::SingleHop => Some(NonZeroU8::MIN),
                Reach::MultiHop(hops) => Some(hops),
                Reach::Either => None,
            },
        }
    }
}

impl Wanted {
    /// As the driver takes it; the error names the session that cannot be.
    pub fn sessions(&self) -> Result<BTreeMap<Target, Timing>, String> {
        let session = |spec: &SessionSpec| {
            let target = Target::from(&spec.target);
            let interval = |milliseconds: NonZeroU32| {
                let too_long = || format!("{target}: an interval of {milliseconds} ms is too long");
                Interval::from_millis(milliseconds.get()).ok_or_else(too_long)
            };
            let timing = Timing {
                desired_min_tx: interval(spec.transmit_interval_milliseconds)?,
                required_min_rx: interval(spec.receive_interval_milliseconds)?,
                detect_multiplier: spec.detect_multiplier,
            };
            Ok((target, timing))
        };
        self.sessions.iter().map(session).collect()
    }
}

/// How all sessions are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// The version of the BFD process.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Every session that is wanted.
    pub sessions: Vec<SessionTold>,
    /// Datagrams that were discarded before it was known to which session they belong, by cause (RFC 5880 section
    /// 6.8.6).
    pub discarded: BTreeMap<String, u64>,
}

/// How one session is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionTold {
    /// With whom it is.
    #[serde(flatten)]
    pub target: TargetSpec,
    /// How it is.
    pub status: BfdView,
}

/// What a session says of the path to the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BfdPath {
    /// Nothing: the session was never up. BGP goes by its own timers.
    #[default]
    Unknown,
    /// It works, in both directions.
    Up,
    /// It worked and does not any more. BGP gives the session up.
    Down,
    /// Nothing: one end holds its session down on purpose. BGP goes by its own timers.
    AdminDown,
}

/// The BFD session with a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdView {
    /// What BGP goes by.
    pub path: BfdPath,
    /// The state of our end, in the words of RFC 5880; absent where there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When it entered the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<jiff::Timestamp>,
    /// Why it last changed its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostic: Option<String>,
    /// The state of the peer's end; absent while it is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_state: Option<String>,
    /// Why the peer's end last changed its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_diagnostic: Option<String>,
    /// Why there is no session, or why its packets do not leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether both ends say that their BFD outlives a restart of their BGP (the C bit): then a failure ends a graceful
    /// restart too.
    pub control_plane_independent: bool,
    /// Whether it runs as for a peer behind other routers (RFC 5883).
    pub multi_hop: bool,
    /// The negotiated interval at which we send, before jitter, in microseconds.
    pub transmit_interval_microseconds: u64,
    /// The negotiated time for which the peer may be silent, in microseconds; absent while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection_time_microseconds: Option<u64>,
    /// Our discriminator: it stays the same for as long as the session lives.
    pub local_discriminator: u32,
    /// The peer's discriminator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_discriminator: Option<u32>,
    /// How often it came up.
    pub up_count: u64,
    /// How often it went from up to down.
    pub down_count: u64,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that the kernel did not take.
    pub send_errors: u64,
    /// Packets of this session that were discarded, by cause.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub discarded: BTreeMap<String, u64>,
}

impl BfdView {
    /// In a few words: the states of both ends, or what is wrong.
    pub fn words(&self) -> String {
        let Some(state) = &self.state else {
            return self.problem.clone().unwrap_or_else(|| "is being set up".to_owned());
        };
        let remote = self.remote_state.as_deref().unwrap_or("silent");
        match (self.path, &self.problem) {
            (BfdPath::Up, _) => state.clone(),
            (_, Some(problem)) => format!("{state} ({problem})"),
            (BfdPath::Down, None) => {
                format!("{state} ({}; the peer is {remote})", self.diagnostic.as_deref().unwrap_or_default())
            }
            (BfdPath::Unknown, None) => format!("{state} (never up; the peer is {remote})"),
            (BfdPath::AdminDown, None) => format!("{state} (held down on purpose; the peer is {remote})"),
        }
    }

    /// Without a session, for this reason.
    pub fn without(problem: impl Into<String>) -> BfdView {
        BfdView { problem: Some(problem.into()), ..BfdView::default() }
    }
}

impl From<&SessionReport> for BfdView {
    fn from(report: &SessionReport) -> BfdView {
        let problem = report.problem.clone();
        let Some(running) = &report.running else { return BfdView { problem, ..BfdView::default() } };
        let remote = running.remote.as_ref();
        let (path, independent) = match running.liveness {
            Liveness::Pending => (BfdPath::Unknown, false),
            // The C bit is ours too.
            Liveness::Up => (BfdPath::Up, remote.is_some_and(|remote| remote.control_plane_independent)),
            Liveness::Failed { control_plane_independent, .. } => (BfdPath::Down, control_plane_independent),
            Liveness::AdminDown(_) => (BfdPath::AdminDown, false),
        };
        let microseconds = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        BfdView {
            path,
            state: Some(running.state.name().to_owned()),
            since: jiff::Timestamp::try_from(running.since).ok(),
            diagnostic: Some(running.diagnostic.to_string()),
            remote_state: remote.map(|remote| remote.state.name().to_owned()),
            remote_diagnostic: remote.map(|remote| remote.diagnostic.to_string()),
            problem,
            control_plane_independent: independent,
            multi_hop: running.multi_hop,
            transmit_interval_microseconds: microseconds(running.transmit_interval),
            detection_time_microseconds: running.detection_time.map(microseconds),
            local_discriminator: running.local_discriminator.value(),
            remote_discriminator: remote.map(|remote| remote.discriminator.value()),
            up_count: running.counters.up,
            down_count: running.counters.down,
            received: running.counters.received,
            sent: running.counters.sent,
            send_errors: running.send_errors,
            discarded: by_cause(&running.counters.discarded),
        }
    }
}

impl From<&Report> for Told {
    fn from(report: &Report) -> Told {
        let session = |(target, session): (&Target, &SessionReport)| SessionTold {
            target: TargetSpec::from(target),
            status: BfdView::from(session),
        };
        Told {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            sessions: report.sessions.iter().map(session).collect(),
            discarded: by_cause(&report.discarded),
        }
    }
}

fn by_cause(counters: &plainroute_bfd::DiscardCounters) -> BTreeMap<String, u64> {
    let some = counters.iter().filter(|(_, number)| *number > 0);
    some.map(|(cause, number)| (cause.name().to_owned(), number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_one_line_and_reads_back() {
        let line = r#"{"sessions":[{"peerAddress":"fe80::1","interface":"eth0","hops":1,"#.to_owned()
            + r#""receiveIntervalMilliseconds":100,"transmitIntervalMilliseconds":50,"detectMultiplier":3}]}"#;
        let wanted: Wanted = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&wanted).unwrap(), line);
        let sessions = wanted.sessions().unwrap();
        let (target, timing) = sessions.first_key_value().unwrap();
        assert_eq!((target.reach, timing.desired_min_tx.as_micros()), (Reach::SingleHop, 50_000));
        assert_eq!(TargetSpec::from(target), wanted.sessions[0].target);
    }

    #[test]
    fn fields_of_another_version_are_ignored_and_nonsense_is_not() {
        let read = |line: &str| serde_json::from_str::<Wanted>(line);
        assert_eq!(read(r#"{"sessions":[],"later":1}"#).unwrap(), Wanted::default());
        assert!(read("{}").is_err());
        let zero = r#"{"sessions":[{"peerAddress":"192.0.2.1","receiveIntervalMilliseconds":0,"transmitIntervalMilliseconds":1,"detectMultiplier":3}]}"#;
        assert!(read(zero).is_err());
        let long: Wanted = read(&zero.replace(":0,", ":4294968,")).unwrap();
        assert!(long.sessions().unwrap_err().contains("192.0.2.1"));
    }
}
