//! The agent's main task.
//!
//! Owner of: the [`Index`], the [`Gate`] and everything that is derived from them. Inputs: changes from the sources,
//! what the kernel holds, what the peers taught, receipts of withdrawals, timers, signals. Outputs: the desired
//! kernel, the desired peers and routes, and what `admin` shows. Ending it (SIGTERM, SIGINT) is a restart, not a
//! drain: sessions close without NOTIFICATION and the kernel's routes stay.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use plainroute_bgp::{Families, RouterId, session::State};
use plainroute_config::{AgentConfigSpec, Input, Kind};
use plainroute_speaker::{
    Effect, OriginAttributes, Originated, PeerConfig, PeerName, Peers, Receipt, Speaker, SpeakerConfig,
    StopMode,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    admin::{self, Published},
    cli::LogFormat,
    fib::{self, Desired, FibConfig, Installed},
    gate::{Announcement, Gate},
    incarnation,
    index::{Awaited, Index},
    peering,
    plan::{Local, Plan, plan},
    source::{
        Feed, SourceName,
        cni_cache::{self, CniCache},
        directory::FileSource,
        kubernetes,
        secrets::{Passwords, SecretName, Secrets},
    },
};

/// Who originates Pod routes in the speaker.
const OWNER: &str = "pods";
/// Changes of the sources that are taken before the next plan is made: a burst costs one plan, not hundreds.
const FEEDS: usize = 1024;
/// More changed routes than this are logged as a number.
const LOGGED_ROUTES: usize = 20;

/// Runs the agent until it is told to stop.
pub fn main(paths: Vec<PathBuf>, format: LogFormat, filter: &str) -> ExitCode {
    if let Err(error) = start_logging(format, filter) {
        anstream::eprintln!("plainroute: --log {filter}: {error}");
        return ExitCode::from(2);
    }
    let inputs = match paths.iter().map(|path| Input::open(path)).collect::<Result<Vec<_>, _>>() {
        Ok(inputs) => inputs,
        Err(error) => {
            anstream::eprintln!("plainroute: standard input: {error}");
            return ExitCode::from(2);
        }
    };
    let (files, loaded) = match FileSource::open(inputs) {
        Ok(opened) => opened,
        Err(errors) => {
            anstream::eprint!("{errors}");
            return ExitCode::from(2);
        }
    };
    let config = loaded.agent_config().cloned().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        let result = runtime.block_on(run(config, files));
        // A source that hangs in a blocking call must not keep a restart waiting.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn start_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let mut filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    for directive in kubernetes::QUIET {
        filter = filter.add_directive(directive.parse()?);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// The node's name: as configured, else `$NODE_NAME`, else the hostname.
pub fn node_name(configured: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = configured {
        return Ok(name.to_owned());
    }
    match std::env::var("NODE_NAME") {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => {
            let name =
                nix::unistd::gethostname().context("the hostname cannot be read; set spec.nodeName")?;
            name.into_string().map_err(|_| anyhow::anyhow!("the hostname is not UTF-8; set spec.nodeName"))
        }
    }
}

async fn run(config: AgentConfigSpec, files: FileSource) -> anyhow::Result<()> {
    let node = node_name(config.node_name.as_deref())?;
    info!(node, version = env!("CARGO_PKG_VERSION"), "starting");
    let cancel = CancellationToken::new();
    let before = incarnation::take_over(&config.state_dir).unwrap_or_else(|error| {
        let state_dir = config.state_dir.display();
        warn!(%state_dir, %error, "the state directory cannot be used: graceful restart is not claimed");
        Default::default()
    });
    let preserved = if before.forwarding_preserved { Families::ALL } else { Families::NONE };
    let speaker =
        Speaker::start(SpeakerConfig { restarting: before.restarted, forwarding_preserved: preserved });

    let (desired, desired_in) = watch::channel(Arc::new(Desired::default()));
    let (installed_out, installed) = watch::channel(Arc::new(Installed::default()));
    let routing = &config.routing;
    let fib_config = FibConfig { protocol: routing.protocol.get(), ..FibConfig::default() };
    let mut kernel = tokio::spawn(fib::run(fib_config, desired_in, installed_out, cancel.clone()));

    let (published, published_in) =
        watch::channel(Arc::new(Published::new(node.clone(), routing.table.number())));
    let listen = config.metrics.listen;
    let serving =
        admin::serve(&config.admin_socket, listen, published_in, speaker.clone(), cancel.clone()).await?;
    let serving = tokio::spawn(serving);

    let (feeds, feeds_in) = mpsc::channel(FEEDS);
    let kubernetes = config.source.kubernetes.as_ref().map(|source| kubernetes::Settings {
        kubeconfig: source.kubeconfig.clone(),
        node: node.clone(),
        streaming_lists: true,
        pace: kubernetes::Pace::default(),
    });
    let (secrets, secrets_in) = watch::channel(BTreeSet::new());
    let (passwords_out, passwords) = watch::channel(Arc::default());
    let secret_source = Secrets::new(secrets_in, passwords_out, kubernetes.clone());
    let awaited = start_sources(files, secret_source, kubernetes, feeds, &cancel);

    let mut agent = Agent {
        node,
        config: config.clone(),
        config_changed: false,
        restart_time: Duration::ZERO,
        started: Instant::now(),
        index: Index::new(awaited),
        plan: Arc::default(),
        planned: false,
        gate: Gate::new(routing.table.number(), routing.import_table.number()),
        router_id: None,
        speaker: speaker.clone(),
        peers: BTreeMap::new(),
        receipts: FuturesUnordered::new(),
        secrets,
        passwords,
        desired,
        published,
        violations: BTreeSet::new(),
        conditions: BTreeSet::new(),
    };
    let result = agent.serve(feeds_in, installed, &mut kernel).await;
    info!("stopping: sessions close without NOTIFICATION, routes stay");
    speaker.stop(StopMode::Retain).await;
    cancel.cancel();
    let _ = serving.await;
    result
}

/// Starts every source; gives what each must deliver before anything is planned.
fn start_sources(
    files: FileSource,
    secrets: Secrets,
    kubernetes: Option<kubernetes::Settings>,
    feeds: mpsc::Sender<Feed>,
    cancel: &CancellationToken,
) -> Vec<Awaited> {
    let mut awaited: Vec<Awaited> =
        Kind::ALL.into_iter().map(|kind| Awaited::Objects(SourceName::Files, kind)).collect();
    let until_cancelled = |source: BoxFuture<'static, ()>| {
        let cancel = cancel.clone();
        tokio::spawn(async move { cancel.run_until_cancelled(source).await });
    };
    until_cancelled(files.run(feeds.clone()).boxed());
    awaited.push(Awaited::HostLinks);
    until_cancelled(CniCache::new(cni_cache::DEFAULT_DIRECTORY).run(feeds.clone()).boxed());
    until_cancelled(secrets.run().boxed());
    if let Some(settings) = kubernetes {
        let kinds = [Kind::Pod, Kind::Namespace, Kind::Node];
        awaited.extend(kinds.map(|kind| Awaited::Objects(SourceName::Kubernetes, kind)));
        until_cancelled(kubernetes::run(settings, feeds).boxed());
    }
    awaited
}

type Flushes = FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = u64> + Send>>>;

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
    plan: Arc<Plan>,
    planned: bool,
    gate: Gate,
    /// The node's first IPv4 address when it was first asked for. It is kept: a changed one would reset sessions.
    router_id: Option<RouterId>,
    speaker: Speaker,
    peers: BTreeMap<PeerName, PeerConfig>,
    receipts: Flushes,
    /// The secrets that peers need, and what is known of them.
    secrets: watch::Sender<BTreeSet<SecretName>>,
    passwords: watch::Receiver<Arc<Passwords>>,
    desired: watch::Sender<Arc<Desired>>,
    published: watch::Sender<Arc<Published>>,
    /// Refusals that were logged: each once, for as long as it lasts.
    violations: BTreeSet<String>,
    conditions: BTreeSet<String>,
}

impl Agent {
    async fn serve(
        &mut self,
        mut feeds: mpsc::Receiver<Feed>,
        mut installed: watch::Receiver<Arc<Installed>>,
        kernel: &mut tokio::task::JoinHandle<Result<(), fib::FibError>>,
    ) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut learned = self.speaker.learned();
        let mut peers = self.speaker.peers();
        loop {
            let wake = self.next_wake();
            let mut replan = false;
            tokio::select! {
                Some(feed) = feeds.recv() => {
                    replan = self.index.handle(feed);
                    while let Ok(feed) = feeds.try_recv() {
                        replan |= self.index.handle(feed);
                    }
                    if replan {
                        self.published.send_if_modified(|state| {
                            Arc::make_mut(state).config_applied = Some(jiff::Timestamp::now());
                            false
                        });
                    }
                }
                Ok(()) = installed.changed() => {
                    let installed = Arc::clone(&installed.borrow_and_update());
                    replan = self.choose_router_id(&installed) | !self.planned;
                    self.gate.handle_installed(installed);
                }
                Ok(()) = learned.changed() => self.handle_learned(&mut learned, &peers),
                Ok(()) = peers.changed() => {
                    peers.mark_unchanged();
                    self.handle_learned(&mut learned, &peers);
                }
                Ok(()) = self.passwords.changed() => self.apply_peers().await,
                Some(ticket) = self.receipts.next() => self.gate.handle_flushed(ticket),
                () = tokio::time::sleep_until(wake.into()) => {
                    replan = self.plan.next_change.is_some_and(|due| due <= jiff::Timestamp::now());
                    for prefix in self.gate.handle_timeout(Instant::now()) {
                        warn!(%prefix, "a peer did not take the withdrawal in time; its path is given up");
                    }
                    self.handle_learned(&mut learned, &peers);
                }
                ended = &mut *kernel => {
                    return ended.context("the kernel routes' task ended")?.context("kernel routes");
                }
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
            if replan {
                self.replan().await;
            }
            self.carry_out().await;
            self.publish();
        }
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
        [Some(far), due, settle, self.gate.poll_timeout()].into_iter().flatten().min().unwrap_or(far)
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
        let late = Instant::now() >= self.started + self.restart_time;
        let peers = Arc::clone(&peers.borrow());
        let done = |name: &PeerName| peers.get(name).is_some_and(has_sent_all);
        let settled = self.planned && (late || self.peers.keys().all(done));
        self.gate.handle_learned(Arc::clone(&learned.borrow_and_update()), settled);
    }

    /// Makes the plan anew, once there is something to make it from.
    async fn replan(&mut self) {
        // Without the kernel's first dump neither the router ID nor what an earlier process left is known.
        let (Some(snapshot), true) = (self.index.snapshot(), self.gate.installed().synced) else { return };
        self.config_changed = snapshot.agent_configs().any(|(config, _)| config.spec != self.config);
        let local = Local { node: self.node.clone(), router_id: self.router_id, now: jiff::Timestamp::now() };
        let next = plan(&snapshot, &local);
        if self.planned && next == *self.plan {
            return;
        }
        self.planned = true;
        self.plan = Arc::new(next);
        self.log_refusals();
        self.gate.handle_plan(Arc::clone(&self.plan));
        self.apply_peers().await;
    }

    async fn apply_peers(&mut self) {
        let names: BTreeSet<SecretName> = self.plan.peers.iter().filter_map(peering::secret_name).collect();
        self.secrets.send_if_modified(|wanted| {
            let modified = *wanted != names;
            *wanted = names;
            modified
        });
        let passwords = Arc::clone(&self.passwords.borrow_and_update());
        let wanted: BTreeMap<PeerName, PeerConfig> = self
            .plan
            .peers
            .iter()
            .filter_map(|peer| {
                Some((PeerName::from(peer.name.as_str()), peering::peer_config(peer, &passwords)?))
            })
            .collect();
        self.restart_time = wanted
            .values()
            .filter_map(|peer| peer.graceful_restart)
            .map(|restart| Duration::from_secs(u64::from(restart.restart_time)))
            .max()
            .unwrap_or_default();
        if wanted == self.peers {
            return;
        }
        match self.speaker.apply(wanted.clone()).await {
            Ok(changes) => {
                for change in changes.iter().filter(|change| change.effect != Effect::Unchanged) {
                    info!(peer = %change.peer, "peer {}", change.effect);
                }
                self.peers = wanted;
            }
            Err(error) => error!(%error, "the peers are refused; the ones in force stay"),
        }
    }

    /// Does what the gate asks for: first what is withdrawn or advertised, then what the kernel shall hold.
    async fn carry_out(&mut self) {
        if let Some(announcement) = self.gate.poll_announcement(Instant::now()) {
            self.announce(announcement).await;
        }
        if let Some(desired) = self.gate.poll_desired() {
            self.desired.send_replace(desired);
        }
    }

    async fn announce(&mut self, announcement: Announcement) {
        let Announcement { ticket, routes } = announcement;
        self.log_announcement(&routes);
        let mut shared: BTreeMap<&crate::plan::RouteAttributes, Arc<OriginAttributes>> = BTreeMap::new();
        let originated = routes.iter().map(|((peer, prefix), attributes)| Originated {
            peer: peer.clone(),
            prefix: *prefix,
            attributes: Arc::clone(shared.entry(attributes).or_insert_with(|| Arc::new(attributes.into()))),
        });
        let receipt: Receipt = self.speaker.originate(OWNER, originated.collect()).await;
        // End-of-RIB is released once: what stands in the first announcement is all that there is.
        self.speaker.initial_sync_done();
        self.receipts.push(Box::pin(async move {
            receipt.flushed().await;
            ticket
        }));
        self.published.send_if_modified(|state| {
            Arc::make_mut(state).advertised = Some(Arc::new(routes));
            false
        });
    }

    fn log_announcement(&self, routes: &crate::gate::Advertised) {
        let before = self.published.borrow().advertised.clone().unwrap_or_default();
        let added: Vec<_> = routes.keys().filter(|key| !before.contains_key(key)).collect();
        let gone: Vec<_> = before.keys().filter(|key| !routes.contains_key(key)).collect();
        if added.len() + gone.len() > LOGGED_ROUTES {
            info!(advertised = added.len(), withdrawn = gone.len(), "routes changed");
            return;
        }
        for (peer, prefix) in added {
            info!(%peer, %prefix, "advertised");
        }
        for (peer, prefix) in gone {
            info!(%peer, %prefix, "withdrawn");
        }
    }

    /// Logs each rule that is broken once, when it begins, and once when it ends.
    fn log_refusals(&mut self) {
        let violation = |(pod, address): (&crate::plan::PodPlan, &crate::plan::AddressPlan)| {
            let reason = address.refused.as_ref().filter(|reason| reason.is_violation())?;
            Some(format!("{}/{} {}: {reason}", pod.namespace, pod.name, address.address))
        };
        let violations: BTreeSet<String> = self.plan.addresses().filter_map(violation).collect();
        for begun in violations.difference(&self.violations) {
            warn!("not advertised: {begun}");
        }
        for ended in self.violations.difference(&violations) {
            info!("no longer refused: {ended}");
        }
        self.violations = violations;
        let conditions: BTreeSet<String> = self.plan.conditions.iter().map(ToString::to_string).collect();
        for begun in conditions.difference(&self.conditions) {
            debug!("condition: {begun}");
        }
        self.conditions = conditions;
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
        if self.config_changed {
            let message = "the AgentConfig was changed; restart the agent to apply it".to_owned();
            problems.insert("AgentConfig".to_owned(), message);
        }
        self.published.send_modify(|state| {
            let state = Arc::make_mut(state);
            state.plan = Arc::clone(&self.plan);
            state.desired = Arc::clone(self.gate.desired());
            state.installed = Arc::clone(self.gate.installed());
            state.awaited = awaited;
            state.source_problems = problems;
        });
    }
}

/// Whether the peer is up and has sent all that it has, in every family.
fn has_sent_all(peer: &plainroute_speaker::PeerStatus) -> bool {
    peer.state == State::Established
        && peer.families.values().all(|family| !family.negotiated || family.end_of_rib_received)
}
