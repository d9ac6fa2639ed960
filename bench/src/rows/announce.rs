//! Row (a): host routes to a fresh peer, from Established to the last prefix; memory, and (g) processor time.
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Fed, PATIENCE};
use crate::bench::Bench;
use crate::process::Process;
use crate::report::{FLOOR, Goal, OURS, Unit};
use crate::routers::{Kind, Product, Task};
use crate::session::Session;
use crate::site::{Site, author, host};
use crate::usage::Usage;
use crate::wire::{self, Family, Marker, Numbering};

/// How many, of which family, and the goal in milliseconds.
const SIZES: [(u32, Family, f64); 5] = [
    (250, Family::V4, 1.0),
    (10_000, Family::V4, 2.0),
    (100_000, Family::V4, 12.0),
    (1_000_000, Family::V4, 100.0),
    (100_000, Family::V6, 15.0),
];
const MILLION: u32 = 1_000_000;
/// How often the slow announce a million.
const SLOW_ROUNDS: usize = 2;

/// What one round gave.
struct Round {
    milliseconds: f64,
    updates: u64,
    cpu: f64,
    peak: u64,
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    for (count, family, goal) in SIZES {
        let mut contestants = vec![
            Contestant::new(OURS, Site::new()?, Part::Ours),
            Contestant::new(FLOOR, Site::new()?, Part::Floor),
        ];
        for product in bench.peers() {
            if bench.quick() && count == MILLION && slow(&product) {
                continue;
            }
            let site = Site::new()?;
            match fed(&product, &site, count, family) {
                Ok(fed) => {
                    let part = Part::Router(Box::new(fed));
                    let contestant = Contestant::new(&product.label, site, part);
                    contestants.push(Contestant { slow: slow(&product), ..contestant });
                }
                Err(error) => bench.failed('a', &title(count, family), &product.label, &error),
            }
        }
        for round in 0..bench.rounds() {
            for contestant in &mut contestants {
                let gave_up = bench.gave_up('a', &title(count, family), &contestant.name);
                if round >= SLOW_ROUNDS && count == MILLION && contestant.slow || gave_up {
                    continue;
                }
                match contestant.round(count, family, round) {
                    Ok(figures) => record(bench, &contestant.name, count, family, goal, &figures),
                    Err(error) => bench.failed('a', &title(count, family), &contestant.name, &error),
                }
            }
        }
    }
    Ok(())
}

/// Who takes many seconds for a million.
fn slow(product: &Product) -> bool {
    matches!(product.kind, Kind::Gobgp | Kind::Openbgpd)
}

fn title(count: u32, family: Family) -> String {
    match family {
        Family::V4 => format!("announce {count} /32s"),
        Family::V6 => format!("announce {count} /128s"),
    }
}

fn record(bench: &mut Bench, name: &str, count: u32, family: Family, goal: f64, round: &Round) {
    let title = title(count, family);
    let report = bench.report();
    report.row('a', &title, Unit::Milliseconds, Goal::AtMost(goal)).sample(name, round.milliseconds);
    if (count, family) == (100_000, Family::V6) {
        let title = format!("UPDATEs for {title}");
        report.row('a', &title, Unit::Count, Goal::AtMost(430.0)).sample(name, round.updates as f64);
    }
    if count == MILLION {
        let memory = format!("peak memory, {title}");
        report.row('a', &memory, Unit::Octets, Goal::AtMost(120e6)).sample(name, round.peak as f64);
        let cpu = format!("CPU, {title}");
        report.row('g', &cpu, Unit::Seconds, Goal::AtMost(0.12)).sample(name, round.cpu);
    }
}

/// A router that holds the routes, and has nobody to tell yet.
fn fed(product: &Product, site: &Site, count: u32, family: Family) -> Result<Fed> {
    let mut fed = Fed::start(product, site, family, Task::Hold)?;
    let mut updates = Vec::new();
    wire::announce(&author(host::FEEDER), Numbering::hosts(family), 0..count - 1, 0, &mut updates);
    fed.feed(&updates, family).with_context(|| format!("{} is taught", product.label))?;
    Ok(fed)
}

enum Part {
    Ours,
    Floor,
    /// It lives through all rounds; each has a peer of its own.
    Router(Box<Fed>),
}

struct Contestant {
    name: String,
    slow: bool,
    part: Part,
    site: Site,
}

impl Contestant {
    fn new(name: &str, site: Site, part: Part) -> Contestant {
        Contestant { name: name.to_owned(), slow: false, part, site }
    }

    fn round(&self, count: u32, family: Family, round: usize) -> Result<Round> {
        let reader = *host::READERS.start() + u8::try_from(round % host::READERS.count())?;
        match &self.part {
            Part::Ours => {
                let arguments = ["speak", "--peer", &reader.to_string(), "--family", family.name()];
                let mut process = Process::start(&self.site.contestant, &arguments)?;
                process.ask(&format!("originate {count}"))?;
                self.measure(count, family, reader, &|| Usage::of_group(process.group()))
            }
            Part::Floor => {
                let arguments = ["floor", "--announce", &count.to_string(), "--family", family.name()];
                let mut process = Process::start(&self.site.contestant, &arguments)?;
                process.answer(Duration::from_secs(30))?;
                self.measure(count, family, reader, &|| Usage::of_group(process.group()))
            }
            Part::Router(fed) => self.measure(count, family, reader, &|| fed.router.usage()),
        }
    }

    fn measure(
        &self,
        count: u32,
        family: Family,
        reader: u8,
        usage: &dyn Fn() -> Result<Usage>,
    ) -> Result<Round> {
        let before = usage()?;
        let mut session = Session::connect(&self.site, family, reader)?;
        let last =
            session.receive_until("all prefixes", PATIENCE, |counts| counts.announced >= count.into())?;
        let after = usage()?;
        let expected = match &self.part {
            Part::Ours | Part::Floor => Numbering::hosts(family).checksum_of(0..count),
            // The marker is the last of them.
            Part::Router(_) => {
                Numbering::hosts(family).checksum_of(0..count - 1).wrapping_add(Marker::checksum(family))
            }
        };
        let counts = session.counts();
        ensure!(counts.announced == u64::from(count) && counts.withdrawn == 0, "told otherwise: {counts:?}");
        ensure!(counts.checksum == expected, "so many prefixes, but not the right ones");
        Ok(Round {
            milliseconds: last.milliseconds_since(session.established),
            updates: counts.updates,
            cpu: after.cpu - before.cpu,
            peak: after.peak,
        })
    }
}
