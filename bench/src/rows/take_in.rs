//! Row (c): a million prefixes in 20,000 attribute sets taken in, and refused; memory, and (g) processor time.
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Fed, PATIENCE};
use crate::bench::Bench;
use crate::process::Process;
use crate::report::{FLOOR, Goal, OURS, Unit};
use crate::routers::{Kind, Product, Task};
use crate::session::Session;
use crate::site::{Site, author, host};
use crate::speak::Import;
use crate::usage::Usage;
use crate::wire::{self, Family, Marker, Numbering};

const PREFIXES: u32 = 1_000_000;
const SETS: u32 = 20_000;
const FAMILY: Family = Family::V4;

/// What one round gave.
struct Round {
    milliseconds: f64,
    cpu: f64,
    /// Resident at the end, beyond what was resident at the begin.
    memory: u64,
    peak: u64,
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let updates = updates();
    for task in [Task::Hold, Task::Discard] {
        let site = Site::new()?;
        for round in 0..bench.rounds() {
            let result = ours(&site, task, &updates);
            record(bench, task, OURS, result);
            record(bench, task, FLOOR, floor(&site, task, &updates));
            for product in bench.peers() {
                let gave_up = bench.gave_up('c', title(task), &product.label);
                if round < rounds(&product, bench.quick()) && !gave_up {
                    record(bench, task, &product.label, theirs(&product, &site, task, &updates, round == 0));
                }
            }
        }
    }
    Ok(())
}

/// Some take so long that two rounds must do.
fn rounds(product: &Product, quick: bool) -> usize {
    match product.kind {
        Kind::Bird | Kind::Frr => usize::MAX,
        Kind::Gobgp | Kind::Openbgpd if quick => 0,
        Kind::Gobgp | Kind::Openbgpd => 2,
    }
}

fn updates() -> Vec<u8> {
    let mut updates = Vec::new();
    let each = PREFIXES / SETS;
    for set in 0..SETS {
        wire::announce(
            &author(host::FEEDER),
            Numbering::Nets4,
            set * each..(set + 1) * each,
            set + 1,
            &mut updates,
        );
    }
    updates
}

fn title(task: Task) -> &'static str {
    match task {
        Task::Discard => "take in 1M prefixes and refuse them",
        Task::Hold | Task::Change | Task::Install | Task::Watch | Task::Start => {
            "take in 1M prefixes in 20k attribute sets"
        }
    }
}

fn record(bench: &mut Bench, task: Task, name: &str, round: Result<Round>) {
    let title = title(task);
    let (goal, cpu) = match task {
        Task::Discard => (150.0, Goal::None),
        Task::Hold | Task::Change | Task::Install | Task::Watch | Task::Start => (400.0, Goal::AtMost(0.4)),
    };
    let round = match round {
        Ok(round) => round,
        Err(error) => return bench.failed('c', title, name, &error),
    };
    let report = bench.report();
    report.row('c', title, Unit::Milliseconds, Goal::AtMost(goal)).sample(name, round.milliseconds);
    let (memory, goal, figure) = match task {
        Task::Discard => ("memory that grows", Goal::AtMost(4e6), round.memory),
        Task::Hold | Task::Change | Task::Install | Task::Watch | Task::Start => {
            ("peak memory", Goal::AtMost(80e6), round.peak)
        }
    };
    report.row('c', &format!("{memory}, {title}"), Unit::Octets, goal).sample(name, figure as f64);
    report.row('g', &format!("CPU, {title}"), Unit::Seconds, cpu).sample(name, round.cpu);
}

fn ours(site: &Site, task: Task, updates: &[u8]) -> Result<Round> {
    let (import, until) = match task {
        Task::Discard => (Import::Rejected, "rejected"),
        Task::Hold | Task::Change | Task::Install | Task::Watch | Task::Start => (Import::Everything, "held"),
    };
    let arguments = ["speak", "--peer", &host::FEEDER.to_string(), "--import", import.name()];
    let mut process = Process::start(&site.contestant, &arguments)?;
    let mut session = Session::connect(site, FAMILY, host::FEEDER)?;
    process.tell(&format!("{until} {PREFIXES}"))?;
    measure(&mut process, &mut session, updates)
}

fn floor(site: &Site, task: Task, updates: &[u8]) -> Result<Round> {
    let count = PREFIXES.to_string();
    let mut arguments = vec!["floor", "--take-in", &count];
    if task == Task::Discard {
        arguments.push("--refuse");
    }
    let mut process = Process::start(&site.contestant, &arguments)?;
    process.answer(Duration::from_secs(30))?;
    let mut session = Session::connect(site, FAMILY, host::FEEDER)?;
    measure(&mut process, &mut session, updates)
}

fn measure(process: &mut Process, session: &mut Session, updates: &[u8]) -> Result<Round> {
    let before = Usage::of_group(process.group())?;
    let begin = session.send(updates)?;
    let end = process.moment(PATIENCE)?;
    Ok(Round::new(end.milliseconds_since(begin), before, Usage::of_group(process.group())?))
}

fn theirs(product: &Product, site: &Site, task: Task, updates: &[u8], verify: bool) -> Result<Round> {
    let mut fed = Fed::start(product, site, FAMILY, task)?;
    let before = fed.router.usage()?;
    let milliseconds = fed.feed(updates, FAMILY).with_context(|| format!("{} is taught", product.label))?;
    let round = Round::new(milliseconds, before, fed.router.usage()?);
    if verify {
        held(site, task)?;
    }
    Ok(round)
}

/// Has a reader be told what the router holds: exactly what it was taught, or nothing but the marker.
fn held(site: &Site, task: Task) -> Result<()> {
    let mut session = Session::connect(site, FAMILY, *host::READERS.start())?;
    let count = if task == Task::Discard { 0 } else { PREFIXES };
    let wanted = u64::from(count) + 1;
    session.receive_until("what is held", PATIENCE, |counts| counts.announced >= wanted)?;
    let checksum = Numbering::Nets4.checksum_of(0..count).wrapping_add(Marker::checksum(FAMILY));
    ensure!(session.counts().announced == wanted, "it holds more: {:?}", session.counts());
    ensure!(session.counts().checksum == checksum, "it holds so many prefixes, but not the right ones");
    Ok(())
}

impl Round {
    fn new(milliseconds: f64, before: Usage, after: Usage) -> Round {
        let memory = after.resident.saturating_sub(before.resident);
        Round { milliseconds, cpu: after.cpu - before.cpu, memory, peak: after.peak }
    }
}
