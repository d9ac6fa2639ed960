//! Before a new block is used: whether anything overlaps it. Creating it settles that for blocks of one size only; a pool that was
//! edited is carved anew while blocks of the old carving are still there. Of two that overlap each sees the other in a
//! list that began after its own creation, so at least one yields.
use super::{Ipam, is_block};
use crate::{
    Answer, BlockObject, Lent, Slot,
    block::{Block, State},
};

/// When to look again after something overlapped a block that may be in use.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

impl Ipam {
    pub(super) fn verified(&mut self, name: &str, answer: Answer) {
        let (node, now) = (self.settings.node.clone(), self.now.uptime);
        let Answer::Objects(objects) = answer else { return };
        #[cfg(test)]
        let skip = self.is_broken(crate::sim::Mutant::SkipVerification);
        #[cfg(not(test))]
        let skip = false;
        let Some(block) = self.blocks.get_mut(name) else { return };
        #[cfg(test)]
        let skip_loans = self.mutant == Some(crate::sim::Mutant::ForgetLoans);
        #[cfg(not(test))]
        let skip_loans = false;
        let there = objects
            .iter()
            .any(|object| object.name == name && object.uid == block.uid && object.spec.node == node);
        if !there && !skip {
            return self.not_there(name);
        }
        let in_the_way = |object: &&BlockObject| {
            is_block(&object.spec) && object.name != name && object.spec.cidr.prefix().overlaps(block.cidr)
        };
        if objects.iter().any(|object| in_the_way(&object)) && !skip {
            if block.owned {
                return self.not_there(name);
            }
            if block.is_in_use() {
                // Pods have addresses of it that only the lost journal knew; the other one yields, or these Pods go.
                block.retry_at = now + AGAIN;
            } else {
                block.state = State::Releasing;
            }
            return;
        }
        // Of a block that it had before, this node said itself what it lent.
        if !block.owned && !skip_loans {
            objects.iter().for_each(|object| block.honour(object));
        }
        self.commit_own(name);
    }
}

impl Block {
    /// An address that was lent by an owner before stays lent.
    fn honour(&mut self, object: &BlockObject) {
        let cidr = object.spec.cidr.prefix();
        if object.spec.lender.is_none()
            || object.spec.transfer
            || !self.cidr.contains(cidr)
            || self.cidr == cidr
        {
            return;
        }
        let Some(ordinal) = self.ordinal(cidr.address()) else { return };
        let kept = match self.slots.get(&ordinal) {
            Some(Slot::Lent(lent)) if lent.loan == object.uid => return,
            // Whoever asked for it was never given it.
            Some(Slot::Held(_) | Slot::Kept(_)) => return,
            Some(Slot::Lent(lent)) => lent.kept.clone(),
            Some(Slot::Resting(_)) | None => None,
        };
        let since = object.spec.allocations.first().map_or(jiff::Timestamp::UNIX_EPOCH, |one| one.since);
        let (node, loan) = (object.spec.node.clone(), object.uid.clone());
        self.slots.insert(ordinal, Slot::Lent(Lent { node, loan, kept, since }));
    }
}
