//! What the task does for those at its desk, and the copies of its blocks at the API server.
use std::sync::Arc;

use plainroute_blocks::{Holdings, Input};

use super::{
    Setup, Task,
    check::{self, Findings, Objects, Sides},
    desk::{Order, RefusedPod},
    journal::JournalError,
};

impl Task {
    pub(super) fn order(&mut self, order: Order) -> Result<(), JournalError> {
        match order {
            Order::Check(answer) => {
                let (store, node) = (self.store.clone(), self.node.clone());
                self.checks.push(Box::pin(async move {
                    match store {
                        Some(store) => (answer, Some(store.of_node(node).await)),
                        None => (answer, None),
                    }
                }));
            }
            Order::Look(answer) => {
                self.look();
                self.handle(Input::Doubted)?;
                let _ = answer.send(Ok(()));
            }
            Order::Covering(address, answer) => match self.store.clone() {
                Some(store) => drop(tokio::spawn(async move {
                    let _ = answer.send(store.covering(address).await);
                })),
                // Those of files are told by the plan.
                None => drop(answer.send(Ok(Vec::new()))),
            },
        }
        Ok(())
    }

    /// Who has an address by now, or is gone, is refused none.
    pub(super) fn forget_refused(&self, holdings: &Holdings) {
        self.told.send_if_modified(|told| {
            let over = |(namespace, name): &(String, String), refused: &RefusedPod| {
                let has = holdings.held.values().any(|holder| holder.pod_uid == refused.uid);
                let known = self.known.as_ref().and_then(|known| known.pod(namespace, name));
                has || !known.is_some_and(|pod| pod.is(&refused.uid))
            };
            let modified = told.refused.iter().any(|(pod, refused)| over(pod, refused));
            if modified {
                Arc::make_mut(told).refused.retain(|pod, refused| !over(pod, refused));
            }
            modified
        });
    }

    pub(super) fn compare(&self, setup: &Setup, objects: Option<Result<Objects, String>>) -> Findings {
        let Some(known) = &self.known else {
            let unknown = vec!["the Pods and pools of this node are not known yet".to_owned()];
            return Findings { unknown, ..Findings::default() };
        };
        check::compare(&Sides {
            node: &self.node,
            known,
            records: &self.ipam.records(),
            holdings: &self.ipam.holdings(),
            objects,
            check: std::time::Duration::from_secs(setup.config.check_seconds.get().into()),
        })
    }

    /// A copy that was not as the journal says at the last look and still is the same was written by somebody else.
    pub(super) fn doubt_copies(&mut self) -> Result<(), JournalError> {
        if self.store.is_none() {
            return Ok(());
        }
        let differ = check::copies_that_differ(&self.ipam.records(), &self.copies);
        let again = differ.iter().any(|copy| self.doubtful.contains(copy));
        self.doubtful = differ;
        if again { self.handle(Input::Doubted) } else { Ok(()) }
    }
}
