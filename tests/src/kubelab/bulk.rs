//! Many objects at once: written into etcd, beside the API server, which learns of them by its own watch of etcd.
//!
//! By its API a hundred thousand Pods take minutes, and what agents then see of them is the same. Admission and
//! validation see nothing of them, so objects of which a test claims anything go by the API.

use anyhow::{Result, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::ApiServer;

/// Within what etcd takes in one transaction (128 operations, 1.5 MB).
const TOGETHER: usize = 64;

impl ApiServer {
    /// Stores objects as they are, by their keys below `/registry`, for instance `pods/NAMESPACE/NAME`.
    pub fn store(&self, objects: impl IntoIterator<Item = (String, Value)>) -> Result<()> {
        let mut objects = objects.into_iter().peekable();
        while objects.peek().is_some() {
            let puts: Vec<Value> =
                objects.by_ref().take(TOGETHER).map(|(key, object)| put(&key, &object)).collect();
            let answer = self.ask_etcd("/v3/kv/txn", &json!({ "success": puts }))?;
            ensure!(answer.contains("\"succeeded\":true"), "etcd stored nothing: {answer}");
        }
        Ok(())
    }
}

fn put(key: &str, object: &Value) -> Value {
    let key = ByteString(format!("/registry/{key}").into_bytes());
    json!({ "requestPut": { "key": key, "value": ByteString(object.to_string().into_bytes()) } })
}
