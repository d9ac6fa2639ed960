//! Communities: standard (RFC 1997), extended (RFC 4360) and large (RFC 8092).
use std::{fmt, str::FromStr};

/// A standard community, `ASN:VALUE`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// GRACEFUL_SHUTDOWN (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// LLGR_STALE (RFC 9494).
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// NO_LLGR (RFC 9494).
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// NO_EXPORT (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// NO_ADVERTISE (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// NO_EXPORT_SUBCONFED (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);

    const NAMED: [(Community, &'static str); 6] = [
        (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Community::LLGR_STALE, "llgr-stale"),
        (Community::NO_LLGR, "no-llgr"),
        (Community::NO_EXPORT, "no-export"),
        (Community::NO_ADVERTISE, "no-advertise"),
        (Community::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
    ];
}

/// A large community, `GLOBAL:LOCAL1:LOCAL2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The global administrator, an AS number.
    pub global: u32,
    /// The first local part.
    pub local1: u32,
    /// The second local part.
    pub local2: u32,
}

/// An extended community as its eight octets; we carry them, and give meaning to none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// Why a text is not a community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommunity {
    /// Not `ASN:VALUE` nor a well-known name.
    #[error("`{0}` is not a community (ASN:VALUE, both up to 65535, or a name like no-export)")]
    Standard(String),
    /// Not `GLOBAL:LOCAL1:LOCAL2`.
    #[error("`{0}` is not a large community (GLOBAL:LOCAL1:LOCAL2, each up to 4294967295)")]
    Large(String),
}

impl FromStr for Community {
    type Err = InvalidCommunity;
    fn from_str(text: &str) -> Result<Self, InvalidCommunity> {
        if let Some((community, _)) = Community::NAMED.iter().find(|(_, name)| *name == text) {
            return Ok(*community);
        }
        let parts = text.split_once(':').and_then(|(asn, value)| {
            let asn: u16 = asn.parse().ok()?;
            let value: u16 = value.parse().ok()?;
            Some(Community((u32::from(asn) << 16) | u32::from(value)))
        });
        parts.ok_or_else(|| InvalidCommunity::Standard(text.to_owned()))
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Community::NAMED.iter().find(|(community, _)| community == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

impl FromStr for LargeCommunity {
    type Err = InvalidCommunity;
    fn from_str(text: &str) -> Result<Self, InvalidCommunity> {
        let mut parts = text.split(':').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(global)), Some(Ok(local1)), Some(Ok(local2)), None) => {
                Ok(LargeCommunity { global, local1, local2 })
            }
            _ => Err(InvalidCommunity::Large(text.to_owned())),
        }
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", u64::from_be_bytes(self.0))
    }
}

macro_rules! debug_as_display {
    ($($name:ty),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_display!(Community, LargeCommunity, ExtendedCommunity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_forms_parse_back() {
        for text in ["64512:100", "no-export", "graceful-shutdown", "0:0"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!("65535:0".parse::<Community>(), Ok(Community::GRACEFUL_SHUTDOWN));
        assert_eq!("4200000000:1:2".parse::<LargeCommunity>().unwrap().to_string(), "4200000000:1:2");
    }

    #[test]
    fn what_is_no_community_is_refused() {
        for text in ["", "1", "65536:1", "1:65536", "1:2:3", "no-such"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
        for text in ["1:2", "1:2:3:4", "1:2:4294967296"] {
            assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
        }
    }
}
