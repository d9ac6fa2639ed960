//! The API server as a source: the Pods of this node, all Namespaces, this Node, and our own kinds.
//!
//! Owner of the client and of one watch a kind. Output: [`Change`]s; input: none but the API server. An API
//! server that is away, silent, or refuses is waited for without end and never taken for a deletion. When
//! [`run`] is cancelled the connections close and nothing is told.

mod seen;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use hyper::{Request, Uri};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use plainroute_config::{BgpAdvertisement, BgpPeer, Egress, IpPool, Kind, Namespace, Node, Pod};
use tokio::sync::watch::{Receiver, Sender};
use tower::util::MapRequestLayer;
use tracing::{debug, warn};

use super::{Change, Feed, Feeds, SourceName};
pub(crate) use watch::innermost;
use watch::{Ended, Watch};

/// The client's own modules log every failed request; this source tells each change of state once instead. For the
/// agent's log filter.
pub const QUIET: [&str; 2] = ["kube_client", "kube_runtime"];

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// By how much a silent connection may outlive the time at which the server had to end its watch.
const SILENCE: Duration = Duration::from_secs(10);

/// What this source has to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kubeconfig; without one the Pod's service account, and without that what kubectl would use.
    pub kubeconfig: Option<PathBuf>,
    /// The name of this node's Node object.
    pub node: String,
    /// Ask for the first list as a stream of events, which costs the server and the agent less memory. Where the
    /// server does not know how, a plain list is asked for.
    pub streaming_lists: bool,
    /// Take our own kinds from it too.
    pub custom_resources: bool,
    /// How fast it goes.
    pub pace: Pace,
}

/// The latest state of the server that was seen, by kind: its resource version.
pub type Marks = BTreeMap<Kind, u64>;

/// How often the API server is asked again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After how many seconds the server ends a watch, which is then resumed. A connection that died without a
    /// word is noticed a little later than this.
    pub watch_seconds: u32,
    /// The wait after a first failure; it doubles from there, and up to as much again is added at random.
    pub retry_min: Duration,
    /// The longest wait, before the random part.
    pub retry_max: Duration,
    /// The wait beside that for a kind that the server does not have.
    pub absent: Duration,
    /// For how long a watch must go well before its earlier trouble counts as over.
    pub settle: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            watch_seconds: 25,
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(5),
            absent: Duration::from_secs(30),
            settle: Duration::from_secs(2),
        }
    }
}

impl Pace {
    fn backoff(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.retry_min)
            .with_max_delay(self.retry_max)
            .without_max_times()
            .with_jitter()
            .build()
    }

    /// The next wait. The sequence has no end; the longest wait stands in for one.
    fn wait(&self, backoff: &mut ExponentialBackoff) -> Duration {
        backoff.next().unwrap_or(self.retry_max)
    }
}

impl Settings {
    /// The kinds that it delivers.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        let own = [Kind::BgpPeer, Kind::BgpAdvertisement, Kind::IpPool, Kind::Egress];
        [Kind::Pod, Kind::Namespace, Kind::Node]
            .into_iter()
            .chain(own.into_iter().filter(|_| self.custom_resources))
    }
}

/// How much of the cluster is watched beyond this node. It only grows while a process runs: what were no longer asked for
/// would look like deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Every Node: who may be an egress gateway.
    pub nodes: bool,
    /// Every Pod: whose packets leave by this node.
    pub pods: bool,
}

/// Feeds the index until nobody listens any more. `marks`: what an earlier process saw goes in, what is seen comes out.
pub async fn run(settings: Settings, marks: Sender<Marks>, mut scope: Receiver<Scope>, feeds: Feeds) {
    let of_this_node = Some(format!("spec.nodeName={}", settings.node));
    let of_this_name = Some(format!("metadata.name={}", settings.node));
    let mut pods = Watch::<Pod>::new(of_this_node, &settings, &marks, &feeds);
    let mut namespaces = Watch::<Namespace>::new(None, &settings, &marks, &feeds);
    let mut nodes = Watch::<Node>::new(of_this_name, &settings, &marks, &feeds);
    let mut peers = Watch::<BgpPeer>::new(None, &settings, &marks, &feeds);
    let mut advertisements = Watch::<BgpAdvertisement>::new(None, &settings, &marks, &feeds);
    let mut pools = Watch::<IpPool>::new(None, &settings, &marks, &feeds);
    let mut egresses = Watch::<Egress>::new(None, &settings, &marks, &feeds);
    let own = settings.custom_resources;
    while let Some((client, server)) = connected(&settings, &feeds).await {
        debug!(server, node = settings.node, "watching");
        let Scope { nodes: all_nodes, pods: all_pods } = *scope.borrow_and_update();
        if all_nodes {
            nodes.widen();
        }
        if all_pods {
            pods.widen();
        }
        let ended = tokio::select! {
            Ok(()) = scope.changed() => continue,
            ended = pods.run(&client, &server) => ended,
            ended = namespaces.run(&client, &server) => ended,
            ended = nodes.run(&client, &server) => ended,
            ended = peers.run(&client, &server), if own => ended,
            ended = advertisements.run(&client, &server), if own => ended,
            ended = pools.run(&client, &server), if own => ended,
            ended = egresses.run(&client, &server), if own => ended,
        };
        match ended {
            Ended::Unheard => return,
            Ended::Unauthorized => debug!(server, "reading the credentials again"),
        }
    }
}

/// A client, as soon as the configuration gives one; `None` when nobody listens any more.
async fn connected(settings: &Settings, feeds: &Feeds) -> Option<(Client, String)> {
    let mut backoff = settings.pace.backoff();
    let mut told = None;
    loop {
        let (connection, problem) = match connect(settings).await {
            Ok(connection) => (Some(connection), None),
            Err(error) => (None, Some(format!("no usable Kubernetes client configuration: {error}"))),
        };
        if problem != told {
            if let Some(problem) = &problem {
                warn!("{problem}");
            }
            told.clone_from(&problem);
            let change = Change::Health { kind: None, problem };
            feeds.send(Feed { source: SourceName::Kubernetes, change }).await.ok()?;
        }
        if connection.is_some() {
            return connection;
        }
        tokio::time::sleep(settings.pace.wait(&mut backoff)).await;
    }
}

/// A client by the configuration as it is in the files now, and the server's address. Asks nothing of the server.
pub(crate) async fn connect(
    settings: &Settings,
) -> Result<(Client, String), Box<dyn std::error::Error + Send + Sync>> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?
        }
        None => match Config::incluster() {
            Ok(config) => config,
            Err(_) => Config::infer().await?,
        },
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(Duration::from_secs(settings.pace.watch_seconds.into()) + SILENCE);
    config.reset_reader_on_write = true;
    // Trying again is this source's own business, and so is telling of it.
    config.default_retry = false;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = ClientBuilder::try_from(config)?.with_layer(&MapRequestLayer::new(most_recent)).build();
    Ok((client, server))
}

/// A streamed list is asked for from version 0, which is whatever the server's cache holds, and that of a server that was
/// cut off for a while lacks what was seen already. Without a version it is the most recent state, as of a plain list.
fn most_recent<B>(mut request: Request<B>) -> Request<B> {
    let uri = request.uri();
    let Some(query) = uri.query().filter(|query| query.contains("sendInitialEvents=true")) else {
        return request;
    };
    let kept: Vec<_> = query.split('&').filter(|part| *part != "resourceVersion=0").collect();
    let path_and_query = format!("{}?{}", uri.path(), kept.join("&"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path_and_query.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}
