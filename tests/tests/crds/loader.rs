//! How our own code judges an object: as a document of a file, and as it comes from an API server.

use anyhow::{Result, bail};
use plainroute_config::{
    BgpAdvertisementSpec, BgpPeerSpec, EgressSpec, Input, IpBlock, IpBlockSpec, IpPoolSpec, Kind, Resource,
    Spec, load_inputs,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What our own code says against the object, if anything. An IPBlock cannot stand in a file, so it is read as from an API
/// server.
pub(crate) fn judge(object: &Value) -> Option<String> {
    if object["kind"] == Kind::IpBlock.name() {
        return serde_json::from_value::<IpBlock>(object.clone()).err().map(|error| error.to_string());
    }
    load_inputs(&[Input::Stdin(object.to_string().into_bytes())]).err().map(|errors| errors.to_string())
}

/// The spec as our own code understands it: written anew, with every default that it has.
pub(crate) fn meaning(object: &Value) -> Result<Value> {
    fn spec<S>(object: &Value) -> Result<Value>
    where
        S: Spec + Serialize + DeserializeOwned,
    {
        let resource: Resource<S> = serde_json::from_value(object.clone())?;
        Ok(serde_json::to_value(resource)?["spec"].take())
    }
    match object["kind"].as_str().and_then(Kind::from_name) {
        Some(Kind::BgpPeer) => spec::<BgpPeerSpec>(object),
        Some(Kind::BgpAdvertisement) => spec::<BgpAdvertisementSpec>(object),
        Some(Kind::IpPool) => spec::<IpPoolSpec>(object),
        Some(Kind::Egress) => spec::<EgressSpec>(object),
        Some(Kind::IpBlock) => spec::<IpBlockSpec>(object),
        _ => bail!("{} has no spec", object["kind"]),
    }
}

/// The objects of ours that a cluster knows, from the documents of a file; `None` where it is no YAML.
pub(crate) fn documents(text: &str) -> Option<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).ok()?;
    let of_a_cluster = |document: &Value| {
        let kind = document["kind"].as_str().and_then(Kind::from_name);
        document["apiVersion"] == plainroute_config::API_VERSION
            && kind.is_some_and(|kind| kind != Kind::AgentConfig)
            && document["metadata"]["name"].is_string()
    };
    Some(documents.into_iter().filter(of_a_cluster).collect())
}
