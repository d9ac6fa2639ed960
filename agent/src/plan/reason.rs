//! Why an address is not advertised: the one list, in the order in which the rules are asked.
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an address of a Pod, or the whole Pod, is not advertised: a word that a program matches. What is displayed is
/// the sentence that an operator reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum Reason {
    /// The Pod runs on another node.
    NotLocal {
        /// That node; empty while the Pod is not scheduled.
        node: String,
    },
    /// The Pod uses the node's network.
    HostNetwork,
    /// The Pod has ended.
    Terminal {
        /// `Succeeded` or `Failed`.
        phase: String,
    },
    /// The Pod has no address yet.
    NoAddress,
    /// No pool holds the address.
    NoPool,
    /// A pool holds the range but excludes this address.
    Excluded {
        /// The pool.
        pool: String,
    },
    /// The pool is for egress IPs.
    EgressPool {
        /// The pool.
        pool: String,
    },
    /// The pool is bound to other namespaces.
    PoolOfOtherNamespace {
        /// The pool.
        pool: String,
    },
    /// The pool does not serve this node.
    PoolOfOtherNode {
        /// The pool.
        pool: String,
    },
    /// The annotation `plainroute.dev/ippools` of the Pod or its namespace leaves this pool out.
    PoolNotInAnnotation {
        /// The pool.
        pool: String,
        /// Which object carries the annotation.
        on: String,
    },
    /// The pool is given out in blocks, and this node did not give the address to this Pod.
    NotAllocated {
        /// The pool.
        pool: String,
    },
    /// Another live Pod holds the address.
    HeldByOther {
        /// The other Pod, NAMESPACE/NAME.
        pod: String,
    },
    /// The Pod is being deleted.
    Terminating,
    /// The Pod is not ready and the advertisement asks for readiness.
    NotReady,
    /// The Pod is ready, but not for long enough.
    ReadyTooShort {
        /// Seconds that it must have been ready.
        min_ready_seconds: u32,
    },
    /// The Pod lost its readiness too often of late.
    Restless {
        /// When it will have been calm for long enough.
        until: jiff::Timestamp,
    },
    /// No BGPAdvertisement selects the Pod's address.
    NoAdvertisement,
    /// Advertisements select the address, but no peer that they select serves this node in its family.
    NoPeer,
    /// An export rule of the peer, or the want of one that matches, holds the route back.
    RefusedByExport {
        /// The BGPPeer.
        peer: String,
    },
}

impl Reason {
    /// Whether the address breaks a rule of the pools, rather than simply not being due: worth a log line and a
    /// count, since somebody expects an address to work that never will.
    pub fn is_violation(&self) -> bool {
        match self {
            Reason::NoPool
            | Reason::Excluded { .. }
            | Reason::EgressPool { .. }
            | Reason::PoolOfOtherNamespace { .. }
            | Reason::PoolOfOtherNode { .. }
            | Reason::PoolNotInAnnotation { .. }
            | Reason::NotAllocated { .. }
            | Reason::HeldByOther { .. } => true,
            Reason::NotLocal { .. }
            | Reason::HostNetwork
            | Reason::Terminal { .. }
            | Reason::NoAddress
            | Reason::Terminating
            | Reason::NotReady
            | Reason::ReadyTooShort { .. }
            | Reason::Restless { .. }
            | Reason::NoAdvertisement
            | Reason::NoPeer
            | Reason::RefusedByExport { .. } => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotLocal { node } if node.is_empty() => {
                f.write_str("the Pod is not scheduled to a node yet")
            }
            Reason::NotLocal { node } => write!(f, "the Pod runs on node {node}"),
            Reason::HostNetwork => f.write_str("the Pod uses the node's own network (hostNetwork)"),
            Reason::Terminal { phase } => write!(f, "the Pod has ended ({phase})"),
            Reason::NoAddress => f.write_str("the Pod has no address yet"),
            Reason::NoPool => f.write_str("no IPPool holds the address"),
            Reason::Excluded { pool } => write!(f, "IPPool {pool} excludes the address"),
            Reason::EgressPool { pool } => write!(f, "IPPool {pool} is for egress IPs (usage: Egress)"),
            Reason::PoolOfOtherNamespace { pool } => {
                write!(f, "IPPool {pool} is not bound to the Pod's namespace (namespaceSelector)")
            }
            Reason::PoolOfOtherNode { pool } => {
                write!(f, "IPPool {pool} does not serve this node (nodeSelector)")
            }
            Reason::PoolNotInAnnotation { pool, on } => {
                write!(f, "the annotation plainroute.dev/ippools of {on} does not name IPPool {pool}")
            }
            Reason::NotAllocated { pool } => {
                write!(f, "this node did not give it to the Pod, as IPPool {pool} asks (allocation: Block)")
            }
            Reason::HeldByOther { pod } => write!(f, "the live Pod {pod} holds the address"),
            Reason::Terminating => f.write_str("the Pod is being deleted (withdraw.terminating)"),
            Reason::NotReady => f.write_str("the Pod is not ready (withdraw.notReady)"),
            Reason::ReadyTooShort { min_ready_seconds } => {
                write!(
                    f,
                    "the Pod is ready, but not for {min_ready_seconds} s yet (withdraw.minReadySeconds)"
                )
            }
            Reason::Restless { until } => {
                write!(f, "the Pod lost its readiness too often; if it is calm, it is back at {until}")
            }
            Reason::NoAdvertisement => f.write_str("no BGPAdvertisement of a type that it has selects it"),
            Reason::NoPeer => f.write_str(
                "no BGPPeer that the advertisement selects serves this node in the address's family",
            ),
            Reason::RefusedByExport { peer } => {
                write!(f, "BGPPeer {peer} does not let it out (export)")
            }
        }
    }
}
