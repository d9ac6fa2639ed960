use std::{
    fs,
    time::{Duration, SystemTime},
};

use plainroute_config::{Kind, Metadata, Node, Object, Pod};
use proptest::prelude::*;

use super::*;
use crate::index::{Held, HeldReason};

fn kept() -> Kept {
    let mut metadata = Metadata::named("app-1");
    metadata.uid = Some("u-1".to_owned());
    let pod = Pod { metadata, pod_ips: vec!["10.20.0.5".parse().unwrap()], ..Pod::default() };
    let pool = r#"{"apiVersion":"plainroute.dev/v1alpha1","kind":"IPPool","metadata":{"name":"erp"},
        "spec":{"ipRanges":[{"cidr":"10.20.0.0/24"}]}}"#;
    let objects = [
        Object::from(pod),
        Node { metadata: Metadata::named("node-a"), ..Node::default() }.into(),
        Object::from_json(Kind::IpPool, pool).unwrap(),
    ];
    let since = "2026-11-22T12:00:00Z".parse().unwrap();
    let held = [(objects[0].key(), Held { since, reason: HeldReason::Rewound })].into();
    let kinds = [Kind::Pod, Kind::Node, Kind::IpPool].into();
    Kept { confirmed: since, kinds, objects: objects.into_iter().map(Arc::new).collect(), held }
}

fn marks() -> Marks {
    [(Kind::Pod, 7), (Kind::IpPool, u64::MAX)].into()
}

fn written() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = directory.path().join("state");
    file::write(&state_dir, "node-a", &kept(), &marks(), kept().confirmed).unwrap();
    (directory, state_dir)
}

#[test]
fn it_reads_what_it_wrote_and_says_of_when_that_is() {
    let (_directory, state_dir) = written();
    fs::File::options()
        .append(true)
        .open(state_dir.join(FILE))
        .unwrap()
        .set_modified(SystemTime::from(kept().confirmed))
        .unwrap();
    assert_eq!(load(&state_dir, "node-a").unwrap(), Some((kept(), marks())));
    let later = kept().confirmed + Duration::from_secs(60);
    file::renew(&state_dir, later).unwrap();
    let (renewed, _) = load(&state_dir, "node-a").unwrap().expect("a file");
    assert_eq!(renewed, Kept { confirmed: later, ..kept() });
}

#[test]
fn no_file_is_no_error_and_one_of_another_node_is() {
    let (directory, state_dir) = written();
    assert!(load(directory.path(), "node-a").unwrap().is_none());
    file::renew(directory.path(), kept().confirmed).unwrap();
    assert!(!directory.path().join(FILE).exists(), "there was nothing to renew");
    let error = load(&state_dir, "node-b").unwrap_err();
    assert_eq!(error.to_string(), "it was written for node node-a");
}

#[test]
fn a_new_file_that_was_not_finished_leaves_the_old_one() {
    let (_directory, state_dir) = written();
    fs::write(state_dir.join(format!("{FILE}.new")), b"half a hea").unwrap();
    assert!(load(&state_dir, "node-a").unwrap().is_some());
}

#[test]
fn one_cut_anywhere_is_refused_with_the_place() {
    let (_directory, state_dir) = written();
    let path = state_dir.join(FILE);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = load(&state_dir, "node-a").unwrap_err().to_string();
        let line = 1 + whole[..length].iter().filter(|byte| **byte == b'\n').count();
        assert!(error.starts_with(&format!("line {line}: ")), "cut at {length}: {error}");
    }
}

#[test]
fn a_form_of_a_later_version_is_refused_by_name() {
    let (_directory, state_dir) = written();
    let path = state_dir.join(FILE);
    let text = fs::read_to_string(&path).unwrap().replacen(r#""format":1"#, r#""format":2"#, 1);
    fs::write(&path, text).unwrap();
    assert_eq!(load(&state_dir, "node-a").unwrap_err().to_string(), "line 1: format 2 is not known");
}

proptest! {
    #[test]
    fn a_changed_octet_is_never_taken(place in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let (_directory, state_dir) = written();
        let path = state_dir.join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= change;
        fs::write(&path, &bytes).unwrap();
        // The digest is written in hexadecimal digits of one case, so even there each octet counts.
        prop_assert!(load(&state_dir, "node-a").is_err(), "octet {}", place);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_written_after_a_change_renewed_while_the_server_is_heard_and_left_alone_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let (told, told_in) = watch::channel(Told::default());
    let (_marks, marks_in) = watch::channel(marks());
    let path = directory.path().to_owned();
    let keeping = tokio::spawn(keep(path, "node-a".to_owned(), told_in, marks_in));
    let loaded = || load(directory.path(), "node-a").unwrap().map(|(kept, _)| kept);
    tokio::time::sleep(RENEW * 2).await;
    assert_eq!(loaded(), None, "nothing was told");

    told.send_replace(Told { kept: Some(Arc::new(kept())), heard: true });
    let first = until(|| loaded().map(|kept| kept.confirmed)).await;
    let renewed = until(|| loaded().map(|kept| kept.confirmed).filter(|time| *time > first)).await;

    let fewer = Kept { objects: kept().objects[..1].to_vec(), ..kept() };
    told.send_replace(Told { kept: Some(Arc::new(fewer)), heard: false });
    tokio::time::sleep(RENEW * 3).await;
    let unheard = loaded().expect("a file");
    assert_eq!(unheard.objects.len(), 1, "what is known is kept all the same");
    assert_eq!(unheard.confirmed, renewed, "but nobody can say that it is still so");

    // The end of the agent leaves nothing to the next window.
    told.send_replace(Told { kept: Some(Arc::new(kept())), heard: true });
    drop(told);
    keeping.await.unwrap();
    assert_eq!(loaded().map(|kept| kept.objects.len()), Some(3));
}

/// The clock of the runtime goes on by itself; the files are written by threads that it waits for.
async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = found() {
            return found;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it never came")
}
