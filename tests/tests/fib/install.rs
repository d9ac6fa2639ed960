//! What is desired gets into the kernel, in both families and every form, and out of it again.
use plainroute_agent::fib::{RouteKey, RouteStatus, Target};

use crate::node::{Node, device, host, via};

#[test]
fn pods_are_routed_in_both_families() {
    let mut node = Node::new("install");
    let _pod = node.pod("pod0");
    node.start();
    let installed = node.want_and_wait(|desired| {
        desired.routes.insert(host("10.20.0.5"), device("pod0"));
        desired.routes.insert(host("fd00:20::5"), device("pod0"));
    });
    assert!(installed.delivers(&host("10.20.0.5")) && installed.delivers(&host("fd00:20::5")));
    assert_eq!(node.routes("10.20.0.5"), ["10.20.0.5 dev pod0 proto ospf scope link metric 88"]);
    assert_eq!(node.routes("fd00:20::5"), ["fd00:20::5 dev pod0 proto ospf metric 88"]);

    node.want_and_wait(|desired| {
        desired.routes.remove(&host("10.20.0.5"));
        desired.complete = true;
    });
    assert!(node.routes("10.20.0.5").is_empty());
    assert_eq!(node.routes("fd00:20::5").len(), 1);
}

#[test]
fn a_default_route_is_shared_by_two_gateways_and_survives_the_loss_of_one() {
    let mut node = Node::new("ecmp");
    let _tor_a = node.pod("up0");
    let tor_b = node.pod("up1");
    for (interface, v4, v6) in
        [("up0", "172.16.0.1/24", "fd00:a::1/64"), ("up1", "172.16.1.1/24", "fd00:b::1/64")]
    {
        node.ns.address(interface, v4).unwrap();
        node.ns.address(interface, v6).unwrap();
    }
    node.start();
    let (v4, v6) = (host("0.0.0.0/0"), host("::/0"));
    let installed = node.want_and_wait(|desired| {
        desired.routes.insert(v4, via(&["172.16.1.254", "172.16.0.254"]));
        desired.routes.insert(v6, via(&["fd00:a::254", "fd00:b::254"]));
    });
    assert!(installed.delivers(&v4) && installed.delivers(&v6), "{installed:#?}");
    let both = [
        "default proto ospf metric 88 nexthop via 172.16.0.254 dev up0 weight 1 nexthop via 172.16.1.254 dev up1 weight 1",
        "default proto ospf metric 88 nexthop via fd00:a::254 dev up0 weight 1 nexthop via fd00:b::254 dev up1 weight 1",
    ];
    let now = || [node.routes("0.0.0.0/0").join("; "), node.routes("::/0").join("; ")];
    assert_eq!(now(), both);

    // The cable is cut at the other end: our interface stays up, without carrier.
    tor_b.down("eth0").unwrap();
    node.wait("the loss of up1", |installed| !installed.interfaces["up1"].up);
    assert_eq!(
        now(),
        [
            "default via 172.16.0.254 dev up0 proto ospf metric 88",
            "default via fd00:a::254 dev up0 proto ospf metric 88"
        ]
    );
    let installed = node.installed();
    assert!(installed.delivers(&v4) && installed.delivers(&v6));

    tor_b.up("eth0").unwrap();
    node.wait("the return of up1", |installed| installed.interfaces["up1"].up);
    assert_eq!(now(), both);

    // The set of gateways changes in place.
    node.want_and_wait(|desired| {
        desired.routes.insert(v4, via(&["172.16.1.254"]));
        desired.routes.insert(v6, via(&["fd00:b::254"]));
    });
    assert_eq!(
        now(),
        [
            "default via 172.16.1.254 dev up1 proto ospf metric 88",
            "default via fd00:b::254 dev up1 proto ospf metric 88"
        ]
    );
}

#[test]
fn ipv4_goes_through_an_ipv6_neighbour() {
    let mut node = Node::new("rfc8950");
    let (_tor_a, _tor_b) = (node.pod("up0"), node.pod("up1"));
    node.start();
    let key = host("0.0.0.0/0");
    let installed = node.want_and_wait(|desired| {
        desired.routes.insert(key, via(&["fe80::a%up0", "fe80::a%up1"]));
    });
    assert!(installed.delivers(&key), "{installed:#?}");
    assert_eq!(
        node.routes("0.0.0.0/0"),
        [
            "default proto ospf metric 88 nexthop via inet6 fe80::a dev up0 weight 1 nexthop via inet6 fe80::a dev up1 weight 1"
        ]
    );
    let installed = node.want_and_wait(|desired| {
        desired.routes.insert(key, via(&["fe80::a%up1"]));
    });
    assert!(installed.delivers(&key), "{installed:#?}");
    assert_eq!(node.routes("0.0.0.0/0"), ["default via inet6 fe80::a dev up1 proto ospf metric 88"]);
}

#[test]
fn rejecting_routes_and_other_tables() {
    let mut node = Node::new("tables");
    let _pod = node.pod("pod0");
    node.start();
    let other = |prefix: &str, table| RouteKey { table, prefix: prefix.parse().unwrap() };
    let installed = node.want_and_wait(|desired| {
        for (prefix, target) in [("10.20.0.0/28", Target::Unreachable), ("fd00:20::/64", Target::Blackhole)] {
            desired.routes.insert(host(prefix), target);
        }
        desired.routes.insert(other("10.20.0.5", 1880), device("pod0"));
        desired.routes.insert(other("fd00:20::5", 188), device("pod0"));
    });
    assert!(installed.routes.values().all(|status| *status == RouteStatus::Installed), "{installed:#?}");
    assert_eq!(node.routes("10.20.0.0/28"), ["unreachable 10.20.0.0/28 proto ospf metric 88"]);
    assert_eq!(node.routes("fd00:20::/64"), ["blackhole fd00:20::/64 dev lo proto ospf metric 88"]);
    assert_eq!(node.routes("10.20.0.5"), ["10.20.0.5 dev pod0 table 1880 proto ospf scope link metric 88"]);
    assert_eq!(node.routes("fd00:20::5"), ["fd00:20::5 dev pod0 table 188 proto ospf metric 88"]);

    // One form becomes another in place, and what is left in other tables goes too.
    node.want_and_wait(|desired| {
        desired.routes.clear();
        desired.routes.insert(host("fd00:20::/64"), device("pod0"));
        desired.routes.insert(host("10.20.0.0/28"), Target::Blackhole);
        desired.complete = true;
    });
    assert_eq!(node.routes("fd00:20::/64"), ["fd00:20::/64 dev pod0 proto ospf metric 88"]);
    assert_eq!(node.routes("10.20.0.0/28"), ["blackhole 10.20.0.0/28 proto ospf metric 88"]);
    assert!(node.routes("10.20.0.5").is_empty() && node.routes("fd00:20::5").is_empty());
}

#[test]
fn what_cannot_be_installed_says_why() {
    let mut node = Node::new("refused");
    let (_pod, _other) = (node.pod("pod0"), node.pod("pod1"));
    node.ns.address("pod0", "10.9.0.1/24").unwrap();
    node.ns.sysctl("net.ipv6.conf.pod1.disable_ipv6", "1").unwrap();
    node.start();
    let installed = node.want_and_wait(|desired| {
        desired.routes.insert(host("fd00::4"), device("pod1"));
        desired.routes.insert(host("10.20.0.1"), device("nowhere"));
        desired.routes.insert(host("10.20.0.2"), via(&["192.0.2.77"]));
        desired.routes.insert(host("10.20.0.3"), via(&[]));
        desired.routes.insert(host("fd00::3"), via(&["10.9.0.2"]));
        desired.routes.insert(host("10.20.0.4"), via(&["10.9.0.2", "192.0.2.77%pod0"]));
    });
    let reason = |address: &str| match &installed.routes[&host(address)] {
        RouteStatus::Failed { reason } => reason.clone(),
        other => panic!("{address}: {other:?}"),
    };
    assert_eq!(reason("10.20.0.1"), "there is no interface nowhere");
    assert_eq!(reason("10.20.0.2"), "Nexthop has invalid gateway (ENETUNREACH: Network is unreachable)");
    assert_eq!(reason("10.20.0.3"), "it has no gateway");
    assert_eq!(reason("fd00::3"), "an IPv6 route cannot have the IPv4 gateway 10.9.0.2");
    assert_eq!(reason("fd00::4"), "IPv6 is disabled on nexthop device (EACCES: Permission denied)");
    assert!(reason("10.20.0.4").contains("Nexthop has invalid gateway"), "{}", reason("10.20.0.4"));
}
