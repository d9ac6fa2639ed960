//! Where a contestant meets the tool: two namespaces and a cable.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use plainroute_tests::netns::{Netns, veth};

use crate::wire::{Author, Family};

/// The AS of whoever is measured.
pub(crate) const ASN: u32 = 64512;
/// The host number of whoever is measured.
pub(crate) const HOST: u8 = 1;

/// The host numbers of the tool's sessions.
pub(crate) mod host {
    /// Who passes a table on to a router, and never hears of one.
    pub(crate) const FEEDER: u8 = 253;
    /// Who hears of the marker alone.
    pub(crate) const OBSERVER: u8 = 252;
    /// Who hears of everything: another one for each round, so that each is fresh.
    pub(crate) const READERS: std::ops::RangeInclusive<u8> = 11..=15;
}

/// Two namespaces and a cable.
pub(crate) struct Site {
    /// Where the contestant runs.
    pub(crate) contestant: Netns,
    /// Where the tool's sockets are.
    pub(crate) tool: Netns,
}

impl Site {
    pub(crate) fn new() -> Result<Site> {
        let site = Site { contestant: Netns::new("bench")?, tool: Netns::new("tool")? };
        veth((&site.contestant, "eth0"), (&site.tool, "eth0"))?;
        let hosts = [host::FEEDER, host::OBSERVER].into_iter().chain(host::READERS);
        for family in [Family::V4, Family::V6] {
            let length = if family == Family::V4 { 24 } else { 64 };
            site.contestant.address("eth0", &format!("{}/{length}", address(family, HOST)))?;
            for host in hosts.clone() {
                site.tool.address("eth0", &format!("{}/{length}", address(family, host)))?;
            }
        }
        Ok(site)
    }
}

/// A host's address.
pub(crate) fn address(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 16, 0, host).into(),
        Family::V6 => v6(host).into(),
    }
}

fn v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0xbec, 0, 0, 0, 0, 0, u16::from(host))
}

/// A host's AS.
pub(crate) fn asn(host: u8) -> u32 {
    if host == HOST { ASN } else { 64600 + u32::from(host) }
}

/// A host's BGP Identifier.
pub(crate) fn router_id(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 0, host)
}

/// A host as the author of routes.
pub(crate) fn author(host: u8) -> Author {
    Author { asn: asn(host), next_hop4: router_id(host), next_hop6: v6(host) }
}
