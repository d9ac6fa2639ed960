//! A gateway with a Pod of its own, another node's Pod behind it, and a world that tells who it hears.
//!
//! ```text
//! pod 10.20.0.5 --pod0-- node --up0 172.16.0.1-- world 203.0.113.1
//! far 10.20.9.5 --up1---/  \---up2 172.16.2.1-- other gateway, which has 203.0.113.1 too
//! ```
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use plainroute_agent::nat::{Fate, NatDesired};
use plainroute_tests::netns::{Netns, veth};

use crate::node::{Node, everywhere, source};

pub(crate) const PORT: u16 = 5432;
/// How long a connection may take that is to succeed, and how long one is waited for that must not.
const PATIENCE: Duration = Duration::from_secs(5);
const IN_VAIN: Duration = Duration::from_millis(700);

pub(crate) const POD: [&str; 2] = ["10.20.0.5", "fd00:20::5"];
pub(crate) const FAR: [&str; 2] = ["10.20.9.5", "fd00:20:0:9::5"];
pub(crate) const WORLD: [&str; 2] = ["203.0.113.1", "2001:db8:ffff::1"];
/// Within the destinations that tests leave out.
pub(crate) const EXCEPTED: [&str; 2] = ["203.0.113.129", "2001:db8:ffff:8000::1"];
pub(crate) const NODE: [&str; 2] = ["172.16.0.1", "fd00:16::1"];
pub(crate) const EGRESS: [&str; 2] = ["198.51.100.7", "2001:db8::7"];
pub(crate) const OTHER_EGRESS: [&str; 2] = ["198.51.100.8", "2001:db8::8"];

pub(crate) struct Net {
    pub(crate) node: Node,
    pub(crate) pod: Netns,
    pub(crate) far: Netns,
    pub(crate) world: Netns,
    pub(crate) gateway: Netns,
    _servers: Vec<Server>,
}

impl Net {
    /// The task runs and nothing is desired yet.
    pub(crate) fn new(label: &str) -> Net {
        let ns = Netns::new(label).unwrap();
        let [pod, far, world, gateway] =
            ["pod", "far", "world", "gateway"].map(|name| Netns::new(name).unwrap());
        for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            ns.sysctl(name, "1").unwrap();
        }
        // Loopback's own rule: what is marked for a gateway is routed otherwise than what comes back.
        for name in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"] {
            ns.sysctl(name, "0").unwrap();
        }
        for (name, peer) in [("pod0", &pod), ("up1", &far), ("up0", &world), ("up2", &gateway)] {
            veth((&ns, name), (peer, "eth0")).unwrap();
        }
        for ((interface, us), (peer, them)) in [
            (("pod0", ["10.20.0.1/24", "fd00:20::1/64"]), (&pod, ["10.20.0.5/24", "fd00:20::5/64"])),
            (("up1", ["10.20.9.1/24", "fd00:20:0:9::1/64"]), (&far, ["10.20.9.5/24", "fd00:20:0:9::5/64"])),
            (("up0", ["172.16.0.1/24", "fd00:16::1/64"]), (&world, ["172.16.0.254/24", "fd00:16::fe/64"])),
            (
                ("up2", ["172.16.2.1/24", "fd00:16:0:2::1/64"]),
                (&gateway, ["172.16.2.254/24", "fd00:16:0:2::fe/64"]),
            ),
        ] {
            for (us, them) in us.iter().zip(them) {
                ns.address(interface, us).unwrap();
                peer.address("eth0", them).unwrap();
                let via = us.split_once('/').unwrap().0;
                let default = if us.contains(':') { "::/0" } else { "0.0.0.0/0" };
                peer.run(&["ip", "route", "add", default, "via", via]).unwrap();
            }
        }
        for address in EGRESS.iter().chain(&OTHER_EGRESS) {
            ns.address("lo", &host(address)).unwrap();
        }
        for ns in [&world, &gateway] {
            for address in WORLD.iter().chain(&EXCEPTED) {
                ns.address("lo", &host(address)).unwrap();
            }
        }
        for (via, v6) in [("172.16.0.254", false), ("fd00:16::fe", true)] {
            let default = if v6 { "::/0" } else { "0.0.0.0/0" };
            ns.run(&["ip", "route", "add", default, "via", via]).unwrap();
        }
        for (family, via) in [("-4", "172.16.2.254"), ("-6", "fd00:16:0:2::fe")] {
            let rule = ["ip", family, "rule", "add", "fwmark", "3/0xff", "table", "1880"];
            ns.run(&rule).unwrap();
            ns.run(&["ip", family, "route", "add", "default", "via", via, "table", "1880"]).unwrap();
        }
        let servers = [&world, &gateway, &far, &pod].map(Server::new).into();
        let mut node = Node::within(ns);
        node.start();
        Net { node, pod, far, world, gateway, _servers: servers }
    }

    /// What all tests begin with: the Pod leaves here as the egress IP.
    pub(crate) fn basics(desired: &mut NatDesired) {
        let prefixes = |prefixes: &[&str]| {
            prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect::<BTreeSet<_>>()
        };
        desired.inside = prefixes(&["10.0.0.0/8", "172.16.0.0/16", "fd00::/8"]);
        desired.pods = prefixes(&["10.20.0.0/16", "fd00:20::/48"]);
        desired.uplinks = ["up0", "up1", "up2"].map(str::to_owned).into();
        desired.addresses =
            EGRESS.iter().chain(&OTHER_EGRESS).map(|address| address.parse().unwrap()).collect();
        let mut class = everywhere();
        class.except = prefixes(&["203.0.113.128/25", "2001:db8:ffff:8000::/49"]);
        for (pod, egress) in POD.iter().zip(EGRESS) {
            class.sources.insert(host(pod).parse().unwrap(), source("erp", egress, Fate::Here));
        }
        desired.classes = vec![class];
    }
}

/// As a prefix of one address.
pub(crate) fn host(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}

pub(crate) fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), PORT)
}

/// How a server sees who asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: String,
    /// Whether it has the port that the client has.
    pub(crate) same_port: bool,
}

pub(crate) fn seen(source: &str) -> Seen {
    Seen { source: source.to_owned(), same_port: true }
}

/// Connects from a namespace and asks who is seen.
pub(crate) fn ask(from: &Netns, to: SocketAddr) -> io::Result<Seen> {
    Connection::open(from, to, PATIENCE)?.ask()
}

/// Connects, and expects that nothing is ever heard; what was heard otherwise.
pub(crate) fn ask_in_vain(from: &Netns, to: SocketAddr) -> Result<(), String> {
    match Connection::open(from, to, IN_VAIN) {
        Ok(_) => Err("connected".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(from: &Netns, to: SocketAddr, patience: Duration) -> io::Result<Connection> {
        let stream = from.within(|| TcpStream::connect_timeout(&to, patience))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    pub(crate) fn ask(&mut self) -> io::Result<Seen> {
        self.stream.get_ref().write_all(b"who\n")?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let peer: SocketAddr = line.trim().parse().map_err(io::Error::other)?;
        let local = self.stream.get_ref().local_addr()?;
        Ok(Seen { source: peer.ip().to_string(), same_port: peer.port() == local.port() })
    }
}

/// Tells each who asks how it is seen, by TCP; and counts by UDP whom it hears.
struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn new(ns: &Netns) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let listener = ns.within(|| TcpListener::bind(("::", PORT))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stopped = Arc::clone(&stop);
        let accept = move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, peer)) => {
                        std::thread::spawn(move || answer(stream, peer));
                    }
                    Err(_) => std::thread::park_timeout(Duration::from_millis(2)),
                }
            }
        };
        Server { stop, threads: vec![std::thread::spawn(accept)] }
    }
}

fn answer(stream: TcpStream, peer: SocketAddr) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    stream.set_nonblocking(false).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        if writeln!(&stream, "{peer}").is_err() {
            return;
        }
        line.clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Packets without end from many ports, and whom the other end heard.
pub(crate) struct Flood {
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    pub(crate) fn start(from: &Netns, listeners: &[&Netns], to: &str) -> Flood {
        const PORTS: usize = 200;
        let stop = Arc::new(AtomicBool::new(false));
        let heard: Arc<Mutex<BTreeMap<IpAddr, u64>>> = Arc::default();
        let to = at(to);
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let mut threads = Vec::new();
        for listener in listeners {
            let socket = listener.within(|| UdpSocket::bind((to.ip(), PORT))).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let (stopped, heard) = (Arc::clone(&stop), Arc::clone(&heard));
            threads.push(std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    if let Ok((_, peer)) = socket.recv_from(&mut [0; 16]) {
                        *heard.lock().unwrap().entry(peer.ip()).or_default() += 1;
                    }
                }
            }));
        }
        let sockets: Vec<UdpSocket> =
            from.within(|| (0..PORTS).map(|_| UdpSocket::bind(any).unwrap()).collect());
        let stopped = Arc::clone(&stop);
        threads.push(std::thread::spawn(move || {
            for socket in sockets.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Refused while there is no neighbour or room: the next one goes again.
                let _ = socket.send_to(b"x", to);
            }
        }));
        Flood { stop, heard, threads }
    }

    pub(crate) fn heard(&self) -> BTreeMap<IpAddr, u64> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn total(&self) -> u64 {
        self.heard().values().sum()
    }

    pub(crate) fn stop(mut self) -> BTreeMap<IpAddr, u64> {
        self.end();
        self.heard()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}
