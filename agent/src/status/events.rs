//! Which Events there are to tell: what has changed from one look to the next, and never what merely is. Pure; the time
//! goes in. What cannot be told soon is forgotten rather than gathered.
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use plainroute_config::{DrainPhase, NodeStateStatus, ObjectKey};

use super::{
    Seen,
    node_state::{violations, word},
    pace::Bucket,
};
use crate::{
    admin::{Published, view::PeerView},
    drain::DrainState,
    ipam::{RefusedPod, Told},
};

/// So many at once, and one more in each interval: a storm must not reach the API server.
const BURST: u32 = 10;
const EVERY: Duration = Duration::from_secs(10);
/// So many wait at most.
const WAITING: usize = 32;
/// So many objects are named in one note.
const NAMED: usize = 5;

/// An Event: that something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occurrence {
    pub(super) reason: Reason,
    /// What has happened, in a sentence.
    pub(super) note: String,
    pub(super) regarding: Regarding,
    /// The BGPPeer that it has to do with.
    pub(super) bgp_peer: Option<String>,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Regarding {
    /// The node that the agent runs on.
    Node(String),
    /// A Pod of it.
    Pod { namespace: String, name: String, uid: String },
    /// An IPPool.
    Pool(String),
}

/// What has happened, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    SessionEstablished,
    SessionLost,
    DrainStarted,
    Drained,
    DrainEnded,
    DeletionsHeld,
    DeletionsReleased,
    RunningOnLastGood,
    InSyncAgain,
    NotAdvertised,
    NoAddress,
    PoolExhausted,
    NotAccepted,
    Accepted,
}

impl Reason {
    #[cfg(test)]
    pub(super) const ALL: [Reason; 14] = [
        Reason::SessionEstablished,
        Reason::SessionLost,
        Reason::DrainStarted,
        Reason::Drained,
        Reason::DrainEnded,
        Reason::DeletionsHeld,
        Reason::DeletionsReleased,
        Reason::RunningOnLastGood,
        Reason::InSyncAgain,
        Reason::NotAdvertised,
        Reason::NoAddress,
        Reason::PoolExhausted,
        Reason::NotAccepted,
        Reason::Accepted,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Reason::SessionEstablished => "SessionEstablished",
            Reason::SessionLost => "SessionLost",
            Reason::DrainStarted => "DrainStarted",
            Reason::Drained => "Drained",
            Reason::DrainEnded => "DrainEnded",
            Reason::DeletionsHeld => "DeletionsHeld",
            Reason::DeletionsReleased => "DeletionsReleased",
            Reason::RunningOnLastGood => "RunningOnLastGood",
            Reason::InSyncAgain => "InSyncAgain",
            Reason::NotAdvertised => "NotAdvertised",
            Reason::NoAddress => "NoAddress",
            Reason::PoolExhausted => "PoolExhausted",
            Reason::NotAccepted => "NotAccepted",
            Reason::Accepted => "Accepted",
        }
    }

    /// Whether somebody should look.
    pub(super) const fn is_warning(self) -> bool {
        match self {
            Reason::SessionLost
            | Reason::DeletionsHeld
            | Reason::RunningOnLastGood
            | Reason::NotAdvertised
            | Reason::NoAddress
            | Reason::PoolExhausted
            | Reason::NotAccepted => true,
            Reason::SessionEstablished
            | Reason::DrainStarted
            | Reason::Drained
            | Reason::DrainEnded
            | Reason::DeletionsReleased
            | Reason::InSyncAgain
            | Reason::Accepted => false,
        }
    }

    /// What the agent was doing.
    pub(super) const fn action(self) -> &'static str {
        match self {
            Reason::SessionEstablished | Reason::SessionLost => "Peer",
            Reason::DrainStarted | Reason::Drained | Reason::DrainEnded => "Drain",
            Reason::DeletionsHeld | Reason::DeletionsReleased => "Delete",
            Reason::RunningOnLastGood | Reason::InSyncAgain => "Sync",
            Reason::NotAdvertised => "Advertise",
            Reason::NoAddress | Reason::PoolExhausted => "Allocate",
            Reason::NotAccepted | Reason::Accepted => "Accept",
        }
    }
}

/// What was seen last, and what the process before this one has told.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// It is not known yet what was told before.
    waits: bool,
    /// How often each session came and went.
    sessions: BTreeMap<String, (u64, u64)>,
    /// The sessions that were up before, and have not come up again.
    were_up: BTreeSet<String>,
    drain: DrainState,
    held: BTreeSet<ObjectKey>,
    /// How many were held before.
    were_held: usize,
    restored: bool,
    /// What was said of which Pod: UID and reason.
    refused: BTreeSet<(String, String)>,
    /// The same of before: name and reason.
    were_refused: BTreeSet<(String, String)>,
    /// Which Pods were told that they have no address, and why: UID and reason.
    without: BTreeSet<(String, String)>,
    /// The pools that have none left, and those that had none before.
    exhausted: BTreeSet<String>,
    were_exhausted: BTreeSet<String>,
}

impl Memory {
    /// Of a process that does not know yet what the one before it has told: until then only outages are.
    pub(super) fn waiting() -> Memory {
        Memory { waits: true, ..Memory::default() }
    }

    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// What was told before, by the NodeState as it was found. A restart is no transition.
    pub(super) fn handle_found(&mut self, found: &NodeStateStatus) {
        self.waits = false;
        let up = found.sessions.iter().filter(|session| session.state == "Established");
        self.were_up = up.map(|session| session.peer.clone()).collect();
        self.drain = match found.drain {
            DrainPhase::Active => DrainState::Active,
            DrainPhase::Draining => DrainState::Draining,
            DrainPhase::Drained => DrainState::Drained,
        };
        self.were_held = usize::try_from(found.held).unwrap_or(usize::MAX);
        let pods = found.objects.iter().filter(|object| object.kind == "Pod");
        self.were_refused = pods.map(|pod| (pod.name.clone(), pod.reason.clone())).collect();
        let exhausted =
            found.objects.iter().filter(|object| object.reason == "PoolExhausted" && object.kind == "IPPool");
        self.were_exhausted = exhausted.map(|pool| pool.name.clone()).collect();
    }

    /// The restart is over: a session that comes up now has been down.
    pub(super) fn forget_sessions(&mut self) {
        self.were_up.clear();
    }

    /// What has happened since.
    pub(super) fn handle_seen(&mut self, seen: &Seen) -> Vec<Occurrence> {
        let state = &*seen.published;
        let mut told = Vec::new();
        if !self.waits {
            told.extend(self.sessions(seen));
            let drained = (std::mem::replace(&mut self.drain, state.drain), state.drain);
            told.extend(drain(drained).map(|(reason, note)| of_node(state, reason, note.to_owned())));
            told.extend(self.held(state));
        }
        told.extend(self.outage(state));
        if !self.waits {
            told.extend(self.refused(state));
            told.extend(self.without_address(&seen.ipam));
        }
        told
    }

    fn sessions(&mut self, seen: &Seen) -> Vec<Occurrence> {
        let state = &*seen.published;
        let (mut told, mut sessions) = (Vec::new(), BTreeMap::new());
        for peer in seen.peers.iter().filter(|peer| peer.range.is_none()) {
            let counts = (peer.established_count, peer.lost_count);
            // A peer that was taken away and came back begins to count anew.
            let before = self.sessions.get(&peer.name).filter(|before| **before <= counts);
            let happened = session(peer, before.copied().unwrap_or_default(), state);
            let again = !happened.is_empty() && self.were_up.remove(&peer.name) && peer.lost_count == 0;
            let happened = happened.into_iter().filter(|_| !again);
            told.extend(happened.map(|(reason, note)| Occurrence {
                bgp_peer: Some(peer.member_of.clone().unwrap_or_else(|| bgp_peer(peer, state))),
                ..of_node(state, reason, note)
            }));
            sessions.insert(peer.name.clone(), counts);
        }
        self.sessions = sessions;
        told
    }

    fn held(&mut self, state: &Published) -> Option<Occurrence> {
        let held: BTreeSet<ObjectKey> = state.held.keys().cloned().collect();
        let before = std::mem::replace(&mut self.held, held.clone());
        let were_held = std::mem::take(&mut self.were_held);
        let new: Vec<String> = held.difference(&before).map(ToString::to_string).collect();
        if held.is_empty() {
            let released = !before.is_empty() || were_held > 0;
            return released.then(|| {
                of_node(state, Reason::DeletionsReleased, "no deletion is held any more".to_owned())
            });
        }
        if new.is_empty() || held.len() <= were_held {
            return None;
        }
        let named = new.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let (new, all) = (new.len(), held.len());
        let note = format!(
            "{new} deletions are held, {all} in all, until somebody confirms (plainroute held): {named}"
        );
        Some(of_node(state, Reason::DeletionsHeld, note))
    }

    fn outage(&mut self, state: &Published) -> Option<Occurrence> {
        let restored = state.restored.filter(|_| state.awaited.is_empty());
        match (std::mem::replace(&mut self.restored, restored.is_some()), restored) {
            (false, Some(time)) => {
                let note = format!(
                    "the API server did not answer after a restart; what it said until {time} is in force"
                );
                Some(of_node(state, Reason::RunningOnLastGood, note))
            }
            (true, None) => {
                let note = "what the API server says now is in force".to_owned();
                Some(of_node(state, Reason::InSyncAgain, note))
            }
            (true, Some(_)) | (false, None) => None,
        }
    }

    /// Pods that get no address: each once for each reason; and the pools that have none left, once until they have again.
    fn without_address(&mut self, ipam: &Told) -> Vec<Occurrence> {
        let there: BTreeSet<&String> = ipam.refused.values().map(|refused| &refused.uid).collect();
        self.without.retain(|(uid, _)| there.contains(uid));
        let (mut told, mut exhausted) = (Vec::new(), BTreeSet::new());
        for ((namespace, name), RefusedPod { uid, reason, message, exhausted: pools }) in &ipam.refused {
            let before = (format!("{namespace}/{name}"), (*reason).to_owned());
            if self.without.insert((uid.clone(), (*reason).to_owned())) && !self.were_refused.remove(&before)
            {
                let (namespace, name, uid) = (namespace.clone(), name.clone(), uid.clone());
                told.push(Occurrence {
                    reason: Reason::NoAddress,
                    note: message.clone(),
                    regarding: Regarding::Pod { namespace, name, uid },
                    bgp_peer: None,
                });
            }
            for pool in pools.iter().filter(|pool| exhausted.insert((*pool).clone())) {
                if !self.exhausted.contains(pool) && !self.were_exhausted.remove(pool) {
                    told.push(Occurrence {
                        reason: Reason::PoolExhausted,
                        note: format!("Pod {namespace}/{name} gets no address: {message}"),
                        regarding: Regarding::Pool(pool.clone()),
                        bgp_peer: None,
                    });
                }
            }
        }
        self.exhausted = exhausted;
        told
    }

    /// Pods that break a rule of the pools: each once for each rule.
    fn refused(&mut self, state: &Published) -> Vec<Occurrence> {
        let pods = state.plan.pods.iter().filter_map(|pod| Some((pod, pod.uid.as_ref()?)));
        let there: BTreeSet<&String> = pods.clone().map(|(_, uid)| uid).collect();
        self.refused.retain(|(uid, _)| there.contains(uid));
        let mut told = Vec::new();
        for (pod, uid) in pods {
            for (address, reason) in violations(pod) {
                let before = (format!("{}/{}", pod.namespace, pod.name), word(reason));
                if self.refused.insert((uid.clone(), word(reason))) && !self.were_refused.remove(&before) {
                    told.push(Occurrence {
                        reason: Reason::NotAdvertised,
                        note: format!("{} is not advertised: {reason}", address.address),
                        regarding: Regarding::Pod {
                            namespace: pod.namespace.clone(),
                            name: pod.name.clone(),
                            uid: uid.clone(),
                        },
                        bgp_peer: None,
                    });
                }
            }
        }
        told
    }
}

fn of_node(state: &Published, reason: Reason, note: String) -> Occurrence {
    Occurrence { reason, note, regarding: Regarding::Node(state.node.clone()), bgp_peer: None }
}

fn bgp_peer(peer: &PeerView, state: &Published) -> String {
    let planned = state.plan.peers.iter().find(|planned| planned.name == peer.name);
    planned.map_or_else(|| peer.name.clone(), |planned| planned.bgp_peer.clone())
}

/// What has become of a session that had come and gone so often before.
fn session(peer: &PeerView, before: (u64, u64), state: &Published) -> Vec<(Reason, String)> {
    let place = peer.place().map(|place| format!(" ({place}, AS {})", peer.peer_asn)).unwrap_or_default();
    let (name, node) = (&peer.name, &state.node);
    let mut told = Vec::new();
    if peer.lost_count > before.1 {
        let why = peer.last_error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let often = match peer.lost_count - before.1 {
            1 => String::new(),
            times => format!(" {times} times"),
        };
        told.push((Reason::SessionLost, format!("{node} lost the session with {name}{place}{often}{why}")));
    }
    if peer.established_count > before.0 && peer.is_established() {
        told.push((Reason::SessionEstablished, format!("{node} has a session with {name}{place}")));
    }
    told
}

fn drain((before, now): (DrainState, DrainState)) -> Option<(Reason, &'static str)> {
    match (before, now) {
        (DrainState::Active, DrainState::Active)
        | (DrainState::Draining, DrainState::Draining)
        | (DrainState::Drained, DrainState::Drained) => None,
        (_, DrainState::Draining) => {
            Some((Reason::DrainStarted, "routes are marked with GRACEFUL_SHUTDOWN and withdrawn soon"))
        }
        (_, DrainState::Drained) => Some((Reason::Drained, "routes are withdrawn: the node is drained")),
        (_, DrainState::Active) => Some((Reason::DrainEnded, "the node is drained no more")),
    }
}

/// What waits to be told.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Occurrence>,
    bucket: Bucket,
}

impl Queue {
    pub(super) fn new(now: Instant) -> Queue {
        Queue { waiting: VecDeque::new(), bucket: Bucket::new(BURST, EVERY, now) }
    }

    /// What waits already and has happened again is told once; where too much waits the oldest is forgotten.
    pub(super) fn extend(&mut self, told: Vec<Occurrence>) {
        for new in told {
            let same = |of: &&mut Occurrence| {
                (of.reason, &of.regarding, &of.bgp_peer) == (new.reason, &new.regarding, &new.bgp_peer)
            };
            if let Some(same) = self.waiting.iter_mut().find(same) {
                same.note = new.note;
                continue;
            }
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(new);
        }
    }

    /// The next that may be told now.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Occurrence> {
        if self.waiting.is_empty() || !self.bucket.take(now) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// It could not be told.
    pub(super) fn put_back(&mut self, event: Occurrence) {
        self.waiting.push_front(event);
        self.waiting.truncate(WAITING);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| self.bucket.poll_timeout())
    }
}
