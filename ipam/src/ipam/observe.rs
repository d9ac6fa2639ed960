//! The end of what Pods hold: by CNI, by a person, or because two looks, some time apart, saw nobody who has it.
use std::{collections::BTreeSet, net::IpAddr};

use super::Ipam;
use crate::{Attachment, Entry, Holder, Observation, Output, Record, Refusal, Slot, Ticket, block::APART};

impl Ipam {
    pub(super) fn del(&mut self, ticket: Ticket, attachment: &Attachment) {
        self.replace_jobs(attachment, "the interface was deleted while it waited for an address");
        self.detach_all(attachment);
        self.out.push(Output::Reply(ticket, Ok(Vec::new())));
    }

    pub(super) fn check(&mut self, ticket: Ticket, attachment: &Attachment, wanted: &[IpAddr]) {
        let held: Vec<_> = self.attachments.get(attachment).into_iter().flatten().copied().collect();
        let wanted: BTreeSet<_> = wanted.iter().collect();
        let same = wanted.is_empty() && !held.is_empty() || held.iter().collect::<BTreeSet<_>>() == wanted;
        let has = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mismatch = || Refusal::Mismatch {
            container_id: attachment.container_id.clone(),
            interface: attachment.interface.clone(),
            has: if held.is_empty() { "no address".to_owned() } else { has },
        };
        let reply = if same && !held.is_empty() { Ok(held.clone()) } else { Err(mismatch()) };
        self.out.push(Output::Reply(ticket, reply));
    }

    /// One look, no more: what CNI does not name is freed once a second look misses it too.
    pub(super) fn gc(&mut self, ticket: Ticket, attachments: &BTreeSet<Attachment>) {
        self.look(|attachment| attachments.contains(attachment));
        self.out.push(Output::Reply(ticket, Ok(Vec::new())));
    }

    pub(super) fn status(&mut self, ticket: Ticket) {
        let reply = if self.pools.is_some() { Ok(Vec::new()) } else { Err(Refusal::NotReady) };
        self.out.push(Output::Reply(ticket, reply));
    }

    pub(super) fn release_address(&mut self, ticket: Ticket, address: IpAddr, confirm: bool) {
        let refused = |what: String| Err(Refusal::NotReleased(address, what));
        let reply = match self.owned_block_with_slot(address) {
            Some(Slot::Held(_)) if confirm => {
                self.free(address);
                Ok(vec![address])
            }
            Some(Slot::Kept(_)) => {
                self.commit(Record::Free { address, at: self.now.wall });
                Ok(vec![address])
            }
            Some(Slot::Resting(_)) => Ok(vec![address]),
            Some(slot @ Slot::Held(_)) => refused(format!("{}; only with a confirmation", slot.who())),
            Some(slot @ Slot::Lent(_)) => refused(format!("{}; release it there", slot.who())),
            None => refused("no Pod of this node has it, and it is not kept".to_owned()),
        };
        self.out.push(Output::Reply(ticket, reply));
    }

    pub(super) fn observe(&mut self, observation: Observation) {
        self.prove(&observation);
        self.look(|attachment| observation.sandboxes.contains_key(attachment));
        if let Some(sets) = &observation.stateful_sets {
            self.look_for_sets(sets);
        }
    }

    /// A block that the journal does not know may have addresses in use that its object does not name. The sandboxes do.
    fn prove(&mut self, observation: &Observation) {
        let unproven =
            self.blocks.iter().filter(|(_, block)| !block.proven || !block.owned && block.is_in_use());
        let unproven: Vec<_> = unproven.map(|(name, block)| (name.clone(), block.owned)).collect();
        for (name, owned) in unproven {
            let seen = self.seen_in(&name, observation);
            if owned {
                seen.into_iter().for_each(|(address, holder)| {
                    self.commit(Record::Hold { addresses: vec![address], holder });
                });
                self.blocks.get_mut(&name).into_iter().for_each(|block| block.proven = true);
            } else if let Some(block) = self.blocks.get_mut(&name) {
                block.take_look(self.now.uptime, seen);
            }
        }
    }

    /// The sandboxes that have addresses of this block, and of no smaller one of this node.
    fn seen_in(&self, name: &str, observation: &Observation) -> Vec<(IpAddr, Holder)> {
        let Some(block) = self.blocks.get(name) else { return Vec::new() };
        let smaller = |address| {
            let mut others =
                self.blocks.values().filter(|other| other.cidr != block.cidr && !other.is_transfer());
            others.any(|other| block.cidr.contains(other.cidr) && other.cidr.contains_address(address))
        };
        let mut seen = Vec::new();
        for (attachment, addresses) in &observation.sandboxes {
            let of_block = |address: &&IpAddr| block.cidr.contains_address(**address) && !smaller(**address);
            for address in addresses.iter().filter(of_block) {
                let holder = Holder {
                    namespace: "unknown".to_owned(),
                    name: "unknown".to_owned(),
                    pod_uid: "unknown".to_owned(),
                    container_id: attachment.container_id.clone(),
                    interface: attachment.interface.clone(),
                    stateful_set: None,
                    since: self.now.wall,
                };
                seen.push((*address, holder));
            }
        }
        seen
    }

    fn look(&mut self, lives: impl Fn(&Attachment) -> bool) {
        let now = self.now.uptime;
        let missing: BTreeSet<_> = self.attachments.keys().filter(|one| !lives(one)).cloned().collect();
        self.suspects.retain(|attachment, _| missing.contains(attachment));
        #[cfg(test)]
        let apart = if self.is_broken(crate::sim::Mutant::FreeAtFirstLook) {
            std::time::Duration::ZERO
        } else {
            APART
        };
        #[cfg(not(test))]
        let apart = APART;
        for attachment in missing {
            let first = *self.suspects.entry(attachment.clone()).or_insert(now);
            if now.saturating_sub(first) >= apart {
                self.suspects.remove(&attachment);
                self.detach_all(&attachment);
            }
        }
    }

    fn look_for_sets(&mut self, sets: &BTreeSet<(String, String)>) {
        let now = self.now.uptime;
        let mut orphans = Vec::new();
        for block in self.blocks.values().filter(|block| block.owned) {
            for (ordinal, slot) in &block.slots {
                if let Slot::Kept(kept) = slot {
                    let set = (kept.namespace.clone(), kept.stateful_set.clone());
                    if !sets.contains(&set) {
                        orphans.push((set, block.address(*ordinal)));
                    }
                }
            }
        }
        self.orphans.retain(|set, _| orphans.iter().any(|(orphan, _)| orphan == set));
        for (set, address) in orphans {
            let first = *self.orphans.entry(set).or_insert(now);
            if now.saturating_sub(first) >= APART {
                self.commit(Record::Free { address, at: self.now.wall });
            }
        }
    }

    /// The interface has no address any more.
    fn detach_all(&mut self, attachment: &Attachment) {
        #[cfg(test)]
        if self.is_broken(crate::sim::Mutant::ForgetToFree) {
            return;
        }
        let addresses: Vec<_> = self.attachments.get(attachment).into_iter().flatten().copied().collect();
        addresses.into_iter().for_each(|address| self.free(address));
    }

    fn free(&mut self, address: IpAddr) {
        let at = self.now.wall;
        let Some(Slot::Held(holder)) = self.owned_block_with_slot(address) else { return };
        // A borrowed address goes back at once; its lender keeps it.
        let own = self.owned_block_of(address);
        let own =
            own.is_some_and(|(_, block)| block.lender.is_none() && block.state != crate::block::State::Lost);
        let kept = own && holder.stateful_set.is_some();
        self.commit(if kept { Record::Keep { address, at } } else { Record::Free { address, at } });
        self.out.push(Output::Ledger(Entry { address, holder, at, ends: true }));
    }
}
