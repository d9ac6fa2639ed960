use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_config::{
    Condition, ConditionStatus, DrainPhase, Kind, NodeStateStatus, ObjectKey, ObjectState,
};
use serde_json::json;

use super::{
    node_state::compose,
    pace::{Pace, Weight, weight},
    *,
};
use crate::{
    drain::DrainState,
    index::{Held, HeldReason},
    plan::Plan,
};

pub(super) fn peer(name: &str, state: &str, (established, lost): (u64, u64)) -> PeerView {
    let view = json!({
        "name": name, "address": "172.16.0.254", "localASN": 64512, "peerASN": 64600, "state": state,
        "since": "2026-11-22T12:00:00.123Z", "secondsInState": 1, "families": {
            "ipv4-unicast": { "negotiated": true, "originated": 2, "advertised": 2, "accepted": 1, "stale": 0, "rejected": 0 },
            "ipv6-unicast": { "negotiated": false, "originated": 0, "advertised": 0, "accepted": 0, "stale": 0, "rejected": 0 },
        },
        "establishedCount": established, "lostCount": lost, "updatesReceived": 0, "updatesSent": 0,
        "malformedUpdates": 0,
    });
    serde_json::from_value(view).unwrap()
}

pub(super) fn up(name: &str) -> PeerView {
    peer(name, "Established", (1, 0))
}

pub(super) fn down(name: &str, state: &str, why: &str) -> PeerView {
    PeerView { last_error: Some(why.to_owned()), ..peer(name, state, (1, 1)) }
}

/// What is seen of a node that is ready, with these peers.
pub(super) fn seen(peers: impl Into<Vec<PeerView>>) -> Seen {
    seen_with(peers, |_| {})
}

pub(super) fn seen_with(peers: impl Into<Vec<PeerView>>, change: impl FnOnce(&mut Published)) -> Seen {
    let mut published = Published::new("node-a".to_owned(), 254);
    published.advertised = Some(Arc::default());
    change(&mut published);
    Seen { published: Arc::new(published), peers: peers.into(), ipam: Arc::default() }
}

/// Pods with an address that lies in no pool, and one that is advertised.
pub(super) fn with_pods(state: &mut Published, refused: &[&str]) {
    let mut pods: Vec<_> = refused
        .iter()
        .map(|name| {
            let address = json!({ "address": "10.99.0.1", "refused": { "reason": "NoPool" } });
            json!({ "namespace": "erp", "name": name, "uid": format!("uid-{name}"), "addresses": [address] })
        })
        .collect();
    pods.push(json!({ "namespace": "erp", "name": "app", "uid": "uid-app", "addresses": [{ "address": "10.20.0.1" }] }));
    let plan = Plan { pods: serde_json::from_value(pods.into()).unwrap(), ..Plan::default() };
    state.plan = Arc::new(plan);
    let routes =
        ["tor-a", "tor-b"].map(|peer| ((peer.into(), "10.20.0.1/32".parse().unwrap()), Default::default()));
    state.advertised = Some(Arc::new(BTreeMap::from(routes)));
}

pub(super) fn with_held(state: &mut Published, names: &[&str]) {
    let held = Held { since: time(0), reason: HeldReason::TooMany };
    let key = |name: &&str| ObjectKey { kind: Kind::IpPool, namespace: None, name: (*name).to_owned() };
    state.held = Arc::new(names.iter().map(|name| (key(name), held)).collect());
}

pub(super) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

fn condition<'a>(status: &'a NodeStateStatus, of: &str) -> &'a Condition {
    status.conditions.iter().find(|condition| condition.r#type == of).unwrap()
}

fn said(status: &NodeStateStatus, of: &str) -> (ConditionStatus, String, Timestamp) {
    let condition = condition(status, of);
    (condition.status, condition.reason.clone(), condition.last_transition_time)
}

#[test]
fn the_status_says_what_is_seen() {
    let seen = seen_with([up("tor-a"), down("tor-b", "Idle", "the hold timer expired")], |state| {
        with_pods(state, &["stray", "other"]);
        with_held(state, &["one"]);
        state.drain = DrainState::Draining;
        state.source_problems.insert("Kubernetes Pod".to_owned(), "not allowed".to_owned());
        state.source_problems.insert("BGPPeer/tor-b".to_owned(), "is in the way".to_owned());
    });
    let status = compose(&seen, &NodeStateStatus::default(), time(0));
    let numbers = (status.advertised.pods, status.advertised.pod_ips, status.advertised.prefixes);
    assert_eq!(numbers, (1, 1, 1), "a prefix counts once, to however many peers it goes");
    assert_eq!((status.refused_pods, status.held, status.drain), (2, 1, DrainPhase::Draining));
    let session = &status.sessions[0];
    assert_eq!((session.prefixes_received, session.prefixes_sent, session.families.len()), (1, 2, 1));
    assert_eq!(session.since.to_string(), "2026-11-22T12:00:00Z");
    assert_eq!(status.sessions[1].last_error.as_deref(), Some("the hold timer expired"));
    let sources: Vec<_> = status.sources.iter().map(|of| (of.name.as_str(), of.problem.as_deref())).collect();
    assert_eq!(sources, [("cni", None), ("files", None), ("kubernetes", Some("not allowed"))]);
    let objects: Vec<_> = status.objects.iter().map(|of| (of.name.as_str(), of.reason.as_str())).collect();
    assert_eq!(objects, [("tor-b", "NotInForce"), ("erp/other", "NoPool"), ("erp/stray", "NoPool")]);
    assert_eq!(said(&status, "Ready"), (ConditionStatus::True, "Ready".to_owned(), time(0)));
    assert_eq!(said(&status, "InSync"), (ConditionStatus::False, "SourceTrouble".to_owned(), time(0)));
    let sessions = condition(&status, "SessionsEstablished");
    assert_eq!(sessions.message, "1 of 2 sessions are up; down: tor-b");
}

#[test]
fn a_secret_that_is_missing_is_named() {
    let blocked = "Secret tor key password: the Secret does not exist".to_owned();
    let mut peer = PeerView { blocked: Some(blocked.clone()), ..peer("tor", "Idle", (0, 0)) };
    peer.authentication.method = "MD5".to_owned();
    let status = compose(&seen([peer]), &NodeStateStatus::default(), time(0));
    let missing = ObjectState {
        kind: "BGPPeer".to_owned(),
        name: "tor".to_owned(),
        reason: "MissingSecret".to_owned(),
        message: blocked,
    };
    assert_eq!(status.objects, [missing]);
}

#[test]
fn however_much_is_wrong_the_object_stays_small() {
    let names: Vec<String> = (0..500).map(|number| format!("stray-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let status =
        compose(&seen_with([], |state| with_pods(state, &names)), &NodeStateStatus::default(), time(0));
    assert_eq!((status.refused_pods, status.objects.len()), (500, 64));
}

#[test]
fn times_move_only_where_something_has() {
    let first = compose(&seen([up("tor")]), &NodeStateStatus::default(), time(0));
    let again = compose(&seen([up("tor")]), &first, time(60));
    assert_eq!(first, again);
    let lost = compose(&seen([down("tor", "Idle", "cease")]), &again, time(120));
    assert_eq!(said(&lost, "SessionsEstablished").2, time(120));
    assert_eq!(said(&lost, "Ready").2, time(0));
    let other = compose(&seen([down("tor", "Idle", "cease"), up("new")]), &lost, time(180));
    assert_eq!(said(&other, "SessionsEstablished").2, time(120), "another message is no transition");
}

#[test]
fn a_session_that_does_not_come_about_is_no_news_until_the_reason_is_another() {
    let lost = compose(&seen([down("tor", "Idle", "refused")]), &NodeStateStatus::default(), time(0));
    for state in ["Connect", "Active", "OpenSent", "Idle"] {
        let mut tried = down("tor", state, "refused");
        tried.since = time(7);
        assert_eq!(compose(&seen([tried]), &lost, time(9)), lost);
    }
    let other = compose(&seen([down("tor", "OpenSent", "bad peer AS")]), &lost, time(9));
    assert_eq!((other.sessions[0].state.as_str(), weight(&lost, &other)), ("OpenSent", Weight::Change));
    let back = compose(&seen([up("tor")]), &other, time(10));
    assert_eq!(weight(&other, &back), Weight::Transition);
}

#[test]
fn numbers_weigh_less_than_words_and_these_less_than_transitions() {
    let before = compose(&seen([up("tor")]), &NodeStateStatus::default(), time(0));
    let next = |change: fn(&mut Published)| compose(&seen_with([up("tor")], change), &before, time(1));
    assert_eq!(weight(&before, &next(|_| {})), Weight::Nothing);
    assert_eq!(weight(&before, &next(|state| with_pods(state, &[]))), Weight::Counts);
    assert_eq!(weight(&before, &next(|state| with_pods(state, &["stray"]))), Weight::Change);
    assert_eq!(weight(&before, &next(|state| with_held(state, &["one"]))), Weight::Transition);
    assert_eq!(weight(&before, &next(|state| state.drain = DrainState::Drained)), Weight::Transition);
    assert_eq!(weight(&before, &next(|state| state.advertised = None)), Weight::Transition);
}

/// How often is written within a minute in which this is to be told every 100 ms, and when first.
fn writes(of: Weight) -> Vec<Duration> {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    pace.handle_written(start);
    let mut writes = Vec::new();
    for tick in 1..=600 {
        let now = start + Duration::from_millis(100) * tick;
        pace.handle(of, now, 0.5);
        if pace.is_due(now) {
            pace.handle_written(now);
            writes.push(now - start);
        }
    }
    writes
}

#[test]
fn what_matters_goes_at_once_and_a_storm_is_cut_off() {
    let transitions = writes(Weight::Transition);
    // The write before took one.
    assert_eq!(transitions[..2], [100, 200].map(Duration::from_millis));
    assert!(transitions.len() <= 3 + 60 / 5, "{transitions:?}");
    let (changes, counts) = (writes(Weight::Change), writes(Weight::Counts));
    assert!(changes[0] >= Duration::from_secs(5) && (5..=12).contains(&changes.len()), "{changes:?}");
    assert!(counts[0] >= Duration::from_secs(10) && (3..=6).contains(&counts.len()), "{counts:?}");
    assert!(writes(Weight::Nothing).is_empty());
}

#[test]
fn a_change_that_matters_does_not_wait_for_one_that_does_not() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    pace.handle_written(now);
    pace.handle(Weight::Counts, now, 1.0);
    assert!(!pace.is_due(now) && pace.poll_timeout() > Some(now + Duration::from_secs(9)));
    pace.handle(Weight::Transition, now, 1.0);
    assert!(pace.is_due(now));
    pace.handle(Weight::Nothing, now, 1.0);
    assert_eq!(pace.poll_timeout(), None, "it is over before it was written");
}

#[test]
fn an_object_that_only_this_node_cannot_read_is_named() {
    let key = ObjectKey { kind: Kind::IpPool, namespace: None, name: "erp".to_owned() };
    let seen = seen_with([], |state| {
        state.unreadable = Arc::new(BTreeMap::from([(key, "unknown field `newer`".to_owned())]));
    });
    let status = compose(&seen, &NodeStateStatus::default(), time(0));
    let said: Vec<_> = status.objects.iter().map(|of| (of.kind.as_str(), of.reason.as_str())).collect();
    assert_eq!(said, [("IPPool", "Unreadable")]);
}

/// The words in the first column of the table below a heading of the page, with what stands in the second.
pub(super) fn documented(heading: &str) -> BTreeSet<(String, String)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/conditions.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) =
        page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(|cell| cell.trim().replace('`', ""));
        (cells.next().unwrap(), cells.next().unwrap())
    })
    .collect()
}

#[test]
fn each_condition_of_a_node_is_documented() {
    let situations = [
        seen([up("tor")]),
        seen([down("tor", "Idle", "cease")]),
        seen_with([], |state| state.awaited = vec!["Pod from Kubernetes".to_owned()]),
        seen_with([], |state| state.advertised = None),
        seen_with([], |state| state.restored = Some(time(0))),
        seen_with([], |state| {
            state.source_problems.insert("Files".to_owned(), "a.yaml:1:1: no".to_owned());
        }),
    ];
    let statuses = situations.iter().map(|seen| compose(seen, &NodeStateStatus::default(), time(0)));
    let said = statuses.flat_map(|status| status.conditions);
    let said: BTreeSet<_> = said.map(|condition| (condition.r#type, condition.reason)).collect();
    assert_eq!(documented("Conditions of a node"), said);
}
