use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use plainroute_config::NodeStateStatus;
use serde_json::{Value, json};

use super::*;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

fn object(kind: Kind, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": kind.name(), "metadata": { "name": name, "generation": 3 }, "spec": spec,
    })
}

fn peer(name: &str) -> Value {
    object(Kind::BgpPeer, name, json!({ "localASN": 64512, "peerASN": 64600, "peerAddress": "172.16.0.254" }))
}

fn pool(name: &str, cidr: &str) -> Value {
    let spec = json!({ "ipRanges": [{ "cidr": cidr }], "allocation": "External" });
    object(Kind::IpPool, name, spec)
}

/// What a node says: sessions of BGPPeer `tor` in these states, and reasons of objects.
fn node(states: &[&str], objects: &[(&str, &str, &str)]) -> NodeStateStatus {
    let session = |(number, state): (usize, &&str)| json!({ "peer": format!("tor@{number}"), "bgpPeer": "tor", "asn": 64600, "state": state, "since": time(0) });
    let object = |(kind, name, reason): &(&str, &str, &str)| json!({ "kind": kind, "name": name, "reason": reason, "message": "it says why" });
    let status = json!({
        "sessions": states.iter().enumerate().map(session).collect::<Vec<_>>(),
        "objects": objects.iter().map(object).collect::<Vec<_>>(),
    });
    serde_json::from_value(status).unwrap()
}

fn totals(nodes: &[NodeStateStatus]) -> Totals {
    let mut totals = Totals::default();
    nodes.iter().enumerate().for_each(|(number, node)| totals.add(&format!("node-{number}"), node));
    totals
}

/// The new status of each object of a kind.
fn changes(totals: &Totals, kind: Kind, objects: &[Value], now: Timestamp) -> Vec<(String, Value)> {
    let mut judged = Judged::new(totals, now);
    objects.iter().for_each(|object| judged.add(kind, object));
    judged.changes(kind).into_iter().map(|change| (change.name, change.status)).collect()
}

/// Each condition with its status and reason.
fn said(status: &Value) -> BTreeSet<(String, String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let conditions = status["conditions"].as_array().unwrap().iter();
    conditions.map(|of| (word(&of["type"]), word(&of["status"]), word(&of["reason"]))).collect()
}

fn reason(status: &Value, r#type: &str) -> String {
    said(status)
        .into_iter()
        .find(|(of, ..)| of == r#type)
        .map(|(_, holds, why)| format!("{holds} {why}"))
        .unwrap()
}

#[test]
fn a_peer_is_counted_over_all_nodes() {
    let up = || node(&["Established", "Established"], &[]);
    let half = node(&["Established", "Active"], &[]);
    let of = |nodes: &[NodeStateStatus]| {
        changes(&totals(nodes), Kind::BgpPeer, &[peer("tor")], time(0)).remove(0).1
    };
    let status = of(&[up(), half, node(&[], &[])]);
    assert_eq!((&status["nodes"], &status["established"]), (&json!(2), &json!(1)));
    assert_eq!(reason(&status, "Established"), "False SessionsDown");
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(reason(&of(&[up(), up()]), "Established"), "True Established");
    assert_eq!(reason(&of(&[node(&[], &[])]), "Established"), "False NoMatchingNode");
}

#[test]
fn what_nodes_say_of_an_object_is_said_on_it() {
    let says =
        [("BGPPeer", "tor@172.16.0.1", "MissingSecret"), ("BGPPeer", "tor@172.16.0.2", "MissingSecret")];
    let nodes = [node(&["Idle"], &says), node(&["Idle"], &[("BGPPeer", "tor", "MissingSecret")])];
    let totals = totals(&nodes);
    let (_, status) = changes(&totals, Kind::BgpPeer, &[peer("tor")], time(0)).remove(0);
    assert_eq!(reason(&status, "SecretsResolved"), "False MissingSecret");
    assert!(status.to_string().contains("on 2 nodes: it says why"), "{status}");
    let (_, other) = changes(&totals, Kind::BgpPeer, &[peer("other")], time(0)).remove(0);
    assert_eq!(reason(&other, "SecretsResolved"), "True Resolved");
    for reason in ["Shadowed", "NotInForce", "Unreadable"] {
        let totals = self::totals(&[node(&[], &[("BGPPeer", "tor", reason)])]);
        let (_, status) = changes(&totals, Kind::BgpPeer, &[peer("tor")], time(0)).remove(0);
        assert_eq!(self::reason(&status, "Conflict"), format!("True {reason}"));
    }
}

#[test]
fn an_object_that_is_not_understood_changes_nothing_but_its_own_condition() {
    let mut bad = peer("bad");
    bad["spec"]["peerASN"] = json!(0);
    let told = changes(&Totals::default(), Kind::BgpPeer, &[bad, peer("good")], time(0));
    assert_eq!(reason(&told[0].1, "Accepted"), "False Invalid");
    assert_eq!(reason(&told[1].1, "Accepted"), "True Valid");
    let local = json!({ "appliedTo": {}, "egressPool": "outside", "mode": "Local" });
    let told = changes(&Totals::default(), Kind::Egress, &[object(Kind::Egress, "out", local)], time(0));
    assert_eq!(reason(&told[0].1, "Accepted"), "False NotSupported", "{told:?}");
}

#[test]
fn an_egress_has_who_holds_its_addresses_and_why_nobody_does() {
    let egress = || object(Kind::Egress, "ledger", json!({ "appliedTo": {}, "egressIPs": ["198.51.100.7"] }));
    let holds = |rank: u32| {
        let held =
            json!([{ "address": "198.51.100.7", "egress": "ledger", "rank": rank, "advertised": true }]);
        NodeStateStatus { egress: serde_json::from_value(held).unwrap(), ..node(&[], &[]) }
    };
    let told = changes(&totals(&[holds(1), holds(0), node(&[], &[])]), Kind::Egress, &[egress()], time(0));
    assert_eq!(
        told[0].1["assignments"],
        json!([{ "address": "198.51.100.7", "gateways": ["node-1", "node-0"] }])
    );
    assert_eq!(reason(&told[0].1, "Accepted"), "True Valid");
    let nobody = totals(&[node(&[], &[("Egress", "ledger", "NoNode")])]);
    let told = changes(&nobody, Kind::Egress, &[egress()], time(0));
    assert_eq!(reason(&told[0].1, "Accepted"), "False NoNode");
    assert!(told[0].1.get("assignments").is_none());
}

#[test]
fn only_a_turn_is_told() {
    let judge = |object: &Value| {
        let totals = Totals::default();
        let mut judged = Judged::new(&totals, time(0));
        judged.add(Kind::BgpPeer, object);
        judged.changes(Kind::BgpPeer).pop().map(|change| (change.status, change.turn.map(|(of, _)| of)))
    };
    let (mut good, mut bad) = (peer("tor"), peer("tor"));
    bad["spec"]["peerASN"] = json!(0);
    let (accepted, turn) = judge(&good).unwrap();
    assert_eq!(turn, None, "that it is well from the first is no news");
    let (refused, turn) = judge(&bad).unwrap();
    assert_eq!(turn, Some(false), "wrong from the first");
    bad["status"] = accepted.clone();
    assert_eq!(judge(&bad).unwrap().1, Some(false), "wrong by a change");
    bad["status"] = refused.clone();
    assert!(judge(&bad).is_none(), "told already, by whichever agent");
    bad["spec"]["peerASN"] = json!(-1);
    assert!(judge(&bad).is_none_or(|(_, turn)| turn.is_none()), "wrong in another way");
    good["status"] = refused;
    assert_eq!(judge(&good).unwrap().1, Some(true));
    good["status"] = accepted;
    assert!(judge(&good).is_none());
}

#[test]
fn a_pool_that_a_node_cannot_take_as_it_is_is_not_accepted() {
    for said in ["InUse", "Refused"] {
        let totals = totals(&[node(&[], &[("IPPool", "one", said)])]);
        let told = changes(
            &totals,
            Kind::IpPool,
            &[pool("one", "10.20.0.0/24"), pool("two", "10.30.0.0/24")],
            time(0),
        );
        let reasons: Vec<_> = told.iter().map(|(_, status)| reason(status, "Accepted")).collect();
        assert_eq!(reasons, [format!("False {said}"), "True Valid".to_owned()]);
    }
}

#[test]
fn pools_that_share_addresses_both_say_so() {
    let pools = [pool("one", "10.20.0.0/24"), pool("two", "10.20.0.128/25"), pool("far", "10.30.0.0/16")];
    let told = changes(&Totals::default(), Kind::IpPool, &pools, time(0));
    let reasons: Vec<_> = told.iter().map(|(_, status)| reason(status, "Conflict")).collect();
    assert_eq!(reasons, ["True Overlap", "True Overlap", "False None"]);
    let sizes: Vec<_> = told.iter().map(|(_, status)| status["addresses"].as_i64().unwrap()).collect();
    assert_eq!(sizes, [256, 128, 65536]);
    let all = changes(&Totals::default(), Kind::IpPool, &[pool("all", "::/0")], time(0));
    assert_eq!(all[0].1["addresses"], json!(i64::MAX));
}

#[test]
fn nothing_is_written_twice_and_times_move_with_the_status_alone() {
    let up = totals(&[node(&["Established"], &[])]);
    let mut tor = peer("tor");
    tor["status"] = changes(&up, Kind::BgpPeer, &[tor.clone()], time(0)).remove(0).1;
    assert!(changes(&up, Kind::BgpPeer, &[tor.clone()], time(60)).is_empty());
    let more = totals(&[node(&["Established"], &[]), node(&["Established"], &[])]);
    let (_, status) = changes(&more, Kind::BgpPeer, &[tor.clone()], time(60)).remove(0);
    assert!(!status.to_string().contains(&time(60).to_string()), "another count is no transition: {status}");
    let down = totals(&[node(&["Idle"], &[])]);
    let (_, status) = changes(&down, Kind::BgpPeer, &[tor], time(120)).remove(0);
    assert_eq!(status.to_string().matches(&time(120).to_string()).count(), 1, "{status}");
}

fn written(step: Step) -> LeaseSpec {
    match step {
        Step::Write(spec) => spec,
        Step::Wait => panic!("it waits"),
    }
}

#[test]
fn a_lease_is_taken_only_when_its_holder_is_silent() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let (mut a, mut b) = (Candidate::new("a".to_owned()), Candidate::new("b".to_owned()));
    let lease = written(a.handle_lease(None, start));
    assert!(!a.holds(), "not before it is written");
    a.handle_written();
    assert!(a.holds());

    assert_eq!(b.handle_lease(Some(&lease), start), Step::Wait);
    let lease = written(a.handle_lease(Some(&lease), after(5)));
    assert_eq!(lease.lease_transitions, Some(0));
    assert_eq!(b.handle_lease(Some(&lease), after(16)), Step::Wait, "it was renewed meanwhile");
    assert_eq!(b.handle_lease(Some(&lease), after(30)), Step::Wait, "for 14 s it is the same");
    let lease = written(b.handle_lease(Some(&lease), after(31)));
    assert_eq!((lease.holder_identity.as_deref(), lease.lease_transitions), (Some("b"), Some(1)));
    b.handle_written();

    // The first one is back.
    assert_eq!(a.handle_lease(Some(&lease), after(32)), Step::Wait);
    assert!(!a.holds() && b.holds());
    // Whoever gives it up leaves it to the next.
    let free = LeaseSpec { holder_identity: Some(String::new()), ..lease };
    assert_eq!(written(a.handle_lease(Some(&free), after(33))).holder_identity.as_deref(), Some("a"));
}

#[test]
fn each_condition_is_documented() {
    let objects = |kind: Kind, object: &dyn Fn(&str) -> Value| {
        let says = ["MissingSecret", "Shadowed", "NotInForce", "Unreadable", "InUse", "Refused"];
        let says: Vec<&str> = says.into_iter().chain(judge::EGRESS_REFUSED).collect();
        let mut told: BTreeSet<(String, String, String)> = BTreeSet::new();
        for reason in says.iter().copied().chain([""]) {
            for states in [&["Established"][..], &["Idle"], &[]] {
                let totals = totals(&[node(states, &[(kind.name(), "tor", reason)])]);
                let mut bad = object("tor");
                bad["spec"]["unknown"] = json!(1);
                for object in [object("tor"), bad] {
                    let both = [object, self::object(kind, "other", json!({})), shared(kind)];
                    told.extend(
                        changes(&totals, kind, &both, time(0)).iter().flat_map(|(_, status)| said(status)),
                    );
                }
            }
        }
        told
    };
    let told = objects(Kind::BgpPeer, &|name| peer(name));
    let told = told.into_iter().chain(objects(Kind::IpPool, &|name| pool(name, "10.20.0.0/24")));
    let egress =
        |name: &str| object(Kind::Egress, name, json!({ "appliedTo": {}, "egressIPs": ["198.51.100.7"] }));
    let local = |name: &str| {
        let spec = json!({ "appliedTo": {}, "egressPool": "outside", "mode": "Local" });
        object(Kind::Egress, name, spec)
    };
    let told = told.chain(objects(Kind::Egress, &egress)).chain(objects(Kind::Egress, &local));
    let told: BTreeSet<_> = told.map(|(of, _, reason)| (of, reason)).collect();
    assert_eq!(crate::status::tests::documented("Conditions of objects"), told);
}

/// A pool that shares addresses with the others.
fn shared(kind: Kind) -> Value {
    if kind == Kind::IpPool { pool("shared", "10.20.0.0/30") } else { object(kind, "shared", json!({})) }
}
