//! Tells a run to a person: a line for each step (`test`), or every command with its real output (`demo`).

use std::fmt::Display;
use std::io::{IsTerminal, stdout};
use std::time::Duration;

use super::Lab;
use super::expect::{Action, Expect, Step};
use super::run::{Audience, Report, StepReport};

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A line for each step.
    Steps,
    /// Each action, expectation and command as well.
    Everything,
}

/// Writes to standard output, in colour if that is a terminal.
#[derive(Debug)]
pub struct Teller {
    detail: Detail,
    colour: bool,
}

/// SGR codes (ECMA-48).
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

impl Teller {
    /// One that tells so much.
    pub fn new(detail: Detail) -> Teller {
        let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Teller { detail, colour }
    }

    /// What the lab is, before the first step.
    pub fn opening(&self, lab: &Lab, up: Duration) {
        let nodes: Vec<&str> = lab.nodes().map(|node| node.name()).collect();
        println!("{} is up after {} ms: {}", self.paint(BOLD, lab.name()), up.as_millis(), nodes.join(", "));
        println!(
            "Each is a set of network, mount, process and host name namespaces on this machine; see labs/{}.",
            lab.name()
        );
    }

    /// The figures of all steps, and the verdict.
    pub fn closing(&self, report: &Report) {
        let figures: Vec<&StepReport> = report.steps.iter().filter(|step| step.figure.is_some()).collect();
        let probes: Vec<_> =
            report.steps.iter().flat_map(|step| step.probes.iter().map(move |count| (step, count))).collect();
        if self.detail == Detail::Everything && !(figures.is_empty() && probes.is_empty()) {
            println!("\n{}", self.paint(BOLD, "Figures"));
            for step in figures {
                println!("  {:>6} ms  {}", step.milliseconds, step.figure.as_deref().unwrap_or_default());
            }
            for (step, count) in probes {
                println!(
                    "  {:>2} of {} packets lost, the longest gap {} ms: {}",
                    count.lost, count.sent, count.longest_gap_milliseconds, step.claim
                );
            }
        }
        let held = report.steps.iter().filter(|step| step.holds).count();
        let verdict = if report.holds() {
            self.paint(GREEN, "all hold")
        } else {
            self.paint(RED, "the last one failed")
        };
        println!("\n{}: {held} of {} claims shown hold: {verdict}", report.lab, report.steps.len());
    }

    fn paint(&self, code: &str, text: impl Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn everything(&self) -> bool {
        self.detail == Detail::Everything
    }
}

impl Audience for Teller {
    fn begins(&mut self, number: usize, of: usize, step: &Step) {
        if !self.everything() {
            return;
        }
        println!("\n{} {}", self.paint(CYAN, format!("[{number}/{of}]")), self.paint(BOLD, &step.claim));
        for line in step.tell.trim().lines() {
            println!("  {line}");
        }
    }

    fn done(&mut self, action: &Action) {
        if self.everything() {
            println!("  {} {action}", self.paint(CYAN, "do"));
        }
    }

    fn held(&mut self, expect: &Expect, after: Duration) {
        if self.everything() {
            println!(
                "  {} {expect} {}",
                self.paint(GREEN, "ok"),
                self.paint(DIM, format!("({} ms)", after.as_millis()))
            );
        }
    }

    fn show(&mut self, lab: &Lab, step: &Step) {
        if !self.everything() {
            return;
        }
        for line in &step.show {
            println!("  {} {}", self.paint(CYAN, format!("{}$", line.node)), self.paint(BOLD, &line.run));
            let said = match lab
                .node(&line.node)
                .and_then(|node| Ok(node.command(&["sh", "-c", &line.run]).output()?))
            {
                Ok(output) => [output.stdout, output.stderr].concat(),
                Err(error) => format!("{error:#}").into_bytes(),
            };
            for text in String::from_utf8_lossy(&said).trim_end().lines() {
                println!("    {text}");
            }
        }
    }

    fn ended(&mut self, report: &StepReport) {
        for count in report.probes.iter().filter(|_| self.everything()) {
            let (sent, lost, gap) = (count.sent, count.lost, count.longest_gap_milliseconds);
            let line = format!(
                "{sent} packets from {} to {} and back: {lost} lost, the longest gap {gap} ms",
                count.from, count.to
            );
            println!("  {} {line}", self.paint(GREEN, "ok"));
        }
        match &report.failure {
            Some(failure) => println!("{} {}\n{failure}", self.paint(RED, "failed"), report.claim),
            None if self.everything() => {}
            None => println!(
                "{} {} {}",
                self.paint(GREEN, "ok"),
                report.claim,
                self.paint(DIM, format!("({} ms)", report.milliseconds))
            ),
        }
    }
}
