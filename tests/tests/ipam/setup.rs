//! What the scene's programs are started with.

use std::path::Path;

use anyhow::Result;
use plainroute_tests::kubelab::{ApiServer, Options, User, rights};
use plainroute_tests::netns::Netns;
use serde_json::json;

use super::scene::{ADDRESSES, NODES, TOR};

const USER: &str = "plainroute-agent";

pub(crate) async fn start_api(tor: &Netns) -> Result<ApiServer> {
    let options = Options {
        listen: TOR.parse()?,
        netns: Some(tor.name().to_owned()),
        users: vec![User { name: USER.into(), groups: Vec::new() }],
        standby: true,
        ..Options::default()
    };
    let api = ApiServer::start_with(options).await?;
    let all = ["get", "list", "watch", "create", "update", "delete"];
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["list", "watch"] },
        { "apiGroups": ["plainroute.dev"], "resources": ["bgppeers", "bgpadvertisements", "ippools", "egresses"], "verbs": ["list", "watch"] },
        { "apiGroups": ["plainroute.dev"], "resources": ["ipblocks"], "verbs": all },
        { "apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["get"] },
    ]);
    api.grant(USER, rules, rights::user(USER)).await?;
    Ok(api)
}

pub(crate) fn tor_config() -> String {
    let peer = |(name, address): (&str, &str)| {
        format!(
            "protocol bgp {} {{\n    local {TOR} as 64600; neighbor {address} as 64512; passive;\n    \
             graceful restart aware;\n    ipv4 {{ import all; export none; }};\n}}\n",
            name.replace('-', "_")
        )
    };
    let peers: String = NODES.into_iter().zip(ADDRESSES).map(peer).collect();
    format!(
        "router id {TOR};\nlog stderr all;\nprotocol device {{}}\nprotocol kernel {{ ipv4 {{ import none; export all; }}; }}\n{peers}"
    )
}

pub(crate) fn agent_config(node: &str, disk: &Path, api: &ApiServer) -> String {
    let (disk, kubeconfig) = (disk.display(), api.kubeconfig_of(USER));
    format!(
        r#"
apiVersion: plainroute.dev/v1alpha1
kind: AgentConfig
metadata: {{ name: default }}
spec:
  nodeName: {node}
  source: {{ kubernetes: {{ kubeconfig: {}, status: false }} }}
  adminSocket: {disk}/agent.sock
  stateDir: {disk}/state
  ipam: {{ socket: {disk}/ipam.sock, checkSeconds: 5 }}
"#,
        kubeconfig.display()
    )
}
