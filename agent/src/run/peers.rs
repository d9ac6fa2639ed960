//! The peers in force. The speaker takes a set of peers whole or not at all; here a peer that it refuses is left out
//! and said, so that one wrong BGPPeer costs no other its session.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use plainroute_speaker::{ApplyError, Effect, PeerConfig, PeerName, Speaker};
use tracing::{error, info, warn};

/// A port that is taken may be free later.
const RETRY: Duration = Duration::from_secs(10);

/// What the speaker was last told of peers, and what it did not take.
#[derive(Debug, Default)]
pub(super) struct PeersInForce {
    wanted: BTreeMap<PeerName, PeerConfig>,
    /// By object, like `BGPPeer/tor`.
    problems: BTreeMap<String, String>,
    /// What a peer goes on without, by object.
    lacks: BTreeMap<String, String>,
    retry_at: Option<Instant>,
}

impl PeersInForce {
    /// The peers that are configured, those that the speaker refused included.
    pub(super) fn names(&self) -> impl Iterator<Item = &PeerName> {
        self.wanted.keys()
    }

    /// What was last wanted of a peer.
    pub(super) fn wanted(&self, peer: &PeerName) -> Option<&PeerConfig> {
        self.wanted.get(peer)
    }

    /// What the speaker did not take, and what peers go on without, by object.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&String, &String)> {
        self.lacks.iter().chain(&self.problems)
    }

    /// Notes what peers go on without, as a TCP-AO key whose secret cannot be had.
    pub(super) fn set_lacks(&mut self, lacks: BTreeMap<PeerName, String>) {
        let lack =
            |(peer, lack)| (format!("BGPPeer/{peer}"), format!("goes on with the keys it has: {lack}"));
        let lacks: BTreeMap<String, String> = lacks.into_iter().map(lack).collect();
        for (object, lack) in lacks.iter().filter(|(object, lack)| self.lacks.get(*object) != Some(lack)) {
            warn!("{object}: {lack}");
        }
        self.lacks = lacks;
    }

    /// When [`PeersInForce::apply`] should be tried again although nothing has changed.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Makes `wanted` the set of peers, less those that cannot be.
    pub(super) async fn apply(&mut self, speaker: &Speaker, wanted: BTreeMap<PeerName, PeerConfig>) {
        let due = self.retry_at.is_some_and(|at| at <= Instant::now());
        if wanted == self.wanted && !due {
            return;
        }
        self.wanted = wanted.clone();
        let (mut possible, mut problems) = (wanted, BTreeMap::new());
        // Each round leaves one peer or one port out, so this ends.
        let changes = loop {
            match speaker.apply(possible.clone()).await {
                Ok(changes) => break changes,
                Err(ApplyError::Stopped) => return,
                Err(error) => leave_out(&error, &mut possible, &mut problems),
            }
        };
        for change in changes.iter().filter(|change| change.effect != Effect::Unchanged) {
            info!(peer = %change.peer, "peer {}", change.effect);
        }
        for (object, problem) in &problems {
            if self.problems.get(object) != Some(problem) {
                error!("{object}: {problem}");
            }
        }
        self.retry_at = (!problems.is_empty()).then(|| Instant::now() + RETRY);
        self.problems = problems;
    }
}

/// Takes out of `peers` what `error` is about.
fn leave_out(
    error: &ApplyError,
    peers: &mut BTreeMap<PeerName, PeerConfig>,
    problems: &mut BTreeMap<String, String>,
) {
    let mut say = |peer: &PeerName, problem: String| problems.insert(format!("BGPPeer/{peer}"), problem);
    match error {
        ApplyError::Peer { peer, reason } => {
            peers.remove(peer);
            say(peer, reason.clone());
        }
        ApplyError::SameAddress { first, second, address } => {
            peers.remove(second);
            say(second, format!("has the same address as BGPPeer/{first}, {address}; that one is in force"));
        }
        ApplyError::SameRange { first, second, range } => {
            peers.remove(second);
            say(
                second,
                format!("has the same listenRange as BGPPeer/{first}, {range}; that one is in force"),
            );
        }
        ApplyError::Listen { port, .. } => {
            // Who can connect does; who can only wait must stay down, and shows why.
            for (peer, config) in peers.iter_mut().filter(|(_, config)| config.listen_port == *port) {
                say(peer, error.to_string());
                config.listen_port = 0;
                if std::mem::take(&mut config.passive) {
                    config.blocked = Some(error.to_string());
                }
            }
        }
        ApplyError::Stopped => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use plainroute_bgp::{Asn, RouterId};

    use super::*;

    fn peer(last: u8) -> PeerConfig {
        let asn = |number| Asn::new(number).unwrap();
        let address = Ipv4Addr::new(127, 0, 0, last);
        PeerConfig {
            peer_port: 1,
            ..PeerConfig::new(asn(64512), asn(64600), RouterId::new(1).unwrap(), address.into())
        }
    }

    fn set(peers: &[(&str, PeerConfig)]) -> BTreeMap<PeerName, PeerConfig> {
        peers.iter().map(|(name, config)| (PeerName::from(*name), config.clone())).collect()
    }

    async fn refused(peers: &[(&str, PeerConfig)]) -> (Vec<String>, BTreeMap<String, String>) {
        let speaker = Speaker::start(Default::default());
        let mut force = PeersInForce::default();
        force.apply(&speaker, set(peers)).await;
        let running = speaker.peers().borrow().keys().map(ToString::to_string).collect();
        (running, force.problems)
    }

    #[tokio::test]
    async fn one_wrong_peer_costs_no_other_its_session() {
        let wrong = PeerConfig { ebgp_multihop: 0, ..peer(3) };
        let (running, problems) =
            refused(&[("a", peer(2)), ("b", peer(2)), ("c", wrong), ("d", peer(4))]).await;
        assert_eq!(running, ["a", "d"]);
        assert_eq!(problems.keys().collect::<Vec<_>>(), ["BGPPeer/b", "BGPPeer/c"]);
        assert!(problems["BGPPeer/b"].contains("BGPPeer/a"), "{problems:?}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_keeps_only_those_down_who_can_only_wait() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let active = PeerConfig { listen_port: port, ..peer(2) };
        let waiting = PeerConfig { listen_port: port, passive: true, ..peer(3) };
        let speaker = Speaker::start(Default::default());
        let mut force = PeersInForce::default();
        force.apply(&speaker, set(&[("active", active), ("waiting", waiting)])).await;
        let peers = speaker.peers().borrow().clone();
        assert_eq!(peers[&PeerName::from("active")].blocked, None);
        let blocked = peers[&PeerName::from("waiting")].blocked.clone().unwrap_or_default();
        assert!(blocked.contains(&port.to_string()), "{blocked}");
        assert_eq!(force.problems.len(), 2);
        assert!(force.retry_at().is_some());
    }
}
