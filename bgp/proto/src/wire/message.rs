//! Framing (RFC 4271 section 4.1) and the five messages.
use bytes::Bytes;

use super::{Finding, Notification, Open, RouteRefresh, Update};

/// What both sides agreed on as far as bytes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecContext {
    /// AS numbers have four octets in AS_PATH and AGGREGATOR (RFC 6793).
    pub four_octet_asn: bool,
    /// The peer is in our AS; decides what RFC 7606 says of LOCAL_PREF and the like.
    pub internal: bool,
    /// 4096, or 65535 once extended messages (RFC 8654) are negotiated.
    pub max_message_length: usize,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub ipv4_over_ipv6: bool,
}

impl Default for CodecContext {
    fn default() -> Self {
        CodecContext {
            four_octet_asn: true,
            internal: false,
            max_message_length: 4096,
            ipv4_over_ipv6: false,
        }
    }
}

/// One framed message whose body is not parsed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message type code, known to be one of the five.
    pub kind: u8,
    /// What follows the header.
    pub body: Bytes,
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
