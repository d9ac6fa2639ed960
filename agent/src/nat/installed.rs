//! What nftables does, seen from what was desired: the output of [`run`](super::run).
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// The state of our table after the last pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatInstalled {
    /// The [`NatDesired::generation`](super::NatDesired::generation) that the table reflects.
    pub generation: u64,
    /// Whether the table was read, or found not to exist. Before, everything here means nothing.
    pub synced: bool,
    /// Why the table is not as desired, or what is wrong beside it, in words for an operator.
    pub error: Option<String>,
    /// What each Egress has sent and lost since the agent was started, or longer when it found its table.
    pub counters: BTreeMap<Arc<str>, NatCounters>,
    /// The egress IPs for which the drop rule stands and to which the table translates.
    pub addresses: BTreeSet<IpAddr>,
    /// Packets dropped because they would have left with a wrong source.
    pub stray_packets: u64,
    /// Packets dropped because they came for an egress IP and belonged to no flow.
    pub unsolicited_packets: u64,
    /// The generation for which conntrack's entries that go otherwise have been removed.
    pub settled: u64,
    /// Conntrack's entries that were removed.
    pub flows_removed: u64,
    /// Times that somebody had changed our table and it was put right.
    pub repairs: u64,
    /// `nf_conntrack_tcp_loose`: without it no flow survives the loss of its gateway. `None`: not known.
    pub tcp_loose: Option<bool>,
    /// `nf_conntrack_tcp_be_liberal`: without it a flow that comes back to a gateway may hang. `None`: not known.
    pub tcp_be_liberal: Option<bool>,
}

/// Totals of one Egress on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatCounters {
    /// Packets that left here with the egress IP as their source.
    pub out_packets: u64,
    /// Their bytes, with IP headers.
    pub out_bytes: u64,
    /// Packets dropped because there was no gateway for them.
    pub dropped_packets: u64,
    /// Their bytes, with IP headers.
    pub dropped_bytes: u64,
}
