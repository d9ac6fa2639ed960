//! The owner task: when to read the table, when to change it, and what to say about it.
//!
//! Owns both netlink sockets and the known state of the table. What it changed itself it knows from the kernel's
//! acknowledgement, so that a new Pod costs one short transaction. After anybody else's change it reads again.
mod making;

use std::{io, sync::Arc, time::Duration};

use nix::errno::Errno;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    NatConfig, NatDesired, NatError, NatInstalled,
    counting::Totals,
    failure::Failure,
    netlink::{Monitor, Notice, Requests},
    presence::nf_tables_in_memory,
    ruleset::Ruleset,
    settling::{Settling, conntrack_switch},
};

/// Others' changes come in bursts; this much later one read answers for them all.
const GATHER: Duration = Duration::from_millis(1);
/// Reading on others' changes takes at most a fifth of one core: the rest after a read is this many times its length.
const READ_REST: u32 = 4;
/// How long what no rule uses any more is kept for packets that are in the middle of the old rules.
const LINGER: Duration = Duration::from_millis(10);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// So often refused, the table is made anew instead of changed; still in one transaction.
const PATIENCE: u32 = 2;

/// Keeps the table as `desired` until `cancel`, publishing to `installed`.
///
/// Generation 0 means that nothing is known yet, and nothing is touched; from then on a desired value that is empty means
/// that there shall be no table. Cancelling it, in whatever way, leaves the table as it is; the next run adopts it.
pub async fn run(
    config: NatConfig,
    desired: watch::Receiver<Arc<NatDesired>>,
    installed: watch::Sender<Arc<NatInstalled>>,
    cancel: CancellationToken,
) -> Result<(), NatError> {
    let mut task = Task::new(config, desired, installed);
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = task.serve() => Err(ended),
    }
}

struct Connection {
    requests: Requests,
    monitor: Monitor,
}

struct Task {
    config: NatConfig,
    desired: watch::Receiver<Arc<NatDesired>>,
    installed: watch::Sender<Arc<NatInstalled>>,
    connection: Option<Connection>,
    /// The table as known; `None` when there is none.
    table: Option<Ruleset>,
    /// What the table was made from last.
    made: Option<Arc<NatDesired>>,
    /// Whether nothing of that is left to do.
    complete: bool,
    /// Whether the table is to be read, and when it may be at the earliest.
    stale: Option<Staleness>,
    not_before: Instant,
    audit_at: Instant,
    count_at: Instant,
    /// When what lingers may go.
    sweep_at: Option<Instant>,
    /// After failures.
    retry_at: Option<Instant>,
    retry_after: Duration,
    refusals: u32,
    totals: Totals,
    settling: Settling,
    /// Why the table is not as desired.
    error: Option<String>,
    state: NatInstalled,
}

/// How far a pass came.
enum Pass {
    Done,
    /// Nothing was tried.
    TooEarly,
}

/// Why the table is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Staleness {
    Audit,
    /// It may not be as it is known to be.
    Unknown,
    /// Somebody else changed it.
    Foreign,
}

impl Task {
    fn new(
        config: NatConfig,
        desired: watch::Receiver<Arc<NatDesired>>,
        installed: watch::Sender<Arc<NatInstalled>>,
    ) -> Task {
        let now = Instant::now();
        Task {
            audit_at: now + config.audit_interval,
            count_at: now + config.counters_interval,
            config,
            desired,
            installed,
            connection: None,
            table: None,
            made: None,
            complete: false,
            stale: Some(Staleness::Unknown),
            not_before: now,
            sweep_at: None,
            retry_at: None,
            retry_after: RETRY_FIRST,
            refusals: 0,
            totals: Totals::default(),
            settling: Settling::default(),
            error: None,
            state: NatInstalled::default(),
        }
    }

    /// Ends only for want of rights.
    async fn serve(&mut self) -> NatError {
        let mut wanted = self.desired.borrow_and_update().clone();
        let mut more = true;
        loop {
            if wanted.generation > 0 {
                match self.pass(&wanted).await {
                    Ok(Pass::Done) => self.succeed(),
                    Ok(Pass::TooEarly) => {}
                    Err(Failure::Refused(refusal, None)) if refusal.errno == Errno::EPERM => {
                        return NatError::Permission;
                    }
                    Err(failure) => self.fail(failure),
                }
                self.settle(&wanted).await;
                self.publish();
            }
            let wake = self.wake_at();
            tokio::select! {
                changed = self.desired.changed(), if more => {
                    // Without a sender what was wanted last stays wanted.
                    more = changed.is_ok();
                    wanted = self.desired.borrow_and_update().clone();
                    self.retry_at = None;
                }
                notice = changed(&mut self.connection) => match notice {
                    Ok(Notice::Foreign) => self.note(Staleness::Foreign),
                    Ok(Notice::Lost) => self.note(Staleness::Unknown),
                    Err(error) => self.fail(Failure::Netlink(error)),
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    fn note(&mut self, staleness: Staleness) {
        self.stale = self.stale.max(Some(staleness));
        self.not_before = self.not_before.max(Instant::now() + GATHER);
    }

    fn wake_at(&self) -> Instant {
        let stale = self.stale.map(|_| self.not_before);
        let timers = [stale, self.sweep_at, self.settling.at()].into_iter().flatten();
        // After a failure nothing is tried before its time.
        let due = self.retry_at.unwrap_or_else(|| timers.fold(self.count_at, Instant::min));
        due.min(self.audit_at)
    }

    /// Brings the table to what is wanted.
    async fn pass(&mut self, wanted: &Arc<NatDesired>) -> Result<Pass, Failure> {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return Ok(Pass::TooEarly);
        }
        if self.audit_at <= now {
            self.stale = self.stale.max(Some(Staleness::Audit));
            self.audit_at = now + self.config.audit_interval;
            self.read_switches();
        }
        if wanted.is_empty() && self.connection.is_none() && !self.may_exist() {
            self.conclude(wanted);
            return Ok(Pass::Done);
        }
        if self.connection.is_none() {
            let requests = Requests::open()?;
            let monitor = Monitor::open(requests.port(), self.config.monitor_buffer)?;
            self.connection = Some(Connection { requests, monitor });
            self.stale = self.stale.max(Some(Staleness::Unknown));
        }
        if self.stale.is_some() && self.not_before <= Instant::now() {
            self.read().await?;
        }
        if self.stale > Some(Staleness::Audit) {
            return Ok(Pass::TooEarly);
        }
        if self.count_at <= Instant::now() {
            self.count().await?;
        }
        match wanted.is_empty() {
            true => self.remove(wanted).await?,
            false => self.make(wanted).await?,
        }
        Ok(Pass::Done)
    }

    /// Whether there may be a table of ours although we never made one.
    fn may_exist(&self) -> bool {
        self.table.is_some()
            || (self.stale.is_some_and(|why| why > Staleness::Audit) && nf_tables_in_memory())
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let began = Instant::now();
        let read = connection.requests.read().await?;
        let ended = Instant::now();
        self.not_before = ended + (ended - began) * READ_REST;
        let why = self.stale.take();
        let (table, readings) = read.map(|read| (read.table, read.counters)).unzip();
        match readings {
            Some(readings) => self.totals.add(readings),
            None => self.totals.forget_all(),
        }
        let same = match (&self.table, &table) {
            (Some(known), Some(read)) => known.is_like(read),
            (known, read) => known.is_none() && read.is_none(),
        };
        if self.made.is_some() && (why == Some(Staleness::Foreign) || !same) {
            self.state.repairs += 1;
            tracing::warn!("somebody changed table inet plainroute; it is put right");
        }
        if let Some(table) = &table {
            self.settling.found(table);
        }
        // Rules are not read: they are known as long as nothing else has changed.
        if !same || why != Some(Staleness::Audit) {
            self.table = table;
            self.complete = false;
        }
        Ok(())
    }

    async fn count(&mut self) -> Result<(), Failure> {
        self.count_at = Instant::now() + self.config.counters_interval;
        if let (Some(connection), Some(_)) = (&mut self.connection, &self.table) {
            self.totals.add(connection.requests.counters().await?);
        }
        Ok(())
    }

    /// Flows that go as it was desired before are forgotten, once the table is as it is desired now.
    async fn settle(&mut self, wanted: &Arc<NatDesired>) {
        if self.state.generation != wanted.generation {
            return;
        }
        if let Some(removed) = self.settling.settle(wanted).await {
            self.state.flows_removed += removed;
        }
        if self.settling.at().is_none() {
            self.state.settled = wanted.generation;
        }
    }

    fn succeed(&mut self) {
        if self.error.take().is_some() {
            tracing::info!("table inet plainroute is as it should be again");
        }
        self.retry_at = None;
        self.retry_after = RETRY_FIRST;
        self.refusals = 0;
    }

    fn fail(&mut self, failure: Failure) {
        let text = failure.to_string();
        if self.error.as_ref() != Some(&text) {
            tracing::error!("egress: {text}");
        }
        self.error = Some(text);
        if !matches!(failure, Failure::Undesirable(_)) {
            // A fresh socket: answers to what failed may still come in the old one.
            self.connection = None;
            self.stale = self.stale.max(Some(Staleness::Unknown));
            self.refusals += u32::from(matches!(failure, Failure::Refused(..)));
        }
        self.retry_at = Some(Instant::now() + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(RETRY_LAST);
    }

    fn publish(&mut self) {
        self.state.counters = self.totals.counters();
        self.state.stray_packets = self.totals.stray_packets();
        self.state.unsolicited_packets = self.totals.unsolicited_packets();
        let error = self.error.clone().or_else(|| self.settling.error.clone());
        self.state.error = error;
        if **self.installed.borrow() != self.state {
            self.installed.send_replace(Arc::new(self.state.clone()));
        }
    }

    /// What the flows' survival hangs on, and is not ours to set.
    fn read_switches(&mut self) {
        let (loose, liberal) = ("nf_conntrack_tcp_loose", "nf_conntrack_tcp_be_liberal");
        let was = self.state.tcp_loose;
        self.state.tcp_loose = conntrack_switch(loose);
        self.state.tcp_be_liberal = conntrack_switch(liberal);
        if self.state.tcp_loose == Some(false) && was != Some(false) {
            tracing::warn!("egress: {loose} is 0: no TCP connection survives the loss of its gateway");
        }
    }
}

/// Waits for ever where there is nothing to listen to.
async fn changed(connection: &mut Option<Connection>) -> io::Result<Notice> {
    match connection {
        Some(connection) => connection.monitor.changed().await,
        None => std::future::pending().await,
    }
}
