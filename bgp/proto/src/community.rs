//! Communities: standard (RFC 1997), extended (RFC 4360) and large (RFC 8092).
use std::{fmt, net::Ipv4Addr, str::FromStr};

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
///
/// Written as `rt:ADMIN:NUMBER` (route target) or `ro:ADMIN:NUMBER` (route origin), where ADMIN is an AS number (RFC 4360
/// section 3.1; beyond 65535, or with an `L` behind it, four octets by RFC 5668) or an IPv4 address (section 3.2). Any other
/// is shown in hexadecimal.
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
    /// Not `rt:` or `ro:` with `ADMIN:NUMBER`.
    #[error(
        "`{0}` is not an extended community (rt:ADMIN:NUMBER or ro:ADMIN:NUMBER, ADMIN an AS number or an IPv4 address; \
         NUMBER up to 65535, with an AS number below 65536 up to 4294967295)"
    )]
    Extended(String),
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

impl ExtendedCommunity {
    /// The transitive types: what the administrator is (RFC 4360 sections 3.1 and 3.2, RFC 5668).
    const TWO_OCTET_AS: u8 = 0x00;
    const IPV4: u8 = 0x01;
    const FOUR_OCTET_AS: u8 = 0x02;
    /// The subtypes with a name (RFC 4360 sections 4 and 5).
    const NAMED: [(u8, &'static str); 2] = [(0x02, "rt"), (0x03, "ro")];

    fn parse(text: &str) -> Option<ExtendedCommunity> {
        let mut parts = text.split(':');
        let (Some(name), Some(administrator), Some(number), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let (subtype, _) = Self::NAMED.into_iter().find(|(_, known)| *known == name)?;
        let (kind, value) = if let Ok(address) = administrator.parse::<Ipv4Addr>() {
            (Self::IPV4, six(u32::from(address), number.parse().ok()?))
        } else if let Some(asn) = administrator.strip_suffix('L') {
            (Self::FOUR_OCTET_AS, six(asn.parse().ok()?, number.parse().ok()?))
        } else {
            match (administrator.parse::<u32>().ok()?, u16::try_from(administrator.parse::<u32>().ok()?)) {
                (_, Ok(asn)) => {
                    let ([a, b], [c, d, e, f]) =
                        (asn.to_be_bytes(), number.parse::<u32>().ok()?.to_be_bytes());
                    (Self::TWO_OCTET_AS, [a, b, c, d, e, f])
                }
                (asn, Err(_)) => (Self::FOUR_OCTET_AS, six(asn, number.parse().ok()?)),
            }
        };
        let [a, b, c, d, e, f] = value;
        Some(ExtendedCommunity([kind, subtype, a, b, c, d, e, f]))
    }
}

/// A wide administrator and a narrow number.
const fn six(administrator: u32, number: u16) -> [u8; 6] {
    let ([a, b, c, d], [e, f]) = (administrator.to_be_bytes(), number.to_be_bytes());
    [a, b, c, d, e, f]
}

impl FromStr for ExtendedCommunity {
    type Err = InvalidCommunity;
    fn from_str(text: &str) -> Result<Self, InvalidCommunity> {
        ExtendedCommunity::parse(text).ok_or_else(|| InvalidCommunity::Extended(text.to_owned()))
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, f] = self.0;
        let name = Self::NAMED.into_iter().find(|(known, _)| *known == subtype).map(|(_, name)| name);
        let (wide, narrow) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
        match (kind, name) {
            (Self::TWO_OCTET_AS, Some(name)) => {
                let (asn, number) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
                write!(out, "{name}:{asn}:{number}")
            }
            (Self::IPV4, Some(name)) => write!(out, "{name}:{}:{narrow}", Ipv4Addr::from(wide)),
            (Self::FOUR_OCTET_AS, Some(name)) if wide <= u32::from(u16::MAX) => {
                write!(out, "{name}:{wide}L:{narrow}")
            }
            (Self::FOUR_OCTET_AS, Some(name)) => write!(out, "{name}:{wide}:{narrow}"),
            (_, _) => write!(out, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
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

    /// RFC 4360 sections 3.1, 3.2, 4 and 5; RFC 5668.
    #[test]
    fn extended_communities_are_what_their_text_says() {
        for (text, octets) in [
            ("rt:64512:100", [0, 2, 0xfc, 0, 0, 0, 0, 100]),
            ("ro:64512:4294967295", [0, 3, 0xfc, 0, 255, 255, 255, 255]),
            ("rt:192.0.2.1:7", [1, 2, 192, 0, 2, 1, 0, 7]),
            ("ro:4200000000:65535", [2, 3, 0xfa, 0x56, 0xea, 0, 255, 255]),
            ("rt:100L:5", [2, 2, 0, 0, 0, 100, 0, 5]),
        ] {
            assert_eq!(text.parse(), Ok(ExtendedCommunity(octets)), "{text}");
            assert_eq!(ExtendedCommunity(octets).to_string(), text);
        }
        assert_eq!(ExtendedCommunity([3, 12, 0, 0, 0, 0, 0, 8]).to_string(), "0x030c000000000008");
        for text in
            ["rt:1", "rt:1:2:3", "xy:1:2", "rt:65536:65536", "rt:192.0.2.1:65536", "rt:1:4294967296", "1:2:3"]
        {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
        }
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
