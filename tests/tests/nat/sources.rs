//! Who the world hears: the right source with the right port, and everything else untouched.
use plainroute_agent::nat::{Fate, NatSource};

use crate::{
    net::{EGRESS, EXCEPTED, FAR, NODE, Net, POD, WORLD, ask, ask_in_vain, at, host, seen},
    node::source,
};

/// What makes nodes masquerade Pods, in both flavours.
const MASQUERADE: [&[&str]; 3] = [
    &[],
    &[
        "iptables-nft -t nat -A POSTROUTING -s 10.20.0.0/16 ! -d 10.0.0.0/8 -j MASQUERADE --random-fully",
        "ip6tables-nft -t nat -A POSTROUTING -s fd00:20::/48 ! -d fd00::/8 -j MASQUERADE --random-fully",
    ],
    &["nft table inet kube-proxy { chain nat-postrouting { type nat hook postrouting priority srcnat
         ip saddr 10.20.0.0/16 ip daddr != 10.0.0.0/8 masquerade fully-random
         ip6 saddr fd00:20::/48 ip6 daddr != fd00::/8 masquerade fully-random
         }
         }"],
];

/// Runs a line whose first word is the program; nft takes the rest as one.
fn run(net: &Net, line: &str) {
    match line.strip_prefix("nft ") {
        Some(text) => net.node.ns.run(&["nft", text]).unwrap(),
        None => net.node.ns.exec(line).unwrap(),
    };
}

#[test]
fn a_pod_leaves_as_its_egress_ip_whoever_masquerades() {
    for masquerade in MASQUERADE {
        let net = Net::new("sources");
        masquerade.iter().for_each(|line| run(&net, line));
        for (family, world) in WORLD.iter().enumerate() {
            // The control: who the world hears without us.
            let without = ask(&net.pod, at(world)).unwrap();
            let expected = if masquerade.is_empty() { POD[family] } else { NODE[family] };
            assert_eq!(without.source, expected);
        }
        net.node.want_and_wait(Net::basics);
        for (family, world) in WORLD.iter().enumerate() {
            assert_eq!(ask(&net.pod, at(world)).unwrap(), seen(EGRESS[family]), "{masquerade:?}");
            // Excepted destinations, and other Pods, are none of ours.
            let untouched = if masquerade.is_empty() { POD[family] } else { NODE[family] };
            assert_eq!(ask(&net.pod, at(EXCEPTED[family])).unwrap().source, untouched);
            assert_eq!(ask(&net.pod, at(FAR[family])).unwrap(), seen(POD[family]));
            // Who comes in is answered as he asked.
            assert_eq!(
                ask(&net.world, at(POD[family])).unwrap().source,
                ["172.16.0.254", "fd00:16::fe"][family]
            );
        }
        let installed = net.node.wait("the count", |installed| {
            installed.counters.get("erp").is_some_and(|counters| counters.out_packets >= 6)
        });
        let counters = installed.counters["erp"];
        assert!(counters.out_bytes >= 6 * 40 && counters.dropped_packets == 0, "{counters:?}");
        assert_eq!(installed.error, None);
    }
}

#[test]
fn a_packet_for_another_gateway_keeps_its_source_whoever_masquerades() {
    for masquerade in MASQUERADE {
        let net = Net::new("away");
        masquerade.iter().for_each(|line| run(&net, line));
        net.node.want_and_wait(|desired| {
            Net::basics(desired);
            let away = Fate::Away { slot: 3 };
            for (pod, egress) in POD.iter().zip(EGRESS) {
                desired.classes[0].sources.insert(host(pod).parse().unwrap(), source("erp", egress, away));
            }
        });
        for (family, world) in WORLD.iter().enumerate() {
            let port = at(world);
            net.world.run(&["ip", "route", "add", "unreachable", &host(POD[family])]).unwrap();
            assert_eq!(ask(&net.pod, port).unwrap(), seen(POD[family]), "{masquerade:?}");
        }
        // It was the other gateway that answered: the world itself cannot.
        assert!(net.gateway.exec("ip route").unwrap().contains("172.16.2.1"));
        assert_eq!(net.node.installed().stray_packets, 0);
    }
}

#[test]
fn what_comes_by_an_uplink_has_its_own_fate() {
    let net = Net::new("transit");
    // A Pod of another node, which no class knows: it would leave with its own address.
    for world in WORLD {
        assert!(FAR.contains(&ask(&net.far, at(world)).unwrap().source.as_str()), "the control");
    }
    net.node.want_and_wait(Net::basics);
    for world in WORLD {
        ask_in_vain(&net.far, at(world)).unwrap();
    }
    net.node.wait("the strays", |installed| installed.stray_packets >= 2);
    // Here for the others' Pods, nowhere for this node's.
    let split = |desired: &mut plainroute_agent::nat::NatDesired| {
        Net::basics(desired);
        let prefixes = ["10.20.0.0/16", "fd00:20::/48"];
        desired.classes[0].sources = prefixes
            .iter()
            .zip(EGRESS)
            .map(|(prefix, egress)| {
                let split = NatSource { local: Fate::Drop, ..source("erp", egress, Fate::Here) };
                (prefix.parse().unwrap(), split)
            })
            .collect();
    };
    net.node.want_and_wait(split);
    for (family, world) in WORLD.iter().enumerate() {
        assert_eq!(ask(&net.far, at(world)).unwrap(), seen(EGRESS[family]));
        ask_in_vain(&net.pod, at(world)).unwrap();
        // What is left out is left out for others' Pods too, and then nobody may send it on.
        ask_in_vain(&net.far, at(EXCEPTED[family])).unwrap();
    }
    let installed = net.node.wait("the drops", |installed| {
        installed.counters.get("erp").is_some_and(|counters| counters.dropped_packets >= 2)
    });
    assert!(installed.counters["erp"].dropped_bytes >= 2 * 40 && installed.counters["erp"].out_packets >= 6);
    // The longest prefix wins, and left alone is left alone.
    net.node.want_and_wait(|desired| {
        split(desired);
        for (pod, egress) in POD.iter().zip(EGRESS) {
            desired.classes[0].sources.insert(host(pod).parse().unwrap(), source("erp", egress, Fate::Leave));
        }
    });
    for (family, world) in WORLD.iter().enumerate() {
        assert_eq!(ask(&net.pod, at(world)).unwrap(), seen(POD[family]));
    }
}
