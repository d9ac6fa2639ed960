//! CNI ADD: a job for each, which chooses one address of each family and then writes all down at once.
use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use plainroute_bgp::AfiSafi;

use super::Ipam;
use crate::{Add, BlockObject, Call, Entry, Holder, Output, Record, Refusal, Ticket, block::Lender};

/// A Pod that waits for its addresses.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) add: Add,
    pub(super) since: Timestamp,
    pub(super) deadline: Duration,
    pub(super) wants: Vec<Want>,
}

/// One address that it wants.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) family: AfiSafi,
    /// The pools that it may come from, in the order in which they are tried.
    pub(super) pools: Vec<String>,
    /// The very address that it has to be.
    pub(super) fixed: Option<IpAddr>,
    pub(super) chosen: Option<IpAddr>,
    /// The pools in which an address that is kept for the Pod is still to be looked for.
    pub(super) look_up: VecDeque<String>,
    /// What was found where the fixed address is.
    pub(super) located: Option<Vec<BlockObject>>,
    /// The read that is under way.
    pub(super) call: Option<Call>,
    pub(super) failures: u32,
    pub(super) retry_at: Duration,
    /// How often it was begun anew, since somebody else was faster.
    pub(super) rounds: u32,
    /// The pools without a free block.
    pub(super) exhausted: BTreeSet<String>,
    /// What may be borrowed, of which pool.
    pub(super) loans: VecDeque<(IpAddr, String, Lender)>,
    /// The object by which it is being asked for.
    pub(super) asking: Option<String>,
    /// For a message: what it waits for.
    pub(super) waits_for: String,
}

/// How far a want is.
pub(super) enum Progress {
    Waits,
    Chose(IpAddr),
    Ends(Refusal),
}

impl Job {
    pub(super) fn wake_at(&self) -> Duration {
        let retries = self.wants.iter().filter(|want| want.chosen.is_none() && want.failures > 0);
        retries
            .filter(|want| want.call.is_none())
            .map(|want| want.retry_at)
            .fold(self.deadline, Duration::min)
    }

    pub(super) fn holder(&self) -> Holder {
        Holder {
            namespace: self.add.namespace.clone(),
            name: self.add.name.clone(),
            pod_uid: self.add.pod_uid.clone(),
            container_id: self.add.attachment.container_id.clone(),
            interface: self.add.attachment.interface.clone(),
            stateful_set: self.add.stateful_set.clone(),
            since: self.since,
        }
    }
}

impl Ipam {
    pub(super) fn begin_add(&mut self, ticket: Ticket, add: Add) {
        if let Some(addresses) = self.attachments.get(&add.attachment) {
            let addresses = addresses.iter().copied().collect();
            return self.out.push(Output::Reply(ticket, Ok(addresses)));
        }
        self.replace_jobs(&add.attachment, "a later ADD of the same interface took its place");
        match self.wants_of(&add) {
            Ok(wants) => {
                let deadline = self.now.uptime + add.patience;
                self.jobs.insert(ticket, Job { add, since: self.now.wall, deadline, wants });
            }
            Err(refusal) => self.refuse(ticket, &add, refusal),
        }
    }

    /// Ends the jobs of an interface.
    pub(super) fn replace_jobs(&mut self, attachment: &crate::Attachment, why: &'static str) {
        let same = |job: &Job| job.add.attachment == *attachment;
        let tickets: Vec<_> =
            self.jobs.iter().filter(|(_, job)| same(job)).map(|(ticket, _)| *ticket).collect();
        tickets.into_iter().for_each(|ticket| self.end_job(ticket, Refusal::Replaced(why)));
    }

    /// The pools that a Pod may have addresses of, here.
    fn bound_pools(&self, add: &Add) -> Option<Vec<&String>> {
        let no_labels = plainroute_config::Labels::new();
        let namespace = self.namespaces.get(&add.namespace);
        let (labels, of_namespace) = namespace.map_or((&no_labels, &None), |(labels, pools)| (labels, pools));
        let known = namespace.is_some();
        let named = |list: &Option<Vec<String>>, name| list.as_ref().is_none_or(|list| list.contains(name));
        let bound = self.pools.as_ref()?.iter().filter(|(name, pool)| {
            known
                && pool.serves_node
                && pool.spec.namespace_selector.matches(labels)
                && named(of_namespace, name)
                && named(&add.pools, name)
        });
        Some(bound.map(|(name, _)| name).collect())
    }

    fn wants_of(&self, add: &Add) -> Result<Vec<Want>, Refusal> {
        let bound = self.bound_pools(add).ok_or(Refusal::NotReady)?;
        let contains =
            |name: &String, address| self.pool(name).is_some_and(|pool| pool.addresses.contains(address));
        let mut wants = Vec::new();
        for family in [AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast] {
            let has =
                |name: &&&String| self.pool(name).is_some_and(|pool| pool.carvings.contains_key(&family));
            let mut pools: Vec<String> = bound.iter().filter(has).map(|name| (*name).clone()).collect();
            let of_family = |address: &&IpAddr| address.is_ipv4() == (family == AfiSafi::Ipv4Unicast);
            let fixed = add.fixed.iter().find(of_family).copied();
            if let Some(address) = fixed {
                pools.retain(|name| contains(name, address));
                if pools.is_empty() {
                    return Err(Refusal::NotBound(address, add.namespace.clone()));
                }
            }
            if pools.is_empty() {
                continue;
            }
            let sticky = fixed.is_none() && add.stateful_set.is_some();
            wants.push(Want {
                family,
                look_up: if sticky { pools.iter().cloned().collect() } else { VecDeque::new() },
                pools,
                fixed,
                chosen: None,
                located: None,
                call: None,
                failures: 0,
                retry_at: Duration::ZERO,
                rounds: 0,
                exhausted: BTreeSet::new(),
                loans: VecDeque::new(),
                asking: None,
                waits_for: String::new(),
            });
        }
        if wants.is_empty() { Err(Refusal::NoPool(add.namespace.clone())) } else { Ok(wants) }
    }

    /// Takes each job as far as it gets. Returns whether one has ended.
    pub(super) fn advance_jobs(&mut self) -> bool {
        let before = self.jobs.len();
        let tickets: Vec<_> = self.jobs.keys().copied().collect();
        for ticket in tickets {
            let wants = self.jobs.get(&ticket).map_or(0, |job| job.wants.len());
            for index in 0..wants {
                if self.want(ticket, index).is_none_or(|want| want.chosen.is_some()) {
                    continue;
                }
                match self.advance_want(ticket, index) {
                    Progress::Waits => {}
                    Progress::Chose(address) => {
                        self.pencilled.insert(address, ticket);
                        self.want_mut(ticket, index).into_iter().for_each(|want| want.chosen = Some(address));
                    }
                    Progress::Ends(refusal) => self.end_job(ticket, refusal),
                }
            }
            let chosen = |job: &Job| job.wants.iter().map(|want| want.chosen).collect::<Option<Vec<_>>>();
            if let Some(addresses) = self.jobs.get(&ticket).and_then(chosen) {
                self.finish(ticket, addresses);
            }
        }
        self.jobs.len() != before
    }

    fn finish(&mut self, ticket: Ticket, addresses: Vec<IpAddr>) {
        let Some(job) = self.jobs.remove(&ticket) else { return };
        self.pencilled.retain(|_, of| *of != ticket);
        let holder = job.holder();
        self.commit(Record::Hold { addresses: addresses.clone(), holder: holder.clone() });
        for address in &addresses {
            let entry = Entry { address: *address, holder: holder.clone(), at: self.now.wall, ends: false };
            self.out.push(Output::Ledger(entry));
        }
        self.out.push(Output::Reply(ticket, Ok(addresses)));
    }

    pub(super) fn end_job(&mut self, ticket: Ticket, refusal: Refusal) {
        if let Some(job) = self.jobs.remove(&ticket) {
            self.pencilled.retain(|_, of| *of != ticket);
            self.refuse(ticket, &job.add, refusal);
        }
    }

    fn refuse(&mut self, ticket: Ticket, add: &Add, refusal: Refusal) {
        if !matches!(refusal, Refusal::Replaced(_)) {
            let (namespace, name) = (add.namespace.clone(), add.name.clone());
            let (pod_uid, refusal) = (add.pod_uid.clone(), refusal.clone());
            self.out.push(Output::Event { namespace, name, pod_uid, refusal });
        }
        self.out.push(Output::Reply(ticket, Err(refusal)));
    }

    pub(super) fn refuse_late(&mut self) {
        let now = self.now.uptime;
        let late = self.jobs.iter().filter(|(_, job)| job.deadline <= now);
        let late: Vec<_> = late
            .map(|(ticket, job)| {
                let waits_for =
                    job.wants.iter().filter(|want| want.chosen.is_none()).map(|want| &want.waits_for);
                let waits_for =
                    waits_for.filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join(" and ");
                (*ticket, Refusal::Late(job.add.patience, waits_for))
            })
            .collect();
        late.into_iter().for_each(|(ticket, refusal)| self.end_job(ticket, refusal));
    }

    pub(super) fn want(&self, ticket: Ticket, index: usize) -> Option<&Want> {
        self.jobs.get(&ticket)?.wants.get(index)
    }

    pub(super) fn want_mut(&mut self, ticket: Ticket, index: usize) -> Option<&mut Want> {
        self.jobs.get_mut(&ticket)?.wants.get_mut(index)
    }
}
