//! The one place where the sources meet. [`Index`] takes their changes, synchronously and without I/O, and gives a
//! [`Snapshot`] only once every source has delivered its first complete set: before that nothing can be planned,
//! so nothing can be withdrawn by ignorance. Where a file and the API server know the same name, the file wins.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use plainroute_config::{
    AgentConfig, BgpAdvertisement, BgpPeer, Egress, IpPool, Kind, Namespace, Node, Object, ObjectKey, Pod,
};

use crate::source::{Change, Feed, HostLink, SourceName};

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

/// Merges what the sources say. Owned by the agent's main task.
#[derive(Debug, Default)]
pub struct Index {
    slots: Arc<BTreeMap<ObjectKey, Slot>>,
    host_links: Arc<Vec<HostLink>>,
    awaited: BTreeSet<Awaited>,
    problems: BTreeMap<(SourceName, Option<Kind>), String>,
}

impl Index {
    /// An empty index that gives no snapshot until all of `awaited` has come.
    pub fn new(awaited: impl IntoIterator<Item = Awaited>) -> Index {
        Index { awaited: awaited.into_iter().collect(), ..Index::default() }
    }

    /// Takes a change; true where a snapshot taken now differs from one taken before.
    pub fn handle(&mut self, feed: Feed) -> bool {
        let Feed { source, change } = feed;
        let awaiting = !self.awaited.is_empty();
        let changed = match change {
            Change::Replace { kinds, objects } => {
                let changed = self.replace(source, &kinds, objects);
                self.awaited.retain(
                    |awaited| !matches!(awaited, Awaited::Objects(of, kind) if *of == source && kinds.contains(kind)),
                );
                changed
            }
            Change::Apply(object) => self.put(source, object.key(), Some(Arc::new(*object))),
            Change::Delete(key) => self.put(source, key, None),
            Change::HostLinks(links) => {
                self.awaited.remove(&Awaited::HostLinks);
                let changed = *self.host_links != links;
                if changed {
                    self.host_links = Arc::new(links);
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

    fn replace(&mut self, source: SourceName, kinds: &[Kind], objects: Vec<Object>) -> bool {
        let mut gone: BTreeSet<ObjectKey> = self
            .slots
            .iter()
            .filter(|(key, slot)| kinds.contains(&key.kind) && slot.side(source).is_some())
            .map(|(key, _)| key.clone())
            .collect();
        let mut changed = false;
        for object in objects {
            let key = object.key();
            gone.remove(&key);
            changed |= self.put(source, key, Some(Arc::new(object)));
        }
        for key in gone {
            changed |= self.put(source, key, None);
        }
        changed
    }

    fn put(&mut self, source: SourceName, key: ObjectKey, object: Option<Arc<Object>>) -> bool {
        let mut slot = self.slots.get(&key).cloned().unwrap_or_default();
        let side = slot.side_mut(source);
        if *side == object {
            return false;
        }
        *side = object;
        let slots = Arc::make_mut(&mut self.slots);
        if slot.file.is_none() && slot.cluster.is_none() {
            slots.remove(&key);
        } else {
            slots.insert(key, slot);
        }
        true
    }

    /// What is still awaited before the first snapshot.
    pub fn awaited(&self) -> impl Iterator<Item = Awaited> {
        self.awaited.iter().copied()
    }

    /// What is wrong with the sources now.
    pub fn problems(&self) -> impl Iterator<Item = (SourceName, Option<Kind>, &str)> {
        self.problems.iter().map(|((source, kind), problem)| (*source, *kind, problem.as_str()))
    }

    /// Everything that is known, or nothing while a source has not delivered its first complete set.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.awaited
            .is_empty()
            .then(|| Snapshot { slots: Arc::clone(&self.slots), host_links: Arc::clone(&self.host_links) })
    }
}

/// A complete and consistent view of all objects. Cheap to take, immutable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    slots: Arc<BTreeMap<ObjectKey, Slot>>,
    host_links: Arc<Vec<HostLink>>,
}

/// One accessor a kind: the objects in the order of their names, each with the source that it was taken from.
macro_rules! of_kind {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $kind:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> impl Iterator<Item = (&$kind, SourceName)> {
            self.slots.values().filter_map(|slot| match slot.effective() {
                Some((Object::$variant(object), source)) => {
                    let object: &$kind = object;
                    Some((object, source))
                }
                _ => None,
            })
        }
    )*};
}

impl Snapshot {
    of_kind! {
        /// The agent's own configuration (at most one).
        agent_configs: AgentConfig -> AgentConfig;
        /// The BGP peers of all nodes.
        peers: BgpPeer -> BgpPeer;
        /// What is advertised to whom.
        advertisements: BgpAdvertisement -> BgpAdvertisement;
        /// The pools.
        pools: IpPool -> IpPool;
        /// The egress rules.
        egresses: Egress -> Egress;
        /// The namespaces.
        namespaces: Namespace -> Namespace;
        /// The nodes.
        nodes: Node -> Node;
        /// The Pods: all that are known, also those of other nodes.
        pods: Pod -> Pod;
    }

    /// The namespace of this name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        match self.lookup(Kind::Namespace, name) {
            Some(Object::Namespace(namespace)) => Some(namespace),
            _ => None,
        }
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        match self.lookup(Kind::Node, name) {
            Some(Object::Node(node)) => Some(node),
            _ => None,
        }
    }

    fn lookup(&self, kind: Kind, name: &str) -> Option<&Object> {
        let key = ObjectKey { kind, namespace: None, name: name.to_owned() };
        self.slots.get(&key).and_then(Slot::effective).map(|(object, _)| object)
    }

    /// Names that both a file and the API server know; the file's is the one in force.
    pub fn shadowed(&self) -> impl Iterator<Item = &ObjectKey> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.file.is_some() && slot.cluster.is_some())
            .map(|(key, _)| key)
    }

    /// Which interface leads to which Pod.
    pub fn host_links(&self) -> &[HostLink] {
        &self.host_links
    }
}
