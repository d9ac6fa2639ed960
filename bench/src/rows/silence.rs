//! Row (f): a peer gone silent, until its routes are withdrawn for BFD's sake.
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Fed, PATIENCE};
use crate::bench::Bench;
use crate::bfd::{INTERVAL, Talker};
use crate::report::{FLOOR, Goal, Unit};
use crate::routers::{Kind, Product, Task};
use crate::site::{Site, host};
use crate::wire::Family;

const FAMILY: Family = Family::V4;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let title = "peer gone silent to withdrawal by BFD, 50 ms x 3";
    let goal = Goal::AtMost(150.0);
    bench.report().row('f', title, Unit::Milliseconds, goal);
    bench.report().note("(f) Plainroute: not measured, for its agent does not act on BFD yet".to_owned());
    for round in 0..bench.rounds() {
        // By the definition: three intervals after the last packet, of which part is over when silence begins.
        let part = INTERVAL * u32::try_from(round % 5)? / 5;
        let floor = (INTERVAL * 3 - part).as_secs_f64() * 1e3;
        bench.report().row('f', title, Unit::Milliseconds, goal).sample(FLOOR, floor);
        for product in bench.peers() {
            if !matches!(product.kind, Kind::Bird | Kind::Frr) {
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
