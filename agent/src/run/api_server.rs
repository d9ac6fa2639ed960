//! What the main task does about an API server that does not answer, or whose deletions are not believed.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use plainroute_config::{ObjectKey, annotation};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    index::{Held, Index, Moment, Snapshot},
    last_good::Told,
};

/// How long the API server may take for its first answer before what an earlier process knew is in force; the peers wait
/// for it meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where it is known that something is wrong.
const PATIENCE_WITH_TROUBLE: Duration = Duration::from_secs(1);

/// The main task's side of it. Absent where there is no API server.
pub(super) struct ApiServer {
    told: watch::Sender<Told>,
    started: Instant,
    fall_back_at: Option<Instant>,
    /// The namespace that the agent runs in.
    namespace: Option<String>,
    /// The revision of the index that was told to be kept.
    kept: Option<u64>,
    /// What was held when it was last looked at.
    held: BTreeMap<ObjectKey, Held>,
    node_gone: bool,
}

impl ApiServer {
    pub(super) fn new(told: watch::Sender<Told>, namespace: Option<String>) -> ApiServer {
        let started = Instant::now();
        let fall_back_at = Some(started + PATIENCE);
        ApiServer {
            told,
            started,
            fall_back_at,
            namespace,
            kept: None,
            held: BTreeMap::new(),
            node_gone: false,
        }
    }

    /// When [`ApiServer::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self, index: &Index) -> Option<Instant> {
        self.fall_back_at.into_iter().chain(index.poll_timeout()).min()
    }

    /// Time has passed; true where the snapshot is another.
    pub(super) fn handle_timeout(&mut self, index: &mut Index, now: Moment) -> bool {
        let mut changed = index.handle_timeout(now);
        if self.fall_back_at.take_if(|at| *at <= now.instant).is_some() && index.awaits_api_server() {
            changed |= index.fall_back();
            if let Some((kinds, from)) = index.restored() {
                let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                warn!(%from, ?kinds, "the API server does not answer; what it said last is in force");
            }
        }
        changed
    }

    /// Looks at what has come of changes; true where the snapshot is another again.
    pub(super) fn handle_index(&mut self, index: &mut Index) -> bool {
        let changed = match self.confirmed_until(index.snapshot()) {
            Some(until) => index.confirm(|_, held| held.since <= until),
            None => false,
        };
        let as_kept = !self.journal(index) && self.kept == Some(index.revision());
        let heard = index.hears_api_server();
        if !heard {
            self.fall_back_at = self.fall_back_at.map(|at| at.min(self.started + PATIENCE_WITH_TROUBLE));
        }
        let fresh = if as_kept { None } else { index.last_good(Timestamp::now()) };
        self.kept = fresh.as_ref().map(|_| index.revision()).or(self.kept);
        self.told.send_if_modified(|told| {
            // What came while one kind was in trouble is worth keeping as soon as none is.
            let modified = fresh.is_some() || (heard && !told.heard);
            told.heard = heard;
            told.kept = fresh.map(Arc::new).or(told.kept.take());
            modified
        });
        changed
    }

    /// Until when deletions are confirmed for all agents at once: an annotation on the namespace that they run in.
    fn confirmed_until(&self, snapshot: Option<Snapshot>) -> Option<Timestamp> {
        let snapshot = snapshot?;
        let namespace = snapshot.namespace(self.namespace.as_deref()?)?;
        namespace.metadata.annotation(annotation::DELETIONS_CONFIRMED_UNTIL)?.parse().ok()
    }

    /// Logs what is new; true where what is held is not what it was.
    fn journal(&mut self, index: &Index) -> bool {
        let held = index.held();
        let differs = *held != self.held;
        if differs {
            let new: Vec<String> =
                held.keys().filter(|key| !self.held.contains_key(*key)).map(ToString::to_string).collect();
            if let Some((_, first)) = held.iter().find(|(key, _)| !self.held.contains_key(*key)) {
                let reason = first.reason.message();
                let some = &new[..new.len().min(10)];
                warn!(
                    count = new.len(),
                    objects = ?some,
                    "{reason}: these objects are kept until somebody confirms (plainroute held)"
                );
            } else {
                info!(held = held.len(), "fewer deletions are held");
            }
            self.held.clone_from(held);
        }
        if index.node_gone() && !self.node_gone {
            warn!("the Node was deleted; the sessions stay, and each Pod's route until its Pod is gone");
        }
        self.node_gone = index.node_gone();
        differs
    }
}

/// The namespace that this process runs in, where it runs in a Pod.
pub(super) fn own_namespace() -> Option<String> {
    let of_the_account = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    let named = std::env::var("POD_NAMESPACE").ok();
    named
        .or_else(|| std::fs::read_to_string(of_the_account).ok())
        .map(|namespace| namespace.trim().to_owned())
        .filter(|namespace| !namespace.is_empty())
}
