//! A sound object of each kind, and how a test changes it.

use anyhow::{Context, Result};
use plainroute_config::{API_VERSION, IpBlockSpec, Kind};
use serde_json::{Value, json};

/// A sound object of the kind, with little in it.
pub(crate) fn sound(kind: Kind) -> Value {
    let spec = match kind {
        Kind::BgpPeer => json!({ "localASN": 64512, "peerASN": 64600, "peerAddress": "172.16.0.254" }),
        Kind::BgpAdvertisement => json!({ "types": ["PodIP"] }),
        Kind::IpPool => json!({ "ipRanges": [{ "cidr": "10.20.0.0/24" }] }),
        Kind::Egress => json!({ "appliedTo": {}, "egressIPs": ["198.51.100.7"] }),
        Kind::IpBlock => {
            json!({ "cidr": "10.20.0.16/28", "within": "10.20.0.0/20", "node": "node-a", "pool": "erp" })
        }
        Kind::AgentConfig | Kind::NodeState | Kind::Pod | Kind::Namespace | Kind::Node => {
            unreachable!("{kind} has no spec that an API server knows")
        }
    };
    let mut object =
        json!({ "apiVersion": API_VERSION, "kind": kind.name(), "metadata": { "name": "a" }, "spec": spec });
    name_block(&mut object);
    object
}

/// An IPBlock's name follows its CIDR.
fn name_block(object: &mut Value) {
    let cidr = object["spec"]["cidr"].as_str().and_then(|cidr| cidr.parse().ok());
    if let Some(cidr) = cidr.filter(|_| object["kind"] == Kind::IpBlock.name()) {
        let transfer = object["spec"]["transfer"] == true;
        let node = object["spec"]["node"].as_str().unwrap_or_default();
        let name = if transfer { IpBlockSpec::transfer_name(cidr, node) } else { IpBlockSpec::name_of(cidr) };
        object["metadata"]["name"] = json!(name);
    }
}

/// That object with `change` merged into its spec; null takes a field away.
pub(crate) fn with(kind: Kind, change: &Value) -> Value {
    let mut object = sound(kind);
    merge(&mut object["spec"], change);
    name_block(&mut object);
    object
}

/// The same, from YAML.
pub(crate) fn changed(kind: Kind, change: &str) -> Result<Value> {
    let change: Value = serde_saphyr::from_str(change).with_context(|| change.to_owned())?;
    Ok(with(kind, &change))
}

fn merge(into: &mut Value, change: &Value) {
    match change {
        Value::Object(fields) if into.is_object() => {
            for (name, value) in fields {
                match value {
                    Value::Null => drop(into.as_object_mut().map(|fields| fields.remove(name))),
                    value => merge(&mut into[name], value),
                }
            }
        }
        other => *into = other.clone(),
    }
}
