//! The diagnostic code: why a session last changed its state.
use std::fmt;

/// Why the sender's session last changed its state (RFC 5880 section 4.1; IANA "BFD Diagnostic Codes"). Five bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// No Diagnostic.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// Control Detection Time Expired: the peer was silent for too long (RFC 5880 section 6.8.4).
    pub const CONTROL_DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    /// Echo Function Failed (RFC 5880 section 6.8.5). We do not send it.
    pub const ECHO_FUNCTION_FAILED: Diagnostic = Diagnostic(2);
    /// Neighbor Signaled Session Down (RFC 5880 section 6.8.6).
    pub const NEIGHBOR_SIGNALED_SESSION_DOWN: Diagnostic = Diagnostic(3);
    /// Forwarding Plane Reset (RFC 5880 section 6.8.15).
    pub const FORWARDING_PLANE_RESET: Diagnostic = Diagnostic(4);
    /// Path Down: something else than BFD says so.
    pub const PATH_DOWN: Diagnostic = Diagnostic(5);
    /// Concatenated Path Down (RFC 5880 section 6.8.17).
    pub const CONCATENATED_PATH_DOWN: Diagnostic = Diagnostic(6);
    /// Administratively Down (RFC 5880 section 6.8.16).
    pub const ADMINISTRATIVELY_DOWN: Diagnostic = Diagnostic(7);
    /// Reverse Concatenated Path Down (RFC 5880 section 6.8.17).
    pub const REVERSE_CONCATENATED_PATH_DOWN: Diagnostic = Diagnostic(8);

    /// The diagnostic with this code; none above 31.
    pub const fn from_code(code: u8) -> Option<Diagnostic> {
        if code < 32 { Some(Diagnostic(code)) } else { None }
    }

    /// What stands in the low five bits of the first octet of a packet.
    pub(crate) const fn from_low_bits(octet: u8) -> Diagnostic {
        Diagnostic(octet & 0x1f)
    }

    /// The code, 0 to 31.
    pub const fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match *self {
            Diagnostic::NONE => "no diagnostic",
            Diagnostic::CONTROL_DETECTION_TIME_EXPIRED => "control detection time expired",
            Diagnostic::ECHO_FUNCTION_FAILED => "echo function failed",
            Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN => "neighbor signaled session down",
            Diagnostic::FORWARDING_PLANE_RESET => "forwarding plane reset",
            Diagnostic::PATH_DOWN => "path down",
            Diagnostic::CONCATENATED_PATH_DOWN => "concatenated path down",
            Diagnostic::ADMINISTRATIVELY_DOWN => "administratively down",
            Diagnostic::REVERSE_CONCATENATED_PATH_DOWN => "reverse concatenated path down",
            Diagnostic(code) => return write!(f, "diagnostic {code}"),
        })
    }
}
