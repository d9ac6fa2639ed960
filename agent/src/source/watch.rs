//! Tells when something may have changed in a few directories of the file system.
//!
//! inotify only says when to look again; what has changed is for the caller to find out. Where inotify cannot watch
//! (no more instances, a directory without rights), the caller is told to look every few seconds instead.
use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
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
    noting: watch::Sender<Noted>,
    noted: watch::Receiver<Noted>,
    /// Since when there is something to look at that has not been followed by quiet.
    unsettled: Option<Instant>,
    /// Whether some directory cannot be watched.
    blind: bool,
}

/// What the events have said so far.
#[derive(Debug)]
struct Noted {
    latest: Instant,
    /// Files that were renamed into their place since they were last asked for, and not touched after that.
    placed: BTreeSet<PathBuf>,
}

/// When to look.
#[derive(Debug)]
pub(super) enum Sign {
    /// These files were renamed into their place, each whole. Of the others nothing is known: somebody may be writing.
    Placed(BTreeSet<PathBuf>),
    /// Something has happened, and then it was quiet.
    Quiet,
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> Watch {
        let (noting, noted) = watch::channel(Noted { latest: Instant::now(), placed: BTreeSet::new() });
        let events = noting.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(|event| is_reading(&event.kind)) {
                return;
            }
            events.send_modify(|noted| noted.take(event.ok()));
        });
        let watcher =
            watcher.inspect_err(|error| tracing::warn!(%error, "cannot watch files; polling them")).ok();
        Watch { watcher, watched: BTreeSet::new(), noting, noted, unsettled: None, blind: false }
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
    /// before the cancellation is told by the next one.
    pub(super) async fn changed(&mut self) {
        while let Sign::Placed(_) = self.next().await {}
    }

    /// Waits for the next sign. [`Sign::Quiet`] follows whatever happened; files that were put in their place are told
    /// before it. Cancel safe.
    pub(super) async fn next(&mut self) -> Sign {
        loop {
            let noted = match self.unsettled {
                None if self.blind => timeout(BLIND, self.noted.changed()).await.is_ok(),
                // We hold a sender, so there is no end.
                None => self.noted.changed().await.is_ok(),
                Some(since) => {
                    let quiet = (self.noted.borrow().latest + QUIET).min(since + LONGEST);
                    Instant::now() < quiet && timeout_at(quiet, self.noted.changed()).await.is_ok()
                }
            };
            if !noted {
                self.unsettled = None;
                return Sign::Quiet;
            }
            self.unsettled.get_or_insert_with(Instant::now);
            let mut placed = BTreeSet::new();
            self.noting.send_if_modified(|noted| {
                placed = std::mem::take(&mut noted.placed);
                false
            });
            if !placed.is_empty() {
                return Sign::Placed(placed);
            }
        }
    }
}

impl Noted {
    /// Takes an event, or that some were lost.
    fn take(&mut self, event: Option<Event>) {
        self.latest = Instant::now();
        let Some(event) = event else { return self.placed.clear() };
        match event.kind {
            // A link leads to what others write, and is one of several steps where a ConfigMap is mounted.
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.placed.extend(event.paths.into_iter().filter(|path| !path.is_symlink()));
            }
            // Said before, by its two halves.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {}
            _ => self.placed.retain(|path| !event.paths.contains(path)),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use notify::event::{CreateKind, DataChange};
    use tempfile::TempDir;

    use super::*;

    fn placed_after(events: &[(EventKind, &str)]) -> Vec<String> {
        let mut noted = Noted { latest: Instant::now(), placed: BTreeSet::new() };
        for (kind, path) in events {
            noted.take(Some(Event::new(*kind).add_path(PathBuf::from(path))));
        }
        noted.placed.iter().map(|path| path.display().to_string()).collect()
    }

    #[tokio::test]
    async fn only_what_was_put_in_its_place_and_left_alone_is_whole() {
        let to = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let both = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let created = EventKind::Create(CreateKind::File);
        assert_eq!(placed_after(&[(written, "/new"), (closed, "/new"), (to, "/a"), (both, "/a")]), ["/a"]);
        assert!(placed_after(&[(created, "/a"), (written, "/a"), (closed, "/a")]).is_empty());
        assert!(placed_after(&[(to, "/a"), (written, "/a"), (closed, "/a")]).is_empty());
        assert_eq!(placed_after(&[(to, "/a"), (written, "/b"), (closed, "/b")]), ["/a"]);
    }

    #[tokio::test]
    async fn a_rename_is_told_before_it_is_quiet_and_quiet_follows() {
        let dir = TempDir::new().unwrap();
        let mut watch = Watch::new();
        watch.follow([dir.path().to_owned()]);
        let (beside, file) = (dir.path().join("beside"), dir.path().join("file"));
        fs::write(&beside, "x").unwrap();
        fs::rename(&beside, &file).unwrap();
        let mut signs = Vec::new();
        // On a slow machine quiet may come between the two, too.
        while !matches!(signs.as_slice(), [.., Sign::Placed(_), Sign::Quiet]) {
            signs.push(timeout(Duration::from_secs(20), watch.next()).await.expect("a sign"));
        }
        let Some(Sign::Placed(placed)) = signs.iter().rev().nth(1) else { panic!("{signs:?}") };
        assert_eq!(*placed, BTreeSet::from([file.clone()]));
        fs::write(&file, "in place").unwrap();
        let next = timeout(Duration::from_secs(20), watch.next()).await.expect("a sign");
        assert!(matches!(next, Sign::Quiet), "{next:?}");
    }
}
