//! What a peer's task does for monitoring: puts what happens into the queues of the connected stations.
//!
//! Owned by the peer's task. Nothing in here waits. Where a queue is full its subscription is given up and the
//! station told so; it comes back with another one and gets all routes anew.
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    AfiSafi, Families,
    bmp::{PeerDown, PeerHeader, PeerKind, PeerUp, Rib},
    rib::Change,
    session::{DownReason, Negotiated, StopReason},
    wire::{CodecContext, iana::MessageType},
};
use tokio::sync::watch;

use super::{Monitored, PeerEvent, Standing, Subscription, Subscriptions, What};
use crate::{PeerName, inbound::Inbound, outbound::Outbound};

/// What an event takes of a queue besides its routes.
const EVENT_OCTETS: usize = 256;
/// What a changed route takes of a queue.
const CHANGE_OCTETS: usize = 128;
/// Where the type of a BGP message stands.
const TYPE_OCTET: usize = 18;

pub(crate) struct Monitor {
    peer: PeerName,
    subscriptions: watch::Receiver<Subscriptions>,
    live: Vec<Subscription>,
    /// The session that stands.
    session: Option<Arc<Monitored>>,
}

impl Monitor {
    pub(crate) fn new(peer: PeerName, subscriptions: watch::Receiver<Subscriptions>) -> Monitor {
        Monitor { peer, subscriptions, live: Vec::new(), session: None }
    }

    /// Other stations are connected. Cancel-safe; pending for ever once nobody connects any more.
    pub(crate) async fn changed(&mut self) {
        if self.subscriptions.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether changes of Adj-RIB-In are to be collected.
    pub(crate) fn wants_received(&self) -> bool {
        self.session.is_some() && self.live.iter().any(|subscription| subscription.received)
    }

    /// Whether what is sent is to be shown.
    pub(crate) fn wants_sent(&self) -> bool {
        self.live.iter().any(|subscription| subscription.sent)
    }

    /// Greets the stations that are new with the session and its routes.
    pub(crate) fn take_subscriptions(&mut self, inbound: &Inbound, outbound: &Outbound) {
        let subscriptions = Arc::clone(&self.subscriptions.borrow_and_update());
        let known = |a: &Subscription, b: &Subscription| a.events.same_channel(&b.events);
        self.live.retain(|live| subscriptions.values().any(|other| known(live, other)));
        for subscription in subscriptions.values() {
            if !self.live.iter().any(|live| known(live, subscription)) {
                let standing = self.session.as_ref().map(|session| {
                    standing(session, subscription.received, subscription.sent, inbound, outbound)
                });
                self.live.push(subscription.clone());
                if let Some(standing) = standing {
                    let place = self.live.len() - 1;
                    self.tell_one(place, What::Up(Arc::new(standing)), 0);
                }
            }
        }
    }

    /// The session stands. What is kept of an earlier one is told at once, the rest as it comes.
    pub(crate) fn session_up(
        &mut self,
        negotiated: &Negotiated,
        (local, remote): (SocketAddr, SocketAddr),
        inbound: &Inbound,
    ) {
        let session = Arc::new(monitored(negotiated, local, remote));
        self.session = Some(Arc::clone(&session));
        if self.live.is_empty() {
            return;
        }
        let received = routes(inbound, self.wants_received());
        let standing = Standing { session, received, sent: Vec::new(), complete: false };
        self.tell(&What::Up(Arc::new(standing)), 0, |_| true);
    }

    pub(crate) fn session_down(&mut self, reason: &DownReason, negotiated: &Negotiated) {
        if self.session.take().is_some() && !self.live.is_empty() {
            self.tell(&What::Down(peer_down(reason, negotiated)), 0, |_| true);
        }
    }

    /// Adj-RIB-In changed.
    pub(crate) fn received(&mut self, changes: Vec<Change>) {
        if self.session.is_some() && !changes.is_empty() {
            let octets = changes.len().saturating_mul(CHANGE_OCTETS);
            self.tell(&What::Received(changes.into()), octets, |subscription| subscription.received);
        }
    }

    /// The peer has told all its routes of a family.
    pub(crate) fn end_of_rib(&mut self, family: AfiSafi) {
        if self.wants_received() {
            self.tell(&What::EndOfRib(family), 0, |subscription| subscription.received);
        }
    }

    /// A message was packed for the peer; of those only UPDATEs are of interest.
    pub(crate) fn sent(&mut self, message: &[u8]) {
        if message.get(TYPE_OCTET) == Some(&MessageType::Update.code()) {
            let update = Bytes::copy_from_slice(message);
            self.tell(&What::Sent(update), message.len(), |subscription| subscription.sent);
        }
    }

    fn tell(&mut self, what: &What, octets: usize, wants: impl Fn(&Subscription) -> bool) {
        // From behind, since a subscription may go.
        for place in (0..self.live.len()).rev() {
            if wants(&self.live[place]) {
                self.tell_one(place, what.clone(), octets);
            }
        }
    }

    /// Puts an event into one queue, or gives the subscription up.
    fn tell_one(&mut self, place: usize, what: What, octets: usize) {
        let subscription = &self.live[place];
        let room = u32::try_from(octets.saturating_add(EVENT_OCTETS)).unwrap_or(u32::MAX);
        let told = Arc::clone(&subscription.room).try_acquire_many_owned(room).is_ok_and(|room| {
            let event =
                PeerEvent { peer: self.peer.clone(), at: since_1970(SystemTime::now()), what, _room: room };
            subscription.events.try_send(event).is_ok()
        });
        if !told {
            subscription.overflow.notify_one();
            self.live.swap_remove(place);
        }
    }
}

impl Subscription {
    /// How many events can wait where `queue` octets can.
    pub(super) fn most_events(queue: u32) -> usize {
        usize::try_from(queue).unwrap_or(usize::MAX).div_ceil(EVENT_OCTETS).max(1)
    }
}

fn since_1970(time: SystemTime) -> Duration {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // BMP has microseconds.
    Duration::new(since.as_secs(), since.subsec_micros() * 1000)
}

fn standing(
    session: &Arc<Monitored>,
    received: bool,
    sent: bool,
    inbound: &Inbound,
    outbound: &Outbound,
) -> Standing {
    let told = outbound.rib().iter().filter(|advertised| sent && advertised.sent);
    Standing {
        session: Arc::clone(session),
        received: routes(inbound, received),
        sent: told.filter_map(|told| Some((told.prefix.into(), told.route?.clone()))).collect(),
        complete: true,
    }
}

fn routes(inbound: &Inbound, wanted: bool) -> Vec<(plainroute_bgp::wire::Nlri, plainroute_bgp::rib::Route)> {
    let accepted = inbound.rib().iter().filter(|_| wanted);
    accepted.map(|(nlri, received)| (nlri, received.route)).collect()
}

fn monitored(negotiated: &Negotiated, local: SocketAddr, remote: SocketAddr) -> Monitored {
    let mut sent_open = BytesMut::new();
    // Written by the same code from the same value, so the octets are those that went out.
    negotiated.local_open.encode(&mut sent_open);
    Monitored {
        header: PeerHeader {
            kind: PeerKind::Global,
            rib: Rib::InPrePolicy,
            two_octet_as_path: false,
            distinguisher: 0,
            address: canonical(remote.ip()),
            asn: negotiated.peer_open.asn.number(),
            router_id: negotiated.peer_open.router_id.address(),
            timestamp: Some(since_1970(SystemTime::now())),
        },
        up: PeerUp {
            local_address: canonical(local.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
            sent_open: sent_open.freeze(),
            received_open: negotiated.peer_open_octets.clone(),
            information: Vec::new(),
        },
        families: negotiated.families,
        received: CodecContext {
            four_octet_asn: true,
            // LOCAL_PREF is part of what policy made of the route.
            internal: true,
            max_message_length: negotiated.longest_received,
            ipv4_over_ipv6: true,
            add_path_receive: Families::NONE,
            add_path_send: negotiated.context.add_path_receive,
            enhanced_refresh: false,
        },
        sent: negotiated.context,
    }
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The numbers are events of RFC 4271 section 8.1 and RFC 9687.
fn peer_down(reason: &DownReason, negotiated: &Negotiated) -> PeerDown {
    const MANUAL_STOP: u16 = 2;
    const TCP_CONNECTION_CONFIRMED: u16 = 17;
    let octets = || {
        let mut octets = BytesMut::new();
        if let Some(notification) = reason.notification(negotiated) {
            notification.encode(&mut octets);
        }
        octets.freeze()
    };
    match reason {
        DownReason::Stopped(StopReason::Cease(..) | StopReason::HardReset(..))
        | DownReason::NotificationSent(_)
        | DownReason::SendHoldTimerExpired
        | DownReason::Collision => PeerDown::LocalNotification(octets()),
        DownReason::Stopped(StopReason::Retain) => PeerDown::LocalEvent(MANUAL_STOP),
        DownReason::PeerRestarted => PeerDown::LocalEvent(TCP_CONNECTION_CONFIRMED),
        DownReason::NotificationReceived(_) => PeerDown::RemoteNotification(octets()),
        DownReason::ConnectionLost => PeerDown::Remote,
    }
}
