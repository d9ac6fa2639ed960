//! The file source over real directories.
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
                    let Change::Health { problem: None, .. } = self.next().await else { panic!("all well") };
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
        let name = format!("v{}", watched.as_os_str().len());
        version(&format!("..{name}"), &namespace(&name));
        assert_eq!(running.accepted().await, [format!("Namespace/{name}")]);
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

/// A source over a directory with these files, which nobody runs: its steps are taken one by one.
fn still(files: &[(&str, String)]) -> (TempDir, FileSource) {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        put(&dir.path().join(name), text);
    }
    let (source, _) = FileSource::open(vec![Input::Path(dir.path().to_owned())]).unwrap();
    (dir, source)
}

fn names(change: Option<Result<Vec<Object>, String>>) -> Vec<String> {
    let objects = change.expect("a change").expect("a set");
    objects.iter().map(|object| object.key().to_string()).collect()
}

#[tokio::test]
async fn a_file_put_in_its_place_does_not_wait_for_another_that_is_half_written() {
    let (dir, mut source) = still(&[("a.yaml", [namespace("a"), namespace("b")].join("---\n"))]);
    let placed = dir.path().join("c.yaml");
    // Half of it is valid, but for what it does not say yet.
    fs::write(dir.path().join("a.yaml"), namespace("a")).unwrap();
    put(&placed, &namespace("c"));
    let set = names(source.take(&BTreeSet::from([placed])).await);
    assert_eq!(set, ["Namespace/a", "Namespace/b", "Namespace/c"]);
    // Once it is quiet, what stands in the files counts.
    assert_eq!(names(source.next().await), ["Namespace/a", "Namespace/c"]);
    assert!(source.next().await.is_none(), "everything was told");
}

#[tokio::test]
async fn a_file_that_was_taken_at_once_and_goes_at_once_is_gone() {
    let (dir, mut source) = still(&[("a.yaml", namespace("a"))]);
    let placed = dir.path().join("b.yaml");
    put(&placed, &namespace("b"));
    assert_eq!(names(source.take(&BTreeSet::from([placed.clone()])).await), ["Namespace/a", "Namespace/b"]);
    fs::remove_file(placed).unwrap();
    assert_eq!(names(source.next().await), ["Namespace/a"]);
}

#[tokio::test]
async fn what_moves_from_one_file_to_another_is_never_gone() {
    let (dir, mut source) = still(&[("a.yaml", namespace("moves")), ("b.yaml", namespace("b"))]);
    let (a, b) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    put(&a, &namespace("a"));
    assert!(source.take(&BTreeSet::from([a.clone()])).await.is_none(), "it would be gone");
    put(&b, &[namespace("b"), namespace("moves")].join("---\n"));
    let set = names(source.take(&BTreeSet::from([a, b])).await);
    assert_eq!(set, ["Namespace/a", "Namespace/b", "Namespace/moves"]);
    assert!(source.next().await.is_none(), "nothing else happened");
}

#[tokio::test]
async fn while_a_file_is_wrong_no_other_is_taken_alone() {
    let (dir, mut source) = still(&[("a.yaml", namespace("a"))]);
    let (a, b) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    put(&a, &namespace("Wrong"));
    assert!(source.take(&BTreeSet::from([a.clone()])).await.is_none(), "it is told once it is quiet");
    let problem = source.next().await.expect("a change").expect_err("a problem");
    assert!(problem.contains("a.yaml:3:19: metadata.name: `Wrong`"), "{problem}");
    put(&b, &namespace("b"));
    assert!(source.take(&BTreeSet::from([b.clone()])).await.is_none(), "the whole is wrong");
    let problem = source.next().await.expect("a change").expect_err("a problem");
    assert!(problem.contains("a.yaml:3:19"), "{problem}");
    put(&a, &namespace("right"));
    assert_eq!(names(source.next().await), ["Namespace/right", "Namespace/b"]);
    // The same name in two files is wrong for the two of them only.
    put(&b, &namespace("right"));
    assert!(source.take(&BTreeSet::from([b.clone()])).await.is_none(), "it is there twice");
    let problem = source.next().await.expect("a change").expect_err("a problem");
    assert!(problem.contains("b.yaml:3:19: metadata.name: Namespace/right is already at"), "{problem}");
}

#[tokio::test]
async fn of_a_burst_of_renames_nothing_is_lost() {
    const FILES: usize = 300;
    let dir = TempDir::new().unwrap();
    put(&dir.path().join("a.yaml"), &namespace("a"));
    let (mut running, mut known) = Running::start(dir.path()).await;
    let place = dir.path().to_owned();
    let burst = tokio::task::spawn_blocking(move || {
        (0..FILES).for_each(|n| put(&place.join(format!("n{n}.yaml")), &namespace(&format!("n{n}"))));
    });
    while known.len() < FILES + 1 {
        let next = running.accepted().await;
        assert!(known.iter().all(|name| next.contains(name)), "{known:?} became {next:?}");
        known = next;
    }
    burst.await.unwrap();
}
