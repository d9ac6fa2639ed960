//! What a record does. Replay after a start and the steps of a running process are the same code.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use plainroute_config::IpBlockSpec;

use super::{Ipam, Settings};
use crate::{
    Attachment, Lent, Now, Record, Slot, VERSION,
    block::{Block, State},
};

/// A journal whose records do not follow from one another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {number}: {what}")]
pub struct Inconsistent {
    /// Counted from 1, as the lines of the journal are.
    pub number: usize,
    /// What is wrong.
    pub what: String,
}

impl Ipam {
    /// What a node has whose journal has these records; none stand for a journal that is not there. The second value is what is to
    /// be appended before anything else.
    pub fn recover(settings: Settings, records: &[Record]) -> Result<(Ipam, Vec<Record>), Inconsistent> {
        let begun = Record::Begun { version: VERSION, node: settings.node.clone() };
        let mut ipam = Ipam {
            intact: records.contains(&Record::Whole),
            own_list: super::OwnList::default(),
            documents_seen: false,
            pools: None,
            namespaces: BTreeMap::new(),
            blocks: BTreeMap::new(),
            attachments: BTreeMap::new(),
            jobs: BTreeMap::new(),
            pencilled: BTreeMap::new(),
            searches: BTreeMap::new(),
            search_ahead_at: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            asked: Vec::new(),
            returned: BTreeSet::new(),
            lent_checks: BTreeMap::new(),
            fenced: BTreeSet::new(),
            in_the_way: BTreeMap::new(),
            suspects: BTreeMap::new(),
            orphans: BTreeMap::new(),
            now: Now { wall: Timestamp::UNIX_EPOCH, uptime: Duration::ZERO },
            out: Vec::new(),
            #[cfg(test)]
            mutant: None,
            settings,
        };
        for (index, record) in records.iter().enumerate() {
            let first = index == 0;
            let what = match record {
                Record::Begun { .. } if !first => Err("a journal begins once".to_owned()),
                record if first && *record != begun => {
                    let node = &ipam.settings.node;
                    Err(format!("is not the beginning of a journal of version {VERSION} of node {node}"))
                }
                record => ipam.apply(record),
            };
            what.map_err(|what| Inconsistent { number: index + 1, what })?;
        }
        if !ipam.intact {
            // Who holds what of them was to be seen, and perhaps was not yet.
            ipam.blocks.values_mut().for_each(|block| block.proven = false);
        }
        let (boot, has_server) = (ipam.settings.boot.clone(), ipam.settings.has_server);
        let unconfirmed =
            |block: &&mut Block| has_server && block.state == State::Ready && block.boot != boot;
        ipam.blocks.values_mut().filter(unconfirmed).for_each(|block| block.state = State::Adopting);
        Ok((ipam, if records.is_empty() { vec![begun] } else { Vec::new() }))
    }

    /// The fewest records that say what stands: a new journal in place of one that has grown long.
    pub fn records(&self) -> Vec<Record> {
        let mut records = vec![Record::Begun { version: VERSION, node: self.settings.node.clone() }];
        records.extend(self.intact.then_some(Record::Whole));
        for block in self.blocks.values().filter(|block| block.owned) {
            records.push(Record::Own(Box::new(block.owned())));
            match block.state {
                State::Releasing => records.push(Record::Release { cidr: block.cidr.into() }),
                State::Lost => records.push(Record::Lost { cidr: block.cidr.into() }),
                State::TakingOver
                | State::Creating
                | State::Unsure
                | State::Adopting
                | State::Verifying
                | State::Asking
                | State::Ready => {}
            }
        }
        records
    }

    /// Takes the step that a record says.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Begun { .. } => {}
            Record::Whole => self.intact = true,
            Record::Own(owned) => {
                let name = IpBlockSpec::name_of(owned.prefix());
                match self.blocks.get_mut(&name) {
                    Some(block) => block.owned = true,
                    None => drop(self.blocks.insert(name, Block::from_owned(owned))),
                }
                let held =
                    owned.slots.iter().filter_map(|(ordinal, slot)| Some((*ordinal, attachment_of(slot)?)));
                let block = Block::from_owned(owned);
                for (ordinal, attachment) in held {
                    self.attachments.entry(attachment).or_default().insert(block.address(ordinal));
                }
            }
            Record::Hold { addresses, holder } => {
                for address in addresses {
                    let (block, ordinal) = self.slot_of(*address, |_, _| true)?;
                    block.slots.insert(ordinal, Slot::Held(holder.clone()));
                    block.last = Some(ordinal);
                    let slot = Slot::Held(holder.clone());
                    let attachment = attachment_of(&slot).into_iter();
                    attachment.for_each(|one| {
                        self.attachments.entry(one).or_default().insert(*address);
                    });
                }
            }
            Record::Free { address, at } => {
                self.detach(*address);
                let held =
                    |_: &Block, slot: Option<&Slot>| matches!(slot, Some(Slot::Held(_) | Slot::Kept(_)));
                let (block, ordinal) = self.slot_of(*address, held)?;
                block.slots.remove(&ordinal);
                if block.lender.is_none() {
                    block.slots.insert(ordinal, Slot::Resting(*at));
                }
            }
            Record::Keep { address, at } => {
                self.detach(*address);
                let held = |_: &Block, slot: Option<&Slot>| matches!(slot, Some(Slot::Held(_)));
                let (block, ordinal) = self.slot_of(*address, held)?;
                let kept = match block.slots.get(&ordinal) {
                    Some(Slot::Held(holder)) => holder.kept(*at),
                    Some(Slot::Kept(_) | Slot::Lent(_) | Slot::Resting(_)) | None => None,
                };
                let kept = kept.ok_or_else(|| format!("{address} is held by no Pod of a StatefulSet"))?;
                block.slots.insert(ordinal, Slot::Kept(kept));
            }
            Record::Lend { address, node, loan, kept, at } => {
                let (block, ordinal) = self.slot_of(*address, |block, _| block.lender.is_none())?;
                let (node, loan) = (node.clone(), loan.clone());
                block.slots.insert(ordinal, Slot::Lent(Lent { node, loan, kept: kept.clone(), since: *at }));
            }
            Record::Return { address, at } => {
                let lent = |_: &Block, slot: Option<&Slot>| matches!(slot, Some(Slot::Lent(_)));
                let (block, ordinal) = self.slot_of(*address, lent)?;
                let slot = match block.slots.remove(&ordinal) {
                    Some(Slot::Lent(Lent { kept: Some(kept), .. })) => Slot::Kept(kept),
                    _ => Slot::Resting(*at),
                };
                block.slots.insert(ordinal, slot);
            }
            Record::Release { cidr } => self.owned_mut(cidr.prefix())?.state = State::Releasing,
            Record::Lost { cidr } => {
                let block = self.owned_mut(cidr.prefix())?;
                block.state = State::Lost;
                block.slots.retain(|_, slot| matches!(slot, Slot::Held(_)));
            }
            Record::Gone { cidr } => {
                if self.owned_mut(cidr.prefix())?.is_in_use() {
                    return Err(format!("{cidr} goes while addresses of it are held"));
                }
                self.blocks.remove(&IpBlockSpec::name_of(cidr.prefix()));
            }
        }
        Ok(())
    }

    /// The address is no longer that of an interface.
    fn detach(&mut self, address: IpAddr) {
        self.attachments.retain(|_, addresses| {
            addresses.remove(&address);
            !addresses.is_empty()
        });
    }

    /// The place of the address in the most specific of the blocks that the journal has and that `fits`.
    fn slot_of(
        &mut self,
        address: IpAddr,
        fits: impl Fn(&Block, Option<&Slot>) -> bool,
    ) -> Result<(&mut Block, u16), String> {
        let fitting = self.blocks.values_mut().filter(|block| block.owned).filter_map(|block| {
            let ordinal = block.ordinal(address)?;
            fits(block, block.slots.get(&ordinal)).then_some((block, ordinal))
        });
        let found = fitting.max_by_key(|(block, _)| block.cidr.length());
        found.ok_or_else(|| format!("{address} is in no block of this node where the step could be taken"))
    }

    /// The most specific block that the journal has and `address` lies in.
    pub(super) fn owned_block_of(&self, address: IpAddr) -> Option<(&String, &Block)> {
        let covers = |block: &Block| block.owned && block.cidr.contains_address(address);
        self.blocks.iter().filter(|(_, block)| covers(block)).max_by_key(|(_, block)| block.cidr.length())
    }

    fn owned_mut(&mut self, cidr: plainroute_bgp::Prefix) -> Result<&mut Block, String> {
        let block = self.blocks.get_mut(&IpBlockSpec::name_of(cidr)).filter(|block| block.owned);
        block.ok_or_else(|| format!("{cidr} is no block of this node"))
    }
}

fn attachment_of(slot: &Slot) -> Option<Attachment> {
    match slot {
        Slot::Held(holder) => Some(holder.attachment()),
        Slot::Kept(_) | Slot::Lent(_) | Slot::Resting(_) => None,
    }
}
