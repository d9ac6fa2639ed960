//! What is to be said about objects: nothing that stops the rest.
use std::fmt;

use plainroute_config::AdvertisementType;
use serde::{Deserialize, Serialize};

use super::{EgressPlan, Local, peer::Peers, pool::Pools};
use crate::index::Snapshot;

/// Something about one object that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The object, like `BGPPeer/tor-a`.
    pub object: String,
    /// What kind of thing it is, in one word.
    pub reason: String,
    /// What it is, in a sentence.
    pub message: String,
}

impl Condition {
    /// Whether something does not work because of it; else it is only worth knowing.
    pub fn is_problem(&self) -> bool {
        // That a peer is not found is said by its session already.
        !matches!(self.reason.as_str(), "NotFound" | "NotSupported" | "Shadowed" | "OtherNode")
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.reason, self.message)
    }
}

/// Everything that is to be said, in no order.
pub(super) fn collect(
    local: &Local,
    snapshot: &Snapshot,
    peers: &Peers<'_>,
    pools: &Pools<'_>,
    egresses: &[EgressPlan],
) -> Vec<Condition> {
    let mut said = Vec::new();
    let mut say = |object: String, reason: &str, message: String| {
        said.push(Condition { object, reason: reason.to_owned(), message });
    };
    for key in snapshot.shadowed() {
        say(
            key.to_string(),
            "Shadowed",
            "the API server has one of this name too; the file's is in force".to_owned(),
        );
    }
    for error in &peers.annotation_errors {
        say(format!("Node/{}", local.node), "InvalidAnnotation", format!("{error}; it is ignored"));
    }
    for peer in &peers.here {
        if let Some(refused) = &peer.refused {
            let reason = if peer.remote.is_none() { "NotFound" } else { "NotSupported" };
            say(format!("BGPPeer/{}", peer.bgp_peer), reason, refused.clone());
        }
    }
    for peer in &peers.elsewhere {
        let message = "nodeSelector does not select this node".to_owned();
        say(format!("BGPPeer/{peer}"), "OtherNode", message);
    }
    for (one, other) in pools.overlaps() {
        let message =
            format!("shares addresses with IPPool {other}; the first by name that admits a Pod is taken");
        say(format!("IPPool/{one}"), "Overlap", message);
    }
    for (pool, why) in &snapshot.pool_notes.in_use {
        say(format!("IPPool/{pool}"), "InUse", why.clone());
    }
    for (pool, why) in &snapshot.pool_notes.refused {
        say(format!("IPPool/{pool}"), "Refused", why.clone());
    }
    for pool in pools.all() {
        if pool.spec.is_in_blocks() && local.holdings.is_none() {
            let message = "allocation: Block is checked like External: this agent gives no addresses out (AgentConfig ipam)";
            say(format!("IPPool/{}", pool.name()), "NotSupported", message.to_owned());
        }
    }
    for (advertisement, _) in snapshot.advertisements() {
        if local.holdings.is_none() && advertisement.spec.advertises(AdvertisementType::PodBlock) {
            let message =
                "type PodBlock is not advertised: this agent gives no addresses out (AgentConfig ipam)";
            say(format!("BGPAdvertisement/{}", advertisement.name()), "NotSupported", message.to_owned());
        }
    }
    for egress in egresses {
        let object = || format!("Egress/{}", egress.name);
        if let Some(reason) = &egress.refused {
            say(object(), reason.word(), reason.to_string());
        }
        for address in egress.addresses.iter().filter(|_| egress.refused.is_none()) {
            if let Some(reason) = &address.refused {
                say(object(), reason.word(), format!("{}: {reason}", address.address));
            }
            if let Some(reason) = &address.unadvertised {
                say(object(), "NotAdvertised", format!("{}: {reason}", address.address));
            }
        }
    }
    said
}
