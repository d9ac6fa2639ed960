//! The ledger: that it says who held an address at each moment, that nobody can change what it says unseen, and that it stays
//! usable when it is old, locked or broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use plainroute_agent::ledger::{Change, Holder, Ledger, LedgerError, LedgerEvent, Reader};
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

/// A ledger in a directory of its own, and times in seconds from its beginning.
struct Scene {
    _directory: TempDir,
    path: PathBuf,
}

fn scene() -> Scene {
    let directory = TempDir::new().expect("a directory");
    Scene { path: directory.path().join("state").join("ledger.sqlite"), _directory: directory }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 20, 0, last).into()
}

fn pod(name: &str) -> Holder {
    Holder {
        namespace: "erp".into(),
        pod: name.into(),
        uid: Some(format!("uid-{name}")),
        pool: Some("erp".into()),
    }
}

impl Scene {
    fn open(&self) -> Ledger {
        Ledger::open(&self.path, "node-a").expect("a ledger")
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path).expect("a ledger")
    }

    fn who(&self, last: u8, second: i64) -> Option<String> {
        self.reader().who(address(last), at(second)).expect("an answer").map(|holder| holder.pod)
    }

    fn rows(&self) -> Vec<(u64, LedgerEvent, String)> {
        let rows = self.reader().export(Timestamp::MIN, 0, 1_000).expect("rows");
        rows.into_iter().map(|row| (row.number, row.event, row.pod)).collect()
    }

    /// The first damaged row, and how many before it are right.
    fn damaged(&self) -> (Option<u64>, u64) {
        let verdict = self.reader().verify().expect("a verdict");
        (verdict.damaged.map(|damage| damage.row), verdict.rows)
    }

    /// Whoever can write the file can take its triggers away too.
    fn tamper(&self, statement: &str) {
        let connection = Connection::open(&self.path).expect("the file");
        connection.execute_batch("DROP TRIGGER entry_stays; DROP TRIGGER entry_remains").expect("triggers");
        assert_ne!(connection.execute(statement, []).expect(statement), 0, "{statement} changed nothing");
    }
}

/// Ten rows: five Pods, one after the other, at the same address.
fn succession() -> Scene {
    let scene = scene();
    let mut ledger = scene.open();
    for turn in 0..5 {
        ledger.held(address(1), pod(&format!("db-{turn}")), at(turn * 10)).expect("written");
        ledger.freed(address(1), at(turn * 10 + 8)).expect("written");
    }
    scene
}

#[test]
fn it_says_who_held_an_address_at_each_moment() {
    let scene = succession();
    for turn in 0..5 {
        let holder = Some(format!("db-{turn}"));
        assert_eq!(scene.who(1, turn * 10 - 1), None);
        assert_eq!(scene.who(1, turn * 10), holder, "from its first moment");
        assert_eq!(scene.who(1, turn * 10 + 7), holder);
        assert_eq!(scene.who(1, turn * 10 + 8), None, "until just before it was freed");
    }
    assert_eq!(scene.who(2, 5), None);
    let mut ledger = scene.open();
    ledger.held(address(1), pod("last"), at(100)).expect("written");
    assert_eq!(scene.who(1, 99), None);
    assert_eq!(scene.who(1, 100_000).as_deref(), Some("last"));
    let holder = scene.reader().who(address(1), at(15)).expect("an answer").expect("a holder");
    assert_eq!((holder.since, holder.until), (Some(at(10)), Some(at(18))));
    assert_eq!(scene.reader().known_since().expect("an answer"), Some(at(0)));
}

#[test]
fn what_is_known_is_not_written_twice_and_another_pod_ends_the_first() {
    let scene = scene();
    let mut ledger = scene.open();
    ledger.held(address(1), pod("a"), at(0)).expect("written");
    ledger.held(address(1), pod("a"), at(5)).expect("known");
    ledger.freed(address(2), at(5)).expect("nobody had it");
    // The same name with another UID is another Pod.
    let again = Holder { uid: Some("other".into()), ..pod("a") };
    ledger.held(address(1), again, at(6)).expect("written");
    // A clock that was set back makes no time that ends before it began.
    ledger.freed(address(1), at(3)).expect("written");
    let expected =
        [(1, LedgerEvent::Held), (2, LedgerEvent::Freed), (3, LedgerEvent::Held), (4, LedgerEvent::Freed)];
    assert_eq!(scene.rows(), expected.map(|(number, event)| (number, event, "a".to_owned())));
    assert_eq!(scene.who(1, 5).as_deref(), Some("a"));
    assert_eq!(scene.who(1, 6), None);
    assert_eq!(scene.damaged(), (None, 4));
}

#[test]
fn it_goes_on_where_an_earlier_process_ended() {
    let scene = scene();
    scene.open().held(address(1), pod("a"), at(0)).expect("written");
    let mut ledger = scene.open();
    assert_eq!(ledger.held_now(), &BTreeMap::from([(address(1), (pod("a"), at(0)))]));
    ledger.held(address(1), pod("a"), at(9)).expect("known");
    ledger.freed(address(1), at(10)).expect("written");
    assert_eq!(scene.rows().len(), 2);
    assert_eq!(scene.damaged(), (None, 2));
    let mode = fs::metadata(&scene.path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others can read who held what");
}

#[test]
fn what_was_changed_is_found_by_its_row() {
    assert_eq!(succession().damaged(), (None, 10), "the control: untouched");
    for (statement, row) in [
        ("UPDATE entry SET pod = 'innocent' WHERE number = 4", 4),
        ("UPDATE entry SET time = time + 1 WHERE number = 1", 1),
        ("UPDATE entry SET since = since - 1 WHERE number = 10", 10),
        ("UPDATE entry SET address = '10.20.0.2' WHERE number = 5", 5),
        ("UPDATE entry SET address = 'nowhere' WHERE number = 5", 5),
        ("UPDATE entry SET event = 'lost' WHERE number = 6", 6),
        ("UPDATE entry SET node = 'node-b' WHERE number = 7", 7),
        ("UPDATE entry SET uid = NULL WHERE number = 7", 7),
        ("UPDATE entry SET pool = '', uid = uid || pool WHERE number = 7", 7),
        ("UPDATE entry SET hash = (SELECT hash FROM entry WHERE number = 2) WHERE number = 3", 3),
        ("DELETE FROM entry WHERE number = 5", 5),
        ("DELETE FROM entry WHERE number = 1", 1),
        ("UPDATE entry SET number = 11 WHERE number = 10", 10),
        (
            "INSERT INTO entry SELECT 11, time, event, address, since, node, namespace, pod, uid, pool, hash FROM entry WHERE number = 10",
            11,
        ),
        ("UPDATE anchor SET hash = 'another'", 1),
    ] {
        let scene = succession();
        scene.tamper(statement);
        assert_eq!(scene.damaged(), (Some(row), row - 1), "{statement}");
    }
}

/// What no chain can show by itself, the hash of the last row does, where it was written down elsewhere.
#[test]
fn rows_cut_off_at_the_end_are_told_by_the_hash_that_was_noted() {
    let scene = succession();
    let noted = scene.reader().verify().expect("a verdict");
    scene.tamper("DELETE FROM entry WHERE number > 8");
    let verdict = scene.reader().verify().expect("a verdict");
    assert!(verdict.damaged.is_none() && (verdict.last, &verdict.hash) != (noted.last, &noted.hash));
}

#[test]
fn in_good_faith_nothing_is_changed_or_taken_out() {
    let scene = succession();
    let connection = Connection::open(&scene.path).expect("the file");
    for statement in ["UPDATE entry SET pod = 'innocent'", "DELETE FROM entry WHERE number = 5"] {
        let refused = connection.execute(statement, []).expect_err(statement);
        assert!(refused.to_string().contains("the ledger is only"), "{refused}");
    }
    assert_eq!(scene.damaged(), (None, 10));
}

#[test]
fn old_rows_are_cut_and_the_chain_holds() {
    let scene = succession();
    let mut ledger = scene.open();
    ledger.held(address(7), pod("steady"), at(48)).expect("written");
    let before = scene.reader().verify().expect("a verdict");
    assert_eq!(ledger.cut(at(21), at(60)).expect("cut"), 5);
    assert_eq!(scene.damaged(), (None, 6));
    let verdict = scene.reader().verify().expect("a verdict");
    assert_eq!((verdict.cut, verdict.last, verdict.hash), (5, 11, before.hash));
    assert_eq!(scene.reader().known_since().expect("an answer"), Some(at(20)));
    // The row that ended what began before the cut still tells all of it.
    assert_eq!(scene.who(1, 15), None);
    assert_eq!(scene.who(1, 25).as_deref(), Some("db-2"));
    // What is held still is written down anew before its row goes, and is known since it began.
    assert_eq!(ledger.cut(at(1_000), at(1_001)).expect("cut"), 6);
    assert_eq!(scene.rows(), [(12, LedgerEvent::Kept, "steady".to_owned())]);
    assert_eq!(scene.who(7, 50).as_deref(), Some("steady"));
    assert_eq!(ledger.cut(at(1_000), at(1_001)).expect("cut"), 0);
    drop(ledger);
    let mut ledger = scene.open();
    assert_eq!(ledger.held_now(), &BTreeMap::from([(address(7), (pod("steady"), at(48)))]));
    ledger.freed(address(7), at(2_000)).expect("written");
    assert_eq!(scene.who(7, 1_999).as_deref(), Some("steady"));
    assert_eq!(ledger.cut(at(3_000), at(3_000)).expect("cut"), 2);
    assert_eq!(scene.damaged(), (None, 0));
    ledger.held(address(7), pod("next"), at(3_001)).expect("written");
    assert_eq!(scene.damaged(), (None, 1));
    // The control: the chain goes on from the row that was cut, not from anything.
    scene.tamper("UPDATE anchor SET number = number - 1");
    assert_eq!(scene.damaged(), (Some(13), 0));
}

#[test]
fn rows_are_told_in_pages_and_since_a_time() {
    let scene = succession();
    let numbers = |since: i64, after: u64, most: usize| -> Vec<u64> {
        let rows = scene.reader().export(at(since), after, most).expect("rows");
        rows.iter().map(|row| row.number).collect()
    };
    assert_eq!(numbers(0, 0, 4), [1, 2, 3, 4]);
    assert_eq!(numbers(0, 8, 4), [9, 10]);
    assert!(numbers(0, 10, 4).is_empty());
    assert_eq!(numbers(28, 0, 3), [6, 7, 8]);
}

#[test]
fn before_anything_is_written_it_is_empty_and_sound() {
    let scene = scene();
    assert_eq!(scene.who(1, 0), None);
    assert_eq!(scene.rows(), []);
    assert_eq!(scene.damaged(), (None, 0));
    assert_eq!(scene.reader().known_since().expect("an answer"), None);
}

#[test]
fn a_file_that_is_no_ledger_is_an_error_that_says_what_to_do() {
    let scene = scene();
    fs::create_dir_all(scene.path.parent().expect("a directory")).expect("a directory");
    fs::write(&scene.path, "this is not a database, and long enough to be looked at".repeat(100))
        .expect("a file");
    let check = |error: LedgerError| {
        assert!(matches!(error, LedgerError::Damaged { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("ledger.sqlite") && said.contains("move it away together with"), "{said}");
    };
    check(Ledger::open(&scene.path, "node-a").expect_err("refused"));
    check(Reader::open(&scene.path).expect_err("refused"));
    fs::remove_file(&scene.path).expect("moved away");
    scene.open().held(address(1), pod("a"), at(0)).expect("a new one");

    let connection = Connection::open(&scene.path).expect("the file");
    connection.pragma_update(None, "user_version", 2).expect("another version");
    drop(connection);
    let error = Ledger::open(&scene.path, "node-a").expect_err("refused");
    assert!(error.to_string().contains("has version 2; this agent knows version 1"), "{error}");
}

#[test]
fn another_writer_is_waited_for_and_then_named() {
    let scene = scene();
    let mut ledger = scene.open();
    ledger.held(address(1), pod("a"), at(0)).expect("written");
    let other = Connection::open(&scene.path).expect("the file");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let error = ledger.freed(address(1), at(1)).expect_err("refused");
    assert!(matches!(error, LedgerError::Locked(_)), "{error:?}");
    assert!(error.to_string().contains("locked by another process"), "{error}");
    // It can be read meanwhile, and nothing is half written.
    assert_eq!(scene.who(1, 5).as_deref(), Some("a"));
    other.execute_batch("ROLLBACK").expect("unlocked");
    ledger.freed(address(1), at(1)).expect("written");
    // Two owners would break the chain: the second is told.
    let mut second = scene.open();
    second.held(address(2), pod("b"), at(2)).expect("written");
    let error = ledger.held(address(3), pod("c"), at(3)).expect_err("refused");
    assert!(matches!(error, LedgerError::NotAlone { found: 3, wrote: 2, .. }), "{error:?}");
    assert_eq!(scene.damaged(), (None, 3));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let path = Path::new("/proc/nowhere/ledger.sqlite");
    let error = Ledger::open(path, "node-a").expect_err("refused");
    assert!(error.to_string().contains("/proc/nowhere/ledger.sqlite"), "{error}");
}

/// What may happen to a few addresses, a second apart; a cut takes rows older than so many seconds.
#[derive(Clone, Debug)]
enum Step {
    Held(u8, u8),
    Freed(u8),
    Cut(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4u8, 0..3u8).prop_map(|(address, pod)| Step::Held(address, pod)),
        3 => (0..4u8).prop_map(Step::Freed),
        1 => (0..30i64).prop_map(Step::Cut),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Against a table of every second: after the last cut it says exactly that, before it nothing false.
    #[test]
    fn it_says_what_was_so_whatever_happens(steps in steps()) {
        let scene = scene();
        let mut ledger = scene.open();
        let mut truth: Vec<BTreeMap<IpAddr, String>> = vec![BTreeMap::new()];
        let mut known_since = 0;
        for (second, step) in (1..).zip(&steps) {
            let mut now_held = truth.last().cloned().unwrap_or_default();
            match step {
                Step::Held(last, name) => {
                    let name = format!("pod-{name}");
                    ledger.held(address(*last), pod(&name), at(second)).unwrap();
                    now_held.insert(address(*last), name);
                }
                Step::Freed(last) => {
                    ledger.freed(address(*last), at(second)).unwrap();
                    now_held.remove(&address(*last));
                }
                Step::Cut(age) => {
                    ledger.cut(at(second - age), at(second)).unwrap();
                    known_since = known_since.max(second - age);
                }
                Step::Reopen => {
                    drop(ledger);
                    ledger = scene.open();
                }
            }
            truth.push(now_held);
        }
        let reader = scene.reader();
        prop_assert_eq!(reader.verify().unwrap().damaged, None);
        for (second, held) in (0..).zip(&truth) {
            for last in 0..4 {
                let said = reader.who(address(last), at(second)).unwrap().map(|holder| holder.pod);
                let so = held.get(&address(last)).cloned();
                prop_assert!(said == so || said.is_none() && second < known_since, "{said:?} at {second}, {so:?} is so");
            }
        }
        let open: BTreeSet<IpAddr> = truth.last().unwrap().keys().copied().collect();
        prop_assert_eq!(ledger.held_now().keys().copied().collect::<BTreeSet<_>>(), open);
    }

    /// One octet of any row, changed to any other, is found at that row.
    #[test]
    fn no_change_of_a_row_stays_unseen(row in 1..=10u64, column in prop::sample::select(vec!["time", "since"]), by in 1..1_000i64) {
        let scene = succession();
        scene.tamper(&format!("UPDATE entry SET {column} = {column} + {by} WHERE number = {row}"));
        prop_assert_eq!(scene.damaged(), (Some(row), row - 1));
    }

    #[test]
    fn many_changes_are_one_transaction(count in 1..200u8) {
        let scene = scene();
        let mut ledger = scene.open();
        let changes: Vec<Change> = (0..count)
            .map(|last| Change::Held { address: address(last), holder: pod("a"), from: at(0) + SignedDuration::from_secs(last.into()) })
            .collect();
        ledger.record(&changes).unwrap();
        prop_assert_eq!(scene.damaged(), (None, count.into()));
    }
}
