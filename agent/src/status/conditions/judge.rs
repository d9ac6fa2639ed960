//! What is to be said of each object, from the objects and from what all nodes say. Pure.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::{Timestamp, Unit};
use plainroute_config::{
    AddressSet, BgpAdvertisement, BgpPeer, Condition, ConditionStatus, Egress, EgressAssignment, IpPool,
    Kind, NodeStateStatus,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::plan::{not_supported, overlap};

/// What all nodes say together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// By BGPPeer: how many nodes it is for, and on how many of them every session is up.
    peers: BTreeMap<String, (u32, u32)>,
    /// By kind and name, by reason: how many nodes say so, and what the first of them says.
    said: BTreeMap<(String, String), BTreeMap<String, (u32, String)>>,
    /// By Egress and address: who holds it, in their order.
    egress: BTreeMap<(String, IpAddr), BTreeSet<(u32, String)>>,
}

/// Why a node does not carry out an Egress, as [`EgressReason`](crate::plan::EgressReason) has it in a word.
pub(super) const EGRESS_REFUSED: [&str; 8] = [
    "NoSuchPool",
    "NotForEgress",
    "PoolExhausted",
    "TakenByOther",
    "InPodPool",
    "AddressOfNode",
    "NoNode",
    "NoNodeOfFamily",
];

impl Totals {
    /// What one node says.
    pub(super) fn add(&mut self, name: &str, node: &NodeStateStatus) {
        for held in &node.egress {
            let of = self.egress.entry((held.egress.clone(), held.address)).or_default();
            of.insert((held.rank, name.to_owned()));
        }
        let mut peers: BTreeMap<&str, bool> = BTreeMap::new();
        for session in &node.sessions {
            let up = matches!(session.state.as_str(), "Established" | "Listening");
            *peers.entry(&session.bgp_peer).or_insert(true) &= up;
        }
        for (peer, up) in peers {
            let (nodes, established) = self.peers.entry(peer.to_owned()).or_default();
            *nodes += 1;
            *established += u32::from(up);
        }
        let mut said: BTreeMap<(String, String), BTreeMap<&str, &str>> = BTreeMap::new();
        for object in node.objects.iter().filter(|object| object.kind != "Pod" && object.kind != "Node") {
            // Of a session that was found: NAME@ADDRESS.
            let name = object.name.split('@').next().unwrap_or_default();
            let reasons = said.entry((object.kind.clone(), name.to_owned())).or_default();
            reasons.entry(&object.reason).or_insert(&object.message);
        }
        for (object, reasons) in said {
            let of = self.said.entry(object).or_default();
            for (reason, message) in reasons {
                of.entry(reason.to_owned()).or_insert_with(|| (0, message.to_owned())).0 += 1;
            }
        }
    }

    /// How many nodes say this of an object, and what one of them says.
    fn says(&self, kind: Kind, name: &str, reason: &str) -> Option<String> {
        let (nodes, message) = self.said.get(&(kind.name().to_owned(), name.to_owned()))?.get(reason)?;
        Some(format!("on {nodes} nodes: {message}"))
    }
}

/// A condition that is to be said: type, whether it holds, why in a word and in a sentence.
type Said = (&'static str, bool, &'static str, String);

/// The objects and what becomes of their status.
pub(super) struct Judged<'a> {
    totals: &'a Totals,
    now: Timestamp,
    objects: Vec<Seen>,
}

/// One object as far as it matters.
struct Seen {
    kind: Kind,
    name: String,
    uid: Option<String>,
    generation: Option<i64>,
    status: Value,
    said: Vec<Said>,
    /// What is said beside conditions.
    more: Vec<(&'static str, Value)>,
    addresses: Option<AddressSet>,
}

/// An object whose status is to be another.
pub(super) struct Change {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) status: Value,
    /// Where it is accepted from now on, or is not any more: which of them, and why.
    pub(super) turn: Option<(bool, String)>,
}

impl Seen {
    /// By the status as it is stored, so that of all agents that ever write it one sees the turn.
    fn turn(&self) -> Option<(bool, String)> {
        let (_, accepted, _, why) = self.said.iter().find(|(of, ..)| *of == "Accepted")?;
        let conditions = Vec::<Condition>::deserialize(&self.status["conditions"]).unwrap_or_default();
        let before = conditions.into_iter().find(|of| of.r#type == "Accepted");
        let refused = before.is_some_and(|before| before.status == ConditionStatus::False);
        (*accepted == refused).then(|| (*accepted, why.clone()))
    }
}

impl<'a> Judged<'a> {
    pub(super) fn new(totals: &'a Totals, now: Timestamp) -> Judged<'a> {
        Judged { totals, now: now.round(Unit::Second).unwrap_or(now), objects: Vec::new() }
    }

    /// An object as the API server has it.
    pub(super) fn add(&mut self, kind: Kind, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut seen = Seen {
            kind,
            uid: object["metadata"]["uid"].as_str().map(str::to_owned),
            generation: object["metadata"]["generation"].as_i64(),
            status: object["status"].clone(),
            said: Vec::new(),
            more: Vec::new(),
            addresses: None,
            name,
        };
        match read(kind, object) {
            Ok(unsupported) => seen.said.push(match unsupported {
                None => self.in_force(kind, &seen.name),
                Some(what) => ("Accepted", false, "NotSupported", what),
            }),
            Err(why) => {
                let why = format!("{why}; what was known of it stays in force");
                seen.said.push(("Accepted", false, "Invalid", why));
            }
        }
        if kind == Kind::IpPool
            && let Ok(pool) = IpPool::deserialize(object)
        {
            let addresses = pool.spec.addresses();
            seen.more.push(("addresses", json!(size(&addresses))));
            seen.addresses = Some(addresses);
        }
        if kind == Kind::BgpPeer {
            self.judge_peer(&mut seen);
        }
        if kind == Kind::Egress {
            let held = self.totals.egress.iter().filter(|((egress, _), _)| *egress == seen.name);
            let assignments: Vec<EgressAssignment> = held
                .map(|((_, address), by)| EgressAssignment {
                    address: address.to_string(),
                    gateways: by.iter().map(|(_, node)| node.clone()).collect(),
                })
                .collect();
            if !assignments.is_empty() {
                seen.more.push(("assignments", json!(assignments)));
            }
        }
        self.objects.push(seen);
    }

    /// What is understood is accepted, unless a node must go on with what was before it.
    fn in_force(&self, kind: Kind, name: &str) -> Said {
        let by_nodes = |reason| Some((reason, self.totals.says(kind, name, reason)?));
        let reasons = match kind {
            Kind::Egress => &EGRESS_REFUSED[..],
            _ => &["InUse", "Refused"],
        };
        match reasons.iter().copied().find_map(by_nodes) {
            Some((reason, why)) => ("Accepted", false, reason, why),
            None => ("Accepted", true, "Valid", "it is understood".to_owned()),
        }
    }

    fn judge_peer(&self, seen: &mut Seen) {
        let (nodes, established) = self.totals.peers.get(&seen.name).copied().unwrap_or_default();
        seen.more.extend([("nodes", json!(nodes)), ("established", json!(established))]);
        let of_nodes = format!("every session is up on {established} of {nodes} nodes");
        seen.said.push(match (nodes, established == nodes) {
            (0, _) => ("Established", false, "NoMatchingNode", "no node says that it is for it".to_owned()),
            (_, true) => ("Established", true, "Established", of_nodes),
            (_, false) => ("Established", false, "SessionsDown", of_nodes),
        });
        seen.said.push(match self.totals.says(seen.kind, &seen.name, "MissingSecret") {
            Some(why) => ("SecretsResolved", false, "MissingSecret", why),
            None => ("SecretsResolved", true, "Resolved", "no node lacks a secret".to_owned()),
        });
    }

    /// Why the object is not in force as it stands although nothing is wrong with it by itself.
    fn conflict(&self, of: &Seen) -> Said {
        // What nobody understands is not worse for that.
        let by_some = of.said.iter().all(|(_, _, reason, _)| *reason != "Invalid").then_some("Unreadable");
        for reason in ["Shadowed", "NotInForce"].into_iter().chain(by_some) {
            if let Some(why) = self.totals.says(of.kind, &of.name, reason) {
                return ("Conflict", true, reason, why);
            }
        }
        let shares = |other: &&Seen| {
            let both = of.addresses.as_ref().zip(other.addresses.as_ref());
            other.name != of.name && both.is_some_and(|(one, other)| overlap(one, other))
        };
        match self.objects.iter().find(shares) {
            Some(other) => {
                let message = format!(
                    "shares addresses with IPPool {}; the first by name that admits a Pod is taken",
                    other.name
                );
                ("Conflict", true, "Overlap", message)
            }
            None => ("Conflict", false, "None", "nothing is in its way".to_owned()),
        }
    }

    /// The objects of a kind whose status is to be another.
    pub(super) fn changes(&self, kind: Kind) -> Vec<Change> {
        let changed = self.objects.iter().filter(|seen| seen.kind == kind).filter_map(|seen| {
            let said = seen.said.iter().cloned().chain([self.conflict(seen)]);
            let conditions: Vec<Condition> = said.map(|said| self.condition(seen, said)).collect();
            let mut status = json!({ "observedGeneration": seen.generation, "conditions": conditions });
            for (field, value) in &seen.more {
                status[*field] = value.clone();
            }
            (status != seen.status).then(|| Change {
                name: seen.name.clone(),
                uid: seen.uid.clone(),
                turn: seen.turn(),
                status,
            })
        });
        changed.collect()
    }

    fn condition(&self, seen: &Seen, (r#type, holds, reason, message): Said) -> Condition {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        let before = Vec::<Condition>::deserialize(&seen.status["conditions"]).unwrap_or_default();
        let same = before.into_iter().find(|of| of.r#type == r#type && of.status == status);
        Condition {
            r#type: r#type.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.chars().take(1024).collect(),
            last_transition_time: same.map_or(self.now, |same| same.last_transition_time),
            observed_generation: seen.generation,
        }
    }
}

/// Reads an object as every agent does; what of it this version does not do, or why it is not understood.
fn read(kind: Kind, object: &Value) -> Result<Option<String>, String> {
    let text = |error: serde_json::Error| error.to_string();
    match kind {
        Kind::BgpPeer => BgpPeer::deserialize(object).map(|_| None).map_err(text),
        Kind::BgpAdvertisement => BgpAdvertisement::deserialize(object).map(|_| None).map_err(text),
        Kind::IpPool => IpPool::deserialize(object).map(|_| None).map_err(text),
        Kind::Egress => {
            let egress = Egress::deserialize(object).map_err(text)?;
            Ok(not_supported(&egress).map(|why| why.to_string()))
        }
        Kind::AgentConfig | Kind::Pod | Kind::Namespace | Kind::Node | Kind::NodeState | Kind::IpBlock => {
            Err(format!("{kind} is not judged"))
        }
    }
}

/// How many addresses there are, as far as a number of the API can tell.
fn size(addresses: &AddressSet) -> i64 {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let sizes = addresses.intervals().map(|(first, last)| (number(last) - number(first)).saturating_add(1));
    i64::try_from(sizes.fold(0, u128::saturating_add)).unwrap_or(i64::MAX)
}
