//! What the peers taught us and the kernel shall know: the best paths over all peers, with their equals.
use std::{collections::BTreeMap, net::IpAddr};

use plainroute_bgp::Prefix;

use crate::PeerName;

/// Accepted routes with `install: true`: for each prefix the best path and those equal to it, by peer.
pub type Learned = BTreeMap<Prefix, Vec<LearnedPath>>;

/// One way to a prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LearnedPath {
    /// Who taught it.
    pub peer: PeerName,
    /// Where to send.
    pub next_hop: IpAddr,
    /// Over which interface, where the next hop is link-local.
    pub interface: Option<String>,
    /// The peer is restarting and has not confirmed the route yet; it still forwards (RFC 4724).
    pub stale: bool,
}
