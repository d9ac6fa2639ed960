//! The file source: YAML files and directories, watched.
//!
//! Owner of what was last accepted. Inputs: the file system. Outputs: complete sets of objects, and a [`Change::Health`]
//! while the files are wrong. What is wrong in any way (syntax, a rule, a file that is gone or was emptied) is refused
//! whole, and what was accepted before goes on to hold. A file that is renamed into its place is whole and is taken at
//! once; all else, a file written in place, a link, whatever takes objects away, is looked at when it is quiet.
//! Only files that have changed are read. Cancelling [`FileSource::run`] stops watching, nothing else.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use plainroute_config::{ConfigErrors, Input, Kind, Loaded, Object, Reloader};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    Change, Feed, Feeds, SourceName,
    watch::{Sign, Stamp, Watch},
};

/// The files of one agent.
pub struct FileSource {
    watch: Watch,
    seen: Sight,
    /// Files were taken since, which is not in `seen`.
    ahead: bool,
    /// The sizes of the files as they were accepted.
    accepted: BTreeMap<PathBuf, u64>,
    /// What was accepted.
    files: Reloader<Stamp>,
    /// The files were wrong when they were last looked at.
    refused: bool,
}

/// The state of every file that is read, found without reading; `None` where it cannot be found.
type Sight = BTreeMap<PathBuf, Option<Stamp>>;

impl FileSource {
    /// Loads the files for the first time, and watches them from just before that.
    ///
    /// # Errors
    /// All that is wrong with the files. Without a first config nothing can run.
    pub fn open(inputs: Vec<Input>) -> Result<(FileSource, Loaded), ConfigErrors> {
        let mut watch = Watch::new();
        watch.follow(directories(&inputs));
        let seen = look(&inputs);
        let (files, loaded) = Reloader::open(inputs, &seen)?;
        let accepted = sizes(&seen);
        Ok((FileSource { watch, seen, ahead: false, accepted, files, refused: false }, loaded))
    }

    /// Sends what was loaded, then each valid change of the files, until nobody listens any more.
    pub async fn run(mut self, feeds: Feeds) {
        let mut change = Some(Ok(self.objects()));
        let mut rested = Instant::now();
        loop {
            if let Some(change) = change
                && !tell(&feeds, change).await
            {
                return;
            }
            // A burst of files takes one core for half of the time at most.
            if timeout_at(rested, feeds.closed()).await.is_ok() {
                return;
            }
            let sign = tokio::select! {
                sign = self.watch.next() => sign,
                () = feeds.closed() => return,
            };
            change = match sign {
                Sign::Quiet => self.next().await,
                Sign::Placed(places) => {
                    let began = Instant::now();
                    let change = self.take(&places).await;
                    rested = Instant::now() + began.elapsed();
                    change
                }
            };
        }
    }

    /// Takes files that were put whole in their place, at once. `None` where that waits for quiet: because something is
    /// wrong, here or elsewhere, or an object would be gone, which may be on its way to another file.
    async fn take(&mut self, places: &BTreeSet<PathBuf>) -> Option<Result<Vec<Object>, String>> {
        let named = |place: &PathBuf| self.files.inputs().iter().find_map(|input| input.file_at(place));
        let placed: BTreeSet<PathBuf> = places.iter().filter_map(named).collect();
        if self.refused || placed.is_empty() {
            return None;
        }
        let mut files = self.files.clone();
        let (files, changed) = spawn_blocking(move || {
            let changed = files.take(&placed);
            (files, changed)
        })
        .await
        .ok()?;
        if changed != Some(true) {
            return None;
        }
        self.files = files;
        self.ahead = true;
        tracing::info!(objects = self.files.objects().count(), "config accepted");
        Some(Ok(self.objects()))
    }

    /// What the files say now: a new set, what is wrong, or `None` where nothing has changed.
    async fn next(&mut self) -> Option<Result<Vec<Object>, String>> {
        // A link may lead elsewhere now, a directory may be another one. Looking comes after, so nothing is missed.
        self.watch.follow(directories(self.files.inputs()));
        let seen = look(self.files.inputs());
        if seen == self.seen && !self.ahead {
            return None;
        }
        self.seen = seen;
        self.ahead = false;
        if let Some(emptied) = self.emptied() {
            let problem = format!("{}: is empty now", emptied.display());
            tracing::error!(%problem, "config refused; the running config stays");
            self.refused = true;
            return Some(Err(problem));
        }
        let (mut files, seen) = (self.files.clone(), self.seen.clone());
        let reloaded = spawn_blocking(move || files.reload(&seen).map(|changed| (files, changed))).await;
        let (files, changed) = match reloaded {
            Ok(Ok(reloaded)) => reloaded,
            Ok(Err(errors)) => {
                tracing::error!("config refused; the running config stays\n{errors}");
                self.refused = true;
                return Some(Err(errors.summary()));
            }
            Err(error) => return Some(Err(format!("the loader failed: {error}"))),
        };
        self.accepted = sizes(&self.seen);
        self.files = files;
        let was_refused = std::mem::take(&mut self.refused);
        if !changed && !was_refused {
            return None;
        }
        tracing::info!(objects = self.files.objects().count(), "config accepted");
        Some(Ok(self.objects()))
    }

    fn objects(&self) -> Vec<Object> {
        self.files.objects().cloned().collect()
    }

    /// A file that had something in it and has nothing now. It is valid YAML, but more likely a writer is between
    /// truncating and writing; a file that is to say nothing can say so in a comment.
    fn emptied(&self) -> Option<&Path> {
        let empty =
            |path: &&PathBuf| self.seen.get(*path).is_some_and(|stamp| stamp.is_some_and(|s| s.size == 0));
        self.accepted
            .iter()
            .filter(|(_, size)| **size > 0)
            .map(|(path, _)| path)
            .find(empty)
            .map(PathBuf::as_path)
    }
}

/// False where nobody listens any more.
async fn tell(feeds: &Feeds, change: Result<Vec<Object>, String>) -> bool {
    let mut changes = Vec::new();
    let problem = match change {
        Ok(objects) => {
            changes.push(Change::Replace { kinds: Kind::IN_FILES.to_vec(), objects });
            None
        }
        Err(problem) => Some(problem),
    };
    changes.push(Change::Health { kind: None, problem });
    for change in changes {
        if feeds.send(Feed { source: SourceName::Files, change }).await.is_err() {
            return false;
        }
    }
    true
}

fn look(inputs: &[Input]) -> Sight {
    let mut sight = Sight::new();
    for input in inputs {
        match input.files() {
            Ok(files) => sight.extend(files.into_iter().map(|file| (file.clone(), Stamp::of(&file).ok()))),
            Err(_) => sight.extend(path(input).map(|path| (path.to_owned(), None))),
        }
    }
    sight
}

fn sizes(sight: &Sight) -> BTreeMap<PathBuf, u64> {
    sight.iter().filter_map(|(path, stamp)| Some((path.clone(), (*stamp)?.size))).collect()
}

/// The directories where a change of the files shows: those of the files, and those that their links lead to. A file
/// is never watched itself, because editors and ConfigMap mounts put another one in its place.
fn directories(inputs: &[Input]) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for input in inputs {
        let Some(path) = path(input) else { continue };
        directories.insert(parent(path));
        let files = input.files().unwrap_or_default();
        for file in &files {
            directories.insert(parent(file));
            directories.extend(file.canonicalize().ok().map(|real| parent(&real)));
        }
        if path.is_dir() {
            directories.insert(path.to_owned());
        }
    }
    directories
}

fn path(input: &Input) -> Option<&Path> {
    match input {
        Input::Path(path) => Some(path),
        Input::Stdin(_) => None,
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

#[cfg(test)]
mod tests;
