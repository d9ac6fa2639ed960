//! The keys of TCP-AO (RFC 5925) of a BGPPeer, in the order in which they are wanted.
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Secret, SecretKey};
use crate::rules::Violations;

/// TCP-AO (RFC 5925).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::TCP_AO))]
pub struct TcpAo {
    /// The keys that both sides may sign with, at least one. The first is the one that we ask the router to sign with;
    /// with which one we sign, the router asks.
    #[schemars(length(min = 1, max = 64))]
    pub keys: Vec<TcpAoKey>,
}

/// A key of TCP-AO (RFC 5925 section 3.1). Its secret is 1 to 80 octets, in a Secret or in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::TCP_AO_KEY))]
pub struct TcpAoKey {
    /// The KeyID in what we send; the router's receive ID.
    #[serde(rename = "sendID")]
    pub send_id: u8,
    /// The KeyID in what the router sends; its send ID.
    #[serde(rename = "receiveID")]
    pub receive_id: u8,
    /// How segments are signed; the router must do the same.
    pub algorithm: TcpAoAlgorithm,
    /// The Secret with the key's secret, in the agent's own namespace. One that cannot be read keeps the session down.
    /// Excludes `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
    /// The file with the key's secret, an absolute path; one line break at its end does not count. One that cannot be
    /// read keeps the session down. Excludes `secretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub file: Option<PathBuf>,
}

/// The algorithms of TCP-AO, by the names that Linux has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TcpAoAlgorithm {
    /// HMAC-SHA-1-96 (RFC 5926).
    #[serde(rename = "hmac(sha1)")]
    HmacSha1,
    /// AES-128-CMAC-96 (RFC 5926).
    #[serde(rename = "cmac(aes128)")]
    CmacAes128,
    /// HMAC-SHA-256-128, which is in no RFC.
    #[serde(rename = "hmac(sha256)")]
    HmacSha256,
}

impl TcpAoKey {
    /// Where the secret is. The rules let exactly one be set.
    pub fn secret(&self) -> Option<Secret<'_>> {
        let reference = self.secret_ref.as_ref().map(Secret::Ref);
        reference.or_else(|| self.file.as_ref().map(Secret::File))
    }
}

impl TcpAo {
    pub(crate) fn check(&self, broken: &mut Violations) {
        if self.keys.is_empty() {
            broken.add("tcpAO.keys", "is empty: leave tcpAO out for a session that nobody signs");
        }
        for (index, key) in self.keys.iter().enumerate() {
            let at = |field: &str| format!("tcpAO.keys[{index}]{field}");
            let before = &self.keys[..index];
            if let Some(other) = before.iter().position(|other| other.send_id == key.send_id) {
                broken.add(at(".sendID"), format!("{} is that of keys[{other}] too", key.send_id));
            }
            if let Some(other) = before.iter().position(|other| other.receive_id == key.receive_id) {
                broken.add(at(".receiveID"), format!("{} is that of keys[{other}] too", key.receive_id));
            }
            match (&key.secret_ref, &key.file) {
                (Some(_), Some(_)) => {
                    broken.add(at(".file"), "stands beside secretRef: only one of them holds the secret");
                }
                (None, None) => broken.add(at(""), "has no secret: secretRef or file says where it is"),
                (Some(secret), None) => secret.check(&at(".secretRef"), broken),
                (None, Some(path)) if !path.is_absolute() => {
                    broken.add(at(".file"), format!("`{}` is not an absolute path", path.display()));
                }
                (None, Some(_)) => {}
            }
        }
    }
}

impl SecretKey {
    /// States what is missing of it, at the field.
    pub(crate) fn check(&self, field: &str, broken: &mut Violations) {
        for (part, value) in [("name", &self.name), ("key", &self.key)] {
            if value.is_empty() {
                broken.add(format_args!("{field}.{part}"), "is empty");
            }
        }
    }
}
