//! Autonomous system numbers, four octets wide (RFC 6793).
use std::{fmt, str::FromStr};

/// An autonomous system number. Zero cannot be built (RFC 7607).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(u32);

impl Asn {
    /// AS_TRANS (RFC 6793 section 2): stands for a four-octet number in a two-octet field.
    pub const TRANS: Asn = Asn(23456);

    /// The number, unless it is the reserved zero (RFC 7607).
    pub const fn new(number: u32) -> Option<Asn> {
        if number == 0 { None } else { Some(Asn(number)) }
    }

    /// The number itself.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number in two octets, AS_TRANS where it does not fit (RFC 6793 section 4.2.1).
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

/// Why a number is not an AS number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAsn {
    /// AS 0 is reserved (RFC 7607).
    #[error("AS number 0 is reserved (RFC 7607)")]
    Zero,
    /// Neither a number below 2^32 nor of the form `HIGH.LOW` (RFC 5396).
    #[error("`{0}` is not an AS number (1 to 4294967295, or HIGH.LOW)")]
    Form(String),
}

impl TryFrom<u32> for Asn {
    type Error = InvalidAsn;
    fn try_from(number: u32) -> Result<Self, InvalidAsn> {
        Asn::new(number).ok_or(InvalidAsn::Zero)
    }
}

impl FromStr for Asn {
    type Err = InvalidAsn;
    fn from_str(text: &str) -> Result<Self, InvalidAsn> {
        let form = || InvalidAsn::Form(text.to_owned());
        let number = match text.split_once('.') {
            Some((high, low)) => {
                let high: u16 = high.parse().map_err(|_| form())?;
                let low: u16 = low.parse().map_err(|_| form())?;
                (u32::from(high) << 16) | u32::from(low)
            }
            None => text.parse().map_err(|_| form())?,
        };
        Asn::try_from(number)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AS{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_cannot_be_built() {
        assert_eq!(Asn::new(0), None);
        assert_eq!("0".parse::<Asn>(), Err(InvalidAsn::Zero));
        assert_eq!("0.0".parse::<Asn>(), Err(InvalidAsn::Zero));
    }

    #[test]
    fn both_notations_of_rfc_5396_parse() {
        assert_eq!("4200000000".parse(), Ok(Asn(4_200_000_000)));
        assert_eq!("64086.59904".parse(), Ok(Asn(4_200_000_000)));
        assert!("4294967296".parse::<Asn>().is_err());
        assert!("1.65536".parse::<Asn>().is_err());
    }

    #[test]
    fn a_wide_number_becomes_as_trans_in_two_octets() {
        assert_eq!(Asn(64512).two_octets(), 64512);
        assert_eq!(Asn(65536).two_octets(), 23456);
    }
}
