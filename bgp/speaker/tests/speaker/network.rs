//! Nodes in a network namespace of the test's own, and waiting for what must come true.
//!
//! Loopback addresses would do for TCP, but a route through one is refused (RFC 4271 section 6.3), so each test
//! gives itself addresses on `lo` where nobody else sees them. That needs the right to make a namespace, i.e. root.
use std::{
    cell::Cell,
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use plainroute_bgp::{
    AfiSafi, Asn, Families, HoldTime, Prefix, RouterId,
    session::{GracefulRestartConfig, State},
};
use plainroute_speaker::{
    ImportRule, Learned, OriginAttributes, Originated, PeerConfig, PeerName, PeerStatus, Receipt, Speaker,
    SpeakerConfig,
};
use tokio::{sync::watch, time::timeout};

thread_local! {
    /// A test is one thread, and its namespace goes with it.
    static NAMESPACE: () = enter_namespace();
}

fn enter_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, to make a network namespace");
    let mut commands = "link set lo up\n".to_owned();
    for number in [1, 2, 3, 9, 99] {
        commands += &format!("address add 192.0.2.{number}/32 dev lo\n");
    }
    ip(&commands);
}

/// Runs `ip` commands, a line each, in the test's namespace.
pub(crate) fn ip(commands: &str) {
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2");
    ip.stdin.take().expect("piped").write_all(commands.as_bytes()).expect("ip reads");
    assert!(ip.wait().expect("ip ends").success());
}

/// Far beyond what anything here takes, since the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(20);

/// One router: its number gives its AS, its address and its identifier.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) port: u16,
    pub(crate) speaker: Speaker,
}

impl Node {
    pub(crate) fn new(number: u8) -> Node {
        Node::with(number, SpeakerConfig::default())
    }

    pub(crate) fn with(number: u8, config: SpeakerConfig) -> Node {
        NAMESPACE.with(|()| {});
        Node { number, port: free_port(), speaker: Speaker::start(config) }
    }

    /// Another process in the place of this one.
    pub(crate) fn again(&self, config: SpeakerConfig) -> Node {
        Node { speaker: Speaker::start(config), ..self.clone() }
    }

    pub(crate) fn asn(&self) -> Asn {
        Asn::new(64512 + u32::from(self.number)).unwrap()
    }

    pub(crate) fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, self.number))
    }

    pub(crate) fn name(&self) -> PeerName {
        PeerName::from(format!("node-{}", self.number))
    }

    /// How this node connects to `peer`.
    pub(crate) fn towards(&self, peer: &Node) -> PeerConfig {
        let router_id = RouterId::new(u32::from(self.number)).unwrap();
        PeerConfig {
            peer_port: peer.port,
            local_address: Some(self.address()),
            hold_time: HoldTime::new(9).unwrap(),
            connect_retry: Duration::from_millis(200),
            families: Families::from_iter([AfiSafi::Ipv4Unicast]),
            graceful_restart: Some(GracefulRestartConfig {
                restart_time: 60,
                notification: false,
                long_lived_stale_time: 0,
            }),
            ..PeerConfig::new(self.asn(), peer.asn(), router_id, peer.address())
        }
    }

    /// How this node waits for `peer`, taking in all of 10.0.0.0/8.
    pub(crate) fn waits_for(&self, peer: &Node) -> PeerConfig {
        let ten = ImportRule { le: Some(32), ..ImportRule::new(prefix("10.0.0.0/8")) };
        PeerConfig { passive: true, listen_port: self.port, import: vec![ten], ..self.towards(peer) }
    }

    pub(crate) async fn peers(&self, peers: impl IntoIterator<Item = (&Node, PeerConfig)>) {
        let peers: BTreeMap<_, _> = peers.into_iter().map(|(node, config)| (node.name(), config)).collect();
        self.speaker.apply(peers).await.unwrap();
    }

    /// Makes `prefixes` all that this node tells `peer`.
    pub(crate) async fn tell(&self, peer: &Node, prefixes: &[&str]) -> Receipt {
        self.speaker.originate("test", originated(peer, prefixes)).await
    }

    pub(crate) async fn status(&self, peer: &Node, condition: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        let name = peer.name();
        let met = |peers: &Arc<BTreeMap<PeerName, PeerStatus>>| peers.get(&name).is_some_and(&condition);
        let peers = wait_for(self.speaker.peers(), met).await;
        peers[&name].clone()
    }

    pub(crate) async fn established(&self, peer: &Node) -> PeerStatus {
        self.status(peer, |status| status.state == State::Established).await
    }

    pub(crate) async fn learned(&self, condition: impl Fn(&Learned) -> bool) -> Arc<Learned> {
        wait_for(self.speaker.learned(), |learned| condition(learned)).await
    }

    /// Waits until exactly these prefixes are learned.
    pub(crate) async fn learned_prefixes(&self, prefixes: &[&str]) {
        let wanted: Vec<Prefix> = prefixes.iter().map(|text| prefix(text)).collect();
        self.learned(|learned| learned.keys().copied().eq(wanted.iter().copied())).await;
    }
}

pub(crate) fn originated(peer: &Node, prefixes: &[&str]) -> Vec<Originated> {
    let attributes = Arc::new(OriginAttributes::default());
    let route =
        |text: &&str| Originated { peer: peer.name(), prefix: prefix(text), attributes: attributes.clone() };
    prefixes.iter().map(route).collect()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// Two nodes, the first connecting to the second, Established.
pub(crate) async fn pair() -> (Node, Node) {
    let (a, b) = (Node::new(1), Node::new(2));
    b.peers([(&a, b.waits_for(&a))]).await;
    a.peers([(&b, a.towards(&b))]).await;
    a.established(&b).await;
    b.established(&a).await;
    (a, b)
}

pub(crate) async fn wait_for<T: Clone + std::fmt::Debug>(
    mut values: watch::Receiver<T>,
    met: impl Fn(&T) -> bool,
) -> T {
    let last = values.clone();
    match timeout(DEADLINE, values.wait_for(|value| met(value))).await {
        Ok(value) => value.expect("the speaker runs").clone(),
        Err(_) => panic!("did not come true; last: {:#?}", *last.borrow()),
    }
}

pub(crate) async fn within_deadline<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("within the deadline")
}

/// A port of the test's own. Nobody else is in its namespace, and connections take theirs from 32768 on.
pub(crate) fn free_port() -> u16 {
    thread_local! {
        static NEXT: Cell<u16> = const { Cell::new(20_000) };
    }
    NEXT.replace(NEXT.get() + 1)
}
