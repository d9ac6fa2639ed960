//! The two listeners: the admin socket, root's alone, and the metrics port.
use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{self, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use plainroute_config::Readiness;
use plainroute_speaker::{PeerName, Speaker};
use serde::Deserialize;
use std::time::Duration;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Published, answer,
    egress::EgressView,
    explain, metrics, readiness,
    view::{
        DrainView, Explanation, Health, HeldView, KernelRouteView, PeerView, PodView, PoolsCheck, RouteView,
        StationView,
    },
    who,
};
use crate::{
    bfd::client::Views,
    ipam::Desk,
    ledger::{Kept, LedgerError, LedgerVerdict, Reader, Row},
    plan::{Plan, PoolPlan},
    private_socket::{self, BindError},
};

/// How many rows of the ledger are told at a time.
const LEDGER_PAGE: usize = 5_000;

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

/// What the answers are made from, and who is asked to do something.
#[derive(Clone, Debug)]
pub struct Access {
    /// What the main task tells.
    pub published: watch::Receiver<Arc<Published>>,
    /// The speaker, for the state of sessions and the looking glass.
    pub speaker: Speaker,
    /// The main task, which does what a person asks for.
    pub commands: mpsc::Sender<Command>,
    /// The BFD sessions with peers.
    pub bfd: watch::Receiver<Arc<Views>>,
    /// The ledger of who held which address when.
    pub ledger: Kept,
    /// The task that gives addresses out; none where this node does not.
    pub ipam: Option<Desk>,
    /// What readiness waits for beside the sources and the kernel.
    pub readiness: Readiness,
}

impl Access {
    pub(super) fn state(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// Asks the main task, and waits until that has taken it in.
    async fn command(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Command,
    ) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        let ending = || (StatusCode::SERVICE_UNAVAILABLE, "the agent is ending".to_owned());
        self.commands.send(command(answer)).await.map_err(|_| ending())?;
        let done = answered.await.map_err(|_| ending())?;
        done.map_err(|why| (StatusCode::INTERNAL_SERVER_ERROR, why))
    }

    fn desk(&self) -> Result<&Desk, Refused> {
        let none =
            || (StatusCode::CONFLICT, "this agent gives no addresses out (AgentConfig ipam)".to_owned());
        self.ipam.as_ref().ok_or_else(none)
    }

    /// Reads the ledger where that may take its time.
    pub(super) async fn read_ledger<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Refused> {
        let path = self.ledger.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&Reader::open(&path)?));
        let read = read.await.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        read.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    fn stations(&self) -> Vec<StationView> {
        self.speaker.stations().into_iter().map(answer::station).collect()
    }

    /// Every peer of this node, by name.
    pub(crate) fn peers(&self) -> Vec<PeerView> {
        let (state, peers) = (self.state(), Arc::clone(&self.speaker.peers().borrow()));
        let mut views: Vec<PeerView> =
            peers.iter().map(|(name, status)| answer::peer(&state, name, status)).collect();
        views.extend(answer::refused_peers(&state));
        let bfd = Arc::clone(&self.bfd.borrow());
        for view in &mut views {
            view.bfd = bfd.get(&PeerName::from(view.name.as_str())).cloned();
        }
        views.sort_by(|one, other| one.name.cmp(&other.name));
        views
    }
}

/// Binds both listeners, so that a wrong address is known at once, then serves until `cancel`.
pub async fn serve(
    socket: &Path,
    metrics: SocketAddr,
    access: Access,
    cancel: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, AdminError> {
    let unix = private_socket::bind(socket).await.map_err(|error| match error {
        BindError::InUse(path) => AdminError::InUse(path),
        BindError::Io { path, error } => AdminError::Socket { path, error },
    })?;
    let tcp =
        TcpListener::bind(metrics).await.map_err(|error| AdminError::Metrics { address: metrics, error })?;
    let admin = routes().route("/v1/peers", get(peers)).with_state(access.clone());
    let outside = probes().with_state(access);
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

fn routes() -> Router<Access> {
    probes()
        .route("/v1/routes/advertised", get(advertised))
        .route("/v1/routes/received", get(received))
        .route("/v1/routes/kernel", get(kernel))
        .route("/v1/pods", get(pods))
        .route("/v1/pools", get(pools))
        .route("/v1/pools/check", get(pools_check).post(pools_repair))
        .route("/v1/egress", get(egress))
        .route("/v1/plan", get(plan))
        .route("/v1/explain", get(explained))
        .route("/v1/check", get(check))
        .route("/v1/who", get(who::who))
        .route("/v1/ledger", get(ledger_rows))
        .route("/v1/ledger/verify", get(ledger_verdict))
        .route("/v1/held", get(held).delete(confirm))
        .route("/v1/addresses/{address}", axum::routing::delete(release))
        .route("/v1/drain", get(drained).post(drain).delete(undrain))
}

/// What may be asked from outside: metrics and how the agent is.
fn probes() -> Router<Access> {
    Router::new().route("/metrics", get(scrape)).route("/healthz", get(alive)).route("/readyz", get(ready))
}

async fn peers(State(shared): State<Access>) -> Json<Vec<PeerView>> {
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
    fn names(self, shared: &Access) -> Result<Vec<PeerName>, NotFound> {
        let peers = Arc::clone(&shared.speaker.peers().borrow());
        let known: Vec<PeerName> = peers.keys().cloned().collect();
        let is_range = |name: &PeerName| peers.get(name).is_some_and(|peer| peer.listening.is_some());
        match self.peer.map(|name| PeerName::from(name.as_str())) {
            None => Ok(known),
            // What is asked of a range is asked of each who is in it.
            Some(range) if is_range(&range) => {
                let members = peers.iter().filter(|(_, peer)| peer.member_of.as_ref() == Some(&range));
                Ok(members.map(|(name, _)| name.clone()).collect())
            }
            Some(name) if peers.contains_key(&name) => Ok(vec![name]),
            Some(name) => {
                let known: Vec<&str> = known.iter().map(PeerName::as_str).collect();
                let message = format!("no peer {name} on this node; its peers are: {}", known.join(", "));
                Err((StatusCode::NOT_FOUND, message))
            }
        }
    }
}

async fn advertised(
    State(shared): State<Access>,
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
    State(shared): State<Access>,
    Query(query): Query<OfPeer>,
) -> Result<Json<Vec<RouteView>>, NotFound> {
    let mut views = Vec::new();
    for peer in query.names(&shared)? {
        let routes = shared.speaker.received(&peer).await;
        views.extend(routes.iter().map(|route| answer::received(&peer, route)));
    }
    Ok(Json(views))
}

async fn kernel(State(shared): State<Access>) -> Json<Vec<KernelRouteView>> {
    Json(answer::kernel_routes(&shared.state()))
}

async fn pods(State(shared): State<Access>) -> Json<Vec<PodView>> {
    Json(answer::pods(&shared.state()))
}

async fn pools(State(shared): State<Access>) -> Json<Vec<PoolPlan>> {
    Json(shared.state().plan.pools.clone())
}

/// What does not fit together of the addresses that this node gives out.
async fn pools_check(State(shared): State<Access>) -> Result<Json<PoolsCheck>, Refused> {
    let found = shared.desk()?.check().await.map_err(unavailable)?;
    Ok(Json(answer::pools_check(&shared.state(), Vec::new(), found)))
}

/// The same, after what can be mended without harm was mended.
async fn pools_repair(State(shared): State<Access>) -> Result<Json<PoolsCheck>, Refused> {
    let repaired = shared.desk()?.repair().await.map_err(unavailable)?;
    Ok(Json(answer::pools_check(&shared.state(), repaired.mended, repaired.left)))
}

fn unavailable(why: String) -> Refused {
    (StatusCode::SERVICE_UNAVAILABLE, why)
}

async fn egress(State(shared): State<Access>) -> Json<Vec<EgressView>> {
    Json(super::egress::views(&shared.state()))
}

async fn plan(State(shared): State<Access>) -> Json<Plan> {
    Json(Plan::clone(&shared.state().plan))
}

/// `?subject=IP` or `?subject=NAMESPACE/POD`.
#[derive(Deserialize)]
struct About {
    subject: String,
}

async fn explained(State(shared): State<Access>, Query(query): Query<About>) -> Json<Explanation> {
    let holdings = shared.ipam.as_ref().and_then(Desk::holdings).unwrap_or_default();
    Json(explain::explain(&shared.state(), &holdings, &shared.peers(), &query.subject))
}

async fn check(State(shared): State<Access>) -> Json<Health> {
    let mut health = answer::health(&shared.state(), &shared.peers(), shared.stations());
    health.problems.extend(shared.ledger.trouble.borrow().clone());
    health.problems.extend(shared.ipam.as_ref().and_then(|desk| desk.told().trouble.clone()));
    Json(health)
}

/// `?since=TIME&after=NUMBER`: a page of rows; the next begins after its last.
#[derive(Deserialize)]
struct OfRows {
    since: Option<jiff::Timestamp>,
    after: Option<u64>,
}

async fn ledger_rows(
    State(shared): State<Access>,
    Query(query): Query<OfRows>,
) -> Result<Json<Vec<Row>>, Refused> {
    let since = query.since.unwrap_or(jiff::Timestamp::MIN);
    let after = query.after.unwrap_or_default();
    shared.read_ledger(move |ledger| ledger.export(since, after, LEDGER_PAGE)).await.map(Json)
}

async fn ledger_verdict(State(shared): State<Access>) -> Result<Json<LedgerVerdict>, Refused> {
    shared.read_ledger(|ledger| ledger.verify()).await.map(Json)
}

async fn held(State(shared): State<Access>) -> Json<Vec<HeldView>> {
    Json(answer::held(&shared.state()))
}

/// `?objects=KIND/NAME,KIND/NAME`; without it, all.
#[derive(Deserialize)]
struct OfObjects {
    objects: Option<String>,
}

/// Carries out deletions that were held, and tells what still is.
async fn confirm(
    State(shared): State<Access>,
    Query(query): Query<OfObjects>,
) -> Result<Json<Vec<HeldView>>, Refused> {
    let objects = query.objects.map(|objects| objects.split(',').map(str::to_owned).collect());
    shared.command(|answer| Command::Confirm { objects, answer }).await?;
    Ok(Json(answer::held(&shared.state())))
}

/// `?confirm=true`: no Pod uses it any more, whatever the records say.
#[derive(Deserialize)]
struct Confirmation {
    #[serde(default)]
    confirm: bool,
}

/// Gives an address back.
async fn release(
    State(shared): State<Access>,
    extract::Path(address): extract::Path<IpAddr>,
    Query(query): Query<Confirmation>,
) -> Result<Json<IpAddr>, Refused> {
    let confirm = query.confirm;
    let done = shared.command(|answer| Command::Release { address, confirm, answer }).await;
    // The refusals are about what was asked, not about the agent.
    done.map_err(|(_, why)| (StatusCode::CONFLICT, why))?;
    Ok(Json(address))
}

async fn drained(State(shared): State<Access>) -> Json<DrainView> {
    Json(answer::drain(&shared.state()))
}

/// `?waitSeconds=N`: how long the peers have to move traffic away.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wait {
    wait_seconds: u32,
}

/// What was asked for cannot be done, and why.
pub(super) type Refused = (StatusCode, String);

async fn drain(State(shared): State<Access>, Query(query): Query<Wait>) -> Result<Json<DrainView>, Refused> {
    let wait = Duration::from_secs(u64::from(query.wait_seconds));
    shared.command(|answer| Command::Drain { wait, answer }).await?;
    Ok(Json(answer::drain(&shared.state())))
}

async fn undrain(State(shared): State<Access>) -> Result<Json<DrainView>, Refused> {
    shared.command(|answer| Command::Undrain { answer }).await?;
    Ok(Json(answer::drain(&shared.state())))
}

async fn scrape(State(shared): State<Access>) -> Response {
    let (state, peers, stations) = (shared.state(), shared.peers(), shared.stations());
    let ipam = shared.ipam.as_ref().map(Desk::told);
    let text = metrics::encode(&state, &peers, &stations, shared.speaker.recording(), ipam.as_deref());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// Alive as long as it answers: an API server that is away is no reason to restart an agent.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(shared): State<Access>) -> Response {
    let state = shared.state();
    if !state.is_ready() {
        let text = format!("not in sync: {}\n", state.awaited.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    match readiness::missing(shared.readiness.established, &shared.peers()) {
        None => "ok\n".into_response(),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")).into_response(),
    }
}
