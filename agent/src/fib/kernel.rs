//! The kernel's routes and links as plain values, as last read and as changed by us since.
//!
//! Everything that is decided is decided on these values; netlink only fills them in and carries changes out.
use std::{collections::BTreeMap, fmt, net::IpAddr};

use plainroute_bgp::Prefix;

use super::{Interface, NextHop, RouteKey, Target};

/// What makes a route ours: both numbers, not one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) protocol: u8,
    pub(super) metric: u32,
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RouteKind {
    Unicast,
    Blackhole,
    Unreachable,
    Prohibit,
    Throw,
    /// To the node itself.
    Local,
    /// Broadcast, anycast and whatever else is not a way to another host.
    Other(u8),
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteKind::Unicast => f.write_str("unicast"),
            RouteKind::Blackhole => f.write_str("blackhole"),
            RouteKind::Unreachable => f.write_str("unreachable"),
            RouteKind::Prohibit => f.write_str("prohibit"),
            RouteKind::Throw => f.write_str("throw"),
            RouteKind::Local => f.write_str("local"),
            RouteKind::Other(number) => write!(f, "type {number}"),
        }
    }
}

/// One next hop of a route in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hop {
    pub(super) gateway: Option<IpAddr>,
    /// The interface's index. `None` in a wanted route leaves the choice to the kernel.
    pub(super) interface: Option<u32>,
    /// The kernel's weight less one: 0 is an equal share.
    pub(super) weight: u8,
    pub(super) onlink: bool,
}

/// One route of the kernel, with every part by which two routes can differ for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelRoute {
    pub(super) key: RouteKey,
    pub(super) tos: u8,
    pub(super) metric: u32,
    pub(super) protocol: u8,
    pub(super) kind: RouteKind,
    /// The scope's number; always 0 for IPv6, which has none.
    pub(super) scope: u8,
    /// Sorted, so that the kernel's order of next hops means nothing. Empty unless unicast.
    pub(super) hops: Vec<Hop>,
    pub(super) preferred_source: Option<IpAddr>,
    /// Whether it carries attributes that ours never have: MTU, encapsulation, next hop objects.
    pub(super) other_attributes: bool,
}

impl KernelRoute {
    pub(super) fn is_marked(&self, mark: Mark) -> bool {
        self.protocol == mark.protocol && self.metric == mark.metric && self.tos == 0
    }

    /// Whether this, found in the kernel, is what was wanted.
    pub(super) fn satisfies(&self, wanted: &KernelRoute) -> bool {
        self.key == wanted.key
            && self.tos == wanted.tos
            && self.metric == wanted.metric
            && self.protocol == wanted.protocol
            && self.scope == wanted.scope
            && self.preferred_source == wanted.preferred_source
            && self.other_attributes == wanted.other_attributes
            && self.leads_like(wanted)
    }

    /// Whether packets take the same way, whoever made the route.
    pub(super) fn leads_like(&self, wanted: &KernelRoute) -> bool {
        if self.kind != wanted.kind || self.hops.len() != wanted.hops.len() {
            return false;
        }
        if self.hops == wanted.hops {
            return true;
        }
        let mut left = self.hops.clone();
        // Wanted hops that name their interface choose first; sorting put those without in front.
        wanted.hops.iter().rev().all(|wanted| {
            let found = left.iter().position(|hop| hop.satisfies(wanted));
            found.map(|position| left.swap_remove(position)).is_some()
        })
    }
}

impl Hop {
    fn satisfies(&self, wanted: &Hop) -> bool {
        self.gateway == wanted.gateway
            && self.weight == wanted.weight
            && (wanted.interface.is_none() || self.interface == wanted.interface)
    }
}

/// A link and its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    /// Administratively up.
    pub(super) enabled: bool,
    pub(super) carrier: bool,
    pub(super) loopback: bool,
    pub(super) addresses: Vec<(IpAddr, u8)>,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        self.enabled && self.carrier
    }
}

/// One step towards what is desired. Each step only ever concerns a route of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Adds a route and fails if one with this prefix and metric exists, whoever owns it.
    Add(KernelRoute),
    /// Puts the second in the place of the first, without a moment in which there is neither.
    Replace(KernelRoute, KernelRoute),
    /// Removes exactly this route.
    Remove(KernelRoute),
}

impl Change {
    pub(super) fn key(&self) -> RouteKey {
        match self {
            Change::Add(route) | Change::Replace(_, route) | Change::Remove(route) => route.key,
        }
    }
}

/// The kernel as known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Of the main table and the desired ones every route, of other tables ours only; never an empty list.
    pub(super) routes: BTreeMap<RouteKey, Vec<KernelRoute>>,
    links: BTreeMap<u32, Link>,
    indices: BTreeMap<String, u32>,
}

impl Kernel {
    /// The routes for `key`, in the kernel's order.
    pub(super) fn routes(&self, key: &RouteKey) -> &[KernelRoute] {
        self.routes.get(key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn set_routes(&mut self, routes: Vec<KernelRoute>) {
        self.routes.clear();
        for route in routes {
            self.insert(route);
        }
    }

    pub(super) fn insert(&mut self, route: KernelRoute) {
        self.routes.entry(route.key).or_default().push(route);
    }

    /// What the kernel did when it accepted `change`.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Add(route) => self.insert(route),
            Change::Replace(old, new) => {
                let routes = self.routes.entry(new.key).or_default();
                match routes.iter_mut().find(|route| **route == old) {
                    Some(route) => *route = new,
                    None => routes.push(new),
                }
            }
            Change::Remove(old) => {
                if let Some(routes) = self.routes.get_mut(&old.key) {
                    if let Some(position) = routes.iter().position(|route| *route == old) {
                        routes.remove(position);
                    }
                    if routes.is_empty() {
                        self.routes.remove(&old.key);
                    }
                }
            }
        }
    }

    pub(super) fn set_links(&mut self, links: BTreeMap<u32, Link>) {
        self.indices = links.iter().map(|(index, link)| (link.name.clone(), *index)).collect();
        self.links = links;
    }

    pub(super) fn links(&self) -> &BTreeMap<u32, Link> {
        &self.links
    }

    pub(super) fn loopback(&self) -> Option<(u32, &Link)> {
        self.links.iter().find(|(_, link)| link.loopback).map(|(index, link)| (*index, link))
    }

    pub(super) fn link_by_name(&self, name: &str) -> Option<(u32, &Link)> {
        let index = *self.indices.get(name)?;
        Some((index, self.links.get(&index)?))
    }

    /// The interface whose connected subnet holds `gateway`, by the longest match.
    pub(super) fn connected(&self, gateway: IpAddr) -> Option<u32> {
        let mut best = None;
        for (index, link) in &self.links {
            for (address, length) in &link.addresses {
                let holds =
                    Prefix::new(*address, *length).is_ok_and(|prefix| prefix.contains_address(gateway));
                // A tie goes to a link that is up: the same subnet may stand on two.
                let rank = (*length, link.is_up());
                if holds && best.is_none_or(|(known, _)| rank > known) {
                    best = Some((rank, *index));
                }
            }
        }
        best.map(|(_, index)| index)
    }

    /// The hops of `route` whose interface is up.
    pub(super) fn live_hops<'a>(
        &'a self,
        route: &'a KernelRoute,
    ) -> impl Iterator<Item = (&'a Hop, &'a Link)> {
        route.hops.iter().filter_map(|hop| {
            let link = self.links.get(&hop.interface?)?;
            link.is_up().then_some((hop, link))
        })
    }

    pub(super) fn interfaces(&self) -> BTreeMap<String, Interface> {
        let interface = |(index, link): (&u32, &Link)| {
            let addresses = link.addresses.clone();
            let interface = Interface { index: *index, up: link.is_up(), loopback: link.loopback, addresses };
            (link.name.clone(), interface)
        };
        self.links.iter().map(interface).collect()
    }

    /// The route in the words of what is desired; `None` for what nobody can desire.
    pub(super) fn target(&self, route: &KernelRoute) -> Option<Target> {
        let interface = |hop: &Hop| hop.interface.map(|index| self.name(index));
        match (route.kind, route.hops.as_slice()) {
            (RouteKind::Unicast, [hop @ Hop { gateway: None, .. }]) => {
                Some(Target::Device { interface: interface(hop)? })
            }
            (RouteKind::Unicast, hops) => {
                let next_hop = |hop: &Hop| Some(NextHop { gateway: hop.gateway?, interface: interface(hop) });
                Some(Target::Via { next_hops: hops.iter().map(next_hop).collect::<Option<_>>()? })
            }
            (RouteKind::Unreachable, _) => Some(Target::Unreachable),
            (RouteKind::Blackhole, _) => Some(Target::Blackhole),
            (RouteKind::Local, _) => Some(Target::Local),
            (RouteKind::Prohibit | RouteKind::Throw | RouteKind::Other(_), _) => None,
        }
    }

    /// Where a route leads, as `ip route` would say it.
    pub(super) fn describe(&self, route: &KernelRoute) -> String {
        if route.kind != RouteKind::Unicast {
            return route.kind.to_string();
        }
        let hop = |hop: &Hop| {
            let gateway = hop.gateway.map(|gateway| format!("via {gateway}"));
            let device = hop.interface.map(|index| format!("dev {}", self.name(index)));
            [gateway, device].into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        route.hops.iter().map(hop).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("if{index}"), |link| link.name.clone())
    }
}
