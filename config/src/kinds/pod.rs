//! Pod, cut down to what Plainroute reads: a cache of full Pods would cost an order of magnitude more memory.
use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::value::Parsed;

/// A Pod. It is read from and written as a plain Kubernetes manifest; what is not here is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenPod", into = "WrittenPod")]
pub struct Pod {
    /// Who it is. A Pod without a namespace is in `default`.
    pub metadata: Metadata,
    /// The node that it is bound to.
    pub node_name: Option<String>,
    /// Whether it shares the node's network, and so has no address of its own.
    pub host_network: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its addresses, `status.podIPs` or else `status.podIP`.
    pub pod_ips: Vec<IpAddr>,
    /// Whether the condition `Ready` is true.
    pub ready: bool,
    /// Since when the condition `Ready` is as it is, where that is known.
    pub ready_since: Option<Timestamp>,
}

/// Where a Pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Accepted, not all containers run.
    #[default]
    Pending,
    /// Bound, and at least one container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

impl Phase {
    /// Whether the Pod has ended: its address may already be another's.
    pub const fn is_terminal(self) -> bool {
        match self {
            Phase::Succeeded | Phase::Failed => true,
            Phase::Pending | Phase::Running | Phase::Unknown => false,
        }
    }
}

impl Pod {
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The StatefulSet that it is of.
    pub fn stateful_set(&self) -> Option<&str> {
        let mut owners = self.metadata.owner_references.iter();
        let owner = owners.find(|owner| owner.controller && owner.kind == "StatefulSet")?;
        Some(&owner.name)
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.metadata.is_terminating()
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WrittenPod {
    #[serde(default, skip_deserializing)]
    api_version: &'static str,
    #[serde(default, skip_deserializing)]
    kind: &'static str,
    /// Who it is.
    metadata: Metadata,
    /// What was asked for.
    #[serde(default)]
    spec: WrittenSpec,
    /// How it is.
    #[serde(default)]
    status: WrittenStatus,
}

#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct WrittenSpec {
    /// The node that it is bound to. Only Pods of the agent's own node are advertised.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    /// Whether it shares the network of the node; then it has no address of its own to advertise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    host_network: bool,
}

#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct WrittenStatus {
    /// Where the Pod is in its life. One that has ended (`Succeeded`, `Failed`) is not advertised.
    phase: Phase,
    /// Its address; counts where `podIPs` is absent.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pod_ip: Option<Parsed<IpAddr>>,
    /// Its addresses, one of each family at most.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pod_ips: Vec<WrittenPodIp>,
    /// Its conditions, of which `Ready` is read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<WrittenCondition>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct WrittenPodIp {
    /// The address.
    ip: Parsed<IpAddr>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WrittenCondition {
    /// `Ready` is the one that is read.
    r#type: String,
    /// `True` where it holds.
    status: String,
    /// Since when; needed for `withdraw.minReadySeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    last_transition_time: Option<Timestamp>,
}

impl From<WrittenPod> for Pod {
    fn from(written: WrittenPod) -> Self {
        let WrittenStatus { phase, pod_ip, pod_ips, conditions } = written.status;
        let ready = conditions.into_iter().find(|condition| condition.r#type == "Ready");
        let mut pod_ips: Vec<IpAddr> = pod_ips.into_iter().map(|pod_ip| *pod_ip.ip).collect();
        if pod_ips.is_empty() {
            pod_ips.extend(pod_ip.map(|address| *address));
        }
        Pod {
            metadata: written.metadata,
            node_name: written.spec.node_name.filter(|name| !name.is_empty()),
            host_network: written.spec.host_network,
            phase,
            pod_ips,
            ready: ready.as_ref().is_some_and(|condition| condition.status == "True"),
            ready_since: ready.and_then(|condition| condition.last_transition_time),
        }
    }
}

impl From<Pod> for WrittenPod {
    fn from(pod: Pod) -> Self {
        let condition = WrittenCondition {
            r#type: "Ready".to_owned(),
            status: if pod.ready { "True" } else { "False" }.to_owned(),
            last_transition_time: pod.ready_since,
        };
        WrittenPod {
            api_version: "v1",
            kind: "Pod",
            metadata: pod.metadata,
            spec: WrittenSpec { node_name: pod.node_name, host_network: pod.host_network },
            status: WrittenStatus {
                phase: pod.phase,
                pod_ip: pod.pod_ips.first().copied().map(Parsed),
                pod_ips: pod.pod_ips.into_iter().map(|ip| WrittenPodIp { ip: Parsed(ip) }).collect(),
                conditions: vec![condition],
            },
        }
    }
}
