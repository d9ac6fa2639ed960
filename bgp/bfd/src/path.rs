//! The paths that sessions run over, and what their datagrams have to look like (RFC 5881, RFC 5883).
//!
//! This is data for a driver: ports to bind and send to, the hop limit to send with. What is received is judged by
//! [`crate::Demux`].
use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU8, NonZeroU32},
    ops::RangeInclusive,
};

/// The TTL or hop limit of every packet that is sent (RFC 5881 section 5), on long paths too, so that the other end can
/// tell by it how far a packet came.
pub const HOP_LIMIT: u8 = 255;

/// The UDP source ports to send from: one for all packets of a session, and a different one for each session where
/// possible (RFC 5881 section 4). The port of what is received does not matter.
pub const SOURCE_PORTS: RangeInclusive<u16> = 49152..=65535;

/// Whether routers may stand between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hops {
    /// None (RFC 5881).
    Single,
    /// Some (RFC 5883).
    Multi,
}

impl Hops {
    /// The UDP destination port (RFC 5881 section 4, RFC 5883 section 5).
    pub const fn port(self) -> u16 {
        match self {
            Hops::Single => 3784,
            Hops::Multi => 4784,
        }
    }
}

/// The path of one session. Two sessions do not share one (RFC 5881 section 2, RFC 5883 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// The peer is on the link of an interface.
    SingleHop {
        /// The peer's address.
        remote: IpAddr,
        /// The index of our interface.
        interface: NonZeroU32,
    },
    /// Routers stand between the peer and us.
    MultiHop {
        /// The peer's address.
        remote: IpAddr,
        /// Our address.
        local: IpAddr,
        /// The least TTL or hop limit at which a packet is taken. It is sent with 255 and loses one at each router, so
        /// this bounds from how far away a session can be meddled with.
        min_hop_limit: NonZeroU8,
    },
}

impl Path {
    /// Whether routers may stand on it.
    pub const fn hops(&self) -> Hops {
        match self {
            Path::SingleHop { .. } => Hops::Single,
            Path::MultiHop { .. } => Hops::Multi,
        }
    }

    /// The peer's address.
    pub const fn remote(&self) -> IpAddr {
        match self {
            Path::SingleHop { remote, .. } | Path::MultiHop { remote, .. } => *remote,
        }
    }

    /// The least TTL or hop limit at which a packet is taken: 255 on one hop (RFC 5881 section 5).
    pub const fn min_hop_limit(&self) -> u8 {
        match self {
            Path::SingleHop { .. } => HOP_LIMIT,
            Path::MultiHop { min_hop_limit, .. } => min_hop_limit.get(),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::SingleHop { remote, interface } => write!(f, "{remote} on interface {interface}"),
            Path::MultiHop { remote, local, .. } => write!(f, "{remote} from {local}"),
        }
    }
}
