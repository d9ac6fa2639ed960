//! The gateways of each egress IP, in an order that every agent finds alone: rendezvous hashing over the nodes that are
//! configured. A node that comes or goes moves only the addresses that it has itself.
use std::{cmp::Reverse, net::IpAddr};

use plainroute_bgp::{AfiSafi, Prefix, RouterId};
use plainroute_config::{LabelSelector, Node, Parsed, annotation};
use serde::{Deserialize, Serialize};

use super::EgressReason;
use crate::index::Snapshot;

/// A node that may hold an egress IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Its name.
    pub node: String,
    /// Where other nodes send packets: its internal address of the egress IP's family.
    pub address: IpAddr,
    /// Who it is in the routes that it advertises: the Node annotation `plainroute.dev/router-id`, else its first internal
    /// IPv4 address.
    pub id: Parsed<RouterId>,
}

/// All nodes that could be gateways.
pub(super) struct Candidates<'a> {
    nodes: Vec<&'a Node>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Candidates<'a> {
        Candidates { nodes: snapshot.nodes().map(|(node, _)| node).collect() }
    }

    /// The nodes that may hold `address`, the preferred one first.
    pub(super) fn rank(&self, selector: &LabelSelector, address: IpAddr) -> Vec<Gateway> {
        let family = Prefix::host(address).family();
        let text = address.to_string();
        let selected = self.nodes.iter().filter(|node| selector.matches(node.labels()));
        let mut gateways: Vec<(u64, Gateway)> = selected
            .filter_map(|node| gateway(node, family))
            .map(|gateway| (plainroute_blocks::hash(&[&text, &gateway.node]), gateway))
            .collect();
        gateways.sort_by(|(one, a), (other, b)| {
            Reverse(one).cmp(&Reverse(other)).then_with(|| a.node.cmp(&b.node))
        });
        gateways.into_iter().map(|(_, gateway)| gateway).collect()
    }

    /// Why there is no gateway.
    pub(super) fn refuse(&self, selector: &LabelSelector, family: AfiSafi) -> EgressReason {
        let selected: Vec<&str> = self
            .nodes
            .iter()
            .filter(|node| selector.matches(node.labels()))
            .map(|node| node.name())
            .collect();
        match selected.as_slice() {
            [] => EgressReason::NoNode,
            nodes => {
                let named = nodes.iter().take(3).copied().collect::<Vec<_>>().join(", ");
                let more =
                    if nodes.len() > 3 { format!(" and {} more", nodes.len() - 3) } else { String::new() };
                EgressReason::NoNodeOfFamily { family: family.to_string(), nodes: named + &more }
            }
        }
    }

    /// The node that has the address for itself.
    pub(super) fn node_of(&self, address: IpAddr) -> Option<&'a str> {
        self.nodes
            .iter()
            .find(|node| node.addresses.iter().any(|of| of.address == address))
            .map(|node| node.name())
    }
}

fn gateway(node: &Node, family: AfiSafi) -> Option<Gateway> {
    let address = node.internal_ips().find(|address| Prefix::host(*address).family() == family)?;
    let annotated = node.metadata.annotation(annotation::ROUTER_ID).and_then(|text| text.trim().parse().ok());
    let id = annotated.or_else(|| super::super::peer::first_ipv4(node))?;
    Some(Gateway { node: node.name().to_owned(), address, id: Parsed(id) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn nodes(numbers: &[u8]) -> Vec<Node> {
        let node = |number: &u8| {
            let json = format!(
                r#"{{"metadata":{{"name":"node-{number}"}},"status":{{"addresses":[{{"type":"InternalIP","address":"192.0.2.{number}"}}]}}}}"#
            );
            serde_json::from_str(&json).unwrap()
        };
        numbers.iter().map(node).collect()
    }

    fn order(numbers: &[u8], address: IpAddr) -> Vec<String> {
        let nodes = nodes(numbers);
        let candidates = Candidates { nodes: nodes.iter().collect() };
        let ranked = candidates.rank(&LabelSelector::default(), address);
        ranked.into_iter().map(|gateway| gateway.node).collect()
    }

    proptest! {
        /// Whoever goes leaves the order of the others as it was: only what it held itself moves.
        #[test]
        fn a_node_that_goes_moves_only_what_it_held(
            numbers in proptest::collection::btree_set(1..250u8, 2..12),
            gone in any::<prop::sample::Index>(),
            address in any::<u32>(),
        ) {
            let numbers: Vec<u8> = numbers.into_iter().collect();
            let gone = numbers[gone.index(numbers.len())];
            let address = IpAddr::from(address.to_be_bytes());
            let mut before = order(&numbers, address);
            before.retain(|node| *node != format!("node-{gone}"));
            let rest: Vec<u8> = numbers.into_iter().filter(|number| *number != gone).collect();
            prop_assert_eq!(before, order(&rest, address));
        }
    }

    #[test]
    fn every_node_is_preferred_by_its_share_of_the_addresses() {
        let numbers: Vec<u8> = (1..=5).collect();
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        for number in 0..5000u32 {
            let ranked = order(&numbers, IpAddr::from((0xc633_6400 + number).to_be_bytes()));
            *first.entry(ranked[0].clone()).or_default() += 1;
        }
        assert_eq!(first.len(), 5);
        assert!(first.values().all(|count| (800..1200).contains(count)), "{first:?}");
    }
}
