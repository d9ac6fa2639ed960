//! Which address a Pod gets: the very one that it asks for or that is kept for it; else the next of an own block, of a block yet
//! to be claimed, or of another node's.
use std::{net::IpAddr, time::Duration};

use plainroute_config::IpBlockSpec;

use super::{Ipam, Purpose, add::Progress, backoff, hash, is_block, search::Found, single};
use crate::{
    Answer, BlockObject, Refusal, Request, Slot, Ticket,
    block::{Block, Lender, State},
};

/// After so many failures in a row a Pod is told rather than kept waiting.
const PATIENCE: u32 = 3;
/// How often a fixed address is gone after anew, when others are faster.
const ROUNDS: u32 = 16;

impl Ipam {
    pub(super) fn advance_want(&mut self, ticket: Ticket, index: usize) -> Progress {
        let Some(want) = self.want(ticket, index) else { return Progress::Waits };
        if let Some(address) = want.fixed {
            return self.advance_fixed(ticket, index, address);
        }
        if let Some(pool) = want.look_up.front().cloned() {
            return self.look_up(ticket, index, pool);
        }
        if let Some(address) = self.next_own(ticket, index) {
            return Progress::Chose(address);
        }
        self.wait_for_blocks(ticket, index)
    }

    /// Whether an address is kept for the Pod: here, or by another node.
    fn look_up(&mut self, ticket: Ticket, index: usize, pool: String) -> Progress {
        let (Some(job), Some(want)) = (self.jobs.get(&ticket), self.want(ticket, index)) else {
            return Progress::Waits;
        };
        let kept_here = self.blocks.values().filter(|block| block.serves()).find_map(|block| {
            let fits = want.pools.contains(&block.pool) && block.cidr.family() == want.family;
            let ours = |slot: &Slot| matches!(slot, Slot::Kept(kept) if kept.is_for(&job.add.namespace, &job.add.name));
            let (ordinal, _) = block.slots.iter().find(|(_, slot)| fits && ours(slot))?;
            let address = block.address(*ordinal);
            self.pool_with(&want.pools, address).map(|_| address)
        });
        if let Some(address) = kept_here {
            self.want_mut(ticket, index).into_iter().for_each(|want| want.fixed = Some(address));
            return self.advance_fixed(ticket, index, address);
        }
        if !self.settings.has_server {
            // Nobody else is known who could keep one.
            self.want_mut(ticket, index).into_iter().for_each(|want| want.look_up.clear());
            return self.advance_want(ticket, index);
        }
        self.read(ticket, index, Request::OfPool(pool), Purpose::LookUp(ticket, index))
    }

    /// Begins a read for a want, unless one is under way or the last one failed just now.
    fn read(&mut self, ticket: Ticket, index: usize, request: Request, purpose: Purpose) -> Progress {
        let now = self.now.uptime;
        let Some(want) = self.want(ticket, index) else { return Progress::Waits };
        if want.failures >= PATIENCE {
            return Progress::Ends(Refusal::NoServer(want.waits_for.clone()));
        }
        if want.call.is_none() && want.retry_at <= now {
            let call = self.ask(purpose, request);
            self.want_mut(ticket, index).into_iter().for_each(|want| want.call = Some(call));
        }
        Progress::Waits
    }

    pub(super) fn take_read(
        &mut self,
        ticket: Ticket,
        index: usize,
        call: crate::Call,
        answer: Answer,
        located: bool,
    ) {
        let now = self.now.uptime;
        let kept = self.kept_elsewhere(ticket, index, &answer);
        let Some(want) = self.want_mut(ticket, index).filter(|want| want.call == Some(call)) else { return };
        want.call = None;
        match answer {
            Answer::Objects(objects) if located => {
                (want.failures, want.located) = (0, Some(objects));
            }
            Answer::Objects(_) => {
                want.failures = 0;
                want.look_up.pop_front();
                want.fixed = kept;
            }
            Answer::Failed(what) | Answer::Refused(what) => {
                want.failures += 1;
                want.retry_at = now + backoff(want.failures);
                want.waits_for = what;
            }
            Answer::Object(_) | Answer::Deleted | Answer::Missing | Answer::Exists | Answer::Conflict => {
                want.failures += 1;
                want.retry_at = now + backoff(want.failures);
                want.waits_for = "the answer does not fit the question".to_owned();
            }
        }
    }

    /// The address that the blocks of other nodes say is kept for the Pod, or still held by the one before.
    fn kept_elsewhere(&self, ticket: Ticket, index: usize, answer: &Answer) -> Option<IpAddr> {
        let (job, want) = self.jobs.get(&ticket).zip(self.want(ticket, index))?;
        let Answer::Objects(objects) = answer else { return None };
        let others =
            objects.iter().filter(|object| object.spec.node != self.settings.node && is_block(&object.spec));
        others.filter(|object| object.spec.cidr.prefix().family() == want.family).find_map(|object| {
            let block = Block::new(object.spec.cidr.prefix(), "", State::Ready);
            let ours = |one: &&plainroute_config::IpAllocation| {
                one.stateful_set.is_some()
                    && one.namespace.as_ref() == Some(&job.add.namespace)
                    && one.name.as_ref() == Some(&job.add.name)
            };
            let address = object.spec.allocations.iter().find(ours).map(|one| block.address(one.ordinal))?;
            self.pool_with(&want.pools, address).map(|_| address)
        })
    }

    /// The pool of these that has the address.
    fn pool_with<'a>(&self, pools: &'a [String], address: IpAddr) -> Option<&'a String> {
        pools.iter().find(|name| self.pool(name).is_some_and(|pool| pool.addresses.contains(address)))
    }

    /// The next free address of a block of this node.
    fn next_own(&self, ticket: Ticket, index: usize) -> Option<IpAddr> {
        let want = self.want(ticket, index)?;
        want.pools.iter().find_map(|name| {
            let pool = self.pool(name)?;
            let blocks = self
                .blocks
                .values()
                .filter(|block| block.serves() && block.pool == *name && block.cidr.family() == want.family);
            blocks.into_iter().find_map(|block| {
                let taken =
                    |address| self.pencilled.contains_key(&address) || self.is_elsewhere(block, address);
                let cooldown = pool.spec.ip_cooldown_seconds;
                block
                    .next_free(self.now.wall, cooldown, &pool.addresses, taken)
                    .map(|ordinal| block.address(ordinal))
            })
        })
    }

    /// Whether a more specific block of this node has the address, as a loan does that outlived its lender.
    fn is_elsewhere(&self, block: &Block, address: IpAddr) -> bool {
        self.own_block(address).is_some_and(|(_, other)| other.cidr != block.cidr)
    }

    /// Claims a block; without a free one, borrows.
    fn wait_for_blocks(&mut self, ticket: Ticket, index: usize) -> Progress {
        let Some(want) = self.want(ticket, index) else { return Progress::Waits };
        let family = want.family;
        let next = want.pools.iter().find(|pool| !want.exhausted.contains(*pool)).cloned();
        if let (Some(pool), true) = (&next, self.settings.has_server) {
            self.searches.entry((pool.clone(), family)).or_default();
            self.want_mut(ticket, index)
                .into_iter()
                .for_each(|want| want.waits_for = format!("for a block of {pool}"));
            return Progress::Waits;
        }
        if want.asking.as_ref().is_some_and(|name| self.blocks.contains_key(name)) {
            return Progress::Waits;
        }
        let Some(want) = self.want_mut(ticket, index) else { return Progress::Waits };
        match want.loans.pop_front() {
            Some((address, pool, lender)) => {
                want.waits_for = format!("for the loan of {address} by node {}", lender.node);
                self.begin_loan(ticket, index, address, &pool, lender);
                Progress::Waits
            }
            None => Progress::Ends(Refusal::Exhausted(want.pools.clone())),
        }
    }

    /// What a search found out is told to the jobs that wait for it.
    pub(super) fn conclude(&mut self, pool: &str, family: plainroute_bgp::AfiSafi, found: &Found) {
        let waits = |job: &super::Job| {
            let of = |want: &&super::add::Want| {
                want.chosen.is_none() && want.fixed.is_none() && want.family == family
            };
            job.wants.iter().filter(of).any(|want| want.pools.iter().any(|name| name == pool))
        };
        let tickets: Vec<_> =
            self.jobs.iter().filter(|(_, job)| waits(job)).map(|(ticket, _)| *ticket).collect();
        if let (Found::Nothing(objects), false) = (found, tickets.is_empty()) {
            let others = objects.iter().map(|object| object.spec.node.as_str());
            let own = self.settings.node.clone();
            self.is_in_the_way(others.filter(|node| *node != own));
        }
        for ticket in tickets {
            match found {
                Found::Nothing(objects) => {
                    let container = self.jobs.get(&ticket).map(|job| job.add.attachment.container_id.clone());
                    let loans = self.loans_of(pool, family, objects, hash(&[&container.unwrap_or_default()]));
                    let Some(job) = self.jobs.get_mut(&ticket) else { continue };
                    for want in
                        job.wants.iter_mut().filter(|want| want.family == family && want.chosen.is_none())
                    {
                        if want.pools.iter().any(|name| name == pool)
                            && want.exhausted.insert(pool.to_owned())
                        {
                            want.loans.extend(loans.iter().cloned());
                        }
                    }
                }
                Found::Trouble(what) => self.end_job(ticket, Refusal::NoServer(what.clone())),
            }
        }
    }

    fn advance_fixed(&mut self, ticket: Ticket, index: usize, address: IpAddr) -> Progress {
        let busy = |holder: String| Progress::Ends(Refusal::Busy { address, holder });
        let Some(job) = self.jobs.get(&ticket) else { return Progress::Waits };
        if let Some((_, block)) = self.own_block(address) {
            let pencilled = self.pencilled.get(&address).is_some_and(|by| *by != ticket);
            let slot = block.ordinal(address).and_then(|ordinal| block.slots.get(&ordinal));
            return match (block.state, slot) {
                (State::Ready, _) if !block.proven || pencilled => Progress::Waits,
                (State::Ready, None | Some(Slot::Resting(_))) => Progress::Chose(address),
                (State::Ready, Some(Slot::Kept(kept))) if kept.is_for(&job.add.namespace, &job.add.name) => {
                    Progress::Chose(address)
                }
                (State::Ready, Some(slot)) => busy(slot.who()),
                (State::Lost, _) => busy("in a block that this node has lost".to_owned()),
                _ if block.failures >= PATIENCE => {
                    Progress::Ends(Refusal::NoServer(format!("the IPBlock {} cannot be written", block.cidr)))
                }
                _ => Progress::Waits,
            };
        }
        let asks = IpBlockSpec::transfer_name(single(address), &self.settings.node);
        if self.blocks.contains_key(&asks) {
            return Progress::Waits;
        }
        if !self.settings.has_server {
            return busy("in no block of this node, and there is no API server".to_owned());
        }
        let Some(want) = self.want_mut(ticket, index) else { return Progress::Waits };
        let Some(objects) = want.located.take() else {
            let within = IpBlockSpec::within_of(single(address));
            return self.read(ticket, index, Request::Within(within), Purpose::Locate(ticket, index));
        };
        want.rounds += 1;
        if want.rounds > ROUNDS {
            return busy("taken by other nodes again and again".to_owned());
        }
        self.go_where_it_is(ticket, index, address, &objects)
    }

    /// Gets hold of an address that is in no block of this node.
    fn go_where_it_is(
        &mut self,
        ticket: Ticket,
        index: usize,
        address: IpAddr,
        objects: &[BlockObject],
    ) -> Progress {
        let busy = |holder: String| Progress::Ends(Refusal::Busy { address, holder });
        let Some((want, job)) = self.want(ticket, index).zip(self.jobs.get(&ticket)) else {
            return Progress::Waits;
        };
        // The pool may have been edited since the Pod asked.
        let Some(pool) = self.pool_with(&want.pools, address).cloned() else {
            return busy("of none of its pools any more".to_owned());
        };
        let (namespace, pod) = (job.add.namespace.clone(), job.add.name.clone());
        let covers = |object: &&BlockObject| {
            !object.spec.transfer && object.spec.cidr.prefix().contains_address(address)
        };
        let owner = objects.iter().filter(covers).max_by_key(|object| object.spec.cidr.prefix().length());
        let Some(owner) = owner else { return self.claim_covering(address, &pool, objects, want.family) };
        let cidr = owner.spec.cidr.prefix();
        if owner.spec.node == self.settings.node {
            self.adopt(owner);
            return Progress::Waits;
        }
        if self.fenced.contains(&owner.spec.node) && owner.spec.lender.is_none() {
            self.take_over(owner);
            return Progress::Waits;
        }
        let node = owner.spec.node.clone();
        self.is_in_the_way(std::iter::once(node.as_str()));
        let ordinal = Block::new(cidr, "", State::Ready).ordinal(address);
        let slot = owner.spec.allocations.iter().find(|one| Some(one.ordinal) == ordinal).map(Slot::of);
        match slot {
            // It is asked for before the Pod that has it is gone, so that it moves as soon as that is.
            None | Some(Slot::Held(_)) if owner.spec.lender.is_none() => {}
            Some(Slot::Kept(kept)) if kept.is_for(&namespace, &pod) && owner.spec.lender.is_none() => {}
            Some(slot) => return busy(format!("{} on node {}", slot.who(), owner.spec.node)),
            None => return busy(format!("borrowed by node {}", owner.spec.node)),
        }
        let name = owner.name.clone();
        let lender = Lender { name, node, fixed: true, transfer: cidr.is_host() };
        self.begin_loan(ticket, index, address, &pool, lender);
        Progress::Waits
    }

    /// Claims the block of the pool that covers a fixed address.
    fn claim_covering(
        &mut self,
        address: IpAddr,
        pool: &str,
        objects: &[BlockObject],
        family: plainroute_bgp::AfiSafi,
    ) -> Progress {
        let busy = |holder: String| Progress::Ends(Refusal::Busy { address, holder });
        let block = self.pool(pool).and_then(|pool| pool.carvings.get(&family)?.block_of(address));
        let Some(cidr) = block else { return busy(format!("no longer of IPPool {pool}")) };
        let in_the_way =
            |object: &&BlockObject| is_block(&object.spec) && object.spec.cidr.prefix().overlaps(cidr);
        if let Some(other) = objects.iter().find(in_the_way) {
            return busy(format!("in {cidr}, of which node {} has {}", other.spec.node, other.spec.cidr));
        }
        if self.blocks.values().any(|block| !block.is_transfer() && block.cidr.overlaps(cidr)) {
            return Progress::Waits;
        }
        self.blocks.insert(IpBlockSpec::name_of(cidr), Block::new(cidr, pool, State::Creating));
        Progress::Waits
    }

    /// Asks another node for an address.
    fn begin_loan(&mut self, ticket: Ticket, index: usize, address: IpAddr, pool: &str, lender: Lender) {
        let cidr = single(address);
        let name = if lender.transfer {
            IpBlockSpec::transfer_name(cidr, &self.settings.node)
        } else {
            IpBlockSpec::name_of(cidr)
        };
        if !self.blocks.contains_key(&name) {
            let patience = if lender.fixed { super::lend::WAIT_FIXED } else { super::lend::WAIT };
            // In time to be told who has it.
            let end = self.jobs.get(&ticket).map_or(Duration::MAX, |job| job.deadline);
            let give_up_at = (self.now.uptime + patience).min(end.saturating_sub(super::lend::TELL));
            let block = Block {
                epoch: 0,
                lender: Some(lender),
                give_up_at,
                ..Block::new(cidr, pool, State::Creating)
            };
            self.blocks.insert(name.clone(), block);
        }
        if let Some(want) = self.want_mut(ticket, index) {
            want.asking = Some(name);
        }
    }
}
