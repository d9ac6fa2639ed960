//! The state machine of one node's addresses.
//!
//! It is level-triggered: an input changes what is known, then [`Ipam::settle`] compares that with what is wanted and says what is
//! missing. What a watch shows is only a hint; conclusions are drawn from live reads and from answers to conditional writes,
//! so that a stale view costs a read and nothing else.
mod add;
mod choose;
mod drive;
mod lend;
mod objects;
mod observe;
mod replay;
mod requests;
mod search;
mod tidy;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use plainroute_bgp::{AfiSafi, Prefix};
use plainroute_config::{AddressSet, IpBlockSpec, IpPoolSpec, Labels};

use crate::{
    Attachment, BlockObject, Call, Carving, Holdings, Input, Now, Output, OwnedBlock, Record, Request, Slot,
    Ticket, World,
    block::{Block, State},
};
use add::Job;
use lend::LentCheck;
pub use replay::Inconsistent;
use search::Search;

/// For how long a node counts as one that is in the way.
const LATELY: Duration = Duration::from_secs(90);
/// How many do at once.
const MOST_IN_THE_WAY: usize = 64;

/// What does not change while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// What tells this boot of the machine from every other, as /proc/sys/kernel/random/boot_id does. After a boot each block is
    /// confirmed at the API server before an address of it is given out, since the node may have been fenced meanwhile.
    pub boot: String,
    /// Whether there is an API server. Without one the blocks are those of files and nothing is claimed.
    pub has_server: bool,
}

/// One node's addresses, without I/O. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Ipam {
    settings: Settings,
    /// Whether the journal has been whole since it was begun: then what it does not know was never given out.
    intact: bool,
    own_list: OwnList,
    documents_seen: bool,
    pools: Option<BTreeMap<String, Pool>>,
    namespaces: BTreeMap<String, (Labels, Option<Vec<String>>)>,
    /// By the name of the object.
    blocks: BTreeMap<String, Block>,
    attachments: BTreeMap<Attachment, BTreeSet<IpAddr>>,
    jobs: BTreeMap<Ticket, Job>,
    /// Addresses that a job has chosen and not yet written down.
    pencilled: BTreeMap<IpAddr, Ticket>,
    searches: BTreeMap<PoolKey, Search>,
    /// When a block may be looked for ahead of need again.
    search_ahead_at: BTreeMap<PoolKey, Duration>,
    calls: BTreeMap<Call, Purpose>,
    next_call: u64,
    asked: Vec<BlockObject>,
    /// UIDs of loans that are known to be gone, which a stale watch may still show.
    returned: BTreeSet<String>,
    lent_checks: BTreeMap<IpAddr, LentCheck>,
    fenced: BTreeSet<String>,
    /// The nodes that have what a Pod here needs, and when that was last so.
    in_the_way: BTreeMap<String, Duration>,
    suspects: BTreeMap<Attachment, Duration>,
    orphans: BTreeMap<(String, String), Duration>,
    now: Now,
    out: Vec<Output>,
    #[cfg(test)]
    pub(crate) mutant: Option<crate::sim::Mutant>,
}

/// What is known of this node's blocks where the journal is not whole: what the API server has of them.
#[derive(Debug, Default)]
enum OwnList {
    /// It is yet to be asked, but not before.
    #[default]
    Unasked,
    /// Asked, or to be asked again then.
    Waits(Option<Duration>),
    /// These are to be proven or gone.
    Known(Vec<String>),
}

/// One family of a pool.
type PoolKey = (String, AfiSafi);

/// A pool as it is used here.
#[derive(Debug)]
struct Pool {
    spec: IpPoolSpec,
    addresses: AddressSet,
    carvings: BTreeMap<AfiSafi, Carving>,
    serves_node: bool,
}

/// What a request to the API server was for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    /// The state of the block of that name.
    Block(String),
    /// What a search needs to know.
    Search(PoolKey),
    /// Where a fixed or kept address of a job is.
    Locate(Ticket, usize),
    /// Whether an address is kept for a job's Pod.
    LookUp(Ticket, usize),
    /// Whether a loan is still there.
    Loan(IpAddr),
    /// A loan of a fenced node is deleted.
    EndLoan(IpAddr),
    /// What this node has, where the journal does not say.
    OwnList,
    /// What a fenced node had, or the block of it that has an address.
    Inherit(String, Option<IpAddr>),
    /// What nobody waits for.
    Discard,
}

impl Ipam {
    /// Takes one input and says what is to be done, in this order. `now` never goes back in `uptime`.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.now = now;
        match input {
            Input::World(world) => self.set_world(world),
            Input::Owned(objects) => self.hint_owned(objects),
            Input::Asked(objects) => self.hint_asked(objects),
            Input::Documents(specs) => self.set_documents(specs),
            Input::Fenced(mut nodes) => {
                // What others may do with this node's is theirs to judge.
                nodes.remove(&self.settings.node);
                self.fenced = nodes;
            }
            Input::Inherit(node, only) => {
                self.ask(Purpose::Inherit(node.clone(), only), Request::OfNode(node));
            }
            Input::Answer(call, answer) => self.take_answer(call, answer),
            Input::Add(ticket, add) => self.begin_add(ticket, add),
            Input::Del(ticket, attachment) => self.del(ticket, &attachment),
            Input::Check(ticket, attachment, addresses) => self.check(ticket, &attachment, &addresses),
            Input::Gc(ticket, attachments) => self.gc(ticket, &attachments),
            Input::Status(ticket) => self.status(ticket),
            Input::Release(ticket, address, confirm) => self.release_address(ticket, address, confirm),
            Input::Observed(observation) => self.observe(observation),
            Input::Doubted => self.doubt(),
            Input::Timeout => {}
        }
        self.settle();
        std::mem::take(&mut self.out)
    }

    fn settle(&mut self) {
        self.refuse_late();
        self.answer_requests();
        // What one job gives up or finds may be what another waits for.
        while self.advance_jobs() {}
        self.make_whole();
        self.tidy();
        self.advance_searches();
        while self.advance_jobs() {}
        self.drive();
    }

    /// When to call with [`Input::Timeout`] at the latest, by the uptime of [`Now`].
    pub fn poll_timeout(&self) -> Option<Duration> {
        let jobs = self.jobs.values().map(Job::wake_at);
        let blocks = self.blocks.values().filter_map(|block| self.block_wakes_at(block));
        let checks = self.lent_checks.values().filter_map(LentCheck::wakes_at);
        let retry = match &self.own_list {
            OwnList::Waits(at) if !self.intact => *at,
            OwnList::Unasked | OwnList::Waits(_) | OwnList::Known(_) => None,
        };
        let ahead = self.search_ahead_at.values().copied().chain(retry);
        jobs.chain(blocks).chain(checks).chain(ahead).min()
    }

    /// The nodes that lately had what a Pod here needs. Whether they are fenced is worth a look.
    pub fn in_the_way(&self) -> impl Iterator<Item = &str> {
        let lately = self.now.uptime.saturating_sub(LATELY);
        self.in_the_way.iter().filter(move |(_, at)| **at >= lately).map(|(node, _)| node.as_str())
    }

    /// Notes it for [`Ipam::in_the_way`].
    fn is_in_the_way<'a>(&mut self, nodes: impl Iterator<Item = &'a str>) {
        let lately = self.now.uptime.saturating_sub(LATELY);
        self.in_the_way.retain(|_, at| *at >= lately);
        for node in nodes {
            if self.in_the_way.len() < MOST_IN_THE_WAY || self.in_the_way.contains_key(node) {
                self.in_the_way.insert(node.to_owned(), self.now.uptime);
            }
        }
    }

    /// What this node owns and who holds it.
    pub fn holdings(&self) -> Holdings {
        let mut holdings = Holdings::default();
        let (blocks, held) = (Arc::make_mut(&mut holdings.blocks), Arc::make_mut(&mut holdings.held));
        for block in self.blocks.values().filter(|block| block.owned) {
            let in_use =
                matches!(block.state, State::Ready | State::Lost | State::Adopting | State::Verifying);
            for (ordinal, slot) in &block.slots {
                if let Slot::Held(holder) = slot {
                    held.insert(block.address(*ordinal), holder.clone());
                }
            }
            if in_use {
                blocks.insert(block.cidr, self.owned_block(block));
            }
        }
        holdings
    }

    fn owned_block(&self, block: &Block) -> OwnedBlock {
        let lent = block.slots.iter().filter_map(|(ordinal, slot)| match slot {
            Slot::Lent(lent) => Some((block.address(*ordinal), lent.node.clone())),
            Slot::Held(_) | Slot::Kept(_) | Slot::Resting(_) => None,
        });
        OwnedBlock {
            pool: block.pool.clone(),
            epoch: block.epoch.into(),
            lost: block.state == State::Lost,
            used: block.used(),
            free: usize::try_from(block.size()).unwrap_or(usize::MAX).saturating_sub(block.used()),
            lender: block.lender.as_ref().map(|lender| lender.name.clone()),
            lender_node: block.lender.as_ref().map(|lender| lender.node.clone()),
            lent: lent.collect(),
        }
    }

    fn set_world(&mut self, world: World) {
        let pool = |spec: &IpPoolSpec| Pool {
            addresses: spec.addresses(),
            carvings: [AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast]
                .into_iter()
                .filter(|family| spec.ip_ranges.iter().any(|range| range.family() == *family))
                .map(|family| (family, Carving::new(spec, family)))
                .collect(),
            serves_node: spec.node_selector.matches(&world.node_labels),
            spec: spec.clone(),
        };
        let pools = world.pools.iter().filter(|one| one.spec.is_in_blocks());
        self.pools = Some(pools.map(|one| (one.name().to_owned(), pool(&one.spec))).collect());
        self.namespaces = world.namespaces;
    }

    fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.as_ref()?.get(name)
    }

    /// The most specific block of this node that `address` lies in, as far as it is more than a wish.
    fn own_block(&self, address: IpAddr) -> Option<(&String, &Block)> {
        self.blocks
            .iter()
            .filter(|(_, block)| !block.is_transfer() && block.cidr.contains_address(address))
            .max_by_key(|(_, block)| block.cidr.length())
    }

    fn ask(&mut self, purpose: Purpose, request: Request) -> Call {
        let call = Call(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, purpose);
        self.out.push(Output::Ask(call, request));
        call
    }

    /// Writes a step down and takes it.
    fn commit(&mut self, record: Record) {
        if !self.broken_journal(&record) {
            self.out.push(Output::Append(record.clone()));
        }
        let applied = self.apply(&record);
        debug_assert!(applied.is_ok(), "{record:?}: {applied:?}");
    }

    #[cfg(not(test))]
    fn broken_journal(&self, _: &Record) -> bool {
        false
    }

    #[cfg(test)]
    fn broken_journal(&self, record: &Record) -> bool {
        self.is_broken(crate::sim::Mutant::SkipJournal) && matches!(record, Record::Hold { .. })
    }

    /// Whether the journal knows all that this node ever gave out.
    #[cfg(test)]
    pub(crate) fn is_whole(&self) -> bool {
        self.intact
    }

    /// Whether a test broke this on purpose.
    #[cfg(test)]
    fn is_broken(&self, mutant: crate::sim::Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn remove_block(&mut self, name: &str) {
        self.blocks.remove(name);
    }
}

/// The same number on every node and in every run, whatever the platform.
pub fn hash(parts: &[&str]) -> u64 {
    let octets = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    let mut hash = octets.fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3)
    });
    // FNV alone leaves names that differ in their last character close together.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

/// How long to wait after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(50) * 2_u32.pow(failures.min(8))
}

/// Whether the object owns addresses, and so must not overlap another that does.
fn is_block(spec: &IpBlockSpec) -> bool {
    spec.lender.is_none() && !spec.transfer
}

fn single(address: IpAddr) -> Prefix {
    Prefix::host(address)
}
