//! The API server of the suite, told of our kinds, and how it judges an object.

use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::Status;
use plainroute_config::{Kind, crd};
use plainroute_tests::kubelab::ApiServer;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);

/// An API server that knows our kinds.
pub(crate) struct Cluster {
    client: Client,
    // Ends with the suite.
    _api: ApiServer,
}

impl Cluster {
    /// Starts it and applies what `plainroute crds` prints.
    pub(crate) async fn start() -> Result<Self> {
        let api = ApiServer::start().await?;
        let client = api.client();
        let this = Self { client, _api: api };
        let mut refused = Vec::new();
        for definition in crd::definitions() {
            if let Err(error) = this.define(&definition).await {
                refused.push(format!("{}: {error:#}", definition.kind));
            }
        }
        ensure!(refused.is_empty(), "{}", refused.join("\n"));
        Ok(this)
    }

    /// Applies a definition, from its YAML, and waits until objects of the kind can be made.
    async fn define(&self, definition: &crd::Definition) -> Result<()> {
        let object: Value = serde_saphyr::from_str(&definition.yaml())?;
        let name = object["metadata"]["name"].as_str().context("no name")?.to_owned();
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let parameters = PatchParams::apply("plainroute-tests").validation_strict();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await?;
        tokio::time::timeout(DEADLINE, self.established(&api, &name)).await.context("not Established")??;
        // Established comes a moment before the endpoint does.
        let objects = self.objects(definition.kind);
        let served = async {
            while objects.list(&Default::default()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, served).await.context("not served")
    }

    async fn established(&self, api: &Api<CustomResourceDefinition>, name: &str) -> Result<()> {
        loop {
            let status = api.get(name).await?.status.unwrap_or_default();
            for condition in status.conditions.iter().flatten() {
                match (condition.type_.as_str(), condition.status.as_str()) {
                    ("Established", "True") => return Ok(()),
                    ("NonStructuralSchema", "True") | ("NamesAccepted", "False") => {
                        bail!("{}: {}", condition.type_, condition.message.as_deref().unwrap_or_default())
                    }
                    _ => {}
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// The objects of a kind of ours.
    pub(crate) fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        let (group, version) = kind.api_version().split_once('/').unwrap_or(("", kind.api_version()));
        let resource = ApiResource {
            plural: crd::definitions()
                .into_iter()
                .find(|definition| definition.kind == kind)
                .map_or_else(|| format!("{}s", kind.name().to_lowercase()), |one| one.plural.to_owned()),
            ..ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.name()))
        };
        Api::all_with(self.client.clone(), &resource)
    }

    /// What it says against the object, if anything, without keeping it. Unknown fields are errors, as `kubectl` has it.
    pub(crate) async fn judge(&self, object: &Value) -> Result<Option<String>> {
        Ok(self.put(object, true).await?.err())
    }

    /// Makes or changes the object, and says what is against that.
    pub(crate) async fn apply(&self, object: &Value) -> Result<Option<String>> {
        Ok(self.put(object, false).await?.err())
    }

    /// The object as it would keep it, defaults included.
    pub(crate) async fn kept(&self, object: &Value) -> Result<Value> {
        self.put(object, true).await?.map_err(Error::msg)
    }

    async fn put(&self, object: &Value, dry_run: bool) -> Result<Result<Value, String>> {
        let kind = object["kind"].as_str().and_then(Kind::from_name).context("no kind of ours")?;
        let name = object["metadata"]["name"].as_str().context("no name")?;
        let mut parameters = PatchParams::apply("plainroute-tests").force().validation_strict();
        parameters.dry_run = dry_run;
        match self.objects(kind).patch(name, &parameters, &Patch::Apply(object)).await {
            Ok(kept) => Ok(Ok(serde_json::to_value(kept)?)),
            Err(kube::Error::Api(status)) if refuses(&status) => Ok(Err(status.message)),
            Err(error) => Err(error).with_context(|| format!("cannot apply {kind} {name}")),
        }
    }
}

/// Whether the object is what is wrong. A value of the wrong type is refused with the code of a failure, before any schema is
/// asked.
fn refuses(status: &Status) -> bool {
    [400, 422].contains(&status.code) || status.message.starts_with("failed to create typed patch object")
}
