//! Row (f): a peer gone silent, until its routes are withdrawn for BFD's sake.
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Fed, PATIENCE};
use crate::agent::Agent;
use crate::bench::Bench;
use crate::bfd::{INTERVAL, Talker};
use crate::clock::Moment;
use crate::kernel;
use crate::report::{FLOOR, Goal, OURS, Unit};
use crate::routers::{Kind, Product, Task};
use crate::session::Session;
use crate::site::{Site, author, host};
use crate::wire::{self, Family};

const FAMILY: Family = Family::V4;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let title = "peer gone silent to withdrawal by BFD, 50 ms x 3";
    let goal = Goal::AtMost(150.0);
    for round in 0..bench.rounds() {
        // By the definition: three intervals after the last packet, of which part is over when silence begins.
        let part = INTERVAL * u32::try_from(round % 5)? / 5;
        let floor = (INTERVAL * 3 - part).as_secs_f64() * 1e3;
        bench.report().row('f', title, Unit::Milliseconds, goal).sample(FLOOR, floor);
        match ours(part) {
            Ok(figure) => bench.report().row('f', title, Unit::Milliseconds, goal).sample(OURS, figure),
            Err(error) => bench.failed('f', title, OURS, &error),
        }
        for product in bench.peers() {
            if !matches!(product.kind, Kind::Bird | Kind::Frr) || bench.gave_up('f', title, &product.label) {
                continue;
            }
            match theirs(&product, part) {
                Ok(figure) => {
                    bench.report().row('f', title, Unit::Milliseconds, goal).sample(&product.label, figure);
                }
                Err(error) => bench.failed('f', title, &product.label, &error),
            }
        }
    }
    Ok(())
}

/// The agent has one route of the feeder's in the kernel, and ends the session: what it learned is void from then on.
fn ours(part: Duration) -> Result<f64> {
    let site = Site::new()?;
    let mut talker = Talker::start(&site, host::FEEDER)?;
    let agent = Agent::watching(&site.contestant, host::FEEDER)?;
    let mut session = Session::connect(&site, FAMILY, host::FEEDER).with_context(|| agent.log())?;
    let before = kernel::held(&site.contestant)?;
    let mut update = Vec::new();
    wire::announce_marker(&author(host::FEEDER), FAMILY, &mut update);
    session.send(&update)?;
    until(&site, before + 1, &agent)?;
    talker.await_up(Duration::from_secs(20)).with_context(|| agent.log())?;
    std::thread::sleep(Duration::from_secs(2) + part);
    anyhow::ensure!(kernel::held(&site.contestant)? == before + 1, "gone before there was silence");
    let begin = talker.fall_silent();
    // A NOTIFICATION or the end of the connection, both of which are errors to who waits for routes.
    let _ = session.receive_until("the session's end", Duration::from_secs(10), |_| false);
    let milliseconds = Moment::now().milliseconds_since(begin);
    anyhow::ensure!(milliseconds < 10_000.0, "the session never ends: {}", agent.log());
    Ok(milliseconds)
}

/// Waits until the kernel holds so many routes.
fn until(site: &Site, count: usize, agent: &Agent) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while kernel::held(&site.contestant)? != count {
        anyhow::ensure!(Instant::now() < deadline, "the kernel never holds {count}: {}", agent.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The observer hears that the feeder's one route is gone.
fn theirs(product: &Product, part: Duration) -> Result<f64> {
    let site = Site::new()?;
    let mut talker = Talker::start(&site, host::FEEDER)?;
    let mut fed = Fed::start(product, &site, FAMILY, Task::Watch)?;
    fed.feed(&[], FAMILY)?;
    talker.await_up(Duration::from_secs(20)).with_context(|| fed.router.log())?;
    // Silence begins at another place between two packets in each round.
    std::thread::sleep(Duration::from_secs(2) + part);
    anyhow::ensure!(fed.observer.counts().withdrawn == 0, "withdrawn before there was silence");
    let begin = talker.fall_silent();
    let end = fed.observer.receive_until("the withdrawal", PATIENCE, |counts| counts.withdrawn > 0)?;
    Ok(end.milliseconds_since(begin))
}
