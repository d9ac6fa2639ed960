//! What a node's programs read: containerd's, the kubelet's and libcni's configuration.

use std::path::Path;

use serde_json::{Value, json};

use super::{Options, PodAddresses};

/// Where Debian's containernetworking-plugins are.
pub(super) const PLUGINS: &str = "/usr/lib/cni";

pub(super) fn containerd(plugins: &str, cni: &Path, pause_image: &str) -> String {
    let cni = cni.display();
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
debug = {{ level = "warn" }}
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  # A machine that is itself a container may not lower what it has.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    )
}

/// A veth pair and a host route for each Pod.
pub(super) fn cni(options: &Options<'_>) -> Value {
    let ipam = match options.pod_addresses {
        PodAddresses::Ranges(ranges) => {
            let ranges: Vec<Value> = ranges.iter().map(|range| json!([{ "subnet": range }])).collect();
            json!({ "type": "host-local", "ranges": ranges, "routes": [{ "dst": "0.0.0.0/0" }] })
        }
        PodAddresses::Agent => json!({ "type": "plainroute-ipam" }),
    };
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{ "type": "ptp", "ipMasq": false, "ipam": ipam }],
    })
}

pub(super) fn kubelet() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        "readOnlyPort": 0,
        "resolvConf": "",
        "makeIPTablesUtilChains": false,
        "localStorageCapacityIsolation": false,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // However full the machine's disk is: no test is about that.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        "nodeStatusUpdateFrequency": "5s",
    })
}
