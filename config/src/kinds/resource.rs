//! The envelope of our own kinds: `apiVersion`, `kind`, `metadata`, `spec`.
use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IgnoredAny},
    ser::SerializeStruct,
};

use super::{API_VERSION, Metadata};
use crate::rules::{Spec, Violations};

/// An object of one of our own kinds. Deserializing it checks the envelope and every rule of the spec.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
pub struct Resource<S> {
    /// Who it is.
    pub metadata: Metadata,
    /// What its user wrote.
    pub spec: S,
}

impl<S> Resource<S> {
    /// Its name; our kinds are cluster-scoped, so it says all.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", bound = "S: Deserialize<'de>")]
struct Envelope<'a, S> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    metadata: Metadata,
    spec: S,
    /// Written by the agent, never read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

impl<S: Spec> Resource<S> {
    /// The object without its rules checked, and the rules that it breaks.
    pub(crate) fn unchecked<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<(Self, Violations), D::Error>
    where
        S: Deserialize<'de>,
    {
        let envelope = Envelope::<S>::deserialize(deserializer)?;
        if envelope.api_version != API_VERSION || envelope.kind != S::KIND.name() {
            return Err(de::Error::custom(format!(
                "this is {} of {}, not {} of {API_VERSION}",
                envelope.kind,
                envelope.api_version,
                S::KIND,
            )));
        }
        let mut broken = Violations::default();
        envelope.spec.check(&mut broken);
        Ok((Resource { metadata: envelope.metadata, spec: envelope.spec }, broken))
    }
}

impl<'de, S: Spec + Deserialize<'de>> Deserialize<'de> for Resource<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (resource, broken) = Resource::unchecked(deserializer)?;
        if broken.is_empty() { Ok(resource) } else { Err(de::Error::custom(broken)) }
    }
}

impl<S: Spec + Serialize> Serialize for Resource<S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_struct("Resource", 4)?;
        object.serialize_field("apiVersion", API_VERSION)?;
        object.serialize_field("kind", S::KIND.name())?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("spec", &self.spec)?;
        object.end()
    }
}
