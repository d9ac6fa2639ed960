//! Loans from both sides once they are asked for: the borrower waits for the lender's word, the lender looks now and then whether
//! the loan is still there.
use std::{net::IpAddr, time::Duration};

use plainroute_config::IpBlockSpec;

use super::{Ipam, Purpose, backoff, single};
use crate::{Answer, BlockObject, Call, Record, Refusal, Request, Slot, block::State};

/// How long a loan of any address is waited for; there are others.
pub(super) const WAIT: Duration = Duration::from_secs(2);
/// How long one of a fixed address is.
pub(super) const WAIT_FIXED: Duration = Duration::from_secs(8);
/// So long before a Pod's own time is over its loan is given up.
pub(super) const TELL: Duration = Duration::from_secs(1);
/// How often the lender is looked at meanwhile, at most.
const SLOWEST_LOOK: u32 = 3;
/// How often a lender looks whether its loans are still there.
const CHECK: Duration = Duration::from_secs(30);
/// The same where a watch does not show the loan, or its node is fenced.
const CHECK_SOON: Duration = Duration::from_secs(1);

/// When a lent address is looked after next.
#[derive(Debug)]
pub(super) struct LentCheck {
    call: Option<Call>,
    at: Duration,
}

impl LentCheck {
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        self.call.is_none().then_some(self.at)
    }
}

impl Ipam {
    /// The lender's block, as the borrower reads it.
    pub(super) fn lender_says(&mut self, name: &str, answer: Answer) {
        let (now, node) = (self.now.uptime, self.settings.node.clone());
        #[cfg(test)]
        let hasty = self.is_broken(crate::sim::Mutant::UseBeforeGranted);
        #[cfg(not(test))]
        let hasty = false;
        let Some(block) = self.blocks.get_mut(name) else { return };
        let address = block.cidr.address();
        let denial = match answer {
            Answer::Object(object) => match word_of(&object, address) {
                Some(Slot::Lent(lent))
                    if lent.node == node && lent.loan == block.uid && !block.is_transfer() =>
                {
                    // It is newer than what was lent by an owner before.
                    block.epoch = block.epoch.max(object.spec.epoch);
                    return self.commit_own(name);
                }
                _ if hasty && !block.is_transfer() => return self.commit_own(name),
                // Of a fixed address the Pod before may be about to go: then it is lent at once. Any other can be borrowed elsewhere.
                Some(Slot::Held(holder)) if now >= block.give_up_at || !block.is_fixed() => {
                    Some(format!("{} on node {}", Slot::Held(holder).who(), object.spec.node))
                }
                // What it says of other Pods may be a moment old: it has until then to say more.
                word if now >= block.give_up_at => {
                    let word = word.map_or("not lent".to_owned(), |slot| slot.who());
                    Some(format!("{word} by node {}", object.spec.node))
                }
                _ => None,
            },
            // A transfer is done; a loan has no lender any more.
            Answer::Missing if block.proven => Some("of a block that is gone".to_owned()),
            _ if now >= block.give_up_at => Some("of a block that cannot be read".to_owned()),
            _ => None,
        };
        let Some(denial) = denial else {
            let look = block.empty_looks();
            block.retry_at = now + backoff(look.min(SLOWEST_LOOK));
            return;
        };
        let moved = block.is_transfer() && denial == "of a block that is gone";
        block.state = State::Releasing;
        block.retry_at = now;
        if moved {
            return;
        }
        // Whoever wants this very address is told; the others go on to the next loan.
        let asks = |want: &super::add::Want| want.fixed == Some(address);
        let told = self
            .jobs
            .iter()
            .filter(|(_, job)| job.wants.iter().any(|want| want.chosen.is_none() && asks(want)));
        let told: Vec<_> = told.map(|(ticket, _)| *ticket).collect();
        for ticket in told {
            self.end_job(ticket, Refusal::Busy { address, holder: denial.clone() });
        }
    }

    /// Looks after the addresses that are lent.
    pub(super) fn check_loans(&mut self) {
        let now = self.now.uptime;
        let mut lent = Vec::new();
        for block in self.blocks.values().filter(|block| block.owned && block.state == State::Ready) {
            for (ordinal, slot) in &block.slots {
                if let Slot::Lent(one) = slot {
                    let seen = self.asked.iter().any(|object| object.uid == one.loan);
                    let soon = !seen || self.fenced.contains(&one.node);
                    lent.push((block.address(*ordinal), soon));
                }
            }
        }
        self.lent_checks.retain(|address, _| lent.iter().any(|(one, _)| one == address));
        for (address, soon) in lent {
            let first = now + if soon { CHECK_SOON } else { CHECK };
            let check = self.lent_checks.entry(address).or_insert(LentCheck { call: None, at: first });
            if soon && check.call.is_none() {
                check.at = check.at.min(now + CHECK_SOON);
            }
            if check.call.is_none() && check.at <= now {
                let name = IpBlockSpec::name_of(single(address));
                let call = self.ask(Purpose::Loan(address), Request::Get { name });
                self.lent_checks.entry(address).and_modify(|check| check.call = Some(call));
            }
        }
    }

    pub(super) fn take_loan(&mut self, address: IpAddr, call: Call, answer: Answer) {
        let now = self.now.uptime;
        let Some(check) = self.lent_checks.get_mut(&address).filter(|check| check.call == Some(call)) else {
            return;
        };
        (check.call, check.at) = (None, now + CHECK);
        let Some(lent) = self.lent(address) else { return };
        match answer {
            Answer::Object(object) if object.uid == lent.loan => {
                if self.fenced.contains(&lent.node) {
                    let BlockObject { name, uid, version, .. } = *object;
                    let request = Request::DeleteOfFenced { name, uid, version, node: lent.node };
                    let call = self.ask(Purpose::EndLoan(address), request);
                    self.lent_checks.entry(address).and_modify(|check| check.call = Some(call));
                }
            }
            // A UID never comes back.
            Answer::Object(_) | Answer::Missing => self.take_back(address, &lent.loan),
            _ => drop(self.lent_checks.entry(address).and_modify(|check| check.at = now + CHECK_SOON)),
        }
    }

    /// A fenced node's loan was deleted, or not: that it is gone is only believed when it is read.
    pub(super) fn loan_ended(&mut self, address: IpAddr, call: Call) {
        let now = self.now.uptime;
        let check = self.lent_checks.get_mut(&address).filter(|check| check.call == Some(call));
        check.into_iter().for_each(|check| (check.call, check.at) = (None, now));
    }

    pub(super) fn take_back(&mut self, address: IpAddr, loan: &str) {
        self.returned.insert(loan.to_owned());
        self.lent_checks.remove(&address);
        self.commit(Record::Return { address, at: self.now.wall });
    }

    /// To whom an address of this node's is lent. Where the borrower is this node itself, since it took the lender's block over, the
    /// loan is the more specific block.
    fn lent(&self, address: IpAddr) -> Option<crate::Lent> {
        self.blocks.values().filter(|block| block.owned).find_map(|block| {
            match block.slots.get(&block.ordinal(address)?)? {
                Slot::Lent(lent) => Some(lent.clone()),
                Slot::Held(_) | Slot::Kept(_) | Slot::Resting(_) => None,
            }
        })
    }

    /// What an address of this node's is.
    pub(super) fn owned_block_with_slot(&self, address: IpAddr) -> Option<Slot> {
        let covers = |block: &&crate::block::Block| block.owned && block.cidr.contains_address(address);
        let slots = self.blocks.values().filter(covers).filter_map(|block| {
            let slot = block.slots.get(&block.ordinal(address)?)?;
            Some((block.cidr.length(), slot))
        });
        slots.max_by_key(|(length, _)| *length).map(|(_, slot)| slot.clone())
    }
}

impl crate::block::Block {
    /// Counts a look at the lender that told nothing yet.
    fn empty_looks(&mut self) -> u32 {
        self.looks = self.looks.saturating_add(1);
        self.looks - 1
    }
}

/// What a block's object says of an address.
fn word_of(object: &BlockObject, address: IpAddr) -> Option<Slot> {
    let block = crate::block::Block::new(object.spec.cidr.prefix(), "", State::Ready);
    let ordinal = block.ordinal(address)?;
    object.spec.allocations.iter().find(|one| one.ordinal == ordinal).map(Slot::of)
}
