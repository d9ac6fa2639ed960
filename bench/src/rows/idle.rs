//! Row (e): what an idle node costs, and how soon it speaks after its start.
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Fed, PATIENCE};
use crate::agent::{Agent, Peering, lay_link};
use crate::bench::Bench;
use crate::clock::Moment;
use crate::process::Process;
use crate::report::{FLOOR, Goal, OURS, Unit};
use crate::routers::{Kind, Product, Router, Task};
use crate::session::{Session, Turn};
use crate::site::{Site, address, author, host};
use crate::usage::Usage;
use crate::wire::{self, Family, Numbering};

const FAMILY: Family = Family::V4;
const ROUTES: u32 = 250;
const READER: u8 = *host::READERS.start();
/// How long idleness is looked at.
const IDLE: Duration = Duration::from_secs(30);

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    idle(bench);
    for _ in 0..bench.rounds() {
        record_start(bench, OURS, ours());
        record_start(bench, FLOOR, floor());
        for product in bench.peers() {
            // GoBGP has no routes in its configuration, so cannot start with any.
            if product.kind != Kind::Gobgp {
                record_start(bench, &product.label, theirs(&product));
            }
        }
    }
    Ok(())
}

/// Somebody who has told all and now waits.
struct Idler {
    name: String,
    usage: Box<dyn Fn() -> Result<Usage>>,
    _session: Session,
    _site: Site,
}

/// All idle side by side, once: there is nothing that could disturb them.
fn idle(bench: &mut Bench) {
    let mut made = vec![(OURS.to_owned(), idle_agent()), (FLOOR.to_owned(), idle_floor())];
    made.extend(bench.peers().iter().map(|product| (product.label.clone(), idle_router(product))));
    let mut idlers = Vec::new();
    for (name, idler) in made {
        match idler {
            Ok(idler) => idlers.push(idler),
            Err(error) => bench.failed('e', "idle", &name, &error),
        }
    }
    let span = if bench.quick() { IDLE / 3 } else { IDLE };
    let before: Vec<Usage> = idlers.iter().map(|idler| (idler.usage)().unwrap_or_default()).collect();
    std::thread::sleep(span);
    for (idler, before) in idlers.iter().zip(before) {
        match (idler.usage)() {
            Ok(after) => {
                let report = bench.report();
                let title = "idle, one peer, 250 routes: resident";
                let row = report.row('e', title, Unit::Octets, Goal::AtMost(6e6));
                row.sample(&idler.name, after.resident as f64);
                let title = format!("idle: context switches in {} s", span.as_secs());
                let switches = after.switches.saturating_sub(before.switches) as f64;
                report.row('e', &title, Unit::Count, Goal::None).sample(&idler.name, switches);
            }
            Err(error) => bench.failed('e', "idle", &idler.name, &error),
        }
    }
}

fn idle_agent() -> Result<Idler> {
    let site = Site::new()?;
    lay_link(&site.contestant)?;
    let agent = Agent::start(&site.contestant, READER, Peering::Waits, ROUTES)?;
    let session = told(&site).with_context(|| agent.log())?;
    Ok(Idler {
        name: OURS.to_owned(),
        usage: Box::new(move || agent.usage()),
        _session: session,
        _site: site,
    })
}

fn idle_floor() -> Result<Idler> {
    let site = Site::new()?;
    let process = floor_process(&site)?;
    let session = told(&site)?;
    let usage = Box::new(move || Usage::of_group(process.group()));
    Ok(Idler { name: FLOOR.to_owned(), usage, _session: session, _site: site })
}

fn idle_router(product: &Product) -> Result<Idler> {
    let site = Site::new()?;
    let mut fed = Fed::start(product, &site, FAMILY, Task::Hold)?;
    let mut updates = Vec::new();
    wire::announce(&author(host::FEEDER), Numbering::Hosts4, 0..ROUTES - 1, 0, &mut updates);
    fed.feed(&updates, FAMILY)?;
    let session = told(&site)?;
    let usage = Box::new(move || fed.router.usage());
    Ok(Idler { name: product.label.clone(), usage, _session: session, _site: site })
}

fn floor_process(site: &Site) -> Result<Process> {
    let mut process = Process::start(&site.contestant, &["floor", "--announce", &ROUTES.to_string()])?;
    process.answer(Duration::from_secs(30))?;
    Ok(process)
}

/// A session that was told all.
fn told(site: &Site) -> Result<Session> {
    let mut session = Session::connect(site, FAMILY, READER)?;
    session.receive_until("all routes", PATIENCE, |counts| counts.announced >= u64::from(ROUTES))?;
    Ok(session)
}

fn record_start(bench: &mut Bench, name: &str, milliseconds: Result<f64>) {
    let title = "process start to 250 routes at a listening peer";
    match milliseconds {
        Ok(figure) => {
            let row = bench.report().row('e', title, Unit::Milliseconds, Goal::AtMost(30.0));
            row.sample(name, figure);
        }
        Err(error) => bench.failed('e', title, name, &error),
    }
}

fn ours() -> Result<f64> {
    let site = Site::new()?;
    lay_link(&site.contestant)?;
    let listener = listen(&site)?;
    let agent = Agent::start(&site.contestant, READER, Peering::Connects, ROUTES)?;
    heard(&listener, agent.started).with_context(|| agent.log())
}

/// The process of the floor, which connects and writes what it encodes meanwhile.
fn floor() -> Result<f64> {
    let site = Site::new()?;
    let listener = listen(&site)?;
    let begin = Moment::now();
    let arguments = ["floor", "--announce", &ROUTES.to_string(), "--connect", &READER.to_string()];
    let _process = Process::start(&site.contestant, &arguments)?;
    heard(&listener, begin)
}

fn theirs(product: &Product) -> Result<f64> {
    let site = Site::new()?;
    let listener = listen(&site)?;
    let begin = Moment::now();
    let router: Router = product.start(&site.contestant, FAMILY, Task::Start)?;
    heard(&listener, begin).with_context(|| router.log())
}

fn listen(site: &Site) -> Result<TcpListener> {
    let listener = site.tool.within(|| TcpListener::bind(SocketAddr::new(address(FAMILY, READER), 179)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Waits for a session that tells all.
fn heard(listener: &TcpListener, begin: Moment) -> Result<f64> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => bail!("nobody connects: {error}"),
        }
    };
    stream.set_nonblocking(false)?;
    let mut session = Session::establish(stream, READER, FAMILY, Turn::First, &mut |_, _| {})?;
    let end =
        session.receive_until("all routes", PATIENCE, |counts| counts.announced >= u64::from(ROUTES))?;
    let right = session.counts().checksum == Numbering::Hosts4.checksum_of(0..ROUTES);
    anyhow::ensure!(right, "so many routes, but not the right ones: {:?}", session.counts());
    Ok(end.milliseconds_since(begin))
}
