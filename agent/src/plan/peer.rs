//! Which BGPPeers serve this node, and who we are towards each.
use std::{collections::BTreeMap, fmt, net::IpAddr};

use plainroute_bgp::{
    AfiSafi, Asn, RouterId,
    policy::{ExportPolicy, ExportRule},
};
use plainroute_config::{
    BgpPeer, BgpPeerSpec, DiscoveryMode, LabelSelector, Labels, Node, Parsed, PeerTarget, annotation,
};
use serde::{Deserialize, Serialize};

use super::Local;
use crate::{discovery::Found, index::Snapshot};

/// One peer of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerPlan {
    /// The name of the session: the BGPPeer's, or `NAME@ADDRESS` for each router that its `autoDiscovery` finds. Routers
    /// that connect from within a `listenRange` have such names too, but are not planned one by one.
    pub name: String,
    /// The BGPPeer that it comes of.
    pub bgp_peer: String,
    /// The router; none where it has not been found, or is whoever connects from within the `listenRange`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
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

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// The router's address.
    pub address: IpAddr,
    /// The interface that it is behind, where its address is link-local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// How it is known.
    pub found_by: FoundBy,
}

/// How it is known where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FoundBy {
    /// Its BGPPeer says so.
    Configuration,
    /// It advertised itself on the interface that the BGPPeer names.
    RouterAdvertisement,
    /// The node's default route leads to it.
    DefaultGateway,
    /// It has connected from within the `listenRange`.
    ListenRange,
}

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FoundBy::Configuration => "configuration",
            FoundBy::RouterAdvertisement => "router advertisement",
            FoundBy::DefaultGateway => "default gateway",
            FoundBy::ListenRange => "listen range",
        })
    }
}

impl Remote {
    /// Whether its address means nothing without the interface.
    pub fn is_link_local(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl PeerPlan {
    /// The router's address, where it is known and says by itself where the router is.
    pub fn global_address(&self) -> Option<IpAddr> {
        self.remote.as_ref().filter(|remote| !remote.is_link_local()).map(|remote| remote.address)
    }

    /// The interface that the router is behind, where that is what tells its place.
    pub fn interface(&self) -> Option<&str> {
        let found = self.remote.as_ref().and_then(|remote| remote.interface.as_deref());
        found.or(self.spec.interface.as_deref())
    }
}

/// The peers of this node, with the labels that advertisements select by.
pub(super) struct Peers<'a> {
    pub(super) here: Vec<PeerPlan>,
    labels: Vec<&'a Labels>,
    /// What may go to each peer that limits it.
    exports: BTreeMap<String, ExportPolicy>,
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
            for planned in identity.plan(peer, &local.found) {
                peers.labels.push(&peer.metadata.labels);
                peers.exports.extend(export_policy(&peer.spec).map(|policy| (planned.name.clone(), policy)));
                peers.here.push(planned);
            }
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
    /// The sessions that a BGPPeer asks for: one, or one for each router that it finds.
    fn plan(&self, peer: &BgpPeer, found: &Found) -> Vec<PeerPlan> {
        let spec = &peer.spec;
        let configured = spec.router_id.map(|router_id| *router_id);
        // The annotation is about this very node; a peer's routerID would be the same on every node that it serves.
        let router_id = self.router_id.or(configured).or(self.address);
        let planned = |(name, remote): (String, Result<Option<Remote>, String>)| PeerPlan {
            name,
            bgp_peer: peer.name().to_owned(),
            local_asn: self.asn.map_or(spec.local_asn, Parsed),
            router_id: router_id.map(Parsed),
            refused: match (&remote, router_id) {
                (Err(reason), _) => Some(reason.clone()),
                (Ok(_), None) => Some(NO_ROUTER_ID.to_owned()),
                (Ok(_), Some(_)) => None,
            },
            remote: remote.ok().flatten(),
            spec: spec.clone(),
        };
        locate(peer.name(), spec, found).into_iter().map(planned).collect()
    }
}

const NO_ROUTER_ID: &str = "the node has no router ID: set spec.routerID, the Node annotation \
    plainroute.dev/router-id, or an IPv4 address on the node";

/// Where the routers of a BGPPeer are, by the names of their sessions; one without a place says why, unless they are
/// those who connect.
fn locate(name: &str, spec: &BgpPeerSpec, found: &Found) -> Vec<(String, Result<Option<Remote>, String>)> {
    let alone = |remote: Result<Remote, String>| vec![(name.to_owned(), remote.map(Some))];
    match spec.target() {
        PeerTarget::ListenRange(_) => vec![(name.to_owned(), Ok(None))],
        PeerTarget::Address(address) => alone(Ok(Remote {
            address,
            interface: spec.scope().map(str::to_owned),
            found_by: FoundBy::Configuration,
        })),
        PeerTarget::Interface(interface) => alone(match found.neighbours.get(interface) {
            Some(Ok(address)) => Ok(Remote {
                address: (*address).into(),
                interface: Some(interface.to_owned()),
                found_by: FoundBy::RouterAdvertisement,
            }),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(format!("no router advertisement heard on {interface} yet")),
        }),
        PeerTarget::AutoDiscovery(DiscoveryMode::DefaultGateway) if found.default_gateways.is_empty() => {
            alone(
                Err("no default gateway: the node has no default route by a gateway but its own".to_owned()),
            )
        }
        // Each has its own name from the first on, so that one that comes later changes nothing for the others.
        PeerTarget::AutoDiscovery(DiscoveryMode::DefaultGateway) => {
            let gateways = found.default_gateways.iter().map(|gateway| Remote {
                address: gateway.address,
                interface: gateway.interface.clone(),
                found_by: FoundBy::DefaultGateway,
            });
            gateways.map(|remote| (format!("{name}@{remote}"), Ok(Some(remote)))).collect()
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

pub(super) fn first_ipv4(node: &Node) -> Option<RouterId> {
    node.internal_ips().find_map(|address| match address {
        IpAddr::V4(address) => RouterId::try_from(address).ok(),
        IpAddr::V6(_) => None,
    })
}
