//! What is applied to the cluster.

use std::net::SocketAddr;

use plainroute_tests::kubenode::CNI_BIN;
use serde_json::{Value, json};

/// The namespace and the name of the release, and of all that the chart makes but the BFD process.
pub(crate) const AGENT_NAMESPACE: &str = "plainroute-system";
pub(crate) const AGENT: &str = "plainroute";
/// The labels of the agents' Pods.
pub(crate) const AGENTS: &str = "app.kubernetes.io/instance=plainroute,app.kubernetes.io/component=agent";
/// The labels of the Pods of the Deployments.
pub(crate) const WEB: &str = "app=web";
/// The namespace of the Pods whose addresses are advertised.
pub(crate) const NAMESPACE: &str = "erp";
/// One that no pool is bound to.
pub(crate) const OTHER_NAMESPACE: &str = "crm";
/// The pools of both, where the agents give the addresses out.
pub(crate) const POOLS: [(&str, &str); 2] = [(NAMESPACE, "10.20.0.0/24"), (OTHER_NAMESPACE, "10.30.0.0/24")];
pub(crate) const TOOLS_IMAGE: &str = "plainroute.test/tools:test";

/// What a platform team gives the chart. Nobody plays kube-proxy here, so the agents are told where the API server is, as
/// agents of the node's network are in clusters whose Services depend on them.
pub(crate) fn values(api: SocketAddr, tors: [&str; 2], pods: &str, outside: &str) -> Value {
    let timers = json!({ "connectRetryTimeSeconds": 1, "holdTimeSeconds": 9, "keepAliveTimeSeconds": 3 });
    let peer = |name: &str, address: &str| {
        let mut peer = peer(name, address, outside, &timers);
        // Slow, so that a busy machine is no failure.
        peer["spec"]["bfd"] = json!({
            "receiveIntervalMilliseconds": 500, "transmitIntervalMilliseconds": 500, "detectMultiplier": 5,
        });
        peer
    };
    let pool = json!({ "ipRanges": [{ "cidr": pods }], "namespaceSelector": named(NAMESPACE), "allocation": "External" });
    json!({
        "apiServer": { "host": api.ip().to_string(), "port": api.port() },
        "minReadySeconds": 0,
        "objects": [
            peer("tor-a", tors[0]),
            peer("tor-b", tors[1]),
            object("BGPAdvertisement", "pods", json!({ "types": ["PodIP"] })),
            object("IPPool", NAMESPACE, pool),
        ],
    })
}

/// The same where the agents give the addresses out: a pool for each namespace. Here nothing is about BFD or hold times.
pub(crate) fn values_with_ipam(api: SocketAddr, tors: [&str; 2], outside: &str) -> Value {
    let timers = json!({ "connectRetryTimeSeconds": 1, "holdTimeSeconds": 60, "keepAliveTimeSeconds": 20 });
    let pool = |(namespace, range): (&str, &str)| {
        object(
            "IPPool",
            namespace,
            json!({
                "ipRanges": [{ "cidr": range }], "namespaceSelector": named(namespace),
                "allocation": "Block", "blockSize": 29, "ipCooldownSeconds": 2,
            }),
        )
    };
    let [erp, crm] = POOLS.map(pool);
    json!({
        "apiServer": { "host": api.ip().to_string(), "port": api.port() },
        "minReadySeconds": 0,
        "ipam": { "enabled": true, "cniBinDir": CNI_BIN },
        "objects": [
            peer("tor-a", tors[0], outside, &timers),
            peer("tor-b", tors[1], outside, &timers),
            object("BGPAdvertisement", "blocks", json!({ "types": ["PodBlock"] })),
            erp,
            crm,
        ],
    })
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "plainroute.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    })
}

fn peer(name: &str, address: &str, outside: &str, timers: &Value) -> Value {
    let spec = json!({
        "localASN": 64512,
        "peerASN": 64600,
        "peerAddress": address,
        "families": ["ipv4-unicast"],
        "timers": timers,
        "gracefulRestart": { "enabled": true, "restartTimeSeconds": 60 },
        "import": [{ "cidr": outside, "ge": 24, "le": 32, "install": true }],
    });
    object("BGPPeer", name, spec)
}

fn named(namespace: &str) -> Value {
    json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } })
}

/// A Deployment of Pods that do nothing but have an address, and take so many seconds to end.
pub(crate) fn deployment(name: &str, replicas: u32, grace: u32) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": grace,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": { "matchLabels": { "app": name } },
                    }],
                    "containers": [{
                        "name": "main",
                        "image": TOOLS_IMAGE,
                        // Process 1 without a trap does not hear SIGTERM.
                        "command": ["/bin/sleep", "1000000"],
                    }],
                },
            },
        },
    })
}

/// A StatefulSet of one such Pod.
pub(crate) fn stateful_set(name: &str) -> Value {
    let mut set = deployment(name, 1, 1);
    set["spec"]["serviceName"] = json!(name);
    set
}
