//! From desired and known to what is published: pure.
use std::collections::BTreeMap;

use super::{
    Desired, ForeignRoute, Installed, RouteKey, RouteStatus, delivery,
    diff::{Wanting, contests, stale},
    kernel::{Kernel, KernelRoute, Mark, RouteKind},
};

/// What the kernel holds of what is desired. `refused` has the reasons that the kernel gave for single routes.
pub(super) fn evaluate(
    desired: &Desired,
    kernel: &Kernel,
    mark: Mark,
    refused: &BTreeMap<RouteKey, String>,
) -> Installed {
    let mut wanting = Wanting::new(kernel, mark);
    let status = |(key, target)| {
        let key: &RouteKey = key;
        let refused = refused.get(key).map(String::as_str);
        (*key, status(wanting.route(*key, target), *key, kernel, mark, refused))
    };
    Installed {
        generation: desired.generation,
        synced: true,
        routes: desired.routes.iter().map(status).collect(),
        stale: stale(desired, kernel, mark)
            .filter_map(|route| Some((route.key, kernel.target(route)?)))
            .collect(),
        delivery: delivery::deliveries(desired, kernel, mark),
        interfaces: kernel.interfaces(),
        default_gateways: delivery::default_gateways(kernel, mark),
        rules: Default::default(),
        refused_rules: Default::default(),
        counters: Default::default(),
    }
}

fn status(
    wanted: Result<KernelRoute, String>,
    key: RouteKey,
    kernel: &Kernel,
    mark: Mark,
    refused: Option<&str>,
) -> RouteStatus {
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(reason) => return RouteStatus::Failed { reason },
    };
    let known = kernel.routes(&key);
    let right = known.iter().position(|route| route.is_marked(mark) && route.satisfies(&wanted));
    let Some((place, ours)) = right.and_then(|place| Some((place, known.get(place)?))) else {
        return match known.iter().find(|route| contests(route, mark)) {
            Some(theirs) => RouteStatus::Conflict { by: foreign(theirs, kernel) },
            None => RouteStatus::Failed { reason: refused.unwrap_or("it is not in the kernel").to_owned() },
        };
    };
    // Of equals the kernel takes the first: that may be one more of ours, which is still to be removed.
    let before = |(at, route): &(usize, &KernelRoute)| {
        let equal = route.metric == mark.metric && (*at < place || !route.is_marked(mark));
        route.tos == 0 && (route.metric < mark.metric || equal)
    };
    let stronger = known.iter().enumerate().filter(before).map(|(_, route)| route).min_by_key(|r| r.metric);
    let taken = stronger.unwrap_or(ours);
    if taken.kind == RouteKind::Unicast && kernel.live_hops(taken).next().is_none() {
        let interface = taken.hops.first().and_then(|hop| hop.interface);
        return RouteStatus::LinkDown {
            interface: interface.map_or_else(String::new, |index| kernel.name(index)),
        };
    }
    match stronger {
        Some(theirs) => {
            RouteStatus::Shadowed { by: foreign(theirs, kernel), agrees: theirs.leads_like(&wanted) }
        }
        None => RouteStatus::Installed,
    }
}

fn foreign(route: &KernelRoute, kernel: &Kernel) -> ForeignRoute {
    ForeignRoute {
        protocol: protocol_name(route.protocol),
        metric: route.metric,
        target: kernel.describe(route),
    }
}

/// The names that `ip route` prints, from the kernel's rtnetlink.h and iproute2's rt_protos.
fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        84 => "ovn",
        99 => "openr",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        other => return other.to_string(),
    };
    name.to_owned()
}
