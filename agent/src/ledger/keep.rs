//! The task that keeps the ledger in step with the plan and, of addresses that this node gives out itself, with its journal.
//!
//! Owner of: the [`Ledger`], which it opens when there is something to write down. Inputs: what the main task publishes, what the
//! IPAM's holds and each time that it gives an address or takes it back. Output: the
//! file, and what is wrong with it. A change that cannot be written is tried again, with its own time. Cancelling it loses at most
//! what happened since its last look: the next process holds what is written against its first plan.
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    Change, Holder, Ledger, LedgerError,
    given::{self, Given, Held, Teller},
};
use crate::{
    admin::Published,
    plan::{Plan, PodPlan, Reason},
};

/// The wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often old rows are cut.
const CUT: Duration = Duration::from_secs(3600);
/// How many changes wait for a ledger that cannot be written.
const WAITING: usize = 100_000;

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// The node.
    pub node: String,
    /// How many days rows are kept.
    pub days: u32,
}

/// The ledger as others see it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub trouble: watch::Receiver<Option<String>>,
}

/// Keeps the ledger until the main task is gone.
pub async fn keep(
    settings: Settings,
    mut published: watch::Receiver<Arc<Published>>,
    given: Option<Given>,
    trouble: watch::Sender<Option<String>>,
) {
    let mut keeper = Keeper::new(settings, given.is_some());
    let (mut entries, mut holdings) = given.map(|given| (given.entries, given.holdings)).unzip();
    let mut seen = Arc::<Plan>::default();
    loop {
        let due = Instant::now() + if keeper.is_behind() { RETRY } else { CUT };
        tokio::select! {
            // What was given and taken back comes first: what is held now says nothing of what is over.
            biased;
            Some(entry) = given::entry(&mut entries) => {
                let known = holdings.as_ref().and_then(|holdings| holdings.borrow().clone());
                keeper.handle_entry(entry, &known.unwrap_or_default());
            }
            Some(known) = given::changed(&mut holdings) => keeper.handle_holdings(&known, Timestamp::now()),
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
                let plan = Arc::clone(&published.borrow_and_update().plan);
                // Before the first plan nothing is known, and nobody is gone.
                if plan.node.is_empty() || Arc::ptr_eq(&plan, &seen) {
                    continue;
                }
                keeper.handle_plan(&plan, Timestamp::now());
                seen = plan;
            }
            () = sleep_until(due) => {}
        }
        if !keeper.has_work() {
            continue;
        }
        let work = move || {
            let outcome = keeper.write(Timestamp::now());
            (keeper, outcome)
        };
        // Its failure is a panic of ours, which ends this task and nothing else.
        let Ok((back, outcome)) = tokio::task::spawn_blocking(work).await else { return };
        keeper = back;
        let said = outcome.err().map(|error| error.to_string());
        trouble.send_if_modified(|trouble| {
            match &said {
                Some(error) if *trouble != said => warn!("{error}"),
                None if trouble.is_some() => info!("the ledger is written again"),
                Some(_) | None => {}
            }
            let modified = *trouble != said;
            *trouble = said;
            modified
        });
    }
}

/// A Pod that has an address, by the plan.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    pod: &'a PodPlan,
    pool: Option<&'a str>,
}

impl Claim<'_> {
    fn is_of(&self, holder: &Holder) -> bool {
        let PodPlan { namespace, name, uid, .. } = self.pod;
        (namespace, name, uid) == (&holder.namespace, &holder.pod, &holder.uid)
    }
}

impl From<Claim<'_>> for Holder {
    fn from(claim: Claim<'_>) -> Holder {
        let PodPlan { namespace, name, uid, .. } = claim.pod;
        let pool = claim.pool.map(str::to_owned);
        Holder { namespace: namespace.clone(), pod: name.clone(), uid: uid.clone(), pool }
    }
}

/// Who has which address of this node's, by the plan. Of two Pods that claim one it is the one that the plan believes, then the
/// first by name.
pub(crate) fn holders(plan: &Plan) -> BTreeMap<IpAddr, Claim<'_>> {
    let mut holders: BTreeMap<IpAddr, Claim<'_>> = BTreeMap::new();
    for (pod, address) in plan.addresses() {
        if matches!(address.refused, Some(Reason::HeldByOther { .. } | Reason::NotAllocated { .. })) {
            continue;
        }
        let claim = Claim { pod, pool: address.pool.as_deref() };
        let known = holders.get(&address.address);
        if known.is_none_or(|known| known.pool.is_none() && claim.pool.is_some()) {
            holders.insert(address.address, claim);
        }
    }
    holders
}

/// What is to be written, and the ledger while that can be.
pub(super) struct Keeper {
    settings: Settings,
    pub(super) ledger: Option<Ledger>,
    /// Who has which address, as far as it is known.
    pub(super) holders: BTreeMap<IpAddr, Held>,
    /// There was a plan.
    planned: bool,
    /// Whether it is known what this node holds of pools that it gives out itself; nothing where it does not.
    pub(super) given: Option<bool>,
    /// What is not written yet, the oldest first.
    pub(super) waiting: Vec<Change>,
    cut_at: Option<Timestamp>,
}

impl Keeper {
    fn new(settings: Settings, gives: bool) -> Keeper {
        Keeper {
            settings,
            ledger: None,
            holders: BTreeMap::new(),
            planned: false,
            given: gives.then_some(false),
            waiting: Vec::new(),
            cut_at: None,
        }
    }

    /// Whether anything is known at all.
    fn has_begun(&self) -> bool {
        self.planned || self.given == Some(true)
    }

    /// Whether something could not be done that should have been.
    fn is_behind(&self) -> bool {
        self.has_begun() && (self.ledger.is_none() || !self.waiting.is_empty())
    }

    fn has_work(&self) -> bool {
        let due = SignedDuration::try_from(CUT).unwrap_or_default();
        let cut = self.cut_at.is_none_or(|at| Timestamp::now().duration_since(at).abs() >= due);
        self.has_begun() && (self.is_behind() || cut)
    }

    fn handle_plan(&mut self, plan: &Plan, now: Timestamp) {
        if !self.planned {
            // What is written and not planned is over.
            (self.planned, self.ledger) = (true, None);
        }
        let mut claims = holders(plan);
        let (held, waiting) = (&mut self.holders, &mut self.waiting);
        if self.given.is_some() {
            // Of these the journal tells, whatever becomes of them in the plan.
            let ours =
                |pool: &str| plan.pools.iter().any(|one| one.name == pool && one.blocks_here.is_some());
            let by_journal =
                |address: &IpAddr| held.get(address).is_some_and(|held| held.by == Teller::Journal);
            claims.retain(|address, claim| !claim.pool.is_some_and(ours) && !by_journal(address));
        }
        held.retain(|address, held| {
            let stays = held.by == Teller::Journal || claims.contains_key(address);
            if !stays {
                waiting.push(Change::Freed { address: *address, at: now });
            }
            stays
        });
        for (address, claim) in claims {
            if !held.get(&address).is_some_and(|held| claim.is_of(&held.holder)) {
                let holder = Holder::from(claim);
                waiting.push(Change::Held { address, holder: holder.clone(), from: now });
                held.insert(address, Held { holder, since: now, by: Teller::Plan });
            }
        }
        self.limit();
    }

    /// What cannot be written is not gathered without end.
    pub(super) fn limit(&mut self) {
        if self.waiting.len() > WAITING {
            // Who has what now is written all the same once that can be done.
            warn!(
                changes = self.waiting.len(),
                "the ledger could not be written for so long that changes are given up"
            );
            self.waiting.clear();
            self.ledger = None;
        }
    }

    fn write(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let mut ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => {
                let mut ledger = Ledger::open(&self.settings.path, &self.settings.node)?;
                ledger.record(&self.differences(&ledger, now))?;
                self.waiting.clear();
                ledger
            }
        };
        ledger.record(&self.waiting)?;
        self.waiting.clear();
        self.cut(&mut ledger, now)?;
        self.cut_at = Some(now);
        self.ledger = Some(ledger);
        Ok(())
    }

    /// A day of the oldest rows at most: a clock that is wrong for a moment does not empty the ledger.
    fn cut(&self, ledger: &mut Ledger, now: Timestamp) -> Result<(), LedgerError> {
        let Some(oldest) = ledger.oldest()? else { return Ok(()) };
        let day = SignedDuration::from_hours(24);
        let kept = SignedDuration::from_hours(24 * i64::from(self.settings.days));
        let (Ok(too_old), Ok(next_day)) = (now.checked_sub(kept), oldest.checked_add(day)) else {
            return Ok(());
        };
        let cut = ledger.cut(too_old.min(next_day), now)?;
        if cut > 0 {
            info!(rows = cut, days = self.settings.days, "rows of the ledger were cut for their age");
        }
        Ok(())
    }

    /// What waits, and what brings the file to what is so: it may be that of an earlier process, or a new one.
    fn differences(&self, ledger: &Ledger, now: Timestamp) -> Vec<Change> {
        let mut changes = self.waiting.clone();
        // Not knowing is not the end of anything.
        if self.planned && self.given != Some(false) {
            let over = ledger.held_now().keys().filter(|address| !self.holders.contains_key(address));
            changes.extend(over.map(|address| Change::Freed { address: *address, at: now }));
        }
        changes.extend(self.holders.iter().map(|(address, held)| Change::Held {
            address: *address,
            holder: held.holder.clone(),
            from: held.since,
        }));
        changes
    }
}
