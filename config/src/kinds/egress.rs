//! Egress: under which source address Pods leave.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plainroute_bgp::Prefix;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resource;
use crate::{
    Kind,
    bounded::Bounded,
    rules::{Spec, Violations},
    selector::LabelSelector,
    value::{Cidr, Parsed, refuse_mapped},
};

/// Under which source address Pods leave.
pub type Egress = Resource<EgressSpec>;

/// Under which source address Pods leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::EGRESS))]
pub struct EgressSpec {
    /// The Pods whose traffic is meant.
    pub applied_to: AppliedTo,
    /// The source addresses. Exactly one of `egressIPs` and `egressPool` is set.
    #[serde(default, rename = "egressIPs", skip_serializing_if = "Vec::is_empty")]
    pub egress_ips: Vec<Parsed<IpAddr>>,
    /// The IPPool (`usage: Egress`) that the source addresses come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub egress_pool: Option<String>,
    /// The destinations that are meant. Default: everywhere.
    #[serde(default = "everywhere", rename = "destinationCIDRs")]
    #[schemars(length(min = 1))]
    pub destination_cidrs: Vec<Cidr>,
    /// Destinations that are left out of those.
    #[serde(default, rename = "excludedCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub excluded_cidrs: Vec<Cidr>,
    /// Who holds the addresses. `Local` needs `egressPool`.
    #[serde(default)]
    pub mode: EgressMode,
    /// The nodes that may be gateways. Empty: every one.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub node_selector: LabelSelector,
    /// How many gateways are ready to take over at once.
    #[serde(default = "two_gateways")]
    pub gateways: Bounded<u8, 1, 16>,
    /// By what the ToR prefers the first gateway to the next.
    #[serde(default)]
    pub preference: Preference,
    /// How packets reach the gateway.
    #[serde(default)]
    pub transport: Transport,
    /// What happens when no gateway can be reached.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
}

/// Whose traffic an [`Egress`] is about. Every empty selector selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AppliedTo {
    /// Pods of these namespaces. Empty: of every one.
    #[serde(skip_serializing_if = "LabelSelector::is_empty")]
    pub namespace_selector: LabelSelector,
    /// Of those, the Pods with these labels. Empty: all.
    #[serde(skip_serializing_if = "LabelSelector::is_empty")]
    pub pod_selector: LabelSelector,
}

/// Where the source addresses come from: exactly one of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressAddresses<'a> {
    /// These.
    Listed(&'a [Parsed<IpAddr>]),
    /// From this pool.
    Pool(&'a str),
}

/// Who holds the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EgressMode {
    /// Ranked gateways share them.
    #[default]
    Gateway,
    /// Each node has its own address of the pool.
    Local,
}

/// By what the ToR prefers the first gateway to the next. Internal peers go by LOCAL_PREF in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preference {
    /// Each rank prepends our AS once more. It is told on to other routers.
    #[default]
    #[serde(rename = "ASPathPrepend")]
    AsPathPrepend,
    /// Each rank adds one to MULTI_EXIT_DISC. It is compared among routes of one neighbour AS, so all gateways must be in
    /// one, and goes no further than the ToR.
    #[serde(rename = "MED")]
    Med,
}

/// How packets reach the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// As they are: the gateway is on the same subnet.
    #[default]
    Direct,
    /// In VXLAN, on the leg to the gateway only.
    #[serde(rename = "VXLAN")]
    Vxlan,
}

/// What happens to packets when no gateway can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailurePolicy {
    /// They are dropped.
    #[default]
    Closed,
    /// They leave as they would without the Egress.
    Open,
}

impl EgressSpec {
    /// Where the source addresses come from. The rules let exactly one be set.
    pub fn addresses(&self) -> EgressAddresses<'_> {
        match &self.egress_pool {
            Some(pool) => EgressAddresses::Pool(pool),
            None => EgressAddresses::Listed(&self.egress_ips),
        }
    }
}

impl Spec for EgressSpec {
    const KIND: Kind = Kind::Egress;

    fn check(&self, broken: &mut Violations) {
        match (self.egress_ips.is_empty(), &self.egress_pool) {
            (true, None) => broken.add("egressIPs", "is missing: set either egressIPs or egressPool"),
            (false, Some(_)) => {
                broken.add("egressPool", "stands beside egressIPs: set either egressIPs or egressPool");
            }
            (true, Some(pool)) if pool.is_empty() => broken.add("egressPool", "is empty"),
            (false, None) | (true, Some(_)) => {}
        }
        for (index, address) in self.egress_ips.iter().enumerate() {
            if let Err(mapped) = refuse_mapped(**address) {
                broken.add(format_args!("egressIPs[{index}]"), mapped);
            }
            if self.egress_ips[..index].contains(address) {
                broken.add(format_args!("egressIPs[{index}]"), format!("{address} is there twice"));
            }
        }
        if self.mode == EgressMode::Local && self.egress_pool.is_none() {
            broken.add("mode", "Local needs egressPool: each node takes its own address of the pool");
        }
        if self.destination_cidrs.is_empty() {
            broken.add("destinationCIDRs", "is empty; leave it out for everywhere");
        }
    }
}

fn everywhere() -> Vec<Cidr> {
    [Prefix::v4(Ipv4Addr::UNSPECIFIED, 0), Prefix::v6(Ipv6Addr::UNSPECIFIED, 0)]
        .into_iter()
        .flatten()
        .map(Cidr::from)
        .collect()
}

fn two_gateways() -> Bounded<u8, 1, 16> {
    Bounded::literal(2)
}
