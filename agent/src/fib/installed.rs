//! What the kernel holds, seen from what was desired: the output of [`run`](super::run).
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use super::{RouteKey, Rule, Target};

/// The state of the kernel after the last pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// The [`Desired::generation`](super::Desired::generation) that this reflects.
    pub generation: u64,
    /// Whether the kernel has been read at least once. Before, everything below is empty and means nothing.
    pub synced: bool,
    /// For each desired route, how it fared.
    pub routes: BTreeMap<RouteKey, RouteStatus>,
    /// The policy rules of ours in the kernel.
    pub rules: BTreeSet<Rule>,
    /// Those that are desired and that the kernel refuses, and why.
    pub refused_rules: BTreeMap<Rule, String>,
    /// Routes of ours in the kernel that nobody desires, kept until a complete plan says so.
    pub stale: BTreeMap<RouteKey, Target>,
    /// For each address to verify, whether and how this node delivers to it.
    pub delivery: BTreeMap<IpAddr, Delivery>,
    /// The node's interfaces by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// The gateways of the main table's best default routes that are not ours; IPv4 first.
    pub default_gateways: Vec<DefaultGateway>,
    /// What the task has met since it was started.
    pub counters: Counters,
}

/// Totals since the task was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Routes of ours that somebody or something had removed or changed and that were put right.
    pub repairs: u64,
    /// Times that the kernel had more events than the buffer held, each followed by reading everything.
    pub overruns: u64,
}

impl Installed {
    /// Whether packets for `key` leave where it was desired.
    pub fn delivers(&self, key: &RouteKey) -> bool {
        self.routes.get(key).is_some_and(RouteStatus::delivers)
    }
}

/// How a desired route fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteStatus {
    /// It is in the kernel and it is the one that packets take.
    Installed,
    /// It is in the kernel, but a route of somebody else with a smaller metric takes the packets.
    Shadowed {
        /// The other route.
        by: ForeignRoute,
        /// Whether the other one leads to the same place, so that delivery is as desired.
        agrees: bool,
    },
    /// It is in the kernel, but no interface that it leaves by is up and has carrier.
    LinkDown {
        /// The interface.
        interface: String,
    },
    /// Somebody else's route holds this prefix with our metric; theirs stays.
    Conflict {
        /// The other route.
        by: ForeignRoute,
    },
    /// It is not in the kernel; it is tried again when a link or an address changes, and with backoff.
    Failed {
        /// What the kernel or we said, naming the interface or gateway.
        reason: String,
    },
}

impl RouteStatus {
    /// Whether packets for the prefix leave where it was desired.
    pub fn delivers(&self) -> bool {
        match self {
            RouteStatus::Installed | RouteStatus::Shadowed { agrees: true, .. } => true,
            RouteStatus::Shadowed { agrees: false, .. }
            | RouteStatus::LinkDown { .. }
            | RouteStatus::Conflict { .. }
            | RouteStatus::Failed { .. } => false,
        }
    }
}

impl fmt::Display for RouteStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteStatus::Installed => f.write_str("installed"),
            RouteStatus::Shadowed { by, agrees: true } => write!(f, "installed, and {by} leads there first"),
            RouteStatus::Shadowed { by, agrees: false } => {
                write!(f, "shadowed by {by}, which leads elsewhere")
            }
            RouteStatus::LinkDown { interface } => write!(f, "interface {interface} is down"),
            RouteStatus::Conflict { by } => write!(f, "conflict: {by} holds the prefix with our metric"),
            RouteStatus::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

/// A route that is not ours, as an operator would look for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRoute {
    /// The protocol's name as `ip route` prints it, or its number.
    pub protocol: String,
    /// The metric, 0 being the strongest for IPv4.
    pub metric: u32,
    /// Where it leads, in words: `dev veth1`, `via 10.0.0.1 dev eth0`, `unreachable`.
    pub target: String,
}

impl fmt::Display for ForeignRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a route of protocol {} ({} metric {})", self.protocol, self.target, self.metric)
    }
}

/// Whether and how the node delivers to an address by routes that are not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A route more specific than the default leads to it, over a device that is up.
    Via {
        /// The interface that packets leave by; the first in kernel order when there are several.
        interface: String,
        /// The gateway, when the address is not on the link.
        gateway: Option<IpAddr>,
    },
    /// A route leads to it, but its interface is down or has no carrier.
    LinkDown {
        /// The interface.
        interface: String,
    },
    /// The best route drops or rejects packets for it.
    Rejected {
        /// `unreachable`, `blackhole`, `prohibit` or `throw`.
        kind: String,
    },
    /// The best route leaves towards a BGP peer, so packets for it would come back.
    TowardsPeer {
        /// The interface that packets leave by: the one that leads to a peer.
        interface: String,
    },
    /// The best route is one of ours, so it proves nothing: we made it.
    OwnRoute,
    /// The address is the node's own, or only the loopback device leads to it.
    Loopback,
    /// Nothing but a default route leads to it.
    OnlyDefault,
    /// Nothing leads to it.
    NoRoute,
}

impl Delivery {
    /// Whether the node delivers.
    pub fn delivers(&self) -> bool {
        matches!(self, Delivery::Via { .. })
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Delivery::Via { interface, gateway: Some(gateway) } => write!(f, "via {gateway} dev {interface}"),
            Delivery::Via { interface, gateway: None } => write!(f, "dev {interface}"),
            Delivery::LinkDown { interface } => write!(f, "interface {interface} is down"),
            Delivery::Rejected { kind } => write!(f, "the kernel's route for it is {kind}"),
            Delivery::TowardsPeer { interface } => {
                write!(f, "its route leaves towards a BGP peer dev {interface}")
            }
            Delivery::OwnRoute => f.write_str("only a route of our own leads to it"),
            Delivery::Loopback => f.write_str("only the loopback device leads to it"),
            Delivery::OnlyDefault => f.write_str("only a default route leads to it"),
            Delivery::NoRoute => f.write_str("no route leads to it"),
        }
    }
}

/// A network interface of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index.
    pub index: u32,
    /// Administratively up, and with carrier.
    pub up: bool,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// Its addresses with prefix lengths, in kernel order; tentative and failed IPv6 ones are left out.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A gateway of a default route that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefaultGateway {
    /// The gateway's address.
    pub gateway: IpAddr,
    /// The interface towards it.
    pub interface: String,
}
