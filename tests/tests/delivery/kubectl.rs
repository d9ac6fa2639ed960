//! What a person types: `kubectl` itself, with the files of this repository, on a real API server.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use plainroute_tests::kubelab::ApiServer;
use serde_json::Value;

use super::api::{foreign_kind, prepare};
use super::chart::{EVERYTHING, documents, render, repository};

/// What it prints; its end must be a success.
async fn kubectl(api: &ApiServer, arguments: &[&str], input: &str) -> Result<String> {
    let output = api.kubectl(arguments, input).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What it says as it refuses.
async fn refused(api: &ApiServer, arguments: &[&str], input: &str) -> Result<String> {
    let output = api.kubectl(arguments, input).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success(),
        "kubectl {arguments:?} took it: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(said)
}

/// Objects as a file has them. JSON is YAML.
fn file(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// A directory or file of `config`.
fn config(name: &str) -> String {
    repository().join("config").join(name).display().to_string()
}

/// How many objects a file, or a directory of files, has.
fn objects_in(path: &Path) -> Result<usize> {
    if path.is_dir() {
        return std::fs::read_dir(path)?.map(|entry| objects_in(&entry?.path())).sum();
    }
    Ok(documents(&std::fs::read_to_string(path)?)?.len())
}

#[tokio::test]
async fn kubectl_takes_the_chart_the_manifests_and_the_samples() -> Result<()> {
    const DRY_RUN: [&str; 3] = ["apply", "--dry-run=server", "--filename"];
    let api = ApiServer::start().await?;
    // In the order of docs/operations.md: the kinds first.
    kubectl(&api, &["apply", "--server-side", "--filename", &config("crd")], "").await?;
    let foreign = [
        foreign_kind("ServiceMonitor", "servicemonitors"),
        foreign_kind("PrometheusRule", "prometheusrules"),
    ];
    kubectl(&api, &["apply", "--filename", "-"], &file(&foreign)).await?;
    kubectl(&api, &["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"], "").await?;
    kubectl(&api, &["apply", "--filename", &config("manifests/namespace.yaml")], "").await?;

    for (values, count) in [("", 10), (EVERYTHING, 22)] {
        let objects = render(values)?;
        let said = kubectl(&api, &[&DRY_RUN[..], &["-"]].concat(), &file(&objects)).await?;
        let taken = said.lines().filter(|line| line.ends_with("created (server dry run)")).count();
        ensure!(taken == count, "{taken} of {count} with {values}:\n{said}");
    }
    for name in ["manifests/plainroute.yaml", "samples"] {
        let count = objects_in(&repository().join("config").join(name))?;
        ensure!(count > 0, "{name} is empty");
        let said = kubectl(&api, &[&DRY_RUN[..], &[&config(name)]].concat(), "").await?;
        let taken = said.lines().filter(|line| line.ends_with("created (server dry run)")).count();
        ensure!(taken == count, "{name}: {taken} of {count}:\n{said}");
    }

    // Negative controls: the server looks at what kubectl sends, and kubectl says so.
    let mut agent = render("")?;
    agent.retain(|object| object["kind"] == "DaemonSet");
    agent[0]["spec"]["updateStrategy"]["type"] = "Recreate".into();
    let said = refused(&api, &[&DRY_RUN[..], &["-"]].concat(), &file(&agent)).await?;
    ensure!(
        said.contains("The DaemonSet \"plainroute\" is invalid: spec.updateStrategy: Unsupported value"),
        "{said}"
    );
    let pool = |spec: &str| {
        format!(
            "{{apiVersion: plainroute.dev/v1alpha1, kind: IPPool, metadata: {{name: erp}}, spec: {spec}}}"
        )
    };
    let said = refused(&api, &[&DRY_RUN[..], &["-"]].concat(), &pool("{ipRange: []}")).await?;
    ensure!(said.contains("unknown field \"spec.ipRange\""), "{said}");
    let said =
        refused(&api, &[&DRY_RUN[..], &["-"]].concat(), &pool("{ipRanges: [{cidr: nonsense}]}")).await?;
    ensure!(said.contains("spec.ipRanges[0]"), "{said}");
    Ok(())
}

/// A table word by word, without the last column, which is the age.
fn table(text: &str) -> Vec<String> {
    let words = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let lines = text.lines().map(words).filter(|words| !words.is_empty());
    lines.map(|words| words[..words.len() - 1].join(" ")).collect()
}

#[tokio::test]
async fn kubectl_shows_what_matters_of_each_kind_in_a_line() -> Result<()> {
    let api = ApiServer::start().await?;
    prepare(&api).await?;
    kubectl(&api, &["apply", "--filename", &config("samples")], "").await?;
    let status = r#"{"status": {"addresses": 256, "conditions": [{"type": "Accepted", "status": "True", "reason": "Valid", "message": "it is understood", "lastTransitionTime": "2026-11-22T12:00:00Z"}]}}"#;
    let patch = ["patch", "ippool", "ledger", "--subresource=status", "--type=merge", "--patch", status];
    kubectl(&api, &patch, "").await?;

    let shown = kubectl(&api, &["get", "bgppeers,ippools", "--output=wide"], "").await?;
    let expected = [
        "NAME PEER AS ADDRESS INTERFACE RANGE NODES ESTABLISHED ACCEPTED",
        "bgppeer.plainroute.dev/collectors 64700 192.0.2.0/28",
        "bgppeer.plainroute.dev/leaf 4200000001 eth1",
        "bgppeer.plainroute.dev/tor-a 64600 172.16.0.254",
        "NAME USAGE ALLOCATION ADDRESSES RANGES ACCEPTED",
        r#"ippool.plainroute.dev/ledger Pod Block 256 [{"cidr":"10.20.0.0/24"},{"end":"10.30.0.95","start":"10.30.0.16"}] True"#,
        r#"ippool.plainroute.dev/outside Egress Block [{"cidr":"198.51.100.0/28"},{"cidr":"2001:db8:51::/124"}]"#,
    ];
    ensure!(table(&shown) == expected, "{shown}");
    // What only `wide` shows is not in a plain table.
    let shown = kubectl(&api, &["get", "ipp", "ledger"], "").await?;
    ensure!(
        table(&shown) == ["NAME USAGE ALLOCATION ADDRESSES ACCEPTED", "ledger Pod Block 256 True"],
        "{shown}"
    );

    // The category has them all, and each field says what it is.
    let shown = kubectl(&api, &["get", "plainroute", "--output=name"], "").await?;
    let kinds: BTreeSet<_> = shown.lines().filter_map(|line| line.split('.').next()).collect();
    let all = ["bgpadvertisement", "bgppeer", "egress", "ipblock", "ippool", "nodestate"];
    ensure!(kinds.into_iter().eq(all), "{shown}");
    let shown = kubectl(&api, &["explain", "ippool.spec.allocation"], "").await?;
    ensure!(
        ["FIELD: allocation <string>", "DESCRIPTION:", "External"].iter().all(|of| shown.contains(of)),
        "{shown}"
    );
    Ok(())
}
