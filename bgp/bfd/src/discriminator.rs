//! The number by which a system knows one of its sessions.
use std::{fmt, num::NonZeroU32};

/// A discriminator (RFC 5880 section 6.3): names a session at the system that chose it. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Discriminator(NonZeroU32);

impl Discriminator {
    /// The discriminator of this value, or none where it is zero.
    pub const fn new(value: u32) -> Option<Discriminator> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Discriminator(value)),
            None => None,
        }
    }

    /// Its value.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Discriminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}
