//! Router advertisements, sent and received: how a peer behind an interface and this node find each other.
//!
//! Owner of: one raw ICMPv6 socket and one [`Link`] for each interface that a planned peer names. Inputs: those
//! interfaces, the node's links (`watch`), packets. Output: who was heard where (`watch`, told when that changes).
//! Cancelling: at any await; the sockets close, and nobody on the links notices before it looks for our advertisements.
//!
//! The kernel's own handling of advertisements (`accept_ra`) plays no part: a raw socket gets them whatever it says.
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use plainroute_ra::{Link, Packet, Refusal};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{
    discovery::Heard,
    fib::{Installed, Interface},
};
use socket::RouterSocket;

/// After a socket that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(10);
/// So many packets of one interface are taken in a row.
const AT_ONCE: usize = 64;

/// Who was heard, by interface.
pub type HeardBy = BTreeMap<String, Heard>;

/// Finds routers on the `wanted` interfaces, until its inputs are gone.
pub async fn run(
    mut wanted: watch::Receiver<BTreeSet<String>>,
    mut installed: watch::Receiver<Arc<Installed>>,
    heard: watch::Sender<Arc<HeardBy>>,
) {
    let mut ports: BTreeMap<String, Port> = BTreeMap::new();
    loop {
        let interfaces = wanted.borrow_and_update().clone();
        let links = Arc::clone(&installed.borrow_and_update());
        ports.retain(|name, _| interfaces.contains(name));
        for name in interfaces {
            let link = links.interfaces.get(&name);
            ports.entry(name).or_insert_with_key(|name| Port::new(name)).follow(link);
        }
        for port in ports.values_mut() {
            port.transmit();
        }
        publish(&ports, &heard);
        let wake = ports.values().filter_map(Port::poll_timeout).min();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            changed = installed.changed() => if changed.is_err() { return },
            name = readable(&ports) => {
                if let Some(port) = ports.get_mut(&name) {
                    port.receive();
                }
            }
            () = sleep_until(wake) => {}
        }
    }
}

/// Tells what was heard, and wakes the readers only for that.
fn publish(ports: &BTreeMap<String, Port>, heard: &watch::Sender<Arc<HeardBy>>) {
    let now: HeardBy = ports.iter().map(|(name, port)| (name.clone(), port.heard())).collect();
    heard.send_if_modified(|told| {
        let news = told.len() != now.len()
            || told.iter().zip(&now).any(|(before, now)| {
                before.0 != now.0 || before.1.routers != now.1.routers || before.1.problem != now.1.problem
            });
        *told = Arc::new(now);
        news
    });
}

/// One interface.
struct Port {
    name: String,
    link: Link,
    /// With the interface's index, for another interface may get the name.
    socket: Option<(u32, RouterSocket)>,
    problem: Option<String>,
    open_at: Option<Instant>,
    /// What was already said of packets that are not believed.
    said: BTreeSet<Refusal>,
}

impl Port {
    fn new(name: &str) -> Port {
        let link = Link::new(seed(name));
        Port {
            name: name.to_owned(),
            link,
            socket: None,
            problem: None,
            open_at: None,
            said: BTreeSet::new(),
        }
    }

    /// Brings socket and link to what the interface is now.
    fn follow(&mut self, interface: Option<&Interface>) {
        let Some((index, address)) = interface.filter(|interface| interface.up).and_then(own_address) else {
            self.link.handle_down();
            self.socket = None;
            self.problem = None;
            self.open_at = None;
            return;
        };
        if self.socket.as_ref().is_none_or(|(of, _)| *of != index) {
            if self.open_at.is_some_and(|at| at > Instant::now()) {
                return;
            }
            self.link.handle_down();
            self.socket = self.open(index).map(|socket| (index, socket));
        }
        if self.socket.is_some() {
            self.link.handle_up(Instant::now(), address, socket::link_layer_address(&self.name));
        }
    }

    fn open(&mut self, index: u32) -> Option<RouterSocket> {
        match RouterSocket::open(&self.name, index) {
            Ok(socket) => {
                info!(interface = self.name, "router advertisements are sent and listened for");
                self.problem = None;
                self.open_at = None;
                Some(socket)
            }
            Err(error) => {
                let problem = format!("cannot open a raw socket: {error}{}", missing_capability(&error));
                if self.problem.as_ref() != Some(&problem) {
                    warn!(interface = self.name, problem, "no router can be found");
                }
                self.problem = Some(problem);
                self.open_at = Some(Instant::now() + OPEN_AGAIN);
                None
            }
        }
    }

    fn transmit(&mut self) {
        let Some((index, socket)) = &self.socket else { return };
        while let Some(sent) = self.link.poll_transmit(Instant::now()) {
            // The next one makes up for it.
            if let Err(error) = socket.send(&sent.payload, sent.destination, *index) {
                debug!(interface = self.name, %error, "a router advertisement or solicitation was not sent");
            }
        }
    }

    fn receive(&mut self) {
        let Some((_, socket)) = &self.socket else { return };
        for _ in 0..AT_ONCE {
            let mut buffer = [0; socket::LONGEST];
            match socket.receive(&mut buffer) {
                Ok(received) => {
                    let payload = buffer.get(..received.length).unwrap_or(&[]);
                    let packet = Packet { source: received.source, hop_limit: received.hop_limit, payload };
                    if let Err(reason) = self.link.handle_packet(Instant::now(), &packet)
                        && self.said.insert(reason)
                    {
                        warn!(interface = self.name, source = %received.source, %reason, "ignored a router's packet");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The link went down, say; the next look at the links takes care of it.
                Err(error) => {
                    debug!(interface = self.name, %error, "receiving router advertisements");
                    return;
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.open_at.into_iter().chain(self.link.poll_timeout()).min()
    }

    fn heard(&self) -> Heard {
        let counters = self.link.counters().clone();
        Heard { routers: self.link.routers().clone(), problem: self.problem.clone(), counters }
    }
}

/// The interface's index and the link-local address that the kernel sends from.
fn own_address(interface: &Interface) -> Option<(u32, Ipv6Addr)> {
    let address = interface.addresses.iter().find_map(|(address, _)| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(*address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    Some((interface.index, address?))
}

fn missing_capability(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (it needs the capability CAP_NET_RAW)"
    } else {
        ""
    }
}

/// Differs between nodes and interfaces, so that they do not advertise in step.
fn seed(interface: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (std::process::id(), interface, std::time::SystemTime::now()).hash(&mut hasher);
    hasher.finish()
}

/// The next interface with something to read. Cancelling loses nothing: it is readiness that is awaited.
async fn readable(ports: &BTreeMap<String, Port>) -> String {
    poll_fn(|context| {
        let ready = ports.iter().find(|(_, port)| {
            port.socket.as_ref().is_some_and(|(_, socket)| socket.poll_readable(context).is_ready())
        });
        ready.map_or(Poll::Pending, |(name, _)| Poll::Ready(name.clone()))
    })
    .await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
