//! BMP: byte vectors, whatever can be built, whatever can be cut off or flipped, and another reader's opinion.
mod differential;
mod properties;
mod vectors;

use bytes::BytesMut;
use plainroute_bgp::bmp::{self, MAX_LENGTH, Malformed, Message};

fn encode(message: &Message) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    out
}

/// The only message in the octets; `None` where there must be more octets.
fn decode(octets: &[u8]) -> Option<Result<Message, Malformed>> {
    let mut buffer = BytesMut::from(octets);
    let message = bmp::poll(&mut buffer, MAX_LENGTH).transpose();
    assert!(buffer.is_empty() || !matches!(message, Some(Ok(_))), "octets are left over");
    message
}
