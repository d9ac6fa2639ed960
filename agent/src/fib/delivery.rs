//! Whether the node delivers to an address by routes that are not ours: pure, read from the main table.
//!
//! It answers what `ip route get` would, and then asks one thing more: does the packet stay on this node's side?
//! A route that leaves by an interface towards a BGP peer would bring the packet back to where it came from.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use plainroute_bgp::{AfiSafi, Prefix};

use super::{
    DefaultGateway, Delivery, Desired, RouteKey, TABLE_MAIN,
    kernel::{Kernel, KernelRoute, Mark, RouteKind},
};

/// The longest match in the main table.
struct Lookup<'a> {
    kernel: &'a Kernel,
    /// The prefix lengths that occur, longest first: a table has a handful of them, not 129.
    lengths: BTreeSet<(AfiSafi, std::cmp::Reverse<u8>)>,
}

impl<'a> Lookup<'a> {
    fn new(kernel: &'a Kernel) -> Lookup<'a> {
        let main = kernel.routes.keys().filter(|key| key.table == TABLE_MAIN);
        let lengths = main.map(|key| (key.prefix.family(), std::cmp::Reverse(key.prefix.length()))).collect();
        Lookup { kernel, lengths }
    }

    /// The route that packets for `address` take.
    fn best(&self, address: IpAddr) -> Option<&'a KernelRoute> {
        let family = Prefix::host(address).family();
        let lengths = self.lengths.iter().filter(|(of, _)| *of == family);
        lengths.map(|(_, length)| length.0).find_map(|length| {
            let prefix = Prefix::new(address, length).ok()?;
            let routes = self.kernel.routes(&RouteKey { table: TABLE_MAIN, prefix }).iter();
            // `min_by_key` keeps the first of equals, as the kernel does.
            routes.filter(|route| route.tos == 0).min_by_key(|route| route.metric)
        })
    }

    /// The interfaces by which packets for the peers leave.
    fn peer_interfaces(&self, desired: &Desired) -> BTreeSet<u32> {
        let named = desired.peer_interfaces.iter().filter_map(|name| self.kernel.link_by_name(name));
        let named = named.map(|(index, _)| index);
        let routes = desired.peers.iter().filter_map(|peer| self.best(*peer));
        named.chain(routes.flat_map(|route| &route.hops).filter_map(|hop| hop.interface)).collect()
    }
}

/// How the node delivers to each address of [`Desired::verify`].
pub(super) fn deliveries(desired: &Desired, kernel: &Kernel, mark: Mark) -> BTreeMap<IpAddr, Delivery> {
    let lookup = Lookup::new(kernel);
    let peer_interfaces = lookup.peer_interfaces(desired);
    let links = kernel.links().values();
    let own: BTreeSet<IpAddr> =
        links.flat_map(|link| link.addresses.iter().map(|(address, _)| *address)).collect();
    let delivery = |address: &IpAddr| match lookup.best(*address) {
        _ if own.contains(address) => Delivery::Loopback,
        None => Delivery::NoRoute,
        Some(route) => by_route(route, desired, kernel, mark, &peer_interfaces),
    };
    desired.verify.iter().map(|address| (*address, delivery(address))).collect()
}

fn by_route(
    route: &KernelRoute,
    desired: &Desired,
    kernel: &Kernel,
    mark: Mark,
    peer_interfaces: &BTreeSet<u32>,
) -> Delivery {
    if route.kind != RouteKind::Unicast {
        return Delivery::Rejected { kind: route.kind.to_string() };
    }
    // A peer among several next hops is enough: some packets would come back.
    let towards_peer = route.hops.iter().find(|hop| {
        hop.gateway.is_some_and(|gateway| desired.peers.contains(&gateway))
            || hop.interface.is_some_and(|index| peer_interfaces.contains(&index))
    });
    let name = |index: Option<u32>| index.map_or_else(String::new, |index| kernel.name(index));
    if route.key.prefix.is_default() {
        return Delivery::OnlyDefault;
    }
    if let Some(hop) = towards_peer {
        return Delivery::TowardsPeer { interface: name(hop.interface) };
    }
    if route.is_marked(mark) {
        return Delivery::OwnRoute;
    }
    match kernel.live_hops(route).next() {
        Some((_, link)) if link.loopback => Delivery::Loopback,
        Some((hop, link)) => Delivery::Via { interface: link.name.clone(), gateway: hop.gateway },
        None => Delivery::LinkDown { interface: name(route.hops.first().and_then(|hop| hop.interface)) },
    }
}

/// The gateways of each family's best default route that is not ours.
pub(super) fn default_gateways(kernel: &Kernel, mark: Mark) -> Vec<DefaultGateway> {
    let unspecified: [IpAddr; 2] = [[0u8; 4].into(), [0u8; 16].into()];
    let mut gateways = Vec::new();
    for prefix in unspecified.iter().filter_map(|address| Prefix::new(*address, 0).ok()) {
        let routes = kernel.routes(&RouteKey::main(prefix)).iter();
        let foreign = routes.filter(|route| route.tos == 0 && !route.is_marked(mark));
        let Some(best) = foreign.min_by_key(|route| route.metric) else { continue };
        gateways.extend(best.hops.iter().filter_map(|hop| {
            Some(DefaultGateway { gateway: hop.gateway?, interface: kernel.name(hop.interface?) })
        }));
    }
    gateways
}
