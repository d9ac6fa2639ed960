//! The registry task.
//!
//! Owns: the peers' configuration, their tasks, the listeners, and what each owner originates. Peers that are not
//! configured one by one, but connect from within a range, are in [`dynamic`].
//! Inputs: commands of the handles, connections from within ranges (bounded channels); nudges of the peers' tasks that
//! their view has changed; the clock.
//! Outputs: each peer's configuration and each listener's callers (`watch`); the changes of what each peer is to be
//! told (bounded channel); the status of all peers and the best of what they taught (`watch`).
//! Cancelling: the task ends when it is stopped or the last handle is dropped; the peers' tasks then close their
//! connections without NOTIFICATION. Answers that nobody waits for any more are dropped.
mod check;
mod dynamic;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use plainroute_bgp::{session::StopReason, wire::CeaseReason};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tracing::{info, warn};

use self::dynamic::Ranges;
use crate::{
    AdvertisedRoute, ApplyError, Effect, Followed, Learned, Originated, Paths, PeerChange, PeerConfig,
    PeerName, Peers, Receipt, ReceivedRoute, RouteChange, SpeakerConfig, StationConfig, StopMode,
    bmp::{StationViews, Stations},
    change, learned,
    learned::Teaching,
    listener::{Accepted, Caller, Callers, Listener},
    originated::{Change, OriginatedSets},
    outbound::Changes,
    peer::{CHANGES_WAITING, Inputs, Leave, Outputs, Peer, PeerCommand},
    signature::Signature,
    socket::tcp_ao::Peers as Keyed,
    status::PeerView,
};

/// How long stopping waits for the peers' connections to close.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Apply {
        peers: BTreeMap<PeerName, PeerConfig>,
        answer: oneshot::Sender<Result<Vec<PeerChange>, ApplyError>>,
    },
    Originate {
        owner: String,
        routes: Vec<Originated>,
        answer: oneshot::Sender<Receipt>,
    },
    Update {
        owner: String,
        changes: Vec<RouteChange>,
        answer: oneshot::Sender<Receipt>,
    },
    Advertised {
        peer: PeerName,
        answer: oneshot::Sender<Vec<AdvertisedRoute>>,
    },
    Received {
        peer: PeerName,
        answer: oneshot::Sender<Vec<ReceivedRoute>>,
    },
    ApplyStations {
        stations: BTreeMap<SocketAddr, StationConfig>,
    },
    Stop {
        mode: StopMode,
        answer: oneshot::Sender<()>,
    },
}

/// What the registry publishes.
#[derive(Debug)]
pub(crate) struct PublicOutputs {
    pub(crate) peers: watch::Sender<Arc<Peers>>,
    pub(crate) learned: watch::Sender<Arc<Learned>>,
    pub(crate) followed: watch::Sender<Arc<Followed>>,
    pub(crate) stations: watch::Sender<Arc<StationViews>>,
}

/// A running peer, as the registry sees it.
struct Running {
    /// The range that it is of, where it is not configured by itself.
    member_of: Option<PeerName>,
    config: watch::Sender<PeerConfig>,
    changes: mpsc::Sender<Changes>,
    /// Of the last change that it was told.
    version: u64,
    commands: mpsc::Sender<PeerCommand>,
    connections: mpsc::Sender<Accepted>,
    view: watch::Receiver<PeerView>,
    flushed: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Running {
    /// The name under which routes are originated to it: a range is told as a whole.
    fn told_as(&self, name: &PeerName) -> PeerName {
        self.member_of.as_ref().unwrap_or(name).clone()
    }
}

/// A listener's task; it ends when the sender is dropped.
struct Listening {
    callers: watch::Sender<Arc<Callers>>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Ends the task and waits until its port is free.
    async fn close(self) {
        drop(self.callers);
        // An error would be a panic in there; the sockets are closed in that case too.
        let _ = self.task.await;
    }
}

pub(crate) struct Registry {
    speaker: SpeakerConfig,
    synced: watch::Receiver<bool>,
    paths: watch::Receiver<Arc<Paths>>,
    outputs: PublicOutputs,
    peers: BTreeMap<PeerName, Running>,
    ranges: Ranges,
    listeners: BTreeMap<u16, Listening>,
    originated: OriginatedSets,
    version: u64,
    /// What `learned` was last computed from.
    teachings: BTreeMap<PeerName, Teaching>,
    changed: Arc<Notify>,
    stations: Stations,
}

impl Registry {
    pub(crate) fn new(
        speaker: SpeakerConfig,
        synced: watch::Receiver<bool>,
        paths: watch::Receiver<Arc<Paths>>,
        outputs: PublicOutputs,
    ) -> Registry {
        let stations = Stations::new(outputs.peers.subscribe(), outputs.stations.clone());
        Registry {
            stations,
            speaker,
            synced,
            paths,
            outputs,
            peers: BTreeMap::new(),
            ranges: Ranges::new(),
            listeners: BTreeMap::new(),
            originated: OriginatedSets::default(),
            version: 0,
            teachings: BTreeMap::new(),
            changed: Arc::default(),
        }
    }

    /// Runs until it is stopped or no handle is left.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let changed = Arc::clone(&self.changed);
        loop {
            let timeout = self.ranges.poll_timeout();
            let command = tokio::select! {
                command = inbox.recv() => command,
                () = changed.notified() => {
                    self.publish();
                    continue;
                }
                knock = self.ranges.knocked() => {
                    self.admit(knock).await;
                    continue;
                }
                () = sleep_until(timeout) => {
                    self.handle_timeout().await;
                    continue;
                }
            };
            match command {
                Some(Command::Apply { peers, answer }) => {
                    let result = self.apply(peers).await;
                    // A handle that has gone away needs no answer, here and below.
                    let _ = answer.send(result);
                }
                Some(Command::Originate { owner, routes, answer }) => {
                    let _ = answer.send(self.originate(owner, routes).await);
                }
                Some(Command::Update { owner, changes, answer }) => {
                    let _ = answer.send(self.update(&owner, changes).await);
                }
                Some(Command::Advertised { peer, answer }) => {
                    self.ask(&peer, PeerCommand::Advertised(answer)).await;
                }
                Some(Command::Received { peer, answer }) => {
                    self.ask(&peer, PeerCommand::Received(answer)).await;
                }
                Some(Command::ApplyStations { stations }) => self.stations.apply(stations),
                Some(Command::Stop { mode, answer }) => {
                    self.stop(mode).await;
                    let _ = answer.send(());
                    return;
                }
                None => return self.stop(StopMode::Retain).await,
            }
        }
    }

    /// All or nothing: what can fail comes first.
    async fn apply(&mut self, wanted: BTreeMap<PeerName, PeerConfig>) -> Result<Vec<PeerChange>, ApplyError> {
        check::check(&wanted)?;
        let new_listeners = self.bind_new_ports(&wanted)?;
        let mut changes = self.apply_ranges(&wanted).await;
        let (configured, gone): (BTreeSet<PeerName>, BTreeSet<PeerName>) = self
            .peers
            .iter()
            .filter(|(_, running)| running.member_of.is_none())
            .map(|(peer, _)| peer.clone())
            .partition(|peer| wanted.get(peer).is_some_and(|config| config.listen_range.is_none()));
        for peer in gone {
            self.remove(&peer).await;
            // One that has become a range is among the changes already.
            if !wanted.contains_key(&peer) {
                changes.push(PeerChange { peer, effect: Effect::Removed });
            }
        }
        for (peer, config) in wanted.into_iter().filter(|(_, config)| config.listen_range.is_none()) {
            let effect = match self.peers.get(&peer).filter(|_| configured.contains(&peer)) {
                None => {
                    self.add(peer.clone(), config, None).await;
                    Effect::Added
                }
                Some(running) => {
                    let effect = change::compare(&running.config.borrow(), &config);
                    if effect != Effect::Unchanged {
                        running.config.send_replace(config);
                    }
                    effect
                }
            };
            changes.push(PeerChange { peer, effect });
        }
        changes.sort_by(|a, b| a.peer.cmp(&b.peer));
        self.update_listeners(new_listeners).await;
        self.publish();
        Ok(changes)
    }

    fn bind_new_ports(
        &self,
        wanted: &BTreeMap<PeerName, PeerConfig>,
    ) -> Result<BTreeMap<u16, Listener>, ApplyError> {
        let mut listeners = BTreeMap::new();
        for config in wanted.values().filter(|config| config.listen_port != 0) {
            let port = config.listen_port;
            if !self.listeners.contains_key(&port) && !listeners.contains_key(&port) {
                // The keys must stand before the first SYN; nobody is let in before the peers run.
                let configs = wanted.iter().filter(|(_, config)| config.listen_port == port);
                let signature = |config| Signature::of(config, &self.speaker.tcp_ao);
                let signatures = configs.filter_map(|(_, c)| Some((keyed(c), signature(c)?)));
                let listener = Listener::bind(port, signatures.collect())
                    .map_err(|source| ApplyError::Listen { port, source })?;
                listeners.insert(port, listener);
            }
        }
        Ok(listeners)
    }

    async fn update_listeners(&mut self, new: BTreeMap<u16, Listener>) {
        for (port, listener) in new {
            let callers = watch::Sender::new(Arc::default());
            let task = tokio::spawn(listener.run(callers.subscribe()));
            self.listeners.insert(port, Listening { callers, task });
            info!(port, "listening");
        }
        let mut ports: BTreeMap<u16, Callers> = BTreeMap::new();
        self.ranges.callers(&mut ports, &self.speaker);
        for (peer, running) in self.peers.iter().filter(|(_, running)| running.member_of.is_none()) {
            let config = running.config.borrow();
            if config.listen_port != 0 {
                let caller = Caller {
                    peer: peer.clone(),
                    signature: Signature::of(&config, &self.speaker.tcp_ao),
                    ttl_security: config.ttl_security,
                    connections: running.connections.clone(),
                };
                ports.entry(config.listen_port).or_default().peers.insert(config.source(), caller);
            }
        }
        for (port, listening) in std::mem::take(&mut self.listeners) {
            match ports.remove(&port) {
                Some(wanted) => {
                    listening.callers.send_replace(Arc::new(wanted));
                    self.listeners.insert(port, listening);
                }
                None => {
                    listening.close().await;
                    info!(port, "no longer listening");
                }
            }
        }
    }

    async fn add(&mut self, peer: PeerName, config: PeerConfig, member_of: Option<PeerName>) {
        let (commands, commands_in) = mpsc::channel(16);
        let (connections, connections_in) = mpsc::channel(4);
        let view = watch::Sender::new(PeerView::idle(&config, &self.speaker));
        let flushed = watch::Sender::new(0);
        let (changes, changes_in) = mpsc::channel(CHANGES_WAITING);
        let config = watch::Sender::new(config);
        let inputs = Inputs {
            config: config.subscribe(),
            changes: changes_in,
            synced: self.synced.clone(),
            paths: self.paths.clone(),
            commands: commands_in,
            connections: connections_in,
            stations: self.stations.subscriptions(),
        };
        let running = Running {
            view: view.subscribe(),
            flushed: flushed.subscribe(),
            task: tokio::spawn(
                Peer::new(
                    peer.clone(),
                    self.speaker.clone(),
                    inputs,
                    Outputs { view, flushed, changed: Arc::clone(&self.changed) },
                )
                .run(),
            ),
            member_of,
            config,
            changes,
            version: self.version,
            commands,
            connections,
        };
        info!(%peer, "added");
        tell(&running, self.originated.routes_to(&running.told_as(&peer)), self.version).await;
        self.peers.insert(peer, running);
    }

    /// The task sees its connections off on its own.
    async fn remove(&mut self, peer: &PeerName) {
        if let Some(running) = self.peers.remove(peer) {
            let text = "the peer was removed from the configuration".to_owned();
            let reason = StopReason::Cease(CeaseReason::PeerDeconfigured, text);
            // An error means that the task has ended already.
            let _ = running.commands.send(PeerCommand::Leave(Leave::Now(reason))).await;
            info!(%peer, "removed");
        }
    }

    async fn originate(&mut self, owner: String, routes: Vec<Originated>) -> Receipt {
        let replaced = self.originated.replace(owner, routes);
        self.version += 1;
        for (peer, running) in &mut self.peers {
            let name = running.told_as(peer);
            let mut changes = self.originated.changes(&replaced, &name).peekable();
            if changes.peek().is_some() {
                running.version = self.version;
                tell(running, changes, self.version).await;
            }
        }
        self.receipt()
    }

    async fn update(&mut self, owner: &str, changes: Vec<RouteChange>) -> Receipt {
        let told = self.originated.update(owner, changes);
        self.version += 1;
        for (name, changes) in told {
            for peer in self.ranges.told_as(&name) {
                if let Some(running) = self.peers.get_mut(&peer) {
                    running.version = self.version;
                    tell(running, changes.iter().cloned(), self.version).await;
                }
            }
        }
        self.receipt()
    }

    /// Of all that every peer was told up to now.
    fn receipt(&self) -> Receipt {
        let wait = |running: &Running| (running.flushed.clone(), running.version);
        Receipt { waits: self.peers.values().map(wait).collect() }
    }

    async fn ask(&self, peer: &PeerName, command: PeerCommand) {
        if let Some(running) = self.peers.get(peer) {
            // An error drops the answer's sender, which the asker sees as nothing.
            let _ = running.commands.send(command).await;
        }
    }

    async fn stop(&mut self, mode: StopMode) {
        let leave = match mode {
            StopMode::Retain => Leave::Now(StopReason::Retain),
            StopMode::Withdraw => Leave::Withdraw,
            StopMode::HardReset => {
                Leave::Now(StopReason::Cease(CeaseReason::HardReset, "shutting down".to_owned()))
            }
        };
        // First, so that no peer comes back in by its own connection.
        for listening in std::mem::take(&mut self.listeners).into_values() {
            listening.close().await;
        }
        for running in self.peers.values() {
            let _ = running.commands.send(PeerCommand::Leave(leave.clone())).await;
        }
        let deadline = tokio::time::Instant::now() + STOP_WAIT;
        for (peer, running) in std::mem::take(&mut self.peers) {
            if tokio::time::timeout_at(deadline, running.task).await.is_err() {
                warn!(%peer, "the connection did not close in time");
            }
        }
        self.stations.stop().await;
        // Behind what the peers' tasks said last.
        if let Some(recorder) = &self.speaker.recorder {
            recorder.finish().await;
        }
        info!(?mode, "stopped");
    }

    /// Publishes the latest views, whole.
    fn publish(&mut self) {
        let mut statuses = Peers::new();
        let mut teachings: BTreeMap<PeerName, Teaching> = BTreeMap::new();
        for (peer, running) in &mut self.peers {
            let PeerView { mut status, teaching } = running.view.borrow_and_update().clone();
            if let Some(range) = &running.member_of {
                self.ranges.note(range, peer, &status);
                status.member_of = Some(range.clone());
            }
            statuses.insert(peer.clone(), status);
            teachings.insert(peer.clone(), teaching);
        }
        statuses.extend(self.ranges.statuses());
        // First what they taught: who reads "End-of-RIB received" in a status finds all routes before it. It is
        // chosen anew only where it differs; counters change all the time, routes seldom.
        if teachings != self.teachings {
            let (best, followed) = (learned::best(&teachings), learned::best_followed(&teachings));
            self.teachings = teachings;
            tell_of(&self.outputs.learned, best);
            tell_of(&self.outputs.followed, followed);
        }
        self.outputs.peers.send_replace(Arc::new(statuses));
    }
}

/// Publishes a value that differs from the last.
fn tell_of<T: PartialEq>(told: &watch::Sender<Arc<T>>, next: T) {
    told.send_if_modified(|told| {
        let modified = **told != next;
        if modified {
            *told = Arc::new(next);
        }
        modified
    });
}

/// Tells a peer's task of changes, in pieces. The task takes them whatever its session does, so this never waits for
/// the peer itself.
async fn tell(running: &Running, mut changes: impl Iterator<Item = Change>, version: u64) {
    loop {
        let routes: Vec<Change> = changes.by_ref().take(Changes::ROUTES).collect();
        let last = routes.len() < Changes::ROUTES;
        let piece = Changes { routes, version: last.then_some(version) };
        // An error means that the task has ended: nobody is left to be told.
        if running.changes.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// Whose segments the peer's keys are for.
fn keyed(config: &PeerConfig) -> Keyed {
    config.listen_range.map_or_else(|| Keyed::one(config.peer_address), |range| Keyed::within(range.prefix))
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
