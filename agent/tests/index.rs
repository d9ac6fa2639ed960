//! The index: when it gives a snapshot, what is in it, and when it says that it has changed.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use plainroute_agent::{
    index::{Awaited, Index, Limits, Moment, Snapshot},
    source::{Change, Feed, HostLink, SourceName},
};
use plainroute_config::{Kind, Metadata, Namespace, Node, Object, ObjectKey, Pod};
use proptest::prelude::*;

const SOURCES: [SourceName; 2] = [SourceName::Files, SourceName::Kubernetes];
const KINDS: [Kind; 3] = [Kind::Pod, Kind::Namespace, Kind::Node];

/// An object of which `version` is all that can change.
fn object(kind: Kind, name: &str, version: u8) -> Object {
    let mut metadata = Metadata::named(name);
    metadata.labels.insert("version".to_owned(), version.to_string());
    match kind {
        Kind::Pod => Pod { metadata, ..Pod::default() }.into(),
        Kind::Namespace => Namespace { metadata }.into(),
        Kind::Node => Node { metadata, ..Node::default() }.into(),
        Kind::AgentConfig
        | Kind::BgpPeer
        | Kind::BgpAdvertisement
        | Kind::IpPool
        | Kind::Egress
        | Kind::NodeState
        | Kind::IpBlock => {
            unreachable!("these tests do without")
        }
    }
}

fn link(name: &str) -> HostLink {
    HostLink {
        pod_interface: "eth0".to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: None,
        container_id: "c".to_owned(),
        interface: format!("v-{name}"),
        addresses: Vec::new(),
    }
}

fn replace(source: SourceName, kinds: &[Kind], objects: Vec<Object>) -> Feed {
    Feed { source, change: Change::Replace { kinds: kinds.to_vec(), objects } }
}

fn apply(source: SourceName, object: Object) -> Feed {
    Feed { source, change: Change::Apply(Box::new(object)) }
}

fn delete(source: SourceName, object: &Object) -> Feed {
    Feed { source, change: Change::Delete(object.key()) }
}

fn host_links(links: Vec<HostLink>) -> Feed {
    Feed { source: SourceName::CniCache, change: Change::HostLinks(links) }
}

fn health(source: SourceName, kind: Option<Kind>, problem: Option<&str>) -> Feed {
    Feed { source, change: Change::Health { kind, problem: problem.map(str::to_owned) } }
}

/// The objects that are in force, as `kind/name version source`.
fn seen(snapshot: &Snapshot) -> Vec<String> {
    let line = |key: ObjectKey, metadata: &Metadata, source| {
        format!("{} {} {source:?}", key, metadata.labels["version"])
    };
    let pods =
        snapshot.pods().map(|(pod, source)| line(Object::from(pod.clone()).key(), &pod.metadata, source));
    let namespaces = snapshot
        .namespaces()
        .map(|(namespace, source)| line(Object::from(namespace.clone()).key(), &namespace.metadata, source));
    let nodes =
        snapshot.nodes().map(|(node, source)| line(Object::from(node.clone()).key(), &node.metadata, source));
    pods.chain(namespaces).chain(nodes).collect()
}

fn now(index: &Index) -> Vec<String> {
    seen(&index.snapshot().expect("nothing is awaited any more"))
}

#[test]
fn there_is_no_snapshot_before_every_awaited_set_came_in_whatever_order() {
    let sets = || {
        [
            replace(SourceName::Files, &[Kind::Pod, Kind::Node], Vec::new()),
            replace(SourceName::Kubernetes, &[Kind::Pod], vec![object(Kind::Pod, "a", 0)]),
            host_links(Vec::new()),
        ]
    };
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut index = Index::new([
            Awaited::Objects(SourceName::Files, Kind::Pod),
            Awaited::Objects(SourceName::Kubernetes, Kind::Pod),
            Awaited::HostLinks,
        ]);
        for (position, set) in order.into_iter().enumerate() {
            assert!(
                index.snapshot().is_none(),
                "{order:?}: {:?} is awaited",
                index.awaited().collect::<Vec<_>>()
            );
            let changed = index.handle(sets()[set].clone(), Moment::now());
            // Only the last one makes a difference to whoever waits for a snapshot.
            assert_eq!(changed, position == 2, "{order:?}");
        }
        assert_eq!(now(&index), ["Pod/default/a 0 Kubernetes"]);
        assert_eq!(index.awaited().count(), 0);
    }
}

#[test]
fn only_the_complete_set_of_that_kind_and_source_counts() {
    let awaited = Awaited::Objects(SourceName::Kubernetes, Kind::Pod);
    let mut index = Index::new([awaited]);
    for feed in [
        apply(SourceName::Kubernetes, object(Kind::Pod, "a", 0)),
        delete(SourceName::Kubernetes, &object(Kind::Pod, "a", 0)),
        replace(SourceName::Files, &[Kind::Pod], Vec::new()),
        replace(SourceName::Kubernetes, &[Kind::Node], Vec::new()),
        health(SourceName::Kubernetes, Some(Kind::Pod), None),
        host_links(vec![link("a")]),
    ] {
        assert!(!index.handle(feed, Moment::now()));
        assert!(index.snapshot().is_none());
        assert_eq!(index.awaited().collect::<Vec<_>>(), [awaited]);
    }
    assert!(index.handle(replace(SourceName::Kubernetes, &[Kind::Pod], Vec::new()), Moment::now()));
    assert!(index.snapshot().is_some());
}

#[test]
fn a_complete_set_deletes_only_within_its_kinds_and_source() {
    let mut index = Index::new([]);
    index.handle(replace(SourceName::Files, &KINDS, vec![object(Kind::Pod, "file", 0)]), Moment::now());
    let cluster = [object(Kind::Pod, "gone", 0), object(Kind::Pod, "kept", 0), object(Kind::Node, "node", 0)];
    index.handle(replace(SourceName::Kubernetes, &KINDS, cluster.to_vec()), Moment::now());
    let before = index.snapshot();
    assert!(index.handle(
        replace(
            SourceName::Kubernetes,
            &[Kind::Pod],
            vec![object(Kind::Pod, "kept", 1), object(Kind::Pod, "new", 0)]
        ),
        Moment::now()
    ));
    let after = [
        "Pod/default/file 0 Files",
        "Pod/default/kept 1 Kubernetes",
        "Pod/default/new 0 Kubernetes",
        "Node/node 0 Kubernetes",
    ];
    assert_eq!(now(&index), after);
    // Who holds a snapshot sees all of the set or nothing of it.
    let old = [
        "Pod/default/file 0 Files",
        "Pod/default/gone 0 Kubernetes",
        "Pod/default/kept 0 Kubernetes",
        "Node/node 0 Kubernetes",
    ];
    assert_eq!(seen(&before.expect("a snapshot")), old);
}

#[test]
fn the_file_wins_and_the_cluster_comes_back_when_the_file_goes() {
    let (file, cluster) = (object(Kind::Pod, "a", 1), object(Kind::Pod, "a", 2));
    for file_first in [true, false] {
        let mut index = Index::new([]);
        let mut feeds =
            [apply(SourceName::Files, file.clone()), apply(SourceName::Kubernetes, cluster.clone())];
        if !file_first {
            feeds.reverse();
        }
        feeds.into_iter().for_each(|feed| assert!(index.handle(feed, Moment::now())));
        assert_eq!(now(&index), ["Pod/default/a 1 Files"]);
        let shadowed = |index: &Index| {
            index.snapshot().expect("a snapshot").shadowed().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shadowed(&index), ["Pod/default/a"]);
        assert!(index.handle(delete(SourceName::Files, &file), Moment::now()));
        assert_eq!(now(&index), ["Pod/default/a 2 Kubernetes"]);
        assert_eq!(shadowed(&index), Vec::<String>::new());
        assert!(index.handle(delete(SourceName::Kubernetes, &cluster), Moment::now()));
        assert_eq!(now(&index), Vec::<String>::new());
    }
}

#[test]
fn the_clusters_deletion_does_not_take_the_files() {
    let mut index = Index::new([]);
    index.handle(apply(SourceName::Files, object(Kind::Pod, "a", 1)), Moment::now());
    assert!(!index.handle(delete(SourceName::Kubernetes, &object(Kind::Pod, "a", 1)), Moment::now()));
    assert!(!index.handle(replace(SourceName::Kubernetes, &KINDS, Vec::new()), Moment::now()));
    assert_eq!(now(&index), ["Pod/default/a 1 Files"]);
}

#[test]
fn health_is_told_and_changes_nothing() {
    let mut index = Index::new([]);
    index.handle(apply(SourceName::Kubernetes, object(Kind::Pod, "a", 0)), Moment::now());
    let before = index.snapshot();
    let problems = |index: &Index| {
        index.problems().map(|(source, kind, text)| (source, kind, text.to_owned())).collect::<Vec<_>>()
    };
    assert!(!index.handle(health(SourceName::Kubernetes, None, Some("connection refused")), Moment::now()));
    assert!(!index.handle(health(SourceName::Kubernetes, Some(Kind::Pod), Some("410 Gone")), Moment::now()));
    assert!(
        !index.handle(health(SourceName::Kubernetes, Some(Kind::Pod), Some("403 Forbidden")), Moment::now())
    );
    assert_eq!(
        problems(&index),
        [
            (SourceName::Kubernetes, None, "connection refused".to_owned()),
            (SourceName::Kubernetes, Some(Kind::Pod), "403 Forbidden".to_owned()),
        ]
    );
    assert!(!index.handle(health(SourceName::Kubernetes, None, None), Moment::now()));
    assert!(!index.handle(health(SourceName::Files, Some(Kind::Pod), None), Moment::now()));
    assert_eq!(problems(&index), [(SourceName::Kubernetes, Some(Kind::Pod), "403 Forbidden".to_owned())]);
    assert_eq!(index.snapshot(), before);
}

#[test]
fn delivery_records_are_replaced_as_one() {
    let mut index = Index::new([]);
    assert!(index.handle(host_links(vec![link("a"), link("b")]), Moment::now()));
    assert!(!index.handle(host_links(vec![link("a"), link("b")]), Moment::now()));
    assert!(index.handle(host_links(vec![link("b")]), Moment::now()));
    assert_eq!(index.snapshot().expect("a snapshot").host_links(), [link("b")]);
}

fn sources() -> impl Strategy<Value = SourceName> {
    prop::sample::select(&SOURCES[..])
}

fn any_object() -> impl Strategy<Value = Object> {
    (prop::sample::select(&KINDS[..]), prop::sample::select(&["a", "b", "c"][..]), 0..2_u8)
        .prop_map(|(kind, name, version)| object(kind, name, version))
}

/// A set of some kinds, each object once, all of these kinds.
fn any_set() -> impl Strategy<Value = (Vec<Kind>, Vec<Object>)> {
    let kinds = prop::sample::subsequence(&KINDS[..], 0..=KINDS.len());
    (kinds, prop::collection::vec(any_object(), 0..6)).prop_map(|(kinds, objects)| {
        let unique: BTreeMap<ObjectKey, Object> = objects
            .into_iter()
            .filter(|object| kinds.contains(&object.kind()))
            .map(|object| (object.key(), object))
            .collect();
        (kinds, unique.into_values().collect())
    })
}

fn any_feed() -> impl Strategy<Value = Feed> {
    prop_oneof![
        4 => (sources(), any_set()).prop_map(|(source, (kinds, objects))| replace(source, &kinds, objects)),
        4 => (sources(), any_object()).prop_map(|(source, object)| apply(source, object)),
        3 => (sources(), any_object()).prop_map(|(source, object)| delete(source, &object)),
        1 => prop::sample::subsequence(&["a", "b"][..], 0..=2)
            .prop_map(|names| host_links(names.into_iter().map(link).collect())),
        1 => (sources(), prop::option::of("[a-z]{3}"))
            .prop_map(|(source, problem)| health(source, None, problem.as_deref())),
    ]
}

/// What the index should hold, said in the plainest way.
#[derive(Default)]
struct Model {
    objects: BTreeMap<SourceName, BTreeMap<ObjectKey, Object>>,
    awaited: BTreeSet<Awaited>,
}

impl Model {
    fn handle(&mut self, feed: &Feed) {
        let side = self.objects.entry(feed.source).or_default();
        // Who the node is does not end with its object.
        let stays = |key: &ObjectKey| feed.source == SourceName::Kubernetes && key.kind == Kind::Node;
        match &feed.change {
            Change::Replace { kinds, objects } => {
                side.retain(|key, _| !kinds.contains(&key.kind) || stays(key));
                side.extend(objects.iter().map(|object| (object.key(), object.clone())));
                for kind in kinds {
                    self.awaited.remove(&Awaited::Objects(feed.source, *kind));
                }
            }
            Change::Apply(object) => {
                side.insert(object.key(), (**object).clone());
            }
            Change::Delete(key) => {
                if !stays(key) {
                    side.remove(key);
                }
            }
            Change::HostLinks(_) => {
                self.awaited.remove(&Awaited::HostLinks);
            }
            Change::Health { .. }
            | Change::NoSuchKind(_)
            | Change::Refused { .. }
            | Change::Rewound { .. } => {}
        }
    }

    fn seen(&self) -> Option<Vec<String>> {
        let mut in_force = BTreeMap::new();
        for source in [SourceName::Kubernetes, SourceName::Files] {
            let side = self.objects.get(&source).into_iter().flatten();
            in_force.extend(side.map(|(key, object)| (key.clone(), (object, source))));
        }
        let line = |(key, (object, source)): (ObjectKey, (&Object, SourceName))| {
            format!("{key} {} {source:?}", object.metadata().labels["version"])
        };
        self.awaited.is_empty().then(|| in_force.into_iter().map(line).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_is_the_plain_union_and_says_exactly_when_it_changes(
        feeds in prop::collection::vec(any_feed(), 1..40),
        awaiting in prop::sample::subsequence(&[
            Awaited::Objects(SourceName::Files, Kind::Pod),
            Awaited::Objects(SourceName::Kubernetes, Kind::Pod),
            Awaited::Objects(SourceName::Kubernetes, Kind::Node),
            Awaited::HostLinks,
        ][..], 0..=4),
    ) {
        let all = Limits { at_least: usize::MAX, percent: 100, window: Duration::from_secs(1) };
        let mut index = Index::new(awaiting.clone()).with_limits(all);
        let mut model = Model { awaited: awaiting.into_iter().collect(), ..Model::default() };
        for feed in feeds {
            let before = index.snapshot();
            model.handle(&feed);
            let said = index.handle(feed.clone(), Moment::now());
            let after = index.snapshot();
            prop_assert_eq!(said, before != after, "{:?}", feed);
            prop_assert_eq!(after.as_ref().map(seen), model.seen());
            prop_assert_eq!(index.awaited().collect::<BTreeSet<_>>(), model.awaited.clone());
        }
    }
}
