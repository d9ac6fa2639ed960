//! The decision on random kernels: it reaches its goal in one step, and no foreign route ever notices.
use std::{collections::BTreeMap, net::IpAddr};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::fib::{RouteStatus, TABLE_MAIN, status::evaluate};

fn wanted(key: RouteKey, target: &Target, kernel: &Kernel, mark: Mark) -> Result<KernelRoute, String> {
    Wanting::new(kernel, mark).route(key, target)
}

const MARK: Mark = Mark { protocol: 188, metric: 88 };

/// The rules by which the kernel takes changes, strict where ours must not rely on luck.
fn carry_out(kernel: &mut Kernel, change: &Change) {
    let twin =
        |route: &KernelRoute, other: &KernelRoute| route.metric == other.metric && route.tos == other.tos;
    match change {
        Change::Add(new) => {
            let taken = kernel.routes(&new.key).iter().any(|route| twin(route, new));
            assert!(!taken, "EEXIST: {new:?}");
        }
        Change::Replace(old, new) => {
            let first = kernel.routes(&new.key).iter().find(|route| twin(route, new));
            assert_eq!(first, Some(old), "the kernel replaces the first");
        }
        Change::Remove(old) => assert!(kernel.routes(&old.key).contains(old), "ESRCH: {old:?}"),
    }
    kernel.apply(change.clone());
}

/// Said again in full, so that it does not rest on what is tested.
fn foreign(kernel: &Kernel) -> Vec<KernelRoute> {
    let ours = |route: &&KernelRoute| (route.protocol, route.metric, route.tos) == (188, 88, 0);
    kernel.routes.values().flatten().filter(|route| !ours(route)).cloned().collect()
}

fn key() -> impl Strategy<Value = RouteKey> {
    let prefix = select(vec!["0.0.0.0/0", "10.20.0.0/28", "10.20.0.5", "::/0", "fd00::/64", "fd00::5"]);
    let table = prop_oneof![4 => Just(TABLE_MAIN), 1 => Just(1880)];
    (table, prefix).prop_map(|(table, prefix)| RouteKey { table, prefix: prefix.parse().unwrap() })
}

fn gateway() -> impl Strategy<Value = IpAddr> {
    select(vec!["10.0.0.254", "10.0.1.254", "192.0.2.1", "fe80::1"]).prop_map(|text| text.parse().unwrap())
}

fn kernel_route() -> impl Strategy<Value = KernelRoute> {
    let hop = (option::of(gateway()), option::of(1..4u32), 0..2u8);
    let hop = hop.prop_map(|(gateway, interface, weight)| Hop { gateway, interface, weight, onlink: false });
    let kind = select(vec![RouteKind::Unicast, RouteKind::Unicast, RouteKind::Blackhole, RouteKind::Throw]);
    let marks = (select(vec![0u8, 0, 0, 16]), select(vec![0u32, 88, 88, 1024]), select(vec![4u8, 188, 188]));
    (
        key(),
        marks,
        kind,
        select(vec![0u8, 253]),
        vec(hop, 1..3),
        option::weighted(0.1, gateway()),
        any::<bool>(),
    )
        .prop_map(
            |(key, (tos, metric, protocol), kind, scope, mut hops, preferred_source, other_attributes)| {
                hops.sort_unstable();
                if kind != RouteKind::Unicast {
                    hops.clear();
                }
                KernelRoute {
                    key,
                    tos,
                    metric,
                    protocol,
                    kind,
                    scope,
                    hops,
                    preferred_source,
                    other_attributes,
                }
            },
        )
}

fn kernel() -> impl Strategy<Value = Kernel> {
    (vec(kernel_route(), 0..12), vec((any::<bool>(), any::<bool>()), 3)).prop_map(|(routes, states)| {
        let subnets = ["10.0.0.1", "10.0.1.1", "10.0.2.1"];
        let links = states.into_iter().zip(subnets).zip(1..).map(|(((enabled, carrier), subnet), index)| {
            let addresses = vec![(subnet.parse().unwrap(), 24)];
            (index, Link { name: format!("if{index}"), enabled, carrier, loopback: false, addresses })
        });
        let mut kernel = Kernel::default();
        kernel.set_links(links.collect());
        kernel.set_routes(routes);
        kernel
    })
}

fn target() -> impl Strategy<Value = Target> {
    let interface = || select(vec!["if1", "if2", "if3", "nowhere"]).prop_map(str::to_owned);
    let next_hop =
        (gateway(), option::of(interface())).prop_map(|(gateway, interface)| NextHop { gateway, interface });
    prop_oneof![
        3 => interface().prop_map(|interface| Target::Device { interface }),
        3 => vec(next_hop, 0..4).prop_map(|next_hops| Target::Via { next_hops }),
        1 => Just(Target::Unreachable),
        1 => Just(Target::Blackhole),
    ]
}

fn desired() -> impl Strategy<Value = Desired> {
    let routes = proptest::collection::btree_map(key(), target(), 0..8);
    (routes, any::<bool>()).prop_map(|(routes, complete)| Desired { routes, complete, ..Desired::default() })
}

proptest! {
    #[test]
    fn one_step_reaches_the_goal_and_no_foreign_route_notices(desired in desired(), before in kernel()) {
        let mut after = before.clone();
        for change in diff(&desired, &before, MARK) {
            carry_out(&mut after, &change);
        }
        prop_assert_eq!(diff(&desired, &after, MARK), Vec::new());
        prop_assert_eq!(foreign(&before), foreign(&after));
        for (key, target) in &desired.routes {
            let Ok(wanted) = wanted(*key, target, &after, MARK) else { continue };
            let ours: Vec<_> = after.routes(key).iter().filter(|route| route.is_marked(MARK)).collect();
            let contested = after.routes(key).iter().any(|route| contests(route, MARK));
            let right = ours.iter().any(|route| route.satisfies(&wanted));
            prop_assert!(right || contested, "{key} is missing");
            prop_assert!(!desired.complete || ours.len() == usize::from(right), "{key}: {ours:?}");
        }
        prop_assert!(!desired.complete || stale(&desired, &after, MARK).next().is_none());
    }

    #[test]
    fn before_the_first_complete_plan_nothing_is_removed(desired in desired(), kernel in kernel()) {
        let desired = Desired { complete: false, ..desired };
        let changes = diff(&desired, &kernel, MARK);
        prop_assert!(changes.iter().all(|change| !matches!(change, Change::Remove(_))));
        prop_assert!(changes.iter().all(|change| desired.routes.contains_key(&change.key())));
    }

    #[test]
    fn delivery_is_claimed_only_over_a_live_link(desired in desired(), kernel in kernel()) {
        let installed = evaluate(&desired, &kernel, MARK, &BTreeMap::new());
        prop_assert_eq!(installed.routes.len(), desired.routes.len());
        for (key, status) in installed.routes.iter().filter(|(_, status)| status.delivers()) {
            let wanted = wanted(*key, &desired.routes[key], &kernel, MARK).unwrap();
            let live = wanted.hops.iter().any(|hop| {
                hop.interface.is_none_or(|index| kernel.links()[&index].is_up())
            });
            prop_assert!(live || wanted.kind != RouteKind::Unicast, "{key}: {status:?}");
            let best = kernel.routes(key).iter().filter(|route| route.tos == 0).min_by_key(|route| route.metric);
            prop_assert!(best.unwrap().leads_like(&wanted), "{key}: {status:?}");
        }
    }
}

fn two_uplinks(second: Link) -> Kernel {
    let first = Link { name: "up0".into(), enabled: true, carrier: true, ..Link::default() };
    let mut kernel = Kernel::default();
    kernel.set_links(BTreeMap::from([
        (1, Link { addresses: vec![("10.0.0.1".parse().unwrap(), 24)], ..first }),
        (2, Link { name: "up1".into(), addresses: vec![("10.0.1.1".parse().unwrap(), 24)], ..second }),
    ]));
    kernel
}

fn default_by(gateways: &[&str], kernel: &Kernel) -> Result<Vec<Hop>, String> {
    let next_hop = |text: &&str| NextHop { gateway: text.parse().unwrap(), interface: None };
    let target = Target::Via { next_hops: gateways.iter().map(next_hop).collect() };
    wanted(RouteKey::main("0.0.0.0/0".parse().unwrap()), &target, kernel, MARK).map(|route| route.hops)
}

#[test]
fn gateways_behind_dead_links_are_left_out() {
    let first = hop(Some("10.0.0.254".parse().unwrap()), Some(1));
    let second = hop(Some("10.0.1.254".parse().unwrap()), Some(2));
    let both = ["10.0.1.254", "10.0.0.254", "10.0.1.254"];
    let up = Link { enabled: true, carrier: true, ..Link::default() };
    assert_eq!(default_by(&both, &two_uplinks(up)), Ok(vec![first, second]));
    let no_carrier = Link { enabled: true, carrier: false, ..Link::default() };
    assert_eq!(default_by(&both, &two_uplinks(no_carrier.clone())), Ok(vec![first]));
    assert_eq!(default_by(&both, &two_uplinks(Link::default())), Ok(vec![first]));
    // The last one stays, carrier or not: there is nothing better.
    assert_eq!(default_by(&["10.0.1.254"], &two_uplinks(no_carrier)), Ok(vec![second]));
    assert_eq!(
        default_by(&["10.0.1.254"], &two_uplinks(Link::default())),
        Err("interface up1 is down".to_owned())
    );
}

#[test]
fn the_order_of_next_hops_means_nothing_and_everything_else_does() {
    let kernel = two_uplinks(Link { enabled: true, carrier: true, ..Link::default() });
    let key = RouteKey::main("0.0.0.0/0".parse().unwrap());
    let next_hops = ["10.0.1.254", "10.0.0.254"]
        .map(|gateway| NextHop { gateway: gateway.parse().unwrap(), interface: None });
    let target = Target::Via { next_hops: next_hops.to_vec() };
    let wanted = wanted(key, &target, &kernel, MARK).unwrap();
    assert!(wanted.satisfies(&wanted));
    let others: [fn(&mut KernelRoute); 10] = [
        |route| route.tos = 4,
        |route| route.metric = 89,
        |route| route.protocol = 4,
        |route| route.scope = 253,
        |route| route.kind = RouteKind::Blackhole,
        |route| route.preferred_source = Some([10, 0, 0, 1].into()),
        |route| route.other_attributes = true,
        |route| route.hops[0].weight = 1,
        |route| route.hops[0].interface = Some(2),
        |route| route.hops.truncate(1),
    ];
    for (number, change) in others.iter().enumerate() {
        let mut other = wanted.clone();
        change(&mut other);
        assert!(!other.satisfies(&wanted), "change {number}");
    }
}

#[test]
fn a_status_tells_who_is_in_the_way() {
    let mut kernel = two_uplinks(Link::default());
    let key = RouteKey::main("10.20.0.5".parse().unwrap());
    let desired = Desired {
        routes: BTreeMap::from([(key, Target::Device { interface: "up0".to_owned() })]),
        ..Desired::default()
    };
    let status =
        |kernel: &Kernel| evaluate(&desired, kernel, MARK, &BTreeMap::new()).routes[&key].to_string();
    assert_eq!(status(&kernel), "failed: it is not in the kernel");
    let ours = wanted(key, &desired.routes[&key], &kernel, MARK).unwrap();
    kernel.insert(KernelRoute { protocol: 16, metric: 88, ..ours.clone() });
    assert_eq!(
        status(&kernel),
        "conflict: a route of protocol dhcp (dev up0 metric 88) holds the prefix with our metric"
    );
    kernel.set_routes(vec![ours.clone(), KernelRoute { protocol: 3, metric: 1024, ..ours.clone() }]);
    assert_eq!(status(&kernel), RouteStatus::Installed.to_string());
}
