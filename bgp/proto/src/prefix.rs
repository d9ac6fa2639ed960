//! IP prefixes with the host bits masked, so that equal networks are equal values.
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::AfiSafi;

/// An IPv4 or IPv6 prefix. Host bits are always zero and the length always fits the family.
///
/// ```
/// # use plainroute_bgp::Prefix;
/// let a: Prefix = "10.0.0.5/24".parse().unwrap();
/// assert_eq!(a, "10.0.0.0/24".parse().unwrap());
/// assert!(a.contains_address("10.0.0.77".parse().unwrap()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// An IPv4 prefix.
    V4(Prefix4),
    /// An IPv6 prefix.
    V6(Prefix6),
}

/// The IPv4 half of [`Prefix`]. Octets rather than a number: without an alignment a million prefixes take 18 MB, not 48.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix4 {
    octets: [u8; 4],
    length: u8,
}

/// The IPv6 half of [`Prefix`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix6 {
    octets: [u8; 16],
    length: u8,
}

impl Prefix4 {
    const fn new(bits: u32, length: u8) -> Prefix4 {
        Prefix4 { octets: bits.to_be_bytes(), length }
    }

    const fn bits(self) -> u32 {
        u32::from_be_bytes(self.octets)
    }
}

impl Prefix6 {
    const fn new(bits: u128, length: u8) -> Prefix6 {
        Prefix6 { octets: bits.to_be_bytes(), length }
    }

    const fn bits(self) -> u128 {
        u128::from_be_bytes(self.octets)
    }
}

/// Why something is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// The length is beyond the family's.
    #[error("prefix length {length} is beyond {max}")]
    Length {
        /// What was given, in bits.
        length: u8,
        /// What the family has, in bits.
        max: u8,
    },
    /// Not of the form ADDRESS/LENGTH or ADDRESS.
    #[error("`{0}` is not a prefix (ADDRESS/LENGTH)")]
    Form(String),
}

impl Prefix {
    /// The prefix of `length` bits around `address`; host bits are masked.
    pub fn new(address: IpAddr, length: u8) -> Result<Prefix, InvalidPrefix> {
        match address {
            IpAddr::V4(address) => Prefix::v4(address, length),
            IpAddr::V6(address) => Prefix::v6(address, length),
        }
    }

    /// The IPv4 prefix of `length` bits around `address`.
    pub fn v4(address: Ipv4Addr, length: u8) -> Result<Prefix, InvalidPrefix> {
        if length > 32 {
            return Err(InvalidPrefix::Length { length, max: 32 });
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Ok(Prefix::V4(Prefix4::new(address.to_bits() & mask, length)))
    }

    /// The IPv6 prefix of `length` bits around `address`.
    pub fn v6(address: Ipv6Addr, length: u8) -> Result<Prefix, InvalidPrefix> {
        if length > 128 {
            return Err(InvalidPrefix::Length { length, max: 128 });
        }
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Ok(Prefix::V6(Prefix6::new(address.to_bits() & mask, length)))
    }

    /// The single address as a prefix: /32 or /128.
    pub fn host(address: IpAddr) -> Prefix {
        match address {
            IpAddr::V4(address) => Prefix::V4(Prefix4::new(address.to_bits(), 32)),
            IpAddr::V6(address) => Prefix::V6(Prefix6::new(address.to_bits(), 128)),
        }
    }

    /// The network address.
    pub fn address(self) -> IpAddr {
        match self {
            Prefix::V4(prefix) => IpAddr::V4(prefix.octets.into()),
            Prefix::V6(prefix) => IpAddr::V6(prefix.octets.into()),
        }
    }

    /// The length in bits.
    pub const fn length(self) -> u8 {
        match self {
            Prefix::V4(prefix) => prefix.length,
            Prefix::V6(prefix) => prefix.length,
        }
    }

    /// The unicast family that carries it.
    pub const fn family(self) -> AfiSafi {
        match self {
            Prefix::V4(_) => AfiSafi::Ipv4Unicast,
            Prefix::V6(_) => AfiSafi::Ipv6Unicast,
        }
    }

    /// Whether it is a single address.
    pub const fn is_host(self) -> bool {
        self.length() == self.family().max_length()
    }

    /// Whether it is 0.0.0.0/0 or ::/0.
    pub const fn is_default(self) -> bool {
        self.length() == 0
    }

    /// Whether `other` is this prefix or lies within it. Families never contain one another.
    pub fn contains(self, other: Prefix) -> bool {
        match (self, other) {
            (Prefix::V4(a), Prefix::V4(b)) => {
                a.length <= b.length
                    && (a.bits() ^ b.bits()).checked_shr(32 - u32::from(a.length)).unwrap_or(0) == 0
            }
            (Prefix::V6(a), Prefix::V6(b)) => {
                a.length <= b.length
                    && (a.bits() ^ b.bits()).checked_shr(128 - u32::from(a.length)).unwrap_or(0) == 0
            }
            (Prefix::V4(_), Prefix::V6(_)) | (Prefix::V6(_), Prefix::V4(_)) => false,
        }
    }

    /// Whether `address` lies within.
    pub fn contains_address(self, address: IpAddr) -> bool {
        self.contains(Prefix::host(address))
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Prefix) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The last address within.
    pub fn last_address(self) -> IpAddr {
        match self {
            Prefix::V4(prefix) => {
                let host = u32::MAX.checked_shr(u32::from(prefix.length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(prefix.bits() | host))
            }
            Prefix::V6(prefix) => {
                let host = u128::MAX.checked_shr(u32::from(prefix.length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(prefix.bits() | host))
            }
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Prefix {
        Prefix::host(address)
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    /// ADDRESS/LENGTH, or a bare address for a single one. Host bits are masked.
    fn from_str(text: &str) -> Result<Prefix, InvalidPrefix> {
        let form = || InvalidPrefix::Form(text.to_owned());
        match text.split_once('/') {
            Some((address, length)) => {
                let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                let length = plain.then(|| length.parse().ok()).flatten().ok_or_else(form)?;
                Prefix::new(address.parse().map_err(|_| form())?, length)
            }
            None => Ok(Prefix::host(text.parse().map_err(|_| form())?)),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` through a string only where a width is asked for, as in a table.
        if f.width().is_some() {
            return f.pad(&format!("{}/{}", self.address(), self.length()));
        }
        write!(f, "{}/{}", self.address(), self.length())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    /// RIBs hold millions of them.
    #[test]
    fn a_prefix_is_small() {
        assert_eq!(size_of::<Prefix>(), 18);
    }

    #[test]
    fn prefixes_sort_by_address_then_length() {
        let sorted = ["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9", "200.0.0.0/8", "::/0", "2001:db8::/32"].map(p);
        assert!(sorted.is_sorted());
    }

    #[test]
    fn host_bits_are_masked() {
        assert_eq!(p("10.0.0.5/24"), p("10.0.0.0/24"));
        assert_eq!(p("2001:db8::1/64"), p("2001:db8::/64"));
        assert_eq!(p("1.2.3.4/0"), p("0.0.0.0/0"));
        assert_eq!(p("10.0.0.5"), p("10.0.0.5/32"));
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in
            ["", "10.0.0.0/33", "10.0.0/24", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "x/8"]
        {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn containment_holds_within_a_family_only() {
        assert!(p("0.0.0.0/0").contains(p("10.0.0.0/8")));
        assert!(p("10.0.0.0/8").contains(p("10.0.0.0/8")));
        assert!(!p("10.0.0.0/8").contains(p("0.0.0.0/0")));
        assert!(!p("0.0.0.0/0").contains(p("::/0")));
        assert!(p("2001:db8::/32").contains_address("2001:db8::1".parse().unwrap()));
        assert!(!p("10.1.0.0/16").contains_address("10.2.0.0".parse().unwrap()));
        assert!(p("10.1.0.0/16").overlaps(p("10.0.0.0/8")) && !p("10.1.0.0/16").overlaps(p("10.2.0.0/16")));
    }

    #[test]
    fn the_last_address_is_known() {
        assert_eq!(p("10.0.0.0/24").last_address(), "10.0.0.255".parse::<IpAddr>().unwrap());
        assert_eq!(p("0.0.0.0/0").last_address(), "255.255.255.255".parse::<IpAddr>().unwrap());
        assert_eq!(p("::1/128").last_address(), "::1".parse::<IpAddr>().unwrap());
    }
}
