//! The agent's Kubernetes source against a real API server: what it tells of lists, changes, outages and
//! missing rights, and that it never takes ignorance for a deletion.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use plainroute_agent::source::kubernetes::{self, Pace, Scope, Settings};
use plainroute_agent::source::{Change, Feed};
use plainroute_config::{Kind, Object, ObjectKey, Pod};
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::kubelab::{ApiServer, Options, User, rights};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

const SOON: Duration = Duration::from_secs(20);

/// Takes the changes as the index does, and remembers how they came.
struct Mirror {
    feeds: mpsc::Receiver<Feed>,
    source: JoinHandle<()>,
    objects: BTreeMap<ObjectKey, Object>,
    problems: BTreeMap<Option<Kind>, String>,
    lists: BTreeMap<Kind, usize>,
    gone: Vec<String>,
    unknown: Vec<Kind>,
    refused: BTreeMap<Kind, BTreeMap<ObjectKey, String>>,
}

impl Mirror {
    fn start(kubeconfig: PathBuf, streaming_lists: bool, pace: Pace) -> Self {
        let settings = Settings {
            kubeconfig: Some(kubeconfig),
            node: "node-a".into(),
            streaming_lists,
            custom_resources: false,
            pace,
        };
        Self::with(settings)
    }

    fn with(settings: Settings) -> Self {
        let (sender, feeds) = mpsc::channel(16);
        Self {
            feeds,
            source: tokio::spawn(kubernetes::run(
                settings,
                watch::Sender::default(),
                watch::channel(Scope::default()).1,
                sender,
            )),
            objects: BTreeMap::new(),
            problems: BTreeMap::new(),
            lists: BTreeMap::new(),
            gone: Vec::new(),
            unknown: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Replace { kinds, objects } => {
                for kind in &kinds {
                    *self.lists.entry(*kind).or_default() += 1;
                }
                let new: BTreeMap<_, _> = objects.into_iter().map(|object| (object.key(), object)).collect();
                let old = |key: &ObjectKey| kinds.contains(&key.kind) && !new.contains_key(key);
                self.gone.extend(self.objects.keys().filter(|key| old(key)).map(ToString::to_string));
                self.objects.retain(|key, _| !kinds.contains(&key.kind));
                self.objects.extend(new);
            }
            Change::Apply(object) => {
                self.objects.insert(object.key(), *object);
            }
            Change::Delete(key) => {
                self.objects.remove(&key);
                self.gone.push(key.to_string());
            }
            Change::Health { kind, problem: Some(problem) } => {
                self.problems.insert(kind, problem);
            }
            Change::Health { kind, problem: None } => {
                self.problems.remove(&kind);
            }
            Change::NoSuchKind(kind) => self.unknown.push(kind),
            Change::Refused { kind, objects } => drop(self.refused.insert(kind, objects)),
            Change::Rewound { kind, .. } => panic!("the server never went back: {kind}"),
            Change::HostLinks(links) => panic!("not from the API server: {links:?}"),
        }
    }

    /// Takes changes until `holds`.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            let Ok(feed) = timeout_at(deadline, self.feeds.recv()).await else {
                bail!("never came: {what}; lists {:?}, problems {:?}", self.lists, self.problems);
            };
            self.take(feed.context("the source ended")?.change);
        }
        Ok(())
    }

    /// Fails where anything is told within `time`.
    async fn quiet_for(&mut self, time: Duration) -> Result<()> {
        match timeout(time, self.feeds.recv()).await {
            Err(_) => Ok(()),
            Ok(told) => bail!("told while it should be quiet: {told:?}"),
        }
    }

    async fn in_sync(&mut self) -> Result<()> {
        self.until("the first complete list of each kind", |mirror| mirror.lists.len() == 3).await
    }

    fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.objects
            .values()
            .filter_map(|object| if let Object::Pod(pod) = object { Some(pod) } else { None })
    }

    fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods().find(|pod| pod.name() == name)
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        self.pod(name).into_iter().flat_map(|pod| &pod.pod_ips).map(ToString::to_string).collect()
    }

    fn pod_names(&self) -> Vec<&str> {
        self.pods().map(Pod::name).collect()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.source.abort();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address literal")
}

fn pod(name: &str, address: &str) -> TestPod {
    TestPod::new("erp", name, "node-a").address(ip(address))
}

async fn cluster(options: Options) -> Result<ApiServer> {
    let api = ApiServer::start_with(options).await?;
    api.create_namespace("erp", &[("team", "finance")]).await?;
    api.create_node("node-a", &[ip("172.16.0.1")]).await?;
    api.create_node("node-b", &[ip("172.16.0.2")]).await?;
    Ok(api)
}

#[tokio::test]
async fn it_tells_of_this_node_and_its_pods_and_of_every_namespace() -> Result<()> {
    let api = cluster(Options::default()).await?;
    api.run_pod(&pod("ledger", "10.20.0.5")).await?;
    api.run_pod(&TestPod::new("erp", "elsewhere", "node-b").address(ip("10.20.0.6"))).await?;
    let mut mirror = Mirror::start(api.kubeconfig(), true, Pace::default());
    mirror.in_sync().await?;

    assert_eq!(mirror.pod_names(), ["ledger"], "only this node's");
    let ledger = mirror.pod("ledger").context("no ledger")?;
    assert!(ledger.ready && ledger.node_name.as_deref() == Some("node-a") && ledger.metadata.uid.is_some());
    assert_eq!(mirror.addresses("ledger"), ["10.20.0.5"]);
    let keys: Vec<_> = mirror.objects.keys().map(ToString::to_string).collect();
    for key in ["Namespace/erp", "Namespace/kube-system", "Node/node-a"] {
        ensure!(keys.iter().any(|known| known == key), "no {key} in {keys:?}");
    }
    assert!(!keys.contains(&"Node/node-b".to_owned()), "{keys:?}");

    api.set_pod_addresses("erp", "ledger", &[ip("10.20.0.9"), ip("fd00:20::9")]).await?;
    mirror
        .until("the new addresses", |mirror| mirror.addresses("ledger") == ["10.20.0.9", "fd00:20::9"])
        .await?;
    api.set_pod_ready("erp", "ledger", false).await?;
    mirror.until("not ready", |mirror| mirror.pod("ledger").is_some_and(|pod| !pod.ready)).await?;
    api.patch_namespace("erp", json!({ "labels": { "team": "sales" } })).await?;
    let sold = |object: &Object| matches!(object, Object::Namespace(n) if n.labels().get("team").is_some_and(|t| t == "sales"));
    mirror.until("the label of the namespace", |mirror| mirror.objects.values().any(sold)).await?;

    api.terminate_pod("erp", "ledger", 30).await?;
    mirror.until("terminating", |mirror| mirror.pod("ledger").is_some_and(Pod::is_terminating)).await?;
    assert_eq!(mirror.gone, [""; 0], "a Pod that terminates is still there");
    api.delete_pod("erp", "ledger").await?;
    mirror.until("the deletion", |mirror| mirror.pod("ledger").is_none()).await?;
    assert_eq!(mirror.gone, ["Pod/erp/ledger"]);
    assert!(mirror.problems.is_empty(), "{:?}", mirror.problems);
    assert!(mirror.lists.values().all(|lists| *lists == 1), "{:?}", mirror.lists);
    Ok(())
}

#[tokio::test]
async fn what_changed_while_the_server_was_killed_arrives_after_and_nothing_else_is_deleted() -> Result<()> {
    let mut api = cluster(Options { standby: true, ..Options::default() }).await?;
    for (name, address) in [("stays", "10.20.0.1"), ("goes", "10.20.0.2"), ("moves", "10.20.0.3")] {
        api.run_pod(&pod(name, address)).await?;
    }
    let mut mirror = Mirror::start(api.kubeconfig(), true, Pace::default());
    mirror.in_sync().await?;

    api.kill().await?;
    let refused = format!("https://{}: pods: Connection refused (os error 111)", api.address());
    let refuses = |problem: &&String| problem.ends_with("Connection refused (os error 111)");
    let refused_all = |mirror: &Mirror| mirror.problems.values().filter(refuses).count() == 3;
    mirror.until("the outage of each kind", refused_all).await?;
    assert_eq!(mirror.problems[&Some(Kind::Pod)], refused);
    api.delete_pod("erp", "goes").await?;
    api.set_pod_addresses("erp", "moves", &[ip("10.20.0.30")]).await?;
    api.run_pod(&pod("comes", "10.20.0.4")).await?;
    let mut newcomer = Mirror::start(api.kubeconfig(), true, Pace::default());
    newcomer.until("the outage of each kind", refused_all).await?;
    assert!(newcomer.lists.is_empty(), "nothing counts as in sync: {:?}", newcomer.lists);
    mirror.quiet_for(Duration::from_secs(3)).await?;
    assert_eq!(mirror.pod_names(), ["goes", "moves", "stays"], "nothing is known, so nothing changes");

    api.restart().await?;
    mirror.until("that all is well again", |mirror| mirror.problems.is_empty()).await?;
    assert_eq!(mirror.pod_names(), ["comes", "moves", "stays"]);
    assert_eq!(mirror.addresses("moves"), ["10.20.0.30"]);
    assert_eq!(mirror.gone, ["Pod/erp/goes"]);
    newcomer.in_sync().await?;
    assert_eq!(newcomer.pod_names(), ["comes", "moves", "stays"]);

    api.set_pod_addresses("erp", "stays", &[ip("10.20.0.10")]).await?;
    mirror.until("a change after the outage", |mirror| mirror.addresses("stays") == ["10.20.0.10"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_falls_silent_is_noticed_and_waited_for() -> Result<()> {
    let api = cluster(Options { standby: true, ..Options::default() }).await?;
    api.run_pod(&pod("ledger", "10.20.0.5")).await?;
    let mut mirror = Mirror::start(api.kubeconfig(), false, Pace { watch_seconds: 2, ..Pace::default() });
    mirror.in_sync().await?;

    api.freeze()?;
    api.delete_pod("erp", "ledger").await?;
    mirror
        .until("that the server is silent", |mirror| mirror.problems.contains_key(&Some(Kind::Pod)))
        .await?;
    let problem = &mirror.problems[&Some(Kind::Pod)];
    ensure!(problem.ends_with("pods: the server does not answer"), "{problem}");
    assert_eq!(mirror.pod_names(), ["ledger"]);
    api.thaw()?;
    mirror.until("the deletion", |mirror| mirror.gone == ["Pod/erp/ledger"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_right_is_said_and_stops_only_its_own_kind() -> Result<()> {
    let users = vec![User { name: "agent".into(), groups: Vec::new() }];
    let api = cluster(Options { users, ..Options::default() }).await?;
    api.run_pod(&pod("ledger", "10.20.0.5")).await?;
    allow(&api, "some", &["pods", "namespaces"]).await?;
    let mut mirror = Mirror::start(api.kubeconfig_of("agent"), true, Pace::default());
    mirror
        .until("pods, namespaces, and trouble", |mirror| mirror.lists.len() + mirror.problems.len() == 3)
        .await?;
    assert_eq!(mirror.pod_names(), ["ledger"]);
    let problem = &mirror.problems[&Some(Kind::Node)];
    ensure!(problem.contains("nodes: not allowed:"), "{problem}");
    ensure!(problem.contains("User \"agent\" cannot watch resource \"nodes\""), "{problem}");

    allow(&api, "rest", &["nodes"]).await?;
    mirror.until("the node", |mirror| mirror.lists.contains_key(&Kind::Node)).await?;
    mirror.until("that all is well", |mirror| mirror.problems.is_empty()).await?;
    Ok(())
}

/// Lets the user `agent` list and watch.
async fn allow(api: &ApiServer, name: &str, resources: &[&str]) -> Result<()> {
    let rules = json!([{ "apiGroups": [""], "resources": resources, "verbs": ["list", "watch"] }]);
    api.grant(name, rules, rights::user("agent")).await
}

#[tokio::test]
async fn a_server_without_streamed_lists_is_listed_plainly() -> Result<()> {
    let arguments = vec!["--feature-gates=WatchList=false".into()];
    let api = cluster(Options { arguments, ..Options::default() }).await?;
    api.run_pod(&pod("ledger", "10.20.0.5")).await?;
    let mut mirror = Mirror::start(api.kubeconfig(), true, Pace::default());
    timeout(SOON, mirror.in_sync()).await.context("the fallback is not immediate")??;
    assert_eq!(mirror.pod_names(), ["ledger"]);
    api.delete_pod("erp", "ledger").await?;
    mirror.until("the deletion", |mirror| mirror.gone == ["Pod/erp/ledger"]).await
}

/// A BGPPeer as a user writes it.
fn bgp_peer(name: &str, asn: u32) -> serde_json::Value {
    json!({
        "apiVersion": "plainroute.dev/v1alpha1",
        "kind": "BGPPeer",
        "metadata": { "name": name },
        "spec": { "localASN": 64512, "peerASN": asn, "peerAddress": "192.0.2.1" },
    })
}

#[tokio::test]
async fn our_own_kinds_come_from_it_once_it_knows_them_and_stay_when_it_forgets_them() -> Result<()> {
    let api = cluster(Options::default()).await?;
    let pace = Pace { absent: Duration::ZERO, ..Pace::default() };
    let mut mirror = Mirror::with(Settings {
        kubeconfig: Some(api.kubeconfig()),
        node: "node-a".into(),
        streaming_lists: true,
        custom_resources: true,
        pace,
    });
    mirror.until("that there are no such kinds", |mirror| mirror.unknown.len() >= 4).await?;
    mirror.until("the other kinds", |mirror| mirror.lists.len() == 3).await?;
    let problem = &mirror.problems[&Some(Kind::BgpPeer)];
    ensure!(problem.ends_with("bgppeers: the server does not know plainroute.dev/v1alpha1"), "{problem}");

    api.install_crds().await?;
    mirror.until("every kind", |mirror| mirror.lists.len() == 7 && mirror.problems.is_empty()).await?;
    api.apply(bgp_peer("tor-a", 64600)).await?;
    api.apply(bgp_peer("tor-b", 64601)).await?;
    let peers = |mirror: &Mirror| mirror.objects.keys().filter(|key| key.kind == Kind::BgpPeer).count();
    mirror.until("both peers", |mirror| peers(mirror) == 2).await?;

    // Not deleted with its kind: that is for the index to judge, which is told so.
    mirror.unknown.clear();
    api.delete_crd("bgppeers.plainroute.dev").await?;
    mirror.until("that the kind is gone", |mirror| mirror.unknown.contains(&Kind::BgpPeer)).await?;
    Ok(())
}
