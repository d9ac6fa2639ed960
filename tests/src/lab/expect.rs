//! `expect.yaml`: what must be true of a lab, as steps in order. Each step may do something and then says what holds.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// The steps, in order. A later step finds the lab as the earlier left it.
    pub steps: Vec<Step>,
}

/// One step: a claim, and how it is shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// What is claimed, as a sentence.
    pub claim: String,
    /// For the reader of the demo: what to look at and why it matters.
    #[serde(default)]
    pub tell: String,
    /// What is done first.
    #[serde(default, rename = "do")]
    pub actions: Vec<Action>,
    /// Packets that go to and fro from before the actions until the end of the step.
    #[serde(default)]
    pub probe: Vec<Probe>,
    /// What must then hold, each within the deadline.
    #[serde(default)]
    pub expect: Vec<Expect>,
    /// The deadline of the expectations, counted from the end of the actions.
    #[serde(default = "ten_seconds")]
    within_milliseconds: u64,
    /// For how long all of them must go on to hold, once they did.
    #[serde(default)]
    stays_milliseconds: u64,
    /// Names a time that is worth a line in the table of figures: from the end of the actions until...
    pub figure: Option<String>,
    /// ... the first or the last expectation held.
    #[serde(default)]
    pub until: Until,
    /// Commands whose output the demo shows.
    #[serde(default)]
    pub show: Vec<Line>,
}

/// Where a figure ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Until {
    /// When the first expectation of the list held.
    First,
    /// When all did.
    #[default]
    Last,
}

/// A shell line on a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The node.
    pub node: String,
    /// The line.
    pub run: String,
}

/// What a step does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// Runs a shell line, which must succeed.
    Run(Line),
    /// Signals a node's command (the agent, the router) and waits for its end.
    Kill {
        /// The node.
        node: String,
        /// `KILL`, `TERM`, ...
        signal: String,
    },
    /// Starts a node's command again.
    Start {
        /// The node.
        node: String,
    },
    /// Takes a manifest away.
    Remove {
        /// Its name in `manifests/`.
        manifest: String,
    },
    /// Brings it back.
    Restore {
        /// Its name in `manifests/`.
        manifest: String,
    },
    /// Writes a manifest.
    Write {
        /// Its name in `manifests/`.
        manifest: String,
        /// What it says.
        content: String,
    },
    /// Cuts a link.
    LinkDown {
        /// The node at whose end it is cut.
        node: String,
        /// The interface.
        interface: String,
    },
    /// Mends it.
    LinkUp {
        /// The node.
        node: String,
        /// The interface.
        interface: String,
    },
}

/// Numbered packets from one node to an address of another, each answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Probe {
    /// Who sends.
    pub from: String,
    /// Who answers.
    pub at: String,
    /// The address sent to.
    pub to: IpAddr,
    /// How many may be lost.
    pub lost_at_most: Option<u64>,
    /// How many must be lost: the negative control, which shows that the probe would notice.
    pub lost_at_least: Option<u64>,
}

/// What must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Expect {
    /// A router's session is Established, or in another state.
    Bgp {
        /// The router.
        node: String,
        /// Its neighbour.
        neighbor: IpAddr,
        /// The state, in lower case.
        #[serde(default = "established")]
        state: String,
    },
    /// A router has learned a prefix with exactly these next hops.
    Route {
        /// The router.
        node: String,
        /// The prefix.
        prefix: String,
        /// The next hops, in any order.
        via: BTreeSet<IpAddr>,
    },
    /// A router has not learned a prefix.
    NoRoute {
        /// The router.
        node: String,
        /// The prefix.
        prefix: String,
    },
    /// The kernel of a node has a route of exactly this prefix.
    Kernel {
        /// The node.
        node: String,
        /// The prefix.
        prefix: String,
        /// The outgoing interfaces, in any order.
        by: Option<BTreeSet<String>>,
        /// The next hops, in any order.
        via: Option<BTreeSet<IpAddr>>,
        /// The route protocol's number.
        protocol: Option<u8>,
    },
    /// The kernel of a node has no route of exactly this prefix.
    NoKernel {
        /// The node.
        node: String,
        /// The prefix.
        prefix: String,
    },
    /// A ping is answered.
    Ping {
        /// Who asks.
        from: String,
        /// Whom.
        to: IpAddr,
    },
    /// A ping is not answered.
    NoPing {
        /// Who asks.
        from: String,
        /// Whom.
        to: IpAddr,
    },
    /// The source address that the other end of a TCP connection sees.
    Source {
        /// Who connects.
        from: String,
        /// To whom.
        at: String,
        /// By which address.
        to: IpAddr,
        /// The address seen.
        is: IpAddr,
    },
    /// What a command says.
    Output {
        /// The node.
        node: String,
        /// The shell line.
        run: String,
        /// What the output must have.
        #[serde(default)]
        contains: Vec<String>,
        /// What it must not have.
        #[serde(default)]
        lacks: Vec<String>,
        /// The exit code.
        #[serde(default)]
        exit: i32,
    },
}

impl Step {
    /// How long the expectations may take.
    pub fn within(&self) -> Duration {
        Duration::from_millis(self.within_milliseconds)
    }

    /// How long they must then go on to hold.
    pub fn stays(&self) -> Duration {
        Duration::from_millis(self.stays_milliseconds)
    }
}

impl Expectations {
    /// Reads a lab's `expect.yaml`.
    pub fn read(dir: &Path) -> Result<Expectations> {
        let path = dir.join("expect.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Expectations> {
        let expectations: Expectations =
            serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
        ensure!(!expectations.steps.is_empty(), "no steps: nothing would be checked");
        for step in &expectations.steps {
            ensure!(
                !step.expect.is_empty() || !step.probe.is_empty(),
                "step `{}` checks nothing",
                step.claim
            );
            for probe in &step.probe {
                ensure!(
                    probe.lost_at_most.is_some() || probe.lost_at_least.is_some(),
                    "step `{}`: a probe needs lostAtMost or lostAtLeast",
                    step.claim
                );
            }
        }
        Ok(expectations)
    }
}

fn established() -> String {
    "established".to_owned()
}

fn ten_seconds() -> u64 {
    10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_what_is_done_and_what_holds() {
        let text = "
steps:
  - claim: a removed Pod is gone
    do:
      - remove: { manifest: pod.yaml }
      - kill: { node: a, signal: KILL }
    probe:
      - { from: db, at: pod, to: 10.0.0.1, lostAtMost: 0 }
    expect:
      - noRoute: { node: tor, prefix: 10.0.0.1/32 }
      - bgp: { node: tor, neighbor: fd00::1 }
    withinMilliseconds: 1000
";
        let step = &Expectations::parse(text).unwrap().steps[0];
        assert_eq!(step.within(), Duration::from_secs(1));
        assert!(matches!(&step.expect[1], Expect::Bgp { state, .. } if state == "established"));
        assert!(matches!(&step.actions[0], Action::Remove { manifest } if manifest == "pod.yaml"));
    }

    #[test]
    fn a_step_that_cannot_fail_is_refused() {
        for (text, expected) in [
            ("steps: []", "no steps"),
            ("steps: [{ claim: x }]", "checks nothing"),
            ("steps: [{ claim: x, probe: [{ from: a, at: b, to: 10.0.0.1 }] }]", "lostAtMost"),
            ("steps: [{ claim: x, expect: [{ png: { from: a, to: 10.0.0.1 } }] }]", "png"),
            ("steps: [{ claim: x, expects: [] }]", "expects"),
        ] {
            let error = format!("{:#}", Expectations::parse(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
