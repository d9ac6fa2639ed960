//! Whom a session is with, as configured, and over which path that leads now.
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::{NonZeroU8, NonZeroU32},
};

use plainroute_bfd::{Hops, Path};
use plainroute_bgp::Prefix;

use crate::{
    config::is_link_local,
    next_hop::{InterfaceAddress, interface_addresses},
    socket::interface_index,
};

/// The hop limit at which a packet is taken from a peer of which nothing says how far away it may be.
const ANY_DISTANCE: NonZeroU8 = NonZeroU8::MIN;

/// How far away the peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// On a link of ours (RFC 5881).
    SingleHop,
    /// Behind so many hops at most, 2 or more (RFC 5883).
    MultiHop(NonZeroU8),
    /// On a link of ours where one of our addresses has the peer in its subnet, else anywhere: as FRR chooses for
    /// internal peers.
    Either,
}

/// Whom a session is with. Two targets are two sessions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The peer's address.
    pub remote: IpAddr,
    /// The interface that it is behind; has to be there for a link-local address.
    pub interface: Option<String>,
    /// Our address; where absent, the one that the kernel would choose.
    pub local: Option<IpAddr>,
    /// How far away it may be.
    pub reach: Reach,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.remote)?;
        match &self.interface {
            Some(interface) => write!(f, "%{interface}"),
            None => Ok(()),
        }
    }
}

/// Where a target is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) path: Path,
    /// What to bind the sending socket to.
    pub(super) device: Option<String>,
    pub(super) local: Option<IpAddr>,
}

/// Finds the ways to targets: the kernel is asked for our addresses once.
pub(super) struct Finder {
    addresses: io::Result<Vec<InterfaceAddress>>,
}

impl Finder {
    pub(super) fn new() -> Finder {
        Finder { addresses: interface_addresses() }
    }

    /// The path to a target; the error says what is missing for one.
    pub(super) fn find(&self, target: &Target) -> Result<Route, String> {
        if is_link_local(target.remote) && target.interface.is_none() {
            return Err(format!("{} is link-local and no interface is given", target.remote));
        }
        match target.reach {
            Reach::SingleHop => self.single_hop(target),
            Reach::MultiHop(hops) => self.multi_hop(target, least_hop_limit(hops)),
            Reach::Either if self.on_link(target)?.is_some() => self.single_hop(target),
            Reach::Either => self.multi_hop(target, ANY_DISTANCE),
        }
    }

    fn single_hop(&self, target: &Target) -> Result<Route, String> {
        let device = match self.on_link(target)? {
            Some(device) => device,
            // No subnet of ours has it: a peer behind a host route, say. The route's own source tells by which link.
            None => {
                let local = source_towards(target)?;
                let owner = self.addresses()?.iter().find(|own| own.address == local);
                owner.map(|own| own.interface.clone()).ok_or_else(|| format!("no interface has {local}"))?
            }
        };
        let index = interface_index(&device).map_err(|error| error.to_string())?;
        let interface = NonZeroU32::new(index).ok_or_else(|| format!("interface {device} has no index"))?;
        let path = Path::SingleHop { remote: target.remote, interface };
        Ok(Route { path, device: Some(device), local: target.local })
    }

    fn multi_hop(&self, target: &Target, min_hop_limit: NonZeroU8) -> Result<Route, String> {
        let local = target.local.map_or_else(|| source_towards(target), Ok)?;
        let path = Path::MultiHop { remote: target.remote, local, min_hop_limit };
        Ok(Route { path, device: target.interface.clone(), local: Some(local) })
    }

    /// The interface on whose link the target is: the one given, else that with the longest prefix around it.
    fn on_link(&self, target: &Target) -> Result<Option<String>, String> {
        if target.interface.is_some() {
            return Ok(target.interface.clone());
        }
        let around = self.addresses()?.iter().filter(|own| {
            Prefix::new(own.address, own.length).is_ok_and(|prefix| prefix.contains_address(target.remote))
        });
        // Of two links with one subnet, the one that has our address.
        let best = around.max_by_key(|own| (own.length, Some(own.address) == target.local));
        Ok(best.map(|own| own.interface.clone()))
    }

    fn addresses(&self) -> Result<&[InterfaceAddress], String> {
        match &self.addresses {
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(format!("cannot list interface addresses: {error}")),
        }
    }
}

/// Sent with 255, less one at each router: one fewer than hops (RFC 5883 section 5).
fn least_hop_limit(hops: NonZeroU8) -> NonZeroU8 {
    NonZeroU8::new((256 - u16::from(hops.get())).min(255) as u8).unwrap_or(NonZeroU8::MIN)
}

/// The source address that the kernel's route to the target has. No packet is sent.
fn source_towards(target: &Target) -> Result<IpAddr, String> {
    let any: IpAddr = match target.remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let asked = || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(SocketAddr::new(target.remote, Hops::Multi.port()))?;
        socket.local_addr()
    };
    asked().map(|local| local.ip()).map_err(|error| format!("no route to {}: {error}", target.remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(remote: &str, reach: Reach) -> Target {
        Target { remote: remote.parse().unwrap(), interface: None, local: None, reach }
    }

    fn finder(addresses: &[(&str, &str, u8)]) -> Finder {
        let own = |(interface, address, length): &(&str, &str, u8)| InterfaceAddress {
            interface: (*interface).to_owned(),
            address: address.parse().unwrap(),
            length: *length,
        };
        Finder { addresses: Ok(addresses.iter().map(own).collect()) }
    }

    #[test]
    fn a_peer_is_on_the_link_with_the_longest_prefix_around_it() {
        let finder = finder(&[("wide", "10.0.0.1", 8), ("near", "10.1.0.1", 24), ("six", "fd00::1", 64)]);
        let on = |remote| finder.on_link(&target(remote, Reach::SingleHop)).unwrap();
        assert_eq!(on("10.1.0.254").as_deref(), Some("near"));
        assert_eq!(on("10.2.0.254").as_deref(), Some("wide"));
        assert_eq!(on("fd00::254").as_deref(), Some("six"));
        assert_eq!(on("192.0.2.1"), None);
    }

    #[test]
    fn of_two_links_with_one_subnet_our_address_decides() {
        let finder = finder(&[("a", "10.0.0.1", 24), ("b", "10.0.0.2", 24)]);
        for (local, interface) in [("10.0.0.1", "a"), ("10.0.0.2", "b")] {
            let local = Some(local.parse().unwrap());
            let target = Target { local, ..target("10.0.0.254", Reach::SingleHop) };
            assert_eq!(finder.on_link(&target).unwrap().as_deref(), Some(interface));
        }
    }

    #[test]
    fn hops_bound_the_hop_limit() {
        let least = |hops| least_hop_limit(NonZeroU8::new(hops).unwrap()).get();
        assert_eq!((least(1), least(2), least(255)), (255, 254, 1));
    }

    #[test]
    fn an_internal_peer_on_a_link_of_ours_is_one_hop_away() {
        let local = Some("127.0.0.9".parse().unwrap());
        let here = Target { local, ..target("127.0.0.2", Reach::Either) };
        let path = finder(&[("lo", "127.0.0.1", 8)]).find(&here).unwrap().path;
        assert_eq!(path.hops(), Hops::Single);
        let path = finder(&[]).find(&here).unwrap().path;
        assert_eq!((path.hops(), path.min_hop_limit()), (Hops::Multi, 1));
    }

    #[test]
    fn a_link_local_peer_needs_its_interface() {
        let problem = finder(&[]).find(&target("fe80::1", Reach::SingleHop)).unwrap_err();
        assert!(problem.contains("fe80::1") && problem.contains("interface"), "{problem}");
    }
}
