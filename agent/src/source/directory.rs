//! The file source: YAML files and directories, watched.
//!
//! Owner of what was last accepted. Inputs: the file system. Outputs: complete sets of objects, and a [`Change::Health`]
//! while the files are wrong. What is wrong in any way (syntax, a rule, a file that is gone or was emptied) is refused
//! whole, and what was accepted before goes on to hold. Cancelling [`FileSource::run`] stops watching, nothing else.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use plainroute_config::{ConfigErrors, Input, Kind, Loaded, Object, load_inputs};
use tokio::task::spawn_blocking;

use super::{
    Change, Feed, Feeds, SourceName,
    watch::{Stamp, Watch},
};

/// The files of one agent.
pub struct FileSource {
    inputs: Vec<Input>,
    watch: Watch,
    seen: Sight,
    /// The sizes of the files as they were accepted.
    accepted: BTreeMap<PathBuf, u64>,
    running: Vec<Object>,
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
        let loaded = load_inputs(&inputs)?;
        let accepted = sizes(&seen);
        Ok((FileSource { inputs, watch, seen, accepted, running: objects(&loaded) }, loaded))
    }

    /// Sends what was loaded, then each valid change of the files, until nobody listens any more.
    pub async fn run(mut self, feeds: Feeds) {
        let mut change = Some(Ok(self.running.clone()));
        loop {
            if let Some(change) = change
                && !tell(&feeds, change).await
            {
                return;
            }
            tokio::select! {
                () = self.watch.changed() => {}
                () = feeds.closed() => return,
            }
            change = self.next().await;
        }
    }

    /// What the files say now: a new set, what is wrong, or `None` where nothing has changed.
    async fn next(&mut self) -> Option<Result<Vec<Object>, String>> {
        // A link may lead elsewhere now, a directory may be another one. Looking comes after, so nothing is missed.
        self.watch.follow(directories(&self.inputs));
        let seen = look(&self.inputs);
        if seen == self.seen {
            return None;
        }
        self.seen = seen;
        if let Some(emptied) = self.emptied() {
            let problem = format!("{}: is empty now", emptied.display());
            tracing::error!(%problem, "config refused; the running config stays");
            return Some(Err(problem));
        }
        let inputs = self.inputs.clone();
        let loaded = match spawn_blocking(move || load_inputs(&inputs)).await {
            Ok(loaded) => loaded,
            Err(error) => return Some(Err(format!("the loader failed: {error}"))),
        };
        match loaded {
            Ok(loaded) => {
                self.accepted = sizes(&self.seen);
                self.running = objects(&loaded);
                tracing::info!(objects = self.running.len(), "config accepted");
                Some(Ok(self.running.clone()))
            }
            Err(errors) => {
                tracing::error!("config refused; the running config stays\n{errors}");
                Some(Err(errors.summary()))
            }
        }
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

fn objects(loaded: &Loaded) -> Vec<Object> {
    loaded.objects.iter().map(|located| located.object.clone()).collect()
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
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Duration};

    use tempfile::TempDir;
    use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

    use super::*;

    struct Running {
        changes: mpsc::Receiver<Feed>,
        task: JoinHandle<()>,
    }

    impl Running {
        /// Starts a source over `path` and takes what it says first.
        async fn start(path: &Path) -> (Running, Vec<String>) {
            let (source, loaded) = FileSource::open(vec![Input::Path(path.to_owned())]).unwrap();
            let (feeds, changes) = mpsc::channel(16);
            let mut running = Running { changes, task: tokio::spawn(source.run(feeds)) };
            let first = running.accepted().await;
            assert_eq!(first.len(), loaded.objects.len());
            (running, first)
        }

        async fn next(&mut self) -> Change {
            let feed = timeout(Duration::from_secs(20), self.changes.recv()).await;
            let feed = feed.expect("a change within 20 s").expect("the source runs");
            assert_eq!(feed.source, SourceName::Files);
            feed.change
        }

        /// The next thing said must be a new set, and that all is well.
        async fn accepted(&mut self) -> Vec<String> {
            let Change::Replace { kinds, objects } = self.next().await else { panic!("a set") };
            assert_eq!(kinds, Kind::IN_FILES);
            let Change::Health { kind: None, problem: None } = self.next().await else { panic!("all well") };
            objects.iter().map(|object| object.key().to_string()).collect()
        }

        /// As [`accepted`](Self::accepted) after a write in place, which may be seen while the file is still empty.
        async fn accepted_in_place(&mut self) -> Vec<String> {
            loop {
                match self.next().await {
                    Change::Health { problem: Some(problem), .. } if problem.ends_with("is empty now") => {}
                    Change::Replace { objects, .. } => {
                        let Change::Health { problem: None, .. } = self.next().await else {
                            panic!("all well")
                        };
                        return objects.iter().map(|object| object.key().to_string()).collect();
                    }
                    other => panic!("a set, not {other:?}"),
                }
            }
        }

        /// The next thing said must be a problem.
        async fn refused(&mut self) -> String {
            match self.next().await {
                Change::Health { kind: None, problem: Some(problem) } => problem,
                other => panic!("a problem, not {other:?}"),
            }
        }
    }

    fn namespace(name: &str) -> String {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: {name} }}\n")
    }

    /// As careful writers do it: never half a file under the name.
    fn put(path: &Path, text: &str) {
        let beside = path.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }

    #[tokio::test]
    async fn a_valid_edit_replaces_the_set_however_it_is_written() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("a.yaml");
        fs::write(&file, namespace("a")).unwrap();
        let (mut running, first) = Running::start(&file).await;
        assert_eq!(first, ["Namespace/a"]);
        put(&file, &namespace("renamed"));
        assert_eq!(running.accepted().await, ["Namespace/renamed"]);
        fs::write(&file, namespace("in-place")).unwrap();
        assert_eq!(running.accepted_in_place().await, ["Namespace/in-place"]);
    }

    #[tokio::test]
    async fn an_invalid_edit_is_told_and_changes_nothing() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("a.yaml");
        fs::write(&file, namespace("a")).unwrap();
        let (mut running, _) = Running::start(&file).await;
        put(&file, &namespace("Wrong"));
        let problem = running.refused().await;
        assert!(problem.contains("a.yaml:3:19: metadata.name: `Wrong`"), "{problem}");
        put(&file, &namespace("right"));
        assert_eq!(running.accepted().await, ["Namespace/right"]);
    }

    #[tokio::test]
    async fn a_file_that_is_gone_or_empty_is_no_empty_config() {
        let dir = TempDir::new().unwrap();
        let sub = dir.path().join("sub");
        let file = sub.join("a.yaml");
        fs::create_dir(&sub).unwrap();
        fs::write(&file, namespace("a")).unwrap();
        let (mut running, _) = Running::start(&file).await;
        fs::remove_file(&file).unwrap();
        assert!(running.refused().await.contains("No such file"));
        put(&file, &namespace("b"));
        assert_eq!(running.accepted().await, ["Namespace/b"]);
        put(&file, "");
        assert!(running.refused().await.contains("is empty now"));
        put(&file, "# Nothing, on purpose.\n");
        assert!(running.accepted().await.is_empty());
        // The directory goes and comes back as another one under the same name.
        fs::rename(&sub, dir.path().join("old")).unwrap();
        assert!(running.refused().await.contains("No such file"));
        fs::create_dir(&sub).unwrap();
        put(&file, &namespace("c"));
        assert_eq!(running.accepted().await, ["Namespace/c"]);
        put(&file, &namespace("d"));
        assert_eq!(running.accepted().await, ["Namespace/d"]);
    }

    #[tokio::test]
    async fn files_come_and_go_in_a_directory() {
        let dir = TempDir::new().unwrap();
        put(&dir.path().join("a.yaml"), &namespace("a"));
        let (mut running, _) = Running::start(dir.path()).await;
        put(&dir.path().join("b.yaml"), &namespace("b"));
        assert_eq!(running.accepted().await, ["Namespace/a", "Namespace/b"]);
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(running.accepted().await, ["Namespace/b"]);
        fs::remove_file(dir.path().join("b.yaml")).unwrap();
        assert!(running.refused().await.contains("no *.yaml"), "the last file gone is a slip, not a wish");
    }

    #[tokio::test]
    async fn a_config_map_swap_is_one_change() {
        let dir = TempDir::new().unwrap();
        let version = |name: &str, text: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("a.yaml"), text).unwrap();
            symlink(name, dir.path().join("..data_tmp")).unwrap();
            fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        };
        version("..1", &namespace("one"));
        symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
        for watched in [dir.path().to_owned(), dir.path().join("a.yaml")] {
            let (mut running, _) = Running::start(&watched).await;
            let name = format!("..{}", watched.as_os_str().len());
            version(&name, &namespace("two"));
            assert_eq!(running.accepted().await, ["Namespace/two"]);
        }
    }

    #[tokio::test]
    async fn a_linked_file_is_followed() {
        let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let target = elsewhere.path().join("real.yaml");
        fs::write(&target, namespace("a")).unwrap();
        symlink(&target, dir.path().join("a.yaml")).unwrap();
        let (mut running, _) = Running::start(dir.path()).await;
        fs::write(&target, namespace("b")).unwrap();
        assert_eq!(running.accepted_in_place().await, ["Namespace/b"]);
    }

    #[tokio::test]
    async fn what_does_not_concern_the_files_is_not_told() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("a.yaml");
        put(&file, &namespace("a"));
        let (mut running, _) = Running::start(&file).await;
        fs::write(dir.path().join("other"), "x").unwrap();
        // Long enough for the writing above to be looked at by itself; what is said next must be about the file.
        let nothing = timeout(Duration::from_millis(300), running.changes.recv()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        put(&file, &namespace("b"));
        assert_eq!(running.accepted().await, ["Namespace/b"]);
    }

    #[tokio::test]
    async fn the_source_ends_when_nobody_listens() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("a.yaml");
        put(&file, &namespace("a"));
        let (running, _) = Running::start(&file).await;
        drop(running.changes);
        timeout(Duration::from_secs(20), running.task).await.expect("it ends").unwrap();
    }
}
