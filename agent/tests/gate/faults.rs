//! Gates with a fault each: what the rules must catch, else they prove nothing.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_agent::{
    fib::{Delivery, Desired, Installed, RouteStatus, Target},
    gate::{Advertised, Announcement, Gate},
    plan::Plan,
};
use plainroute_bgp::Prefix;
use plainroute_speaker::Learned;

use crate::model::{Rule, Subject};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Takes every desired route for installed and every foreign one for delivering.
    TrustsTheKernel,
    /// Never withdraws.
    NeverWithdraws,
    /// Takes what it asks for as done.
    TakesAskedForDone,
    /// Withdraws all whenever a new plan comes, and advertises anew.
    StartsOver,
    /// Does not wait for the flush.
    TakesSentForFlushed,
    /// Waits only half of the deadline.
    IsImpatient,
    /// Takes the kernel for read and empty from the start.
    WritesBeforeReading,
    /// Knows no pool.
    LearnsOwnPools,
    /// Takes the peers' tables for complete from the start.
    SettlesAtOnce,
    /// Keeps what the peers have ever taught.
    ForgetsNothing,
    /// Hears of no flush and of no time.
    KeepsPathsForEver,
    /// Never tells of attributes or prefixes after the first time.
    AnnouncesOnce,
    /// Numbers every announcement the same.
    RepeatsTickets,
}

/// Each rule with a fault that it must catch.
pub(crate) const ALL: &[(Rule, Fault)] = &[
    (Rule::PlannedAndDelivered, Fault::TrustsTheKernel),
    (Rule::PlannedAndDelivered, Fault::NeverWithdraws),
    (Rule::PathBeforeAdvertisement, Fault::TakesAskedForDone),
    (Rule::NoNeedlessWithdrawal, Fault::StartsOver),
    (Rule::PathAfterWithdrawal, Fault::TakesSentForFlushed),
    (Rule::PathAfterWithdrawal, Fault::IsImpatient),
    (Rule::ReadBeforeWrite, Fault::WritesBeforeReading),
    (Rule::OwnPoolsAreNotLearned, Fault::LearnsOwnPools),
    (Rule::AdoptedGatewaysStay, Fault::SettlesAtOnce),
    (Rule::UnlearnedGatewaysGo, Fault::ForgetsNothing),
    (Rule::SettlesAsPlanned, Fault::KeepsPathsForEver),
    (Rule::SettlesAsPlanned, Fault::AnnouncesOnce),
    (Rule::NumbersGrow, Fault::RepeatsTickets),
];

/// The gate with a fault.
pub(crate) struct Faulty {
    gate: Gate,
    fault: Fault,
    told: Advertised,
    heard: Learned,
    announced: bool,
    fresh_plan: bool,
    ticket: u64,
}

impl Faulty {
    pub(crate) fn new(mut gate: Gate, fault: Fault) -> Faulty {
        if fault == Fault::WritesBeforeReading {
            gate.handle_installed(Arc::new(Installed { synced: true, ..Installed::default() }));
        }
        let (told, heard) = Default::default();
        Faulty { gate, fault, told, heard, announced: false, fresh_plan: false, ticket: 0 }
    }

    fn rosy(installed: &Installed, desired: &Desired) -> Installed {
        let foreign = Delivery::Via { interface: "cni0".to_owned(), gateway: None };
        let mut rosy = installed.clone();
        rosy.routes.extend(desired.routes.keys().map(|key| (*key, RouteStatus::Installed)));
        rosy.delivery.extend(desired.verify.iter().map(|address| (*address, foreign.clone())));
        rosy
    }
}

impl Subject for Faulty {
    fn handle_plan(&mut self, plan: Arc<Plan>) {
        self.fresh_plan = true;
        if self.fault == Fault::SettlesAtOnce {
            self.gate.handle_learned(Arc::default(), true);
        }
        if self.fault == Fault::LearnsOwnPools {
            return self.gate.handle_plan(Arc::new(Plan { pools: Vec::new(), ..Plan::clone(&plan) }));
        }
        self.gate.handle_plan(plan);
    }

    fn handle_installed(&mut self, installed: Arc<Installed>) {
        if self.fault == Fault::TrustsTheKernel {
            let rosy = Faulty::rosy(&installed, self.gate.desired());
            return self.gate.handle_installed(Arc::new(rosy));
        }
        self.gate.handle_installed(installed);
    }

    fn handle_learned(&mut self, learned: Arc<Learned>, settled: bool) {
        if self.fault == Fault::ForgetsNothing {
            self.heard.extend(Learned::clone(&learned));
            return self.gate.handle_learned(Arc::new(self.heard.clone()), settled);
        }
        self.gate.handle_learned(learned, settled);
    }

    fn handle_flushed(&mut self, ticket: u64) {
        if self.fault != Fault::KeepsPathsForEver {
            self.gate.handle_flushed(ticket);
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Vec<Prefix> {
        match self.fault {
            Fault::KeepsPathsForEver => Vec::new(),
            Fault::IsImpatient => self.gate.handle_timeout(now + Duration::from_secs(1)),
            _ => self.gate.handle_timeout(now),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let early = if self.fault == Fault::IsImpatient { Duration::from_secs(1) } else { Duration::ZERO };
        self.gate.poll_timeout().map(|due| due - early)
    }

    fn poll_announcement(&mut self, now: Instant) -> Option<Announcement> {
        if self.fault == Fault::StartsOver && std::mem::take(&mut self.fresh_plan) && !self.told.is_empty() {
            self.told.clear();
            self.ticket += 1;
            return Some(Announcement {
                ticket: self.ticket,
                routes: Advertised::new(),
                graceful_shutdown: false,
            });
        }
        let mut announcement = self.gate.poll_announcement(now)?;
        match self.fault {
            Fault::NeverWithdraws => {
                for (key, attributes) in &self.told {
                    announcement.routes.entry(key.clone()).or_insert_with(|| attributes.clone());
                }
            }
            Fault::TakesSentForFlushed => self.gate.handle_flushed(announcement.ticket),
            Fault::AnnouncesOnce if self.announced => return None,
            Fault::RepeatsTickets => announcement.ticket = 1,
            _ => {}
        }
        self.announced = true;
        self.told.clone_from(&announcement.routes);
        if self.fault == Fault::StartsOver {
            self.ticket += 1;
            announcement.ticket = self.ticket;
        }
        Some(announcement)
    }

    fn poll_desired(&mut self) -> Option<Arc<Desired>> {
        let desired = self.gate.poll_desired()?;
        if self.fault == Fault::TakesAskedForDone {
            let done = Installed { generation: desired.generation, synced: true, ..Installed::default() };
            let mut done = Faulty::rosy(&done, &desired);
            done.routes.retain(|key, _| matches!(desired.routes[key], Target::Device { .. }));
            self.gate.handle_installed(Arc::new(done));
        }
        Some(desired)
    }
}
