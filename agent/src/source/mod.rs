//! Where objects come from. Each source is a task that sends [`Change`]s into one bounded channel; the index
//! merges them. A source never guesses: until it has seen a complete set it sends nothing that counts as in sync,
//! and an error is told as a [`Change::Health`], never as a deletion.
use std::{collections::BTreeMap, fmt};

use plainroute_config::{Kind, Object, ObjectKey};
use tokio::sync::mpsc;

pub mod cni_cache;
pub mod directory;
pub mod kubernetes;
pub mod secrets;
mod watch;

pub use cni_cache::HostLink;

/// A source by name. Files win over the API server where both know a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceName {
    /// YAML files and directories.
    Files,
    /// The API server.
    Kubernetes,
    /// The result cache that libcni leaves on the node.
    CniCache,
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceName::Files => "Files",
            SourceName::Kubernetes => "Kubernetes",
            SourceName::CniCache => "CniCache",
        })
    }
}

/// What a source tells the index.
#[derive(Clone, Debug)]
pub enum Change {
    /// The complete set of objects of `kinds`: what is missing was deleted. Marks these kinds as in sync.
    Replace {
        /// The kinds of which `objects` is all there is.
        kinds: Vec<Kind>,
        /// All objects of these kinds.
        objects: Vec<Object>,
    },
    /// The complete set of one kind, from a source that was put back to an older state: what is missing was lost rather
    /// than deleted.
    Rewound {
        /// The kind of which `objects` is all there is.
        kind: Kind,
        /// All objects of this kind.
        objects: Vec<Object>,
    },
    /// One object is new or has changed.
    Apply(Box<Object>),
    /// One object was positively deleted.
    Delete(ObjectKey),
    /// The source has no such kind; nothing of it was deleted.
    NoSuchKind(Kind),
    /// All objects of one kind that are there and that cannot be read. What was known of them stays.
    Refused {
        /// The kind.
        kind: Kind,
        /// Each of them, and what is wrong with it.
        objects: BTreeMap<ObjectKey, String>,
    },
    /// The complete set of delivery records of the node.
    HostLinks(Vec<HostLink>),
    /// How the source is. Changes nothing in the index.
    Health {
        /// The kind that this is about; `None` for the source as a whole.
        kind: Option<Kind>,
        /// What is wrong, in one line that names file or server; `None` when all is well (again).
        problem: Option<String>,
    },
}

/// A change with the source that it comes from.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Who says so.
    pub source: SourceName,
    /// What is said.
    pub change: Change,
}

/// The way from the sources to the index; bounded, so that a burst waits at its source.
pub type Feeds = mpsc::Sender<Feed>;
