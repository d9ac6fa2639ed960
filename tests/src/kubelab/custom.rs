//! Our own kinds in the API: their definitions, and objects as a user writes them.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use plainroute_config::{Kind, crd};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{ApiServer, RETRY};

const SERVED: Duration = Duration::from_secs(30);

impl ApiServer {
    /// Applies what `plainroute crds` prints, and waits until objects of each kind can be made.
    pub async fn install_crds(&self) -> Result<()> {
        let api = Api::<CustomResourceDefinition>::all(self.client());
        for definition in crd::definitions() {
            let object: Value = serde_saphyr::from_str(&definition.yaml())?;
            let name = object["metadata"]["name"].as_str().context("a definition without a name")?;
            let parameters = PatchParams::apply("plainroute-tests").validation_strict();
            api.patch(name, &parameters, &Patch::Apply(&object)).await?;
        }
        let deadline = Instant::now() + SERVED;
        for definition in crd::definitions() {
            let objects = self.custom(definition.kind.name());
            while let Err(error) = objects.list(&Default::default()).await {
                if Instant::now() > deadline {
                    return Err(error).with_context(|| format!("{} is not served", definition.kind));
                }
                sleep(RETRY).await;
            }
        }
        Ok(())
    }

    /// Deletes a definition, and with it all objects of the kind.
    pub async fn delete_crd(&self, name: &str) -> Result<()> {
        Api::<CustomResourceDefinition>::all(self.client()).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Deletes all objects of one of our kinds, as `kubectl delete KIND --all` does.
    pub async fn delete_all(&self, kind: Kind) -> Result<()> {
        let objects = self.custom(kind.name());
        objects.delete_collection(&DeleteParams::default(), &Default::default()).await?;
        Ok(())
    }

    /// Objects of one of our kinds.
    pub fn custom(&self, kind: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("plainroute.dev", "v1alpha1", kind);
        let plural =
            format!("{}{}", kind.kind.to_lowercase(), if kind.kind == "Egress" { "es" } else { "s" });
        Api::all_with(self.client(), &ApiResource::from_gvk_with_plural(&kind, &plural))
    }

    /// Makes or changes an object of one of our kinds, as `kubectl apply --server-side` does.
    pub async fn apply(&self, object: Value) -> Result<()> {
        let word = |value: &Value| value.as_str().map(str::to_owned).context("no kind or name");
        let (kind, name) = (word(&object["kind"])?, word(&object["metadata"]["name"])?);
        let parameters = PatchParams::apply("plainroute-tests").validation_strict().force();
        self.custom(&kind)
            .patch(&name, &parameters, &Patch::Apply(&object))
            .await
            .with_context(|| format!("{kind}/{name}"))?;
        Ok(())
    }

    /// [`Self::apply`] as soon as the API server takes it: a definition that was changed is in force a moment later.
    pub async fn apply_once_accepted(&self, object: &Value) -> Result<()> {
        let deadline = Instant::now() + SERVED;
        while let Err(error) = self.apply(object.clone()).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(RETRY).await;
        }
        Ok(())
    }

    /// Deletes an object of one of our kinds.
    pub async fn delete_custom(&self, kind: Kind, name: &str) -> Result<()> {
        self.custom(kind.name()).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }
}
