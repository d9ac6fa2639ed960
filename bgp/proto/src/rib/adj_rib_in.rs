//! Adj-RIB-In: what one peer told us and the import policy let in.
//!
//! A rejected route costs no memory: it is counted and forgotten, so that a leaked full table is harmless. The
//! price is that a policy which comes to accept more needs a route refresh from the peer (RFC 2918).
use std::collections::BTreeMap;

use super::{AttributeSet, AttributeSets, Route};
use crate::{
    AfiSafi, Asn, Prefix, RouterId,
    policy::ImportPolicy,
    wire::{PathAttributes, Update},
};

/// Who we are to this peer, for the loop checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Our AS number in this session.
    pub asn: Asn,
    /// Our BGP identifier in this session.
    pub router_id: RouterId,
}

/// An accepted route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Attributes and next hop.
    pub route: Route,
    /// Whether the kernel is to use it.
    pub install: bool,
    /// Kept from before the peer's restart and not told again yet (RFC 4724 section 4.2).
    pub stale: bool,
}

/// A prefix whose accepted route is now another one; `None`: gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The prefix.
    pub prefix: Prefix,
    /// Its accepted route.
    pub route: Option<Received>,
}

/// How the number of accepted prefixes stands to the configured limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixLimit {
    /// It has just reached 80 % of `limit`; told once until it has fallen below.
    Near {
        /// Accepted prefixes.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// One more would be beyond it: the session is to be ceased (RFC 4486, subcode 1). Nothing beyond is kept.
    Exceeded {
        /// The limit.
        limit: u32,
    },
}

/// What an UPDATE did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What changed, in the order of the UPDATE.
    pub changes: Vec<Change>,
    /// What is to be said of the limit, if anything.
    pub limit: Option<PrefixLimit>,
}

/// Announcements of a family that did not come in during this session. A prefix announced twice counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RejectCounts {
    /// No import rule matched.
    pub policy: u64,
    /// Our own AS or identifier was in the path (RFC 4271 section 9.1.2, RFC 4456 section 8).
    pub looped: u64,
}

/// What one peer told us, as far as it was accepted.
#[derive(Debug)]
pub struct AdjRibIn {
    identity: Identity,
    max_prefixes: Option<u32>,
    routes: BTreeMap<Prefix, Received>,
    sets: AttributeSets,
    rejected: [RejectCounts; 2],
    told_near: bool,
}

impl AdjRibIn {
    /// An empty RIB. `max_prefixes` limits the accepted prefixes of all families together.
    pub fn new(identity: Identity, max_prefixes: Option<u32>) -> AdjRibIn {
        AdjRibIn {
            identity,
            max_prefixes,
            routes: BTreeMap::new(),
            sets: AttributeSets::default(),
            rejected: Default::default(),
            told_near: false,
        }
    }

    /// Takes in an UPDATE: withdrawals first, then announcements through `policy`. An End-of-RIB marker changes
    /// nothing here; the caller answers it by [`Self::sweep_stale`].
    pub fn apply(&mut self, update: &Update, policy: &ImportPolicy) -> Applied {
        let mut applied = Applied::default();
        for nlri in update.unreach.iter().flat_map(|unreach| &unreach.nlri) {
            self.remove(nlri.prefix, &mut applied.changes);
        }
        let looped = self.is_loop(&update.attributes);
        let mut set: Option<AttributeSet> = None;
        for reach in &update.reach {
            for nlri in &reach.nlri {
                let accepted = if looped { None } else { policy.evaluate(nlri.prefix) };
                let Some(accepted) = accepted else {
                    let rejected = &mut self.rejected[nlri.prefix.family().place()];
                    let count = if looped { &mut rejected.looped } else { &mut rejected.policy };
                    *count = count.saturating_add(1);
                    self.remove(nlri.prefix, &mut applied.changes);
                    continue;
                };
                if self.is_full() && !self.routes.contains_key(&nlri.prefix) {
                    let limit = self.max_prefixes.unwrap_or(u32::MAX);
                    applied.limit = Some(PrefixLimit::Exceeded { limit });
                    return applied;
                }
                let attributes =
                    set.get_or_insert_with(|| self.sets.intern(update.attributes.clone())).clone();
                let route = Route { attributes, next_hop: reach.next_hop };
                let received = Received { route, install: accepted.install, stale: false };
                self.insert(nlri.prefix, received, &mut applied.changes);
            }
        }
        applied.limit = self.nearness();
        applied
    }

    /// Judges what is held by another policy. What the new one would accept beyond that is not held: ask the peer
    /// for a refresh.
    pub fn reapply(&mut self, policy: &ImportPolicy) -> Vec<Change> {
        let mut changes = Vec::new();
        self.routes.retain(|prefix, received| match policy.evaluate(*prefix) {
            Some(accepted) => {
                if received.install != accepted.install {
                    received.install = accepted.install;
                    changes.push(Change { prefix: *prefix, route: Some(received.clone()) });
                }
                true
            }
            None => {
                changes.push(Change { prefix: *prefix, route: None });
                false
            }
        });
        changes
    }

    /// The session of a peer that preserves its forwarding went down: keeps its routes of `family` as stale. Those
    /// that were stale already go (RFC 4724 section 4.2: consecutive restarts).
    pub fn mark_stale(&mut self, family: AfiSafi) -> Vec<Change> {
        let mut changes = self.sweep_stale(family);
        for (prefix, received) in self.routes.iter_mut().filter(|(prefix, _)| prefix.family() == family) {
            received.stale = true;
            changes.push(Change { prefix: *prefix, route: Some(received.clone()) });
        }
        changes
    }

    /// End-of-RIB came, or the time for it ran out: what the peer did not tell again goes.
    pub fn sweep_stale(&mut self, family: AfiSafi) -> Vec<Change> {
        self.remove_where(|prefix, received| received.stale && prefix.family() == family)
    }

    /// The session went down and nothing is to be kept of `family`.
    pub fn clear(&mut self, family: AfiSafi) -> Vec<Change> {
        self.remove_where(|prefix, _| prefix.family() == family)
    }

    /// A new session: counts start again, and the limit is told again. What is kept as stale stays.
    pub fn session_up(&mut self, identity: Identity, max_prefixes: Option<u32>) {
        self.identity = identity;
        self.max_prefixes = max_prefixes;
        self.rejected = Default::default();
        self.told_near = false;
    }

    /// The accepted route to `prefix`.
    pub fn find(&self, prefix: Prefix) -> Option<&Received> {
        self.routes.get(&prefix)
    }

    /// All accepted routes, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &Received)> {
        self.routes.iter().map(|(prefix, received)| (*prefix, received))
    }

    /// How many prefixes of `family` are accepted.
    pub fn count(&self, family: AfiSafi) -> usize {
        self.routes.keys().filter(|prefix| prefix.family() == family).count()
    }

    /// Whether nothing is accepted.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// How many accepted prefixes of `family` wait for the restarting peer to tell them again.
    pub fn stale(&self, family: AfiSafi) -> usize {
        self.routes.iter().filter(|(prefix, received)| prefix.family() == family && received.stale).count()
    }

    /// What did not come in of `family` during this session.
    pub fn rejected(&self, family: AfiSafi) -> RejectCounts {
        self.rejected[family.place()]
    }

    /// RFC 4271 section 9.1.2 and RFC 4456 section 8: a route that has been here before is not used.
    fn is_loop(&self, attributes: &PathAttributes) -> bool {
        let own = self.identity.router_id.address();
        attributes.as_path.segments.iter().any(|segment| segment.asns.contains(&self.identity.asn))
            || attributes.originator_id == Some(own)
            || attributes.cluster_list.contains(&own)
    }

    fn accepted(&self) -> u32 {
        u32::try_from(self.routes.len()).unwrap_or(u32::MAX)
    }

    fn is_full(&self) -> bool {
        self.max_prefixes.is_some_and(|limit| self.accepted() >= limit)
    }

    fn nearness(&mut self) -> Option<PrefixLimit> {
        let (count, limit) = (self.accepted(), self.max_prefixes?);
        let near = u64::from(count) * 5 >= u64::from(limit) * 4;
        let tell = near && !self.told_near;
        self.told_near = near;
        tell.then_some(PrefixLimit::Near { count, limit })
    }

    fn insert(&mut self, prefix: Prefix, received: Received, changes: &mut Vec<Change>) {
        if self.routes.get(&prefix) != Some(&received) {
            self.routes.insert(prefix, received.clone());
            changes.push(Change { prefix, route: Some(received) });
        }
    }

    fn remove(&mut self, prefix: Prefix, changes: &mut Vec<Change>) {
        if self.routes.remove(&prefix).is_some() {
            changes.push(Change { prefix, route: None });
        }
    }

    fn remove_where(&mut self, gone: impl Fn(&Prefix, &Received) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        self.routes.retain(|prefix, received| {
            let gone = gone(prefix, received);
            if gone {
                changes.push(Change { prefix: *prefix, route: None });
            }
            !gone
        });
        changes
    }
}
