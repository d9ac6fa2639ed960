//! Labs: a containerlab topology realised with the kernel's namespaces and the host's packages, without a container engine.
//!
//! [`Lab::up`] builds one. A lab that is *bound* ends with this process, whatever ends it; one that is *left running* is
//! found again by [`Lab::find`] through its state in `/run/plainroute-lab`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

mod check;
pub mod expect;
mod image;
mod node;
pub mod probe;
pub mod run;
pub mod tell;
mod topology;

pub use expect::Expectations;
pub use image::Image;
pub use node::Node;
pub use topology::{Kind, NodeDefinition, Topology};

use crate::netns::checked;
use node::Blueprint;

const STATE: &str = "/run/plainroute-lab";
const STATE_FILE: &str = "lab.json";
/// The node that stands for the host in topologies with bridges or links to it.
const HOST: &str = "host";

/// The CNI plugin's name, on a node and beside an agent's binary.
pub const CNI_PLUGIN: &str = "plainroute-ipam";

/// How long a lab lives.
#[derive(Clone, Debug)]
pub enum Lifetime {
    /// As long as this process at most. It works on a copy of the lab's directory, so that it may change the manifests.
    Bound,
    /// Until `down`. It works on the lab's directory itself: an edit there is an edit in the lab.
    Left,
}

/// A lab that is up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lab {
    name: String,
    /// Its logs and, if bound, its copy of the lab's directory.
    state: PathBuf,
    /// Where its manifests are.
    files: PathBuf,
    nodes: BTreeMap<String, Node>,
    #[serde(skip)]
    bound: bool,
}

impl Lab {
    /// Builds the lab of a directory that has a `topology.clab.yml`. `plainroute` is the binary for nodes of that image.
    pub fn up(dir: &Path, plainroute: &Path, lifetime: &Lifetime) -> Result<Lab> {
        let topology = Topology::read(&dir.join("topology.clab.yml"))?;
        sweep();
        let bound = matches!(lifetime, Lifetime::Bound);
        let state = state_dir(&topology.name, bound)?;
        fs::create_dir_all(&state).with_context(|| format!("create {}", state.display()))?;
        let files = if bound { state.join("files") } else { dir.canonicalize()? };
        if bound {
            checked(Command::new("cp").arg("-rL").arg("--").arg(dir).arg(&files))?;
        }
        let mut lab = Lab { name: topology.name.clone(), state, files, nodes: BTreeMap::new(), bound: true };
        lab.start_nodes(&topology, plainroute, bound)?;
        // From here on `down` finds it, however far we get.
        if !bound {
            lab.write_state()?;
        }
        lab.connect(&topology)?;
        for (name, definition) in topology.nodes().iter().filter(|(_, node)| node.kind() == Kind::Linux) {
            let node = lab.node(name)?;
            for line in &definition.exec {
                node.shell(line).with_context(|| format!("exec of node {name}"))?;
            }
            node.start_command()?;
        }
        lab.bound = bound;
        Ok(lab)
    }

    /// Finds a lab that was left running.
    pub fn find(name: &str) -> Result<Lab> {
        let path = Path::new(STATE).join(name).join(STATE_FILE);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("lab {name} is not up: no {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The labs that were left running.
    pub fn running() -> Vec<String> {
        let entries = fs::read_dir(STATE).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().join(STATE_FILE).exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Ends every node and forgets the lab.
    pub fn down(mut self) {
        self.bound = true;
    }

    fn remove(&self) {
        for node in self.nodes.values() {
            node.end();
        }
        if let Err(error) = fs::remove_dir_all(&self.state) {
            eprintln!("{} stays behind: {error}", self.state.display());
        }
    }

    /// The topology's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's directory as its nodes see it.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.get(name).with_context(|| {
            format!(
                "lab {} has no node {name}, but {}",
                self.name,
                self.nodes.keys().cloned().collect::<Vec<_>>().join(", ")
            )
        })
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    fn write_state(&self) -> Result<()> {
        let path = self.state.join(STATE_FILE);
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Starts all first processes at once, then waits for each.
    fn start_nodes(&mut self, topology: &Topology, plainroute: &Path, bound: bool) -> Result<()> {
        let mut definitions = topology.nodes();
        let needs_host = definitions.values().any(|node| node.kind() != Kind::Linux);
        definitions.retain(|_, node| node.kind() == Kind::Linux);
        if needs_host {
            definitions.insert(HOST.to_owned(), NodeDefinition::default());
        }
        node::write_script(&self.state)?;
        let mut starting = Vec::new();
        for (name, definition) in &definitions {
            let image = Image::of(definition.image.as_deref()).with_context(|| format!("node {name}"))?;
            let mut binds = self.binds(definition).with_context(|| format!("node {name}"))?;
            if image == Image::Plainroute {
                ensure!(plainroute.exists(), "node {name}: no binary {}", plainroute.display());
                binds.push(format!("{} /usr/local/bin/plainroute ro", plainroute.display()));
                let plugin = cni_plugin(plainroute);
                if plugin.exists() {
                    binds.push(format!("{} /usr/local/bin/{CNI_PLUGIN} ro", plugin.display()));
                }
            }
            starting.push(Node::start(Blueprint {
                name,
                image,
                command: command(definition, image).with_context(|| format!("node {name}"))?,
                env: definition.env.clone().into_iter().collect(),
                binds,
                dir: &self.state,
                bound,
            }));
        }
        let mut failed = None;
        for node in starting {
            match (node, &failed) {
                (Ok(starting), None) => match starting.ready() {
                    Ok(node) => drop(self.nodes.insert(node.name().to_owned(), node)),
                    Err(error) => failed = Some(error),
                },
                (Ok(starting), Some(_)) => starting.abandon(),
                (Err(error), _) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn binds(&self, definition: &NodeDefinition) -> Result<Vec<String>> {
        let one = |bind: &String| {
            let mut words = bind.split(':');
            let (Some(source), Some(target)) = (words.next(), words.next()) else {
                anyhow::bail!("bind {bind}: want source:target");
            };
            let source = self.files.join(source);
            ensure!(source.exists(), "bind {bind}: no {}", source.display());
            ensure!(target.starts_with('/'), "bind {bind}: the target is not absolute");
            ensure!(
                !format!("{}{target}", source.display()).contains(char::is_whitespace),
                "bind {bind}: white space"
            );
            Ok(format!("{} {target} {}", source.display(), words.next().unwrap_or_default()))
        };
        definition.binds.iter().map(one).collect()
    }

    /// Sysctls, bridges and cables.
    fn connect(&self, topology: &Topology) -> Result<()> {
        let nodes = topology.nodes();
        for (name, definition) in &nodes {
            match definition.kind() {
                Kind::Linux => {
                    let node = self.node(name)?;
                    for (key, value) in &definition.sysctls {
                        node.run(&["sysctl", "-qw", &format!("{key}={value}")])?;
                    }
                }
                Kind::Bridge => {
                    let host = self.node(HOST)?;
                    host.run(&["ip", "link", "add", name, "up", "type", "bridge"])?;
                }
                Kind::Host => {}
            }
        }
        let place = |name: &str| match nodes[name].kind() {
            Kind::Linux => self.node(name),
            Kind::Bridge | Kind::Host => self.node(HOST),
        };
        for (a, b) in topology.links()? {
            let (from, to) = (place(&a.node)?, place(&b.node)?);
            // From outside the nodes' pid namespaces, where the number means what we mean.
            let link =
                ["ip", "link", "add", &a.interface, "type", "veth", "peer", "name", &b.interface, "netns"];
            let enter = format!("--net=/proc/{}/ns/net", from.pid());
            checked(Command::new("nsenter").arg(enter).args(link).arg(to.pid().to_string()))
                .with_context(|| format!("link {}:{} to {}:{}", a.node, a.interface, b.node, b.interface))?;
            for (node, end) in [(from, &a), (to, &b)] {
                if nodes[&end.node].kind() == Kind::Bridge {
                    node.run(&["ip", "link", "set", &end.interface, "master", &end.node])?;
                }
                node.run(&["ip", "link", "set", &end.interface, "up"])?;
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.bound {
            self.remove();
        }
    }
}

/// Beside an agent that is only that; any other program has the plugin in it, and is it by that name.
fn cni_plugin(plainroute: &Path) -> PathBuf {
    if plainroute.file_name() == Some("plainroute".as_ref()) {
        plainroute.with_file_name(CNI_PLUGIN)
    } else {
        plainroute.to_owned()
    }
}

/// What a node runs: its `cmd` or its image's own, with no more capabilities than it may have.
fn command(definition: &NodeDefinition, image: Image) -> Result<Option<Vec<String>>> {
    let given = match &definition.cmd {
        Some(line) => Some(shlex::split(line).with_context(|| format!("cmd {line}: quotes do not match"))?),
        None => image.default_command(),
    };
    let (Some(mut command), Some(capabilities)) = (given.clone(), definition.capabilities()) else {
        return Ok(given);
    };
    let set = capabilities.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    command.splice(0..0, ["setpriv", "--bounding-set", &set, "--inh-caps=-all"].map(str::to_owned));
    Ok(Some(command))
}

/// A place of the lab's own. Only one of each name can be left running; those that are bound are as many as one likes.
fn state_dir(name: &str, bound: bool) -> Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let state = Path::new(STATE);
    if bound {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        return Ok(state.join(format!("{name}.{}.{number}", std::process::id())));
    }
    if let Ok(lab) = Lab::find(name) {
        ensure!(
            !lab.nodes().any(Node::is_alive),
            "lab {name} is up already; `plainroute-lab down {name}` ends it"
        );
    }
    Ok(state.join(name))
}

/// Removes what bound labs of dead processes left: only files, for the kernel has ended their nodes.
fn sweep() {
    for entry in fs::read_dir(STATE).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.rsplit('.').nth(1).and_then(|pid| pid.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
