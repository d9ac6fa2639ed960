//! A pool is neither deleted nor edited under its users: the policy on a real API server, which names the block and who has what.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use plainroute_tests::kubelab::ApiServer;
use plainroute_tests::netns::wait_until_async;
use serde_json::{Value, json};

use super::admission::{blocks, create, of, refusal};
use super::api::install;
use super::chart::NAME;

const SOON: Duration = Duration::from_secs(60);
const VALUES: &str = "ipam: { enabled: true }";
const SINCE: &str = "2026-11-23T01:00:00Z";

fn pools(client: &Client) -> Api<DynamicObject> {
    of(client, "IPPool", "ippools")
}

fn pool(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "plainroute.dev/v1alpha1", "kind": "IPPool", "metadata": { "name": name }, "spec": spec })
}

fn block(name: &str, cidr: &str, within: &str, pool: &str, allocations: Value) -> Value {
    json!({
        "apiVersion": "plainroute.dev/v1alpha1", "kind": "IPBlock", "metadata": { "name": name },
        "spec": { "cidr": cidr, "within": within, "node": "node-a", "pool": pool, "allocations": allocations },
    })
}

fn pod(ordinal: u16, name: &str) -> Value {
    json!({
        "ordinal": ordinal, "namespace": "erp", "name": name, "podUID": "u", "containerID": "c", "since": SINCE,
    })
}

/// Three pools, each with a block: in one of them all that an address can be, one of IPv6, and one that nobody uses.
async fn fill(client: &Client) -> Result<()> {
    let ranges =
        json!({ "ipRanges": [{ "cidr": "10.20.0.0/24" }, { "start": "10.21.0.16", "end": "10.21.0.31" }] });
    create(&pools(client), pool("erp", ranges)).await?;
    create(&pools(client), pool("v6", json!({ "ipRanges": [{ "cidr": "fd00:20::/64" }] }))).await?;
    create(&pools(client), pool("empty", json!({ "ipRanges": [{ "cidr": "10.22.0.0/24" }] }))).await?;
    create(&pools(client), pool("free", json!({ "ipRanges": [{ "cidr": "10.23.0.0/24" }] }))).await?;
    let kept =
        json!({ "ordinal": 5, "namespace": "erp", "name": "db-0", "statefulSet": "db", "since": SINCE });
    let lent = json!({ "ordinal": 6, "lentTo": "node-b", "loan": "l", "since": SINCE });
    let all = json!([pod(1, "app-a"), kept, lent]);
    create(&blocks(client), block("10-20-0-16-28", "10.20.0.16/28", "10.20.0.0/20", "erp", all)).await?;
    let last = json!([pod(15, "app-b")]);
    create(&blocks(client), block("10-21-0-16-28", "10.21.0.16/28", "10.21.0.0/20", "erp", last)).await?;
    let v6 = "fd00-0020-0000-0000-0000-0000-0000-0ff0-124";
    let held = json!([pod(15, "app-c")]);
    create(&blocks(client), block(v6, "fd00:20::ff0/124", "fd00:20::/116", "v6", held)).await?;
    create(&blocks(client), block("10-22-0-0-28", "10.22.0.0/28", "10.22.0.0/20", "empty", json!([])))
        .await?;
    Ok(())
}

async fn await_enforcement(client: &Client, enforced: bool) -> Result<()> {
    let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
    wait_until_async(&format!("the policy to be enforced: {enforced}"), SOON, async || {
        let answer = pools(client).delete("empty", &dry_run).await.map(drop);
        let found = match &answer {
            Ok(()) => Ok(false),
            Err(_) => refusal(answer).map(|_| true),
        };
        if found.as_ref().is_ok_and(|found| *found == enforced) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
}

async fn edit(client: &Client, name: &str, spec: Value) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let parameters = PatchParams { dry_run: true, ..PatchParams::default() };
    pools(client).patch(name, &parameters, &patch).await.map(drop)
}

#[tokio::test]
async fn a_pool_is_not_edited_or_deleted_under_its_users() -> Result<()> {
    let api = ApiServer::start().await?;
    install(&api, VALUES).await?;
    let client = api.client();
    fill(&client).await?;
    await_enforcement(&client, true).await?;

    let (first, second) =
        (json!({ "cidr": "10.20.0.0/24" }), json!({ "start": "10.21.0.16", "end": "10.21.0.31" }));
    let v6 = |start: &str, end: &str| json!({ "ipRanges": [{ "start": start, "end": end }] });
    let refused = [
        (
            "erp",
            json!({ "ipRanges": [second] }),
            "ipRanges of IPPool erp would not hold any more: block 10-20-0-16-28",
        ),
        ("erp", json!({ "ipRanges": [{ "cidr": "10.20.0.0/28" }, second] }), "10-20-0-16-28 of node node-a"),
        (
            "erp",
            json!({ "ipRanges": [first, { "start": "10.21.0.17", "end": "10.21.0.31" }] }),
            "erp/app-b: 10.21.0.31",
        ),
        (
            "erp",
            json!({ "ipRanges": [first, { "start": "10.21.0.16", "end": "10.21.0.30" }] }),
            "erp/app-b: 10.21.0.31",
        ),
        (
            "erp",
            json!({ "ipRanges": [first, { "start": "10.21.0.0", "end": "10.21.0.15" }] }),
            "erp/app-b: 10.21.0.31",
        ),
        (
            "erp",
            json!({ "ipRanges": [first, { "start": "10.21.0.32", "end": "10.21.1.0" }] }),
            "erp/app-b: 10.21.0.31",
        ),
        (
            "erp",
            json!({ "excluded": ["10.20.0.20"] }),
            "excluded of IPPool erp (10.20.0.20) would cut into: block 10-20-0-16-28",
        ),
        (
            "erp",
            json!({ "excluded": ["10.20.0.0/25"] }),
            "(10.20.0.0/25) would cut into: block 10-20-0-16-28",
        ),
        (
            "erp",
            json!({ "excluded": ["10.20.0.16/30"] }),
            "(10.20.0.16/30) would cut into: block 10-20-0-16-28",
        ),
        (
            "erp",
            json!({ "blockSize": 27 }),
            "blockSize of IPPool erp cannot be changed while it has blocks: block 10-2",
        ),
        ("v6", v6("fd00:20::", "fd00:20::ffe"), "(erp/app-c: fd00:20::fff)"),
        ("v6", v6("fd00:20::ff1", "fd00:20::ffff"), "(erp/app-c: fd00:20::fff)"),
        ("v6", v6("fd00:20::1000", "fd00:21::"), "(erp/app-c: fd00:20::fff)"),
        (
            "empty",
            json!({ "ipRanges": [{ "cidr": "10.22.0.16/28" }] }),
            "10-22-0-0-28 of node node-a (no Pod has an address of it)",
        ),
    ];
    for (name, spec, expected) in refused {
        let said =
            refusal(edit(&client, name, spec.clone()).await).with_context(|| format!("{name}: {spec}"))?;
        ensure!(said.contains(expected), "{spec}: `{expected}` is not in: {said}");
    }
    let said = refusal(edit(&client, "erp", json!({ "ipRanges": [second] })).await)?;
    let who = "block 10-20-0-16-28 of node node-a (erp/app-a: 10.20.0.17, erp/db-0 (kept for it): 10.20.0.21, \
               lent to node node-b: 10.20.0.22)";
    ensure!(said.contains(who), "{said}");

    let allowed = [
        ("erp", json!({ "ipCooldownSeconds": 5, "namespaceSelector": { "matchLabels": { "a": "b" } } })),
        (
            "erp",
            json!({ "ipRanges": [{ "cidr": "10.20.0.0/27" }, { "start": "10.21.0.10", "end": "10.21.0.40" }] }),
        ),
        (
            "erp",
            json!({ "ipRanges": [{ "start": "10.20.0.16", "end": "10.20.0.31" }, { "cidr": "10.21.0.0/24" }] }),
        ),
        ("erp", json!({ "excluded": ["10.20.0.15", "10.20.0.128/25"] })),
        // What it is by default, said.
        ("erp", json!({ "blockSize": 28 })),
        ("v6", v6("fd00:20::ff0", "fd00:20::fff")),
        ("v6", v6("fd00::", "fd00:20::1000")),
        ("empty", json!({ "ipRanges": [{ "cidr": "10.22.0.0/28" }] })),
        ("free", json!({ "ipRanges": [{ "cidr": "10.99.0.0/24" }], "blockSize": 30 })),
    ];
    for (name, spec) in allowed {
        edit(&client, name, spec.clone()).await.with_context(|| format!("{name}: {spec}"))?;
    }

    // Deleted one by one and all at once.
    let said = refusal(pools(&client).delete("erp", &DeleteParams::default()).await)?;
    ensure!(said.contains("IPPool erp is in use: block 10-2"), "{said}");
    ensure!(said.contains("kubectl get ipblocks --field-selector spec.pool=erp"), "{said}");
    refusal(pools(&client).delete_collection(&DeleteParams::default(), &ListParams::default()).await)?;
    ensure!(pools(&client).get_opt("erp").await?.is_some(), "deleted with all others");
    pools(&client).delete("free", &DeleteParams::default()).await.map(drop).or_else(|error| match error {
        // With all others, before one of them was refused.
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        error => Err(error),
    })?;
    blocks(&client).delete("10-22-0-0-28", &DeleteParams::default()).await?;
    await_enforcement(&client, false).await.context("a pool whose last block is gone")?;

    // A block with all its 4096 addresses held, of a pool of many ranges: neither the rules nor the message cost too much.
    let ranges: Vec<Value> = (0..64)
        .map(|n| json!({ "start": format!("fd01:{n}::1:0"), "end": format!("fd01:{n}::2:0") }))
        .collect();
    create(&pools(&client), pool("large", json!({ "ipRanges": ranges, "blockSize": 116 }))).await?;
    let held: Vec<Value> = (0_u16..4096).map(|n| pod(n, &format!("app-{n}"))).collect();
    let name = "fd01-0063-0000-0000-0000-0000-0001-0000-116";
    create(&blocks(&client), block(name, "fd01:63::1:0/116", "fd01:63::1:0/116", "large", json!(held)))
        .await?;
    let fewer = json!({ "ipRanges": &ranges[..63] });
    wait_until_async("a large block to be defended", SOON, async || {
        let said =
            refusal(edit(&client, "large", fewer.clone()).await).map_err(|error| format!("{error:#}"))?;
        let (who, many) = ("(erp/app-0: fd01:63::1:0, erp/app-1: fd01:63::1:1, ", "..., 4096 in all)");
        if said.contains(who) && said.contains(many) { Ok(()) } else { Err(said) }
    })
    .await?;
    edit(&client, "large", json!({ "ipRanges": &ranges[50..] })).await.context("ranges without a block")?;

    // Negative control: it is the policy that refuses.
    refusal(edit(&client, "erp", json!({ "ipRanges": [second] })).await)?;
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    bindings.delete(&format!("{NAME}-pools-in-use"), &DeleteParams::default()).await?;
    wait_until_async("the policy to be gone", SOON, async || {
        edit(&client, "erp", json!({ "ipRanges": [second] })).await.map_err(|error| error.to_string())
    })
    .await
}

#[tokio::test]
async fn two_pools_do_not_share_addresses() -> Result<()> {
    let api = ApiServer::start().await?;
    install(&api, VALUES).await?;
    let client = api.client();
    let v4 = json!([{ "cidr": "10.20.0.0/24" }, { "start": "10.21.0.10", "end": "10.21.0.50" }]);
    let spec = json!({ "ipRanges": v4, "excluded": ["10.20.0.128/25", "10.20.0.5"] });
    create(&pools(&client), pool("erp", spec)).await?;
    let spec =
        json!({ "ipRanges": [{ "cidr": "fd00:20::/64" }, { "start": "fd00:21::a", "end": "fd00:21::1:0" }] });
    create(&pools(&client), pool("v6", spec)).await?;
    let external = json!({ "ipRanges": v4, "allocation": "External" });
    let attempt = async |spec: Value| {
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let object = serde_json::from_value(pool("new", spec)).expect("a pool");
        pools(&client).create(&parameters, &object).await.map(drop)
    };
    let cidr = |cidr: &str| json!({ "ipRanges": [{ "cidr": cidr }] });
    let range = |start: &str, end: &str| json!({ "ipRanges": [{ "start": start, "end": end }] });
    let told = async |spec: Value| match attempt(spec).await {
        Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy") => {
            Ok(status.message.clone())
        }
        answer => Err(format!("{answer:?}")),
    };
    wait_until_async("the policy to be enforced", SOON, async || told(cidr("10.20.0.0/24")).await.map(drop))
        .await?;
    for (spec, with) in [
        (cidr("10.20.0.64/26"), "erp: 10.20.0.64/26"),
        (cidr("10.0.0.0/8"), "erp: 10.0.0.0/8"),
        (cidr("10.21.0.32/28"), "erp: 10.21.0.32/28"),
        (range("10.19.0.0", "10.20.0.0"), "erp: 10.19.0.0-10.20.0.0"),
        (range("10.20.0.90", "10.20.3.0"), "erp: 10.20.0.90-10.20.3.0"),
        (range("10.21.0.50", "10.21.0.60"), "erp: 10.21.0.50-10.21.0.60"),
        (range("10.21.0.1", "10.21.0.10"), "erp: 10.21.0.1-10.21.0.10"),
        (range("10.21.0.20", "10.21.0.30"), "erp: 10.21.0.20-10.21.0.30"),
        (cidr("fd00:20::ff00/120"), "v6: fd00:20::ff00/120"),
        (range("fd00:21::1", "fd00:22::"), "v6: fd00:21::1-fd00:22::"),
        (range("fd00:21::ffff", "fd00:21::2:0"), "v6: fd00:21::ffff-fd00:21::2:0"),
    ] {
        let said = told(spec.clone()).await.map_err(|error| anyhow::anyhow!("{spec}: {error}"))?;
        ensure!(said.contains(&format!("IPPool new shares addresses with IPPool {with}")), "{spec}: {said}");
    }
    for spec in [
        external,
        cidr("10.20.1.0/24"),
        // What is excluded there, and what is here.
        cidr("10.20.0.192/26"),
        cidr("10.20.0.5/32"),
        json!({ "ipRanges": [{ "cidr": "10.20.0.0/16" }], "excluded": ["10.20.0.0/24"] }),
        range("10.21.0.51", "10.21.255.0"),
        range("10.21.0.0", "10.21.0.9"),
        range("fd00:21::", "fd00:21::9"),
        range("fd00:21::1:1", "fd00:21::1:2"),
    ] {
        attempt(spec.clone()).await.with_context(|| format!("{spec}"))?;
    }
    // By an edit as well; one that leaves the addresses alone is not about this.
    let said = edit(&client, "v6", json!({ "ipRanges": [{ "cidr": "10.20.0.0/26" }] })).await;
    let said = said.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(said.contains("IPPool v6 shares addresses with IPPool erp: 10.20.0.0/26"), "{said}");
    edit(&client, "v6", json!({ "ipCooldownSeconds": 5 })).await?;

    // Negative control: it is the policy that refuses.
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    bindings.delete(&format!("{NAME}-pools-apart"), &DeleteParams::default()).await?;
    wait_until_async("the policy to be gone", SOON, async || {
        attempt(cidr("10.20.0.0/24")).await.map_err(|error| error.to_string())
    })
    .await
}
