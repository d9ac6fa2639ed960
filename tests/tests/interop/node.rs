//! Our side: a speaker whose sockets are in a namespace, driven from the test's thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;

use plainroute_bgp::session::{GracefulRestartConfig, State};
use plainroute_bgp::{AfiSafi, Asn, HoldTime, Prefix, RouterId};
use plainroute_speaker::{
    Learned, OriginAttributes, Originated, PeerConfig, PeerName, PeerStatus, ReceivedRoute, Speaker,
    SpeakerConfig, StopMode,
};
use plainroute_tests::netns::{Netns, wait_until};
use plainroute_tests::routers::Family;
use tokio::sync::{oneshot, watch};

use crate::{DEADLINE, Neighbour, OUR_ASN, OUR_V4, ROUTER_ASN, Session, Sessions, ip, router_address};

/// What a node that means to come back offers.
pub(crate) const GRACEFUL: GracefulRestartConfig =
    GracefulRestartConfig { restart_time: 60, notification: false, long_lived_stale_time: 0 };

/// The peer of one of the sessions that are one per family.
pub(crate) fn peer(family: Family) -> PeerName {
    PeerName::from(router_address(family))
}

/// The peers of the usual sessions, each changed by `change`.
pub(crate) fn peers<R: Neighbour>(change: impl Fn(&mut PeerConfig)) -> BTreeMap<PeerName, PeerConfig> {
    peers_of::<R>(Sessions::OnePerFamily, change)
}

/// The peers of these sessions, each named by its address and changed by `change`.
pub(crate) fn peers_of<R: Neighbour>(
    sessions: Sessions,
    change: impl Fn(&mut PeerConfig),
) -> BTreeMap<PeerName, PeerConfig> {
    let configured = |session: &Session| {
        let mut config = peer_config(session);
        config.listen_port = if R::LISTENS { 0 } else { 179 };
        config.enhanced_refresh = R::MARKS_REFRESH;
        change(&mut config);
        (PeerName::from(session.router_address), config)
    };
    sessions.list().iter().map(configured).collect()
}

fn peer_config(session: &Session) -> PeerConfig {
    let asn = |number| Asn::new(number).unwrap();
    let router_id: RouterId = OUR_V4.parse().unwrap();
    let mut config = PeerConfig::new(asn(OUR_ASN), asn(ROUTER_ASN), router_id, ip(session.router_address));
    config.families = session
        .families
        .iter()
        .map(|family| match family {
            Family::V4 => AfiSafi::Ipv4Unicast,
            Family::V6 => AfiSafi::Ipv6Unicast,
        })
        .collect();
    config.hold_time = HoldTime::new(9).unwrap();
    if session.link_local {
        config.interface = Some("eth0".to_owned());
        config.extended_next_hop = true;
    }
    config
}

/// A speaker and the thread in the namespace on which it runs.
pub(crate) struct Node {
    speaker: Speaker,
    /// Dropped: the thread ends, and whatever runs on it.
    running: oneshot::Sender<()>,
    /// What was applied last.
    configured: RefCell<BTreeMap<PeerName, PeerConfig>>,
    thread: JoinHandle<()>,
    /// For the calls of the test's thread; it has no sockets.
    caller: tokio::runtime::Runtime,
}

impl Node {
    /// A speaker without peers, in the namespace.
    pub(crate) fn start(netns: &Netns, config: SpeakerConfig) -> Node {
        let (started, speaker) = std::sync::mpsc::channel();
        let (running, ended) = oneshot::channel::<()>();
        let thread = netns.on_thread(move || async move {
            started.send(Speaker::start(config)).unwrap();
            let _ = ended.await;
        });
        let caller = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Node { speaker: speaker.recv().unwrap(), running, configured: RefCell::default(), thread, caller }
    }

    /// A speaker with these peers.
    pub(crate) fn with(netns: &Netns, peers: BTreeMap<PeerName, PeerConfig>) -> Node {
        let node = Node::start(netns, SpeakerConfig::default());
        node.apply(peers);
        node
    }

    fn call<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let answer = self.caller.block_on(async { tokio::time::timeout(DEADLINE, future).await });
        answer.unwrap_or_else(|_| panic!("{what}: no answer within {DEADLINE:?}"))
    }

    pub(crate) fn apply(&self, peers: BTreeMap<PeerName, PeerConfig>) {
        self.call("apply", self.speaker.apply(peers.clone())).unwrap();
        self.configured.replace(peers);
    }

    /// Originates exactly these prefixes, each to the peer that has its family; returns when TCP has them.
    pub(crate) fn originate(&self, prefixes: &[&str], attributes: &OriginAttributes) {
        let attributes = Arc::new(attributes.clone());
        let mut routes = Vec::new();
        for prefix in prefixes.iter().map(|text| text.parse::<Prefix>().unwrap()) {
            for (peer, config) in self.configured.borrow().iter() {
                if config.families.contains(prefix.family()) {
                    routes.push(Originated { peer: peer.clone(), prefix, attributes: attributes.clone() });
                }
            }
        }
        self.call("flush", async { self.speaker.originate("test", routes).await.flushed().await });
    }

    pub(crate) fn initial_sync_done(&self) {
        self.speaker.initial_sync_done();
    }

    /// The routes for the kernel, as they change.
    pub(crate) fn learned(&self) -> watch::Receiver<Arc<Learned>> {
        self.speaker.learned()
    }

    pub(crate) fn status(&self, family: Family) -> PeerStatus {
        self.speaker.peers().borrow().get(&peer(family)).expect("a configured peer").clone()
    }

    /// Waits for a status, and gives it.
    pub(crate) fn await_status(
        &self,
        family: Family,
        what: &str,
        condition: impl Fn(&PeerStatus) -> bool,
    ) -> PeerStatus {
        let result = wait_until(&format!("{} to be {what}", peer(family)), DEADLINE, || {
            let status = self.status(family);
            if condition(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        });
        result.unwrap()
    }

    /// Waits until every peer is Established.
    pub(crate) fn await_established(&self) {
        let result = wait_until("every peer to be Established", DEADLINE, || {
            let peers = self.speaker.peers().borrow().clone();
            let all = peers.values().all(|status| status.state == State::Established);
            if all && !peers.is_empty() { Ok(()) } else { Err(format!("{peers:?}")) }
        });
        result.unwrap();
    }

    /// Waits until the accepted routes of the family's peer satisfy a condition.
    pub(crate) fn await_received(
        &self,
        family: Family,
        what: &str,
        condition: impl Fn(&[ReceivedRoute]) -> bool,
    ) {
        let result = wait_until(&format!("{} to have told {what}", peer(family)), DEADLINE, || {
            let received = self.call("received", self.speaker.received(&peer(family)));
            if condition(&received) { Ok(()) } else { Err(format!("{received:?}")) }
        });
        result.unwrap();
    }

    /// Stops the speaker as `mode` says, and its thread.
    pub(crate) fn stop(self, mode: StopMode) {
        let Node { speaker, running, thread, caller, configured: _ } = self;
        let stopped = caller.block_on(async { tokio::time::timeout(DEADLINE, speaker.stop(mode)).await });
        assert!(stopped.is_ok(), "the speaker did not stop within {DEADLINE:?}");
        drop(running);
        thread.join().unwrap();
    }

    /// Ends the thread with all its sockets, as the end of the process does.
    pub(crate) fn crash(self) {
        drop(self.running);
        self.thread.join().unwrap();
    }
}
