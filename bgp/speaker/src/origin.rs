//! Routes of our own on their way out, and routes as the looking glass shows them.
use std::{net::IpAddr, sync::Arc};

use plainroute_bgp::{
    Community, ExtendedCommunity, LargeCommunity, Prefix,
    wire::{NextHop, PathAttributes},
};

use crate::PeerName;

/// A prefix to be advertised to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Originated {
    /// To whom.
    pub peer: PeerName,
    /// What.
    pub prefix: Prefix,
    /// With which attributes; share the `Arc` among prefixes, so that they leave in the same UPDATE cheaply.
    pub attributes: Arc<OriginAttributes>,
}

/// A change of what is advertised to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// To whom.
    pub peer: PeerName,
    /// What.
    pub prefix: Prefix,
    /// With which attributes from now on; `None`: it is withdrawn.
    pub attributes: Option<Arc<OriginAttributes>>,
}

/// What the originator chooses. ORIGIN, AS_PATH and NEXT_HOP (ourselves) are added for each session.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginAttributes {
    /// COMMUNITIES.
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY.
    pub large_communities: Vec<LargeCommunity>,
    /// LOCAL_PREF; sent to internal peers only, 100 where absent.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How often our AS is prepended beyond the once that every external peer sees.
    pub as_path_prepend: u8,
    /// The route is to go away soon: GRACEFUL_SHUTDOWN, and for internal peers the lowest LOCAL_PREF, so that
    /// traffic moves before it does (RFC 8326 section 4.1).
    pub drain: bool,
}

/// A route as it was sent to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisedRoute {
    /// The prefix.
    pub prefix: Prefix,
    /// The next hop that was sent.
    pub next_hop: NextHop,
    /// The attributes that were sent.
    pub attributes: Arc<PathAttributes>,
}

/// A route that a peer sent and the import rules accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRoute {
    /// The prefix.
    pub prefix: Prefix,
    /// The next hop as the peer gave it.
    pub next_hop: NextHop,
    /// The attributes.
    pub attributes: Arc<PathAttributes>,
    /// Whether it is for the kernel too.
    pub install: bool,
    /// The peer is restarting and has not sent it again yet (RFC 4724).
    pub stale: bool,
}

impl ReceivedRoute {
    /// The next hop as one address: the link-local one where both came.
    pub fn next_hop_address(&self) -> IpAddr {
        next_hop_address(self.next_hop)
    }
}

/// The address to forward to: a link-local next hop is preferred (RFC 2545 section 3).
pub(crate) fn next_hop_address(next_hop: NextHop) -> IpAddr {
    match next_hop {
        NextHop::V4(address) => IpAddr::V4(address),
        NextHop::V6 { global, link_local } => IpAddr::V6(link_local.unwrap_or(global)),
    }
}
