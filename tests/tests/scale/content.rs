//! What the cluster is made of. Everything is numbered, and its number says all of it.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// How many of each there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) nodes: u32,
    pub(crate) pods: u32,
    pub(crate) namespaces: u32,
    pub(crate) pools: u32,
    /// Nodes with a real agent: the first ones.
    pub(crate) agents: u32,
    /// Pods of each of these.
    pub(crate) pods_of_agent: u32,
}

impl Size {
    /// What issue and documentation speak of, with as many agents as fit here.
    pub(crate) const FULL: Size =
        Size { nodes: 5000, pods: 100_000, namespaces: 2000, pools: 500, agents: 20, pods_of_agent: 110 };
    /// For every run: what an agent sees is the same, others' Pods are fewer.
    pub(crate) const REDUCED: Size = Size { nodes: 500, pods: 5000, agents: 2, ..Size::FULL };

    /// Whether it is all that was asked for; then the agents are the release build.
    pub(crate) fn is_full(self) -> bool {
        self.pods == Size::FULL.pods
    }

    /// Numbers of the Pods that run on a node with an agent.
    pub(crate) fn pods_of(self, agent: u32) -> std::ops::Range<u32> {
        agent * self.pods_of_agent..(agent + 1) * self.pods_of_agent
    }

    /// Numbers of all other Pods.
    pub(crate) fn others(self) -> std::ops::Range<u32> {
        self.agents * self.pods_of_agent..self.pods
    }

    fn node_of(self, pod: u32) -> String {
        let agent = pod / self.pods_of_agent;
        node_name(if agent < self.agents { agent } else { self.agents + pod % (self.nodes - self.agents) })
    }

    fn namespace_of(self, pod: u32) -> String {
        format!("tenant-{}", pod % self.namespaces)
    }

    /// Each pool has a /23 of 10.64.0.0/12.
    fn address_of(self, pod: u32) -> Ipv4Addr {
        let pool = pod % self.namespaces % self.pools;
        Ipv4Addr::from_bits(FIRST.to_bits() + (pool << 9) + pod / self.pools)
    }

    /// Its key and the object, as kubelet, scheduler and controllers leave it.
    pub(crate) fn pod(self, pod: u32, revision: u32) -> (String, Value) {
        let (namespace, name, address) =
            (self.namespace_of(pod), format!("server-{pod}"), self.address_of(pod));
        let (generate, uid) = ("server-6d5f9c7b8-", format!("00000000-0000-4000-8000-{pod:012}"));
        let probe = |path: &str| {
            json!({
                "httpGet": { "path": path, "port": 8080, "scheme": "HTTP" },
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
            })
        };
        let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": TIME });
        let resources = json!({ "limits": { "cpu": "2", "memory": "1Gi" }, "requests": { "cpu": "500m", "memory": "1Gi" } });
        let environment: Vec<Value> = (0..8)
            .map(|n| json!({ "name": format!("SETTING_{n}"), "value": format!("https://service-{n}.example.org:8443/v1") }))
            .collect();
        let managed = |by: &str, of: &str| {
            json!({
                "manager": by, "operation": "Update", "apiVersion": "v1", "time": TIME, "fieldsType": "FieldsV1",
                "fieldsV1": { format!("f:{of}"): { "f:conditions": { "k:{\"type\":\"Ready\"}": { ".": {}, "f:status": {}, "f:type": {} } },
                    "f:containers": { "k:{\"name\":\"main\"}": { ".": {}, "f:env": {}, "f:image": {}, "f:livenessProbe": {}, "f:name": {} } },
                    "f:hostIP": {}, "f:phase": {}, "f:podIP": {}, "f:podIPs": {}, "f:startTime": {} } },
            })
        };
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": namespace, "generateName": generate, "uid": uid, "creationTimestamp": TIME,
                "labels": { "app.kubernetes.io/name": "server", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6d5f9c7b8",
                    "example.org/revision": revision.to_string() },
                "annotations": { "example.org/checksum": "3f1b7ee7de40ac63ba129d95e238b6c7d5d8c230" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "server-6d5f9c7b8",
                    "uid": "00000000-0000-4000-9000-000000000000", "controller": true, "blockOwnerDeletion": true }],
                "managedFields": [managed("kube-controller-manager", "spec"), managed("kubelet", "status")],
            },
            "spec": {
                "nodeName": self.node_of(pod), "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst", "serviceAccountName": "default", "schedulerName": "default-scheduler",
                "containers": [{
                    "name": "main", "image": "registry.example.org/shop/server:1.2.3", "imagePullPolicy": "IfNotPresent",
                    "ports": [{ "containerPort": 8080, "protocol": "TCP" }], "env": environment, "resources": resources,
                    "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"),
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "volumeMounts": [{ "name": "token", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }],
                }],
                "volumes": [{ "name": "token", "projected": { "defaultMode": 420, "sources": [
                    { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                    { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } }] } }],
                "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }],
            },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "hostIP": "192.0.2.1", "startTime": TIME,
                "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
                "containerStatuses": [{ "name": "main", "ready": true, "restartCount": 0, "started": true,
                    "image": "registry.example.org/shop/server:1.2.3", "imageID": "registry.example.org/shop/server@sha256:0000",
                    "state": { "running": { "startedAt": TIME } }, "lastState": {} }],
                "qosClass": "Burstable",
            },
        });
        (format!("pods/{namespace}/{name}"), object)
    }

    /// Four namespaces belong to a team, which has a pool.
    pub(crate) fn namespace(self, number: u32, revision: u32) -> (String, Value) {
        let name = format!("tenant-{number}");
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name, "uid": format!("00000000-0000-4000-a000-{number:012}"), "creationTimestamp": TIME,
                "labels": { "kubernetes.io/metadata.name": name, "team": format!("team-{}", number % self.pools),
                    "pod-security.kubernetes.io/enforce": "restricted", "example.org/stage": "production",
                    "example.org/revision": revision.to_string() },
                "annotations": { "example.org/contact": "platform@example.org" },
            },
            "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" },
        });
        (format!("namespaces/{name}"), object)
    }

    pub(crate) fn node(self, number: u32) -> (String, Value) {
        let name = node_name(number);
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "uid": format!("00000000-0000-4000-b000-{number:012}"), "creationTimestamp": TIME,
                "labels": { "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": "a" } },
            "spec": {}, "status": { "addresses": [{ "type": "InternalIP", "address": node_address(number) }] },
        });
        (format!("minions/{name}"), object)
    }

    pub(crate) fn pool(self, number: u32) -> (String, Value) {
        let first = Ipv4Addr::from_bits(FIRST.to_bits() + (number << 9));
        let name = format!("team-{number}");
        let uid = format!("00000000-0000-4000-8001-{number:012}");
        let object = json!({
            "apiVersion": "plainroute.dev/v1alpha1", "kind": "IPPool",
            "metadata": { "name": name, "uid": uid, "creationTimestamp": TIME, "generation": 1 },
            "spec": {
                "ipRanges": [{ "cidr": format!("{first}/23") }], "allocation": "External",
                "namespaceSelector": { "matchLabels": { "team": name } },
            },
        });
        (format!("plainroute.dev/ippools/{name}"), object)
    }

    /// Its host route.
    pub(crate) fn prefix(self, pod: u32) -> String {
        format!("{}/32", self.address_of(pod))
    }
}

/// All Pods' addresses lie in this /12.
pub(crate) const RANGE: &str = "10.64.0.0/12";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const TIME: &str = "2026-11-22T11:00:00Z";

pub(crate) fn node_name(number: u32) -> String {
    format!("node-{number}")
}

pub(crate) fn node_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 1, 0).to_bits() + number)
}
