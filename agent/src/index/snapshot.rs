//! What the plan is made from: a complete and consistent view of all objects, cheap to take.
use std::{collections::BTreeMap, sync::Arc};

use plainroute_config::{
    AgentConfig, BgpAdvertisement, BgpPeer, Egress, IpBlock, IpPool, Kind, Namespace, Node, Object,
    ObjectKey, Pod,
};

use super::Slot;
use crate::{
    ipam::PoolNotes,
    source::{HostLink, SourceName},
};

/// A complete and consistent view of all objects. Cheap to take, immutable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub(super) slots: Arc<BTreeMap<ObjectKey, Slot>>,
    pub(super) host_links: Arc<Vec<HostLink>>,
    /// What is to be said of pools that are not in force as they are declared.
    pub(crate) pool_notes: Arc<PoolNotes>,
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
        /// The blocks that files give to nodes; those of the API server are not among them.
        blocks: IpBlock -> IpBlock;
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

    /// With this object in place of what is declared by its name.
    pub(crate) fn replace(&mut self, object: Object) {
        let slot = Arc::make_mut(&mut self.slots).entry(object.key()).or_default();
        let source = slot.effective().map_or(SourceName::Files, |(_, source)| source);
        *slot.side_mut(source) = Some(Arc::new(object));
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
