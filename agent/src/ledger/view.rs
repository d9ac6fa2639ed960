//! The ledger as it is told: the answers of `plainroute who` and `plainroute ledger`.
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Holder;

/// The answer to `plainroute who`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Who {
    /// The address that was asked about.
    pub address: IpAddr,
    /// The node whose agent answers. It knows of its own Pods only.
    pub node: String,
    /// The time that was asked about; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<jiff::Timestamp>,
    /// Who held it; nobody where there is none.
    pub holders: Vec<HolderView>,
    /// How far back the ledger of this node reaches. Of what was before it knows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_since: Option<jiff::Timestamp>,
    /// The IPBlocks of the cluster that the address lies in now, asked for where this node does not know who has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockSays>,
    /// Why they could not be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_unknown: Option<String>,
}

/// What an IPBlock says of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockSays {
    /// Its name.
    pub block: String,
    /// The node that owns it: its ledger knows who had which address of it, and when, while it was that node's.
    pub node: String,
    /// The IPPool that it is of.
    pub pool: String,
    /// Who has the address, by this block.
    pub says: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<jiff::Timestamp>,
}

/// A Pod that holds or held an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HolderView {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub pod: String,
    /// The Pod's node.
    #[serde(default)]
    pub node: String,
    /// The Pod's UID, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The pool by which it has the address, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Since when, where the ledger says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<jiff::Timestamp>,
    /// Until when, where that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<jiff::Timestamp>,
    /// Who says so.
    pub source: HolderSource,
}

impl HolderView {
    /// As the plan of this node has it.
    pub(crate) fn planned(holder: Holder, node: String) -> HolderView {
        let Holder { namespace, pod, uid, pool } = holder;
        HolderView { namespace, pod, node, uid, pool, since: None, until: None, source: HolderSource::Plan }
    }
}

/// Who says that a Pod holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HolderSource {
    /// The ledger.
    Ledger,
    /// The plan in force: the ledger has not written it down yet, or cannot be read.
    Plan,
    /// The IPBlock of the node that has the address, which follows that node's journal.
    Block,
}

/// One row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its number. The first one ever is 1, and none is left out.
    pub number: u64,
    /// When it happened, as far as the agent saw it.
    pub time: jiff::Timestamp,
    /// What happened.
    pub event: LedgerEvent,
    /// The address.
    pub address: IpAddr,
    /// Since when the Pod holds it, or held it until `time`.
    pub since: jiff::Timestamp,
    /// The node.
    pub node: String,
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub pod: String,
    /// The Pod's UID, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The pool by which it has the address, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// SHA-256 over the hash of the row before and this row, in hexadecimal.
    pub hash: String,
}

/// What a row of the ledger is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerEvent {
    /// The Pod has the address from now on.
    Held,
    /// The Pod has it still: its older row was about to be cut.
    Kept,
    /// The Pod has it no more.
    Freed,
}

/// The answer to `plainroute ledger verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerVerdict {
    /// How many rows were found to be right.
    pub rows: u64,
    /// The number of the last row that was cut for its age; 0 where none was. The chain goes on from its hash.
    pub cut: u64,
    /// The number of the last row that is right.
    pub last: u64,
    /// Its hash. Who writes it down elsewhere can tell later whether the rows up to it are still those.
    pub hash: String,
    /// The first row that is not as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<Damage>,
}

/// A row that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// Its number.
    pub row: u64,
    /// What is wrong with it.
    pub message: String,
}
