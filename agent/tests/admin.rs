//! What a running agent answers: a real admin server, with a state made by hand and peers that are kept down.
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use plainroute_agent::{
    admin::{
        Access, AdminError, Published, serve,
        view::{DrainView, Explanation, Health, HeldView, KernelRouteView, PeerView, PodView, RouteView},
    },
    drain::DrainState,
    fib::{Delivery, Desired, Installed, RouteKey, RouteStatus, TABLE_MAIN, Target},
    index::{Held, HeldReason},
    ledger::Kept,
    plan::{FoundBy, Plan},
};
use plainroute_config::{Kind, ObjectKey, Readiness, ReadinessSessions};
use plainroute_speaker::{PeerConfig, PeerName, Recorder, Speaker, SpeakerConfig};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A server, its state and its peers.
struct Agent {
    folder: TempDir,
    metrics: SocketAddr,
    published: watch::Sender<Arc<Published>>,
    speaker: Speaker,
    cancel: CancellationToken,
    serving: JoinHandle<()>,
}

/// Access to a main task that has ended.
fn access(published: watch::Receiver<Arc<Published>>, speaker: Speaker) -> Access {
    let (commands, bfd) = (mpsc::channel(1).0, watch::channel(Arc::default()).1);
    let ledger = Kept { path: "/nonexistent/ledger.sqlite".into(), trouble: watch::channel(None).1 };
    Access { published, speaker, commands, bfd, ipam: None, ledger, readiness: Readiness::default() }
}

impl Agent {
    async fn start(state: Published) -> Agent {
        Agent::start_with(state, SpeakerConfig::default()).await
    }

    async fn start_with(state: Published, config: SpeakerConfig) -> Agent {
        Agent::start_waiting_for(state, config, ReadinessSessions::None).await
    }

    async fn start_waiting_for(
        state: Published,
        config: SpeakerConfig,
        established: ReadinessSessions,
    ) -> Agent {
        let folder = TempDir::new().expect("a directory");
        let speaker = Speaker::start(config);
        let (published, receiver) = watch::channel(Arc::new(state));
        let cancel = CancellationToken::new();
        let socket = folder.path().join("run/agent.sock");
        loop {
            let metrics = free_port().await;
            let access =
                Access { readiness: Readiness { established }, ..access(receiver.clone(), speaker.clone()) };
            let serving = serve(&socket, metrics, access, cancel.clone()).await;
            match serving {
                Ok(serving) => {
                    let serving = tokio::spawn(serving);
                    return Agent { folder, metrics, published, speaker, cancel, serving };
                }
                // Somebody took the port in between.
                Err(AdminError::Metrics { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/agent.sock")
    }

    async fn get(&self, path: &str) -> Answer {
        let stream = UnixStream::connect(self.socket()).await.expect("the socket");
        request(stream, "GET", path).await
    }

    async fn value<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.get(path).await;
        assert_eq!((answer.status, answer.r#type.as_str()), (200, "application/json"), "{path}");
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.body))
    }

    async fn get_outside(&self, path: &str) -> Answer {
        let stream = TcpStream::connect(self.metrics).await.expect("the metrics port");
        request(stream, "GET", path).await
    }

    /// Peers that a configuration keeps down: they are there, and no packet leaves for them.
    async fn keep_down(&self, names: &[&str]) {
        let at = |host| (Ipv4Addr::new(192, 0, 2, host).into(), None);
        self.keep_down_at(names.iter().zip(1..).map(|(name, host)| (*name, at(host)))).await;
    }

    async fn keep_down_at<'a>(&self, places: impl Iterator<Item = (&'a str, (IpAddr, Option<String>))>) {
        let config = |(address, interface)| PeerConfig {
            blocked: Some("kept down by a test".to_owned()),
            interface,
            ..PeerConfig::new(
                64512_u32.try_into().expect("an AS number"),
                64600_u32.try_into().expect("an AS number"),
                Ipv4Addr::new(192, 0, 2, 254).try_into().expect("a router ID"),
                address,
            )
        };
        let peers: BTreeMap<PeerName, PeerConfig> =
            places.map(|(name, place)| (PeerName::from(name), config(place))).collect();
        let count = peers.len();
        self.speaker.apply(peers).await.expect("the peers");
        let mut seen = self.speaker.peers();
        let all = seen.wait_for(|seen| seen.len() == count);
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("in time").expect("the speaker");
    }

    fn publish(&self, state: Published) {
        self.published.send_replace(Arc::new(state));
    }

    async fn stop(self) -> PathBuf {
        let socket = self.socket();
        self.cancel.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.serving).await.expect("in time").expect("it ends");
        assert!(!socket.exists(), "the socket is left behind");
        socket
    }
}

async fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    listener.local_addr().expect("its address")
}

struct Answer {
    status: u16,
    r#type: String,
    body: String,
}

async fn request(mut stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, path: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: plainroute\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it listens");
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time").expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    Answer {
        status: head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"),
        r#type: field("content-type").unwrap_or_default(),
        body: body.to_owned(),
    }
}

/// The plan of a scenario, and a kernel and peers that do as it says.
fn carried_out(plan: Plan) -> Published {
    let routes = plan.local_routes().into_iter();
    let desired: BTreeMap<RouteKey, Target> =
        routes.map(|(prefix, target)| (RouteKey::main(prefix), target)).collect();
    let by_others = Delivery::Via { interface: "cni0".to_owned(), gateway: None };
    let installed = Installed {
        generation: 1,
        synced: true,
        routes: desired.keys().map(|key| (*key, RouteStatus::Installed)).collect(),
        delivery: plan.foreign_addresses().into_iter().map(|address| (address, by_others.clone())).collect(),
        ..Installed::default()
    };
    let advertised = plan
        .advertisements()
        .map(|route| ((PeerName::from(route.peer), route.prefix), route.attributes.clone()))
        .collect();
    Published {
        plan: Arc::new(plan),
        desired: Arc::new(Desired { generation: 1, routes: desired, complete: true, ..Desired::default() }),
        installed: Arc::new(installed),
        advertised: Some(Arc::new(advertised)),
        config_applied: Some("2026-11-22T12:00:00Z".parse().expect("a time")),
        ..Published::new("node-a".to_owned(), TABLE_MAIN)
    }
}

fn scenario(name: &str) -> Plan {
    common::plan_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(name))
}

#[tokio::test]
async fn each_question_has_its_answer() {
    let plan = scenario("dual-stack");
    let agent = Agent::start(carried_out(plan.clone())).await;
    agent.keep_down(&["tor-a", "tor-b"]).await;

    let peers: Vec<PeerView> = agent.value("/v1/peers").await;
    let told: Vec<_> = peers.iter().map(|peer| (peer.name.as_str(), peer.state.as_str())).collect();
    assert_eq!(told, [("tor-a", "Idle"), ("tor-b", "Idle")]);
    assert!(peers.iter().all(|peer| peer.blocked.as_deref() == Some("kept down by a test")), "{peers:?}");

    for path in ["/v1/routes/advertised", "/v1/routes/received", "/v1/routes/received?peer=tor-b"] {
        assert_eq!(agent.value::<Vec<RouteView>>(path).await, [], "a session that is down has no routes");
    }
    let kernel: Vec<KernelRouteView> = agent.value("/v1/routes/kernel").await;
    let owners: Vec<_> = kernel.iter().map(|route| (route.prefix.as_str(), route.owner.as_deref())).collect();
    assert_eq!(
        owners,
        [
            ("10.20.0.10/32", Some("erp/web-1")),
            ("10.20.0.11/32", Some("erp/old-1")),
            ("2001:db8:20::10/128", Some("erp/web-1")),
            ("2001:db8:20::11/128", Some("erp/old-1")),
        ]
    );
    assert!(kernel.iter().all(|route| route.installed && route.table == TABLE_MAIN), "{kernel:?}");

    let pods: Vec<PodView> = agent.value("/v1/pods").await;
    let fates: Vec<_> =
        pods.iter().map(|pod| (pod.pod.as_str(), pod.peers.join(" "), pod.reason.as_deref())).collect();
    assert_eq!(
        fates,
        [
            ("old-1", "tor-b".to_owned(), None),
            ("old-1", String::new(), Some("NoPeer")),
            ("web-1", "tor-a tor-b".to_owned(), None),
            ("web-1", "tor-a".to_owned(), None),
        ]
    );
    assert_eq!(agent.value::<Value>("/v1/pools").await, json!(plan.pools));
    assert_eq!(agent.value::<Value>("/v1/plan").await, json!(plan));

    let health: Health = agent.value("/v1/check").await;
    assert!(health.ready && health.awaited.is_empty());
    assert_eq!(
        health.problems,
        ["tor-a", "tor-b"].map(|peer| format!("BGPPeer/{peer} is Idle: kept down by a test"))
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_wrong_question_is_told_what_is_wrong() {
    let agent = Agent::start(carried_out(scenario("dual-stack"))).await;
    agent.keep_down(&["tor-a", "tor-b"]).await;
    for path in ["/v1/routes/advertised?peer=tor-x", "/v1/routes/received?peer=tor-x"] {
        let answer = agent.get(path).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.body, "no peer tor-x on this node; its peers are: tor-a, tor-b");
    }
    assert_eq!(agent.get("/v1/explain").await.status, 400);
    assert_eq!(agent.get("/v1/nonsense").await.status, 404);
    let stream = UnixStream::connect(agent.socket()).await.expect("the socket");
    assert_eq!(request(stream, "POST", "/v1/plan").await.status, 405, "nothing here changes anything");
    agent.stop().await;
}

#[tokio::test]
async fn a_peer_that_no_session_is_tried_with_is_shown_with_the_reason() {
    let plan = scenario("not-supported");
    let refused: BTreeMap<String, String> =
        plan.peers.iter().filter_map(|peer| Some((peer.name.clone(), peer.refused.clone()?))).collect();
    assert!(!refused.is_empty());
    let agent = Agent::start(carried_out(plan)).await;
    let peers: Vec<PeerView> = agent.value("/v1/peers").await;
    let shown: BTreeMap<String, String> =
        peers.into_iter().filter_map(|peer| Some((peer.name, peer.blocked?))).collect();
    assert_eq!(shown, refused);
    agent.stop().await;
}

#[tokio::test]
async fn it_is_shown_where_each_peer_is_and_how_that_is_known() {
    let plan = scenario("peers-found");
    let agent = Agent::start(carried_out(plan.clone())).await;
    let places = plan.peers.iter().filter_map(|peer| {
        let remote = peer.remote.clone()?;
        Some((peer.name.as_str(), (remote.address, remote.interface)))
    });
    // The other BGPPeer finds the same routers, and no speaker takes an address twice.
    agent.keep_down_at(places.filter(|(name, _)| !name.starts_with("mute"))).await;
    let peers: Vec<PeerView> = agent.value("/v1/peers").await;
    let places: Vec<_> = peers.iter().map(|peer| (peer.name.as_str(), peer.place(), peer.found_by)).collect();
    let at = |place: &str| Some(place.to_owned());
    let expected = [
        ("fabric", at("fe80::254%eth0"), Some(FoundBy::RouterAdvertisement)),
        ("gateway@172.16.0.254", at("172.16.0.254"), Some(FoundBy::DefaultGateway)),
        ("gateway@fe80::1%eth2", at("fe80::1%eth2"), Some(FoundBy::DefaultGateway)),
    ];
    assert_eq!(places, expected);
    agent.stop().await;

    let agent = Agent::start(carried_out(scenario("peers-not-found"))).await;
    let peers: Vec<PeerView> = agent.value("/v1/peers").await;
    assert!(peers.iter().all(|peer| peer.place().is_none() && peer.found_by.is_none()), "{peers:?}");
    let health: Health = agent.value("/v1/check").await;
    let missing = "BGPPeer/fabric-b is Idle: interface eth1 is down";
    assert!(health.problems.contains(&missing.to_owned()), "{:?}", health.problems);
    let explanation: Explanation = agent.value("/v1/explain?subject=erp/app-1").await;
    let missing = "BGPPeer fabric-b: interface eth1 is down";
    assert!(explanation.notes.contains(&missing.to_owned()), "{explanation:?}");
    agent.stop().await;
}

#[tokio::test]
async fn the_socket_is_its_owners_alone() {
    let agent = Agent::start(carried_out(Plan::default())).await;
    let metadata = std::fs::metadata(agent.socket()).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    agent.stop().await;
}

/// A second server at the place of the first.
async fn serve_again(socket: &Path) -> Result<(), AdminError> {
    let (_published, receiver) = watch::channel(Arc::new(Published::new("node-a".to_owned(), TABLE_MAIN)));
    let speaker = Speaker::start(SpeakerConfig::default());
    serve(socket, free_port().await, access(receiver, speaker), CancellationToken::new()).await.map(drop)
}

#[tokio::test]
async fn a_socket_that_is_answered_on_is_refused_and_goes_on() {
    let agent = Agent::start(carried_out(Plan::default())).await;
    let error = serve_again(&agent.socket()).await.expect_err("another agent answers");
    assert!(matches!(&error, AdminError::InUse(path) if *path == agent.socket()), "{error}");
    assert!(error.to_string().contains("spec.adminSocket"), "{error}");
    assert_eq!(agent.get("/healthz").await.status, 200);
    agent.stop().await;
}

#[tokio::test]
async fn what_an_earlier_agent_left_is_replaced() {
    let folder = TempDir::new().expect("a directory");
    let socket = folder.path().join("agent.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    assert!(socket.exists());
    serve_again(&socket).await.expect("nobody answers on it");
}

#[tokio::test]
async fn what_cannot_be_bound_is_named() {
    let folder = TempDir::new().expect("a directory");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let socket = file.join("agent.sock");
    let error = serve_again(&socket).await.expect_err("a file is no directory");
    assert!(error.to_string().contains(socket.to_str().expect("UTF-8")), "{error}");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let metrics = taken.local_addr().expect("its address");
    let (_published, receiver) = watch::channel(Arc::new(Published::new("node-a".to_owned(), TABLE_MAIN)));
    let speaker = Speaker::start(SpeakerConfig::default());
    let socket = folder.path().join("agent.sock");
    let served = serve(&socket, metrics, access(receiver, speaker), CancellationToken::new()).await.map(drop);
    let error = served.expect_err("the port is taken");
    assert!(matches!(&error, AdminError::Metrics { address, .. } if *address == metrics), "{error}");
    assert!(error.to_string().contains("spec.metrics.listen"), "{error}");
}

#[tokio::test]
async fn readiness_waits_for_sessions_where_it_is_told_to() {
    for (established, expected) in
        [(ReadinessSessions::None, 200), (ReadinessSessions::Any, 503), (ReadinessSessions::All, 503)]
    {
        let state = carried_out(scenario("one-pod"));
        let agent = Agent::start_waiting_for(state, SpeakerConfig::default(), established).await;
        assert_eq!(agent.get_outside("/readyz").await.status, 200, "{established:?} without a peer");
        agent.keep_down(&["tor-a", "tor-b"]).await;
        let answer = agent.get_outside("/readyz").await;
        assert_eq!(answer.status, expected, "{established:?}: {}", answer.body);
        if expected == 503 {
            assert_eq!(answer.body, "not Established: tor-a, tor-b\n");
        }
        assert_eq!(agent.get_outside("/healthz").await.status, 200, "{established:?}: alive all the same");
        agent.stop().await;
    }
}

#[tokio::test]
async fn outside_only_metrics_and_health_are_told() {
    let agent = Agent::start(carried_out(scenario("dual-stack"))).await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(agent.get_outside(path).await.status, 200, "{path}");
        assert_eq!(agent.get(path).await.status, 200, "{path}");
    }
    let questions = ["peers", "routes/advertised", "routes/kernel", "pods", "pools", "plan", "check"];
    for question in questions {
        assert_eq!(agent.get_outside(&format!("/v1/{question}")).await.status, 404, "{question}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn the_agent_is_ready_once_all_is_known_and_alive_before() {
    let ready = carried_out(scenario("one-pod"));
    let awaiting = Published { awaited: vec!["Kubernetes Pod".to_owned()], ..ready.clone() };
    let unanswered = Published { advertised: None, ..ready.clone() };
    let agent = Agent::start(awaiting).await;
    let answer = agent.get_outside("/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "not in sync: Kubernetes Pod\n"));
    assert_eq!(agent.get_outside("/healthz").await.status, 200);
    let health: Health = agent.value("/v1/check").await;
    assert_eq!(health.awaited, ["Kubernetes Pod"]);
    assert!(health.problems.iter().any(|problem| problem.contains("Kubernetes Pod")), "{health:?}");

    agent.publish(unanswered);
    assert_eq!(agent.get_outside("/readyz").await.status, 503, "the kernel has not answered yet");
    agent.publish(ready);
    let answer = agent.get_outside("/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    agent.stop().await;
}

#[tokio::test]
async fn check_names_what_is_wrong() {
    let sound = carried_out(scenario("one-pod"));
    let (key, _) =
        sound.desired.routes.first_key_value().map(|(key, target)| (*key, target)).expect("a route");
    let mut installed = Installed::clone(&sound.installed);
    installed.routes.insert(key, RouteStatus::LinkDown { interface: "v-app-1".to_owned() });
    let problem = ("Kubernetes".to_owned(), "connection refused".to_owned());
    let agent = Agent::start(Published {
        installed: Arc::new(installed),
        source_problems: BTreeMap::from([problem]),
        ..sound
    })
    .await;
    let health: Health = agent.value("/v1/check").await;
    assert!(health.problems.contains(&"Kubernetes: connection refused".to_owned()), "{health:?}");
    let route = |problem: &String| problem.starts_with("route ") && problem.contains("v-app-1 is down");
    assert!(health.problems.iter().any(route), "{health:?}");
    let pods: Vec<PodView> = agent.value("/v1/pods").await;
    assert_eq!(pods[0].reason.as_deref(), Some("NotDelivered"));
    let subject = format!("{}/{}", pods[0].namespace, pods[0].pod);
    let explanation: Explanation = agent.value(&format!("/v1/explain?subject={subject}")).await;
    assert_eq!(explanation.addresses[0].reason.as_deref(), Some("NotDelivered"));
    let (last, before) = explanation.addresses[0].steps.split_last().expect("steps");
    assert!(!last.ok && last.text.contains("the kernel's path"), "{last:?}");
    assert!(before.iter().all(|step| step.ok), "{before:?}");
    agent.stop().await;
}

#[tokio::test]
async fn explain_ends_in_the_rule_that_refuses_for_every_reason() {
    let agent = Agent::start(Published::new("node-a".to_owned(), TABLE_MAIN)).await;
    let mut seen = BTreeSet::new();
    for folder in common::scenarios() {
        let plan = common::plan_of(&folder);
        agent.publish(carried_out(plan.clone()));
        for pod in &plan.pods {
            let subject = format!("{}/{}", pod.namespace, pod.name);
            let explanation: Explanation = agent.value(&format!("/v1/explain?subject={subject}")).await;
            // Who misses a peer is told which ones no session is tried with.
            let without = explanation.addresses.iter().any(|told| told.reason.as_deref() == Some("NoPeer"));
            let kept_down = plan.peers.iter().filter(|peer| without && peer.refused.is_some()).count();
            assert_eq!((&explanation.subject, explanation.notes.len()), (&subject, kept_down), "{folder:?}");
            let whole = pod.refused.as_ref().map(|reason| (pod.pod_ips.first().copied(), Some(reason)));
            let each = pod.addresses.iter().map(|address| (Some(address.address), address.refused.as_ref()));
            let expected: Vec<_> = each.chain(whole).collect();
            assert_eq!(explanation.addresses.len(), expected.len(), "{folder:?} {subject}");
            for (told, (address, reason)) in explanation.addresses.iter().zip(expected) {
                assert_eq!((&told.pod, told.address), (&subject, address), "{folder:?}");
                let Some(reason) = reason else {
                    assert!(told.advertised && told.reason.is_none(), "{folder:?}: {told:?}");
                    continue;
                };
                let word = json!(reason)["reason"].as_str().expect("a word").to_owned();
                assert_eq!((told.advertised, told.reason.as_ref()), (false, Some(&word)), "{folder:?}");
                let (last, before) = told.steps.split_last().expect("steps");
                assert_eq!((last.ok, last.text.clone()), (false, reason.to_string()), "{folder:?}");
                assert!(before.iter().all(|step| step.ok), "{folder:?}: {before:?}");
                seen.insert(word);
            }
        }
        // By its address a Pod is found too, with the same words.
        for (pod, address) in plan.addresses() {
            let by_address: Explanation =
                agent.value(&format!("/v1/explain?subject={}", address.address)).await;
            let subject = format!("{}/{}", pod.namespace, pod.name);
            let by_name: Explanation = agent.value(&format!("/v1/explain?subject={subject}")).await;
            for told in by_name.addresses.iter().filter(|told| told.address == Some(address.address)) {
                assert!(by_address.addresses.contains(told), "{folder:?}: {told:?}");
            }
        }
    }
    // As many as there are; tests/plan.rs sees to it that each has a scenario.
    assert_eq!(seen.len(), 19, "{seen:?}");
    agent.stop().await;
}

#[tokio::test]
async fn what_no_pod_has_is_explained_by_what_is_known_of_it() {
    let agent = Agent::start(carried_out(scenario("dual-stack"))).await;
    let notes = async |subject: &str| {
        let explanation: Explanation = agent.value(&format!("/v1/explain?subject={subject}")).await;
        assert!(explanation.addresses.is_empty(), "{explanation:?}");
        explanation.notes.join("; ")
    };
    let pooled = notes("10.20.0.99").await;
    assert!(pooled.contains("no Pod known") && pooled.contains("IPPool erp"), "{pooled}");
    assert!(notes("172.16.0.254").await.contains("the address of BGPPeer tor-a"));
    assert!(notes("erp/nobody").await.contains("no Pod erp/nobody is known"));
    assert!(notes("web-1").await.contains("write NAMESPACE/POD"));
    agent.publish(Published::new("node-a".to_owned(), TABLE_MAIN));
    assert!(notes("erp/web-1").await.contains("not in sync yet"));
    agent.stop().await;
}

/// A sample of a scrape: its family's type, its name, its labels as they are written, its value.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    r#type: &'a str,
    name: &'a str,
    labels: BTreeMap<&'a str, String>,
    value: f64,
}

/// Parses the OpenMetrics text format as strictly as a scraper may (OpenMetrics 1.0, "Text Format").
fn samples(text: &str) -> Vec<Sample<'_>> {
    let body = text.strip_suffix("# EOF\n").expect("# EOF is the last line");
    let (mut families, mut samples) = (BTreeSet::new(), Vec::new());
    let mut family = ("", "");
    for line in body.split_terminator('\n') {
        if let Some(comment) = line.strip_prefix("# ") {
            let (keyword, rest) = comment.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let (name, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            match keyword {
                "TYPE" => {
                    assert!(["counter", "gauge", "info"].contains(&rest), "{line}");
                    assert!(families.insert(name), "{name} comes twice");
                    assert!(name.starts_with("plainroute_") && is_name(name), "{line}");
                    family = (name, rest);
                }
                "HELP" | "UNIT" => assert!(!rest.is_empty(), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
        let (name, rest) = line.split_at(end);
        let suffix = match family.1 {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert_eq!(name, format!("{}{suffix}", family.0), "{line}");
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest).unwrap_or_else(|| panic!("{line}")),
            None => (BTreeMap::new(), rest),
        };
        let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok());
        let value = value.unwrap_or_else(|| panic!("{line}"));
        samples.push(Sample { r#type: family.1, name, labels, value });
    }
    samples
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut text: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    same @ ('\\' | '"') => same,
                    _ => return None,
                }),
                (_, '\n') => return None,
                (_, plain) => value.push(plain),
            }
        };
        let known = labels.insert(name, value);
        if !is_name(name) || known.is_some() {
            return None;
        }
        match rest.get(end + 1..)?.split_at_checked(1)? {
            (",", more) => text = more,
            ("}", after) => return Some((labels, after)),
            _ => return None,
        }
    }
}

#[tokio::test]
async fn metrics_are_open_metrics_and_say_how_the_agent_fares() {
    const ODD: &str = "odd \"name\" with \\ and\na second line";
    let state = Published {
        source_problems: BTreeMap::from([(ODD.to_owned(), "connection refused".to_owned())]),
        ..carried_out(scenario("dual-stack"))
    };
    let agent = Agent::start(state).await;
    agent.keep_down(&["tor-a", "tor-b"]).await;
    let answer = agent.get_outside("/metrics").await;
    assert_eq!(answer.r#type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let scrape = samples(&answer.body);
    let value = |name: &str, labels: &[(&str, &str)]| {
        let named = |sample: &&Sample<'_>| sample.name == format!("plainroute_{name}");
        let labelled = |sample: &&Sample<'_>| {
            labels.iter().all(|(key, value)| sample.labels.get(key).is_some_and(|found| found == value))
        };
        let found: Vec<f64> =
            scrape.iter().filter(named).filter(labelled).map(|sample| sample.value).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0]
    };
    assert_eq!(value("build_info", &[("node", "node-a"), ("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(value("ready", &[]), 1.0);
    assert_eq!(value("bgp_session_up", &[("peer", "tor-a")]), 0.0);
    assert_eq!(value("bgp_session_lost_total", &[("peer", "tor-b")]), 0.0);
    assert_eq!(value("bgp_session_md5_failures", &[("peer", "tor-a"), ("kind", "failure")]), 0.0);
    assert_eq!(value("bgp_session_tcp_ao_failures", &[("peer", "tor-a"), ("kind", "bad")]), 0.0);
    assert_eq!(value("bgp_prefixes_advertised", &[("peer", "tor-a"), ("family", "ipv6-unicast")]), 0.0);
    assert_eq!(value("pod_addresses_advertised", &[]), 3.0);
    assert_eq!(value("pod_addresses_refused", &[("reason", "NoPeer")]), 1.0);
    assert_eq!((value("kernel_routes_desired", &[]), value("kernel_routes_installed", &[])), (4.0, 4.0));
    assert_eq!(value("kernel_in_step", &[]), 1.0);
    assert_eq!(value("source_stale", &[("source", "Files")]), 0.0);
    assert_eq!(value("source_stale", &[("source", ODD)]), 1.0);
    assert_eq!(value("config_applied_timestamp_seconds", &[]), 1_795_348_800.0);
    let kinds: BTreeSet<&str> = scrape.iter().map(|sample| sample.r#type).collect();
    assert_eq!(kinds, BTreeSet::from(["counter", "gauge", "info"]), "a check of nothing");

    // What is gone is gone from here too.
    agent.keep_down(&["tor-b"]).await;
    let body = agent.get("/metrics").await.body;
    let peers: BTreeSet<String> =
        samples(&body).into_iter().filter_map(|mut sample| sample.labels.remove("peer")).collect();
    assert_eq!(peers, BTreeSet::from(["tor-b".to_owned()]));
    agent.stop().await;
}

/// Every metric that the chart's dashboards and alerts name.
fn named_by_the_chart() -> BTreeMap<String, Vec<String>> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/helm/plainroute");
    let dashboards = fs::read_dir(chart.join("dashboards")).expect("the dashboards");
    let mut files: Vec<PathBuf> = dashboards.map(|entry| entry.expect("a dashboard").path()).collect();
    files.push(chart.join("alerts.yaml"));
    let mut named = BTreeMap::<String, Vec<String>>::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a file of the chart");
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        for word in words.filter(|word| word.starts_with("plainroute_")) {
            named.entry(word.to_owned()).or_default().push(file.display().to_string());
        }
    }
    named
}

#[tokio::test]
async fn the_charts_dashboards_and_alerts_name_metrics_that_there_are() {
    let mut state = carried_out(scenario("dual-stack"));
    // As on a node that gives addresses of it out.
    let pool = Arc::make_mut(&mut state.plan).pools.first_mut().expect("a pool");
    (pool.blocks_here, pool.free_here) = (Some(1), Some(3));
    let agent = Agent::start(state).await;
    agent.keep_down(&["tor-a", "tor-b"]).await;
    let answer = agent.get_outside("/metrics").await;
    let there: BTreeSet<String> =
        samples(&answer.body).into_iter().map(|sample| sample.name.to_owned()).collect();
    let named = named_by_the_chart();
    assert!(named.len() > 15, "hardly any is found: {named:?}");
    for (metric, files) in named {
        assert!(there.contains(&metric), "{metric} of {files:?} is none of {there:?}");
    }
    agent.stop().await;
}

/// What a recording that ended before its time shows stands beside the metrics themselves.
#[tokio::test]
async fn a_recording_has_metrics_and_without_one_there_are_none() {
    let agent = Agent::start(carried_out(scenario("dual-stack"))).await;
    assert!(!agent.get("/metrics").await.body.contains("plainroute_record"));

    let directory = tempfile::tempdir().unwrap();
    let recorder = Some(Recorder::create(&directory.path().join("recording")).unwrap());
    let config = SpeakerConfig { recorder, ..SpeakerConfig::default() };
    let agent = Agent::start_with(carried_out(scenario("dual-stack")), config).await;
    agent.keep_down(&["tor-a"]).await;
    let metrics = agent.get("/metrics").await.body;
    let value = |name: &str| {
        let found = samples(&metrics).into_iter().find(|sample| sample.name == name);
        found.unwrap_or_else(|| panic!("no {name} in {metrics}")).value
    };
    assert!(value("plainroute_record_octets_total") >= 10.0, "the header at least");
    assert_eq!(value("plainroute_record_failures_total"), 0.0);
}

#[test]
fn the_parser_of_metrics_refuses_what_a_scraper_would() {
    let family = "# HELP plainroute_x Some.\n# TYPE plainroute_x counter\n";
    let parses = |text: &str| std::panic::catch_unwind(|| samples(text).len()).ok();
    assert_eq!(parses(&format!("{family}plainroute_x_total{{peer=\"a\"}} 1\n# EOF\n")), Some(1));
    for wrong in [
        format!("{family}plainroute_x_total 1\n"),
        format!("{family}plainroute_x 1\n# EOF\n"),
        format!("{family}plainroute_y_total 1\n# EOF\n"),
        format!("{family}plainroute_x_total one\n# EOF\n"),
        format!("{family}plainroute_x_total{{peer=\"a}} 1\n# EOF\n"),
        format!("{family}plainroute_x_total{{peer=\"\\a\"}} 1\n# EOF\n"),
        format!("{family}plainroute_x_total{{1peer=\"a\"}} 1\n# EOF\n"),
        format!("{family}{family}# EOF\n"),
    ] {
        assert_eq!(parses(&wrong), None, "{wrong}");
    }
}

#[tokio::test]
async fn a_drain_is_the_main_tasks_work_and_its_refusal_is_told() {
    let agent = Agent::start(Published::new("node-a".to_owned(), TABLE_MAIN)).await;
    let view: DrainView = agent.value("/v1/drain").await;
    assert_eq!(
        view,
        DrainView {
            state: DrainState::Active,
            asked_by: BTreeSet::new(),
            withdraws_in_seconds: None,
            advertised: 0
        }
    );
    let stream = UnixStream::connect(agent.socket()).await.unwrap();
    let ended = request(stream, "POST", "/v1/drain?waitSeconds=1").await;
    assert_eq!((ended.status, ended.body.as_str()), (503, "the agent is ending"));
    let stream = UnixStream::connect(agent.socket()).await.unwrap();
    assert_eq!(request(stream, "POST", "/v1/drain?waitSeconds=soon").await.status, 400);
}

#[tokio::test]
async fn what_is_held_is_shown_and_its_confirmation_is_the_main_tasks_work() {
    let mut state = Published::new("node-a".to_owned(), TABLE_MAIN);
    let key = ObjectKey { kind: Kind::BgpPeer, namespace: None, name: "tor-a".to_owned() };
    let since = "2026-11-22T12:00:00Z".parse().unwrap();
    state.held = Arc::new([(key, Held { since, reason: HeldReason::TooMany })].into());
    let agent = Agent::start(state).await;
    let held: Vec<HeldView> = agent.value("/v1/held").await;
    let message = "too many objects of this kind vanished at once".to_owned();
    assert_eq!(
        held,
        [HeldView { object: "BGPPeer/tor-a".to_owned(), since, reason: HeldReason::TooMany, message }]
    );
    let health: Health = agent.value("/v1/check").await;
    let told = "the deletion of 1 objects is held until somebody confirms: plainroute held";
    assert!(health.problems.iter().any(|problem| problem == told), "{:?}", health.problems);
    let stream = UnixStream::connect(agent.socket()).await.unwrap();
    let ended = request(stream, "DELETE", "/v1/held?objects=BGPPeer/tor-a").await;
    assert_eq!((ended.status, ended.body.as_str()), (503, "the agent is ending"));
}
