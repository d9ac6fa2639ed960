//! The addresses that this node gives out itself: in the ledger from the CNI's ADD to its DEL, with the journal's own times,
//! whether they are ever advertised or not.
use std::net::IpAddr;

use jiff::Timestamp;
use plainroute_blocks::{Entry, Holdings};
use tokio::sync::{mpsc, watch};

use super::{Change, Holder, keep::Keeper};

/// Who tells of the addresses that this node gives out.
#[derive(Debug)]
pub struct Given {
    /// What it holds, as its journal has it; nothing before that is read.
    pub holdings: watch::Receiver<Option<Holdings>>,
    /// Each address given and taken back, in their order. What is missing here is made up for by what is held.
    pub entries: mpsc::Receiver<Entry>,
}

/// The next that was given or taken back; never, where nobody gives any out.
pub(super) async fn entry(entries: &mut Option<mpsc::Receiver<Entry>>) -> Option<Entry> {
    entries.as_mut()?.recv().await
}

/// What is held from here on.
pub(super) async fn changed(holdings: &mut Option<watch::Receiver<Option<Holdings>>>) -> Option<Holdings> {
    let holdings = holdings.as_mut()?;
    holdings.changed().await.ok()?;
    holdings.borrow_and_update().clone()
}

/// Who says that a Pod has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    Plan,
    Journal,
}

/// Who has an address.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) holder: Holder,
    pub(super) since: Timestamp,
    pub(super) by: Teller,
}

impl Keeper {
    /// What the journal says is held. It is the whole of it, so what is not there is over.
    pub(super) fn handle_holdings(&mut self, holdings: &Holdings, now: Timestamp) {
        if self.given != Some(true) {
            (self.given, self.ledger) = (Some(true), None);
        }
        let (holders, waiting) = (&mut self.holders, &mut self.waiting);
        holders.retain(|address, held| {
            let stays = held.by == Teller::Plan || holdings.held.contains_key(address);
            if !stays {
                waiting.push(Change::Freed { address: *address, at: now });
            }
            stays
        });
        for (address, holder) in holdings.held.iter() {
            self.hold(*address, holder_of(holder, *address, holdings), holder.since);
        }
        self.limit();
    }

    /// An address was given or taken back.
    pub(super) fn handle_entry(&mut self, entry: Entry, holdings: &Holdings) {
        let Entry { address, holder, at, ends } = entry;
        let holder = holder_of(&holder, address, holdings);
        if !ends {
            self.hold(address, holder, at);
        } else if self.holders.get(&address).is_some_and(|held| held.holder.is_same_pod(&holder)) {
            self.holders.remove(&address);
            self.waiting.push(Change::Freed { address, at });
        }
        self.limit();
    }

    fn hold(&mut self, address: IpAddr, holder: Holder, since: Timestamp) {
        match self.holders.get_mut(&address) {
            Some(held) if held.holder.is_same_pod(&holder) => held.by = Teller::Journal,
            _ => {
                self.waiting.push(Change::Held { address, holder: holder.clone(), from: since });
                self.holders.insert(address, Held { holder, since, by: Teller::Journal });
            }
        }
    }
}

/// The Pod, by the pool of the block that the address lies in.
fn holder_of(holder: &plainroute_blocks::Holder, address: IpAddr, holdings: &Holdings) -> Holder {
    let covering = holdings.blocks.iter().filter(|(prefix, _)| prefix.contains_address(address));
    let block = covering.max_by_key(|(prefix, _)| prefix.length());
    Holder {
        namespace: holder.namespace.clone(),
        pod: holder.name.clone(),
        uid: Some(holder.pod_uid.clone()),
        pool: block.map(|(_, block)| block.pool.clone()),
    }
}
