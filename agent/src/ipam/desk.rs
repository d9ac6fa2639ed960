//! Where others ask the task that gives addresses out, and what it tells unasked.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_blocks::{BlockObject, Entry, Holdings, Refusal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::ledger::Given;

use super::check::{Against, Disagreement, Findings};

/// How many may ask at a time.
const ORDERS: usize = 8;
/// How many wait for the ledger.
const ENTRIES: usize = 4096;
/// Copies at the API server follow within so long; what differs for a moment only is no disagreement.
const SETTLE: Duration = Duration::from_secs(3);
/// After a repair they may have to be read and written again, of many blocks.
const WRITTEN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Between the two looks that free what neither of them sees.
const APART: Duration = Duration::from_secs(31);

/// What the task is asked.
#[derive(Debug)]
pub(super) enum Order {
    /// To hold against each other what the journal, the API server, the sandboxes and the Pods say.
    Check(oneshot::Sender<Result<Findings, String>>),
    /// To look at the node now, and to read each block of this node again.
    Look(oneshot::Sender<Result<(), String>>),
    /// For the blocks of the cluster that an address lies in.
    Covering(IpAddr, oneshot::Sender<Result<Vec<BlockObject>, String>>),
}

impl Order {
    pub(super) fn refuse(self, error: impl ToString) {
        let error = error.to_string();
        match self {
            Order::Check(answer) => drop(answer.send(Err(error))),
            Order::Look(answer) => drop(answer.send(Err(error))),
            Order::Covering(_, answer) => drop(answer.send(Err(error))),
        }
    }
}

/// What the task tells unasked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Why no address is given out or taken back, while the journal cannot be used.
    pub(crate) trouble: Option<String>,
    /// Who was refused an address last, by namespace and name, while it has none.
    pub(crate) refused: BTreeMap<(String, String), RefusedPod>,
}

/// A Pod that has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedPod {
    pub(crate) uid: String,
    /// Why, in a word.
    pub(crate) reason: &'static str,
    /// Why, in a sentence.
    pub(crate) message: String,
    /// The pools that have none left, where that is why.
    pub(crate) exhausted: Vec<String>,
}

impl RefusedPod {
    pub(crate) fn new(uid: String, refusal: &Refusal) -> RefusedPod {
        let exhausted = match refusal {
            Refusal::Exhausted(pools) => pools.clone(),
            _ => Vec::new(),
        };
        RefusedPod { uid, reason: refusal.reason(), message: refusal.to_string(), exhausted }
    }
}

/// The side of the task.
pub(crate) struct Counter {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) told: watch::Sender<Arc<Told>>,
    /// Each address given and taken back, for the ledger.
    pub(super) entries: mpsc::Sender<Entry>,
}

/// The side of those who ask.
#[derive(Clone, Debug)]
pub struct Desk {
    orders: mpsc::Sender<Order>,
    told: watch::Receiver<Arc<Told>>,
    holdings: watch::Receiver<Option<Holdings>>,
}

/// All sides, the ledger's too; the holdings are those that the task publishes.
pub(crate) fn desk(holdings: watch::Receiver<Option<Holdings>>) -> (Desk, Counter, Given) {
    let (orders, orders_in) = mpsc::channel(ORDERS);
    let (told, told_in) = watch::channel(Arc::default());
    let (entries, entries_in) = mpsc::channel(ENTRIES);
    let given = Given { holdings: holdings.clone(), entries: entries_in };
    (Desk { orders, told: told_in, holdings }, Counter { orders: orders_in, told, entries }, given)
}

/// Waits until the task tells something else; for ever where there is none.
pub(crate) async fn told_changed(desk: &mut Option<Desk>) {
    if let Some(desk) = desk
        && desk.told.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// What a repair has done.
pub(crate) struct Repaired {
    pub(crate) mended: Vec<Disagreement>,
    pub(crate) left: Findings,
}

impl Desk {
    /// What the task tells unasked.
    pub(crate) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told.borrow())
    }

    /// What this node holds.
    pub(crate) fn holdings(&self) -> Option<Holdings> {
        self.holdings.borrow().clone()
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Order,
    ) -> Result<T, String> {
        let (answer, answered) = oneshot::channel();
        let ending = |_| "the task that gives addresses out has ended".to_owned();
        self.orders.send(order(answer)).await.map_err(|_| ending(()))?;
        answered.await.map_err(|_| ending(()))?
    }

    /// The blocks of the cluster that the address lies in.
    pub(crate) async fn covering(&self, address: IpAddr) -> Result<Vec<BlockObject>, String> {
        self.ask(|answer| Order::Covering(address, answer)).await
    }

    /// What does not fit together, and not only for a moment.
    pub(crate) async fn check(&self) -> Result<Findings, String> {
        self.check_within(SETTLE).await
    }

    async fn check_within(&self, patience: Duration) -> Result<Findings, String> {
        let until = Instant::now() + patience;
        loop {
            let findings = self.ask(Order::Check).await?;
            let follows = findings.disagreements.iter().any(|one| one.against == Against::Block);
            if !follows || Instant::now() >= until {
                return Ok(findings);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Mends what can be mended without harm: a second look frees what has leaked, and blocks are written as the journal has them.
    pub(crate) async fn repair(&self) -> Result<Repaired, String> {
        let before = self.ask(Order::Check).await?;
        self.ask(Order::Look).await?;
        if before.disagreements.iter().any(|one| one.against == Against::Sandbox && one.mendable) {
            tokio::time::sleep(APART).await;
            self.ask(Order::Look).await?;
        }
        let left = self.check_within(WRITTEN).await?;
        let still: BTreeSet<_> = left.disagreements.iter().map(Disagreement::key).collect();
        let mended = before.disagreements.into_iter().filter(|one| !still.contains(&one.key()));
        Ok(Repaired { mended: mended.collect(), left })
    }
}
