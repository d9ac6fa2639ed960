//! One block of this node: what its addresses are, and how its object at the API server stands.
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::Timestamp;
use plainroute_bgp::Prefix;
use plainroute_config::{AddressSet, IpAllocation, IpBlockSpec};

use crate::{
    Call, Holder, Slot,
    carve::{address, number},
    journal::Owned,
};

/// Between the two looks that end something.
pub(crate) const APART: Duration = Duration::from_secs(30);

/// How the object of a block stands. What an address is said of in [`Block::slots`] holds in each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Of a fenced node, and to be deleted there.
    TakingOver,
    /// To be made.
    Creating,
    /// It may have been made or not.
    Unsure,
    /// There, and this process did not see it made: to be read, and written once so that no older request can touch it.
    Adopting,
    /// Ours; whether something overlaps it is to be seen.
    Verifying,
    /// Asks another node for a loan or a transfer.
    Asking,
    /// In use.
    Ready,
    /// Given up: to be deleted.
    Releasing,
    /// Gone at the API server, though in use here.
    Lost,
}

/// Whom a single address is asked of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lender {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) fixed: bool,
    pub(crate) transfer: bool,
}

/// One block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) cidr: Prefix,
    pub(crate) pool: String,
    pub(crate) epoch: u32,
    pub(crate) lender: Option<Lender>,
    pub(crate) slots: BTreeMap<u16, Slot>,
    /// The ordinal that was given out last.
    pub(crate) last: Option<u16>,
    pub(crate) state: State,
    /// The fenced node that it is taken over of.
    pub(crate) before: String,
    /// Of its object; empty where that is not known. In [`State::TakingOver`] of the object in the way.
    pub(crate) uid: String,
    pub(crate) version: String,
    /// The allocations that its object has, where that is known.
    pub(crate) stored: Option<Vec<IpAllocation>>,
    /// Whether the journal has it.
    pub(crate) owned: bool,
    /// During which boot it was confirmed.
    pub(crate) boot: String,
    /// Whether all its live Pods are known, so that what seems free is.
    pub(crate) proven: bool,
    /// Since when no look saw an address of it in use, though it is not proven.
    pub(crate) unseen_since: Option<Duration>,
    /// The one request that is under way.
    pub(crate) call: Option<Call>,
    /// When the next one may follow.
    pub(crate) retry_at: Duration,
    pub(crate) failures: u32,
    /// How often a lender was looked at in vain.
    pub(crate) looks: u32,
    /// Until when a loan is waited for.
    pub(crate) give_up_at: Duration,
    /// Since when it is empty.
    pub(crate) empty_since: Option<Duration>,
}

impl Block {
    pub(crate) fn new(cidr: Prefix, pool: &str, state: State) -> Block {
        Block {
            cidr,
            pool: pool.to_owned(),
            epoch: 1,
            lender: None,
            slots: BTreeMap::new(),
            last: None,
            state,
            before: String::new(),
            uid: String::new(),
            version: String::new(),
            stored: None,
            owned: false,
            boot: String::new(),
            proven: true,
            unseen_since: None,
            call: None,
            retry_at: Duration::ZERO,
            failures: 0,
            looks: 0,
            give_up_at: Duration::MAX,
            empty_since: None,
        }
    }

    pub(crate) fn is_transfer(&self) -> bool {
        self.lender.as_ref().is_some_and(|lender| lender.transfer)
    }

    /// Whether it is asked for as this very address.
    pub(crate) fn is_fixed(&self) -> bool {
        self.lender.as_ref().is_some_and(|lender| lender.fixed)
    }

    /// Whether addresses of it may be given out.
    pub(crate) fn serves(&self) -> bool {
        self.state == State::Ready && self.proven && !self.is_transfer()
    }

    pub(crate) fn size(&self) -> u32 {
        1 << (self.cidr.family().max_length() - self.cidr.length()).min(IpBlockSpec::MOST_ORDINAL_BITS)
    }

    pub(crate) fn address(&self, ordinal: u16) -> IpAddr {
        address(self.cidr.family(), number(self.cidr.address()) + u128::from(ordinal))
    }

    pub(crate) fn ordinal(&self, address: IpAddr) -> Option<u16> {
        if !self.cidr.contains_address(address) {
            return None;
        }
        u16::try_from(number(address) - number(self.cidr.address())).ok()
    }

    /// Whether the address has rested for as long as its pool wants.
    pub(crate) fn has_rested(since: Timestamp, now: Timestamp, cooldown: u32) -> bool {
        now.duration_since(since).as_secs() >= i64::from(cooldown)
    }

    /// The next address after the one given out last that is free, is in the pool and that `taken` does not name.
    pub(crate) fn next_free(
        &self,
        now: Timestamp,
        cooldown: u32,
        pool: &AddressSet,
        taken: impl Fn(IpAddr) -> bool,
    ) -> Option<u16> {
        let size = self.size();
        let first = self.last.map_or(0, |last| u32::from(last) + 1);
        (0..size).find_map(|step| {
            let ordinal = u16::try_from((first + step) % size).ok()?;
            let free = match self.slots.get(&ordinal) {
                None => true,
                Some(Slot::Resting(since)) => Block::has_rested(*since, now, cooldown),
                Some(Slot::Held(_) | Slot::Kept(_) | Slot::Lent(_)) => false,
            };
            let address = self.address(ordinal);
            (free && pool.contains(address) && !taken(address)).then_some(ordinal)
        })
    }

    /// How many addresses are held, kept or lent.
    pub(crate) fn used(&self) -> usize {
        self.slots.values().filter(|slot| !matches!(slot, Slot::Resting(_))).count()
    }

    /// Whether a Pod of this node has an address of it, as far as is known.
    pub(crate) fn is_in_use(&self) -> bool {
        self.slots.values().any(|slot| matches!(slot, Slot::Held(_)))
    }

    /// Takes what a look at the node saw of a block that the journal does not have: it is not to be used before one did.
    pub(crate) fn take_look(&mut self, now: Duration, seen: Vec<(IpAddr, Holder)>) {
        let first = *self.unseen_since.get_or_insert(now);
        if !seen.is_empty() {
            self.unseen_since = None;
        } else if now.saturating_sub(first) >= APART {
            self.slots.retain(|_, slot| !matches!(slot, Slot::Held(_)));
            self.proven = true;
        }
        // Of a loan only its lender can say whether it was given.
        if self.lender.is_some() || !matches!(self.state, State::Adopting | State::Verifying) {
            return;
        }
        for (address, holder) in seen {
            let ordinal = self.ordinal(address);
            let said = ordinal.and_then(|ordinal| self.slots.get(&ordinal));
            if !matches!(said, Some(Slot::Held(_) | Slot::Lent(_))) {
                self.slots.extend(ordinal.map(|ordinal| (ordinal, Slot::Held(holder))));
            }
        }
        self.proven = true;
    }

    /// The allocations that its object should have.
    pub(crate) fn allocations(&self) -> Vec<IpAllocation> {
        self.slots.iter().filter_map(|(ordinal, slot)| slot.allocation(*ordinal)).collect()
    }

    /// Whether its object is known to have the allocations that it should.
    pub(crate) fn is_written(&self) -> bool {
        let Some(stored) = &self.stored else { return false };
        let mut slots = self.slots.iter().filter(|(_, slot)| !matches!(slot, Slot::Resting(_)));
        let said = stored
            .iter()
            .all(|one| slots.next().is_some_and(|(ordinal, slot)| slot.is_said_by(*ordinal, one)));
        said && slots.next().is_none()
    }

    /// The object's spec with these allocations.
    pub(crate) fn spec(&self, node: &str, allocations: Vec<IpAllocation>) -> IpBlockSpec {
        let lender = self.lender.as_ref();
        IpBlockSpec {
            epoch: self.epoch,
            lender: lender.map(|lender| lender.name.clone()),
            lender_node: lender.map(|lender| lender.node.clone()),
            fixed: lender.is_some_and(|lender| lender.fixed),
            transfer: lender.is_some_and(|lender| lender.transfer),
            allocations,
            ..IpBlockSpec::new(self.cidr, node, self.pool.clone())
        }
    }

    /// As the journal has it.
    pub(crate) fn owned(&self) -> Owned {
        Owned {
            cidr: self.cidr.into(),
            pool: self.pool.clone(),
            uid: self.uid.clone(),
            epoch: self.epoch,
            boot: self.boot.clone(),
            lender: self.lender.as_ref().map(|lender| (lender.name.clone(), lender.node.clone())),
            last: self.last,
            slots: self.slots.clone(),
        }
    }

    pub(crate) fn from_owned(owned: &Owned) -> Block {
        let lender =
            owned.lender.clone().map(|(name, node)| Lender { name, node, fixed: false, transfer: false });
        Block {
            epoch: owned.epoch,
            uid: owned.uid.clone(),
            boot: owned.boot.clone(),
            lender,
            last: owned.last,
            slots: owned.slots.clone(),
            owned: true,
            ..Block::new(owned.prefix(), &owned.pool, State::Ready)
        }
    }
}
