//! Row (b), the agent: a Pod appears in a file, until its UPDATE is at the peer; the kernel's route lies between.
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::{Agent, Peering, lay_link};
use crate::bench::Bench;
use crate::report::{Goal, OURS, Unit};
use crate::session::Session;
use crate::site::{Site, host};
use crate::stats::percentile;
use crate::wire::{Family, Numbering};

const FAMILY: Family = Family::V4;
const READER: u8 = *host::READERS.start();
/// What a node has.
const PODS: u32 = 250;
const EVENTS: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let title = "a Pod appears in a file, among 250";
    let mut node = match Node::new() {
        Ok(node) => node,
        Err(error) => {
            bench.failed('b', title, OURS, &error);
            return Ok(());
        }
    };
    for _ in 0..bench.rounds() {
        match node.round() {
            Ok(figures) => {
                for (percent, goal) in [(50.0, Goal::None), (99.0, Goal::AtMost(10.0))] {
                    let title = format!("{title}, p{percent}");
                    let row = bench.report().row('b', &title, Unit::Milliseconds, goal);
                    percentile(&figures, percent).into_iter().for_each(|figure| row.sample(OURS, figure));
                }
            }
            Err(error) => bench.failed('b', title, OURS, &error),
        }
    }
    Ok(())
}

struct Node {
    session: Session,
    agent: Agent,
    _site: Site,
}

impl Node {
    fn new() -> Result<Node> {
        let site = Site::new()?;
        lay_link(&site.contestant)?;
        let agent = Agent::start(&site.contestant, READER, Peering::Waits, PODS)?;
        let mut session = Session::connect(&site, FAMILY, READER).with_context(|| agent.log())?;
        session
            .receive_until("all Pods", PATIENCE, |counts| counts.announced >= u64::from(PODS))
            .with_context(|| agent.log())?;
        Ok(Node { session, agent, _site: site })
    }

    fn round(&mut self) -> Result<Vec<f64>> {
        (PODS..PODS + EVENTS).map(|number| self.event(number)).collect()
    }

    /// A Pod comes, which is timed, and goes.
    fn event(&mut self, number: u32) -> Result<f64> {
        let before = self.session.counts().clone();
        let begin = self.agent.add(number)?;
        let end =
            self.session.receive_until("the Pod", PATIENCE, |counts| counts.announced > before.announced)?;
        let counts = self.session.counts();
        ensure!(
            counts.checksum.wrapping_sub(before.checksum) == Numbering::Hosts4.checksum(number),
            "another route than Pod {number}'s: {counts:?}"
        );
        self.agent.remove(number)?;
        self.session
            .receive_until("its withdrawal", PATIENCE, |counts| counts.withdrawn > before.withdrawn)?;
        Ok(end.milliseconds_since(begin))
    }
}
