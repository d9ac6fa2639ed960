//! From a planned peer to what the speaker is told.
mod signing;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use plainroute_bgp::{Prefix, policy::AsPathFilter, session::GracefulRestartConfig, wire::Role};
use plainroute_speaker::{ImportRule, ListenRange, PeerConfig};

pub(crate) use self::signing::secret_names;
use self::signing::{Signing, signing};
use crate::{
    bfd::{self, protocol::SessionSpec},
    plan::{PeerPlan, Remote},
    source::secrets::Passwords,
};

/// The speaker's configuration of a peer, in view of the one in force, and what of the BGPPeer it goes on without for
/// now; `None` where no session can be tried, for the reason in the plan.
pub(crate) fn peer_config(
    plan: &PeerPlan,
    passwords: &Passwords,
    followed: &Arc<BTreeSet<Prefix>>,
    in_force: Option<&PeerConfig>,
) -> Option<(PeerConfig, Option<String>)> {
    let (None, Some(router_id)) = (&plan.refused, plan.router_id) else { return None };
    let spec = &plan.spec;
    let (local_asn, peer_asn) = (*plan.local_asn, *spec.peer_asn);
    let place = match (&plan.remote, &spec.listen_range) {
        (Some(remote), _) => PeerConfig {
            interface: remote.interface.clone(),
            passive: spec.passive,
            ..PeerConfig::new(local_asn, peer_asn, *router_id, remote.address)
        },
        (None, Some(range)) => {
            let range = ListenRange::new(range.cidr.prefix(), range.max_peers.get().into());
            PeerConfig::listening(local_asn, peer_asn, *router_id, range)
        }
        (None, None) => return None,
    };
    let Signing { password, tcp_ao, blocked, lacks } = signing(plan, passwords, in_force);
    let of_egress = u32::try_from(followed.len()).unwrap_or(u32::MAX);
    let restart = &spec.graceful_restart;
    let seconds = |seconds: u16| Duration::from_secs(u64::from(seconds));
    let config = PeerConfig {
        peer_port: spec.peer_port.get(),
        local_address: spec.local_address.map(|address| *address),
        listen_port: spec.listen_port,
        ebgp_multihop: spec.ebgp_multihop.get(),
        ttl_security: spec.ttl_security.map(|security| security.hops.get()),
        password,
        tcp_ao,
        connect_retry: seconds(spec.timers.connect_retry_time_seconds.get()),
        hold_time: *spec.timers.hold_time_seconds,
        keepalive: spec.timers.keep_alive_time_seconds.map(|time| seconds(time.get())),
        // The N bit (RFC 8538) would make the peer keep a dead node's routes: only where BFD watches the path.
        graceful_restart: restart.enabled.then(|| GracefulRestartConfig {
            restart_time: restart.restart_time_seconds.get(),
            notification: spec.bfd.is_some_and(|bfd| bfd.enabled),
            long_lived_stale_time: restart.long_lived_stale_time_seconds.get(),
        }),
        families: spec.families(),
        // A link with link-local addresses may have no IPv4 address, so IPv4 routes need an IPv6 next hop (RFC 8950).
        extended_next_hop: spec.extended_next_hop || plan.remote.as_ref().is_some_and(Remote::is_link_local),
        enhanced_refresh: spec.enhanced_refresh,
        extended_messages: spec.extended_messages,
        role: spec.role.map(Role::from),
        role_required: spec.role_required,
        enforce_first_as: spec.enforces_first_as(),
        add_path_receive: spec.add_path.receive(),
        // What comes back of egress IPs is not what the limit is there for.
        max_prefixes_in: spec.max_prefixes.limit_in().map(|limit| limit.saturating_add(of_egress)),
        followed: Arc::clone(followed),
        max_prefixes_out: spec.max_prefixes.limit_out(),
        import: spec.import.iter().map(import_rule).collect(),
        blocked,
        ..place
    };
    Some((config, lacks))
}

fn import_rule(rule: &plainroute_config::ImportRule) -> ImportRule {
    let lengths = rule.lengths();
    ImportRule {
        prefix: rule.cidr.prefix(),
        ge: Some(*lengths.start()),
        le: Some(*lengths.end()),
        communities: rule.communities.iter().map(|community| **community).collect(),
        large_communities: rule.large_communities.iter().map(|community| **community).collect(),
        as_path: rule.as_path.map(AsPathFilter::from).unwrap_or_default(),
        action: rule.action.into(),
        local_pref: rule.local_preference,
        install: rule.install,
    }
}

/// The BFD session that goes with a peer in force, if there is to be one.
pub(crate) fn bfd_session(plan: &PeerPlan, config: &PeerConfig) -> Option<SessionSpec> {
    let bfd = plan.spec.bfd.as_ref().filter(|bfd| bfd.enabled && config.listen_range.is_none())?;
    Some(bfd::client::session(bfd, config))
}

#[cfg(test)]
mod tests {
    use plainroute_bgp::{AfiSafi, Families};
    use plainroute_config::{Input, Object, PeerTarget, load_inputs};

    use super::*;
    use crate::plan::FoundBy;

    /// What the speaker is told of a BGPPeer with these lines in its spec.
    fn told(lines: &str) -> PeerConfig {
        told_of("192.0.2.1", lines)
    }

    /// The same of one at another address.
    fn told_of(address: &str, lines: &str) -> PeerConfig {
        peer_config(&planned(address, lines), &Passwords::default(), &Arc::default(), None).unwrap().0
    }

    /// What is planned of a BGPPeer at this address with these lines in its spec.
    pub(super) fn planned(address: &str, lines: &str) -> PeerPlan {
        let yaml = format!(
            "apiVersion: plainroute.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{ name: tor }}\n\
             spec:\n  localASN: 64512\n  peerASN: 64600\n  peerAddress: {address}\n{lines}"
        );
        let loaded = load_inputs(&[Input::Stdin(yaml.into())]).unwrap();
        let Object::BgpPeer(peer) = &loaded.objects[0].object else { panic!("a BGPPeer") };
        let PeerTarget::Address(address) = peer.spec.target() else { panic!("an address") };
        let interface = peer.spec.scope().map(str::to_owned);
        PeerPlan {
            name: "tor".to_owned(),
            bgp_peer: "tor".to_owned(),
            remote: Some(Remote { address, interface, found_by: FoundBy::Configuration }),
            local_asn: peer.spec.local_asn,
            router_id: Some("192.0.2.254".parse().map(plainroute_config::Parsed).unwrap()),
            refused: None,
            spec: peer.spec.clone(),
        }
    }

    #[test]
    fn a_link_local_peer_is_offered_ipv6_next_hops_for_ipv4() {
        let link_local = told_of("fe80::1%eth0", "");
        assert!(link_local.extended_next_hop);
        assert_eq!(link_local.interface.as_deref(), Some("eth0"));
        assert!(!told_of("2001:db8::1", "").extended_next_hop);
        assert!(told_of("2001:db8::1", "  extendedNextHop: true\n").extended_next_hop);
    }

    #[test]
    fn a_range_is_told_as_one() {
        let mut plan = planned("192.0.2.1", "  listenPort: 179\n");
        plan.spec.peer_address = None;
        plan.remote = None;
        assert_eq!(
            peer_config(&plan, &Passwords::default(), &Arc::default(), None),
            None,
            "nobody knows where it is"
        );
        let range = serde_json::json!({ "cidr": "192.0.2.0/24", "maxPeers": 3 });
        plan.spec.listen_range = Some(serde_json::from_value(range).unwrap());
        let (told, _) = peer_config(&plan, &Passwords::default(), &Arc::default(), None).unwrap();
        let range = ListenRange::new("192.0.2.0/24".parse().unwrap(), 3);
        assert_eq!((told.listen_range, told.listen_port, told.passive), (Some(range), 179, true));
    }

    #[test]
    fn what_is_left_out_is_the_speakers_default() {
        let (told, default) = (told(""), {
            let asn = |number: u32| number.try_into().unwrap();
            PeerConfig::new(asn(64512), asn(64600), "192.0.2.254".parse().unwrap(), [192, 0, 2, 1].into())
        });
        assert_eq!(
            (told.extended_next_hop, told.enhanced_refresh, told.extended_messages, told.enforce_first_as),
            (
                default.extended_next_hop,
                default.enhanced_refresh,
                default.extended_messages,
                default.enforce_first_as
            )
        );
        assert_eq!(
            (told.role, told.role_required, told.add_path_receive),
            (default.role, default.role_required, default.add_path_receive)
        );
    }

    #[test]
    fn each_field_of_the_session_reaches_the_speaker() {
        let told = told(
            "  role: RouteServerClient\n  roleRequired: true\n  addPath: { receive: [ipv6-unicast] }\n  \
             extendedNextHop: true\n  enhancedRefresh: false\n  extendedMessages: false\n",
        );
        assert_eq!((told.role, told.role_required), (Some(Role::RouteServerClient), true));
        assert_eq!(told.add_path_receive, Families::from_iter([AfiSafi::Ipv6Unicast]));
        assert!(told.extended_next_hop && !told.enhanced_refresh && !told.extended_messages);
        assert!(!told.enforce_first_as, "a route server leaves its AS out of the path (RFC 7947)");
    }

    /// RFC 8538: the N bit keeps a dead node's routes too, so BFD must watch the path.
    #[test]
    fn the_n_bit_is_set_exactly_where_bfd_watches() {
        let n_bit = |lines| told(lines).graceful_restart.map(|restart| restart.notification);
        assert_eq!(n_bit(""), Some(false));
        assert_eq!(n_bit("  bfd: {}\n"), Some(true));
        assert_eq!(n_bit("  bfd: { enabled: false }\n"), Some(false));
        assert_eq!(n_bit("  bfd: {}\n  gracefulRestart: { enabled: false }\n"), None);
    }
}
