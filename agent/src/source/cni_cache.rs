//! The result cache that libcni leaves on the node: which host interface leads to which Pod.
//!
//! libcni writes one JSON file for each attachment (network, sandbox, interface) after ADD and removes it after DEL
//! (`libcni/api.go`, kind `cniCacheV1`, unchanged since 2019). It writes in place, so a file can be seen half written:
//! what cannot be read does not count as gone, and its last good reading holds until the file is removed.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Change, Feed, Feeds, SourceName,
    watch::{Stamp, Watch},
};

/// Where libcni keeps its results unless the runtime says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/cni/results";

/// More than any result; a file beyond is not one.
const LARGEST: u64 = 1024 * 1024;

/// Which interface of the node leads to a Pod, as the CNI plugin reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub name: String,
    /// The Pod's UID, where the runtime passed it.
    pub uid: Option<String>,
    /// The interface within the Pod.
    pub pod_interface: String,
    /// The sandbox that the record is about.
    pub container_id: String,
    /// The node's side of the link (or the bridge that the Pod hangs on).
    pub interface: String,
    /// The Pod's addresses on that link.
    pub addresses: Vec<IpAddr>,
}

/// The cache of one node. Owner of what was read from it; outputs the complete set of [`HostLink`]s whenever it
/// changes. Cancelling [`CniCache::run`] stops watching, nothing else.
pub struct CniCache {
    directory: PathBuf,
    watch: Watch,
    records: BTreeMap<PathBuf, Record>,
    /// Whether the directory has been there; then its absence is a problem and not an empty cache.
    existed: bool,
}

/// What a file said when it was last read.
#[derive(Debug)]
struct Record {
    stamp: Stamp,
    /// `None` where it never could be read or is not about a Pod behind a host interface.
    attachment: Option<Attachment>,
}

/// One attachment of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attachment {
    network: String,
    /// The interface within the Pod.
    interface: String,
    link: HostLink,
}

impl CniCache {
    /// The cache in `directory`, not yet read.
    pub fn new(directory: impl Into<PathBuf>) -> CniCache {
        CniCache {
            directory: directory.into(),
            watch: Watch::new(),
            records: BTreeMap::new(),
            existed: false,
        }
    }

    /// Sends all links, then all of them again whenever one changes, until nobody listens any more.
    pub async fn run(mut self, feeds: Feeds) {
        let mut told: Option<Vec<HostLink>> = None;
        let mut told_problem: Option<String> = None;
        loop {
            self.watch.follow([self.directory.clone()]);
            let mut changes = Vec::new();
            let problem = match self.read() {
                Ok(()) => {
                    let links = self.links();
                    if told.as_ref() != Some(&links) {
                        changes.push(Change::HostLinks(links.clone()));
                        told = Some(links);
                    }
                    None
                }
                Err(error) => Some(format!("{}: {error}", self.directory.display())),
            };
            if problem != told_problem {
                if let Some(problem) = &problem {
                    tracing::error!(%problem, "cannot read the CNI results; what is known of them stays");
                }
                told_problem = problem.clone();
                changes.push(Change::Health { kind: None, problem });
            }
            for change in changes {
                if feeds.send(Feed { source: SourceName::CniCache, change }).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = self.watch.changed() => {}
                () = feeds.closed() => return,
            }
        }
    }

    /// Reads the files that are new or have changed, and forgets those that are gone.
    fn read(&mut self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            // A node without CNI, or before its first Pod.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.existed => return Ok(()),
            entries => entries?,
        };
        self.existed = true;
        let mut there = BTreeSet::new();
        for entry in entries {
            let path = entry?.path();
            let Ok(stamp) = Stamp::of(&path) else { continue };
            there.insert(path.clone());
            if !path.is_file() || self.records.get(&path).is_some_and(|record| record.stamp == stamp) {
                continue;
            }
            let attachment = match read_file(&path, stamp) {
                Ok(attachment) => attachment,
                // Gone since it was listed, or no descriptor left to read it with: the next look tells.
                Err(Unreadable::Io(error)) => {
                    tracing::debug!(file = %path.display(), %error, "cannot read a CNI result now");
                    continue;
                }
                Err(error) => {
                    let file = path.display();
                    tracing::warn!(%file, %error, "skipping a CNI result that cannot be read");
                    self.records.remove(&path).and_then(|record| record.attachment)
                }
            };
            self.records.insert(path, Record { stamp, attachment });
        }
        self.records.retain(|path, _| there.contains(path));
        Ok(())
    }

    /// The links in the order of namespace, name and Pod interface. Where a DEL has failed, the record of a Pod's dead
    /// sandbox stays beside that of the living one: the newer file counts.
    fn links(&self) -> Vec<HostLink> {
        let mut newest: BTreeMap<_, (&Stamp, &Attachment)> = BTreeMap::new();
        for record in self.records.values() {
            let Some(attachment) = &record.attachment else { continue };
            let HostLink { namespace, name, .. } = &attachment.link;
            let key = (namespace, name, &attachment.interface, &attachment.network);
            let newer = newest.get(&key).is_none_or(|(stamp, _)| stamp.modified < record.stamp.modified);
            if newer {
                newest.insert(key, (&record.stamp, attachment));
            }
        }
        newest.into_values().map(|(_, attachment)| attachment.link.clone()).collect()
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("not JSON as libcni writes it: {0}")]
    Json(#[from] serde_json::Error),
    #[error("larger than any result")]
    Large,
    #[error("of kind `{0}`, not cniCacheV1")]
    Kind(String),
    #[error("`{0}` is not an address with a length")]
    Address(String),
}

fn read_file(path: &Path, stamp: Stamp) -> Result<Option<Attachment>, Unreadable> {
    if stamp.size > LARGEST {
        return Err(Unreadable::Large);
    }
    parse(&fs::read(path)?)
}

/// The attachment that a file is about; `None` where it is not about a Pod (podman uses libcni too), or where the Pod
/// hangs on no interface of the node (macvlan, ipvlan, loopback).
fn parse(bytes: &[u8]) -> Result<Option<Attachment>, Unreadable> {
    let cached: Cached = serde_json::from_slice(bytes)?;
    if cached.kind != "cniCacheV1" {
        return Err(Unreadable::Kind(cached.kind));
    }
    let argument = |key: &str| {
        let found = cached.cni_args.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) else {
        return Ok(None);
    };
    let Some(interface) = cached.result.host_interface() else { return Ok(None) };
    let link = HostLink {
        namespace,
        name,
        uid: argument("K8S_POD_UID"),
        pod_interface: cached.if_name.clone(),
        container_id: cached.container_id,
        interface: interface.to_owned(),
        addresses: cached.result.pod_addresses()?,
    };
    Ok(Some(Attachment { network: cached.network_name, interface: cached.if_name, link }))
}

/// The file, as far as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    kind: String,
    container_id: String,
    network_name: String,
    if_name: String,
    #[serde(default)]
    cni_args: Vec<(String, String)>,
    #[serde(default)]
    result: CniResult,
}

/// The result in the form of CNI 0.3.0 to 1.1.0. Before 0.3.0 it names no interfaces, so no path can be told from it.
#[derive(Default, Deserialize)]
struct CniResult {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct Ip {
    address: String,
    /// The index of its interface in `interfaces`.
    interface: Option<usize>,
}

impl CniResult {
    /// What the node delivers through: the first interface that is in no sandbox. The plugin that makes the link says
    /// its own first (`ptp`: the host side of the pair; `bridge`: the bridge, and then the port, which has no address to
    /// route to); chained plugins only append theirs (`bandwidth`: an ifb device).
    fn host_interface(&self) -> Option<&str> {
        let host = self.interfaces.iter().find(|interface| interface.sandbox.is_empty());
        host.map(|interface| interface.name.as_str()).filter(|name| !name.is_empty())
    }

    /// The addresses within the sandbox; one that names no interface is the Pod's.
    fn pod_addresses(&self) -> Result<Vec<IpAddr>, Unreadable> {
        let within = |ip: &&Ip| {
            let interface = ip.interface.and_then(|index| self.interfaces.get(index));
            interface.is_none_or(|interface| !interface.sandbox.is_empty())
        };
        let address = |ip: &Ip| {
            let (address, _) = ip.address.split_once('/').unwrap_or((&ip.address, ""));
            address.parse().map_err(|_| Unreadable::Address(ip.address.clone()))
        };
        self.ips.iter().filter(within).map(address).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use tempfile::TempDir;
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    /// Written by libcni 1.2.3 after ADD by Debian's plugins 1.1.1: ptp with a chain, bridge, ptp of CNI 0.3.1, macvlan.
    const REAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cni-results");

    fn told(link: &HostLink) -> String {
        let HostLink { namespace, name, interface, addresses, .. } = link;
        format!("{namespace}/{name} {interface} {addresses:?}")
    }

    fn of_directory(directory: &Path) -> Vec<String> {
        let mut cache = CniCache::new(directory);
        cache.read().unwrap();
        cache.links().iter().map(told).collect()
    }

    /// A file as ptp leaves it.
    fn record(pod: &str, sandbox: &str, interface: &str) -> Value {
        json!({
            "kind": "cniCacheV1", "containerId": sandbox, "networkName": "pods", "ifName": "eth0",
            "cniArgs": [["K8S_POD_NAMESPACE", "erp"], ["K8S_POD_NAME", pod]],
            "result": {
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": interface }, { "name": "eth0", "sandbox": "/run/netns/x" }],
                "ips": [{ "address": "10.20.0.2/24", "interface": 1 }]
            }
        })
    }

    fn link(record: &Value) -> Option<HostLink> {
        parse(record.to_string().as_bytes()).unwrap().map(|attachment| attachment.link)
    }

    #[test]
    fn what_real_plugins_leave_is_understood() {
        assert_eq!(
            of_directory(Path::new(REAL)),
            [
                "erp/app-1 vethd736f3a3 [10.20.0.2, 2001:db8:20::2]",
                "erp/app-1 cni0 [10.30.0.3]",
                "erp/app-2 cni0 [10.30.0.2]",
                "erp/app-3 vethcde8dc24 [10.40.0.2]",
            ],
            "several networks of one Pod are several links, and macvlan has none"
        );
        let mut cache = CniCache::new(REAL);
        cache.read().unwrap();
        let first = &cache.links()[0];
        assert_eq!(first.uid.as_deref(), Some("0b5d6f0e-3c25-4c07-a4f5-4f3ed9ae35f1"));
        assert_eq!(first.container_id, "cnitool-88ab19eca9588a2e0913");
    }

    #[test]
    fn the_plugin_that_makes_the_link_names_the_interface() {
        let mut chained = record("a", "s", "veth1");
        chained["result"]["interfaces"].as_array_mut().unwrap().push(json!({ "name": "bwp0123" }));
        assert_eq!(link(&chained).unwrap().interface, "veth1");
        let mut inside_only = record("a", "s", "veth1");
        inside_only["result"]["interfaces"][0]["sandbox"] = json!("/run/netns/x");
        assert_eq!(link(&inside_only), None);
        let mut unnamed = record("a", "s", "veth1");
        unnamed["result"]["ips"] =
            json!([{ "address": "10.20.0.2/24" }, { "address": "10.20.0.1/24", "interface": 0 }]);
        assert_eq!(link(&unnamed).unwrap().addresses, ["10.20.0.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_is_not_about_a_pod_is_left_alone() {
        let mut podman = record("a", "s", "veth1");
        podman["cniArgs"] = json!([]);
        assert_eq!(link(&podman), None);
        podman.as_object_mut().unwrap().remove("cniArgs");
        assert_eq!(link(&podman), None);
    }

    #[test]
    fn the_newer_sandbox_of_a_pod_counts() {
        let dir = TempDir::new().unwrap();
        let put = |name: &str, interface: &str, seconds: u64| {
            let path = dir.path().join(name);
            fs::write(&path, record("a", name, interface).to_string()).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        put("1-dead", "veth-dead", 1_000);
        put("2-alive", "veth-alive", 3_000);
        put("3-dead", "veth-dead-too", 2_000);
        assert_eq!(of_directory(dir.path()), ["erp/a veth-alive [10.20.0.2]"]);
    }

    #[test]
    fn a_broken_file_hides_no_other_and_keeps_what_it_said_before() {
        let dir = TempDir::new().unwrap();
        let whole = record("a", "s1", "veth1").to_string();
        fs::write(dir.path().join("a"), &whole).unwrap();
        fs::write(dir.path().join("b"), &whole[..40]).unwrap();
        fs::write(dir.path().join("c"), r#"{"cniVersion":"0.4.0","ips":[]}"#).unwrap();
        fs::write(dir.path().join("d"), record("d", "s2", "veth2").to_string()).unwrap();
        fs::create_dir(dir.path().join("e")).unwrap();
        let mut cache = CniCache::new(dir.path());
        let mut links = || {
            cache.read().unwrap();
            cache.links().iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(links(), ["erp/a veth1 [10.20.0.2]", "erp/d veth2 [10.20.0.2]"]);
        fs::write(dir.path().join("a"), &whole[..50]).unwrap();
        assert_eq!(links().len(), 2, "half written is not removed");
        fs::write(dir.path().join("a"), record("a", "s1", "veth3").to_string()).unwrap();
        assert_eq!(links(), ["erp/a veth3 [10.20.0.2]", "erp/d veth2 [10.20.0.2]"]);
        fs::remove_file(dir.path().join("a")).unwrap();
        assert_eq!(links(), ["erp/d veth2 [10.20.0.2]"]);
    }

    #[tokio::test]
    async fn links_come_and_go_with_the_files() {
        let dir = TempDir::new().unwrap();
        let results = dir.path().join("cni/results");
        let (feeds, mut changes) = mpsc::channel(16);
        let task = tokio::spawn(CniCache::new(&results).run(feeds));
        let mut next = async || {
            let feed = timeout(Duration::from_secs(20), changes.recv())
                .await
                .expect("a change within 20 s")
                .unwrap();
            match feed.change {
                Change::HostLinks(links) => links.iter().map(told).collect::<Vec<_>>().join(", "),
                Change::Health { problem, .. } => format!("problem: {}", problem.is_some()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(next().await, "", "no directory is an empty cache");
        fs::create_dir_all(&results).unwrap();
        fs::write(results.join("a"), record("a", "s", "veth1").to_string()).unwrap();
        assert_eq!(next().await, "erp/a veth1 [10.20.0.2]");
        fs::write(results.join("b"), record("b", "s", "veth2").to_string()).unwrap();
        assert_eq!(next().await, "erp/a veth1 [10.20.0.2], erp/b veth2 [10.20.0.2]");
        fs::remove_file(results.join("a")).unwrap();
        assert_eq!(next().await, "erp/b veth2 [10.20.0.2]");
        fs::rename(&results, dir.path().join("away")).unwrap();
        assert_eq!(next().await, "problem: true", "a cache that vanishes is no empty cache");
        fs::create_dir_all(&results).unwrap();
        assert_eq!(next().await, "");
        assert_eq!(next().await, "problem: false");
        drop(changes);
        timeout(Duration::from_secs(20), task).await.expect("it ends").unwrap();
    }
}
