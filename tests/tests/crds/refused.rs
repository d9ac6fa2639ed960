//! Bad objects, refused by the API server with the message of their rule, and by the loader too; and where the two differ.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use plainroute_config::{Kind, crd};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{cluster::Cluster, loader, objects};

const PEER: Kind = Kind::BgpPeer;
const ADVERTISEMENT: Kind = Kind::BgpAdvertisement;
const POOL: Kind = Kind::IpPool;
const EGRESS: Kind = Kind::Egress;
const BLOCK: Kind = Kind::IpBlock;

/// One bad object of refused.yaml.
#[derive(Deserialize)]
struct Bad {
    kind: String,
    /// What makes a sound object bad.
    with: Value,
    /// Where the API server says it.
    field: String,
    /// What it says.
    says: String,
}

fn table() -> Result<Vec<Bad>> {
    Ok(serde_saphyr::from_str(include_str!("refused.yaml"))?)
}

/// What may be there, but not become so.
const CHANGES: [(Kind, &str, &str, &str); 6] = [
    (POOL, "usage: Egress", "spec.usage", "cannot be changed: make another pool"),
    (POOL, "allocation: External", "spec.allocation", "cannot be changed: make another pool"),
    (BLOCK, "cidr: 10.20.0.32/28", "spec.cidr", "cannot be changed: make another block"),
    (BLOCK, "pool: crm", "spec.pool", "cannot be changed: make another block"),
    (BLOCK, "node: node-b", "spec.node", "cannot be changed: the block is released first"),
    (BLOCK, "{ lender: a, lenderNode: b }", "spec.lender", "cannot be changed: make another block"),
];

/// What docs/reference/crds.md says that only the agent finds.
const BY_THE_AGENT: [(Kind, &str, &str); 7] = [
    (
        POOL,
        "ipRanges: [{ start: 'fd00::1', end: 'fd00::9' }, { start: 'fd00::5', end: 'fd00::c' }]",
        "overlaps",
    ),
    (POOL, "ipRanges: [{ cidr: 'fd00::10/124' }, { start: 'fd00::5', end: 'fd00::2c' }]", "overlaps"),
    (POOL, "ipRanges: [{ cidr: 10.20.0.16/28 }, { start: 10.20.0.1, end: 10.20.0.99 }]", "overlaps"),
    (POOL, "{ ipRanges: [{ start: 10.20.0.1, end: 10.20.0.9 }], excluded: [10.20.0.10] }", "in none of"),
    (POOL, "{ ipRanges: [{ start: 10.20.0.1, end: 10.20.0.30 }], blockSize: 28 }", "does not fit"),
    (POOL, "{ ipRanges: [{ start: 'fd00::1', end: 'fd00::1e' }], blockSize: 124 }", "does not fit"),
    (POOL, "{ ipRanges: [{ start: 10.20.0.1, end: 10.20.0.9 }], excluded: [10.20.0.8/29] }", "in none of"),
];

pub(crate) async fn each_rule(cluster: &Cluster) -> Result<()> {
    // The controls: what the changes begin with is sound.
    for kind in [PEER, ADVERTISEMENT, POOL, EGRESS, BLOCK] {
        let object = objects::sound(kind);
        let said = (cluster.judge(&object).await?, loader::judge(&object));
        ensure!(said == (None, None), "a sound {kind} is refused: {said:?}");
    }
    let mut wrong = Vec::new();
    for Bad { kind, with, field, says } in table()? {
        let object = objects::with(Kind::from_name(&kind).context("a kind")?, &with);
        match cluster.judge(&object).await? {
            None => wrong.push(format!("{kind} with {with}: the API server takes it")),
            Some(said) if !said.contains(&format!("{field}: ")) || !said.contains(&says) => {
                wrong.push(format!("{kind} with {with}: not `{field}: {says}` but: {said}"));
            }
            Some(_) => {}
        }
        if loader::judge(&object).is_none() {
            wrong.push(format!("{kind} with {with}: the loader takes it"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Every message of every rule of every kind stands in a table.
pub(crate) fn no_rule_is_untested() -> Result<()> {
    fn messages(kind: Kind, schema: &Value, found: &mut BTreeSet<(Kind, String)>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            found.insert((kind, rule["message"].as_str().unwrap_or_default().to_owned()));
        }
        for below in schema["properties"].as_object().into_iter().flat_map(|fields| fields.values()) {
            messages(kind, below, found);
        }
        for below in ["items", "additionalProperties"] {
            schema.get(below).into_iter().for_each(|below| messages(kind, below, found));
        }
    }
    let mut rules = BTreeSet::new();
    for definition in crd::definitions() {
        let object = definition.object();
        messages(definition.kind, &object["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut rules);
    }
    ensure!(rules.len() > 50, "only {} rules were found", rules.len());
    for message in [V4, V6, TO] {
        rules.remove(&(BLOCK, message.to_owned()));
    }
    for (kind, _, _, message) in CHANGES {
        rules.remove(&(kind, message.to_owned()));
    }
    for Bad { kind, says, .. } in table()? {
        rules.remove(&(Kind::from_name(&kind).context("a kind")?, says));
    }
    ensure!(rules.is_empty(), "no bad object shows {rules:#?}");
    Ok(())
}

/// What the rules of an IPBlock's name say.
const V4: &str = "the name must be the CIDR's: 10-20-0-16-28";
const V6: &str =
    "the name must be the CIDR's, with all eight groups in full: fd00-0020-0000-0000-0000-0000-0000-0010-124";
const TO: &str = "the name must end in -to- and a hash where transfer is set, and only there";

pub(crate) async fn names_of_blocks(cluster: &Cluster) -> Result<()> {
    let v6 = "{ cidr: 'fd00:20::10/124', within: 'fd00:20::/116' }";
    let odd = "{ cidr: 'FD00:0020:0::10/124', within: 'fd00:20::/116' }";
    let loan = "{ cidr: 10.20.0.5/32, lender: 10-20-0-5-32, lenderNode: b, transfer: true }";
    let full = "fd00-0020-0000-0000-0000-0000-0000-0010";
    let names = [
        ("{}", "10-20-0-16-28".to_owned(), ""),
        ("{}", "10-20-0-17-28".to_owned(), V4),
        ("{}", "10-20-0-16-2".to_owned(), V4),
        ("{}", "block-of-node-a".to_owned(), V4),
        ("{}", "10-20-0-16-28-to-35cd05cf5a92c65e".to_owned(), TO),
        (v6, format!("{full}-124"), ""),
        (odd, format!("{full}-124"), ""),
        (v6, format!("{full}-125"), V6),
        (v6, format!("{full}-129"), ""),
        (v6, "fd00-20-0-0-0-0-0-10-124".to_owned(), V6),
        (v6, format!("{full}-124-to-35cd05cf5a92c65e"), TO),
        (loan, "10-20-0-5-32-to-35cd05cf5a92c65e".to_owned(), ""),
        (loan, "10-20-0-5-32".to_owned(), TO),
        (loan, "10-20-0-5-32-to-35cd".to_owned(), TO),
    ];
    for (change, name, message) in names {
        let mut object = objects::changed(BLOCK, change)?;
        object["metadata"]["name"] = json!(name);
        let said = cluster.judge(&object).await?;
        // Of an impossible length it is the evaluation that fails: refused too, in other words.
        let right = match (&said, message) {
            (None, "") => !name.ends_with("129"),
            (Some(_), "") => name.ends_with("129"),
            (said, message) => said.as_ref().is_some_and(|said| said.contains(message)),
        };
        ensure!(right, "{change} by the name {name}: {said:?}");
    }
    Ok(())
}

pub(crate) async fn changes(cluster: &Cluster) -> Result<()> {
    for (kind, change, field, message) in CHANGES {
        ensure!(cluster.apply(&objects::sound(kind)).await?.is_none(), "a sound {kind} is refused");
        let mut changed = objects::changed(kind, change)?;
        // The same object, also where its name would follow what changes.
        changed["metadata"]["name"] = objects::sound(kind)["metadata"]["name"].clone();
        let said = cluster.apply(&changed).await?.unwrap_or_default();
        ensure!(said.contains(field) && said.contains(message), "{kind} becomes {change}: {said}");
    }
    // The control: what is not held still may change.
    let wider = objects::changed(POOL, "ipRanges: [{ cidr: 10.20.0.0/23 }]")?;
    ensure!(cluster.apply(&wider).await?.is_none(), "the ranges of a pool may change");
    let held = "allocations: [{ ordinal: 15, podUID: u, namespace: erp, name: p, containerID: c, since: '2026-11-22T11:00:00Z' }]";
    let said = cluster.apply(&objects::changed(BLOCK, held)?).await?;
    ensure!(said.is_none(), "the allocations of a block may change: {said:?}");
    Ok(())
}

pub(crate) async fn by_the_agent_only(cluster: &Cluster) -> Result<()> {
    for (kind, change, message) in BY_THE_AGENT {
        let object = objects::changed(kind, change)?;
        let said = cluster.judge(&object).await?;
        ensure!(said.is_none(), "the API server finds it after all: {change}: {said:?}");
        let said = loader::judge(&object).unwrap_or_default();
        ensure!(said.contains(message), "{kind} with {change}: {said}");
    }
    Ok(())
}

/// The API server bounds what the rules of one object may cost while they run: the largest objects stay below that.
pub(crate) async fn not_the_largest(cluster: &Cluster) -> Result<()> {
    let list = |count: usize, entry: &dyn Fn(usize) -> Value| (0..count).map(entry).collect::<Vec<_>>();
    let long = |n: usize, last: &str| format!("2001:0db8:ffff:ffff:ffff:{n:04x}:ffff:{last}");
    let ipv4 = |n: usize| json!({ "start": format!("100.100.{}.101", n + 100), "end": format!("100.100.{}.250", n + 100) });
    let ipv6 = |n: usize| json!({ "start": long(n, "fffe"), "end": long(n, "ffff") });
    let both = |n: usize| json!({ "cidr": format!("2001:db8:ffff:ffff:ffff:{n:04x}::/96") });
    let out = |n: usize| json!(long(63 - n % 64, "ffff"));
    let rule = |n: usize| {
        json!({
            "cidr": format!("100.{}.{}.0/24", 100 + n / 256, n % 256),
            "ge": 25, "le": 32,
            "communities": list(32, &|n| json!(format!("65535:{}", 65_000 + n))),
            "largeCommunities": list(32, &|n| json!(format!("4294967295:4294967295:{}", 4_294_967_200_u64 + n as u64))),
        })
    };
    let key = |n: usize| json!({ "sendID": n, "receiveID": n, "algorithm": "hmac(sha1)", "file": "/key" });
    let held = |n: usize| {
        json!({
            "ordinal": n, "podUID": "0b5d6f0e-3c25-4c07-a4f5-4f3ed9ae35f1", "namespace": "erp", "name": format!("app-{n}"),
            "containerID": "c", "interface": "eth0", "statefulSet": "app", "since": "2026-11-22T11:00:00Z",
        })
    };
    let largest = [
        (POOL, json!({ "ipRanges": list(64, &ipv4) })),
        (POOL, json!({ "ipRanges": list(64, &ipv6) })),
        (POOL, json!({ "ipRanges": list(64, &both), "excluded": list(64, &out), "blockSize": 128 })),
        (
            PEER,
            json!({ "import": list(256, &rule), "export": list(256, &rule), "tcpAO": { "keys": list(64, &key) } }),
        ),
        (EGRESS, json!({ "egressIPs": list(64, &|n| json!(long(n, "ffff"))) })),
        (
            BLOCK,
            json!({ "cidr": "10.16.0.0/20", "within": "10.16.0.0/20", "allocations": list(4096, &held) }),
        ),
    ];
    for (kind, change) in largest {
        let mut object = objects::with(kind, &change);
        if kind != BLOCK {
            object["metadata"]["name"] = json!("largest");
        }
        let begun = std::time::Instant::now();
        let said = cluster.judge(&object).await?;
        println!("{kind} of {} bytes: {:?}", object.to_string().len(), begun.elapsed());
        ensure!(said.is_none(), "{kind}: {said:?}");
        let said = loader::judge(&object);
        ensure!(said.is_none(), "{kind}: the loader says {said:?}");
    }
    Ok(())
}

pub(crate) async fn by_the_api_server_only(cluster: &Cluster) -> Result<()> {
    let list =
        |count: usize, entry: &dyn Fn(usize) -> String| (0..count).map(entry).collect::<Vec<_>>().join(", ");
    let range = |n: usize| format!("{{ cidr: 10.0.{n}.0/24 }}");
    let rule = |n: usize| format!("{{ cidr: 10.{}.{}.0/24 }}", n / 256, n % 256);
    let community = |n: usize| format!("'1:{n}'");
    let most = [
        (POOL, format!("ipRanges: [{}]", list(64, &range)), format!("ipRanges: [{}]", list(65, &range))),
        (PEER, format!("import: [{}]", list(256, &rule)), format!("import: [{}]", list(257, &rule))),
        (
            PEER,
            format!("export: [{{ cidr: 10.0.0.0/8, communities: [{}] }}]", list(32, &community)),
            format!("export: [{{ cidr: 10.0.0.0/8, communities: [{}] }}]", list(33, &community)),
        ),
    ];
    for (kind, all, too_many) in most {
        let object = objects::changed(kind, &all)?;
        let said = cluster.judge(&object).await?;
        ensure!(said.is_none(), "{kind} with as many as may be: {said:?}");
        let object = objects::changed(kind, &too_many)?;
        let said = cluster.judge(&object).await?.unwrap_or_default();
        ensure!(said.contains("must have at most"), "{kind} with one more: {said}");
        ensure!(loader::judge(&object).is_none(), "the loader has no such limit");
    }
    let mut null = objects::sound(PEER);
    null["spec"]["nodeSelector"] = Value::Null;
    let said = cluster.judge(&null).await?.unwrap_or_default();
    ensure!(said.contains("must be of type object"), "null: {said}");
    ensure!(loader::judge(&null).is_none(), "to the loader null is absent");
    Ok(())
}
