//! Address families (RFC 4760): the two that Plainroute speaks, and sets of them.
use std::{fmt, str::FromStr};

/// An address family with its subsequent family. Only what we speak; others stay numbers in `wire`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AfiSafi {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl AfiSafi {
    /// All that we speak, in the order in which they go out.
    pub const ALL: [AfiSafi; 2] = [AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast];

    /// The pair of code points, where we speak it.
    pub const fn from_code(afi: u16, safi: u8) -> Option<AfiSafi> {
        match (afi, safi) {
            (1, 1) => Some(AfiSafi::Ipv4Unicast),
            (2, 1) => Some(AfiSafi::Ipv6Unicast),
            _ => None,
        }
    }

    /// The Address Family Identifier.
    pub const fn afi(self) -> u16 {
        match self {
            AfiSafi::Ipv4Unicast => 1,
            AfiSafi::Ipv6Unicast => 2,
        }
    }

    /// The Subsequent Address Family Identifier.
    pub const fn safi(self) -> u8 {
        1
    }

    /// The longest prefix length, in bits.
    pub const fn max_length(self) -> u8 {
        match self {
            AfiSafi::Ipv4Unicast => 32,
            AfiSafi::Ipv6Unicast => 128,
        }
    }

    /// The name in config files, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            AfiSafi::Ipv4Unicast => "ipv4-unicast",
            AfiSafi::Ipv6Unicast => "ipv6-unicast",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            AfiSafi::Ipv4Unicast => 1,
            AfiSafi::Ipv6Unicast => 2,
        }
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AfiSafi {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        AfiSafi::ALL
            .into_iter()
            .find(|family| family.name() == text)
            .ok_or_else(|| format!("`{text}` is not a family (ipv4-unicast or ipv6-unicast)"))
    }
}

/// A set of families.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Families(u8);

impl Families {
    /// No family.
    pub const NONE: Families = Families(0);
    /// All that we speak.
    pub const ALL: Families = Families(3);

    /// Whether `family` is in the set.
    pub const fn contains(self, family: AfiSafi) -> bool {
        self.0 & family.bit() != 0
    }

    /// Puts `family` into the set; true where it was not there.
    pub fn insert(&mut self, family: AfiSafi) -> bool {
        let new = !self.contains(family);
        self.0 |= family.bit();
        new
    }

    /// Takes `family` out of the set; true where it was there.
    pub fn remove(&mut self, family: AfiSafi) -> bool {
        let old = self.contains(family);
        self.0 &= !family.bit();
        old
    }

    /// What is in both.
    pub const fn intersection(self, other: Families) -> Families {
        Families(self.0 & other.0)
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The families, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = AfiSafi> {
        AfiSafi::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

impl FromIterator<AfiSafi> for Families {
    fn from_iter<I: IntoIterator<Item = AfiSafi>>(families: I) -> Self {
        let mut set = Families::NONE;
        for family in families {
            set.insert(family);
        }
        set
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_knows_its_families() {
        let mut set = Families::NONE;
        assert!(set.insert(AfiSafi::Ipv6Unicast) && !set.insert(AfiSafi::Ipv6Unicast));
        assert_eq!(set.iter().collect::<Vec<_>>(), [AfiSafi::Ipv6Unicast]);
        assert_eq!(set.intersection(Families::ALL), set);
        assert!(set.remove(AfiSafi::Ipv6Unicast) && set.is_empty());
    }

    #[test]
    fn names_parse_back() {
        for family in AfiSafi::ALL {
            assert_eq!(family.name().parse(), Ok(family));
            assert_eq!(AfiSafi::from_code(family.afi(), family.safi()), Some(family));
        }
        assert!("ipv4".parse::<AfiSafi>().is_err());
    }
}
