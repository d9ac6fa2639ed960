//! The plan: each folder below `scenarios` holds what the sources say and the plan that must come of it.
//!
//! `input.yaml` is what files say, `cluster.yaml` what the API server says, `host-links.yaml` what the CNI left,
//! `found.yaml` which routers the node found, `holdings.yaml` what it owns and has given out of block pools;
//! `plan.snap` is the plan of node `node-a` at 2026-11-22 12:00:00 UTC.
mod common;
#[path = "plan/properties.rs"]
mod properties;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use common::{plan_of, scenarios};
use plainroute_agent::plan::{
    BlockPlan, Condition, EgressPlan, FoundBy, Plan, PodPlan, PoolPlan, Reason, Remote, plan,
};
use serde::Serialize;
use serde_json::Value;

/// The plan without what its user wrote of the peers, which no rule of the plan touches.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen<'a> {
    peers: Vec<SeenPeer<'a>>,
    pools: &'a [PoolPlan],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    blocks: &'a [BlockPlan],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    egresses: &'a [EgressPlan],
    pods: &'a [PodPlan],
    conditions: &'a [Condition],
    #[serde(skip_serializing_if = "Option::is_none")]
    next_change: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeenPeer<'a> {
    name: &'a str,
    #[serde(rename = "localASN")]
    local_asn: u32,
    #[serde(rename = "routerID")]
    router_id: Option<String>,
    /// Where that is not the address that its user wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
}

fn found(remote: &Remote) -> String {
    format!("{remote} by {}", remote.found_by)
}

impl<'a> From<&'a Plan> for Seen<'a> {
    fn from(plan: &'a Plan) -> Self {
        let peers = plan.peers.iter().map(|peer| SeenPeer {
            name: &peer.name,
            local_asn: peer.local_asn.number(),
            router_id: peer.router_id.map(|router_id| router_id.to_string()),
            found: peer.remote.as_ref().filter(|remote| remote.found_by != FoundBy::Configuration).map(found),
            refused: peer.refused.as_deref(),
        });
        Seen {
            peers: peers.collect(),
            pools: &plan.pools,
            blocks: &plan.blocks,
            egresses: &plan.egresses,
            pods: &plan.pods,
            conditions: &plan.conditions,
            next_change: plan.next_change.map(|time| time.to_string()),
        }
    }
}

#[test]
fn each_scenario_gives_its_plan() {
    let mut wrong = Vec::new();
    for folder in scenarios() {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&folder);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let check = || {
            let plan = plan_of(&folder);
            settings.bind(|| insta::assert_yaml_snapshot!("plan", Seen::from(&plan)));
        };
        // One wrong scenario should not hide the others.
        if catch_unwind(AssertUnwindSafe(check)).is_err() {
            wrong.push(folder);
        }
    }
    assert!(wrong.is_empty(), "these plans are not as they should be: {wrong:#?}");
}

fn reasons(plan: &Plan) -> impl Iterator<Item = &Reason> {
    let addresses = plan.addresses().filter_map(|(_, address)| address.refused.as_ref());
    let blocks = plan.blocks.iter().filter_map(|block| block.refused.as_ref());
    addresses.chain(blocks).chain(plan.pods.iter().filter_map(|pod| pod.refused.as_ref()))
}

/// The word that a program matches. A new reason does not compile here: give it a scenario.
fn word(reason: &Reason) -> &'static str {
    match reason {
        Reason::NotLocal { .. } => "NotLocal",
        Reason::HostNetwork => "HostNetwork",
        Reason::Terminal { .. } => "Terminal",
        Reason::NoAddress => "NoAddress",
        Reason::NoPool => "NoPool",
        Reason::Excluded { .. } => "Excluded",
        Reason::EgressPool { .. } => "EgressPool",
        Reason::PoolOfOtherNamespace { .. } => "PoolOfOtherNamespace",
        Reason::PoolOfOtherNode { .. } => "PoolOfOtherNode",
        Reason::PoolNotInAnnotation { .. } => "PoolNotInAnnotation",
        Reason::NotAllocated { .. } => "NotAllocated",
        Reason::HeldByOther { .. } => "HeldByOther",
        Reason::Terminating => "Terminating",
        Reason::NotReady => "NotReady",
        Reason::ReadyTooShort { .. } => "ReadyTooShort",
        Reason::Restless { .. } => "Restless",
        Reason::NoAdvertisement => "NoAdvertisement",
        Reason::NoPeer => "NoPeer",
        Reason::RefusedByExport { .. } => "RefusedByExport",
    }
}

const REASONS: usize = 19;

#[test]
fn the_scenarios_cover_every_reason_and_it_serializes_as_its_word() {
    let plans: Vec<Plan> = scenarios().iter().map(|folder| plan_of(folder)).collect();
    let mut seen = BTreeSet::new();
    for reason in plans.iter().flat_map(reasons) {
        let written = serde_json::to_value(reason).expect("JSON");
        assert_eq!(written["reason"], word(reason));
        seen.insert(word(reason));
    }
    assert_eq!(seen.len(), REASONS, "{seen:?}");
}

#[test]
fn a_reason_reads_as_one_sentence_that_names_what_it_is_about() {
    let mut sentences = BTreeSet::new();
    for folder in scenarios() {
        sentences.extend(reasons(&plan_of(&folder)).map(|reason| format!("{}: {reason}", word(reason))));
    }
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("reasons", sentences.into_iter().collect::<Vec<_>>().join("\n"));
    });
}

#[test]
fn a_plan_comes_back_from_its_json() {
    for folder in scenarios() {
        let plan = plan_of(&folder);
        let json = serde_json::to_value(&plan).expect("JSON");
        let back: Plan =
            serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        assert_eq!(serde_json::to_value(&back).expect("JSON"), json, "{folder:?}");
        // What a pool's addresses are is not written: they follow from the IPPool.
        assert_eq!(Plan { pools: Vec::new(), ..back }, Plan { pools: Vec::new(), ..plan }, "{folder:?}");
    }
}

/// The keys that are names of fields, which are all but those of labels and of peers.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                into.insert(key.clone());
                match key.as_str() {
                    "matchLabels" => {}
                    "advertise" | "withheld" => {
                        value.as_object().into_iter().flatten().for_each(|(_, value)| fields(value, into))
                    }
                    _ => fields(value, into),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_field_of_a_plan_is_written_in_camel_case() {
    let mut names = BTreeSet::new();
    for folder in scenarios() {
        fields(&serde_json::to_value(plan_of(&folder)).expect("JSON"), &mut names);
    }
    let camel = |name: &&String| !name.starts_with(char::is_lowercase) || name.contains(['_', '-', ' ']);
    assert_eq!(names.iter().filter(camel).collect::<Vec<_>>(), Vec::<&String>::new());
    // Not an empty check.
    for name in ["nextChange", "usedHere", "localASN", "routerID", "minReadySeconds", "asPathPrepend"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
}

/// The pools of two ranges, of which the first has holes.
fn pools() -> Plan {
    let yaml = "
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: { name: erp }
spec:
  ipRanges: [{ cidr: 10.20.0.0/24 }, { start: 10.20.9.0, end: 10.20.9.99 }, { cidr: '2001:db8::/64' }]
  excluded: [10.20.0.0, 10.20.0.64/26, 10.20.0.255]
  allocation: External
";
    plan(&common::snapshot(common::objects(yaml), Vec::new(), Vec::new()), &common::local())
}

#[test]
fn nobody_may_teach_us_what_lies_within_our_pools() {
    let plan = pools();
    let within = |prefix: &str| plan.in_pool(prefix.parse().expect("a prefix"));
    // With the holes at its ends or in its middle it is still our range.
    for ours in
        ["10.20.0.1/32", "10.20.0.0/24", "10.20.0.0/25", "10.20.0.128/25", "10.20.9.0/26", "2001:db8::/64"]
    {
        assert!(within(ours), "{ours}");
    }
    // More than our range is another's to say, even where both ends of it are ours; so is what we gave away.
    for others in [
        "0.0.0.0/0",
        "10.20.0.0/20",
        "10.20.0.0/23",
        "10.20.9.0/24",
        "10.20.9.64/26",
        "10.20.9.100/32",
        "10.21.0.0/24",
        "10.20.0.64/26",
        "10.20.0.70/32",
        "10.20.0.255/32",
        "2001:db8::/63",
        "::/0",
    ] {
        assert!(!within(others), "{others}");
    }
}

#[test]
fn a_pool_holds_a_prefix_only_where_it_holds_every_address_of_it() {
    let plan = pools();
    let holds = |prefix: &str| plan.pools[0].holds(prefix.parse().expect("a prefix"));
    for held in ["10.20.0.1/32", "10.20.0.128/26", "10.20.9.0/26", "2001:db8::/64"] {
        assert!(holds(held), "{held}");
    }
    for not_held in
        ["10.20.0.0/24", "10.20.0.32/26", "10.20.0.0/25", "10.20.0.64/26", "10.20.0.0/20", "10.20.9.64/26"]
    {
        assert!(!holds(not_held), "{not_held}");
    }
}
