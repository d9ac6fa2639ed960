//! Which of two connections to one peer is kept (RFC 4271 section 6.8, RFC 6286 section 2.3).
//!
//! Both sides must come to the same answer on their own: the connection that was opened by the side with the
//! higher BGP Identifier stays; where the identifiers are equal, by the side with the higher AS number.
use crate::{Asn, RouterId};

/// Who opened a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Initiator {
    Local,
    Peer,
}

/// What a side is compared by; the order of the fields is the order of comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) router_id: RouterId,
    pub(super) asn: Asn,
}

/// Whose connection stays.
pub(super) fn winner(local: Identity, peer: Identity) -> Initiator {
    // Both equal cannot be: the OPEN would have been refused as our own identifier within our AS.
    if local > peer { Initiator::Local } else { Initiator::Peer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(router_id: u32, asn: u32) -> Identity {
        Identity { router_id: RouterId::new(router_id).unwrap(), asn: Asn::new(asn).unwrap() }
    }

    #[test]
    fn both_sides_agree_on_the_winner() {
        for (a, b) in [((1, 5), (2, 4)), ((7, 1), (7, 2)), ((0xc000_0001, 1), (0x0a00_0001, 9))] {
            let (a, b) = (identity(a.0, a.1), identity(b.0, b.1));
            assert_ne!(winner(a, b), winner(b, a));
        }
    }

    #[test]
    fn the_higher_identifier_wins_and_the_asn_breaks_a_tie() {
        // Unsigned: 192.0.0.1 is above 10.0.0.1 although its top bit is set.
        assert_eq!(winner(identity(0xc000_0001, 1), identity(0x0a00_0001, 9)), Initiator::Local);
        assert_eq!(winner(identity(7, 1), identity(7, 2)), Initiator::Peer);
    }
}
