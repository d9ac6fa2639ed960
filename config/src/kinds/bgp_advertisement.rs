//! BGPAdvertisement: what is advertised to which peers. Without one, nothing is.
use plainroute_bgp::{Community, LargeCommunity};
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

/// The spec of [`BgpAdvertisement`]. Every empty selector selects all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpAdvertisementSpec {
    /// The kinds of address.
    pub types: Vec<AdvertisementType>,
    /// Pods of which namespaces.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub namespace_selector: LabelSelector,
    /// Which of these Pods.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub pod_selector: LabelSelector,
    /// Addresses of which pools.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub pool_selector: LabelSelector,
    /// To which peers, by the labels of their BGPPeer.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub peer_selector: LabelSelector,
    /// What the routes carry.
    #[serde(default)]
    pub attributes: Attributes,
    /// When a Pod's address is withdrawn though the Pod is there.
    #[serde(default)]
    pub withdraw: Withdraw,
}

/// The kinds of address that can be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AdvertisementType {
    /// Each Pod's own address.
    #[serde(rename = "PodIP")]
    PodIp,
    /// The blocks that this node wholly owns.
    PodBlock,
    /// The egress addresses that this node holds.
    #[serde(rename = "EgressIP")]
    EgressIp,
}

/// The path attributes of the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Attributes {
    /// Standard communities, `ASN:VALUE` or a well-known name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<Parsed<Community>>,
    /// Large communities, `GLOBAL:LOCAL1:LOCAL2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub large_communities: Vec<Parsed<LargeCommunity>>,
    /// LOCAL_PREF, sent to internal peers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// How many times our AS number is put before the path once more.
    pub as_path_prepend: Bounded<u8, 0, 16>,
}

/// When a Pod's address is withdrawn though the Pod is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Withdraw {
    /// While the Pod is not ready.
    #[serde(default)]
    pub not_ready: bool,
    /// From the moment that the Pod is being deleted.
    #[serde(default = "yes")]
    pub terminating: bool,
    /// How long a Pod must be ready before its address is advertised; counts with `notReady` only.
    #[serde(default)]
    pub min_ready_seconds: u32,
}

impl BgpAdvertisementSpec {
    /// Whether addresses of this kind are advertised.
    pub fn advertises(&self, kind: AdvertisementType) -> bool {
        self.types.contains(&kind)
    }
}

impl Default for Withdraw {
    fn default() -> Self {
        Withdraw { not_ready: false, terminating: true, min_ready_seconds: 0 }
    }
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
