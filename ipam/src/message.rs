//! What goes into [`crate::Ipam`] and what comes out: plain values.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use plainroute_bgp::Prefix;
use plainroute_config::{IpBlockSpec, IpPool, Labels};

use crate::{Holder, Record};

/// The time, twice: what is written down goes by the wall clock; what is waited for goes by one that never jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: Timestamp,
    /// A clock that only goes forward, from any beginning, the same for one [`crate::Ipam`].
    pub uptime: Duration,
}

/// Which request a reply belongs to; the caller numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Which request to the API server an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call(pub u64);

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The pools, namespaces or labels of the node are these now.
    World(World),
    /// All IPBlocks of this node (`spec.node`), as a watch that is in sync sees them. A stale view does no harm.
    Owned(Vec<BlockObject>),
    /// All IPBlocks that ask something of this node (`spec.lenderNode`), likewise.
    Asked(Vec<BlockObject>),
    /// The IPBlocks of files that are this node's, where there is no API server.
    Documents(Vec<IpBlockSpec>),
    /// These nodes are fenced: their Pods are dead and stay so, whatever their agents do. That may be over again before it is heard
    /// of here: see [`Request::DeleteOfFenced`].
    Fenced(BTreeSet<String>),
    /// What the API server still has of this fenced node is to be taken over, or just the block that has this address.
    Inherit(String, Option<IpAddr>),
    /// What the API server said to a [`Request`]; exactly one for each, [`Answer::Failed`] if nothing else.
    Answer(Call, Answer),
    /// CNI ADD.
    Add(Ticket, Add),
    /// CNI DEL of the container's interface.
    Del(Ticket, Attachment),
    /// CNI CHECK: the interface is to have these addresses.
    Check(Ticket, Attachment, Vec<IpAddr>),
    /// CNI GC: these interfaces are all there are.
    Gc(Ticket, BTreeSet<Attachment>),
    /// CNI STATUS.
    Status(Ticket),
    /// A person gives an address back; `confirm` says that no Pod uses it any more, whatever the records say.
    Release(Ticket, IpAddr, bool),
    /// What runs on the node, from a source in sync. Two of them, thirty seconds apart, end what neither of them sees.
    Observed(Observation),
    /// Somebody else may have written to the IPBlocks of this node: each is read again.
    Doubted,
    /// The time that [`crate::Ipam::poll_timeout`] said has come.
    Timeout,
}

/// What addresses there are, and for whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// The pools that are in force.
    pub pools: Vec<IpPool>,
    /// The labels of each namespace, and the pools that its annotation narrows it to.
    pub namespaces: BTreeMap<String, (Labels, Option<Vec<String>>)>,
    /// The labels of this node.
    pub node_labels: Labels,
}

/// A container's interface, as CNI names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The sandbox.
    pub container_id: String,
    /// The interface within.
    pub interface: String,
}

/// A Pod wants addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// For which interface.
    pub attachment: Attachment,
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub name: String,
    /// The Pod's UID.
    pub pod_uid: String,
    /// The addresses of its annotation `plainroute.dev/ip`, one of a family at most.
    pub fixed: Vec<IpAddr>,
    /// The pools that its annotation narrows it to.
    pub pools: Option<Vec<String>>,
    /// The StatefulSet that owns it.
    pub stateful_set: Option<String>,
    /// For how long it may wait.
    pub patience: Duration,
}

/// What is seen to run on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Every interface of every live sandbox, with its addresses.
    pub sandboxes: BTreeMap<Attachment, Vec<IpAddr>>,
    /// The StatefulSets of the cluster, by namespace and name; `None` where that is not known.
    pub stateful_sets: Option<BTreeSet<(String, String)>>,
}

/// An IPBlock as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockObject {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// Its spec.
    pub spec: IpBlockSpec,
}

/// What the API server is asked. Reads are live ones (no `resourceVersion` in the request, so that the answer is not older than
/// the question).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make this IPBlock, if there is none of that name.
    Create {
        /// Its name.
        name: String,
        /// Its spec.
        spec: IpBlockSpec,
    },
    /// Put this spec in place, if UID and version are still these.
    Update {
        /// Which.
        name: String,
        /// The UID that it must have.
        uid: String,
        /// The version that it must have.
        version: String,
        /// The new spec.
        spec: IpBlockSpec,
    },
    /// Delete it, if UID and version are still these.
    Delete {
        /// Which.
        name: String,
        /// The UID that it must have.
        uid: String,
        /// The version that it must have.
        version: String,
    },
    /// Delete it, if UID and version are still these and its node is fenced. That is to be looked at after this request was made:
    /// a node that came back meanwhile has written each of its objects anew before it uses it. [`Answer::Conflict`] if it is not.
    DeleteOfFenced {
        /// Which.
        name: String,
        /// The UID that it must have.
        uid: String,
        /// The version that it must have.
        version: String,
        /// Its node.
        node: String,
    },
    /// Read it.
    Get {
        /// Which.
        name: String,
    },
    /// Read all of this node (`spec.node`).
    OfNode(String),
    /// Read all of this pool (`spec.pool`).
    OfPool(String),
    /// Read all that lie within this /20 or /116 (`spec.within`).
    Within(Prefix),
}

/// What the API server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To Create and Update: done, and this is what stands now. To Get: this is it.
    Object(Box<BlockObject>),
    /// To lists.
    Objects(Vec<BlockObject>),
    /// To Delete: done.
    Deleted,
    /// There is none of that name.
    Missing,
    /// To Create: there is one already.
    Exists,
    /// To Update and Delete: UID or version are others now.
    Conflict,
    /// It will not, and has changed nothing: invalid, forbidden.
    Refused(String),
    /// Nobody knows whether it was done, or will yet be: a timeout, a lost connection, an error of the server.
    Failed(String),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Append it to the journal. Nothing after it, of this or any later input, is carried out before it is durable; where
    /// it cannot be made so, the process ends as in a crash.
    Append(Record),
    /// Ask the API server.
    Ask(Call, Request),
    /// Answer a request.
    Reply(Ticket, Result<Vec<IpAddr>, Refusal>),
    /// Tell the Pod's users why it has no address.
    Event {
        /// The Pod's namespace.
        namespace: String,
        /// The Pod's name.
        name: String,
        /// The Pod's UID.
        pod_uid: String,
        /// What about.
        refusal: Refusal,
    },
    /// Write down for good who had an address.
    Ledger(Entry),
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// Who has it, or had it until `at`.
    pub holder: Holder,
    /// When.
    pub at: Timestamp,
    /// Whether it ends here.
    pub ends: bool,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pool is bound to the namespace on this node.
    #[error("no IPPool with allocation: Block is bound to namespace {0} on this node")]
    NoPool(String),
    /// The fixed address lies in no pool that is bound to the namespace.
    #[error("{0} lies in no IPPool that is bound to namespace {1} on this node")]
    NotBound(IpAddr, String),
    /// The fixed address is somebody else's, for now.
    #[error("{address} is {holder}")]
    Busy {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// There is no free address.
    #[error("no free address in {}", .0.join(", "))]
    Exhausted(Vec<String>),
    /// The API server is needed and does not answer.
    #[error("an address needs the API server: {0}")]
    NoServer(String),
    /// It took longer than the request may wait.
    #[error("gave up after {0:?} {1}")]
    Late(Duration, String),
    /// A later request took its place: a DEL, or another ADD of the same interface.
    #[error("{0}")]
    Replaced(&'static str),
    /// The interface does not have what it should.
    #[error("interface {interface} of container {container_id} has {has}")]
    Mismatch {
        /// The sandbox.
        container_id: String,
        /// The interface.
        interface: String,
        /// What it has.
        has: String,
    },
    /// The address is not held, kept or lent here, or may not be released so.
    #[error("{0}: {1}")]
    NotReleased(IpAddr, String),
    /// The pools are not known yet.
    #[error("the pools are not known yet")]
    NotReady,
}

impl Refusal {
    /// The error code of CNI: 11 is "try again later", 50 "not available", 7 an invalid network configuration; from 100 on they
    /// are ours.
    pub const fn code(&self) -> u32 {
        match self {
            Refusal::NoPool(_) | Refusal::NotBound(..) => 7,
            Refusal::Busy { .. }
            | Refusal::Exhausted(_)
            | Refusal::NoServer(_)
            | Refusal::Late(..)
            | Refusal::Replaced(_) => 11,
            Refusal::NotReady => 50,
            Refusal::Mismatch { .. } => 100,
            Refusal::NotReleased(..) => 101,
        }
    }

    /// In one word, for Events and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Refusal::NoPool(_) => "NoPool",
            Refusal::NotBound(..) => "AddressNotBound",
            Refusal::Busy { .. } => "AddressBusy",
            Refusal::Exhausted(_) => "PoolExhausted",
            Refusal::NoServer(_) => "NoAPIServer",
            Refusal::Late(..) => "TookTooLong",
            Refusal::Replaced(_) => "Replaced",
            Refusal::Mismatch { .. } => "Mismatch",
            Refusal::NotReleased(..) => "NotReleased",
            Refusal::NotReady => "NotReady",
        }
    }
}
