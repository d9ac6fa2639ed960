//! A recording of sessions: reading and replaying it never panics and always moves on, and what is read can be written
//! and read again as the same. The checksums are mended first, or no damage would get past them.
#![no_main]

use std::{sync::LazyLock, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use plainroute_bgp::record::{End, Reader, Replay, write_end, write_header};

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn mended(input: &[u8]) -> Bytes {
    let Some((header, mut rest)) = input.split_at_checked(10) else { return Bytes::copy_from_slice(input) };
    let mut out = BytesMut::from(header);
    while let Some((length, content)) = rest.split_first_chunk::<4>()
        && let Some((_, content)) = content.split_at_checked(8)
        && let Some((content, after)) = content.split_at_checked(u32::from_be_bytes(*length) as usize)
    {
        out.put_slice(length);
        out.put_u32(crc32fast::hash(length));
        out.put_u32(crc32fast::hash(content));
        out.put_slice(content);
        rest = after;
    }
    out.put_slice(rest);
    out.freeze()
}

fuzz_target!(|input: &[u8]| {
    let octets = mended(input);
    if let Ok(mut replay) = Replay::new(octets.clone(), *ORIGIN) {
        while let Ok(Ok(_)) = replay.poll() {}
    }
    let Ok(mut reader) = Reader::new(octets) else { return };
    while let Ok(Ok((_, record))) = reader.poll() {
        let mut again = BytesMut::new();
        write_header(&mut again);
        let start = again.len();
        record.encode(&mut again);
        write_end(&mut again);
        let mut again = Reader::new(again.freeze()).expect("a header");
        assert_eq!(again.poll(), Ok(Ok((start, record))));
        assert_eq!(again.poll(), Ok(Err(End::Whole)));
    }
});
