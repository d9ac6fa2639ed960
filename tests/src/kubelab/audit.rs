//! What the API server writes down of one user's requests.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The log of one API server.
#[derive(Debug)]
pub struct AuditLog(PathBuf);

impl AuditLog {
    /// In a directory; of this user's requests, without these stages of each.
    pub fn new(directory: &Path, user: &str, omitted_stages: &[&str]) -> Result<AuditLog> {
        let log = AuditLog(directory.join("audit.log"));
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": omitted_stages,
            "rules": [{ "level": "Metadata", "users": [user] }, { "level": "None" }],
        });
        std::fs::write(log.policy(), policy.to_string())?;
        Ok(log)
    }

    fn policy(&self) -> PathBuf {
        self.0.with_file_name("audit-policy.yaml")
    }

    /// What kube-apiserver must be told.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--audit-policy-file={}", self.policy().display()),
            format!("--audit-log-path={}", self.0.display()),
        ]
    }

    /// What is written so far.
    pub fn events(&self) -> Result<Vec<Value>> {
        let log = std::fs::read_to_string(&self.0)?;
        // The last line may be half written.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let event = |line: &str| serde_json::from_str(line).with_context(|| format!("audit event {line}"));
        whole.lines().map(event).collect()
    }
}
