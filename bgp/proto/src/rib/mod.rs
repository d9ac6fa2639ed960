//! RIBs: attribute sets interned, Adj-RIB-In, Adj-RIB-Out (desired versus sent), best path, packing.
//!
//! Everything here is plain state of one session: no policy of when, no clock, no socket. A route is a canonical
//! attribute set plus the next hop; inside the RIBs it is a small integer.
mod adj_rib_in;
mod adj_rib_out;
mod attributes;
mod groups;
mod held;
mod index;
mod pack;
mod table;

pub mod best_path;

use crate::AfiSafi;

pub use adj_rib_in::{AdjRibIn, Applied, Change, Identity, PrefixLimit, Received, RejectCounts};
pub use adj_rib_out::{AdjRibOut, Advertised};
pub use attributes::{AttributeSet, Route};

impl AfiSafi {
    /// Where a family's half stands in an array of both.
    pub(crate) const fn place(self) -> usize {
        match self {
            AfiSafi::Ipv4Unicast => 0,
            AfiSafi::Ipv6Unicast => 1,
        }
    }
}
