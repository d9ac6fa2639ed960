//! Flows that were there before: what nobody began is dropped without a word, and what goes otherwise is forgotten.
use std::time::Duration;

use plainroute_agent::nat::{Fate, NatDesired};
use plainroute_tests::netns::wait_until;

use crate::{
    net::{Connection, EGRESS, Flood, Net, OTHER_EGRESS, POD, WORLD, ask, ask_in_vain, at, host, seen},
    node::{Node, source},
};

const PATIENCE: Duration = Duration::from_secs(5);

fn conntrack(node: &Node, words: &str) -> Vec<String> {
    let shown = node.ns.exec(&format!("conntrack -L {words}")).unwrap();
    shown.lines().map(str::to_owned).collect()
}

#[test]
fn what_comes_for_an_egress_ip_and_belongs_to_no_flow_is_not_answered() {
    let net = Net::new("unsolicited");
    for egress in EGRESS {
        let refused = Connection::open(&net.world, at(egress), PATIENCE).map(drop).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "the control");
    }
    net.node.want_and_wait(Net::basics);
    for egress in EGRESS {
        ask_in_vain(&net.world, at(egress)).unwrap();
        net.world.exec(&format!("ping -c1 -W5 {egress}")).unwrap();
    }
    net.node.wait("the count", |installed| installed.unsolicited_packets >= 2);
    // Nothing is left that would keep a port from the flow that moves here.
    for (family, egress) in ["ipv4", "ipv6"].iter().zip(EGRESS) {
        let left = conntrack(&net.node, &format!("-f {family} -p tcp --orig-dst {egress}"));
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The kernel of the next gateway knows nothing of the flow: here that of the same one is made to forget.
#[test]
fn a_flow_goes_on_where_nobody_knows_it() {
    let net = Net::new("moved");
    let installed = net.node.want_and_wait(Net::basics);
    assert_eq!(installed.tcp_loose, Some(true));
    for (family, world) in WORLD.iter().enumerate() {
        let mut connection = Connection::open(&net.pod, at(world), PATIENCE).unwrap();
        assert_eq!(connection.ask().unwrap(), seen(EGRESS[family]));
        net.node.ns.exec(&format!("conntrack -D -f {}", ["ipv4", "ipv6"][family])).unwrap();
        // The client speaks first: the same source, the same port, so that the server knows it.
        assert_eq!(connection.ask().unwrap(), seen(EGRESS[family]));
    }
}

#[test]
fn flows_that_go_otherwise_than_desired_are_forgotten_and_no_others() {
    let net = Net::new("forget");
    // Before there is any egress.
    let mut older = Connection::open(&net.pod, at(WORLD[0]), PATIENCE).unwrap();
    assert_eq!(older.ask().unwrap(), seen(POD[0]));
    // Somebody who makes the kernel track flows.
    let keeps = "table ip keeps {
        chain c {
            type filter hook forward priority 0
            ct state new
        }
    }";
    net.node.ns.run(&["nft", keeps]).unwrap();
    assert_eq!(older.ask().unwrap(), seen(POD[0]));
    assert_eq!(conntrack(&net.node, &format!("-p tcp --orig-src {}", POD[0])).len(), 1);
    let from_outside = ask(&net.world, at(POD[0])).map(|seen| seen.source);
    assert_eq!(from_outside.unwrap(), "172.16.0.254");
    let inbound = || conntrack(&net.node, &format!("-p tcp --orig-dst {}", POD[0])).len();
    assert_eq!(inbound(), 1);

    let settled = |change: &dyn Fn(&mut NatDesired)| {
        let generation = net.node.want_and_wait(change).generation;
        net.node.wait("conntrack to be settled", |installed| installed.settled == generation)
    };
    let installed = settled(&Net::basics);
    assert_eq!(installed.flows_removed, 1, "the one that left with the Pod's own address");
    // From the middle on it comes from the egress IP, where the server knows no such connection.
    assert!(older.ask().is_err());

    let mut flows = Vec::new();
    for world in WORLD {
        let mut connection = Connection::open(&net.pod, at(world), PATIENCE).unwrap();
        connection.ask().unwrap();
        flows.push(connection);
    }
    let of = |family: usize, egress: &str| {
        let family = ["ipv4", "ipv6"][family];
        conntrack(&net.node, &format!("-f {family} -p tcp --reply-dst {egress} --state ESTABLISHED")).len()
    };
    assert_eq!((of(0, EGRESS[0]), of(1, EGRESS[1])), (1, 1));
    // The IPv4 address changes, and nothing else.
    let installed = settled(&|desired| {
        let pod = host(POD[0]).parse().unwrap();
        desired.classes[0].sources.insert(pod, source("erp", OTHER_EGRESS[0], Fate::Here));
    });
    assert_eq!((of(0, EGRESS[0]), of(1, EGRESS[1]), inbound()), (0, 1, 1), "{installed:?}");
    assert_eq!(flows[1].ask().unwrap(), seen(EGRESS[1]));
    assert_eq!(ask(&net.pod, at(WORLD[0])).unwrap(), seen(OTHER_EGRESS[0]));
    // The IPv6 address leaves the node.
    settled(&|desired| {
        desired.addresses.remove(&EGRESS[1].parse().unwrap());
        let pod = host(POD[1]).parse().unwrap();
        desired.classes[0].sources.insert(pod, source("erp", EGRESS[1], Fate::Drop));
    });
    assert_eq!((of(1, EGRESS[1]), inbound()), (0, 1));
    assert!(net.node.installed().error.is_none());
    // No egress at all: its flows go with it.
    assert!(conntrack(&net.node, &format!("-p tcp --reply-dst {}", OTHER_EGRESS[0])).len() == 1);
    settled(&|desired| *desired = NatDesired { generation: desired.generation, ..NatDesired::default() });
    assert!(conntrack(&net.node, &format!("-p tcp --reply-dst {}", OTHER_EGRESS[0])).is_empty());
    assert_eq!(inbound(), 1);
}

#[test]
fn no_packet_has_a_wrong_source_while_the_table_is_changed_and_adopted() {
    for (family, world) in WORLD.iter().enumerate() {
        let mut net = Net::new("flood");
        net.node.want_and_wait(Net::basics);
        let flood = Flood::start(&net.pod, &[&net.world], world);
        let right: [std::net::IpAddr; 2] =
            [EGRESS[family], OTHER_EGRESS[family]].map(|address| address.parse().unwrap());
        let wrong = |flood: &Flood| -> u64 {
            flood.heard().iter().filter(|(source, _)| !right.contains(source)).map(|(_, count)| count).sum()
        };
        let more = |flood: &Flood| {
            let before = flood.total();
            wait_until("more packets", PATIENCE, || match flood.total() {
                now if now > before + 100 => Ok(()),
                now => Err(now),
            })
            .unwrap();
        };
        more(&flood);
        let want = |net: &Net, turn: usize| {
            let address = [EGRESS[family], OTHER_EGRESS[family]][turn % 2];
            net.node.want_and_wait(|desired| {
                Net::basics(desired);
                let class = &mut desired.classes[0];
                // Now by its address, now by a prefix; the sets around it, other chains, and the mark change too.
                let pod = host(POD[family]).parse().unwrap();
                class.sources.remove(&pod);
                let wide = if family == 0 { "10.20.0.0/24" } else { "fd00:20::/64" };
                let prefix = if turn.is_multiple_of(3) { wide.parse().unwrap() } else { pod };
                class.sources.insert(prefix, source(["erp", "crm", "hr"][turn % 3], address, Fate::Here));
                desired.inside.insert(format!("10.{}.0.0/16", 30 + turn % 7).parse().unwrap());
                desired.mark_mask = [0xff, 0xff00][turn % 2];
            });
        };
        for turn in 0..60 {
            want(&net, turn);
        }
        for turn in 0..20 {
            net.node.stop();
            net.node.start();
            want(&net, turn * 7);
        }
        more(&flood);
        assert_eq!(wrong(&flood), 0, "{:?}", flood.heard());
        let both = flood.heard();
        assert!(right.iter().all(|address| both.get(address).is_some_and(|count| *count > 0)), "{both:?}");
        println!("{world}: no wrong source among {} packets", flood.total());

        // The control: without a table the flood sees it; and the next process puts an end to it.
        net.node.stop();
        net.node.nft("delete table inet plainroute");
        let _ = net.node.ns.output(&["conntrack", "-D", "-f", ["ipv4", "ipv6"][family]]).unwrap();
        wait_until("a wrong source", PATIENCE, || if wrong(&flood) > 0 { Ok(()) } else { Err(0) }).unwrap();
        net.node.start();
        want(&net, 0);
        let generation = net.node.installed().generation;
        net.node.wait("conntrack to be settled", |installed| installed.settled == generation);
        wait_until("no more wrong sources", PATIENCE, || {
            let before = wrong(&flood);
            more(&flood);
            if wrong(&flood) == before { Ok(()) } else { Err(wrong(&flood)) }
        })
        .unwrap();
        flood.stop();
    }
}
