//! What of the snapshot gives addresses out: the pools, this node's Pods and their namespaces, and the sandboxes that run.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use plainroute_blocks::{Attachment, Holdings, Observation, World};
use plainroute_config::{IpBlockSpec, Namespace, Node, Pod, annotation};

use super::PoolNotes;
use crate::{index::Snapshot, plan::names, source::SourceName};

/// What the main task tells the IPAM's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    pub(super) world: World,
    /// The IPBlocks of files that are this node's.
    pub(super) documents: Vec<IpBlockSpec>,
    pods: BTreeMap<(String, String), KnownPod>,
    /// The sandboxes of which the CNI has a record, with the Pod of each.
    sandboxes: BTreeMap<Attachment, Sandbox>,
}

/// What a Pod says of its addresses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KnownPod {
    pub(super) uid: Option<String>,
    /// The addresses of its annotation, or why that cannot be read.
    pub(super) fixed: Result<Vec<IpAddr>, String>,
    pub(super) pools: Option<Vec<String>>,
    pub(super) stateful_set: Option<String>,
    /// Those of its status.
    pub(super) addresses: Vec<IpAddr>,
    live: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Sandbox {
    pod: (String, String),
    addresses: Vec<IpAddr>,
}

impl Known {
    /// By what is declared. The pools that the notes refuse give no addresses out.
    pub(crate) fn new(snapshot: &Snapshot, notes: &PoolNotes, node: &str) -> Known {
        let here = |pod: &&Pod| pod.node_name.as_deref() == Some(node) && !pod.host_network;
        let pods: BTreeMap<_, _> = snapshot
            .pods()
            .map(|(pod, _)| pod)
            .filter(here)
            .map(|pod| ((pod.namespace().to_owned(), pod.name().to_owned()), KnownPod::new(pod)))
            .collect();
        let names: BTreeSet<&String> = pods.keys().map(|(namespace, _)| namespace).collect();
        let namespace = |name: &String| {
            let unknown = Namespace::named(name);
            let namespace = snapshot.namespace(name).unwrap_or(&unknown);
            let pools = namespace.metadata.annotation(annotation::IP_POOLS).map(list);
            (name.clone(), (namespace.labels().clone(), pools))
        };
        let pools = snapshot.pools().map(|(pool, _)| pool);
        let ours = pools.filter(|pool| pool.spec.is_in_blocks() && !notes.refused.contains_key(pool.name()));
        let world = World {
            pools: ours.cloned().collect(),
            namespaces: names.into_iter().map(namespace).collect(),
            node_labels: snapshot.node(node).map(Node::labels).cloned().unwrap_or_default(),
        };
        let sandboxes = snapshot.host_links().iter().map(|link| {
            let (container_id, interface) = (link.container_id.clone(), link.pod_interface.clone());
            let pod = (link.namespace.clone(), link.name.clone());
            (Attachment { container_id, interface }, Sandbox { pod, addresses: link.addresses.clone() })
        });
        let of_files = snapshot.blocks().filter(|(_, source)| *source == SourceName::Files);
        let documents = of_files.map(|(block, _)| &block.spec).filter(|spec| spec.node == node);
        Known { documents: documents.cloned().collect(), pods, sandboxes: sandboxes.collect(), world }
    }

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<&KnownPod> {
        self.pods.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The Pods that have not ended, by namespace and name.
    pub(super) fn live_pods(&self) -> impl Iterator<Item = (&str, &str, &KnownPod)> {
        let pods = self.pods.iter().filter(|(_, pod)| pod.live);
        pods.map(|((namespace, name), pod)| (namespace.as_str(), name.as_str(), pod))
    }

    /// The sandboxes of which the CNI has a record, with the Pod and the addresses of each.
    pub(super) fn sandboxes(&self) -> impl Iterator<Item = (&Attachment, &(String, String), &[IpAddr])> {
        self.sandboxes
            .iter()
            .map(|(attachment, sandbox)| (attachment, &sandbox.pod, sandbox.addresses.as_slice()))
    }

    /// What is seen to run. A sandbox of which the CNI has no record counts as well, as long as its Pod lives and there is no
    /// record of another one in its place: it may be about to be made.
    pub(super) fn observe(&self, holdings: &Holdings) -> Observation {
        let mut sandboxes: BTreeMap<Attachment, Vec<IpAddr>> = self
            .sandboxes
            .iter()
            .map(|(attachment, sandbox)| (attachment.clone(), sandbox.addresses.clone()))
            .collect();
        for (address, holder) in holdings.held.iter() {
            let attachment = holder.attachment();
            if self.sandboxes.contains_key(&attachment) {
                continue;
            }
            let name = (holder.namespace.clone(), holder.name.clone());
            let lives = self.pods.get(&name).is_some_and(|pod| pod.is(&holder.pod_uid) && pod.live);
            let followed = self
                .sandboxes
                .iter()
                .any(|(other, sandbox)| sandbox.pod == name && other.interface == attachment.interface);
            if lives && !followed {
                sandboxes.entry(attachment).or_default().push(*address);
            }
        }
        Observation { sandboxes, stateful_sets: None }
    }
}

impl KnownPod {
    fn new(pod: &Pod) -> KnownPod {
        let fixed = pod.metadata.annotation(annotation::IP).unwrap_or_default();
        let address = |text: &str| {
            let wrong = |_| format!("the Pod's annotation {}: `{text}` is not an address", annotation::IP);
            text.parse::<IpAddr>().map_err(wrong)
        };
        KnownPod {
            uid: pod.metadata.uid.clone(),
            fixed: list(fixed)
                .iter()
                .map(|text| address(text))
                .collect::<Result<_, _>>()
                .and_then(one_a_family),
            pools: pod.metadata.annotation(annotation::IP_POOLS).map(list),
            stateful_set: pod.stateful_set().map(str::to_owned),
            addresses: pod.pod_ips.clone(),
            live: !pod.phase.is_terminal(),
        }
    }

    /// Whether it is the Pod of this UID. One from a file has none.
    pub(super) fn is(&self, uid: &str) -> bool {
        self.uid.as_ref().is_none_or(|own| own == uid)
    }
}

fn one_a_family(addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
    let of_v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    if of_v4 > 1 || addresses.len() - of_v4 > 1 {
        return Err(format!("the Pod's annotation {} names two addresses of one family", annotation::IP));
    }
    Ok(addresses)
}

fn list(text: &str) -> Vec<String> {
    names(text).map(str::to_owned).collect()
}
