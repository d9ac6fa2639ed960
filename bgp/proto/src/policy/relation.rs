//! What a route's sender is to us decides what becomes of its attributes, before any rule of the operator: leaks
//! are told by Only to Customer (RFC 9234 section 5), and a route that is to go away soon is made the last choice
//! (RFC 8326 section 4).
use std::sync::Arc;

use crate::{
    Asn, Community,
    wire::{PathAttributes, Role},
};

/// The two sides of a session, as far as attributes depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Our AS.
    pub local_asn: Asn,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// What we are to the peer (RFC 9234); only external peers have roles.
    pub role: Option<Role>,
}

/// The route has been where it must not have been: it is not to be used (RFC 9234 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaked;

/// LOCAL_PREF of a route with GRACEFUL_SHUTDOWN: the lowest there is (RFC 8326 section 4.2).
const SHUTDOWN_PREFERENCE: u32 = 0;

impl Relation {
    /// Whether the peer is in our AS.
    pub fn internal(&self) -> bool {
        self.local_asn == self.peer_asn
    }

    /// The attributes of a route from the peer as we use them. Without a change the set itself comes back.
    pub fn receive(&self, attributes: &Arc<PathAttributes>) -> Result<Arc<PathAttributes>, Leaked> {
        if self.internal() {
            return Ok(Arc::clone(attributes));
        }
        let mut used = Arc::clone(attributes);
        match (self.role, attributes.only_to_customer) {
            (None, _) => {}
            // Customers and clients of a route server must not give us what came to them from above or aside.
            (Some(Role::Provider | Role::RouteServer), Some(_)) => return Err(Leaked),
            (Some(Role::Provider | Role::RouteServer), None) => {}
            (Some(Role::Peer), Some(asn)) if asn != self.peer_asn => return Err(Leaked),
            (Some(Role::Peer | Role::Customer | Role::RouteServerClient), Some(_)) => {}
            (Some(Role::Peer | Role::Customer | Role::RouteServerClient), None) => {
                Arc::make_mut(&mut used).only_to_customer = Some(self.peer_asn);
            }
        }
        if used.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
            Arc::make_mut(&mut used).local_pref = Some(SHUTDOWN_PREFERENCE);
        }
        Ok(used)
    }

    /// Marks a route that is to go to the peer; the error is that it must not go there.
    pub fn send(&self, attributes: &mut PathAttributes) -> Result<(), Leaked> {
        let Some(role) = self.role.filter(|_| !self.internal()) else { return Ok(()) };
        match (role, attributes.only_to_customer) {
            // Only customers, peers and clients may hear what is only to customers.
            (Role::Provider | Role::RouteServer, Some(_)) => Ok(()),
            (Role::Customer | Role::Peer | Role::RouteServerClient, Some(_)) => Err(Leaked),
            (Role::Provider | Role::RouteServer | Role::Peer, None) => {
                attributes.only_to_customer = Some(self.local_asn);
                Ok(())
            }
            (Role::Customer | Role::RouteServerClient, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 64512;
    const PEER: u32 = 64600;

    fn asn(number: u32) -> Asn {
        Asn::new(number).unwrap()
    }

    fn relation(role: Option<Role>) -> Relation {
        Relation { local_asn: asn(US), peer_asn: asn(PEER), role }
    }

    fn otc(number: Option<u32>) -> PathAttributes {
        PathAttributes { only_to_customer: number.map(asn), ..PathAttributes::default() }
    }

    /// RFC 9234 section 5, ingress: what we are, what came, and what is used.
    #[test]
    fn only_to_customer_tells_leaks_and_is_added_rfc_9234() {
        for (role, came, used) in [
            (None, Some(9), Ok(Some(9))),
            (None, None, Ok(None)),
            (Some(Role::Provider), Some(PEER), Err(Leaked)),
            (Some(Role::Provider), None, Ok(None)),
            (Some(Role::RouteServer), Some(9), Err(Leaked)),
            (Some(Role::RouteServer), None, Ok(None)),
            (Some(Role::Peer), Some(PEER), Ok(Some(PEER))),
            (Some(Role::Peer), Some(9), Err(Leaked)),
            (Some(Role::Peer), None, Ok(Some(PEER))),
            (Some(Role::Customer), None, Ok(Some(PEER))),
            (Some(Role::Customer), Some(9), Ok(Some(9))),
            (Some(Role::RouteServerClient), None, Ok(Some(PEER))),
        ] {
            let result = relation(role).receive(&Arc::new(otc(came)));
            assert_eq!(result.map(|set| set.only_to_customer), used.map(|n| n.map(asn)), "{role:?} {came:?}");
        }
    }

    /// RFC 9234 section 5, egress.
    #[test]
    fn only_to_customer_is_said_and_kept_from_others_rfc_9234() {
        for (role, held, said) in [
            (None, None, Ok(None)),
            (None, Some(9), Ok(Some(9))),
            (Some(Role::Provider), None, Ok(Some(US))),
            (Some(Role::Provider), Some(9), Ok(Some(9))),
            (Some(Role::RouteServer), None, Ok(Some(US))),
            (Some(Role::Peer), None, Ok(Some(US))),
            (Some(Role::Peer), Some(9), Err(Leaked)),
            (Some(Role::Customer), None, Ok(None)),
            (Some(Role::Customer), Some(9), Err(Leaked)),
            (Some(Role::RouteServerClient), Some(9), Err(Leaked)),
        ] {
            let mut set = otc(held);
            let result = relation(role).send(&mut set).map(|()| set.only_to_customer);
            assert_eq!(result, said.map(|n| n.map(asn)), "{role:?} {held:?}");
        }
    }

    #[test]
    fn within_an_as_roles_mean_nothing() {
        let internal = Relation { peer_asn: asn(US), ..relation(Some(Role::Provider)) };
        assert_eq!(internal.receive(&Arc::new(otc(Some(9)))), Ok(Arc::new(otc(Some(9)))));
        let mut set = otc(None);
        assert_eq!((internal.send(&mut set), set), (Ok(()), otc(None)));
    }

    #[test]
    fn a_route_in_graceful_shutdown_is_the_last_choice_rfc_8326() {
        let with = |communities: Vec<Community>| {
            let set = PathAttributes { communities, ..PathAttributes::default() };
            relation(None).receive(&Arc::new(set)).unwrap().local_pref
        };
        assert_eq!(with(vec![Community::GRACEFUL_SHUTDOWN]), Some(0));
        assert_eq!(with(vec![Community(1)]), None);
    }
}
