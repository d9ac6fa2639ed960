//! Events in virtual time, the network between nodes and the API server, and the trouble that they are in.
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::IpAddr,
    time::Duration,
};

use super::{Mutant, node::Node, store::Store, workload::Pod};
use crate::{Answer, Attachment, Call, Input, Output, Refusal, Request, Ticket, World};

/// How much trouble there is, in thousandths where it is a chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chaos {
    pub(super) crash_at_output: u32,
    pub(super) lose: u32,
    pub(super) events: bool,
}

impl Chaos {
    pub(crate) fn full() -> Chaos {
        Chaos { crash_at_output: 3, lose: 60, events: true }
    }

    pub(crate) fn none() -> Chaos {
        Chaos { crash_at_output: 0, lose: 0, events: false }
    }
}

#[derive(Debug)]
pub(super) enum Event {
    /// A request arrives at the API server; whether its answer will.
    Arrives {
        node: usize,
        incarnation: u64,
        call: Call,
        request: Box<Request>,
        answered: bool,
    },
    Answers {
        node: usize,
        incarnation: u64,
        call: Call,
        answer: Answer,
    },
    Timer {
        node: usize,
        incarnation: u64,
        at: Duration,
    },
    Starts(usize),
    Watches(usize),
    Observes(usize),
    Remembers,
    Trouble,
    Heals(usize),
    /// The dead node is known to be so.
    Fences(usize),
    /// A node hears which nodes are fenced now.
    Hears(usize),
    World(usize),
    PodStarts(usize),
    PodStops(usize),
    Deletes {
        node: usize,
        attachment: Attachment,
    },
    Arrival,
}

struct Due {
    at: Duration,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct Sim {
    pub(super) rng: fastrand::Rng,
    pub(super) chaos: Chaos,
    pub(super) mutant: Option<Mutant>,
    pub(super) time: Duration,
    order: u64,
    due: BinaryHeap<Reverse<Due>>,
    pub(super) store: Store,
    pub(super) nodes: Vec<Node>,
    pub(super) pods: Vec<Pod>,
    pub(super) fenced: BTreeSet<String>,
    /// Who really has an address.
    pub(super) truth: BTreeMap<IpAddr, (usize, Attachment)>,
    pub(super) sets: BTreeSet<(String, String)>,
    pub(super) next: u64,
    pub(super) quiet: bool,
    pub(super) edited: bool,
    /// The pools as they were made, and edited.
    pub(super) worlds: [World; 2],
    trace: Option<String>,
    pub(crate) given: u64,
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    /// A digest of all that happened.
    pub(crate) digest: u64,
}

impl Sim {
    pub(crate) fn new(seed: u64, chaos: Chaos, mutant: Option<Mutant>) -> Sim {
        let mut sim = Sim {
            rng: fastrand::Rng::with_seed(seed),
            chaos,
            mutant,
            time: Duration::ZERO,
            order: 0,
            due: BinaryHeap::new(),
            store: Store::default(),
            nodes: (0..5).map(|index| Node::new(format!("node-{index}"))).collect(),
            pods: Vec::new(),
            fenced: BTreeSet::new(),
            truth: BTreeMap::new(),
            sets: BTreeSet::new(),
            next: 0,
            quiet: false,
            edited: false,
            worlds: [false, true].map(Sim::make_world),
            trace: std::env::var("PLAINROUTE_SIM_TRACE").ok(),
            given: 0,
            refusals: BTreeMap::new(),
            digest: 0,
        };
        for node in 0..sim.nodes.len() {
            sim.after(0, Event::Starts(node));
            sim.after(10, Event::Watches(node));
            sim.after(5_000, Event::Observes(node));
        }
        sim.after(0, Event::Remembers);
        sim.after(0, Event::Arrival);
        sim.after(3_000, Event::Trouble);
        sim.begin_sets();
        sim
    }

    pub(super) fn after(&mut self, milliseconds: u64, event: Event) {
        self.order += 1;
        let at = self.time + Duration::from_millis(milliseconds);
        self.due.push(Reverse(Due { at, order: self.order, event }));
    }

    fn is_fenced(&self, node: &str) -> bool {
        self.mutant == Some(Mutant::DeleteUnlooked) || self.fenced.contains(node)
    }

    pub(super) fn chance(&mut self, thousandths: u32) -> bool {
        self.rng.u32(0..1000) < thousandths
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn refused_for(&self, reason: &str) -> u64 {
        self.refusals.get(reason).copied().unwrap_or(0)
    }

    pub(crate) fn run_until(&mut self, end: Duration) -> Result<(), String> {
        let mut same = 0;
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= end) {
            let Some(Reverse(due)) = self.due.pop() else { break };
            same = if due.at == self.time { same + 1 } else { 0 };
            if same > 20_000 {
                return Err(format!("time stands still at {:?}: {:?}", self.time, due.event));
            }
            self.time = due.at;
            self.happens(due.event).map_err(|what| format!("at {:?}: {what}", self.time))?;
        }
        self.time = end;
        Ok(())
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrives { node, incarnation, call, request, answered } => {
                let request = match *request {
                    // First it is looked whether the node is fenced, and some time later the deletion arrives.
                    Request::DeleteOfFenced { name, uid, version, node: of } if self.is_fenced(&of) => {
                        let delay = self.rng.u64(1..2_000);
                        let request = Box::new(Request::Delete { name, uid, version });
                        self.after(delay, Event::Arrives { node, incarnation, call, request, answered });
                        return Ok(());
                    }
                    Request::DeleteOfFenced { .. } => {
                        self.after(1, Event::Answers { node, incarnation, call, answer: Answer::Conflict });
                        return Ok(());
                    }
                    request => Box::new(request),
                };
                let answer = self.store.apply(*request)?;
                if answered {
                    let delay = self.rng.u64(1..15);
                    self.after(delay, Event::Answers { node, incarnation, call, answer });
                }
            }
            Event::Answers { node, incarnation, call, answer } => {
                if self.nodes[node].incarnation == incarnation {
                    self.feed(node, Input::Answer(call, answer))?;
                }
            }
            Event::Timer { node, incarnation, at } => {
                if self.nodes[node].incarnation == incarnation && self.nodes[node].timer == Some(at) {
                    self.nodes[node].timer = None;
                    self.feed(node, Input::Timeout)?;
                }
            }
            Event::Starts(node) => self.starts(node)?,
            Event::Watches(node) => self.watches(node)?,
            Event::Observes(node) => self.observes(node)?,
            Event::Remembers => {
                self.store.remember();
                self.after(if self.quiet { 5_000 } else { 200 }, Event::Remembers);
            }
            Event::Trouble => self.trouble()?,
            Event::Heals(node) => self.nodes[node].cut_off = false,
            Event::Fences(node) => self.fences(node)?,
            Event::Hears(node) => self.hears(node)?,
            Event::World(node) => {
                let world = self.world();
                self.feed(node, Input::World(world))?;
            }
            Event::PodStarts(pod) => self.pod_starts(pod)?,
            Event::PodStops(pod) => self.pod_stops(pod)?,
            Event::Deletes { node, attachment } => self.deletes(node, attachment)?,
            Event::Arrival => self.arrival(),
        }
        Ok(())
    }

    /// Gives a node's agent an input and carries out what comes of it, unless it dies on the way.
    pub(super) fn feed(&mut self, node: usize, input: Input) -> Result<(), String> {
        let now = self.nodes[node].now(self.time);
        let Some(ipam) = &mut self.nodes[node].ipam else { return Ok(()) };
        let before = self.trace.as_ref().map(|_| format!("{input:?}"));
        let outputs = ipam.handle(now, input);
        self.tell(node, before);
        outputs
            .iter()
            .for_each(|output| self.tell(node, self.trace.as_ref().map(|_| format!("  -> {output:?}"))));
        self.nodes[node].queue.extend(outputs);
        while let Some(output) = self.nodes[node].queue.pop_front() {
            let crash = self.chaos.crash_at_output;
            if !self.quiet && self.chance(crash) {
                if let Output::Append(record) = &output {
                    // Whole on the disk, torn or not there: before the crash nobody heard of it.
                    let line = record.encode().into_bytes();
                    let length = if self.rng.bool() { line.len() } else { self.rng.usize(0..=line.len()) };
                    self.nodes[node].journal.extend(&line[..length]);
                }
                return self.agent_dies(node);
            }
            self.carry_out(node, output)?;
        }
        self.set_timer(node);
        Ok(())
    }

    /// Prints what has to do with `PLAINROUTE_SIM_TRACE`, a text such as an address.
    fn tell(&self, node: usize, what: Option<String>) {
        let (Some(trace), Some(what)) = (&self.trace, what) else { return };
        if what.contains(trace.as_str()) {
            println!("{:?} {} {what}", self.time, self.nodes[node].name);
        }
    }

    fn set_timer(&mut self, node: usize) {
        let one = &self.nodes[node];
        let Some(at) = one.ipam.as_ref().and_then(crate::Ipam::poll_timeout) else { return };
        let at = at + one.booted;
        if one.timer.is_none_or(|timer| timer > at || timer < self.time) {
            let wait = at.saturating_sub(self.time).as_millis() as u64 + 1;
            let at = self.time + Duration::from_millis(wait);
            let incarnation = one.incarnation;
            self.nodes[node].timer = Some(at);
            self.after(wait, Event::Timer { node, incarnation, at });
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) -> Result<(), String> {
        let what = match &output {
            Output::Append(record) => record.encode().len() as u64,
            Output::Ask(call, _) => call.0,
            Output::Reply(ticket, result) => ticket.0 ^ u64::from(result.is_ok()),
            Output::Event { .. } | Output::Ledger(_) => 0,
        };
        self.digest = (self.digest ^ self.order).wrapping_mul(0x100_0000_01b3) ^ what;
        match output {
            Output::Append(record) => self.nodes[node].journal.extend(record.encode().into_bytes()),
            Output::Ask(call, request) => self.send(node, call, request),
            Output::Reply(ticket, result) => self.replied(node, ticket, result)?,
            Output::Event { refusal, .. } => *self.refusals.entry(refusal.reason()).or_default() += 1,
            Output::Ledger(_) => {}
        }
        Ok(())
    }

    /// Sends a request over a network that may lose it, lose its answer, or deliver it when nobody waits any more.
    fn send(&mut self, node: usize, call: Call, request: Request) {
        let incarnation = self.nodes[node].incarnation;
        let delay = self.rng.u64(1..15);
        let lost = !self.quiet && (self.nodes[node].cut_off || self.chance(self.chaos.lose));
        if !lost {
            return self.after(
                delay,
                Event::Arrives { node, incarnation, call, request: Box::new(request), answered: true },
            );
        }
        let timeout = self.rng.u64(20..400);
        let answer = Answer::Failed("timed out".to_owned());
        self.after(timeout, Event::Answers { node, incarnation, call, answer });
        let arrives = match self.rng.u32(0..3) {
            0 => None,
            1 => Some(delay),
            // Long after it was given up.
            _ => Some(self.rng.u64(400..8_000)),
        };
        if let Some(delay) = arrives.filter(|_| !self.nodes[node].cut_off) {
            self.after(
                delay,
                Event::Arrives { node, incarnation, call, request: Box::new(request), answered: false },
            );
        }
    }

    fn replied(
        &mut self,
        node: usize,
        ticket: Ticket,
        result: Result<Vec<IpAddr>, Refusal>,
    ) -> Result<(), String> {
        let Some(pod) = self.nodes[node].tickets.remove(&ticket) else { return Ok(()) };
        match result {
            Ok(addresses) => self.pod_lives(pod, node, addresses),
            Err(_) => {
                self.pod_failed(pod);
                Ok(())
            }
        }
    }

    pub(super) fn agent_dies(&mut self, node: usize) -> Result<(), String> {
        let waiting = self.nodes[node].crash();
        waiting.into_iter().for_each(|pod| self.pod_failed(pod));
        if self.nodes[node].on {
            let delay = self.rng.u64(50..4_000);
            self.after(delay, Event::Starts(node));
        }
        Ok(())
    }

    fn starts(&mut self, node: usize) -> Result<(), String> {
        if !self.nodes[node].on || self.nodes[node].ipam.is_some() {
            return Ok(());
        }
        // Now and then the disk is empty, though the sandboxes run on.
        if self.chaos.events && !self.quiet && self.chance(20) {
            self.nodes[node].journal.clear();
            self.tell(node, self.trace.clone().map(|trace| format!("loses its journal ({trace})")));
        }
        let (time, mutant) = (self.time, self.mutant);
        self.nodes[node].start(time, mutant)?;
        self.feed(node, Input::Fenced(self.fenced.clone()))?;
        let world = self.world();
        self.feed(node, Input::World(world))
    }
}
