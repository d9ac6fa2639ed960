//! The routers' wrappers, against each other: what a suite builds on must itself be sure.

use std::net::IpAddr;
use std::time::Duration;

use plainroute_tests::netns::{Netns, veth};
use plainroute_tests::routers::{Bird, Family, Frr, Router};

const DEADLINE: Duration = Duration::from_secs(20);

const FRR: &str = "
log stdout
frr defaults datacenter
router bgp 64600
 bgp router-id 172.16.0.254
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor 172.16.0.1 remote-as 64512
 neighbor 172.16.0.1 timers connect 1
 neighbor fd00::1 remote-as 64512
 neighbor fd00::1 timers connect 1
 address-family ipv4 unicast
  neighbor 172.16.0.1 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor fd00::1 activate
 exit-address-family
";

const SPEAKER_V4: &str = "172.16.0.1";
const SPEAKER_V6: &str = "fd00::1";
const FRR_V4: &str = "172.16.0.254";
const FRR_V6: &str = "fd00::254";

/// FRR at one end of a cable, an empty namespace at the other.
fn frr_and_namespace() -> (Netns, Frr, Netns) {
    let (tor, node) = (Netns::new("tor").unwrap(), Netns::new("node").unwrap());
    veth((&tor, "eth0"), (&node, "eth0")).unwrap();
    for (ns, v4, v6) in [(&tor, FRR_V4, FRR_V6), (&node, SPEAKER_V4, SPEAKER_V6)] {
        ns.address("eth0", &format!("{v4}/24")).unwrap();
        ns.address("eth0", &format!("{v6}/64")).unwrap();
    }
    let frr = Frr::launch(&tor, FRR).unwrap();
    (tor, frr, node)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `router` must announce 10.20.0.10/32 and fd20::10/128 to FRR.
fn learns_forgets_and_learns_again(frr: &Frr, router: &mut dyn Router) {
    let learn = || {
        frr.await_state(ip(SPEAKER_V4), "established", DEADLINE).unwrap();
        let v4 = |table: &_| holds(table, "10.20.0.10/32", SPEAKER_V4);
        frr.await_learned(Family::V4, "10.20.0.10/32", DEADLINE, &v4).unwrap();
        let v6 = |table: &_| holds(table, "fd20::10/128", SPEAKER_V6);
        frr.await_learned(Family::V6, "fd20::10/128", DEADLINE, &v6).unwrap();
    };
    learn();
    router.await_state(ip(FRR_V4), "established", DEADLINE).unwrap();
    router.stop().unwrap();
    frr.await_learned(Family::V4, "nothing", DEADLINE, &|table| table.is_empty()).unwrap();
    assert_ne!(frr.state(ip(SPEAKER_V4)).unwrap(), "established");
    router.start().unwrap();
    learn();
    router.kill();
    frr.await_learned(Family::V6, "nothing", DEADLINE, &|table| table.is_empty()).unwrap();
}

fn holds(table: &plainroute_tests::routers::Table, prefix: &str, next_hop: &str) -> bool {
    table.get(prefix).is_some_and(|hops| hops.contains(&ip(next_hop)))
}

#[test]
fn bird_and_frr_see_each_other() {
    let (_tor, frr, node) = frr_and_namespace();
    let config = "
router id 172.16.0.1;
protocol device {}
protocol static { ipv4; route 10.20.0.10/32 unreachable; }
protocol static { ipv6; route fd20::10/128 unreachable; }
template bgp tor { connect retry time 1; connect delay time 0; graceful restart off; }
protocol bgp tor4 from tor { local 172.16.0.1 as 64512; neighbor 172.16.0.254 as 64600; ipv4 { import all; export where source = RTS_STATIC; }; }
protocol bgp tor6 from tor { local fd00::1 as 64512; neighbor fd00::254 as 64600; ipv6 { import all; export where source = RTS_STATIC; }; }
";
    let mut bird = Bird::launch(&node, config).unwrap();
    frr.await_state(ip(SPEAKER_V4), "established", DEADLINE).unwrap();
    frr.configure(&[
        "router bgp 64600",
        "address-family ipv4 unicast",
        "neighbor 172.16.0.1 default-originate",
    ])
    .unwrap();
    let default = |table: &_| holds(table, "0.0.0.0/0", FRR_V4);
    bird.await_learned(Family::V4, "a default route", DEADLINE, &default).unwrap();
    assert_eq!(bird.state(ip("192.0.2.1")).unwrap(), "none");
    learns_forgets_and_learns_again(&frr, &mut bird);
}
