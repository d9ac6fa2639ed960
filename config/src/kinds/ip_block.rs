//! IPBlock: a piece of an IPPool that one node owns, and who holds its addresses. Its name says its CIDR, so creating it is the
//! compare-and-swap between nodes that want the same block.
use std::net::IpAddr;

use jiff::Timestamp;
use plainroute_bgp::Prefix;
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

/// A piece of an IPPool that one node owns, and who holds its addresses. The agent of that node writes it, nobody else. Its name
/// is its CIDR: `10-20-0-16-28`, of IPv6 with all groups in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::IP_BLOCK))]
pub struct IpBlockSpec {
    /// Its addresses, 4096 at most. It cannot be changed.
    pub cidr: Cidr,
    /// The /20 (IPv6: /116) that it lies in: whatever overlaps it lies there too, so one list by this field finds all of it.
    /// It cannot be changed. In a file it may be left out.
    pub within: Cidr,
    /// The node that owns it. It cannot be changed: a block is released, and made anew by the next owner.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The IPPool that it is of. It cannot be changed.
    #[schemars(length(min = 1, max = 253))]
    pub pool: String,
    /// Greater than that of an owner before, which was fenced. Where both still advertise the block, the greater is to win.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(max = 4294967295_u32))]
    pub epoch: u32,
    /// The IPBlock of another node that this single address is to be borrowed of. It may be used once the lender says so in its
    /// own `allocations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub lender: Option<String>,
    /// The node that owns the lender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub lender_node: Option<String>,
    /// The Pod asks for this very address, so that the lender does not let it rest before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
    /// It owns nothing: it asks the lender, a single address itself, to release that. Its name ends in `-to-` and a hash of
    /// the node's name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transfer: bool,
    /// The addresses that are held, kept or lent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["ordinal"]))]
    pub allocations: Vec<IpAllocation>,
}

/// Who holds an address of a block: a Pod; nobody yet, where it is kept for a Pod of a StatefulSet; or another node that
/// borrowed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::IP_ALLOCATION))]
pub struct IpAllocation {
    /// Which address of the block: 0 is the first.
    #[schemars(range(max = 4095))]
    pub ordinal: u16,
    /// The UID of the Pod that holds it.
    #[serde(rename = "podUID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub pod_uid: Option<String>,
    /// The namespace of the Pod that holds it or that it is kept for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The name of the Pod that holds it or that it is kept for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// The Pod's sandbox, as CNI names it.
    #[serde(rename = "containerID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub container_id: Option<String>,
    /// The interface within the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// The StatefulSet of that Pod: the address is kept for its next Pod of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub stateful_set: Option<String>,
    /// The node that it is lent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub lent_to: Option<String>,
    /// The UID of the IPBlock of that node that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub loan: Option<String>,
    /// Since when.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
}

fn is_zero(epoch: &u32) -> bool {
    *epoch == 0
}

impl IpBlockSpec {
    /// The most bits of an address that tell those of one block apart: 4096 addresses.
    pub const MOST_ORDINAL_BITS: u8 = 12;

    /// A block that holds nothing yet.
    pub fn new(cidr: Prefix, node: impl Into<String>, pool: impl Into<String>) -> IpBlockSpec {
        IpBlockSpec {
            cidr: cidr.into(),
            within: IpBlockSpec::within_of(cidr).into(),
            node: node.into(),
            pool: pool.into(),
            epoch: 0,
            lender: None,
            lender_node: None,
            fixed: false,
            transfer: false,
            allocations: Vec::new(),
        }
    }

    /// The name of the block of that CIDR. Different CIDRs have different names.
    pub fn name_of(cidr: Prefix) -> String {
        match cidr.address() {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                format!("{a}-{b}-{c}-{d}-{}", cidr.length())
            }
            IpAddr::V6(address) => {
                let groups = address.segments().map(|group| format!("{group:04x}"));
                format!("{}-{}", groups.join("-"), cidr.length())
            }
        }
    }

    /// The name under which `node` asks the owner of the single address `cidr` to release it.
    pub fn transfer_name(cidr: Prefix, node: &str) -> String {
        // FNV-1a: short, and the same on every node.
        let hash = node.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        format!("{}-to-{hash:016x}", IpBlockSpec::name_of(cidr))
    }

    /// The name that an object with this spec has.
    pub fn name(&self) -> String {
        let cidr = self.cidr.prefix();
        if self.transfer { IpBlockSpec::transfer_name(cidr, &self.node) } else { IpBlockSpec::name_of(cidr) }
    }

    /// The /20 or /116 that whatever overlaps `cidr` lies in, where that has 4096 addresses at most.
    pub fn within_of(cidr: Prefix) -> Prefix {
        let longest = cidr.family().max_length() - IpBlockSpec::MOST_ORDINAL_BITS;
        Prefix::new(cidr.address(), longest.min(cidr.length())).unwrap_or(cidr)
    }

    /// How many bits of an address tell those of the block apart.
    fn ordinal_bits(&self) -> u8 {
        let prefix = self.cidr.prefix();
        prefix.family().max_length() - prefix.length()
    }

    fn check_loan(&self, broken: &mut Violations) {
        if self.lender.is_some() != self.lender_node.is_some() {
            broken.add("lender", "goes with lenderNode: set both or neither");
        }
        if self.lender.is_some() && self.ordinal_bits() != 0 {
            broken.add("lender", format!("{} is no single address, and only such are lent", self.cidr));
        }
        if self.lender.is_none() && (self.fixed || self.transfer) {
            broken.add("lender", "is needed with fixed and transfer");
        }
        if self.lender_node.as_ref() == Some(&self.node) {
            broken.add("lenderNode", "is the node itself");
        }
        for (field, value) in [("lender", &self.lender), ("lenderNode", &self.lender_node)] {
            if value.as_ref().is_some_and(String::is_empty) {
                broken.add(field, "is empty");
            }
        }
    }
}

impl IpAllocation {
    /// Whether it is of one of the three forms.
    fn is_whole(&self) -> bool {
        let pod = self.namespace.is_some() && self.name.is_some();
        match (&self.lent_to, &self.container_id) {
            (Some(_), None) => self.loan.is_some(),
            (Some(_), Some(_)) => false,
            (None, Some(_)) => pod && self.pod_uid.is_some() && self.loan.is_none(),
            (None, None) => pod && self.stateful_set.is_some() && self.loan.is_none(),
        }
    }
}

impl Spec for IpBlockSpec {
    const KIND: Kind = Kind::IpBlock;

    fn check(&self, broken: &mut Violations) {
        let bits = self.ordinal_bits();
        let sane = bits <= IpBlockSpec::MOST_ORDINAL_BITS;
        if !sane {
            broken.add("cidr", format!("{} has more than 4096 addresses", self.cidr));
        } else if self.within.prefix() != IpBlockSpec::within_of(self.cidr.prefix()) {
            let right = IpBlockSpec::within_of(self.cidr.prefix());
            broken.add("within", format!("{} is not what {} lies in: {right}", self.within, self.cidr));
        }
        for (field, value) in [("node", &self.node), ("pool", &self.pool)] {
            if value.is_empty() {
                broken.add(field, "is empty");
            }
        }
        self.check_loan(broken);
        let mut ordinals = std::collections::BTreeSet::new();
        for (index, one) in self.allocations.iter().enumerate() {
            let at = |field: &str| format!("allocations[{index}].{field}");
            if !ordinals.insert(one.ordinal) {
                broken.add(at("ordinal"), format!("{} is there twice", one.ordinal));
            }
            if sane && one.ordinal >> bits != 0 {
                broken.add(at("ordinal"), format!("{} is beyond {}", one.ordinal, self.cidr));
            }
            if !one.is_whole() {
                let message = "is neither a Pod's (namespace, name, podUID, containerID), nor kept for one of a StatefulSet \
                               (namespace, name, statefulSet), nor lent (lentTo, loan)";
                broken.add(format_args!("allocations[{index}]"), message);
            }
            let texts = [
                ("podUID", &one.pod_uid),
                ("namespace", &one.namespace),
                ("name", &one.name),
                ("containerID", &one.container_id),
                ("interface", &one.interface),
                ("statefulSet", &one.stateful_set),
                ("lentTo", &one.lent_to),
                ("loan", &one.loan),
            ];
            for (field, _) in
                texts.into_iter().filter(|(_, value)| value.as_ref().is_some_and(String::is_empty))
            {
                broken.add(at(field), "is empty");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefixes() -> impl Strategy<Value = Prefix> {
        let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(bits, length)| Prefix::v4(bits.into(), length));
        let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, length)| Prefix::v6(bits.into(), length));
        prop_oneof![v4, v6].prop_map(|prefix| prefix.expect("a length of the family"))
    }

    #[test]
    fn names_are_written_in_full() {
        let name = |cidr: &str| IpBlockSpec::name_of(cidr.parse().unwrap());
        assert_eq!(name("10.20.0.16/28"), "10-20-0-16-28");
        assert_eq!(name("fd00:20::10/124"), "fd00-0020-0000-0000-0000-0000-0000-0010-124");
        let transfer = IpBlockSpec::transfer_name("10.20.0.5/32".parse().unwrap(), "node-b");
        assert_eq!(transfer, "10-20-0-5-32-to-e6971dc22078cd06");
    }

    #[test]
    fn what_overlaps_is_found_within() {
        let within = |cidr: &str| IpBlockSpec::within_of(cidr.parse().unwrap()).to_string();
        assert_eq!(within("10.20.17.16/28"), "10.20.16.0/20");
        assert_eq!(within("10.20.16.0/20"), "10.20.16.0/20");
        assert_eq!(within("fd00::1234:5678/128"), "fd00::1234:5000/116");
    }

    proptest! {
        #[test]
        fn a_name_says_its_cidr(cidr in prefixes()) {
            let name = IpBlockSpec::name_of(cidr);
            let (address, length) = name.rsplit_once('-').unwrap();
            let address = address.replace('-', if cidr.address().is_ipv4() { "." } else { ":" });
            prop_assert_eq!(format!("{address}/{length}").parse::<Prefix>().unwrap(), cidr);
            // RFC 1123, as the API server wants it.
            prop_assert!(name.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-'));
            prop_assert!(name.len() <= 63);
        }

        #[test]
        fn blocks_that_overlap_lie_within_one(address in any::<u32>(), a in 20_u8..=32, b in 20_u8..=32) {
            let cidr = |length| Prefix::v4(address.into(), length).unwrap();
            prop_assert_eq!(IpBlockSpec::within_of(cidr(a)), IpBlockSpec::within_of(cidr(b)));
        }
    }
}
