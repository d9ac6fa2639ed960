//! Adj-RIB-In: what one peer told us and the import policy let in.
//!
//! A rejected route costs no memory: it is counted and forgotten, so that a leaked full table is harmless. The
//! price is that a policy which comes to accept more needs a route refresh from the peer (RFC 2918).
use std::{borrow::Cow, sync::Arc};

use super::{
    Route,
    held::{GroupId, Held},
};
use crate::{
    AfiSafi, Asn, Community, Families, Prefix, RouterId,
    policy::{Accepted, ImportPolicy, Relation},
    wire::{Nlri, PathAttributes, Reach, Update},
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
    /// Attributes and next hop, as they are used: as the peer sent them but for the LOCAL_PREF that a rule set.
    pub route: Route,
    /// LOCAL_PREF before a rule put another in its place, so that other rules can be judged by it.
    pub sent_local_pref: Option<u32>,
    /// Whether the kernel is to use it.
    pub install: bool,
    /// Kept from before the peer's restart and not told again yet (RFC 4724 section 4.2).
    pub stale: bool,
}

/// A prefix whose accepted route is now another one; `None`: gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The prefix, with its path identifier where the session has such (RFC 7911).
    pub nlri: Nlri,
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
    /// No import rule accepted it.
    pub policy: u64,
    /// Our own AS or identifier was in the path (RFC 4271 section 9.1.2, RFC 4456 section 8).
    pub looped: u64,
    /// Only to Customer says that the peer should not have it or not give it (RFC 9234 section 5).
    pub leaked: u64,
    /// The path does not begin with the peer's AS (RFC 4271 section 6.3).
    pub first_as: u64,
}

impl RejectCounts {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.policy.saturating_add(self.looped).saturating_add(self.leaked).saturating_add(self.first_as)
    }
}

/// Why a whole UPDATE stays out.
enum Refused {
    Looped,
    Leaked,
    FirstAs,
}

/// What one peer told us, as far as it was accepted.
#[derive(Debug)]
pub struct AdjRibIn {
    identity: Identity,
    max_prefixes: Option<u32>,
    relation: Option<Relation>,
    /// The AS with which every path must begin.
    first_as: Option<Asn>,
    /// By prefix and path identifier, so that several paths of one peer stand beside each other.
    routes: Held,
    /// The families being refreshed (RFC 7313).
    refreshing: Families,
    rejected: [RejectCounts; 2],
    told_near: bool,
}

impl AdjRibIn {
    /// An empty RIB. `max_prefixes` limits the accepted prefixes of all families together.
    pub fn new(identity: Identity, max_prefixes: Option<u32>) -> AdjRibIn {
        AdjRibIn {
            identity,
            max_prefixes,
            relation: None,
            first_as: None,
            routes: Held::default(),
            refreshing: Families::NONE,
            rejected: Default::default(),
            told_near: false,
        }
    }

    /// Takes in an UPDATE: withdrawals first, then announcements through `policy`. An End-of-RIB marker changes
    /// nothing here; the caller answers it by [`Self::sweep_stale`].
    pub fn apply(&mut self, update: &Update, policy: &ImportPolicy) -> Applied {
        let mut applied = Applied::default();
        for nlri in update.unreach.iter().flat_map(|unreach| &unreach.nlri) {
            self.remove(*nlri, &mut applied.changes);
        }
        match self.usable(&update.attributes, policy) {
            Ok((attributes, looped)) => {
                for reach in &update.reach {
                    let reach = match looped {
                        false => Cow::Borrowed(reach),
                        true => Cow::Owned(self.unlooped(reach, policy, &mut applied.changes)),
                    };
                    applied.limit = self.announce(&reach, &attributes, policy, &mut applied.changes);
                    if applied.limit.is_some() {
                        return applied;
                    }
                }
            }
            Err(refused) => {
                for nlri in update.reach.iter().flat_map(|reach| &reach.nlri) {
                    let rejected = &mut self.rejected[nlri.prefix.family().place()];
                    let count = match refused {
                        Refused::Looped => &mut rejected.looped,
                        Refused::Leaked => &mut rejected.leaked,
                        Refused::FirstAs => &mut rejected.first_as,
                    };
                    *count = count.saturating_add(1);
                    self.remove(*nlri, &mut applied.changes);
                }
            }
        }
        applied.limit = self.nearness();
        applied
    }

    /// What of `reach` is followed; of a looped route nothing else is used.
    fn unlooped(&mut self, reach: &Reach, policy: &ImportPolicy, changes: &mut Vec<Change>) -> Reach {
        let mut followed = reach.clone();
        followed.nlri.retain(|nlri| policy.follows(nlri.prefix));
        for nlri in reach.nlri.iter().filter(|nlri| !policy.follows(nlri.prefix)) {
            let looped = &mut self.rejected[nlri.prefix.family().place()].looped;
            *looped = looped.saturating_add(1);
            self.remove(*nlri, changes);
        }
        followed
    }

    /// Announcements through one next hop. Gives the limit where they exceed it; what is beyond stays out.
    fn announce(
        &mut self,
        reach: &Reach,
        attributes: &Arc<PathAttributes>,
        policy: &ImportPolicy,
        changes: &mut Vec<Change>,
    ) -> Option<PrefixLimit> {
        // One group for each LOCAL_PREF that the rules give the routes of this UPDATE: a handful at most.
        let mut groups: Vec<(Option<u32>, GroupId)> = Vec::new();
        let mut exceeded = None;
        for nlri in &reach.nlri {
            let Some(accepted) = policy.evaluate(nlri.prefix, attributes) else {
                let count = &mut self.rejected[nlri.prefix.family().place()].policy;
                *count = count.saturating_add(1);
                self.remove(*nlri, changes);
                continue;
            };
            if self.is_full() && !self.routes.contains(nlri) {
                exceeded = Some(PrefixLimit::Exceeded { limit: self.max_prefixes.unwrap_or(u32::MAX) });
                break;
            }
            let local_pref = local_pref(attributes, accepted);
            let group = match groups.iter().find(|(of, _)| *of == local_pref) {
                Some((_, group)) => *group,
                None => {
                    let route = Route::new(with_local_pref(attributes, local_pref), reach.next_hop);
                    let group = self.routes.hold(route, attributes.local_pref);
                    groups.push((local_pref, group));
                    group
                }
            };
            if let Some(route) = self.routes.put(*nlri, group, accepted.install) {
                changes.push(Change { nlri: *nlri, route: Some(route) });
            }
        }
        for (_, group) in groups {
            self.routes.release(group);
        }
        exceeded
    }

    /// Judges what is held by another policy. What the new one would accept beyond that is not held: ask the peer
    /// for a refresh.
    pub fn reapply(&mut self, policy: &ImportPolicy) -> Vec<Change> {
        let own = self.identity.asn;
        self.edit_all(|nlri, received| {
            let used = received.route.attributes.shared();
            if has_as(used, own) && !policy.follows(nlri.prefix) {
                return false;
            }
            let Some(accepted) = policy.evaluate(nlri.prefix, used) else { return false };
            let sent = with_local_pref(used, received.sent_local_pref);
            let local_pref = local_pref(&sent, accepted);
            received.install = accepted.install;
            if used.local_pref != local_pref {
                received.route.attributes = with_local_pref(&sent, local_pref).into();
            }
            true
        })
    }

    /// Another limit; it holds for what comes from now on.
    pub fn set_max_prefixes(&mut self, max_prefixes: Option<u32>) {
        self.max_prefixes = max_prefixes;
        self.told_near = false;
    }

    /// What the peer is to us; decides which routes are leaks and how they are marked. None: nothing of that.
    pub fn set_relation(&mut self, relation: Option<Relation>) {
        self.relation = relation;
    }

    /// The AS with which every path must begin: that of an external peer, or none (RFC 4271 section 6.3). A route with
    /// another path is treated as withdrawn (RFC 7606 section 7.2); so are those that are held.
    pub fn set_first_as(&mut self, first_as: Option<Asn>) -> Vec<Change> {
        self.first_as = first_as;
        let Some(asn) = first_as else { return Vec::new() };
        self.edit_all(|_, received| received.route.attributes.as_path.first_asn() == Some(asn))
    }

    /// The peer begins to tell all of `family` again: from now on is noted what it has not told yet. A second
    /// beginning counts alone (RFC 7313 section 4.2).
    pub fn begin_refresh(&mut self, family: AfiSafi) {
        self.routes.begin_telling(family);
        self.refreshing.insert(family);
    }

    /// The peer has told all of `family` again: what it did not tell goes. Without a beginning nothing does.
    pub fn end_refresh(&mut self, family: AfiSafi) -> Vec<Change> {
        if !self.refreshing.contains(family) {
            return Vec::new();
        }
        self.refreshing.remove(family);
        self.routes.edit(family, |_, _, untold| !untold)
    }

    /// The restart time of the peer is over, and what is stale of `family` may stay as a last resort: it is
    /// marked by LLGR_STALE, and goes where NO_LLGR forbids it (RFC 9494 section 4.2).
    pub fn mark_long_lived(&mut self, family: AfiSafi) -> Vec<Change> {
        self.routes.edit(family, |_, received, _| {
            let attributes = &received.route.attributes;
            if !received.stale || attributes.communities.contains(&Community::LLGR_STALE) {
                return true;
            }
            if attributes.communities.contains(&Community::NO_LLGR) {
                return false;
            }
            let mut attributes = PathAttributes::clone(attributes);
            attributes.communities.push(Community::LLGR_STALE);
            attributes.communities.sort_unstable();
            received.route.attributes = attributes.into();
            true
        })
    }

    /// The session of a peer that preserves its forwarding went down: keeps its routes of `family` as stale. Those
    /// that were stale already go (RFC 4724 section 4.2: consecutive restarts).
    pub fn mark_stale(&mut self, family: AfiSafi) -> Vec<Change> {
        self.refreshing.remove(family);
        let mut changes = self.sweep_stale(family);
        changes.extend(self.routes.edit(family, |_, received, _| {
            received.stale = true;
            true
        }));
        changes
    }

    /// End-of-RIB came, or the time for it ran out: what the peer did not tell again goes.
    pub fn sweep_stale(&mut self, family: AfiSafi) -> Vec<Change> {
        if self.routes.stale(family) == 0 {
            return Vec::new();
        }
        self.routes.edit(family, |_, received, _| !received.stale)
    }

    /// The session went down and nothing is to be kept of `family`.
    pub fn clear(&mut self, family: AfiSafi) -> Vec<Change> {
        self.refreshing.remove(family);
        self.routes.edit(family, |_, _, _| false)
    }

    /// A new session: counts start again, and the limit is told again. What is kept as stale stays.
    pub fn session_up(&mut self, identity: Identity, max_prefixes: Option<u32>) {
        self.identity = identity;
        self.max_prefixes = max_prefixes;
        self.rejected = Default::default();
        self.told_near = false;
        self.refreshing = Families::NONE;
    }

    /// The accepted route to `prefix`; of several paths (RFC 7911) the one with the lowest identifier, which has to be
    /// looked for among all.
    pub fn find(&self, prefix: Prefix) -> Option<Received> {
        self.routes.get(&prefix.into()).or_else(|| {
            let paths = self.routes.iter().filter(|(nlri, _)| nlri.prefix == prefix);
            paths.min_by_key(|(nlri, _)| *nlri).map(|(_, received)| received)
        })
    }

    /// All accepted routes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Nlri, Received)> {
        self.routes.iter()
    }

    /// How many routes of `family` are accepted.
    pub fn count(&self, family: AfiSafi) -> usize {
        self.routes.count(family)
    }

    /// Whether nothing is accepted.
    pub fn is_empty(&self) -> bool {
        self.routes.len() == 0
    }

    /// How many accepted prefixes of `family` wait for the restarting peer to tell them again.
    pub fn stale(&self, family: AfiSafi) -> usize {
        self.routes.stale(family)
    }

    /// What did not come in of `family` during this session.
    pub fn rejected(&self, family: AfiSafi) -> RejectCounts {
        self.rejected[family.place()]
    }

    /// The attributes as they are used, and whether our own AS is in the path, so that only what is followed may come in;
    /// or why the routes stay out.
    fn usable(
        &self,
        attributes: &Arc<PathAttributes>,
        policy: &ImportPolicy,
    ) -> Result<(Arc<PathAttributes>, bool), Refused> {
        let own_as = has_as(attributes, self.identity.asn);
        if self.is_reflected_back(attributes) || own_as && !policy.follows_any() {
            return Err(Refused::Looped);
        }
        if self.first_as.is_some_and(|asn| attributes.as_path.first_asn() != Some(asn)) {
            return Err(Refused::FirstAs);
        }
        match self.relation {
            None => Ok((Arc::clone(attributes), own_as)),
            Some(relation) => match relation.receive(attributes) {
                Ok(attributes) => Ok((attributes, own_as)),
                Err(_) => Err(Refused::Leaked),
            },
        }
    }

    /// RFC 4456 section 8: neither is one that has been at this very router.
    fn is_reflected_back(&self, attributes: &PathAttributes) -> bool {
        let own = self.identity.router_id.address();
        attributes.originator_id == Some(own) || attributes.cluster_list.contains(&own)
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

    fn remove(&mut self, nlri: Nlri, changes: &mut Vec<Change>) {
        if self.routes.remove(&nlri) {
            changes.push(Change { nlri, route: None });
        }
    }

    /// Lets `edit` change every route of every family; where it gives false, the route goes.
    fn edit_all(&mut self, mut edit: impl FnMut(&Nlri, &mut Received) -> bool) -> Vec<Change> {
        let mut edit = |family| self.routes.edit(family, |nlri, received, _| edit(nlri, received));
        AfiSafi::ALL.into_iter().flat_map(&mut edit).collect()
    }
}

/// RFC 4271 section 9.1.2: a route that has been in our own AS before is a loop.
fn has_as(attributes: &PathAttributes, asn: Asn) -> bool {
    attributes.as_path.segments.iter().any(|segment| segment.asns.contains(&asn))
}

/// The LOCAL_PREF that is used: the rule's, except where the peer says that the route is about to go away and so is
/// the last choice already (RFC 8326 section 4.2).
fn local_pref(sent: &PathAttributes, accepted: Accepted) -> Option<u32> {
    let last_choice = sent.local_pref == Some(0) && sent.communities.contains(&Community::GRACEFUL_SHUTDOWN);
    accepted.local_pref.filter(|_| !last_choice).or(sent.local_pref)
}

/// The same attributes with this LOCAL_PREF; copied only where it differs.
fn with_local_pref(attributes: &Arc<PathAttributes>, local_pref: Option<u32>) -> Arc<PathAttributes> {
    match attributes.local_pref == local_pref {
        true => Arc::clone(attributes),
        false => Arc::new(PathAttributes { local_pref, ..PathAttributes::clone(attributes) }),
    }
}
