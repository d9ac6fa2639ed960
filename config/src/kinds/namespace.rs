//! Namespace, cut down to what Plainroute reads.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::selector::Labels;

/// The label that every Namespace carries, with its own name as the value.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A Namespace. What is not here is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenNamespace", into = "WrittenNamespace")]
pub struct Namespace {
    /// Who it is. Its labels always have `kubernetes.io/metadata.name`, which the API server sets and files need not.
    pub metadata: Metadata,
}

impl Namespace {
    /// A Namespace of which only the name is known; that is its one label.
    pub fn named(name: &str) -> Namespace {
        let mut metadata = Metadata::named(name);
        metadata.labels.insert(NAME_LABEL.to_owned(), name.to_owned());
        Namespace { metadata }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.metadata.labels
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WrittenNamespace {
    #[serde(default, skip_deserializing)]
    api_version: &'static str,
    #[serde(default, skip_deserializing)]
    kind: &'static str,
    /// Who it is. The label `kubernetes.io/metadata.name` is always there, with the name as its value.
    metadata: Metadata,
}

impl From<WrittenNamespace> for Namespace {
    fn from(WrittenNamespace { mut metadata, .. }: WrittenNamespace) -> Self {
        metadata.labels.insert(NAME_LABEL.to_owned(), metadata.name.clone());
        Namespace { metadata }
    }
}

impl From<Namespace> for WrittenNamespace {
    fn from(Namespace { metadata }: Namespace) -> Self {
        WrittenNamespace { api_version: "v1", kind: "Namespace", metadata }
    }
}
