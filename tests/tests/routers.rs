//! The routers' wrappers, against each other: what a suite builds on must itself be sure.

use std::net::IpAddr;
use std::time::Duration;

use plainroute_tests::netns::{Netns, veth};
use plainroute_tests::routers::{Bird, Exabgp, Family, Frr, Gobgp, Openbgpd, Router, Table};

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
    holds_both(frr);
    router.await_state(ip(FRR_V4), "established", DEADLINE).unwrap();
    router.stop().unwrap();
    frr.await_learned(Family::V4, "nothing", DEADLINE, &|table| table.is_empty()).unwrap();
    assert_ne!(frr.state(ip(SPEAKER_V4)).unwrap(), "established");
    router.start().unwrap();
    holds_both(frr);
    router.kill();
    frr.await_learned(Family::V6, "nothing", DEADLINE, &|table| table.is_empty()).unwrap();
}

/// FRR has the speaker's IPv4 and IPv6 prefix.
fn holds_both(frr: &Frr) {
    frr.await_state(ip(SPEAKER_V4), "established", DEADLINE).unwrap();
    let v4 = |table: &_| holds(table, "10.20.0.10/32", SPEAKER_V4);
    frr.await_learned(Family::V4, "10.20.0.10/32", DEADLINE, &v4).unwrap();
    let v6 = |table: &_| holds(table, "fd20::10/128", SPEAKER_V6);
    frr.await_learned(Family::V6, "fd20::10/128", DEADLINE, &v6).unwrap();
}

fn holds(table: &Table, prefix: &str, next_hop: &str) -> bool {
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

#[test]
fn gobgp_and_frr_see_each_other() {
    let (_tor, frr, node) = frr_and_namespace();
    let neighbor = |address: &str, family: &str| {
        format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = 64600\n\
             [neighbors.transport.config]\npassive-mode = true\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}\"\n"
        )
    };
    let config = format!(
        "[global.config]\nas = 64512\nrouter-id = \"{SPEAKER_V4}\"\n{}{}",
        neighbor(FRR_V4, "ipv4-unicast"),
        neighbor(FRR_V6, "ipv6-unicast")
    );
    let mut gobgp = Gobgp::launch(&node, &config).unwrap();
    let announce = |gobgp: &Gobgp| {
        gobgp.gobgp("global rib add 10.20.0.10/32").unwrap();
        gobgp.gobgp("global rib add -a ipv6 fd20::10/128").unwrap();
    };
    announce(&gobgp);
    frr.configure(&["router bgp 64600", "address-family ipv6 unicast", "neighbor fd00::1 default-originate"])
        .unwrap();
    let default = |table: &_| holds(table, "::/0", FRR_V6);
    gobgp.await_learned(Family::V6, "a default route", DEADLINE, &default).unwrap();
    assert!(gobgp.learned(Family::V4).unwrap().is_empty());
    gobgp.await_state(ip(FRR_V4), "established", DEADLINE).unwrap();
    holds_both(&frr);
    gobgp.stop().unwrap();
    frr.await_learned(Family::V4, "nothing", DEADLINE, &|table| table.is_empty()).unwrap();
    gobgp.start().unwrap();
    announce(&gobgp);
    holds_both(&frr);
    gobgp.kill();
    frr.await_learned(Family::V6, "nothing", DEADLINE, &|table| table.is_empty()).unwrap();
}

#[test]
fn openbgpd_and_frr_see_each_other() {
    let (_tor, frr, node) = frr_and_namespace();
    let config = "
AS 64512
router-id 172.16.0.1
fib-update no
network 10.20.0.10/32
network fd20::10/128
neighbor 172.16.0.254 {
    remote-as 64600
    announce IPv6 none
}
neighbor fd00::254 {
    remote-as 64600
    announce IPv4 none
}
allow to any
allow from any
";
    let mut openbgpd = Openbgpd::launch(&node, config).unwrap();
    frr.configure(&["router bgp 64600", "address-family ipv6 unicast", "neighbor fd00::1 default-originate"])
        .unwrap();
    let default = |table: &_| holds(table, "::/0", FRR_V6);
    openbgpd.await_learned(Family::V6, "a default route", DEADLINE, &default).unwrap();
    assert!(openbgpd.learned(Family::V4).unwrap().is_empty());
    learns_forgets_and_learns_again(&frr, &mut openbgpd);
}

#[test]
fn exabgp_and_frr_see_each_other() {
    let (_tor, frr, node) = frr_and_namespace();
    let neighbor = |local: &str, remote: &str, family: &str, prefix: &str| {
        format!(
            "neighbor {remote} {{\n router-id {SPEAKER_V4};\n local-address {local};\n local-as 64512;\n peer-as 64600;\n \
             family {{ {family} unicast; }}\n static {{ route {prefix} next-hop self; }}\n \
             api {{ processes [ events ]; neighbor-changes; receive {{ parsed; update; }} }}\n}}\n"
        )
    };
    let config = neighbor(SPEAKER_V4, FRR_V4, "ipv4", "10.20.0.10/32")
        + &neighbor(SPEAKER_V6, FRR_V6, "ipv6", "fd20::10/128");
    let mut exabgp = Exabgp::launch(&node, &config).unwrap();
    exabgp.command(&format!("neighbor {FRR_V4} announce route 10.20.0.11/32 next-hop self")).unwrap();
    frr.await_learned(Family::V4, "10.20.0.11/32", DEADLINE, &|t| holds(t, "10.20.0.11/32", SPEAKER_V4))
        .unwrap();
    for (command, learned) in
        [("neighbor fd00::1 default-originate", true), ("no neighbor fd00::1 default-originate", false)]
    {
        frr.configure(&["router bgp 64600", "address-family ipv6 unicast", command]).unwrap();
        let default = |table: &_| holds(table, "::/0", FRR_V6) == learned;
        exabgp.await_learned(Family::V6, command, DEADLINE, &default).unwrap();
    }
    learns_forgets_and_learns_again(&frr, &mut exabgp);
}
