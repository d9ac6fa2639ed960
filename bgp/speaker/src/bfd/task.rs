//! The driver's task.
//!
//! Owns: the sockets, which session a datagram is for, the sessions and their timers.
//! Inputs: commands (bounded channel), datagrams, the clock. Output: the report (`watch`), at each change that a
//! client acts on; counters alone make no new report unless one is asked for.
//! Cancelling: the loop awaits in one place, [`Task::wait`]. A task that is dropped falls silent, as a crash would.
//!
//! Whatever ends the wait, the sockets are read before any timer counts: what arrived in time is in time, however
//! long we were held up. It does not log, since a log that is not read would stop it.
use std::{
    collections::{BTreeMap, btree_map::Entry},
    future::{pending, poll_fn},
    hash::{BuildHasher, RandomState},
    io,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use plainroute_bfd::{Demux, Discriminator, Hops, Timing};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Report, SessionReport, Target,
    running::Running,
    socket::{Receiver, Sender},
    target::{Finder, Route},
};

/// How often a target without a path, or whose session is not up, is looked for anew.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// So many datagrams are read in one go, so that a flood on one socket does not keep timers waiting for ever.
const READ_AT_ONCE: usize = 256;

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Apply { wanted: BTreeMap<Target, Timing>, answer: oneshot::Sender<Arc<Report>> },
    Report { answer: oneshot::Sender<Arc<Report>> },
    Stop { answer: oneshot::Sender<()> },
}

/// What is wanted of a target, and its session, or why it has none.
#[derive(Debug)]
struct Slot {
    timing: Timing,
    session: Result<Discriminator, String>,
}

pub(super) struct Task {
    demux: Demux,
    receivers: BTreeMap<(Hops, bool), Receiver>,
    slots: BTreeMap<Target, Slot>,
    running: BTreeMap<Discriminator, Running>,
    look_at: Option<Instant>,
    reports: watch::Sender<Arc<Report>>,
    stopping: Option<oneshot::Sender<()>>,
}

impl Task {
    pub(super) fn new(reports: watch::Sender<Arc<Report>>) -> Task {
        Task {
            demux: Demux::new(random()),
            receivers: BTreeMap::new(),
            slots: BTreeMap::new(),
            running: BTreeMap::new(),
            look_at: None,
            reports,
            stopping: None,
        }
    }

    /// Runs until it is stopped and every peer has noticed, or no handle is left.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let command = match self.wait(&mut commands).await {
                Wake::Command(command) => Some(command),
                Wake::Due => None,
                Wake::Abandoned => return,
            };
            self.receive();
            let mut changed = self.look(Instant::now());
            let mut answer = None;
            match command {
                Some(Command::Apply { wanted, answer: to }) => {
                    self.apply(wanted);
                    changed = true;
                    answer = Some(to);
                }
                Some(Command::Report { answer: to }) => {
                    changed = true;
                    answer = Some(to);
                }
                Some(Command::Stop { answer }) => {
                    self.apply(BTreeMap::new());
                    self.stopping = Some(answer);
                }
                None => {}
            }
            changed |= self.serve(Instant::now());
            if changed {
                self.publish();
            }
            if let Some(answer) = answer {
                // Whoever asked may be gone, here and below.
                let _ = answer.send(Arc::clone(&self.reports.borrow()));
            }
            if self.running.is_empty()
                && let Some(stopped) = self.stopping.take()
            {
                let _ = stopped.send(());
                return;
            }
        }
    }

    async fn wait(&self, commands: &mut mpsc::Receiver<Command>) -> Wake {
        let sessions = self.running.values().filter_map(Running::poll_timeout).min();
        let due = [sessions, self.look_at].into_iter().flatten().min();
        tokio::select! {
            command = commands.recv() => command.map_or(Wake::Abandoned, Wake::Command),
            () = ready(&self.receivers) => Wake::Due,
            () = sleep_until(due) => Wake::Due,
        }
    }

    /// Takes in all that has arrived.
    fn receive(&mut self) {
        let Task { receivers, demux, running, .. } = self;
        for receiver in receivers.values_mut() {
            let now = Instant::now();
            for _ in 0..READ_AT_ONCE {
                let more = receiver.read(now, |arrived, datagram| {
                    // What belongs to no session, the demultiplexer counts.
                    if let Ok((discriminator, packet)) = demux.handle_datagram(datagram)
                        && let Some(session) = running.get_mut(&discriminator)
                    {
                        session.handle_packet(arrived, &packet);
                    }
                });
                if !more {
                    break;
                }
            }
        }
    }

    /// Makes `wanted` the set of sessions; what is the same in both is not touched.
    fn apply(&mut self, wanted: BTreeMap<Target, Timing>) {
        let now = Instant::now();
        let gone: Vec<Target> =
            self.slots.keys().filter(|target| !wanted.contains_key(*target)).cloned().collect();
        for target in gone {
            if let Some(Slot { session: Ok(discriminator), .. }) = self.slots.remove(&target)
                && let Some(running) = self.running.get_mut(&discriminator)
            {
                running.leave(now);
            }
        }
        let finder = Finder::new();
        for (target, timing) in wanted {
            match self.slots.get_mut(&target) {
                Some(slot) => {
                    slot.timing = timing;
                    if let Ok(discriminator) = slot.session
                        && let Some(running) = self.running.get_mut(&discriminator)
                    {
                        running.set_timing(timing);
                    }
                }
                None => {
                    let session = self.begin(now, &finder, &target, timing);
                    self.slots.insert(target, Slot { timing, session });
                }
            }
        }
        self.schedule_look(now);
    }

    /// A session with a target: one that was about to end, or a new one.
    fn begin(
        &mut self,
        now: Instant,
        finder: &Finder,
        target: &Target,
        timing: Timing,
    ) -> Result<Discriminator, String> {
        let route = finder.find(target)?;
        let former = self.running.iter_mut().find(|(_, running)| running.target == *target);
        if let Some((discriminator, running)) = former.filter(|(_, running)| running.route == route) {
            running.stay();
            running.set_timing(timing);
            return Ok(*discriminator);
        }
        self.listen(&route).map_err(|(port, error)| {
            let taken = error.kind() == io::ErrorKind::AddrInUse;
            let hint = if taken { " (another BFD daemon on this node?)" } else { "" };
            format!("cannot receive on UDP port {port}: {error}{hint}")
        })?;
        let sender =
            Sender::bind(&route, random()).map_err(|error| format!("no socket to {target}: {error}"))?;
        let discriminator = self.demux.insert(route.path).map_err(|taken| taken.to_string())?;
        let running = Running::new(now, target.clone(), route, sender, discriminator, timing, random());
        self.running.insert(discriminator, running);
        Ok(discriminator)
    }

    /// Opens what the path's packets come in by.
    fn listen(&mut self, route: &Route) -> Result<(), (u16, io::Error)> {
        let (hops, v4) = (route.path.hops(), route.path.remote().is_ipv4());
        if let Entry::Vacant(place) = self.receivers.entry((hops, v4)) {
            place.insert(Receiver::bind(hops, v4).map_err(|error| (hops.port(), error))?);
        }
        Ok(())
    }

    /// Looks again for what has no path, or whose path may be another by now: an interface that was made anew has
    /// another index. A session that is up has its path. True where something was found.
    fn look(&mut self, now: Instant) -> bool {
        if self.look_at.take_if(|at| *at <= now).is_none() {
            return false;
        }
        let finder = Finder::new();
        let mut changed = false;
        let unsettled: Vec<Target> = self.unsettled().cloned().collect();
        for target in unsettled {
            let Some(slot) = self.slots.get(&target) else { continue };
            let (timing, before) = (slot.timing, slot.session.clone());
            if let Ok(discriminator) = before
                && let Some(running) = self.running.get(&discriminator)
            {
                match finder.find(&target) {
                    Ok(route) if route != running.route => self.forget(discriminator),
                    // Without its interface it is down and stays so; the peer is told once it is back.
                    Ok(_) | Err(_) => continue,
                }
            }
            let session = self.begin(now, &finder, &target, timing);
            changed |= session != before;
            self.slots.insert(target, Slot { timing, session });
        }
        self.schedule_look(now);
        changed
    }

    /// The targets whose session is not up.
    fn unsettled(&self) -> impl Iterator<Item = &Target> {
        let is_up = |slot: &Slot| {
            let running =
                slot.session.as_ref().ok().and_then(|discriminator| self.running.get(discriminator));
            running.is_some_and(|running| running.session().state() == plainroute_bfd::State::Up)
        };
        self.slots.iter().filter(move |(_, slot)| !is_up(slot)).map(|(target, _)| target)
    }

    fn schedule_look(&mut self, now: Instant) {
        let due = self.unsettled().next().is_some();
        self.look_at = due.then(|| self.look_at.unwrap_or(now + LOOK_AGAIN));
    }

    fn forget(&mut self, discriminator: Discriminator) {
        self.demux.remove(discriminator);
        self.running.remove(&discriminator);
    }

    /// Does what is due in every session; true where a client should know.
    fn serve(&mut self, now: Instant) -> bool {
        let (mut changed, mut left) = (false, None);
        for (discriminator, running) in &mut self.running {
            changed |= running.serve(now) && !running.is_leaving();
            if running.has_left(now) {
                left = Some(*discriminator);
            }
        }
        if let Some(discriminator) = left {
            self.forget(discriminator);
        }
        if changed {
            self.schedule_look(now);
        }
        changed
    }

    fn publish(&self) {
        let report = |slot: &Slot| match &slot.session {
            Ok(discriminator) => self.running.get(discriminator).map(Running::report),
            Err(problem) => Some(SessionReport { problem: Some(problem.clone()), running: None }),
        };
        let sessions = self.slots.iter().filter_map(|(target, slot)| Some((target.clone(), report(slot)?)));
        let report = Report { sessions: sessions.collect(), discarded: *self.demux.discarded() };
        self.reports.send_replace(Arc::new(report));
    }
}

/// What ended the wait.
enum Wake {
    Command(Command),
    /// A datagram or a timer.
    Due,
    /// No handle is left.
    Abandoned,
}

async fn ready(receivers: &BTreeMap<(Hops, bool), Receiver>) {
    poll_fn(|context| {
        for receiver in receivers.values() {
            if receiver.poll_ready(context).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// From the keys that the standard library draws for its hash maps: hard to guess, which discriminators should be.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
