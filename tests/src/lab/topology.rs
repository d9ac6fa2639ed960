//! The part of containerlab's topology file that a lab needs, read strictly: what the runner would ignore, it refuses.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// `topology.clab.yml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The lab's name.
    pub name: String,
    topology: Graph,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    #[serde(default)]
    defaults: NodeDefinition,
    #[serde(default)]
    kinds: BTreeMap<Kind, NodeDefinition>,
    nodes: BTreeMap<String, Option<NodeDefinition>>,
    #[serde(default)]
    links: Vec<Link>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A node with namespaces of its own.
    #[default]
    Linux,
    /// A Linux bridge of the node's name in the host node.
    Bridge,
    /// The host. In this runner a namespace beside the nodes, so that the real host is left alone.
    Host,
}

/// What a container engine gives to a container that asks for nothing (capabilities(7); the default of Docker and containerd).
const CONTAINER_CAPABILITIES: [&str; 14] = [
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "net_raw",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
];

/// A node after defaults and kind are merged into it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeDefinition {
    /// What it is.
    pub kind: Option<Kind>,
    /// The container image; what this runner starts in its place is told by its name.
    pub image: Option<String>,
    /// The command that replaces the image's own.
    pub cmd: Option<String>,
    /// Commands run once the links are there.
    #[serde(default)]
    pub exec: Vec<String>,
    /// `source:target[:ro]`, the source relative to the topology file.
    #[serde(default)]
    pub binds: Vec<String>,
    /// Environment of the command and of `exec`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Kernel settings of the node's network namespace.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// containerlab's management network. Only `none` can be had here.
    pub network_mode: Option<String>,
    /// Capabilities that the command has beside a container's usual ones, if it is not privileged.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// Whether the command has all capabilities, which is the default.
    pub privileged: Option<bool>,
    /// A group for drawings; no meaning here.
    pub group: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    endpoints: [String; 2],
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The node's name.
    pub node: String,
    /// The interface's name.
    pub interface: String,
}

impl Topology {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Topology> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Topology> {
        let topology: Topology = serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
        let nodes = topology.nodes();
        for (name, node) in &nodes {
            if let Some(mode) = node.network_mode.as_deref().filter(|mode| *mode != "none") {
                bail!("node {name}: network-mode {mode}: this runner has no management network");
            }
            ensure!(
                node.kind() == Kind::Linux
                    || (node.cmd.is_none() && node.exec.is_empty() && node.binds.is_empty()),
                "node {name}: a bridge or host has no cmd, exec or binds"
            );
        }
        for (a, b) in topology.links()? {
            for end in [&a, &b] {
                ensure!(nodes.contains_key(&end.node), "link of an unknown node {}", end.node);
                ensure!(end.interface.len() < 16, "interface name {} is too long for Linux", end.interface);
            }
        }
        Ok(topology)
    }

    /// The nodes, complete.
    pub fn nodes(&self) -> BTreeMap<String, NodeDefinition> {
        let complete = |node: &Option<NodeDefinition>| {
            let node = node.clone().unwrap_or_default();
            let defaults = &self.topology.defaults;
            let kind = node.kind.or(defaults.kind).unwrap_or_default();
            let of_kind = self.topology.kinds.get(&kind).cloned().unwrap_or_default();
            NodeDefinition { kind: Some(kind), ..node.over(&of_kind).over(defaults) }
        };
        self.topology.nodes.iter().map(|(name, node)| (name.clone(), complete(node))).collect()
    }

    /// The links' ends.
    pub fn links(&self) -> Result<Vec<(Endpoint, Endpoint)>> {
        let end = |text: &str| -> Result<Endpoint> {
            let (node, interface) =
                text.split_once(':').with_context(|| format!("endpoint {text}: want node:interface"))?;
            Ok(Endpoint { node: node.to_owned(), interface: interface.to_owned() })
        };
        self.topology.links.iter().map(|Link { endpoints: [a, b] }| Ok((end(a)?, end(b)?))).collect()
    }
}

impl NodeDefinition {
    /// What it is; `linux` unless told.
    pub fn kind(&self) -> Kind {
        self.kind.unwrap_or_default()
    }

    /// The capabilities that the node's command may have; none: all.
    pub(crate) fn capabilities(&self) -> Option<Vec<String>> {
        let name = |name: &str| name.trim_start_matches("CAP_").to_lowercase();
        let usual = CONTAINER_CAPABILITIES.into_iter().map(str::to_owned);
        (self.privileged == Some(false))
            .then(|| usual.chain(self.cap_add.iter().map(|added| name(added))).collect())
    }

    /// containerlab's merge: lists add up, maps merge, of single values the node's own wins.
    fn over(self, below: &NodeDefinition) -> NodeDefinition {
        let list = |own: Vec<String>, below: &[String]| -> Vec<String> {
            below.iter().cloned().chain(own).collect()
        };
        let map = |own: BTreeMap<String, String>, below: &BTreeMap<String, String>| {
            let mut merged = below.clone();
            merged.extend(own);
            merged
        };
        NodeDefinition {
            kind: self.kind.or(below.kind),
            image: self.image.or_else(|| below.image.clone()),
            cmd: self.cmd.or_else(|| below.cmd.clone()),
            exec: list(self.exec, &below.exec),
            binds: list(self.binds, &below.binds),
            env: map(self.env, &below.env),
            sysctls: map(self.sysctls, &below.sysctls),
            network_mode: self.network_mode.or_else(|| below.network_mode.clone()),
            cap_add: list(self.cap_add, &below.cap_add),
            privileged: self.privileged.or(below.privileged),
            group: self.group.or_else(|| below.group.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
name: two
topology:
  defaults: { network-mode: none, sysctls: { net.ipv4.ip_forward: 1 } }
  kinds:
    linux: { image: netshoot }
  nodes:
    a:
      sysctls: { net.ipv4.conf.all.rp_filter: 0 }
    b: { kind: linux, image: frr, exec: [ip link] }
    rack: { kind: bridge }
  links:
    - endpoints: [\"a:eth1\", \"b:eth1\"]
";

    #[test]
    fn a_node_inherits_from_its_kind_and_the_defaults() {
        let topology = Topology::parse(TWO).unwrap();
        let nodes = topology.nodes();
        assert_eq!(nodes["a"].image.as_deref(), Some("netshoot"));
        assert_eq!(nodes["a"].sysctls.len(), 2);
        assert_eq!(nodes["b"].image.as_deref(), Some("frr"));
        assert_eq!(nodes["rack"].kind(), Kind::Bridge);
        assert_eq!(topology.links().unwrap()[0].1, Endpoint { node: "b".into(), interface: "eth1".into() });
    }

    #[test]
    fn what_the_runner_would_ignore_is_refused() {
        for (from, to, expected) in [
            ("exec: [ip link]", "startup-delay: 5", "startup-delay"),
            ("\"a:eth1\"", "\"c:eth1\"", "unknown node c"),
            ("\"a:eth1\"", "\"a-eth1\"", "want node:interface"),
            ("kind: bridge", "kind: bridge, cmd: x", "no cmd"),
            ("network-mode: none", "network-mode: host", "no management network"),
        ] {
            let error = format!("{:#}", Topology::parse(&TWO.replace(from, to)).unwrap_err());
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
