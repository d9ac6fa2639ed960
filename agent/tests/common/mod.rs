//! What the suites of the pure parts share: objects from YAML, an index fed with them, the plan of a scenario at a fixed
//! time.
#![allow(dead_code, reason = "each suite uses its own part")]
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use plainroute_agent::{
    discovery::{Found, Gateway},
    flaps::{Damped, PodKey},
    index::{Index, Moment, Snapshot},
    plan::{Local, Plan, plan},
    source::{Change, Feed, HostLink, SourceName},
};
use plainroute_blocks::{Holder, Holdings, OwnedBlock};
use plainroute_config::{Input, Kind, Object, load_inputs};
use serde::Deserialize;

/// The objects of a YAML text, read by the loader that reads every config.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let loaded = load_inputs(&[Input::Stdin(yaml.into())]).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.objects.into_iter().map(|located| located.object).collect()
}

/// The complete set of a source.
pub(crate) fn complete(source: SourceName, objects: Vec<Object>) -> Feed {
    Feed { source, change: Change::Replace { kinds: Kind::IN_FILES.to_vec(), objects } }
}

/// What an index says that knows exactly this.
pub(crate) fn snapshot(files: Vec<Object>, cluster: Vec<Object>, links: Vec<HostLink>) -> Snapshot {
    let mut index = Index::new([]);
    index.handle(complete(SourceName::Files, files), Moment::now());
    index.handle(complete(SourceName::Kubernetes, cluster), Moment::now());
    index.handle(Feed { source: SourceName::CniCache, change: Change::HostLinks(links) }, Moment::now());
    index.snapshot().expect("nothing is awaited")
}

/// Node `node-a` at noon.
pub(crate) fn local() -> Local {
    Local {
        holdings: None,
        node: "node-a".to_owned(),
        router_id: Some("192.0.2.254".parse().expect("a router ID")),
        found: Found::default(),
        damped: Default::default(),
        now: "2026-11-22T12:00:00Z".parse().expect("a time"),
    }
}

/// The folders below `scenarios`, by name.
pub(crate) fn scenarios() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(root).expect("scenarios").map(|entry| entry.expect("a folder").path()).collect();
    folders.sort();
    folders
}

fn text(folder: &Path, file: &str) -> Option<String> {
    let path = folder.join(file);
    path.exists().then(|| fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenLink {
    namespace: String,
    name: String,
    #[serde(default)]
    uid: Option<String>,
    container_id: String,
    interface: String,
    addresses: Vec<IpAddr>,
}

fn host_links(yaml: &str) -> Vec<HostLink> {
    let links: Vec<WrittenLink> = serde_saphyr::from_str(yaml).expect("host links");
    let link = |WrittenLink { namespace, name, uid, container_id, interface, addresses }| HostLink {
        namespace,
        name,
        uid,
        pod_interface: "eth0".to_owned(),
        container_id,
        interface,
        addresses,
    };
    links.into_iter().map(link).collect()
}

/// What the node found out about routers, as a scenario writes it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenFound {
    neighbours: BTreeMap<String, Ipv6Addr>,
    not_found: BTreeMap<String, String>,
    default_gateways: BTreeSet<Gateway>,
}

fn found(yaml: &str) -> Found {
    let WrittenFound { neighbours, not_found, default_gateways } =
        serde_saphyr::from_str(yaml).expect("what was found");
    let neighbours = neighbours.into_iter().map(|(interface, router)| (interface, Ok(router)));
    let not_found = not_found.into_iter().map(|(interface, reason)| (interface, Err(reason)));
    Found { neighbours: neighbours.chain(not_found).collect(), default_gateways }
}

/// A Pod whose readiness comes and goes, as a scenario writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenDamped {
    namespace: String,
    name: String,
    last_loss: jiff::Timestamp,
    until: jiff::Timestamp,
}

fn damped(yaml: &str) -> BTreeMap<PodKey, Damped> {
    let pods: Vec<WrittenDamped> = serde_saphyr::from_str(yaml).expect("restless Pods");
    let entry = |WrittenDamped { namespace, name, last_loss, until }| {
        ((namespace, name, None), Damped { last_loss, until })
    };
    pods.into_iter().map(entry).collect()
}

/// What the node owns and has given out, as a scenario writes it: pools by block, and by address `NAMESPACE/NAME UID`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenHoldings {
    blocks: BTreeMap<String, String>,
    held: BTreeMap<IpAddr, String>,
}

fn holdings(yaml: &str) -> Holdings {
    let WrittenHoldings { blocks, held } = serde_saphyr::from_str(yaml).expect("holdings");
    // The pool, and the epoch where it is not the first.
    let block = |(prefix, said): (String, String)| {
        let (pool, epoch) = said.split_once(' ').unwrap_or((&said, "1"));
        let (pool, epoch) = (pool.to_owned(), epoch.parse().expect("an epoch"));
        (prefix.parse().expect("a prefix"), OwnedBlock { pool, epoch, ..OwnedBlock::default() })
    };
    let holder = |(address, pod): (IpAddr, String)| {
        let (name, uid) = pod.split_once(' ').expect("a UID");
        let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
        let holder = Holder {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pod_uid: uid.to_owned(),
            container_id: "c1".to_owned(),
            interface: "eth0".to_owned(),
            stateful_set: None,
            since: local().now,
        };
        (address, holder)
    };
    Holdings {
        blocks: Arc::new(blocks.into_iter().map(block).collect()),
        held: Arc::new(held.into_iter().map(holder).collect()),
    }
}

/// The plan of node `node-a` at noon, of what a scenario's sources say.
pub(crate) fn plan_of(folder: &Path) -> Plan {
    let files = objects(&text(folder, "input.yaml").expect("input.yaml"));
    let cluster = text(folder, "cluster.yaml").map(|yaml| objects(&yaml)).unwrap_or_default();
    let links = text(folder, "host-links.yaml").map(|yaml| host_links(&yaml)).unwrap_or_default();
    let found = text(folder, "found.yaml").map(|yaml| found(&yaml)).unwrap_or_default();
    let damped = text(folder, "damped.yaml").map(|yaml| damped(&yaml)).unwrap_or_default();
    let holdings = text(folder, "holdings.yaml").map(|yaml| holdings(&yaml));
    plan(&snapshot(files, cluster, links), &Local { found, damped, holdings, ..local() })
}
