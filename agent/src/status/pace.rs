//! When to write, without I/O: time and chance go in as values. Thousands of nodes write to one API server, so what
//! changes often is gathered, what matters goes at once, and a storm is cut off.
use std::time::{Duration, Instant};

use plainroute_config::{ConditionStatus, NodeStateStatus};

/// The time between two writes, unless something matters more.
const CHANGE: Duration = Duration::from_secs(5);
/// The same where only numbers have changed.
const COUNTS: Duration = Duration::from_secs(10);
/// By how much writes are put off at random, so that nodes that see one cause do not write in one moment.
const SPREAD: Duration = Duration::from_secs(2);
/// So many writes may go at once, and one more in each [`CHANGE`].
const AT_ONCE: u32 = 3;

/// How much a change matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// It is none.
    Nothing,
    /// Only numbers are others.
    Counts,
    /// Something is said in other words, or there is more or less to say.
    Change,
    /// A session came or went, or what holds for the node is another.
    Transition,
}

/// How much the second status differs from the first.
pub(super) fn weight(written: &NodeStateStatus, next: &NodeStateStatus) -> Weight {
    fn sessions(status: &NodeStateStatus) -> Vec<(&str, bool)> {
        let session = |session: &'_ plainroute_config::SessionState| session.state == "Established";
        status.sessions.iter().map(|of| (of.peer.as_str(), session(of))).collect()
    }
    fn conditions(status: &NodeStateStatus) -> Vec<(&str, ConditionStatus)> {
        status.conditions.iter().map(|condition| (condition.r#type.as_str(), condition.status)).collect()
    }
    fn without_counts(status: &NodeStateStatus) -> NodeStateStatus {
        let mut status = status.clone();
        status.advertised = Default::default();
        for session in &mut status.sessions {
            (session.prefixes_received, session.prefixes_sent) = (0, 0);
        }
        status
    }
    if written == next {
        return Weight::Nothing;
    }
    let apart = |status: &NodeStateStatus| (status.drain, status.held > 0, status.snapshot_time.is_some());
    if sessions(written) != sessions(next)
        || conditions(written) != conditions(next)
        || apart(written) != apart(next)
    {
        return Weight::Transition;
    }
    if without_counts(written) == without_counts(next) { Weight::Counts } else { Weight::Change }
}

/// So many at once, and one more in each interval.
#[derive(Debug)]
pub(super) struct Bucket {
    capacity: u32,
    tokens: u32,
    every: Duration,
    /// Since when the next token fills.
    since: Instant,
}

impl Bucket {
    pub(super) fn new(capacity: u32, every: Duration, now: Instant) -> Bucket {
        Bucket { capacity, tokens: capacity, every, since: now }
    }

    fn fill(&mut self, now: Instant) {
        while self.tokens < self.capacity && now >= self.since + self.every {
            self.tokens += 1;
            self.since += self.every;
        }
        if self.tokens == self.capacity {
            self.since = now;
        }
    }

    fn has(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens > 0
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let is_there = self.has(now);
        self.tokens = self.tokens.saturating_sub(1);
        is_there
    }

    /// When there is one.
    pub(super) fn poll_timeout(&self) -> Instant {
        if self.tokens > 0 { self.since } else { self.since + self.every }
    }
}

/// When the NodeState is written next.
#[derive(Debug)]
pub(super) struct Pace {
    last: Option<Instant>,
    /// What every write takes from, and a transition waits for no longer than that.
    writes: Bucket,
    due: Option<(Weight, Instant)>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { last: None, writes: Bucket::new(AT_ONCE, CHANGE, now), due: None }
    }

    /// What there is to write now weighs so much. `chance`: from 0 to 1.
    pub(super) fn handle(&mut self, weight: Weight, now: Instant, chance: f64) {
        if self.due.is_some_and(|(due, _)| due >= weight && weight != Weight::Nothing) {
            return;
        }
        let spread = SPREAD.mul_f64(chance);
        let after = |pause| self.last.map_or(now, |last| now.max(last + pause)) + spread;
        self.due = match weight {
            Weight::Nothing => None,
            Weight::Counts => Some((weight, after(COUNTS))),
            Weight::Change => Some((weight, after(CHANGE))),
            Weight::Transition if self.writes.has(now) => Some((weight, now)),
            // Its turn comes with that of any other change.
            Weight::Transition => Some((weight, after(CHANGE))),
        };
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|(_, due)| due <= now)
    }

    pub(super) fn handle_written(&mut self, now: Instant) {
        self.writes.take(now);
        self.last = Some(now);
        self.due = None;
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.map(|(_, due)| due)
    }
}
