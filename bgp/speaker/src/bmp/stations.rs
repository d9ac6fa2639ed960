//! The set of stations, as the registry owns it: starts and ends their tasks.
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use plainroute_bgp::bmp::TerminationReason;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tracing::info;

use super::{StationConfig, StationStatus, Subscriptions, station::Station};
use crate::Peers;

/// The stations' statuses, each as it changes.
pub(crate) type StationViews = BTreeMap<SocketAddr, watch::Receiver<StationStatus>>;

/// How long stopping waits for the last words to the stations.
const STOP_WAIT: Duration = Duration::from_secs(2);

struct Running {
    config: StationConfig,
    stop: oneshot::Sender<TerminationReason>,
    task: JoinHandle<()>,
}

pub(crate) struct Stations {
    running: BTreeMap<SocketAddr, Running>,
    subscriptions: watch::Sender<Subscriptions>,
    peers: watch::Receiver<Arc<Peers>>,
    views: watch::Sender<Arc<StationViews>>,
}

impl Stations {
    pub(crate) fn new(
        peers: watch::Receiver<Arc<Peers>>,
        views: watch::Sender<Arc<StationViews>>,
    ) -> Stations {
        Stations { running: BTreeMap::new(), subscriptions: watch::Sender::default(), peers, views }
    }

    /// What a peer's task is given to see who is connected.
    pub(crate) fn subscriptions(&self) -> watch::Receiver<Subscriptions> {
        self.subscriptions.subscribe()
    }

    /// Makes `wanted` the set of stations. One whose settings differ gets a new connection.
    pub(crate) fn apply(&mut self, wanted: BTreeMap<SocketAddr, StationConfig>) {
        let differs = |address: &SocketAddr, running: &Running| wanted.get(address) != Some(&running.config);
        let gone: Vec<_> =
            self.running.extract_if(.., |address, running| differs(address, running)).collect();
        let mut predecessors = BTreeMap::new();
        for (address, Running { stop, task, .. }) in gone {
            let back = wanted.contains_key(&address);
            // A task that has ended needs no word.
            let _ =
                stop.send(if back { TerminationReason::Closed } else { TerminationReason::ClosedForGood });
            info!(station = %address, "{}", if back { "changed" } else { "removed" });
            if back {
                predecessors.insert(address, task);
            } else {
                // One that does not read must not hold up the registry.
                tokio::spawn(see_off([task]));
            }
        }
        let mut views = StationViews::clone(&self.views.borrow());
        views.retain(|address, _| self.running.contains_key(address));
        for (address, config) in wanted {
            if self.running.contains_key(&address) {
                continue;
            }
            let (stop, stopped) = oneshot::channel();
            let (status, view) = watch::channel(StationStatus::default());
            let station = Station {
                address,
                config: config.clone(),
                peers: self.peers.clone(),
                subscriptions: self.subscriptions.clone(),
                status,
                stop: stopped,
                predecessor: predecessors.remove(&address),
            };
            views.insert(address, view);
            self.running.insert(address, Running { config, stop, task: tokio::spawn(station.run()) });
            info!(station = %address, "added");
        }
        self.views.send_replace(Arc::new(views));
    }

    /// Says goodbye to every station, once the peers' tasks have said theirs.
    pub(crate) async fn stop(&mut self) {
        let ending = std::mem::take(&mut self.running).into_values().map(|Running { stop, task, .. }| {
            let _ = stop.send(TerminationReason::Closed);
            task
        });
        see_off(ending.collect::<Vec<_>>()).await;
    }
}

/// Waits for tasks to end, and ends those that do not.
pub(super) async fn see_off(tasks: impl IntoIterator<Item = JoinHandle<()>>) {
    let deadline = tokio::time::Instant::now() + STOP_WAIT;
    for mut task in tasks {
        if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}
