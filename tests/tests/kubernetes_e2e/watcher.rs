//! Looks at the ToR's table all the time, as an impatient user would, and remembers each state that it saw.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use plainroute_tests::routers::{Bird, Family, Router, Table};

const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Watcher {
    /// Dropping it ends the watch.
    watching: Sender<()>,
    thread: JoinHandle<Result<Seen>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How often it looked.
    pub(crate) looks: usize,
    /// The tables, each that differs from the one before.
    pub(crate) tables: Vec<Table>,
}

impl Watcher {
    pub(crate) fn start(tor: &Arc<Bird>) -> Watcher {
        let (watching, watched) = mpsc::channel();
        let tor = Arc::clone(tor);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while let Err(RecvTimeoutError::Timeout) = watched.recv_timeout(PAUSE) {
                let table = tor.learned(Family::V4)?;
                seen.looks += 1;
                if seen.tables.last() != Some(&table) {
                    seen.tables.push(table);
                }
            }
            Ok(seen)
        });
        Watcher { watching, thread }
    }

    pub(crate) fn finish(self) -> Result<Seen> {
        drop(self.watching);
        self.thread.join().map_err(|_| anyhow!("the watcher panicked"))?
    }
}
