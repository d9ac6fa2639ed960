//! The watch against an API server that answers from a script, one answer a request, and then no more.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, future, stream};
use http_body_util::StreamBody;
use hyper::{Request, Response, body::Frame};
use kube::{Client, client::Body};
use plainroute_config::{Kind, Namespace, Node, Object, ObjectKey, Pod};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{Marks, Pace, Settings, most_recent, run, seen::Seen, watch::Ended, watch::Watch};
use crate::source::{Change, Feed};

const SERVER: &str = "https://api.test";
const SOON: Duration = Duration::from_secs(10);
/// Long enough that a wrong change would have come.
const QUIET: Duration = Duration::from_millis(100);

/// The answer to one request.
#[derive(Clone)]
struct Answer {
    code: u16,
    lines: Vec<Value>,
    /// Whether the connection stays open after the last line.
    open: bool,
    /// How long the server thinks first.
    after: Duration,
}

fn list(pods: &[Value]) -> Answer {
    page(pods, "")
}

fn page(pods: &[Value], more: &str) -> Answer {
    let metadata = json!({ "resourceVersion": "10", "continue": more });
    let lines = vec![json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": pods })];
    Answer { code: 200, lines, open: false, after: Duration::ZERO }
}

fn events(events: &[(&str, Value)]) -> Answer {
    let lines = events.iter().map(|(kind, object)| json!({ "type": kind, "object": object })).collect();
    Answer { code: 200, lines, open: true, after: Duration::ZERO }
}

fn ending(mut answer: Answer) -> Answer {
    answer.open = false;
    answer
}

fn status(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": "", "message": message })
}

fn refused(code: u16, message: &str) -> Answer {
    Answer { code, lines: vec![status(code, message)], open: false, after: Duration::ZERO }
}

fn late(mut answer: Answer) -> Answer {
    answer.after = Duration::from_millis(30);
    answer
}

fn expired() -> Answer {
    events(&[("ERROR", status(410, "too old resource version"))])
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "erp", "uid": name, "resourceVersion": "11" },
        "spec": { "nodeName": "node-a", "containers": [{ "name": "main" }] },
        "status": { "phase": "Running", "podIP": "10.20.0.5", "podIPs": [{ "ip": "10.20.0.5" }] },
    })
}

fn unreadable(name: &str) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["labels"] = json!("no labels at all");
    pod
}

fn initial_end() -> (&'static str, Value) {
    let annotations = json!({ "k8s.io/initial-events-end": "true" });
    let metadata = json!({ "resourceVersion": "12", "annotations": annotations });
    ("BOOKMARK", json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata }))
}

type Asked = Arc<Mutex<Vec<String>>>;

/// How the server says what state it is in, each time that it is asked for that and nothing else; by default, one that
/// never went back.
fn client(script: Vec<Answer>, states: Vec<u64>) -> (Client, Asked) {
    let script = Arc::new(Mutex::new(VecDeque::from(script)));
    let states = Arc::new(Mutex::new(VecDeque::from(states)));
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        if request.uri().query().is_some_and(|query| query.contains("limit=1&") || query.ends_with("limit=1"))
        {
            let state = states.lock().unwrap().pop_front().unwrap_or(1000);
            let metadata = json!({ "resourceVersion": state.to_string() });
            let kind = "PartialObjectMetadataList";
            let line =
                json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": [] });
            let answer = Answer { code: 200, lines: vec![line], open: false, after: Duration::ZERO };
            return future::ready(Ok::<_, Infallible>(response(answer))).left_future();
        }
        log.lock().unwrap().push(request.uri().to_string());
        let answer = script.lock().unwrap().pop_front();
        async move {
            match answer {
                Some(answer) => {
                    tokio::time::sleep(answer.after).await;
                    Ok::<_, Infallible>(response(answer))
                }
                None => future::pending().await,
            }
        }
        .right_future()
    });
    (Client::new(service, "default"), asked)
}

fn response(
    answer: Answer,
) -> Response<StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>> {
    let lines = answer.lines.into_iter().map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))));
    let rest = if answer.open { stream::pending().left_stream() } else { stream::empty().right_stream() };
    let body = StreamBody::new(stream::iter(lines).chain(rest));
    Response::builder().status(answer.code).body(body).unwrap()
}

fn settings() -> Settings {
    let (retry_min, retry_max) = (Duration::from_millis(1), Duration::from_millis(5));
    let settle = Duration::from_millis(20);
    let pace = Pace { watch_seconds: 60, retry_min, retry_max, absent: Duration::ZERO, settle };
    let node = "node-a".to_owned();
    Settings { kubeconfig: None, node, streaming_lists: false, custom_resources: false, pace }
}

/// A watch of Pods at work.
struct Rig {
    feeds: mpsc::Receiver<Feed>,
    watch: JoinHandle<Ended>,
    asked: Asked,
    marks: watch::Receiver<Marks>,
}

impl Rig {
    fn new(script: Vec<Answer>) -> Self {
        Self::with(settings(), script)
    }

    fn streaming(script: Vec<Answer>) -> Self {
        Self::with(Settings { streaming_lists: true, ..settings() }, script)
    }

    fn with(settings: Settings, script: Vec<Answer>) -> Self {
        Self::with_states(settings, script, Vec::new(), Marks::new())
    }

    fn with_states(settings: Settings, script: Vec<Answer>, states: Vec<u64>, marks: Marks) -> Self {
        let (client, asked) = client(script, states);
        let (sender, feeds) = mpsc::channel(16);
        let (marks_out, marks) = watch::channel(marks);
        let watch = tokio::spawn(async move {
            let fields = Some("spec.nodeName=node-a".to_owned());
            Watch::<Pod>::new(fields, &settings, &marks_out, &sender).run(&client, SERVER).await
        });
        Self { feeds, watch, asked, marks }
    }

    async fn tells(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(next(&mut self.feeds).await, *expected);
        }
    }

    async fn tells_no_more(&mut self) {
        let more = timeout(QUIET, self.feeds.recv()).await;
        assert!(more.is_err(), "unexpected: {more:?}");
    }

    fn asked(&self, number: usize) -> String {
        self.asked.lock().unwrap()[number].clone()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn next(feeds: &mut mpsc::Receiver<Feed>) -> String {
    let feed = timeout(SOON, feeds.recv()).await.expect("nothing was told").expect("the source ended");
    written(&feed.change)
}

/// A change in a line.
fn written(change: &Change) -> String {
    match change {
        Change::Replace { kinds, objects } => {
            let names: Vec<_> = objects.iter().map(|object| named(&object.key())).collect();
            format!("{kinds:?} are [{}]", names.join(" "))
        }
        Change::Apply(object) => format!("{} is there", named(&object.key())),
        Change::Delete(key) => format!("{} is gone", named(key)),
        Change::Rewound { kind, objects } => {
            let names: Vec<_> = objects.iter().map(|object| named(&object.key())).collect();
            format!("{kind:?} went back to [{}]", names.join(" "))
        }
        Change::NoSuchKind(kind) => format!("{kind:?} is not known"),
        Change::Refused { kind, objects } => {
            let names: Vec<_> = objects.keys().map(named).collect();
            format!("{kind:?} refused: [{}]", names.join(" "))
        }
        Change::HostLinks(_) => "host links".to_owned(),
        Change::Health { kind, problem: Some(problem) } => format!("{kind:?} trouble: {problem}"),
        Change::Health { kind, problem: None } => format!("{kind:?} well"),
    }
}

fn named(key: &ObjectKey) -> String {
    format!("{}/{}", key.namespace.as_deref().unwrap_or_default(), key.name)
}

#[tokio::test]
async fn a_list_replaces_and_events_follow() {
    let changes = [("ADDED", pod("b")), ("MODIFIED", pod("a")), ("DELETED", pod("b"))];
    let mut rig = Rig::new(vec![list(&[pod("a")]), events(&changes)]);
    rig.tells(&["[Pod] are [erp/a]", "erp/b is there", "erp/a is there", "erp/b is gone"]).await;
    rig.tells_no_more().await;
    assert!(rig.asked(0).starts_with("/api/v1/pods?"), "{}", rig.asked(0));
    assert!(rig.asked(0).contains("fieldSelector=spec.nodeName%3Dnode-a"), "{}", rig.asked(0));
    assert!(rig.asked(1).contains("timeoutSeconds=60"), "{}", rig.asked(1));
}

#[tokio::test]
async fn an_expired_watch_is_listed_again_at_once_as_a_whole() {
    let again = list(&[pod("b"), pod("c")]);
    let mut rig = Rig::new(vec![list(&[pod("a"), pod("b")]), expired(), again, events(&[])]);
    rig.tells(&["[Pod] are [erp/a erp/b]", "[Pod] are [erp/b erp/c]"]).await;
    rig.tells_no_more().await;
}

#[tokio::test]
async fn a_list_that_breaks_off_changes_nothing() {
    let broken = [page(&[pod("a")], "more"), refused(410, "the continue token is too old")];
    let whole = [page(&[pod("a")], "more"), list(&[pod("b")]), events(&[])];
    let mut rig = Rig::new([&broken[..], &whole[..]].concat());
    rig.tells(&["[Pod] are [erp/a erp/b]"]).await;
    rig.tells_no_more().await;
}

#[tokio::test]
async fn errors_are_told_once_each_and_delete_nothing() {
    let failures = [refused(500, "etcd is away"), refused(500, "etcd is away"), refused(503, "not yet")];
    let script = [&[list(&[pod("a")])], &failures[..], &[list(&[pod("a")]), events(&[])]].concat();
    let mut rig = Rig::new(script);
    rig.tells(&[
        "[Pod] are [erp/a]",
        "Some(Pod) trouble: https://api.test: pods: the server answers 500: etcd is away",
        "Some(Pod) trouble: https://api.test: pods: the server answers 503: not yet",
        "[Pod] are [erp/a]",
        "Some(Pod) well",
    ])
    .await;
    rig.tells_no_more().await;
}

#[tokio::test]
async fn a_kind_that_may_be_listed_but_not_watched_is_not_well_in_between() {
    let round = [list(&[pod("a")]), late(refused(403, "cannot watch pods"))];
    let mut rig = Rig::with(
        Settings { pace: Pace { settle: SOON, ..settings().pace }, ..settings() },
        [&round[..], &round[..], &round[..]].concat(),
    );
    rig.tells(&[
        "[Pod] are [erp/a]",
        "Some(Pod) trouble: https://api.test: pods: not allowed: cannot watch pods",
        "[Pod] are [erp/a]",
        "[Pod] are [erp/a]",
    ])
    .await;
    rig.tells_no_more().await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_spoils_nothing() {
    let first = [list(&[pod("a"), unreadable("b")]), events(&[("MODIFIED", unreadable("a"))])];
    let mut rig = Rig::new([&first[..], &[]].concat());
    rig.tells(&["Pod refused: [erp/b]", "[Pod] are [erp/a]"]).await;
    let trouble = next(&mut rig.feeds).await;
    assert!(
        trouble.starts_with("Some(Pod) trouble: https://api.test: pods: erp/b cannot be read:"),
        "{trouble}"
    );
    rig.tells(&["Pod refused: [erp/a erp/b]"]).await;
    let trouble = next(&mut rig.feeds).await;
    assert!(trouble.contains("erp/a cannot be read") && trouble.contains("(and 1 more)"), "{trouble}");
    rig.tells_no_more().await;
}

#[tokio::test]
async fn an_object_that_became_unreadable_is_told_before_the_list_that_lacks_it() {
    let then = [list(&[pod("c"), unreadable("b")]), expired(), list(&[pod("c")]), events(&[])];
    let mut rig = Rig::new([&[list(&[pod("a"), pod("b")]), expired()], &then[..]].concat());
    rig.tells(&["[Pod] are [erp/a erp/b]", "Pod refused: [erp/b]", "[Pod] are [erp/c]"]).await;
    assert!(next(&mut rig.feeds).await.contains("erp/b cannot be read"));
    rig.tells(&["Pod refused: []", "[Pod] are [erp/c]", "Some(Pod) well"]).await;
    rig.tells_no_more().await;
}

#[tokio::test]
async fn a_server_that_went_back_is_told_as_such_once() {
    let again = [expired(), list(&[]), expired(), list(&[]), events(&[])];
    let mut rig = Rig::with_states(
        settings(),
        [&[list(&[pod("a")])], &again[..]].concat(),
        vec![40, 39, 39],
        Marks::new(),
    );
    rig.tells(&["[Pod] are [erp/a]", "Pod went back to []", "[Pod] are []"]).await;
    assert_eq!(rig.marks.borrow()[&Kind::Pod], 39);
}

#[tokio::test]
async fn what_an_earlier_process_saw_counts_too() {
    let marks = |mark| Marks::from([(Kind::Pod, mark)]);
    let script = || vec![list(&[pod("a")]), events(&[("ADDED", pod("b"))])];
    for (mark, told) in [(41, "Pod went back to [erp/a]"), (40, "[Pod] are [erp/a]")] {
        let mut rig = Rig::with_states(settings(), script(), vec![40], marks(mark));
        rig.tells(&[told, "erp/b is there"]).await;
    }
    // An event raises it as well: that of `b` is of state 11.
    let mut rig = Rig::with_states(settings(), script(), vec![5], Marks::new());
    rig.tells(&["[Pod] are [erp/a]", "erp/b is there"]).await;
    assert_eq!(rig.marks.borrow()[&Kind::Pod], 11);
}

#[tokio::test]
async fn a_kind_that_the_server_lacks_is_no_list_without_objects() {
    let script = vec![list(&[pod("a")]), expired(), refused(404, "no"), list(&[pod("a")]), events(&[])];
    let mut rig = Rig::new(script);
    rig.tells(&[
        "[Pod] are [erp/a]",
        "Pod is not known",
        "Some(Pod) trouble: https://api.test: pods: the server does not know v1",
        "[Pod] are [erp/a]",
        "Some(Pod) well",
    ])
    .await;
}

#[tokio::test]
async fn a_streamed_list_replaces_at_its_mark() {
    let changes = [("ADDED", pod("a")), ("ADDED", pod("b")), initial_end(), ("ADDED", pod("c"))];
    let mut rig = Rig::streaming(vec![events(&changes)]);
    rig.tells(&["[Pod] are [erp/a erp/b]", "erp/c is there"]).await;
    assert!(rig.asked(0).contains("sendInitialEvents=true"), "{}", rig.asked(0));
}

#[tokio::test]
async fn a_server_that_refuses_to_stream_is_asked_for_a_list() {
    let no = refused(422, "sendInitialEvents is forbidden");
    let mut rig = Rig::streaming(vec![no, list(&[pod("a")]), events(&[])]);
    rig.tells(&["[Pod] are [erp/a]"]).await;
    rig.tells_no_more().await;
    assert!(!rig.asked(1).contains("sendInitialEvents"), "{}", rig.asked(1));
}

#[tokio::test]
async fn a_server_that_ignores_the_wish_to_stream_is_asked_for_a_list() {
    let unmarked = ending(events(&[("ADDED", pod("a"))]));
    let mut rig = Rig::streaming(vec![unmarked.clone(), unmarked, list(&[pod("a")]), events(&[])]);
    rig.tells(&["[Pod] are [erp/a]"]).await;
    rig.tells_no_more().await;
}

#[tokio::test]
async fn refused_credentials_are_told_and_ask_for_new_ones() {
    let mut rig = Rig::new(vec![refused(401, "Unauthorized")]);
    rig.tells(&["Some(Pod) trouble: https://api.test: pods: the credentials are refused"]).await;
    assert_eq!(timeout(SOON, &mut rig.watch).await.unwrap().unwrap(), Ended::Unauthorized);
}

#[tokio::test]
async fn the_watch_ends_when_nobody_listens() {
    let mut rig = Rig::new(vec![list(&[pod("a")]), events(&[])]);
    rig.feeds.close();
    assert_eq!(timeout(SOON, &mut rig.watch).await.unwrap().unwrap(), Ended::Unheard);
}

#[tokio::test]
async fn it_waits_for_its_configuration_and_for_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let (sender, mut feeds) = mpsc::channel(16);
    let source = tokio::spawn(run(
        Settings { kubeconfig: Some(kubeconfig.clone()), ..settings() },
        watch::Sender::default(),
        watch::channel(super::Scope::default()).1,
        sender,
    ));
    let problem = next(&mut feeds).await;
    assert!(problem.starts_with("None trouble: no usable Kubernetes client configuration:"), "{problem}");
    assert!(problem.contains(kubeconfig.to_str().unwrap()), "{problem}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cluster = json!({ "server": format!("https://{nobody}"), "insecure-skip-tls-verify": true });
    let config = json!({
        "clusters": [{ "name": "c", "cluster": cluster }],
        "users": [{ "name": "u", "user": { "token": "t" } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    // At once, so that half of it is never read.
    fs::write(directory.path().join("new"), config.to_string()).unwrap();
    fs::rename(directory.path().join("new"), &kubeconfig).unwrap();
    assert_eq!(next(&mut feeds).await, "None well");
    let mut told = [next(&mut feeds).await, next(&mut feeds).await, next(&mut feeds).await];
    told.sort();
    for (told, kind) in told.iter().zip(["Namespace", "Node", "Pod"]) {
        assert!(told.starts_with(&format!("Some({kind}) trouble: https://{nobody}: ")), "{told}");
        assert!(told.contains("Connection refused"), "{told}");
    }
    assert!(timeout(QUIET, feeds.recv()).await.is_err(), "each is told once");
    source.abort();
}

#[test]
fn a_streamed_list_is_asked_for_as_of_now() {
    let asked = |uri: &str| most_recent(Request::builder().uri(uri).body(()).unwrap()).uri().to_string();
    assert_eq!(
        asked(
            "https://api.test/api/v1/pods?&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0"
        ),
        "https://api.test/api/v1/pods?&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    // What is no list goes on where it was.
    let resumed = "https://api.test/api/v1/pods?watch=true&resourceVersion=0";
    assert_eq!(asked(resumed), resumed);
}

#[test]
fn others_annotations_are_left_behind() {
    let metadata = |name: &str| {
        let annotations = json!({ "plainroute.dev/ippools": "erp", "example.org/checksum": "3f1b7ee" });
        json!({ "name": name, "resourceVersion": "7", "annotations": annotations })
    };
    let of = |object: Object| object.metadata().annotations.keys().cloned().collect::<Vec<_>>();
    let mut pod = pod("orders");
    pod["metadata"] = metadata("orders");
    let pod: Seen<Pod> = serde_json::from_value(pod).unwrap();
    assert_eq!(of(pod.object.unwrap().into()), ["plainroute.dev/ippools"]);
    let namespace: Seen<Namespace> = serde_json::from_value(json!({ "metadata": metadata("erp") })).unwrap();
    assert_eq!(of(namespace.object.unwrap().into()), ["plainroute.dev/ippools"]);
    // There is one, and others may be configured to mean something.
    let node: Seen<Node> = serde_json::from_value(json!({ "metadata": metadata("node-a") })).unwrap();
    assert_eq!(of(node.object.unwrap().into()), ["example.org/checksum", "plainroute.dev/ippools"]);
}
