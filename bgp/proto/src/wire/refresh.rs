//! ROUTE-REFRESH (RFC 2918, RFC 7313).
use bytes::{BufMut, BytesMut};

use super::{
    Frame, Message, Notification, frame,
    iana::{MessageType, error},
};
use crate::AfiSafi;

/// A ROUTE-REFRESH for a family that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// The family.
    pub family: AfiSafi,
    /// 0 asks for routes, 1 begins and 2 ends a refresh (RFC 7313); others are to be ignored.
    pub subtype: u8,
}

impl RouteRefresh {
    /// Asks for all routes again (RFC 2918).
    pub const REQUEST: u8 = 0;
    /// Begin of Route Refresh (RFC 7313).
    pub const BEGIN: u8 = 1;
    /// End of Route Refresh (RFC 7313).
    pub const END: u8 = 2;

    /// Writes the whole message.
    pub fn encode(&self, out: &mut BytesMut) {
        encode(self.family.afi(), self.subtype, self.family.safi(), out);
    }
}

/// The body must have four octets; else the peer gets the whole message back (RFC 7313 section 5). We offer no
/// outbound route filtering, the one thing that would make it longer.
pub(super) fn decode(frame: &Frame) -> Result<Message, Notification> {
    let &[high, low, subtype, safi] = &frame.body[..] else {
        return Err(Notification::new(error::ROUTE_REFRESH, error::REFRESH_LENGTH, frame.whole()));
    };
    let afi = u16::from_be_bytes([high, low]);
    Ok(match AfiSafi::from_code(afi, safi) {
        Some(family) => Message::RouteRefresh(RouteRefresh { family, subtype }),
        None => Message::RouteRefreshUnknownFamily { afi, safi },
    })
}

pub(super) fn encode(afi: u16, subtype: u8, safi: u8, out: &mut BytesMut) {
    let start = frame::begin(MessageType::RouteRefresh, out);
    out.put_u16(afi);
    out.put_u8(subtype);
    out.put_u8(safi);
    frame::finish(start, out);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn refresh(body: &'static [u8]) -> Result<Message, Notification> {
        decode(&Frame { kind: MessageType::RouteRefresh, body: Bytes::from_static(body) })
    }

    #[test]
    fn a_family_that_we_do_not_speak_is_told_apart() {
        let ipv6 = RouteRefresh { family: AfiSafi::Ipv6Unicast, subtype: RouteRefresh::END };
        assert_eq!(refresh(&[0, 2, 2, 1]), Ok(Message::RouteRefresh(ipv6)));
        assert_eq!(refresh(&[0, 25, 0, 70]), Ok(Message::RouteRefreshUnknownFamily { afi: 25, safi: 70 }));
    }

    #[test]
    fn a_wrong_length_returns_the_whole_message() {
        let error = refresh(&[0, 1, 1, 1, 9]).unwrap_err();
        assert_eq!((error.code, error.subcode, error.data.len()), (7, 1, 24));
    }
}
