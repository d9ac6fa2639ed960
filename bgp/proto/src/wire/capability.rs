//! Capabilities (RFC 5492) and what each means.
use bytes::Bytes;

use crate::{AfiSafi, Asn};

/// One capability of an OPEN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Multiprotocol extensions (RFC 4760) for a family that we speak.
    MultiProtocol(AfiSafi),
    /// Route refresh (RFC 2918).
    RouteRefresh,
    /// Enhanced route refresh (RFC 7313).
    EnhancedRouteRefresh,
    /// Extended messages (RFC 8654).
    ExtendedMessage,
    /// Four-octet AS numbers (RFC 6793).
    FourOctetAsn(Asn),
    /// Graceful restart (RFC 4724, RFC 8538).
    GracefulRestart(GracefulRestart),
    /// IPv4 over an IPv6 next hop (RFC 8950): the families whose next hop may be IPv6.
    ExtendedNextHop(Vec<AfiSafi>),
    /// Any other, or one for families that we do not speak.
    Unknown {
        /// The capability code.
        code: u8,
        /// The value.
        value: Bytes,
    },
}

/// The value of the graceful restart capability (RFC 4724 section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted.
    pub restarting: bool,
    /// N bit (RFC 8538): a NOTIFICATION does not flush.
    pub notification: bool,
    /// Restart time in seconds, up to 4095.
    pub restart_time: u16,
    /// The families, each with its F bit.
    pub families: Vec<GracefulRestartFamily>,
}

/// One family of the graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GracefulRestartFamily {
    /// The family.
    pub family: AfiSafi,
    /// F bit: forwarding state was preserved.
    pub forwarding_preserved: bool,
}
