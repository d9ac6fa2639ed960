//! BGP bytes, written by hand and before any clock runs.
//!
//! The tool encodes for itself and uses none of the product's codec, so that what it measures is not also its ruler.
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use clap::ValueEnum;

/// The longest message (RFC 4271 section 4); nobody here offers longer ones.
pub(crate) const MAX_MESSAGE: usize = 4096;
pub(crate) const HEADER: usize = 19;
/// Proposed by everybody here, so that no KEEPALIVE falls into what is timed.
pub(crate) const HOLD_TIME: u16 = 600;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Family {
    /// IPv4 unicast.
    V4,
    /// IPv6 unicast.
    V6,
}

impl Family {
    pub(crate) fn afi(self) -> u16 {
        match self {
            Family::V4 => 1,
            Family::V6 => 2,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::V4 => "v4",
            Family::V6 => "v6",
        }
    }
}

/// A numbered set of prefixes, so that who counts them can also tell that they were the right ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// 10.0.0.0/32 and up, as Pods have them.
    Hosts4,
    /// 2001:db8::/128 and up.
    Hosts6,
    /// 16.0.0.0/24 and up, as a table from outside has them.
    Nets4,
}

impl Numbering {
    pub(crate) fn hosts(family: Family) -> Numbering {
        match family {
            Family::V4 => Numbering::Hosts4,
            Family::V6 => Numbering::Hosts6,
        }
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Numbering::Hosts4 | Numbering::Nets4 => Family::V4,
            Numbering::Hosts6 => Family::V6,
        }
    }

    pub(crate) fn v4(self, number: u32) -> Ipv4Addr {
        match self {
            Numbering::Hosts4 | Numbering::Hosts6 => Ipv4Addr::from_bits(0x0a00_0000 + number),
            Numbering::Nets4 => Ipv4Addr::from_bits(0x1000_0000 + (number << 8)),
        }
    }

    pub(crate) fn v6(number: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(number))
    }

    /// What [`crate::scan`] adds up for the prefix of this number.
    pub(crate) fn checksum(self, number: u32) -> u64 {
        match self {
            Numbering::Hosts4 | Numbering::Nets4 => u64::from(self.v4(number).to_bits()),
            Numbering::Hosts6 => u64::from(number),
        }
    }

    pub(crate) fn checksum_of(self, numbers: Range<u32>) -> u64 {
        numbers.map(|number| self.checksum(number)).fold(0, u64::wrapping_add)
    }

    fn put(self, number: u32, out: &mut Vec<u8>) {
        match self {
            Numbering::Hosts4 => {
                out.push(32);
                out.extend(self.v4(number).octets());
            }
            Numbering::Nets4 => {
                out.push(24);
                out.extend(&self.v4(number).octets()[..3]);
            }
            Numbering::Hosts6 => {
                out.push(128);
                out.extend(Numbering::v6(number).octets());
            }
        }
    }

    fn octets(self) -> usize {
        match self {
            Numbering::Hosts4 => 5,
            Numbering::Nets4 => 4,
            Numbering::Hosts6 => 17,
        }
    }
}

/// The prefix that is sent last and passed on to an observer: once it is seen there, all before it is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marker;

impl Marker {
    pub(crate) const V4: &str = "203.0.113.255/32";
    pub(crate) const V6: &str = "2001:db9::255/128";

    /// What [`crate::scan`] adds up for it.
    pub(crate) fn checksum(family: Family) -> u64 {
        match family {
            Family::V4 => 0xcb00_71ff,
            Family::V6 => 0x255,
        }
    }

    pub(crate) fn text(family: Family) -> &'static str {
        match family {
            Family::V4 => Marker::V4,
            Family::V6 => Marker::V6,
        }
    }
}

/// Who announces, and how the sets of attributes differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub(crate) asn: u32,
    pub(crate) next_hop4: Ipv4Addr,
    pub(crate) next_hop6: Ipv6Addr,
}

fn message(kind: u8, body: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0xff; 16]);
    out.extend([0, 0, kind]);
    body(out);
    let length = u16::try_from(out.len() - start).expect("shorter than 65536");
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

/// OPEN with one family, route refresh and four-octet AS numbers.
pub(crate) fn open(asn: u32, router_id: Ipv4Addr, family: Family) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 0, 0, 1, 2, 0, 65, 4];
    capabilities[2..4].copy_from_slice(&family.afi().to_be_bytes());
    capabilities.extend(asn.to_be_bytes());
    let mut out = Vec::new();
    let body = |out: &mut Vec<u8>| {
        out.push(4);
        out.extend(u16::try_from(asn).unwrap_or(23456).to_be_bytes());
        out.extend(HOLD_TIME.to_be_bytes());
        out.extend(router_id.octets());
        let length = u8::try_from(capabilities.len()).expect("short");
        out.extend([length + 2, 2, length]);
        out.extend(&capabilities);
    };
    message(1, body, &mut out);
    out
}

/// KEEPALIVE.
pub(crate) fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    message(4, |_| {}, &mut out);
    out
}

/// UPDATEs as full as they go, all with the attribute set of this number.
pub(crate) fn announce(
    author: &Author,
    prefixes: Numbering,
    numbers: Range<u32>,
    set: u32,
    out: &mut Vec<u8>,
) {
    let put = |number: u32, out: &mut Vec<u8>| prefixes.put(number, out);
    let numbers: Vec<u32> = numbers.collect();
    let room = MAX_MESSAGE - HEADER - 4 - attributes(author, set, prefixes.family(), &[]).len() - 8;
    for chunk in numbers.chunks(room / prefixes.octets()) {
        let mut nlri = Vec::with_capacity(chunk.len() * prefixes.octets());
        chunk.iter().for_each(|number| put(*number, &mut nlri));
        update(author, prefixes.family(), set, &nlri, out);
    }
}

/// UPDATEs that withdraw IPv4 prefixes, as full as they go.
pub(crate) fn withdraw(prefixes: Numbering, numbers: Range<u32>, out: &mut Vec<u8>) {
    let numbers: Vec<u32> = numbers.collect();
    for chunk in numbers.chunks((MAX_MESSAGE - HEADER - 4) / prefixes.octets()) {
        let mut nlri = Vec::new();
        chunk.iter().for_each(|number| prefixes.put(*number, &mut nlri));
        let body = |out: &mut Vec<u8>| {
            out.extend(u16::try_from(nlri.len()).expect("fits a message").to_be_bytes());
            out.extend(&nlri);
            out.extend([0, 0]);
        };
        message(2, body, out);
    }
}

/// The UPDATE of the [`Marker`].
pub(crate) fn announce_marker(author: &Author, family: Family, out: &mut Vec<u8>) {
    let nlri = match family {
        Family::V4 => vec![32, 203, 0, 113, 255],
        Family::V6 => {
            let mut nlri = vec![128];
            nlri.extend("2001:db9::255".parse::<Ipv6Addr>().expect("an address").octets());
            nlri
        }
    };
    update(author, family, 0, &nlri, out);
}

fn update(author: &Author, family: Family, set: u32, nlri: &[u8], out: &mut Vec<u8>) {
    let reach = if family == Family::V6 { nlri } else { &[] };
    let attributes = attributes(author, set, family, reach);
    let body = |out: &mut Vec<u8>| {
        out.extend([0, 0]);
        out.extend(u16::try_from(attributes.len()).expect("fits a message").to_be_bytes());
        out.extend(&attributes);
        if family == Family::V4 {
            out.extend(nlri);
        }
    };
    message(2, body, out);
}

/// ORIGIN, AS_PATH, the next hop, two communities. Set 0 is bare; every other has a path and a community of its own.
fn attributes(author: &Author, set: u32, family: Family, reach: &[u8]) -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, 0];
    if set == 0 {
        out.extend([0x40, 2, 6, 2, 1]);
        out.extend(author.asn.to_be_bytes());
    } else {
        out.extend([0x40, 2, 14, 2, 3]);
        for asn in [author.asn, 100_000 + set % 5_000, 200_000 + set] {
            out.extend(asn.to_be_bytes());
        }
    }
    if family == Family::V4 {
        out.extend([0x40, 3, 4]);
        out.extend(author.next_hop4.octets());
    }
    if set != 0 {
        out.extend([0xc0, 8, 8, 0xfc, 0, 0, 1, 0xfc, 1]);
        out.extend(u16::try_from(set % 65_536).expect("reduced").to_be_bytes());
    }
    if family == Family::V6 {
        // AFI, SAFI, the next hop with its length, a reserved octet.
        let length = u16::try_from(21 + reach.len()).expect("fits a message");
        out.extend([0x90, 14]);
        out.extend(length.to_be_bytes());
        out.extend([0, 2, 1, 16]);
        out.extend(author.next_hop6.octets());
        out.push(0);
        out.extend(reach);
    }
    out
}
