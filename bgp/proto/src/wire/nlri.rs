//! Network layer reachability information (RFC 4271 section 4.3, RFC 4760 section 5).
//!
//! The one loop that a full table spends its time in; so it is written by hand over slices.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use crate::{AfiSafi, Prefix};

/// One prefix of an UPDATE, with its path identifier where add-path (RFC 7911) was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The prefix.
    pub prefix: Prefix,
    /// The path identifier; `None` without add-path.
    pub path_id: Option<u32>,
}

impl Nlri {
    /// The identifier of a route that is the only one to its prefix.
    const ONLY_PATH: u32 = 1;

    /// The prefix as a session says it: with an identifier where add-path was negotiated, else without.
    pub(super) fn for_session(self, add_path: bool) -> Nlri {
        let path_id = add_path.then(|| self.path_id.unwrap_or(Nlri::ONLY_PATH));
        Nlri { path_id, ..self }
    }
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Nlri {
        Nlri { prefix, path_id: None }
    }
}

impl From<&Prefix> for Nlri {
    fn from(prefix: &Prefix) -> Nlri {
        Nlri::from(*prefix)
    }
}

impl From<&Nlri> for Nlri {
    fn from(nlri: &Nlri) -> Nlri {
        *nlri
    }
}

/// The field is not a list of prefixes (RFC 7606 section 5.3): a length is beyond the family's, or beyond what is
/// left of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidNetwork;

/// Octets that a prefix of so many bits takes.
const fn octets(bits: u8) -> usize {
    (bits as usize).div_ceil(8)
}

impl Nlri {
    /// How many octets [`Nlri::encode`] writes.
    pub(super) fn encoded_length(&self) -> usize {
        let path_id = if self.path_id.is_some() { 4 } else { 0 };
        octets(self.prefix.length()).saturating_add(1).saturating_add(path_id)
    }

    /// Whether packets to the prefix could be routed by it: not within multicast space, nor link-local.
    pub(super) fn is_unicast(&self) -> bool {
        let length = self.prefix.length();
        match self.prefix.address() {
            IpAddr::V4(address) => length < 4 || !address.is_multicast(),
            IpAddr::V6(address) => {
                (length < 8 || !address.is_multicast()) && (length < 10 || !address.is_unicast_link_local())
            }
        }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        if let Some(path_id) = self.path_id {
            out.put_u32(path_id);
        }
        let length = self.prefix.length();
        out.put_u8(length);
        match self.prefix.address() {
            IpAddr::V4(address) => put_first(&address.octets(), octets(length), out),
            IpAddr::V6(address) => put_first(&address.octets(), octets(length), out),
        }
    }
}

fn put_first(address: &[u8], count: usize, out: &mut BytesMut) {
    out.put_slice(address.get(..count).unwrap_or(address));
}

/// All prefixes of a field. Host bits that the peer left set are ignored (RFC 4271 section 4.3).
pub(super) fn decode_all(family: AfiSafi, field: &[u8], add_path: bool) -> Result<Vec<Nlri>, InvalidNetwork> {
    let prefix = match family {
        AfiSafi::Ipv4Unicast => prefix4,
        AfiSafi::Ipv6Unicast => prefix6,
    };
    // A prefix takes at least one octet, and mostly four: a guess that never exceeds what came.
    let mut all = Vec::with_capacity(field.len() / 4);
    let mut rest = field;
    while !rest.is_empty() {
        let mut path_id = None;
        if add_path {
            let (octets, after) = rest.split_first_chunk::<4>().ok_or(InvalidNetwork)?;
            path_id = Some(u32::from_be_bytes(*octets));
            rest = after;
        }
        let (&length, after) = rest.split_first().ok_or(InvalidNetwork)?;
        let (network, after) = after.split_at_checked(octets(length)).ok_or(InvalidNetwork)?;
        all.push(Nlri { prefix: prefix(length, network).ok_or(InvalidNetwork)?, path_id });
        rest = after;
    }
    Ok(all)
}

fn padded<const N: usize>(network: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address.get_mut(..network.len())?.copy_from_slice(network);
    Some(address)
}

fn prefix4(length: u8, network: &[u8]) -> Option<Prefix> {
    Prefix::v4(Ipv4Addr::from(padded::<4>(network)?), length).ok()
}

fn prefix6(length: u8, network: &[u8]) -> Option<Prefix> {
    Prefix::v6(Ipv6Addr::from(padded::<16>(network)?), length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(field: &[u8]) -> Result<Vec<Nlri>, InvalidNetwork> {
        decode_all(AfiSafi::Ipv4Unicast, field, false)
    }

    #[test]
    fn prefixes_take_as_few_octets_as_they_can() {
        let texts = ["0.0.0.0/0", "10.0.0.0/8", "10.128.0.0/9", "192.0.2.1/32"];
        let all: Vec<Nlri> = texts.iter().map(|text| text.parse::<Prefix>().unwrap().into()).collect();
        let mut out = BytesMut::new();
        all.iter().for_each(|nlri| nlri.encode(&mut out));
        assert_eq!(&out[..], [0, 8, 10, 9, 10, 128, 32, 192, 0, 2, 1]);
        assert_eq!(out.len(), all.iter().map(Nlri::encoded_length).sum::<usize>());
        assert_eq!(v4(&out), Ok(all));
    }

    #[test]
    fn multicast_and_link_local_prefixes_are_told() {
        let unicast = |text: &str| Nlri::from(text.parse::<Prefix>().unwrap()).is_unicast();
        for text in ["0.0.0.0/0", "224.0.0.0/3", "240.0.0.0/4", "::/0", "fe00::/7", "fe80::/9", "fd00::/8"] {
            assert!(unicast(text), "{text}");
        }
        for text in ["224.0.0.0/4", "239.1.2.3/32", "ff00::/8", "ff02::1/128", "fe80::/10", "fe80::1/128"] {
            assert!(!unicast(text), "{text}");
        }
    }

    #[test]
    fn host_bits_are_ignored() {
        assert_eq!(v4(&[20, 10, 1, 255]), Ok(vec!["10.1.240.0/20".parse::<Prefix>().unwrap().into()]));
    }

    #[test]
    fn lengths_beyond_the_family_or_the_field_are_refused() {
        assert_eq!(v4(&[33, 10, 0, 0, 0, 0]), Err(InvalidNetwork));
        assert_eq!(v4(&[24, 10, 0]), Err(InvalidNetwork));
        assert_eq!(v4(&[8, 10, 255]), Err(InvalidNetwork));
        assert_eq!(decode_all(AfiSafi::Ipv6Unicast, &[129; 18], false), Err(InvalidNetwork));
    }
}
