//! The registry task.
//!
//! Owns: the peers' configuration and what is originated.
//! Inputs: commands of the handles (bounded channel).
//! Outputs: the status of all peers and what they taught (`watch`).
//! Cancelling: the task ends when the last handle is dropped.
use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    AdvertisedRoute, ApplyError, Effect, Learned, Originated, PeerChange, PeerConfig, PeerName, Peers,
    Receipt, ReceivedRoute, SpeakerConfig, StopMode, change,
};

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Apply {
        peers: BTreeMap<PeerName, PeerConfig>,
        answer: oneshot::Sender<Result<Vec<PeerChange>, ApplyError>>,
    },
    Originate {
        owner: String,
        routes: Vec<Originated>,
        answer: oneshot::Sender<Receipt>,
    },
    Advertised {
        peer: PeerName,
        answer: oneshot::Sender<Vec<AdvertisedRoute>>,
    },
    Received {
        peer: PeerName,
        answer: oneshot::Sender<Vec<ReceivedRoute>>,
    },
    Stop {
        mode: StopMode,
        answer: oneshot::Sender<()>,
    },
}

/// What the registry publishes.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) peers: watch::Sender<Arc<Peers>>,
    pub(crate) learned: watch::Sender<Arc<Learned>>,
}

/// Runs until it is stopped or no handle is left.
pub(crate) async fn run(
    _config: SpeakerConfig,
    mut inbox: mpsc::Receiver<Command>,
    _synced: watch::Receiver<bool>,
    outputs: Outputs,
) {
    let mut configured: BTreeMap<PeerName, PeerConfig> = BTreeMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Apply { peers, answer } => {
                let result = check(&peers).map(|()| differences(&configured, &peers));
                if result.is_ok() {
                    configured = peers;
                }
                let _ = answer.send(result);
            }
            Command::Originate { answer, .. } => drop(answer),
            Command::Advertised { answer, .. } => drop(answer),
            Command::Received { answer, .. } => drop(answer),
            Command::Stop { answer, .. } => {
                let _ = answer.send(());
                break;
            }
        }
    }
    outputs.peers.send_replace(Arc::default());
    outputs.learned.send_replace(Arc::default());
}

/// What no speaker could run.
fn check(peers: &BTreeMap<PeerName, PeerConfig>) -> Result<(), ApplyError> {
    let mut sources = BTreeMap::new();
    for (name, config) in peers {
        config.check(name)?;
        let source = config.source();
        if let Some(first) = sources.insert(source.clone(), name) {
            let (first, second) = (PeerName::clone(first), name.clone());
            return Err(ApplyError::SameAddress { first, second, address: source.to_string() });
        }
    }
    Ok(())
}

/// One line for each peer of either set, in order of their names.
fn differences(
    old: &BTreeMap<PeerName, PeerConfig>,
    new: &BTreeMap<PeerName, PeerConfig>,
) -> Vec<PeerChange> {
    let mut changes: Vec<PeerChange> = new
        .iter()
        .map(|(peer, config)| {
            let effect = old.get(peer).map_or(Effect::Added, |old| change::compare(old, config));
            PeerChange { peer: peer.clone(), effect }
        })
        .collect();
    let removed = old.keys().filter(|peer| !new.contains_key(*peer));
    changes.extend(removed.map(|peer| PeerChange { peer: peer.clone(), effect: Effect::Removed }));
    changes.sort_by(|a, b| a.peer.cmp(&b.peer));
    changes
}
