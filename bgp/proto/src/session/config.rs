//! What one session is told: who we are, who the peer must be, and how patient we are.
use std::time::Duration;

use crate::{Asn, Families, HoldTime, RouterId, wire::Role};

/// What we offer in the graceful restart capability (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GracefulRestartConfig {
    /// How long the peer keeps our routes after the TCP connection is lost, in seconds; 4095 at most.
    pub restart_time: u16,
    /// N bit (RFC 8538): a NOTIFICATION does not flush either. Only sensible where BFD watches the path.
    pub notification: bool,
    /// How much longer than that the peer keeps them, as a last resort (RFC 9494), in seconds; 0 for not at all.
    /// We keep the routes of a peer that asks for it in any case.
    pub long_lived_stale_time: u32,
}

/// The configuration of one session; fixed for its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Our AS.
    pub local_asn: Asn,
    /// The AS that the peer's OPEN must carry.
    pub peer_asn: Asn,
    /// Our BGP Identifier.
    pub router_id: RouterId,
    /// Never connect; wait for the peer.
    pub passive: bool,
    /// The hold time that we propose.
    pub hold_time: HoldTime,
    /// Time between connection attempts, jittered (RFC 4271 section 10).
    pub connect_retry: Duration,
    /// Time between KEEPALIVEs; a third of the negotiated hold time where absent or longer than that.
    pub keepalive: Option<Duration>,
    /// The families that we offer.
    pub families: Families,
    /// Offer graceful restart; without it the capability is not sent.
    pub graceful_restart: Option<GracefulRestartConfig>,
    /// R bit of our OPENs: we have restarted and the routes are not all sent yet (RFC 4724 section 3).
    pub restarting: bool,
    /// F bits, until all routes are sent: the families whose forwarding state survived from before this process.
    pub forwarding_preserved: Families,
    /// Offer IPv6 next hops for IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// Mark the begin and the end of a refresh (RFC 7313). ExaBGP 4.2 drops the session when it is to do so.
    pub enhanced_refresh: bool,
    /// Take messages of up to 65535 octets, and write such where the peer takes them (RFC 8654).
    pub extended_messages: bool,
    /// What we are to an external peer (RFC 9234); nothing is said or checked where absent.
    pub role: Option<Role>,
    /// Refuse a peer that claims no role, where we have one (RFC 9234 section 4.2).
    pub role_required: bool,
    /// The families of which we take several paths for a prefix (RFC 7911).
    pub add_path_receive: Families,
    /// The families whose prefixes we give a path identifier (RFC 7911); one path each.
    pub add_path_send: Families,
    /// Send hold time (RFC 9687); the larger of eight minutes and twice the hold time where absent.
    pub send_hold: Option<Duration>,
    /// Seed of the jitter, so that a run can be repeated.
    pub jitter_seed: u64,
}

impl SessionConfig {
    /// A session with the defaults: both families, the suggested hold time, retry after about one second.
    pub fn new(local_asn: Asn, peer_asn: Asn, router_id: RouterId) -> SessionConfig {
        SessionConfig {
            local_asn,
            peer_asn,
            router_id,
            passive: false,
            hold_time: HoldTime::DEFAULT,
            connect_retry: Duration::from_secs(1),
            keepalive: None,
            families: Families::ALL,
            graceful_restart: None,
            restarting: false,
            forwarding_preserved: Families::NONE,
            extended_next_hop: false,
            enhanced_refresh: true,
            extended_messages: true,
            role: None,
            role_required: false,
            add_path_receive: Families::NONE,
            add_path_send: Families::NONE,
            send_hold: None,
            jitter_seed: 0,
        }
    }

    /// Whether the peer is in our AS.
    pub fn internal(&self) -> bool {
        self.local_asn == self.peer_asn
    }
}
