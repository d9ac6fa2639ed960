//! What is applied to the cluster.

use serde_json::{Value, json};

/// The namespace and the name of the DaemonSet, its account and its configuration.
pub(crate) const AGENT_NAMESPACE: &str = "plainroute-system";
pub(crate) const AGENT: &str = "plainroute";
/// The namespace of the Pods whose addresses are advertised.
pub(crate) const NAMESPACE: &str = "erp";
/// One that no pool is bound to.
pub(crate) const OTHER_NAMESPACE: &str = "crm";
/// As scripts/image.sh names it; all crates have one version.
pub(crate) const AGENT_IMAGE: &str = concat!("plainroute.dev/plainroute:", env!("CARGO_PKG_VERSION"));
pub(crate) const TOOLS_IMAGE: &str = "plainroute.test/tools:test";
const METRICS_PORT: u16 = 9179;

/// What the agents read: everything but the Pods, the Namespaces and the Nodes.
pub(crate) fn configuration(tors: [&str; 2], pods: &str, outside: &str) -> Value {
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
            "import": [{ "cidr": outside, "ge": 24, "le": 32, "install": true }],
        });
        object("BGPPeer", name, spec).to_string()
    };
    let agent = json!({
        "source": { "kubernetes": {} },
        "metrics": { "listen": format!("127.0.0.1:{METRICS_PORT}") },
    });
    let pool = json!({
        "ipRanges": [{ "cidr": pods }],
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": NAMESPACE } },
        "allocation": "External",
    });
    json!({
        "metadata": { "name": AGENT },
        "data": {
            "agent.yaml": object("AgentConfig", "default", agent).to_string(),
            "tor-a.yaml": peer("tor-a", tors[0]),
            "tor-b.yaml": peer("tor-b", tors[1]),
            "pods.yaml": object("BGPAdvertisement", "pods", json!({ "types": ["PodIP"] })).to_string(),
            "erp.yaml": object("IPPool", NAMESPACE, pool).to_string(),
        },
    })
}

/// What the agents may ask.
pub(crate) fn cluster_role() -> Value {
    json!({
        "metadata": { "name": AGENT },
        "rules": [
            { "apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["list", "watch"] },
        ],
    })
}

pub(crate) fn cluster_role_binding() -> Value {
    json!({
        "metadata": { "name": AGENT },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": AGENT },
        "subjects": [{ "kind": "ServiceAccount", "name": AGENT, "namespace": AGENT_NAMESPACE }],
    })
}

/// The agents. Nobody plays kube-proxy here, so they are told where the API server is, as agents of the node's network
/// are in clusters whose Services depend on them.
pub(crate) fn daemon_set(api: std::net::SocketAddr) -> Value {
    let host_path = |name: &str, path: &str| json!({ "name": name, "hostPath": { "path": path, "type": "DirectoryOrCreate" } });
    let probe = |path: &str| {
        json!({
            "httpGet": { "host": "127.0.0.1", "port": METRICS_PORT, "path": path },
            "periodSeconds": 1,
        })
    };
    json!({
        "metadata": { "name": AGENT },
        "spec": {
            "selector": { "matchLabels": { "app": AGENT } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "template": {
                "metadata": { "labels": { "app": AGENT } },
                "spec": {
                    "serviceAccountName": AGENT,
                    "hostNetwork": true,
                    "tolerations": [{ "operator": "Exists" }],
                    "containers": [{
                        "name": "agent",
                        "image": AGENT_IMAGE,
                        "args": ["agent", "--config", "/etc/plainroute"],
                        "env": [
                            { "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                            { "name": "KUBERNETES_SERVICE_HOST", "value": api.ip().to_string() },
                            { "name": "KUBERNETES_SERVICE_PORT", "value": api.port().to_string() },
                        ],
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
                            "seccompProfile": { "type": "RuntimeDefault" },
                        },
                        "readinessProbe": probe("/readyz"),
                        "livenessProbe": probe("/healthz"),
                        "volumeMounts": [
                            { "name": "configuration", "mountPath": "/etc/plainroute", "readOnly": true },
                            { "name": "run", "mountPath": "/run/plainroute" },
                            { "name": "state", "mountPath": "/var/lib/plainroute" },
                            { "name": "cni", "mountPath": "/var/lib/cni/results", "readOnly": true },
                        ],
                    }],
                    "volumes": [
                        { "name": "configuration", "configMap": { "name": AGENT } },
                        host_path("run", "/run/plainroute"),
                        host_path("state", "/var/lib/plainroute"),
                        host_path("cni", "/var/lib/cni/results"),
                    ],
                },
            },
        },
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
