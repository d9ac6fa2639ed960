//! The ledger in a running agent: what the plan says is written down, and told over the admin socket.
mod common;

use std::{
    fmt::Debug,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use plainroute_agent::{
    admin::{Access, AdminError, Published, serve, view::Health},
    fib::TABLE_MAIN,
    ledger::{
        self, Given, Holder, HolderSource, Kept, Ledger, LedgerEvent, LedgerVerdict, Reader, Row, Settings,
        Who,
    },
    plan::plan,
};
use plainroute_blocks::{Entry, Holdings, OwnedBlock};
use plainroute_config::Readiness;
use plainroute_speaker::{Speaker, SpeakerConfig};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(30);

/// The task, the server and what both are told.
struct Node {
    path: PathBuf,
    socket: PathBuf,
    published: watch::Sender<Arc<Published>>,
    trouble: watch::Receiver<Option<String>>,
    keeping: JoinHandle<()>,
    cancel: CancellationToken,
}

/// A plan with these Pods of namespace `erp` on this node: name, UID and address.
fn planned(pods: &[(&str, &str, &str)]) -> Arc<Published> {
    let mut yaml = "
apiVersion: v1
kind: Namespace
metadata: { name: erp }
---
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: { name: erp }
spec:
  ipRanges: [{ cidr: 10.20.0.0/24 }]
  allocation: External
  namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: erp } }
"
    .to_owned();
    for (name, uid, address) in pods {
        yaml.push_str(&format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: erp, uid: {uid}, creationTimestamp: 2026-11-22T10:00:00Z }}
spec: {{ nodeName: node-a }}
status: {{ phase: Running, podIP: {address}, podIPs: [{{ ip: {address} }}] }}
"
        ));
    }
    let snapshot = common::snapshot(common::objects(&yaml), Vec::new(), Vec::new());
    let plan = Arc::new(plan(&snapshot, &common::local()));
    Arc::new(Published { plan, ..Published::new("node-a".to_owned(), TABLE_MAIN) })
}

fn unplanned() -> Arc<Published> {
    Arc::new(Published::new("node-a".to_owned(), TABLE_MAIN))
}

impl Node {
    async fn start(folder: &TempDir, state: Arc<Published>) -> Node {
        Node::start_with(folder, state, None).await
    }

    async fn start_with(folder: &TempDir, state: Arc<Published>, given: Option<Given>) -> Node {
        let path = folder.path().join(ledger::FILE);
        let (published, receiver) = watch::channel(state);
        let (trouble_out, trouble) = watch::channel(None);
        let settings = Settings { path: path.clone(), node: "node-a".to_owned(), days: 400 };
        let mut seen = receiver.clone();
        // What is there at its start is news too.
        seen.mark_changed();
        let keeping = tokio::spawn(ledger::keep(settings, seen, given, trouble_out));
        let (cancel, socket) = (CancellationToken::new(), folder.path().join("agent.sock"));
        let access = Access {
            published: receiver,
            speaker: Speaker::start(SpeakerConfig::default()),
            commands: mpsc::channel(1).0,
            bfd: watch::channel(Arc::default()).1,
            ipam: None,
            ledger: Kept { path: path.clone(), trouble: trouble.clone() },
            readiness: Readiness::default(),
        };
        loop {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let metrics = free.local_addr().expect("its address");
            drop(free);
            match serve(&socket, metrics, access.clone(), cancel.clone()).await {
                Ok(serving) => {
                    tokio::spawn(serving);
                    return Node { path, socket, published, trouble, keeping, cancel };
                }
                // Somebody took the port in between.
                Err(AdminError::Metrics { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn publish(&self, state: Arc<Published>) {
        self.published.send_replace(state);
    }

    /// Status and body.
    async fn ask(&self, path: &str) -> (String, String) {
        let mut stream = UnixStream::connect(&self.socket).await.expect("the socket");
        let head = format!("GET {path} HTTP/1.1\r\nhost: plainroute\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it listens");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head.split(' ').nth(1).expect("a status").to_owned(), body.to_owned())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.ask(path).await;
        assert_eq!(status, "200", "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// Who held the address at that time: Pods and who says so.
    async fn who(&self, address: &str, at: Option<Timestamp>) -> Vec<(String, HolderSource)> {
        let at = at.map(|at| format!("&at={at}")).unwrap_or_default();
        let who: Who = self.get(&format!("/v1/who?address={address}{at}")).await;
        who.holders.into_iter().map(|holder| (holder.pod, holder.source)).collect()
    }

    /// The rows, once they are these.
    async fn rows(&self, expected: &[(LedgerEvent, &str)]) -> Vec<Row> {
        let rows = || {
            let rows = Reader::open(&self.path).and_then(|reader| reader.export(Timestamp::MIN, 0, 100));
            let rows = rows.unwrap_or_default();
            let brief: Vec<_> = rows.iter().map(|row| (row.event, row.pod.clone())).collect();
            let expected: Vec<_> = expected.iter().map(|(event, pod)| (*event, (*pod).to_owned())).collect();
            if brief == expected { Ok(rows) } else { Err(brief) }
        };
        until("the rows", rows).await
    }

    async fn stop(self) {
        drop(self.published);
        tokio::time::timeout(SOON, self.keeping).await.expect("in time").expect("it ends");
        self.cancel.cancel();
    }
}

async fn until<T, S: Debug>(what: &str, mut condition: impl FnMut() -> Result<T, S>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let started = tokio::time::Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(seen) if started.elapsed() > SOON => panic!("waited for {what}; last seen: {seen:?}"),
            Err(_) => drop(ticks.tick().await),
        }
    }
}

use LedgerEvent::{Freed, Held};

#[tokio::test]
async fn what_the_plan_says_is_written_down_and_told() {
    let folder = TempDir::new().expect("a directory");
    let node =
        Node::start(&folder, planned(&[("db-0", "u0", "10.20.0.5"), ("web", "u1", "10.20.0.6")])).await;
    let rows = node.rows(&[(Held, "db-0"), (Held, "web")]).await;
    assert_eq!((rows[0].pool.as_deref(), rows[0].uid.as_deref()), (Some("erp"), Some("u0")));
    assert_eq!(node.who("10.20.0.5", None).await, [("db-0".to_owned(), HolderSource::Ledger)]);

    // Made anew with the same name and address, it is another Pod.
    node.publish(planned(&[("db-0", "u2", "10.20.0.5")]));
    let rows =
        node.rows(&[(Held, "db-0"), (Held, "web"), (Freed, "web"), (Freed, "db-0"), (Held, "db-0")]).await;
    let began = rows[1].time;
    assert_eq!(node.who("10.20.0.6", None).await, []);
    assert_eq!(node.who("10.20.0.6", Some(began)).await, [("web".to_owned(), HolderSource::Ledger)]);
    let earlier: Who =
        node.get(&format!("/v1/who?address=10.20.0.6&at={}", began - SignedDuration::from_secs(1))).await;
    assert_eq!((earlier.holders, earlier.known_since), (Vec::new(), Some(rows[0].time)));
    let verdict: LedgerVerdict = node.get("/v1/ledger/verify").await;
    assert_eq!((verdict.rows, verdict.damaged), (5, None));
    let page: Vec<Row> = node.get("/v1/ledger?after=3").await;
    assert_eq!(page, rows[3..]);
    let page: Vec<Row> = node.get(&format!("/v1/ledger?since={}", rows[2].time)).await;
    assert_eq!(page, rows[2..]);
    for (path, expected) in [
        ("/v1/who?address=10.20.0.6&at=9999-01-01T00:00:00Z", "still to come"),
        ("/v1/who?address=10.20.0", "invalid IP address"),
    ] {
        let (status, body) = node.ask(path).await;
        assert!(status == "400" && body.contains(expected), "{status}: {body}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_restart_writes_what_is_different_and_nothing_before_it_has_a_plan() {
    let folder = TempDir::new().expect("a directory");
    let node =
        Node::start(&folder, planned(&[("stays", "u0", "10.20.0.5"), ("goes", "u1", "10.20.0.6")])).await;
    let before = node.rows(&[(Held, "stays"), (Held, "goes")]).await.len();
    assert_eq!(before, 2);
    node.stop().await;

    let node = Node::start(&folder, unplanned()).await;
    // It has looked, and knows nothing: nobody is gone for that.
    node.publish(unplanned());
    // All tasks of this runtime are on this thread: now it has looked.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    node.rows(&[(Held, "stays"), (Held, "goes")]).await;
    node.publish(planned(&[("stays", "u0", "10.20.0.5")]));
    node.rows(&[(Held, "stays"), (Held, "goes"), (Freed, "goes")]).await;
    node.stop().await;
}

#[tokio::test]
async fn of_two_pods_with_one_address_the_one_that_the_plan_believes_is_written() {
    let folder = TempDir::new().expect("a directory");
    let node = Node::start(&folder, planned(&[("a", "u0", "10.20.0.5"), ("b", "u1", "10.20.0.5")])).await;
    node.rows(&[(Held, "a")]).await;
    // Outside of every pool it is an address too.
    node.publish(planned(&[("a", "u0", "10.20.0.5"), ("c", "u2", "192.0.2.7")]));
    let rows = node.rows(&[(Held, "a"), (Held, "c")]).await;
    assert_eq!(rows[1].pool, None);
    node.stop().await;
}

#[tokio::test]
async fn a_broken_ledger_stops_nothing_is_said_and_is_begun_anew() {
    let folder = TempDir::new().expect("a directory");
    let path = folder.path().join(ledger::FILE);
    fs::write(&path, "no database ".repeat(200)).expect("a file");
    let mut node = Node::start(&folder, planned(&[("a", "u0", "10.20.0.5")])).await;
    let broken = node.trouble.wait_for(Option::is_some);
    tokio::time::timeout(SOON, broken).await.expect("in time").expect("it runs");
    let health: Health = node.get("/v1/check").await;
    let problems = health.problems.join("\n");
    assert!(problems.contains("ledger.sqlite is damaged") && problems.contains("move it away"), "{problems}");
    // Who has it now is known all the same; who had it is not, and is no guess.
    assert_eq!(node.who("10.20.0.5", None).await, [("a".to_owned(), HolderSource::Plan)]);
    let (status, body) = node.ask("/v1/who?address=10.20.0.5&at=2026-11-22T10:00:00Z").await;
    assert!(status == "500" && body.contains("is damaged"), "{status}: {body}");

    node.publish(planned(&[("b", "u1", "10.20.0.6"), ("c", "u2", "10.20.0.7")]));
    fs::rename(&path, folder.path().join("for-the-auditor")).expect("moved away");
    node.publish(planned(&[("b", "u1", "10.20.0.6")]));
    let mended = node.trouble.wait_for(Option::is_none);
    tokio::time::timeout(SOON, mended).await.expect("in time").expect("it runs");
    assert_eq!(node.who("10.20.0.6", None).await, [("b".to_owned(), HolderSource::Ledger)]);
    let verdict: LedgerVerdict = node.get("/v1/ledger/verify").await;
    assert_eq!(verdict.damaged, None);
    let health: Health = node.get("/v1/check").await;
    assert!(!health.problems.join("\n").contains("ledger"), "{:?}", health.problems);
    node.stop().await;
}

#[tokio::test]
async fn rows_older_than_the_days_go_a_day_at_a_time() {
    let folder = TempDir::new().expect("a directory");
    let path = folder.path().join(ledger::FILE);
    let address = |last| IpAddr::from([10, 20, 0, last]);
    let holder = |pod: &str| Holder { namespace: "erp".into(), pod: pod.into(), uid: None, pool: None };
    let days_ago = |days: i64| Timestamp::now() - SignedDuration::from_hours(24 * days);
    let mut old = Ledger::open(&path, "node-a").expect("a ledger");
    for days in [450, 430, 399] {
        old.held(address(9), holder(&format!("of-{days}")), days_ago(days)).expect("written");
    }
    drop(old);
    let node = Node::start(&folder, planned(&[])).await;
    // Of the five rows that were there the oldest day had two: it began, and it ended when the next one began.
    node.rows(&[(Freed, "of-450"), (Held, "of-430"), (Freed, "of-430"), (Held, "of-399"), (Freed, "of-399")])
        .await;
    node.publish(planned(&[("a", "u0", "10.20.0.5")]));
    node.rows(&[(Freed, "of-430"), (Held, "of-399"), (Freed, "of-399"), (Held, "a")]).await;
    let verdict: LedgerVerdict = node.get("/v1/ledger/verify").await;
    assert_eq!((verdict.cut, verdict.damaged), (3, None));
    node.publish(planned(&[]));
    node.rows(&[(Freed, "of-430"), (Held, "of-399"), (Freed, "of-399"), (Held, "a"), (Freed, "a")]).await;
    node.stop().await;
}

/// A node that gives the addresses of 10.20.0.0/28 out itself.
struct Giver {
    node: Node,
    entries: mpsc::Sender<Entry>,
    holdings: watch::Sender<Option<Holdings>>,
}

impl Giver {
    async fn start(folder: &TempDir, state: Arc<Published>, holdings: Option<Holdings>) -> Giver {
        let (entries, entries_in) = mpsc::channel(16);
        let (holdings_out, mut holdings_in) = watch::channel(holdings);
        holdings_in.mark_changed();
        let given = Given { holdings: holdings_in, entries: entries_in };
        let node = Node::start_with(folder, state, Some(given)).await;
        Giver { node, entries, holdings: holdings_out }
    }

    async fn tell(&self, holder: &plainroute_blocks::Holder, at: &str, ends: bool) {
        let (address, at) = (address(), at.parse().expect("a time"));
        let entry = Entry { address, holder: holder.clone(), at, ends };
        self.entries.send(entry).await.expect("it is heard");
    }
}

fn address() -> IpAddr {
    [10, 20, 0, 5].into()
}

fn holder(name: &str) -> plainroute_blocks::Holder {
    plainroute_blocks::Holder {
        namespace: "erp".to_owned(),
        name: name.to_owned(),
        pod_uid: format!("u-{name}"),
        container_id: "c".to_owned(),
        interface: "eth0".to_owned(),
        stateful_set: None,
        since: "2026-11-22T10:00:00Z".parse().expect("a time"),
    }
}

fn holdings(name: Option<&str>) -> Holdings {
    let block = OwnedBlock { pool: "erp".to_owned(), ..OwnedBlock::default() };
    let blocks = [("10.20.0.0/28".parse().expect("a prefix"), block)];
    let held = name.map(|name| (address(), holder(name)));
    Holdings { blocks: Arc::new(blocks.into()), held: Arc::new(held.into_iter().collect()) }
}

/// The same Pod and address by the plan, of a pool in blocks.
fn planned_in_blocks(name: &str) -> Arc<Published> {
    let yaml = format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{ name: erp }}
---
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: {{ name: erp }}
spec: {{ ipRanges: [{{ cidr: 10.20.0.0/24 }}] }}
---
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: erp, uid: u-{name} }}
spec: {{ nodeName: node-a }}
status: {{ phase: Running, podIPs: [{{ ip: 10.20.0.5 }}] }}
"
    );
    let snapshot = common::snapshot(common::objects(&yaml), Vec::new(), Vec::new());
    let local = plainroute_agent::plan::Local { holdings: Some(holdings(Some(name))), ..common::local() };
    let plan = Arc::new(plan(&snapshot, &local));
    assert_eq!(plan.addresses().count(), 1, "the plan tells of it too");
    Arc::new(Published { plan, ..Published::new("node-a".to_owned(), TABLE_MAIN) })
}

#[tokio::test]
async fn an_address_that_is_given_out_is_in_it_from_add_to_del_and_once() {
    let folder = TempDir::new().expect("a directory");
    let giver = Giver::start(&folder, planned(&[]), Some(holdings(None))).await;
    let (began, ended) = ("2026-11-22T10:00:00Z", "2026-11-22T10:00:05Z");
    // Never planned, never advertised.
    giver.holdings.send_replace(Some(holdings(Some("app"))));
    giver.tell(&holder("app"), began, false).await;
    let rows = giver.node.rows(&[(Held, "app")]).await;
    assert_eq!((rows[0].pool.as_deref(), rows[0].uid.as_deref()), (Some("erp"), Some("u-app")));
    assert_eq!(rows[0].since.to_string(), began);
    // The plan says so too, and then no more: the API server may be wrong about Pods, the journal is not.
    giver.node.publish(planned_in_blocks("app"));
    giver.node.publish(planned(&[("other", "u9", "192.0.2.9")]));
    giver.node.rows(&[(Held, "app"), (Held, "other")]).await;
    // Given back, with the journal's time; and one that was held between two looks only.
    giver.holdings.send_replace(Some(holdings(None)));
    giver.tell(&holder("brief"), "2026-11-22T10:00:06Z", false).await;
    giver.tell(&holder("brief"), "2026-11-22T10:00:07Z", true).await;
    let all = [(Held, "app"), (Held, "other"), (Freed, "app"), (Held, "brief"), (Freed, "brief")];
    let rows = giver.node.rows(&all).await;
    assert_eq!(rows[4].time.to_string(), "2026-11-22T10:00:07Z");
    // What comes late is about another Pod than who has it now.
    giver.holdings.send_replace(Some(holdings(Some("next"))));
    giver.tell(&holder("next"), "2026-11-22T10:00:08Z", false).await;
    giver.tell(&holder("app"), ended, true).await;
    giver.node.rows(&[&all[..], &[(Held, "next")]].concat()).await;
    giver.holdings.send_replace(Some(holdings(None)));
    giver.tell(&holder("next"), "2026-11-22T10:00:09Z", true).await;
    giver.node.rows(&[&all[..], &[(Held, "next"), (Freed, "next")]].concat()).await;
    giver.node.stop().await;
}

#[tokio::test]
async fn while_the_journal_is_not_read_nobody_is_gone() {
    let folder = TempDir::new().expect("a directory");
    let giver = Giver::start(&folder, planned(&[]), Some(holdings(Some("app")))).await;
    giver.node.rows(&[(Held, "app")]).await;
    giver.node.stop().await;

    let giver = Giver::start(&folder, planned(&[("other", "u9", "192.0.2.9")]), None).await;
    giver.node.rows(&[(Held, "app"), (Held, "other")]).await;
    giver.holdings.send_replace(Some(holdings(None)));
    giver.node.rows(&[(Held, "app"), (Held, "other"), (Freed, "app")]).await;
    giver.node.stop().await;
}
