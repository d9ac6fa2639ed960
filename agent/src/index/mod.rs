//! The one place where the sources meet. [`Index`] takes their changes, synchronously and without I/O, and gives a
//! [`Snapshot`] only once every source has delivered its first complete set: before that nothing can be planned,
//! so nothing can be withdrawn by ignorance. Where a file and the API server know the same name, the file wins.
//!
//! What the API server says is gone is not always believed (`hold.rs`), and what it said to the process before this one
//! ([`Index::restore`]) stands in for an answer that does not come.
mod hold;
mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use plainroute_config::{Kind, Object, ObjectKey};

pub use hold::{Held, HeldReason, Limits, Moment};
pub use snapshot::Snapshot;

use crate::source::{Change, Feed, HostLink, SourceName};
use hold::Holds;

/// What each source says of one name.
#[derive(Clone, Debug, Default, PartialEq)]
struct Slot {
    file: Option<Arc<Object>>,
    cluster: Option<Arc<Object>>,
}

impl Slot {
    fn side(&self, source: SourceName) -> &Option<Arc<Object>> {
        match source {
            SourceName::Files => &self.file,
            SourceName::Kubernetes | SourceName::CniCache => &self.cluster,
        }
    }

    fn side_mut(&mut self, source: SourceName) -> &mut Option<Arc<Object>> {
        match source {
            SourceName::Files => &mut self.file,
            SourceName::Kubernetes | SourceName::CniCache => &mut self.cluster,
        }
    }

    fn effective(&self) -> Option<(&Object, SourceName)> {
        let file = self.file.as_deref().map(|object| (object, SourceName::Files));
        file.or_else(|| self.cluster.as_deref().map(|object| (object, SourceName::Kubernetes)))
    }
}

/// What must have delivered its first complete set before there is a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Awaited {
    /// All objects of one kind from one source.
    Objects(SourceName, Kind),
    /// The delivery records.
    HostLinks,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::Objects(source, kind) => write!(f, "{kind} from {source}"),
            Awaited::HostLinks => write!(f, "delivery records from {}", SourceName::CniCache),
        }
    }
}

/// What the API server said last, as far as it was understood: what a later process can start from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastGood {
    /// When all of it was known to be so.
    pub confirmed: Timestamp,
    /// The kinds of which `objects` is all there is.
    pub kinds: BTreeSet<Kind>,
    /// The objects.
    pub objects: Vec<Arc<Object>>,
    /// Those of them whose deletion is held.
    pub held: BTreeMap<ObjectKey, Held>,
}

/// Merges what the sources say. Owned by the agent's main task.
#[derive(Debug)]
pub struct Index {
    slots: Arc<BTreeMap<ObjectKey, Slot>>,
    host_links: Arc<Vec<HostLink>>,
    awaited: BTreeSet<Awaited>,
    /// What the API server is asked for.
    asked: BTreeSet<Kind>,
    problems: BTreeMap<(SourceName, Option<Kind>), String>,
    /// Objects that the API server has and nobody understands, and why.
    refused: BTreeMap<Kind, BTreeMap<ObjectKey, String>>,
    /// Kinds that the API server does not have.
    absent: BTreeSet<Kind>,
    holds: Holds,
    /// The kinds that are as an earlier process knew them.
    restored: BTreeSet<Kind>,
    restored_from: Option<Timestamp>,
    /// The API server has no Node of this name any more.
    node_gone: bool,
    /// The name of this node's Node; without one, every Node counts as this one.
    own_node: Option<String>,
    /// How often what is known of the API server's objects has changed.
    revision: u64,
}

impl Index {
    /// An empty index that gives no snapshot until all of `awaited` has come.
    pub fn new(awaited: impl IntoIterator<Item = Awaited>) -> Index {
        let awaited: BTreeSet<Awaited> = awaited.into_iter().collect();
        let of_the_api_server = |awaited: &Awaited| match awaited {
            Awaited::Objects(SourceName::Kubernetes, kind) => Some(*kind),
            Awaited::Objects(..) | Awaited::HostLinks => None,
        };
        Index {
            slots: Arc::default(),
            host_links: Arc::default(),
            asked: awaited.iter().filter_map(of_the_api_server).collect(),
            awaited,
            problems: BTreeMap::new(),
            refused: BTreeMap::new(),
            absent: BTreeSet::new(),
            holds: Holds::new(Limits::default()),
            restored: BTreeSet::new(),
            restored_from: None,
            node_gone: false,
            own_node: None,
            revision: 0,
        }
    }

    /// For the node of this name: other Nodes may come and go.
    pub fn of_node(mut self, name: &str) -> Index {
        self.own_node = Some(name.to_owned());
        self
    }

    fn is_own_node(&self, key: &ObjectKey) -> bool {
        key.kind == Kind::Node && self.own_node.as_ref().is_none_or(|name| *name == key.name)
    }

    /// With other limits to the deletions that are believed.
    pub fn with_limits(mut self, limits: Limits) -> Index {
        self.holds = Holds::new(limits);
        self
    }

    /// Begins with what an earlier process knew of the API server. It is in force only after [`Index::fall_back`], but
    /// what the API server says is held against it from the first.
    pub fn restore(&mut self, last_good: LastGood) {
        for object in last_good.objects {
            self.put(SourceName::Kubernetes, object.key(), Some(object));
        }
        self.restored = last_good.kinds.intersection(&self.asked).copied().collect();
        self.restored_from = Some(last_good.confirmed);
        self.holds.restore(last_good.held);
    }

    /// The API server does not answer: what an earlier process knew is in force until it does. True where a snapshot
    /// taken now differs from one taken before.
    pub fn fall_back(&mut self) -> bool {
        let awaiting = self.awaited.len();
        self.awaited.retain(|awaited| {
            !matches!(awaited, Awaited::Objects(SourceName::Kubernetes, kind) if self.restored.contains(kind))
        });
        self.awaited.is_empty() && awaiting != 0
    }

    /// Takes a change; true where a snapshot taken now differs from one taken before.
    pub fn handle(&mut self, feed: Feed, now: Moment) -> bool {
        let Feed { source, change } = feed;
        let awaiting = !self.awaited.is_empty();
        let changed = match change {
            Change::Replace { kinds, objects } => self.replace(source, &kinds, objects, false, now),
            Change::Rewound { kind, objects } => self.replace(source, &[kind], objects, true, now),
            Change::Apply(object) => self.apply(source, *object),
            Change::Delete(key) => self.delete(source, key, now),
            Change::NoSuchKind(kind) => {
                self.awaited.remove(&Awaited::Objects(source, kind));
                self.restored.remove(&kind);
                self.absent.insert(kind);
                self.holds.drop_pending(kind);
                let of_it =
                    self.slots.iter().filter(|(key, slot)| key.kind == kind && slot.cluster.is_some());
                for (key, _) in of_it {
                    self.holds.hold(key.clone(), HeldReason::KindGone, now);
                }
                false
            }
            Change::Refused { kind, objects } => {
                self.refused.insert(kind, objects);
                false
            }
            Change::HostLinks(links) => {
                self.awaited.remove(&Awaited::HostLinks);
                let changed = *self.host_links != links;
                if changed {
                    self.host_links = Arc::new(links);
                    self.release_unlinked();
                }
                changed
            }
            Change::Health { kind, problem } => {
                match problem {
                    Some(problem) => self.problems.insert((source, kind), problem),
                    None => self.problems.remove(&(source, kind)),
                };
                false
            }
        };
        // The last set that was awaited brings the first snapshot, even where it is empty.
        self.awaited.is_empty() && (changed || awaiting)
    }

    fn apply(&mut self, source: SourceName, object: Object) -> bool {
        let key = object.key();
        if source == SourceName::Kubernetes {
            self.holds.forget(&key);
            self.node_gone &= !self.is_own_node(&key);
        }
        self.put(source, key, Some(Arc::new(object)))
    }

    fn replace(
        &mut self,
        source: SourceName,
        kinds: &[Kind],
        objects: Vec<Object>,
        rewound: bool,
        now: Moment,
    ) -> bool {
        let mut gone: BTreeSet<ObjectKey> = self
            .slots
            .iter()
            .filter(|(key, slot)| kinds.contains(&key.kind) && slot.side(source).is_some())
            .map(|(key, _)| key.clone())
            .collect();
        self.awaited.retain(
            |awaited| !matches!(awaited, Awaited::Objects(of, kind) if *of == source && kinds.contains(kind)),
        );
        let mut changed = false;
        // What is there and cannot be read is not gone.
        for key in kinds.iter().filter_map(|kind| self.refused.get(kind)).flat_map(BTreeMap::keys) {
            gone.remove(key);
        }
        for object in objects {
            gone.remove(&object.key());
            changed |= self.apply(source, object);
        }
        if source != SourceName::Kubernetes {
            return gone.into_iter().fold(changed, |changed, key| self.put(source, key, None) | changed);
        }
        for kind in kinds {
            self.restored.remove(kind);
            self.absent.remove(kind);
            let gone = gone.iter().filter(|key| key.kind == *kind).cloned().collect();
            changed |= self.judge(*kind, gone, rewound, now);
        }
        changed
    }

    fn delete(&mut self, source: SourceName, key: ObjectKey, now: Moment) -> bool {
        if source != SourceName::Kubernetes {
            return self.put(source, key, None);
        }
        match key.kind {
            // Nobody waits for these, and they come in company.
            Kind::BgpPeer | Kind::BgpAdvertisement | Kind::IpPool | Kind::Egress
                if self.is_doubtful(&key) =>
            {
                self.holds.put_off(key, now);
                false
            }
            kind => self.judge(kind, vec![key], false, now),
        }
    }

    /// Deletes what the API server says is gone, or holds it.
    fn judge(&mut self, kind: Kind, mut gone: Vec<ObjectKey>, rewound: bool, now: Moment) -> bool {
        // Who the node is does not end with its object: the sessions stay, and its Pods go one by one.
        let own = gone.extract_if(.., |key| self.is_own_node(key)).count();
        self.node_gone |= own != 0;
        let (doubtful, plain): (Vec<_>, Vec<_>) = gone.into_iter().partition(|key| self.is_doubtful(key));
        let mut changed = plain.into_iter().fold(false, |changed, key| self.remove(key) | changed);
        if doubtful.is_empty() {
            return changed;
        }
        // What is held already is not asked for again.
        let doubtful: Vec<_> =
            doubtful.into_iter().filter(|key| !self.holds.held().contains_key(key)).collect();
        let reason = if rewound {
            HeldReason::Rewound
        } else {
            let known = self.known(kind) - self.holds.held().keys().filter(|key| key.kind == kind).count();
            if self.holds.believes(kind, doubtful.len(), known, now) {
                for key in doubtful {
                    changed |= self.remove(key);
                }
                return changed;
            }
            HeldReason::TooMany
        };
        for key in doubtful {
            self.holds.hold(key, reason, now);
        }
        changed
    }

    /// Whether the object vanished without a word before: it was not being deleted, had not ended, and, where it is a Pod,
    /// the node still leads to it.
    fn is_doubtful(&self, key: &ObjectKey) -> bool {
        let Some(object) = self.slots.get(key).and_then(|slot| slot.cluster.as_deref()) else {
            return false;
        };
        if object.metadata().is_terminating() {
            return false;
        }
        match object {
            Object::Pod(pod) => {
                let over = pod.phase.is_terminal() || pod.host_network || pod.pod_ips.is_empty();
                !over && !self.node_gone && (self.host_links.is_empty() || self.is_linked(key))
            }
            _ => true,
        }
    }

    /// Whether the node's delivery records name the Pod.
    fn is_linked(&self, key: &ObjectKey) -> bool {
        let names =
            |link: &HostLink| Some(&link.namespace) == key.namespace.as_ref() && link.name == key.name;
        self.host_links.iter().any(names)
    }

    /// A Pod whose deletion is held and that the node leads to no more is gone.
    fn release_unlinked(&mut self) {
        let held = self.holds.held().keys().filter(|key| key.kind == Kind::Pod && !self.is_linked(key));
        for key in held.cloned().collect::<Vec<_>>() {
            self.remove(key);
        }
    }

    fn known(&self, kind: Kind) -> usize {
        self.slots.iter().filter(|(key, slot)| key.kind == kind && slot.cluster.is_some()).count()
    }

    fn remove(&mut self, key: ObjectKey) -> bool {
        self.holds.forget(&key);
        self.put(SourceName::Kubernetes, key, None)
    }

    fn put(&mut self, source: SourceName, key: ObjectKey, object: Option<Arc<Object>>) -> bool {
        let mut slot = self.slots.get(&key).cloned().unwrap_or_default();
        let side = slot.side_mut(source);
        if *side == object {
            return false;
        }
        *side = object;
        self.revision += u64::from(source != SourceName::Files);
        let slots = Arc::make_mut(&mut self.slots);
        if slot.file.is_none() && slot.cluster.is_none() {
            slots.remove(&key);
        } else {
            slots.insert(key, slot);
        }
        true
    }

    /// Judges what was put off and is due; true as in [`Index::handle`].
    pub fn handle_timeout(&mut self, now: Moment) -> bool {
        let mut changed = false;
        while let Some((kind, keys)) = self.holds.poll_due(now) {
            changed |= self.judge(kind, keys, false, now);
        }
        self.awaited.is_empty() && changed
    }

    /// When [`Index::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.holds.poll_timeout()
    }

    /// The objects that the API server has no more and that stay in force until somebody confirms.
    pub fn held(&self) -> &BTreeMap<ObjectKey, Held> {
        self.holds.held()
    }

    /// Deletes what is held, of it what `which` names; true as in [`Index::handle`].
    pub fn confirm(&mut self, which: impl Fn(&ObjectKey, &Held) -> bool) -> bool {
        let keys: Vec<_> =
            self.held().iter().filter(|(key, held)| which(key, held)).map(|(key, _)| key.clone()).collect();
        keys.into_iter().fold(false, |changed, key| self.remove(key) | changed) && self.awaited.is_empty()
    }

    /// What is still awaited before the first snapshot.
    pub fn awaited(&self) -> impl Iterator<Item = Awaited> {
        self.awaited.iter().copied()
    }

    /// Whether the API server still owes its first answer.
    pub fn awaits_api_server(&self) -> bool {
        self.awaited().any(|awaited| matches!(awaited, Awaited::Objects(SourceName::Kubernetes, _)))
    }

    /// The kinds that are as an earlier process knew them, and when that was so.
    pub fn restored(&self) -> Option<(&BTreeSet<Kind>, Timestamp)> {
        self.restored_from.filter(|_| !self.restored.is_empty()).map(|from| (&self.restored, from))
    }

    /// What is wrong with the sources now.
    pub fn problems(&self) -> impl Iterator<Item = (SourceName, Option<Kind>, &str)> {
        self.problems.iter().map(|((source, kind), problem)| (*source, *kind, problem.as_str()))
    }

    /// Whether the API server is being heard: what is wrong with it, if anything, is what it says and not that it is silent.
    pub fn hears_api_server(&self) -> bool {
        let said = |kind: &Kind| {
            self.absent.contains(kind) || self.refused.get(kind).is_some_and(|refused| !refused.is_empty())
        };
        let of_it = self.problems.keys().filter(|(source, _)| *source == SourceName::Kubernetes);
        of_it.into_iter().all(|(_, kind)| kind.as_ref().is_some_and(said))
    }

    /// Objects of the API server that nobody understands, and why. What was known of them stays in force.
    pub fn refused(&self) -> impl Iterator<Item = (&ObjectKey, &str)> {
        self.refused.values().flatten().map(|(key, why)| (key, why.as_str()))
    }

    /// The UID of a Node that the API server has.
    pub fn node_uid(&self, name: &str) -> Option<&str> {
        let key = ObjectKey { kind: Kind::Node, namespace: None, name: name.to_owned() };
        let node = self.slots.get(&key)?.cluster.as_ref().filter(|_| !self.node_gone)?;
        node.metadata().uid.as_deref()
    }

    /// Whether the API server has no Node of this name any more.
    pub fn node_gone(&self) -> bool {
        self.node_gone
    }

    /// Everything that is known, or nothing while a source has not delivered its first complete set.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.awaited.is_empty().then(|| Snapshot {
            slots: Arc::clone(&self.slots),
            host_links: Arc::clone(&self.host_links),
            pool_notes: Arc::default(),
        })
    }

    /// Another number whenever another object, or another form of one, is known of the API server.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What a later process can start from; nothing while the API server has not answered in full.
    pub fn last_good(&self, confirmed: Timestamp) -> Option<LastGood> {
        if self.awaits_api_server() || !self.restored.is_empty() {
            return None;
        }
        let objects: Vec<_> = self.slots.values().filter_map(|slot| slot.cluster.clone()).collect();
        let kinds = self.asked.clone();
        Some(LastGood { confirmed, kinds, objects, held: self.holds.held().clone() })
    }
}
