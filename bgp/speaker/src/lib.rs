//! BGP and BFD on tokio: tasks and sockets that drive `plainroute-bgp` and `plainroute-bfd`.
//!
//! A [`Speaker`] is a handle to one registry task, which owns the peers' configuration, the listeners and what is
//! originated. Each peer has a task of its own, which owns its session, its RIBs and its TCP connections; nothing
//! is shared between tasks but values sent through channels.
//!
//! Everything is declarative: [`Speaker::apply`] takes the whole set of peers, [`Speaker::originate`] the whole set
//! of an owner's routes, and both touch only what differs; [`Speaker::update`] changes some of them, at a price that does
//! not depend on how many there are. Nothing that a peer sends is accepted unless its
//! configuration says so, and nothing is advertised but what was originated.
//!
//! Read [`Speaker`] first, then [`PeerConfig`] and [`Receipt`]. BFD stands apart in [`bfd`], so that it can run in a
//! process of its own.
#![deny(missing_docs)]

pub mod bfd;
mod change;
mod config;
mod connection;
mod inbound;
mod learned;
mod listener;
mod md5;
mod next_hop;
mod origin;
mod originated;
mod outbound;
mod path;
mod peer;
mod quota;
mod receipt;
mod registry;
mod signature;
mod socket;
mod speaker;
mod status;
mod tcp_ao;

pub use change::{Cost, Effect, Field, PeerChange, change_costs};
pub use config::{ApplyError, ImportRule, InvalidPassword, Password, PeerConfig, PeerName, SpeakerConfig};
pub use learned::{Learned, LearnedPath};
pub use md5::{Md5Failures, TcpAoFailures};
pub use origin::{AdvertisedRoute, OriginAttributes, Originated, ReceivedRoute, RouteChange};
pub use path::{PathState, Paths};
pub use receipt::Receipt;
pub use speaker::{Speaker, StopMode};
pub use status::{Counters, FamilyStatus, PeerStatus, Peers};
pub use tcp_ao::{
    Authentication, InvalidTcpAoKeys, KeyIds, TcpAoAlgorithm, TcpAoKey, TcpAoKeys, TcpAoState, TcpAoSupport,
};
