//! What the API server's answers make of the blocks, and what a watch's view gives reason to ask.
use std::net::IpAddr;

use plainroute_config::IpBlockSpec;

use super::{Ipam, OwnList, Purpose, backoff, is_block};
use crate::{
    Answer, BlockObject, Call, Record, Request, Slot,
    block::{Block, Lender, State},
};

impl Ipam {
    pub(super) fn take_answer(&mut self, call: Call, answer: Answer) {
        match self.calls.remove(&call) {
            Some(Purpose::Block(name)) => self.take_block_answer(&name, call, answer),
            Some(Purpose::Search(key)) => self.take_list(&key, call, answer),
            Some(Purpose::Locate(ticket, index)) => self.take_read(ticket, index, call, answer, true),
            Some(Purpose::LookUp(ticket, index)) => self.take_read(ticket, index, call, answer, false),
            Some(Purpose::Loan(address)) => self.take_loan(address, call, answer),
            Some(Purpose::EndLoan(address)) => self.loan_ended(address, call),
            Some(Purpose::OwnList) => self.take_own_list(answer),
            Some(Purpose::Inherit(node, only)) => self.inherit(&node, only, answer),
            Some(Purpose::Discard) => {}
            None => {}
        }
    }

    fn take_block_answer(&mut self, name: &str, call: Call, answer: Answer) {
        let now = self.now.uptime;
        let Some(block) = self.blocks.get_mut(name).filter(|block| block.call == Some(call)) else { return };
        block.call = None;
        if matches!(answer, Answer::Failed(_) | Answer::Refused(_)) {
            block.failures += 1;
            block.retry_at = now + backoff(block.failures);
        } else {
            block.failures = 0;
        }
        match block.state {
            State::TakingOver => self.took_over(name, &answer),
            State::Creating => self.created(name, answer),
            State::Unsure | State::Adopting => self.found(name, answer),
            State::Verifying => self.verified(name, answer),
            State::Asking => self.lender_says(name, answer),
            State::Ready => self.written(name, answer),
            State::Releasing => self.deleted(name, answer),
            State::Lost => {}
        }
    }

    fn took_over(&mut self, name: &str, answer: &Answer) {
        let Some(block) = self.blocks.get_mut(name) else { return };
        match answer {
            Answer::Deleted | Answer::Missing => {
                block.state = State::Creating;
                (block.uid, block.version, block.stored) = (String::new(), String::new(), None);
            }
            // Perhaps it was deleted: asked again, it is missing, and the epoch is known still.
            Answer::Failed(_) => {}
            // Somebody else was faster, or its node is back: whoever wants it looks again.
            _ => self.remove_block(name),
        }
    }

    fn created(&mut self, name: &str, answer: Answer) {
        let Some(block) = self.blocks.get_mut(name) else { return };
        match answer {
            Answer::Object(object) => {
                (block.uid, block.version) = (object.uid, object.version);
                block.stored = Some(object.spec.allocations);
                block.state = if block.lender.is_some() { State::Asking } else { State::Verifying };
            }
            Answer::Failed(_) => block.state = State::Unsure,
            _ => self.remove_block(name),
        }
    }

    /// The object of a block of which it was not known how it stands.
    fn found(&mut self, name: &str, answer: Answer) {
        let node = self.settings.node.clone();
        let intact = self.intact;
        #[cfg(test)]
        let unlooked = self.is_broken(crate::sim::Mutant::UseUnproven);
        #[cfg(not(test))]
        let unlooked = false;
        let Some(block) = self.blocks.get_mut(name) else { return };
        let bumped = block.state == State::Adopting && !block.version.is_empty();
        match answer {
            Answer::Object(object) if object.spec.node != node => self.not_there(name),
            // Of this node, but not the one that the journal means.
            Answer::Object(object) if block.owned && object.uid != block.uid && !block.uid.is_empty() => {
                self.not_there(name);
            }
            Answer::Object(object) if bumped => {
                block.version = object.version;
                block.stored = Some(object.spec.allocations);
                block.state = match (&block.lender, block.owned) {
                    (None, _) => State::Verifying,
                    (Some(_), true) => State::Ready,
                    // Perhaps the lender never gave it: its word is needed before this node may take it for its own.
                    (Some(_), false) => State::Asking,
                };
                if block.state == State::Ready {
                    self.commit_own(name);
                }
            }
            Answer::Object(object) => {
                block.take_object(&object);
                if !block.owned {
                    block.slots =
                        object.spec.allocations.iter().map(|one| (one.ordinal, Slot::of(one))).collect();
                    if intact {
                        // With its journal whole this node knows that it gave out nothing of it.
                        block.slots.retain(|_, slot| !matches!(slot, Slot::Held(_)));
                    } else {
                        block.proven = unlooked;
                    }
                }
                let unused = block.is_transfer() || block.lender.is_some() && intact && !block.owned;
                block.state = if unused { State::Releasing } else { State::Adopting };
                block.epoch = object.spec.epoch.saturating_add(1);
            }
            Answer::Missing => match block.state {
                State::Unsure => block.state = State::Creating,
                _ => self.not_there(name),
            },
            // The version was another, or it is unknown which it is now.
            Answer::Conflict | Answer::Failed(_) | Answer::Refused(_) if bumped => {
                block.version = String::new()
            }
            _ => {}
        }
    }

    /// A block has no object, or another node has it.
    pub(super) fn not_there(&mut self, name: &str) {
        let Some(block) = self.blocks.get_mut(name) else { return };
        if !block.owned {
            return self.remove_block(name);
        }
        let cidr = block.cidr.into();
        block.stored = None;
        self.commit(Record::Lost { cidr });
    }

    fn written(&mut self, name: &str, answer: Answer) {
        let node = self.settings.node.clone();
        let Some(block) = self.blocks.get_mut(name) else { return };
        match answer {
            Answer::Object(object) if object.uid == block.uid && object.spec.node == node => {
                block.version = object.version;
                block.stored = Some(object.spec.allocations);
            }
            Answer::Object(_) | Answer::Missing => self.not_there(name),
            Answer::Conflict | Answer::Failed(_) => block.stored = None,
            _ => {}
        }
    }

    fn deleted(&mut self, name: &str, answer: Answer) {
        #[cfg(test)]
        if self.is_broken(crate::sim::Mutant::ReuseAfterDelete) && matches!(answer, Answer::Failed(_)) {
            return self.blocks.get_mut(name).into_iter().for_each(|block| block.state = State::Ready);
        }
        let Some(block) = self.blocks.get_mut(name) else { return };
        let known = !block.version.is_empty();
        match answer {
            Answer::Object(object) if block.uid.is_empty() || object.uid == block.uid => {
                block.take_object(&object);
            }
            Answer::Deleted | Answer::Missing | Answer::Object(_) => {
                let cidr = block.cidr.into();
                if block.owned {
                    self.commit(Record::Gone { cidr });
                } else {
                    self.remove_block(name);
                }
            }
            Answer::Conflict | Answer::Failed(_) if known => block.version = String::new(),
            _ => {}
        }
    }

    /// The block is this node's from here on.
    pub(super) fn commit_own(&mut self, name: &str) {
        let boot = self.settings.boot.clone();
        let Some(block) = self.blocks.get_mut(name) else { return };
        (block.state, block.boot) = (State::Ready, boot);
        block.give_up_at = std::time::Duration::MAX;
        let record = Record::Own(Box::new(block.owned()));
        self.commit(record);
    }

    /// An object of this node that this process did not make: left over from an earlier one.
    pub(super) fn adopt(&mut self, object: &BlockObject) {
        let cidr = object.spec.cidr.prefix();
        // While Pods of a lost block are not gone, an address would be held twice on this node.
        let lost = |block: &Block| block.state == State::Lost && block.cidr.overlaps(cidr);
        let known = self.blocks.contains_key(&object.name) || self.blocks.values().any(lost);
        if object.name != object.spec.name() || known {
            return;
        }
        let mut block = Block::new(cidr, &object.spec.pool, State::Adopting);
        block.lender = lender_of(&object.spec);
        block.uid.clone_from(&object.uid);
        #[cfg(test)]
        if self.is_broken(crate::sim::Mutant::TrustTheWatch) && block.lender.is_none() {
            block.take_object(object);
            block.state = State::Verifying;
        }
        self.blocks.insert(object.name.clone(), block);
    }

    fn take_own_list(&mut self, answer: Answer) {
        self.own_list = match answer {
            Answer::Objects(objects) => {
                let node = self.settings.node.clone();
                let own = objects.iter().filter(|object| object.spec.node == node);
                own.clone().for_each(|object| self.adopt(object));
                OwnList::Known(own.map(|object| object.name.clone()).collect())
            }
            _ => OwnList::Waits(Some(self.now.uptime + backoff(4))),
        };
    }

    /// A journal that was begun anew is whole once it has every block that this node already had, and who holds what of them.
    pub(super) fn make_whole(&mut self) {
        if self.intact {
            return;
        }
        if !self.settings.has_server {
            if self.documents_seen && self.blocks.values().all(|block| block.proven) {
                self.commit(Record::Whole);
            }
            return;
        }
        let due = |at: &Option<std::time::Duration>| at.is_some_and(|at| at <= self.now.uptime);
        match &self.own_list {
            OwnList::Unasked => {}
            OwnList::Waits(at) if due(at) => {}
            OwnList::Waits(_) => return,
            OwnList::Known(names) => {
                let mut blocks = names.iter().filter_map(|name| self.blocks.get(name));
                if blocks.all(|block| block.owned && block.proven) {
                    self.commit(Record::Whole);
                }
                return;
            }
        }
        self.own_list = OwnList::Waits(None);
        self.ask(Purpose::OwnList, Request::OfNode(self.settings.node.clone()));
    }

    /// A block of a fenced node is deleted and made anew.
    pub(super) fn take_over(&mut self, object: &BlockObject) {
        let cidr = object.spec.cidr.prefix();
        if self.blocks.values().any(|block| block.cidr.overlaps(cidr) && block.lender.is_none()) {
            return;
        }
        let mut block = Block::new(cidr, &object.spec.pool, State::TakingOver);
        let slots = object.spec.allocations.iter().map(|one| (one.ordinal, Slot::of(one)));
        // Its Pods are dead, and of those that have a successor the address is kept.
        let rest = self.now.wall;
        block.slots = slots
            .map(|(ordinal, slot)| match slot {
                Slot::Held(holder) => (ordinal, holder.kept(rest).map_or(Slot::Resting(rest), Slot::Kept)),
                other => (ordinal, other),
            })
            .collect();
        block.epoch = object.spec.epoch.saturating_add(1);
        (block.uid, block.version) = (object.uid.clone(), object.version.clone());
        block.before.clone_from(&object.spec.node);
        self.blocks.insert(object.name.clone(), block);
    }

    /// Takes over what a fenced node had, or just the block that has an address. What it had borrowed goes back to its lenders.
    pub(super) fn inherit(&mut self, node: &str, only: Option<IpAddr>, answer: Answer) {
        let Answer::Objects(objects) = answer else { return };
        if !self.fenced.contains(node) {
            return;
        }
        let wanted = |object: &&BlockObject| {
            let has = |address| object.spec.cidr.prefix().contains_address(address);
            object.spec.node == node && only.is_none_or(has)
        };
        for object in objects.iter().filter(wanted) {
            if is_block(&object.spec) {
                self.take_over(object);
                continue;
            }
            let BlockObject { name, uid, version, .. } = object.clone();
            let request = Request::DeleteOfFenced { name, uid, version, node: node.to_owned() };
            self.ask(Purpose::Discard, request);
        }
    }

    /// What the objects have is not known any more; a read tells, and what is wrong is written again.
    pub(super) fn doubt(&mut self) {
        let ready =
            self.blocks.values_mut().filter(|block| block.state == State::Ready && block.call.is_none());
        ready.for_each(|block| block.stored = None);
    }

    pub(super) fn hint_owned(&mut self, objects: Vec<BlockObject>) {
        let node = self.settings.node.clone();
        for object in objects.iter().filter(|object| object.spec.node == node) {
            match self.blocks.get_mut(&object.name) {
                Some(block) if block.state == State::Ready && block.uid != object.uid => block.stored = None,
                Some(_) => {}
                None => self.adopt(object),
            }
        }
        let seen = |name: &String| objects.iter().any(|object| object.name == *name);
        for (name, block) in &mut self.blocks {
            if block.state == State::Ready && !block.uid.is_empty() && !seen(name) {
                // Perhaps it is gone, perhaps the view is old: a read tells.
                block.stored = None;
            }
        }
    }

    pub(super) fn set_documents(&mut self, specs: Vec<IpBlockSpec>) {
        if self.settings.has_server {
            return;
        }
        let node = self.settings.node.clone();
        self.documents_seen = true;
        for spec in specs.iter().filter(|spec| spec.node == node && is_block(spec)) {
            let name = spec.name();
            match self.blocks.get_mut(&name) {
                Some(block) if block.state == State::Lost => self.commit_own(&name),
                Some(_) => {}
                None => {
                    let mut block = Block::new(spec.cidr.prefix(), &spec.pool, State::Ready);
                    block.epoch = spec.epoch;
                    block.proven = self.intact;
                    self.blocks.insert(name.clone(), block);
                    self.commit_own(&name);
                }
            }
        }
        let there =
            |name: &String| specs.iter().any(|spec| spec.name() == *name && spec.node == self.settings.node);
        let ready = self.blocks.iter().filter(|(_, block)| block.state == State::Ready);
        let gone: Vec<_> = ready.map(|(name, _)| name.clone()).filter(|name| !there(name)).collect();
        gone.iter().for_each(|name| self.not_there(name));
    }
}

impl Block {
    fn take_object(&mut self, object: &BlockObject) {
        (self.uid, self.version) = (object.uid.clone(), object.version.clone());
        self.stored = Some(object.spec.allocations.clone());
    }
}

fn lender_of(spec: &IpBlockSpec) -> Option<Lender> {
    let (name, node) = (spec.lender.clone()?, spec.lender_node.clone()?);
    Some(Lender { name, node, fixed: spec.fixed, transfer: spec.transfer })
}
