//! NodeState: what the agent of one node says of itself. Its agent alone writes it, and only when something in it has
//! changed: nobody learns from it that the agent is alive.
use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use plainroute_bgp::{AfiSafi, Asn};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};

use super::{API_VERSION, Condition, Kind, Metadata, Status};
use crate::value::Parsed;

/// The state of one node, of the node's name. It has no spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Who it is.
    pub metadata: Metadata,
    /// What its agent says.
    pub status: NodeStateStatus,
}

/// What the agent of the node says of itself. It writes what has changed, so an old time says nothing against it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStateStatus {
    /// The version of the agent.
    pub agent_version: String,
    /// Its BGP sessions.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["peer"]))]
    pub sessions: Vec<SessionState>,
    /// What it advertises.
    pub advertised: Advertised,
    /// The egress IPs that it holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address"]))]
    pub egress: Vec<EgressHeld>,
    /// How many Pods of the node have an address that is not advertised although a pool or an advertisement is about it.
    pub refused_pods: u32,
    /// How many deletions are held back because too many came at once, until an operator confirms them.
    pub held: u32,
    /// How far the node is drained.
    pub drain: DrainPhase,
    /// The time of the snapshot from before a restart that is in force while the API server cannot be reached. Absent:
    /// what is in force is the API server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub snapshot_time: Option<Timestamp>,
    /// Where objects come from, and what is wrong there.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub sources: Vec<SourceState>,
    /// What this node has to say about objects.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub objects: Vec<ObjectState>,
    /// What holds for the node and what does not, one of each type: `Ready`, `InSync`, `SessionsEstablished`.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A BGP session of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionState {
    /// The peer: the BGPPeer's name, or `NAME@ADDRESS` where it was found or came by itself.
    pub peer: String,
    /// The BGPPeer.
    pub bgp_peer: String,
    /// The peer's address. Absent while it is not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<IpAddr>,
    /// The peer's AS number.
    #[schemars(with = "u32")]
    pub asn: Parsed<Asn>,
    /// The state of RFC 4271 section 8.2.2, or `Listening` for a range.
    pub state: String,
    /// When the session entered it; of an Established one, since when it is up.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Why the last session ended or could not begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The families that were agreed on.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub families: Vec<Parsed<AfiSafi>>,
    /// How many prefixes of the peer are accepted.
    #[serde(default)]
    pub prefixes_received: u32,
    /// How many prefixes the peer was sent.
    #[serde(default)]
    pub prefixes_sent: u32,
    /// The state of BFD with the peer (RFC 5880 section 4.1), where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<String>,
}

/// What a node advertises, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Advertised {
    /// Pods with an address that is advertised.
    pub pods: u32,
    /// Addresses of Pods.
    #[serde(rename = "podIPs")]
    pub pod_ips: u32,
    /// Prefixes altogether.
    pub prefixes: u32,
}

/// An egress IP that a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressHeld {
    /// The address.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// The Egress.
    pub egress: String,
    /// The node's place among those who hold it; 0 is the preferred one.
    pub rank: u32,
    /// Whether the node advertises it.
    pub advertised: bool,
}

/// How far a node is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainPhase {
    /// Not at all.
    #[default]
    Active,
    /// Its routes are marked as about to go.
    Draining,
    /// Its routes are withdrawn.
    Drained,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceState {
    /// The source: `files`, `kubernetes`, and so on.
    pub name: String,
    /// What is wrong with it. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Something that a node has to say about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectState {
    /// The object's kind.
    pub kind: String,
    /// The object's name; of a Pod `NAMESPACE/NAME`.
    pub name: String,
    /// What kind of thing it is, in one word.
    pub reason: String,
    /// What it is, in a sentence.
    pub message: String,
}

impl Status for NodeStateStatus {
    const KIND: Kind = Kind::NodeState;
}

impl Serialize for NodeState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("NodeState", 4)?;
        object.serialize_field("apiVersion", API_VERSION)?;
        object.serialize_field("kind", Kind::NodeState.name())?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("status", &self.status)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for NodeState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            #[serde(borrow)]
            api_version: Cow<'a, str>,
            #[serde(borrow)]
            kind: Cow<'a, str>,
            metadata: Metadata,
            #[serde(default)]
            status: NodeStateStatus,
        }
        let Envelope { api_version, kind, metadata, status } = Envelope::deserialize(deserializer)?;
        if api_version != API_VERSION || kind != Kind::NodeState.name() {
            let wanted = Kind::NodeState;
            let message = format!("this is {kind} of {api_version}, not {wanted} of {API_VERSION}");
            return Err(de::Error::custom(message));
        }
        Ok(NodeState { metadata, status })
    }
}
