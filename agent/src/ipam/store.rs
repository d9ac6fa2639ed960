//! IPBlocks at the API server: what the core asks for, and the two watches that show it what others do.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Node};
use kube::{
    Client,
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams,
        Preconditions,
    },
    runtime::{WatchStreamExt, watcher},
};
use plainroute_bgp::Prefix;
use plainroute_blocks::{Answer, BlockObject, Request};
use plainroute_config::{API_VERSION, IpBlockSpec, Kind};
use serde_json::json;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{check::Objects, fencing::Look};
use crate::source::kubernetes::{self, Settings, innermost};

/// For how long one answer is waited for.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(10);

/// The taint of a node that is dead and is to stay so until it is taken away.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// How many objects are read at a time where all are.
const PAGE: u32 = 100;

/// The API server's IPBlocks.
#[derive(Clone)]
pub(super) struct Store {
    client: Client,
    blocks: Api<DynamicObject>,
    nodes: Api<DynamicObject>,
    watch_seconds: u32,
}

/// Whose an address is.
pub(super) struct Owner {
    pub(super) node: String,
    pub(super) block: String,
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
        let nodes = Api::all_with(client.clone(), &ApiResource::erase::<Node>(&()));
        Store { client, blocks, nodes, watch_seconds }
    }

    /// Carries out one request; there is always an answer.
    /// `by_word`: a person says that the node is dead that the request is about.
    pub(super) async fn ask(self, request: Request, by_word: bool) -> Answer {
        let request = match request {
            Request::DeleteOfFenced { name, uid, version, node } => match self.look_at(&node).await {
                Some(look) if look.allows(by_word) => Request::Delete { name, uid, version },
                Some(_) => return Answer::Conflict,
                None => return Answer::Failed(format!("whether node {node} is fenced cannot be read")),
            },
            request => request,
        };
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

    /// The blocks of a node, and those that addresses of theirs are borrowed of.
    pub(super) async fn of_node(self, node: String) -> Result<Objects, String> {
        let own = self.objects(Request::OfNode(node)).await?;
        let mut lenders = BTreeMap::new();
        for lender in own.iter().filter_map(|block| block.spec.lender.clone()).collect::<BTreeSet<_>>() {
            match self.clone().ask(Request::Get { name: lender.clone() }, false).await {
                Answer::Object(block) => drop(lenders.insert(lender, *block)),
                Answer::Missing => {}
                other => return Err(format!("IPBlock {lender}: {}", why(other))),
            }
        }
        Ok(Objects { own, lenders })
    }

    /// The blocks of the cluster that this address lies in.
    pub(super) async fn covering(self, address: IpAddr) -> Result<Vec<BlockObject>, String> {
        let within = IpBlockSpec::within_of(Prefix::host(address));
        let mut blocks = self.objects(Request::Within(within)).await?;
        blocks.retain(|block| !block.spec.transfer && block.spec.cidr.prefix().contains_address(address));
        Ok(blocks)
    }

    async fn objects(&self, request: Request) -> Result<Vec<BlockObject>, String> {
        match self.clone().ask(request, false).await {
            Answer::Objects(blocks) => Ok(blocks),
            other => Err(why(other)),
        }
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
            Request::Delete { name, uid, version } | Request::DeleteOfFenced { name, uid, version, .. } => {
                self.blocks.delete(&name, &delete(uid, version)).await?;
                Answer::Deleted
            }
            Request::Get { name } => read_one(self.blocks.get(&name).await?),
            Request::OfNode(node) => self.list(&format!("spec.node={node}")).await?,
            Request::OfPool(pool) => self.list(&format!("spec.pool={pool}")).await?,
            Request::Within(prefix) => self.list(&format!("spec.within={prefix}")).await?,
        })
    }

    /// A live look at a node; nothing where it failed.
    pub(super) async fn look_at(&self, node: &str) -> Option<Look> {
        let found = self.node(node).await;
        found.inspect_err(|error| debug!(node, error, "a Node cannot be read")).ok()
    }

    async fn node(&self, node: &str) -> Result<Look, String> {
        let named = ListParams::default().fields(&format!("metadata.name={node}"));
        let found = timeout(ANSWER, self.nodes.list(&named)).await.map_err(|error| error.to_string())?;
        let found = found.map_err(|error| innermost(&error))?;
        Ok(found.items.first().map_or(Look::Gone, look_of))
    }

    /// The block that an address is in, and how its node is.
    pub(super) async fn owner_of(&self, address: IpAddr) -> Result<Option<(Owner, Look)>, String> {
        let address = Prefix::host(address);
        let within = Request::Within(IpBlockSpec::within_of(address));
        let blocks = match self.clone().ask(within, false).await {
            Answer::Objects(blocks) => blocks,
            Answer::Failed(what) | Answer::Refused(what) => return Err(what),
            answer => return Err(format!("{answer:?}")),
        };
        let covers = |block: &&BlockObject| {
            !block.spec.transfer && block.spec.lender.is_none() && block.spec.cidr.prefix().contains(address)
        };
        let Some(block) = blocks.iter().find(covers) else { return Ok(None) };
        let owner = Owner { node: block.spec.node.clone(), block: block.name.clone() };
        let look = self.node(&owner.node).await?;
        Ok(Some((owner, look)))
    }

    /// About how many IPBlocks there are.
    pub(super) async fn count(&self) -> Option<u64> {
        let list =
            timeout(ANSWER, self.blocks.list_metadata(&ListParams::default().limit(1))).await.ok()?.ok()?;
        let more = list.metadata.remaining_item_count.unwrap_or(0);
        Some(list.items.len() as u64 + u64::try_from(more).unwrap_or(0))
    }

    /// The owners of blocks that have no Node or are out of service; nothing where that cannot be read.
    pub(super) async fn survey(&self) -> Option<BTreeMap<String, Look>> {
        let mut owners = BTreeMap::new();
        let blocks = pages(&self.blocks, |block| {
            let node = block.data["spec"]["node"].as_str().unwrap_or_default();
            owners.insert(node.to_owned(), Look::Gone);
        });
        blocks.await?;
        // A Node that is there before this list ends is in it, so no owner counts as gone that is not.
        let nodes = pages(&self.nodes, |node| match look_of(&node) {
            Look::OutOfService => {
                let name = node.metadata.name.unwrap_or_default();
                owners.entry(name).and_modify(|look| *look = Look::OutOfService);
            }
            Look::Gone | Look::There { .. } => {
                owners.remove(node.metadata.name.as_deref().unwrap_or_default());
            }
        });
        nodes.await?;
        Some(owners)
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

/// Goes through all objects, some at a time; nothing where that cannot be done to the end.
async fn pages(api: &Api<DynamicObject>, mut each: impl FnMut(DynamicObject)) -> Option<()> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let list = timeout(ANSWER, api.list(&params)).await.ok()?.ok()?;
        list.items.into_iter().for_each(&mut each);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Some(()),
        }
    }
}

fn look_of(node: &DynamicObject) -> Look {
    let has = |list: &serde_json::Value, name: &str, value: &str| {
        list.as_array().is_some_and(|list| list.iter().any(|one| one[name].as_str() == Some(value)))
    };
    if has(&node.data["spec"]["taints"], "key", OUT_OF_SERVICE) {
        return Look::OutOfService;
    }
    let conditions = node.data["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    Look::There { ready: conditions.any(|one| one["type"] == "Ready" && one["status"] == "True") }
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

/// Why there is no answer.
fn why(answer: Answer) -> String {
    match answer {
        Answer::Refused(error) | Answer::Failed(error) => error,
        Answer::Missing => "the API server has no such kind".to_owned(),
        Answer::Object(_) | Answer::Objects(_) | Answer::Deleted | Answer::Exists | Answer::Conflict => {
            "the API server answered something else".to_owned()
        }
    }
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
