//! What we say as next hop: ourselves, as the peer can reach us.
//!
//! For the connection's own family that is its local address. For the other family it is the first global address
//! of the interface that owns the local address; where there is none, the family is not advertised, since the
//! peer would have nothing to forward to.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plainroute_bgp::{AfiSafi, session::Negotiated, wire::NextHop};

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub(crate) interface: String,
    pub(crate) address: IpAddr,
    /// The length of its prefix in bits.
    pub(crate) length: u8,
}

/// The addresses of all interfaces, in the kernel's order.
pub(crate) fn interface_addresses() -> std::io::Result<Vec<InterfaceAddress>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|entry| {
        let address = ip_address(entry.address.as_ref()?)?;
        let length = match entry.netmask.as_ref().and_then(ip_address)? {
            IpAddr::V4(mask) => mask.to_bits().count_ones(),
            IpAddr::V6(mask) => mask.to_bits().count_ones(),
        };
        Some(InterfaceAddress { interface: entry.interface_name, address, length: length as u8 })
    });
    Ok(addresses.collect())
}

fn ip_address(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The interface that owns `local`: by the very address, else by its subnet, as for 127.0.0.2.
pub(crate) fn owner(local: IpAddr, addresses: &[InterfaceAddress]) -> Option<&str> {
    let subnet = |candidate: &&InterfaceAddress| {
        plainroute_bgp::Prefix::new(candidate.address, candidate.length)
            .is_ok_and(|prefix| prefix.contains_address(local))
    };
    let exact = addresses.iter().find(|candidate| candidate.address == local);
    exact.or_else(|| addresses.iter().find(subnet)).map(|found| found.interface.as_str())
}

/// Ourselves as the next hop of a family on a connection whose local address is `local`; the error is why not.
pub(crate) fn next_hop_self(
    family: AfiSafi,
    local: IpAddr,
    negotiated: &Negotiated,
    addresses: &[InterfaceAddress],
) -> Result<NextHop, String> {
    let interface = owner(local, addresses);
    let on_interface =
        || addresses.iter().filter(|candidate| Some(candidate.interface.as_str()) == interface);
    let global_v6 = || {
        on_interface().find_map(|candidate| match candidate.address {
            IpAddr::V6(address) if is_global_v6(address) => Some(address),
            _ => None,
        })
    };
    let name = interface.unwrap_or("no interface");
    match (family, local) {
        (AfiSafi::Ipv4Unicast, IpAddr::V4(local)) => Ok(NextHop::V4(local)),
        (AfiSafi::Ipv6Unicast, IpAddr::V6(local)) => Ok(v6_next_hop(local, global_v6())),
        (AfiSafi::Ipv6Unicast, IpAddr::V4(_)) => global_v6()
            .map(|global| NextHop::V6 { global, link_local: None })
            .ok_or_else(|| format!("no global IPv6 address beside {local} ({name}) to be the next hop")),
        // RFC 8950: the peer forwards IPv4 to an IPv6 next hop, so no IPv4 address is needed.
        (AfiSafi::Ipv4Unicast, IpAddr::V6(local)) if negotiated.context.ipv4_over_ipv6 => {
            Ok(v6_next_hop(local, global_v6()))
        }
        (AfiSafi::Ipv4Unicast, IpAddr::V6(_)) => on_interface()
            .find_map(|candidate| match candidate.address {
                IpAddr::V4(address) if is_global_v4(address) => Some(NextHop::V4(address)),
                _ => None,
            })
            .ok_or_else(|| format!("no IPv4 address beside {local} ({name}) to be the next hop")),
    }
}

/// RFC 2545 section 3: the link-local address beside the global one, where the session runs over the former.
fn v6_next_hop(local: Ipv6Addr, global: Option<Ipv6Addr>) -> NextHop {
    match global {
        _ if !local.is_unicast_link_local() => NextHop::V6 { global: local, link_local: None },
        Some(global) => NextHop::V6 { global, link_local: Some(local) },
        None => NextHop::V6 { global: local, link_local: None },
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    !(address.is_loopback() || address.is_link_local() || address.is_unspecified())
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    !(address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use plainroute_bgp::{
        Asn, Families, HoldTime, RouterId,
        wire::{CodecContext, Open},
    };

    use super::*;

    fn addresses() -> Vec<InterfaceAddress> {
        [
            ("lo", "127.0.0.1", 8),
            ("lo", "::1", 128),
            ("eth0", "172.16.0.1", 24),
            ("eth0", "fe80::1", 64),
            ("eth0", "2001:db8::1", 64),
            ("eth1", "fe80::1:1", 64),
        ]
        .map(|(interface, address, length)| InterfaceAddress {
            interface: interface.into(),
            address: address.parse().unwrap(),
            length,
        })
        .to_vec()
    }

    fn negotiated(ipv4_over_ipv6: bool) -> Negotiated {
        let open = Open {
            asn: Asn::new(1).unwrap(),
            hold_time: HoldTime::DEFAULT,
            router_id: RouterId::new(1).unwrap(),
            capabilities: Vec::new(),
        };
        Negotiated {
            families: Families::ALL,
            context: CodecContext { ipv4_over_ipv6, ..CodecContext::default() },
            hold_time: HoldTime::DEFAULT,
            keepalive: None,
            graceful_restart: None,
            long_lived: Vec::new(),
            route_refresh: true,
            role: None,
            longest_received: 4096,
            peer_open: open.clone(),
            peer_open_octets: Default::default(),
            local_open: open,
        }
    }

    fn next_hop(family: AfiSafi, local: &str, extended: bool) -> Result<NextHop, String> {
        next_hop_self(family, local.parse().unwrap(), &negotiated(extended), &addresses())
    }

    fn v6(global: &str, link_local: Option<&str>) -> NextHop {
        NextHop::V6 {
            global: global.parse().unwrap(),
            link_local: link_local.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn the_own_family_takes_the_local_address_and_the_other_the_interface_s() {
        use AfiSafi::{Ipv4Unicast, Ipv6Unicast};
        assert_eq!(
            next_hop(Ipv4Unicast, "172.16.0.1", false),
            Ok(NextHop::V4("172.16.0.1".parse().unwrap()))
        );
        assert_eq!(next_hop(Ipv6Unicast, "172.16.0.1", false), Ok(v6("2001:db8::1", None)));
        assert_eq!(
            next_hop(Ipv4Unicast, "2001:db8::1", false),
            Ok(NextHop::V4("172.16.0.1".parse().unwrap()))
        );
    }

    #[test]
    fn a_link_local_session_says_both_addresses() {
        use AfiSafi::Ipv6Unicast;
        assert_eq!(next_hop(Ipv6Unicast, "fe80::1", false), Ok(v6("2001:db8::1", Some("fe80::1"))));
        assert_eq!(next_hop(Ipv6Unicast, "fe80::1:1", false), Ok(v6("fe80::1:1", None)));
    }

    #[test]
    fn without_an_address_there_is_a_reason() {
        use AfiSafi::{Ipv4Unicast, Ipv6Unicast};
        assert!(next_hop(Ipv6Unicast, "127.0.0.2", false).unwrap_err().contains("lo"));
        assert!(next_hop(Ipv4Unicast, "fe80::1:1", false).unwrap_err().contains("eth1"));
        // RFC 8950 does without.
        assert_eq!(next_hop(Ipv4Unicast, "fe80::1:1", true), Ok(v6("fe80::1:1", None)));
    }
}
