//! The five messages, and what both sides agreed on as far as bytes depend on it.
use bytes::BytesMut;

use super::{
    Finding, Frame, Notification, Open, RouteRefresh, Unencodable, Update, frame,
    iana::{MessageType, error},
    refresh, update,
};
use crate::Families;

/// What both sides agreed on as far as bytes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecContext {
    /// AS numbers have four octets in AS_PATH and AGGREGATOR (RFC 6793).
    pub four_octet_asn: bool,
    /// The peer is in our AS; decides what RFC 7606 says of LOCAL_PREF and the like.
    pub internal: bool,
    /// The longest that we may write: 4096, or 65535 where the peer takes extended messages (RFC 8654).
    pub max_message_length: usize,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub ipv4_over_ipv6: bool,
    /// The families whose prefixes come with a path identifier (RFC 7911).
    pub add_path_receive: Families,
    /// The families whose prefixes we give a path identifier (RFC 7911).
    pub add_path_send: Families,
    /// A refresh is marked by its begin and its end (RFC 7313).
    pub enhanced_refresh: bool,
}

impl Default for CodecContext {
    fn default() -> Self {
        CodecContext {
            four_octet_asn: true,
            internal: false,
            max_message_length: frame::MAX_LENGTH,
            ipv4_over_ipv6: false,
            add_path_receive: Families::NONE,
            add_path_send: Families::NONE,
            enhanced_refresh: false,
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE, with what RFC 7606 found.
    Update(Update, Vec<Finding>),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
    /// ROUTE-REFRESH for a family that we do not speak: to be ignored.
    RouteRefreshUnknownFamily {
        /// The AFI.
        afi: u16,
        /// The SAFI.
        safi: u8,
    },
}

impl Message {
    /// Parses what [`Frame::poll`] took. An error is the NOTIFICATION to send before closing.
    pub fn decode(frame: Frame, context: &CodecContext) -> Result<Message, Notification> {
        match frame.kind {
            MessageType::Open => Open::decode(&frame.body).map(Message::Open),
            MessageType::Update => update::decode(&frame.body, context)
                .map(|(update, findings)| Message::Update(update, findings)),
            MessageType::Notification => Notification::decode(&frame.body)
                .map(Message::Notification)
                .ok_or(Notification::bare(error::HEADER, error::BAD_MESSAGE_LENGTH)),
            MessageType::Keepalive => Ok(Message::Keepalive),
            MessageType::RouteRefresh => refresh::decode(&frame),
        }
    }

    /// Writes the whole message. Only an UPDATE can fail: [`Unencodable`] then says why, and `out` is as before.
    pub fn encode(&self, context: &CodecContext, out: &mut BytesMut) -> Result<(), Unencodable> {
        match self {
            Message::Open(open) => open.encode(out),
            Message::Update(update, _) => return update.encode(context, out),
            Message::Notification(notification) => notification.encode(out),
            Message::Keepalive => encode_keepalive(out),
            Message::RouteRefresh(refresh) => refresh.encode(out),
            Message::RouteRefreshUnknownFamily { afi, safi } => refresh::encode(*afi, 0, *safi, out),
        }
        Ok(())
    }
}

/// Writes a KEEPALIVE (RFC 4271 section 4.4).
pub fn encode_keepalive(out: &mut BytesMut) {
    let start = frame::begin(MessageType::Keepalive, out);
    frame::finish(start, out);
}
