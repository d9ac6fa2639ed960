//! One object of any kind, and the key under which the index keeps it.
use std::fmt;

use serde::{Serialize, Serializer};

use super::{
    API_VERSION, AgentConfig, BgpAdvertisement, BgpPeer, Egress, IpBlock, IpPool, Metadata, Namespace, Node,
    Pod,
};

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`AgentConfig`].
    AgentConfig,
    /// [`BgpPeer`].
    BgpPeer,
    /// [`BgpAdvertisement`].
    BgpAdvertisement,
    /// [`IpPool`].
    IpPool,
    /// [`Egress`].
    Egress,
    /// [`Pod`].
    Pod,
    /// [`Namespace`].
    Namespace,
    /// [`Node`].
    Node,
    /// [`NodeState`](super::NodeState), which agents write. No [`Object`] is of this kind.
    NodeState,
    /// [`IpBlock`](super::IpBlock), which agents write in a cluster.
    IpBlock,
}

impl Kind {
    /// Those that files may hold: what users write.
    pub const IN_FILES: [Kind; 9] = [
        Kind::AgentConfig,
        Kind::BgpPeer,
        Kind::BgpAdvertisement,
        Kind::IpPool,
        Kind::IpBlock,
        Kind::Egress,
        Kind::Pod,
        Kind::Namespace,
        Kind::Node,
    ];

    /// Those that agents write, in a cluster only.
    pub const WRITTEN_BY_AGENTS: [Kind; 1] = [Kind::NodeState];

    /// As `kind` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::AgentConfig => "AgentConfig",
            Kind::BgpPeer => "BGPPeer",
            Kind::BgpAdvertisement => "BGPAdvertisement",
            Kind::IpPool => "IPPool",
            Kind::Egress => "Egress",
            Kind::Pod => "Pod",
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::NodeState => "NodeState",
            Kind::IpBlock => "IPBlock",
        }
    }

    /// As `apiVersion` says it.
    pub const fn api_version(self) -> &'static str {
        match self {
            Kind::AgentConfig
            | Kind::BgpPeer
            | Kind::BgpAdvertisement
            | Kind::IpPool
            | Kind::Egress
            | Kind::NodeState
            | Kind::IpBlock => API_VERSION,
            Kind::Pod | Kind::Namespace | Kind::Node => "v1",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::IN_FILES.into_iter().chain(Kind::WRITTEN_BY_AGENTS).find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// An object of any kind that users write.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "each variant is the kind of its name")]
pub enum Object {
    AgentConfig(AgentConfig),
    BgpPeer(Box<BgpPeer>),
    BgpAdvertisement(BgpAdvertisement),
    IpPool(IpPool),
    IpBlock(Box<IpBlock>),
    Egress(Egress),
    Pod(Pod),
    Namespace(Namespace),
    Node(Node),
}

impl Object {
    /// An object of the kind from its JSON, with every rule checked.
    pub fn from_json(kind: Kind, json: &str) -> serde_json::Result<Object> {
        Ok(match kind {
            Kind::AgentConfig => Object::AgentConfig(serde_json::from_str(json)?),
            Kind::BgpPeer => Object::BgpPeer(serde_json::from_str(json)?),
            Kind::BgpAdvertisement => Object::BgpAdvertisement(serde_json::from_str(json)?),
            Kind::IpPool => Object::IpPool(serde_json::from_str(json)?),
            Kind::IpBlock => Object::IpBlock(serde_json::from_str(json)?),
            Kind::Egress => Object::Egress(serde_json::from_str(json)?),
            Kind::Pod => Object::Pod(serde_json::from_str(json)?),
            Kind::Namespace => Object::Namespace(serde_json::from_str(json)?),
            Kind::Node => Object::Node(serde_json::from_str(json)?),
            Kind::NodeState => {
                return Err(serde::de::Error::custom(format!("{kind} is what agents write")));
            }
        })
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Object::AgentConfig(_) => Kind::AgentConfig,
            Object::BgpPeer(_) => Kind::BgpPeer,
            Object::BgpAdvertisement(_) => Kind::BgpAdvertisement,
            Object::IpPool(_) => Kind::IpPool,
            Object::IpBlock(_) => Kind::IpBlock,
            Object::Egress(_) => Kind::Egress,
            Object::Pod(_) => Kind::Pod,
            Object::Namespace(_) => Kind::Namespace,
            Object::Node(_) => Kind::Node,
        }
    }

    /// Who it is.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Object::AgentConfig(object) => &object.metadata,
            Object::BgpPeer(object) => &object.metadata,
            Object::BgpAdvertisement(object) => &object.metadata,
            Object::IpPool(object) => &object.metadata,
            Object::IpBlock(object) => &object.metadata,
            Object::Egress(object) => &object.metadata,
            Object::Pod(object) => &object.metadata,
            Object::Namespace(object) => &object.metadata,
            Object::Node(object) => &object.metadata,
        }
    }

    /// What tells it from every other object at one time.
    pub fn key(&self) -> ObjectKey {
        let namespace = match self {
            Object::Pod(pod) => Some(pod.namespace().to_owned()),
            Object::AgentConfig(_)
            | Object::BgpPeer(_)
            | Object::BgpAdvertisement(_)
            | Object::IpPool(_)
            | Object::IpBlock(_)
            | Object::Egress(_)
            | Object::Namespace(_)
            | Object::Node(_) => None,
        };
        ObjectKey { kind: self.kind(), namespace, name: self.metadata().name.clone() }
    }
}

macro_rules! object_from {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Object {
            fn from(object: $kind) -> Object {
                Object::$kind(object)
            }
        }
    )*};
}
object_from!(AgentConfig, BgpAdvertisement, IpPool, Egress, Pod, Namespace, Node);

impl From<IpBlock> for Object {
    fn from(block: IpBlock) -> Object {
        Object::IpBlock(Box::new(block))
    }
}

impl From<BgpPeer> for Object {
    fn from(peer: BgpPeer) -> Object {
        Object::BgpPeer(Box::new(peer))
    }
}

/// What tells an object from every other at one time. Written `BGPPeer/tor-a` or `Pod/erp/app-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The namespace; of Pods only.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
