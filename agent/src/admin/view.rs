//! What the admin socket answers, as values: stable camelCase JSON. The command line reads the same types back.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

pub use crate::ipam::{Against, Disagreement};

use crate::{
    bfd::protocol::BfdView,
    drain::{AskedBy, DrainState},
    index::HeldReason,
    plan::{Delivery, FoundBy},
};

/// One BGP peer of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// The name of the session: the BGPPeer's, or `NAME@ADDRESS` for each router that its `autoDiscovery` finds or that
    /// connects from within its `listenRange`.
    pub name: String,
    /// Its address; all zeros where it has not been found, and of a range.
    pub address: IpAddr,
    /// The interface that it is reached by, where its address alone does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// How its address is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_by: Option<FoundBy>,
    /// Our AS towards it.
    #[serde(rename = "localASN")]
    pub local_asn: u32,
    /// Its AS.
    #[serde(rename = "peerASN")]
    pub peer_asn: u32,
    /// From where peers may connect, where this stands for all of them; each that does follows by its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeView>,
    /// The BGPPeer within whose `listenRange` it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_of: Option<String>,
    /// The state of the session, in the words of RFC 4271; `Listening` of a range.
    pub state: String,
    /// When it entered the state.
    pub since: jiff::Timestamp,
    /// Seconds in this state.
    pub seconds_in_state: u64,
    /// Our end of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<String>,
    /// The peer's BGP Identifier, while Established.
    #[serde(rename = "peerRouterID", default, skip_serializing_if = "Option::is_none")]
    pub peer_router_id: Option<String>,
    /// The negotiated hold time in seconds, while Established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time_seconds: Option<u16>,
    /// What both sides agreed on, while Established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiated: Option<NegotiatedView>,
    /// Routes by family.
    pub families: BTreeMap<String, FamilyView>,
    /// Why it is kept down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_time: Option<jiff::Timestamp>,
    /// How often the session was Established.
    pub established_count: u64,
    /// How often it was lost after that.
    pub lost_count: u64,
    /// UPDATEs received.
    pub updates_received: u64,
    /// UPDATEs sent.
    pub updates_sent: u64,
    /// UPDATEs in which RFC 7606 found something and the session went on.
    pub malformed_updates: u64,
    /// What the kernel dropped for its TCP MD5 signature since the session was last Established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5_failures: Option<Md5FailuresView>,
    /// How segments are signed.
    #[serde(default)]
    pub authentication: AuthenticationView,
    /// What the kernel dropped for its TCP-AO since the session was last Established.
    #[serde(rename = "tcpAOFailures", default, skip_serializing_if = "Option::is_none")]
    pub tcp_ao_failures: Option<TcpAoFailuresView>,
    /// The BFD session with it, where `spec.bfd` asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdView>,
}

impl PeerView {
    /// The address with the interface where that belongs to it; none where the peer has not been found.
    pub fn place(&self) -> Option<String> {
        let link_local = matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local());
        if let Some(range) = &self.range {
            return Some(range.cidr.clone());
        }
        match &self.interface {
            _ if self.address.is_unspecified() => None,
            Some(interface) if link_local => Some(format!("{}%{interface}", self.address)),
            Some(_) | None => Some(self.address.to_string()),
        }
    }

    /// Whether nothing is wrong with it: the session is up, or the range is listened for.
    pub fn is_well(&self) -> bool {
        self.is_established() || (self.range.is_some() && self.blocked.is_none())
    }

    /// Whether the session is up.
    pub fn is_established(&self) -> bool {
        self.state == "Established"
    }
}

/// From where peers may connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RangeView {
    /// The range.
    pub cidr: String,
    /// How many peers there are.
    pub peers: usize,
    /// How many there may be.
    pub max_peers: usize,
    /// How many connections were refused because there were as many as may be.
    pub refused: u64,
}

/// What both sides of a session agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NegotiatedView {
    /// The peer has AS numbers of four octets (RFC 6793).
    #[serde(rename = "fourOctetASN")]
    pub four_octet_asn: bool,
    /// It understands a route refresh (RFC 2918).
    pub route_refresh: bool,
    /// Both mark the begin and the end of a refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// The longest message that we may send, in octets: 4096, or 65535 (RFC 8654).
    pub longest_sent: usize,
    /// The longest that we take.
    pub longest_received: usize,
    /// The families of which the peer sends several paths for a prefix (RFC 7911).
    pub add_path_receive: Vec<String>,
    /// What we are to the peer (RFC 9234).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What the peer says that it is to us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_role: Option<String>,
    /// Graceful restart, where both offer it (RFC 4724).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<NegotiatedRestartView>,
}

/// Graceful restart as both sides agreed on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NegotiatedRestartView {
    /// Seconds that we keep the peer's routes while it is away.
    pub restart_time_seconds: u64,
    /// The families whose routes we keep.
    pub families: Vec<String>,
    /// Routes stay after a NOTIFICATION too, unless it is a Hard Reset (N bit, RFC 8538).
    pub notification: bool,
    /// The families of which we keep routes longer than that as a last resort (RFC 9494), each with its seconds.
    pub long_lived_stale_time_seconds: BTreeMap<String, u64>,
}

impl NegotiatedView {
    /// What goes beyond the plainest session, in words for a table.
    pub fn words(&self) -> String {
        let add_path = !self.add_path_receive.is_empty();
        let words = [
            (self.extended_next_hop, "ext-nexthop".to_owned()),
            (self.enhanced_refresh, "enhanced-refresh".to_owned()),
            (self.longest_sent > 4096 || self.longest_received > 4096, "ext-messages".to_owned()),
            (add_path, "add-path".to_owned()),
            (self.role.is_some(), format!("role={}", self.role.as_deref().unwrap_or_default())),
            (self.graceful_restart.is_some(), "restart".to_owned()),
            (self.graceful_restart.as_ref().is_some_and(|restart| restart.notification), "n-bit".to_owned()),
            (!self.four_octet_asn, "2-octet-as".to_owned()),
            (!self.route_refresh, "no-refresh".to_owned()),
        ];
        let said: Vec<String> = words.into_iter().filter(|(said, _)| *said).map(|(_, word)| word).collect();
        if said.is_empty() { "-".to_owned() } else { said.join(",") }
    }
}

/// Segments that the kernel of the node dropped for their TCP MD5 signature. It does not tell peers apart: these are
/// of all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Md5FailuresView {
    /// Without a signature where we have a password.
    pub not_found: u64,
    /// With a signature where we have no password.
    pub unexpected: u64,
    /// With a wrong signature: the passwords differ.
    pub failure: u64,
}

/// How the segments of a session are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationView {
    /// `None`, `MD5` (RFC 2385) or `TCP-AO` (RFC 5925).
    pub method: String,
    /// TCP-AO: the send ID of the key that we sign with, while Established.
    #[serde(rename = "currentKeyID", default, skip_serializing_if = "Option::is_none")]
    pub current_key_id: Option<u8>,
    /// TCP-AO: the receive ID of the key that we ask the peer to sign with, while Established.
    #[serde(rename = "nextKeyID", default, skip_serializing_if = "Option::is_none")]
    pub next_key_id: Option<u8>,
    /// TCP-AO: keys that the configuration has no more and that are still in use, as `SEND/RECEIVE` IDs. They go when
    /// neither side uses them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retiring_keys: Vec<String>,
}

/// Segments that the kernel of the node dropped for their TCP-AO. It does not tell peers apart: these are of all
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpAoFailuresView {
    /// Without TCP-AO where we have keys.
    pub required: u64,
    /// With a wrong signature: the secrets or the algorithms differ.
    pub bad: u64,
    /// With a KeyID that we have no key for.
    pub key_not_found: u64,
}

/// The routes of one family on one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyView {
    /// Both sides offered it.
    pub negotiated: bool,
    /// Prefixes that we want to advertise.
    pub originated: usize,
    /// Prefixes that the peer was sent.
    pub advertised: usize,
    /// Prefixes of the peer that the import rules accepted.
    pub accepted: usize,
    /// Of those, how many wait for a restarting peer to confirm them.
    pub stale: usize,
    /// Announcements that were refused.
    pub rejected: u64,
    /// Why not all that is originated is advertised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_advertised: Option<String>,
}

/// One route of the looking glass: as sent to, or as received from, a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// The peer.
    pub peer: String,
    /// The prefix.
    pub prefix: String,
    /// The next hop on the wire.
    pub next_hop: String,
    /// The AS path, written as routers do.
    pub as_path: String,
    /// MULTI_EXIT_DISC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// Standard communities.
    pub communities: Vec<String>,
    /// Extended communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended_communities: Vec<String>,
    /// Large communities.
    pub large_communities: Vec<String>,
    /// Whose address it is, for routes of ours: NAMESPACE/POD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Received only: meant for the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<bool>,
    /// Received only: the peer is restarting and has not confirmed it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<bool>,
}

/// One route that the agent keeps, or would keep, in the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelRouteView {
    /// The prefix.
    pub prefix: String,
    /// The kernel's table.
    pub table: u32,
    /// Where it leads.
    pub target: String,
    /// Whether packets really take it.
    pub installed: bool,
    /// How it fares, in words.
    pub status: String,
    /// Whose route it is: a Pod's (NAMESPACE/POD), or `learned` where peers taught it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// One address of one Pod, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// The namespace.
    pub namespace: String,
    /// The Pod.
    pub pod: String,
    /// The address; none where the Pod has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The pool that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// How the node delivers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Whether the kernel does deliver.
    pub delivered: bool,
    /// Whether it is advertised.
    pub advertised: bool,
    /// To whom.
    pub peers: Vec<String>,
    /// Why it is not advertised, in a word: a reason of the plan, or `NotDelivered` where the kernel is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is not advertised, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The answer to `plainroute explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What was asked.
    pub subject: String,
    /// One for each address that the question is about.
    pub addresses: Vec<AddressExplanation>,
    /// What else is known of the subject, or that nothing is.
    pub notes: Vec<String>,
}

/// How one address fares, rule by rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressExplanation {
    /// NAMESPACE/POD.
    pub pod: String,
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Whether it is advertised to at least one peer.
    pub advertised: bool,
    /// Why not, in a word: a reason of the plan, or `NotDelivered` where the kernel is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rules in the order in which they are asked, up to the one that refuses.
    pub steps: Vec<Step>,
    /// By which Egress and gateway packets of the address leave; nothing where no Egress is about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub way_out: Vec<Step>,
}

/// One rule and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Whether the rule lets the address pass.
    pub ok: bool,
    /// What was found.
    pub text: String,
}

/// How far the node is drained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainView {
    /// How far.
    pub state: DrainState,
    /// Who asks for it; it ends when nobody does.
    #[serde(default)]
    pub asked_by: BTreeSet<AskedBy>,
    /// Seconds until the routes are withdrawn, while it is being drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraws_in_seconds: Option<u64>,
    /// Routes that are still advertised, each counted once a peer.
    pub advertised: usize,
}

/// A monitoring station (BMP) and how its connection fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StationView {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether the connection stands.
    pub connected: bool,
    /// What went wrong last; kept after the connection is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How often the connection came about.
    pub connections: u64,
    /// How often it was closed because the station did not read as fast as things happened.
    pub overflows: u64,
    /// Messages that were handed to TCP.
    pub messages_sent: u64,
    /// Octets that were handed to TCP.
    pub octets_sent: u64,
}

/// An object that the API server has no more, and that stays in force until somebody confirms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldView {
    /// The object, like `BGPPeer/tor-a`.
    pub object: String,
    /// Since when it is held.
    pub since: jiff::Timestamp,
    /// Why, in a word.
    pub reason: HeldReason,
    /// Why, in a sentence.
    pub message: String,
}

/// The answer to `plainroute check`: how the agent itself is, and what is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The node.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// When the agent started.
    pub started: jiff::Timestamp,
    /// Every source has delivered its first complete set, and the kernel has answered to the first plan.
    pub ready: bool,
    /// What is still awaited before the first plan.
    pub awaited: Vec<String>,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
    /// What is as it should be, but worth knowing, one line each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The monitoring stations, where there are any. One that is away is worth a note and no problem of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stations: Vec<StationView>,
}

/// The answer to `plainroute pools check`: what does not fit together of the addresses that this node gives out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolsCheck {
    /// The node.
    pub node: String,
    /// What was mended, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mended: Vec<Disagreement>,
    /// What does not fit together, by address or block.
    pub disagreements: Vec<Disagreement>,
    /// What could not be compared, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}
