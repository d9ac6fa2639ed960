//! An API server that holds what the chart renders.

use std::fs;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, Scope};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config};
use plainroute_tests::kubelab::ApiServer;
use serde_json::{Value, json};

use super::chart::{NAME, NAMESPACE, documents, render, repository};

/// Applies an object as `kubectl apply --server-side` does.
pub(crate) async fn apply(
    api: &ApiServer,
    discovery: &Discovery,
    object: &Value,
    dry_run: bool,
) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind, name) =
        (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let kind = GroupVersionKind::gvk(group, version, &kind);
    let (resource, capabilities) =
        discovery.resolve_gvk(&kind).with_context(|| format!("no kind {kind:?}"))?;
    let objects: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(api.client(), &resource),
        Scope::Namespaced => {
            let namespace = object["metadata"]["namespace"].as_str();
            let namespace = namespace.with_context(|| format!("{} {name} has no namespace", kind.kind))?;
            Api::namespaced_with(api.client(), namespace, &resource)
        }
    };
    let parameters = PatchParams { dry_run, ..PatchParams::apply("test") };
    let applied = objects.patch(&name, &parameters, &Patch::Apply(object)).await;
    applied.map(drop).with_context(|| format!("{} {name}", kind.kind))
}

/// The kinds of the Prometheus operator, with any fields.
pub(crate) fn foreign_kind(kind: &str, plural: &str) -> Value {
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.monitoring.coreos.com") },
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    })
}

/// Our kinds and those of the Prometheus operator, served; and the release's namespace.
pub(crate) async fn prepare(api: &ApiServer) -> Result<Discovery> {
    api.create_namespace(NAMESPACE, &[]).await?;
    let mut definitions = vec![
        foreign_kind("ServiceMonitor", "servicemonitors"),
        foreign_kind("PrometheusRule", "prometheusrules"),
    ];
    for file in fs::read_dir(repository().join("config/crd"))? {
        definitions.extend(documents(&fs::read_to_string(file?.path())?)?);
    }
    let kinds = Api::<CustomResourceDefinition>::all(api.client());
    for definition in definitions {
        let definition: CustomResourceDefinition = serde_json::from_value(definition)?;
        let name = definition.metadata.name.clone().context("a kind without a name")?;
        kinds.create(&PostParams::default(), &definition).await.with_context(|| name.clone())?;
        await_condition(kinds.clone(), &name, conditions::is_crd_established()).await?;
    }
    Ok(Discovery::new(api.client()).run().await?)
}

/// The chart, installed with these values, less what needs kubelets.
pub(crate) async fn install(api: &ApiServer, values: &str) -> Result<Vec<Value>> {
    let discovery = prepare(api).await?;
    let objects = render(values)?;
    for object in objects.iter().filter(|object| object["kind"] != "DaemonSet") {
        apply(api, &discovery, object, false).await?;
    }
    Ok(objects)
}

/// The token that the agent's Pod on a node gets; without a node one that is bound to no Pod.
pub(crate) async fn token(api: &ApiServer, node: Option<&str>) -> Result<String> {
    let mut request = json!({ "spec": { "audiences": [] }, "metadata": {} });
    if let Some(node) = node {
        let pods = Api::<Pod>::namespaced(api.client(), NAMESPACE);
        let name = format!("agent-{node}");
        let pod = json!({
            "metadata": { "name": name },
            "spec": {
                "nodeName": node, "serviceAccountName": NAME,
                "containers": [{ "name": "agent", "image": "none.invalid/none" }],
            },
        });
        let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let uid = pod.metadata.uid.context("a Pod without a UID")?;
        request["spec"]["boundObjectRef"] =
            json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid });
    }
    let request: TokenRequest = serde_json::from_value(request)?;
    let accounts = Api::<ServiceAccount>::namespaced(api.client(), NAMESPACE);
    let answer = accounts.create_token_request(NAME, &PostParams::default(), &request).await?;
    answer.status.and_then(|status| status.token).context("no token")
}

/// A kubeconfig for whoever has this token, from where the API server's processes run.
pub(crate) fn kubeconfig(api: &ApiServer, token: &str) -> Result<String> {
    let mut config: Value = serde_json::from_str(&fs::read_to_string(api.kubeconfig())?)?;
    config["users"][0]["user"] = json!({ "token": token });
    Ok(config.to_string())
}

/// A client for whoever has this token.
pub(crate) async fn client(api: &ApiServer, token: &str) -> Result<Client> {
    let config = Kubeconfig::from_yaml(&kubeconfig(api, token)?)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?)
}

#[tokio::test]
async fn a_server_takes_every_object() -> Result<()> {
    let api = ApiServer::start().await?;
    let discovery = prepare(&api).await?;
    for (values, count) in [("", 10), (super::chart::EVERYTHING, 22)] {
        let objects = render(values)?;
        for object in &objects {
            apply(&api, &discovery, object, true).await?;
        }
        assert_eq!(objects.len(), count, "with {values}");
    }
    for file in ["manifests/namespace.yaml", "manifests/plainroute.yaml"] {
        for object in documents(&fs::read_to_string(repository().join("config").join(file))?)? {
            apply(&api, &discovery, &object, true).await?;
        }
    }
    // Negative control: the server does look at what it is given.
    let mut wrong = render("")?;
    let agent = wrong.iter_mut().find(|object| object["kind"] == "DaemonSet").context("no DaemonSet")?;
    agent["spec"]["updateStrategy"]["type"] = "Recreate".into();
    if apply(&api, &discovery, agent, true).await.is_ok() {
        bail!("a DaemonSet with a strategy that there is not was taken");
    }
    Ok(())
}
