//! Whatever happens to a route of ours, it is back well within a second; figures are printed.
use std::time::Instant;

use plainroute_agent::fib::RouteStatus;
use plainroute_tests::netns::wait_until;

use crate::node::{DEADLINE, Node, device, host, report, via};

const ROUNDS: usize = 20;

#[test]
fn a_removed_route_is_put_back() {
    let mut node = Node::new("removed");
    let _pod = node.pod("pod0");
    node.start();
    node.want_and_wait(|desired| {
        desired.routes.insert(host("10.20.0.5"), device("pod0"));
        desired.routes.insert(host("fd00:20::5"), device("pod0"));
    });
    let witness = node.witness();
    let mut figures = Vec::new();
    for _ in 0..ROUNDS {
        for (delete, address) in
            [("route del 10.20.0.5/32", "10.20.0.5"), ("-6 route del fd00:20::5/128", "fd00:20::5")]
        {
            node.ip(delete);
            let (removed, _) = witness.see(&["[ROUTE]Deleted", address]);
            let (back, line) = witness.see(&["[ROUTE]", address]);
            assert!(!line.contains("Deleted") && line.contains("metric 88"), "{line}");
            figures.push(back - removed);
        }
    }
    report("put back after `ip route del`", &mut figures);
    assert!(figures.iter().all(|figure| figure.as_secs_f32() < 1.0));
    node.wait("the count of repairs", |installed| installed.counters.repairs == 2 * ROUNDS as u64);

    // Control: without the task nobody puts it back.
    node.stop();
    witness.fence();
    node.ip("route del 10.20.0.5/32");
    let reported = witness.fence();
    assert!(reported.iter().all(|line| line.contains("Deleted")), "{reported:?}");
    assert!(node.routes("10.20.0.5").is_empty());
}

#[test]
fn a_changed_route_is_put_right() {
    let mut node = Node::new("changed");
    let (_pod, _other) = (node.pod("pod0"), node.pod("pod1"));
    node.start();
    node.want_and_wait(|desired| {
        desired.routes.insert(host("10.20.0.5"), device("pod0"));
        desired.routes.insert(host("fd00:20::5"), device("pod0"));
    });
    let right =
        ["10.20.0.5 dev pod0 proto ospf scope link metric 88", "fd00:20::5 dev pod0 proto ospf metric 88"];
    let wrongs = [
        "route replace 10.20.0.5/32 dev pod1 proto 188 metric 88",
        "route replace 10.20.0.5/32 dev pod0 proto 188 metric 88 mtu 1400",
        "route replace unreachable 10.20.0.5/32 proto 188 metric 88",
        "-6 route replace fd00:20::5/128 dev pod1 proto 188 metric 88",
        "-6 route replace fd00:20::5/128 dev pod0 proto 188 metric 88 mtu 1400",
        "-6 route replace fd00:20::5/128 via fe80::1 dev pod0 proto 188 metric 88",
    ];
    for (already, wrong) in wrongs.iter().enumerate() {
        node.ip(wrong);
        node.wait(wrong, |installed| installed.counters.repairs == already as u64 + 1);
        assert_eq!(
            [node.routes("10.20.0.5").join("; "), node.routes("fd00:20::5").join("; ")],
            right,
            "{wrong}"
        );
    }
    // A second route with the same prefix and metric is no repair, but it is not ours to keep: it bears our mark.
    node.ip("route append 10.20.0.5/32 dev pod1 proto 188 metric 88");
    node.want_and_wait(|desired| desired.complete = true);
    wait_until("the second to go", DEADLINE, || match node.routes("10.20.0.5") {
        routes if routes == right[..1] => Ok(()),
        routes => Err(routes.join("; ")),
    })
    .unwrap();
}

#[test]
fn routes_return_with_the_link() {
    let mut node = Node::new("linkdown");
    let _pod = node.pod("pod0");
    node.start();
    let keys = [host("10.20.0.5"), host("fd00:20::5")];
    node.want_and_wait(|desired| desired.routes.extend(keys.map(|key| (key, device("pod0")))));
    let witness = node.witness();
    let mut figures = Vec::new();
    for _ in 0..ROUNDS {
        node.ns.down("pod0").unwrap();
        let down = RouteStatus::Failed { reason: "interface pod0 is down".to_owned() };
        node.wait("both to fail", |installed| keys.iter().all(|key| installed.routes[key] == down));
        let left = [node.routes("10.20.0.5"), node.routes("fd00:20::5")].concat();
        assert!(left.is_empty(), "{left:?} {:#?}", node.installed());
        // IPv6 does report its removals: they must not be taken for the return.
        witness.fence();
        let began = Instant::now();
        node.ns.up("pod0").unwrap();
        for address in ["10.20.0.5", "fd00:20::5"] {
            let (back, line) = witness.see(&["[ROUTE]", address, "metric 88"]);
            assert!(!line.contains("Deleted"), "{line}");
            figures.push(back - began);
        }
        node.wait("both to be back", |installed| keys.iter().all(|key| installed.delivers(key)));
    }
    report("put back after `ip link set up`, the command included", &mut figures);
    assert!(figures.iter().all(|figure| figure.as_secs_f32() < 1.0));
}

#[test]
fn ipv4_routes_that_vanish_in_silence_are_put_back() {
    let mut node = Node::new("silent");
    let _pod = node.pod("pod0");
    node.ns.address("pod0", "10.9.0.1/24").unwrap();
    node.start();
    node.want_and_wait(|desired| {
        desired.routes.insert(host("10.20.0.5"), device("pod0"));
        desired.routes.insert(host("10.30.0.0/16"), via(&["10.9.0.2"]));
    });
    let witness = node.witness();
    let mut figures = Vec::new();
    for _ in 0..ROUNDS {
        // With its last address an interface loses all its IPv4 routes.
        let began = Instant::now();
        node.ip("address del 10.9.0.1/24 dev pod0");
        witness.see(&["[ADDR]Deleted", "10.9.0.1"]);
        let (back, line) = witness.see(&["[ROUTE]", "10.20.0.5"]);
        assert!(!line.contains("Deleted"), "the kernel does tell: {line}");
        figures.push(back - began);
        node.wait("the gateway to be out of reach", |installed| !installed.delivers(&host("10.30.0.0/16")));
        node.ns.address("pod0", "10.9.0.1/24").unwrap();
        witness.see(&["[ROUTE]10.30.0.0/16 via 10.9.0.2"]);
        node.wait("both to be right", |installed| {
            installed.delivers(&host("10.20.0.5")) && installed.delivers(&host("10.30.0.0/16"))
        });
    }
    report("put back after the last address went", &mut figures);
    assert!(figures.iter().all(|figure| figure.as_secs_f32() < 1.0));
}

#[test]
fn the_interface_may_come_later_and_come_again() {
    let mut node = Node::new("later");
    node.start();
    let key = host("10.20.0.5");
    let installed = node.want_and_wait(|desired| {
        desired.routes.insert(key, device("pod0"));
    });
    assert_eq!(
        installed.routes[&key],
        RouteStatus::Failed { reason: "there is no interface pod0".to_owned() }
    );
    let mut figures = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let _pod = node.pod("pod0");
        node.wait("the route", |installed| installed.delivers(&key));
        figures.push(began.elapsed());
        assert_eq!(node.routes("10.20.0.5").len(), 1);
        node.ip("link del pod0");
        node.wait("its end", |installed| !installed.interfaces.contains_key("pod0"));
        assert!(!node.installed().delivers(&key));
    }
    report("routed after the veth pair was ordered, its making included", &mut figures);
}

#[test]
fn a_link_without_carrier_does_not_deliver() {
    let mut node = Node::new("carrier");
    let pod = node.pod("pod0");
    node.start();
    let keys = [host("10.20.0.5"), host("fd00:20::5")];
    node.want_and_wait(|desired| desired.routes.extend(keys.map(|key| (key, device("pod0")))));
    pod.down("eth0").unwrap();
    let installed = node.wait("carrier loss", |installed| keys.iter().all(|key| !installed.delivers(key)));
    assert_eq!(installed.routes[&keys[0]], RouteStatus::LinkDown { interface: "pod0".to_owned() });
    pod.up("eth0").unwrap();
    node.wait("carrier", |installed| keys.iter().all(|key| installed.delivers(key)));
}
