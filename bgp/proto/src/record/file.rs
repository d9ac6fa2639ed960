//! The form of a recording: a header, records, and an end mark; numbers are big-endian.
//!
//! ```text
//! "PLRTREC\n"  version (2)
//! length (4)  CRC-32 of the length (4)  CRC-32 of the content (4)  content     for each record
//! "PLRTEND\n"
//! ```
//! The length has a checksum of its own, so that a flipped bit in it is not taken for a file that was cut short.
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nom::{
    Parser,
    combinator::all_consuming,
    combinator::map_opt,
    multi::length_data,
    number::complete::{be_u16, be_u64},
};

use super::{Input, codec};

const MAGIC: &[u8; 8] = b"PLRTREC\n";
/// As a length this would be more than [`MAX_LENGTH`].
const END: &[u8; 8] = b"PLRTEND\n";
/// Raised with every change that an older reader would misread.
const VERSION: u16 = 1;
const HEADER_LENGTH: usize = 10;
/// Before each record: its length and both checksums.
const FRAME_LENGTH: usize = 12;
/// No input is longer than what is read from a socket at a time, and what was left from before.
const MAX_LENGTH: usize = 1 << 20;

/// One input of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which of the recording's sessions: a peer that was removed and is back has another.
    pub session: u64,
    /// The peer's name.
    pub peer: String,
    /// When, since the recording began.
    pub at: Duration,
    /// What the session took in.
    pub input: Input,
    /// What came out of it, as one number.
    pub digest: u64,
}

/// Writes what a recording begins with.
pub fn write_header(out: &mut BytesMut) {
    out.put_slice(MAGIC);
    out.put_u16(VERSION);
}

/// Writes what a recording ends with that was not cut short.
pub fn write_end(out: &mut BytesMut) {
    out.put_slice(END);
}

impl Record {
    /// Appends the record with its length and checksum.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut content = BytesMut::new();
        content.put_u64(self.session);
        let name = self.peer.get(..self.peer.floor_char_boundary(usize::from(u16::MAX))).unwrap_or_default();
        content.put_u16(u16::try_from(name.len()).unwrap_or_default());
        content.put_slice(name.as_bytes());
        codec::put_duration(self.at, &mut content);
        content.put_u64(self.digest);
        codec::put(&self.input, &mut content);
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
        out.put_slice(&length);
        out.put_u32(crc32fast::hash(&length));
        out.put_u32(crc32fast::hash(&content));
        out.put_slice(&content);
    }

    fn decode(content: &[u8]) -> Option<Record> {
        let text = |name: &[u8]| std::str::from_utf8(name).ok().map(str::to_owned);
        let name = map_opt(length_data(be_u16::<_, nom::error::Error<&[u8]>>), text);
        let mut record = all_consuming((be_u64, name, codec::duration, be_u64, codec::parse));
        let (_, (session, peer, at, digest, input)) = record.parse(content).ok()?;
        Some(Record { session, peer, at, input, digest })
    }
}

/// What is wrong with a recording, and at which octet of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// It does not begin as recordings do.
    #[error("not a recording of sessions")]
    NotARecording,
    /// It is of a version that is not known here.
    #[error("a recording of version {0}; only version 1 is known")]
    Version(u16),
    /// The record at this octet does not fit its checksum, or means nothing.
    #[error("the record at octet {0} is corrupt")]
    Record(usize),
}

/// How a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it was to be.
    Whole,
    /// At this octet, within a record or before the next one: it was cut short.
    Cut(usize),
}

/// Reads a recording, record by record.
#[derive(Debug)]
pub struct Reader {
    octets: Bytes,
    at: usize,
}

impl Reader {
    /// Begins to read. One that is cut within its header has no records.
    pub fn new(mut octets: Bytes) -> Result<Reader, Corrupt> {
        let magic = octets.get(..MAGIC.len().min(octets.len())).unwrap_or_default();
        if !MAGIC.starts_with(magic) {
            return Err(Corrupt::NotARecording);
        }
        if octets.len() < HEADER_LENGTH {
            return Ok(Reader { at: octets.len(), octets: Bytes::new() });
        }
        octets.advance(MAGIC.len());
        match octets.get_u16() {
            VERSION => Ok(Reader { octets, at: HEADER_LENGTH }),
            other => Err(Corrupt::Version(other)),
        }
    }

    /// The next record, with the octet where it begins; or how the recording ends.
    pub fn poll(&mut self) -> Result<Result<(usize, Record), End>, Corrupt> {
        let at = self.at;
        let corrupt = Corrupt::Record(at);
        let cut = Ok(Err(End::Cut(at.saturating_add(self.octets.len()))));
        if self.octets.starts_with(END) {
            let last = self.octets.len() == END.len();
            return if last { Ok(Err(End::Whole)) } else { Err(corrupt) };
        }
        // The length is checked as soon as it is there: only a sound one may say that something is missing.
        let Some((&[l1, l2, l3, l4, c1, c2, c3, c4], rest)) = self.octets.split_at_checked(8) else {
            return cut;
        };
        let length = [l1, l2, l3, l4];
        let sound = crc32fast::hash(&length) == u32::from_be_bytes([c1, c2, c3, c4]);
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !sound || length > MAX_LENGTH {
            return Err(corrupt);
        }
        let Some((&[d1, d2, d3, d4], content)) = rest.split_at_checked(4) else { return cut };
        let Some(content) = content.get(..length) else { return cut };
        let sound = crc32fast::hash(content) == u32::from_be_bytes([d1, d2, d3, d4]);
        let record = sound.then(|| Record::decode(content)).flatten().ok_or(corrupt)?;
        let whole = FRAME_LENGTH.saturating_add(length);
        self.octets.advance(whole);
        self.at = at.saturating_add(whole);
        Ok(Ok((at, record)))
    }
}
