//! Tells when something may have changed in a few directories of the file system.
//!
//! inotify only says when to look again; what has changed is for the caller to find out. Where inotify cannot watch
//! (no more instances, a directory without rights), the caller is told to look every few seconds instead.
use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

/// Writers come in bursts: look when it has been quiet for so long,
const QUIET: Duration = Duration::from_millis(50);
/// but do not wait longer than this for quiet.
const LONGEST: Duration = Duration::from_secs(1);
/// How often to look where inotify cannot watch.
const BLIND: Duration = Duration::from_secs(5);

/// Watches directories, not recursively.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
    /// Whether some directory cannot be watched.
    blind: bool,
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> Watch {
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_reading(&event.kind)) {
                return;
            }
            wake.notify_one();
        });
        let watcher =
            watcher.inspect_err(|error| tracing::warn!(%error, "cannot watch files; polling them")).ok();
        Watch { watcher, watched: BTreeSet::new(), changed, blind: false }
    }

    /// Watches these directories and no others. For one that does not exist, its nearest ancestor is watched.
    pub(super) fn follow(&mut self, directories: impl IntoIterator<Item = PathBuf>) {
        let wanted: BTreeSet<PathBuf> = directories.into_iter().map(|path| existing(&path)).collect();
        self.blind = self.watcher.is_none();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&wanted) {
            // It fails where the directory itself is gone, and with it its watch.
            watcher.unwatch(gone).ok();
        }
        for directory in &wanted {
            // Also those watched before: the directory may be another one under the same name.
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                self.blind = true;
                if self.watched.contains(directory) {
                    continue;
                }
                tracing::warn!(directory = %directory.display(), %error, "cannot watch a directory; polling it");
            }
        }
        self.watched = wanted;
    }

    /// Waits until something may have changed, and then until writers are quiet. Cancel safe: a change that was seen
    /// before the cancellation is at worst told once more or found by the next one.
    pub(super) async fn changed(&self) {
        if self.blind {
            tokio::time::timeout(BLIND, self.changed.notified()).await.ok();
        } else {
            self.changed.notified().await;
        }
        let longest = Instant::now() + LONGEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(longest);
            if timeout_at(quiet, self.changed.notified()).await.is_err() {
                return;
            }
            if Instant::now() >= longest {
                return sleep_until(quiet).await;
            }
        }
    }
}

/// Our own reading makes events too; only the end of writing is news.
fn is_reading(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

/// The directory itself, or the nearest ancestor that exists.
fn existing(path: &Path) -> PathBuf {
    let directory = path.ancestors().find(|path| path.is_dir());
    match directory {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
        _ if path.is_absolute() => PathBuf::from("/"),
        _ => PathBuf::from("."),
    }
}

/// What tells two states of a file apart without reading it: device, inode, size, and its times to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    /// When its content changed, seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    pub(super) size: u64,
    changed: (i64, i64),
    identity: (u64, u64),
}

impl Stamp {
    /// Of the file that `path` leads to, through links.
    pub(super) fn of(path: &Path) -> std::io::Result<Stamp> {
        let metadata = std::fs::metadata(path)?;
        Ok(Stamp {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            identity: (metadata.dev(), metadata.ino()),
        })
    }
}
