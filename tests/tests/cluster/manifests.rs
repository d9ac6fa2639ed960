//! What is applied to the cluster.

use std::net::SocketAddr;

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
pub(crate) const TOOLS_IMAGE: &str = "plainroute.test/tools:test";

/// What a platform team gives the chart. Nobody plays kube-proxy here, so the agents are told where the API server is, as
/// agents of the node's network are in clusters whose Services depend on them.
pub(crate) fn values(api: SocketAddr, tors: [&str; 2], pods: &str, outside: &str) -> Value {
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "plainroute.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        })
    };
    let peer = |name: &str, address: &str| {
        let spec = json!({
            "localASN": 64512,
            "peerASN": 64600,
            "peerAddress": address,
            "families": ["ipv4-unicast"],
            "timers": { "connectRetryTimeSeconds": 1, "holdTimeSeconds": 9, "keepAliveTimeSeconds": 3 },
            "gracefulRestart": { "enabled": true, "restartTimeSeconds": 60 },
            // Slow, so that a busy machine is no failure.
            "bfd": { "receiveIntervalMilliseconds": 500, "transmitIntervalMilliseconds": 500, "detectMultiplier": 5 },
            "import": [{ "cidr": outside, "ge": 24, "le": 32, "install": true }],
        });
        object("BGPPeer", name, spec)
    };
    let pool = json!({
        "ipRanges": [{ "cidr": pods }],
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": NAMESPACE } },
        "allocation": "External",
    });
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

/// A Deployment of Pods that do nothing but have an address, and take eight seconds to end.
pub(crate) fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 8,
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
