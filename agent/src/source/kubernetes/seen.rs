//! An object as the API server sends it, cut down on arrival to what the agent plans with: a typed Pod is thirty
//! times as large. An object that cannot be read is kept as such, so that it spoils neither the list that it came in
//! nor what is known of it.

use std::{borrow::Cow, fmt};

use kube::{Resource, core::ObjectMeta};
use plainroute_config::{Kind, Namespace, Node, Object, ObjectKey, Pod};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};

/// A kind of the core API that is watched.
pub(super) trait Watched: Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;
    /// As in the API's paths.
    const PLURAL: &'static str;

    fn into_object(self) -> Object;
}

impl Watched for Pod {
    const KIND: Kind = Kind::Pod;
    const PLURAL: &'static str = "pods";

    fn into_object(self) -> Object {
        Object::Pod(self)
    }
}

impl Watched for Namespace {
    const KIND: Kind = Kind::Namespace;
    const PLURAL: &'static str = "namespaces";

    fn into_object(self) -> Object {
        Object::Namespace(self)
    }
}

impl Watched for Node {
    const KIND: Kind = Kind::Node;
    const PLURAL: &'static str = "nodes";

    fn into_object(self) -> Object {
        Object::Node(self)
    }
}

/// One object of the kind `T`, or why it is none.
#[derive(Clone, Debug)]
pub(super) struct Seen<T> {
    /// Name, namespace and resource version only: what the watch needs.
    metadata: ObjectMeta,
    pub(super) object: Result<T, String>,
}

impl<T: Watched> Seen<T> {
    pub(super) fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: T::KIND,
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: String,
    namespace: Option<String>,
    resource_version: String,
}

impl<'de, T: Watched> Deserialize<'de> for Seen<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let metadata = value.get("metadata").ok_or_else(|| D::Error::missing_field("metadata"))?;
        let identity = Identity::deserialize(metadata).map_err(D::Error::custom)?;
        Ok(Self {
            metadata: ObjectMeta {
                name: Some(identity.name),
                namespace: identity.namespace,
                resource_version: Some(identity.resource_version),
                ..ObjectMeta::default()
            },
            object: T::deserialize(value).map_err(|error| error.to_string()),
        })
    }
}

impl<T: Watched> Resource for Seen<T> {
    type DynamicType = ();
    type Scope = kube::core::DynamicResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        T::KIND.to_string().into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        T::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
