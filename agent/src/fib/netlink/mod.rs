//! The only place that speaks netlink: one socket to ask and change, one that only listens.
//!
//! The sockets are netlink-sys's and the messages netlink-packet-route's, but requests are matched to their answers
//! here and not by netlink-proto: a dump that was interrupted must be taken again, a refusal must be told with the
//! kernel's own words and for the right route, and an undecodable message must not pass unseen.
mod codec;

use std::{collections::BTreeMap, fmt, io, time::Duration};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NlasIterator, parse_i32, parse_string,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};
use plainroute_bgp::AfiSafi;
use socket2::{SockFilter, SockRef};
use tokio::time::timeout;

use super::{
    Rule,
    kernel::{Change, KernelRoute, Link},
};

/// Requests per datagram: fewer system calls, and their answers still fit any receive buffer.
const BATCH: usize = 512;
const REQUEST_BUFFER: usize = 4 << 20;
/// The kernel's dumps come in datagrams of up to 32 KiB.
const DATAGRAM: usize = 64 << 10;
/// The kernel answers at once; this only turns a lost answer into an error instead of a standstill.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
const DUMP_ATTEMPTS: usize = 5;
/// `NLMSGERR_ATTR_MSG` of the kernel's netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// An error code and the header of the request that it answers.
const ERROR_LENGTH: usize = 4 + 16;
/// Where a message's header has its type, and the port of who caused it.
const MESSAGE_TYPE: u32 = 4;
const MESSAGE_PORT: u32 = 12;
const TABLE_LOCAL: u8 = 255;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;

/// Multicast groups of the kernel's rtnetlink.h: link, both families' addresses, routes and rules, next hop objects.
const GROUPS: [u32; 8] = [1, 5, 9, 7, 11, 8, 19, 32];

/// Why the kernel did not make a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    /// The kernel's own words, when it has any.
    text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{text} ({})", self.errno),
            None => write!(f, "{}", self.errno.desc()),
        }
    }
}

/// The socket to ask the kernel and to change it.
pub(super) struct Requests {
    socket: TokioSocket,
    port: u32,
    sequence: u32,
    received: Vec<u8>,
}

impl Requests {
    pub(super) fn open() -> io::Result<Requests> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let port = socket.socket_mut().bind_auto()?.port_number();
        let plain = socket.socket_ref();
        // Strict: the kernel filters dumps by table and protocol, and refuses what it does not understand.
        plain.set_netlink_get_strict_chk(true)?;
        plain.set_ext_ack(true)?;
        plain.set_cap_ack(true)?;
        enlarge(&socket, REQUEST_BUFFER);
        Ok(Requests { socket, port, sequence: 0, received: Vec::with_capacity(DATAGRAM) })
    }

    /// The kernel notes it on every event that a request of this socket causes.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// The links with their addresses.
    pub(super) async fn links(&mut self) -> io::Result<BTreeMap<u32, Link>> {
        let links = self.dump(RTM_NEWLINK, codec::link, codec::link_query).await?;
        let mut links: BTreeMap<u32, Link> = links.into_iter().collect();
        for (index, address, length) in self.dump(RTM_NEWADDR, codec::address, codec::address_query).await? {
            if let Some(link) = links.get_mut(&index) {
                link.addresses.push((address, length));
            }
        }
        Ok(links)
    }

    /// Every route of the tables, and those of `protocol` in any table.
    pub(super) async fn routes(&mut self, tables: &[u32], protocol: u8) -> io::Result<Vec<KernelRoute>> {
        let mut routes = Vec::new();
        for family in [AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast] {
            for table in tables {
                routes.extend(self.dump_routes(family, *table, 0).await?);
            }
            let ours = self.dump_routes(family, 0, protocol).await?;
            routes.extend(ours.into_iter().filter(|route| !tables.contains(&route.key.table)));
        }
        Ok(routes)
    }

    async fn dump_routes(
        &mut self,
        family: AfiSafi,
        table: u32,
        protocol: u8,
    ) -> io::Result<Vec<KernelRoute>> {
        let query = || codec::route_query(family, table, protocol);
        match self.dump(RTM_NEWROUTE, codec::route, query).await {
            // A kernel without the family answers with the other one's routes.
            Ok(routes) => {
                Ok(routes.into_iter().filter(|route| route.key.prefix.family() == family).collect())
            }
            // No such table yet, or no such family in this kernel.
            Err(error) if absent(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The policy rules of `protocol`, as far as they are of a shape that ours have.
    pub(super) async fn rules(&mut self, protocol: u8) -> io::Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for family in [AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast] {
            let query = || codec::rule_query(family);
            match self.dump(RTM_NEWRULE, codec::rule, query).await {
                Ok(found) => {
                    rules.extend(found.into_iter().filter(|(of, _)| *of == protocol).map(|(_, rule)| rule))
                }
                // No policy routing, or no such family, in this kernel.
                Err(error) if absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }

    /// Adds and removes policy rules of `protocol`, in order; for each, whether the kernel did it.
    pub(super) async fn change_rules(
        &mut self,
        changes: &[(bool, Rule)],
        protocol: u8,
    ) -> io::Result<Vec<Result<(), Refusal>>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for batch in changes.chunks(BATCH) {
            let mut request = Vec::new();
            let first = self.sequence.wrapping_add(1);
            for (place, (add, rule)) in batch.iter().enumerate() {
                let message = codec::rule_message(rule, protocol);
                let (flags, message) = match add {
                    true => (NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewRule(message)),
                    false => (0, RouteNetlinkMessage::DelRule(message)),
                };
                let acknowledge = if place + 1 == batch.len() { NLM_F_ACK } else { 0 };
                codec::emit(&mut request, self.next_sequence(), NLM_F_REQUEST | acknowledge | flags, message);
            }
            self.send(&request).await?;
            outcomes.extend(self.outcomes(first, batch.len()).await?);
        }
        Ok(outcomes)
    }

    /// All answers of `kind`, taken again if the kernel's tables changed underneath.
    async fn dump<T>(
        &mut self,
        kind: u16,
        decode: fn(&[u8]) -> Option<T>,
        query: impl Fn() -> RouteNetlinkMessage,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(items) = self.dump_once(kind, decode, query()).await? {
                return Ok(items);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's tables change faster than they can be read",
        ))
    }

    /// `None` when the dump was interrupted.
    async fn dump_once<T>(
        &mut self,
        kind: u16,
        decode: fn(&[u8]) -> Option<T>,
        query: RouteNetlinkMessage,
    ) -> io::Result<Option<Vec<T>>> {
        let sequence = self.next_sequence();
        let mut request = Vec::new();
        codec::emit(&mut request, sequence, NLM_F_REQUEST | NLM_F_DUMP, query);
        self.send(&request).await?;
        let mut items = Vec::new();
        let mut interrupted = false;
        loop {
            self.receive().await?;
            for frame in codec::frames(&self.received).filter(|frame| frame.sequence == sequence) {
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match code(frame.payload) {
                            0 => Ok((!interrupted).then_some(items)),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    answer if answer == kind => items.extend(decode(frame.payload)),
                    other => tracing::debug!("unexpected netlink message of type {other} in a dump"),
                }
            }
        }
    }

    /// Makes the changes in order; for each, whether the kernel did it. One refusal does not stop the others.
    pub(super) async fn change(&mut self, changes: &[Change]) -> io::Result<Vec<Result<(), Refusal>>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for batch in changes.chunks(BATCH) {
            let mut request = Vec::new();
            let first = self.sequence.wrapping_add(1);
            for (place, change) in batch.iter().enumerate() {
                let (flags, message) = match change {
                    Change::Add(route) => (NLM_F_CREATE | NLM_F_EXCL, new_route(route)),
                    // Without NLM_F_CREATE: if ours has gone meanwhile, this fails and is decided anew.
                    Change::Replace(_, route) => (NLM_F_REPLACE, new_route(route)),
                    Change::Remove(route) => (0, RouteNetlinkMessage::DelRoute(codec::route_message(route))),
                };
                // The kernel answers in order, and a refusal unasked: one acknowledgement speaks for all before it.
                let acknowledge = if place + 1 == batch.len() { NLM_F_ACK } else { 0 };
                codec::emit(&mut request, self.next_sequence(), NLM_F_REQUEST | acknowledge | flags, message);
            }
            self.send(&request).await?;
            outcomes.extend(self.outcomes(first, batch.len()).await?);
        }
        Ok(outcomes)
    }

    /// What became of `count` requests from the sequence number `first` on, of which the last is acknowledged. Answers
    /// that were lost for want of room end this as an error: then everything is read again.
    async fn outcomes(&mut self, first: u32, count: usize) -> io::Result<Vec<Result<(), Refusal>>> {
        let mut outcomes = vec![Ok(()); count];
        let mut answered = false;
        while !answered {
            self.receive().await?;
            for frame in codec::frames(&self.received).filter(|frame| frame.kind == NLMSG_ERROR) {
                let position = frame.sequence.wrapping_sub(first) as usize;
                if let Some(outcome) = outcomes.get_mut(position) {
                    answered |= position + 1 == count;
                    *outcome = match code(frame.payload) {
                        0 => Ok(()),
                        code => Err(Refusal { errno: Errno::from_raw(-code), text: text(&frame) }),
                    };
                }
            }
        }
        Ok(outcomes)
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    async fn send(&self, request: &[u8]) -> io::Result<()> {
        self.socket.send_to(request, &SocketAddr::new(0, 0)).await.map(drop)
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.received.clear();
        self.received.reserve(DATAGRAM);
        timeout(ANSWER_DEADLINE, self.socket.recv(&mut self.received)).await?
    }
}

/// What has happened in the kernel, as coarse as it is needed: it only decides what is read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) links: bool,
    pub(super) routes: bool,
    /// Events were lost, so that anything may have happened.
    pub(super) overrun: bool,
}

/// The socket that only listens.
pub(super) struct Monitor {
    socket: TokioSocket,
    /// Events that this port caused are known already.
    own_port: u32,
    received: Vec<u8>,
}

impl Monitor {
    pub(super) fn open(own_port: u32, buffer: usize) -> io::Result<Monitor> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        enlarge(&socket, buffer);
        // A large change of ours would fill the buffer with its own echo.
        let filter = without_own_routes(own_port);
        if let Err(error) = SockRef::from(socket.socket_ref()).attach_filter(&filter) {
            tracing::debug!("netlink: events of our own changes are not filtered: {error}");
        }
        for group in GROUPS {
            socket.socket_ref().add_membership(group)?;
        }
        Ok(Monitor { socket, own_port, received: Vec::with_capacity(DATAGRAM) })
    }

    /// The next datagram of events that matter. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Notice> {
        loop {
            self.received.clear();
            self.received.reserve(DATAGRAM);
            let notice = match self.socket.recv(&mut self.received).await {
                Ok(()) => self.notice(),
                Err(error) if error.raw_os_error() == libc_code(Errno::ENOBUFS) => {
                    Notice { overrun: true, ..Notice::default() }
                }
                Err(error) => return Err(error),
            };
            if notice != Notice::default() {
                return Ok(notice);
            }
        }
    }

    fn notice(&self) -> Notice {
        let mut notice = Notice::default();
        for frame in codec::frames(&self.received) {
            match frame.kind {
                RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => notice.links = true,
                RTM_NEWROUTE | RTM_DELROUTE => {
                    // The local table follows the addresses; clones are a cache. What cannot be read might matter.
                    let header = codec::route_header(frame.payload);
                    let irrelevant = header.is_some_and(|(table, cloned)| table == TABLE_LOCAL || cloned);
                    notice.routes |= frame.port != self.own_port && !irrelevant;
                }
                // Rules, next hop objects.
                _ => notice.routes = true,
            }
        }
        notice
    }
}

/// Drops events of routes that a port has changed. The kernel reads in network order what stands in the host's.
fn without_own_routes(port: u32) -> [SockFilter; 7] {
    let [new, del] = [RTM_NEWROUTE, RTM_DELROUTE].map(|kind| u32::from(kind.to_be()));
    // Word and half word at an offset, jump if equal (by so many if yes, if no), return: linux/filter.h.
    let (word, half, equal, end) = (0x20, 0x28, 0x15, 0x06);
    [
        (word, 0, 0, MESSAGE_PORT),
        (equal, 0, 3, port.to_be()),
        (half, 0, 0, MESSAGE_TYPE),
        (equal, 2, 0, new),
        (equal, 1, 0, del),
        (end, 0, 0, u32::MAX),
        (end, 0, 0, 0),
    ]
    .map(|(code, yes, no, value)| SockFilter::new(code, yes, no, value))
}

fn new_route(route: &KernelRoute) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewRoute(codec::route_message(route))
}

/// The code of an NLMSG_ERROR or NLMSG_DONE: 0 or a negative errno.
fn code(payload: &[u8]) -> i32 {
    payload.get(..4).and_then(|code| parse_i32(code).ok()).unwrap_or(0)
}

fn text(frame: &codec::Frame<'_>) -> Option<String> {
    if frame.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let mut attributes = NlasIterator::new(frame.payload.get(ERROR_LENGTH..)?).filter_map(Result::ok);
    let text = attributes.find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
    parse_string(text.value()).ok()
}

fn absent(error: &io::Error) -> bool {
    [Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT]
        .into_iter()
        .any(|errno| error.raw_os_error() == libc_code(errno))
}

fn libc_code(errno: Errno) -> Option<i32> {
    Some(errno as i32)
}

/// Beyond the system's limit where allowed; without the right the limit holds, and overruns are noticed anyway.
fn enlarge(socket: &TokioSocket, size: usize) {
    if let Err(error) = setsockopt(socket.socket_ref(), RcvBufForce, &size) {
        tracing::debug!("netlink receive buffer stays at its default: {error}");
    }
}
