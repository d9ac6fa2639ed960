//! What a monitoring station is told (RFC 7854, RFC 8671), and that one which does not read harms nobody.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    AfiSafi, Community, Families, Prefix,
    bmp::{
        self, MAX_LENGTH, Message, PeerDown, PeerHeader, PeerUp, Rib, Statistic, information, termination,
    },
    wire::{self, CodecContext, Frame, NextHop, PathAttributes},
};
use plainroute_speaker::{
    ImportRule, OriginAttributes, Originated, PeerConfig, SpeakerConfig, StationConfig, StationStatus,
    StopMode,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::network::{Node, free_port, ip, pair, prefix, within_deadline};

/// A raw collector: it reads when it is asked for the next message, and not otherwise.
struct Collector {
    listener: TcpListener,
}

/// One connection of a router to the collector.
struct Feed {
    stream: TcpStream,
    buffer: BytesMut,
    /// The routes as they stand, by what has been read.
    routes: BTreeMap<(IpAddr, Which, Prefix), Told>,
    ended: BTreeSet<(IpAddr, Which, AfiSafi)>,
    up: BTreeMap<IpAddr, (PeerHeader, PeerUp)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    In,
    Out,
}

#[derive(Clone, Debug, PartialEq)]
struct Told {
    attributes: Arc<PathAttributes>,
    next_hop: NextHop,
    timed: bool,
}

impl Collector {
    fn at(address: SocketAddr) -> Collector {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        Collector { listener: socket.listen(8).unwrap() }
    }

    fn new() -> Collector {
        Collector::at(SocketAddr::from(([192, 0, 2, 9], free_port())))
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection, after its Initiation.
    async fn accept(&self) -> Feed {
        let (stream, _) = within_deadline(self.listener.accept()).await.unwrap();
        let (routes, ended, up) = Default::default();
        let mut feed = Feed { stream, buffer: BytesMut::new(), routes, ended, up };
        let Some(Message::Initiation(items)) = feed.next().await else { panic!("an Initiation comes first") };
        let text = |kind| items.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value.clone());
        assert_eq!(text(information::SYS_NAME), Some(Bytes::from("node-a")));
        assert_eq!(text(information::SYS_DESCR), Some(Bytes::from("a test")));
        feed
    }
}

impl Feed {
    /// The next message, taken into account; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = bmp::poll(&mut self.buffer, MAX_LENGTH).expect("BMP") {
                self.note(&message);
                return Some(message);
            }
            match within_deadline(self.stream.read_buf(&mut self.buffer)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn until(&mut self, met: impl Fn(&Feed) -> bool) {
        assert!(self.comes_to(met).await, "the connection ended; routes: {:#?}", self.routes.keys());
    }

    /// False where the connection ends before.
    async fn comes_to(&mut self, met: impl Fn(&Feed) -> bool) -> bool {
        while !met(self) {
            if self.next().await.is_none() {
                return false;
            }
        }
        true
    }

    fn note(&mut self, message: &Message) {
        match message {
            Message::RouteMonitoring { peer, update } => self.note_routes(peer, update),
            Message::PeerUp { peer, up } => {
                assert!(self.up.insert(peer.address, (*peer, up.clone())).is_none(), "up twice");
            }
            Message::PeerDown { peer, .. } => {
                assert!(self.up.remove(&peer.address).is_some(), "down, and never was up");
                self.routes.retain(|(of, ..), _| *of != peer.address);
                self.ended.retain(|(of, ..)| *of != peer.address);
            }
            Message::Statistics { peer, .. } => assert!(self.up.contains_key(&peer.address)),
            Message::Initiation(_) | Message::Termination(_) => {}
            Message::RouteMirroring { .. } | Message::Unknown { .. } => panic!("{message:?}"),
        }
    }

    fn note_routes(&mut self, peer: &PeerHeader, update: &Bytes) {
        assert!(self.up.contains_key(&peer.address), "routes before Peer Up");
        let which = match peer.rib {
            Rib::InPostPolicy => Which::In,
            Rib::OutPostPolicy => Which::Out,
            Rib::InPrePolicy | Rib::OutPrePolicy => panic!("{peer:?}"),
        };
        // With LOCAL_PREF where a rule set one, as within an AS; without it, as between two.
        let read = |internal| {
            let context = CodecContext { internal, ..CodecContext::default() };
            let frame = Frame::poll(&mut BytesMut::from(&update[..]), 4096).unwrap().unwrap();
            match wire::Message::decode(frame, &context) {
                Ok(wire::Message::Update(update, findings)) => findings.is_empty().then_some(update),
                other => panic!("{other:?}"),
            }
        };
        let update = read(false).or_else(|| read(true)).expect("a proper UPDATE");
        for nlri in update.unreach.iter().flat_map(|unreach| &unreach.nlri) {
            let gone = self.routes.remove(&(peer.address, which, nlri.prefix));
            assert!(gone.is_some(), "withdrawn, and never was there: {}", nlri.prefix);
        }
        for reach in &update.reach {
            for nlri in &reach.nlri {
                let attributes = Arc::clone(&update.attributes);
                let told = Told { attributes, next_hop: reach.next_hop, timed: peer.timestamp.is_some() };
                self.routes.insert((peer.address, which, nlri.prefix), told);
            }
        }
        self.ended.extend(update.end_of_rib.map(|family| (peer.address, which, family)));
    }

    fn prefixes(&self, peer: &Node, which: Which) -> BTreeSet<String> {
        let of = |(address, of, _): &(IpAddr, Which, Prefix)| *address == peer.address() && *of == which;
        self.routes.keys().filter(|key| of(key)).map(|(.., prefix)| prefix.to_string()).collect()
    }

    fn holds(&self, peer: &Node, which: Which, prefixes: &[&str]) -> bool {
        self.prefixes(peer, which) == prefixes.iter().map(|text| (*text).to_owned()).collect()
    }

    fn has_ended(&self, peer: &Node, which: Which) -> bool {
        self.ended.contains(&(peer.address(), which, AfiSafi::Ipv4Unicast))
    }
}

fn config() -> StationConfig {
    StationConfig { statistics: None, ..StationConfig::new("node-a", "a test") }
}

async fn monitor(node: &Node, collector: &Collector, config: StationConfig) {
    node.speaker.apply_stations(BTreeMap::from([(collector.address(), config)])).await;
}

fn status(node: &Node, collector: &Collector) -> StationStatus {
    node.speaker.stations()[&collector.address()].clone()
}

fn open_of(octets: &Bytes) -> wire::Open {
    let frame = Frame::poll(&mut BytesMut::from(&octets[..]), 4096).unwrap().unwrap();
    match wire::Message::decode(frame, &CodecContext::default()) {
        Ok(wire::Message::Open(open)) => open,
        other => panic!("{other:?}"),
    }
}

/// `a` connects to `b` and takes in 10.0.0.0/8 with a LOCAL_PREF of its own.
async fn both_ways() -> (Node, Node) {
    let (a, b) = (Node::new(1), Node::new(2));
    b.peers([(&a, b.waits_for(&a))]).await;
    let ten = ImportRule { le: Some(32), local_pref: Some(250), ..ImportRule::new(prefix("10.0.0.0/8")) };
    a.peers([(&b, PeerConfig { import: vec![ten], ..a.towards(&b) })]).await;
    a.established(&b).await;
    (a, b)
}

#[tokio::test]
async fn a_station_that_comes_late_is_told_all_that_stands_and_then_what_changes() {
    let (a, b) = both_ways().await;
    a.tell(&b, &["10.1.0.0/32", "10.1.0.1/32"]).await.flushed().await;
    b.tell(&a, &["10.2.0.0/32", "192.168.0.0/24"]).await;
    a.learned_prefixes(&["10.2.0.0/32"]).await;

    let collector = Collector::new();
    monitor(&a, &collector, config()).await;
    let mut feed = collector.accept().await;
    feed.until(|feed| feed.has_ended(&b, Which::In) && feed.has_ended(&b, Which::Out)).await;
    // 192.168.0.0/24 was refused by the import rules, so there is nothing to tell.
    assert!(feed.holds(&b, Which::In, &["10.2.0.0/32"]));
    assert!(feed.holds(&b, Which::Out, &["10.1.0.0/32", "10.1.0.1/32"]));
    let told = feed.routes[&(b.address(), Which::In, prefix("10.2.0.0/32"))].clone();
    assert_eq!(told.attributes.local_pref, Some(250), "what policy made of it");
    assert!(!told.timed, "how old it is nobody knows");

    let negotiated = a.established(&b).await.negotiated.unwrap();
    let (header, up) = feed.up[&b.address()].clone();
    assert_eq!((header.asn, header.router_id), (b.asn().number(), negotiated.peer_open.router_id.address()));
    assert!(header.timestamp.is_some() && !header.two_octet_as_path);
    assert_eq!((up.local_address, up.remote_port), (a.address(), b.port));
    assert_eq!(
        (open_of(&up.sent_open), open_of(&up.received_open)),
        (negotiated.local_open.clone(), negotiated.peer_open.clone())
    );

    a.tell(&b, &["10.1.0.1/32", "10.1.0.2/32"]).await;
    b.tell(&a, &["10.2.0.3/32"]).await;
    feed.until(|feed| {
        feed.holds(&b, Which::Out, &["10.1.0.1/32", "10.1.0.2/32"])
            && feed.holds(&b, Which::In, &["10.2.0.3/32"])
    })
    .await;
    assert!(feed.routes[&(b.address(), Which::In, prefix("10.2.0.3/32"))].timed);
    let told = &feed.routes[&(b.address(), Which::Out, prefix("10.1.0.2/32"))];
    assert!(told.timed);
    assert_eq!(
        (told.next_hop, told.attributes.as_path.asns().collect::<Vec<_>>()),
        (NextHop::V4([192, 0, 2, 1].into()), vec![a.asn()])
    );
}

#[tokio::test]
async fn a_station_that_is_there_first_is_told_a_session_from_its_beginning_to_its_end() {
    let (a, b) = (Node::new(1), Node::new(2));
    let collector = Collector::new();
    monitor(&a, &collector, config()).await;
    let mut feed = collector.accept().await;
    b.peers([(&a, b.waits_for(&a))]).await;
    a.peers([(&b, PeerConfig { import: b.waits_for(&a).import, ..a.towards(&b) })]).await;
    a.tell(&b, &["10.1.0.0/32"]).await;
    b.tell(&a, &["10.2.0.0/32"]).await;
    feed.until(|feed| {
        feed.holds(&b, Which::In, &["10.2.0.0/32"]) && feed.holds(&b, Which::Out, &["10.1.0.0/32"])
    })
    .await;
    // Nobody is complete yet, so no RIB has an end; then each side says so.
    assert!(feed.ended.is_empty());
    a.speaker.initial_sync_done();
    b.speaker.initial_sync_done();
    feed.until(|feed| feed.has_ended(&b, Which::In) && feed.has_ended(&b, Which::Out)).await;

    b.peers([]).await;
    let reason = loop {
        if let Message::PeerDown { reason, peer } = feed.next().await.unwrap() {
            assert!(peer.timestamp.is_some());
            break reason;
        }
    };
    let PeerDown::RemoteNotification(octets) = reason else { panic!("{reason:?}") };
    assert_eq!(&octets[18..], [3, 6, 3], "Cease, peer de-configured");
}

#[tokio::test]
async fn each_end_of_a_session_has_its_reason() {
    let (a, b) = pair().await;
    let collector = Collector::new();
    monitor(&a, &collector, config()).await;
    let mut feed = collector.accept().await;
    feed.until(|feed| !feed.up.is_empty()).await;

    // The peer leaves to be back: TCP ends and nothing is said.
    b.clone().speaker.stop(StopMode::Retain).await;
    assert_eq!(next_down(&mut feed).await, PeerDown::Remote);

    let b = b.again(SpeakerConfig::default());
    b.peers([(&a, b.waits_for(&a))]).await;
    feed.until(|feed| !feed.up.is_empty()).await;
    a.peers([(&b, PeerConfig { router_id: "1.2.3.4".parse().unwrap(), ..a.towards(&b) })]).await;
    let reason = next_down(&mut feed).await;
    let PeerDown::LocalNotification(octets) = reason else { panic!("{reason:?}") };
    assert_eq!(&octets[18..], [3, 6, 6], "Cease, other configuration change");

    feed.until(|feed| !feed.up.is_empty()).await;
    a.speaker.stop(StopMode::Retain).await;
    assert_eq!(next_down(&mut feed).await, PeerDown::LocalEvent(2), "ManualStop");
    let Some(Message::Termination(items)) = feed.next().await else { panic!("a Termination") };
    assert_eq!((items[0].kind, &items[0].value[..]), (termination::REASON, &[0, 0][..]), "it may be back");
    assert_eq!(feed.next().await, None);
}

async fn next_down(feed: &mut Feed) -> PeerDown {
    loop {
        if let Message::PeerDown { reason, .. } = feed.next().await.expect("a Peer Down") {
            return reason;
        }
    }
}

#[tokio::test]
async fn a_collector_that_restarts_is_told_everything_again() {
    let (a, b) = pair().await;
    a.tell(&b, &["10.1.0.0/32"]).await;
    let collector = Collector::new();
    let address = collector.address();
    monitor(&a, &collector, config()).await;
    let mut feed = collector.accept().await;
    feed.until(|feed| feed.holds(&b, Which::Out, &["10.1.0.0/32"])).await;

    drop((feed, collector));
    a.tell(&b, &["10.1.0.1/32"]).await.flushed().await;
    let collector = Collector::at(address);
    let mut feed = collector.accept().await;
    feed.until(|feed| feed.has_ended(&b, Which::Out)).await;
    assert!(feed.holds(&b, Which::Out, &["10.1.0.1/32"]));
    let status = status(&a, &collector);
    assert_eq!((status.connections, status.overflows), (2, 0));
    assert!(status.connected_since.is_some());
    assert_eq!(a.established(&b).await.counters.lost, 0);
}

/// Prefixes with attributes so large that each takes an UPDATE of its own.
fn fat(peer: &Node, round: u32) -> Vec<Originated> {
    let route = |number: u32| {
        let communities = (0..900).map(|c| Community(c << 16 | number << 4 | round)).collect();
        let attributes = Arc::new(OriginAttributes { communities, ..OriginAttributes::default() });
        let address = IpAddr::V4((0x0a01_0000 + number).into());
        Originated { peer: peer.name(), prefix: Prefix::host(address), attributes }
    };
    (0..2000).map(route).collect()
}

/// The collector stops to read; 15 MB of UPDATEs later it has lost its connection, and the peer nothing. A collector
/// that reads loses nothing of the same.
#[tokio::test]
async fn a_collector_that_does_not_read_harms_neither_the_peer_nor_a_collector_that_does() {
    let (a, b) = pair().await;
    let (lazy, busy) = (Collector::new(), Collector::new());
    let small = StationConfig { queue: 1 << 20, ..config() };
    let large = StationConfig { queue: 64 << 20, ..config() };
    let stations = BTreeMap::from([(lazy.address(), small), (busy.address(), large)]);
    a.speaker.apply_stations(stations).await;
    let unread = lazy.accept().await;
    let mut feed = busy.accept().await;
    feed.until(|feed| !feed.up.is_empty()).await;

    let reading = tokio::spawn(async move {
        let mut fat = 0;
        while fat < 4000 {
            let Some(Message::RouteMonitoring { .. }) = feed.next().await else { continue };
            fat += 1;
        }
        feed
    });
    for round in 0..2 {
        let receipt = a.speaker.originate("test", fat(&b, round)).await;
        within_deadline(receipt.flushed()).await;
    }
    let feed = within_deadline(reading).await.unwrap();
    assert_eq!(feed.prefixes(&b, Which::Out).len(), 2000);
    within_deadline(async {
        while status(&a, &lazy).overflows == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(status(&a, &busy).overflows, 0);
    // The peer has had all of it, in one session.
    let at_b = b.status(&a, |status| status.families[&AfiSafi::Ipv4Unicast].accepted == 2000).await;
    assert_eq!((at_b.counters.lost, a.established(&b).await.counters.lost), (0, 0));

    // Who reads again gets the routes as they are. Connections that were given up may wait before the one that stands.
    drop(unread);
    let second_round = |feed: &Feed| {
        let second =
            |told: &&Told| told.attributes.communities.iter().any(|community| community.0 & 0xf == 1);
        let told = feed.routes.values().filter(second);
        feed.has_ended(&b, Which::Out) && told.count() == 2000
    };
    while !lazy.accept().await.comes_to(second_round).await {}
}

#[tokio::test]
async fn stations_are_changed_and_removed_without_touching_sessions() {
    let (a, b) = pair().await;
    a.tell(&b, &["10.1.0.0/32"]).await.flushed().await;
    let (first, second) = (Collector::new(), Collector::new());
    let only_in = StationConfig { adj_rib_out: false, ..config() };
    let stations = BTreeMap::from([(first.address(), config()), (second.address(), config())]);
    a.speaker.apply_stations(stations).await;
    let mut feeds = [first.accept().await, second.accept().await];
    for feed in &mut feeds {
        feed.until(|feed| feed.has_ended(&b, Which::Out)).await;
    }
    monitor(&a, &first, only_in).await;
    for (feed, reason) in feeds.iter_mut().zip([0, 4]) {
        let Some(Message::Termination(items)) = feed.next().await else { panic!("a Termination") };
        assert_eq!(items[0].value[..], [0, reason]);
    }
    let mut feed = first.accept().await;
    feed.until(|feed| feed.has_ended(&b, Which::In)).await;
    a.tell(&b, &["10.1.0.1/32"]).await.flushed().await;
    b.tell(&a, &["172.16.0.0/12"]).await.flushed().await;
    a.speaker.clone().stop(StopMode::HardReset).await;
    let reason = next_down(&mut feed).await;
    assert!(matches!(reason, PeerDown::LocalNotification(_)), "{reason:?}");
    assert!(feed.holds(&b, Which::Out, &[]), "not asked for");
}

#[tokio::test]
async fn statistics_count_what_is_there() {
    let (a, b) = both_ways().await;
    a.tell(&b, &["10.1.0.0/32", "10.1.0.1/32"]).await;
    b.tell(&a, &["10.2.0.0/32", "192.168.0.0/24"]).await;
    let of = AfiSafi::Ipv4Unicast;
    a.status(&b, |status| {
        let counts = &status.families[&of];
        (counts.advertised, counts.accepted, counts.rejected) == (2, 1, 1)
    })
    .await;
    let collector = Collector::new();
    monitor(&a, &collector, StationConfig { statistics: Some(Duration::from_millis(50)), ..config() }).await;
    let mut feed = collector.accept().await;
    for _ in 0..2 {
        let statistics = loop {
            if let Some(Message::Statistics { statistics, .. }) = feed.next().await {
                break statistics;
            }
        };
        let expected = [
            Statistic::Rejected(1),
            Statistic::In(1),
            Statistic::Out(2),
            Statistic::InOf(of, 1),
            Statistic::OutOf(of, 2),
        ];
        assert_eq!(statistics, expected);
    }
}

#[tokio::test]
async fn a_peer_over_ipv6_is_told_as_one() {
    let (a, b) = (Node::new(1), Node::new(2));
    ip("address add 2001:db8::1/128 dev lo nodad\naddress add 2001:db8::2/128 dev lo nodad\n");
    let v6 = |number: u8| format!("2001:db8::{number}").parse::<IpAddr>().unwrap();
    let over = |config: PeerConfig, local: u8, peer: u8| PeerConfig {
        local_address: Some(v6(local)),
        peer_address: v6(peer),
        families: Families::ALL,
        ..config
    };
    b.peers([(&a, over(b.waits_for(&a), 2, 1))]).await;
    a.peers([(&b, over(a.towards(&b), 1, 2))]).await;
    a.tell(&b, &["2001:db8:1::/64"]).await;
    a.established(&b).await;
    let collector = Collector::new();
    monitor(&a, &collector, config()).await;
    let mut feed = collector.accept().await;
    feed.until(|feed| feed.routes.contains_key(&(v6(2), Which::Out, prefix("2001:db8:1::/64")))).await;
    let (_, up) = &feed.up[&v6(2)];
    assert_eq!(up.local_address, v6(1));
}
