use jiff::Timestamp;
use plainroute_blocks::{Holder, Kept, Lent, OwnedBlock};
use plainroute_config::{Input, Kind, load_inputs};

use super::*;
use crate::{
    index::{Index, Moment, Snapshot},
    source::{Change, Feed, HostLink, SourceName},
};

/// Two Pods of this node, one of which has ended, and the pool.
const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: { name: erp }
---
apiVersion: v1
kind: Pod
metadata: { namespace: erp, name: app, uid: uid-app }
spec: { nodeName: node-a }
status: { phase: Running, podIPs: [{ ip: 10.20.0.1 }] }
---
apiVersion: v1
kind: Pod
metadata: { namespace: erp, name: over, uid: uid-over }
spec: { nodeName: node-a }
status: { phase: Succeeded, podIPs: [{ ip: 10.20.0.2 }] }
---
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: { name: erp }
spec: { ipRanges: [{ cidr: 10.20.0.0/24 }] }
"#;

fn snapshot(yaml: &str, links: &[(&str, &str, &str)]) -> Snapshot {
    let loaded =
        load_inputs(&[Input::Stdin(yaml.as_bytes().to_vec())]).unwrap_or_else(|errors| panic!("{errors}"));
    let objects = loaded.objects.into_iter().map(|located| located.object).collect();
    let link = |(container, pod, address): &(&str, &str, &str)| HostLink {
        namespace: "erp".to_owned(),
        name: (*pod).to_owned(),
        uid: None,
        container_id: (*container).to_owned(),
        pod_interface: "eth0".to_owned(),
        interface: "veth".to_owned(),
        addresses: vec![address.parse().unwrap()],
    };
    let mut index = Index::new([]);
    let change = Change::Replace { kinds: Kind::IN_FILES.to_vec(), objects };
    index.handle(Feed { source: SourceName::Files, change }, Moment::now());
    let change = Change::HostLinks(links.iter().map(link).collect());
    index.handle(Feed { source: SourceName::CniCache, change }, Moment::now());
    index.snapshot().unwrap()
}

fn held(name: &str, container: &str) -> Slot {
    Slot::Held(Holder {
        namespace: "erp".to_owned(),
        name: name.to_owned(),
        pod_uid: format!("uid-{name}"),
        container_id: container.to_owned(),
        interface: "eth0".to_owned(),
        stateful_set: None,
        since: Timestamp::UNIX_EPOCH,
    })
}

fn owned(cidr: &str, slots: &[(u16, Slot)]) -> Owned {
    Owned {
        cidr: cidr.parse().unwrap(),
        pool: "erp".to_owned(),
        uid: "uid-block".to_owned(),
        epoch: 1,
        boot: "b".to_owned(),
        lender: None,
        last: None,
        slots: slots.iter().cloned().collect(),
    }
}

fn holdings(blocks: &[Owned]) -> Holdings {
    let mut holdings = Holdings::default();
    for owned in blocks {
        let prefix = owned.cidr.prefix();
        std::sync::Arc::make_mut(&mut holdings.blocks).insert(prefix, OwnedBlock::default());
        for (ordinal, slot) in &owned.slots {
            if let Slot::Held(holder) = slot {
                std::sync::Arc::make_mut(&mut holdings.held)
                    .insert(address(prefix, *ordinal), holder.clone());
            }
        }
    }
    holdings
}

/// The object that the block should have.
fn object(owned: &Owned) -> BlockObject {
    let allocation = |(ordinal, slot): (&u16, &Slot)| -> Option<IpAllocation> {
        let since = "2026-11-23T00:00:00Z";
        let value = match slot {
            Slot::Held(holder) => serde_json::json!({
                "ordinal": ordinal, "namespace": holder.namespace, "name": holder.name, "podUID": holder.pod_uid,
                "containerID": holder.container_id, "since": since,
            }),
            Slot::Kept(kept) => serde_json::json!({
                "ordinal": ordinal, "namespace": kept.namespace, "name": kept.name, "statefulSet": kept.stateful_set,
                "since": since,
            }),
            Slot::Lent(lent) => {
                serde_json::json!({ "ordinal": ordinal, "lentTo": lent.node, "loan": lent.loan, "since": since })
            }
            Slot::Resting(_) => return None,
        };
        Some(serde_json::from_value(value).unwrap())
    };
    let mut spec = IpBlockSpec::new(owned.cidr.prefix(), "node-a", "erp");
    spec.allocations = owned.slots.iter().filter_map(allocation).collect();
    BlockObject { name: spec.name(), uid: owned.uid.clone(), version: "1".to_owned(), spec }
}

struct Scene {
    snapshot: Snapshot,
    blocks: Vec<Owned>,
    objects: Objects,
    more: Vec<Record>,
}

impl Scene {
    /// All is well: `app` has 10.20.0.1, one address is kept, one lent, one rests.
    fn new() -> Scene {
        let kept = Kept {
            namespace: "erp".to_owned(),
            name: "db-0".to_owned(),
            stateful_set: "db".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        };
        let lent = Lent {
            node: "node-b".to_owned(),
            loan: "uid-loan".to_owned(),
            kept: None,
            since: Timestamp::UNIX_EPOCH,
        };
        let slots = [
            (1, held("app", "c1")),
            (5, Slot::Kept(kept)),
            (6, Slot::Lent(lent)),
            (7, Slot::Resting(Timestamp::UNIX_EPOCH)),
        ];
        let block = owned("10.20.0.0/28", &slots);
        Scene {
            snapshot: snapshot(PODS, &[("c1", "app", "10.20.0.1")]),
            objects: Objects { own: vec![object(&block)], lenders: BTreeMap::new() },
            blocks: vec![block],
            more: Vec::new(),
        }
    }

    fn hold(&mut self, ordinal: u16, slot: Slot) -> &mut Scene {
        self.blocks[0].slots.insert(ordinal, slot);
        self.objects.own[0] = object(&self.blocks[0]);
        self
    }

    fn findings(&self, objects: Option<Result<Objects, String>>) -> Findings {
        let known = Known::new(&self.snapshot, &Default::default(), "node-a");
        let own = self.blocks.iter().map(|owned| Record::Own(Box::new(owned.clone())));
        let records: Vec<Record> = own.chain(self.more.iter().cloned()).collect();
        compare(&Sides {
            node: "node-a",
            known: &known,
            records: &records,
            holdings: &holdings(&self.blocks),
            objects,
            check: Duration::from_secs(60),
        })
    }

    /// Each in short.
    fn told(&self) -> Vec<String> {
        let findings = self.findings(Some(Ok(self.objects.clone())));
        assert_eq!(findings.unknown, Vec::<String>::new());
        let told = |one: Disagreement| {
            let Disagreement { subject, against, journal, other, mendable, .. } = one;
            format!("{subject} {against:?} {mendable}: {journal} | {other}")
        };
        findings.disagreements.into_iter().map(told).collect()
    }
}

#[test]
fn where_all_say_the_same_nothing_is_told() {
    assert_eq!(Scene::new().told(), Vec::<String>::new());
}

#[test]
fn what_nobody_has_has_leaked() {
    let mut scene = Scene::new();
    // No such Pod; one that has ended; one whose other sandbox is there.
    scene.hold(2, held("over", "c2")).hold(3, held("gone", "c3")).hold(4, held("app", "c4"));
    let told = scene.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|one| one.contains(" Sandbox true: held by Pod erp/")), "{told:?}");
    assert!(
        told[0].ends_with("there is no sandbox c2, and its Pod has another sandbox or has ended"),
        "{told:?}"
    );
    assert!(told[1].ends_with("there is no sandbox c3, and there is no such Pod"), "{told:?}");
    let outlook = &scene.findings(None).disagreements[0].outlook;
    assert!(outlook.contains("at least 30 s apart") && outlook.ends_with("every 60 s"), "{outlook}");
}

#[test]
fn what_a_sandbox_or_a_pod_has_unasked_is_told() {
    let mut scene = Scene::new();
    let links = [
        ("c1", "app", "10.20.0.1"),
        ("c9", "app", "10.20.0.9"),
        ("c8", "app", "192.0.2.1"),
        ("c7", "app", "10.20.0.6"),
    ];
    scene.snapshot = snapshot(&PODS.replace("ip: 10.20.0.1 ", "ip: 10.20.0.77 "), &links);
    let told = scene.told();
    assert_eq!(
        told,
        [
            "10.20.0.6 Sandbox false: lent to node node-b (IPBlock of UID uid-loan) | sandbox c7 (eth0) of Pod erp/app has it",
            "10.20.0.77 Pod false: node node-a has given it to nobody | the status of Pod erp/app has it",
            "10.20.0.9 Sandbox false: node node-a has given it to nobody | sandbox c9 (eth0) of Pod erp/app has it",
        ]
    );
}

#[test]
fn a_sandbox_with_another_address_is_told() {
    let mut scene = Scene::new();
    scene.snapshot = snapshot(PODS, &[("c1", "app", "192.0.2.1")]);
    let told = scene.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("10.20.0.1 Sandbox false: "), "{told:?}");
    assert!(told[0].ends_with("sandbox c1 (eth0) has 192.0.2.1"), "{told:?}");
}

#[test]
fn a_copy_that_says_other_things_is_told_address_by_address() {
    let mut scene = Scene::new();
    let allocations = &mut scene.objects.own[0].spec.allocations;
    allocations[0].name = Some("mallory".to_owned());
    allocations.remove(1);
    let mut more = allocations[0].clone();
    more.ordinal = 9;
    allocations.push(more);
    let mallory = "IPBlock 10-20-0-0-28: held by Pod erp/mallory (UID uid-app, sandbox c1)";
    assert_eq!(
        scene.told(),
        [
            format!("10.20.0.1 Block true: held by Pod erp/app (UID uid-app, sandbox c1) | {mallory}"),
            "10.20.0.5 Block true: kept for Pod erp/db-0 of StatefulSet db | IPBlock 10-20-0-0-28: nobody has it".to_owned(),
            format!("10.20.0.9 Block true: nobody has it | {mallory}"),
        ]
    );
}

#[test]
fn blocks_that_are_gone_lost_given_up_or_unknown() {
    let mut scene = Scene::new();
    scene.objects.own[0].uid = "another".to_owned();
    let told = scene.told();
    assert_eq!(told.len(), 1, "{told:?}");
    let gone = "there is no IPBlock 10-20-0-0-28 of node node-a and UID uid-block";
    assert_eq!(
        told[0],
        format!("10.20.0.0/28 Block true: a block of this node, of which 3 addresses are not free | {gone}")
    );
    let cidr = scene.blocks[0].cidr;
    scene.more = vec![Record::Lost { cidr }];
    assert!(scene.told()[0].starts_with("10.20.0.0/28 Block false: "));
    scene.more = vec![Record::Release { cidr }];
    assert_eq!(scene.told(), Vec::<String>::new(), "it is about to be deleted");

    let mut scene = Scene::new();
    scene.objects.own.push(object(&owned("10.20.0.32/28", &[])));
    let mut asks = object(&owned("10.20.0.99/32", &[]));
    (asks.spec.lender, asks.spec.lender_node) = (Some("l".to_owned()), Some("node-b".to_owned()));
    scene.objects.own.push(asks);
    let told = scene.told();
    assert_eq!(
        told,
        [
            "10.20.0.32/28 Block false: no block of this node | IPBlock 10-20-0-32-28 says that it is, with 0 allocations"
        ]
    );
}

#[test]
fn a_loan_that_the_lender_does_not_know_is_told() {
    let mut scene = Scene::new();
    let mut loan = owned("10.20.0.99/32", &[]);
    (loan.uid, loan.lender) = ("uid-99".to_owned(), Some(("10-20-0-96-28".to_owned(), "node-b".to_owned())));
    scene.objects.own.push(object(&loan));
    scene.blocks.push(loan);
    let lent = |node: &str| {
        let lent = Lent {
            node: node.to_owned(),
            loan: "uid-99".to_owned(),
            kept: None,
            since: Timestamp::UNIX_EPOCH,
        };
        object(&owned("10.20.0.96/28", &[(3, Slot::Lent(lent))]))
    };
    assert!(scene.told()[0].ends_with(
        "of IPBlock 10-20-0-96-28 of node node-b | IPBlock 10-20-0-96-28, of which it is borrowed, is gone"
    ));
    scene.objects.lenders.insert("10-20-0-96-28".to_owned(), lent("node-c"));
    assert!(
        scene.told()[0].ends_with("| IPBlock 10-20-0-96-28: lent to node node-c (IPBlock of UID uid-99)")
    );
    scene.objects.lenders.insert("10-20-0-96-28".to_owned(), lent("node-a"));
    assert_eq!(scene.told(), Vec::<String>::new());
}

#[test]
fn a_block_whose_pool_does_not_hold_it_is_told() {
    let mut scene = Scene::new();
    let yaml = PODS.replace("cidr: 10.20.0.0/24", "cidr: 10.20.1.0/24");
    scene.snapshot = snapshot(&yaml, &[("c1", "app", "10.20.0.1")]);
    let told = scene.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("10.20.0.0/28 Pool false: a block of IPPool erp, of which 3 addresses"),
        "{told:?}"
    );
}

#[test]
fn what_cannot_be_asked_is_said_and_without_a_server_nothing_is() {
    let scene = Scene::new();
    assert_eq!(scene.findings(None), Findings::default());
    let findings = scene.findings(Some(Err("refused".to_owned())));
    assert_eq!(findings.disagreements, Vec::new());
    assert_eq!(findings.unknown, ["the IPBlocks of this node could not be read: refused"]);
}
