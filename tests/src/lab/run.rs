//! Goes through a lab's expectations step by step.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::Serialize;

use super::expect::{Action, Expect, Expectations, Step, Until};
use super::probe::{Count, Running};
use super::{Image, Lab};

/// Between two questions about the same expectation.
const PAUSE: Duration = Duration::from_millis(3);
/// How long a process may take to end.
const END: Duration = Duration::from_secs(10);

/// What a run found: the figures of the documentation come from here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The lab.
    pub lab: String,
    /// One for each step, up to and including the first that failed.
    pub steps: Vec<StepReport>,
}

/// What a step found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// The claim.
    pub claim: String,
    /// Whether it is true.
    pub holds: bool,
    /// What `milliseconds` measures, where that is worth a figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figure: Option<String>,
    /// From the end of the actions until the first or the last expectation held, as the step says.
    pub milliseconds: u64,
    /// What the probes counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Count>,
    /// What is wrong: the expectation, and what was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Who follows a run.
pub trait Audience {
    /// A step begins.
    fn begins(&mut self, number: usize, of: usize, step: &Step);
    /// An action was done.
    fn done(&mut self, action: &Action);
    /// An expectation held, so long after the actions.
    fn held(&mut self, expect: &Expect, after: Duration);
    /// The step's own commands may be run and shown.
    fn show(&mut self, lab: &Lab, step: &Step);
    /// A step ended.
    fn ended(&mut self, report: &StepReport);
}

/// For tests: only the outcome counts.
#[derive(Debug)]
pub struct Silent;

impl Audience for Silent {
    fn begins(&mut self, _: usize, _: usize, _: &Step) {}
    fn done(&mut self, _: &Action) {}
    fn held(&mut self, _: &Expect, _: Duration) {}
    fn show(&mut self, _: &Lab, _: &Step) {}
    fn ended(&mut self, _: &StepReport) {}
}

impl Report {
    /// Whether every claim is true.
    pub fn holds(&self) -> bool {
        self.steps.iter().all(|step| step.holds)
    }
}

/// Goes through the steps until one fails: a later one builds on the earlier.
pub fn run(lab: &Lab, expectations: &Expectations, audience: &mut dyn Audience) -> Report {
    let mut report = Report { lab: lab.name().to_owned(), steps: Vec::new() };
    for (index, step) in expectations.steps.iter().enumerate() {
        audience.begins(index + 1, expectations.steps.len(), step);
        let mut found = StepReport {
            claim: step.claim.clone(),
            holds: true,
            figure: step.figure.clone(),
            milliseconds: 0,
            probes: Vec::new(),
            failure: None,
        };
        if let Err(error) = take(lab, step, &mut found, audience) {
            found.holds = false;
            found.failure = Some(format!("{error:#}{}", agents_last_words(lab)));
        }
        audience.ended(&found);
        let failed = !found.holds;
        report.steps.push(found);
        if failed {
            break;
        }
    }
    report
}

fn take(lab: &Lab, step: &Step, found: &mut StepReport, audience: &mut dyn Audience) -> Result<()> {
    let probes = step.probe.iter().map(|probe| Running::start(lab, probe)).collect::<Result<Vec<_>>>()?;
    for action in &step.actions {
        action.perform(lab)?;
        audience.done(action);
    }
    let start = Instant::now();
    for (index, expect) in step.expect.iter().enumerate() {
        await_expect(lab, expect, start, step.within())?;
        let after = start.elapsed();
        if index == 0 || step.until == Until::Last {
            found.milliseconds = u64::try_from(after.as_millis())?;
        }
        audience.held(expect, after);
    }
    audience.show(lab, step);
    let held = Instant::now();
    while held.elapsed() < step.stays() {
        for expect in &step.expect {
            let stays = || {
                format!("expected for {:?} more: {expect}; {:?} later, seen", step.stays(), held.elapsed())
            };
            expect.check(lab).with_context(stays)?;
        }
        std::thread::sleep(PAUSE);
    }
    for (running, probe) in probes.into_iter().zip(&step.probe) {
        let count = running.finish()?;
        found.probes.push(count.clone());
        let Count { sent, lost, longest_gap_milliseconds: gap, .. } = count;
        let seen = format!("seen: {lost} of {sent} lost, the longest gap {gap} ms");
        let way = format!("from {} to {}", probe.from, probe.to);
        if let Some(most) = probe.lost_at_most {
            ensure!(lost <= most, "expected at most {most} packets lost {way}; {seen}");
        }
        if let Some(least) = probe.lost_at_least {
            ensure!(lost >= least, "expected at least {least} packets lost {way} (negative control); {seen}");
        }
    }
    Ok(())
}

fn await_expect(lab: &Lab, expect: &Expect, start: Instant, within: Duration) -> Result<()> {
    loop {
        match expect.check(lab) {
            Ok(()) => return Ok(()),
            Err(seen) if start.elapsed() >= within => {
                return Err(seen.context(format!("expected within {within:?}: {expect}; seen")));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

impl Action {
    fn perform(&self, lab: &Lab) -> Result<()> {
        match self {
            Action::Run(line) => lab.node(&line.node)?.shell(&line.run).map(drop),
            Action::Kill { node, signal } => {
                let signal =
                    Signal::from_str(&format!("SIG{signal}")).with_context(|| format!("signal {signal}"))?;
                lab.node(node)?.signal_command(signal, Some(END))
            }
            Action::Start { node } => lab.node(node)?.start_command(),
            Action::Remove { manifest } => rename(lab, "manifests", "removed", manifest),
            Action::Restore { manifest } => rename(lab, "removed", "manifests", manifest),
            Action::Write { manifest, content } => {
                // Whole at once, as an editor or kubectl would: a reader never sees half of it.
                let aside = lab.files().join(manifest);
                fs::write(&aside, content).with_context(|| format!("write {}", aside.display()))?;
                rename(lab, ".", "manifests", manifest)
            }
            Action::LinkDown { node, interface } => {
                lab.node(node)?.run(&["ip", "link", "set", interface, "down"]).map(drop)
            }
            Action::LinkUp { node, interface } => {
                lab.node(node)?.run(&["ip", "link", "set", interface, "up"]).map(drop)
            }
        }
    }
}

/// As one would tell it.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Run(line) => write!(f, "on {}: {}", line.node, line.run),
            Action::Kill { node, signal } => write!(f, "SIG{signal} to the command of {node}"),
            Action::Start { node } => write!(f, "start the command of {node}"),
            Action::Remove { manifest } => write!(f, "remove manifests/{manifest}"),
            Action::Restore { manifest } => write!(f, "bring manifests/{manifest} back"),
            Action::Write { manifest, .. } => write!(f, "write manifests/{manifest}"),
            Action::LinkDown { node, interface } => write!(f, "{node}: {interface} down"),
            Action::LinkUp { node, interface } => write!(f, "{node}: {interface} up"),
        }
    }
}

fn rename(lab: &Lab, from: &str, to: &str, manifest: &str) -> Result<()> {
    let dir = lab.files().join(to);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let source = lab.files().join(from).join(Path::new(manifest));
    fs::rename(&source, dir.join(manifest)).with_context(|| format!("move {} to {to}/", source.display()))
}

/// Agents and routers that said something, for a failure's message.
fn agents_last_words(lab: &Lab) -> String {
    let talkers = lab.nodes().filter(|node| node.image() != Image::Tools);
    talkers.map(|node| format!("\n--- {}", node.last_words())).collect()
}
