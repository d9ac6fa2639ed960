//! Which BGPPeers serve this node, and who we are towards each.
use std::{collections::BTreeMap, net::IpAddr};

use plainroute_bgp::{
    AfiSafi, Asn, RouterId,
    policy::{ExportPolicy, ExportRule},
};
use plainroute_config::{
    BgpPeer, BgpPeerSpec, DiscoveryMode, LabelSelector, Labels, Node, Parsed, PeerTarget, annotation,
};
use serde::{Deserialize, Serialize};

use super::Local;
use crate::index::Snapshot;

/// One peer of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerPlan {
    /// The BGPPeer's name.
    pub name: String,
    /// Our AS towards it, the Node's annotation considered.
    #[serde(rename = "localASN")]
    pub local_asn: Parsed<Asn>,
    /// Our BGP Identifier towards it; none where none can be had.
    #[serde(rename = "routerID")]
    pub router_id: Option<Parsed<RouterId>>,
    /// Why no session is tried, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What its user wrote.
    pub spec: BgpPeerSpec,
}

impl PeerPlan {
    /// The peer's address, where it is known.
    pub fn address(&self) -> Option<IpAddr> {
        match self.spec.target() {
            PeerTarget::Address(address) => Some(address),
            PeerTarget::Interface(_) | PeerTarget::AutoDiscovery(_) => None,
        }
    }

    /// The interface that the peer is behind, where that is what names it.
    pub fn interface(&self) -> Option<&str> {
        match self.spec.target() {
            PeerTarget::Interface(interface) => Some(interface),
            PeerTarget::Address(_) | PeerTarget::AutoDiscovery(_) => None,
        }
    }
}

/// The peers of this node, with the labels that advertisements select by.
pub(super) struct Peers<'a> {
    pub(super) here: Vec<PeerPlan>,
    labels: Vec<&'a Labels>,
    /// What may go to each peer that limits it.
    exports: BTreeMap<&'a str, ExportPolicy>,
    /// BGPPeers that do not select this node.
    pub(super) elsewhere: Vec<&'a str>,
    /// What is wrong with this Node's annotations.
    pub(super) annotation_errors: Vec<String>,
}

impl Peers<'_> {
    /// The export rules of a peer; none where everything that is planned for it may go.
    pub(super) fn export_policy(&self, peer: &str) -> Option<&ExportPolicy> {
        self.exports.get(peer)
    }

    /// The names of the peers that `selector` selects and that can be told of addresses of this family.
    pub(super) fn selected<'s>(
        &'s self,
        selector: &LabelSelector,
        family: AfiSafi,
    ) -> impl Iterator<Item = &'s str> {
        let selected = self.here.iter().zip(&self.labels).filter(|(_, labels)| selector.matches(labels));
        let told =
            selected.filter(move |(peer, _)| peer.refused.is_none() && peer.spec.families().contains(family));
        told.map(|(peer, _)| peer.name.as_str())
    }
}

/// The peers whose nodeSelector selects this node, in the order of their names.
pub(super) fn plan_peers<'a>(snapshot: &'a Snapshot, local: &Local) -> Peers<'a> {
    let node = snapshot.node(&local.node);
    let no_labels = Labels::new();
    let node_labels = node.map_or(&no_labels, Node::labels);
    let mut errors = Vec::new();
    let identity = Identity {
        asn: annotated(node, annotation::ASN, &mut errors),
        router_id: annotated(node, annotation::ROUTER_ID, &mut errors),
        address: node.and_then(first_ipv4).or(local.router_id),
    };
    let mut peers = Peers {
        here: Vec::new(),
        labels: Vec::new(),
        exports: BTreeMap::new(),
        elsewhere: Vec::new(),
        annotation_errors: errors,
    };
    for (peer, _) in snapshot.peers() {
        if peer.spec.node_selector.matches(node_labels) {
            peers.here.push(identity.plan(peer));
            peers.labels.push(&peer.metadata.labels);
            peers.exports.extend(export_policy(&peer.spec).map(|policy| (peer.name(), policy)));
        } else {
            peers.elsewhere.push(peer.name());
        }
    }
    peers
}

/// The export rules as a policy. The checks of the kind let no rule through that cannot be built; were there one, a
/// list that is not understood would let nothing out.
fn export_policy(spec: &BgpPeerSpec) -> Option<ExportPolicy> {
    let rules: Result<_, _> = spec.export.as_ref()?.iter().map(ExportRule::try_from).collect();
    Some(rules.map_or(ExportPolicy::DENY, ExportPolicy::new))
}

/// Who this node is.
struct Identity {
    asn: Option<Asn>,
    router_id: Option<RouterId>,
    address: Option<RouterId>,
}

impl Identity {
    fn plan(&self, peer: &BgpPeer) -> PeerPlan {
        let spec = &peer.spec;
        let configured = spec.router_id.map(|router_id| *router_id);
        // The annotation is about this very node; a peer's routerID would be the same on every node that it serves.
        let router_id = self.router_id.or(configured).or(self.address);
        PeerPlan {
            name: peer.name().to_owned(),
            local_asn: self.asn.map_or(spec.local_asn, Parsed),
            router_id: router_id.map(Parsed),
            refused: refusal(spec, router_id),
            spec: spec.clone(),
        }
    }
}

fn refusal(spec: &BgpPeerSpec, router_id: Option<RouterId>) -> Option<String> {
    match spec.target() {
        PeerTarget::Address(_) if router_id.is_none() => {
            let ways = "set spec.routerID, the Node annotation plainroute.dev/router-id, or an IPv4 address on the node";
            Some(format!("the node has no router ID: {ways}"))
        }
        PeerTarget::Address(_) => None,
        PeerTarget::Interface(interface) => {
            Some(format!("spec.interface ({interface}): unnumbered peers are not supported by this version"))
        }
        PeerTarget::AutoDiscovery(DiscoveryMode::DefaultGateway) => {
            Some("spec.autoDiscovery: finding the peer is not supported by this version".to_owned())
        }
    }
}

/// The value of a Node annotation; one that does not parse counts as absent, and is said.
fn annotated<T: std::str::FromStr<Err: std::fmt::Display>>(
    node: Option<&Node>,
    key: &str,
    errors: &mut Vec<String>,
) -> Option<T> {
    let text = node?.metadata.annotation(key)?;
    match text.trim().parse() {
        Ok(value) => Some(value),
        Err(error) => {
            errors.push(format!("annotation {key}: {error}"));
            None
        }
    }
}

fn first_ipv4(node: &Node) -> Option<RouterId> {
    node.internal_ips().find_map(|address| match address {
        IpAddr::V4(address) => RouterId::try_from(address).ok(),
        IpAddr::V6(_) => None,
    })
}
