//! The body of an OPEN: what is read can be written and read again as the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use plainroute_bgp::wire::{Frame, Message, Open};

fuzz_target!(|body: &[u8]| {
    let Ok(open) = Open::decode(body) else { return };
    let mut out = BytesMut::new();
    open.encode(&mut out);
    let frame = Frame::poll(&mut out, 4096).expect("a valid header").expect("a whole message");
    let again = Message::decode(frame, &Default::default()).expect("what we write is valid");
    // What would lead beyond 4096 octets is left out; no peer can send that much.
    if body.len() <= 4000 {
        assert_eq!(again, Message::Open(open));
    }
});
