//! The Pods: more than the pools have addresses for, some with fixed addresses, some of StatefulSets that move between nodes; and
//! the checker, which knows what really runs.
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use plainroute_config::{IpPool, Labels};

use super::world::{Event, Sim};
use crate::{Add, Attachment, Input, Ticket, World};

/// A Pod, or the place of one in a StatefulSet: the same name again and again.
pub(super) struct Pod {
    namespace: &'static str,
    name: String,
    uid: u64,
    node: usize,
    fixed: Vec<IpAddr>,
    set: Option<String>,
    attachment: Option<Attachment>,
    attempts: u32,
    /// Whether it is wanted.
    wanted: bool,
}

const NAMESPACES: [&str; 2] = ["erp", "crm"];
const SETS: [(&str, &str, usize); 3] = [("erp", "books", 3), ("crm", "queue", 2), ("crm", "index", 2)];
/// Fixed addresses, of each kind of block.
const FIXED: [(&str, &str); 5] = [
    ("erp", "10.0.0.5"),
    ("erp", "10.0.0.40"),
    ("crm", "10.0.1.3"),
    ("crm", "10.0.1.9"),
    ("crm", "10.0.2.17"),
];

impl Sim {
    pub(super) fn world(&self) -> World {
        self.worlds[usize::from(self.edited)].clone()
    }

    /// The pools, edited or not.
    pub(super) fn make_world(edited: bool) -> World {
        let excluded = if edited { r#","excluded":["10.0.2.5","10.0.2.20"]"# } else { "" };
        let pool = |name: &str, namespace: &str, ranges: &str, size: &str| -> IpPool {
            let text = format!(
                r#"{{"apiVersion":"plainroute.dev/v1alpha1","kind":"IPPool","metadata":{{"name":"{name}"}},"spec":{{
                "ipRanges":[{ranges}]{size},"ipCooldownSeconds":2,
                "namespaceSelector":{{"matchLabels":{{"kubernetes.io/metadata.name":"{namespace}"}}}}}}}}"#
            );
            serde_json::from_str(&text).expect("a pool of the simulation")
        };
        let pools = vec![
            pool("erp", "erp", r#"{"cidr":"10.0.0.0/26"}"#, r#","blockSize":28"#),
            pool("erp6", "erp", r#"{"cidr":"fd00::/121"}"#, r#","blockSize":125"#),
            pool("singles", "crm", r#"{"cidr":"10.0.1.0/28"}"#, r#","blockSize":32"#),
            pool("small", "crm", r#"{"cidr":"10.0.2.0/27"}"#, &format!(r#","blockSize":29{excluded}"#)),
        ];
        let labels = |name: &str| Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]);
        let namespaces = NAMESPACES.map(|name| (name.to_owned(), (labels(name), None)));
        World { pools, namespaces: BTreeMap::from(namespaces), node_labels: Labels::new() }
    }

    /// Whether an address is one of the namespace's pools, edited or not.
    fn is_bound(&self, namespace: &str, address: IpAddr) -> bool {
        let world = &self.worlds[0];
        let matches = |pool: &&IpPool| pool.name() == "erp6" || pool.name() == "erp";
        let of_erp = namespace == "erp";
        let mut pools = world.pools.iter().filter(|pool| matches(pool) == of_erp);
        pools.any(|pool| pool.spec.contains(address))
    }

    pub(super) fn begin_sets(&mut self) {
        for (namespace, set, replicas) in SETS {
            self.sets.insert((namespace.to_owned(), set.to_owned()));
            for replica in 0..replicas {
                self.new_pod(namespace, format!("{set}-{replica}"), Vec::new(), Some(set.to_owned()));
            }
        }
        for (namespace, address) in FIXED {
            // Two that want one address: the second waits.
            for copy in 0..2 {
                let fixed = vec![address.parse().expect("an address of the simulation")];
                self.new_pod(namespace, format!("fixed-{address}-{copy}"), fixed, None);
            }
        }
    }

    fn new_pod(&mut self, namespace: &'static str, name: String, fixed: Vec<IpAddr>, set: Option<String>) {
        let uid = self.number();
        let node = self.rng.usize(0..self.nodes.len());
        let pod = Pod { namespace, name, uid, node, fixed, set, attachment: None, attempts: 0, wanted: true };
        self.pods.push(pod);
        let delay = self.rng.u64(10..3_000);
        self.after(delay, Event::PodStarts(self.pods.len() - 1));
    }

    /// Ordinary Pods come in bursts.
    pub(super) fn arrival(&mut self) {
        if self.quiet {
            return;
        }
        let burst = self.rng.u64(1..6);
        for _ in 0..burst {
            let namespace = NAMESPACES[self.rng.usize(0..NAMESPACES.len())];
            let name = format!("pod-{}", self.next);
            self.new_pod(namespace, name, Vec::new(), None);
        }
        let pause = if self.chaos.events { self.rng.u64(50..1_200) } else { self.rng.u64(600..1_800) };
        self.after(pause, Event::Arrival);
    }

    pub(super) fn pod_starts(&mut self, pod: usize) -> Result<(), String> {
        if self.quiet || !self.pods[pod].wanted || self.pods[pod].attachment.is_some() {
            return Ok(());
        }
        let node = self.pods[pod].node;
        if self.nodes[node].ipam.is_none() {
            self.pod_failed(pod);
            return Ok(());
        }
        let (container, ticket) = (self.number(), Ticket(self.number()));
        let attachment = Attachment { container_id: format!("c{container}"), interface: "eth0".to_owned() };
        let one = &mut self.pods[pod];
        one.attachment = Some(attachment.clone());
        one.attempts += 1;
        let add = Add {
            attachment,
            namespace: one.namespace.to_owned(),
            name: one.name.clone(),
            pod_uid: format!("pod-uid-{}", one.uid),
            fixed: one.fixed.clone(),
            pools: None,
            stateful_set: one.set.clone(),
            patience: Duration::from_secs(10),
        };
        self.nodes[node].tickets.insert(ticket, pod);
        self.feed(node, Input::Add(ticket, add))
    }

    /// The runtime has the addresses: from here on they are in use.
    pub(super) fn pod_lives(
        &mut self,
        pod: usize,
        node: usize,
        addresses: Vec<IpAddr>,
    ) -> Result<(), String> {
        let Some(attachment) = self.pods[pod].attachment.clone() else { return Ok(()) };
        let (namespace, fixed) = (self.pods[pod].namespace, self.pods[pod].fixed.clone());
        let families = if namespace == "erp" { 2 } else { 1 };
        if addresses.len() != families || fixed.iter().any(|address| !addresses.contains(address)) {
            return Err(format!("Pod {namespace}/{} got {addresses:?}", self.pods[pod].name));
        }
        for address in &addresses {
            if !self.is_bound(namespace, *address) {
                return Err(format!("{address} is of no pool of {namespace}"));
            }
            if let Some((other, before)) = self.truth.insert(*address, (node, attachment.clone())) {
                let (one, other) = (&self.nodes[node].name, &self.nodes[other].name);
                return Err(format!(
                    "{address} is held twice: by {before:?} of {other} and {attachment:?} of {one}"
                ));
            }
        }
        self.given += addresses.len() as u64;
        self.nodes[node].sandboxes.insert(attachment, addresses);
        let life =
            if self.rng.u32(0..4) == 0 { self.rng.u64(20_000..90_000) } else { self.rng.u64(50..6_000) };
        self.after(life, Event::PodStops(pod));
        Ok(())
    }

    /// The sandbox did not come to be: it is deleted, and the kubelet tries with another.
    pub(super) fn pod_failed(&mut self, pod: usize) {
        let node = self.pods[pod].node;
        if let Some(attachment) = self.pods[pod].attachment.take() {
            let delay = self.rng.u64(1..500);
            self.after(delay, Event::Deletes { node, attachment });
        }
        let one = &self.pods[pod];
        let again = one.set.is_some() || !one.fixed.is_empty() || one.attempts < 4;
        if again && one.wanted && !self.quiet {
            let delay = self.rng.u64(300..3_000);
            self.after(delay, Event::PodStarts(pod));
        }
    }

    pub(super) fn pod_stops(&mut self, pod: usize) -> Result<(), String> {
        let node = self.pods[pod].node;
        let stays = self.pods[pod].set.is_some() || !self.pods[pod].fixed.is_empty();
        if self.quiet || !stays {
            self.pods[pod].wanted = false;
        }
        if let Some(attachment) = self.pods[pod].attachment.take() {
            self.stop_sandbox(node, &attachment);
            // Now and then nobody tells the agent; the reconciliation has to see it.
            let forgotten = self.chance(if self.chaos.events { 30 } else { 0 });
            if !forgotten {
                self.after(0, Event::Deletes { node, attachment });
            }
        }
        if self.pods[pod].wanted {
            // The next Pod of that name, or of that address, may run anywhere.
            self.pods[pod].uid = self.number();
            self.pods[pod].node = self.rng.usize(0..self.nodes.len());
            let delay = self.rng.u64(1..2_000);
            self.after(delay, Event::PodStarts(pod));
        }
        Ok(())
    }

    fn stop_sandbox(&mut self, node: usize, attachment: &Attachment) {
        for address in self.nodes[node].sandboxes.remove(attachment).into_iter().flatten() {
            self.truth.remove(&address);
        }
    }

    /// The kubelet deletes until it is told that it is done, also what is long gone.
    pub(super) fn deletes(&mut self, node: usize, attachment: Attachment) -> Result<(), String> {
        if self.nodes[node].ipam.is_none() {
            let delay = self.rng.u64(100..2_000);
            self.after(delay, Event::Deletes { node, attachment });
            return Ok(());
        }
        let ticket = Ticket(self.number());
        if self.chaos.events && self.chance(50) {
            self.after(100, Event::Deletes { node, attachment: attachment.clone() });
        }
        self.feed(node, Input::Del(ticket, attachment))
    }

    /// The Pods of a dead node are started elsewhere, once that is known.
    pub(super) fn pods_of_dead(&mut self, node: usize) {
        for pod in 0..self.pods.len() {
            if self.pods[pod].node != node || !self.pods[pod].wanted {
                continue;
            }
            let had = self.pods[pod].attachment.take().is_some();
            if self.pods[pod].set.is_none() && self.pods[pod].fixed.is_empty() {
                self.pods[pod].wanted = false;
                continue;
            }
            self.pods[pod].uid = self.number();
            self.pods[pod].node = self.rng.usize(0..self.nodes.len());
            if had {
                let delay = self.rng.u64(500..5_000);
                self.after(delay, Event::PodStarts(pod));
            }
        }
    }
}
