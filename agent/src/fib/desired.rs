//! What the kernel should hold, said without kernel words: the input of [`run`](super::run).
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use plainroute_bgp::Prefix;

use super::Rule;

/// The number of the kernel's main table.
pub const TABLE_MAIN: u32 = 254;

/// Names one route of ours: at most one per prefix and table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The kernel's table number; [`TABLE_MAIN`] for the main one.
    pub table: u32,
    /// The destination.
    pub prefix: Prefix,
}

impl RouteKey {
    /// A route in the main table.
    pub fn main(prefix: Prefix) -> RouteKey {
        RouteKey { table: TABLE_MAIN, prefix }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            TABLE_MAIN => write!(f, "{}", self.prefix),
            table => write!(f, "{} table {table}", self.prefix),
        }
    }
}

/// Where packets for a destination go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Straight out of an interface: a /32 or /128 towards a Pod's host interface, link scope.
    Device {
        /// The interface's name; it may appear later.
        interface: String,
    },
    /// Through one or several gateways of equal weight. Order and repetition mean nothing.
    Via {
        /// The gateways; none at all is a failure of the route, not a silent drop.
        next_hops: Vec<NextHop>,
    },
    /// Answered with ICMP unreachable.
    Unreachable,
    /// Dropped silently.
    Blackhole,
    /// The node's own: it arrives here. Such a route does what an address on the loopback device would, is never chosen as
    /// a source by the kernel, and carries our protocol number.
    Local,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Device { interface } => write!(f, "dev {interface}"),
            Target::Via { next_hops } => {
                for (position, hop) in next_hops.iter().enumerate() {
                    let separator = if position == 0 { "" } else { ", " };
                    write!(f, "{separator}via {hop}")?;
                }
                Ok(())
            }
            Target::Unreachable => f.write_str("unreachable"),
            Target::Blackhole => f.write_str("blackhole"),
            Target::Local => f.write_str("local"),
        }
    }
}

/// One gateway. An IPv6 gateway of an IPv4 route is allowed (RFC 8950).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The gateway's address.
    pub gateway: IpAddr,
    /// The interface towards it: required for a link-local gateway, else the kernel finds it.
    pub interface: Option<String>,
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{} dev {interface}", self.gateway),
            None => write!(f, "{}", self.gateway),
        }
    }
}

/// The whole of what is wanted; each value replaces the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Chosen by whoever makes the value, growing; [`Installed`](super::Installed) says which one it reflects.
    pub generation: u64,
    /// The routes that the agent owns.
    pub routes: BTreeMap<RouteKey, Target>,
    /// The policy rules that the agent owns.
    pub rules: BTreeSet<Rule>,
    /// Addresses to which somebody else's route must lead; reported as delivery, never changed.
    pub verify: BTreeSet<IpAddr>,
    /// The BGP peers' addresses: a route towards one of them leads away from the node.
    pub peers: BTreeSet<IpAddr>,
    /// Interfaces with a peer behind them whose address does not tell so, as with link-local peers.
    pub peer_interfaces: BTreeSet<String>,
    /// Whether this comes from a full plan. Until then routes are added and repaired, and none is deleted.
    pub complete: bool,
}
