//! BGPAdvertisement: what is advertised to which peers. Without one, nothing is.
use plainroute_bgp::{Community, ExtendedCommunity, LargeCommunity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resource, yes};
use crate::{
    Kind,
    bounded::Bounded,
    rules::{Spec, Violations},
    selector::LabelSelector,
    value::Parsed,
};

/// What is advertised to which peers.
pub type BgpAdvertisement = Resource<BgpAdvertisementSpec>;

/// Which addresses are advertised to which routers. Without a BGPAdvertisement nothing is. Where several select one
/// address, their communities add up; of each other attribute the first one's by name holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpAdvertisementSpec {
    /// The kinds of address that are advertised. This version advertises `PodIP`, and `PodBlock` where the agents give addresses
    /// out (AgentConfig `ipam`).
    #[schemars(length(min = 1), extend("maxItems" = 3, "x-kubernetes-validations" = crate::admission::TYPES))]
    pub types: Vec<AdvertisementType>,
    /// Pods of these namespaces. Empty: of every one.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub namespace_selector: LabelSelector,
    /// Of those, the Pods with these labels. Empty: all.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub pod_selector: LabelSelector,
    /// Addresses of the IPPools with these labels. Empty: of every one.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub pool_selector: LabelSelector,
    /// To the routers whose BGPPeer has these labels. Empty: to every one that serves the node.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub peer_selector: LabelSelector,
    /// The path attributes that the routes carry.
    #[serde(default)]
    pub attributes: Attributes,
    /// When an address is withdrawn although its Pod is still there.
    #[serde(default)]
    pub withdraw: Withdraw,
}

/// The kinds of address that can be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AdvertisementType {
    /// Each Pod's own address.
    #[serde(rename = "PodIP")]
    PodIp,
    /// The blocks that this node owns, one route each. It takes an advertisement without `podSelector` whose `namespaceSelector`
    /// is for every namespace that the pool is bound to. Single addresses go with the Pod that has them.
    PodBlock,
    /// The egress addresses that this node holds.
    #[serde(rename = "EgressIP")]
    EgressIp,
}

/// The path attributes of the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Attributes {
    /// Standard communities (RFC 1997), each `ASN:VALUE` or a well-known name such as `no-export`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<Parsed<Community>>,
    /// Extended communities: `rt:ADMIN:NUMBER` (route target) or `ro:ADMIN:NUMBER` (route origin), ADMIN an AS number (RFC
    /// 4360; beyond 65535, or with an `L` behind it, RFC 5668) or an IPv4 address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extended_communities: Vec<Parsed<ExtendedCommunity>>,
    /// Large communities (RFC 8092), each `GLOBAL:LOCAL1:LOCAL2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub large_communities: Vec<Parsed<LargeCommunity>>,
    /// LOCAL_PREF; the higher is preferred. Sent to internal peers only. Default there: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC; the lower is preferred. Default: not sent; with blocks of our own IPAM 1000000. Of those it is less by one
    /// for each fenced owner before, so that the newest wins: 0 leaves no room for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// How many more times our AS number stands in the path: the longer, the less preferred.
    pub as_path_prepend: Bounded<u8, 0, 16>,
}

/// When a Pod's address is withdrawn though the Pod is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::WITHDRAW))]
pub struct Withdraw {
    /// While the Pod is not ready.
    #[serde(default)]
    pub not_ready: bool,
    /// From the moment that the Pod is being deleted, so before its grace period ends. Where false, the address carries
    /// GRACEFUL_SHUTDOWN (RFC 8326) from then on, so that any other holder of it is preferred.
    #[serde(default = "yes")]
    pub terminating: bool,
    /// Seconds that a Pod must have been ready before its address is advertised. Needs `notReady: true`.
    #[serde(default)]
    pub min_ready_seconds: u32,
    /// The longest time, in seconds, that a Pod is kept back after it lost its readiness several times in short order: three
    /// times within about half a minute, until it has been calm for one to five minutes. 0 never. Only with `notReady: true`.
    #[serde(default = "five_minutes")]
    pub max_damped_seconds: Bounded<u32, 0, 300>,
}

impl BgpAdvertisementSpec {
    /// Whether addresses of this kind are advertised.
    pub fn advertises(&self, kind: AdvertisementType) -> bool {
        self.types.contains(&kind)
    }
}

impl Default for Withdraw {
    fn default() -> Self {
        Withdraw {
            not_ready: false,
            terminating: true,
            min_ready_seconds: 0,
            max_damped_seconds: five_minutes(),
        }
    }
}

fn five_minutes() -> Bounded<u32, 0, 300> {
    Bounded::literal(300)
}

impl Spec for BgpAdvertisementSpec {
    const KIND: Kind = Kind::BgpAdvertisement;

    fn check(&self, broken: &mut Violations) {
        if self.types.is_empty() {
            broken.add("types", "is empty; name at least one of PodIP, PodBlock, EgressIP");
        }
        for (index, kind) in self.types.iter().enumerate() {
            if self.types[..index].contains(kind) {
                broken.add(format_args!("types[{index}]"), "is there twice");
            }
        }
        if self.withdraw.min_ready_seconds > 0 && !self.withdraw.not_ready {
            broken.add("withdraw.minReadySeconds", "counts with notReady: true only");
        }
    }
}
