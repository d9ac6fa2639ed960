//! What the ToR and the agents are told.

use std::fmt::Write as _;
use std::path::Path;

use plainroute_tests::kubelab::ApiServer;

use super::cluster::{A, B, HOLD_TIME, Scene, TOR, USER, protocol};

pub(super) fn tor_config(scene: &Scene) -> String {
    let mut config = format!(
        "router id {TOR};\nlog stderr all;\nprotocol device {{}}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n"
    );
    let shutdown = "if (65535, 0) ~ bgp_community then bgp_local_pref = 0;";
    let shutdown = if scene.tor_heeds_shutdown { shutdown } else { "" };
    for ((node, address), helps) in [("node-a", A), ("node-b", B)].into_iter().zip(scene.tor_helps) {
        let restart = if helps { "aware" } else { "off" };
        let name = protocol(node);
        write!(
            config,
            "protocol bgp {name} {{\n\
             \x20   debug {{ states, routes, events }};\n\
             \x20   local {TOR} as 64600; neighbor {address} as 64512; passive;\n\
             \x20   graceful restart {restart};\n\
             \x20   ipv4 {{ import filter {{ {shutdown} accept; }}; export none; }};\n\
             }}\n"
        )
        .expect("a String takes all");
    }
    config
}

pub(super) fn agent_config(node: &str, disk: &Path, api: &ApiServer, scene: &Scene, index: usize) -> String {
    let disk = disk.display();
    let kubeconfig = api.kubeconfig_of(USER);
    let kubeconfig = kubeconfig.display();
    let status = scene.status;
    let kinds = if scene.kinds_in_files[index] { kinds(scene, index) } else { String::new() };
    format!(
        r#"
apiVersion: plainroute.dev/v1alpha1
kind: AgentConfig
metadata: {{ name: default }}
spec:
  nodeName: {node}
  source: {{ kubernetes: {{ kubeconfig: {kubeconfig}, status: {status} }} }}
  adminSocket: {disk}/agent.sock
  stateDir: {disk}/state
  drain: {{ taints: ["maintenance:NoSchedule"], waitSeconds: 2 }}
{kinds}"#
    )
}

/// The objects of our own kinds, as YAML.
pub(super) fn kinds(scene: &Scene, index: usize) -> String {
    let hold_time = HOLD_TIME.as_secs();
    let restart_time = scene.restart_time[index];
    let withdraw = scene.withdraw;
    format!(
        r#"---
apiVersion: plainroute.dev/v1alpha1
kind: BGPPeer
metadata: {{ name: tor }}
spec:
  localASN: 64512
  peerASN: 64600
  peerAddress: {TOR}
  families: [ipv4-unicast]
  timers: {{ connectRetryTimeSeconds: 1, holdTimeSeconds: {hold_time}, keepAliveTimeSeconds: 2 }}
  gracefulRestart: {{ enabled: true, restartTimeSeconds: {restart_time} }}
---
apiVersion: plainroute.dev/v1alpha1
kind: BGPAdvertisement
metadata: {{ name: pods }}
spec:
  types: [PodIP]
  withdraw: {withdraw}
---
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: {{ name: erp }}
spec:
  ipRanges: [{{ cidr: 10.20.0.0/24 }}]
  namespaceSelector: {{ matchLabels: {{ team: erp }} }}
  allocation: External
---
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: {{ name: crm }}
spec:
  ipRanges: [{{ cidr: 10.30.0.0/24 }}]
  namespaceSelector: {{ matchLabels: {{ team: crm }} }}
  allocation: External
"#
    )
}
