//! What a BGPPeer says of the session itself: what the OPEN offers, how long to wait, how much may pass.
use plainroute_bgp::{AfiSafi, Families, HoldTime, wire::Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BgpPeerSpec;
use crate::{bounded::Bounded, rules::Violations, value::Parsed};

/// The timers of RFC 4271 section 10, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timers {
    /// Seconds between attempts to connect.
    pub connect_retry_time_seconds: Bounded<u16, 1, 65535>,
    /// Seconds after which a silent router is taken for dead: 0 for never, else at least 3. The smaller of ours and
    /// the router's holds.
    pub hold_time_seconds: Parsed<HoldTime>,
    /// Seconds between our signs of life, at most a third of `holdTimeSeconds`. Default: a third of the negotiated
    /// hold time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_time_seconds: Option<Bounded<u16, 1, 21845>>,
}

/// Graceful restart (RFC 4724) and its long-lived form (RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GracefulRestart {
    /// Whether it is offered.
    pub enabled: bool,
    /// Seconds that the router should wait for the agent to come back before it drops our routes.
    pub restart_time_seconds: Bounded<u16, 0, 4095>,
    /// Seconds that it may keep our routes after that, as its last choice (RFC 9494). 0: not at all.
    pub long_lived_stale_time_seconds: Bounded<u32, 0, 0x00ff_ffff>,
}

/// What the node is to the router (RFC 9234).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeerRole {
    /// The router buys transit from the node's AS.
    Provider,
    /// The node is a route server of an exchange.
    RouteServer,
    /// The router is the route server of an exchange.
    RouteServerClient,
    /// The router's AS sells transit to the node's.
    Customer,
    /// Neither: each tells the other of its own customers only.
    Peer,
}

/// Several paths for one prefix (RFC 7911).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AddPath {
    /// The families of which the router may send several paths for a prefix; all of them are candidates for the
    /// kernel. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub receive: Vec<Parsed<AfiSafi>>,
}

/// Limits on prefixes per session; 0: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxPrefixes {
    /// From the peer.
    pub r#in: u32,
    /// To the peer.
    pub out: u32,
}

impl From<PeerRole> for Role {
    fn from(role: PeerRole) -> Role {
        match role {
            PeerRole::Provider => Role::Provider,
            PeerRole::RouteServer => Role::RouteServer,
            PeerRole::RouteServerClient => Role::RouteServerClient,
            PeerRole::Customer => Role::Customer,
            PeerRole::Peer => Role::Peer,
        }
    }
}

impl AddPath {
    /// The families of which several paths are taken.
    pub fn receive(&self) -> Families {
        self.receive.iter().map(|family| **family).collect()
    }

    pub(super) fn is_off(&self) -> bool {
        self.receive.is_empty()
    }
}

impl MaxPrefixes {
    /// The limit on prefixes from the peer.
    pub fn limit_in(self) -> Option<u32> {
        (self.r#in != 0).then_some(self.r#in)
    }

    /// The limit on prefixes to the peer.
    pub fn limit_out(self) -> Option<u32> {
        (self.out != 0).then_some(self.out)
    }
}

impl BgpPeerSpec {
    /// Whether routes must begin with the peer's AS.
    pub fn enforces_first_as(&self) -> bool {
        self.enforce_first_as.unwrap_or(self.role != Some(PeerRole::RouteServerClient))
    }

    pub(super) fn check_session(&self, broken: &mut Violations) {
        self.check_timers(broken);
        if self.role.is_some() && *self.local_asn == *self.peer_asn {
            let asn = self.peer_asn;
            broken.add("role", format!("peer and node are both in AS {asn}: only external peers have roles"));
        }
        if self.role_required && self.role.is_none() {
            broken.add("roleRequired", "needs role: what is the node to the peer?");
        }
        let families = self.families();
        for (index, family) in self.add_path.receive.iter().enumerate() {
            let field = format_args!("addPath.receive[{index}]");
            if self.add_path.receive[..index].contains(family) {
                broken.add(field, format!("{family} is there twice"));
            } else if !families.contains(**family) {
                broken.add(field, format!("{family} is not one of families"));
            }
        }
        if self.extended_next_hop && !families.contains(AfiSafi::Ipv4Unicast) {
            broken.add("extendedNextHop", "is about ipv4-unicast, which is not one of families");
        }
    }

    fn check_timers(&self, broken: &mut Violations) {
        let Some(keepalive) = self.timers.keep_alive_time_seconds else { return };
        let hold = self.timers.hold_time_seconds.seconds();
        if hold == 0 {
            broken.add("timers.keepAliveTimeSeconds", "has no meaning with holdTimeSeconds 0");
        } else if keepalive.get() > hold / 3 {
            let most = hold / 3;
            broken.add(
                "timers.keepAliveTimeSeconds",
                format!("{keepalive} is more than a third of holdTimeSeconds {hold}; at most {most}"),
            );
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            connect_retry_time_seconds: Bounded::literal(1),
            hold_time_seconds: Parsed(HoldTime::new(9).unwrap_or(HoldTime::DEFAULT)),
            keep_alive_time_seconds: None,
        }
    }
}

impl Default for GracefulRestart {
    fn default() -> Self {
        GracefulRestart {
            enabled: true,
            restart_time_seconds: Bounded::literal(120),
            long_lived_stale_time_seconds: Bounded::literal(0),
        }
    }
}

impl Default for MaxPrefixes {
    fn default() -> Self {
        MaxPrefixes { r#in: 1000, out: 5000 }
    }
}
