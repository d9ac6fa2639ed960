//! A model of everything around the gate, and the rules that must hold at every step.
//!
//! [`World`] stands in for sources, kernel, peers and clock; each lags behind by as much as the history wants. It
//! judges by what the gate was told and by the kernel that it plays itself, never by the gate's own state. What it
//! judges is any [`Subject`], so that faulty ones can be put in the gate's place.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use plainroute_agent::{
    fib::{self, Desired, Installed, NextHop, RouteKey, RouteStatus, TABLE_MAIN, Target},
    gate::{Advertised, Announcement, FLUSH_DEADLINE, Gate},
    plan::{AddressPlan, BlockPlan, Delivery, InterfaceSource, Plan, PodPlan, RouteAttributes, plan},
};
use plainroute_bgp::Prefix;
use plainroute_speaker::{Learned, LearnedPath, PeerName};
use proptest::{prelude::*, sample::select};

use crate::common;

/// What is put to the test: the gate, or something in its place.
pub(crate) trait Subject {
    fn handle_plan(&mut self, plan: Arc<Plan>);
    fn handle_installed(&mut self, installed: Arc<Installed>);
    fn handle_learned(&mut self, learned: Arc<Learned>, settled: bool);
    fn handle_flushed(&mut self, ticket: u64);
    fn handle_timeout(&mut self, now: Instant) -> Vec<Prefix>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_announcement(&mut self, now: Instant) -> Option<Announcement>;
    fn poll_desired(&mut self) -> Option<Arc<Desired>>;
}

impl Subject for Gate {
    fn handle_plan(&mut self, plan: Arc<Plan>) {
        self.handle_plan(plan);
    }
    fn handle_installed(&mut self, installed: Arc<Installed>) {
        self.handle_installed(installed);
    }
    fn handle_learned(&mut self, learned: Arc<Learned>, settled: bool) {
        self.handle_learned(learned, settled);
    }
    fn handle_flushed(&mut self, ticket: u64) {
        self.handle_flushed(ticket);
    }
    fn handle_timeout(&mut self, now: Instant) -> Vec<Prefix> {
        self.handle_timeout(now)
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }
    fn poll_announcement(&mut self, now: Instant) -> Option<Announcement> {
        self.poll_announcement(now)
    }
    fn poll_desired(&mut self) -> Option<Arc<Desired>> {
        self.poll_desired()
    }
}

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// Nothing is advertised that the plan does not hold or the kernel's last word does not deliver.
    PlannedAndDelivered,
    /// A path is in the kernel, as planned, before its prefix is first advertised.
    PathBeforeAdvertisement,
    /// What is planned and, by the kernel's last word, delivered is not withdrawn.
    NoNeedlessWithdrawal,
    /// A path is not removed while its prefix is advertised or its withdrawal is fresh and not flushed.
    PathAfterWithdrawal,
    /// Before the kernel was read nothing is desired.
    ReadBeforeWrite,
    /// Learned routes within our own pools are never desired.
    OwnPoolsAreNotLearned,
    /// Gateway routes of an earlier process stay until the peers have sent their tables again.
    AdoptedGatewaysStay,
    /// What a peer has taught and taken back is no longer desired.
    UnlearnedGatewaysGo,
    /// When everybody has caught up, all is as planned, learned and delivered.
    SettlesAsPlanned,
    /// Tickets grow by one, generations too.
    NumbersGrow,
}

/// A broken rule, and how.
pub(crate) type Verdict = Result<(), (Rule, String)>;

/// What becomes of one address in a plan.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Absent,
    /// Over this interface, to these peers (of two), with this MED.
    Interface(usize, [bool; 2], u32),
    /// Over somebody else's route.
    Foreign([bool; 2]),
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A new plan; the flag says whether the second pool is declared.
    Plan([Fate; ADDRESSES], bool),
    /// The plans from now on, the one in force among them, own the [`BLOCK`] and tell it to these peers; or do not own it.
    Own(Option<[bool; 2]>),
    /// The routes' task makes the kernel as was last desired and reports it.
    KernelPass,
    /// The oldest report arrives; with the flag all of them, of which the last counts.
    Report(bool),
    /// An interface goes down or comes up.
    Link(usize),
    /// Somebody else's route to an address appears or disappears.
    ForeignRoute(usize),
    /// The oldest announcement is flushed.
    Flush,
    /// So many milliseconds pass.
    Pass(u64),
    /// What the peers teach now, of [`LEARNABLE`], and over how many next hops.
    Learn([u8; LEARNABLE.len()]),
    /// The peers have sent all that they have.
    Settle,
}

pub(crate) const ADDRESSES: usize = 4;
pub(crate) const INTERFACES: [&str; 2] = ["v-0", "v-1"];
pub(crate) const PEERS: [&str; 2] = ["tor-a", "tor-b"];
/// The last two lie in the first pool, the one before in the second.
pub(crate) const LEARNABLE: [&str; 6] =
    ["0.0.0.0/0", "192.0.2.0/24", "203.0.113.0/24", "10.50.0.0/25", "10.20.0.2/32", "10.20.0.128/25"];

pub(crate) fn address(number: usize) -> IpAddr {
    ["10.20.0.1", "10.20.0.2", "10.20.0.3", "2001:db8::1"][number].parse().expect("an address")
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub(crate) fn main_table(prefix: Prefix) -> RouteKey {
    RouteKey { table: TABLE_MAIN, prefix }
}

fn in_pool(prefix: Prefix, second_pool: bool) -> bool {
    self::prefix("10.20.0.0/24").contains(prefix)
        || self::prefix("2001:db8::/64").contains(prefix)
        || (second_pool && self::prefix("10.50.0.0/24").contains(prefix))
}

pub(crate) fn gateway(number: u8) -> NextHop {
    NextHop { gateway: IpAddr::from([172, 16, 0, number]), interface: None }
}

/// A plan of the two pools and peers, without Pods.
static NO_PODS: LazyLock<Plan> = LazyLock::new(|| {
    let mut yaml = String::new();
    for (name, range) in
        [("1", "{ cidr: 10.20.0.0/24 }, { cidr: '2001:db8::/64' }"), ("2", "{ cidr: 10.50.0.0/24 }")]
    {
        yaml += &format!(
            "{{ apiVersion: plainroute.dev/v1alpha1, kind: IPPool, metadata: {{ name: '{name}' }}, \
             spec: {{ ipRanges: [{range}], allocation: External }} }}\n---\n"
        );
    }
    for (name, address) in PEERS.into_iter().zip(["172.16.0.1", "172.16.0.2"]) {
        yaml += &format!(
            "{{ apiVersion: plainroute.dev/v1alpha1, kind: BGPPeer, metadata: {{ name: {name} }}, \
             spec: {{ localASN: 64512, peerASN: 64600, peerAddress: {address} }} }}\n---\n"
        );
    }
    let objects = common::objects(yaml.trim_end_matches("---\n"));
    plan(&common::snapshot(objects, Vec::new(), Vec::new()), &common::local())
});

/// The one block that there is. Its first address is a Pod's, too.
fn owned(told: Option<[bool; 2]>) -> Vec<BlockPlan> {
    let peers = told.map(|told| PEERS.into_iter().zip(told).filter(|(_, told)| *told));
    let block = |advertise| BlockPlan {
        cidr: "10.20.0.2/31".parse().expect("a CIDR"),
        pool: "1".to_owned(),
        advertised_by: Vec::new(),
        advertise,
        withheld: Default::default(),
        refused: None,
    };
    peers
        .map(|told| told.map(|(peer, _)| (peer.to_owned(), RouteAttributes::default())).collect())
        .map(block)
        .into_iter()
        .collect()
}

pub(crate) fn planned(fates: &[Fate], second_pool: bool) -> Plan {
    let mut plan = NO_PODS.clone();
    plan.pools.truncate(if second_pool { 2 } else { 1 });
    for (number, fate) in fates.iter().enumerate() {
        let (delivery, peers, med) = match fate {
            Fate::Absent => continue,
            Fate::Interface(interface, peers, med) => {
                let interface = INTERFACES[*interface].to_owned();
                (Delivery::Interface { interface, source: InterfaceSource::CniCache }, peers, *med)
            }
            Fate::Foreign(peers) => (Delivery::Foreign, peers, 0),
        };
        let attributes = RouteAttributes { med: Some(med), ..RouteAttributes::default() };
        let told = PEERS.iter().zip(peers).filter(|(_, told)| **told);
        let address = AddressPlan {
            address: address(number),
            pool: Some("1".to_owned()),
            delivery: Some(delivery),
            block: None,
            advertised_by: Vec::new(),
            advertise: told.map(|(peer, _)| ((*peer).to_owned(), attributes.clone())).collect(),
            withheld: Default::default(),
            refused: None,
        };
        plan.pods.push(PodPlan {
            namespace: "erp".to_owned(),
            name: format!("pod-{number}"),
            uid: None,
            refused: None,
            pod_ips: Vec::new(),
            addresses: vec![address],
        });
    }
    plan
}

/// What goes on around the subject.
pub(crate) struct World<S> {
    subject: S,
    now: Instant,
    plan: Option<Plan>,
    second_pool: bool,
    block: Option<[bool; 2]>,
    links_up: [bool; 2],
    foreign: [bool; ADDRESSES],
    /// The routes that carry our mark.
    kernel: BTreeMap<RouteKey, Target>,
    /// What the routes' task was last given.
    desired: Option<Arc<Desired>>,
    reports: VecDeque<Arc<Installed>>,
    /// The last report that the subject has seen.
    known: Arc<Installed>,
    learned: Learned,
    settled: bool,
    adopted: BTreeMap<RouteKey, Target>,
    /// What the peers have taught at some time.
    taught: BTreeSet<Prefix>,
    advertised: Option<Advertised>,
    unflushed: VecDeque<u64>,
    ticket: u64,
    /// Withdrawals that are not flushed: ticket and time.
    withdrawals: BTreeMap<Prefix, Vec<(u64, Instant)>>,
    /// How much happened, so that a history which proves nothing can be told.
    pub(crate) announcements: usize,
    pub(crate) removals: usize,
}

impl<S: Subject> World<S> {
    /// A world in which an earlier process has left gateway routes and the path to a Pod.
    pub(crate) fn new(subject: S) -> World<S> {
        let via = |number| Target::Via { next_hops: vec![gateway(number)] };
        let left = [
            ("0.0.0.0/0", via(1)),
            ("203.0.113.0/24", via(2)),
            ("10.50.0.0/25", via(1)),
            ("10.20.0.3/32", Target::Device { interface: INTERFACES[0].to_owned() }),
        ];
        World {
            subject,
            now: Instant::now(),
            plan: None,
            second_pool: false,
            block: None,
            links_up: [true; 2],
            foreign: [false; ADDRESSES],
            kernel: left.into_iter().map(|(text, target)| (main_table(prefix(text)), target)).collect(),
            desired: None,
            reports: VecDeque::new(),
            known: Arc::default(),
            learned: Learned::new(),
            settled: false,
            adopted: BTreeMap::new(),
            taught: BTreeSet::new(),
            advertised: None,
            unflushed: VecDeque::new(),
            ticket: 0,
            withdrawals: BTreeMap::new(),
            announcements: 0,
            removals: 0,
        }
    }

    /// Runs a whole history, lets everybody catch up, and judges every step of it.
    pub(crate) fn run(&mut self, history: &[Step]) -> Verdict {
        for step in history {
            self.take(step)?;
        }
        self.catch_up()
    }

    fn take(&mut self, step: &Step) -> Verdict {
        match step {
            Step::Plan(fates, second_pool) => {
                self.second_pool = *second_pool;
                let plan = Plan { blocks: owned(self.block), ..planned(fates, *second_pool) };
                self.plan = Some(plan.clone());
                self.subject.handle_plan(Arc::new(plan));
            }
            Step::Own(block) => {
                self.block = *block;
                if let Some(plan) = &mut self.plan {
                    plan.blocks = owned(*block);
                    self.subject.handle_plan(Arc::new(plan.clone()));
                }
            }
            Step::KernelPass => self.kernel_pass(),
            Step::Report(all) => {
                let last = if *all { self.reports.drain(..).next_back() } else { self.reports.pop_front() };
                if let Some(report) = last {
                    self.see(report);
                }
            }
            Step::Link(number) => self.links_up[*number] ^= true,
            Step::ForeignRoute(number) => self.foreign[*number] ^= true,
            Step::Flush => {
                if let Some(ticket) = self.unflushed.pop_front() {
                    self.withdrawals
                        .values_mut()
                        .for_each(|withdrawals| withdrawals.retain(|(of, _)| *of > ticket));
                    self.subject.handle_flushed(ticket);
                }
            }
            Step::Pass(milliseconds) => {
                self.now += Duration::from_millis(*milliseconds);
                if self.subject.poll_timeout().is_some_and(|due| due <= self.now) {
                    self.subject.handle_timeout(self.now);
                }
            }
            Step::Learn(paths) => {
                let path = |number: u8| LearnedPath {
                    peer: PeerName::from(PEERS[usize::from(number) - 1]),
                    next_hop: gateway(number).gateway,
                    interface: None,
                    stale: false,
                };
                let learned = LEARNABLE.iter().zip(paths).filter(|(_, paths)| **paths > 0);
                self.learned =
                    learned.map(|(text, paths)| (prefix(text), (1..=*paths).map(path).collect())).collect();
                self.taught.extend(self.learned.keys());
                self.subject.handle_learned(Arc::new(self.learned.clone()), self.settled);
            }
            Step::Settle => {
                self.settled = true;
                self.subject.handle_learned(Arc::new(self.learned.clone()), true);
            }
        }
        self.poll()
    }

    fn see(&mut self, report: Arc<Installed>) {
        let gateways = report.stale.iter().filter(|(_, target)| matches!(target, Target::Via { .. }));
        self.adopted.extend(gateways.map(|(key, target)| (*key, target.clone())));
        self.known = Arc::clone(&report);
        self.subject.handle_installed(report);
    }

    /// What the routes' task does: makes ours as desired, removes the rest of ours, and reports.
    fn kernel_pass(&mut self) {
        let desired = self.desired.clone().unwrap_or_default();
        if desired.complete {
            self.kernel.retain(|key, _| desired.routes.contains_key(key));
        }
        self.kernel.extend(desired.routes.iter().map(|(key, target)| (*key, target.clone())));
        let fared = |target: &Target| match target {
            Target::Device { interface } if !self.up(interface) => {
                RouteStatus::LinkDown { interface: interface.clone() }
            }
            _ => RouteStatus::Installed,
        };
        let stale = self.kernel.iter().filter(|(key, _)| !desired.routes.contains_key(key));
        let report = Installed {
            generation: desired.generation,
            synced: true,
            routes: desired.routes.iter().map(|(key, target)| (*key, fared(target))).collect(),
            stale: stale.map(|(key, target)| (*key, target.clone())).collect(),
            delivery: desired
                .verify
                .iter()
                .map(|address| (*address, self.foreign_delivery(*address)))
                .collect(),
            ..Installed::default()
        };
        self.reports.push_back(Arc::new(report));
    }

    fn up(&self, interface: &str) -> bool {
        INTERFACES.iter().zip(self.links_up).any(|(name, up)| *name == interface && up)
    }

    fn foreign_delivery(&self, address: IpAddr) -> fib::Delivery {
        let stands = (0..ADDRESSES).any(|number| self::address(number) == address && self.foreign[number]);
        if stands {
            fib::Delivery::Via { interface: "cni0".to_owned(), gateway: None }
        } else {
            fib::Delivery::NoRoute
        }
    }

    fn poll(&mut self) -> Verdict {
        if let Some(announcement) = self.subject.poll_announcement(self.now) {
            self.judge_announcement(&announcement)?;
            self.announcements += 1;
            self.ticket = announcement.ticket;
            self.unflushed.push_back(announcement.ticket);
            let before = self.advertised.replace(announcement.routes.clone()).unwrap_or_default();
            for (_, prefix) in before.keys().filter(|key| !announcement.routes.contains_key(key)) {
                self.withdrawals.entry(*prefix).or_default().push((announcement.ticket, self.now));
            }
        }
        if let Some(desired) = self.subject.poll_desired() {
            self.judge_desired(&desired)?;
            self.desired = Some(desired);
        }
        self.judge_state()?;
        if self.desired.is_some() {
            // What a pool has claimed once is removed, and nobody owes it back.
            self.adopted.retain(|key, _| !in_pool(key.prefix, self.second_pool));
        }
        Ok(())
    }

    fn judge_announcement(&self, announcement: &Announcement) -> Verdict {
        if announcement.ticket != self.ticket + 1 {
            return Err((Rule::NumbersGrow, format!("ticket {} after {}", announcement.ticket, self.ticket)));
        }
        let prefixes =
            |routes: &Advertised| routes.keys().map(|(_, prefix)| *prefix).collect::<BTreeSet<_>>();
        let before = self.advertised.as_ref().map(prefixes).unwrap_or_default();
        let local = self.plan.as_ref().map(Plan::local_routes).unwrap_or_default();
        for prefix in prefixes(&announcement.routes).difference(&before) {
            let Some(target) = local.get(prefix) else { continue };
            let key = main_table(*prefix);
            let last = self.desired.as_ref().and_then(|desired| desired.routes.get(&key));
            if self.kernel.get(&key) != Some(target) || last != Some(target) {
                let is = self.kernel.get(&key);
                return Err((Rule::PathBeforeAdvertisement, format!("{prefix} is {is:?}, to be {last:?}")));
            }
        }
        let due = self.due();
        for key in self.advertised.iter().flatten().map(|(key, _)| key) {
            if !announcement.routes.contains_key(key) && due.contains_key(key) && self.known_to_deliver(key.1)
            {
                return Err((Rule::NoNeedlessWithdrawal, format!("{key:?}")));
            }
        }
        Ok(())
    }

    fn judge_desired(&mut self, desired: &Desired) -> Verdict {
        if !self.known.synced {
            return Err((Rule::ReadBeforeWrite, format!("{desired:?}")));
        }
        let before = self.desired.clone().unwrap_or_default();
        if desired.generation != before.generation + 1 {
            return Err((Rule::NumbersGrow, format!("{} after {}", desired.generation, before.generation)));
        }
        let foreign = self.plan.as_ref().map(Plan::foreign_addresses).unwrap_or_default();
        let of_node = |target: &Target| matches!(target, Target::Device { .. } | Target::Unreachable);
        for (key, target) in before.routes.iter().filter(|(_, target)| of_node(target)) {
            if desired.routes.get(key).is_some_and(of_node) {
                continue;
            }
            self.removals += 1;
            // Somebody else's route has taken over, which was planned so.
            let taken_over = matches!(target, Target::Device { .. })
                && foreign.contains(&key.prefix.address())
                && self.foreign_answer(key.prefix) == Some(true);
            let advertised = self.advertised.iter().flatten().any(|((_, prefix), _)| *prefix == key.prefix);
            let fresh = |(_, at): &(u64, Instant)| self.now < *at + FLUSH_DEADLINE;
            let waiting = self.withdrawals.get(&key.prefix).is_some_and(|all| all.iter().any(fresh));
            if (advertised || waiting) && !taken_over {
                return Err((
                    Rule::PathAfterWithdrawal,
                    format!("{key}: advertised {advertised}, waiting {waiting}"),
                ));
            }
        }
        Ok(())
    }

    fn judge_state(&self) -> Verdict {
        let due = self.due();
        for (key, attributes) in self.advertised.iter().flatten() {
            if due.get(key) != Some(attributes) || !self.known_to_deliver(key.1) {
                return Err((Rule::PlannedAndDelivered, format!("{key:?}")));
            }
        }
        let Some(desired) = &self.desired else { return Ok(()) };
        for (key, target) in &desired.routes {
            if matches!(target, Target::Via { .. }) && in_pool(key.prefix, self.second_pool) {
                return Err((Rule::OwnPoolsAreNotLearned, format!("{key}")));
            }
        }
        let unlearned =
            |key: &&RouteKey| self.taught.contains(&key.prefix) && !self.learned.contains_key(&key.prefix);
        if let Some(key) = desired.routes.keys().find(unlearned)
            && matches!(desired.routes[key], Target::Via { .. })
        {
            return Err((Rule::UnlearnedGatewaysGo, format!("{key}")));
        }
        let adopted = self
            .adopted
            .iter()
            .filter(|(key, _)| !self.settled && !in_pool(key.prefix, self.second_pool) && !unlearned(key));
        for (key, target) in adopted {
            let allowed = match self.learned.contains_key(&key.prefix) {
                true => matches!(desired.routes.get(key), Some(Target::Via { .. })),
                // What was learned over it in the meantime may stay, too.
                false => desired.routes.contains_key(key),
            };
            if !allowed {
                return Err((Rule::AdoptedGatewaysStay, format!("{key} {target}")));
            }
        }
        Ok(())
    }

    /// What the plan wants advertised.
    fn due(&self) -> Advertised {
        let routes = self.plan.iter().flat_map(Plan::advertisements);
        routes.map(|route| ((PeerName::from(route.peer), route.prefix), route.attributes.clone())).collect()
    }

    fn foreign_answer(&self, prefix: Prefix) -> Option<bool> {
        self.known.delivery.get(&prefix.address()).filter(|_| prefix.is_host()).map(fib::Delivery::delivers)
    }

    /// Whether packets arrive, by the last report that the subject has: over the planned path, or over the one that
    /// it is about to replace.
    fn known_to_deliver(&self, prefix: Prefix) -> bool {
        let own = self.known.delivers(&main_table(prefix));
        let planned_own = self.plan.as_ref().is_some_and(|plan| plan.local_routes().contains_key(&prefix));
        match (planned_own, self.foreign_answer(prefix)) {
            (true, answer) => own || answer == Some(true),
            (false, answer) => answer.unwrap_or(own),
        }
    }

    fn catch_up(&mut self) -> Verdict {
        self.take(&Step::Settle)?;
        if self.plan.is_none() {
            let nothing = [Fate::Absent, Fate::Absent, Fate::Absent, Fate::Absent];
            self.take(&Step::Plan(nothing, true))?;
        }
        // Each round lets one more consequence through: path, advertisement, flush, removal.
        for _ in 0..8 {
            self.take(&Step::KernelPass)?;
            self.take(&Step::Report(true))?;
            while !self.unflushed.is_empty() {
                self.take(&Step::Flush)?;
            }
        }
        let wrong = |what: &str, is: &dyn std::fmt::Debug, should: &dyn std::fmt::Debug| {
            Err((Rule::SettlesAsPlanned, format!("{what} is {is:?}, should be {should:?}")))
        };
        let Some(plan) = &self.plan else { return Ok(()) };
        let mut routes: BTreeMap<RouteKey, Target> = BTreeMap::new();
        for (prefix, paths) in self.learned.iter().filter(|(prefix, _)| !in_pool(**prefix, self.second_pool))
        {
            let next_hops =
                paths.iter().map(|path| NextHop { gateway: path.next_hop, interface: None }).collect();
            routes.insert(main_table(*prefix), Target::Via { next_hops });
        }
        routes.extend(plan.local_routes().into_iter().map(|(prefix, target)| (main_table(prefix), target)));
        if self.kernel != routes {
            return wrong("the kernel", &self.kernel, &routes);
        }
        let Some(desired) = &self.desired else { return wrong("desired", &"nothing", &routes) };
        if desired.verify != plan.foreign_addresses()
            || desired.peers.len() != PEERS.len()
            || !desired.complete
        {
            return wrong("desired", desired, &plan.foreign_addresses());
        }
        let mut delivered = self.due();
        let local = plan.local_routes();
        delivered.retain(|(_, prefix), _| match local.get(prefix) {
            Some(Target::Device { interface }) => self.up(interface),
            Some(_) => true,
            None => self.foreign_delivery(prefix.address()).delivers(),
        });
        if self.advertised.as_ref() != Some(&delivered) {
            return wrong("advertised", &self.advertised, &delivered);
        }
        Ok(())
    }
}

fn any_fate() -> impl Strategy<Value = Fate> {
    let peers = || any::<[bool; 2]>();
    prop_oneof![
        2 => Just(Fate::Absent),
        4 => (0..2_usize, peers(), 0..2_u32).prop_map(|(interface, peers, med)| Fate::Interface(interface, peers, med)),
        2 => peers().prop_map(Fate::Foreign),
    ]
}

fn any_plan_step() -> impl Strategy<Value = Step> {
    (any_fate(), any_fate(), any_fate(), any_fate(), any::<bool>())
        .prop_map(|(a, b, c, d, second_pool)| Step::Plan([a, b, c, d], second_pool))
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_plan_step(),
        2 => prop::option::of(any::<[bool; 2]>()).prop_map(Step::Own),
        6 => Just(Step::KernelPass),
        6 => any::<bool>().prop_map(Step::Report),
        1 => (0..INTERFACES.len()).prop_map(Step::Link),
        3 => (0..ADDRESSES).prop_map(Step::ForeignRoute),
        4 => Just(Step::Flush),
        2 => select(&[1, 500, 1000, 1999, 2000, 5000][..]).prop_map(Step::Pass),
        2 => prop::array::uniform6(0..=2_u8).prop_map(Step::Learn),
        1 => Just(Step::Settle),
    ]
}

/// What may happen, in any order.
pub(crate) fn any_history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..60)
}
