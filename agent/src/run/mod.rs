//! The agent's main task.
//!
//! Owner of: the [`Index`], the [`Gate`] and everything that is derived from them. Inputs: changes from the sources,
//! what the kernel holds, what the peers taught, receipts of withdrawals, passwords, timers, signals. Outputs: the
//! desired kernel, the desired peers and routes, the secrets and BFD sessions that are wanted, and what `admin` shows. Ending it
//! (SIGTERM, SIGINT) is a restart, not a drain: sessions close without NOTIFICATION and the kernel's routes stay.
mod api_server;
mod egress;
mod journal;
mod monitoring;
mod peers;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::{StreamExt, stream::FuturesUnordered};
use plainroute_bgp::{RouterId, session::State};
use plainroute_blocks::Holdings;
use plainroute_config::{AgentConfigSpec, Pod};
use plainroute_speaker::{OriginAttributes, Originated, PeerConfig, PeerName, Peers, Receipt, Speaker};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{info, warn};

pub(crate) use start::start_logging;
pub use start::{LogFormat, main, node_name};

use crate::{
    admin::{Command, Published},
    bfd::client::Sessions,
    discovery::{Discovery, Seen},
    drain::{AskedBy, Drain},
    egress::{Egresses, Remembered},
    fib::{self, Desired, Installed},
    flaps::Flaps,
    gate::{Announcement, Gate},
    index::{Index, Moment, Snapshot},
    ipam::{Known, PoolsInForce, Release},
    nat::{NatDesired, NatInstalled},
    neighbours::HeardBy,
    peering,
    plan::{Local, Plan, plan},
    source::{
        Feed,
        kubernetes::Scope,
        secrets::{Passwords, SecretName},
    },
};
use api_server::ApiServer;
use journal::Journal;
use monitoring::Monitoring;
use peers::PeersInForce;

/// Who originates Pod routes in the speaker.
const OWNER: &str = "pods";

/// For how long the first plan waits for what this node holds.
const HOLDINGS_PATIENCE: Duration = Duration::from_secs(5);

type Answer = (tokio::sync::oneshot::Sender<Result<(), String>>, Result<(), String>);
type Flushes = FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = u64> + Send>>>;

/// What the main task hears.
struct Inputs {
    feeds: mpsc::Receiver<Feed>,
    installed: watch::Receiver<Arc<Installed>>,
    passwords: watch::Receiver<Arc<Passwords>>,
    commands: mpsc::Receiver<Command>,
    heard: watch::Receiver<Arc<HeardBy>>,
    /// What this node holds of pools that it gives out itself.
    holdings: watch::Receiver<Option<Holdings>>,
    nat_installed: watch::Receiver<Arc<NatInstalled>>,
}

/// Who gives addresses out.
struct Giving {
    /// What addresses are given out by; nothing before the first snapshot.
    known: watch::Sender<Option<Arc<Known>>>,
    releases: mpsc::Sender<Release>,
}

/// Whom the main task tells.
struct Outputs {
    speaker: Speaker,
    desired: watch::Sender<Arc<Desired>>,
    published: watch::Sender<Arc<Published>>,
    /// The secrets that peers need.
    secrets: watch::Sender<BTreeSet<SecretName>>,
    /// The interfaces on which routers are to be found.
    interfaces: watch::Sender<BTreeSet<String>>,
    /// The BFD sessions that peers need; none before the first plan.
    bfd: watch::Sender<Option<Arc<Sessions>>>,
    /// None where this node gives no addresses out.
    ipam: Option<Giving>,
    nat: watch::Sender<Arc<NatDesired>>,
    /// How much of the cluster is watched.
    scope: watch::Sender<Scope>,
}

/// What the main task owns.
struct Agent {
    node: String,
    /// The AgentConfig that this process was started with.
    config: AgentConfigSpec,
    /// The one in the files is another by now.
    config_changed: bool,
    started: Instant,
    /// The longest restart time that we offer a peer: how long learned routes may wait to be confirmed.
    restart_time: Duration,
    index: Index,
    api_server: Option<ApiServer>,
    plan: Arc<Plan>,
    planned: bool,
    gate: Gate,
    egress: Egresses,
    /// What a later process begins with, as it was last left.
    remembered: Remembered,
    /// Until when a session may still be telling its table.
    telling_until: Option<Instant>,
    /// The node's first IPv4 address when it was first asked for. It is kept: a changed one would reset sessions.
    router_id: Option<RouterId>,
    peers: PeersInForce,
    /// The passwords that went into them.
    passwords: Arc<Passwords>,
    /// The announcements that not every peer has taken yet.
    flushes: Flushes,
    journal: Journal,
    drain: Drain,
    flaps: Flaps,
    /// What this node holds of pools that it gives out itself; none where it does not.
    holdings: Option<Holdings>,
    /// Which definitions of them are in force.
    pools: PoolsInForce,
    monitoring: Monitoring,
    discovery: Discovery,
    /// Which routers were heard where.
    heard: Arc<HeardBy>,
    outputs: Outputs,
}

impl Agent {
    fn new(
        node: String,
        config: AgentConfigSpec,
        index: Index,
        api_server: Option<ApiServer>,
        outputs: Outputs,
    ) -> Agent {
        let routing = &config.routing;
        let drain = Drain::open(&config.state_dir);
        let discovery = Discovery::open(&config.state_dir);
        let remembered = egress::remembered(&config.state_dir);
        let settings = egress::settings(&config);
        let mut gate = Gate::new(routing.table.number(), routing.import_table.number());
        gate.handle_drain(drain.state());
        Agent {
            gate,
            egress: Egresses::new(settings, remembered.clone()),
            remembered,
            telling_until: None,
            drain,
            flaps: Flaps::default(),
            holdings: None,
            pools: PoolsInForce::open(&config.state_dir),
            monitoring: Monitoring::new(&node),
            discovery,
            heard: Arc::default(),
            node,
            config,
            config_changed: false,
            started: Instant::now(),
            restart_time: Duration::ZERO,
            index,
            api_server,
            plan: Arc::default(),
            planned: false,
            router_id: None,
            peers: PeersInForce::default(),
            passwords: Arc::default(),
            flushes: FuturesUnordered::new(),
            journal: Journal::default(),
            outputs,
        }
    }

    async fn serve(
        &mut self,
        inputs: Inputs,
        kernel: &mut tokio::task::JoinHandle<Result<(), fib::FibError>>,
    ) -> anyhow::Result<()> {
        let Inputs {
            mut feeds,
            mut installed,
            mut passwords,
            mut commands,
            mut heard,
            mut holdings,
            mut nat_installed,
        } = inputs;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut learned = self.outputs.speaker.learned();
        let mut followed = self.outputs.speaker.followed();
        let mut peers = self.outputs.speaker.peers();
        loop {
            let wake = self.next_wake();
            let (mut replan, mut answer) = (false, None);
            tokio::select! {
                Some(feed) = feeds.recv() => {
                    replan = self.index.handle(feed, Moment::now());
                    while let Ok(feed) = feeds.try_recv() {
                        replan |= self.index.handle(feed, Moment::now());
                    }
                    if let Some(api_server) = &mut self.api_server {
                        replan |= api_server.handle_index(&mut self.index);
                    }
                    if replan {
                        self.outputs.published.send_if_modified(|state| {
                            Arc::make_mut(state).config_applied = Some(jiff::Timestamp::now());
                            false
                        });
                    }
                }
                Ok(()) = installed.changed() => {
                    let installed = Arc::clone(&installed.borrow_and_update());
                    replan = self.choose_router_id(&installed) | !self.planned;
                    self.gate.handle_installed(installed);
                    replan |= self.discover(&peers);
                }
                Ok(()) = learned.changed() => self.handle_learned(&mut learned, &peers),
                Ok(()) = followed.changed() => self.handle_followed(&mut followed, &peers),
                Ok(()) = nat_installed.changed() => {
                    let installed = Arc::clone(&nat_installed.borrow_and_update());
                    self.gate.handle_nat_installed(&installed);
                    self.egress.handle_nat_installed(installed);
                }
                Ok(()) = peers.changed() => {
                    peers.mark_unchanged();
                    self.handle_learned(&mut learned, &peers);
                    self.handle_followed(&mut followed, &peers);
                    replan = self.discover(&peers);
                }
                Ok(()) = passwords.changed() => {
                    self.passwords = Arc::clone(&passwords.borrow_and_update());
                    self.apply_peers().await;
                }
                Ok(()) = heard.changed() => {
                    self.heard = Arc::clone(&heard.borrow_and_update());
                    replan = self.discover(&peers);
                }
                Ok(()) = holdings.changed() => {
                    self.holdings.clone_from(&holdings.borrow_and_update());
                    replan = true;
                }
                Some(command) = commands.recv() => (answer, replan) = self.handle_command(command),
                Some(ticket) = self.flushes.next() => self.gate.handle_flushed(ticket),
                () = tokio::time::sleep_until(wake.into()) => {
                    replan = self.plan.next_change.is_some_and(|due| due <= jiff::Timestamp::now()) | !self.planned;
                    if let Some(api_server) = &mut self.api_server {
                        replan |= api_server.handle_timeout(&mut self.index, Moment::now());
                        replan |= api_server.handle_index(&mut self.index);
                    }
                    self.drain.handle_timeout(Instant::now());
                    self.gate.handle_drain(self.drain.state());
                    for prefix in self.gate.handle_timeout(Instant::now()) {
                        warn!(%prefix, "a peer did not take the withdrawal in time; its path is given up");
                    }
                    self.handle_learned(&mut learned, &peers);
                    self.handle_followed(&mut followed, &peers);
                    replan |= self.discover(&peers);
                    if self.peers.retry_at().is_some_and(|at| at <= Instant::now()) {
                        self.apply_peers().await;
                    }
                }
                ended = &mut *kernel => {
                    return ended.context("the kernel routes' task ended")?.context("kernel routes");
                }
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
            if replan {
                self.replan(&peers).await;
            }
            self.carry_out().await;
            self.publish();
            if let Some((answer, result)) = answer {
                // Whoever asked may be gone.
                let _ = answer.send(result);
            }
        }
    }

    /// Does what a person asks for. The answer goes out once it is carried out and published.
    /// True beside it where the snapshot is another.
    fn handle_command(&mut self, command: Command) -> (Option<Answer>, bool) {
        let (result, answer) = match command {
            Command::Confirm { objects, answer } => {
                let (result, changed) = self.confirm(objects.as_deref());
                return (Some((answer, result)), changed);
            }
            Command::Release { address, confirm, answer } => {
                self.release(Release { address, confirm, answer });
                return (None, false);
            }
            Command::Drain { wait, answer } => {
                info!(?wait, "drain: routes are marked with GRACEFUL_SHUTDOWN, then withdrawn");
                (self.drain.begin(AskedBy::Command, Instant::now(), wait), answer)
            }
            Command::Undrain { answer } => {
                info!("the drain is taken back");
                (self.drain.undo(AskedBy::Command), answer)
            }
        };
        self.gate.handle_drain(self.drain.state());
        let state_dir = self.config.state_dir.display().to_string();
        let told = result.map_err(|error| format!("the drain cannot be remembered in {state_dir}: {error}"));
        (Some((answer, told)), false)
    }

    /// Hands it on; who gives addresses out answers it.
    fn release(&self, release: Release) {
        let Some(Giving { releases, .. }) = &self.outputs.ipam else {
            let _ =
                release.answer.send(Err("this agent gives no addresses out (AgentConfig ipam)".to_owned()));
            return;
        };
        if let Err(error) = releases.try_send(release) {
            let _ = error.into_inner().answer.send(Err("another release is under way".to_owned()));
        }
    }

    /// Carries out deletions that were held: all of them, or of these objects, if all of these are held.
    fn confirm(&mut self, objects: Option<&[String]>) -> (Result<(), String>, bool) {
        let held: BTreeSet<String> = self.index.held().keys().map(ToString::to_string).collect();
        let unheld = objects.unwrap_or_default().iter().find(|object| !held.contains(*object));
        if let Some(object) = unheld {
            return (Err(format!("no deletion of {object} is held; nothing was confirmed")), false);
        }
        info!(?objects, "held deletions are confirmed");
        let changed = self
            .index
            .confirm(|key, _| objects.is_none_or(|objects| objects.iter().any(|of| *of == key.to_string())));
        if let Some(api_server) = &mut self.api_server {
            api_server.handle_index(&mut self.index);
        }
        (Ok(()), changed)
    }

    /// When something is due although nobody says anything.
    fn next_wake(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let due = self.plan.next_change.map(|due| {
            let wait = due.duration_since(jiff::Timestamp::now());
            Instant::now() + Duration::try_from(wait).unwrap_or_default()
        });
        let settle = self.started + self.restart_time;
        let settle = (self.planned && settle > Instant::now()).then_some(settle);
        let holdings = self.outputs.ipam.is_some().then_some(self.started + HOLDINGS_PATIENCE);
        let timeouts = [
            due,
            holdings.filter(|at| !self.planned && *at > Instant::now()),
            settle,
            self.gate.poll_timeout(),
            self.peers.retry_at(),
            self.drain.poll_timeout(),
            self.silence_counts_at(),
            self.discovery.poll_timeout(),
            self.api_server.as_ref().and_then(|api_server| api_server.poll_timeout(&self.index)),
        ];
        timeouts.into_iter().flatten().fold(far, Instant::min)
    }

    /// Takes the node's first IPv4 address as router ID, once; true where that changes the plan.
    fn choose_router_id(&mut self, installed: &Installed) -> bool {
        if self.router_id.is_some() || !installed.synced {
            return false;
        }
        let interfaces = installed.interfaces.values().filter(|interface| !interface.loopback);
        let addresses = interfaces
            .flat_map(|interface| interface.addresses.iter().map(|(address, _)| (interface.index, *address)));
        let first = addresses
            .filter_map(|(index, address)| match address {
                IpAddr::V4(address) if !address.is_link_local() => {
                    Some((index, RouterId::try_from(address).ok()?))
                }
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            })
            .min_by_key(|(index, _)| *index);
        self.router_id = first.map(|(_, router_id)| router_id);
        self.router_id.is_some()
    }

    fn handle_learned(
        &mut self,
        learned: &mut watch::Receiver<Arc<plainroute_speaker::Learned>>,
        peers: &watch::Receiver<Arc<Peers>>,
    ) {
        let settled = self.has_settled(&peers.borrow());
        self.gate.handle_learned(Arc::clone(&learned.borrow_and_update()), settled);
    }

    /// Whether each peer has sent its table since the start, or had its time for it.
    fn has_settled(&self, peers: &Peers) -> bool {
        let late = Instant::now() >= self.started + self.restart_time;
        let done = |name: &PeerName| peers.get(name).is_some_and(has_sent_all);
        // A peer that is not found yet has not told anything either.
        let found = self.plan.peers.iter().all(|peer| peer.remote.is_some());
        self.planned && (late || found && self.peers.names().all(done))
    }

    /// Holds what the node sees of routers against what is known; true where that changes the plan.
    fn discover(&mut self, peers: &watch::Receiver<Arc<Peers>>) -> bool {
        let peers = Arc::clone(&peers.borrow());
        let up = peers.values().filter(|peer| peer.state == State::Established);
        let established = up.map(|peer| (peer.peer_address, peer.interface.clone())).collect();
        let seen = Seen {
            now: Instant::now(),
            installed: self.gate.installed(),
            heard: &self.heard,
            established: &established,
        };
        self.discovery.handle_seen(&seen)
    }

    /// Makes the plan anew, once there is something to make it from; and again where that asks for routers that are
    /// known already.
    async fn replan(&mut self, peers: &watch::Receiver<Arc<Peers>>) {
        while self.plan_once().await && self.discover(peers) {}
    }

    /// Holds what the Node's object asks for against what is done.
    fn drain_as_asked(&mut self, snapshot: &Snapshot) {
        let Some(node) = snapshot.node(&self.node) else { return };
        let asked = self.config.drain.asked_by(node);
        if asked.is_some() == self.drain.asked_by().contains(&AskedBy::Node) {
            return;
        }
        let done = match &asked {
            Some(what) => {
                info!(
                    what,
                    "drain: the Node asks for it; routes are marked with GRACEFUL_SHUTDOWN, then withdrawn"
                );
                let wait = Duration::from_secs(self.config.drain.wait_seconds.get().into());
                self.drain.begin(AskedBy::Node, Instant::now(), wait)
            }
            None => {
                info!("the Node asks for no drain any more");
                self.drain.undo(AskedBy::Node)
            }
        };
        if let Err(error) = done {
            let state_dir = self.config.state_dir.display();
            warn!(%error, %state_dir, "the drain that the Node asks for cannot be remembered, so it is not done");
        }
        self.gate.handle_drain(self.drain.state());
    }

    /// True where the plan is another.
    async fn plan_once(&mut self) -> bool {
        // Without the kernel's first dump neither the router ID nor what an earlier process left is known.
        let (Some(mut snapshot), true) = (self.index.snapshot(), self.gate.installed().synced) else {
            return false;
        };
        self.drain_as_asked(&snapshot);
        if let Some(Giving { known, .. }) = &self.outputs.ipam {
            let declared = snapshot;
            snapshot = self.pools.judge(&declared, self.holdings.as_ref());
            let next = Known::new(&declared, &snapshot.pool_notes, &self.node);
            known.send_if_modified(|known| {
                let modified = known.as_deref() != Some(&next);
                if modified {
                    *known = Some(Arc::new(next));
                }
                modified
            });
            // A plan without the journal would not know the blocks. But one that cannot be read must not keep all else down.
            if self.holdings.is_none() && self.started.elapsed() < HOLDINGS_PATIENCE {
                return false;
            }
        }
        let other = |spec: &AgentConfigSpec| AgentConfigSpec { bmp: self.config.bmp.clone(), ..spec.clone() };
        self.config_changed = snapshot.agent_configs().any(|(config, _)| other(&config.spec) != self.config);
        let stations = snapshot.agent_configs().flat_map(|(config, _)| config.spec.bmp.clone()).collect();
        self.monitoring.apply(&self.outputs.speaker, stations).await;
        let now = jiff::Timestamp::now();
        let here = |pod: &&Pod| pod.node_name.as_ref() == Some(&self.node);
        self.flaps.handle_pods(snapshot.pods().map(|(pod, _)| pod).filter(here), now);
        let local = Local {
            damped: self.flaps.damped(now),
            node: self.node.clone(),
            router_id: self.router_id,
            found: self.discovery.found().clone(),
            holdings: self.holdings.clone(),
            now,
        };
        let next = plan(&snapshot, &local);
        if self.planned && next == *self.plan {
            return false;
        }
        self.planned = true;
        self.plan = Arc::new(next);
        self.journal.plan(&self.plan);
        self.discovery.handle_plan(&self.plan);
        self.outputs.interfaces.send_if_modified(|wanted| {
            let modified = wanted != self.discovery.interfaces();
            wanted.clone_from(self.discovery.interfaces());
            modified
        });
        self.gate.handle_plan(Arc::clone(&self.plan));
        self.egress.handle_plan(Arc::clone(&self.plan));
        self.widen_scope();
        self.apply_peers().await;
        true
    }

    async fn apply_peers(&mut self) {
        let names: BTreeSet<SecretName> = self.plan.peers.iter().flat_map(peering::secret_names).collect();
        self.outputs.secrets.send_if_modified(|wanted| {
            let modified = *wanted != names;
            *wanted = names;
            modified
        });
        let mut lacks = BTreeMap::new();
        let followed = Arc::new(self.plan.egress_prefixes());
        let wanted: BTreeMap<PeerName, PeerConfig> = self
            .plan
            .peers
            .iter()
            .filter_map(|peer| {
                let name = PeerName::from(peer.name.as_str());
                let in_force = self.peers.wanted(&name);
                let (config, lack) = peering::peer_config(peer, &self.passwords, &followed, in_force)?;
                lacks.extend(lack.map(|lack| (name.clone(), lack)));
                Some((name, config))
            })
            .collect();
        let sessions: Sessions = self
            .plan
            .peers
            .iter()
            .filter_map(|peer| {
                let name = PeerName::from(peer.name.as_str());
                let session = peering::bfd_session(peer, wanted.get(&name)?)?;
                Some((name, session))
            })
            .collect();
        self.outputs.bfd.send_if_modified(|wanted| {
            let modified = wanted.as_deref() != Some(&sessions);
            *wanted = Some(Arc::new(sessions));
            modified
        });
        let restarts = self.plan.peers.iter().map(|peer| &peer.spec.graceful_restart);
        self.restart_time = restarts
            .filter(|restart| restart.enabled)
            .map(|restart| Duration::from_secs(u64::from(restart.restart_time_seconds.get())))
            .max()
            .unwrap_or_default();
        self.peers.set_lacks(lacks);
        self.peers.apply(&self.outputs.speaker, wanted).await;
    }

    /// Does what the gate asks for: first what is withdrawn or advertised, then what the kernel shall hold.
    async fn carry_out(&mut self) {
        self.gate.handle_ways(self.egress.ways());
        if let Some(announcement) = self.gate.poll_announcement(Instant::now()) {
            self.announce(announcement).await;
        }
        if let Some(desired) = self.gate.poll_desired() {
            self.outputs.desired.send_replace(desired);
        }
        self.carry_out_egress();
    }

    async fn announce(&mut self, announcement: Announcement) {
        let Announcement { ticket, routes, graceful_shutdown } = announcement;
        self.journal.announcement(self.outputs.published.borrow().advertised.as_deref(), &routes);
        let mut shared: BTreeMap<&crate::plan::RouteAttributes, Arc<OriginAttributes>> = BTreeMap::new();
        let originated = routes.iter().map(|((peer, prefix), attributes)| Originated {
            peer: peer.clone(),
            prefix: *prefix,
            attributes: Arc::clone(shared.entry(attributes).or_insert_with(|| {
                let origin = OriginAttributes::from(attributes);
                Arc::new(OriginAttributes { drain: graceful_shutdown || origin.drain, ..origin })
            })),
        });
        let receipt: Receipt = self.outputs.speaker.originate(OWNER, originated.collect()).await;
        // End-of-RIB is released once: what stands in the first announcement is all that there is.
        self.outputs.speaker.initial_sync_done();
        self.flushes.push(Box::pin(async move {
            receipt.flushed().await;
            ticket
        }));
        self.outputs.published.send_if_modified(|state| {
            Arc::make_mut(state).advertised = Some(Arc::new(routes));
            false
        });
    }

    fn publish(&mut self) {
        let awaited: Vec<String> = self.index.awaited().map(|awaited| awaited.to_string()).collect();
        let mut problems: BTreeMap<String, String> = self
            .index
            .problems()
            .map(|(source, kind, problem)| {
                let source = kind.map_or_else(|| source.to_string(), |kind| format!("{source} {kind}"));
                (source, problem.to_owned())
            })
            .collect();
        problems.extend(self.peers.problems().map(|(object, problem)| (object.clone(), problem.clone())));
        if self.config_changed {
            let message = "the AgentConfig was changed; restart the agent to apply it".to_owned();
            problems.insert("AgentConfig".to_owned(), message);
        }
        if let Some((_, from)) = self.index.restored().filter(|_| !self.index.awaits_api_server()) {
            let message =
                format!("it has not answered since the start; what it said until {from} is in force");
            problems.insert("API server".to_owned(), message);
        }
        if self.index.node_gone() {
            let message = "it was deleted; what was known of it stays in force".to_owned();
            problems.insert(format!("Node/{}", self.node), message);
        }
        self.outputs.published.send_modify(|state| {
            let state = Arc::make_mut(state);
            if *state.held != *self.index.held() {
                state.held = Arc::new(self.index.held().clone());
            }
            if !self.index.refused().eq(state.unreadable.iter().map(|(key, why)| (key, why.as_str()))) {
                let refused = self.index.refused().map(|(key, why)| (key.clone(), why.to_owned()));
                state.unreadable = Arc::new(refused.collect());
            }
            let node_uid = self.index.node_uid(&self.node);
            if state.node_uid.as_deref() != node_uid {
                state.node_uid = node_uid.map(str::to_owned);
            }
            state.restored = self.index.restored().map(|(_, from)| from);
            state.plan = Arc::clone(&self.plan);
            state.desired = Arc::clone(self.gate.desired());
            state.installed = Arc::clone(self.gate.installed());
            state.drain = self.drain.state();
            state.drain_asked_by.clone_from(self.drain.asked_by());
            state.withdraws_at = self.drain.poll_timeout();
            state.awaited = awaited;
            state.source_problems = problems;
            state.heard = Arc::clone(&self.heard);
            if *state.egress != *self.egress.choices() {
                state.egress = Arc::new(self.egress.choices().clone());
            }
            state.nat = Arc::clone(self.egress.nat_installed());
        });
    }
}

/// Whether the peer is up and has sent all that it has, in every family.
fn has_sent_all(peer: &plainroute_speaker::PeerStatus) -> bool {
    peer.state == State::Established
        && peer.families.values().all(|family| !family.negotiated || family.end_of_rib_received)
}
