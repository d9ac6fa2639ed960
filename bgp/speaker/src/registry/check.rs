//! Which sets of peers no speaker could run.
use std::collections::BTreeMap;

use plainroute_bgp::Prefix;

use crate::{ApplyError, PeerConfig, PeerName};

type Wanted = BTreeMap<PeerName, PeerConfig>;

/// Refuses a peer that makes no sense, and two that could not be told apart.
pub(super) fn check(peers: &Wanted) -> Result<(), ApplyError> {
    let (mut sources, mut ranges) = (BTreeMap::new(), BTreeMap::new());
    for (name, config) in peers {
        config.check(name)?;
        if let Some(range) = config.listen_range {
            if let Some(first) = ranges.insert(range.prefix, name) {
                let (first, second) = (PeerName::clone(first), name.clone());
                return Err(ApplyError::SameRange { first, second, range: range.prefix });
            }
            continue;
        }
        let source = config.source();
        if let Some(first) = sources.insert(source.clone(), name) {
            let (first, second) = (PeerName::clone(first), name.clone());
            return Err(ApplyError::SameAddress { first, second, address: source.to_string() });
        }
    }
    peers.iter().try_for_each(|(name, config)| check_signed_alike(name, config, peers))
}

/// The kernel holds whatever comes from within a range to the range's password, unless there is a password for less than
/// the range: one who has none, or TCP-AO in its place, would never get in.
fn check_signed_alike(name: &PeerName, config: &PeerConfig, peers: &Wanted) -> Result<(), ApplyError> {
    let place = place(config);
    let holds = |(other, range): &(&PeerName, &PeerConfig)| {
        let prefix = range.listen_range.map(|range| range.prefix);
        *other != name
            && range.password.is_some()
            && range.listen_port == config.listen_port
            && prefix.is_some_and(|prefix| prefix.contains(place))
    };
    // One that is kept down asks nothing of the kernel, and has no password for as long as that cannot be had.
    if config.listen_port == 0 || config.password.is_some() || config.blocked.is_some() {
        return Ok(());
    }
    let Some((other, _)) = peers.iter().find(holds) else { return Ok(()) };
    Err(ApplyError::Peer {
        peer: name.clone(),
        reason: format!(
            "{place} lies within the listenRange of peer {other}, which has a password, on the same port; it needs one \
             of its own"
        ),
    })
}

fn place(config: &PeerConfig) -> Prefix {
    config.listen_range.map_or_else(|| Prefix::host(config.peer_address), |range| range.prefix)
}

#[cfg(test)]
mod tests {
    use plainroute_bgp::{Asn, RouterId};

    use super::*;
    use crate::{ListenRange, Password};

    fn asn(number: u32) -> Asn {
        Asn::new(number).unwrap()
    }

    fn range(text: &str) -> PeerConfig {
        let range = ListenRange::new(text.parse().unwrap(), 2);
        let router_id = RouterId::new(1).unwrap();
        PeerConfig { listen_port: 179, ..PeerConfig::listening(asn(64512), asn(64600), router_id, range) }
    }

    fn one(address: &str) -> PeerConfig {
        let router_id = RouterId::new(1).unwrap();
        let config = PeerConfig::new(asn(64512), asn(64600), router_id, address.parse().unwrap());
        PeerConfig { listen_port: 179, ..config }
    }

    fn signed(config: PeerConfig) -> PeerConfig {
        PeerConfig { password: Some(Password::new(b"s3cret").unwrap()), ..config }
    }

    fn verdict(peers: &[PeerConfig]) -> Result<(), String> {
        let name = |number: usize| PeerName::from(format!("peer-{number}"));
        let peers = peers.iter().cloned().enumerate().map(|(number, config)| (name(number), config));
        check(&peers.collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn ranges_may_overlap_but_not_be_the_same() {
        assert_eq!(verdict(&[range("10.0.0.0/8"), range("10.1.0.0/16"), one("10.1.0.1")]), Ok(()));
        let same = verdict(&[range("10.0.0.0/8"), range("10.0.0.0/8")]).unwrap_err();
        assert_eq!(same, "peers peer-0 and peer-1 have the same range 10.0.0.0/8");
    }

    #[test]
    fn who_lies_within_a_signed_range_needs_a_password() {
        for inner in [one("10.1.0.1"), range("10.1.0.0/16")] {
            let outer = signed(range("10.0.0.0/8"));
            let refused = verdict(&[outer.clone(), inner.clone()]).unwrap_err();
            assert!(refused.contains("lies within the listenRange of peer peer-0"), "{refused}");
            assert_eq!(verdict(&[outer.clone(), signed(inner.clone())]), Ok(()));
            assert_eq!(verdict(&[range("10.0.0.0/8"), signed(inner.clone())]), Ok(()));
            let elsewhere = PeerConfig { listen_port: 1790, ..inner };
            assert_eq!(verdict(&[outer, elsewhere]), Ok(()));
        }
    }

    #[test]
    fn a_range_is_nothing_else_besides() {
        let refused = |config| verdict(&[config]).unwrap_err();
        let port = PeerConfig { listen_port: 0, passive: false, ..range("10.0.0.0/8") };
        assert!(refused(port.clone()).contains("needs a listenPort"));
        assert_eq!(verdict(&[PeerConfig { blocked: Some("port".into()), ..port }]), Ok(()));
        let addressed = PeerConfig { peer_address: [10, 0, 0, 1].into(), ..range("10.0.0.0/8") };
        assert!(refused(addressed).contains("exclude each other"));
        assert!(refused(range("fe80::/64")).contains("link-local"));
        let none = ListenRange::new("10.0.0.0/8".parse().unwrap(), 0);
        let none = PeerConfig { listen_range: Some(none), ..range("10.0.0.0/8") };
        assert!(refused(none).contains("at least one peer"));
    }
}
