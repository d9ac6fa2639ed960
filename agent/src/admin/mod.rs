//! What the agent tells: HTTP on its Unix socket for the command line, and metrics on TCP.
//!
//! Owner of: both listeners. Inputs: what the main task publishes, and a handle of the speaker. Outputs: answers.
//! Nothing here changes anything itself: a drain is asked of the main task. Nothing on the wire waits for it. Cancelling drops open requests.
mod answer;
pub mod egress;
mod explain;
mod metrics;
mod readiness;
mod server;
pub mod view;
mod who;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use plainroute_config::ObjectKey;
use tokio::sync::oneshot;

pub use crate::ipam::Desk;
pub use server::{Access, AdminError, serve};

use crate::{
    drain::{AskedBy, DrainState},
    egress::Choice,
    fib::{Desired, Installed},
    gate::Advertised,
    index::Held,
    nat::NatInstalled,
    neighbours::HeardBy,
    plan::Plan,
};

/// What a person asks the main task to do. It answers once it is done or refused.
#[derive(Debug)]
pub enum Command {
    /// Drain the node; withdraw after the wait.
    Drain {
        /// How long the peers have to move traffic away.
        wait: Duration,
        /// Why it cannot be, if so.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Carry out deletions that were held.
    Confirm {
        /// Of these objects; of all where there are none.
        objects: Option<Vec<String>>,
        /// Why it cannot be, if so.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Give an address back that a Pod had.
    Release {
        /// Which.
        address: IpAddr,
        /// No Pod uses it any more, whatever the records say.
        confirm: bool,
        /// Why it cannot be, if so.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Take the drain back.
    Undrain {
        /// Why it cannot be, if so.
        answer: oneshot::Sender<Result<(), String>>,
    },
}

/// The state of the main task, whole and immutable.
#[derive(Clone, Debug)]
pub struct Published {
    /// The node's name.
    pub node: String,
    /// The kernel's table of routes to local Pods.
    pub pod_table: u32,
    /// When the agent started.
    pub started: jiff::Timestamp,
    /// The plan in force; empty before the first one.
    pub plan: Arc<Plan>,
    /// What the kernel was asked to hold.
    pub desired: Arc<Desired>,
    /// What it holds.
    pub installed: Arc<Installed>,
    /// What is originated; `None` before the first whole plan is in the kernel.
    pub advertised: Option<Arc<Advertised>>,
    /// How far the node is drained.
    pub drain: DrainState,
    /// Who asks for that.
    pub drain_asked_by: BTreeSet<AskedBy>,
    /// When its routes will be withdrawn, while it is being drained.
    pub withdraws_at: Option<std::time::Instant>,
    /// Sources that have not delivered their first complete set.
    pub awaited: Vec<String>,
    /// What is wrong with each source, by its name.
    pub source_problems: BTreeMap<String, String>,
    /// Objects of the API server that cannot be read, and why. What was known of them stays in force.
    pub unreadable: Arc<BTreeMap<ObjectKey, String>>,
    /// The UID of the Node in the API server, while there is one.
    pub node_uid: Option<String>,
    /// The objects that the API server has no more, and that stay until somebody confirms.
    pub held: Arc<BTreeMap<ObjectKey, Held>>,
    /// Where what an earlier process knew of the API server is in force: when that was known to be so.
    pub restored: Option<jiff::Timestamp>,
    /// Which routers were heard where, and what of their packets was not believed.
    pub heard: Arc<HeardBy>,
    /// When the objects in force were last changed by a source.
    pub config_applied: Option<jiff::Timestamp>,
    /// By which gateway each egress IP leaves this node; one that is not there does not.
    pub egress: Arc<BTreeMap<IpAddr, Choice>>,
    /// What nftables holds of egress.
    pub nat: Arc<NatInstalled>,
}

impl Published {
    /// Before anything is known.
    pub fn new(node: String, pod_table: u32) -> Published {
        Published {
            node,
            pod_table,
            started: jiff::Timestamp::now(),
            plan: Arc::default(),
            desired: Arc::default(),
            installed: Arc::default(),
            advertised: None,
            drain: DrainState::Active,
            drain_asked_by: BTreeSet::new(),
            withdraws_at: None,
            awaited: Vec::new(),
            source_problems: BTreeMap::new(),
            unreadable: Arc::default(),
            node_uid: None,
            held: Arc::default(),
            restored: None,
            heard: Arc::default(),
            config_applied: None,
            egress: Arc::default(),
            nat: Arc::default(),
        }
    }

    /// Whether every source is in sync and the kernel has answered to the first whole plan.
    pub fn is_ready(&self) -> bool {
        self.awaited.is_empty() && self.advertised.is_some()
    }
}
