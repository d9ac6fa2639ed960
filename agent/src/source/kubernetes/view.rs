//! What the watch of one kind has shown, without I/O: events of the watch go in, changes for the index come out.
//! A list is held back until it is complete, and then replaces everything at once.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;
use plainroute_config::{Object, ObjectKey};

use super::seen::{Seen, Watched};
use crate::source::Change;

#[derive(Debug)]
pub(super) struct View<T> {
    /// The list under way.
    list: Vec<Seen<T>>,
    synced: bool,
    /// Objects that cannot be read, and why.
    unreadable: BTreeMap<ObjectKey, String>,
}

impl<T: Watched> View<T> {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), synced: false, unreadable: BTreeMap::new() }
    }

    /// Whether a complete list has ever come.
    pub(super) fn synced(&self) -> bool {
        self.synced
    }

    /// The first object that cannot be read, if there is one.
    pub(super) fn unreadable(&self) -> Option<String> {
        let (key, why) = self.unreadable.first_key_value()?;
        let others = match self.unreadable.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        let namespace = key.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        Some(format!("{namespace}{} cannot be read: {why}{others}; what was known of it stays", key.name))
    }

    /// Takes an event; one of a list changes nothing before [`View::handle_list`].
    pub(super) fn handle(&mut self, event: Event<Seen<T>>) -> Vec<Change> {
        match event {
            Event::Init => {
                self.list.clear();
                Vec::new()
            }
            Event::InitApply(seen) => {
                self.list.push(seen);
                Vec::new()
            }
            Event::InitDone => self.handle_list(false),
            Event::Apply(seen) => {
                let key = seen.key();
                match self.read(seen) {
                    Ok(object) => {
                        let mut changes = vec![Change::Apply(Box::new(object))];
                        changes.extend(self.unreadable.remove(&key).map(|_| self.refused()));
                        changes
                    }
                    Err(why) => {
                        let news = self.unreadable.get(&key) != Some(&why);
                        self.unreadable.insert(key, why);
                        news.then(|| self.refused()).into_iter().collect()
                    }
                }
            }
            Event::Delete(seen) => {
                let key = seen.key();
                let refused = self.unreadable.remove(&key).map(|_| self.refused());
                refused.into_iter().chain([Change::Delete(key)]).collect()
            }
        }
    }

    /// The list is complete. `rewound`: the server that it comes from was put back to an older state.
    pub(super) fn handle_list(&mut self, rewound: bool) -> Vec<Change> {
        let before = std::mem::take(&mut self.unreadable);
        let mut objects = Vec::new();
        for seen in std::mem::take(&mut self.list) {
            let key = seen.key();
            match self.read(seen) {
                Ok(object) => objects.push(object),
                Err(why) => drop(self.unreadable.insert(key, why)),
            }
        }
        self.synced = true;
        let list = match rewound {
            true => Change::Rewound { kind: T::KIND, objects },
            false => Change::Replace { kinds: vec![T::KIND], objects },
        };
        // First what cannot be read: it is not gone.
        let refused = (before != self.unreadable).then(|| self.refused());
        refused.into_iter().chain([list]).collect()
    }

    fn refused(&self) -> Change {
        Change::Refused { kind: T::KIND, objects: self.unreadable.clone() }
    }

    fn read(&self, seen: Seen<T>) -> Result<Object, String> {
        seen.object.map(Watched::into_object)
    }
}
