//! Why a received datagram is thrown away, and how often each was the case.
use std::fmt;

/// Why a datagram was discarded: the steps of RFC 5880 section 6.8.6 in their order, after what RFC 5881 and 5883 ask
/// of the datagram itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Discard {
    /// It came from further away than the path is long (RFC 5881 section 5, RFC 5883 section 5).
    #[error("TTL or hop limit too low for the path")]
    HopLimit,
    /// The version is not 1.
    #[error("version is not 1")]
    Version,
    /// Length is less than 24, or than 26 with the A bit.
    #[error("Length is less than the minimum")]
    LengthTooSmall,
    /// Length is more than the datagram holds.
    #[error("Length is beyond the end of the datagram")]
    LengthBeyondPayload,
    /// Detect Mult is zero.
    #[error("Detect Mult is zero")]
    DetectMultZero,
    /// The Multipoint bit is set.
    #[error("the Multipoint bit is set")]
    Multipoint,
    /// My Discriminator is zero.
    #[error("My Discriminator is zero")]
    MyDiscriminatorZero,
    /// Your Discriminator is zero in a state in which the peer must know ours.
    #[error("Your Discriminator is zero in state Init or Up")]
    YourDiscriminatorZero,
    /// Your Discriminator names no session of ours.
    #[error("Your Discriminator names no session")]
    YourDiscriminatorUnknown,
    /// Your Discriminator is zero and no session is kept with this source over this path.
    #[error("no session with this source over this path")]
    NoSession,
    /// The session runs over the other port (RFC 5881 section 4, RFC 5883 section 5).
    #[error("the session uses the other port")]
    Port,
    /// The A bit is set; we use no authentication.
    #[error("authentication is not in use")]
    AuthenticationNotInUse,
    /// Our session is AdminDown: its content is noted, and it has no further effect.
    #[error("the session is AdminDown")]
    AdminDown,
}

impl Discard {
    /// Every reason.
    pub const ALL: [Discard; 13] = [
        Discard::HopLimit,
        Discard::Version,
        Discard::LengthTooSmall,
        Discard::LengthBeyondPayload,
        Discard::DetectMultZero,
        Discard::Multipoint,
        Discard::MyDiscriminatorZero,
        Discard::YourDiscriminatorZero,
        Discard::YourDiscriminatorUnknown,
        Discard::NoSession,
        Discard::Port,
        Discard::AuthenticationNotInUse,
        Discard::AdminDown,
    ];

    /// A short name in lower case, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Discard::HopLimit => "hop_limit",
            Discard::Version => "version",
            Discard::LengthTooSmall => "length_too_small",
            Discard::LengthBeyondPayload => "length_beyond_payload",
            Discard::DetectMultZero => "detect_mult_zero",
            Discard::Multipoint => "multipoint",
            Discard::MyDiscriminatorZero => "my_discriminator_zero",
            Discard::YourDiscriminatorZero => "your_discriminator_zero",
            Discard::YourDiscriminatorUnknown => "your_discriminator_unknown",
            Discard::NoSession => "no_session",
            Discard::Port => "port",
            Discard::AuthenticationNotInUse => "authentication_not_in_use",
            Discard::AdminDown => "admin_down",
        }
    }
}

/// How many datagrams were discarded for each reason.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct DiscardCounters([u64; Discard::ALL.len()]);

impl DiscardCounters {
    pub(crate) fn count(&mut self, discard: Discard) {
        self.0[discard as usize] += 1;
    }

    /// How many for this reason.
    pub fn of(&self, discard: Discard) -> u64 {
        self.0[discard as usize]
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its number.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.into_iter().map(|discard| (discard, self.of(discard)))
    }
}

impl fmt::Debug for DiscardCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self.iter().filter(|(_, number)| *number > 0);
        f.debug_map().entries(some.map(|(discard, number)| (discard.name(), number))).finish()
    }
}
