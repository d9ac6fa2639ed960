//! Counts what a stream of BGP messages announces, by their lengths alone.
//!
//! No attribute is understood but MP_REACH_NLRI and MP_UNREACH_NLRI, nothing is allocated for a prefix. Beside the
//! number of prefixes the scanner adds up their last 64 bits (IPv4: the address), so that a prefix sent twice cannot
//! stand for one that is missing.
use std::io::{self, Read};

use anyhow::{Result, bail, ensure};

use crate::wire::{HEADER, MAX_MESSAGE};

/// As much as one read takes.
const BUFFER: usize = 256 << 10;

/// What came so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) opens: u64,
    pub(crate) keepalives: u64,
    pub(crate) updates: u64,
    pub(crate) announced: u64,
    pub(crate) withdrawn: u64,
    /// The announced prefixes' last bits, added up.
    pub(crate) checksum: u64,
    /// Code and subcode of a NOTIFICATION.
    pub(crate) notification: Option<(u8, u8)>,
}

/// A prefix as the scanner hands it on: its length, and its last bits in one number.
pub(crate) type Seen<'a> = &'a mut dyn FnMut(u8, u64);

/// Takes bytes as they come.
pub(crate) struct Scanner {
    buffer: Vec<u8>,
    filled: usize,
    pub(crate) counts: Counts,
}

impl Scanner {
    pub(crate) fn new() -> Scanner {
        Scanner { buffer: vec![0; BUFFER], filled: 0, counts: Counts::default() }
    }

    /// One read, and whatever is whole after it; `seen` hears each announced prefix. An end of the stream is an error:
    /// nobody here expects one.
    pub(crate) fn read(&mut self, stream: &mut impl Read, seen: Seen<'_>) -> Result<()> {
        let count = stream.read(&mut self.buffer[self.filled..])?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.filled += count;
        let mut start = 0;
        while let Some(length) = whole(&self.buffer[start..self.filled])? {
            message(&self.buffer[start..start + length], &mut self.counts, seen)?;
            start += length;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(())
    }
}

/// The length of the message at the front, if all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<usize>> {
    if bytes.len() < HEADER {
        return Ok(None);
    }
    ensure!(bytes[..16] == [0xff; 16], "no marker where a message begins");
    let length = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    ensure!((HEADER..=MAX_MESSAGE).contains(&length), "a message of {length} octets");
    Ok((bytes.len() >= length).then_some(length))
}

fn message(bytes: &[u8], counts: &mut Counts, seen: Seen<'_>) -> Result<()> {
    let body = &bytes[HEADER..];
    match bytes[18] {
        1 => counts.opens += 1,
        2 => update(body, counts, seen)?,
        3 => counts.notification = Some((body[0], body[1])),
        4 => counts.keepalives += 1,
        5 => {}
        kind => bail!("a message of type {kind}"),
    }
    Ok(())
}

fn update(body: &[u8], counts: &mut Counts, seen: Seen<'_>) -> Result<()> {
    counts.updates += 1;
    let (withdrawn, rest) = field(body)?;
    counts.withdrawn += walk(withdrawn, &mut |_, _| {})?;
    let (mut attributes, nlri) = field(rest)?;
    let Counts { announced, withdrawn, checksum, .. } = counts;
    let mut take = |length: u8, last: u64| {
        *checksum = checksum.wrapping_add(last);
        seen(length, last);
    };
    *announced += walk(nlri, &mut take)?;
    while let [flags, code, rest @ ..] = attributes {
        let (value, rest) = if flags & 0x10 == 0 {
            let Some((length, rest)) = rest.split_first() else { bail!("an attribute is cut short") };
            split(rest, usize::from(*length))?
        } else {
            field(rest)?
        };
        match code {
            14 => {
                ensure!(value.len() >= 5, "MP_REACH_NLRI is cut short");
                let (_, prefixes) = split(value, 5 + usize::from(value[3]))?;
                *announced += walk(prefixes, &mut take)?;
            }
            15 => *withdrawn += walk(split(value, 3)?.1, &mut |_, _| {})?,
            _ => {}
        }
        attributes = rest;
    }
    Ok(())
}

/// A field with two octets of length before it, and what follows.
fn field(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = split(bytes, 2)?;
    split(rest, usize::from(u16::from_be_bytes([length[0], length[1]])))
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8])> {
    bytes.split_at_checked(at).ok_or_else(|| anyhow::anyhow!("a field of {at} octets is cut short"))
}

fn walk(mut prefixes: &[u8], seen: Seen<'_>) -> Result<u64> {
    let mut count = 0;
    while let Some((length, rest)) = prefixes.split_first() {
        let (octets, rest) = split(rest, usize::from(length.div_ceil(8)))?;
        seen(*length, last_bits(octets));
        prefixes = rest;
        count += 1;
    }
    Ok(count)
}

/// Up to four octets are an IPv4 address from its left; of more, the last eight.
fn last_bits(octets: &[u8]) -> u64 {
    match octets {
        [a, b, c, d] => u64::from(u32::from_be_bytes([*a, *b, *c, *d])),
        [] | [_] | [_, _] | [_, _, _] => {
            let mut address = [0; 4];
            address[..octets.len()].copy_from_slice(octets);
            u64::from(u32::from_be_bytes(address))
        }
        longer => longer.iter().rev().take(8).rev().fold(0, |sum, octet| sum << 8 | u64::from(*octet)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, Author, Family, Numbering};

    /// Gives at most so many octets at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn scan(bytes: &[u8], at_a_time: usize) -> Result<Counts> {
        let (mut scanner, mut stream) = (Scanner::new(), Drip(bytes, at_a_time));
        while !stream.0.is_empty() {
            scanner.read(&mut stream, &mut |_, _| {})?;
        }
        assert_eq!(scanner.filled, 0, "octets are left over");
        Ok(scanner.counts)
    }

    fn author() -> Author {
        Author { asn: 64601, next_hop4: [172, 16, 0, 253].into(), next_hop6: "fd00:bec::fd".parse().unwrap() }
    }

    fn announced(prefixes: Numbering, count: u32, set: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::announce(&author(), prefixes, 0..count, set, &mut bytes);
        bytes
    }

    #[test]
    fn counts_every_prefix_of_every_numbering() {
        for prefixes in [Numbering::Hosts4, Numbering::Hosts6, Numbering::Nets4] {
            for set in [0, 7] {
                let counts = scan(&announced(prefixes, 10_000, set), 100_000).unwrap();
                assert_eq!(counts.announced, 10_000);
                assert_eq!(counts.checksum, prefixes.checksum_of(0..10_000));
            }
        }
    }

    #[test]
    fn a_missing_and_a_doubled_prefix_do_not_cancel_out() {
        let mut bytes = announced(Numbering::Hosts4, 999, 0);
        let whole = scan(&announced(Numbering::Hosts4, 1_000, 0), 4096).unwrap();
        wire::announce(&author(), Numbering::Hosts4, 5..6, 0, &mut bytes);
        let doubled = scan(&bytes, 4096).unwrap();
        assert_eq!(doubled.announced, whole.announced);
        assert_ne!(doubled.checksum, whole.checksum);
    }

    #[test]
    fn the_updates_are_full_and_what_the_products_decoder_takes() {
        use bytes::BytesMut;
        use plainroute_bgp::wire::{CodecContext, Frame, Message};
        for prefixes in [Numbering::Hosts4, Numbering::Hosts6] {
            let mut buffer = BytesMut::from(&announced(prefixes, 10_000, 3)[..]);
            let mut reached = 0;
            let mut longest = 0;
            while let Some(frame) = Frame::poll(&mut buffer, MAX_MESSAGE).unwrap() {
                longest = longest.max(frame.body.len() + HEADER);
                let Message::Update(update, findings) =
                    Message::decode(frame, &CodecContext::default()).unwrap()
                else {
                    panic!("no UPDATE")
                };
                assert!(findings.is_empty(), "{findings:?}");
                reached += update.reach.iter().map(|reach| reach.nlri.len()).sum::<usize>();
            }
            assert_eq!(reached, 10_000);
            assert!(longest > MAX_MESSAGE - 32, "{longest}");
        }
    }

    #[test]
    fn what_is_no_bgp_is_refused() {
        let good = announced(Numbering::Hosts4, 10, 0);
        let mut no_marker = good.clone();
        no_marker[3] = 0;
        scan(&no_marker, 4096).unwrap_err();
        let mut short_field = good;
        short_field[HEADER + 1] = 200;
        scan(&short_field, 4096).unwrap_err();
        let withdrawal = [&[0xff; 16][..], &[0, 28, 2, 0, 5, 32, 10, 0, 0, 1, 0, 0]].concat();
        let counts = scan(&withdrawal, 4096).unwrap();
        assert_eq!((counts.announced, counts.withdrawn, counts.updates), (0, 1, 1));
        let notification = [&[0xff; 16][..], &[0, 21, 3, 6, 2]].concat();
        assert_eq!(scan(&notification, 4096).unwrap().notification, Some((6, 2)));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(at_a_time in 1_usize..5_000, count in 1_u32..3_000) {
            for prefixes in [Numbering::Hosts4, Numbering::Hosts6] {
                let bytes = [announced(prefixes, count, 1), wire::keepalive()].concat();
                let counts = scan(&bytes, at_a_time).unwrap();
                prop_assert_eq!(counts.announced, u64::from(count));
                prop_assert_eq!(counts.checksum, prefixes.checksum_of(0..count));
                prop_assert_eq!(counts.keepalives, 1);
            }
        }

        #[test]
        fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = u16::try_from(HEADER + body.len()).unwrap().to_be_bytes();
            let bytes = [&[0xff; 16][..], &length, &[2], &body].concat();
            let _ = scan_lenient(&bytes);
        }
    }

    fn scan_lenient(bytes: &[u8]) -> Result<()> {
        Scanner::new().read(&mut Drip(bytes, bytes.len()), &mut |_, _| {})
    }

    #[test]
    fn the_family_names_are_what_routers_call_them() {
        assert_eq!((Family::V4.afi(), Family::V6.afi()), (1, 2));
    }
}
