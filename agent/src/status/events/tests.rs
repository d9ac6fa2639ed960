use std::sync::Arc;

use plainroute_blocks::Refusal;
use plainroute_config::{DrainPhase, NodeStateStatus};

use super::{
    super::{
        node_state::compose,
        tests::{documented, down, peer, seen, seen_with, time, up, with_held, with_pods},
    },
    *,
};

fn reasons(told: &[Occurrence]) -> Vec<Reason> {
    told.iter().map(|event| event.reason).collect()
}

#[test]
fn each_transition_is_told_once() {
    let mut memory = Memory::default();
    let told = memory.handle_seen(&seen([up("tor")]));
    assert_eq!(reasons(&told), [Reason::SessionEstablished]);
    assert_eq!(told[0].regarding, Regarding::Node("node-a".to_owned()));
    assert_eq!(told[0].bgp_peer.as_deref(), Some("tor"));
    assert_eq!(memory.handle_seen(&seen([up("tor")])), []);

    let told = memory.handle_seen(&seen([down("tor", "Idle", "the hold timer expired")]));
    assert_eq!(reasons(&told), [Reason::SessionLost]);
    assert_eq!(
        told[0].note,
        "node-a lost the session with tor (172.16.0.254, AS 64600): the hold timer expired"
    );
    assert_eq!(memory.handle_seen(&seen([down("tor", "Connect", "refused")])), []);

    // It came and went several times since the last look.
    let told = memory.handle_seen(&seen([peer("tor", "Established", (4, 3))]));
    assert_eq!(reasons(&told), [Reason::SessionLost, Reason::SessionEstablished]);
    assert!(told[0].note.contains("2 times"), "{}", told[0].note);
    assert_eq!(memory.handle_seen(&seen([])), [], "a peer that was taken away is no loss");
    assert_eq!(reasons(&memory.handle_seen(&seen([up("tor")]))), [Reason::SessionEstablished]);
}

#[test]
fn drains_held_deletions_and_outages_begin_and_end() {
    let mut memory = Memory::default();
    let mut told = |change: fn(&mut Published)| reasons(&memory.handle_seen(&seen_with([], change)));
    assert_eq!(told(|_| {}), []);
    assert_eq!(told(|state| state.drain = DrainState::Draining), [Reason::DrainStarted]);
    assert_eq!(told(|state| state.drain = DrainState::Drained), [Reason::Drained]);
    assert_eq!(told(|state| state.drain = DrainState::Drained), []);
    assert_eq!(told(|_| {}), [Reason::DrainEnded]);
    assert_eq!(told(|state| with_held(state, &["one"])), [Reason::DeletionsHeld]);
    assert_eq!(told(|state| with_held(state, &["one"])), []);
    assert_eq!(told(|state| with_held(state, &["one", "two"])), [Reason::DeletionsHeld]);
    assert_eq!(told(|state| with_held(state, &["two"])), [], "some are left");
    assert_eq!(told(|_| {}), [Reason::DeletionsReleased]);
    assert_eq!(told(|state| state.restored = Some(time(0))), [Reason::RunningOnLastGood]);
    assert_eq!(told(|state| state.restored = Some(time(0))), []);
    assert_eq!(told(|_| {}), [Reason::InSyncAgain]);
}

/// Pods that get no address: name, UID, and why.
fn without_address(pods: &[(&str, &str, Refusal)]) -> Seen {
    let refused = pods.iter().map(|(name, uid, refusal)| {
        (("erp".to_owned(), (*name).to_owned()), RefusedPod::new((*uid).to_owned(), refusal))
    });
    Seen { ipam: Arc::new(Told { trouble: None, refused: refused.collect() }), ..seen([]) }
}

#[test]
fn who_gets_no_address_and_which_pool_has_none_is_told_once() {
    let exhausted = || Refusal::Exhausted(vec!["erp".to_owned()]);
    let busy = Refusal::Busy {
        address: "10.20.0.37".parse().unwrap(),
        holder: "held by Pod erp/db-0 (UID u0) on node node-b".to_owned(),
    };
    let mut memory = Memory::default();
    let told = memory.handle_seen(&without_address(&[("a", "u1", exhausted()), ("b", "u2", exhausted())]));
    assert_eq!(reasons(&told), [Reason::NoAddress, Reason::PoolExhausted, Reason::NoAddress]);
    let pod = |name: &str, uid: &str| Regarding::Pod {
        namespace: "erp".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
    };
    assert_eq!(told[0].regarding, pod("a", "u1"));
    assert_eq!(told[1].regarding, Regarding::Pool("erp".to_owned()));
    assert_eq!(told[1].note, "Pod erp/a gets no address: no free address in erp");
    assert_eq!(
        memory.handle_seen(&without_address(&[("a", "u1", exhausted()), ("b", "u2", exhausted())])),
        []
    );
    // A fixed address that waits is told with its holder; the pool is exhausted still, for the other one.
    let told = memory.handle_seen(&without_address(&[("a", "u1", exhausted()), ("c", "u3", busy.clone())]));
    assert_eq!(reasons(&told), [Reason::NoAddress]);
    assert_eq!(told[0].note, "10.20.0.37 is held by Pod erp/db-0 (UID u0) on node node-b");
    // A Pod of the same name is another; and what was over and is so again is news.
    assert_eq!(memory.handle_seen(&without_address(&[("c", "u3", busy.clone())])), []);
    let told = memory.handle_seen(&without_address(&[("a", "u9", exhausted()), ("c", "u3", busy.clone())]));
    assert_eq!(reasons(&told), [Reason::NoAddress, Reason::PoolExhausted]);

    // A restart is no news: what was told stands in the NodeState.
    let seen = without_address(&[("a", "u9", exhausted()), ("c", "u3", busy)]);
    let found = compose(&seen, &NodeStateStatus::default(), time(0));
    let said: Vec<_> =
        found.objects.iter().map(|of| format!("{}/{} {}", of.kind, of.name, of.reason)).collect();
    assert_eq!(said, ["IPPool/erp PoolExhausted", "Pod/erp/a PoolExhausted", "Pod/erp/c AddressBusy"]);
    let mut restarted = Memory::waiting();
    restarted.handle_found(&found);
    assert_eq!(restarted.handle_seen(&seen), []);
    let mut new = Memory::waiting();
    new.handle_found(&NodeStateStatus::default());
    assert_eq!(new.handle_seen(&seen).len(), 3, "without it all of it is told");
}

#[test]
fn a_pod_that_breaks_a_rule_is_told_of_once() {
    let mut memory = Memory::default();
    let told = memory.handle_seen(&seen_with([], |state| with_pods(state, &["stray"])));
    assert_eq!(told[0].note, "10.99.0.1 is not advertised: no IPPool holds the address");
    let stray =
        Regarding::Pod { namespace: "erp".to_owned(), name: "stray".to_owned(), uid: "uid-stray".to_owned() };
    assert_eq!((told.len(), &told[0].regarding), (1, &stray));
    assert_eq!(memory.handle_seen(&seen_with([], |state| with_pods(state, &["stray"]))), []);
    // Gone, and another of its name.
    assert_eq!(memory.handle_seen(&seen_with([], |state| with_pods(state, &[]))), []);
    assert_eq!(memory.handle_seen(&seen_with([], |state| with_pods(state, &["stray"]))).len(), 1);
}

/// A NodeState that tells of a session with `tor`, a drain, a held deletion and a Pod that is refused.
fn found() -> NodeStateStatus {
    compose(&before_and_after(), &NodeStateStatus::default(), time(0))
}

fn before_and_after() -> Seen {
    seen_with([up("tor")], |state| {
        with_pods(state, &["stray"]);
        with_held(state, &["one"]);
        state.drain = DrainState::Drained;
    })
}

#[test]
fn a_restart_is_no_transition() {
    let mut memory = Memory::waiting();
    assert_eq!(memory.handle_seen(&before_and_after()), [], "nobody knows yet what was told");
    memory.handle_found(&found());
    assert_eq!(memory.handle_seen(&before_and_after()), []);
    // The control: the same without what was found.
    let mut other = Memory::waiting();
    other.handle_found(&NodeStateStatus::default());
    let told = reasons(&other.handle_seen(&before_and_after()));
    let all = [Reason::SessionEstablished, Reason::Drained, Reason::DeletionsHeld, Reason::NotAdvertised];
    assert_eq!(told, all);

    // What differs from what was found is told, and what comes after.
    let mut memory = Memory::waiting();
    memory.handle_found(&found());
    let told = memory.handle_seen(&seen_with([up("tor"), up("new")], |state| {
        with_pods(state, &["stray", "other"]);
        with_held(state, &["one", "two"]);
    }));
    let news = [Reason::SessionEstablished, Reason::DrainEnded, Reason::DeletionsHeld, Reason::NotAdvertised];
    assert_eq!(reasons(&told), news);
    assert_eq!(told[0].bgp_peer.as_deref(), Some("new"));
    let told = memory.handle_seen(&seen([peer("tor", "Established", (2, 1)), up("new")]));
    let news = [Reason::SessionLost, Reason::SessionEstablished, Reason::DeletionsReleased];
    assert_eq!(reasons(&told), news);
}

#[test]
fn a_session_that_is_late_after_a_restart_or_is_lost_at_once_is_told() {
    let mut memory = Memory::waiting();
    memory.handle_found(&found());
    let idle = || peer("tor", "Idle", (0, 0));
    assert_eq!(
        reasons(&memory.handle_seen(&seen([idle()]))),
        [Reason::DrainEnded, Reason::DeletionsReleased]
    );
    assert_eq!(memory.handle_seen(&seen([up("tor")])), [], "in time");

    let mut memory = Memory::waiting();
    memory.handle_found(&NodeStateStatus { drain: DrainPhase::Active, held: 0, ..found() });
    memory.forget_sessions();
    assert_eq!(reasons(&memory.handle_seen(&seen([up("tor")]))), [Reason::SessionEstablished]);

    let mut memory = Memory::waiting();
    memory.handle_found(&NodeStateStatus { drain: DrainPhase::Active, held: 0, ..found() });
    let lost = memory.handle_seen(&seen([down("tor", "Idle", "cease")]));
    assert_eq!(reasons(&lost), [Reason::SessionLost]);
    let back = memory.handle_seen(&seen([peer("tor", "Established", (2, 1))]));
    assert_eq!(reasons(&back), [Reason::SessionEstablished]);
}

#[test]
fn a_storm_of_events_does_not_reach_the_api_server() {
    let start = Instant::now();
    let mut queue = Queue::new(start);
    let event = |number: usize| Occurrence {
        reason: Reason::SessionLost,
        note: number.to_string(),
        regarding: Regarding::Node("node-a".to_owned()),
        bgp_peer: Some(format!("peer-{number}")),
    };
    queue.extend((0..1000).map(event).collect());
    queue.extend((0..1000).map(event).collect());
    let told: Vec<_> = std::iter::from_fn(|| queue.poll(start)).collect();
    assert_eq!(told.len(), 10);
    assert_eq!(queue.poll_timeout(), Some(start + Duration::from_secs(10)));
    let later: Vec<_> =
        (1..=600).filter_map(|second| queue.poll(start + Duration::from_secs(second))).collect();
    assert_eq!(later.len(), 22, "32 wait at most, and the newest of them");
    assert_eq!(later[21].note, "999");
    assert_eq!(queue.poll_timeout(), None);

    // What waits already and happens again is one Event.
    queue.extend(vec![event(1), event(1), event(2)]);
    let start = start + Duration::from_secs(3600);
    assert_eq!(std::iter::from_fn(|| queue.poll(start)).count(), 2);
}

#[test]
fn each_event_is_documented() {
    let events = Reason::ALL.map(|reason| {
        (reason.name().to_owned(), if reason.is_warning() { "Warning" } else { "Normal" }.to_owned())
    });
    assert_eq!(documented("Events"), BTreeSet::from(events));
}
