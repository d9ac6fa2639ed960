//! The search for a free block of a pool. The first try goes by the hash of pool and node alone, without a list; only where
//! that one is taken are the pool's blocks listed.
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use plainroute_bgp::{AfiSafi, Prefix};
use plainroute_config::IpBlockSpec;

use super::{Ipam, PoolKey, Purpose, backoff, hash, is_block};
use crate::{
    Answer, BlockObject, Call, Request, Slot,
    block::{Block, Lender, State},
};

/// How often other nodes may be faster before the search ends.
const TRIES: u32 = 24;
/// How many failures in a row end it.
const FAILURES: u32 = 3;
/// After a search ahead of need that found nothing.
const REST: Duration = Duration::from_secs(30);
/// Of how many addresses a loan is tried.
const LOANS: usize = 4;

/// One search, for the jobs that wait or ahead of need.
#[derive(Debug, Default)]
pub(super) struct Search {
    call: Option<Call>,
    failures: u32,
    retry_at: Duration,
    tries: u32,
    /// The block that is being claimed.
    current: Option<(String, Prefix)>,
    /// What was tried in vain.
    avoid: Vec<Prefix>,
    /// The pool's blocks, where they had to be listed.
    listed: Option<Vec<BlockObject>>,
}

/// How a search ends without a block.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no free block; these are the pool's.
    Nothing(Vec<BlockObject>),
    /// It cannot be known.
    Trouble(String),
}

impl Ipam {
    pub(super) fn advance_searches(&mut self) {
        if !self.settings.has_server {
            return self.searches.clear();
        }
        let keys: Vec<_> = self.searches.keys().cloned().collect();
        for key in keys {
            let Some(mut search) = self.searches.remove(&key) else { continue };
            match self.advance_search(&key, &mut search) {
                Step::Goes => drop(self.searches.insert(key, search)),
                Step::Done => {}
                Step::Ends(found) => {
                    self.search_ahead_at.insert(key.clone(), self.now.uptime + REST);
                    self.conclude(&key.0, key.1, &found);
                }
            }
        }
    }

    fn advance_search(&mut self, key: &PoolKey, search: &mut Search) -> Step {
        if search.call.is_some() {
            return Step::Goes;
        }
        if let Some((name, cidr)) = &search.current {
            match self.blocks.get(name) {
                Some(block) if block.serves() => return Step::Done,
                Some(block) if block.failures >= FAILURES => {
                    // The block itself is pursued further, and serves the Pod's next attempt.
                    return Step::Ends(Found::Trouble(format!("the IPBlock {cidr} cannot be written")));
                }
                Some(block) if !matches!(block.state, State::Releasing | State::Lost) => return Step::Goes,
                Some(_) | None => {
                    search.avoid.push(*cidr);
                    search.current = None;
                    search.listed = None;
                }
            }
        }
        if search.failures >= FAILURES {
            return Step::Ends(Found::Trouble(format!("the IPBlocks of IPPool {} cannot be listed", key.0)));
        }
        if search.retry_at > self.now.uptime {
            return Step::Goes;
        }
        if search.tries >= TRIES {
            return Step::Ends(Found::Trouble(format!(
                "other nodes took {TRIES} blocks of IPPool {} first",
                key.0
            )));
        }
        if search.listed.is_none() && search.tries > 0 {
            search.call = Some(self.ask(Purpose::Search(key.clone()), Request::OfPool(key.0.clone())));
            return Step::Goes;
        }
        search.tries += 1;
        if let Some(cidr) = self.candidate(key, search) {
            let name = IpBlockSpec::name_of(cidr);
            self.blocks.insert(name.clone(), Block::new(cidr, &key.0, State::Creating));
            search.current = Some((name, cidr));
            return Step::Goes;
        }
        let Some(objects) = search.listed.take() else { return Step::Goes };
        let fenced =
            |object: &&BlockObject| self.fenced.contains(&object.spec.node) && is_block(&object.spec);
        let fits = |object: &&BlockObject| {
            let cidr = object.spec.cidr.prefix();
            // What this node borrows, or asks to, of that very block is no block of its own.
            let own = self.blocks.values().any(|block| block.cidr.overlaps(cidr) && block.lender.is_none());
            cidr.family() == key.1 && !own && !search.avoid.contains(&cidr)
        };
        match objects.iter().find(|object| fenced(object) && fits(object)).cloned() {
            Some(object) => {
                search.current = Some((object.name.clone(), object.spec.cidr.prefix()));
                self.take_over(&object);
                Step::Goes
            }
            None => Step::Ends(Found::Nothing(objects)),
        }
    }

    /// The first block that nothing known overlaps.
    fn candidate(&self, key: &PoolKey, search: &Search) -> Option<Prefix> {
        let carving = self.pool(&key.0)?.carvings.get(&key.1)?;
        let own = self.blocks.values().filter(|block| !block.is_transfer()).map(|block| block.cidr);
        let listed = search.listed.iter().flatten();
        // A loan lies in its lender's block; where that is gone, its address may be claimed with the block around it.
        let listed = listed.filter(|object| is_block(&object.spec)).map(|object| object.spec.cidr.prefix());
        let taken = Taken::of(own.chain(listed).chain(search.avoid.iter().copied()));
        carving.from(hash(&[&key.0, &self.settings.node])).find(|cidr| !taken.overlaps(*cidr))
    }

    pub(super) fn take_list(&mut self, key: &PoolKey, call: Call, answer: Answer) {
        let now = self.now.uptime;
        let Some(search) = self.searches.get_mut(key).filter(|search| search.call == Some(call)) else {
            return;
        };
        search.call = None;
        match answer {
            Answer::Objects(objects) => (search.failures, search.listed) = (0, Some(objects)),
            _ => {
                search.failures += 1;
                search.retry_at = now + backoff(search.failures);
            }
        }
    }

    /// Which addresses of other nodes' blocks may be borrowed, in an order of the caller's own.
    pub(super) fn loans_of(
        &self,
        pool: &str,
        family: AfiSafi,
        objects: &[BlockObject],
        hash: u64,
    ) -> Vec<(IpAddr, String, Lender)> {
        let Some(addresses) = self.pool(pool).map(|pool| &pool.addresses) else { return Vec::new() };
        // Neither what is borrowed already, nor what this node holds of a block that it has lost.
        let borrowed = |address| {
            let own = self.own_block(address).is_some();
            own || objects.iter().any(|object| object.spec.cidr.prefix() == super::single(address))
        };
        let mut found = Vec::new();
        for object in objects.iter().filter(|object| is_block(&object.spec) && object.spec.pool == pool) {
            let cidr = object.spec.cidr.prefix();
            let node = &object.spec.node;
            if cidr.family() != family
                || cidr.is_host()
                || *node == self.settings.node
                || self.fenced.contains(node)
            {
                continue;
            }
            let mut block = Block::new(cidr, pool, State::Ready);
            block.slots = object.spec.allocations.iter().map(|one| (one.ordinal, Slot::of(one))).collect();
            block.last = u16::try_from(hash % u64::from(block.size())).ok();
            if let Some(ordinal) = block.next_free(self.now.wall, 0, addresses, borrowed) {
                let (name, node) = (object.name.clone(), node.clone());
                let lender = Lender { name, node, fixed: false, transfer: false };
                found.push((block.address(ordinal), pool.to_owned(), lender));
            }
        }
        if !found.is_empty() {
            let start = usize::try_from(hash % found.len() as u64).unwrap_or(0);
            found.rotate_left(start);
            found.truncate(LOANS);
        }
        found
    }
}

enum Step {
    Goes,
    Done,
    Ends(Found),
}

/// Addresses that are taken: intervals that neither overlap nor touch.
struct Taken(BTreeMap<IpAddr, IpAddr>);

impl Taken {
    fn of(prefixes: impl Iterator<Item = Prefix>) -> Taken {
        let mut sorted: Vec<_> = prefixes.map(|prefix| (prefix.address(), prefix.last_address())).collect();
        sorted.sort_unstable();
        let mut taken: BTreeMap<IpAddr, IpAddr> = BTreeMap::new();
        for (first, last) in sorted {
            match taken.last_entry() {
                // Sorted by their beginning, so the one before reaches this one or lies before it.
                Some(mut before) if first <= *before.get() => {
                    let end = last.max(*before.get());
                    before.insert(end);
                }
                _ => drop(taken.insert(first, last)),
            }
        }
        Taken(taken)
    }

    fn overlaps(&self, prefix: Prefix) -> bool {
        let before = self.0.range(..=prefix.last_address()).next_back();
        before.is_some_and(|(_, last)| *last >= prefix.address())
    }
}
