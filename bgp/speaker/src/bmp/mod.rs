//! BMP (RFC 7854, RFC 8671): what monitoring stations are told of the peers' sessions and routes.
//!
//! Each station has a task (`station`), which owns its TCP connection. While it is connected it has a [`Subscription`]
//! that every peer's task sees (`monitor`), and into whose bounded queue the peers put what happens. A peer never
//! waits: where the queue is full it gives the subscription up, and the station starts over with a new connection
//! and all routes anew. Without a station nothing is collected anywhere.
//!
//! Adj-RIB-In is told after policy only: what the import rules refused is not kept, so there is nothing to tell.
mod encode;
mod monitor;
mod station;
mod stations;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use plainroute_bgp::{
    AfiSafi, Families,
    bmp::{PeerDown, PeerHeader, PeerUp},
    rib::{Change, Route},
    wire::{CodecContext, Nlri},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::PeerName;

pub(crate) use monitor::Monitor;
pub(crate) use stations::{StationViews, Stations};

/// The status of every configured station.
pub type StationStatuses = BTreeMap<SocketAddr, StationStatus>;

/// One monitoring station, to whom we connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationConfig {
    /// Tell the peers' routes that the import rules accepted, as they left them.
    pub adj_rib_in: bool,
    /// Tell the routes that the peers were sent.
    pub adj_rib_out: bool,
    /// Time between statistics; none where absent.
    pub statistics: Option<Duration>,
    /// What we are called: sysName.
    pub name: String,
    /// What we are: sysDescr.
    pub description: String,
    /// How much may wait for the station, in octets and about; what is beyond ends its connection. The routes that
    /// stand when a connection begins do not count.
    pub queue: u32,
}

impl StationConfig {
    /// A station with the defaults: both RIBs, statistics every minute, 16 MiB of queue.
    pub fn new(name: &str, description: &str) -> StationConfig {
        StationConfig {
            adj_rib_in: true,
            adj_rib_out: true,
            statistics: Some(Duration::from_secs(60)),
            name: name.to_owned(),
            description: description.to_owned(),
            queue: 16 << 20,
        }
    }
}

/// The status of one station.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StationStatus {
    /// Since when the connection stands; `None` without one.
    pub connected_since: Option<SystemTime>,
    /// What went wrong last, and when; kept after the connection is back.
    pub last_error: Option<(String, SystemTime)>,
    /// How often the connection came about.
    pub connections: u64,
    /// How often it was closed because the station did not read as fast as things happened.
    pub overflows: u64,
    /// Messages that were handed to TCP.
    pub messages_sent: u64,
    /// Octets that were handed to TCP.
    pub octets_sent: u64,
}

/// What the peers' tasks know of a connected station.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    received: bool,
    sent: bool,
    events: mpsc::Sender<PeerEvent>,
    /// A permit for each octet, about, that may wait.
    room: Arc<Semaphore>,
    /// Told when something had to be left out.
    overflow: Arc<Notify>,
}

/// The connected stations, as the peers' tasks see them.
pub(crate) type Subscriptions = Arc<BTreeMap<SocketAddr, Subscription>>;

/// What happened to a peer.
#[derive(Debug)]
struct PeerEvent {
    peer: PeerName,
    /// Since 1970.
    at: Duration,
    what: What,
    /// Goes back to the subscription when the event is told.
    _room: OwnedSemaphorePermit,
}

#[derive(Clone, Debug)]
enum What {
    /// The session stands, and these are its routes.
    Up(Arc<Standing>),
    /// Adj-RIB-In changed.
    Received(Arc<[Change]>),
    /// The peer has told all its routes of the family.
    EndOfRib(AfiSafi),
    /// One UPDATE was packed for the peer.
    Sent(Bytes),
    /// The session is gone.
    Down(PeerDown),
}

/// A session that stands, with the routes of the moment.
#[derive(Debug)]
struct Standing {
    session: Arc<Monitored>,
    received: Vec<(Nlri, Route)>,
    sent: Vec<(Nlri, Route)>,
    /// Not for a session that has just begun: there the peers' own markers end the RIBs.
    complete: bool,
}

/// What does not change while a session stands.
#[derive(Debug)]
struct Monitored {
    header: PeerHeader,
    up: PeerUp,
    families: Families,
    /// How Adj-RIB-In is written: always with AS numbers of four octets, and with LOCAL_PREF.
    received: CodecContext,
    /// How Adj-RIB-Out is written: as the peer gets it.
    sent: CodecContext,
}
