//! The result of ADD, in the form of each version of the specification, and such that `ptp` can make use of it.
//!
//! A Pod has its address for itself and reaches everything by the node, so the address has the length of a host and the gateway
//! is link-local. That suffices for IPv6. For IPv4 `ptp` wants the gateway within the address's network: it gives the address to
//! the interface, sets our routes, *takes away* the route to that network, and only then sets one to the gateway and one to the
//! network by the gateway. With a length of 0 the network is everything, so what it sets at last is the default route by the
//! gateway and nothing else. The route to be taken away is made by ours, without a gateway: the kernel makes none for a length of 0.
//! A gateway that is not link-local lies in a network that Pods share with it; the shortest such network that both the address and the
//! gateway are in is the length then.
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::{
    error::{Error, code},
    network::Gateways,
    version::Version,
};

/// What the plugin prints after an ADD.
pub fn document(version: Version, addresses: &[IpAddr], gateways: &Gateways) -> Result<Value, Error> {
    let mut ips = Vec::new();
    let mut routes = Vec::new();
    for (place, address) in addresses.iter().enumerate() {
        if addresses[..place].iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            let message = format!("the agent gave two addresses of a family: {addresses:?}");
            return Err(Error::new(code::DECODE, message));
        }
        let gateway = gateways.of(*address);
        if gateway == *address {
            let message =
                format!("the agent gave {address}, which is the gateway of the network configuration");
            return Err(Error::new(code::INVALID_CONFIG, message)
                .with("take it out of its IPPool (`spec.excluded`), or leave `ipam.gateway` out"));
        }
        let mut ip =
            json!({ "address": format!("{address}/{}", length(*address, gateway)), "gateway": gateway });
        if version < Version::V1_0_0 {
            ip["version"] = if address.is_ipv4() { "4" } else { "6" }.into();
        }
        ips.push(ip);
        routes.push(match (address, is_link_local(gateway)) {
            (IpAddr::V4(_), true) => json!({ "dst": "0.0.0.0/0", "gw": "0.0.0.0" }),
            (IpAddr::V4(_), false) => json!({ "dst": "0.0.0.0/0", "gw": gateway }),
            (IpAddr::V6(_), _) => json!({ "dst": "::/0", "gw": gateway }),
        });
    }
    if ips.is_empty() {
        return Err(Error::new(code::DECODE, "the agent gave no address and no reason"));
    }
    Ok(json!({ "cniVersion": version.text(), "ips": ips, "routes": routes }))
}

/// The length of the network that the interface is told to be in.
fn length(address: IpAddr, gateway: IpAddr) -> u32 {
    match (address, gateway) {
        (IpAddr::V4(_), gateway) if is_link_local(gateway) => 0,
        (IpAddr::V6(_), gateway) if is_link_local(gateway) => 128,
        (IpAddr::V4(address), IpAddr::V4(gateway)) => (address.to_bits() ^ gateway.to_bits()).leading_zeros(),
        (IpAddr::V6(address), IpAddr::V6(gateway)) => (address.to_bits() ^ gateway.to_bits()).leading_zeros(),
        // A gateway is of its address's family.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_version_has_its_form() {
        let both = addresses(&["10.20.0.5", "fd00:20::5"]);
        let routes = json!([{ "dst": "0.0.0.0/0", "gw": "0.0.0.0" }, { "dst": "::/0", "gw": "fe80::1" }]);
        for version in Version::ALL {
            let mut ips = json!([{ "address": "10.20.0.5/0", "gateway": "169.254.1.1" },
                                 { "address": "fd00:20::5/128", "gateway": "fe80::1" }]);
            if version < Version::V1_0_0 {
                (ips[0]["version"], ips[1]["version"]) = ("4".into(), "6".into());
            }
            let expected = json!({ "cniVersion": version.text(), "ips": ips, "routes": routes });
            assert_eq!(document(version, &both, &Gateways::default()).unwrap(), expected);
        }
    }

    #[test]
    fn what_the_agent_may_not_give_is_refused() {
        for wrong in [vec![], addresses(&["10.20.0.5", "10.20.0.6"]), addresses(&["169.254.1.1"])] {
            assert!(document(Version::NEWEST, &wrong, &Gateways::default()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_network_is_the_smallest_that_holds_the_gateway_too() {
        for (address, gateway, expected) in [
            ("10.20.0.5", "10.20.0.1", 29),
            ("10.20.0.5", "10.20.0.4", 31),
            ("10.20.0.5", "10.20.255.254", 16),
            ("192.168.0.5", "169.254.1.1", 0),
            ("fd00:20::5", "fd00:20::1", 125),
            ("fd00:20::5", "fe80::1", 128),
        ] {
            assert_eq!(length(address.parse().unwrap(), gateway.parse().unwrap()), expected, "{address}");
        }
    }
}
