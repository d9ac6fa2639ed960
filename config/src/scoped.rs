//! An address of a router, with the interface behind which a link-local one is meant.
use std::{fmt, net::IpAddr, str::FromStr};

use schemars::Schema;
use serde::Serializer;

use crate::{
    admission::{SCOPED_ADDRESS, text},
    value::{Written, refuse_mapped},
};

/// An IP address; a link-local IPv6 address names its interface, `fe80::1%eth0` (RFC 4007 section 11).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ScopedAddress {
    address: IpAddr,
    interface: Option<String>,
}

impl ScopedAddress {
    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The interface, of link-local addresses and of no others.
    pub fn interface(&self) -> Option<&str> {
        self.interface.as_deref()
    }
}

/// Whether Linux takes it as the name of an interface.
pub(crate) fn is_interface_name(name: &str) -> bool {
    let plain = |c: char| c != '/' && c != ':' && !c.is_whitespace();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && name.chars().all(plain)
}

impl FromStr for ScopedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, interface) = match text.split_once('%') {
            Some((address, interface)) => (address, Some(interface)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("`{text}` is not an IP address"))?;
        refuse_mapped(address)?;
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        match interface {
            None if link_local => {
                Err(format!("{address} is link-local: name its interface too, {address}%eth0"))
            }
            Some(_) if !link_local => Err(format!("{address} is not link-local and takes no interface")),
            Some(name) if !is_interface_name(name) => Err(format!("`{name}` is not an interface name")),
            _ => Ok(ScopedAddress { address, interface: interface.map(str::to_owned) }),
        }
    }
}

impl fmt::Display for ScopedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl fmt::Debug for ScopedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Written for ScopedAddress {
    const WHAT: &'static str = "an IP address";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }

    fn schema() -> Schema {
        text(61, &SCOPED_ADDRESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_have_an_interface_and_others_none() {
        let sound: ScopedAddress = "fe80::1%eth0".parse().unwrap();
        assert_eq!((sound.address(), sound.interface()), ("fe80::1".parse().unwrap(), Some("eth0")));
        assert_eq!(sound.to_string(), "fe80::1%eth0");
        assert_eq!("192.0.2.1".parse::<ScopedAddress>().unwrap().interface(), None);
        for text in [
            "fe80::1",
            "2001:db8::1%eth0",
            "192.0.2.1%eth0",
            "fe80::1%",
            "fe80::1%a/b",
            "::ffff:192.0.2.1",
            "eth0",
            "",
        ] {
            assert!(text.parse::<ScopedAddress>().is_err(), "{text}");
        }
    }
}
