//! What a change of a peer's configuration costs: nothing, a soft refresh, or the session.
//!
//! One table decides for every field. It destructures [`PeerConfig`] whole, so a new field does not compile until
//! it has a line here. The registry reports by it and the peer task acts by it.
use std::{fmt, net::Ipv4Addr};

use plainroute_bgp::{Asn, RouterId};

use crate::{PeerConfig, PeerName, TcpAoKeys};

/// A field of [`PeerConfig`], by its name in configuration files.
pub type Field = &'static str;

/// What [`crate::Speaker::apply`] did to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerChange {
    /// The peer.
    pub peer: PeerName,
    /// What was done to it.
    pub effect: Effect,
}

/// What a change did to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The peer is new.
    Added,
    /// The peer is gone; its session was ceased.
    Removed,
    /// The session is built anew.
    Reset {
        /// The fields that differ.
        fields: Vec<Field>,
    },
    /// The session stays; routes are asked for or sent again.
    Refreshed {
        /// The fields that differ.
        fields: Vec<Field>,
    },
    /// The session stays and nothing is sent.
    Silent {
        /// The fields that differ.
        fields: Vec<Field>,
    },
    /// Nothing differs.
    Unchanged,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, fields) = match self {
            Effect::Added => return f.write_str("added"),
            Effect::Removed => return f.write_str("removed"),
            Effect::Unchanged => return f.write_str("unchanged"),
            Effect::Reset { fields } => ("reset", fields),
            Effect::Refreshed { fields } => ("refreshed", fields),
            Effect::Silent { fields } => ("changed", fields),
        };
        write!(f, "{verb} ({})", fields.join(", "))
    }
}

/// What the change of one field costs, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// The session stays and nothing is sent.
    Silent,
    /// The session stays; routes are asked for or sent again.
    Refresh,
    /// The session is built anew.
    Reset,
}

/// What a change of each field of [`PeerConfig`] costs: the table that decides, for people to read.
pub fn change_costs() -> Vec<(Field, Cost)> {
    // Any peer will do, as the costs do not depend on it.
    let router_id = RouterId::new(1).expect("1 is not 0");
    let any = PeerConfig::new(Asn::TRANS, Asn::TRANS, router_id, Ipv4Addr::LOCALHOST.into());
    table(&any, &any).into_iter().map(|(field, cost, _)| (field, cost)).collect()
}

/// Fields whose change leaves both routers what they are to each other: the AS, the identity and the addresses stay.
const HITLESS: [Field; 11] = [
    "holdTimeSeconds",
    "gracefulRestart",
    "families",
    "extendedNextHop",
    "enhancedRefresh",
    "extendedMessages",
    "addPath.receive",
    "ebgpMultihop",
    "ttlSecurity",
    "password",
    "tcpAO",
];

/// Whether forwarding may go on while the session is built anew for `fields`: then the reset is a graceful restart
/// of ours (RFC 4724) where the peer takes part in it.
pub(crate) fn keeps_forwarding(fields: &[Field]) -> bool {
    let costs = change_costs();
    let resets = |field| costs.iter().any(|(name, cost)| name == field && *cost == Cost::Reset);
    fields.iter().all(|field| !resets(field) || HITLESS.contains(field))
}

/// What becomes of the session when `old` turns into `new`.
pub(crate) fn compare(old: &PeerConfig, new: &PeerConfig) -> Effect {
    let table = table(old, new);
    let changed = || table.iter().filter(|(_, _, changed)| *changed);
    let fields = changed().map(|(field, _, _)| *field).collect();
    match changed().map(|(_, cost, _)| *cost).max() {
        None => Effect::Unchanged,
        Some(Cost::Silent) => Effect::Silent { fields },
        Some(Cost::Refresh) => Effect::Refreshed { fields },
        Some(Cost::Reset) => Effect::Reset { fields },
    }
}

/// Every field, its cost, and whether it differs.
fn table(old: &PeerConfig, new: &PeerConfig) -> [(Field, Cost, bool); 34] {
    use Cost::{Refresh, Reset, Silent};
    let PeerConfig {
        local_asn,
        peer_asn,
        peer_address,
        listen_range,
        interface,
        peer_port,
        local_address,
        router_id,
        listen_port,
        passive,
        ebgp_multihop,
        ttl_security,
        password,
        tcp_ao,
        connect_retry,
        hold_time,
        keepalive,
        graceful_restart,
        families,
        extended_next_hop,
        enhanced_refresh,
        extended_messages,
        role,
        role_required,
        enforce_first_as,
        add_path_receive,
        refresh_limit,
        send_hold,
        max_prefixes_in,
        max_prefixes_out,
        import,
        followed,
        blocked,
    } = new;
    [
        // Said in the OPEN, so both sides must say it again.
        ("localASN", Reset, *local_asn != old.local_asn),
        ("peerASN", Reset, *peer_asn != old.peer_asn),
        ("routerID", Reset, *router_id != old.router_id),
        ("holdTimeSeconds", Reset, *hold_time != old.hold_time),
        ("gracefulRestart", Reset, *graceful_restart != old.graceful_restart),
        ("families", Reset, *families != old.families),
        ("extendedNextHop", Reset, *extended_next_hop != old.extended_next_hop),
        ("enhancedRefresh", Reset, *enhanced_refresh != old.enhanced_refresh),
        ("extendedMessages", Reset, *extended_messages != old.extended_messages),
        ("role", Reset, *role != old.role),
        ("roleRequired", Reset, *role_required != old.role_required),
        ("addPath.receive", Reset, *add_path_receive != old.add_path_receive),
        // Another TCP connection.
        ("peerAddress", Reset, *peer_address != old.peer_address),
        ("interface", Reset, *interface != old.interface),
        ("localAddress", Reset, *local_address != old.local_address),
        ("ebgpMultihop", Reset, *ebgp_multihop != old.ebgp_multihop),
        ("ttlSecurity", Reset, *ttl_security != old.ttl_security),
        ("password", Reset, *password != old.password),
        ("tcpAO", Reset, !rolls(old.tcp_ao.as_ref(), tcp_ao.as_ref())),
        ("blocked", Reset, *blocked != old.blocked),
        // Those whom it no longer takes in are ceased one by one; the others see nothing.
        ("listenRange", Silent, *listen_range != old.listen_range),
        // Only the next connection cares.
        ("peerPort", Silent, *peer_port != old.peer_port),
        ("listenPort", Silent, *listen_port != old.listen_port),
        ("passive", Silent, *passive != old.passive),
        ("connectRetryTimeSeconds", Silent, *connect_retry != old.connect_retry),
        // Keys come and go under a session, as long as there is one throughout that both sides know.
        ("tcpAO.keys", Silent, old.tcp_ao.is_some() && tcp_ao.is_some() && *tcp_ao != old.tcp_ao),
        // A timer of our own.
        ("keepAliveTimeSeconds", Silent, *keepalive != old.keepalive),
        ("maxPrefixes.in", Silent, *max_prefixes_in != old.max_prefixes_in),
        ("refreshLimit", Silent, *refresh_limit != old.refresh_limit),
        ("sendHold", Silent, *send_hold != old.send_hold),
        ("maxPrefixes.out", Refresh, *max_prefixes_out != old.max_prefixes_out),
        ("import", Refresh, *import != old.import),
        // Not of the BGPPeer: the egress IPs of all Egresses.
        ("egressIPs", Refresh, *followed != old.followed),
        ("enforceFirstAS", Refresh, *enforce_first_as != old.enforce_first_as),
    ]
}

/// Whether the session goes on under the new keys: one that is signed otherwise, or not at all, is another session.
fn rolls(old: Option<&TcpAoKeys>, new: Option<&TcpAoKeys>) -> bool {
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => old.can_roll_to(new),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plainroute_bgp::{
        AfiSafi, Asn, Families, HoldTime, RouterId, session::GracefulRestartConfig, wire::Role,
    };

    use super::*;

    #[test]
    fn only_what_leaves_the_two_routers_the_same_keeps_forwarding() {
        let costs = change_costs();
        for field in HITLESS {
            assert!(costs.contains(&(field, Cost::Reset)), "{field}");
        }
        assert!(keeps_forwarding(&["holdTimeSeconds", "import"]));
        for field in
            ["localASN", "peerASN", "routerID", "peerAddress", "interface", "localAddress", "blocked"]
        {
            assert!(!keeps_forwarding(&["holdTimeSeconds", field]), "{field}");
        }
    }
    use crate::{ImportRule, Password, TcpAoAlgorithm, TcpAoKey};

    type Edit = fn(&mut PeerConfig);

    #[test]
    fn each_field_costs_what_the_table_says() {
        let old = PeerConfig::new(
            Asn::new(1).unwrap(),
            Asn::new(2).unwrap(),
            RouterId::new(1).unwrap(),
            "192.0.2.1".parse().unwrap(),
        );
        let reset: [(Field, Edit); 20] = [
            ("localASN", |c| c.local_asn = Asn::new(3).unwrap()),
            ("peerASN", |c| c.peer_asn = Asn::new(3).unwrap()),
            ("routerID", |c| c.router_id = RouterId::new(3).unwrap()),
            ("holdTimeSeconds", |c| c.hold_time = HoldTime::NONE),
            ("gracefulRestart", |c| {
                c.graceful_restart = Some(GracefulRestartConfig {
                    restart_time: 1,
                    notification: false,
                    long_lived_stale_time: 0,
                });
            }),
            ("families", |c| c.families = Families::from_iter([AfiSafi::Ipv4Unicast])),
            ("extendedNextHop", |c| c.extended_next_hop = true),
            ("enhancedRefresh", |c| c.enhanced_refresh = false),
            ("extendedMessages", |c| c.extended_messages = false),
            ("role", |c| c.role = Some(Role::Peer)),
            ("roleRequired", |c| c.role_required = true),
            ("addPath.receive", |c| c.add_path_receive = Families::ALL),
            ("peerAddress", |c| c.peer_address = "192.0.2.2".parse().unwrap()),
            ("interface", |c| c.interface = Some("eth0".into())),
            ("localAddress", |c| c.local_address = Some("192.0.2.3".parse().unwrap())),
            ("ebgpMultihop", |c| c.ebgp_multihop = 2),
            ("ttlSecurity", |c| c.ttl_security = Some(1)),
            ("password", |c| c.password = Some(Password::new(b"x").unwrap())),
            ("tcpAO", |c| c.tcp_ao = keys(&[1])),
            ("blocked", |c| c.blocked = Some("x".into())),
        ];
        let refreshed: [(Field, Edit); 4] = [
            ("maxPrefixes.out", |c| c.max_prefixes_out = Some(1)),
            ("enforceFirstAS", |c| c.enforce_first_as = false),
            ("import", |c| {
                let prefix = "0.0.0.0/0".parse().unwrap();
                c.import = vec![ImportRule::new(prefix)];
            }),
            ("egressIPs", |c| {
                c.followed = std::sync::Arc::new(["198.51.100.7/32".parse().unwrap()].into());
            }),
        ];
        let silent: [(Field, Edit); 9] = [
            ("listenRange", |c| {
                c.listen_range = Some(crate::ListenRange::new("10.0.0.0/8".parse().unwrap(), 1));
            }),
            ("peerPort", |c| c.peer_port = 1),
            ("listenPort", |c| c.listen_port = 1),
            ("passive", |c| c.passive = true),
            ("connectRetryTimeSeconds", |c| c.connect_retry = Duration::from_secs(9)),
            ("keepAliveTimeSeconds", |c| c.keepalive = Some(Duration::from_secs(9))),
            ("refreshLimit", |c| c.refresh_limit = Duration::from_secs(9)),
            ("sendHold", |c| c.send_hold = Some(Duration::from_secs(9))),
            ("maxPrefixes.in", |c| c.max_prefixes_in = Some(1)),
        ];
        let effect = |edit: Edit| {
            let mut new = old.clone();
            edit(&mut new);
            compare(&old, &new)
        };
        for (field, edit) in reset {
            assert_eq!(effect(edit), Effect::Reset { fields: vec![field] });
        }
        for (field, edit) in refreshed {
            assert_eq!(effect(edit), Effect::Refreshed { fields: vec![field] });
        }
        for (field, edit) in silent {
            assert_eq!(effect(edit), Effect::Silent { fields: vec![field] });
        }
        assert_eq!(compare(&old, &old.clone()), Effect::Unchanged);
    }

    fn keys(ids: &[u8]) -> Option<TcpAoKeys> {
        let secret = Password::new(b"x").unwrap();
        let key = |id: &u8| TcpAoKey {
            send_id: *id,
            receive_id: *id,
            algorithm: TcpAoAlgorithm::HmacSha1,
            secret: secret.clone(),
        };
        Some(TcpAoKeys::new(ids.iter().map(key).collect()).unwrap())
    }

    #[test]
    fn tcp_ao_keys_roll_and_ways_of_signing_do_not() {
        let of = |tcp_ao, password: Option<&[u8]>| PeerConfig {
            tcp_ao,
            password: password.map(|octets| Password::new(octets).unwrap()),
            ..PeerConfig::new(
                Asn::new(1).unwrap(),
                Asn::new(2).unwrap(),
                RouterId::new(1).unwrap(),
                "192.0.2.1".parse().unwrap(),
            )
        };
        let silent = Effect::Silent { fields: vec!["tcpAO.keys"] };
        for (old, new) in [(&[1][..], &[2, 1][..]), (&[2, 1], &[1, 2]), (&[2, 1], &[2]), (&[1], &[2])] {
            assert_eq!(compare(&of(keys(old), None), &of(keys(new), None)), silent, "{old:?} to {new:?}");
        }
        let reset = |fields: &[Field]| Effect::Reset { fields: fields.to_vec() };
        let (none, md5, tcp_ao) = (of(None, None), of(None, Some(b"x")), of(keys(&[1]), None));
        assert_eq!(compare(&none, &tcp_ao), reset(&["tcpAO"]));
        assert_eq!(compare(&tcp_ao, &none), reset(&["tcpAO"]));
        assert_eq!(compare(&md5, &tcp_ao), reset(&["password", "tcpAO"]));
        assert_eq!(compare(&tcp_ao, &md5), reset(&["password", "tcpAO"]));
        // The same IDs with another secret: the kernel cannot hold both, so there is no key throughout.
        let secret = Password::new(b"y").unwrap();
        let changed = keys(&[1])
            .unwrap()
            .iter()
            .map(|key| TcpAoKey { secret: secret.clone(), ..key.clone() })
            .collect();
        let changed = of(Some(TcpAoKeys::new(changed).unwrap()), None);
        assert_eq!(compare(&tcp_ao, &changed), reset(&["tcpAO", "tcpAO.keys"]));
    }

    #[test]
    fn the_dearest_field_decides_and_all_are_named() {
        let old = PeerConfig::new(
            Asn::new(1).unwrap(),
            Asn::new(2).unwrap(),
            RouterId::new(1).unwrap(),
            "192.0.2.1".parse().unwrap(),
        );
        let new = PeerConfig { passive: true, hold_time: HoldTime::NONE, ..old.clone() };
        assert_eq!(compare(&old, &new), Effect::Reset { fields: vec!["holdTimeSeconds", "passive"] });
    }
}
