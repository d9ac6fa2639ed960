//! The API server as one to write to: the object, its status, Events. Each change of how that goes is one line in the
//! log; after a failure it is left alone for a while, which grows.
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use plainroute_config::{API_VERSION, Kind, NodeState, NodeStateStatus};
use serde_json::json;
use tokio::time::timeout;
use tracing::{info, warn};

use super::events::{Occurrence, Reason, Regarding};
use crate::source::kubernetes::{self, Settings, innermost};

/// The name under which the API server notes what is ours.
const FIELD_OWNER: &str = "plainroute";
/// For how long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the wait after a failure is at most, before the random part.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why something was not written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// The API server will not have it; asking again at once changes nothing.
    #[error("the API server answers {code}: {message}")]
    Refused { code: u16, message: String },
    /// It cannot be reached, does not answer, or not now.
    #[error("{0}")]
    Away(String),
}

/// The way to it.
pub(super) struct Server {
    settings: Settings,
    connection: Option<(Client, Recorder)>,
    backoff: ExponentialBackoff,
    retry_at: Option<Instant>,
    /// It will not have this node's state.
    refuses: bool,
    /// What was last logged of it and still holds.
    trouble: Option<String>,
    /// The same of Events.
    events_trouble: Option<String>,
}

impl Server {
    pub(super) fn new(settings: Settings) -> Server {
        Server {
            settings,
            connection: None,
            backoff: backoff(),
            retry_at: None,
            refuses: false,
            trouble: None,
            events_trouble: None,
        }
    }

    /// Until when nothing is to be asked of it.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Whether it was reached last and would not have what was written.
    pub(super) fn refuses(&self) -> bool {
        self.refuses
    }

    /// Makes the NodeState of this node, or takes it over; its status as it stands. It goes with the Node of this UID.
    pub(super) async fn make_node_state(&mut self, uid: &str) -> Option<NodeStateStatus> {
        let node = self.settings.node.clone();
        let object = json!({
            "apiVersion": API_VERSION,
            "kind": Kind::NodeState.name(),
            "metadata": {
                "name": node,
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid }],
            },
        });
        let written = self.node_states(async |api| {
            api.patch(&node, &PatchParams::apply(FIELD_OWNER).force(), &Patch::Apply(&object)).await
        });
        let object = written.await?;
        // What another version wrote and this one does not understand is written anew.
        let state = serde_json::to_value(object).and_then(serde_json::from_value::<NodeState>);
        Some(state.map(|state| state.status).unwrap_or_default())
    }

    /// Writes the status of this node's NodeState; true once it stands there.
    pub(super) async fn write_status(&mut self, status: &NodeStateStatus) -> bool {
        let node = self.settings.node.clone();
        let object = json!({
            "apiVersion": API_VERSION,
            "kind": Kind::NodeState.name(),
            "metadata": { "name": node },
            "status": status,
        });
        let written = self.node_states(async |api| {
            api.patch_status(&node, &PatchParams::apply(FIELD_OWNER).force(), &Patch::Apply(&object)).await
        });
        written.await.is_some()
    }

    /// Tells an Event; false where it should be tried again later.
    pub(super) async fn publish(&mut self, event: &Occurrence, node_uid: Option<&str>) -> bool {
        let recorder = match self.connect().await {
            Ok((_, recorder)) => recorder,
            Err(trouble) => return self.settle(Err::<(), _>(trouble)).is_some(),
        };
        let told = Event {
            secondary: event.bgp_peer.as_ref().map(|name| reference(Kind::BgpPeer, name, None)),
            ..told(event.reason, &event.note)
        };
        let regarding = match &event.regarding {
            Regarding::Pool(name) => reference(Kind::IpPool, name, None),
            Regarding::Node(name) => reference(Kind::Node, name, node_uid),
            Regarding::Pod { namespace, name, uid } => ObjectReference {
                namespace: Some(namespace.clone()),
                ..reference(Kind::Pod, name, Some(uid))
            },
        };
        match asked(recorder.publish(&told, &regarding)).await {
            Ok(()) => {
                self.events_trouble = None;
                self.settle(Ok(()));
                true
            }
            // An Event is not worth a second try: the next one has its own.
            Err(Trouble::Refused { code, message }) => {
                let trouble = format!("{code}: {message}");
                if self.events_trouble.as_ref() != Some(&trouble) {
                    warn!(
                        event = event.reason.name(),
                        "Events are not told: the API server answers {trouble}"
                    );
                    self.events_trouble = Some(trouble);
                }
                true
            }
            Err(trouble) => self.settle(Err::<(), _>(trouble)).is_some(),
        }
    }

    async fn node_states<T>(
        &mut self,
        request: impl AsyncFnOnce(Api<DynamicObject>) -> Result<T, kube::Error>,
    ) -> Option<T> {
        let written = match self.connect().await {
            Ok((client, _)) => {
                let (group, version) = API_VERSION.split_once('/').unwrap_or(("", API_VERSION));
                let kind = GroupVersionKind::gvk(group, version, Kind::NodeState.name());
                let resource = ApiResource::from_gvk_with_plural(&kind, "nodestates");
                asked(request(Api::all_with(client, &resource))).await
            }
            Err(trouble) => Err(trouble),
        };
        self.settle(written)
    }

    async fn connect(&mut self) -> Result<(Client, Recorder), Trouble> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let connected = kubernetes::connect(&self.settings).await;
        let (client, _) = connected.map_err(|error| Trouble::Away(error.to_string()))?;
        let recorder = recorder(client.clone(), &self.settings.node);
        Ok(self.connection.insert((client, recorder)).clone())
    }

    /// Notes how it went.
    fn settle<T>(&mut self, written: Result<T, Trouble>) -> Option<T> {
        self.refuses = matches!(written, Err(Trouble::Refused { .. }));
        let trouble = match written {
            Ok(written) => {
                if self.trouble.take().is_some() {
                    info!("the API server takes this node's state again");
                }
                self.retry_at = None;
                self.backoff = backoff();
                return Some(written);
            }
            Err(Trouble::Refused { code: 404, .. }) => {
                "the API server knows no NodeState (CustomResourceDefinition missing, or just deleted)"
                    .to_owned()
            }
            Err(trouble) => trouble.to_string(),
        };
        if self.trouble.as_ref() != Some(&trouble) {
            warn!("this node's state is not told: {trouble}; nothing else depends on it, trying again");
            self.trouble = Some(trouble);
        }
        // The credentials may be others by now, and the address too.
        self.connection = None;
        let wait = self.backoff.next().unwrap_or(LONGEST_WAIT);
        self.retry_at = Some(Instant::now() + wait);
        None
    }
}

/// What tells Events, in the name of the agent of a node.
pub(super) fn recorder(client: Client, node: &str) -> Recorder {
    // The API server takes 128 characters.
    let instance = node.chars().take(128).collect();
    let reporter = Reporter { controller: "plainroute.dev/agent".to_owned(), instance: Some(instance) };
    Recorder::new(client, reporter)
}

fn backoff() -> ExponentialBackoff {
    let backoff = ExponentialBuilder::new().with_min_delay(Duration::from_secs(1));
    backoff.with_max_delay(LONGEST_WAIT).without_max_times().with_jitter().build()
}

pub(super) async fn asked<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Trouble> {
    match timeout(ANSWER, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
            Err(Trouble::Refused { code: status.code, message: status.message.clone() })
        }
        // It is in trouble itself, or somebody between it and us: that passes.
        Ok(Err(kube::Error::Api(status))) => {
            Err(Trouble::Away(format!("the API server answers {}: {}", status.code, status.message)))
        }
        Ok(Err(error)) => Err(Trouble::Away(innermost(&error))),
        Err(_) => Err(Trouble::Away("the server does not answer".to_owned())),
    }
}

/// An Event as the API server takes it.
pub(super) fn told(reason: Reason, note: &str) -> Event {
    Event {
        type_: if reason.is_warning() { EventType::Warning } else { EventType::Normal },
        reason: reason.name().to_owned(),
        note: Some(note.chars().take(1000).collect()),
        action: reason.action().to_owned(),
        secondary: None,
    }
}

pub(super) fn reference(kind: Kind, name: &str, uid: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some(kind.api_version().to_owned()),
        kind: Some(kind.name().to_owned()),
        name: Some(name.to_owned()),
        uid: uid.map(str::to_owned),
        ..ObjectReference::default()
    }
}
