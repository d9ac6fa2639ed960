//! Why an Egress, or one of its addresses, is not carried out.
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an Egress or an address of it is not carried out: a word that a program matches. What is displayed is the sentence
/// that an operator reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum EgressReason {
    /// `egressPool` names nothing.
    NoSuchPool {
        /// The pool.
        pool: String,
    },
    /// `egressPool` is for Pods.
    NotForEgress {
        /// The pool.
        pool: String,
    },
    /// Every address of `egressPool` is taken by another Egress.
    PoolExhausted {
        /// The pool.
        pool: String,
    },
    /// Another Egress has the address.
    TakenByOther {
        /// That Egress.
        egress: String,
    },
    /// The address is one that a Pod may have.
    InPodPool {
        /// The pool.
        pool: String,
    },
    /// A node has the address for itself.
    AddressOfNode {
        /// The node.
        node: String,
    },
    /// `nodeSelector` selects nothing.
    NoNode,
    /// The nodes that are selected have no address of the egress IP's family.
    NoNodeOfFamily {
        /// The family.
        family: String,
        /// The nodes.
        nodes: String,
    },
    /// This version cannot do it.
    NotSupported {
        /// The field and its value.
        what: String,
    },
}

impl EgressReason {
    /// The word alone.
    pub fn word(&self) -> &'static str {
        match self {
            EgressReason::NoSuchPool { .. } => "NoSuchPool",
            EgressReason::NotForEgress { .. } => "NotForEgress",
            EgressReason::PoolExhausted { .. } => "PoolExhausted",
            EgressReason::TakenByOther { .. } => "TakenByOther",
            EgressReason::InPodPool { .. } => "InPodPool",
            EgressReason::AddressOfNode { .. } => "AddressOfNode",
            EgressReason::NoNode => "NoNode",
            EgressReason::NoNodeOfFamily { .. } => "NoNodeOfFamily",
            EgressReason::NotSupported { .. } => "NotSupported",
        }
    }
}

impl fmt::Display for EgressReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EgressReason::NoSuchPool { pool } => write!(f, "there is no IPPool {pool} (egressPool)"),
            EgressReason::NotForEgress { pool } => {
                write!(f, "IPPool {pool} is for Pods; egressPool needs one with usage: Egress")
            }
            EgressReason::PoolExhausted { pool } => {
                write!(f, "every address of IPPool {pool} is taken by another Egress")
            }
            EgressReason::TakenByOther { egress } => write!(f, "Egress {egress} has the address"),
            EgressReason::InPodPool { pool } => {
                write!(f, "the address lies in IPPool {pool}, which is for Pods")
            }
            EgressReason::AddressOfNode { node } => write!(f, "it is the own address of Node {node}"),
            EgressReason::NoNode => f.write_str("nodeSelector selects no Node, so there is no gateway"),
            EgressReason::NoNodeOfFamily { family, nodes } => {
                write!(f, "no Node that nodeSelector selects has an InternalIP for {family} ({nodes})")
            }
            EgressReason::NotSupported { what } => write!(f, "{what} is not carried out by this version"),
        }
    }
}
