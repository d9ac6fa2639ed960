//! One run: what was asked for, the peers, and what came out so far.
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::report::Report;
use crate::routers::Product;
use crate::rows;

/// Measures and prints the table.
#[derive(Args, Clone, Debug)]
pub(crate) struct Run {
    /// The rows by letter, such as `a,c`. CPU (g) comes with a and c.
    #[arg(long, value_delimiter = ',', default_values_t = ['a', 'b', 'c', 'd', 'e', 'f', 'h'])]
    rows: Vec<char>,
    /// all, debian (this machine's), none, or names such as `bird3,gobgp`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    peers: Vec<String>,
    /// Three rounds, and no million routes for the slow.
    #[arg(long)]
    quick: bool,
    /// Rounds; of them the median counts.
    #[arg(long)]
    rounds: Option<usize>,
    /// A root directory with newer routers, as scripts/bench-root.sh makes it.
    #[arg(long)]
    newer: Option<PathBuf>,
    /// Where to write the page of Markdown.
    #[arg(long)]
    write: Option<PathBuf>,
}

#[cfg(not(feature = "kubernetes"))]
const NO_KUBERNETES: &str =
    "(b) and (e) with Kubernetes: not measured, for no API server was built on this machine";

#[cfg(not(feature = "kubernetes"))]
const NO_ADDRESSES: &str = "(h): not measured, for no API server was built on this machine";

/// After so many failures in a row of the table a contestant is not tried again there.
const FAILURES: usize = 2;

/// A run under way.
pub(crate) struct Bench {
    options: Run,
    peers: Vec<Product>,
    report: Report,
}

impl Run {
    pub(crate) fn run(self) -> Result<()> {
        let peers = Product::select(&self.peers, self.newer.as_deref())?;
        let mut bench = Bench { options: self, peers, report: Report::default() };
        for letter in bench.options.rows.clone() {
            match letter {
                'a' => rows::announce::run(&mut bench)?,
                'b' => {
                    rows::change::run(&mut bench)?;
                    rows::pod_event::run(&mut bench)?;
                    #[cfg(feature = "kubernetes")]
                    rows::kubernetes::run(&mut bench)?;
                    #[cfg(not(feature = "kubernetes"))]
                    bench.report.note(NO_KUBERNETES.to_owned());
                }
                'c' => rows::take_in::run(&mut bench)?,
                'd' => rows::install::run(&mut bench)?,
                'e' => rows::idle::run(&mut bench)?,
                'f' => rows::silence::run(&mut bench)?,
                'g' => {}
                #[cfg(feature = "kubernetes")]
                'h' => rows::addresses::run(&mut bench)?,
                #[cfg(not(feature = "kubernetes"))]
                'h' => bench.report.note(NO_ADDRESSES.to_owned()),
                other => anyhow::bail!("there is no row {other}"),
            }
        }
        print!("{}", bench.report.text());
        let (met, of) = bench.report.met();
        println!("{met} of {of} goals met");
        if let Some(path) = &bench.options.write {
            std::fs::write(path, crate::page::page(&bench.report, &bench.peers)?)?;
        }
        Ok(())
    }
}

impl Bench {
    pub(crate) fn quick(&self) -> bool {
        self.options.quick
    }

    pub(crate) fn rounds(&self) -> usize {
        self.options.rounds.unwrap_or(if self.options.quick { 3 } else { 5 })
    }

    pub(crate) fn peers(&self) -> Vec<Product> {
        self.peers.clone()
    }

    pub(crate) fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Notes that a contestant gave no figure. The others go on.
    pub(crate) fn failed(&mut self, letter: char, title: &str, name: &str, error: &anyhow::Error) {
        let text = format!("({letter}) {title}: {name} gave no figure: {error:#}");
        eprintln!("bench: {text}");
        self.report.unfinished(letter, title, name);
        // One line: the rest is the router's log.
        self.report.note(text.lines().next().unwrap_or_default().to_owned());
    }

    /// Whether a contestant has failed so often that the rows would not end.
    pub(crate) fn gave_up(&self, letter: char, title: &str, name: &str) -> bool {
        self.report.failures(letter, title, name) >= FAILURES
    }
}
