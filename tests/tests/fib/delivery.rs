//! Addresses that somebody else routes: whether this node delivers to them.
use plainroute_agent::fib::Delivery;

use crate::node::{Node, device, host};

#[test]
fn delivery_is_read_from_the_routes_of_others() {
    let mut node = Node::new("delivery");
    let (_pod, tor) = (node.pod("pod0"), node.pod("up0"));
    node.ns.address("up0", "172.16.0.1/24").unwrap();
    node.ip("route add default via 172.16.0.254");
    node.ip("route add 10.20.0.1/32 dev pod0");
    node.ip("route add 10.20.0.2/32 via 172.16.0.254");
    node.ip("route add 10.20.0.3/32 dev up0");
    node.ip("route add blackhole 10.20.0.4/32");
    node.ip("route add 10.20.0.64/26 dev pod0");
    node.ip("route add 10.20.0.65/32 via 172.16.0.7");
    node.ip("-6 route add fd00:20::/64 dev pod0");
    node.start();
    let addresses = [
        "10.20.0.1",
        "10.20.0.2",
        "10.20.0.3",
        "10.20.0.4",
        "10.20.0.5",
        "10.20.0.65",
        "10.20.0.66",
        "172.16.0.1",
        "172.16.0.9",
        "198.51.100.1",
        "fd00:20::7",
        "fd00:21::7",
    ];
    let installed = node.want_and_wait(|desired| {
        desired.peers.insert("172.16.0.254".parse().unwrap());
        desired.verify.extend(addresses.map(|address| address.parse::<std::net::IpAddr>().unwrap()));
        desired.routes.insert(host("10.20.0.5"), device("pod0"));
    });
    let delivery = |address: &str| installed.delivery[&address.parse().unwrap()].clone();
    let via = |interface: &str| Delivery::Via { interface: interface.to_owned(), gateway: None };
    let towards_peer = Delivery::TowardsPeer { interface: "up0".to_owned() };
    assert_eq!(delivery("10.20.0.1"), via("pod0"));
    assert_eq!(delivery("10.20.0.2"), towards_peer);
    assert_eq!(delivery("10.20.0.3"), towards_peer);
    assert_eq!(delivery("10.20.0.4"), Delivery::Rejected { kind: "blackhole".to_owned() });
    assert_eq!(delivery("10.20.0.5"), Delivery::OwnRoute);
    assert_eq!(delivery("10.20.0.65"), towards_peer, "another node's, by the uplink");
    assert_eq!(delivery("10.20.0.66"), via("pod0"));
    assert_eq!(delivery("172.16.0.1"), Delivery::Loopback);
    assert_eq!(delivery("172.16.0.9"), towards_peer, "on the subnet that leads to the peer");
    assert_eq!(delivery("198.51.100.1"), Delivery::OnlyDefault);
    assert_eq!(delivery("fd00:20::7"), via("pod0"));
    assert_eq!(delivery("fd00:21::7"), Delivery::NoRoute);
    assert_eq!(installed.default_gateways.len(), 1);
    assert_eq!(installed.interfaces["up0"].addresses.first(), Some(&("172.16.0.1".parse().unwrap(), 24)));

    // A route that comes and goes is noticed, a link without carrier too.
    let address = "fd00:21::7".parse().unwrap();
    node.ip("-6 route add fd00:21::7/128 dev pod0");
    node.wait("its delivery", |installed| installed.delivery[&address].delivers());
    _pod.down("eth0").unwrap();
    node.wait("its end", |installed| {
        installed.delivery[&address] == Delivery::LinkDown { interface: "pod0".to_owned() }
    });
    drop(tor);
    node.wait("the gateway's end", |installed| installed.default_gateways.is_empty());
}
