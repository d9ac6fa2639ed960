//! Keeps a block with free addresses at hand for each pool in use, and gives back what nobody needs.
use std::{collections::BTreeMap, time::Duration};

use super::{Ipam, PoolKey};
use crate::{
    Slot,
    block::{Block, State},
};

/// A block that is empty for so long, and not the spare one, is given back.
const EMPTY: Duration = Duration::from_secs(30);
/// A spare one of a pool that no Pod here uses, after so long.
const UNUSED: Duration = Duration::from_secs(600);

impl Ipam {
    pub(super) fn tidy(&mut self) {
        if !self.settings.has_server {
            return;
        }
        self.forget_rest();
        self.end_loans();
        let mut stock: BTreeMap<PoolKey, Stock> = BTreeMap::new();
        for (name, block) in self.blocks.iter().filter(|(_, block)| block.serves() && block.lender.is_none())
        {
            let stock = stock.entry((block.pool.clone(), block.cidr.family())).or_default();
            stock.in_use |= block.is_in_use();
            let resting = block.slots.len()
                + self.pencilled.keys().filter(|one| block.ordinal(**one).is_some()).count();
            stock.free += usize::try_from(block.size()).unwrap_or(usize::MAX).saturating_sub(resting);
            if let Some(since) = block.empty_since {
                stock.empty.push((name.clone(), since, block.size()));
            }
        }
        stock.values().for_each(|stock| self.give_back(stock));
        stock.retain(|_, stock| stock.in_use);
        let now = self.now.uptime;
        self.search_ahead_at.retain(|key, at| stock.contains_key(key) && *at > now);
        stock.iter().for_each(|(key, stock)| self.claim_ahead(key, stock));
    }

    /// Addresses that have rested are free, and a block without any other is empty.
    fn forget_rest(&mut self) {
        let now = self.now;
        // For how long an address rests is its pool's to say; until the pools are known, all rest.
        let Some(pools) = self.pools.as_ref() else { return };
        for block in self.blocks.values_mut().filter(|block| block.state == State::Ready) {
            let cooldown = pools.get(&block.pool).map_or(0, |pool| pool.spec.ip_cooldown_seconds);
            block.slots.retain(|_, slot| match slot {
                // A clock that was put back must not make it rest for longer than the pool wants.
                Slot::Resting(since) if *since > now.wall => {
                    *since = now.wall;
                    true
                }
                Slot::Resting(since) => !Block::has_rested(*since, now.wall, cooldown),
                Slot::Held(_) | Slot::Kept(_) | Slot::Lent(_) => true,
            });
            let chosen = self.pencilled.keys().any(|address| block.ordinal(*address).is_some());
            if block.slots.is_empty() && !chosen {
                block.empty_since.get_or_insert(now.uptime);
            } else {
                block.empty_since = None;
            }
        }
    }

    /// What was borrowed goes back as soon as no Pod has it, and what was asked for is withdrawn as soon as no Pod waits for it.
    fn end_loans(&mut self) {
        let wants = |name: &String, block: &Block| {
            let address = block.cidr.address();
            let asked = |job: &super::Job| {
                let open = job.wants.iter().filter(|want| want.chosen.is_none());
                open.into_iter().any(|want| want.asking.as_ref() == Some(name) || want.fixed == Some(address))
            };
            self.pencilled.contains_key(&address) || self.jobs.values().any(asked)
        };
        let over = |name: &String, block: &Block| match block.state {
            State::Asking => block.proven && !wants(name, block),
            // What seems to be held by nobody may be a Pod's that only a lost journal knew.
            State::Ready => {
                block.lender.is_some() && block.proven && block.slots.is_empty() && !wants(name, block)
            }
            State::Lost => block.proven && !block.is_in_use(),
            State::TakingOver
            | State::Creating
            | State::Unsure
            | State::Adopting
            | State::Verifying
            | State::Releasing => false,
        };
        let over: Vec<_> = self
            .blocks
            .iter()
            .filter(|(name, block)| over(name, block))
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            let lost =
                self.blocks.get(&name).filter(|block| block.state == State::Lost).map(|block| block.cidr);
            match lost {
                Some(cidr) => self.commit(crate::Record::Gone { cidr: cidr.into() }),
                None => self.give_up(&name),
            }
        }
    }

    fn give_back(&mut self, stock: &Stock) {
        let now = self.now.uptime;
        // Single addresses are claimed as they are needed; of blocks the first empty one is the spare.
        let mut spare = stock.in_use;
        for (name, since, size) in &stock.empty {
            let is_spare = spare && *size > 1;
            spare = spare && !is_spare;
            let rests = if *size == 1 || stock.in_use { EMPTY } else { UNUSED };
            if !is_spare && now.saturating_sub(*since) >= rests {
                self.give_up(name);
            }
        }
    }

    /// Claims the next block while there is time, when fewer than a quarter of one is left.
    fn claim_ahead(&mut self, key: &PoolKey, stock: &Stock) {
        let Some(pool) = self.pool(&key.0).filter(|pool| pool.serves_node) else { return };
        let size = 1_usize << (key.1.max_length() - pool.spec.block_size(key.1)).min(12);
        let rests = self.search_ahead_at.contains_key(key) || self.searches.contains_key(key);
        if size > 1 && stock.free * 4 < size && !rests {
            self.searches.insert(key.clone(), super::Search::default());
        }
    }

    /// When an empty or resting block is to be looked at again, whatever comes in.
    pub(super) fn tidy_wakes_at(&self, block: &Block) -> Option<Duration> {
        if block.state != State::Ready || !self.settings.has_server {
            return None;
        }
        let rests = block.slots.values().any(|slot| matches!(slot, Slot::Resting(_)));
        let empty = block.empty_since.is_some() && block.lender.is_none();
        (rests || empty).then(|| self.now.uptime + Duration::from_secs(5))
    }
}

/// What there is of a pool on this node.
#[derive(Default)]
struct Stock {
    in_use: bool,
    free: usize,
    empty: Vec<(String, Duration, u32)>,
}
