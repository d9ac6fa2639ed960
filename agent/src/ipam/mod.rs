//! The addresses of this node's Pods, where the agent gives them out: the task around [`plainroute_blocks::Ipam`].
//!
//! Owner of: the journal, the socket of the CNI plugin, the watches of IPBlocks and all writes to them. Inputs: what the main
//! task knows ([`Known`]), the plugin's requests, the API server's answers, time. Output: what the node holds
//! ([`Holdings`]), which the main task plans with. Cancelling it loses nothing: what was answered is in the journal. Where
//! the journal cannot be written, nothing is given out or taken back until it can be; what is held stays as it is.
mod check;
mod desk;
mod failpoint;
mod fencing;
mod in_force;
mod journal;
mod known;
mod nodes;
mod orders;
mod requests;
mod socket;
mod store;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use jiff::Timestamp;
use plainroute_blocks::{
    Answer, Call, Holdings, Input, Ipam, Kept, Lent, Now, Observation, Output, Record, Request, Settings,
    Slot,
};
use plainroute_config::Ipam as Config;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
};
use tracing::{error, info, warn};

pub use check::{Against, Disagreement};
pub(crate) use check::{Findings, allocation_words, ordinal};
pub use desk::Desk;
pub(crate) use desk::{Counter, RefusedPod, Told, desk, told_changed};
use failpoint::{Point, reach};
pub(crate) use in_force::{PoolNotes, PoolsInForce};
use journal::{JournalError, JournalFile};
pub(crate) use known::Known;
use nodes::Nodes;
use requests::Requests;
use socket::Asked;
use store::Store;

use crate::source::kubernetes;

/// How many requests may wait for the task.
const REQUESTS: usize = 64;
/// The wait before a journal that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// StatefulSets by namespace and name.
type StatefulSets = BTreeSet<(String, String)>;

/// What does not change while the agent runs.
pub(crate) struct Setup {
    pub(crate) node: String,
    pub(crate) config: Config,
    pub(crate) state_dir: PathBuf,
    /// What tells this boot from every other.
    pub(crate) boot: String,
    pub(crate) kubernetes: Option<kubernetes::Settings>,
}

/// A person gives an address back.
pub(crate) struct Release {
    pub(crate) address: IpAddr,
    /// No Pod uses it any more, whatever the records say.
    pub(crate) confirm: bool,
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// Serves the CNI plugin at the listener of its socket; ends when the main task has.
pub(crate) async fn run(
    setup: Setup,
    listener: UnixListener,
    mut known: watch::Receiver<Option<Arc<Known>>>,
    mut releases: mpsc::Receiver<Release>,
    mut counter: Counter,
    holdings: watch::Sender<Option<Holdings>>,
) {
    let (asked_out, mut asked) = mpsc::channel(REQUESTS);
    tokio::spawn(socket::serve(listener, asked_out));
    info!(socket = %setup.config.socket.display(), "gives out the addresses of pools with allocation: Block");
    let mut wait = RETRY;
    loop {
        let begun = Instant::now();
        let mut inputs =
            Inputs { known: &mut known, asked: &mut asked, releases: &mut releases, counter: &mut counter };
        match serve(&setup, &mut inputs, &holdings).await {
            Ok(()) => return,
            Err(error) => {
                error!(%error, "no address is given out or taken back until this is mended");
                let trouble = format!("no address is given out or taken back: {error}");
                inputs.counter.told.send_modify(|told| Arc::make_mut(told).trouble = Some(trouble));
                wait = if begun.elapsed() > LONGEST_RETRY { RETRY } else { (wait * 2).min(LONGEST_RETRY) };
                refuse(&mut inputs, &error, wait).await;
            }
        }
    }
}

/// Who comes to the task with what.
struct Inputs<'a> {
    known: &'a mut watch::Receiver<Option<Arc<Known>>>,
    asked: &'a mut mpsc::Receiver<Asked>,
    releases: &'a mut mpsc::Receiver<Release>,
    counter: &'a mut Counter,
}

/// Says for so long why there are no addresses.
async fn refuse(inputs: &mut Inputs<'_>, error: &JournalError, wait: Duration) {
    let Inputs { asked, releases, counter, .. } = inputs;
    let told = async {
        loop {
            tokio::select! {
                Some(Asked { reply, .. }) = asked.recv() => drop(reply.send(requests::unavailable(error))),
                Some(Release { answer, .. }) = releases.recv() => drop(answer.send(Err(error.to_string()))),
                Some(order) = counter.orders.recv() => order.refuse(error),
                else => return,
            }
        }
    };
    let _ = tokio::time::timeout(wait, told).await;
}

/// From the journal on, until nobody listens or the journal fails.
async fn serve(
    setup: &Setup,
    inputs: &mut Inputs<'_>,
    holdings: &watch::Sender<Option<Holdings>>,
) -> Result<(), JournalError> {
    let Inputs { known, asked, releases, counter } = inputs;
    let mut task = Task::recover(setup, holdings.clone(), counter).await?;
    task.publish();
    counter.told.send_modify(|told| Arc::make_mut(told).trouble = None);
    let mut observe = tokio::time::interval(Duration::from_secs(setup.config.check_seconds.get().into()));
    // The first look is of what was known before anything was.
    known.mark_changed();
    loop {
        let wake = task.wake_at();
        tokio::select! {
            changed = known.changed() => match changed {
                Ok(()) => {
                    let known = known.borrow_and_update().clone();
                    // Before the sources are in sync it is not known that there are no pools.
                    if let Some(known) = known {
                        task.know(known)?;
                    }
                }
                Err(_) => return Ok(()),
            },
            Some(request) = asked.recv() => task.ask(request)?,
            Some(release) = releases.recv() => task.release(release)?,
            Some((call, answer)) = task.answers.next() => {
                reach(Point::Answered);
                task.handle(Input::Answer(call, answer))?;
            }
            Some(order) = counter.orders.recv() => task.order(order)?,
            Some((answer, objects)) = task.checks.next() => drop(answer.send(Ok(task.compare(setup, objects)))),
            Some(blocks) = task.owned.next() => {
                task.copies.clone_from(&blocks);
                task.handle(Input::Owned(blocks))?;
            }
            Some(blocks) = task.lent.next() => task.handle(Input::Asked(blocks))?,
            inputs = task.nodes.next() => inputs.into_iter().try_for_each(|input| task.handle(input))?,
            _ = observe.tick() => {
                task.look();
                task.doubt_copies()?;
            }
            Some(stateful_sets) = task.looks.next() => task.observe(stateful_sets)?,
            () = tokio::time::sleep_until(wake.into()) => task.tick()?,
        }
    }
}

/// Who asked what does not fit together, and what the API server has.
type Checked = (oneshot::Sender<Result<Findings, String>>, Option<Result<check::Objects, String>>);

struct Task {
    ipam: Ipam,
    journal: JournalFile,
    store: Option<Store>,
    started: Instant,
    known: Option<Arc<Known>>,
    requests: Requests,
    nodes: Nodes,
    answers: FuturesUnordered<BoxFuture<'static, (Call, Answer)>>,
    /// Looks that wait for the API server.
    looks: FuturesUnordered<BoxFuture<'static, Option<StatefulSets>>>,
    /// Who wants to know what does not fit together, and waits for the API server.
    checks: FuturesUnordered<BoxFuture<'static, Checked>>,
    /// This node's blocks as the watch showed them last, and those of them that were not as the journal says at the last look.
    copies: Vec<plainroute_blocks::BlockObject>,
    doubtful: BTreeSet<(String, String)>,
    told: watch::Sender<Arc<desk::Told>>,
    entries: mpsc::Sender<plainroute_blocks::Entry>,
    node: String,
    owned: BoxStream<'static, Vec<plainroute_blocks::BlockObject>>,
    lent: BoxStream<'static, Vec<plainroute_blocks::BlockObject>>,
    holdings: watch::Sender<Option<Holdings>>,
}

impl Task {
    async fn recover(
        setup: &Setup,
        holdings: watch::Sender<Option<Holdings>>,
        counter: &Counter,
    ) -> Result<Task, JournalError> {
        let (mut journal, records) = JournalFile::open(&setup.state_dir)?;
        let store = match &setup.kubernetes {
            Some(settings) => Some(connect(settings).await),
            None => None,
        };
        let settings =
            Settings { node: setup.node.clone(), boot: setup.boot.clone(), has_server: store.is_some() };
        let recovered = Ipam::recover(settings, &records);
        let (ipam, first) = recovered.map_err(|error| journal.damaged(error))?;
        journal.append(&first)?;
        let watched = |fields: String| match &store {
            Some(store) => store.watch(fields),
            None => futures::stream::pending().boxed(),
        };
        Ok(Task {
            owned: watched(format!("spec.node={}", setup.node)),
            lent: watched(format!("spec.lenderNode={}", setup.node)),
            ipam,
            journal,
            nodes: Nodes::new(store.clone(), Duration::from_secs(setup.config.check_seconds.get().into())),
            store,
            started: Instant::now(),
            known: None,
            requests: Requests::default(),
            answers: FuturesUnordered::new(),
            looks: FuturesUnordered::new(),
            checks: FuturesUnordered::new(),
            copies: Vec::new(),
            doubtful: BTreeSet::new(),
            told: counter.told.clone(),
            entries: counter.entries.clone(),
            node: setup.node.clone(),
            holdings,
        })
    }

    fn know(&mut self, known: Arc<Known>) -> Result<(), JournalError> {
        let before = self.known.replace(Arc::clone(&known));
        let first = before.is_none();
        if before.as_ref().is_none_or(|before| before.world != known.world) {
            self.handle(Input::World(known.world.clone()))?;
        }
        if self.store.is_none() && before.is_none_or(|before| before.documents != known.documents) {
            self.handle(Input::Documents(known.documents.clone()))?;
        }
        // What runs here tells what an earlier agent did not write down; until it is seen nothing is given out of such a block.
        if first {
            self.observe(None)?;
        }
        // Pods that had not been heard of when their addresses were asked for.
        self.ask_ready()
    }

    fn ask(&mut self, asked: Asked) -> Result<(), JournalError> {
        self.requests.take(asked, Instant::now());
        self.ask_ready()
    }

    /// What is in no block of this node may be another's that is dead.
    fn release(&mut self, release: Release) -> Result<(), JournalError> {
        let own = self.ipam.holdings();
        let covered = own.blocks.keys().any(|block| block.contains_address(release.address));
        if !covered && !own.held.contains_key(&release.address) {
            self.nodes.release(release);
            return Ok(());
        }
        let input = self.requests.release(release);
        self.handle(input)
    }

    fn ask_ready(&mut self) -> Result<(), JournalError> {
        let known = self.known.clone().unwrap_or_default();
        loop {
            let holdings = self.holdings.borrow().clone().unwrap_or_default();
            let Some(input) = self.requests.next_input(&known, &holdings, Instant::now()) else { break };
            self.handle(input)?;
        }
        Ok(())
    }

    /// Begins to look at what there is: the StatefulSets for whose Pods addresses are kept are asked for.
    fn look(&mut self) {
        let kept = self.stateful_sets();
        let store = self.store.clone().filter(|_| !kept.is_empty());
        self.looks.push(Box::pin(async move {
            match store {
                Some(store) => store.stateful_sets(kept).await,
                None => None,
            }
        }));
    }

    fn stateful_sets(&self) -> StatefulSets {
        let slots = self.ipam.records().into_iter().filter_map(|record| match record {
            Record::Own(owned) => Some(owned.slots.into_values()),
            _ => None,
        });
        let set = |slot| match slot {
            Slot::Kept(Kept { namespace, stateful_set, .. }) => Some((namespace, stateful_set)),
            Slot::Lent(Lent { kept: Some(kept), .. }) => Some((kept.namespace, kept.stateful_set)),
            Slot::Held(_) | Slot::Lent(_) | Slot::Resting(_) => None,
        };
        slots.flatten().filter_map(set).collect()
    }

    fn observe(&mut self, stateful_sets: Option<StatefulSets>) -> Result<(), JournalError> {
        let Some(known) = &self.known else { return Ok(()) };
        let observation = known.observe(&self.ipam.holdings());
        self.handle(Input::Observed(Observation { stateful_sets, ..observation }))
    }

    fn tick(&mut self) -> Result<(), JournalError> {
        self.handle(Input::Timeout)?;
        self.ask_ready()
    }

    fn wake_at(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let due = self.ipam.poll_timeout().and_then(|uptime| self.started.checked_add(uptime));
        [due, self.requests.poll_timeout()].into_iter().flatten().fold(far, Instant::min)
    }

    fn now(&self) -> Now {
        Now { wall: Timestamp::now(), uptime: self.started.elapsed() }
    }

    /// Hands one input to the core and carries out what it says. First what is to be on the disk, then what is planned with,
    /// then the answers: whoever has an address finds it armed.
    fn handle(&mut self, input: Input) -> Result<(), JournalError> {
        let outputs = self.ipam.handle(self.now(), input);
        let records: Vec<_> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Append(record) => Some(record.clone()),
                _ => None,
            })
            .collect();
        let holds = records.iter().any(|record| matches!(record, Record::Hold { .. }));
        let at = |point| {
            if holds {
                reach(point)
            }
        };
        at(Point::Journal);
        if !records.is_empty() {
            tokio::task::block_in_place(|| {
                self.journal.append(&records)?;
                if self.journal.has_grown() { self.journal.replace(&self.ipam.records()) } else { Ok(()) }
            })?;
        }
        at(Point::Journaled);
        self.publish();
        at(Point::Published);
        for output in outputs {
            match output {
                Output::Append(_) => {}
                Output::Ask(call, request) => self.send(call, request),
                Output::Reply(ticket, reply) => self.requests.reply(ticket, reply),
                Output::Event { namespace, name, pod_uid, refusal } => {
                    warn!(pod = format!("{namespace}/{name}"), reason = refusal.reason(), "{refusal}");
                    let refused = desk::RefusedPod::new(pod_uid, &refusal);
                    self.told.send_modify(|told| {
                        drop(Arc::make_mut(told).refused.insert((namespace, name), refused))
                    });
                }
                // Where the ledger is that far behind, what is held tells it the rest.
                Output::Ledger(entry) => drop(self.entries.try_send(entry)),
            }
        }
        at(Point::Replied);
        self.nodes.suspect(self.ipam.in_the_way());
        Ok(())
    }

    fn send(&mut self, call: Call, request: Request) {
        if matches!(request, Request::Create { .. }) {
            reach(Point::Claim);
        }
        let store = self.store.clone();
        let by_word = matches!(&request, Request::DeleteOfFenced { node, .. } if self.nodes.by_word(node));
        self.answers.push(Box::pin(async move {
            let answer = match store {
                Some(store) => store.ask(request, by_word).await,
                None => Answer::Failed("there is no API server".to_owned()),
            };
            (call, answer)
        }));
    }

    fn publish(&self) {
        let holdings = self.ipam.holdings();
        self.forget_refused(&holdings);
        self.holdings.send_if_modified(|published| {
            let modified = published.as_ref() != Some(&holdings);
            if modified {
                *published = Some(holdings);
            }
            modified
        });
    }
}

/// Waits for a configuration with which the API server can be asked.
async fn connect(settings: &kubernetes::Settings) -> Store {
    let mut told = BTreeSet::new();
    loop {
        match Store::connect(settings).await {
            Ok(store) => return store,
            Err(error) => {
                if told.insert(error.clone()) {
                    warn!(error, "IPBlocks cannot be asked for");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
