//! The commands that read files themselves, as the agent would.
use std::{net::Ipv4Addr, path::PathBuf};

use plainroute_bgp::RouterId;
use plainroute_config::{ConfigError, Kind, Loaded};
use serde::Serialize;

use super::{
    Output,
    output::{print, print_value},
    show::print_plan,
};
use crate::{
    discovery::Found,
    index::{Index, Moment},
    plan::{Local, plan as make_plan},
    run::node_name,
    source::{Change, Feed, SourceName},
};

/// The answer to `config check` for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict<'a> {
    /// Whether an agent would take the files.
    valid: bool,
    /// How many objects they hold; 0 where they are refused.
    objects: usize,
    /// Everything that is wrong with them, file by file from top to bottom.
    errors: Vec<&'a ConfigError>,
}

pub(super) fn check(paths: &[PathBuf], output: Output) -> anyhow::Result<bool> {
    let loaded = plainroute_config::load(paths);
    let errors = loaded.as_ref().err();
    match output {
        Output::Json | Output::Yaml => {
            let objects = loaded.as_ref().map_or(0, |loaded| loaded.objects.len());
            print_value(
                &Verdict { valid: errors.is_none(), objects, errors: errors.into_iter().flatten().collect() },
                output,
            )?;
        }
        Output::Table | Output::Wide => match &loaded {
            Ok(loaded) => print(&format!("valid: {}\n", summary(loaded)))?,
            Err(errors) => anstream::eprint!("{errors}"),
        },
    }
    Ok(loaded.is_ok())
}

/// How many objects of each kind there are.
fn summary(loaded: &Loaded) -> String {
    let counts = Kind::IN_FILES.into_iter().filter_map(|kind| {
        let count = loaded.objects.iter().filter(|located| located.object.kind() == kind).count();
        (count > 0).then(|| format!("{count} {kind}"))
    });
    let counts: Vec<String> = counts.collect();
    if counts.is_empty() { "no object".to_owned() } else { counts.join(", ") }
}

/// What an agent with these files would plan, as far as it can be said without its kernel and API server.
pub(super) fn plan(paths: &[PathBuf], node: Option<&str>, output: Output) -> anyhow::Result<bool> {
    let loaded = match plainroute_config::load(paths) {
        Ok(loaded) => loaded,
        Err(errors) => {
            anstream::eprint!("{errors}");
            return Ok(false);
        }
    };
    let node = match node {
        Some(node) => node.to_owned(),
        None => node_name(loaded.agent_config().and_then(|config| config.node_name.as_deref()))?,
    };
    let mut index = Index::new([]);
    let objects = loaded.objects.into_iter().map(|located| located.object).collect();
    let change = Change::Replace { kinds: Kind::IN_FILES.to_vec(), objects };
    index.handle(Feed { source: SourceName::Files, change }, Moment::now());
    let snapshot = index.snapshot().unwrap_or_default();
    let unknown = RouterId::try_from(Ipv4Addr::BROADCAST).ok();
    let local = Local {
        holdings: None,
        node,
        router_id: unknown,
        found: Found::default(),
        damped: Default::default(),
        now: jiff::Timestamp::now(),
    };
    let mut plan = make_plan(&snapshot, &local);
    // Only the node itself knows its first address; that it will have one is no reason to refuse its peers here.
    for peer in plan.peers.iter_mut().filter(|peer| peer.router_id.as_deref() == unknown.as_ref()) {
        peer.router_id = None;
    }
    print_plan(&plan, output)?;
    Ok(true)
}
