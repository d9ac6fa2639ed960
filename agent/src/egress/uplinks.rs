//! The interfaces by which packets of other nodes' Pods come in: those towards the routers and the other nodes.
use std::{collections::BTreeSet, net::IpAddr};

use plainroute_bgp::Prefix;

use crate::{
    fib::{Installed, Interface},
    plan::{PeerPlan, Plan},
};

/// Their names.
pub(super) fn uplinks(plan: &Plan, installed: &Installed) -> BTreeSet<String> {
    let peers = plan.peers.iter().filter_map(PeerPlan::global_address);
    let gateways =
        plan.egresses.iter().flat_map(|egress| &egress.addresses).flat_map(|address| &address.gateways);
    let others = gateways.filter(|gateway| gateway.node != plan.node).map(|gateway| gateway.address);
    let neighbours: BTreeSet<IpAddr> = peers.chain(others).collect();
    let towards = |interface: &Interface| {
        let mut subnets =
            interface.addresses.iter().filter_map(|(address, length)| Prefix::new(*address, *length).ok());
        subnets.any(|subnet| neighbours.iter().any(|neighbour| subnet.contains_address(*neighbour)))
    };
    let by_address =
        installed.interfaces.iter().filter(|(_, interface)| !interface.loopback && towards(interface));
    let by_address = by_address.map(|(name, _)| name.clone());
    let by_peer = plan.peers.iter().filter_map(PeerPlan::interface).map(str::to_owned);
    let by_default = installed.default_gateways.iter().map(|gateway| gateway.interface.clone());
    by_address.chain(by_peer).chain(by_default).collect()
}
