//! NOTIFICATION (RFC 4271 section 4.5), with the subcodes of RFC 4486, 6608, 7313, 8538 and 9003's text.
use bytes::Bytes;

/// A NOTIFICATION, sent or received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// The error subcode.
    pub subcode: u8,
    /// The data.
    pub data: Bytes,
}

/// Why a session is ceased on purpose (RFC 4486, RFC 8538).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CeaseReason {
    /// More prefixes than configured.
    MaxPrefixes = 1,
    /// Shut down by the operator.
    AdministrativeShutdown = 2,
    /// The peer was removed from the configuration.
    PeerDeconfigured = 3,
    /// Reset by the operator.
    AdministrativeReset = 4,
    /// The connection was not wanted.
    ConnectionRejected = 5,
    /// Some other configuration change.
    OtherConfigurationChange = 6,
    /// This connection lost the collision (RFC 4271 section 6.8).
    ConnectionCollision = 7,
    /// Out of resources.
    OutOfResources = 8,
    /// Do not keep the routes (RFC 8538).
    HardReset = 9,
    /// BFD says that the path is down (RFC 9384).
    BfdDown = 10,
}
