//! `plainroute-ipam` below the real `ptp`: a node and Pods that are namespaces, and in the agent's place a socket that answers as
//! the test says. Debian's `ptp` and a recent one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use plainroute_cni::protocol::{self, Attachment, Failure, Reply, Request};
use plainroute_tests::agent;
use plainroute_tests::netns::Netns;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the node itself is reached by.
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const DEBIAN: &str = "/usr/lib/cni/ptp";

/// In the agent's place: it gives each Pod what is written for it, as long as the Pod holds nothing else.
struct Allocator {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// By the Pod's name.
    written: BTreeMap<String, Vec<IpAddr>>,
    held: BTreeMap<Attachment, Vec<IpAddr>>,
    asked: Vec<Request>,
    over: bool,
}

impl State {
    fn answer(&mut self, request: Request) -> Reply {
        self.asked.push(request.clone());
        let held = |attachment: &Attachment, state: &State| state.held.get(attachment).cloned();
        Reply::Addresses(match request.command {
            protocol::Command::Add { attachment, pod, .. } => {
                let Some(addresses) = self.written.get(&pod.name) else {
                    return Reply::Refused(Failure {
                        code: 11,
                        message: format!("no pool of namespace {} has an address", pod.namespace),
                        details: String::new(),
                    });
                };
                self.held.entry(attachment).or_insert_with(|| addresses.clone()).clone()
            }
            protocol::Command::Check { attachment, .. } => held(&attachment, self).unwrap_or_default(),
            protocol::Command::Del { attachment, .. } => {
                self.held.remove(&attachment);
                Vec::new()
            }
            protocol::Command::Gc { .. } | protocol::Command::Status => Vec::new(),
        })
    }
}

impl Allocator {
    fn start(directory: &Path) -> Result<Allocator> {
        let socket = directory.join("ipam.sock");
        let listener = UnixListener::bind(&socket)?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let serve = move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let mut line = Vec::new();
                // One that says nothing is how the test ends this.
                if BufReader::new(&stream).read_until(b'\n', &mut line).is_err() {
                    continue;
                }
                let mut state = shared.lock().expect("a lock that nobody broke");
                if state.over {
                    return;
                }
                let reply =
                    Request::decode(&line).map_or_else(Reply::Refused, |request| state.answer(request));
                let mut reply = serde_json::to_vec(&reply).expect("JSON");
                reply.push(b'\n');
                let _ = (&stream).write_all(&reply);
            }
        };
        Ok(Allocator { socket, state, thread: Some(std::thread::spawn(serve)) })
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().expect("a lock that nobody broke"))
    }

    fn write(&self, pod: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.with(|state| state.written.insert(pod.to_owned(), addresses));
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.with(|state| state.over = true);
        drop(UnixStream::connect(&self.socket));
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the allocator panicked");
        }
    }
}

/// A node with `ptp`, and the allocator that our plugin asks.
struct Node {
    netns: Netns,
    ptp: PathBuf,
    ipam: Value,
    allocator: Allocator,
    _directory: TempDir,
}

/// A sandbox.
struct Sandbox {
    netns: Netns,
    /// Where the runtime says that it is.
    path: PathBuf,
    name: String,
}

impl Sandbox {
    fn new(name: &str) -> Result<Sandbox> {
        let netns = Netns::new(name)?;
        Ok(Sandbox { path: netns.path(), netns, name: name.to_owned() })
    }
}

impl Node {
    fn new(ptp: &Path, gateway: Option<Value>) -> Result<Node> {
        let directory = tempfile::tempdir()?;
        let allocator = Allocator::start(directory.path())?;
        let mut ipam = json!({ "type": "plainroute-ipam", "socket": allocator.socket, "timeoutSeconds": 5 });
        if let Some(gateway) = gateway {
            ipam["gateway"] = gateway;
        }
        let netns = Netns::new("node")?;
        netns.address("lo", &format!("{}/32", NODE[0]))?;
        netns.address("lo", &format!("{}/128", NODE[1]))?;
        Ok(Node { netns, ptp: ptp.to_owned(), ipam, allocator, _directory: directory })
    }

    /// As a runtime does: the environment, the network configuration on standard input. The error is the plugin's own.
    fn call(&self, verb: &str, sandbox: &Sandbox, previous: Option<&Value>) -> Result<Value, Value> {
        self.exec(verb, sandbox, previous).unwrap_or_else(|error| panic!("{verb}: {error:#}"))
    }

    fn exec(&self, verb: &str, sandbox: &Sandbox, previous: Option<&Value>) -> Result<Result<Value, Value>> {
        let version = if verb == "STATUS" { "1.1.0" } else { "1.0.0" };
        let mut network = json!({ "cniVersion": version, "name": "pods", "type": "ptp", "ipam": self.ipam });
        if let Some(previous) = previous {
            network["prevResult"] = previous.clone();
        }
        let plugins = agent::ipam_plugin()?;
        let plugins = plugins.parent().context("a directory")?;
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=erp;K8S_POD_NAME={}", sandbox.name);
        let mut command: Command = self.netns.command(&[self.ptp.to_str().context("UTF-8")?]);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", format!("id-{}", sandbox.name))
            .env("CNI_NETNS", &sandbox.path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", plugins)
            .env("CNI_ARGS", arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("its input")?.write_all(network.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let said = match output.stdout.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&output.stdout)
                .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())?,
        };
        Ok(if output.status.success() { Ok(said) } else { Err(said) })
    }

    fn add(&self, sandbox: &Sandbox) -> Result<Value> {
        self.call("ADD", sandbox, None).map_err(|error| anyhow!("ADD: {error}"))
    }

    fn del(&self, sandbox: &Sandbox) -> Result<()> {
        self.call("DEL", sandbox, None).map(drop).map_err(|error| anyhow!("DEL: {error}"))
    }
}

fn ping(from: &Netns, to: &str) -> Result<()> {
    from.run(&["ping", "-n", "-c1", "-W2", to]).map(drop)
}

fn recent() -> Result<PathBuf> {
    let output =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cni-plugins.sh")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(Path::new(String::from_utf8(output.stdout)?.trim()).join("ptp"))
}

/// One Pod's life, and what it can reach, with the addresses that it and its neighbour get.
fn live(node: &Node, mine: &[&str], neighbours: &[&str], check: bool) -> Result<()> {
    let (pod, neighbour) = (Sandbox::new("pod")?, Sandbox::new("neighbour")?);
    node.allocator.write("pod", mine);
    node.allocator.write("neighbour", neighbours);
    let result = node.add(&pod)?;
    node.add(&neighbour)?;
    let told: Vec<&str> = result["ips"].as_array().context("no ips")?.iter().map(address).collect();
    assert_eq!(told, mine);
    for (mine, neighbour) in mine.iter().zip(neighbours) {
        ping(&node.netns, mine).context("from the node")?;
        ping(&pod.netns, neighbour).context("to the neighbour")?;
        let of_node = if mine.contains(':') { NODE[1] } else { NODE[0] };
        ping(&pod.netns, of_node).context("by the gateway")?;
    }
    let checked = node.call("CHECK", &pod, Some(&result));
    assert_eq!(checked.is_ok(), check, "{checked:?}");
    // The control: what the agent does not hold is no address to go on with.
    node.allocator
        .with(|state| state.held.values_mut().for_each(|held| *held = vec!["10.99.0.1".parse().unwrap()]));
    let error = node.call("CHECK", &pod, Some(&result)).unwrap_err();
    assert_eq!(error["code"], 100, "{error}");
    assert!(error["msg"].as_str().is_some_and(|text| text.contains("the agent holds 10.99.0.1")), "{error}");

    node.del(&pod)?;
    let left = node
        .allocator
        .with(|state| state.held.keys().map(|held| held.container_id.clone()).collect::<Vec<_>>());
    assert_eq!(left, ["id-neighbour"]);
    assert!(!pod.netns.exec("ip link show")?.contains("eth0"), "the interface is still there");
    for mine in mine {
        ensure!(ping(&node.netns, mine).is_err(), "{mine} answers after DEL");
    }
    // Again, and after its namespace.
    node.del(&pod)?;
    node.del(&Sandbox { path: "/run/netns/prt-gone".into(), ..pod })?;
    node.del(&neighbour)
}

fn address(ip: &Value) -> &str {
    ip["address"].as_str().and_then(|text| text.split_once('/')).map_or("none", |(address, _)| address)
}

const FAMILIES: [(&[&str], &[&str]); 3] = [
    (&["10.20.0.5"], &["10.20.0.6"]),
    (&["fd00:20::5"], &["fd00:20::6"]),
    (&["10.20.0.5", "fd00:20::5"], &["192.168.7.9", "fd00:77::6"]),
];

#[test]
fn pods_reach_the_node_and_each_other_by_a_recent_ptp() -> Result<()> {
    let ptp = recent()?;
    for (mine, neighbours) in FAMILIES {
        live(&Node::new(&ptp, None)?, mine, neighbours, true).with_context(|| format!("{mine:?}"))?;
    }
    Ok(())
}

/// Its CHECK does not find the default route of IPv4, which it knows by no name; nor does it know GC and STATUS.
#[test]
fn and_by_debians() -> Result<()> {
    for (mine, neighbours) in FAMILIES {
        let check = mine.iter().all(|address| address.contains(':'));
        live(&Node::new(Path::new(DEBIAN), None)?, mine, neighbours, check)
            .with_context(|| format!("{mine:?}"))?;
    }
    Ok(())
}

#[test]
fn a_gateway_of_the_pods_own_network_suits_every_ptp() -> Result<()> {
    for ptp in [PathBuf::from(DEBIAN), recent()?] {
        let node = Node::new(&ptp, Some(json!(["10.20.0.1", "fd00:20::1"])))?;
        live(&node, &["10.20.0.5", "fd00:20::5"], &["10.20.0.200", "fd00:20::200"], true)?;
    }
    Ok(())
}

#[test]
fn a_refusal_reaches_the_runtime_and_leaves_nothing_behind() -> Result<()> {
    let mut node = Node::new(&recent()?, None)?;
    let pod = Sandbox::new("unknown")?;
    let error = node.call("ADD", &pod, None).unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    assert_eq!(error["msg"], "no pool of namespace erp has an address");
    assert!(
        !node.netns.exec("ip -br link")?.contains("veth") && !pod.netns.exec("ip -br link")?.contains("eth0")
    );
    node.call("STATUS", &pod, None).map_err(|error| anyhow!("STATUS: {error}"))?;
    node.ipam["socket"] = "/nonexistent/ipam.sock".into();
    let error = node.call("ADD", &pod, None).unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().is_some_and(|text| text.contains("does not answer on")), "{error}");
    assert_eq!(node.call("STATUS", &pod, None).unwrap_err()["code"], 50);
    Ok(())
}
