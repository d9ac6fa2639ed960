//! What other nodes ask of this one: loans of single addresses, and the release of single-address blocks.
use plainroute_config::IpBlockSpec;

use super::{Ipam, single};
use crate::{
    BlockObject, Kept, Record, Slot,
    block::{Block, State},
};

impl Ipam {
    pub(super) fn hint_asked(&mut self, objects: Vec<BlockObject>) {
        let node = &self.settings.node;
        self.asked = objects;
        self.asked
            .retain(|object| object.spec.lender_node.as_ref() == Some(node) && object.spec.node != *node);
        let asked = &self.asked;
        self.returned.retain(|uid| asked.iter().any(|object| object.uid == *uid));
        #[cfg(test)]
        if self.is_broken(crate::sim::Mutant::BelieveTheWatch) {
            self.take_back_unseen();
        }
    }

    #[cfg(test)]
    fn take_back_unseen(&mut self) {
        let mut unseen = Vec::new();
        for block in self.blocks.values().filter(|block| block.owned && block.state == State::Ready) {
            for (ordinal, slot) in &block.slots {
                if let Slot::Lent(lent) = slot
                    && !self.asked.iter().any(|object| object.uid == lent.loan)
                {
                    unseen.push((block.address(*ordinal), lent.loan.clone()));
                }
            }
        }
        unseen.into_iter().for_each(|(address, loan)| self.take_back(address, &loan));
    }

    /// Grants what can be granted. What cannot is left as it is: the asker sees in the block's object who has the address.
    pub(super) fn answer_requests(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        for object in &asked {
            let known = self.returned.contains(&object.uid) || self.fenced.contains(&object.spec.node);
            if !known && object.spec.cidr.prefix().is_host() {
                self.answer_request(object);
            }
        }
        self.asked = asked;
    }

    fn answer_request(&mut self, object: &BlockObject) {
        let address = object.spec.cidr.prefix().address();
        let Some(name) = object.spec.lender.as_ref() else { return };
        let Some(block) = self.blocks.get(name).filter(|block| block.serves() && block.owned) else { return };
        let Some(ordinal) = block.ordinal(address) else { return };
        if block.lender.is_some() || self.pencilled.contains_key(&address) {
            // Of a loan only a transfer may be asked, and that is not this node's to give.
            return;
        }
        let whose = object.spec.allocations.first();
        let for_pod = |kept: &Kept| {
            let pod = whose.and_then(|one| Some((one.namespace.as_ref()?, one.name.as_ref()?)));
            pod.is_some_and(|(namespace, name)| kept.is_for(namespace, name))
        };
        let kept = match block.slots.get(&ordinal) {
            None => None,
            Some(Slot::Resting(since)) => {
                let cooldown = self.pool(&block.pool).map_or(0, |pool| pool.spec.ip_cooldown_seconds);
                if !object.spec.fixed && !Block::has_rested(*since, self.now.wall, cooldown) {
                    return;
                }
                None
            }
            Some(Slot::Kept(kept)) if for_pod(kept) => Some(kept.clone()),
            Some(Slot::Lent(_) | Slot::Held(_) | Slot::Kept(_)) => return,
        };
        let at = self.now.wall;
        if object.spec.transfer {
            if block.cidr == single(address) {
                self.give_up(&IpBlockSpec::name_of(block.cidr));
            }
            return;
        }
        if object.name != object.spec.name() {
            return;
        }
        let of_set = whose.and_then(|one| {
            let (namespace, name) = (one.namespace.clone()?, one.name.clone()?);
            Some(Kept { namespace, name, stateful_set: one.stateful_set.clone()?, since: at })
        });
        let (node, loan, kept) = (object.spec.node.clone(), object.uid.clone(), of_set.or(kept));
        self.commit(Record::Lend { address, node, loan, kept, at });
    }

    /// Gives a block up: from here on nothing of it is given out, and it is deleted.
    pub(super) fn give_up(&mut self, name: &str) {
        let Some(block) = self.blocks.get_mut(name) else { return };
        block.retry_at = self.now.uptime;
        block.call = None;
        if block.owned {
            let cidr = block.cidr.into();
            self.commit(Record::Release { cidr });
        } else {
            block.state = State::Releasing;
        }
    }
}
