//! IPBlock: a piece of an IPPool that one node owns, and who holds its addresses. Nothing writes or reads one yet.
use jiff::Timestamp;
use plainroute_bgp::AfiSafi;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resource;
use crate::{
    Kind,
    rules::{Spec, Violations},
    value::Cidr,
};

/// A piece of an IPPool that one node owns.
pub type IpBlock = Resource<IpBlockSpec>;

/// A piece of an IPPool that one node owns, and who holds its addresses. The agent of that node writes it, nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::IP_BLOCK))]
pub struct IpBlockSpec {
    /// Its addresses, 4096 at most. It cannot be changed.
    pub cidr: Cidr,
    /// The node that owns it. It cannot be changed: a block is released, and made anew by the next owner.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The IPPool that it is of. It cannot be changed.
    #[schemars(length(min = 1, max = 253))]
    pub pool: String,
    /// The addresses that are held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["ordinal"]))]
    pub allocations: Vec<IpAllocation>,
}

/// Who holds an address of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpAllocation {
    /// Which address of the block: 0 is the first.
    #[schemars(range(max = 4095))]
    pub ordinal: u16,
    /// The UID of the Pod that holds it.
    #[serde(rename = "podUID")]
    #[schemars(length(min = 1, max = 128))]
    pub pod_uid: String,
    /// The Pod's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The Pod's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The Pod's sandbox, as CNI names it.
    #[serde(rename = "containerID")]
    #[schemars(length(min = 1, max = 253))]
    pub container_id: String,
    /// Since when.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
}

impl IpBlockSpec {
    /// How many bits of an address tell those of the block apart.
    fn ordinal_bits(&self) -> u8 {
        let prefix = self.cidr.prefix();
        let longest = match prefix.address() {
            std::net::IpAddr::V4(_) => AfiSafi::Ipv4Unicast.max_length(),
            std::net::IpAddr::V6(_) => AfiSafi::Ipv6Unicast.max_length(),
        };
        longest - prefix.length()
    }
}

impl Spec for IpBlockSpec {
    const KIND: Kind = Kind::IpBlock;

    fn check(&self, broken: &mut Violations) {
        let bits = self.ordinal_bits();
        if bits > 12 {
            broken.add("cidr", format!("{} has more than 4096 addresses", self.cidr));
        }
        for (field, value) in [("node", &self.node), ("pool", &self.pool)] {
            if value.is_empty() {
                broken.add(field, "is empty");
            }
        }
        for (index, one) in self.allocations.iter().enumerate() {
            let at = |field: &str| format!("allocations[{index}].{field}");
            if self.allocations[..index].iter().any(|other| other.ordinal == one.ordinal) {
                broken.add(at("ordinal"), format!("{} is there twice", one.ordinal));
            }
            if bits <= 12 && one.ordinal >> bits != 0 {
                broken.add(at("ordinal"), format!("{} is beyond {}", one.ordinal, self.cidr));
            }
            let texts = [
                ("podUID", &one.pod_uid),
                ("namespace", &one.namespace),
                ("name", &one.name),
                ("containerID", &one.container_id),
            ];
            for (field, _) in texts.into_iter().filter(|(_, value)| value.is_empty()) {
                broken.add(at(field), "is empty");
            }
        }
    }
}
