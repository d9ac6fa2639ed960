//! What the suites of the pure parts share: objects from YAML, an index fed with them, a plan at a fixed time.
#![allow(dead_code, reason = "each suite uses its own part")]
use plainroute_agent::{
    index::{Index, Snapshot},
    plan::Local,
    source::{Change, Feed, HostLink, SourceName},
};
use plainroute_config::{Input, Kind, Object, load_inputs};

/// The objects of a YAML text, read by the loader that reads every config.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let loaded = load_inputs(&[Input::Stdin(yaml.into())]).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.objects.into_iter().map(|located| located.object).collect()
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
