//! Bringing the table to what is wanted, transaction by transaction.
use std::sync::Arc;

use tokio::time::Instant;

use super::{LINGER, PATIENCE, Task};
use crate::nat::{
    NatDesired, addition,
    compile::compile,
    diff::{Change, after_first, difference},
    failure::Failure,
};

impl Task {
    pub(super) async fn make(&mut self, wanted: &Arc<NatDesired>) -> Result<(), Failure> {
        if self.complete && self.made.as_ref().is_some_and(|made| Arc::ptr_eq(made, wanted)) {
            return Ok(());
        }
        if std::mem::take(&mut self.complete) && self.add(wanted).await? {
            self.complete = true;
            return Ok(());
        }
        let now = compile(wanted).map_err(Failure::Undesirable)?;
        let change = difference(self.table.as_ref(), &now);
        if self.refusals >= PATIENCE && self.table.is_some() && !change.first.is_empty() {
            self.count().await?;
            let anew = difference(None, &now);
            self.change([vec![Change::RemoveTable], anew.first].concat()).await?;
            self.totals.forget_all();
            self.table = Some(now);
            self.complete = true;
        } else if !change.first.is_empty() {
            self.change(change.first).await?;
            self.table = Some(after_first(self.table.as_ref(), &now));
            self.complete = change.afterwards.is_empty();
            self.sweep_at = (!change.afterwards.is_empty()).then(|| Instant::now() + LINGER);
        } else if self.sweep_at.is_none_or(|at| at <= Instant::now()) {
            self.sweep(change.afterwards).await?;
            self.sweep_at = None;
            self.table = Some(now);
            self.complete = true;
        }
        self.conclude(wanted);
        Ok(())
    }

    /// Adds hosts, if they are all that is wanted more than before; whether that was so.
    async fn add(&mut self, wanted: &Arc<NatDesired>) -> Result<bool, Failure> {
        let (Some(made), Some(table)) = (&self.made, &mut self.table) else { return Ok(false) };
        let Some(more) = addition::more_hosts(made, wanted) else { return Ok(false) };
        let Some(changes) = addition::elements(table, &more) else { return Ok(false) };
        self.change(changes).await?;
        self.settling.added(&more);
        self.totals.note(&more);
        self.state.generation = wanted.generation;
        self.made = Some(Arc::clone(wanted));
        Ok(true)
    }

    /// Takes away what no rule uses any more.
    async fn sweep(&mut self, changes: Vec<Change>) -> Result<(), Failure> {
        let gone: Vec<Arc<str>> = changes
            .iter()
            .filter_map(|change| match change {
                Change::RemoveCounter(name) => Some(Arc::clone(name)),
                _ => None,
            })
            .collect();
        if !gone.is_empty() {
            self.count().await?;
        }
        self.change(changes).await?;
        self.totals.forget(&gone);
        Ok(())
    }

    pub(super) async fn remove(&mut self, wanted: &Arc<NatDesired>) -> Result<(), Failure> {
        if self.table.is_some() {
            self.count().await?;
            self.change(vec![Change::RemoveTable]).await?;
        }
        self.totals.forget_all();
        // Nobody needs to know any more when nftables changes.
        self.connection = None;
        self.conclude(wanted);
        (self.table, self.made, self.complete) = (None, None, false);
        Ok(())
    }

    async fn change(&mut self, changes: Vec<Change>) -> Result<(), Failure> {
        let Some(connection) = self.connection.as_mut().filter(|_| !changes.is_empty()) else {
            return Ok(());
        };
        let began = Instant::now();
        if let Err(refusal) = connection.requests.change(&changes).await? {
            let place = refusal.place.and_then(|place| changes.into_iter().nth(place));
            return Err(Failure::Refused(refusal, place));
        }
        tracing::trace!("{} changes of nftables in {:?}", changes.len(), began.elapsed());
        Ok(())
    }

    /// The table is as wanted.
    pub(super) fn conclude(&mut self, wanted: &Arc<NatDesired>) {
        let had_table = self.made.is_some() || self.table.is_some();
        let same = |made: &Arc<NatDesired>| Arc::ptr_eq(made, wanted) || made.decides_like(wanted);
        if had_table && !self.made.as_ref().is_some_and(same) {
            self.settling.changed(wanted);
            self.read_switches();
        }
        self.totals.note(wanted);
        self.state.generation = wanted.generation;
        self.state.addresses.clone_from(&wanted.addresses);
        self.state.synced = true;
        self.made = Some(Arc::clone(wanted));
    }
}
