//! What each block needs of the API server next, one request at a time, and when.
use std::time::Duration;

use plainroute_config::{IpAllocation, IpBlockSpec};

use super::{Ipam, Purpose};
use crate::{
    Request, Slot,
    block::{Block, State},
};

impl Ipam {
    pub(super) fn drive(&mut self) {
        if !self.settings.has_server {
            return;
        }
        let now = self.now.uptime;
        let ready =
            |block: &Block| block.call.is_none() && block.retry_at <= now && Ipam::needs_request(block);
        let names: Vec<_> =
            self.blocks.iter().filter(|(_, block)| ready(block)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(request) = self.blocks.get(&name).and_then(|block| self.next_request(&name, block))
            else {
                continue;
            };
            let call = self.ask(Purpose::Block(name.clone()), request);
            self.blocks.get_mut(&name).into_iter().for_each(|block| block.call = Some(call));
        }
        self.check_loans();
    }

    /// When a block is to be driven, if not by what comes in.
    pub(super) fn block_wakes_at(&self, block: &Block) -> Option<Duration> {
        if !self.settings.has_server || block.call.is_some() {
            return self.tidy_wakes_at(block);
        }
        let needs = Ipam::needs_request(block).then_some(block.retry_at);
        [needs, self.tidy_wakes_at(block)].into_iter().flatten().min()
    }

    /// Whether there is something to ask the API server for it.
    fn needs_request(block: &Block) -> bool {
        match block.state {
            State::Ready => !block.is_written(),
            State::Lost => false,
            // What of it is in use is to be seen first.
            State::Verifying if !block.owned && !block.proven => false,
            State::TakingOver
            | State::Creating
            | State::Unsure
            | State::Adopting
            | State::Verifying
            | State::Asking
            | State::Releasing => true,
        }
    }

    fn next_request(&self, name: &str, block: &Block) -> Option<Request> {
        let (name, uid, version) = (name.to_owned(), block.uid.clone(), block.version.clone());
        let known = !version.is_empty();
        let spec = |allocations| block.spec(&self.settings.node, allocations);
        Some(match block.state {
            State::TakingOver => Request::DeleteOfFenced { name, uid, version, node: block.before.clone() },
            State::Creating => Request::Create { name, spec: spec(self.expected(block)) },
            State::Unsure => Request::Get { name },
            State::Adopting if known => {
                Request::Update { name, uid, version, spec: spec(block.allocations()) }
            }
            State::Adopting => Request::Get { name },
            State::Verifying => Request::Within(IpBlockSpec::within_of(block.cidr)),
            State::Asking => Request::Get { name: block.lender.as_ref()?.name.clone() },
            State::Ready if block.stored.is_none() => Request::Get { name },
            State::Ready => self.update(name, uid, version, spec(block.allocations())),
            State::Releasing if known => self.delete(name, uid, version),
            State::Releasing => Request::Get { name },
            State::Lost => return None,
        })
    }

    #[cfg(not(test))]
    fn delete(&self, name: String, uid: String, version: String) -> Request {
        Request::Delete { name, uid, version }
    }

    #[cfg(not(test))]
    fn update(&self, name: String, uid: String, version: String, spec: IpBlockSpec) -> Request {
        Request::Update { name, uid, version, spec }
    }

    #[cfg(test)]
    fn delete(&self, name: String, uid: String, version: String) -> Request {
        let any = self.is_broken(crate::sim::Mutant::IgnoreVersions);
        let (uid, version) = if any { (String::new(), String::new()) } else { (uid, version) };
        Request::Delete { name, uid, version }
    }

    #[cfg(test)]
    fn update(&self, name: String, uid: String, version: String, spec: IpBlockSpec) -> Request {
        let any = self.is_broken(crate::sim::Mutant::IgnoreVersions);
        let (uid, version) = if any { (String::new(), String::new()) } else { (uid, version) };
        Request::Update { name, uid, version, spec }
    }

    /// The allocations that a block will have as soon as it is there: those of the Pods that wait for it, so that no second write is
    /// needed to say them.
    fn expected(&self, block: &Block) -> Vec<IpAllocation> {
        let mut expected = block.clone();
        let mut elsewhere = std::collections::BTreeSet::new();
        for job in self.jobs.values() {
            for want in
                job.wants.iter().filter(|want| want.chosen.is_none() && want.family == block.cidr.family())
            {
                let ordinal = match want.fixed {
                    Some(address) => {
                        expected.ordinal(address).filter(|ordinal| !expected.slots.contains_key(ordinal))
                    }
                    None if !want.look_up.is_empty() || !want.pools.contains(&block.pool) => None,
                    None if block.lender.is_some() => {
                        let name = IpBlockSpec::name_of(block.cidr);
                        let asks = want.asking.as_ref() == Some(&name);
                        Some(0).filter(|_| asks && expected.slots.is_empty())
                    }
                    None => self.pool(&block.pool).and_then(|pool| {
                        expected.next_free(self.now.wall, 0, &pool.addresses, |address| {
                            elsewhere.contains(&address)
                        })
                    }),
                };
                if let Some(ordinal) = ordinal {
                    elsewhere.insert(expected.address(ordinal));
                    expected.slots.insert(ordinal, Slot::Held(job.holder()));
                    expected.last = Some(ordinal);
                }
            }
        }
        expected.allocations()
    }
}
