//! Which pools are in force: what is declared, but nothing of it is taken from under the Pods of this node.
//!
//! Where an edited or deleted pool would no longer hold a block of which somebody here has an address, that block stays part of the
//! pool for the plan until nobody has; new addresses are given out by what is declared alone, so that this comes to an end. The
//! definition of each pool in use is kept over a restart (`stateDir/ipam/pools`). Of two pools in blocks that share addresses the
//! older one gives addresses out, and the other does not.
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use plainroute_bgp::Prefix;
use plainroute_blocks::Holdings;
use plainroute_config::{AddressSet, IpPool, IpRange};
use tracing::{info, warn};

use crate::{index::Snapshot, plan::overlap, state_file};

/// Below `stateDir`.
const FILE: &str = "ipam/pools";
/// It names namespaces' labels: root's alone, as all in that directory.
const MODE: u32 = 0o600;
/// So many Pods are named in one sentence.
const NAMED: usize = 5;

/// What is to be said of pools that are not in force as they are declared, by the pool's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PoolNotes {
    /// They are in use here by another definition.
    pub(crate) in_use: BTreeMap<String, String>,
    /// They give no addresses out, since another pool has some of theirs.
    pub(crate) refused: BTreeMap<String, String>,
}

/// Owned by the main task.
#[derive(Debug)]
pub(crate) struct PoolsInForce {
    path: PathBuf,
    /// The definitions of the pools that are in use here, as they were in force last.
    kept: BTreeMap<String, IpPool>,
    said: BTreeMap<String, String>,
}

impl PoolsInForce {
    /// As the process before this one left it. What cannot be read is not there.
    pub(crate) fn open(state_dir: &Path) -> PoolsInForce {
        let path = state_dir.join(FILE);
        let kept = match read(&path) {
            Ok(kept) => kept,
            Err(error) => {
                warn!(path = %path.display(), %error, "which pools were in use before cannot be read");
                BTreeMap::new()
            }
        };
        PoolsInForce { path, kept, said: BTreeMap::new() }
    }

    /// What the plan is made from, where these are the objects and this is what the node holds.
    pub(crate) fn judge(&mut self, declared: &Snapshot, holdings: Option<&Holdings>) -> Snapshot {
        let pools: BTreeMap<&str, &IpPool> = declared.pools().map(|(pool, _)| (pool.name(), pool)).collect();
        let mut notes = PoolNotes { refused: refused(&pools, holdings), ..PoolNotes::default() };
        let mut kept = BTreeMap::new();
        let mut stays = Vec::new();
        for name in self.in_use(holdings) {
            let now = pools.get(name.as_str()).copied().filter(|pool| pool.spec.is_in_blocks());
            let last = self.kept.get(&name);
            let Some(base) = now.or(last) else { continue };
            let (pool, why) = match holdings {
                Some(holdings) => {
                    let stranded = stranded(holdings, &name, now);
                    if stranded.is_empty() {
                        kept.insert(name, base.clone());
                        continue;
                    }
                    let pool = if now.is_some() { with_blocks(base, &stranded) } else { base.clone() };
                    (pool, sentence(now.is_some(), &stranded, holdings))
                }
                // What is held of it is not known, so all of it may be.
                None => match last.filter(|last| now.is_none_or(|now| now.spec != last.spec)) {
                    Some(last) => (
                        last.clone(),
                        "who has addresses of it is not known, so it stays as it was".to_owned(),
                    ),
                    None => {
                        kept.insert(name, base.clone());
                        continue;
                    }
                },
            };
            stays.push(pool);
            kept.insert(name.clone(), last.unwrap_or(base).clone());
            notes.in_use.insert(name, why);
        }
        self.say(&notes);
        self.keep(kept);
        declared.with_pools(stays, notes)
    }

    /// The pools of which this node has an address in use; where that is not known, those that were in use before.
    fn in_use(&self, holdings: Option<&Holdings>) -> BTreeSet<String> {
        match holdings {
            Some(holdings) => used(holdings).map(|(_, pool)| pool.to_owned()).collect(),
            None => self.kept.keys().cloned().collect(),
        }
    }

    fn say(&mut self, notes: &PoolNotes) {
        for (pool, why) in notes.in_use.iter().filter(|(pool, _)| !self.said.contains_key(*pool)) {
            warn!(pool, "{why}");
        }
        for pool in self.said.keys().filter(|pool| !notes.in_use.contains_key(*pool)) {
            info!(pool, "the pool is in force as it is declared");
        }
        self.said.clone_from(&notes.in_use);
    }

    fn keep(&mut self, kept: BTreeMap<String, IpPool>) {
        if kept == self.kept {
            return;
        }
        self.kept = kept;
        let pools: Vec<&IpPool> = self.kept.values().collect();
        let write = |out: &mut fs::File| serde_json::to_writer_pretty(out, &pools).map_err(io::Error::from);
        if let Err(error) = state_file::replace_with(&self.path, MODE, write) {
            warn!(path = %self.path.display(), %error, "which pools are in use cannot be written down for the next start");
        }
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<String, IpPool>> {
    let content = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        content => content?,
    };
    let pools: Vec<IpPool> = serde_json::from_slice(&content)?;
    Ok(pools.into_iter().map(|pool| (pool.name().to_owned(), pool)).collect())
}

/// The blocks of which an address is in use, with their pools.
fn used(holdings: &Holdings) -> impl Iterator<Item = (Prefix, &str)> {
    let used = holdings.blocks.iter().filter(|(_, block)| block.used > 0);
    used.map(|(prefix, block)| (*prefix, block.pool.as_str()))
}

/// The blocks in use of a pool that its definition does not hold.
fn stranded(holdings: &Holdings, pool: &str, now: Option<&IpPool>) -> Vec<Prefix> {
    let addresses = now.map(|now| now.spec.addresses()).unwrap_or_default();
    let of_pool = used(holdings).filter(|(_, of)| *of == pool).map(|(prefix, _)| prefix);
    of_pool.filter(|prefix| !holds(&addresses, *prefix)).collect()
}

fn holds(addresses: &AddressSet, block: Prefix) -> bool {
    addresses.intervals().any(|(first, last)| first <= block.address() && block.last_address() <= last)
}

/// The pool as it is declared, and these blocks.
fn with_blocks(declared: &IpPool, blocks: &[Prefix]) -> IpPool {
    let mut pool = declared.clone();
    // Ranges of a set do not lie in one another.
    let within = |range: &IpRange, block: &Prefix| {
        block.contains_address(range.first()) && block.contains_address(range.last())
    };
    pool.spec.ip_ranges.retain(|range| !blocks.iter().any(|block| within(range, block)));
    pool.spec.ip_ranges.extend(blocks.iter().map(|block| IpRange::from(*block)));
    pool.spec.excluded.retain(|out| !blocks.iter().any(|block| block.overlaps(out.prefix())));
    pool
}

fn sentence(declared: bool, blocks: &[Prefix], holdings: &Holdings) -> String {
    let list: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    let what = if declared { "what is declared does not hold" } else { "it is gone, and with it" };
    let within = |address| blocks.iter().any(|block| block.contains_address(address));
    let held = holdings.held.iter().filter(|(address, _)| within(**address));
    let held: Vec<String> =
        held.map(|(address, holder)| format!("{}/{}: {address}", holder.namespace, holder.name)).collect();
    let blocks = holdings.blocks.iter().filter(|(prefix, _)| blocks.contains(prefix));
    let used: usize = blocks.map(|(_, block)| block.used).sum();
    let mut who = held.iter().take(NAMED).cloned().collect::<Vec<_>>();
    who.extend((held.len() > NAMED).then(|| format!("{} more", held.len() - NAMED)));
    who.extend((used > held.len()).then(|| format!("{} kept or lent", used - held.len())));
    format!(
        "{what} {}, which is in use ({}); that stays in force until it is not, and nothing new is given out of it",
        list.join(", "),
        who.join(", ")
    )
}

/// Of pools that share addresses the one that is older gives them out, then the one in use here, then the first by name.
fn refused(pools: &BTreeMap<&str, &IpPool>, holdings: Option<&Holdings>) -> BTreeMap<String, String> {
    let in_use: BTreeSet<&str> = holdings.into_iter().flat_map(used).map(|(_, pool)| pool).collect();
    let rank = |pool: &IpPool| {
        let age = pool.metadata.creation_timestamp.unwrap_or(Timestamp::MIN);
        (age, Reverse(in_use.contains(pool.name())))
    };
    let mut ours: Vec<&IpPool> = pools.values().copied().filter(|pool| pool.spec.is_in_blocks()).collect();
    ours.sort_by_key(|pool| (rank(pool), pool.name().to_owned()));
    let mut taken: Vec<(&IpPool, AddressSet)> = Vec::new();
    let mut refused = BTreeMap::new();
    for pool in ours {
        let addresses = pool.spec.addresses();
        match taken.iter().find(|(_, other)| overlap(&addresses, other)) {
            Some((first, _)) => {
                let why = format!(
                    "shares addresses with IPPool {}, which was there first; no address of it is given out",
                    first.name()
                );
                refused.insert(pool.name().to_owned(), why);
            }
            None => taken.push((pool, addresses)),
        }
    }
    refused
}

impl Snapshot {
    /// These pools in place of what is declared, and why.
    fn with_pools(&self, pools: Vec<IpPool>, notes: PoolNotes) -> Snapshot {
        let mut snapshot = self.clone();
        for pool in pools {
            snapshot.replace(plainroute_config::Object::IpPool(pool));
        }
        snapshot.pool_notes = Arc::new(notes);
        snapshot
    }
}

#[cfg(test)]
mod tests;
