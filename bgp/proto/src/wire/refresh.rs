//! ROUTE-REFRESH (RFC 2918, RFC 7313).
use crate::AfiSafi;

/// A ROUTE-REFRESH for a family that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// The family.
    pub family: AfiSafi,
    /// 0 asks for routes, 1 begins and 2 ends a refresh (RFC 7313).
    pub subtype: u8,
}
