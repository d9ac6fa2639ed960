//! The owner task: when to read the kernel, when to change it, and what to say about it.
//!
//! Owns both netlink sockets and the known state of the kernel. What it changed itself it knows from the kernel's
//! acknowledgement, so a new Pod costs one request and no dump. Whatever else happens is read again.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use nix::errno::Errno;
use plainroute_bgp::Prefix;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Counters, Desired, Installed, RouteKey, Rule, TABLE_MAIN,
    diff::diff,
    journal,
    kernel::{Change, Kernel, KernelRoute, Mark, RouteKind},
    netlink::{Monitor, Notice, Refusal, Requests},
    status,
};

/// Events come in bursts; this much later one dump answers for them all.
const GATHER: Duration = Duration::from_millis(1);
/// The kernel tells of a link or an address first and acts on it then: it drops IPv4 routes without a word, and a
/// link that is up may not take IPv6 routes yet. So after these it is read, and what it refused is tried, again.
const AFTERMATH: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(25), Duration::from_millis(250)];
/// Reading on events takes at most a fifth of one core: the rest after a read is this many times its length.
const READ_REST: u32 = 4;
/// How often known and real state may differ in one pass before it counts as a refusal.
const ROUNDS: usize = 3;
/// After a dump that was interrupted too often.
const READ_AGAIN: Duration = Duration::from_millis(20);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(30);
const REOPEN: Duration = Duration::from_secs(1);

/// How routes of ours are marked and how patient the task is.
#[derive(Clone, Debug)]
pub struct FibConfig {
    /// The route protocol number of ours.
    pub protocol: u8,
    /// The metric of ours. It should differ from everybody else's; see the module's docs.
    pub metric: u32,
    /// How often the kernel is compared with what is desired although nothing was reported.
    pub audit_interval: Duration,
    /// Room for events of the kernel, in bytes. A smaller one only means more reading when there is a storm.
    pub monitor_buffer: usize,
}

impl Default for FibConfig {
    /// Protocol 188, metric 88: behind a static route (0), FRR's (20) and BIRD's (32), before DHCP's (100 and more).
    fn default() -> FibConfig {
        FibConfig {
            protocol: 188,
            metric: 88,
            audit_interval: Duration::from_secs(30),
            monitor_buffer: 16 << 20,
        }
    }
}

/// Why the task ended; single routes that fail are in [`Installed`] instead.
#[derive(Debug, thiserror::Error)]
pub enum FibError {
    /// The kernel refuses us.
    #[error("the kernel does not let us change routes: the agent needs CAP_NET_ADMIN")]
    Permission,
    /// A netlink socket cannot be opened.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
}

/// Keeps the kernel as `desired` until `cancel`, publishing to `installed`.
///
/// It ends early only for want of rights or sockets. Cancelling it, in whatever way, leaves the kernel's routes as
/// they are; the next run adopts them.
pub async fn run(
    config: FibConfig,
    mut desired: watch::Receiver<Arc<Desired>>,
    installed: watch::Sender<Arc<Installed>>,
    cancel: CancellationToken,
) -> Result<(), FibError> {
    let serve = async {
        loop {
            let ended = match Task::open(&config).await {
                Ok(mut task) => task.serve(&mut desired, &installed).await,
                Err(ended) => ended,
            };
            match ended {
                Ended::Fatal(error) => return Err(error),
                Ended::Netlink(error) => tracing::warn!("netlink failed, opening it again: {error}"),
            }
            sleep(REOPEN).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = serve => ended,
    }
}

/// Why the sockets in use are given up.
enum Ended {
    Fatal(FibError),
    Netlink(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Netlink(error)
    }
}

struct Task {
    mark: Mark,
    audit_interval: Duration,
    requests: Requests,
    monitor: Monitor,
    kernel: Kernel,
    /// The tables whose routes are known whole.
    tables: BTreeSet<u32>,
    /// Whether the kernel has been read at least once.
    synced: bool,
    /// Whether links are to be read too; routes always are.
    links_stale: bool,
    /// When the kernel is to be read, and when it may be at the earliest.
    read_at: Option<Instant>,
    not_before: Instant,
    aftermath: Vec<Instant>,
    audit_at: Instant,
    /// The rules of ours in the kernel, and those that it refused, not tried again before the next read.
    rules: BTreeSet<Rule>,
    refused_rules: BTreeMap<Rule, String>,
    /// What the kernel refused and why; not tried again until a link changes or the retry is due.
    refused: BTreeMap<RouteKey, (Change, String)>,
    retry_at: Option<Instant>,
    retry_after: Duration,
    counters: Counters,
    /// What was wanted and published last, to tell a transition from a state.
    previous: (Arc<Desired>, Arc<Installed>),
}

impl Task {
    async fn open(config: &FibConfig) -> Result<Task, Ended> {
        let fatal = |error| Ended::Fatal(FibError::Open(error));
        let mut requests = Requests::open().map_err(fatal)?;
        let monitor = Monitor::open(requests.port(), config.monitor_buffer).map_err(fatal)?;
        let mark = Mark { protocol: config.protocol, metric: config.metric };
        if requests.change(&[probe(mark)]).await?.iter().any(forbidden) {
            return Err(Ended::Fatal(FibError::Permission));
        }
        let now = Instant::now();
        Ok(Task {
            mark,
            audit_interval: config.audit_interval,
            requests,
            monitor,
            kernel: Kernel::default(),
            tables: BTreeSet::new(),
            synced: false,
            links_stale: true,
            read_at: Some(now),
            not_before: now,
            aftermath: Vec::new(),
            audit_at: now + config.audit_interval,
            rules: BTreeSet::new(),
            refused_rules: BTreeMap::new(),
            refused: BTreeMap::new(),
            retry_at: None,
            retry_after: RETRY_FIRST,
            counters: Counters::default(),
            previous: Default::default(),
        })
    }

    async fn serve(
        &mut self,
        desired: &mut watch::Receiver<Arc<Desired>>,
        installed: &watch::Sender<Arc<Installed>>,
    ) -> Ended {
        let mut wanted = desired.borrow_and_update().clone();
        let mut more = true;
        loop {
            if let Err(ended) = self.pass(&wanted).await {
                return ended;
            }
            if self.synced {
                self.publish(&wanted, installed);
            }
            let wake = self.wake_at();
            tokio::select! {
                changed = desired.changed(), if more => {
                    // Without a sender what was wanted last stays wanted.
                    more = changed.is_ok();
                    wanted = desired.borrow_and_update().clone();
                }
                notice = self.monitor.next() => match notice {
                    Ok(notice) => self.note(notice),
                    Err(error) => return Ended::Netlink(error),
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let timers = [self.read_at, self.retry_at, self.aftermath.first().copied()];
        timers.into_iter().flatten().fold(self.audit_at, Instant::min)
    }

    fn note(&mut self, notice: Notice) {
        let now = Instant::now();
        self.links_stale |= notice.links || notice.overrun;
        if notice.overrun {
            self.counters.overruns += 1;
            tracing::warn!("the kernel dropped events, reading everything again");
        }
        if notice.links || notice.overrun {
            self.aftermath = AFTERMATH.iter().map(|after| now + *after).collect();
        }
        self.read_soon(now + GATHER);
    }

    fn read_soon(&mut self, at: Instant) {
        let at = at.max(self.not_before);
        self.read_at = Some(self.read_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Turns timers that have run out into what to read.
    fn run_timers(&mut self) {
        let now = Instant::now();
        if self.audit_at <= now || self.retry_at.is_some_and(|at| at <= now) {
            self.links_stale = true;
            self.read_at = Some(now);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.refused.clear();
        }
        if self.aftermath.first().is_some_and(|at| *at <= now) {
            self.aftermath.remove(0);
            self.refused.clear();
            self.links_stale = true;
            self.read_soon(now);
        }
    }

    /// Brings the kernel to what is wanted, as far as it goes.
    async fn pass(&mut self, desired: &Arc<Desired>) -> Result<(), Ended> {
        self.run_timers();
        let tables: BTreeSet<u32> = desired.routes.keys().map(|key| key.table).chain([TABLE_MAIN]).collect();
        if !tables.is_subset(&self.tables) {
            self.read_at = Some(Instant::now());
        }
        for round in 1..=ROUNDS {
            if self.read_at.is_some_and(|at| at <= Instant::now()) {
                match self.read(&tables).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        tracing::debug!("{error}");
                        self.read_at = Some(Instant::now() + READ_AGAIN);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if !self.synced {
                return Ok(());
            }
            let mut changes = diff(desired, &self.kernel, self.mark);
            changes.retain(|change| {
                self.refused.get(&change.key()).is_none_or(|(refused, _)| refused != change)
            });
            if changes.is_empty() {
                break;
            }
            let outcomes = self.requests.change(&changes).await?;
            if outcomes.iter().any(forbidden) {
                return Err(Ended::Fatal(FibError::Permission));
            }
            let surprised = self.settle(desired, changes, outcomes, round == ROUNDS);
            if !surprised {
                break;
            }
            self.links_stale = true;
            self.read_at = Some(Instant::now());
        }
        self.pass_rules(desired).await?;
        self.refused.retain(|key, _| desired.routes.contains_key(key));
        if self.refused.is_empty() {
            self.retry_at = None;
            self.retry_after = RETRY_FIRST;
        } else if self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.retry_after);
            self.retry_after = (self.retry_after * 2).min(RETRY_LAST);
        }
        Ok(())
    }

    /// The same for the policy rules; they come after the routes that they lead to.
    async fn pass_rules(&mut self, desired: &Desired) -> Result<(), Ended> {
        let gone =
            self.rules.difference(&desired.rules).filter(|_| desired.complete).map(|rule| (false, *rule));
        let missing = desired.rules.difference(&self.rules);
        let missing = missing.filter(|rule| !self.refused_rules.contains_key(rule)).map(|rule| (true, *rule));
        // First those that are new: a packet must always meet one of the two.
        let changes: Vec<(bool, Rule)> = missing.chain(gone).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let outcomes = self.requests.change_rules(&changes, self.mark.protocol).await?;
        for ((add, rule), outcome) in changes.into_iter().zip(outcomes) {
            match (add, outcome) {
                (true, Ok(())) => _ = self.rules.insert(rule),
                (true, Err(refusal)) if refusal.errno == Errno::EEXIST => _ = self.rules.insert(rule),
                (true, Err(refusal)) => _ = self.refused_rules.insert(rule, refusal.to_string()),
                // Gone is gone.
                (false, _) => _ = self.rules.remove(&rule),
            }
        }
        Ok(())
    }

    /// Reads what is stale.
    async fn read(&mut self, tables: &BTreeSet<u32>) -> io::Result<()> {
        let began = Instant::now();
        if self.links_stale {
            let links = self.requests.links().await?;
            if links != *self.kernel.links() {
                // A link that appeared or came up may make good what was refused.
                self.refused.clear();
                self.kernel.set_links(links);
            }
            self.links_stale = false;
        }
        let listed: Vec<u32> = tables.iter().copied().collect();
        let routes = self.requests.routes(&listed, self.mark.protocol).await?;
        self.kernel.set_routes(routes);
        self.rules = self.requests.rules(self.mark.protocol).await?.into_iter().collect();
        self.refused_rules.clear();
        self.tables.clone_from(tables);
        self.synced = true;
        self.read_at = None;
        let ended = Instant::now();
        self.not_before = ended + (ended - began) * READ_REST;
        self.audit_at = ended + self.audit_interval;
        tracing::trace!("read {} prefixes in {:?}", self.kernel.routes.len(), ended - began);
        Ok(())
    }

    /// Takes the kernel's answers into the known state. Whether they show that the known state was wrong.
    fn settle(
        &mut self,
        desired: &Desired,
        changes: Vec<Change>,
        outcomes: Vec<Result<(), Refusal>>,
        last: bool,
    ) -> bool {
        let mut surprised = false;
        let mut accepted = journal::Accepted::default();
        for (change, outcome) in changes.into_iter().zip(outcomes) {
            let key = change.key();
            match outcome {
                Ok(()) => {
                    if accepted.take(&change, desired, &self.previous, &self.kernel) {
                        self.counters.repairs += 1;
                    }
                    // Only the kernel knows what it chose where it was free to choose.
                    if let Change::Add(route) | Change::Replace(_, route) = &change {
                        surprised |= route.hops.iter().any(|hop| hop.interface.is_none());
                    }
                    self.kernel.apply(change);
                    self.refused.remove(&key);
                }
                // Somebody was faster. Gone is gone; for the rest look again before judging.
                Err(refusal) if !last && outdated(&change, refusal.errno) => surprised = true,
                Err(refusal) => {
                    self.refused.insert(key, (change, refusal.to_string()));
                }
            }
        }
        accepted.tell();
        surprised
    }

    fn publish(&mut self, desired: &Arc<Desired>, installed: &watch::Sender<Arc<Installed>>) {
        let refused = self.refused.iter().map(|(key, (_, reason))| (*key, reason.clone())).collect();
        let counters = self.counters;
        let current = Installed {
            counters,
            rules: self.rules.clone(),
            refused_rules: self.refused_rules.clone(),
            ..status::evaluate(desired, &self.kernel, self.mark, &refused)
        };
        if current != *self.previous.1 {
            journal::transitions(desired, &self.previous.1, &current);
            self.previous.1 = Arc::new(current);
            installed.send_replace(Arc::clone(&self.previous.1));
        }
        self.previous.0 = desired.clone();
    }
}

/// Whether a refusal means that the kernel is not as it was known: then it is read and decided anew.
fn outdated(change: &Change, errno: Errno) -> bool {
    match change {
        Change::Add(_) => matches!(errno, Errno::EEXIST | Errno::ENETDOWN | Errno::ENODEV),
        Change::Replace(..) => {
            matches!(errno, Errno::ESRCH | Errno::ENOENT | Errno::ENETDOWN | Errno::ENODEV)
        }
        Change::Remove(_) => matches!(errno, Errno::ESRCH | Errno::ENOENT | Errno::ENODEV),
    }
}

/// Only EPERM: EACCES is what IPv6 routes get on an interface that has IPv6 disabled.
fn forbidden(outcome: &Result<(), Refusal>) -> bool {
    outcome.as_ref().is_err_and(|refusal| refusal.errno == Errno::EPERM)
}

/// Asks for the removal of a route of ours that is never there, so that a lack of rights shows at once and not with
/// the first Pod. 192.0.2.1 is for documentation (RFC 5737).
fn probe(mark: Mark) -> Change {
    Change::Remove(KernelRoute {
        key: RouteKey::main(Prefix::host([192, 0, 2, 1].into())),
        tos: 0,
        metric: mark.metric,
        protocol: mark.protocol,
        kind: RouteKind::Blackhole,
        scope: 0,
        hops: Vec::new(),
        preferred_source: None,
        other_attributes: false,
    })
}
