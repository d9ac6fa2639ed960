//! Dynamic peers: whoever connects from within a range gets a task like any other peer, by the name `NAME@ADDRESS`.
//!
//! A range has no task itself. Its peers live from their first connection until they have had no session for a while
//! and no route of theirs is kept any more, so that one that restarts gracefully (RFC 4724) finds its routes again; or
//! until the range no longer takes them in.
use std::collections::BTreeMap;

use plainroute_bgp::session::State;
use tokio::{sync::mpsc, time::Instant};
use tracing::{info, warn};

use super::{Registry, Running};
use crate::{
    Effect, ListenRange, Listening, PeerChange, PeerConfig, PeerName, PeerStatus, SpeakerConfig, change,
    listener::{Caller, Callers, Knock},
    signature::Signature,
    status::PeerView,
};

/// How many connections may wait for the registry.
const KNOCKS_WAITING: usize = 64;

/// The ranges, with the names of those who have come from within them.
#[derive(Debug)]
pub(super) struct Ranges {
    ranges: BTreeMap<PeerName, Range>,
    knocks: (mpsc::Sender<Knock>, mpsc::Receiver<Knock>),
}

#[derive(Debug)]
struct Range {
    listen: ListenRange,
    config: PeerConfig,
    status: PeerStatus,
    members: BTreeMap<PeerName, Presence>,
    refused: u64,
    /// That there is no room was said, and there has not been any since.
    full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// It has a session, or routes of it are kept.
    Here,
    /// Neither, since then.
    Gone(Instant),
}

impl Range {
    fn new(listen: ListenRange, config: PeerConfig, speaker: &SpeakerConfig) -> Range {
        let status = PeerView::idle(&config, speaker).status;
        Range { listen, config, status, members: BTreeMap::new(), refused: 0, full: false }
    }

    /// Says once that there is no room, and counts each who found none.
    fn refuse(&mut self, name: &PeerName, knock: &Knock) {
        self.refused += 1;
        if !std::mem::replace(&mut self.full, true) {
            let (address, most) = (knock.address, self.listen.max_peers);
            warn!(peer = %name, %address, most, "refused a connection: there are as many peers as may be");
        }
    }
}

impl Ranges {
    pub(super) fn new() -> Ranges {
        Ranges { ranges: BTreeMap::new(), knocks: mpsc::channel(KNOCKS_WAITING) }
    }

    /// The next connection from within a range. Cancel-safe.
    pub(super) async fn knocked(&mut self) -> Knock {
        self.knocks.1.recv().await.expect("a sender is kept beside it")
    }

    /// Who may connect to which port.
    pub(super) fn callers(&self, ports: &mut BTreeMap<u16, Callers>, speaker: &SpeakerConfig) {
        for (name, range) in self.ranges.iter().filter(|(_, range)| range.config.listen_port != 0) {
            let caller = Caller {
                peer: name.clone(),
                signature: Signature::of(&range.config, &speaker.tcp_ao),
                ttl_security: range.config.ttl_security,
                connections: self.knocks.0.clone(),
            };
            ports.entry(range.config.listen_port).or_default().ranges.insert(range.listen.prefix, caller);
        }
    }

    /// Whom that means which is originated to `name`: all of a range, or the peer itself.
    pub(super) fn told_as(&self, name: &PeerName) -> Vec<PeerName> {
        self.ranges
            .get(name)
            .map_or_else(|| vec![name.clone()], |range| range.members.keys().cloned().collect())
    }

    /// Takes in how a peer of a range is.
    pub(super) fn note(&mut self, range: &PeerName, peer: &PeerName, status: &PeerStatus) {
        let kept = status.families.values().any(|family| family.accepted > 0);
        let Some(presence) = self.ranges.get_mut(range).and_then(|range| range.members.get_mut(peer)) else {
            return;
        };
        if kept || status.state == State::Established {
            *presence = Presence::Here;
        } else if *presence == Presence::Here {
            *presence = Presence::Gone(Instant::now());
        }
    }

    pub(super) fn statuses(&self) -> impl Iterator<Item = (PeerName, PeerStatus)> {
        self.ranges.iter().map(|(name, range)| {
            let Range { listen, members, refused, .. } = range;
            let listening = Listening { range: *listen, peers: members.len(), refused: *refused };
            (name.clone(), PeerStatus { listening: Some(listening), ..range.status.clone() })
        })
    }

    /// When [`Registry::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ends().map(|(at, ..)| at).min()
    }

    /// When each peer that is gone is no longer one.
    fn ends(&self) -> impl Iterator<Item = (Instant, &PeerName, &PeerName)> {
        self.ranges.iter().flat_map(|(name, range)| {
            range.members.iter().filter_map(move |(peer, presence)| match presence {
                Presence::Here => None,
                Presence::Gone(since) => Some((*since + range.listen.linger, name, peer)),
            })
        })
    }
}

impl Registry {
    /// Makes the ranges those of `wanted`, before the peers that are configured one by one: those may be given what a
    /// range has now.
    pub(super) async fn apply_ranges(&mut self, wanted: &BTreeMap<PeerName, PeerConfig>) -> Vec<PeerChange> {
        let mut changes = Vec::new();
        let mut old = std::mem::take(&mut self.ranges.ranges);
        for (name, config) in wanted {
            let Some(listen) = config.listen_range else { continue };
            let mut range = Range::new(listen, config.clone(), &self.speaker);
            let effect = match (old.remove(name), self.peers.get(name)) {
                (Some(old), _) => {
                    range.members = old.members;
                    range.refused = old.refused;
                    range.full = old.full && old.listen.max_peers >= listen.max_peers;
                    let effect = change::compare(&old.config, config);
                    if effect == Effect::Unchanged {
                        range.status = old.status;
                    }
                    effect
                }
                // It was one peer.
                (None, Some(running)) if running.member_of.is_none() => {
                    change::compare(&running.config.borrow(), config)
                }
                (None, Some(_) | None) => Effect::Added,
            };
            changes.push(PeerChange { peer: name.clone(), effect });
            self.ranges.ranges.insert(name.clone(), range);
        }
        for (name, range) in old {
            for peer in range.members.into_keys() {
                self.remove(&peer).await;
            }
            // One that has become a single peer is among the changes later.
            if !wanted.contains_key(&name) {
                changes.push(PeerChange { peer: name, effect: Effect::Removed });
            }
        }
        self.keep_members(wanted).await;
        changes
    }

    /// Tells each peer of a range how that is now, and lets go of those who belong elsewhere.
    async fn keep_members(&mut self, wanted: &BTreeMap<PeerName, PeerConfig>) {
        let mut strays = Vec::new();
        for (name, range) in &mut self.ranges.ranges {
            range.members.retain(|peer, _| {
                let Some(running) = self.peers.get(peer) else { return false };
                let address = running.config.borrow().peer_address;
                let stays = !wanted.contains_key(peer)
                    && responsible(wanted, address, range.config.listen_port) == Some(name);
                if stays {
                    let config = range.config.of_member(address);
                    running.config.send_if_modified(|old| {
                        let modified = *old != config;
                        *old = config;
                        modified
                    });
                } else {
                    strays.push(peer.clone());
                }
                stays
            });
        }
        for peer in strays {
            self.remove(&peer).await;
        }
    }

    /// Hands a connection from within a range to its peer, which begins with it if it is the first.
    pub(super) async fn admit(&mut self, knock: Knock) {
        let Some(range) = self.ranges.ranges.get_mut(&knock.range) else { return };
        // The configuration may have changed while it waited.
        if !range.listen.prefix.contains_address(knock.address)
            || Signature::of(&range.config, &self.speaker.tcp_ao) != knock.accepted.signature
        {
            return;
        }
        if let Some(reason) = range.config.refusal(&self.speaker.tcp_ao) {
            info!(peer = %knock.range, address = %knock.address, %reason, "refused a connection");
            return;
        }
        let peer = PeerName::from(format!("{}@{}", knock.range, knock.address));
        let known = range.members.contains_key(&peer);
        if !known && range.members.len() >= range.listen.max_peers {
            range.refuse(&knock.range, &knock);
            return self.publish();
        }
        // Somebody is configured with this very address, perhaps to be connected to only, or has the name.
        let configured = |(name, running): (&PeerName, &Running)| {
            let at_address = running.config.borrow().peer_address == knock.address;
            running.member_of.is_none() && (*name == peer || at_address)
        };
        if self.peers.iter().any(configured) {
            info!(%peer, "refused a connection: a peer is configured with its address");
            return;
        }
        // The time begins anew with each connection, until a session comes of one.
        range.members.insert(peer.clone(), Presence::Gone(Instant::now()));
        if !known {
            let config = range.config.of_member(knock.address);
            self.add(peer.clone(), config, Some(knock.range)).await;
        }
        if let Some(running) = self.peers.get(&peer)
            && running.connections.try_send(knock.accepted).is_err()
        {
            info!(%peer, "refused a connection: more than the peer's task takes");
        }
        self.publish();
    }

    /// Lets go of peers that have been gone for long enough.
    pub(super) async fn handle_timeout(&mut self) {
        // What they are is looked at first: a session may have come up this moment.
        self.publish();
        let now = Instant::now();
        let over: Vec<(PeerName, PeerName)> = self
            .ranges
            .ends()
            .filter(|(at, ..)| *at <= now)
            .map(|(_, range, peer)| (range.clone(), peer.clone()))
            .collect();
        for (name, peer) in over {
            self.remove(&peer).await;
            if let Some(range) = self.ranges.ranges.get_mut(&name) {
                range.members.remove(&peer);
                range.full = false;
            }
        }
        self.publish();
    }
}

/// Whose peer somebody at this address is who connects to that port: one that is configured with it, or that of the
/// longest range.
fn responsible(
    wanted: &BTreeMap<PeerName, PeerConfig>,
    address: std::net::IpAddr,
    port: u16,
) -> Option<&PeerName> {
    let on_port = || wanted.iter().filter(|(_, config)| config.listen_port == port);
    let itself =
        wanted.iter().find(|(_, config)| config.listen_range.is_none() && config.peer_address == address);
    let ranges = on_port().filter_map(|(name, config)| Some((name, config.listen_range?.prefix)));
    let longest = ranges
        .filter(|(_, prefix)| prefix.contains_address(address))
        .max_by_key(|(_, prefix)| prefix.length());
    itself.map(|(name, _)| name).or(longest.map(|(name, _)| name))
}
