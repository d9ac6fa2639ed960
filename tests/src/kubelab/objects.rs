//! What tests put into the API: namespaces, nodes, and Pods that run because the test says so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::ApiServer;

/// A Pod as a test wants it; [`ApiServer::run_pod`] creates it and plays its kubelet.
#[derive(Debug, Clone)]
pub struct TestPod {
    namespace: String,
    name: String,
    node: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    addresses: Vec<IpAddr>,
    host_network: bool,
    owners: Vec<Value>,
}

impl TestPod {
    /// A Pod bound to `node`, without an address yet.
    pub fn new(namespace: &str, name: &str, node: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            node: node.into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            addresses: Vec::new(),
            host_network: false,
            owners: Vec::new(),
        }
    }

    /// Adds one of its addresses; the first one is `podIP`.
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.addresses.push(address.into());
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Makes it a Pod of this StatefulSet.
    pub fn of_stateful_set(mut self, set: &StatefulSet) -> Self {
        let (name, uid) = (&set.metadata.name, &set.metadata.uid);
        self.owners.push(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": uid, "controller": true,
        }));
        self
    }

    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    fn manifest(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": self.labels,
                "annotations": self.annotations,
                "ownerReferences": self.owners,
            },
            "spec": {
                "nodeName": self.node,
                "hostNetwork": self.host_network,
                "containers": [{ "name": "main", "image": "none.invalid/none" }],
                // As a DaemonSet's: the nodes here never become ready.
                "tolerations": [{ "operator": "Exists" }],
            },
        })
    }

    fn running(&self) -> Value {
        let mut status = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        if let Some(first) = self.addresses.first() {
            status["podIP"] = json!(first);
            status["podIPs"] = self.addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        }
        status
    }
}

impl ApiServer {
    /// Creates a namespace, with the ServiceAccount that the controllers would have made: without it no Pod
    /// is admitted.
    pub async fn create_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let namespace = json!({ "metadata": { "name": name, "labels": labels } });
        self.create::<Namespace>(Api::all(self.client()), namespace).await?;
        let account = json!({ "metadata": { "name": "default" } });
        self.create::<ServiceAccount>(Api::namespaced(self.client(), name), account).await
    }

    /// Merges labels and annotations into those of a namespace; a `null` removes one.
    pub async fn patch_namespace(&self, name: &str, metadata: Value) -> Result<()> {
        let api = Api::<Namespace>::all(self.client());
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("cannot patch namespace {name}"))?;
        Ok(())
    }

    /// Creates a node that has these internal addresses.
    pub async fn create_node(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let node = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } } });
        self.create::<Node>(Api::all(self.client()), node).await?;
        let addresses: Vec<_> =
            addresses.iter().map(|ip| json!({ "type": "InternalIP", "address": ip })).collect();
        let patch = Patch::Merge(json!({ "status": { "addresses": addresses } }));
        Api::<Node>::all(self.client())
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("cannot set the status of node {name}"))?;
        Ok(())
    }

    /// Changes a Node as `kubectl patch` does.
    pub async fn patch_node(&self, name: &str, patch: Value) -> Result<()> {
        let patch = Patch::Merge(patch);
        Api::<Node>::all(self.client())
            .patch(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("cannot patch node {name}"))?;
        Ok(())
    }

    /// Creates the Pod without a status: it is pending, as before its kubelet saw it.
    pub async fn create_pod(&self, pod: &TestPod) -> Result<()> {
        self.create::<Pod>(Api::namespaced(self.client(), &pod.namespace), pod.manifest()).await
    }

    /// Creates the Pod and makes it running and ready, with its addresses.
    pub async fn run_pod(&self, pod: &TestPod) -> Result<()> {
        self.create_pod(pod).await?;
        self.start_pod(pod).await
    }

    /// Makes a Pod that was created running and ready, with its addresses: what its kubelet reports at the end of its
    /// start.
    pub async fn start_pod(&self, pod: &TestPod) -> Result<()> {
        self.patch_pod_status(&pod.namespace, &pod.name, pod.running()).await
    }

    /// The Pod's UID.
    pub async fn pod_uid(&self, namespace: &str, name: &str) -> Result<String> {
        let pod = Api::<Pod>::namespaced(self.client(), namespace)
            .get(name)
            .await
            .with_context(|| format!("cannot read pod {namespace}/{name}"))?;
        pod.metadata.uid.with_context(|| format!("pod {namespace}/{name} has no UID"))
    }

    /// Merges `status` into the Pod's, for instance `{"phase": "Succeeded"}`.
    pub async fn patch_pod_status(&self, namespace: &str, name: &str, status: Value) -> Result<()> {
        Api::<Pod>::namespaced(self.client(), namespace)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(json!({ "status": status })))
            .await
            .with_context(|| format!("cannot set the status of pod {namespace}/{name}"))?;
        Ok(())
    }

    /// Gives the Pod other addresses.
    pub async fn set_pod_addresses(&self, namespace: &str, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let list: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        // The API merges `podIPs` by address; to replace the list, empty it first.
        let none = json!({ "podIP": null, "podIPs": null });
        self.patch_pod_status(namespace, name, none).await?;
        self.patch_pod_status(namespace, name, json!({ "podIP": addresses.first(), "podIPs": list })).await
    }

    /// Makes the Pod ready or not.
    pub async fn set_pod_ready(&self, namespace: &str, name: &str, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "False" };
        self.patch_pod_status(
            namespace,
            name,
            json!({ "conditions": [{ "type": "Ready", "status": status }] }),
        )
        .await
    }

    /// Deletes the Pod as its kubelet does at the end: it is gone when this returns.
    pub async fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.delete(namespace, name, 0).await
    }

    /// Deletes the Pod as a user does: it is terminating, for at least `seconds`, until
    /// [`Self::delete_pod`] ends it.
    pub async fn terminate_pod(&self, namespace: &str, name: &str, seconds: u32) -> Result<()> {
        if seconds == 0 {
            bail!("a Pod that terminates for 0 s is gone at once: that is delete_pod");
        }
        self.delete(namespace, name, seconds).await
    }

    async fn delete(&self, namespace: &str, name: &str, seconds: u32) -> Result<()> {
        let parameters = DeleteParams { grace_period_seconds: Some(seconds), ..Default::default() };
        Api::<Pod>::namespaced(self.client(), namespace)
            .delete(name, &parameters)
            .await
            .with_context(|| format!("cannot delete pod {namespace}/{name}"))?;
        Ok(())
    }

    /// Creates one object of a kind from its manifest, for instance a ClusterRole.
    pub async fn create<K>(&self, api: Api<K>, manifest: Value) -> Result<()>
    where
        K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + serde::Serialize,
        K: Clone + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(manifest)?;
        let (kind, name) = (K::kind(&()), object.meta().name.clone().unwrap_or_default());
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("cannot create {kind} {name}"))?;
        Ok(())
    }
}
