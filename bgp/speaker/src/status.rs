//! What an operator asks of a peer: its state, since when, how much it carries, and what went wrong last.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Instant, SystemTime},
};

use plainroute_bgp::{
    AfiSafi, Asn,
    session::{Negotiated, State},
};

use crate::PeerName;

/// The status of every configured peer.
pub type Peers = BTreeMap<PeerName, PeerStatus>;

/// The status of one peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// Our AS towards it.
    pub local_asn: Asn,
    /// Its AS as configured.
    pub peer_asn: Asn,
    /// Its address as configured.
    pub peer_address: IpAddr,
    /// Its interface as configured.
    pub interface: Option<String>,
    /// The state of the session.
    pub state: State,
    /// When it entered the state: the basis of the uptime.
    pub since: Instant,
    /// The same by the wall clock, for people.
    pub since_time: SystemTime,
    /// What went wrong last, and when; kept after the session is back.
    pub last_error: Option<(String, SystemTime)>,
    /// Why the peer is kept down, from its configuration.
    pub blocked: Option<String>,
    /// What was agreed with the peer; only while Established.
    pub negotiated: Option<Arc<Negotiated>>,
    /// Our end of the connection; only while Established.
    pub local_address: Option<SocketAddr>,
    /// The peer's end of the connection; only while Established.
    pub remote_address: Option<SocketAddr>,
    /// The routes of each configured family.
    pub families: BTreeMap<AfiSafi, FamilyStatus>,
    /// What was counted since the peer was added.
    pub counters: Counters,
}

/// The routes of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyStatus {
    /// Both sides offered the family, in this session.
    pub negotiated: bool,
    /// Prefixes that we want to advertise.
    pub originated: usize,
    /// Prefixes that the peer was sent and not withdrawn.
    pub advertised: usize,
    /// Prefixes of the peer that the import rules accepted.
    pub accepted: usize,
    /// Of those, how many wait for a restarting peer to send them again.
    pub stale: usize,
    /// Announcements of the peer that were refused, in this session.
    pub rejected: u64,
    /// Why some or all of what is originated is not advertised.
    pub not_advertised: Option<String>,
    /// We sent End-of-RIB in this session.
    pub end_of_rib_sent: bool,
    /// The peer sent End-of-RIB in this session.
    pub end_of_rib_received: bool,
}

/// What was counted since the peer was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How often the session became Established.
    pub established: u64,
    /// How often it was lost after that.
    pub lost: u64,
    /// UPDATE messages that came.
    pub updates_received: u64,
    /// UPDATE messages that left.
    pub updates_sent: u64,
    /// Messages of every kind that came.
    pub messages_received: u64,
    /// Messages of every kind that left.
    pub messages_sent: u64,
    /// UPDATEs in which RFC 7606 found something and the session went on.
    pub malformed_updates: u64,
}
