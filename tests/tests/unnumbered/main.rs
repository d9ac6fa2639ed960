//! Peers without an address, on the real kernel: whose router advertisements are believed, and the default gateway as a
//! peer. What the labs show of them end to end is in `labs/unnumbered`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use plainroute_agent::fib::{Installed, Interface};
use plainroute_agent::neighbours::{self, HeardBy};
use plainroute_ra::{ALL_NODES, Advertisement, Message, Refusal};
use plainroute_tests::netns::{Daemon, Netns, veth, wait_until};
use plainroute_tests::routers::{Frr, Router};
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::watch;

const DEADLINE: Duration = Duration::from_secs(20);
const OURS: &str = "fe80::a";
const ROUTER: &str = "fe80::b";
const ROUTER_GLOBAL: &str = "fd00::b";

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap()
}

/// Sends an ICMPv6 message to all nodes on the interface.
fn send(from: &Netns, interface: &str, source: &str, hop_limit: u32, payload: &[u8]) {
    from.within(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        let source: Ipv6Addr = source.parse().unwrap();
        let scope = if source.is_unicast_link_local() { index(interface) } else { 0 };
        socket.bind(&SockAddr::from(SocketAddrV6::new(source, 0, 0, scope))).unwrap();
        socket.set_multicast_if_v6(index(interface)).unwrap();
        socket.set_multicast_hops_v6(hop_limit).unwrap();
        let group = SocketAddrV6::new(ALL_NODES, 0, 0, index(interface));
        socket.send_to(payload, &SockAddr::from(group)).unwrap();
    });
}

fn node_and_router() -> (Netns, Netns) {
    let (node, router) = (Netns::new("node").unwrap(), Netns::new("router").unwrap());
    for interface in ["eth0", "eth1"] {
        veth((&node, interface), (&router, interface)).unwrap();
        for (netns, address) in [(&node, OURS), (&router, ROUTER)] {
            netns.exec(&format!("ip address flush dev {interface} scope link")).unwrap();
            netns.address(interface, &format!("{address}/64")).unwrap();
        }
    }
    router.address("eth0", &format!("{ROUTER_GLOBAL}/64")).unwrap();
    (node, router)
}

fn installed(node: &Netns) -> Installed {
    let interface = |name: &str| {
        let addresses = vec![(OURS.parse().unwrap(), 64)];
        (
            name.to_owned(),
            Interface { index: node.within(|| index(name)), up: true, loopback: false, addresses },
        )
    };
    Installed { synced: true, interfaces: ["eth0", "eth1"].map(interface).into(), ..Installed::default() }
}

fn routers(heard: &HeardBy, interface: &str) -> Vec<String> {
    let heard = heard.get(interface).into_iter().flat_map(|heard| heard.routers.keys());
    heard.map(ToString::to_string).collect()
}

#[test]
fn a_stranger_s_advertisement_is_not_believed_and_a_router_s_is() {
    let (node, router) = node_and_router();
    // What our side sends is to be seen at the other end.
    let witness = router.within(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.bind_device(Some(b"eth0")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        std::net::UdpSocket::from(socket)
    });
    let (wanted, wanted_in) = watch::channel(BTreeSet::from(["eth0".to_owned()]));
    let (links, links_in) = watch::channel(Arc::new(installed(&node)));
    let (heard_out, heard) = watch::channel(Arc::<HeardBy>::default());
    let running = node.on_thread(move || neighbours::run(wanted_in, links_in, heard_out));

    let advertisement = loop {
        let mut buffer = [0; 1500];
        let (length, source) = witness.recv_from(&mut buffer).expect("an advertisement of ours");
        if buffer[0] == 134 {
            assert_eq!(source.ip().to_string(), OURS);
            break buffer[..length].to_vec();
        }
    };
    assert_eq!((advertisement[1], &advertisement[6..8]), (0, &[0, 0][..]), "no default router");
    assert_eq!((advertisement.len(), &advertisement[16..18]), (24, &[1, 1][..]), "with our Ethernet address");

    let good = Message::Advertisement(Advertisement { router_lifetime: 1800, source: None }).encode();
    let with = |place: usize, octet: u8| {
        let mut octets = good.clone();
        octets[place] = octet;
        octets
    };
    send(&router, "eth0", ROUTER, 254, &good);
    send(&router, "eth0", ROUTER_GLOBAL, 255, &good);
    send(&router, "eth0", ROUTER, 255, &with(1, 1));
    send(&router, "eth0", ROUTER, 255, &good[..15]);
    send(&router, "eth0", ROUTER, 255, &[&good[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat());
    // On an interface that no peer names, nobody listens.
    send(&router, "eth1", ROUTER, 255, &good);
    // The negative control, and a fence: packets come in the order in which they were sent.
    router.address("eth0", "fe80::c/64").unwrap();
    send(&router, "eth0", "fe80::c", 255, &good);
    wait_until("the router to be heard", DEADLINE, || match routers(&heard.borrow(), "eth0") {
        seen if seen.is_empty() => Err("nobody"),
        _ => Ok(()),
    })
    .unwrap();
    let seen = Arc::clone(&heard.borrow());
    assert_eq!((routers(&seen, "eth0"), seen.len()), (vec!["fe80::c".to_owned()], 1));
    let refused = &seen["eth0"].counters.refused;
    assert_eq!(*refused, Refusal::ALL.map(|reason| (reason, 1)).into(), "each once");

    wanted.send_replace(BTreeSet::from(["eth0".to_owned(), "eth1".to_owned()]));
    wait_until("the router on the other interface", DEADLINE, || {
        send(&router, "eth1", ROUTER, 255, &good);
        if routers(&heard.borrow(), "eth1") == [ROUTER] { Ok(()) } else { Err("nobody") }
    })
    .unwrap();
    // A link that goes down forgets who was there.
    links.send_modify(|links| {
        Arc::make_mut(links).interfaces.get_mut("eth0").unwrap().up = false;
    });
    wait_until("the link to be empty", DEADLINE, || match routers(&heard.borrow(), "eth0") {
        seen if seen.is_empty() => Ok(()),
        seen => Err(seen.join(" ")),
    })
    .unwrap();
    assert_eq!(routers(&heard.borrow(), "eth1"), [ROUTER]);
    drop((wanted, links));
    running.join().unwrap();
}

type Peers = BTreeMap<String, Value>;

/// An agent with one BGPPeer, `gateway`, and its directory.
struct Agent {
    node: Netns,
    disk: tempfile::TempDir,
}

impl Agent {
    fn new(node: &Netns, spec: &str) -> Agent {
        let agent = Agent { node: node.clone(), disk: tempfile::tempdir().unwrap() };
        let config = format!(
            "apiVersion: plainroute.dev/v1alpha1\nkind: AgentConfig\nmetadata: {{ name: default }}\n\
             spec: {{ nodeName: node-a, adminSocket: {}, stateDir: {} }}\n---\n\
             apiVersion: plainroute.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{ name: gateway }}\n\
             spec: {{ localASN: 64512, peerASN: 64600, routerID: 172.16.0.1, {spec} }}\n",
            agent.path("agent.sock"),
            agent.path("state")
        );
        std::fs::write(agent.path("agent.yaml"), config).unwrap();
        // By this name the lab's runner is the agent.
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_plainroute-lab"), agent.path("plainroute")).unwrap();
        agent
    }

    fn path(&self, name: &str) -> String {
        self.disk.path().join(name).display().to_string()
    }

    fn start(&self) -> Daemon {
        let argv = [&self.path("plainroute"), "agent", "--config", &self.path("agent.yaml")];
        self.node.spawn(&argv, &self.disk.path().join("agent.log")).unwrap()
    }

    fn ask(&self, question: &str) -> Value {
        let asked = [&self.path("plainroute"), question, "-o", "json", "--socket", &self.path("agent.sock")];
        let said = self.node.output(&asked).map(|output| output.stdout).unwrap_or_default();
        serde_json::from_slice(&said).unwrap_or_default()
    }

    fn wait(&self, what: &str, condition: &dyn Fn(&Peers) -> bool) -> Peers {
        let asked = || {
            let peers = self.ask("peers").as_array().cloned().unwrap_or_default();
            let name = |peer: &Value| peer["name"].as_str().unwrap_or("").to_owned();
            let peers: Peers = peers.into_iter().map(|peer| (name(&peer), peer)).collect();
            if condition(&peers) { Ok(peers) } else { Err(format!("{peers:?}")) }
        };
        wait_until(what, DEADLINE, asked).unwrap()
    }
}

const UNNUMBERED_FRR: &str = "log stdout\nfrr defaults datacenter\nrouter bgp 64600\n bgp router-id 172.16.0.254\n \
    neighbor eth0 interface remote-as external\n neighbor 172.16.1.1 remote-as 64512\n \
    neighbor 172.16.1.1 timers connect 1\n no bgp network import-check\n address-family ipv4 unicast\n  \
    network 198.51.100.0/24\n  neighbor eth0 default-originate\n exit-address-family\n";

#[test]
fn what_a_router_taught_stays_after_a_restart_while_it_is_not_found_again() {
    let (node, router) = node_and_router();
    node.address("eth1", "172.16.1.1/24").unwrap();
    router.address("eth1", "172.16.1.254/24").unwrap();
    let _frr = Frr::launch(&router, UNNUMBERED_FRR).unwrap();
    let agent = Agent::new(&node, "interface: eth0, import: [{ cidr: 0.0.0.0/0, install: true }]");
    // Another peer, which is there all the time and has told all that it has.
    let other = "---\napiVersion: plainroute.dev/v1alpha1\nkind: BGPPeer\nmetadata: { name: other }\n\
         spec: { localASN: 64512, peerASN: 64600, routerID: 172.16.0.1, peerAddress: 172.16.1.254, \
         import: [{ cidr: 198.51.100.0/24, install: true }] }\n";
    let config = std::fs::read_to_string(agent.path("agent.yaml")).unwrap();
    std::fs::write(agent.path("agent.yaml"), config + other).unwrap();
    let mut running = agent.start();
    let route = |prefix: &str| node.exec(&format!("ip -4 route show {prefix} proto 188")).unwrap();
    let via_router = || route("default").contains(&format!("via inet6 {ROUTER}"));
    let both = |peers: &Peers| peers.values().filter(|peer| peer["state"] == "Established").count() == 2;
    agent.wait("both sessions", &both);
    wait_until("the default route of the router", DEADLINE, || {
        if via_router() { Ok(()) } else { Err(route("default")) }
    })
    .unwrap();
    // It cannot be found, and nothing of it is remembered.
    running.kill();
    std::fs::remove_file(agent.path("state/routers")).unwrap();
    node.exec("ip -6 address flush dev eth0 scope link").unwrap();
    let _again = agent.start();
    let peers = agent.wait("the other session", &|peers| {
        peers.get("other").is_some_and(|peer| {
            peer["state"] == "Established" && peer["families"]["ipv4-unicast"]["accepted"] == 1
        })
    });
    let blocked = peers["gateway"]["blocked"].as_str().unwrap_or("").to_owned();
    assert!(blocked.contains("no IPv6 link-local address"), "{peers:?}");
    let gone = wait_until("the route to go", Duration::from_secs(2), || {
        if via_router() { Err("it is there") } else { Ok(()) }
    });
    assert!(gone.is_err(), "the learned route is gone: {}", route("default"));
}

const FRR: &str = "log stdout\nfrr defaults datacenter\nrouter bgp 64600\n bgp router-id 172.16.0.254\n \
    neighbor 172.16.0.1 remote-as 64512\n neighbor 172.16.0.1 timers connect 1\n";

#[test]
fn the_default_gateway_is_a_peer_and_stays_one_when_the_route_is_changed() {
    let (node, router) = node_and_router();
    node.address("eth0", "172.16.0.1/24").unwrap();
    router.address("eth0", "172.16.0.254/24").unwrap();
    let frr = Frr::launch(&router, FRR).unwrap();
    let agent = Agent::new(&node, "autoDiscovery: { mode: DefaultGateway }");
    let _running = agent.start();
    let wait = |what: &str, condition: &dyn Fn(&Peers) -> bool| agent.wait(what, condition);
    let is_up =
        |peers: &Peers| peers.get("gateway@172.16.0.254").is_some_and(|peer| peer["state"] == "Established");

    let missing = wait("the agent to miss the gateway", &|peers| peers.contains_key("gateway"));
    assert!(missing["gateway"]["blocked"].as_str().unwrap().contains("no default gateway"), "{missing:?}");
    node.exec("ip route add default via 172.16.0.254").unwrap();
    let found = wait("the session with the gateway", &is_up);
    assert_eq!((found.len(), &found["gateway@172.16.0.254"]["foundBy"]), (1, &"defaultGateway".into()));
    assert_eq!(frr.state("172.16.0.1".parse().unwrap()).unwrap(), "established");

    // Another gateway in its place is a peer too; the session with the first is not touched.
    node.exec("ip route replace default via 172.16.0.253").unwrap();
    wait("the other gateway", &|peers| peers.contains_key("gateway@172.16.0.253"));
    node.exec("ip route del default").unwrap();
    node.exec("ip route add default via 172.16.0.252").unwrap();
    let both = wait("a third one", &|peers| peers.contains_key("gateway@172.16.0.252"));
    assert!(is_up(&both) && both["gateway@172.16.0.254"]["lostCount"] == 0, "{both:?}");
    assert!(!both.contains_key("gateway@172.16.0.253"), "never spoken with, and named no more: {both:?}");
}
