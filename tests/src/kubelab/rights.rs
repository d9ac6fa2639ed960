//! Who may do what.

use anyhow::Result;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::Api;
use serde_json::{Value, json};

use super::ApiServer;

/// A user as the subject of a binding.
pub fn user(name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name })
}

impl ApiServer {
    /// Lets a subject do what the rules say, by a ClusterRole and a binding of this name.
    pub async fn grant(&self, name: &str, rules: Value, subject: Value) -> Result<()> {
        let role = json!({ "metadata": { "name": name }, "rules": rules });
        self.create::<ClusterRole>(Api::all(self.client()), role).await?;
        let binding = json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
            "subjects": [subject],
        });
        self.create::<ClusterRoleBinding>(Api::all(self.client()), binding).await
    }
}
