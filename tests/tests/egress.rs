//! What becomes of TCP connections when their egress gateway goes, in the lab `egress`: a connection survives if what one end writes
//! arrives at the other. The table in docs/egress.md is what this prints.
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use plainroute_tests::{
    lab::{Lab, Lifetime},
    netns::wait_until,
};
use socket2::{Domain, Socket, Type};

const RUNNER: &str = env!("CARGO_BIN_EXE_plainroute-lab");
const DB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const EGRESS_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
/// The Pod of the lab, and fifty more in its place.
const ONE: [u8; 1] = [10];
const FIFTY: [u8; 50] = {
    let mut hosts = [0; 50];
    let mut place = 0;
    while place < 50 {
        hosts[place] = 129 + place as u8;
        place += 1;
    }
    hosts
};
const CONNECT: Duration = Duration::from_secs(2);
/// Retransmissions of TCP wait ever longer; a connection that has not said a word by then is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// A packet that nobody lets through is waited for no longer than this.
const SILENCE: Duration = Duration::from_secs(2);

/// Both ends of a connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

/// Who speaks first once the gateway is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// The Pod, at once.
    Client,
    /// The other end, at once; the Pod is silent.
    Server,
    /// The Pod, when all is over.
    Idle,
}

struct Scene {
    lab: Lab,
    listener: TcpListener,
}

impl Scene {
    /// The lab with its gateways in their places, and fifty more Pods behind the first one's link.
    fn new() -> Result<Scene> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("labs").join("egress");
        let lab = Lab::up(&dir, Path::new(RUNNER), &Lifetime::Bound)?;
        for host in FIFTY {
            lab.node("ledger-0")?.shell(&format!("ip address add 10.20.0.{host}/32 dev eth1"))?;
        }
        lab.node("worker-1")?.shell("ip route add 10.20.0.128/25 dev pod-ledger-0")?;
        for tor in ["tor-a", "tor-b"] {
            lab.node(tor)?.shell("ip route add 10.20.0.128/25 via 172.16.0.21")?;
        }
        let listener = lab.node("db")?.within(|| TcpListener::bind((DB, 5432)))??;
        let scene = Scene { lab, listener };
        scene.leaves_by("172.16.0.11")?;
        Ok(scene)
    }

    /// Waits until both ToRs deliver to this gateway and the worker sends to it.
    fn leaves_by(&self, gateway: &str) -> Result<()> {
        wait_until(&format!("{EGRESS_IP} by {gateway}"), Duration::from_secs(30), || -> Result<()> {
            for tor in ["tor-a", "tor-b"] {
                let route = self.lab.node(tor)?.shell("ip route show 198.51.100.7")?;
                ensure!(route.contains(gateway), "{tor}: {route}");
            }
            let name = match gateway {
                "172.16.0.11" => "gw-1",
                _ => "gw-3",
            };
            let egress = self.lab.node("worker-1")?.shell("plainroute egress || true")?;
            let of = egress.lines().find(|line| line.contains("198.51.100.7")).unwrap_or_default();
            ensure!(of.split_whitespace().nth(2) == Some(name), "{egress}");
            let seen = self.connect(10).context("a connection")?.server.peer_addr()?.ip();
            ensure!(seen == EGRESS_IP, "the database sees {seen}");
            Ok(())
        })
    }

    fn connect(&self, host: u8) -> Result<Connection> {
        let client = self.lab.node("ledger-0")?.within(|| -> Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::new(10, 20, 0, host), 0)).into())?;
            socket.connect_timeout(&SocketAddr::from((DB, 5432)).into(), CONNECT)?;
            socket.set_tcp_nodelay(true)?;
            Ok(socket)
        })??;
        let (server, from) = self.listener.accept()?;
        ensure!(from.ip() == EGRESS_IP, "the database sees {from}");
        let mut connection = Connection { client: client.into(), server };
        ensure!(
            connection.carries(true, PATIENCE) && connection.carries(false, PATIENCE),
            "it carries nothing"
        );
        Ok(connection)
    }

    /// How many of the Pods' connections survive what is done, for each way to go on; all at once.
    fn shares(&self, hosts: &[u8], change: &str) -> Result<[usize; 3]> {
        let mut ways = [First::Client, First::Server, First::Idle].map(|first| (first, Vec::new()));
        for (_, connections) in &mut ways {
            *connections = hosts.iter().map(|host| self.connect(*host)).collect::<Result<Vec<_>>>()?;
        }
        self.lab.node("gw-1")?.shell(change)?;
        for (first, connections) in &mut ways {
            let speaks = connections.iter_mut().filter(|_| *first != First::Idle);
            speaks.for_each(|connection| connection.write(*first == First::Client));
        }
        self.leaves_by("172.16.0.13")?;
        let survive = ways.map(|(first, mut connections)| {
            let arrives = |connection: &mut Connection| match first {
                First::Client => connection.reads(true, PATIENCE),
                First::Server => connection.reads(false, SILENCE / 20),
                First::Idle => connection.carries(true, PATIENCE),
            };
            let survived = connections.iter_mut().map(arrives).filter(|arrived| *arrived).count();
            if first == First::Server {
                // What the other end says arrives once the Pod has said something.
                let back = connections.iter_mut().map(|connection| connection.carries(true, PATIENCE));
                assert!(
                    back.filter(|back| *back).count() * 10 >= hosts.len() * 9,
                    "the Pod speaks, and nobody hears it"
                );
            }
            survived
        });
        Ok(survive)
    }
}

impl Connection {
    /// Writes an octet at one end; what the kernel says of it shows at the other.
    fn write(&mut self, client: bool) {
        let end = if client { &mut self.client } else { &mut self.server };
        let _ = end.write_all(b"x");
    }

    /// Whether an octet of that end arrives at the other.
    fn reads(&mut self, client: bool, within: Duration) -> bool {
        let end = if client { &mut self.server } else { &mut self.client };
        end.set_read_timeout(Some(within)).is_ok() && end.read_exact(&mut [0]).is_ok()
    }

    fn carries(&mut self, client: bool, within: Duration) -> bool {
        self.write(client);
        self.reads(client, within)
    }
}

#[test]
fn connections_go_on_by_the_next_gateway() -> Result<()> {
    let scene = Scene::new()?;
    println!("| what happens | Pods | the Pod speaks | the other end speaks | idle |\n|---|---|---|---|---|");
    let cut = (
        "is cut off",
        "ip link set eth1 down",
        "ip link set eth1 up; ip address add fd00:1::11/64 dev eth1 nodad",
    );
    let drained = ("is drained", "plainroute drain --wait 1", "plainroute drain --undo");
    for (hosts, (what, change, undo)) in [(&ONE[..], cut), (&FIFTY[..], cut), (&FIFTY[..], drained)] {
        let [client, server, idle] = scene.shares(hosts, change)?;
        println!("| the gateway {what} | {} | {client} | {server} | {idle} |", hosts.len());
        ensure!(client * 10 >= hosts.len() * 9 && idle * 10 >= hosts.len() * 9, "{what}: {client}, {idle}");
        scene.lab.node("gw-1")?.shell(undo)?;
        scene.leaves_by("172.16.0.11")?;
    }
    Ok(())
}

/// The negative control: without conntrack's loose pick-up a gateway that has not seen a connection begin does not translate it, and
/// what it does not translate does not leave.
#[test]
fn without_loose_pick_up_no_connection_goes_on() -> Result<()> {
    let scene = Scene::new()?;
    scene.lab.node("gw-3")?.shell("echo 0 >/proc/sys/net/netfilter/nf_conntrack_tcp_loose")?;
    let mut connection = scene.connect(10)?;
    scene.lab.node("gw-1")?.shell("ip link set eth1 down")?;
    scene.leaves_by("172.16.0.13")?;
    ensure!(!connection.carries(true, SILENCE), "it goes on all the same, so the test above shows nothing");
    Ok(())
}
