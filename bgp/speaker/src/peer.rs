//! The peer task: one for each peer.
//!
//! Owns: the peer's session, its TCP connections and both its RIBs.
//! Inputs: its configuration and whether its routes are complete (`watch`: only the latest counts); changes of its
//! routes, commands and connections that the peer opened (bounded channels); its sockets; the clock.
//! Outputs: its status and what it teaches (`watch`, with a nudge to the registry); the version of the routes
//! that is done with (`watch`).
//! Cancelling: the loop awaits in one place, [`Peer::wait`], whose futures are all cancel-safe, and yields before
//! it. A task that is dropped closes its sockets without NOTIFICATION, as a crash would.
mod drive;
mod keys;
mod path;

use std::{
    future::{Future, pending, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use plainroute_bgp::{
    record::{Input, TapedSession},
    session::{ConnectionId, Rejected, StopReason},
    wire::CeaseReason,
};
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::{debug, info, warn};

use crate::{
    AdvertisedRoute, Effect, Field, Paths, PeerConfig, PeerName, ReceivedRoute, SpeakerConfig,
    bmp::{Monitor, Subscriptions},
    change,
    connection::{Connection, Ready},
    inbound::Inbound,
    listener::Accepted,
    md5::Md5Watch,
    next_hop::interface_addresses,
    outbound::{Changes, Outbound},
    signature::Signature,
    socket,
    status::{PeerView, Record},
    tcp_ao::{TcpAoKey, connection::ConnectionKeys},
};

/// How long withdrawals may take to leave when the speaker stops.
const WITHDRAW_WAIT: Duration = Duration::from_secs(3);

/// How many changes of routes may wait, and are taken before sockets have their turn again.
pub(crate) const CHANGES_WAITING: usize = 16;

/// How a peer's session ends for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// At once, for this reason.
    Now(StopReason),
    /// When the withdrawals have left.
    Withdraw,
}

#[derive(Debug)]
pub(crate) enum PeerCommand {
    Advertised(oneshot::Sender<Vec<AdvertisedRoute>>),
    Received(oneshot::Sender<Vec<ReceivedRoute>>),
    /// The task ends after this.
    Leave(Leave),
}

pub(crate) struct Inputs {
    pub(crate) config: watch::Receiver<PeerConfig>,
    pub(crate) changes: mpsc::Receiver<Changes>,
    pub(crate) synced: watch::Receiver<bool>,
    pub(crate) paths: watch::Receiver<Arc<Paths>>,
    pub(crate) commands: mpsc::Receiver<PeerCommand>,
    pub(crate) connections: mpsc::Receiver<Accepted>,
    pub(crate) stations: watch::Receiver<Subscriptions>,
}

pub(crate) struct Outputs {
    pub(crate) view: watch::Sender<PeerView>,
    pub(crate) flushed: watch::Sender<u64>,
    /// Nudges the registry after `view` has changed.
    pub(crate) changed: Arc<Notify>,
}

/// What ended the wait.
enum Wake {
    Config,
    Changes(Changes),
    Synced,
    Paths,
    Stations,
    Command(PeerCommand),
    Accepted(Accepted),
    Connected(ConnectionId, io::Result<(TcpStream, Vec<TcpAoKey>)>),
    Ready(ConnectionId, Ready),
    Timer,
    /// The registry is gone.
    Abandoned,
}

/// An attempt to connect, with where to.
struct Attempt {
    id: ConnectionId,
    remote: SocketAddr,
    /// The TCP-AO keys on it.
    keys: Vec<TcpAoKey>,
    stream: Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>,
}

pub(crate) struct Peer {
    name: PeerName,
    speaker: SpeakerConfig,
    config: PeerConfig,
    session: TapedSession,
    attempt: Option<Attempt>,
    connections: Vec<(ConnectionId, Connection)>,
    lingering: JoinSet<()>,
    inbound: Inbound,
    outbound: Outbound,
    record: Record,
    monitor: Monitor,
    /// Why the last attempt to connect failed, until the session says that it did.
    connect_error: Option<String>,
    leaving: Option<Instant>,
    /// When a session that was stopped for too many prefixes starts again.
    resume_at: Option<Instant>,
    /// When the TCP-AO keys of the connections are looked at.
    look_at_keys: Option<Instant>,
    /// The place of the TCP-AO key with which the next connection begins.
    begin_with: usize,
    /// Until when a session waits for a path that failed.
    path_awaited: Option<Instant>,
    /// The session was lost as by a restart of the peer, and its routes are kept.
    peer_restarts: bool,
    inputs: Inputs,
    outputs: Outputs,
}

impl Peer {
    pub(crate) fn new(name: PeerName, speaker: SpeakerConfig, mut inputs: Inputs, outputs: Outputs) -> Peer {
        let config = inputs.config.borrow_and_update().clone();
        let outbound = Outbound::new(&config);
        let session = config.session(&speaker, seed(&name));
        let session = match &speaker.recorder {
            Some(recorder) => recorder.session(session, name.as_str()),
            None => TapedSession::new(session),
        };
        Peer {
            session,
            attempt: None,
            connections: Vec::new(),
            lingering: JoinSet::new(),
            inbound: Inbound::new(&config),
            outbound,
            record: Record::new(now()),
            monitor: Monitor::new(name.clone(), inputs.stations.clone()),
            connect_error: None,
            leaving: None,
            resume_at: None,
            look_at_keys: None,
            begin_with: 0,
            path_awaited: None,
            peer_restarts: false,
            name,
            speaker,
            config,
            inputs,
            outputs,
        }
    }

    /// Runs until it is told to leave and every connection is closed.
    pub(crate) async fn run(mut self) {
        self.take_path();
        self.start();
        self.take_synced();
        self.take_stations();
        loop {
            self.drain();
            self.flush();
            self.publish();
            self.hand_over_records();
            if self.has_left() {
                break;
            }
            // A peer that floods keeps its socket ready, so without this the registry and other peers' tasks would
            // wait for seconds behind it on their thread.
            tokio::task::yield_now().await;
            let wake = self.wait().await;
            self.handle(wake);
            while self.lingering.try_join_next().is_some() {}
        }
        self.hand_over_records();
        while self.lingering.join_next().await.is_some() {}
    }

    /// The one way into the session beside what was read: whatever goes in is recorded, where that is asked for.
    fn input(&mut self, input: Input) -> Option<ConnectionId> {
        self.session.handle(now(), input)
    }

    fn hand_over_records(&mut self) {
        if let Some(recorder) = &self.speaker.recorder {
            recorder.take(&mut self.session);
        }
    }

    fn start(&mut self) {
        if self.path_awaited.is_some() {
            return;
        }
        match self.config.refusal(&self.speaker.tcp_ao) {
            Some(reason) => warn!(peer = %self.name, %reason, "kept down"),
            None => {
                self.input(Input::Start);
            }
        }
    }

    /// The one place where the task waits. Nothing is lost when it is cancelled: what it awaits is readiness,
    /// the latest value of a watch, a channel, or the attempt to connect, which stays in `self`.
    async fn wait(&mut self) -> Wake {
        let signatures = self.config.is_signed().then(|| self.record.md5.poll_timeout());
        let timeout = [
            self.session.poll_timeout(),
            self.inbound.poll_timeout(),
            self.leaving,
            self.resume_at,
            self.path_awaited,
            signatures,
            self.keys_timeout(),
        ];
        let timeout = timeout.into_iter().flatten().min();
        let Inputs { config, changes, synced, paths, commands, connections, .. } = &mut self.inputs;
        tokio::select! {
            changed = config.changed() => changed.map_or(Wake::Abandoned, |()| Wake::Config),
            piece = changes.recv() => piece.map_or(Wake::Abandoned, Wake::Changes),
            // No handle is left to say it; the registry goes too and says so itself.
            Ok(()) = synced.changed() => Wake::Synced,
            Ok(()) = paths.changed() => Wake::Paths,
            () = self.monitor.changed() => Wake::Stations,
            command = commands.recv() => command.map_or(Wake::Abandoned, Wake::Command),
            Some(accepted) = connections.recv() => Wake::Accepted(accepted),
            (id, result) = connected(&mut self.attempt) => Wake::Connected(id, result),
            (id, ready) = ready(&self.connections) => Wake::Ready(id, ready),
            () = sleep_until(timeout) => Wake::Timer,
        }
    }

    fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Config => {
                let config = self.inputs.config.borrow_and_update().clone();
                self.reconfigure(config);
            }
            Wake::Changes(changes) => {
                self.apply(changes);
                self.take_changes();
            }
            Wake::Synced => self.take_synced(),
            Wake::Paths => self.take_path(),
            Wake::Stations => self.take_stations(),
            Wake::Command(PeerCommand::Advertised(answer)) => {
                // The asker may be gone; that is its own affair.
                let _ = answer.send(self.outbound.advertised());
            }
            Wake::Command(PeerCommand::Received(answer)) => {
                let _ = answer.send(self.inbound.received());
            }
            Wake::Command(PeerCommand::Leave(Leave::Now(reason))) => self.leave(reason),
            Wake::Command(PeerCommand::Leave(Leave::Withdraw)) => {
                self.outbound.withdraw();
                self.leaving = Some(now() + WITHDRAW_WAIT);
            }
            Wake::Abandoned => self.abandoned(),
            Wake::Accepted(accepted) => self.accept(accepted),
            Wake::Connected(id, Ok((stream, keys))) => {
                self.connections.push((id, Connection::new(stream, ConnectionKeys::new(keys))));
                self.input(Input::Connected(id));
                self.look_at_keys();
            }
            Wake::Connected(id, Err(error)) => self.connect_failed(id, &error),
            Wake::Ready(id, ready) => self.read(id, ready),
            Wake::Timer => self.handle_timeout(),
        }
    }

    fn handle_timeout(&mut self) {
        let now = now();
        self.session.handle(now, Input::Timeout);
        if self.inbound.handle_timeout(now) {
            warn!(peer = %self.name, "the peer did not send its routes again in time; dropped those kept for it");
        }
        if self.path_awaited.is_some_and(|at| at <= now) {
            self.stop_waiting_for_path();
        }
        if self.resume_at.take_if(|at| *at <= now).is_some() {
            self.start();
        }
        self.look_for_next_hops();
        self.look_for_signatures(now);
        self.handle_keys_timeout(now);
    }

    /// An interface may have got its address after the session stood; asked for no more often than KEEPALIVEs.
    fn look_for_next_hops(&mut self) {
        if !self.outbound.lacks_next_hop() {
            return;
        }
        if let (Some((_, negotiated)), Some(local)) =
            (self.session.established(), self.record.local_address())
        {
            // An error leaves things as they are; it was told when the session came up.
            let addresses = interface_addresses().unwrap_or_default();
            self.outbound.set_next_hops(&self.config, negotiated, local.ip(), &addresses);
        }
    }

    fn apply(&mut self, changes: Changes) {
        if self.leaving.is_none() {
            self.outbound.apply(changes);
        }
    }

    /// Takes what waits of changes, so that they leave together; a flood of them may not keep the sockets waiting.
    fn take_changes(&mut self) {
        for _ in 0..CHANGES_WAITING {
            let Ok(changes) = self.inputs.changes.try_recv() else { break };
            self.apply(changes);
        }
        self.look_for_next_hops();
        self.take_synced();
    }

    /// Releases End-of-RIB once the set is complete. The set was sent before the word that it is, and a peer that comes
    /// later gets the word before the set: whoever sees the word takes the set first, or End-of-RIB would leave before
    /// the routes and the peer would drop them.
    fn take_synced(&mut self) {
        if *self.inputs.synced.borrow_and_update() && !self.outbound.rib().end_of_rib_released() {
            while let Ok(changes) = self.inputs.changes.try_recv() {
                self.apply(changes);
            }
            if self.outbound.version().is_some() {
                self.outbound.release_end_of_rib();
            }
        }
    }

    /// The registry lets go of a removed peer as soon as it has told it to leave, so what it said last may still wait.
    fn abandoned(&mut self) {
        while let Ok(command) = self.inputs.commands.try_recv() {
            self.handle(Wake::Command(command));
        }
        if self.leaving.is_none() {
            self.leave(StopReason::Retain);
        }
        self.leaving = Some(now());
    }

    /// What is collected is told first: it is part of the routes that a new station is greeted with.
    fn take_stations(&mut self) {
        self.monitor.received(self.inbound.take_changes());
        self.monitor.take_subscriptions(&self.inbound, &self.outbound);
        self.inbound.watch(self.monitor.wants_received());
    }

    fn leave(&mut self, reason: StopReason) {
        self.input(Input::Stop(reason));
        self.leaving = Some(now());
    }

    /// Whether the session may end now, and ends it. What is left after that is to see the connections off.
    fn has_left(&mut self) -> bool {
        let Some(deadline) = self.leaving else { return false };
        let told = self.session.established().is_none() || self.is_flushed();
        let left = told || deadline <= now();
        if left {
            let text = "withdrawn".to_owned();
            let reason = StopReason::Cease(CeaseReason::AdministrativeShutdown, text);
            self.input(Input::Stop(reason));
            self.drain();
        }
        left
    }

    fn reconfigure(&mut self, config: PeerConfig) {
        let old = std::mem::replace(&mut self.config, config);
        let effect = change::compare(&old, &self.config);
        match &effect {
            Effect::Unchanged | Effect::Added | Effect::Removed => return,
            Effect::Reset { fields } => {
                self.begin_anew(fields);
            }
            Effect::Refreshed { .. } | Effect::Silent { .. } => {
                let session = self.config.session(&self.speaker, seed(&self.name));
                self.input(Input::Config(Box::new(session)));
                self.outbound.set_limit(&self.config);
                if self.config.max_prefixes_in != old.max_prefixes_in {
                    self.inbound.set_limit(&self.config);
                    if self.resume_at.take().is_some() {
                        self.start();
                    }
                }
                let first_as = self.config.enforce_first_as != old.enforce_first_as;
                if self.config.import != old.import || self.config.followed != old.followed || first_as {
                    self.inbound.set_policy(&self.config);
                    for family in self.config.families.iter() {
                        self.input(Input::RequestRefresh(family));
                    }
                }
                if self.config.tcp_ao != old.tcp_ao {
                    self.begin_with = 0;
                    self.look_at_keys();
                }
            }
        }
        info!(peer = %self.name, "{effect}");
    }

    /// Ends the session for these fields and builds it from the configuration.
    fn begin_anew(&mut self, fields: &[Field]) {
        let same_routers = change::keeps_forwarding(fields);
        let hitless = same_routers && self.peer_helps_restart();
        if hitless {
            self.inbound.hold(now());
        }
        let text = "the configuration of this peer has changed".to_owned();
        let stop = match (hitless, same_routers) {
            (true, _) => StopReason::Retain,
            (false, true) => StopReason::Cease(CeaseReason::OtherConfigurationChange, text),
            // Whoever comes back is another one, or nobody does: what we told is not to be kept.
            (false, false) => StopReason::HardReset(CeaseReason::OtherConfigurationChange, text),
        };
        self.input(Input::Stop(stop));
        self.drain();
        self.record.keep_counters(self.session.counters());
        let session = self.config.session(&self.speaker, seed(&self.name));
        self.input(Input::New(Box::new(session)));
        self.record.md5 = Md5Watch::new(now());
        if hitless {
            self.inbound.set_policy(&self.config);
        } else {
            self.inbound.clear();
            self.inbound = Inbound::new(&self.config);
        }
        self.outbound.set_limit(&self.config);
        self.resume_at = None;
        self.start();
    }

    /// Whether the peer keeps our routes while the session is built anew.
    fn peer_helps_restart(&self) -> bool {
        self.session.established().is_some_and(|(_, negotiated)| negotiated.graceful_restart.is_some())
    }

    fn accept(&mut self, Accepted { stream, signature, keys }: Accepted) {
        // The configuration may have changed while the connection was in the channel.
        let expected = stream.peer_addr().is_ok_and(|remote| remote.ip() == self.config.peer_address)
            && signature.as_ref().and_then(Signature::password) == self.config.password.as_ref()
            && keys.is_empty() == self.config.tcp_ao.is_none();
        if !expected || self.leaving.is_some() {
            return;
        }
        if let Err(error) = socket::adopt(&stream, &self.config) {
            warn!(peer = %self.name, %error, "refused a connection: its socket options cannot be set");
            return;
        }
        match self.input(Input::Accepted) {
            Some(id) => {
                self.connections.push((id, Connection::new(stream, ConnectionKeys::new(keys))));
                self.look_at_keys();
            }
            None => debug!(peer = %self.name, reason = %Rejected::Stopped, "refused a connection"),
        }
    }

    fn read(&mut self, id: ConnectionId, ready: Ready) {
        let Some((_, connection)) = self.connections.iter_mut().find(|(other, _)| *other == id) else {
            return;
        };
        if !ready.read {
            return;
        }
        let open = connection.read();
        let mut input = std::mem::take(&mut connection.input);
        self.session.handle_input(now(), id, &mut input);
        if !matches!(open, Ok(true)) {
            self.input(Input::Closed(id));
            self.connections.retain(|(other, _)| *other != id);
        } else if let Some((_, connection)) = self.connections.iter_mut().find(|(other, _)| *other == id) {
            connection.input = input;
        }
    }

    fn publish(&mut self) {
        if self.is_flushed() {
            let version = self.outbound.version().unwrap_or_default();
            self.outputs.flushed.send_if_modified(|flushed| std::mem::replace(flushed, version) != version);
        }
        self.monitor.received(self.inbound.take_changes());
        let view =
            self.record.view(&self.config, &self.speaker, &self.session, &self.inbound, &self.outbound);
        let modified = self.outputs.view.send_if_modified(|old| {
            let modified = *old != view;
            *old = view;
            modified
        });
        if modified {
            self.outputs.changed.notify_one();
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Peers and processes differ, so their timers do not beat together.
fn seed(name: &PeerName) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(name)
}

async fn connected(attempt: &mut Option<Attempt>) -> (ConnectionId, io::Result<(TcpStream, Vec<TcpAoKey>)>) {
    let Some(waiting) = attempt else { return pending().await };
    let (id, result) = (waiting.id, waiting.stream.as_mut().await);
    let keys = attempt.take().map(|attempt| attempt.keys).unwrap_or_default();
    (id, result.map(|stream| (stream, keys)))
}

async fn ready(connections: &[(ConnectionId, Connection)]) -> (ConnectionId, Ready) {
    poll_fn(|context| {
        for (id, connection) in connections {
            if let Poll::Ready(ready) = connection.poll_ready(context) {
                return Poll::Ready((*id, ready));
            }
        }
        Poll::Pending
    })
    .await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use plainroute_bgp::{Asn, Prefix};

    use super::*;

    /// The set of routes and the word that it is complete come together, and the task may wake for either first.
    #[test]
    fn end_of_rib_is_released_only_behind_the_routes_that_it_ends() {
        let asn = |number| Asn::new(number).unwrap();
        let router_id = "192.0.2.1".parse().unwrap();
        let config = PeerConfig::new(asn(64512), asn(64600), router_id, [192, 0, 2, 2].into());
        let (changes, changes_in) = mpsc::channel(CHANGES_WAITING);
        let (synced, synced_in) = watch::channel(false);
        let (config, config_in) = watch::channel(config);
        let inputs = Inputs {
            config: config_in,
            changes: changes_in,
            synced: synced_in,
            paths: watch::channel(Arc::default()).1,
            commands: mpsc::channel(1).1,
            connections: mpsc::channel(1).1,
            stations: watch::channel(Subscriptions::default()).1,
        };
        let prefix = Prefix::host([10, 0, 0, 1].into());
        let view = watch::Sender::new(PeerView::idle(&config.borrow(), &SpeakerConfig::default()));
        let outputs = Outputs { view, flushed: watch::Sender::new(0), changed: Arc::default() };
        let mut peer = Peer::new(PeerName::from("tor"), SpeakerConfig::default(), inputs, outputs);

        synced.send_replace(true);
        peer.handle(Wake::Synced);
        assert!(!peer.outbound.rib().end_of_rib_released(), "nothing has come yet");

        changes.try_send(Changes { routes: vec![(prefix, Some(Arc::default()))], version: None }).unwrap();
        peer.handle(Wake::Synced);
        assert!(!peer.outbound.rib().end_of_rib_released(), "only a piece of it has come");

        changes.try_send(Changes { routes: Vec::new(), version: Some(7) }).unwrap();
        peer.handle(Wake::Synced);
        assert!(peer.outbound.rib().end_of_rib_released());
        assert_eq!((peer.outbound.version(), peer.outbound.originated(prefix.family())), (Some(7), 1));
    }
}
