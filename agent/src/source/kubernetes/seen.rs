//! An object as the API server sends it, cut down on arrival to what the agent plans with: a typed Pod is thirty
//! times as large. An object that cannot be read is kept as such, so that it spoils neither the list that it came in
//! nor what is known of it.

use std::{borrow::Cow, fmt};

use kube::{Resource, core::ObjectMeta};
use plainroute_config::{
    BgpAdvertisement, BgpPeer, Egress, IpPool, Kind, Namespace, Node, Object, ObjectKey, Pod,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// What the agent's annotations begin with.
const OURS: &str = "plainroute.dev/";

/// A kind that is watched.
pub(super) trait Watched: Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;
    /// The API group; empty for the core API.
    const GROUP: &'static str;
    const VERSION: &'static str;
    /// As in the API's paths.
    const PLURAL: &'static str;

    fn into_object(self) -> Object;
}

macro_rules! watched {
    ($($kind:ident: $group:literal $version:literal $plural:literal;)*) => {$(
        impl Watched for $kind {
            const KIND: Kind = Kind::$kind;
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const PLURAL: &'static str = $plural;

            fn into_object(self) -> Object {
                self.into()
            }
        }
    )*};
}
watched! {
    Pod: "" "v1" "pods";
    Namespace: "" "v1" "namespaces";
    Node: "" "v1" "nodes";
    BgpPeer: "plainroute.dev" "v1alpha1" "bgppeers";
    BgpAdvertisement: "plainroute.dev" "v1alpha1" "bgpadvertisements";
    IpPool: "plainroute.dev" "v1alpha1" "ippools";
    Egress: "plainroute.dev" "v1alpha1" "egresses";
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

    /// The state of the API server that it is of.
    pub(super) fn version(&self) -> Option<u64> {
        self.metadata.resource_version.as_ref()?.parse().ok()
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
        let mut value = Value::deserialize(deserializer)?;
        // Of the kinds that there are many of. Others' annotations make up much of them, and change often.
        if matches!(T::KIND, Kind::Pod | Kind::Namespace)
            && let Some(annotations) =
                value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
        {
            annotations.retain(|key, _| key.starts_with(OURS));
        }
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
        T::GROUP.into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        T::VERSION.into()
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
