//! A stream of octets: framing and every message. Nothing may panic, and each step must make progress.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use plainroute_bgp::wire::{CodecContext, Frame, Message};

fuzz_target!(|stream: &[u8]| {
    let context = CodecContext::default();
    let mut buffer = BytesMut::from(stream);
    loop {
        let before = buffer.len();
        match Frame::poll(&mut buffer, context.max_message_length) {
            Ok(Some(frame)) => {
                assert!(buffer.len() < before && before - buffer.len() == frame.body.len() + 19);
                let _ = Message::decode(frame, &context).map_err(|error| error.to_string());
            }
            Ok(None) => break,
            Err(error) => {
                let _ = error.to_string();
                break;
            }
        }
    }
});
