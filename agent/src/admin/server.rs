//! The two listeners: the admin socket, root's alone, and the metrics port.
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use plainroute_speaker::{PeerName, Speaker};
use serde::Deserialize;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    Published, answer, explain, metrics,
    view::{Explanation, Health, KernelRouteView, PeerView, PodView, RouteView},
};
use crate::plan::{Plan, PoolPlan};

/// Why the agent cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another agent answers on the socket.
    #[error("another agent answers on {}; stop it or set spec.adminSocket", .0.display())]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("the admin socket {}: {error}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The metrics port cannot be bound.
    #[error("metrics on {address} (spec.metrics.listen): {error}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

#[derive(Clone)]
struct Shared {
    published: watch::Receiver<Arc<Published>>,
    speaker: Speaker,
}

impl Shared {
    fn state(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    fn peers(&self) -> Vec<PeerView> {
        let peers = Arc::clone(&self.speaker.peers().borrow());
        let mut views: Vec<PeerView> =
            peers.iter().map(|(name, status)| answer::peer(name, status)).collect();
        views.extend(answer::refused_peers(&self.state()));
        views.sort_by(|one, other| one.name.cmp(&other.name));
        views
    }
}

/// Binds both listeners, so that a wrong address is known at once, then serves until `cancel`.
pub async fn serve(
    socket: &Path,
    metrics: SocketAddr,
    published: watch::Receiver<Arc<Published>>,
    speaker: Speaker,
    cancel: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, AdminError> {
    let shared = Shared { published, speaker };
    let unix = bind_socket(socket).await?;
    let tcp =
        TcpListener::bind(metrics).await.map_err(|error| AdminError::Metrics { address: metrics, error })?;
    let admin = routes().route("/v1/peers", get(peers)).with_state(shared.clone());
    let outside = probes().with_state(shared);
    let path = socket.to_owned();
    Ok(async move {
        let stop = cancel.clone();
        let admin = axum::serve(unix, admin).with_graceful_shutdown(stop.cancelled_owned());
        let outside = axum::serve(tcp, outside).with_graceful_shutdown(cancel.cancelled_owned());
        let (admin, outside) = tokio::join!(admin, outside);
        for error in [admin, outside].into_iter().filter_map(Result::err) {
            tracing::error!(%error, "the admin server ended");
        }
        // The next agent makes its own; a leftover would only look like a running one.
        let _ = fs::remove_file(path);
    })
}

/// A socket that only root can open, in the place of one that no agent answers on any more.
async fn bind_socket(path: &Path) -> Result<UnixListener, AdminError> {
    let fail = |error| AdminError::Socket { path: path.to_owned(), error };
    if UnixStream::connect(path).await.is_ok() {
        return Err(AdminError::InUse(path.to_owned()));
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(fail)?;
    }
    // Made under another name and moved into place, so that nobody but root can ever open it.
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let listener = UnixListener::bind(&fresh).map_err(fail)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    fs::rename(&fresh, path).map_err(fail)?;
    Ok(listener)
}

fn routes() -> Router<Shared> {
    probes()
        .route("/v1/routes/advertised", get(advertised))
        .route("/v1/routes/received", get(received))
        .route("/v1/routes/kernel", get(kernel))
        .route("/v1/pods", get(pods))
        .route("/v1/pools", get(pools))
        .route("/v1/plan", get(plan))
        .route("/v1/explain", get(explained))
        .route("/v1/check", get(check))
}

/// What may be asked from outside: metrics and how the agent is.
fn probes() -> Router<Shared> {
    Router::new().route("/metrics", get(scrape)).route("/healthz", get(alive)).route("/readyz", get(ready))
}

async fn peers(State(shared): State<Shared>) -> Json<Vec<PeerView>> {
    Json(shared.peers())
}

/// `?peer=NAME` narrows the looking glass to one peer.
#[derive(Deserialize)]
struct OfPeer {
    peer: Option<String>,
}

/// What was asked about is not there: said to the person who typed it.
type NotFound = (StatusCode, String);

impl OfPeer {
    fn names(self, shared: &Shared) -> Result<Vec<PeerName>, NotFound> {
        let known: Vec<PeerName> = shared.speaker.peers().borrow().keys().cloned().collect();
        match self.peer {
            None => Ok(known),
            Some(name) if known.iter().any(|known| known.as_str() == name) => Ok(vec![PeerName::from(name)]),
            Some(name) => {
                let known: Vec<&str> = known.iter().map(PeerName::as_str).collect();
                let message = format!("no peer {name} on this node; its peers are: {}", known.join(", "));
                Err((StatusCode::NOT_FOUND, message))
            }
        }
    }
}

async fn advertised(
    State(shared): State<Shared>,
    Query(query): Query<OfPeer>,
) -> Result<Json<Vec<RouteView>>, NotFound> {
    let (state, mut views) = (shared.state(), Vec::new());
    for peer in query.names(&shared)? {
        let routes = shared.speaker.advertised(&peer).await;
        views.extend(routes.iter().map(|route| answer::advertised(&state, &peer, route)));
    }
    Ok(Json(views))
}

async fn received(
    State(shared): State<Shared>,
    Query(query): Query<OfPeer>,
) -> Result<Json<Vec<RouteView>>, NotFound> {
    let mut views = Vec::new();
    for peer in query.names(&shared)? {
        let routes = shared.speaker.received(&peer).await;
        views.extend(routes.iter().map(|route| answer::received(&peer, route)));
    }
    Ok(Json(views))
}

async fn kernel(State(shared): State<Shared>) -> Json<Vec<KernelRouteView>> {
    Json(answer::kernel_routes(&shared.state()))
}

async fn pods(State(shared): State<Shared>) -> Json<Vec<PodView>> {
    Json(answer::pods(&shared.state()))
}

async fn pools(State(shared): State<Shared>) -> Json<Vec<PoolPlan>> {
    Json(shared.state().plan.pools.clone())
}

async fn plan(State(shared): State<Shared>) -> Json<Plan> {
    Json(Plan::clone(&shared.state().plan))
}

/// `?subject=IP` or `?subject=NAMESPACE/POD`.
#[derive(Deserialize)]
struct About {
    subject: String,
}

async fn explained(State(shared): State<Shared>, Query(query): Query<About>) -> Json<Explanation> {
    Json(explain::explain(&shared.state(), &shared.peers(), &query.subject))
}

async fn check(State(shared): State<Shared>) -> Json<Health> {
    Json(answer::health(&shared.state(), &shared.peers()))
}

async fn scrape(State(shared): State<Shared>) -> Response {
    let text = metrics::encode(&shared.state(), &shared.peers());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// Alive as long as it answers: an API server that is away is no reason to restart an agent.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(shared): State<Shared>) -> Response {
    let state = shared.state();
    if state.is_ready() {
        return "ok\n".into_response();
    }
    let text = format!("not in sync: {}\n", state.awaited.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
