//! Path attributes (RFC 4271 section 5 and later ones), typed; unknown ones are kept raw.
//!
//! Here are the values. `decode` reads a list of them by the rules of RFC 7606, which stand as a table in `rules`;
//! `encode` writes them in canonical order.
mod as_path;
pub(super) mod decode;
pub(super) mod encode;
pub(super) mod multi_protocol;
mod next_hop;
mod rules;
mod value;

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

pub use encode::EncodedAttributes;

use crate::{Asn, Community, ExtendedCommunity, LargeCommunity};

/// ORIGIN (RFC 4271 section 5.1.1), in the order of preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Interior to the originating AS.
    #[default]
    Igp,
    /// Learned by EGP.
    Egp,
    /// By some other means.
    Incomplete,
}

/// The kind of an AS_PATH segment (RFC 4271 section 4.3, RFC 5065).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentKind {
    /// AS_SET: unordered.
    Set,
    /// AS_SEQUENCE: ordered.
    Sequence,
    /// AS_CONFED_SEQUENCE (RFC 5065).
    ConfedSequence,
    /// AS_CONFED_SET (RFC 5065).
    ConfedSet,
}

/// One segment. The wire holds 1 to 255 numbers each; longer ones are split there and joined again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPathSegment {
    /// What the numbers mean.
    pub kind: SegmentKind,
    /// The numbers, in the order of the wire.
    pub asns: Vec<Asn>,
}

/// AS_PATH with four-octet numbers, AS4_PATH already merged in (RFC 6793 section 4.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath {
    /// The segments, nearest first.
    pub segments: Vec<AsPathSegment>,
}

/// Where a route points: the NEXT_HOP attribute or the next hop field of MP_REACH_NLRI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// An IPv4 next hop.
    V4(Ipv4Addr),
    /// An IPv6 next hop, with the link-local one beside it where 32 octets came (RFC 2545 section 3). A lone
    /// link-local address stands in `global`.
    V6 {
        /// The global address.
        global: Ipv6Addr,
        /// The link-local address.
        link_local: Option<Ipv6Addr>,
    },
}

/// AGGREGATOR, four-octet form (RFC 6793).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aggregator {
    /// The AS that aggregated.
    pub asn: Asn,
    /// The router that aggregated.
    pub address: Ipv4Addr,
}

/// An attribute that we give no meaning to, kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawAttribute {
    /// The flags octet, without the extended-length bit.
    pub flags: u8,
    /// The type code.
    pub code: u8,
    /// The value.
    pub value: Bytes,
}

/// A canonical attribute set: lists sorted where order has no meaning. The next hop stands beside it
/// ([`NextHop`]), since it differs by family within one UPDATE.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathAttributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; only within an AS.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997), sorted, each once.
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES (RFC 4360), sorted, each once.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY (RFC 8092), sorted, each once.
    pub large_communities: Vec<LargeCommunity>,
    /// ORIGINATOR_ID (RFC 4456); only within an AS.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), in order; only within an AS.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Only to Customer (RFC 9234).
    pub only_to_customer: Option<Asn>,
    /// Attributes without a field here, sorted by code.
    pub unknown: Vec<RawAttribute>,
}
