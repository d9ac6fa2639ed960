//! What may be advertised = planned *and* delivered; and the order of every change.
//!
//! *Up:* the path stands in the kernel, then it is advertised. *Down:* it is withdrawn, the withdrawal is flushed
//! to the peers, then the path is removed, with a deadline so that a dead peer cannot pin a route.
//! [`Gate`] is a state machine without I/O: plans, what is installed, what was learned and receipts go in; the
//! desired kernel and the desired advertisements come out. The task in [`run`](crate::run) drives it.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_bgp::Prefix;
use plainroute_speaker::{Learned, LearnedPath, PeerName};

use crate::{
    drain::DrainState,
    egress::Ways,
    fib::{Delivery, Desired, Installed, NextHop, RouteKey, Target},
    nat::NatInstalled,
    plan::{PeerPlan, Plan, RouteAttributes},
};

/// How long a path outlives its withdrawal where a peer does not take it.
pub const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// What is advertised: for each peer and prefix its attributes.
pub type Advertised = BTreeMap<(PeerName, Prefix), RouteAttributes>;

/// A set of advertisements to be originated, numbered so that its receipt can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// Grows by one with each announcement.
    pub ticket: u64,
    /// The whole set.
    pub routes: Advertised,
    /// The node is being drained: every route carries GRACEFUL_SHUTDOWN (RFC 8326).
    pub graceful_shutdown: bool,
}

/// A withdrawal that not every peer has taken yet; until then its path stays.
#[derive(Clone, Copy, Debug)]
struct Withdrawal {
    ticket: u64,
    deadline: Instant,
}

/// Joins plan, kernel and peers. Owned by the agent's main task.
#[derive(Debug, Default)]
pub struct Gate {
    main_table: u32,
    import_table: u32,
    plan: Option<Arc<Plan>>,
    installed: Arc<Installed>,
    learned: Arc<Learned>,
    /// Until every peer has sent its table again after a start, learned routes found in the kernel stay.
    learned_settled: bool,
    /// Until then: what this process was taught since its start and has been taken back. It knows what becomes of that,
    /// as of what is learned; only of the rest it is ignorant.
    taken_back: BTreeSet<Prefix>,
    /// What the speaker was last told to originate; nothing before the first time.
    advertised: Option<Advertised>,
    /// How far the node is drained, and whether the peers were last told that it is about to be.
    drain: DrainState,
    graceful_shutdown: bool,
    ticket: u64,
    withdrawing: BTreeMap<Prefix, Withdrawal>,
    /// The ways to other nodes' egress IPs.
    ways: Ways,
    /// The egress IPs that nftables translates to on this node, and whether it has answered at all.
    translated: BTreeSet<IpAddr>,
    nat_answered: bool,
    desired: Arc<Desired>,
    /// Paths to Pods to which the kernel has not answered since they were asked for, with the generation that did.
    unanswered: BTreeMap<RouteKey, u64>,
}

impl Gate {
    /// A gate for the tables of that number: Pods' routes go to the first, learned ones to the second.
    pub fn new(main_table: u32, import_table: u32) -> Gate {
        Gate { main_table, import_table, ..Gate::default() }
    }

    /// A new plan.
    pub fn handle_plan(&mut self, plan: Arc<Plan>) {
        self.plan = Some(plan);
    }

    /// What the kernel holds now.
    pub fn handle_installed(&mut self, installed: Arc<Installed>) {
        self.unanswered.retain(|_, generation| *generation > installed.generation);
        self.installed = installed;
    }

    /// What the peers taught; `settled` once each of them has sent all that it has.
    pub fn handle_learned(&mut self, learned: Arc<Learned>, settled: bool) {
        let before = std::mem::replace(&mut self.learned, learned);
        self.learned_settled |= settled;
        if self.learned_settled {
            self.taken_back.clear();
        } else if !Arc::ptr_eq(&before, &self.learned) {
            self.taken_back.extend(before.keys().filter(|prefix| !self.learned.contains_key(prefix)));
        }
    }

    /// The node is to be drained, or no longer.
    pub fn handle_drain(&mut self, drain: DrainState) {
        self.drain = drain;
    }

    /// The ways to egress gateways that are wanted now.
    pub fn handle_ways(&mut self, ways: Ways) {
        self.ways = ways;
    }

    /// What nftables holds now.
    pub fn handle_nat_installed(&mut self, installed: &NatInstalled) {
        self.translated.clone_from(&installed.addresses);
        self.nat_answered |= installed.error.is_some() || installed.synced && installed.generation != 0;
    }

    /// The egress IPs that the kernel is to hold, those included whose withdrawal is not flushed.
    pub fn standing_egress(&self) -> BTreeSet<IpAddr> {
        let local = self.desired.routes.iter().filter(|(_, target)| **target == Target::Local);
        local.map(|(key, _)| key.prefix.address()).collect()
    }

    /// The announcement of this ticket, and so every earlier one, is flushed to the peers.
    pub fn handle_flushed(&mut self, ticket: u64) {
        self.withdrawing.retain(|_, withdrawal| withdrawal.ticket > ticket);
    }

    /// Time has passed: withdrawals that nobody took in time hold no path any longer. Returns their prefixes.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Prefix> {
        let overdue = self.withdrawing.iter().filter(|(_, withdrawal)| withdrawal.deadline <= now);
        let overdue: Vec<Prefix> = overdue.map(|(prefix, _)| *prefix).collect();
        self.withdrawing.retain(|_, withdrawal| withdrawal.deadline > now);
        overdue
    }

    /// When [`Gate::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.withdrawing.values().map(|withdrawal| withdrawal.deadline).min()
    }

    /// The announcement that is due, if it differs from the last one. To be asked after every `handle_*`, and
    /// before [`Gate::poll_desired`].
    pub fn poll_announcement(&mut self, now: Instant) -> Option<Announcement> {
        let plan = self.plan.as_ref()?;
        // The kernel must have answered to a plan once; before that, "not installed" only means "not known".
        if self.installed.generation == 0 {
            return None;
        }
        // Nor must the first announcement, which ends what the peers keep of an earlier process, lack the egress IPs.
        if self.advertised.is_none() && !self.nat_answered && plan.egress_here().next().is_some() {
            return None;
        }
        let (local, standing) = (plan.local_routes(), self.advertised_prefixes());
        let wanted: Advertised = plan
            .advertisements()
            .filter(|_| self.drain != DrainState::Drained)
            .filter(|route| {
                self.delivers(route.prefix, local.get(&route.prefix), standing.contains(&route.prefix))
            })
            .map(|route| ((PeerName::from(route.peer), route.prefix), route.attributes.clone()))
            .collect();
        let graceful_shutdown = self.drain == DrainState::Draining;
        if self.advertised.as_ref() == Some(&wanted) && self.graceful_shutdown == graceful_shutdown {
            return None;
        }
        self.graceful_shutdown = graceful_shutdown;
        self.ticket += 1;
        let withdrawal = Withdrawal { ticket: self.ticket, deadline: now + FLUSH_DEADLINE };
        let gone =
            self.advertised.iter().flatten().map(|(key, _)| key).filter(|key| !wanted.contains_key(key));
        self.withdrawing.extend(gone.map(|(_, prefix)| (*prefix, withdrawal)));
        self.advertised = Some(wanted.clone());
        Some(Announcement { ticket: self.ticket, routes: wanted, graceful_shutdown })
    }

    /// What the kernel should hold, if it differs from the last time.
    pub fn poll_desired(&mut self) -> Option<Arc<Desired>> {
        let plan = self.plan.as_ref()?;
        // Before the first dump it is not known what an earlier process of ours left, so nothing may be judged stale.
        if !self.installed.synced {
            return None;
        }
        let verify = plan.foreign_addresses();
        let mut routes = self.learned_routes(plan);
        for (key, target) in self.departing_routes(&verify) {
            routes.entry(key).or_insert(target);
        }
        routes
            .extend(plan.local_routes().into_iter().map(|(prefix, target)| (self.local_key(prefix), target)));
        routes.extend(self.ways.routes.iter().map(|(key, target)| (*key, target.clone())));
        let next = Desired {
            generation: self.desired.generation,
            routes,
            rules: self.ways.rules.clone(),
            verify,
            peers: plan.peers.iter().filter_map(PeerPlan::global_address).collect(),
            peer_interfaces: plan.peers.iter().filter_map(PeerPlan::interface).map(str::to_owned).collect(),
            complete: true,
        };
        if self.desired.complete && next == *self.desired {
            return None;
        }
        let next = Desired { generation: next.generation + 1, ..next };
        // Only of this node's own paths is it asked later whether they were answered.
        let paths = next.routes.iter().filter(|(_, target)| is_local(target));
        let asked = paths.filter(|(key, target)| self.desired.routes.get(key) != Some(target));
        self.unanswered.extend(asked.map(|(key, _)| (*key, next.generation)));
        self.desired = Arc::new(next);
        Some(Arc::clone(&self.desired))
    }

    /// What is advertised, once the kernel has answered to the first whole plan.
    pub fn advertised(&self) -> Option<&Advertised> {
        self.advertised.as_ref()
    }

    /// What the kernel was last asked to hold.
    pub fn desired(&self) -> &Arc<Desired> {
        &self.desired
    }

    /// What it last said that it holds.
    pub fn installed(&self) -> &Arc<Installed> {
        &self.installed
    }

    fn local_key(&self, prefix: Prefix) -> RouteKey {
        RouteKey { table: self.main_table, prefix }
    }

    fn advertised_prefixes(&self) -> BTreeSet<Prefix> {
        self.advertised.iter().flatten().map(|((_, prefix), _)| *prefix).collect()
    }

    /// Whether packets for `prefix` arrive: over our own `route`, or, without one, over somebody else's. What stands advertised stays while the kernel's last word is that either of the two delivers, so that
    /// a change of the path is no withdrawal; what is new waits for the kernel's word on this very path.
    fn delivers(&self, prefix: Prefix, route: Option<&Target>, advertised: bool) -> bool {
        let key = self.local_key(prefix);
        // An egress IP is of use only where it is translated to.
        let translated = route != Some(&Target::Local) || self.translated.contains(&prefix.address());
        let own = self.installed.delivers(&key) && translated;
        let host = prefix.is_host();
        let foreign = self.installed.delivery.get(&prefix.address()).filter(|_| host).map(Delivery::delivers);
        match (route, advertised) {
            (Some(_), true) => own || foreign == Some(true),
            (Some(route), false) => {
                let asked = self.desired.routes.get(&key) == Some(route);
                own && asked && !self.unanswered.contains_key(&key)
            }
            (None, true) => foreign.unwrap_or(own),
            (None, false) => foreign == Some(true),
        }
    }

    /// Paths of this node's own that the kernel holds for us and whose withdrawal is not flushed, planned or not. Where one of
    /// the `foreign` addresses has its route, that is the path now, and ours would only cover it.
    fn departing_routes(&self, foreign: &BTreeSet<IpAddr>) -> BTreeMap<RouteKey, Target> {
        let advertised = self.advertised_prefixes();
        let taken_over = |prefix: Prefix| {
            let address = prefix.address();
            prefix.is_host()
                && foreign.contains(&address)
                && self.installed.delivery.get(&address).is_some_and(Delivery::delivers)
        };
        let held = self.desired.routes.iter().filter(|(key, target)| {
            is_local(target)
                && (advertised.contains(&key.prefix) || self.withdrawing.contains_key(&key.prefix))
                && !taken_over(key.prefix)
        });
        held.map(|(key, target)| (*key, target.clone())).collect()
    }

    /// Learned routes, less those within our own pools, which nobody else may teach us; and, until the peers have
    /// sent their tables again, those that an earlier process of ours left in the kernel.
    fn learned_routes(&self, plan: &Plan) -> BTreeMap<RouteKey, Target> {
        let mut routes = BTreeMap::new();
        if !self.learned_settled {
            let known = self.installed.stale.iter().chain(&self.desired.routes);
            let gateways = known.filter(|(key, target)| {
                matches!(target, Target::Via { .. })
                    && !self.learned.contains_key(&key.prefix)
                    && !self.taken_back.contains(&key.prefix)
                    && !plan.in_pool(key.prefix)
            });
            routes.extend(gateways.map(|(key, target)| (*key, target.clone())));
        }
        let learned = self.learned.iter().filter(|(prefix, _)| !plan.in_pool(**prefix));
        let mut learned: BTreeMap<RouteKey, Target> = learned
            .map(|(prefix, paths)| {
                let next_hop = |path: &LearnedPath| NextHop {
                    gateway: path.next_hop,
                    interface: path.interface.clone(),
                };
                let next_hops = paths.iter().map(next_hop).collect();
                (RouteKey { table: self.import_table, prefix: *prefix }, Target::Via { next_hops })
            })
            .collect();
        // Those that are learned are not among the others. Appending costs as much as both are long.
        if !routes.is_empty() {
            learned.append(&mut routes);
        }
        learned
    }
}

/// A path that leads to what is on this node: to a Pod, or nowhere, for what of a block no Pod has.
fn is_local(target: &Target) -> bool {
    match target {
        Target::Device { .. } | Target::Unreachable | Target::Local => true,
        Target::Via { .. } | Target::Blackhole => false,
    }
}
