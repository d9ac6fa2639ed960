//! Node, cut down to what Plainroute reads.
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::{selector::Labels, taint::Taint};

/// A Node. What is not here is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenNode", into = "WrittenNode")]
pub struct Node {
    /// Who it is.
    pub metadata: Metadata,
    /// Its addresses, in the order of `status.addresses`, host names left out.
    pub addresses: Vec<NodeAddress>,
    /// Its taints.
    pub taints: Vec<Taint>,
}

/// An IP address of a Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeAddress {
    /// Seen from where.
    pub r#type: AddressType,
    /// The address.
    pub address: IpAddr,
}

/// From where a [`NodeAddress`] is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressType {
    /// From within the cluster.
    #[serde(rename = "InternalIP")]
    InternalIp,
    /// From outside.
    #[serde(rename = "ExternalIP")]
    ExternalIp,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.metadata.labels
    }

    /// Its addresses as the cluster sees them.
    pub fn internal_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter(|a| a.r#type == AddressType::InternalIp).map(|a| a.address)
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WrittenNode {
    #[serde(default, skip_deserializing)]
    api_version: &'static str,
    #[serde(default, skip_deserializing)]
    kind: &'static str,
    /// Who it is.
    metadata: Metadata,
    /// What was asked of it.
    #[serde(default, skip_serializing_if = "WrittenSpec::is_empty")]
    spec: WrittenSpec,
    /// How it is.
    #[serde(default)]
    status: WrittenStatus,
}

#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct WrittenSpec {
    /// Its taints; `AgentConfig.spec.drain.taints` says which of them mean something.
    taints: Vec<Taint>,
}

impl WrittenSpec {
    fn is_empty(&self) -> bool {
        self.taints.is_empty()
    }
}

#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct WrittenStatus {
    /// The addresses of the node; other types than these two are ignored.
    addresses: Vec<WrittenAddress>,
}

/// Host names and kinds of address that are not ours share the list, so the address stays text here.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct WrittenAddress {
    /// `InternalIP` or `ExternalIP`. The first internal IPv4 address is the node's router ID by default.
    r#type: String,
    /// The address.
    address: String,
}

impl From<WrittenNode> for Node {
    fn from(written: WrittenNode) -> Self {
        let address = |written: WrittenAddress| {
            let r#type = match written.r#type.as_str() {
                "InternalIP" => AddressType::InternalIp,
                "ExternalIP" => AddressType::ExternalIp,
                _ => return None,
            };
            Some(NodeAddress { r#type, address: written.address.parse().ok()? })
        };
        let addresses = written.status.addresses.into_iter().filter_map(address).collect();
        Node { metadata: written.metadata, addresses, taints: written.spec.taints }
    }
}

impl From<Node> for WrittenNode {
    fn from(node: Node) -> Self {
        let address = |NodeAddress { r#type, address }: NodeAddress| WrittenAddress {
            r#type: match r#type {
                AddressType::InternalIp => "InternalIP".to_owned(),
                AddressType::ExternalIp => "ExternalIP".to_owned(),
            },
            address: address.to_string(),
        };
        let addresses = node.addresses.into_iter().map(address).collect();
        WrittenNode {
            api_version: "v1",
            kind: "Node",
            metadata: node.metadata,
            spec: WrittenSpec { taints: node.taints },
            status: WrittenStatus { addresses },
        }
    }
}
