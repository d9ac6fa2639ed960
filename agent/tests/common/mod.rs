//! What the suites of the pure parts share: objects from YAML, an index fed with them, a plan at a fixed time.
#![allow(dead_code, reason = "each suite uses its own part")]
use plainroute_agent::{
    index::{Index, Snapshot},
    plan::Local,
    source::{Change, Feed, HostLink, SourceName},
};
use plainroute_config::{Kind, Object};
use serde_json::Value;

/// The objects of a YAML text with one document each.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    documents.into_iter().map(object).collect()
}

fn object(document: Value) -> Object {
    fn parse<T: serde::de::DeserializeOwned + Into<Object>>(document: Value) -> Object {
        let text = document.to_string();
        serde_json::from_value::<T>(document).unwrap_or_else(|error| panic!("{error}: {text}")).into()
    }
    let kind = document["kind"].as_str().and_then(Kind::from_name).expect("a kind of the contract");
    match kind {
        Kind::AgentConfig => parse::<plainroute_config::AgentConfig>(document),
        Kind::BgpPeer => parse::<plainroute_config::BgpPeer>(document),
        Kind::BgpAdvertisement => parse::<plainroute_config::BgpAdvertisement>(document),
        Kind::IpPool => parse::<plainroute_config::IpPool>(document),
        Kind::Egress => parse::<plainroute_config::Egress>(document),
        Kind::Pod => parse::<plainroute_config::Pod>(document),
        Kind::Namespace => parse::<plainroute_config::Namespace>(document),
        Kind::Node => parse::<plainroute_config::Node>(document),
    }
}

/// The complete set of a source.
pub(crate) fn complete(source: SourceName, objects: Vec<Object>) -> Feed {
    Feed { source, change: Change::Replace { kinds: Kind::ALL.to_vec(), objects } }
}

/// What an index says that knows exactly this.
pub(crate) fn snapshot(files: Vec<Object>, cluster: Vec<Object>, links: Vec<HostLink>) -> Snapshot {
    let mut index = Index::new([]);
    index.handle(complete(SourceName::Files, files));
    index.handle(complete(SourceName::Kubernetes, cluster));
    index.handle(Feed { source: SourceName::CniCache, change: Change::HostLinks(links) });
    index.snapshot().expect("nothing is awaited")
}

/// Node `node-a` at noon.
pub(crate) fn local() -> Local {
    Local {
        node: "node-a".to_owned(),
        router_id: Some("192.0.2.254".parse().expect("a router ID")),
        now: "2026-11-22T12:00:00Z".parse().expect("a time"),
    }
}
