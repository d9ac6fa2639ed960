//! The handle: what a program holds of its speaker. It owns nothing but channel ends.
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    AdvertisedRoute, ApplyError, Followed, Learned, Originated, Paths, PeerChange, PeerConfig, PeerName,
    Peers, Receipt, ReceivedRoute, Recorder, RecorderStatus, RouteChange, SpeakerConfig, StationConfig,
    StationStatuses,
    bmp::StationViews,
    registry::{Command, PublicOutputs, Registry},
};

/// How a speaker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// This process will be back: TCP is closed without NOTIFICATION, so that peers with graceful restart keep
    /// the routes (RFC 4724). End-of-RIB and the R bit are the next process's.
    Retain,
    /// The routes are withdrawn, the withdrawals are handed to TCP, then the sessions are ceased.
    Withdraw,
    /// The sessions are ceased so that peers drop the routes even with graceful restart (RFC 8538).
    HardReset,
}

/// A running BGP speaker; clones are handles to the same one.
///
/// Dropping all handles stops it as [`StopMode::Retain`] does: a crash of the program must look like one.
#[derive(Clone, Debug)]
pub struct Speaker {
    commands: mpsc::Sender<Command>,
    synced: watch::Sender<bool>,
    paths: watch::Sender<Arc<Paths>>,
    peers: watch::Receiver<Arc<Peers>>,
    learned: watch::Receiver<Arc<Learned>>,
    followed: watch::Receiver<Arc<Followed>>,
    stations: watch::Receiver<Arc<StationViews>>,
    recorder: Option<Recorder>,
}

impl Speaker {
    /// Starts a speaker without peers on the current tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: SpeakerConfig) -> Speaker {
        let (commands, inbox) = mpsc::channel(16);
        let synced = watch::Sender::new(false);
        let paths = watch::Sender::new(Arc::default());
        let peers = watch::Sender::new(Arc::default());
        let learned = watch::Sender::new(Arc::default());
        let followed = watch::Sender::new(Arc::default());
        let stations = watch::Sender::new(Arc::default());
        let speaker = Speaker {
            commands,
            synced: synced.clone(),
            paths: paths.clone(),
            peers: peers.subscribe(),
            learned: learned.subscribe(),
            followed: followed.subscribe(),
            stations: stations.subscribe(),
            recorder: config.recorder.clone(),
        };
        let outputs = PublicOutputs { peers, learned, followed, stations };
        tokio::spawn(Registry::new(config, synced.subscribe(), paths.subscribe(), outputs).run(inbox));
        speaker
    }

    /// Makes `peers` the set of peers, whole. Peers that are equal to what runs are not touched; the answer has
    /// one line for each peer of the old and the new set, in order of their names.
    ///
    /// On an error nothing was changed. Cancelling does not undo: the registry may have taken the set already.
    pub async fn apply(&self, peers: BTreeMap<PeerName, PeerConfig>) -> Result<Vec<PeerChange>, ApplyError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Apply { peers, answer };
        self.commands.send(command).await.map_err(|_| ApplyError::Stopped)?;
        answered.await.map_err(|_| ApplyError::Stopped)?
    }

    /// Makes `routes` what `owner` originates, whole and at once; other owners' routes stay. Where two owners
    /// originate the same prefix to the same peer, the owner whose name sorts first gives the attributes.
    ///
    /// Routes to a peer that is not configured wait for it.
    pub async fn originate(&self, owner: &str, routes: Vec<Originated>) -> Receipt {
        let (answer, answered) = oneshot::channel();
        let command = Command::Originate { owner: owner.to_owned(), routes, answer };
        // A stopped speaker has no peer that could be waited for.
        if self.commands.send(command).await.is_err() {
            return Receipt::default();
        }
        answered.await.unwrap_or_default()
    }

    /// Changes some of what `owner` originates; all else of it stays. What it costs depends on the number of changes,
    /// not on the number of routes. Of two changes of the same prefix the later counts.
    pub async fn update(&self, owner: &str, changes: Vec<RouteChange>) -> Receipt {
        let (answer, answered) = oneshot::channel();
        let command = Command::Update { owner: owner.to_owned(), changes, answer };
        if self.commands.send(command).await.is_err() {
            return Receipt::default();
        }
        answered.await.unwrap_or_default()
    }

    /// Makes `stations` the set of monitoring stations (RFC 7854), by the address and port where each listens.
    /// Those whose settings are the same keep their connection.
    pub async fn apply_stations(&self, stations: BTreeMap<SocketAddr, StationConfig>) {
        // A stopped speaker has nothing to tell a station.
        let _ = self.commands.send(Command::ApplyStations { stations }).await;
    }

    /// The status of every monitoring station at this moment.
    pub fn stations(&self) -> StationStatuses {
        let views = Arc::clone(&self.stations.borrow());
        views.iter().map(|(address, status)| (*address, status.borrow().clone())).collect()
    }

    /// What became of the recording, where there is one.
    pub fn recording(&self) -> Option<RecorderStatus> {
        self.recorder.as_ref().map(Recorder::status)
    }

    /// Says that what is originated is now complete. Routes are advertised before that as they come; this alone
    /// releases End-of-RIB, which lets restart-aware peers drop what we did not send again (RFC 4724).
    pub fn initial_sync_done(&self) {
        self.synced.send_replace(true);
    }

    /// Says what is known of the paths to peers beside BGP, by BFD for one: the whole set, of peers that are configured or
    /// will be. A path that turns [`PathState::Down`](crate::PathState::Down) ends the session at once and drops what its
    /// peer taught; see there for the others. It reaches the peers' tasks directly, whatever else the speaker does.
    pub fn set_paths(&self, paths: Paths) {
        self.paths.send_if_modified(|current| {
            let modified = **current != paths;
            if modified {
                *current = Arc::new(paths);
            }
            modified
        });
    }

    /// The status of every peer, as it changes.
    pub fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        self.peers.clone()
    }

    /// What the peers taught and the import rules want in the kernel, as it changes.
    pub fn learned(&self) -> watch::Receiver<Arc<Learned>> {
        self.learned.clone()
    }

    /// Who the peers prefer for the prefixes of [`PeerConfig::followed`], as it changes.
    pub fn followed(&self) -> watch::Receiver<Arc<Followed>> {
        self.followed.clone()
    }

    /// The routes that the peer was sent, by prefix; none for an unknown peer or a session that is down.
    pub async fn advertised(&self, peer: &PeerName) -> Vec<AdvertisedRoute> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Advertised { peer: peer.clone(), answer };
        if self.commands.send(command).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }

    /// The routes that the peer sent and the import rules accepted, by prefix.
    pub async fn received(&self, peer: &PeerName) -> Vec<ReceivedRoute> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Received { peer: peer.clone(), answer };
        if self.commands.send(command).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }

    /// Stops every session as `mode` says and waits until each connection is closed, five seconds at most.
    pub async fn stop(self, mode: StopMode) {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Stop { mode, answer }).await.is_ok() {
            // An error means that the registry is gone, and every peer with it.
            let _ = answered.await;
        }
    }
}
