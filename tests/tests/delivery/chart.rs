//! The chart, rendered: what it refuses, what the objects say, and that the checked-in manifests are of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, sync::LazyLock};

use anyhow::{Context, Result, anyhow, bail, ensure};
use plainroute_config::{Input, load_inputs};
use serde_json::Value;

pub(crate) const NAMESPACE: &str = "plainroute-system";
/// The default name of everything.
pub(crate) const NAME: &str = "plainroute";

/// All that can be switched on, as a values file.
pub(crate) const EVERYTHING: &str = r#"
image: { digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
imagePullSecrets: [{ name: pull }]
commonLabels: { team: network }
config: { routing: { protocol: 189 }, bmp: [{ address: "192.0.2.9:11019" }] }
objects:
  - apiVersion: plainroute.dev/v1alpha1
    kind: BGPPeer
    metadata: { name: tor }
    spec: { localASN: 64512, peerASN: 64600, peerAddress: 172.16.0.254, authSecretRef: { name: tor, key: password } }
  - apiVersion: plainroute.dev/v1alpha1
    kind: IPPool
    metadata: { name: erp }
    spec: { ipRanges: [{ cidr: 10.20.0.0/24 }], allocation: External }
secretNames: [tor, tor-b]
readiness: { established: All }
apiServer: { host: 192.0.2.1, port: 6443 }
metrics:
  listen: "[::]:9179"
  serviceMonitor: { enabled: true, labels: { release: monitoring } }
  prometheusRule: { enabled: true }
  dashboards: { enabled: true }
capabilities: { listenBelow1024: true, unnumbered: true }
ipam: { enabled: true, cniBinDir: /usr/lib/cni }
podAnnotations: { example.org/owner: network }
"#;

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn helm(arguments: &[&str], values: &str) -> Result<Output> {
    static HELM: LazyLock<Result<String, String>> = LazyLock::new(|| {
        let output = Command::new(repository().join("scripts/helm.sh")).output();
        let output = output.map_err(|error| error.to_string())?;
        let said =
            String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        if output.status.success() { Ok(said.trim().to_owned()) } else { Err(said.into_owned()) }
    });
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), values)?;
    let mut command = Command::new(HELM.as_ref().map_err(|error| anyhow!("{error}"))?);
    command.args(arguments).arg("--values").arg(file.path()).current_dir(repository().join("config/helm"));
    command.output().context("helm")
}

/// Every object of the chart with these values.
pub(crate) fn render(values: &str) -> Result<Vec<Value>> {
    let output = helm(&["template", NAME, "plainroute", "--namespace", NAMESPACE], values)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout)?)
}

/// The YAML documents of a text, empty ones left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let parsed: Vec<Option<Value>> = serde_saphyr::from_multiple(text)?;
    Ok(parsed.into_iter().flatten().filter(|document| !document.is_null()).collect())
}

pub(crate) fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.with_context(|| format!("no {kind} {name}"))
}

#[test]
fn helm_finds_nothing_to_complain_about() -> Result<()> {
    for values in ["", EVERYTHING] {
        let output = helm(&["lint", "--strict", "plainroute"], values)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

#[test]
fn wrong_values_are_refused_by_their_names() -> Result<()> {
    let cases = [
        ("replicas: 2", "'replicas' not allowed"),
        ("config: { stateDir: /srv }", "/config/stateDir"),
        ("config: { nodeName: node-a }", "/config/nodeName"),
        ("readiness: { established: Some }", "/readiness/established"),
        ("image: { digest: latest }", "/image/digest"),
        ("metrics: { listen: localhost }", "/metrics/listen"),
        ("metrics: { serviceMonitor: { enabled: true } }", "metrics.listen 127.0.0.1:9179; set it to"),
        ("updateStrategy: { type: Recreate }", "/updateStrategy/type"),
        ("objects: [{ apiVersion: v1, kind: Secret, metadata: { name: a }, spec: {} }]", "/objects/0/kind"),
        ("secretNames: [Tor_A]", "/secretNames/0"),
        ("hostPaths: { state: var/lib }", "/hostPaths/state"),
        ("ipam: { enabled: true, cniBinDir: opt/cni/bin }", "/ipam/cniBinDir"),
        ("tolerations: yes", "/tolerations"),
    ];
    for (values, expected) in cases {
        let output = helm(&["template", NAME, "plainroute"], values)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{values}: accepted");
        ensure!(said.contains(expected), "{values}: {expected} is not in: {said}");
    }
    Ok(())
}

#[test]
fn what_the_agent_reads_is_what_it_accepts() -> Result<()> {
    for (values, count) in [("", 1), (EVERYTHING, 3)] {
        let objects = render(values)?;
        let data = named(&objects, "ConfigMap", NAME)?["data"].as_object().context("no data")?.clone();
        let directory = tempfile::tempdir()?;
        for (name, text) in &data {
            fs::write(directory.path().join(name), text.as_str().context("no text")?)?;
        }
        let inputs = [Input::Path(directory.path().to_owned())];
        let loaded = load_inputs(&inputs).map_err(|errors| anyhow!("{errors}"))?;
        assert_eq!(loaded.objects.len(), count);
        let config = loaded.agent_config().context("no AgentConfig")?;
        assert!(config.source.kubernetes.is_some() && !config.bfd.spawn);
    }
    Ok(())
}

fn container(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn containers_may_do_no_more_than_they_must() -> Result<()> {
    for (values, agent, bfd) in [
        ("", vec!["NET_ADMIN"], Some("SYS_NICE")),
        (EVERYTHING, vec!["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"], Some("SYS_NICE")),
        ("bfd: { realtime: false }", vec!["NET_ADMIN"], None),
    ] {
        let objects = render(values)?;
        let agent = (NAME.to_owned(), agent);
        let bfd = (format!("{NAME}-bfd"), bfd.into_iter().collect());
        for (name, capabilities) in [agent, bfd] {
            let daemon_set = named(&objects, "DaemonSet", &name)?;
            let security = &container(daemon_set)["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
            let added = security["capabilities"]["add"].as_array().cloned().unwrap_or_default();
            assert_eq!(added, capabilities, "{name} with {values}");
            let pod = &daemon_set["spec"]["template"]["spec"];
            assert_eq!(pod["priorityClassName"], "system-node-critical");
            assert_eq!(pod["tolerations"], serde_json::json!([{ "operator": "Exists" }]));
        }
        let agent = container(named(&objects, "DaemonSet", NAME)?);
        for mount in agent["volumeMounts"].as_array().context("no mounts")? {
            let written = ["run", "state"].iter().any(|name| mount["name"] == *name);
            assert_ne!(mount["readOnly"] == true, written, "{mount}");
        }
    }
    Ok(())
}

/// The image has no shell: the plugin copies itself, and what it is copied into is all that it may touch.
#[test]
fn the_cni_plugin_comes_onto_the_node_where_it_is_asked_for() -> Result<()> {
    let pod = |values: &str| -> Result<Value> {
        Ok(named(&render(values)?, "DaemonSet", NAME)?["spec"]["template"]["spec"].clone())
    };
    let volume = |pod: &Value| {
        let volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
        volumes.into_iter().find(|volume| volume["name"] == "cni-bin")
    };
    let without = pod("")?;
    assert!(without["initContainers"].is_null() && volume(&without).is_none());
    let with = pod(EVERYTHING)?;
    let install = &with["initContainers"][0];
    assert_eq!(install["image"], with["containers"][0]["image"]);
    assert_eq!(
        install["command"],
        serde_json::json!(["/usr/bin/plainroute-ipam", "install", "/host/cni-bin"])
    );
    assert_eq!(install["securityContext"]["capabilities"], serde_json::json!({ "drop": ["ALL"] }));
    let mounts = serde_json::json!([{ "name": "cni-bin", "mountPath": "/host/cni-bin" }]);
    assert_eq!(install["volumeMounts"], mounts);
    let directory = volume(&with).context("no volume")?["hostPath"]["path"].clone();
    assert_eq!(directory, "/usr/lib/cni");
    Ok(())
}

/// A probe of an agent that listens on loopback only has to be sent there, and one that listens everywhere to the node.
#[test]
fn probes_ask_where_the_agent_listens() -> Result<()> {
    for (values, host) in [("", Some("127.0.0.1")), (EVERYTHING, None)] {
        let objects = render(values)?;
        let agent = container(named(&objects, "DaemonSet", NAME)?);
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let request = &agent[probe]["httpGet"];
            assert_eq!((request["path"].as_str(), request["host"].as_str()), (Some(path), host));
        }
    }
    Ok(())
}

/// BFD's end is a failure to every router, so nothing that changes with an upgrade of the agent may end it.
#[test]
fn an_upgrade_of_the_agent_leaves_bfd_alone() -> Result<()> {
    let strategies = |values: &str| -> Result<(Value, Value)> {
        let objects = render(values)?;
        let of = |name: &str| {
            let daemon_set = named(&objects, "DaemonSet", name)?;
            anyhow::Ok(daemon_set["spec"]["updateStrategy"]["type"].clone())
        };
        anyhow::Ok((of(NAME)?, of(&format!("{NAME}-bfd"))?))
    };
    assert_eq!(strategies("")?, ("RollingUpdate".into(), "OnDelete".into()));
    let template = |values: &str| -> Result<[Value; 2]> {
        let objects = render(values)?;
        let of = |name: &str| anyhow::Ok(named(&objects, "DaemonSet", name)?["spec"]["template"].clone());
        Ok([of(NAME)?, of(&format!("{NAME}-bfd"))?])
    };
    let [agent, bfd] = template("{ image: { tag: one }, bfd: { image: { tag: one } } }")?;
    let [agent_next, bfd_next] = template("{ image: { tag: two }, bfd: { image: { tag: one } } }")?;
    assert_ne!(agent, agent_next, "nothing was upgraded");
    assert_eq!(bfd, bfd_next, "pinned, and changed all the same");
    // AgentConfig is read at a start only, so its change has to start the agent; that of a peer does not.
    let [changed, _] = template("{ image: { tag: one }, readiness: { established: Any } }")?;
    assert_ne!(agent, changed);
    Ok(())
}

/// What promtool says of rules, and whether it takes them.
fn promtool(rules: &Value) -> Result<(bool, String)> {
    let found = Command::new(repository().join("scripts/promtool.sh")).output()?;
    ensure!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), rules.to_string())?;
    let program = String::from_utf8(found.stdout)?;
    let output = Command::new(program.trim()).args(["check", "rules"]).arg(file.path()).output()?;
    let said = [&output.stdout[..], &output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn prometheus_takes_every_alert() -> Result<()> {
    let objects = render(EVERYTHING)?;
    let mut rules = named(&objects, "PrometheusRule", NAME)?["spec"].clone();
    let count = rules["groups"][0]["rules"].as_array().map_or(0, Vec::len);
    let (taken, said) = promtool(&rules)?;
    ensure!(taken && count > 0 && said.contains(&format!("SUCCESS: {count} rules found")), "{said}");
    // Negative control: an expression that Prometheus would stumble over.
    rules["groups"][0]["rules"][0]["expr"] = "plainroute_ready === 0".into();
    let (taken, said) = promtool(&rules)?;
    ensure!(!taken && said.contains("could not parse expression"), "{said}");
    Ok(())
}

#[test]
fn the_checked_in_manifests_are_of_this_chart() -> Result<()> {
    let fresh = tempfile::tempdir()?;
    let update = std::env::var_os("UPDATE").is_some();
    let out = if update { repository().join("config") } else { fresh.path().to_owned() };
    let output = Command::new(repository().join("scripts/manifests.sh")).arg(&out).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in
        ["manifests/namespace.yaml", "manifests/plainroute.yaml", "rbac/rbac.yaml", "rbac/admission.yaml"]
    {
        let (there, made) = (repository().join("config").join(file), out.join(file));
        if fs::read_to_string(&there).ok() != Some(fs::read_to_string(&made)?) {
            bail!("config/{file} is stale: run make manifests");
        }
        ensure!(!documents(&fs::read_to_string(&made)?)?.is_empty(), "config/{file} is empty");
    }
    Ok(())
}
