//! Deletions that are not believed at once. An API server that was restored from a backup, a CustomResourceDefinition
//! deleted by mistake, a `kubectl delete --all` in the wrong cluster: each tells true deletions that nobody meant. Where
//! more objects vanish than usual, without a word before, they are kept and shown until a person confirms.
//!
//! Time goes in as values.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use plainroute_config::{Deletions, Kind, ObjectKey};
use serde::{Deserialize, Serialize};

/// How long a deletion of configuration waits for others, so that they are judged together.
const SETTLE: Duration = Duration::from_secs(2);

/// How many deletions of one kind are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many within the window always are.
    pub at_least: usize,
    /// And so many of a hundred that there are.
    pub percent: usize,
    /// The window.
    pub window: Duration,
}

impl From<Deletions> for Limits {
    fn from(deletions: Deletions) -> Limits {
        Limits {
            at_least: deletions.hold_above.get() as usize,
            percent: deletions.hold_above_percent.get().into(),
            window: Duration::from_secs(deletions.window_seconds.get().into()),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Deletions::default().into()
    }
}

/// A point in time, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For durations.
    pub instant: Instant,
    /// For people.
    pub timestamp: Timestamp,
}

impl Moment {
    /// The present one.
    pub fn now() -> Moment {
        Moment { instant: Instant::now(), timestamp: Timestamp::now() }
    }
}

/// Why a deletion is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HeldReason {
    /// More objects of the kind vanished at a time than is believed.
    TooMany,
    /// The API server knows less than it did: it was restored from a backup.
    Rewound,
    /// The API server does not know the kind any more.
    KindGone,
}

impl HeldReason {
    /// The reason as a sentence.
    pub const fn message(self) -> &'static str {
        match self {
            HeldReason::TooMany => "too many objects of this kind vanished at once",
            HeldReason::Rewound => "the API server went back to an older state (restored from a backup?)",
            HeldReason::KindGone => {
                "the API server does not know the kind any more (CustomResourceDefinition deleted?)"
            }
        }
    }
}

/// An object that the API server has no more, and that stays in force all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: HeldReason,
}

/// The deletions that are held, and those that wait to be judged.
#[derive(Debug)]
pub(super) struct Holds {
    limits: Limits,
    held: BTreeMap<ObjectKey, Held>,
    /// Deletions of configuration that wait for others, and until when.
    pending: BTreeMap<Kind, (Instant, Vec<ObjectKey>)>,
    /// When deletions were believed, by kind.
    believed: BTreeMap<Kind, Vec<Instant>>,
}

impl Holds {
    pub(super) fn new(limits: Limits) -> Holds {
        Holds { limits, held: BTreeMap::new(), pending: BTreeMap::new(), believed: BTreeMap::new() }
    }

    /// Whether `count` more deletions of the kind, of which `known` objects are there, are believed. Those that are count
    /// from now on.
    pub(super) fn believes(&mut self, kind: Kind, count: usize, known: usize, now: Moment) -> bool {
        let believed = self.believed.entry(kind).or_default();
        believed.retain(|at| now.instant.duration_since(*at) < self.limits.window);
        let before = known + believed.len();
        let most = self.limits.at_least.max(before * self.limits.percent / 100);
        if believed.len() + count > most {
            return false;
        }
        believed.extend(std::iter::repeat_n(now.instant, count));
        true
    }

    pub(super) fn hold(&mut self, key: ObjectKey, reason: HeldReason, now: Moment) {
        self.held.entry(key).or_insert(Held { since: now.timestamp, reason });
    }

    /// Puts a deletion off until others of its kind have had the time to come.
    pub(super) fn put_off(&mut self, key: ObjectKey, now: Moment) {
        let (_, keys) = self.pending.entry(key.kind).or_insert((now.instant + SETTLE, Vec::new()));
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// The deletions of one kind that have waited long enough.
    pub(super) fn poll_due(&mut self, now: Moment) -> Option<(Kind, Vec<ObjectKey>)> {
        let (kind, _) = self.pending.iter().find(|(_, (due, _))| *due <= now.instant)?;
        let kind = *kind;
        self.pending.remove(&kind).map(|(_, keys)| (kind, keys))
    }

    /// What was put off of a kind is not to be judged any more.
    pub(super) fn drop_pending(&mut self, kind: Kind) {
        self.pending.remove(&kind);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|(due, _)| *due).min()
    }

    /// The object is there again, or its deletion is believed now.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        self.held.remove(key);
        if let Some((_, keys)) = self.pending.get_mut(&key.kind) {
            keys.retain(|pending| pending != key);
        }
    }

    pub(super) fn held(&self) -> &BTreeMap<ObjectKey, Held> {
        &self.held
    }

    pub(super) fn restore(&mut self, held: BTreeMap<ObjectKey, Held>) {
        self.held = held;
    }
}
