//! What holds for the plan of any objects: asked of random ones, judged by the objects themselves.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use plainroute_agent::{
    flaps::{Damped, key},
    index::{Index, Snapshot},
    plan::{Local, Plan, plan},
    source::{Change, Feed, SourceName},
};
use plainroute_bgp::{AfiSafi, Prefix};
use plainroute_blocks::{Holder, Holdings, OwnedBlock};
use plainroute_config::{
    Allocation, BgpAdvertisement, BgpPeer, IpPool, LabelSelector, Labels, Namespace, Node, Object, Phase,
    Pod, PoolUsage, annotation,
};
use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::common;

fn parse<T: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Object {
    serde_json::from_value::<T>(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}")).into()
}

/// An address of the 64 that the pools share, often one of few, or one of nobody's.
fn any_address() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (4..8_u8).prop_map(|host| format!("10.20.0.{host}")),
        3 => (0..64_u8).prop_map(|host| format!("10.20.0.{host}")),
        2 => (0..16_u8).prop_map(|host| format!("2001:db8::{host:x}")),
        1 => (0..4_u8).prop_map(|host| format!("10.99.0.{host}")),
    ]
}

fn any_selector(key: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop_oneof![
        16 => Just(json!({})),
        4 => select(values).prop_map(move |value| json!({ "matchLabels": { key: value } })),
        1 => select(values).prop_map(move |value| {
            json!({ "matchExpressions": [{ "key": key, "operator": "NotIn", "values": [value] }] })
        }),
        1 => Just(json!({ "matchExpressions": [{ "key": key, "operator": "Exists" }] })),
        1 => Just(json!({ "matchExpressions": [{ "key": key, "operator": "DoesNotExist" }] })),
    ]
}

fn any_labels(key: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop_oneof![1 => Just(json!({})), 3 => select(values).prop_map(move |value| json!({ key: value }))]
}

const RACKS: &[&str] = &["r1", "r2"];
const TIERS: &[&str] = &["gold", "silver"];
const APPS: &[&str] = &["web", "db"];
const TYPES: &[&[&str]] = &[&["PodIP"], &["PodIP"], &["PodBlock"], &["PodIP", "PodBlock"]];
const SIDES: &[&str] = &["a", "b"];
const NAMESPACES: &[&str] = &["erp", "crm", "hr"];
const FAMILIES: &[&[&str]] = &[&["ipv4-unicast", "ipv6-unicast"], &["ipv4-unicast"], &["ipv6-unicast"]];
const POOLS: &[&str] = &["pool-a", "pool-b", "pool-c"];

fn any_pool_list() -> impl Strategy<Value = Option<String>> {
    prop::option::weighted(0.15, prop::sample::subsequence(POOLS, 0..=3).prop_map(|names| names.join(", ")))
}

fn any_pool() -> impl Strategy<Value = Object> {
    let range = prop_oneof![
        2 => prop_oneof![2 => Just(0), 1 => 1..4_u8].prop_map(|block| (
            json!({ "cidr": format!("10.20.0.{}/28", block * 16) }),
            json!([format!("10.20.0.{}", block * 16 + 3), format!("10.20.0.{}/30", block * 16 + 8)]),
        )),
        1 => (0..40_u8, 0..20_u8).prop_map(|(first, more)| (
            json!({ "start": format!("10.20.0.{first}"), "end": format!("10.20.0.{}", first + more) }),
            json!([format!("10.20.0.{first}")]),
        )),
        1 => Just((json!({ "cidr": "2001:db8::/124" }), json!(["2001:db8::2", "2001:db8::8/126"]))),
    ];
    let namespaces =
        prop_oneof![any_selector("tier", TIERS), any_selector("kubernetes.io/metadata.name", NAMESPACES)];
    let usage = prop_oneof![
        6 => Just(("Pod", "External")),
        3 => Just(("Pod", "Block")),
        1 => Just(("Egress", "External")),
    ];
    let parts = (select(POOLS), range, any::<bool>(), namespaces, any_selector("rack", RACKS), usage);
    (parts, any_labels("side", SIDES)).prop_map(
        |((name, (range, excluded), with_holes, namespaces, nodes, (usage, allocation)), labels)| {
            parse::<IpPool>(json!({
                "apiVersion": "plainroute.dev/v1alpha1", "kind": "IPPool",
                "metadata": { "name": name, "labels": labels },
                "spec": {
                    "ipRanges": [range], "excluded": if with_holes { excluded } else { json!([]) },
                    "namespaceSelector": namespaces, "nodeSelector": nodes, "usage": usage,
                    "allocation": allocation,
                },
            }))
        },
    )
}

fn any_namespace() -> impl Strategy<Value = Object> {
    (select(NAMESPACES), any_labels("tier", TIERS), any_pool_list()).prop_map(|(name, labels, pools)| {
        let annotations: BTreeMap<_, _> =
            pools.map(|pools| (annotation::IP_POOLS, pools)).into_iter().collect();
        parse::<Namespace>(
            json!({ "metadata": { "name": name, "labels": labels, "annotations": annotations } }),
        )
    })
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![-100..20_i64, -7200..0_i64]
        .prop_map(|seconds| common::local().now + SignedDuration::from_secs(seconds))
}

fn any_pod() -> impl Strategy<Value = Object> {
    let identity = (select(NAMESPACES), select(&["a", "b", "c", "d", "e", "f"][..]), any_labels("app", APPS));
    let place =
        (prop::option::weighted(0.9, select(&["node-a", "node-a", "node-a", "node-b"][..])), 0..10_u8);
    let addresses = prop::collection::vec(any_address(), 0..3);
    let phase = select(&["Pending", "Running", "Running", "Running", "Unknown", "Succeeded", "Failed"][..]);
    let times = (prop::option::of(any_time()), prop::option::weighted(0.2, any_time()));
    let ready = (any::<bool>(), prop::option::of(any_time()));
    let annotations = (any_pool_list(), prop::option::of(select(&["v-1", "v-2", ""][..])));
    (identity, place, addresses, phase, times, ready, annotations).prop_map(
        |((namespace, name, labels), (node, host), addresses, phase, times, (ready, since), (pools, interface))| {
            let addresses: Vec<Value> = addresses.into_iter().map(|ip| json!({ "ip": ip })).collect();
            let mut annotations = BTreeMap::new();
            annotations.extend(pools.map(|pools| (annotation::IP_POOLS, pools)));
            annotations.extend(interface.map(|name| (annotation::HOST_INTERFACE, name.to_owned())));
            let (created, deleted) = times;
            parse::<Pod>(json!({
                "metadata": {
                    "namespace": namespace, "name": name, "labels": labels, "annotations": annotations,
                    "creationTimestamp": created, "deletionTimestamp": deleted,
                },
                "spec": { "nodeName": node, "hostNetwork": host == 0 },
                "status": {
                    "phase": phase, "podIPs": addresses,
                    "conditions": [{
                        "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since,
                    }],
                },
            }))
        },
    )
}

fn any_advertisement() -> impl Strategy<Value = Object> {
    let selectors = (
        any_selector("tier", TIERS),
        any_selector("app", APPS),
        any_selector("side", SIDES),
        any_selector("side", SIDES),
    );
    let withdraw = (prop::bool::weighted(0.4), any::<bool>(), 0..120_u32);
    let attributes = (prop::option::of(0..3_u32), prop::option::of(0..3_u32), 0..3_u8, 0..3_u8);
    let types = select(TYPES);
    ((select(&["adv-a", "adv-b", "adv-c"][..]), types), selectors, withdraw, attributes).prop_map(
        |((name, types), (namespace, pod, pool, peer), (not_ready, terminating, seconds), (preference, med, prepend, community))| {
            parse::<BgpAdvertisement>(json!({
                "apiVersion": "plainroute.dev/v1alpha1", "kind": "BGPAdvertisement", "metadata": { "name": name },
                "spec": {
                    "types": types,
                    "namespaceSelector": namespace, "podSelector": pod, "poolSelector": pool, "peerSelector": peer,
                    "attributes": {
                        "communities": [format!("64512:{community}")],
                        "localPreference": preference, "med": med, "asPathPrepend": prepend,
                    },
                    "withdraw": {
                        "notReady": not_ready, "terminating": terminating,
                        "minReadySeconds": if not_ready { seconds } else { 0 },
                    },
                },
            }))
        },
    )
}

fn any_peer() -> impl Strategy<Value = Object> {
    let families = select(FAMILIES);
    let at = prop_oneof![
        4 => Just(json!({ "peerAddress": "172.16.0.254" })),
        1 => Just(json!({ "interface": "eth0" })),
    ];
    let few = json!([{ "cidr": "10.20.0.0/29", "ge": 32 }]);
    let export = prop_oneof![14 => Just(None), 1 => Just(Some(few)), 1 => Just(Some(json!([])))];
    let at = (at, export);
    (select(&["tor-a", "tor-b"][..]), any_labels("side", SIDES), any_selector("rack", RACKS), families, at)
        .prop_map(|(name, labels, nodes, families, (mut spec, export))| {
            if let Some(export) = export {
                spec["export"] = export;
            }
            spec["localASN"] = json!(64512);
            spec["peerASN"] = json!(64600);
            spec["nodeSelector"] = nodes;
            spec["families"] = json!(families);
            parse::<BgpPeer>(json!({
                "apiVersion": "plainroute.dev/v1alpha1", "kind": "BGPPeer",
                "metadata": { "name": name, "labels": labels }, "spec": spec,
            }))
        })
}

fn any_node() -> impl Strategy<Value = Object> {
    any_labels("rack", RACKS).prop_map(|labels| {
        let addresses = json!([{ "type": "InternalIP", "address": "172.16.0.1" }]);
        let status = json!({ "addresses": addresses });
        parse::<Node>(json!({ "metadata": { "name": "node-a", "labels": labels }, "status": status }))
    })
}

/// Everything that the sources could say, each with its source; a later object of a name replaces an earlier one.
fn any_world() -> impl Strategy<Value = Vec<(SourceName, Object)>> {
    use prop::collection::vec;
    let objects = (
        vec(any_pool(), 2..6),
        vec(any_namespace(), 0..5),
        vec(any_pod(), 4..16),
        vec(any_advertisement(), 1..4),
        vec(any_peer(), 2..5),
        vec(any_node(), 0..2),
    );
    let sources = vec(select(&[SourceName::Files, SourceName::Kubernetes][..]), 40);
    (objects, sources).prop_map(|((pools, namespaces, pods, advertisements, peers, nodes), sources)| {
        let all = [pools, namespaces, pods, advertisements, peers, nodes].into_iter().flatten();
        let all: BTreeMap<_, _> = sources
            .into_iter()
            .zip(all)
            .map(|(source, object)| ((source, object.key()), (source, object)))
            .collect();
        all.into_values().collect()
    })
}

fn fed<'a>(world: impl IntoIterator<Item = &'a (SourceName, Object)>) -> Snapshot {
    let mut index = Index::new([]);
    for (source, object) in world {
        index.handle(
            Feed { source: *source, change: Change::Apply(Box::new(object.clone())) },
            plainroute_agent::index::Moment::now(),
        );
    }
    index.snapshot().expect("nothing is awaited")
}

/// Node `node-a` at noon; every other Pod has been restless.
fn local(snapshot: &Snapshot) -> Local {
    let local = common::local();
    let damped = Damped {
        last_loss: local.now - SignedDuration::from_secs(10),
        until: local.now + SignedDuration::from_secs(90),
    };
    let pods = snapshot.pods().step_by(2).map(|(pod, _)| (key(pod), damped));
    let holdings = (!snapshot.namespaces().count().is_multiple_of(3)).then(|| holdings(snapshot));
    Local { damped: pods.collect(), holdings, ..local }
}

/// The node owns the first two blocks of four addresses of each pool, and has given every other Pod an address of one.
fn holdings(snapshot: &Snapshot) -> Holdings {
    let pools = snapshot
        .pools()
        .map(|(pool, _)| pool)
        .filter(|pool| pool.spec.ip_ranges[0].family() == AfiSafi::Ipv4Unicast);
    let blocks: BTreeMap<Prefix, OwnedBlock> = pools
        .flat_map(|pool| {
            let IpAddr::V4(first) = pool.spec.ip_ranges[0].first() else { unreachable!("by the filter") };
            [0, 4].map(|more| {
                let base = std::net::Ipv4Addr::from_bits((first.to_bits() & !3) + more);
                let block = OwnedBlock { pool: pool.name().to_owned(), ..OwnedBlock::default() };
                (Prefix::v4(base, 30).expect("a prefix"), block)
            })
        })
        .collect();
    let addresses = blocks.keys().map(|block| block.last_address());
    let pods: Vec<&Pod> = snapshot.pods().map(|(pod, _)| pod).step_by(2).collect();
    let first = pods.iter().filter_map(|pod| Some((*pod.pod_ips.first()?, *pod)));
    let given = first.chain(addresses.zip(pods.iter().copied()));
    let held = given.map(|(address, pod)| {
        let holder = Holder {
            namespace: pod.namespace().to_owned(),
            name: pod.name().to_owned(),
            pod_uid: "uid".to_owned(),
            container_id: "c1".to_owned(),
            interface: "eth0".to_owned(),
            stateful_set: None,
            since: common::local().now,
        };
        (address, holder)
    });
    Holdings { held: Arc::new(held.collect()), blocks: Arc::new(blocks) }
}

/// Whether this node gave `address` to `pod`, or gives none out.
fn gave(local: &Local, pod: &Pod, address: IpAddr) -> bool {
    local.holdings.as_ref().is_none_or(|holdings| {
        let holder = holdings.held.get(&address);
        holder.is_some_and(|holder| (&*holder.namespace, &*holder.name) == (pod.namespace(), pod.name()))
    })
}

fn none() -> Labels {
    Labels::new()
}

/// Whether `pool` gives `address` to `pod` on this node, by what the objects say and nothing that the plan computes.
fn binds(snapshot: &Snapshot, node: &str, pool: &IpPool, pod: &Pod, address: IpAddr) -> bool {
    let unknown = Namespace::named(pod.namespace());
    let namespace = snapshot.namespace(pod.namespace()).unwrap_or(&unknown);
    let node_labels = snapshot.node(node).map_or_else(none, |node| node.labels().clone());
    let lists =
        [namespace.metadata.annotation(annotation::IP_POOLS), pod.metadata.annotation(annotation::IP_POOLS)];
    let spec = &pool.spec;
    spec.usage == PoolUsage::Pod
        && spec.ip_ranges.iter().any(|range| range.first() <= address && address <= range.last())
        && !spec.excluded.iter().any(|hole| hole.prefix().contains_address(address))
        && spec.namespace_selector.matches(namespace.labels())
        && spec.node_selector.matches(&node_labels)
        && lists.into_iter().flatten().all(|list| list.split(", ").any(|name| name == pool.name()))
}

/// Every export is lawful: of a live Pod of this node, by a pool that is bound to it, to a peer that takes it, and
/// of no two Pods.
fn judge(plan: &Plan, snapshot: &Snapshot, local: &Local) -> Result<(), String> {
    let mut holders = BTreeMap::new();
    for (planned, address) in plan.addresses().filter(|(_, address)| !address.advertise.is_empty()) {
        let address = address.address;
        let what = format!("{address} of {}/{}", planned.namespace, planned.name);
        let (pod, _) = snapshot
            .pods()
            .find(|(pod, _)| (pod.namespace(), pod.name()) == (&*planned.namespace, &*planned.name))
            .ok_or_else(|| format!("{what}: no such Pod"))?;
        let live = !matches!(pod.phase, Phase::Succeeded | Phase::Failed);
        if pod.node_name.as_ref() != Some(&local.node) || pod.host_network || !live {
            return Err(format!("{what}: not a live Pod of this node"));
        }
        let given = local.holdings.is_some() && gave(local, pod, address);
        if !given && !pod.pod_ips.contains(&address) {
            return Err(format!("{what}: not an address of the Pod"));
        }
        let lets = |pool: &IpPool| pool.spec.allocation == Allocation::External || gave(local, pod, address);
        if !snapshot.pools().any(|(pool, _)| binds(snapshot, &local.node, pool, pod, address) && lets(pool)) {
            return Err(format!("{what}: no pool binds it"));
        }
        if let Some(other) = holders.insert(address, &planned.name).filter(|other| **other != planned.name) {
            return Err(format!("{what}: {other} advertises it too"));
        }
    }
    let node_labels = snapshot.node(&local.node).map_or_else(none, |node| node.labels().clone());
    for block in plan.blocks.iter().filter(|block| !block.advertise.is_empty()) {
        let prefix = block.cidr.prefix();
        let mut all = std::iter::successors(Some(prefix.address()), |address| {
            let IpAddr::V4(address) = address else { return None };
            Some(std::net::Ipv4Addr::from_bits(address.to_bits() + 1).into())
        });
        let mut addresses = all.by_ref().take(4);
        let lends = |pool: &IpPool| {
            pool.name() == block.pool
                && pool.spec.node_selector.matches(&node_labels)
                && addresses.all(|address| pool.spec.contains(address))
        };
        let owned = local.holdings.as_ref().and_then(|holdings| holdings.blocks.get(&prefix));
        if owned.is_none_or(|owned| owned.pool != block.pool) {
            return Err(format!("{prefix}: not a block of this node"));
        }
        if !snapshot.pools().map(|(pool, _)| pool).any(lends) {
            return Err(format!("{prefix}: not whole of its pool, or not of one for this node"));
        }
    }
    for route in plan.advertisements() {
        let takes = |peer: &BgpPeer| {
            // The rules of the random worlds say no more than a prefix.
            let rules = peer.spec.export.as_ref();
            let lets_out =
                rules.is_none_or(|rules| rules.iter().any(|rule| rule.cidr.prefix().contains(route.prefix)));
            peer.name() == route.peer && lets_out && peer.spec.families().contains(route.prefix.family())
        };
        if !snapshot.peers().any(|(peer, _)| takes(peer)) {
            return Err(format!("{} goes to {}, which cannot take it", route.prefix, route.peer));
        }
    }
    Ok(())
}

/// Every Pod is there, and each address is advertised or says why not, never both.
fn accounts_for_all(plan: &Plan, snapshot: &Snapshot) -> Result<(), String> {
    let planned: BTreeSet<_> = plan.pods.iter().map(|pod| (&*pod.namespace, &*pod.name)).collect();
    let known: BTreeSet<_> = snapshot.pods().map(|(pod, _)| (pod.namespace(), pod.name())).collect();
    if planned != known || plan.pods.len() != known.len() {
        return Err(format!("{planned:?} is not {known:?}"));
    }
    for pod in &plan.pods {
        if pod.refused.is_some() != pod.addresses.is_empty() {
            return Err(format!("{pod:?} is neither refused nor has it addresses, or both"));
        }
        for address in &pod.addresses {
            let advertised = !address.advertise.is_empty() || address.block.is_some();
            if address.refused.is_some() == advertised {
                return Err(format!(
                    "{address:?} of {} is neither advertised nor refused, or both",
                    pod.name
                ));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exports_are_a_subset_of_the_pools_that_are_bound_to_the_pod(world in any_world()) {
        let snapshot = fed(&world);
        let local = local(&snapshot);
        prop_assert_eq!(judge(&plan(&snapshot, &local), &snapshot, &local), Ok(()));
    }

    #[test]
    fn each_pod_is_advertised_or_carries_a_reason(world in any_world()) {
        let snapshot = fed(&world);
        prop_assert_eq!(accounts_for_all(&plan(&snapshot, &local(&snapshot)), &snapshot), Ok(()));
    }

    #[test]
    fn the_order_in_which_objects_come_does_not_matter(
        (world, shuffled) in any_world().prop_flat_map(|world| (Just(world.clone()), Just(world).prop_shuffle())),
    ) {
        let local = common::local();
        let first = plan(&fed(&world), &local);
        prop_assert_eq!(&first, &plan(&fed(&world), &local));
        prop_assert_eq!(&first, &plan(&fed(&shuffled), &local));
        // Nor does what was said before the last word.
        prop_assert_eq!(&first, &plan(&fed(shuffled.iter().chain(&world)), &local));
    }

    #[test]
    fn until_next_change_time_changes_nothing(world in any_world(), part in 0..1000_i32) {
        let snapshot = fed(&world);
        let local = local(&snapshot);
        let first = plan(&snapshot, &local);
        let quiet = match first.next_change {
            Some(due) => {
                prop_assert!(due > local.now);
                // Not the last moment: how near a caller's clock comes is for it to say.
                due.duration_since(local.now) * part / 1000
            }
            None => SignedDuration::from_hours(24 * 365),
        };
        let later = Local { now: local.now + quiet, ..local.clone() };
        prop_assert_eq!(&first, &plan(&snapshot, &later));
        if let Some(due) = first.next_change {
            let due = plan(&snapshot, &Local { now: due, ..local });
            prop_assert_ne!(first.next_change, due.next_change);
        }
    }

    #[test]
    fn any_plan_comes_back_from_its_json(world in any_world()) {
        let snapshot = fed(&world);
        let written = serde_json::to_value(plan(&snapshot, &local(&snapshot))).expect("JSON");
        let back: Plan = serde_json::from_value(written.clone()).expect("a plan");
        prop_assert_eq!(serde_json::to_value(&back).expect("JSON"), written);
    }
}

/// Two Pods of `erp` whose pool is bound to `erp`; `change` is what the judge is told instead.
fn deceived(change: impl Fn(&mut Object)) -> Result<(), String> {
    let yaml = "
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: { name: pool-a }
spec:
  ipRanges: [{ cidr: 10.20.0.0/24 }]
  allocation: External
  namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: erp } }
---
apiVersion: plainroute.dev/v1alpha1
kind: BGPAdvertisement
metadata: { name: adv }
spec: { types: [PodIP] }
---
apiVersion: plainroute.dev/v1alpha1
kind: BGPPeer
metadata: { name: tor-a }
spec: { localASN: 64512, peerASN: 64600, peerAddress: 172.16.0.254 }
---
apiVersion: v1
kind: Pod
metadata: { name: a, namespace: erp }
spec: { nodeName: node-a }
status: { phase: Running, podIPs: [{ ip: 10.20.0.1 }] }
";
    let local = common::local();
    let mut objects = common::objects(yaml);
    let plan = plan(&common::snapshot(objects.clone(), Vec::new(), Vec::new()), &local);
    assert_eq!(plan.advertisements().count(), 1);
    objects.iter_mut().for_each(change);
    judge(&plan, &common::snapshot(objects, Vec::new(), Vec::new()), &local)
}

#[test]
fn the_judge_of_exports_can_say_no() {
    assert_eq!(deceived(|_| {}), Ok(()));
    let pool = |object: &mut Object, change: &dyn Fn(&mut IpPool)| {
        if let Object::IpPool(pool) = object {
            change(pool);
        }
    };
    let pod = |object: &mut Object, change: &dyn Fn(&mut Pod)| {
        if let Object::Pod(pod) = object {
            change(pod);
        }
    };
    let crm = json!({ "matchLabels": { "kubernetes.io/metadata.name": "crm" } });
    let crm: LabelSelector = serde_json::from_value(crm).expect("a selector");
    let lies: [&dyn Fn(&mut Object); 9] = [
        &|object| {
            if let Object::BgpPeer(peer) = object {
                peer.spec.export = Some(Vec::new());
            }
        },
        &|object| pool(object, &|pool| pool.spec.namespace_selector = crm.clone()),
        &|object| pool(object, &|pool| pool.spec.excluded = vec!["10.20.0.1".parse().expect("an address")]),
        &|object| pool(object, &|pool| pool.spec.usage = PoolUsage::Egress),
        &|object| pool(object, &|pool| pool.spec.node_selector = crm.clone()),
        &|object| pod(object, &|pod| pod.node_name = Some("node-b".to_owned())),
        &|object| pod(object, &|pod| pod.phase = Phase::Failed),
        &|object| pod(object, &|pod| pod.pod_ips.clear()),
        &|object| {
            if let Object::BgpPeer(peer) = object {
                peer.spec.families = vec![plainroute_bgp::AfiSafi::Ipv6Unicast.into()];
            }
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        assert!(deceived(lie).is_err(), "lie {number} was believed");
    }
}

#[test]
fn the_judge_of_exports_sees_two_pods_with_one_address() {
    let (snapshot, local) = (fed(&[]), common::local());
    let mut plan = plan(&snapshot, &local);
    assert_eq!(accounts_for_all(&plan, &snapshot), Ok(()));
    let yaml = |name: &str| {
        format!(
            "{{ apiVersion: v1, kind: Pod, metadata: {{ name: {name}, namespace: erp }}, spec: {{ nodeName: node-a }}, \
             status: {{ phase: Running, podIPs: [{{ ip: 10.20.0.1 }}] }} }}"
        )
    };
    let both = common::objects(&format!("{}\n---\n{}", yaml("a"), yaml("b")));
    let pool = "{ apiVersion: plainroute.dev/v1alpha1, kind: IPPool, metadata: { name: p }, \
                spec: { ipRanges: [{ cidr: 10.20.0.0/24 }], allocation: External } }";
    let objects = [both, common::objects(pool)].concat();
    let snapshot = common::snapshot(objects, Vec::new(), Vec::new());
    let address = json!({ "address": "10.20.0.1", "advertise": { "tor-a": {} } });
    for name in ["a", "b"] {
        let pod = json!({ "namespace": "erp", "name": name, "addresses": [address] });
        plan.pods.push(serde_json::from_value(pod).expect("a Pod's plan"));
    }
    let verdict = judge(&plan, &snapshot, &local);
    assert!(verdict.as_ref().is_err_and(|error| error.contains("advertises it too")), "{verdict:?}");
    // And an address that is neither advertised nor refused is missed by nobody.
    plan.pods[0].addresses[0].advertise.clear();
    assert!(accounts_for_all(&plan, &snapshot).is_err());
}

#[test]
fn the_random_worlds_reach_every_rule() {
    let mut runner = TestRunner::deterministic();
    let worlds = any_world();
    let (mut reached, mut exports, mut timed, mut blocks, mut within) = (BTreeSet::new(), 0, 0, 0, 0);
    for _ in 0..1000 {
        let world = worlds.new_tree(&mut runner).expect("a world").current();
        let snapshot = fed(&world);
        let plan = plan(&snapshot, &local(&snapshot));
        reached.extend(crate::reasons(&plan).map(crate::word));
        exports += plan.advertisements().count();
        blocks += plan.blocks.iter().filter(|block| !block.advertise.is_empty()).count();
        within += plan.addresses().filter(|(_, address)| address.block.is_some()).count();
        timed += usize::from(plan.next_change.is_some());
    }
    assert_eq!(reached.len(), crate::REASONS, "{reached:?}");
    assert!(exports > 100 && timed > 5, "{exports} exports, {timed} plans that time changes");
    assert!(blocks > 50 && within > 10, "{blocks} blocks advertised, {within} Pods' addresses within");
}
