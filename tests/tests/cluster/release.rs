//! The Helm chart, rendered and applied as `helm install` does, without Helm's records.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, Scope};
use kube::runtime::wait::{await_condition, conditions};
use plainroute_tests::kubelab::ApiServer;
use plainroute_tests::netns::checked;
use serde_json::Value;

use super::manifests::{AGENT, AGENT_NAMESPACE};

/// What the chart makes of some values.
pub(crate) struct Release(Vec<Value>);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Release {
    /// The objects of the chart with these values.
    pub(crate) fn render(values: &Value) -> Result<Release> {
        let said = checked(&mut Command::new(repository().join("scripts/helm.sh")))?;
        let helm = String::from_utf8(said.stdout)?;
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), values.to_string())?;
        let rendered = checked(
            Command::new(helm.trim())
                .args(["template", AGENT, "plainroute", "--namespace", AGENT_NAMESPACE, "--values"])
                .arg(file.path())
                .current_dir(repository().join("config/helm")),
        )?;
        Ok(Release(documents(&String::from_utf8(rendered.stdout)?)?))
    }

    /// One of the objects.
    pub(crate) fn object(&self, kind: &str) -> Result<&Value> {
        let found =
            self.0.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == AGENT);
        found.with_context(|| format!("the chart has no {kind} {AGENT}"))
    }

    /// Our kinds, then all objects.
    pub(crate) async fn install(&self, api: &ApiServer) -> Result<()> {
        let kinds = Api::<CustomResourceDefinition>::all(api.client());
        for file in fs::read_dir(repository().join("config/helm/plainroute/crds"))? {
            for definition in documents(&fs::read_to_string(file?.path())?)? {
                let definition: CustomResourceDefinition = serde_json::from_value(definition)?;
                let name = definition.metadata.name.clone().context("a kind without a name")?;
                kinds.create(&PostParams::default(), &definition).await.with_context(|| name.clone())?;
                await_condition(kinds.clone(), &name, conditions::is_crd_established()).await?;
            }
        }
        let discovery = Discovery::new(api.client()).run().await?;
        for object in &self.0 {
            apply(api, &discovery, object).await?;
        }
        Ok(())
    }
}

/// The YAML documents of a text, empty ones left out.
fn documents(text: &str) -> Result<Vec<Value>> {
    let parsed: Vec<Option<Value>> = serde_saphyr::from_multiple(text)?;
    Ok(parsed.into_iter().flatten().filter(|document| !document.is_null()).collect())
}

async fn apply(api: &ApiServer, discovery: &Discovery, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let types = object.types.clone().context("an object without a kind")?;
    let name = object.metadata.name.clone().context("an object without a name")?;
    let kind = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) =
        discovery.resolve_gvk(&kind).with_context(|| format!("no kind {kind:?}"))?;
    let objects: Api<DynamicObject> = match (&capabilities.scope, &object.metadata.namespace) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(api.client(), namespace, &resource),
        _ => Api::all_with(api.client(), &resource),
    };
    let applied = objects.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&object)).await;
    applied.map(drop).with_context(|| format!("{} {name}", kind.kind))
}
