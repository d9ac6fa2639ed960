//! What may be advertised = planned *and* delivered; and the order of every change.
//!
//! *Up:* the path stands in the kernel, then it is advertised. *Down:* it is withdrawn, the withdrawal is flushed
//! to the peers, then the path is removed, with a deadline so that a dead peer cannot pin a route.
//! [`Gate`] is a state machine without I/O: plans, what is installed, what was learned and receipts go in; the
//! desired kernel and the desired advertisements come out. The task in [`run`](crate::run) drives it.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_bgp::Prefix;
use plainroute_speaker::{Learned, PeerName};

use crate::{
    fib::{Delivery, Desired, Installed, NextHop, RouteKey, Target},
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
    /// What the speaker was last told to originate; nothing before the first time.
    advertised: Option<Advertised>,
    ticket: u64,
    withdrawing: BTreeMap<Prefix, Withdrawal>,
    desired: Arc<Desired>,
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
        self.installed = installed;
    }

    /// What the peers taught; `settled` once each of them has sent all that it has.
    pub fn handle_learned(&mut self, learned: Arc<Learned>, settled: bool) {
        self.learned = learned;
        self.learned_settled |= settled;
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
        let local = plan.local_routes();
        let wanted: Advertised = plan
            .advertisements()
            .filter(|route| self.delivers(local.contains_key(&route.prefix), route.prefix))
            .map(|route| ((PeerName::from(route.peer), route.prefix), route.attributes.clone()))
            .collect();
        if self.advertised.as_ref() == Some(&wanted) {
            return None;
        }
        self.ticket += 1;
        let withdrawal = Withdrawal { ticket: self.ticket, deadline: now + FLUSH_DEADLINE };
        let gone =
            self.advertised.iter().flatten().map(|(key, _)| key).filter(|key| !wanted.contains_key(key));
        self.withdrawing.extend(gone.map(|(_, prefix)| (*prefix, withdrawal)));
        self.advertised = Some(wanted.clone());
        Some(Announcement { ticket: self.ticket, routes: wanted })
    }

    /// What the kernel should hold, if it differs from the last time.
    pub fn poll_desired(&mut self) -> Option<Arc<Desired>> {
        let plan = self.plan.as_ref()?;
        // Before the first dump it is not known what an earlier process of ours left, so nothing may be judged stale.
        if !self.installed.synced {
            return None;
        }
        let mut routes = self.departing_routes();
        routes.extend(self.learned_routes(plan));
        routes.extend(plan.local_routes().into_iter().map(|(prefix, interface)| {
            (self.local_key(prefix), Target::Device { interface: interface.to_owned() })
        }));
        let next = Desired {
            generation: self.desired.generation,
            routes,
            verify: plan.foreign_addresses(),
            peers: plan.peers.iter().filter_map(PeerPlan::address).collect(),
            peer_interfaces: plan.peers.iter().filter_map(PeerPlan::interface).map(str::to_owned).collect(),
            complete: true,
        };
        if self.desired.complete && next == *self.desired {
            return None;
        }
        self.desired = Arc::new(Desired { generation: next.generation + 1, ..next });
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

    fn delivers(&self, local: bool, prefix: Prefix) -> bool {
        if local {
            return self.installed.delivers(&self.local_key(prefix));
        }
        self.installed.delivery.get(&prefix.address()).is_some_and(Delivery::delivers)
    }

    /// Paths to Pods that the kernel holds for us and whose withdrawal is not flushed, planned or not.
    fn departing_routes(&self) -> BTreeMap<RouteKey, Target> {
        let advertised: BTreeSet<Prefix> =
            self.advertised.iter().flatten().map(|((_, prefix), _)| *prefix).collect();
        let held = self.desired.routes.iter().filter(|(key, target)| {
            matches!(target, Target::Device { .. })
                && (advertised.contains(&key.prefix) || self.withdrawing.contains_key(&key.prefix))
        });
        held.map(|(key, target)| (*key, target.clone())).collect()
    }

    /// Learned routes, less those within our own pools, which nobody else may teach us; and, until the peers have
    /// sent their tables again, those that an earlier process of ours left in the kernel.
    fn learned_routes(&self, plan: &Plan) -> BTreeMap<RouteKey, Target> {
        let mut routes = BTreeMap::new();
        if !self.learned_settled {
            let known = self.installed.stale.iter().chain(&self.desired.routes);
            let gateways = known.filter(|(_, target)| matches!(target, Target::Via { .. }));
            routes.extend(gateways.map(|(key, target)| (*key, target.clone())));
        }
        for (prefix, paths) in self.learned.iter().filter(|(prefix, _)| !plan.in_pool(**prefix)) {
            let next_hops = paths
                .iter()
                .map(|path| NextHop { gateway: path.next_hop, interface: path.interface.clone() })
                .collect();
            routes.insert(RouteKey { table: self.import_table, prefix: *prefix }, Target::Via { next_hops });
        }
        routes
    }
}
