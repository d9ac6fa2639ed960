//! The API server: objects by name with UIDs and versions, conditional writes, live reads, and old views for watches.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use plainroute_config::{Resource, Spec};

use crate::{Answer, BlockObject, Request};

type Objects = BTreeMap<String, BlockObject>;

#[derive(Default)]
pub(super) struct Store {
    pub(super) objects: Arc<Objects>,
    next: u64,
    /// What watches may still show.
    past: VecDeque<Arc<Objects>>,
}

impl Store {
    /// Carries a request out. An empty UID or version means any, which only a broken node sends.
    pub(super) fn apply(&mut self, request: Request) -> Result<Answer, String> {
        let list = |keep: &dyn Fn(&BlockObject) -> bool| {
            Answer::Objects(self.objects.values().filter(|object| keep(object)).cloned().collect())
        };
        let answer = match &request {
            Request::OfNode(node) => list(&|object| object.spec.node == *node),
            Request::OfPool(pool) => list(&|object| object.spec.pool == *pool),
            Request::Within(prefix) => list(&|object| object.spec.within.prefix() == *prefix),
            Request::Get { name } => self
                .objects
                .get(name)
                .cloned()
                .map_or(Answer::Missing, |object| Answer::Object(Box::new(object))),
            Request::Create { name, .. } if self.objects.contains_key(name) => Answer::Exists,
            Request::Create { name, spec } => {
                let uid = format!("uid-{}", self.number());
                self.put(BlockObject { name: name.clone(), uid, version: String::new(), spec: spec.clone() })?
            }
            Request::Update { name, uid, version, spec } => match self.matching(name, uid, version) {
                Ok(object) => self.put(BlockObject { spec: spec.clone(), ..object })?,
                Err(answer) => answer,
            },
            Request::Delete { name, uid, version } | Request::DeleteOfFenced { name, uid, version, .. } => {
                match self.matching(name, uid, version) {
                    Ok(_) => {
                        Arc::make_mut(&mut self.objects).remove(name);
                        Answer::Deleted
                    }
                    Err(answer) => answer,
                }
            }
        };
        Ok(answer)
    }

    fn matching(&self, name: &str, uid: &str, version: &str) -> Result<BlockObject, Answer> {
        let object = self.objects.get(name).ok_or(Answer::Missing)?;
        let same = (uid.is_empty() || object.uid == uid) && (version.is_empty() || object.version == version);
        if same { Ok(object.clone()) } else { Err(Answer::Conflict) }
    }

    fn put(&mut self, mut object: BlockObject) -> Result<Answer, String> {
        object.version = self.number().to_string();
        // What the API server's rules refuse must never be sent.
        let mut broken = plainroute_config::Violations::default();
        object.spec.check(&mut broken);
        if !broken.is_empty() || object.name != object.spec.name() {
            let resource =
                Resource { metadata: plainroute_config::Metadata::named(object.name), spec: object.spec };
            return Err(format!("an IPBlock that breaks its rules: {broken}: {resource:?}"));
        }
        Arc::make_mut(&mut self.objects).insert(object.name.clone(), object.clone());
        Ok(Answer::Object(Box::new(object)))
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Remembers what stands now, for watches that are behind.
    pub(super) fn remember(&mut self) {
        self.past.push_back(self.objects.clone());
        if self.past.len() > 40 {
            self.past.pop_front();
        }
    }

    /// What a watch shows that is so many steps behind.
    pub(super) fn view(&self, behind: usize) -> Arc<Objects> {
        let index = self.past.len().checked_sub(behind + 1);
        index.and_then(|index| self.past.get(index)).unwrap_or(&self.objects).clone()
    }
}
