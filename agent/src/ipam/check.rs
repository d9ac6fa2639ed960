//! What the journal, the API server, the sandboxes and the Pods say of this node's addresses, held against each other. Pure.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use plainroute_bgp::Prefix;
use plainroute_blocks::{Attachment, BlockObject, Holdings, Owned, Record, Slot};
use plainroute_config::{IpAllocation, IpBlockSpec};
use serde::{Deserialize, Serialize};

use super::known::Known;

/// Which of them does not agree with the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Against {
    /// The sandboxes of the node, by the records of the CNI, and its live Pods.
    Sandbox,
    /// What a Pod's status says.
    Pod,
    /// This node's IPBlock at the API server, or that of a lender.
    Block,
    /// The IPPools.
    Pool,
}

/// An address or a block of which two do not say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disagreement {
    /// The address, or the CIDR of the block.
    pub subject: String,
    /// Who disagrees with the journal.
    pub against: Against,
    /// What the journal says.
    pub journal: String,
    /// What the other says.
    pub other: String,
    /// What will come of it, and when.
    pub outlook: String,
    /// Whether `--repair` can mend it without harm.
    pub mendable: bool,
}

impl Disagreement {
    /// The same one, at another time.
    pub(super) fn key(&self) -> (String, Against, bool) {
        (self.subject.clone(), self.against, self.mendable)
    }
}

/// All of them, as far as they could be looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) disagreements: Vec<Disagreement>,
    /// What could not be compared, and why.
    pub(crate) unknown: Vec<String>,
}

/// What the API server has.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    /// The blocks of this node.
    pub(super) own: Vec<BlockObject>,
    /// The blocks that addresses are borrowed of, by name, those that are gone left out.
    pub(super) lenders: BTreeMap<String, BlockObject>,
}

/// What is compared.
pub(super) struct Sides<'a> {
    pub(super) node: &'a str,
    pub(super) known: &'a Known,
    pub(super) records: &'a [Record],
    pub(super) holdings: &'a Holdings,
    /// None without an API server.
    pub(super) objects: Option<Result<Objects, String>>,
    pub(super) check: Duration,
}

/// A block of the journal.
struct Journaled<'a> {
    owned: &'a Owned,
    given_up: bool,
    lost: bool,
}

impl Journaled<'_> {
    fn prefix(&self) -> Prefix {
        self.owned.cidr.prefix()
    }

    fn slot(&self, address: IpAddr) -> Option<&Slot> {
        self.owned.slots.get(&ordinal(self.prefix(), address)?)
    }
}

pub(super) fn compare(sides: &Sides<'_>) -> Findings {
    let mut findings = Findings::default();
    let blocks = journaled(sides.records);
    let found = &mut findings.disagreements;
    leaked(sides, &blocks, found);
    unrecorded(sides, &blocks, found);
    outside_pools(sides, &blocks, found);
    match &sides.objects {
        Some(Ok(objects)) => {
            for block in &blocks {
                copy(sides, block, objects, found);
                loan(sides, block, objects, found);
            }
            strays(&blocks, objects, found);
        }
        Some(Err(error)) => {
            findings.unknown.push(format!("the IPBlocks of this node could not be read: {error}"));
        }
        None => {}
    }
    findings.disagreements.sort_by_key(Disagreement::key);
    findings
}

fn journaled(records: &[Record]) -> Vec<Journaled<'_>> {
    let mut blocks: Vec<Journaled<'_>> = Vec::new();
    for record in records {
        match record {
            Record::Own(owned) => blocks.push(Journaled { owned, given_up: false, lost: false }),
            Record::Release { cidr } => {
                let given_up = blocks.iter_mut().find(|block| block.owned.cidr == *cidr);
                given_up.into_iter().for_each(|block| block.given_up = true);
            }
            Record::Lost { cidr } => {
                let lost = blocks.iter_mut().find(|block| block.owned.cidr == *cidr);
                lost.into_iter().for_each(|block| block.lost = true);
            }
            _ => {}
        }
    }
    blocks
}

/// Addresses that the journal says are held, and that nobody on the node has.
fn leaked(sides: &Sides<'_>, blocks: &[Journaled<'_>], found: &mut Vec<Disagreement>) {
    let observed = sides.known.observe(sides.holdings).sandboxes;
    for (block, ordinal, slot) in slots(blocks) {
        let Slot::Held(holder) = slot else { continue };
        let (attachment, address) = (holder.attachment(), address(block.prefix(), ordinal));
        let (other, outlook, mendable) = match observed.get(&attachment) {
            Some(addresses) if addresses.is_empty() || addresses.contains(&address) => continue,
            Some(addresses) => (
                format!("{} has {}", words(&attachment), list(addresses)),
                "it stays held while the sandbox is there; delete the Pod".to_owned(),
                false,
            ),
            None => {
                let pod = sides.known.pod(&holder.namespace, &holder.name);
                let pod = if pod.is_some_and(|pod| pod.is(&holder.pod_uid)) {
                    "its Pod has another sandbox or has ended"
                } else {
                    "there is no such Pod"
                };
                let every = sides.check.as_secs();
                (
                    format!("there is no sandbox {}, and {pod}", holder.container_id),
                    format!(
                        "it is freed when two looks, at least 30 s apart, have not seen it; the agent looks every {every} s"
                    ),
                    true,
                )
            }
        };
        let journal = slot_words(slot);
        found.push(Disagreement {
            subject: address.to_string(),
            against: Against::Sandbox,
            journal,
            other,
            outlook,
            mendable,
        });
    }
}

/// Addresses that a sandbox or a Pod has, and the journal has not given it.
fn unrecorded(sides: &Sides<'_>, blocks: &[Journaled<'_>], found: &mut Vec<Disagreement>) {
    let is_ours = |address: IpAddr| {
        let pools = &sides.known.world.pools;
        blocks.iter().any(|block| block.prefix().contains_address(address))
            || pools.iter().any(|pool| pool.spec.contains(address))
    };
    let mut told = Vec::new();
    for (attachment, (namespace, name), addresses) in sides.known.sandboxes() {
        for address in addresses.iter().copied().filter(|address| is_ours(*address)) {
            let held = |slot: &Slot| matches!(slot, Slot::Held(holder) if holder.attachment() == *attachment);
            let slot = slot_of(blocks, address);
            if slot.is_some_and(held) {
                continue;
            }
            told.push(address);
            let other = format!("{} of Pod {namespace}/{name} has it", words(attachment));
            found.push(not_given(sides, address, Against::Sandbox, slot, other));
        }
    }
    for (namespace, name, pod) in sides.known.live_pods() {
        let unknown =
            pod.addresses.iter().copied().filter(|address| is_ours(*address) && !told.contains(address));
        for address in unknown {
            let held = |slot: &Slot| matches!(slot, Slot::Held(holder) if pod.is(&holder.pod_uid));
            let slot = slot_of(blocks, address);
            if !slot.is_some_and(held) {
                let other = format!("the status of Pod {namespace}/{name} has it");
                found.push(not_given(sides, address, Against::Pod, slot, other));
            }
        }
    }
}

fn not_given(
    sides: &Sides<'_>,
    address: IpAddr,
    against: Against,
    slot: Option<&Slot>,
    other: String,
) -> Disagreement {
    let outlook = match slot {
        Some(Slot::Held(_) | Slot::Lent(_)) => {
            "it is delivered to whom the journal says; delete the other Pod"
        }
        Some(Slot::Kept(_) | Slot::Resting(_)) | None => {
            "it is not advertised, and may be given to another Pod; delete this one, so that it gets an address anew"
        }
    };
    let journal = slot.map_or_else(|| format!("node {} has given it to nobody", sides.node), slot_words);
    let outlook = outlook.to_owned();
    Disagreement { subject: address.to_string(), against, journal, other, outlook, mendable: false }
}

/// Blocks that lie in no pool of theirs any more.
fn outside_pools(sides: &Sides<'_>, blocks: &[Journaled<'_>], found: &mut Vec<Disagreement>) {
    for block in blocks.iter().filter(|block| !block.given_up) {
        let pool = sides.known.world.pools.iter().find(|pool| pool.name() == block.owned.pool);
        let (first, last) = (block.prefix().address(), block.prefix().last_address());
        let holds = |(from, to): (IpAddr, IpAddr)| from <= first && last <= to;
        if pool.is_some_and(|pool| pool.spec.addresses().intervals().any(holds)) {
            continue;
        }
        let pool = &block.owned.pool;
        found.push(Disagreement {
            subject: block.owned.cidr.to_string(),
            against: Against::Pool,
            journal: format!("a block of IPPool {pool}, of which {} addresses are not free", in_use(block)),
            other: format!("IPPool {pool} does not hold it, is gone, or gives no addresses out"),
            outlook: "it stays while an address of it is in use, and is given back then".to_owned(),
            mendable: false,
        });
    }
}

fn in_use(block: &Journaled<'_>) -> usize {
    block.owned.slots.values().filter(|slot| !matches!(slot, Slot::Resting(_))).count()
}

/// The block's object against the journal.
fn copy(sides: &Sides<'_>, block: &Journaled<'_>, objects: &Objects, found: &mut Vec<Disagreement>) {
    let cidr = block.prefix();
    let name = IpBlockSpec::name_of(cidr);
    let object = objects.own.iter().find(|object| object.name == name && object.uid == block.owned.uid);
    let mut tell = |subject: String, journal: String, other: String, outlook: &str, mendable: bool| {
        let outlook = outlook.to_owned();
        found.push(Disagreement { subject, against: Against::Block, journal, other, outlook, mendable });
    };
    let Some(object) = object else {
        if !block.given_up {
            tell(
                cidr.to_string(),
                format!("a block of this node, of which {} addresses are not free", in_use(block)),
                format!("there is no IPBlock {name} of node {} and UID {}", sides.node, block.owned.uid),
                if block.lost {
                    "nothing new is given out of it, and another node may own it; delete its Pods, and it is given up"
                } else {
                    "it is read again, and counts as lost if it is gone"
                },
                !block.lost,
            );
        }
        return;
    };
    let (ours, theirs) = (ours(block), theirs(object));
    let ordinals: BTreeSet<u16> = ours.keys().chain(theirs.keys()).copied().collect();
    for ordinal in ordinals.into_iter().filter(|ordinal| ours.get(ordinal) != theirs.get(ordinal)) {
        let said = |by: &BTreeMap<u16, String>| {
            by.get(&ordinal).cloned().unwrap_or_else(|| "nobody has it".to_owned())
        };
        tell(
            address(cidr, ordinal).to_string(),
            said(&ours),
            format!("IPBlock {name}: {}", said(&theirs)),
            "the journal counts: the block is written as that says, at the second look at the latest",
            true,
        );
    }
}

/// The blocks, by name and version, whose object says other things than the journal.
pub(super) fn copies_that_differ(records: &[Record], copies: &[BlockObject]) -> BTreeSet<(String, String)> {
    let blocks = journaled(records);
    let differs = |object: &&BlockObject| {
        let block =
            blocks.iter().find(|block| block.prefix() == object.spec.cidr.prefix() && !block.given_up);
        block.is_some_and(|block| block.owned.uid == object.uid && ours(block) != theirs(object))
    };
    copies.iter().filter(differs).map(|object| (object.name.clone(), object.version.clone())).collect()
}

/// What the journal says of each address that is not free.
fn ours(block: &Journaled<'_>) -> BTreeMap<u16, String> {
    let slots = block.owned.slots.iter().filter(|(_, slot)| !matches!(slot, Slot::Resting(_)));
    slots.map(|(ordinal, slot)| (*ordinal, slot_words(slot))).collect()
}

/// What the object says of each.
fn theirs(object: &BlockObject) -> BTreeMap<u16, String> {
    object.spec.allocations.iter().map(|one| (one.ordinal, allocation_words(one))).collect()
}

/// A borrowed address is this node's only while its lender says so.
fn loan(sides: &Sides<'_>, block: &Journaled<'_>, objects: &Objects, found: &mut Vec<Disagreement>) {
    let Some((lender, node)) = block.owned.lender.as_ref().filter(|_| !block.given_up) else { return };
    let address = block.prefix().address();
    let object = objects.lenders.get(lender);
    let said = object.and_then(|object| {
        let ordinal = ordinal(object.spec.cidr.prefix(), address)?;
        object.spec.allocations.iter().find(|one| one.ordinal == ordinal)
    });
    let granted = |one: &IpAllocation| {
        one.lent_to.as_deref() == Some(sides.node) && one.loan.as_deref() == Some(block.owned.uid.as_str())
    };
    if said.is_some_and(granted) {
        return;
    }
    let other = match (object, said) {
        (None, _) => format!("IPBlock {lender}, of which it is borrowed, is gone"),
        (Some(_), None) => format!("IPBlock {lender}: nobody has it"),
        (Some(_), Some(one)) => format!("IPBlock {lender}: {}", allocation_words(one)),
    };
    found.push(Disagreement {
        subject: address.to_string(),
        against: Against::Block,
        journal: format!("borrowed of IPBlock {lender} of node {node}"),
        other,
        outlook: format!(
            "node {node} may give it to another Pod; delete the Pod that has it here, and look at node {node}"
        ),
        mendable: false,
    });
}

/// Objects of this node that the journal does not know. What only asks for a loan goes by itself.
fn strays(blocks: &[Journaled<'_>], objects: &Objects, found: &mut Vec<Disagreement>) {
    let known = |object: &&BlockObject| {
        let same = |block: &Journaled<'_>| block.prefix() == object.spec.cidr.prefix();
        object.spec.lender.is_some() || blocks.iter().any(same)
    };
    for object in objects.own.iter().filter(|object| !known(object)) {
        found.push(Disagreement {
            subject: object.spec.cidr.to_string(),
            against: Against::Block,
            journal: "no block of this node".to_owned(),
            other: format!("IPBlock {} says that it is, with {} allocations", object.name, object.spec.allocations.len()),
            outlook: "it is taken over into the journal once two looks have shown which of its addresses are in use".to_owned(),
            mendable: false,
        });
    }
}

fn slots<'a>(blocks: &'a [Journaled<'a>]) -> impl Iterator<Item = (&'a Journaled<'a>, u16, &'a Slot)> {
    blocks
        .iter()
        .flat_map(|block| block.owned.slots.iter().map(move |(ordinal, slot)| (block, *ordinal, slot)))
}

/// What the most specific block says of an address.
fn slot_of<'a>(blocks: &'a [Journaled<'a>], address: IpAddr) -> Option<&'a Slot> {
    let covering = blocks.iter().filter_map(|block| Some((block.prefix().length(), block.slot(address)?)));
    covering.max_by_key(|(length, _)| *length).map(|(_, slot)| slot)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Which address of the block it is.
pub(crate) fn ordinal(block: Prefix, address: IpAddr) -> Option<u16> {
    if !block.contains_address(address) {
        return None;
    }
    u16::try_from(number(address) - number(block.address())).ok()
}

fn address(block: Prefix, ordinal: u16) -> IpAddr {
    match block.address() {
        IpAddr::V4(first) => IpAddr::V4((first.to_bits() + u32::from(ordinal)).into()),
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() + u128::from(ordinal)).into()),
    }
}

fn words(attachment: &Attachment) -> String {
    format!("sandbox {} ({})", attachment.container_id, attachment.interface)
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn slot_words(slot: &Slot) -> String {
    match slot {
        Slot::Held(holder) => {
            held_words(&holder.namespace, &holder.name, &holder.pod_uid, &holder.container_id)
        }
        Slot::Kept(kept) => kept_words(&kept.namespace, &kept.name, &kept.stateful_set),
        Slot::Lent(lent) => lent_words(&lent.node, &lent.loan),
        Slot::Resting(since) => format!("free since {since}"),
    }
}

/// In the same words, so that they can be compared.
pub(crate) fn allocation_words(one: &IpAllocation) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    match (&one.lent_to, &one.container_id, &one.stateful_set) {
        (Some(node), _, _) => lent_words(node, &text(&one.loan)),
        (None, None, Some(set)) => kept_words(&text(&one.namespace), &text(&one.name), set),
        (None, container, _) => {
            held_words(&text(&one.namespace), &text(&one.name), &text(&one.pod_uid), &text(container))
        }
    }
}

fn held_words(namespace: &str, name: &str, uid: &str, container: &str) -> String {
    format!("held by Pod {namespace}/{name} (UID {uid}, sandbox {container})")
}

fn kept_words(namespace: &str, name: &str, set: &str) -> String {
    format!("kept for Pod {namespace}/{name} of StatefulSet {set}")
}

fn lent_words(node: &str, loan: &str) -> String {
    format!("lent to node {node} (IPBlock of UID {loan})")
}

#[cfg(test)]
mod tests;
