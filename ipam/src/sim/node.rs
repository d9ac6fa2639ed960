//! One machine: its agent (the state machine, its journal on disk, outputs not yet carried out) and its sandboxes, which
//! outlive the agent.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;

use crate::{Attachment, Ipam, Journal, Now, Output, Record, Settings, Ticket};

use super::Mutant;

pub(super) struct Node {
    pub(super) name: String,
    pub(super) ipam: Option<Ipam>,
    /// Grows with each start of the agent; answers to an earlier one are lost.
    pub(super) incarnation: u64,
    pub(super) journal: Vec<u8>,
    pub(super) queue: VecDeque<Output>,
    /// Whether the machine runs.
    pub(super) on: bool,
    pub(super) cut_off: bool,
    /// What really runs: the checker's truth.
    pub(super) sandboxes: BTreeMap<Attachment, Vec<IpAddr>>,
    /// Pods that wait for an answer.
    pub(super) tickets: BTreeMap<Ticket, usize>,
    /// How often the machine was started.
    pub(super) boots: u32,
    /// Since when the agent runs.
    pub(super) booted: Duration,
    /// What the wall clock is off by, in seconds.
    pub(super) skew: i64,
    pub(super) timer: Option<Duration>,
    pub(super) looked_wrong: bool,
}

impl Node {
    pub(super) fn new(name: String) -> Node {
        Node {
            name,
            ipam: None,
            incarnation: 0,
            journal: Vec::new(),
            queue: VecDeque::new(),
            on: true,
            cut_off: false,
            sandboxes: BTreeMap::new(),
            tickets: BTreeMap::new(),
            boots: 0,
            booted: Duration::ZERO,
            skew: 0,
            timer: None,
            looked_wrong: false,
        }
    }

    pub(super) fn now(&self, time: Duration) -> Now {
        let seconds = 1_795_000_000 + i64::try_from(time.as_secs()).unwrap_or(0) + self.skew;
        let wall =
            Timestamp::new(seconds, i32::try_from(time.subsec_nanos()).unwrap_or(0)).unwrap_or_default();
        Now { wall, uptime: time - self.booted }
    }

    /// Starts the agent from what is on the disk.
    pub(super) fn start(&mut self, time: Duration, mutant: Option<Mutant>) -> Result<(), String> {
        let journal = Journal::decode(&self.journal).map_err(|error| format!("{}: {error}", self.name))?;
        self.journal.truncate(journal.whole);
        let settings = self.settings();
        let recovered = Ipam::recover(settings, &journal.records);
        let (mut ipam, first) = recovered.map_err(|error| format!("{}: {error}", self.name))?;
        ipam.mutant = mutant;
        if self.journal.len() > 100_000 {
            let held = ipam.holdings();
            self.journal = ipam.records().iter().map(Record::encode).collect::<String>().into_bytes();
            let again = Journal::decode(&self.journal).map_err(|error| error.to_string())?;
            let settings = self.settings();
            let (other, _) = Ipam::recover(settings, &again.records).map_err(|error| error.to_string())?;
            if other.holdings() != held {
                return Err(format!("{}: a shortened journal says something else", self.name));
            }
        }
        self.journal.extend(first.iter().flat_map(|record| record.encode().into_bytes()));
        (self.ipam, self.booted, self.timer) = (Some(ipam), time, None);
        self.incarnation += 1;
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings { node: self.name.clone(), boot: format!("boot-{}", self.boots), has_server: true }
    }

    /// The agent dies: what it had not carried out is gone. Returns the Pods that waited.
    pub(super) fn crash(&mut self) -> Vec<usize> {
        self.ipam = None;
        self.queue.clear();
        self.incarnation += 1;
        std::mem::take(&mut self.tickets).into_values().collect()
    }

    pub(super) fn live(&self) -> BTreeSet<Attachment> {
        self.sandboxes.keys().cloned().collect()
    }
}
