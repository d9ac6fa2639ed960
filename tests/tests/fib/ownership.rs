//! Ours are kept and adopted; what is not ours is left alone, however alike it looks.
use plainroute_agent::fib::{RouteStatus, Target};

use crate::node::{Node, device, host, via};

#[test]
fn a_restart_adopts_without_a_single_event() {
    let mut node = Node::new("adopt");
    let (_pod, _tor_a, _tor_b) = (node.pod("pod0"), node.pod("up0"), node.pod("up1"));
    node.ns.address("up0", "172.16.0.1/24").unwrap();
    node.ns.address("up1", "172.16.1.1/24").unwrap();
    node.ns.address("up0", "fd00:a::1/64").unwrap();
    node.ns.address("up1", "fd00:b::1/64").unwrap();
    let routes = [
        (host("10.20.0.5"), device("pod0")),
        (host("fd00:20::5"), device("pod0")),
        (host("10.20.0.0/28"), Target::Unreachable),
        (host("fd00:20::/64"), Target::Blackhole),
        (host("0.0.0.0/0"), via(&["172.16.1.254", "172.16.0.254"])),
        (host("::/0"), via(&["fd00:b::254", "fd00:a::254"])),
        (host("10.40.0.0/16"), via(&["fe80::a%up0", "fe80::a%up1"])),
    ];
    node.start();
    node.want_and_wait(|desired| desired.routes.extend(routes.clone()));
    node.stop();

    let witness = node.witness();
    node.start();
    assert_eq!(
        node.installed().stale.keys().collect::<Vec<_>>(),
        std::collections::BTreeMap::from(routes.clone()).keys().collect::<Vec<_>>(),
        "what an earlier process left is known before anything is desired"
    );
    let installed = node.want_and_wait(|desired| {
        desired.routes.extend(routes.clone());
        desired.complete = true;
    });
    assert!(installed.routes.values().all(|status| *status == RouteStatus::Installed), "{installed:#?}");
    assert!(installed.stale.is_empty());
    assert_eq!(witness.fence(), Vec::<String>::new());

    // Control: a route that is changed does show.
    node.want_and_wait(|desired| {
        desired.routes.insert(host("10.20.0.0/28"), Target::Blackhole);
    });
    assert_ne!(witness.fence(), Vec::<String>::new());
}

#[test]
fn a_crash_halfway_leaves_nothing_that_the_next_start_does_not_mend() {
    let mut node = Node::new("halfway");
    let (_pod, _other) = (node.pod("pod0"), node.pod("pod1"));
    // One done, one wrong, one left over, one missing.
    node.ip("route add 10.20.0.1/32 dev pod0 scope link proto 188 metric 88");
    node.ip("route add 10.20.0.2/32 dev pod1 scope link proto 188 metric 88");
    node.ip("route add 10.20.0.3/32 dev pod0 scope link proto 188 metric 88");
    node.start();
    let installed = node.want_and_wait(|desired| {
        desired
            .routes
            .extend(["10.20.0.1", "10.20.0.2", "10.20.0.4"].map(|address| (host(address), device("pod0"))));
        desired.complete = true;
    });
    assert!(installed.routes.values().all(|status| *status == RouteStatus::Installed), "{installed:#?}");
    for address in ["10.20.0.1", "10.20.0.2", "10.20.0.4"] {
        assert_eq!(node.routes(address), [format!("{address} dev pod0 proto ospf scope link metric 88")]);
    }
    assert!(node.routes("10.20.0.3").is_empty());
}

#[test]
fn nothing_of_ours_is_removed_before_the_first_complete_plan() {
    let mut node = Node::new("complete");
    let _pod = node.pod("pod0");
    node.ip("route add 10.20.0.3/32 dev pod0 scope link proto 188 metric 88");
    node.ip("-6 route add fd00:20::3/128 dev pod0 proto 188 metric 88");
    node.ip("route add 10.20.0.3/32 dev pod0 scope link proto 188 metric 88 table 1881");
    let witness = node.witness();
    node.start();
    let installed = node.want_and_wait(|desired| {
        desired.routes.insert(host("10.20.0.4"), device("pod0"));
    });
    assert_eq!(installed.stale.len(), 3);
    assert_eq!(installed.stale[&host("10.20.0.3")], device("pod0"));
    // What follows is decided on the same desired state once more.
    witness.see(&["[ROUTE]10.20.0.4"]);
    let reported = witness.fence();
    assert!(reported.iter().all(|line| !line.contains("Deleted")), "{reported:?}");
    assert_eq!(node.routes("10.20.0.3").len(), 2);

    node.want_and_wait(|desired| desired.complete = true);
    assert!(node.routes("10.20.0.3").is_empty() && node.routes("fd00:20::3").is_empty());
    assert_eq!(node.routes("10.20.0.4").len(), 1);
}

#[test]
fn a_foreign_route_to_the_same_prefix_stands_beside_ours() {
    let mut node = Node::new("beside");
    let (_pod, _other) = (node.pod("pod0"), node.pod("pod1"));
    // Left by the CNI plugin `ptp`: no metric, so in front of ours for IPv4 and behind it for IPv6.
    node.ip("route add 10.20.0.5/32 dev pod0 scope host");
    node.ip("route add 10.20.0.6/32 dev pod1 proto static");
    node.ip("-6 route add fd00:20::5/128 dev pod1");
    let before = ["10.20.0.5", "10.20.0.6", "fd00:20::5"].map(|address| node.routes(address));
    node.start();
    let want = ["10.20.0.5", "10.20.0.6", "fd00:20::5"];
    let installed = node.want_and_wait(|desired| {
        desired.routes.extend(want.map(|address| (host(address), device("pod0"))));
        desired.complete = true;
    });
    let status = |address: &str| installed.routes[&host(address)].clone();
    assert!(matches!(status("10.20.0.5"), RouteStatus::Shadowed { agrees: true, .. }), "{installed:#?}");
    assert!(status("10.20.0.5").delivers());
    let RouteStatus::Shadowed { by, agrees: false } = status("10.20.0.6") else { panic!("{installed:#?}") };
    assert_eq!(by.to_string(), "a route of protocol static (dev pod1 metric 0)");
    assert!(!status("10.20.0.6").delivers());
    assert_eq!(status("fd00:20::5"), RouteStatus::Installed);

    node.ip("route del 10.20.0.6/32 proto static");
    node.wait("the shadow's end", |installed| installed.delivers(&host("10.20.0.6")));

    // Ours go again, theirs are as they were.
    node.want_and_wait(|desired| desired.routes.clear());
    assert_eq!(node.routes("10.20.0.5"), before[0]);
    assert!(node.routes("10.20.0.6").is_empty());
    assert_eq!(node.routes("fd00:20::5"), before[2]);
}

#[test]
fn a_foreign_route_with_our_metric_is_never_replaced() {
    let mut node = Node::new("conflict");
    let (_pod, _other) = (node.pod("pod0"), node.pod("pod1"));
    node.ip("route add 10.20.0.5/32 dev pod1 proto static metric 88");
    node.ip("-6 route add fd00:20::5/128 dev pod1 proto static metric 88");
    let keys = [host("10.20.0.5"), host("fd00:20::5")];
    let witness = node.witness();
    node.start();
    let installed = node.want_and_wait(|desired| {
        desired.routes.extend(keys.map(|key| (key, device("pod0"))));
        desired.complete = true;
    });
    for key in keys {
        let RouteStatus::Conflict { by } = &installed.routes[&key] else { panic!("{installed:#?}") };
        assert_eq!((by.protocol.as_str(), by.target.as_str()), ("static", "dev pod1"));
    }
    assert_eq!(witness.fence(), Vec::<String>::new());
    // As soon as it is gone, ours is there.
    node.ip("route del 10.20.0.5/32 proto static");
    node.ip("-6 route del fd00:20::5/128 proto static");
    node.wait("ours", |installed| keys.iter().all(|key| installed.delivers(key)));
}

#[test]
fn our_protocol_number_alone_does_not_make_a_route_ours() {
    let mut node = Node::new("ospf");
    let _pod = node.pod("pod0");
    node.ns.address("pod0", "10.9.0.1/24").unwrap();
    // As FRR's ospfd would: 188 is Linux's number for OSPF too, and FRR's metric is 20.
    node.ip("route add 10.50.0.0/16 via 10.9.0.2 proto 188 metric 20");
    node.ip("-6 route add fd00:50::/64 via fe80::2 dev pod0 proto 188 metric 20");
    node.ip("route add 10.51.0.0/16 via 10.9.0.2 proto 188 metric 88");
    node.start();
    node.want_and_wait(|desired| desired.complete = true);
    assert_eq!(node.routes("10.50.0.0/16").len(), 1);
    assert_eq!(node.routes("fd00:50::/64").len(), 1);
    // Control: with our metric it is ours, and stale.
    assert!(node.routes("10.51.0.0/16").is_empty());
}
