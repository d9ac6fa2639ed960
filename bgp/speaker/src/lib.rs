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
//! ```no_run
//! # use std::sync::Arc;
//! # use plainroute_speaker::{OriginAttributes, Originated, PeerConfig, PeerName, Speaker, SpeakerConfig, StopMode};
//! # async fn announce() -> Result<(), Box<dyn std::error::Error>> {
//! let speaker = Speaker::start(SpeakerConfig::default());
//! let peer = PeerName::from("tor-a");
//! let config = PeerConfig::new("64512".parse()?, "64600".parse()?, "192.0.2.1".parse()?, "192.0.2.254".parse()?);
//! speaker.apply([(peer.clone(), config)].into()).await?;
//! let attributes = Arc::new(OriginAttributes { med: Some(50), ..OriginAttributes::default() });
//! let receipt = speaker.originate("mine", vec![Originated { peer, prefix: "10.20.0.0/28".parse()?, attributes }]).await;
//! receipt.flushed().await; // TCP of every ready peer has it
//! speaker.initial_sync_done(); // complete: End-of-RIB may leave
//! speaker.stop(StopMode::Withdraw).await;
//! # Ok(())
//! # }
//! ```
//!
//! Read [`Speaker`] first, then [`PeerConfig`] and [`Receipt`]. BFD stands apart in [`bfd`], so that it can run in a
//! process of its own.
#![deny(missing_docs)]

pub mod bfd;
mod bmp;
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
mod recorder;
mod registry;
mod signature;
mod socket;
mod speaker;
mod status;
mod tcp_ao;

pub use bmp::{StationConfig, StationStatus, StationStatuses};
pub use change::{Cost, Effect, Field, PeerChange, change_costs};
pub use config::{
    ApplyError, ImportRule, InvalidPassword, ListenRange, Password, PeerConfig, PeerName, SpeakerConfig,
};
pub use learned::{Followed, FollowedPath, Learned, LearnedPath};
pub use md5::{Md5Failures, TcpAoFailures};
pub use origin::{AdvertisedRoute, OriginAttributes, Originated, ReceivedRoute, RouteChange};
pub use path::{PathState, Paths};
pub use receipt::Receipt;
pub use recorder::{Recorder, RecorderStatus};
pub use speaker::{Speaker, StopMode};
pub use status::{Counters, FamilyStatus, Listening, PeerStatus, Peers};
pub use tcp_ao::{
    Authentication, InvalidTcpAoKeys, KeyIds, TcpAoAlgorithm, TcpAoKey, TcpAoKeys, TcpAoState, TcpAoSupport,
};
