//! What a node owns and who holds its addresses: the view of the plan and of the looking glass.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use plainroute_bgp::Prefix;
use serde::{Deserialize, Serialize};

/// What this node owns, and who on it holds which address. A clone costs little.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The blocks, single addresses and addresses borrowed of other nodes' blocks among them. A loan that its owner has
    /// not granted is none of them.
    pub blocks: Arc<BTreeMap<Prefix, OwnedBlock>>,
    /// The addresses that Pods of this node hold; each lies in one of `blocks`.
    pub held: Arc<BTreeMap<IpAddr, Holder>>,
}

/// A block that this node owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedBlock {
    /// The IPPool that it is of.
    pub pool: String,
    /// Grows with each owner that follows one that was fenced; the greater is to win in routing.
    pub epoch: u64,
    /// Its object is gone or another's, against what this node last knew: no new address is given out of it, and what is held
    /// of it may be given out elsewhere too.
    pub lost: bool,
    /// How many of its addresses are held, kept for a Pod to come, or lent.
    pub used: usize,
    /// How many are not; those that still rest after their last holder are among them.
    pub free: usize,
    /// The name of the IPBlock of another node that it is borrowed of.
    pub lender: Option<String>,
    /// The node of that.
    pub lender_node: Option<String>,
    /// Addresses of it that are lent, and to which node: that node advertises them, this one does not deliver to them.
    pub lent: BTreeMap<IpAddr, String>,
}

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub name: String,
    /// The Pod's UID.
    pub pod_uid: String,
    /// The Pod's sandbox, as CNI names it.
    pub container_id: String,
    /// The interface within the sandbox.
    pub interface: String,
    /// The StatefulSet that the Pod is of: its address is kept for its next Pod of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<String>,
    /// Since when.
    pub since: Timestamp,
}
