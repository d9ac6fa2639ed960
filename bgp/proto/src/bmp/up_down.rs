//! Peer Up and Peer Down (RFC 7854 sections 4.9 and 4.10).
use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use nom::{
    Parser,
    combinator::{all_consuming, rest},
    multi::many0,
    number::complete::{be_u8, be_u16},
};

use super::{
    parse::{Parsed, address, bgp_message, put_address},
    tlv::{self, Tlv},
};
use crate::wire::iana::MessageType;

/// A session is Established.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerUp {
    /// Our end of the TCP connection, of the family of the peer's.
    pub local_address: IpAddr,
    /// Our TCP port.
    pub local_port: u16,
    /// The peer's TCP port.
    pub remote_port: u16,
    /// The whole OPEN that we sent.
    pub sent_open: Bytes,
    /// The whole OPEN that we received.
    pub received_open: Bytes,
    /// What else there is to say, with the types of [`super::information`].
    pub information: Vec<Tlv>,
}

impl PeerUp {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_address(self.local_address, out);
        out.put_u16(self.local_port);
        out.put_u16(self.remote_port);
        out.put_slice(&self.sent_open);
        out.put_slice(&self.received_open);
        self.information.iter().for_each(|tlv| tlv.encode(out));
    }
}

pub(super) fn peer_up(v6: bool, input: &[u8]) -> Parsed<'_, PeerUp> {
    let (input, local_address) = address(v6, input)?;
    let (input, (local_port, remote_port)) = (be_u16, be_u16).parse(input)?;
    let (input, sent_open) = bgp_message(MessageType::Open, input)?;
    let (input, received_open) = bgp_message(MessageType::Open, input)?;
    let (input, information) = many0(tlv::parse).parse(input)?;
    Ok((input, PeerUp { local_address, local_port, remote_port, sent_open, received_open, information }))
}

/// A session is no longer Established, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerDown {
    /// 1: we closed it with this whole NOTIFICATION.
    LocalNotification(Bytes),
    /// 2: we closed it without a NOTIFICATION, for this event of the state machine (RFC 4271 section 8.1).
    LocalEvent(u16),
    /// 3: the peer closed it with this whole NOTIFICATION.
    RemoteNotification(Bytes),
    /// 4: the peer closed it, or TCP failed.
    Remote,
    /// 5: nothing more is told of this peer; its session may go on.
    NotMonitored,
    /// Any other reason, with its data.
    Other {
        /// The reason.
        reason: u8,
        /// What follows it.
        data: Bytes,
    },
}

impl PeerDown {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let (reason, data) = match self {
            PeerDown::LocalNotification(notification) => (1, notification.clone()),
            PeerDown::LocalEvent(event) => (2, Bytes::copy_from_slice(&event.to_be_bytes())),
            PeerDown::RemoteNotification(notification) => (3, notification.clone()),
            PeerDown::Remote => (4, Bytes::new()),
            PeerDown::NotMonitored => (5, Bytes::new()),
            PeerDown::Other { reason, data } => (*reason, data.clone()),
        };
        out.put_u8(reason);
        out.put_slice(&data);
    }
}

pub(super) fn peer_down(input: &[u8]) -> Parsed<'_, PeerDown> {
    let (input, reason) = be_u8(input)?;
    let notification =
        |input| all_consuming(|input| bgp_message(MessageType::Notification, input)).parse(input);
    match reason {
        1 => notification(input).map(|(input, pdu)| (input, PeerDown::LocalNotification(pdu))),
        2 => be_u16(input).map(|(input, event)| (input, PeerDown::LocalEvent(event))),
        3 => notification(input).map(|(input, pdu)| (input, PeerDown::RemoteNotification(pdu))),
        4 => Ok((input, PeerDown::Remote)),
        5 => Ok((input, PeerDown::NotMonitored)),
        _ => {
            let (input, data) = rest(input)?;
            Ok((input, PeerDown::Other { reason, data: Bytes::copy_from_slice(data) }))
        }
    }
}
