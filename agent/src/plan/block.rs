//! The blocks that this node owns: a route for each, whoever of it is there.
use std::collections::BTreeMap;

use plainroute_bgp::Prefix;
use plainroute_config::{BgpAdvertisement, Cidr};
use serde::{Deserialize, Serialize};

use super::{
    Local, Reason, RouteAttributes,
    advertisement::{self, Candidate, Of},
    peer::Peers,
    pool::Pools,
};
use crate::index::Snapshot;

/// What becomes of a block that this node owns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockPlan {
    /// Its addresses.
    pub cidr: Cidr,
    /// The IPPool that it is of.
    pub pool: String,
    /// The BGPAdvertisements that select it, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertised_by: Vec<String>,
    /// To which peers it should be advertised, with which attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub advertise: BTreeMap<String, RouteAttributes>,
    /// The peers that a BGPAdvertisement selects and that do not get it, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub withheld: BTreeMap<String, Reason>,
    /// Why it should not be advertised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reason>,
}

/// Every block of this node, by prefix. A single address is advertised while a Pod has it, with that Pod.
pub(super) fn plan_blocks(
    snapshot: &Snapshot,
    local: &Local,
    pools: &Pools<'_>,
    peers: &Peers<'_>,
) -> Vec<BlockPlan> {
    let advertisements: Vec<&BgpAdvertisement> =
        snapshot.advertisements().map(|(advertisement, _)| advertisement).collect();
    let owned = local.holdings.iter().flat_map(|holdings| holdings.blocks.iter());
    let plan = |prefix: Prefix, pool: &str, epoch: u64| {
        let refused = |reason| BlockPlan {
            cidr: prefix.into(),
            pool: pool.to_owned(),
            advertised_by: Vec::new(),
            advertise: BTreeMap::new(),
            withheld: BTreeMap::new(),
            refused: Some(reason),
        };
        let (pool_labels, namespaces) = match pools.find_block(pool, prefix) {
            Ok(found) => found,
            Err(reason) => return refused(reason),
        };
        let candidate = Candidate { prefix, pool_labels, epoch: Some(epoch), of: Of::Block { namespaces } };
        let selected = advertisement::select(&advertisements, &candidate, peers, local);
        BlockPlan {
            cidr: prefix.into(),
            pool: pool.to_owned(),
            advertised_by: selected.by,
            advertise: selected.routes,
            withheld: selected.withheld,
            refused: selected.refused,
        }
    };
    owned
        .filter(|(prefix, _)| prefix.address() != prefix.last_address())
        .map(|(prefix, block)| plan(*prefix, &block.pool, block.epoch))
        .collect()
}
