//! Row (b): one host route more or less on a session with 10,000, and a thousand at once.
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Fed, PATIENCE};
use crate::bench::Bench;
use crate::clock::Moment;
use crate::grpc::Grpc;
use crate::kernel::{Kernel, Way};
use crate::process::Process;
use crate::report::{FLOOR, Goal, OURS, Unit};
use crate::routers::{Kind, Product, Task};
use crate::session::Session;
use crate::site::{Site, author, host};
use crate::stats::percentile;
use crate::usage::Usage;
use crate::wire::{self, Family, Numbering};

const FAMILY: Family = Family::V4;
/// What stands throughout.
const STANDING: u32 = 10_000;
const BURST: u32 = 1_000;
/// A route that did not come by then is lost.
const LOST: Duration = Duration::from_secs(5);
/// Single changes in a round: each route is added, and removed again.
const SINGLES: u32 = 200;
/// For who takes some 60 ms for each.
const FEW_SINGLES: u32 = 40;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let mut contestants = Vec::new();
    let title = "one /32 on a session with 10k routes";
    let mut enter = |bench: &mut Bench, name: &str, made: Result<Contestant>| match made {
        Ok(contestant) => contestants.push(contestant),
        Err(error) => bench.failed('b', title, name, &error),
    };
    enter(bench, OURS, Contestant::ours());
    enter(bench, FLOOR, Contestant::floor());
    for product in bench.peers() {
        // OpenBGPD is told of a route by a command, whose start would be most of what is timed.
        if product.kind != Kind::Openbgpd {
            enter(bench, &product.label, Contestant::router(&product));
        }
    }
    for round in 0..bench.rounds() {
        for contestant in &mut contestants {
            if bench.gave_up('b', title, &contestant.name) {
                continue;
            }
            match contestant.round(round) {
                Ok(round) => record(bench, title, &contestant.name, &round),
                Err(error) => bench.failed('b', title, &contestant.name, &error),
            }
        }
    }
    Ok(())
}

fn record(bench: &mut Bench, title: &str, name: &str, round: &Round) {
    let report = bench.report();
    let mut put = |title: &str, unit, goal, figure: Option<f64>| {
        figure.into_iter().for_each(|figure| report.row('b', title, unit, goal).sample(name, figure));
    };
    let floor = Goal::TimesFloor(1.2);
    put(&format!("{title}, p50"), Unit::Milliseconds, floor, percentile(&round.singles, 50.0));
    put(&format!("{title}, p99"), Unit::Milliseconds, floor, percentile(&round.singles, 99.0));
    put("CPU for one change", Unit::Microseconds, Goal::AtMost(120.0), Some(round.cpu * 1e6));
    put("1,000 at once: time to the last", Unit::Milliseconds, Goal::AtMost(6.0), Some(round.burst));
    put("1,000 at once: UPDATEs", Unit::Count, Goal::AtMost(4.0), Some(round.updates as f64));
    put("1,000 at once: lost", Unit::Count, Goal::AtMost(0.0), Some(round.lost as f64));
}

/// What one round gave.
struct Round {
    /// Milliseconds from each change to its UPDATE.
    singles: Vec<f64>,
    /// Seconds for one change.
    cpu: f64,
    burst: f64,
    updates: u64,
    lost: u64,
}

/// By which way the changes come in.
enum Cause {
    /// By a line to a process of ours, which tells when it began.
    Process(Process),
    /// By routes in the kernel, and when the last change began.
    Kernel(Kernel, Moment, Box<Fed>),
    /// By gRPC, likewise.
    Grpc(Grpc, Moment, Box<Fed>),
}

impl Cause {
    fn add(&mut self, numbers: Range<u32>) -> Result<()> {
        match self {
            Cause::Process(process) => process.tell(&format!("add {} {}", numbers.start, numbers.end))?,
            Cause::Kernel(kernel, begin, _) => *begin = kernel.add(numbers, Way::Link)?,
            Cause::Grpc(grpc, begin, _) => *begin = grpc.add(numbers)?,
        }
        Ok(())
    }

    fn remove(&mut self, numbers: Range<u32>) -> Result<()> {
        match self {
            Cause::Process(process) => process.tell(&format!("remove {} {}", numbers.start, numbers.end))?,
            Cause::Kernel(kernel, begin, _) => *begin = kernel.remove(numbers, Way::Link)?,
            Cause::Grpc(grpc, begin, _) => {
                *begin = Moment::now();
                // One after the other: it is not timed.
                for number in numbers {
                    grpc.remove(number)?;
                    grpc.answered()?;
                }
            }
        }
        Ok(())
    }

    /// When the last change began; asked after its effect was seen.
    fn began(&mut self) -> Result<Moment> {
        match self {
            Cause::Process(process) => process.moment(LOST),
            Cause::Kernel(_, begin, _) => Ok(*begin),
            Cause::Grpc(grpc, begin, _) => {
                grpc.answered()?;
                Ok(*begin)
            }
        }
    }
}

struct Contestant {
    name: String,
    cause: Cause,
    /// How many single changes make a round.
    singles: u32,
    session: Session,
    _site: Site,
}

impl Contestant {
    fn ours() -> Result<Contestant> {
        let site = Site::new()?;
        let mut process =
            Process::start(&site.contestant, &["speak", "--peer", &host::READERS.start().to_string()])?;
        process.ask(&format!("originate {STANDING}"))?;
        Contestant::new(OURS, site, Cause::Process(process))
    }

    fn floor() -> Result<Contestant> {
        let site = Site::new()?;
        let arguments = ["floor", "--announce", &STANDING.to_string(), "--changes"];
        let mut process = Process::start(&site.contestant, &arguments)?;
        process.answer(Duration::from_secs(30))?;
        Contestant::new(FLOOR, site, Cause::Process(process))
    }

    fn router(product: &Product) -> Result<Contestant> {
        let site = Site::new()?;
        let mut fed = Fed::start(product, &site, FAMILY, Task::Change)?;
        let mut updates = Vec::new();
        wire::announce(&author(host::FEEDER), Numbering::Hosts4, 0..STANDING - 1, 0, &mut updates);
        fed.feed(&updates, FAMILY).with_context(|| format!("{} is taught", product.label))?;
        let fed = Box::new(fed);
        let cause = match product.kind {
            Kind::Gobgp => Cause::Grpc(Grpc::connect(&fed.router.path("api.sock"))?, Moment::now(), fed),
            Kind::Bird | Kind::Frr | Kind::Openbgpd => {
                Cause::Kernel(Kernel::new(&site.contestant)?, Moment::now(), fed)
            }
        };
        let mut contestant = Contestant::new(&product.label, site, cause)?;
        if product.kind == Kind::Frr {
            contestant.singles = FEW_SINGLES;
        }
        Ok(contestant)
    }

    fn new(name: &str, site: Site, cause: Cause) -> Result<Contestant> {
        let mut session = Session::connect(&site, FAMILY, *host::READERS.start())?;
        session
            .receive_until("what stands", PATIENCE, |counts| counts.announced >= u64::from(STANDING))
            .with_context(|| name.to_owned())?;
        Ok(Contestant { name: name.to_owned(), cause, singles: SINGLES, session, _site: site })
    }

    fn usage(&self) -> Result<Usage> {
        match &self.cause {
            Cause::Process(process) => Usage::of_group(process.group()),
            Cause::Kernel(_, _, fed) | Cause::Grpc(_, _, fed) => fed.router.usage(),
        }
    }

    fn round(&mut self, round: usize) -> Result<Round> {
        let before = self.usage()?;
        let mut singles = Vec::new();
        for number in STANDING..STANDING + self.singles {
            singles.push(self.single(number)?);
        }
        let cpu = (self.usage()?.cpu - before.cpu) / f64::from(2 * self.singles);
        let (burst, updates, lost) = self.burst(u32::try_from(round)?)?;
        Ok(Round { singles, cpu, burst, updates, lost })
    }

    /// Adds a route, which is timed, and removes it.
    fn single(&mut self, number: u32) -> Result<f64> {
        let before = self.session.counts().clone();
        self.cause.add(number..number + 1)?;
        let end = self
            .session
            .receive_until("the route", LOST, |counts| counts.announced > before.announced)
            .with_context(|| format!("a single change, {number}"))?;
        let begin = self.cause.began()?;
        let counts = self.session.counts();
        ensure!(counts.announced == before.announced + 1, "more than the one route: {counts:?}");
        ensure!(
            counts.checksum.wrapping_sub(before.checksum) == Numbering::Hosts4.checksum(number),
            "another route than {number}"
        );
        self.cause.remove(number..number + 1)?;
        self.session.receive_until("the withdrawal", LOST, |counts| counts.withdrawn > before.withdrawn)?;
        self.cause.began()?;
        Ok(end.milliseconds_since(begin))
    }

    /// Adds a thousand: milliseconds to the last that came, UPDATEs, and how many never came.
    fn burst(&mut self, round: u32) -> Result<(f64, u64, u64)> {
        let before = self.session.counts().clone();
        // Others each time: what was lost may be lost again when it is removed, and stay.
        let first = STANDING + SINGLES + round * BURST;
        let numbers = first..first + BURST;
        self.cause.add(numbers.clone())?;
        let wanted = before.announced + u64::from(BURST);
        let mut last = Moment::now();
        // Waits anew after whatever comes, so that a loss costs no more than one wait.
        while self.session.counts().announced < wanted {
            let have = self.session.counts().announced;
            match self.session.receive_until("more", LOST, |counts| counts.announced > have) {
                Ok(at) => last = at,
                Err(_) => break,
            }
        }
        let begin = self.cause.began()?;
        let counts = self.session.counts().clone();
        let came = counts.announced - before.announced;
        self.cause.remove(numbers)?;
        let gone = before.withdrawn + came;
        let withdrawn =
            self.session.receive_until("the withdrawals", LOST, |counts| counts.withdrawn >= gone);
        self.cause.began()?;
        // Who loses routes may lose their removal too; only then is that no error.
        if came == u64::from(BURST) {
            withdrawn?;
        }
        Ok((
            last.milliseconds_since(begin),
            counts.updates - before.updates,
            u64::from(BURST).saturating_sub(came),
        ))
    }
}
