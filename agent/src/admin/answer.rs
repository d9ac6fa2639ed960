//! From the agent's state to what is answered. Pure.
use std::{net::SocketAddr, time::SystemTime};

use plainroute_bgp::{
    AfiSafi, Families, Prefix,
    session::Negotiated,
    wire::{AsPath, NextHop, PathAttributes, Role, SegmentKind},
};
use plainroute_config::ObjectKey;
use plainroute_speaker::{
    AdvertisedRoute, Authentication, Listening, Md5Failures, PeerName, PeerStatus, ReceivedRoute,
    StationStatus, TcpAoFailures, TcpAoState,
};

use super::{
    Published,
    view::{
        AuthenticationView, DrainView, FamilyView, Health, HeldView, KernelRouteView, Md5FailuresView,
        NegotiatedRestartView, NegotiatedView, PeerView, PodView, PoolsCheck, RangeView, RouteView,
        StationView, TcpAoFailuresView,
    },
};
use crate::{
    bfd::protocol::BfdPath,
    drain::{AskedBy, DrainState},
    fib::{RouteKey, RuleAction, Target},
    index::Held,
    ipam::{Disagreement, Findings},
    plan::{AddressPlan, BlockPlan, Delivery, EgressPlan, FoundBy, PeerPlan, PodPlan},
};

pub(super) fn peer(state: &Published, name: &PeerName, status: &PeerStatus) -> PeerView {
    // A range has no routes of its own.
    let families = status.families.iter().filter(|_| status.listening.is_none()).map(|(family, counts)| {
        let view = FamilyView {
            negotiated: counts.negotiated,
            originated: counts.originated,
            advertised: counts.advertised,
            accepted: counts.accepted,
            stale: counts.stale,
            rejected: counts.rejected,
            not_advertised: counts.not_advertised.clone(),
        };
        (family.name().to_owned(), view)
    });
    let negotiated = status.negotiated.as_deref();
    let (last_error, last_error_time) = status.last_error.clone().unzip();
    let planned = state.plan.peers.iter().find(|peer| peer.name == name.as_str());
    PeerView {
        name: name.to_string(),
        address: status.peer_address,
        interface: status.interface.clone(),
        found_by: match &status.member_of {
            Some(_) => Some(FoundBy::ListenRange),
            None => planned.and_then(found_by),
        },
        range: status.listening.map(|Listening { range, peers, refused }| RangeView {
            cidr: range.prefix.to_string(),
            peers,
            max_peers: range.max_peers,
            refused,
        }),
        member_of: status.member_of.as_ref().map(ToString::to_string),
        local_asn: status.local_asn.number(),
        peer_asn: status.peer_asn.number(),
        state: match status.listening {
            Some(_) if status.blocked.is_none() => "Listening".to_owned(),
            Some(_) | None => status.state.name().to_owned(),
        },
        since: timestamp(status.since_time),
        seconds_in_state: status.since.elapsed().as_secs(),
        local_address: status.local_address.map(|address| address.to_string()),
        peer_router_id: negotiated.map(|agreed| agreed.peer_open.router_id.to_string()),
        hold_time_seconds: negotiated.map(|agreed| agreed.hold_time.seconds()),
        negotiated: negotiated.map(self::negotiated),
        families: families.collect(),
        blocked: status.blocked.clone(),
        last_error,
        last_error_time: last_error_time.map(timestamp),
        established_count: status.counters.established,
        lost_count: status.counters.lost,
        updates_received: status.counters.updates_received,
        updates_sent: status.counters.updates_sent,
        malformed_updates: status.counters.malformed_updates,
        md5_failures: status.md5_failures.map(|Md5Failures { not_found, unexpected, failure }| {
            Md5FailuresView { not_found, unexpected, failure }
        }),
        // A session that is kept down for want of a secret was told of none: what it is meant to be, the plan knows.
        authentication: match planned {
            Some(peer) if status.blocked.is_some() => authentication(&meant(peer)),
            Some(_) | None => authentication(&status.authentication),
        },
        tcp_ao_failures: status.tcp_ao_failures.map(|TcpAoFailures { required, bad, key_not_found }| {
            TcpAoFailuresView { required, bad, key_not_found }
        }),
        // Known to another task; see `Access::peers`.
        bfd: None,
    }
}

fn negotiated(agreed: &Negotiated) -> NegotiatedView {
    let names = |families: Families| families.iter().map(|family| family.name().to_owned()).collect();
    let stale_time = |family: AfiSafi| {
        agreed.long_lived_stale_time(family).map(|time| (family.name().to_owned(), time.as_secs()))
    };
    let graceful_restart = agreed.graceful_restart.as_ref().map(|_| NegotiatedRestartView {
        restart_time_seconds: agreed.restart_time().as_secs(),
        families: names(agreed.retained_families()),
        notification: agreed.notification_restart(),
        long_lived_stale_time_seconds: AfiSafi::ALL.into_iter().filter_map(stale_time).collect(),
    });
    let role = |role: Role| format!("{role:?}");
    NegotiatedView {
        four_octet_asn: agreed.context.four_octet_asn,
        route_refresh: agreed.route_refresh,
        enhanced_refresh: agreed.context.enhanced_refresh,
        extended_next_hop: agreed.context.ipv4_over_ipv6,
        longest_sent: agreed.context.max_message_length,
        longest_received: agreed.longest_received,
        add_path_receive: names(agreed.context.add_path_receive),
        role: agreed.role.map(role),
        peer_role: agreed.peer_open.roles().flatten().next().map(role),
        graceful_restart,
    }
}

fn found_by(peer: &PeerPlan) -> Option<FoundBy> {
    peer.remote.as_ref().map(|remote| remote.found_by)
}

/// A BGPPeer of this node that the speaker was never given.
pub(super) fn refused_peers(state: &Published) -> impl Iterator<Item = PeerView> {
    state.plan.peers.iter().filter(|peer| peer.refused.is_some()).map(|peer| PeerView {
        name: peer.name.clone(),
        address: peer
            .remote
            .as_ref()
            .map_or_else(|| std::net::Ipv4Addr::UNSPECIFIED.into(), |remote| remote.address),
        interface: peer.interface().map(str::to_owned),
        found_by: found_by(peer),
        range: peer.spec.listen_range.map(|range| RangeView {
            cidr: range.cidr.prefix().to_string(),
            peers: 0,
            max_peers: range.max_peers.get().into(),
            refused: 0,
        }),
        member_of: None,
        local_asn: peer.local_asn.number(),
        peer_asn: peer.spec.peer_asn.number(),
        state: "Idle".to_owned(),
        since: state.started,
        seconds_in_state: 0,
        local_address: None,
        peer_router_id: None,
        hold_time_seconds: None,
        negotiated: None,
        families: Default::default(),
        blocked: peer.refused.clone(),
        last_error: None,
        last_error_time: None,
        established_count: 0,
        lost_count: 0,
        updates_received: 0,
        updates_sent: 0,
        malformed_updates: 0,
        md5_failures: None,
        authentication: authentication(&meant(peer)),
        tcp_ao_failures: None,
        bfd: None,
    })
}

/// How the session with a peer is to be signed.
fn meant(peer: &PeerPlan) -> Authentication {
    match (&peer.spec.tcp_ao, peer.spec.secret()) {
        (Some(_), _) => Authentication::TcpAo(None),
        (None, Some(_)) => Authentication::Md5,
        (None, None) => Authentication::None,
    }
}

fn authentication(authentication: &Authentication) -> AuthenticationView {
    let of = |method: &str| AuthenticationView { method: method.to_owned(), ..AuthenticationView::default() };
    match authentication {
        Authentication::None => of("None"),
        Authentication::Md5 => of("MD5"),
        Authentication::TcpAo(None) => of("TCP-AO"),
        Authentication::TcpAo(Some(TcpAoState { current, next, retiring })) => AuthenticationView {
            current_key_id: Some(*current),
            next_key_id: Some(*next),
            retiring_keys: retiring.iter().map(ToString::to_string).collect(),
            ..of("TCP-AO")
        },
    }
}

fn timestamp(time: SystemTime) -> jiff::Timestamp {
    jiff::Timestamp::try_from(time).unwrap_or_default()
}

pub(super) fn advertised(state: &Published, peer: &PeerName, route: &AdvertisedRoute) -> RouteView {
    let holder = state.plan.addresses().find(|(_, address)| {
        route.prefix.is_host() && address.address == route.prefix.address() && address.refused.is_none()
    });
    RouteView {
        pod: holder.map(|(pod, _)| pod_name(pod)),
        ..route_view(peer, route.prefix.to_string(), route.next_hop, &route.attributes)
    }
}

pub(super) fn received(peer: &PeerName, route: &ReceivedRoute) -> RouteView {
    RouteView {
        install: Some(route.install),
        stale: Some(route.stale),
        ..route_view(peer, route.prefix.to_string(), route.next_hop, &route.attributes)
    }
}

fn route_view(peer: &PeerName, prefix: String, next_hop: NextHop, attributes: &PathAttributes) -> RouteView {
    RouteView {
        peer: peer.to_string(),
        prefix,
        next_hop: match next_hop {
            NextHop::V4(address) => address.to_string(),
            NextHop::V6 { global, .. } => global.to_string(),
        },
        as_path: as_path(&attributes.as_path),
        med: attributes.med,
        local_preference: attributes.local_pref,
        communities: attributes.communities.iter().map(ToString::to_string).collect(),
        extended_communities: attributes.extended_communities.iter().map(ToString::to_string).collect(),
        large_communities: attributes.large_communities.iter().map(ToString::to_string).collect(),
        pod: None,
        install: None,
        stale: None,
    }
}

/// As routers write it: sequences plain, sets in braces, confederations in parentheses and brackets.
fn as_path(path: &AsPath) -> String {
    let segment = |segment: &plainroute_bgp::wire::AsPathSegment| {
        let asns: Vec<String> = segment.asns.iter().map(ToString::to_string).collect();
        match segment.kind {
            SegmentKind::Sequence => asns.join(" "),
            SegmentKind::Set => format!("{{{}}}", asns.join(",")),
            SegmentKind::ConfedSequence => format!("({})", asns.join(" ")),
            SegmentKind::ConfedSet => format!("[{}]", asns.join(",")),
        }
    };
    path.segments.iter().map(segment).collect::<Vec<_>>().join(" ")
}

pub(super) fn kernel_routes(state: &Published) -> Vec<KernelRouteView> {
    let desired = state.desired.routes.iter().map(|(key, target)| {
        let status = state.installed.routes.get(key);
        KernelRouteView {
            prefix: key.prefix.to_string(),
            table: key.table,
            target: target.to_string(),
            installed: state.installed.delivers(key),
            status: status.map_or_else(|| "waiting for the kernel".to_owned(), ToString::to_string),
            owner: owner(state, key, target),
        }
    });
    let stale = state.installed.stale.iter().map(|(key, target)| KernelRouteView {
        prefix: key.prefix.to_string(),
        table: key.table,
        target: target.to_string(),
        installed: true,
        status: "left by an earlier process; kept until the plan is complete".to_owned(),
        owner: None,
    });
    desired.chain(stale).collect()
}

fn owner(state: &Published, key: &RouteKey, target: &Target) -> Option<String> {
    match target {
        Target::Device { .. } => {
            let mut addresses = state.plan.addresses();
            let held = addresses.find(|(_, address)| {
                key.prefix.is_host() && address.address == key.prefix.address() && address.delivery.is_some()
            });
            held.map(|(pod, _)| pod_name(pod))
        }
        Target::Via { .. } => {
            let egress = state.desired.rules.iter().any(|rule| rule.action == RuleAction::Lookup(key.table));
            Some(if egress { "egress" } else { "learned" }.to_owned())
        }
        Target::Local => {
            let mut egresses = state.plan.egresses.iter();
            let holds = |egress: &&EgressPlan| {
                egress.addresses.iter().any(|address| key.prefix == Prefix::host(address.address))
            };
            egresses.find(holds).map(|egress| format!("Egress/{}", egress.name))
        }
        Target::Unreachable | Target::Blackhole => None,
    }
}

pub(super) fn pod_name(pod: &PodPlan) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

pub(super) fn pods(state: &Published) -> Vec<PodView> {
    let whole = |pod: &PodPlan| PodView {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        address: None,
        pool: None,
        delivery: None,
        delivered: false,
        advertised: false,
        peers: Vec::new(),
        reason: pod.refused.as_ref().map(word),
        message: pod.refused.as_ref().map(ToString::to_string),
    };
    let views = state.plan.pods.iter().flat_map(|pod| {
        let addresses = pod.addresses.iter().map(|address| {
            let fate = Fate::of(state, address);
            PodView {
                address: Some(address.address),
                pool: address.pool.clone(),
                delivery: address.delivery.clone(),
                delivered: fate.delivered,
                advertised: !fate.peers.is_empty(),
                reason: fate.refusal.as_ref().map(|(word, _)| word.clone()),
                message: fate.refusal.map(|(_, sentence)| sentence),
                peers: fate.peers,
                ..whole(pod)
            }
        });
        let none = pod.addresses.is_empty().then(|| whole(pod));
        addresses.chain(none).collect::<Vec<_>>()
    });
    views.collect()
}

/// What has become of a planned address: the plan's word, then the gate's.
pub(super) struct Fate {
    pub(super) delivered: bool,
    /// How the kernel delivers, or why it does not.
    pub(super) path: String,
    /// The peers that it is advertised to.
    pub(super) peers: Vec<String>,
    /// Why it is not advertised: a word and a sentence.
    pub(super) refusal: Option<(String, String)>,
}

impl Fate {
    pub(super) fn of(state: &Published, address: &AddressPlan) -> Fate {
        let (prefix, wanted) = match block_of(state, address) {
            Some(block) => (block.cidr.prefix(), &block.advertise),
            None => (Prefix::host(address.address), &address.advertise),
        };
        let (delivered, path) = path(state, address);
        let is_advertised = |peer: &&String| {
            let key = (PeerName::from(peer.as_str()), prefix);
            state.advertised.as_ref().is_some_and(|advertised| advertised.contains_key(&key))
        };
        let peers: Vec<String> = wanted.keys().filter(is_advertised).cloned().collect();
        let refusal = match &address.refused {
            Some(reason) => Some((word(reason), reason.to_string())),
            None if state.drain == DrainState::Drained => Some((
                "Drained".to_owned(),
                "the node is drained (plainroute drain --undo takes it back)".to_owned(),
            )),
            None if !delivered => {
                Some(("NotDelivered".to_owned(), format!("this node does not deliver: {path}")))
            }
            None => None,
        };
        Fate { delivered, path, peers, refusal }
    }
}

/// The block that is advertised in the address's place.
pub(super) fn block_of<'a>(state: &'a Published, address: &AddressPlan) -> Option<&'a BlockPlan> {
    state.plan.blocks.iter().find(|block| Some(block.cidr) == address.block)
}

/// Whether and how the kernel delivers to an address.
fn path(state: &Published, address: &AddressPlan) -> (bool, String) {
    match &address.delivery {
        None => (false, "not this node's to deliver".to_owned()),
        Some(Delivery::Interface { interface, .. }) => {
            let key = RouteKey { table: state.pod_table, prefix: Prefix::host(address.address) };
            let status = state.installed.routes.get(&key);
            let text = status.map_or_else(|| "waiting for the kernel".to_owned(), ToString::to_string);
            let delivered = status.is_some_and(crate::fib::RouteStatus::delivers);
            (delivered, format!("route {} dev {interface}: {text}", address.address))
        }
        Some(Delivery::Foreign) => match state.installed.delivery.get(&address.address) {
            None => (false, "waiting for the kernel".to_owned()),
            Some(delivery) => (delivery.delivers(), delivery.to_string()),
        },
    }
}

/// The word that a program matches.
pub(super) fn word(reason: &crate::plan::Reason) -> String {
    let tagged = serde_json::to_value(reason).unwrap_or_default();
    tagged.get("reason").and_then(|word| word.as_str()).unwrap_or("Refused").to_owned()
}

pub(super) fn drain(state: &Published) -> DrainView {
    let left = |at: std::time::Instant| at.saturating_duration_since(std::time::Instant::now());
    DrainView {
        state: state.drain,
        asked_by: state.drain_asked_by.clone(),
        // Rounded up: "0" would say that it is over.
        withdraws_in_seconds: state.withdraws_at.map(|at| left(at).as_millis().div_ceil(1000) as u64),
        advertised: state.advertised.as_ref().map_or(0, |advertised| advertised.len()),
    }
}

pub(super) fn station((address, status): (SocketAddr, StationStatus)) -> StationView {
    StationView {
        address,
        connected: status.connected_since.is_some(),
        last_error: status.last_error.map(|(text, _)| text),
        connections: status.connections,
        overflows: status.overflows,
        messages_sent: status.messages_sent,
        octets_sent: status.octets_sent,
    }
}

pub(super) fn held(state: &Published) -> Vec<HeldView> {
    let view = |(key, held): (&ObjectKey, &Held)| HeldView {
        object: key.to_string(),
        since: held.since,
        reason: held.reason,
        message: held.reason.message().to_owned(),
    };
    state.held.iter().map(view).collect()
}

pub(super) fn pools_check(state: &Published, mended: Vec<Disagreement>, found: Findings) -> PoolsCheck {
    let Findings { disagreements, unknown } = found;
    PoolsCheck { node: state.node.clone(), mended, disagreements, unknown }
}

pub(super) fn health(state: &Published, peers: &[PeerView], stations: Vec<StationView>) -> Health {
    let sources = state.source_problems.iter().map(|(source, problem)| format!("{source}: {problem}"));
    let drain = match state.drain {
        DrainState::Active => None,
        DrainState::Draining => Some("the node is being drained"),
        DrainState::Drained => Some("the node is drained: nothing is advertised"),
    }
    .map(|drain| match state.drain_asked_by.contains(&AskedBy::Node) {
        true => format!("{drain}, as the Node asks"),
        false => drain.to_owned(),
    })
    .into_iter();
    let awaited = state.awaited.iter().map(|what| format!("waiting for the first complete list of {what}"));
    let down = peers.iter().filter(|peer| !peer.is_well()).map(|peer| {
        let why = peer.blocked.as_ref().or(peer.last_error.as_ref());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        format!("BGPPeer/{} is {}{why}", peer.name, peer.state)
    });
    let unwatched = peers.iter().filter_map(|peer| {
        let bfd = peer.bfd.as_ref().filter(|bfd| bfd.path != BfdPath::Up)?;
        // A path that is down is why the session is, which is said already.
        let why = bfd.problem.clone().or_else(|| peer.is_established().then(|| bfd.words()))?;
        Some(format!("BGPPeer/{}: no BFD, the hold timer alone notices a silent peer: {why}", peer.name))
    });
    let held = (!state.held.is_empty()).then(|| {
        let count = state.held.len();
        format!("the deletion of {count} objects is held until somebody confirms: plainroute held")
    });
    let routes = kernel_routes(state).into_iter().filter(|route| !route.installed);
    let routes = routes.map(|route| format!("route {} {}: {}", route.prefix, route.target, route.status));
    let (broken, notes): (Vec<_>, Vec<_>) = state.plan.conditions.iter().partition(|said| said.is_problem());
    let away: Vec<String> = stations
        .iter()
        .filter(|station| !station.connected)
        .map(|station| {
            let why = station.last_error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("monitoring station {} is not connected{why}", station.address)
        })
        .collect();
    Health {
        node: state.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: state.started,
        ready: state.is_ready(),
        awaited: state.awaited.clone(),
        problems: drain
            .chain(awaited)
            .chain(sources)
            .chain(held)
            .chain(down)
            .chain(unwatched)
            .chain(routes)
            .chain(super::egress::problems(state))
            .chain(broken.into_iter().map(ToString::to_string))
            .collect(),
        notes: notes.into_iter().map(ToString::to_string).chain(away).collect(),
        stations,
    }
}
