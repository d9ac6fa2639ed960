//! The seven messages and the common header (RFC 7854 section 4.1).
use bytes::{Buf, BufMut, Bytes, BytesMut};
use nom::{multi::many0, number::complete::be_u32};

use super::{
    Malformed, PeerDown, PeerHeader, PeerUp, Statistic, Tlv,
    parse::{bgp_message, whole},
    peer, tlv, up_down,
};
use crate::wire::iana::MessageType;

/// The version of RFC 7854.
const VERSION: u8 = 3;

/// The length of the common header.
pub const COMMON_HEADER_LENGTH: usize = 6;
/// Longer than any message that a router has reason to send; what a reader should take at most.
pub const MAX_LENGTH: usize = 1 << 20;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// 0: routes of a peer.
    RouteMonitoring {
        /// The peer and the RIB.
        peer: PeerHeader,
        /// One whole UPDATE.
        update: Bytes,
    },
    /// 1: numbers of a peer.
    Statistics {
        /// The peer.
        peer: PeerHeader,
        /// The numbers.
        statistics: Vec<Statistic>,
    },
    /// 2: a session has ended.
    PeerDown {
        /// The peer.
        peer: PeerHeader,
        /// Why.
        reason: PeerDown,
    },
    /// 3: a session is Established.
    PeerUp {
        /// The peer.
        peer: PeerHeader,
        /// Between whom, and their OPENs.
        up: PeerUp,
    },
    /// 4: the first message of a connection, with the types of [`super::information`].
    Initiation(Vec<Tlv>),
    /// 5: the last message of a connection, with the types of [`super::termination`].
    Termination(Vec<Tlv>),
    /// 6: messages as a peer sent them. We never send it.
    RouteMirroring {
        /// The peer.
        peer: PeerHeader,
        /// The messages, and what is said about them.
        items: Vec<Tlv>,
    },
    /// A type that is not known, to be ignored.
    Unknown {
        /// The type.
        kind: u8,
        /// What follows the common header.
        body: Bytes,
    },
}

/// Takes the next message out of `buffer`; `None` until it is whole. A wrong header is found as soon as it is there.
/// `longest` bounds what a message may make the reader hold. After an error the buffer is worthless.
pub fn poll(buffer: &mut BytesMut, longest: usize) -> Result<Option<Message>, Malformed> {
    let Some(&version) = buffer.first() else { return Ok(None) };
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let Some((&[_, l1, l2, l3, l4, kind], _)) = buffer.split_at_checked(COMMON_HEADER_LENGTH) else {
        return Ok(None);
    };
    let field = u32::from_be_bytes([l1, l2, l3, l4]);
    let length = usize::try_from(field).unwrap_or(usize::MAX);
    if length < COMMON_HEADER_LENGTH || length > longest {
        return Err(Malformed::Length(field));
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let mut body = buffer.split_to(length).freeze();
    body.advance(COMMON_HEADER_LENGTH);
    Message::decode(kind, body).map(Some)
}

impl Message {
    fn decode(kind: u8, body: Bytes) -> Result<Message, Malformed> {
        let tlvs = |what, octets| whole(what, many0(tlv::parse), octets);
        let of_peer = |what| peer::parse(&body).map_err(|_| Malformed::Part(what));
        Ok(match kind {
            0 => {
                let (rest, peer) = of_peer("Route Monitoring")?;
                let update = |input| bgp_message(MessageType::Update, input);
                Message::RouteMonitoring { peer, update: whole("Route Monitoring", update, rest)? }
            }
            1 => {
                let (rest, peer) = of_peer("Statistics Report")?;
                let (rest, count) = be_u32::<_, nom::error::Error<&[u8]>>(rest)
                    .map_err(|_| Malformed::Part("Statistics Report"))?;
                let statistics = tlvs("Statistics Report", rest)?;
                if u32::try_from(statistics.len()) != Ok(count) {
                    return Err(Malformed::Part("Statistics Report"));
                }
                Message::Statistics {
                    peer,
                    statistics: statistics.into_iter().map(Statistic::from).collect(),
                }
            }
            2 => {
                let (rest, peer) = of_peer("Peer Down")?;
                Message::PeerDown { peer, reason: whole("Peer Down", up_down::peer_down, rest)? }
            }
            3 => {
                let (rest, peer) = of_peer("Peer Up")?;
                let peer_up = |input| up_down::peer_up(peer.is_ipv6(), input);
                Message::PeerUp { peer, up: whole("Peer Up", peer_up, rest)? }
            }
            4 => Message::Initiation(tlvs("Initiation", &body)?),
            5 => Message::Termination(tlvs("Termination", &body)?),
            6 => {
                let (rest, peer) = of_peer("Route Mirroring")?;
                Message::RouteMirroring { peer, items: tlvs("Route Mirroring", rest)? }
            }
            _ => Message::Unknown { kind, body },
        })
    }

    /// Appends the whole message.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u8(VERSION);
        out.put_u32(0);
        match self {
            Message::RouteMonitoring { peer, update } => {
                out.put_u8(0);
                peer.encode(out);
                out.put_slice(update);
            }
            Message::Statistics { peer, statistics } => {
                out.put_u8(1);
                peer.encode(out);
                out.put_u32(u32::try_from(statistics.len()).unwrap_or(u32::MAX));
                statistics.iter().for_each(|statistic| statistic.encode(out));
            }
            Message::PeerDown { peer, reason } => {
                out.put_u8(2);
                peer.encode(out);
                reason.encode(out);
            }
            Message::PeerUp { peer, up } => {
                out.put_u8(3);
                peer.encode(out);
                up.encode(out);
            }
            Message::Initiation(items) => put_tlvs(4, items, out),
            Message::Termination(items) => put_tlvs(5, items, out),
            Message::RouteMirroring { peer, items } => {
                out.put_u8(6);
                peer.encode(out);
                items.iter().for_each(|tlv| tlv.encode(out));
            }
            Message::Unknown { kind, body } => {
                out.put_u8(*kind);
                out.put_slice(body);
            }
        }
        let length = u32::try_from(out.len().saturating_sub(start)).unwrap_or(u32::MAX);
        let field = start.saturating_add(1)..start.saturating_add(5);
        if let Some(field) = out.get_mut(field) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

fn put_tlvs(kind: u8, items: &[Tlv], out: &mut BytesMut) {
    out.put_u8(kind);
    items.iter().for_each(|tlv| tlv.encode(out));
}
