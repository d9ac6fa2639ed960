use plainroute_blocks::{Holder, OwnedBlock};
use plainroute_config::{Input, Kind, load_inputs};

use super::*;
use crate::{
    index::{Index, Moment},
    ipam::Known,
    plan::{Local, Plan, Reason, plan},
    source::{Change, Feed, SourceName},
};

const ERP: &str = "ipRanges: [{ cidr: 10.20.0.0/24 }], excluded: [10.20.0.255]";

/// What files declare, pools of these names and specs.
fn declared(pools: &[(&str, &str)]) -> Snapshot {
    let pool = |(name, spec): &(&str, &str)| {
        let metadata = format!("metadata: {{ name: {name}, labels: {{ of: {name} }} }}");
        format!("---\napiVersion: plainroute.dev/v1alpha1\nkind: IPPool\n{metadata}\nspec: {{ {spec} }}\n")
    };
    let yaml: String = pools.iter().map(pool).collect();
    let inputs = [Input::Stdin(yaml.into_bytes())];
    let objects = if pools.is_empty() {
        Vec::new()
    } else {
        let loaded = load_inputs(&inputs).unwrap_or_else(|errors| panic!("{errors}"));
        loaded.objects.into_iter().map(|located| located.object).collect()
    };
    let mut index = Index::new([]);
    let change = Change::Replace { kinds: Kind::IN_FILES.to_vec(), objects };
    index.handle(Feed { source: SourceName::Files, change }, Moment::now());
    index.snapshot().unwrap()
}

/// A block of `erp` with these addresses held.
fn holdings(block: &str, held: &[&str]) -> Holdings {
    let (mut holdings, since) = (Holdings::default(), Timestamp::UNIX_EPOCH);
    let owned = OwnedBlock {
        pool: "erp".to_owned(),
        used: held.len(),
        free: 16 - held.len(),
        ..OwnedBlock::default()
    };
    holdings.blocks = Arc::new(BTreeMap::from([(block.parse().unwrap(), owned)]));
    let holder = |name: String| Holder {
        namespace: "erp".to_owned(),
        pod_uid: format!("uid-{name}"),
        container_id: format!("c-{name}"),
        interface: "eth0".to_owned(),
        stateful_set: None,
        since,
        name,
    };
    let held =
        held.iter().enumerate().map(|(n, address)| (address.parse().unwrap(), holder(format!("app-{n}"))));
    holdings.held = Arc::new(held.collect());
    holdings
}

fn planned(snapshot: &Snapshot, holdings: &Holdings) -> Plan {
    let local = Local {
        node: "node-a".to_owned(),
        router_id: None,
        found: Default::default(),
        damped: BTreeMap::new(),
        holdings: Some(holdings.clone()),
        now: Timestamp::UNIX_EPOCH,
    };
    plan(snapshot, &local)
}

/// The ranges of a pool that are in force.
fn ranges(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let pool = snapshot.pools().find(|(pool, _)| pool.name() == name);
    let ranges = |pool: &IpPool| pool.spec.ip_ranges.iter().map(|range| range.first().to_string()).collect();
    pool.map(|(pool, _)| ranges(pool)).unwrap_or_default()
}

#[test]
fn what_is_in_use_stays_until_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut pools = PoolsInForce::open(dir.path());
    let held = holdings("10.20.0.16/28", &["10.20.0.17", "10.20.0.18"]);
    let first = pools.judge(&declared(&[("erp", ERP)]), Some(&held));
    assert_eq!(*first.pool_notes, PoolNotes::default());
    // But for that it is advertised.
    let well = Some(Reason::NoAdvertisement);
    assert_eq!(planned(&first, &held).blocks[0].refused, well);

    let edited = declared(&[("erp", "ipRanges: [{ cidr: 10.30.0.0/24 }]")]);
    let judged = pools.judge(&edited, Some(&held));
    assert_eq!(ranges(&judged, "erp"), ["10.30.0.0", "10.20.0.16"]);
    let said = &planned(&judged, &held).conditions;
    let said = said.iter().find(|said| said.reason == "InUse").unwrap();
    assert!(said.is_problem());
    assert_eq!(
        said.to_string(),
        "IPPool/erp: InUse: what is declared does not hold 10.20.0.16/28, which is in use (erp/app-0: 10.20.0.17, \
         erp/app-1: 10.20.0.18); that stays in force until it is not, and nothing new is given out of it"
    );
    assert_eq!(planned(&judged, &held).blocks[0].refused, well);
    // Without it the block would be withdrawn.
    let without = planned(&edited, &held).blocks[0].refused.clone();
    assert_eq!(without, Some(Reason::Excluded { pool: "erp".to_owned() }));
    // New addresses come from what is declared.
    let known = Known::new(&edited, &judged.pool_notes, "node-a");
    assert_eq!(known.world.pools[0].spec.ip_ranges.len(), 1);
    // What is excluded does not cut into it either.
    let excluded =
        declared(&[("erp", "ipRanges: [{ cidr: 10.20.0.0/24 }], excluded: [10.20.0.20, 10.20.0.99]")]);
    let judged = pools.judge(&excluded, Some(&held));
    assert_eq!(planned(&judged, &held).blocks[0].refused, well);
    assert_ne!(planned(&excluded, &held).blocks[0].refused, well);

    let free = holdings("10.20.0.16/28", &[]);
    let judged = pools.judge(&edited, Some(&free));
    assert_eq!(
        (ranges(&judged, "erp"), &*judged.pool_notes),
        (vec!["10.30.0.0".to_owned()], &PoolNotes::default())
    );
}

#[test]
fn a_deleted_pool_stays_over_a_restart_while_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let held = holdings("10.20.0.16/28", &["10.20.0.17"]);
    PoolsInForce::open(dir.path()).judge(&declared(&[("erp", ERP)]), Some(&held));
    let gone = declared(&[]);
    let mut pools = PoolsInForce::open(dir.path());
    // Before it is known what is held, and after.
    for holdings in [None, Some(&held)] {
        let judged = pools.judge(&gone, holdings);
        let pool = judged.pools().next().unwrap().0;
        assert_eq!(pool.metadata.labels["of"], "erp");
        assert_eq!(ranges(&judged, "erp"), ["10.20.0.0"]);
        assert!(judged.pool_notes.in_use.contains_key("erp"));
        assert!(Known::new(&gone, &judged.pool_notes, "node-a").world.pools.is_empty());
    }
    let judged = pools.judge(&gone, Some(&Holdings::default()));
    assert_eq!(judged.pools().count(), 0);
    // A file that nobody can read is told and does not stop anything.
    let path = dir.path().join(FILE);
    fs::write(&path, "{").unwrap();
    assert_eq!(PoolsInForce::open(dir.path()).kept, BTreeMap::new());
}

#[test]
fn of_two_pools_that_share_addresses_the_one_that_was_there_first_gives_them_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut pools = PoolsInForce::open(dir.path());
    let both = declared(&[
        ("erp", ERP),
        ("all", "ipRanges: [{ cidr: 10.0.0.0/8 }]"),
        ("crm", "ipRanges: [{ cidr: 11.0.0.0/24 }]"),
    ]);
    let given = |judged: &Snapshot| -> Vec<String> {
        let known = Known::new(&both, &judged.pool_notes, "node-a");
        known.world.pools.iter().map(|pool| pool.name().to_owned()).collect()
    };
    let judged = pools.judge(&both, Some(&Holdings::default()));
    assert_eq!(given(&judged), ["all", "crm"]);
    // Which one is in use here counts more than its name.
    let held = holdings("10.20.0.16/28", &["10.20.0.17"]);
    let judged = pools.judge(&both, Some(&held));
    assert_eq!(given(&judged), ["crm", "erp"]);
    let plan = planned(&judged, &held);
    let said = plan.conditions.iter().find(|said| said.reason == "Refused").unwrap();
    assert_eq!(said.object, "IPPool/all");
    assert!(said.message.starts_with("shares addresses with IPPool erp"), "{said}");
}

#[test]
fn the_age_of_a_pool_counts_before_all_else() {
    let pool = |name: &str, created: &str| -> IpPool {
        let object = serde_json::json!({
            "apiVersion": "plainroute.dev/v1alpha1", "kind": "IPPool",
            "metadata": { "name": name, "creationTimestamp": created },
            "spec": { "ipRanges": [{ "cidr": "10.20.0.0/24" }] },
        });
        serde_json::from_value(object).unwrap()
    };
    let (older, newer) = (pool("older", "2026-01-01T00:00:00Z"), pool("erp", "2026-02-01T00:00:00Z"));
    let pools = BTreeMap::from([("older", &older), ("erp", &newer)]);
    let held = holdings("10.20.0.16/28", &["10.20.0.17"]);
    assert!(refused(&pools, Some(&held)).contains_key("erp"));
}
