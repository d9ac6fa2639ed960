//! Framing (RFC 4271 section 4.1): where one message ends, in O(1), and the header of those that we write.
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    Notification,
    iana::{MessageType, error},
};

/// The length of the header.
pub const HEADER_LENGTH: usize = 19;
/// The longest message without RFC 8654, and the longest OPEN and KEEPALIVE with it.
pub const MAX_LENGTH: usize = 4096;
/// The longest message with RFC 8654.
pub const MAX_EXTENDED_LENGTH: usize = 65535;

const MARKER: [u8; 16] = [0xff; 16];

/// One framed message whose body is not parsed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message type.
    pub kind: MessageType,
    /// What follows the header; its length is plausible for the type.
    pub body: Bytes,
}

impl Frame {
    /// Takes the next message out of `buffer`; `None` until it is whole. Nothing is copied, and a wrong header is
    /// found as soon as its 19 octets are there (RFC 4271 section 6.1). `max_length` is 4096, or 65535 once
    /// extended messages are negotiated. After an error the buffer is worthless: the connection must close.
    pub fn poll(buffer: &mut BytesMut, max_length: usize) -> Result<Option<Frame>, Notification> {
        let Some((header, _)) = buffer.split_at_checked(HEADER_LENGTH) else { return Ok(None) };
        let Some((marker, &[high, low, code])) = header.split_at_checked(MARKER.len()) else {
            return Ok(None);
        };
        if marker != MARKER {
            return Err(Notification::bare(error::HEADER, error::NOT_SYNCHRONIZED));
        }
        let field = u16::from_be_bytes([high, low]);
        let length = usize::from(field);
        if length < HEADER_LENGTH || length > max_length {
            return Err(Notification::bad_length(field));
        }
        let Some(kind) = MessageType::from_code(code) else {
            return Err(Notification::new(error::HEADER, error::BAD_MESSAGE_TYPE, vec![code]));
        };
        if !plausible(kind, length) {
            return Err(Notification::bad_length(field));
        }
        if buffer.len() < length {
            return Ok(None);
        }
        let mut body = buffer.split_to(length).freeze();
        body.advance(HEADER_LENGTH);
        Ok(Some(Frame { kind, body }))
    }

    /// The message as it came, header and all.
    pub(crate) fn whole(&self) -> Bytes {
        let mut out = BytesMut::new();
        let start = begin(self.kind, &mut out);
        out.put_slice(&self.body);
        finish(start, &mut out);
        out.freeze()
    }
}

/// Whether a message of this type may have this length (RFC 4271 section 6.1, RFC 8654 section 4).
fn plausible(kind: MessageType, length: usize) -> bool {
    match kind {
        MessageType::Open => (29..=MAX_LENGTH).contains(&length),
        MessageType::Update | MessageType::RouteRefresh => length >= 23,
        MessageType::Notification => length >= 21,
        MessageType::Keepalive => length == HEADER_LENGTH,
    }
}

/// Writes a header whose length [`finish`] fills in; returns where it begins.
pub(super) fn begin(kind: MessageType, out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind.code());
    start
}

/// Fills in the length of the message that began at `start`. The caller keeps messages within 65535 octets.
pub(super) fn finish(start: usize, out: &mut BytesMut) {
    let length = out.len().saturating_sub(start);
    put_length(start.saturating_add(MARKER.len()), length, out);
}

/// Overwrites the two octets at `at` by a length. One beyond 65535 is never sent: it exceeds every message, and
/// who writes one checks that.
pub(super) fn put_length(at: usize, length: usize, out: &mut BytesMut) {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(at..at.saturating_add(2)) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u16, kind: u8) -> BytesMut {
        let mut buffer = BytesMut::from(&MARKER[..]);
        buffer.put_u16(length);
        buffer.put_u8(kind);
        buffer
    }

    fn poll(mut buffer: BytesMut) -> Result<Option<Frame>, Notification> {
        Frame::poll(&mut buffer, MAX_LENGTH)
    }

    #[test]
    fn a_message_is_taken_once_it_is_whole() {
        let mut whole = header(23, 2);
        whole.put_slice(&[0, 0, 0, 0]);
        let mut buffer = BytesMut::new();
        for octet in &whole {
            assert_eq!(Frame::poll(&mut buffer, MAX_LENGTH), Ok(None));
            buffer.put_u8(*octet);
        }
        buffer.put_slice(&header(19, 4));
        let update = Frame::poll(&mut buffer, MAX_LENGTH).unwrap().unwrap();
        assert_eq!((update.kind, &update.body[..]), (MessageType::Update, &[0, 0, 0, 0][..]));
        assert_eq!(update.whole(), whole);
        assert_eq!(Frame::poll(&mut buffer, MAX_LENGTH).unwrap().unwrap().kind, MessageType::Keepalive);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_wrong_header_is_refused_before_its_body_is_there() {
        let mut unsynchronized = header(19, 4);
        unsynchronized[7] = 0xfe;
        assert_eq!(poll(unsynchronized), Err(Notification::bare(1, 1)));
        assert_eq!(poll(header(19, 6)), Err(Notification::new(1, 3, vec![6])));
        assert_eq!(poll(header(19, 0)), Err(Notification::new(1, 3, vec![0])));
        for (length, kind) in
            [(0, 4), (18, 4), (20, 4), (28, 1), (22, 2), (20, 3), (22, 5), (4097, 2), (65535, 2)]
        {
            assert_eq!(poll(header(length, kind)), Err(Notification::bad_length(length)), "{length} {kind}");
        }
    }

    #[test]
    fn extended_messages_are_for_updates_but_not_for_open() {
        let poll = |mut buffer| Frame::poll(&mut buffer, MAX_EXTENDED_LENGTH);
        assert_eq!(poll(header(65535, 2)), Ok(None));
        assert_eq!(poll(header(4097, 1)), Err(Notification::bad_length(4097)));
        assert_eq!(poll(header(4097, 4)), Err(Notification::bad_length(4097)));
    }
}
