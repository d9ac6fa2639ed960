//! How our own code judges an object: as a document of a file, and as it comes from an API server.

use plainroute_config::{Input, IpBlock, Kind, load_inputs};
use serde_json::Value;

/// What our own code says against the object, if anything. An IPBlock cannot stand in a file, so it is read as from an API
/// server.
pub(crate) fn judge(object: &Value) -> Option<String> {
    if object["kind"] == Kind::IpBlock.name() {
        return serde_json::from_value::<IpBlock>(object.clone()).err().map(|error| error.to_string());
    }
    load_inputs(&[Input::Stdin(object.to_string().into_bytes())]).err().map(|errors| errors.to_string())
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
