//! The kernel's routing table by raw netlink, written by hand: the floor of row (d), and the cause of row (b)'s changes
//! for routers that learn from the kernel.
use std::fs;
use std::net::Ipv4Addr;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use plainroute_tests::netns::Netns;

use crate::clock::Moment;
use crate::site::router_id;
use crate::wire::Numbering;

pub(crate) const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_NEXT_HOP: u16 = 104;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
/// Requests in one write.
const BATCH: usize = 64;
/// The nexthop object of [`Way::Object`].
const OBJECT: u32 = 77;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the link itself.
    Link,
    /// By a host of the tool.
    Gateway(u8),
    /// By the nexthop object that [`Kernel::object`] made.
    Object,
}

/// A netlink socket in a namespace, and one of its interfaces.
pub(crate) struct Kernel {
    socket: Socket,
    interface: u32,
    sequence: u32,
}

impl Kernel {
    pub(crate) fn new(netns: &Netns) -> Result<Kernel> {
        netns.within(|| {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            let interface = nix::net::if_::if_nametoindex("eth0")?;
            Ok(Kernel { socket, interface, sequence: 0 })
        })
    }

    /// Adds the host routes of these numbers; gives when the first request left.
    pub(crate) fn add(&mut self, numbers: Range<u32>, way: Way) -> Result<Moment> {
        let batches = self.encode(NEW_ROUTE, numbers, way);
        self.send(&batches)
    }

    /// Removes them.
    pub(crate) fn remove(&mut self, numbers: Range<u32>, way: Way) -> Result<Moment> {
        let batches = self.encode(DELETE_ROUTE, numbers, way);
        self.send(&batches)
    }

    /// Makes the nexthop object: by a host of the tool.
    pub(crate) fn object(&mut self, host: u8) -> Result<()> {
        let mut attributes = attribute(1, &OBJECT.to_ne_bytes());
        attributes.extend(attribute(5, &self.interface.to_ne_bytes()));
        attributes.extend(attribute(6, &router_id(host).octets()));
        // Family, scope, protocol, reserved, flags.
        let body = [&[2, 0, 4, 0, 0, 0, 0, 0][..], &attributes].concat();
        let mut batch = Vec::new();
        self.request(NEW_NEXT_HOP, REQUEST | CREATE | ACKNOWLEDGE, &body, &mut batch);
        self.send(&[batch]).map(drop)
    }

    /// All requests, in batches of which the last request of each is to be acknowledged.
    pub(crate) fn encode(&mut self, kind: u16, numbers: Range<u32>, way: Way) -> Vec<Vec<u8>> {
        let numbers: Vec<u32> = numbers.collect();
        let mut batches = Vec::new();
        for chunk in numbers.chunks(BATCH) {
            let mut batch = Vec::new();
            for (place, number) in chunk.iter().enumerate() {
                let last = place + 1 == chunk.len();
                let flags = REQUEST | CREATE | if last { ACKNOWLEDGE } else { 0 };
                let body = self.route(Numbering::Hosts4.v4(*number), way);
                self.request(kind, flags, &body, &mut batch);
            }
            batches.push(batch);
        }
        batches
    }

    /// Writes each batch and waits for its acknowledgement; a refusal of any request is an error.
    pub(crate) fn send(&mut self, batches: &[Vec<u8>]) -> Result<Moment> {
        let begin = Moment::now();
        for batch in batches {
            self.socket.send(batch, 0)?;
            let (answer, _) = self.socket.recv_from_full()?;
            let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
            ensure!(code == Some(0), "the kernel refuses a route: error {code:?}");
        }
        Ok(begin)
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8], out: &mut Vec<u8>) {
        self.sequence += 1;
        out.extend(u32::try_from(16 + body.len()).expect("short").to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend(self.sequence.to_ne_bytes());
        out.extend([0; 4]);
        out.extend(body);
    }

    fn route(&self, destination: Ipv4Addr, way: Way) -> Vec<u8> {
        let scope = if way == Way::Link { 253 } else { 0 };
        // Family, lengths of destination and source, TOS, table main, protocol boot, scope, unicast, flags.
        let mut body = vec![2, 32, 0, 0, 254, 3, scope, 1, 0, 0, 0, 0];
        body.extend(attribute(1, &destination.octets()));
        match way {
            Way::Link => body.extend(attribute(4, &self.interface.to_ne_bytes())),
            Way::Gateway(host) => {
                body.extend(attribute(4, &self.interface.to_ne_bytes()));
                body.extend(attribute(5, &router_id(host).octets()));
            }
            Way::Object => body.extend(attribute(30, &OBJECT.to_ne_bytes())),
        }
        body
    }
}

fn attribute(kind: u16, value: &[u8; 4]) -> Vec<u8> {
    [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

/// How many IPv4 prefixes the namespace's main table holds.
pub(crate) fn held(netns: &Netns) -> Result<usize> {
    let shown = netns.within(|| fs::read_to_string("/proc/thread-self/net/fib_triestat"))?;
    let main = shown.split("Main:").nth(1).context("no table main in fib_triestat")?;
    let line = main.lines().find_map(|line| line.trim().strip_prefix("Prefixes:"));
    line.context("no prefixes in fib_triestat")?.trim().parse().context("a number of prefixes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{Site, host};

    #[test]
    fn the_kernel_holds_what_was_written_and_is_counted() {
        let site = Site::new().unwrap();
        let mut kernel = Kernel::new(&site.contestant).unwrap();
        kernel.object(host::FEEDER).unwrap();
        let before = held(&site.contestant).unwrap();
        kernel.add(0..1_000, Way::Link).unwrap();
        kernel.add(1_000..2_000, Way::Gateway(host::FEEDER)).unwrap();
        kernel.add(2_000..3_000, Way::Object).unwrap();
        assert_eq!(held(&site.contestant).unwrap() - before, 3_000);
        let shown = site.contestant.exec("ip route show 10.0.7.0/32").unwrap();
        assert!(shown.contains("via 172.16.0.253 dev eth0"), "{shown}");
        kernel.remove(0..1_000, Way::Link).unwrap();
        assert_eq!(held(&site.contestant).unwrap() - before, 2_000);
        kernel.remove(0..1, Way::Link).unwrap_err();
    }
}
