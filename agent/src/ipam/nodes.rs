//! Other nodes, as the API server knows them, and which of them are fenced.
//!
//! Owner of: [`Fencing`], and the reads of Nodes under way. Inputs: who is in the way of a Pod here, and what a person says. Output:
//! inputs of the core. Now and then, by chance, all owners of blocks are surveyed: the more blocks there are, the more agents, and
//! the seldomer each does it.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use plainroute_blocks::Input;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{
    Release,
    fencing::{self, Fencing, Look, Share},
    store::{Owner, Store},
};

/// Of how many blocks one is surveyed at a time, by chance.
const BLOCKS_A_SURVEY: u64 = 8;
/// How many checks of the sandboxes there are to a survey.
const CHECKS_A_SURVEY: u32 = 5;

pub(super) struct Nodes {
    store: Option<Store>,
    fencing: Fencing,
    told: BTreeSet<String>,
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    look: Interval,
    survey: Interval,
}

/// What a read found; nothing where it failed.
enum Read {
    Node(String, Option<Look>),
    /// The owners of blocks that are gone or out of service.
    Survey(Option<BTreeMap<String, Look>>),
    /// Whose an address is that a person says is nobody's any more.
    Owner(Release, Result<Option<(Owner, Look)>, String>),
}

impl Nodes {
    pub(super) fn new(store: Option<Store>, check: Duration) -> Nodes {
        let every = |pause: Duration| {
            let mut interval = interval(pause);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval.reset();
            interval
        };
        Nodes {
            store,
            fencing: Fencing::default(),
            told: BTreeSet::new(),
            reads: FuturesUnordered::new(),
            look: every(fencing::LOOK),
            survey: every(check * CHECKS_A_SURVEY),
        }
    }

    /// These nodes have what a Pod here needs.
    pub(super) fn suspect<'a>(&mut self, nodes: impl Iterator<Item = &'a str>) {
        let now = Instant::now();
        nodes.for_each(|node| self.fencing.suspect(node, now));
    }

    /// Whether what this node has may be deleted by a person's word.
    pub(super) fn by_word(&self, node: &str) -> bool {
        self.fencing.by_word(node)
    }

    /// A person gives back an address that is in no block of this node.
    pub(super) fn release(&mut self, release: Release) {
        let Some(store) = self.store.clone() else {
            let refused = format!("{} is in no block of this node", release.address);
            return drop(release.answer.send(Err(refused)));
        };
        self.reads.push(Box::pin(async move {
            let found = store.owner_of(release.address).await;
            Read::Owner(release, found)
        }));
    }

    /// Waits for the next that the core is to hear of. Nothing is lost when this is cancelled.
    pub(super) async fn next(&mut self) -> Vec<Input> {
        tokio::select! {
            Some(read) = self.reads.next() => self.take(read),
            _ = self.look.tick() => self.begin_looks(),
            _ = self.survey.tick() => self.begin_survey(),
        }
        self.inputs()
    }

    fn begin_looks(&mut self) {
        let Some(store) = &self.store else { return };
        for node in self.fencing.due(Instant::now()) {
            let store = store.clone();
            self.reads.push(Box::pin(async move {
                let look = store.look_at(&node).await;
                Read::Node(node, look)
            }));
        }
    }

    fn begin_survey(&mut self) {
        let Some(store) = self.store.clone() else { return };
        let chance = fastrand::f64();
        self.reads.push(Box::pin(async move {
            let blocks = store.count().await.unwrap_or(u64::MAX);
            if chance * blocks as f64 > BLOCKS_A_SURVEY as f64 {
                return Read::Survey(None);
            }
            Read::Survey(store.survey().await)
        }));
    }

    fn take(&mut self, read: Read) {
        let now = Instant::now();
        match read {
            Read::Node(_, None) | Read::Survey(None) => {}
            Read::Node(node, Some(look)) => self.fencing.take(&node, look, now),
            Read::Survey(Some(dead)) => {
                for (node, look) in dead {
                    self.fencing.suspect(&node, now);
                    self.fencing.claim(&node, Share::All, now);
                    self.fencing.take(&node, look, now);
                }
            }
            Read::Owner(Release { address, confirm, answer }, found) => {
                let said = match found {
                    Ok(Some((owner, look))) if look.allows(confirm) => {
                        self.fencing.suspect(&owner.node, now);
                        self.fencing.claim(&owner.node, Share::BlockOf(address), now);
                        self.fencing.confirm(&owner.node, now);
                        self.fencing.take(&owner.node, look, now);
                        warn!(%address, block = owner.block, node = owner.node, "taken over by a person's word");
                        Ok(())
                    }
                    Ok(Some((Owner { node, block }, Look::There { ready: true }))) => Err(format!(
                        "{address} is in block {block} of node {node}, which is Ready: release it there"
                    )),
                    Ok(Some((Owner { node, block }, _))) => Err(format!(
                        "{address} is in block {block} of node {node}; only with a confirmation that no Pod of that node runs"
                    )),
                    Ok(None) => Err(format!("{address} is in no block")),
                    Err(error) => Err(format!("whose {address} is cannot be read: {error}")),
                };
                let _ = answer.send(said);
            }
        }
    }

    fn inputs(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        let fenced = self.fencing.fenced();
        if fenced != self.told {
            info!(nodes = ?fenced, "fenced: what they have may be taken over");
            self.told.clone_from(&fenced);
            inputs.push(Input::Fenced(fenced));
        }
        inputs.extend(self.fencing.inheritances().into_iter().map(|(node, share)| match share {
            Share::All => Input::Inherit(node, None),
            Share::BlockOf(address) => Input::Inherit(node, Some(address)),
        }));
        inputs
    }
}
