//! Row (d): 100,000 routes learned by BGP, until the kernel holds them all.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plainroute_tests::netns::Netns;

use super::Fed;
use crate::agent::{Agent, Peering};
use crate::bench::Bench;
use crate::clock::Moment;
use crate::kernel::{self, Kernel, NEW_ROUTE, Way};
use crate::report::{FLOOR, Goal, OURS, Unit};
use crate::routers::{Kind, Product, Task};
use crate::session::Session;
use crate::site::{Site, author, host};
use crate::wire::{self, Family, Numbering};

const FAMILY: Family = Family::V4;
const ROUTES: u32 = 100_000;
/// Beyond the addresses of the node's own pool, which nobody else may teach it.
const FIRST: u32 = 1 << 16;
const NUMBERS: std::ops::Range<u32> = FIRST..FIRST + ROUTES;
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the kernel is asked how many it holds; the answer costs it some milliseconds.
const PAUSE: Duration = Duration::from_millis(10);
const TITLE: &str = "100k BGP routes into the kernel";
const OBJECTS: &str = "floor, nexthop object";

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let mut updates = Vec::new();
    wire::announce(&author(host::FEEDER), Numbering::Hosts4, NUMBERS, 0, &mut updates);
    for _ in 0..bench.rounds() {
        record(bench, OURS, ours(&updates));
        record(bench, FLOOR, floor(Way::Gateway(host::FEEDER)));
        record(bench, OBJECTS, floor(Way::Object));
        for product in bench.peers() {
            // GoBGP leaves the kernel to zebra.
            if product.kind != Kind::Gobgp && !bench.gave_up('d', TITLE, &product.label) {
                record(bench, &product.label, theirs(&product, &updates));
            }
        }
    }
    Ok(())
}

fn record(bench: &mut Bench, name: &str, milliseconds: Result<f64>) {
    match milliseconds {
        Ok(figure) => {
            let row = bench.report().row('d', TITLE, Unit::Milliseconds, Goal::AtMost(500.0));
            row.sample(name, figure);
        }
        Err(error) => bench.failed('d', TITLE, name, &error),
    }
}

/// The agent, from the first octet of the feeder.
fn ours(updates: &[u8]) -> Result<f64> {
    let site = Site::new()?;
    let agent = Agent::start(&site.contestant, host::FEEDER, Peering::Waits, 0)?;
    let mut session = Session::connect(&site, FAMILY, host::FEEDER).with_context(|| agent.log())?;
    until_held(&site.contestant, || session.send(updates)).with_context(|| agent.log())
}

fn theirs(product: &Product, updates: &[u8]) -> Result<f64> {
    let site = Site::new()?;
    let mut fed = Fed::start(product, &site, FAMILY, Task::Install)?;
    until_held(&site.contestant, || fed.feeder.send(updates)).with_context(|| fed.router.log())
}

/// No BGP: the requests are encoded beforehand.
fn floor(way: Way) -> Result<f64> {
    let site = Site::new()?;
    let mut kernel = Kernel::new(&site.contestant)?;
    kernel.object(host::FEEDER)?;
    let batches = kernel.encode(NEW_ROUTE, NUMBERS, way);
    let before = kernel::held(&site.contestant)?;
    let begin = kernel.send(&batches)?;
    let milliseconds = Moment::now().milliseconds_since(begin);
    let held = kernel::held(&site.contestant)? - before;
    ensure!(held == ROUTES as usize, "the kernel holds {held} of {ROUTES}");
    Ok(milliseconds)
}

fn until_held(netns: &Netns, begin: impl FnOnce() -> Result<Moment>) -> Result<f64> {
    let before = kernel::held(netns)?;
    let begin = begin()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = kernel::held(netns)? - before;
        let now = Moment::now();
        if held >= ROUTES as usize {
            ensure!(held == ROUTES as usize, "the kernel holds {held}, more than were taught");
            return Ok(now.milliseconds_since(begin));
        }
        ensure!(Instant::now() < deadline, "the kernel holds {held} of {ROUTES} after {PATIENCE:?}");
        std::thread::sleep(PAUSE);
    }
}
