//! Deletions that are not believed, and starting from what an earlier process knew of the API server.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use plainroute_agent::{
    index::{Awaited, Held, HeldReason, Index, LastGood, Limits, Moment},
    source::{Change, Feed, HostLink, SourceName},
};
use plainroute_config::{Kind, Metadata, Namespace, Node, Object, Phase, Pod};

const LIMITS: Limits = Limits { at_least: 2, percent: 50, window: Duration::from_secs(60) };

/// An index with a clock of its own.
struct Rig {
    index: Index,
    start: Instant,
    now: Moment,
}

impl Rig {
    fn new() -> Rig {
        Rig::awaiting([])
    }

    fn awaiting(awaited: impl IntoIterator<Item = Awaited>) -> Rig {
        let start = Instant::now();
        let timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let index = Index::new(awaited).with_limits(LIMITS);
        Rig { index, start, now: Moment { instant: start, timestamp } }
    }

    fn tell(&mut self, change: Change) -> bool {
        self.index.handle(Feed { source: SourceName::Kubernetes, change }, self.now)
    }

    fn list(&mut self, objects: &[Object]) -> bool {
        let kind = objects.first().map_or(Kind::Pod, Object::kind);
        self.tell(Change::Replace { kinds: vec![kind], objects: objects.to_vec() })
    }

    fn delete(&mut self, object: &Object) -> bool {
        self.tell(Change::Delete(object.key()))
    }

    fn links(&mut self, pods: &[&Object]) -> bool {
        let link = |pod: &&Object| HostLink {
            pod_interface: "eth0".to_owned(),
            namespace: "default".to_owned(),
            name: pod.metadata().name.clone(),
            uid: None,
            container_id: "c".to_owned(),
            interface: "veth0".to_owned(),
            addresses: Vec::new(),
        };
        self.index.handle(
            Feed { source: SourceName::CniCache, change: Change::HostLinks(pods.iter().map(link).collect()) },
            self.now,
        )
    }

    fn pass(&mut self, time: Duration) -> bool {
        self.now.instant += time;
        self.now.timestamp += jiff::SignedDuration::try_from(time).unwrap();
        assert!(self.now.instant >= self.start);
        self.index.handle_timeout(self.now)
    }

    fn there(&self) -> Vec<String> {
        let snapshot = self.index.snapshot().expect("a snapshot");
        let pods = snapshot.pods().map(|(pod, _)| pod.metadata.name.clone());
        let peers = snapshot.peers().map(|(peer, _)| peer.metadata.name.clone());
        let nodes = snapshot.nodes().map(|(node, _)| node.metadata.name.clone());
        let namespaces = snapshot.namespaces().map(|(namespace, _)| namespace.metadata.name.clone());
        pods.chain(peers).chain(nodes).chain(namespaces).collect()
    }

    fn held(&self) -> Vec<(String, HeldReason)> {
        self.index.held().iter().map(|(key, held)| (key.name.clone(), held.reason)).collect()
    }
}

fn pod(name: &str) -> Object {
    let pod_ips = vec!["10.20.0.1".parse().unwrap()];
    Pod { metadata: Metadata::named(name), phase: Phase::Running, pod_ips, ..Pod::default() }.into()
}

fn pods(names: &[&str]) -> Vec<Object> {
    names.iter().map(|name| pod(name)).collect()
}

fn changed(object: Object, change: impl FnOnce(&mut Pod)) -> Object {
    let Object::Pod(mut pod) = object else { panic!("a Pod") };
    change(&mut pod);
    pod.into()
}

fn terminating(object: Object) -> Object {
    changed(object, |pod| pod.metadata.deletion_timestamp = Some("2026-11-22T11:59:00Z".parse().unwrap()))
}

fn peer(name: &str) -> Object {
    let json = format!(
        r#"{{"apiVersion":"plainroute.dev/v1alpha1","kind":"BGPPeer","metadata":{{"name":"{name}"}},
            "spec":{{"localASN":64512,"peerASN":64600,"peerAddress":"192.0.2.1"}}}}"#
    );
    Object::from_json(Kind::BgpPeer, &json).unwrap()
}

const ALL: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[test]
fn a_list_that_lacks_more_than_the_limit_is_held_whole_and_less_is_believed() {
    for (left, held) in [(4, 0), (3, 5), (0, 8)] {
        let mut rig = Rig::new();
        rig.list(&pods(&ALL));
        rig.tell(Change::Replace { kinds: vec![Kind::Pod], objects: pods(&ALL[..left]) });
        assert_eq!(rig.held().len(), held, "{left} are left");
        assert_eq!(rig.there().len(), left + held);
        assert!(rig.held().iter().all(|(_, reason)| *reason == HeldReason::TooMany));
    }
}

#[test]
fn deletions_one_by_one_are_held_from_the_limit_on_until_the_window_is_over() {
    let mut rig = Rig::new();
    rig.list(&pods(&ALL));
    for name in &ALL[..5] {
        rig.delete(&pod(name));
    }
    assert_eq!(rig.held(), [("e".to_owned(), HeldReason::TooMany)], "4 of 8 are 50 %");
    rig.pass(LIMITS.window);
    rig.delete(&pod("f"));
    assert_eq!(rig.there(), ["e", "g", "h"]);
}

#[test]
fn what_was_announced_has_ended_or_has_no_address_goes_without_question() {
    let plain = [
        terminating(pod("a")),
        changed(pod("b"), |pod| pod.phase = Phase::Succeeded),
        changed(pod("c"), |pod| pod.phase = Phase::Failed),
        changed(pod("d"), |pod| pod.host_network = true),
        changed(pod("e"), |pod| pod.pod_ips.clear()),
        terminating(pod("f")),
    ];
    let mut rig = Rig::new();
    rig.list(&plain);
    rig.list(&[]);
    assert_eq!((rig.there().len(), rig.held().len()), (0, 0));
}

#[test]
fn a_pod_that_the_node_leads_to_no_more_is_gone_and_one_that_it_leads_to_is_not() {
    let mut rig = Rig::new();
    let all = pods(&ALL[..6]);
    rig.list(&all);
    rig.links(&all[..4].iter().collect::<Vec<_>>());
    rig.list(&[]);
    assert_eq!(rig.there(), ["a", "b", "c", "d"], "the other two have no link");
    assert_eq!(rig.held().len(), 4);
    assert!(rig.links(&[&all[1]]));
    assert_eq!(rig.there(), ["b"], "the kernel says so too");
    assert_eq!(rig.held().len(), 1);
}

#[test]
fn a_server_that_went_back_deletes_nothing_however_few() {
    let mut rig = Rig::new();
    rig.list(&pods(&["a", "b"]));
    rig.tell(Change::Rewound { kind: Kind::Pod, objects: pods(&["b"]) });
    assert_eq!(rig.held(), [("a".to_owned(), HeldReason::Rewound)]);
    assert_eq!(rig.there(), ["a", "b"]);
    // The next list, of a server that only goes on, is no confirmation.
    rig.list(&pods(&["b"]));
    assert_eq!(rig.there(), ["a", "b"]);
    // What comes back is held no more; its deletion is one as any other.
    rig.tell(Change::Apply(Box::new(pod("a"))));
    assert_eq!(rig.held(), []);
    rig.delete(&pod("a"));
    assert_eq!(rig.there(), ["b"]);
}

#[test]
fn only_what_is_confirmed_goes() {
    let mut rig = Rig::new();
    rig.list(&pods(&ALL));
    rig.tell(Change::Rewound { kind: Kind::Pod, objects: pods(&ALL[..6]) });
    let first = rig.now.timestamp;
    rig.pass(Duration::from_secs(10));
    rig.tell(Change::Rewound { kind: Kind::Pod, objects: pods(&ALL[..5]) });
    assert!(!rig.index.confirm(|_, held| held.since < first));
    assert!(rig.index.confirm(|_, held| held.since <= first));
    assert_eq!(rig.held(), [("f".to_owned(), HeldReason::Rewound)]);
    assert!(rig.index.confirm(|key, _| key.name == "f"));
    assert_eq!(rig.there(), ALL[..5]);
}

#[test]
fn configuration_waits_for_company_before_it_goes() {
    let peers: Vec<Object> = ALL.iter().map(|name| peer(name)).collect();
    let mut rig = Rig::new();
    rig.list(&peers);
    assert!(!rig.delete(&peers[0]));
    assert_eq!(rig.there().len(), 8);
    let due = rig.index.poll_timeout().expect("it is to be judged").duration_since(rig.now.instant);
    assert!(rig.pass(due), "one alone is believed");
    assert_eq!(rig.there().len(), 7);
    for peer in &peers[1..] {
        rig.delete(peer);
    }
    assert!(!rig.pass(due));
    assert_eq!((rig.there().len(), rig.held().len()), (7, 7), "all or none");
    assert_eq!(rig.index.poll_timeout(), None);
}

#[test]
fn configuration_that_goes_with_its_kind_is_held() {
    let peers = [peer("a"), peer("b")];
    let mut rig = Rig::new();
    rig.list(&peers);
    rig.delete(&peers[0]);
    rig.tell(Change::NoSuchKind(Kind::BgpPeer));
    assert!(!rig.pass(Duration::from_secs(60)));
    assert_eq!(rig.held(), [("a".to_owned(), HeldReason::KindGone), ("b".to_owned(), HeldReason::KindGone)]);
    assert_eq!(rig.there(), ["a", "b"]);
    // Once the kind is back, so are its objects; what does not come back waits for a person.
    rig.list(&peers[1..]);
    assert_eq!(rig.held(), [("a".to_owned(), HeldReason::KindGone)]);
    // Control: the same deletion of a kind that stays.
    let mut rig = Rig::new();
    rig.list(&peers);
    rig.delete(&peers[0]);
    assert!(rig.pass(Duration::from_secs(60)));
    assert_eq!(rig.there(), ["b"]);
}

#[test]
fn a_pending_deletion_is_forgotten_where_the_object_is_made_again() {
    let mut rig = Rig::new();
    rig.list(&[peer("a")]);
    rig.delete(&peer("a"));
    rig.tell(Change::Apply(Box::new(peer("a"))));
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.there(), ["a"]);
}

#[test]
fn who_the_node_is_does_not_end_with_its_object() {
    let node = Object::from(Node { metadata: Metadata::named("node-a"), ..Node::default() });
    let mut rig = Rig::new();
    rig.list(std::slice::from_ref(&node));
    rig.list(&pods(&ALL));
    assert!(!rig.delete(&node));
    assert!(rig.index.node_gone());
    for name in ALL {
        rig.delete(&pod(name));
    }
    assert_eq!(rig.there(), ["node-a"], "the Pods of a deleted Node are believed to be gone");
    rig.list(std::slice::from_ref(&node));
    assert!(!rig.index.node_gone());
}

#[test]
fn what_is_there_and_unreadable_is_not_gone() {
    let mut rig = Rig::new();
    rig.list(&[peer("a"), peer("b")]);
    let refused = BTreeMap::from([(peer("a").key(), "spec.peerASN: missing".to_owned())]);
    rig.tell(Change::Refused { kind: Kind::BgpPeer, objects: refused });
    rig.list(&[peer("b")]);
    assert_eq!(rig.there(), ["a", "b"]);
    assert_eq!(
        rig.index.refused().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>(),
        ["BGPPeer/a: spec.peerASN: missing"]
    );
    // Control.
    rig.tell(Change::Refused { kind: Kind::BgpPeer, objects: BTreeMap::new() });
    rig.list(&[peer("b")]);
    assert_eq!(rig.there(), ["b"]);
}

fn known() -> LastGood {
    let namespace = Object::from(Namespace { metadata: Metadata::named("default") });
    let objects = pods(&ALL).into_iter().chain([namespace]).map(Into::into).collect();
    LastGood {
        confirmed: "2026-11-22T11:00:00Z".parse().unwrap(),
        kinds: [Kind::Pod, Kind::Namespace].into(),
        objects,
        held: BTreeMap::new(),
    }
}

const FROM_SERVER: [Awaited; 2] = [
    Awaited::Objects(SourceName::Kubernetes, Kind::Pod),
    Awaited::Objects(SourceName::Kubernetes, Kind::Namespace),
];

#[test]
fn what_an_earlier_process_knew_is_in_force_only_when_the_server_stays_silent() {
    let mut rig = Rig::awaiting(FROM_SERVER);
    rig.index.restore(known());
    assert!(rig.index.snapshot().is_none());
    assert!(rig.index.fall_back());
    assert_eq!(rig.there().len(), 9);
    assert_eq!(rig.index.restored().map(|(kinds, _)| kinds.len()), Some(2));
    assert!(!rig.index.fall_back());
    assert_eq!(rig.index.last_good(rig.now.timestamp), None, "a copy of a copy would look fresh");
    rig.tell(Change::Replace { kinds: vec![Kind::Pod, Kind::Namespace], objects: pods(&ALL[..5]) });
    assert_eq!(rig.index.restored(), None);
    assert_eq!(rig.there(), ALL[..5], "3 of 8 and 1 of 1 are believed");
    assert!(rig.index.last_good(rig.now.timestamp).is_some());
}

#[test]
fn the_first_list_is_held_against_what_an_earlier_process_knew() {
    let mut rig = Rig::awaiting(FROM_SERVER);
    rig.index.restore(known());
    rig.list(&pods(&ALL[..1]));
    rig.tell(Change::Replace { kinds: vec![Kind::Namespace], objects: Vec::new() });
    assert_eq!(rig.held().len(), 7);
    assert_eq!(rig.there().len(), 8);
    // Control: without that knowledge there is nothing to miss.
    let mut rig = Rig::awaiting(FROM_SERVER);
    rig.list(&pods(&ALL[..1]));
    rig.tell(Change::Replace { kinds: vec![Kind::Namespace], objects: Vec::new() });
    assert_eq!((rig.there(), rig.held()), (vec!["a".to_owned()], Vec::new()));
}

#[test]
fn a_kind_that_nobody_asks_for_any_more_is_not_waited_for() {
    let mut rig = Rig::awaiting(FROM_SERVER[..1].to_vec());
    rig.index.restore(known());
    rig.list(&pods(&ALL));
    assert_eq!(rig.index.restored(), None, "Namespaces were known and are not asked for now");
    let last_good = rig.index.last_good(rig.now.timestamp).expect("the API server has answered in full");
    assert_eq!(last_good.kinds, [Kind::Pod].into());
}

#[test]
fn what_was_known_of_a_kind_that_is_gone_is_held() {
    let mut rig = Rig::awaiting([Awaited::Objects(SourceName::Kubernetes, Kind::BgpPeer)]);
    let known =
        LastGood { kinds: [Kind::BgpPeer].into(), objects: vec![peer("a").into()], ..LastGood::default() };
    rig.index.restore(known);
    assert!(rig.tell(Change::NoSuchKind(Kind::BgpPeer)));
    assert_eq!(
        (rig.there(), rig.held()),
        (vec!["a".to_owned()], vec![("a".to_owned(), HeldReason::KindGone)])
    );
    assert_eq!(rig.index.restored(), None);
}

#[test]
fn a_kind_that_is_not_known_of_before_is_awaited_still() {
    let mut rig = Rig::awaiting([Awaited::Objects(SourceName::Kubernetes, Kind::BgpPeer)]);
    rig.index.restore(known());
    assert!(!rig.index.fall_back());
    assert!(rig.index.snapshot().is_none());
    assert!(rig.tell(Change::NoSuchKind(Kind::BgpPeer)), "the server has no such kind: there are none");
    assert!(rig.index.snapshot().is_some());
}

#[test]
fn what_is_held_stays_held_over_a_restart() {
    let mut before = Rig::awaiting(FROM_SERVER[..1].to_vec());
    before.list(&pods(&["a", "b"]));
    assert!(before.index.snapshot().is_some());
    before.tell(Change::Rewound { kind: Kind::Pod, objects: Vec::new() });
    let known = before.index.last_good(before.now.timestamp).expect("it is in sync");
    assert_eq!(known.held.len(), 2);
    let held: Vec<Held> = known.held.values().copied().collect();
    let mut after = Rig::awaiting(FROM_SERVER[..1].to_vec());
    after.index.restore(known);
    after.tell(Change::Replace { kinds: vec![Kind::Pod], objects: Vec::new() });
    assert_eq!(after.there(), ["a", "b"]);
    assert_eq!(after.index.held().values().copied().collect::<Vec<_>>(), held);
}

#[test]
fn an_api_server_that_lacks_a_kind_or_has_an_odd_object_is_heard_and_a_silent_one_is_not() {
    let mut rig = Rig::new();
    let trouble = |rig: &mut Rig, kind: Option<Kind>, problem: Option<&str>| {
        rig.tell(Change::Health { kind, problem: problem.map(str::to_owned) });
        rig.index.hears_api_server()
    };
    assert!(trouble(&mut rig, None, None));
    rig.tell(Change::NoSuchKind(Kind::BgpPeer));
    assert!(trouble(&mut rig, Some(Kind::BgpPeer), Some("the server does not know it")));
    let refused = BTreeMap::from([(pod("a").key(), "no labels".to_owned())]);
    rig.tell(Change::Refused { kind: Kind::Pod, objects: refused });
    assert!(trouble(&mut rig, Some(Kind::Pod), Some("a cannot be read")));
    assert!(!trouble(&mut rig, Some(Kind::Node), Some("Connection refused")));
    assert!(trouble(&mut rig, Some(Kind::Node), None));
    rig.list(&[peer("a")]);
    assert!(!trouble(&mut rig, Some(Kind::BgpPeer), Some("Connection refused")), "it has the kind now");
}
