//! From desired and known to the changes between them: pure, and the only place that decides on a change.
use std::collections::BTreeSet;

use plainroute_bgp::AfiSafi;

use super::{
    Desired, NextHop, RouteKey, Target,
    kernel::{Change, Hop, Kernel, KernelRoute, Link, Mark, RouteKind},
};

const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;

/// The changes that make `kernel` hold what is desired: what is missing or wrong first, then what is stale.
///
/// Routes that cannot be installed now (no such interface, link down) give no change; [`Wanting`] says why. Where
/// somebody else holds the same prefix with our metric, nothing is added: theirs stays.
pub(super) fn diff(desired: &Desired, kernel: &Kernel, mark: Mark) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut removals = Vec::new();
    let mut wanting = Wanting::new(kernel, mark);
    for (key, target) in &desired.routes {
        let Ok(wanted) = wanting.route(*key, target) else { continue };
        let known = kernel.routes(key);
        let contested = known.iter().any(|route| contests(route, mark));
        let mut ours = known.iter().filter(|route| route.is_marked(mark));
        let right = known.iter().position(|route| route.is_marked(mark) && route.satisfies(&wanted));
        match (right, contested) {
            (Some(right), _) => {
                let others = known.iter().enumerate().filter(|(position, _)| *position != right);
                removals.extend(others.map(|(_, route)| route).filter(|route| route.is_marked(mark)));
            }
            // The kernel replaces the first route of this metric, which may be theirs.
            (None, true) => removals.extend(ours),
            (None, false) => {
                changes.push(match ours.next() {
                    Some(wrong) => Change::Replace(wrong.clone(), wanted),
                    None => Change::Add(wanted),
                });
                removals.extend(ours);
            }
        }
    }
    if desired.complete {
        changes.extend(removals.into_iter().chain(stale(desired, kernel, mark)).cloned().map(Change::Remove));
    }
    changes
}

/// Routes of ours that nobody desires.
pub(super) fn stale<'a>(
    desired: &'a Desired,
    kernel: &'a Kernel,
    mark: Mark,
) -> impl Iterator<Item = &'a KernelRoute> {
    let undesired = kernel.routes.iter().filter(|(key, _)| !desired.routes.contains_key(key));
    undesired.flat_map(|(_, routes)| routes).filter(move |route| route.is_marked(mark))
}

/// Whether a route is not ours but would be taken for it by the kernel.
pub(super) fn contests(route: &KernelRoute, mark: Mark) -> bool {
    route.metric == mark.metric && route.tos == 0 && !route.is_marked(mark)
}

/// Turns targets into the routes to install. Neighbours in a table mostly lead to the same place, which is then looked
/// up once.
pub(super) struct Wanting<'a> {
    kernel: &'a Kernel,
    mark: Mark,
    last: Option<(&'a Target, AfiSafi, Result<Way, String>)>,
}

/// Where a route leads, in the kernel's terms.
#[derive(Clone, Debug)]
struct Way {
    kind: RouteKind,
    scope: u8,
    hops: Vec<Hop>,
}

impl<'a> Wanting<'a> {
    pub(super) fn new(kernel: &'a Kernel, mark: Mark) -> Wanting<'a> {
        Wanting { kernel, mark, last: None }
    }

    /// The route to install for a target, or why there can be none now.
    ///
    /// Of several gateways those whose link is missing or down are left out, so that the others carry on.
    pub(super) fn route(&mut self, key: RouteKey, target: &'a Target) -> Result<KernelRoute, String> {
        let family = key.prefix.family();
        let way = match &self.last {
            Some((last, of, way)) if *last == target && *of == family => way.clone(),
            _ => {
                let way = way(family, target, self.kernel);
                self.last = Some((target, family, way.clone()));
                way
            }
        };
        let Way { kind, scope, hops } = way?;
        Ok(KernelRoute {
            key,
            tos: 0,
            metric: self.mark.metric,
            protocol: self.mark.protocol,
            kind,
            scope,
            hops,
            preferred_source: None,
            other_attributes: false,
        })
    }
}

fn way(family: AfiSafi, target: &Target, kernel: &Kernel) -> Result<Way, String> {
    let mut scope = SCOPE_UNIVERSE;
    let (kind, mut hops) = match target {
        Target::Device { interface } => {
            if family == AfiSafi::Ipv4Unicast {
                scope = SCOPE_LINK;
            }
            let (index, _) = usable(interface, kernel)?;
            (RouteKind::Unicast, vec![hop(None, Some(index))])
        }
        Target::Via { next_hops } => (RouteKind::Unicast, gateways(family, next_hops, kernel)?),
        Target::Unreachable => (RouteKind::Unreachable, Vec::new()),
        Target::Blackhole => (RouteKind::Blackhole, Vec::new()),
        Target::Local => {
            if family == AfiSafi::Ipv4Unicast {
                scope = SCOPE_HOST;
            }
            let (index, _) = kernel.loopback().ok_or("there is no loopback interface")?;
            (RouteKind::Local, vec![hop(None, Some(index))])
        }
    };
    hops.sort_unstable();
    Ok(Way { kind, scope, hops })
}

/// The usable gateways: those with carrier, or if no link has it, those on links that are enabled.
fn gateways(family: AfiSafi, next_hops: &[NextHop], kernel: &Kernel) -> Result<Vec<Hop>, String> {
    let mut live = Vec::new();
    let mut dark = Vec::new();
    let mut reasons = BTreeSet::new();
    // A set: the kernel would take the same gateway twice as a double share.
    for next_hop in next_hops.iter().collect::<BTreeSet<_>>() {
        match resolve(family, next_hop, kernel) {
            Ok((hop, true)) => live.push(hop),
            Ok((hop, false)) => dark.push(hop),
            Err(reason) => {
                reasons.insert(reason);
            }
        }
    }
    let mut hops = if live.is_empty() { dark } else { live };
    hops.sort_unstable();
    hops.dedup();
    match (hops.is_empty(), reasons.is_empty()) {
        (false, _) => Ok(hops),
        (true, true) => Err("it has no gateway".to_owned()),
        (true, false) => Err(reasons.into_iter().collect::<Vec<_>>().join("; ")),
    }
}

/// A next hop in the kernel's terms and whether its link has carrier.
fn resolve(family: AfiSafi, next_hop: &NextHop, kernel: &Kernel) -> Result<(Hop, bool), String> {
    let gateway = next_hop.gateway;
    if gateway.is_ipv4() && family == AfiSafi::Ipv6Unicast {
        return Err(format!("an IPv6 route cannot have the IPv4 gateway {gateway}"));
    }
    if let Some(name) = &next_hop.interface {
        let (index, link) = usable(name, kernel)?;
        return Ok((hop(Some(gateway), Some(index)), link.carrier));
    }
    // Naming the interface makes comparison exact, and leaves a dead link's gateway out of the others' way.
    match kernel.connected(gateway) {
        Some(index) => {
            let (index, link) = usable(&kernel.name(index), kernel)?;
            Ok((hop(Some(gateway), Some(index)), link.carrier))
        }
        None => Ok((hop(Some(gateway), None), true)),
    }
}

fn usable<'a>(name: &str, kernel: &'a Kernel) -> Result<(u32, &'a Link), String> {
    match kernel.link_by_name(name) {
        None => Err(format!("there is no interface {name}")),
        Some((_, link)) if !link.enabled => Err(format!("interface {name} is down")),
        Some(found) => Ok(found),
    }
}

fn hop(gateway: Option<std::net::IpAddr>, interface: Option<u32>) -> Hop {
    Hop { gateway, interface, weight: 0, onlink: false }
}

#[cfg(test)]
mod tests;
