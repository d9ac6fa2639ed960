//! What nom needs here: an error that knows its NOTIFICATION.
use nom::error::{ErrorKind, ParseError};

use super::Notification;

/// The result of a parser over octets.
pub(super) type Parsed<'a, T> = nom::IResult<&'a [u8], T, Malformed>;

/// Why a parser stopped.
#[derive(Debug)]
pub(super) enum Malformed {
    /// Octets are missing, or left over.
    Length,
    /// The octets are there, and the peer is told what is wrong with them.
    Refused(Notification),
}

impl ParseError<&[u8]> for Malformed {
    fn from_error_kind(_: &[u8], _: ErrorKind) -> Self {
        Malformed::Length
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// Stops every parser around with this NOTIFICATION.
pub(super) fn refuse(notification: Notification) -> nom::Err<Malformed> {
    nom::Err::Failure(Malformed::Refused(notification))
}

/// The value, or the NOTIFICATION: `otherwise` where only a length is wrong.
pub(super) fn finish<T>(parsed: Parsed<'_, T>, otherwise: Notification) -> Result<T, Notification> {
    match parsed {
        Ok((_, value)) => Ok(value),
        Err(
            nom::Err::Error(Malformed::Refused(refused)) | nom::Err::Failure(Malformed::Refused(refused)),
        ) => Err(refused),
        Err(nom::Err::Error(Malformed::Length) | nom::Err::Failure(Malformed::Length))
        | Err(nom::Err::Incomplete(_)) => Err(otherwise),
    }
}
