//! A stream of octets as a collector gets it: reading never panics and always moves on, and what is read can be
//! written and read again as the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use plainroute_bgp::bmp::{self, MAX_LENGTH};

fuzz_target!(|input: &[u8]| {
    let mut buffer = BytesMut::from(input);
    while let Ok(Some(message)) = bmp::poll(&mut buffer, MAX_LENGTH) {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        assert_eq!(bmp::poll(&mut out, MAX_LENGTH), Ok(Some(message)));
        assert!(out.is_empty());
    }
});
