//! The status of this node's NodeState, from what the agent knows. Pure: the same input gives the same status, and the
//! status before goes in, so that times move only where something has.
use std::collections::BTreeSet;

use jiff::{Timestamp, Unit};
use plainroute_bgp::{AfiSafi, Asn};
use plainroute_config::{
    Advertised, Condition, ConditionStatus, DrainPhase, EgressHeld, NodeStateStatus, ObjectState, Parsed,
    SessionState, SourceState,
};

use super::Seen;
use crate::{
    admin::{Published, view::PeerView},
    drain::DrainState,
    plan::{AddressPlan, PodPlan},
};

/// So many objects are named at most; the object is to stay small on every node, whatever happens there.
const OBJECTS: usize = 64;
/// What holds for the whole cluster, and so is not repeated by each node.
const OF_THE_CLUSTER: [&str; 2] = ["OtherNode", "Overlap"];

/// What the node has to say now.
pub(super) fn compose(seen: &Seen, before: &NodeStateStatus, now: Timestamp) -> NodeStateStatus {
    let state = &*seen.published;
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    NodeStateStatus {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        sessions: seen.peers.iter().map(|peer| session(peer, state, before)).collect(),
        advertised: advertised(state),
        egress: egress(state),
        refused_pods: count(state.plan.pods.iter().filter(|pod| violations(pod).next().is_some()).count()),
        held: count(state.held.len()),
        drain: match state.drain {
            DrainState::Active => DrainPhase::Active,
            DrainState::Draining => DrainPhase::Draining,
            DrainState::Drained => DrainPhase::Drained,
        },
        snapshot_time: state.restored.map(seconds),
        sources: sources(state),
        objects: objects(seen),
        conditions: conditions(seen, before, seconds(now)),
    }
}

/// Nobody needs more.
fn seconds(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}

fn session(peer: &PeerView, state: &Published, before: &NodeStateStatus) -> SessionState {
    let planned = state.plan.peers.iter().find(|planned| planned.name == peer.name);
    let bgp_peer = planned.map(|planned| &planned.bgp_peer).or(peer.member_of.as_ref());
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let families = || peer.families.values();
    let names = peer.families.iter().filter(|(_, family)| family.negotiated);
    let mut session = SessionState {
        peer: peer.name.clone(),
        bgp_peer: bgp_peer.unwrap_or(&peer.name).clone(),
        address: Some(peer.address).filter(|address| !address.is_unspecified()),
        asn: Parsed(Asn::new(peer.peer_asn).unwrap_or(Asn::TRANS)),
        state: peer.state.clone(),
        since: seconds(peer.since),
        last_error: peer.blocked.as_ref().or(peer.last_error.as_ref()).cloned(),
        families: names.filter_map(|(name, _)| name.parse::<AfiSafi>().ok().map(Parsed)).collect(),
        prefixes_received: count(families().map(|family| family.accepted).sum()),
        prefixes_sent: count(families().map(|family| family.advertised).sum()),
        bfd: peer.bfd.as_ref().and_then(|bfd| bfd.state.clone()),
    };
    // A session that does not come about goes from Idle to Connect to Active and round again: that is no news.
    let down = |session: &SessionState| !matches!(session.state.as_str(), "Established" | "Listening");
    let same = before.sessions.iter().find(|of| of.peer == session.peer && down(of));
    if let Some(same) = same.filter(|_| down(&session)) {
        session.since = same.since;
        if same.last_error == session.last_error {
            session.state.clone_from(&same.state);
        }
    }
    session
}

fn advertised(state: &Published) -> Advertised {
    let Some(advertised) = &state.advertised else { return Advertised::default() };
    let prefixes: BTreeSet<_> = advertised.keys().map(|(_, prefix)| *prefix).collect();
    let is_advertised = |address: &&AddressPlan| {
        address.refused.is_none() && prefixes.contains(&plainroute_bgp::Prefix::host(address.address))
    };
    let addresses = |pod: &PodPlan| pod.addresses.iter().filter(is_advertised).count();
    let pods: Vec<usize> = state.plan.pods.iter().map(addresses).filter(|count| *count > 0).collect();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Advertised { pods: count(pods.len()), pod_ips: count(pods.iter().sum()), prefixes: count(prefixes.len()) }
}

fn egress(state: &Published) -> Vec<EgressHeld> {
    let advertised: BTreeSet<_> =
        state.advertised.iter().flat_map(|routes| routes.keys()).map(|(_, of)| *of).collect();
    let held =
        state.plan.egresses.iter().flat_map(|egress| egress.addresses.iter().map(move |of| (egress, of)));
    let mut held: Vec<EgressHeld> = held
        .filter_map(|(egress, plan)| {
            Some(EgressHeld {
                address: plan.address,
                egress: egress.name.clone(),
                rank: u32::try_from(plan.rank?).unwrap_or(u32::MAX),
                advertised: advertised.contains(&plainroute_bgp::Prefix::host(plan.address)),
            })
        })
        .collect();
    held.sort_by_key(|held| held.address);
    held
}

/// The addresses of a Pod that break a rule of the pools.
pub(super) fn violations(pod: &PodPlan) -> impl Iterator<Item = (&AddressPlan, &crate::plan::Reason)> {
    let refused = |address| -> Option<(&AddressPlan, &crate::plan::Reason)> {
        let address: &AddressPlan = address;
        Some((address, address.refused.as_ref().filter(|reason| reason.is_violation())?))
    };
    pod.addresses.iter().filter_map(refused)
}

fn sources(state: &Published) -> Vec<SourceState> {
    let problem = |name: &str| {
        let of = |(source, problem): (&String, &String)| {
            let kind = source.strip_prefix(name)?;
            (kind.is_empty() || kind.starts_with(' ')).then(|| problem.clone())
        };
        let problems: Vec<String> = state.source_problems.iter().filter_map(of).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    };
    let source = |(name, of): (&str, &str)| SourceState { name: name.to_owned(), problem: problem(of) };
    [("cni", "CniCache"), ("files", "Files"), ("kubernetes", "Kubernetes")].map(source).into()
}

/// What this node, and maybe no other, has to say about objects.
fn objects(seen: &Seen) -> Vec<ObjectState> {
    let state = &*seen.published;
    let say = |object: &str, reason: &str, message: &str| {
        let (kind, name) = object.split_once('/')?;
        let word = |word: &str| word.to_owned();
        Some(ObjectState { kind: word(kind), name: word(name), reason: word(reason), message: word(message) })
    };
    let planned = state.plan.conditions.iter().filter(|said| !OF_THE_CLUSTER.contains(&said.reason.as_str()));
    let planned = planned.filter_map(|said| say(&said.object, &said.reason, &said.message));
    let peers = state.source_problems.iter().filter_map(|(of, problem)| say(of, "NotInForce", problem));
    let unreadable = state.unreadable.iter().filter_map(|(of, why)| say(&of.to_string(), "Unreadable", why));
    let blocked = seen.peers.iter().filter_map(|peer| {
        let refused =
            state.plan.peers.iter().any(|planned| planned.name == peer.name && planned.refused.is_some());
        let why = peer.blocked.as_ref().filter(|_| !refused && peer.authentication.method != "None")?;
        say(&format!("BGPPeer/{}", peer.name), "MissingSecret", why)
    });
    let pods = state.plan.pods.iter().flat_map(|pod| {
        let name = format!("Pod/{}/{}", pod.namespace, pod.name);
        violations(pod).filter_map(move |(address, reason)| {
            say(&name, &word(reason), &format!("{}: {reason}", address.address))
        })
    });
    let refused = seen.ipam.refused.iter().filter_map(|((namespace, name), refused)| {
        say(&format!("Pod/{namespace}/{name}"), refused.reason, &refused.message)
    });
    let exhausted = seen.ipam.refused.values().flat_map(|refused| {
        let say = |pool: &String| say(&format!("IPPool/{pool}"), "PoolExhausted", &refused.message);
        refused.exhausted.iter().filter_map(say).collect::<Vec<_>>()
    });
    let said: BTreeSet<ObjectState> = planned
        .chain(peers)
        .chain(unreadable)
        .chain(blocked)
        .chain(pods)
        .chain(refused)
        .chain(exhausted)
        .collect();
    said.into_iter().take(OBJECTS).collect()
}

/// The reason as programs match it.
pub(super) fn word(reason: &crate::plan::Reason) -> String {
    let value = serde_json::to_value(reason).unwrap_or_default();
    value["reason"].as_str().unwrap_or("Refused").to_owned()
}

fn conditions(seen: &Seen, before: &NodeStateStatus, now: Timestamp) -> Vec<Condition> {
    let state = &*seen.published;
    let condition = |r#type: &str, (holds, reason, message): (bool, &str, String)| {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        let same = before.conditions.iter().find(|of| of.r#type == r#type && of.status == status);
        Condition {
            r#type: r#type.to_owned(),
            status,
            reason: reason.to_owned(),
            message,
            last_transition_time: same.map_or(now, |same| same.last_transition_time),
            observed_generation: None,
        }
    };
    vec![
        condition("InSync", in_sync(state)),
        condition("Ready", ready(state)),
        condition("SessionsEstablished", sessions(&seen.peers)),
    ]
}

fn in_sync(state: &Published) -> (bool, &'static str, String) {
    let troubles: Vec<String> = sources(state).into_iter().filter_map(|source| source.problem).collect();
    if !state.awaited.is_empty() {
        return (false, "Waiting", format!("waiting for {}", state.awaited.join(", ")));
    }
    if let Some(time) = state.restored {
        return (
            false,
            "LastGood",
            format!("the API server has not answered since the start; what it said until {time} is in force"),
        );
    }
    match troubles.is_empty() {
        true => (true, "InSync", "what is in force is what every source says".to_owned()),
        false => (false, "SourceTrouble", format!("{}; what is known stays in force", troubles.join("; "))),
    }
}

fn ready(state: &Published) -> (bool, &'static str, String) {
    if state.is_ready() {
        return (true, "Ready", "every source was heard, and the kernel has what was planned".to_owned());
    }
    match state.awaited.is_empty() {
        true => (false, "WaitingForKernel", "the kernel has not answered to the first plan".to_owned()),
        false => (false, "Waiting", format!("waiting for {}", state.awaited.join(", "))),
    }
}

fn sessions(peers: &[PeerView]) -> (bool, &'static str, String) {
    let down: Vec<&str> =
        peers.iter().filter(|peer| !peer.is_well()).map(|peer| peer.name.as_str()).collect();
    match (peers.len(), down.is_empty()) {
        (0, _) => (false, "NoPeer", "no BGPPeer serves this node".to_owned()),
        (count, true) => (true, "Established", format!("{count} of {count} sessions are up")),
        (count, false) => {
            let up = count - down.len();
            (false, "SessionsDown", format!("{up} of {count} sessions are up; down: {}", down.join(", ")))
        }
    }
}
