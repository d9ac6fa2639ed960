//! Conntrack's entries: read, and removed one by one.
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR};
use nix::errno::Errno;

use super::{
    socket::{Socket, code},
    wire::{Head, Writer, attribute},
};
use crate::nat::flows::Flow;

/// Subsystem 1 of nfnetlink.h, with its messages (nfnetlink_conntrack.h).
const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
/// Requests per datagram: their answers fit any receive buffer.
const BATCH: usize = 256;
const NESTED: u16 = 1 << 15;

/// What names an entry to the kernel, as the kernel wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::nat) struct Entry {
    family: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

pub(in crate::nat) struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    pub(in crate::nat) fn open() -> io::Result<Conntrack> {
        Ok(Conntrack { socket: Socket::open()? })
    }

    /// The entries whose flow is meant.
    pub(in crate::nat) async fn entries(&mut self, meant: impl Fn(&Flow) -> bool) -> io::Result<Vec<Entry>> {
        let head = Head { kind: CT_GET, flags: NLM_F_REQUEST | NLM_F_DUMP, ..Head::default() };
        let mut entries = Vec::new();
        let each = |family, attributes: &[u8]| {
            if flow(attributes).is_some_and(|flow| meant(&flow)) {
                let named = [CTA_TUPLE_ORIG | NESTED, CTA_ID, CTA_ZONE];
                let copy = |kind: u16| Some((kind, attribute(attributes, kind & !NESTED)?.to_vec()));
                entries.push(Entry { family, attributes: named.into_iter().filter_map(copy).collect() });
            }
            Ok(())
        };
        self.socket.ask(head, |_| {}, CT_NEW, each).await?;
        Ok(entries)
    }

    /// Removes entries; those that have gone by themselves are no error. How many were removed.
    pub(in crate::nat) async fn remove(&mut self, entries: &[Entry]) -> io::Result<u64> {
        let mut removed = 0;
        for batch in entries.chunks(BATCH) {
            let mut writer = Writer::default();
            let first = self.socket.next_sequence();
            for (sequence, entry) in (first..).zip(batch) {
                let flags = NLM_F_REQUEST | NLM_F_ACK;
                let head = Head { kind: CT_DELETE, flags, sequence, family: entry.family, ..Head::default() };
                writer.message(head, |w| {
                    entry.attributes.iter().for_each(|(kind, value)| w.bytes_of(*kind, value));
                });
            }
            self.socket.skip(batch.len() as u32 - 1);
            self.socket.send(writer.bytes()).await?;
            let mut answers = 0;
            while answers < batch.len() {
                self.socket.receive().await?;
                for frame in self.socket.frames().filter(|frame| frame.kind == NLMSG_ERROR) {
                    if frame.sequence.wrapping_sub(first) as usize >= batch.len() {
                        continue;
                    }
                    answers += 1;
                    match code(frame.payload) {
                        0 => removed += 1,
                        gone if gone == -(Errno::ENOENT as i32) => {}
                        code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                    }
                }
            }
        }
        Ok(removed)
    }
}

/// Addresses and protocol of an entry; `None` for what is no flow of IPv4 or IPv6.
pub(super) fn flow(attributes: &[u8]) -> Option<Flow> {
    let (original, reply) = (attribute(attributes, CTA_TUPLE_ORIG)?, attribute(attributes, CTA_TUPLE_REPLY)?);
    let (source, destination) = addresses(original)?;
    let (reply_source, reply_destination) = addresses(reply)?;
    let protocol = attribute(attribute(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?;
    Some(Flow { source, destination, reply_source, reply_destination, protocol: *protocol.first()? })
}

fn addresses(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let tuple = attribute(tuple, CTA_TUPLE_IP)?;
    let v4 =
        |kind| <[u8; 4]>::try_from(attribute(tuple, kind)?).ok().map(|octets| Ipv4Addr::from(octets).into());
    let v6 =
        |kind| <[u8; 16]>::try_from(attribute(tuple, kind)?).ok().map(|octets| Ipv6Addr::from(octets).into());
    let source = v4(CTA_IP_V4_SRC).or_else(|| v6(CTA_IP_V6_SRC))?;
    Some((source, v4(CTA_IP_V4_DST).or_else(|| v6(CTA_IP_V6_DST))?))
}
