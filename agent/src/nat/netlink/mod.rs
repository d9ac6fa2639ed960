//! The only place that speaks netlink to netfilter: one socket to ask and change, one that only listens.
//!
//! A transaction is one datagram of many messages; the kernel makes all of it or nothing.
mod conntrack;
mod decode;
mod encode;
mod expression;
mod kernel;
mod socket;
mod wire;

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use socket2::{SockFilter, SockRef};

pub(super) use self::conntrack::Conntrack;
use self::{
    kernel::*,
    socket::{DATAGRAM, Socket, code, enlarge, interrupted},
    wire::{Frame, Head, Writer, frames},
};
use super::{
    diff::Change,
    ruleset::{Chain, Element, Ruleset, Set, Shape},
};

/// Our table's name.
const TABLE: &str = "plainroute";
const DUMP_ATTEMPTS: usize = 5;
/// `NLMSGERR_ATTR_MSG` of the kernel's netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// An error code and the header of the request that it answers.
const ERROR_LENGTH: usize = 4 + 16;
/// Where a message's header has the port of who caused it.
const MESSAGE_PORT: u32 = 12;

/// Why the kernel did not make a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    /// The kernel's own words, when it has any.
    text: Option<String>,
    /// The change that it did not like; `None`: all of it.
    pub(super) place: Option<usize>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{text} ({})", self.errno),
            None => write!(f, "{}", self.errno),
        }
    }
}

/// The table as it was read. Rules are not read.
pub(super) struct Read {
    pub(super) table: Ruleset,
    /// Packets and bytes.
    pub(super) counters: BTreeMap<Arc<str>, (u64, u64)>,
}

/// The socket to ask nf_tables and to change it.
pub(super) struct Requests {
    socket: Socket,
}

impl Requests {
    pub(super) fn open() -> io::Result<Requests> {
        Ok(Requests { socket: Socket::open()? })
    }

    /// The kernel notes it on every event that a request of this socket causes.
    pub(super) fn port(&self) -> u32 {
        self.socket.port
    }

    /// Makes all the changes, or none. After a refusal the socket is to be opened again: answers to the rest of the
    /// transaction may still come.
    pub(super) async fn change(&mut self, changes: &[Change]) -> io::Result<Result<(), Refusal>> {
        let first = self.socket.next_sequence();
        let (datagram, places) = encode::batch(changes, first);
        let Some(last) = places.len().checked_sub(1) else { return Ok(Ok(())) };
        // The begin is counted already; with the end.
        self.socket.skip(places.len() as u32 + 1);
        self.socket.send(&datagram).await?;
        loop {
            self.socket.receive().await?;
            for frame in self.socket.frames().filter(|frame| frame.kind == NLMSG_ERROR) {
                let number = frame.sequence.wrapping_sub(first) as usize;
                let place = number.checked_sub(1).and_then(|message| places.get(message)).copied();
                match code(frame.payload) {
                    0 if number == last + 1 => return Ok(Ok(())),
                    0 => {}
                    // Of another request, long given up.
                    _ if number > last + 2 => {}
                    code => {
                        let errno = Errno::from_raw(code.saturating_neg());
                        return Ok(Err(Refusal { errno, text: text(&frame), place }));
                    }
                }
            }
        }
    }

    /// Our table, or `None` when there is none.
    pub(super) async fn read(&mut self) -> io::Result<Option<Read>> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.read_once().await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
        Err(interrupted())
    }

    async fn read_once(&mut self) -> io::Result<Option<Read>> {
        if !self.exists().await? {
            return Ok(None);
        }
        let counters = self.counters().await?;
        let mut table = Ruleset::default();
        table.counters.extend(counters.keys().map(|name| (Arc::clone(name), ())));
        let no_more = |_: &mut Writer| {};
        for (name, base) in self.dump(GETCHAIN, NEWCHAIN, no_more, |bytes| [decode::chain(bytes)]).await? {
            table.chains.insert(name, Chain { base, rules: None });
        }
        for (name, shape) in self.dump(GETSET, NEWSET, no_more, |bytes| [decode::set(bytes)]).await? {
            let elements = match shape {
                Some(shape) => self.elements(&name, shape).await?.map(|elements| (shape, elements)),
                None => None,
            };
            let (shape, elements) = elements.unwrap_or((Shape::FOREIGN, Vec::new()));
            table.sets.insert(name, Set::sorted(shape, elements));
        }
        Ok(Some(Read { table, counters }))
    }

    /// What our counters have; the names of those that are there.
    pub(super) async fn counters(&mut self) -> io::Result<BTreeMap<Arc<str>, (u64, u64)>> {
        let kind = |w: &mut Writer| w.number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
        let counters = self.dump(GETOBJ, NEWOBJ, kind, |bytes| [decode::counter(bytes)]).await?;
        Ok(counters.into_iter().map(|(name, packets, bytes)| (name, (packets, bytes))).collect())
    }

    /// `None` when one of them is none that we make.
    async fn elements(&mut self, set: &str, shape: Shape) -> io::Result<Option<Vec<Element>>> {
        let of = |w: &mut Writer| w.text(NFTA_SET_ELEM_LIST_SET, set);
        let decode = |bytes: &[u8]| decode::elements(bytes, shape).map(Some).collect::<Vec<_>>();
        let elements = self.dump(GETSETELEM, NEWSETELEM, of, decode).await?;
        Ok(elements.into_iter().collect())
    }

    async fn exists(&mut self) -> io::Result<bool> {
        match self.ask(GETTABLE, NLM_F_REQUEST, NEWTABLE, |_| {}, |_| [Some(())]).await {
            Ok(tables) => Ok(!tables.is_empty()),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn dump<T, I: IntoIterator<Item = Option<T>>>(
        &mut self,
        ask: u16,
        answer: u16,
        query: impl FnOnce(&mut Writer),
        decode: impl Fn(&[u8]) -> I,
    ) -> io::Result<Vec<T>> {
        self.ask(ask, NLM_F_REQUEST | NLM_F_DUMP, answer, query, decode).await
    }

    /// The answers that are about our table. One that cannot be read is an error: it might be all that matters.
    async fn ask<T, I: IntoIterator<Item = Option<T>>>(
        &mut self,
        ask: u16,
        flags: u16,
        answer: u16,
        query: impl FnOnce(&mut Writer),
        decode: impl Fn(&[u8]) -> I,
    ) -> io::Result<Vec<T>> {
        let head = Head { kind: ask, flags, family: NFPROTO_INET, ..Head::default() };
        let body = |w: &mut Writer| {
            w.text(NFTA_TABLE, TABLE);
            query(w);
        };
        let mut items = Vec::new();
        let each = |_, attributes: &[u8]| {
            if decode::is_ours(attributes) {
                for item in decode(attributes) {
                    items.push(item.ok_or_else(unreadable)?);
                }
            }
            Ok(())
        };
        self.socket.ask(head, body, answer, each).await?;
        Ok(items)
    }
}

/// The socket that only listens for others' changes of our table.
pub(super) struct Monitor {
    socket: TokioSocket,
    /// Changes that this port made are known already.
    own_port: u32,
    received: Vec<u8>,
}

impl Monitor {
    pub(super) fn open(own_port: u32, buffer: usize) -> io::Result<Monitor> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        enlarge(&socket, buffer);
        // A large change of ours would fill the buffer with its own echo.
        if let Err(error) = SockRef::from(socket.socket_ref()).attach_filter(&without(own_port)) {
            tracing::debug!("netlink: events of our own changes are not filtered: {error}");
        }
        socket.socket_ref().add_membership(NFNLGRP_NFTABLES)?;
        Ok(Monitor { socket, own_port, received: Vec::with_capacity(DATAGRAM) })
    }

    /// Returns when somebody else has changed our table, or may have: events were lost. Cancelling loses nothing.
    pub(super) async fn changed(&mut self) -> io::Result<Notice> {
        loop {
            self.received.clear();
            self.received.reserve(DATAGRAM);
            match self.socket.recv(&mut self.received).await {
                Ok(()) if self.is_about_us() => return Ok(Notice::Foreign),
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(Notice::Lost),
                Err(error) => return Err(error),
            }
        }
    }

    fn is_about_us(&self) -> bool {
        frames(&self.received).filter(|frame| frame.port != self.own_port && frame.kind != NEWGEN).any(
            |frame| {
                frame
                    .netfilter()
                    .is_some_and(|(family, attributes)| family == NFPROTO_INET && decode::is_ours(attributes))
            },
        )
    }
}

/// What the monitor has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Somebody else changed our table.
    Foreign,
    /// Events were lost, so that anything may have happened.
    Lost,
}

/// Drops events that a port has caused: all events of a transaction are of one. The kernel reads in network order what
/// stands in the host's.
fn without(port: u32) -> [SockFilter; 4] {
    // Word at an offset, jump if equal (by so many if yes, if no), return: linux/filter.h.
    let (word, equal, end) = (0x20, 0x15, 0x06);
    [(word, 0, 0, MESSAGE_PORT), (equal, 0, 1, port.to_be()), (end, 0, 0, 0), (end, 0, 0, u32::MAX)]
        .map(|(code, yes, no, value)| SockFilter::new(code, yes, no, value))
}

fn text(frame: &Frame<'_>) -> Option<String> {
    if frame.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let text = wire::attribute(frame.payload.get(ERROR_LENGTH..)?, NLMSGERR_ATTR_MSG)?;
    wire::text(text).map(str::to_owned)
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer about our table cannot be read")
}

#[cfg(test)]
mod tests;
