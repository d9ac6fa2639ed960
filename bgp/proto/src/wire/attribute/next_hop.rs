//! Next hops: the forms that the wire has, and those that no packet can be sent to.
use std::net::{Ipv4Addr, Ipv6Addr};

use super::NextHop;

/// fe80::/10
fn is_link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}

impl NextHop {
    /// The next hop field of MP_REACH_NLRI: 4, 16 or 32 octets (RFC 2545 section 3, RFC 8950 section 3). Some
    /// routers send `::` before a link-local address that stands alone, or put it in both places.
    pub(super) fn from_octets(octets: &[u8]) -> Option<NextHop> {
        if let Ok(octets) = <[u8; 4]>::try_from(octets) {
            return Some(NextHop::V4(Ipv4Addr::from(octets)));
        }
        if let Ok(octets) = <[u8; 16]>::try_from(octets) {
            return Some(NextHop::V6 { global: Ipv6Addr::from(octets), link_local: None });
        }
        let (&[first, second], []) = octets.as_chunks::<16>() else { return None };
        let (global, second) = (Ipv6Addr::from(first), Ipv6Addr::from(second));
        let link_local = Some(second).filter(|second| is_link_local(*second));
        Some(match link_local {
            Some(second) if global.is_unspecified() || global == second => {
                NextHop::V6 { global: second, link_local: None }
            }
            _ => NextHop::V6 { global, link_local },
        })
    }

    /// Whether no packet can be sent there, so that the route is useless (RFC 4271 section 6.3): "this network",
    /// loopback, multicast, broadcast, IPv4-mapped. 240.0.0.0/4 is left alone: Linux forwards it and some
    /// networks use it.
    pub fn is_martian(&self) -> bool {
        match self {
            NextHop::V4(address) => {
                address.octets().first() == Some(&0)
                    || address.is_loopback()
                    || address.is_multicast()
                    || address.is_broadcast()
            }
            NextHop::V6 { global, .. } => {
                global.is_unspecified()
                    || global.is_loopback()
                    || global.is_multicast()
                    || global.to_ipv4_mapped().is_some()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn pair(first: &str, second: &str) -> Option<NextHop> {
        NextHop::from_octets(&[v6(first).octets(), v6(second).octets()].concat())
    }

    #[test]
    fn a_lone_link_local_address_has_one_form() {
        let lone = Some(NextHop::V6 { global: v6("fe80::1"), link_local: None });
        assert_eq!(pair("::", "fe80::1"), lone);
        assert_eq!(pair("fe80::1", "fe80::1"), lone);
        assert_eq!(NextHop::from_octets(&v6("fe80::1").octets()), lone);
    }

    #[test]
    fn the_second_address_counts_only_when_it_is_link_local() {
        let global = v6("2001:db8::1");
        assert_eq!(
            pair("2001:db8::1", "fe80::1"),
            Some(NextHop::V6 { global, link_local: Some(v6("fe80::1")) })
        );
        assert_eq!(pair("2001:db8::1", "2001:db8::2"), Some(NextHop::V6 { global, link_local: None }));
        for length in [0, 3, 8, 12, 17, 24, 31, 33, 48] {
            assert_eq!(NextHop::from_octets(&vec![1; length]), None, "{length}");
        }
    }

    #[test]
    fn martians_are_told() {
        let v4 = |text: &str| NextHop::V4(text.parse().unwrap()).is_martian();
        for text in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            assert!(v4(text), "{text}");
        }
        assert!(!v4("10.0.0.1") && !v4("240.0.0.1") && !v4("169.254.0.1"));
        let six = |text: &str| NextHop::V6 { global: v6(text), link_local: None }.is_martian();
        for text in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
            assert!(six(text), "{text}");
        }
        assert!(!six("2001:db8::1") && !six("fe80::1"));
    }
}
