//! IPBlocks at the API server: what the core asks for, and the two watches that show it what others do.
use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{
    Client,
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams,
        Preconditions,
    },
    runtime::{WatchStreamExt, watcher},
};
use plainroute_blocks::{Answer, BlockObject, Request};
use plainroute_config::{API_VERSION, IpBlockSpec, Kind};
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use crate::source::kubernetes::{self, Settings, innermost};

/// For how long one answer is waited for.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(10);

/// The API server's IPBlocks.
#[derive(Clone)]
pub(super) struct Store {
    client: Client,
    blocks: Api<DynamicObject>,
    watch_seconds: u32,
}

impl Store {
    /// Connects; asks nothing yet.
    pub(super) async fn connect(settings: &Settings) -> Result<Store, String> {
        let (client, _) = kubernetes::connect(settings).await.map_err(|error| error.to_string())?;
        Ok(Store::new(client, settings.pace.watch_seconds))
    }

    fn new(client: Client, watch_seconds: u32) -> Store {
        let (group, version) = API_VERSION.split_once('/').unwrap_or(("", API_VERSION));
        let kind = GroupVersionKind::gvk(group, version, Kind::IpBlock.name());
        let blocks = Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "ipblocks"));
        Store { client, blocks, watch_seconds }
    }

    /// Carries out one request; there is always an answer.
    pub(super) async fn ask(self, request: Request) -> Answer {
        match timeout(ANSWER, self.answer(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => judge(error),
            Err(_) => Answer::Failed(format!("no answer within {ANSWER:?}")),
        }
    }

    /// Which of these StatefulSets, by namespace and name, there are; nothing where one cannot be asked for.
    pub(super) async fn stateful_sets(
        self,
        names: BTreeSet<(String, String)>,
    ) -> Option<BTreeSet<(String, String)>> {
        let mut there = BTreeSet::new();
        for (namespace, name) in names {
            let sets = Api::<StatefulSet>::namespaced(self.client.clone(), &namespace);
            match timeout(ANSWER, sets.get_metadata_opt(&name)).await {
                Ok(Ok(Some(_))) => drop(there.insert((namespace, name))),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    let error = innermost(&error);
                    warn!(
                        namespace,
                        name, error, "a StatefulSet cannot be asked for, so its addresses are kept"
                    );
                    return None;
                }
                Err(_) => return None,
            }
        }
        Some(there)
    }

    async fn answer(&self, request: Request) -> kube::Result<Answer> {
        let delete = |uid: String, version: String| DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid), resource_version: Some(version) }),
            ..DeleteParams::default()
        };
        Ok(match request {
            Request::Create { name, spec } => {
                match self.blocks.create(&PostParams::default(), &object(&name, None, &spec)).await {
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Answer::Exists,
                    created => read_one(created?),
                }
            }
            Request::Update { name, uid, version, spec } => {
                let object = object(&name, Some((&uid, &version)), &spec);
                read_one(self.blocks.replace(&name, &PostParams::default(), &object).await?)
            }
            Request::Delete { name, uid, version } => {
                self.blocks.delete(&name, &delete(uid, version)).await?;
                Answer::Deleted
            }
            Request::Get { name } => read_one(self.blocks.get(&name).await?),
            Request::OfNode(node) => self.list(&format!("spec.node={node}")).await?,
            Request::OfPool(pool) => self.list(&format!("spec.pool={pool}")).await?,
            Request::Within(prefix) => self.list(&format!("spec.within={prefix}")).await?,
        })
    }

    async fn list(&self, fields: &str) -> kube::Result<Answer> {
        let list = self.blocks.list(&ListParams::default().fields(fields)).await?;
        let read = list.items.into_iter().map(read_block).collect::<Result<_, _>>();
        Ok(read.map_or_else(Answer::Failed, Answer::Objects))
    }

    /// All objects with this field, each time that one of them has changed; nothing while that is not known.
    pub(super) fn watch(&self, fields: String) -> BoxStream<'static, Vec<BlockObject>> {
        let config = watcher::Config::default().fields(&fields).timeout(self.watch_seconds);
        let events = watcher(self.blocks.clone(), config).default_backoff();
        let mut view = View::default();
        let shown = events.filter_map(move |event| {
            let shown = match event {
                Ok(event) => view.take(event),
                Err(error) => view.trouble(&fields, &error),
            };
            std::future::ready(shown)
        });
        shown.boxed()
    }
}

/// What a watch has shown.
#[derive(Default)]
struct View {
    known: BTreeMap<String, BlockObject>,
    /// The list that is being told anew.
    fresh: BTreeMap<String, BlockObject>,
    in_sync: bool,
    trouble: Option<String>,
}

impl View {
    fn take(&mut self, event: watcher::Event<DynamicObject>) -> Option<Vec<BlockObject>> {
        self.trouble = None;
        let put = |into: &mut BTreeMap<String, BlockObject>, object| match read_block(object) {
            Ok(block) => drop(into.insert(block.name.clone(), block)),
            Err(error) => warn!("{error}; it is left alone"),
        };
        match event {
            watcher::Event::Init => self.fresh.clear(),
            watcher::Event::InitApply(object) => put(&mut self.fresh, object),
            watcher::Event::InitDone => {
                self.known = std::mem::take(&mut self.fresh);
                self.in_sync = true;
            }
            watcher::Event::Apply(object) => put(&mut self.known, object),
            watcher::Event::Delete(object) => {
                let name = object.metadata.name.unwrap_or_default();
                self.known.remove(&name);
            }
        }
        let complete = self.in_sync && self.fresh.is_empty();
        complete.then(|| self.known.values().cloned().collect())
    }

    /// Said once, until it goes well again.
    fn trouble(&mut self, fields: &str, error: &watcher::Error) -> Option<Vec<BlockObject>> {
        let error = innermost(error);
        if self.trouble.as_ref() != Some(&error) {
            warn!(fields, error, "IPBlocks cannot be watched");
            self.trouble = Some(error);
        }
        None
    }
}

fn object(name: &str, known: Option<(&str, &str)>, spec: &IpBlockSpec) -> DynamicObject {
    DynamicObject {
        types: Some(kube::core::TypeMeta {
            api_version: API_VERSION.to_owned(),
            kind: Kind::IpBlock.name().to_owned(),
        }),
        metadata: kube::core::ObjectMeta {
            name: Some(name.to_owned()),
            uid: known.map(|(uid, _)| uid.to_owned()),
            resource_version: known.map(|(_, version)| version.to_owned()),
            ..Default::default()
        },
        data: json!({ "spec": spec }),
    }
}

fn read_one(object: DynamicObject) -> Answer {
    read_block(object).map_or_else(Answer::Failed, |block| Answer::Object(Box::new(block)))
}

fn read_block(mut object: DynamicObject) -> Result<BlockObject, String> {
    let name = object.metadata.name.unwrap_or_default();
    let spec = serde_json::from_value(object.data["spec"].take());
    Ok(BlockObject {
        spec: spec.map_err(|error| format!("IPBlock/{name} cannot be read: {error}"))?,
        uid: object.metadata.uid.unwrap_or_default(),
        version: object.metadata.resource_version.unwrap_or_default(),
        name,
    })
}

/// Whether anything can have come of it.
fn judge(error: kube::Error) -> Answer {
    match error {
        kube::Error::Api(status) => match status.code {
            404 => Answer::Missing,
            409 => Answer::Conflict,
            400 | 401 | 403 | 405 | 413 | 415 | 422 => Answer::Refused(status.message.clone()),
            _ => Answer::Failed(status.message.clone()),
        },
        error => Answer::Failed(innermost(&error)),
    }
}
