//! The BGP Identifier (RFC 6286): a four-octet, non-zero number, written like an IPv4 address.
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A BGP Identifier. Zero cannot be built (RFC 6286 section 2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(u32);

impl RouterId {
    /// The identifier, unless it is zero.
    pub const fn new(number: u32) -> Option<RouterId> {
        if number == 0 { None } else { Some(RouterId(number)) }
    }

    /// The identifier as an unsigned integer, the form in which collisions compare it (RFC 4271 section 6.8).
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The identifier as it is written.
    pub const fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0)
    }
}

/// Why a text is not a router ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a router ID: four octets like 192.0.2.1, not 0.0.0.0 (RFC 6286)")]
pub struct InvalidRouterId(String);

impl TryFrom<Ipv4Addr> for RouterId {
    type Error = InvalidRouterId;
    fn try_from(address: Ipv4Addr) -> Result<Self, InvalidRouterId> {
        RouterId::new(address.to_bits()).ok_or_else(|| InvalidRouterId(address.to_string()))
    }
}

impl FromStr for RouterId {
    type Err = InvalidRouterId;
    fn from_str(text: &str) -> Result<Self, InvalidRouterId> {
        let address: Ipv4Addr = text.parse().map_err(|_| InvalidRouterId(text.to_owned()))?;
        RouterId::try_from(address)
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

impl fmt::Debug for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_cannot_be_built() {
        assert_eq!(RouterId::new(0), None);
        assert!("0.0.0.0".parse::<RouterId>().is_err());
        assert_eq!("10.0.0.1".parse::<RouterId>().map(RouterId::number), Ok(0x0a00_0001));
    }
}
