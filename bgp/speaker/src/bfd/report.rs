//! What a driver knows of its sessions, for whoever asks.
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use plainroute_bfd::{
    Diagnostic, DiscardCounters, Discriminator, Liveness, Remote, SessionCounters, State, Timing,
};

use super::Target;

/// Every session that was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// By whom it is with. Those that are being ended are not among them.
    pub sessions: BTreeMap<Target, SessionReport>,
    /// Datagrams that were discarded before it was known which session they belong to.
    pub discarded: DiscardCounters,
}

/// One session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionReport {
    /// Why there is no session, or why its packets do not leave.
    pub problem: Option<String>,
    /// The session; none where there is no path to the peer.
    pub running: Option<RunningReport>,
}

/// A session that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningReport {
    /// Our discriminator.
    pub local_discriminator: Discriminator,
    /// Whether routers may stand between us and the peer.
    pub multi_hop: bool,
    /// The state.
    pub state: State,
    /// Why it last changed.
    pub diagnostic: Diagnostic,
    /// When it entered the state, by the wall clock.
    pub since: SystemTime,
    /// What clients such as BGP are to know.
    pub liveness: Liveness,
    /// What the peer last said; none while it is silent.
    pub remote: Option<Remote>,
    /// What we ask for.
    pub timing: Timing,
    /// The interval at which we send, before jitter.
    pub transmit_interval: Duration,
    /// How long the peer may be silent; none while it is not heard.
    pub detection_time: Option<Duration>,
    /// What was counted.
    pub counters: SessionCounters,
    /// Packets that the kernel did not take.
    pub send_errors: u64,
}
