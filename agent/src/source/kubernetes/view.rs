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
            Event::InitDone => self.handle_list(),
            Event::Apply(seen) => {
                self.read(seen).map(|object| Change::Apply(Box::new(object))).into_iter().collect()
            }
            Event::Delete(seen) => {
                let key = seen.key();
                self.unreadable.remove(&key);
                vec![Change::Delete(key)]
            }
        }
    }

    fn handle_list(&mut self) -> Vec<Change> {
        self.unreadable.clear();
        let list = std::mem::take(&mut self.list);
        let objects: Vec<Object> = list.into_iter().filter_map(|seen| self.read(seen)).collect();
        // An object that cannot be read is not one that is gone. What it was before is not known here, so this list
        // must not delete; the next one that can be read as a whole does.
        if self.synced && !self.unreadable.is_empty() {
            return objects.into_iter().map(|object| Change::Apply(Box::new(object))).collect();
        }
        self.synced = true;
        vec![Change::Replace { kinds: vec![T::KIND], objects }]
    }

    fn read(&mut self, seen: Seen<T>) -> Option<Object> {
        let key = seen.key();
        match seen.object {
            Ok(object) => {
                self.unreadable.remove(&key);
                Some(object.into_object())
            }
            Err(why) => {
                self.unreadable.insert(key, why);
                None
            }
        }
    }
}
