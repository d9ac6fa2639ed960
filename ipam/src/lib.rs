//! Addresses for Pods out of the pools of their namespaces, without I/O: no socket, file, clock, task or lock.
//!
//! A node owns blocks of pools and gives their addresses to Pods. [`Ipam`] is one node's state machine: [`Ipam::handle`] takes what
//! happens, with the time, and says what is to be done; [`Ipam::poll_timeout`] says when to come back at the latest. Read
//! [`Input`], [`Output`] and [`Request`] first. [`Holdings`] is what the plan needs, [`Journal`] and [`Record`] are what is on disk,
//! [`Carving`] is how pools fall into blocks.
//!
//! # What makes it safe
//! * An IPBlock's name is its CIDR, so creating it is the compare-and-swap between nodes. A block is used only after a live list
//!   has shown that nothing of another size overlaps it.
//! * What a Pod is given is in the journal before the Pod hears of it. The block's object follows.
//! * Updates and deletions carry UID and version. A block is given up in the journal before it is deleted, and never used again.
//! * A borrowed address is used only after the lender's object says so, naming the UID of the borrower's; it is given out again only
//!   after a live read has shown that this UID is gone.
//! * What a watch shows is a hint and leads to a read. What two looks at the node, thirty seconds apart, do not see is freed.
//!
//! # The loop around it
//! The caller owns one `Ipam` in one task. What [`Output::Append`] says has to be durable before anything after it is carried out; if
//! it cannot be made so, the process ends and begins anew from the journal. Every [`Request`] gets exactly one [`Answer`],
//! [`Answer::Failed`] if nothing else is known. Lists and reads are live ones. The watches of `spec.node` and
//! `spec.lenderNode` are handed in whole after each change and now and then, the sandboxes of the node every ten to thirty
//! seconds.
//!
//! ```
//! use std::{collections::BTreeMap, time::Duration};
//! use plainroute_blocks::{Add, Attachment, Input, Ipam, Journal, Now, Output, Settings, Ticket, World};
//!
//! // From the file; it is cut to `whole` where `torn` says that a crash left half a line.
//! let journal = Journal::decode(b"").unwrap();
//! let settings = Settings { node: "node-a".to_owned(), boot: "b1".to_owned(), has_server: true };
//! let (mut ipam, first) = Ipam::recover(settings, &journal.records).unwrap();
//! let mut file: String = first.iter().map(|record| record.encode()).collect();
//!
//! let now = Now { wall: "2026-11-22T11:00:00Z".parse().unwrap(), uptime: Duration::ZERO };
//! let pool = r#"{"apiVersion":"plainroute.dev/v1alpha1","kind":"IPPool","metadata":{"name":"erp"},
//!                "spec":{"ipRanges":[{"cidr":"10.20.0.0/24"}]}}"#;
//! let world = World {
//!     pools: vec![serde_json::from_str(pool).unwrap()],
//!     namespaces: BTreeMap::from([("erp".to_owned(), Default::default())]),
//!     node_labels: Default::default(),
//! };
//! let add = Add {
//!     attachment: Attachment { container_id: "c1".to_owned(), interface: "eth0".to_owned() },
//!     namespace: "erp".to_owned(),
//!     name: "app".to_owned(),
//!     pod_uid: "u1".to_owned(),
//!     fixed: Vec::new(),
//!     pools: None,
//!     stateful_set: None,
//!     patience: Duration::from_secs(10),
//! };
//! let mut asked = 0;
//! for input in [Input::World(world), Input::Add(Ticket(1), add)] {
//!     for output in ipam.handle(now, input) {
//!         match output {
//!             Output::Append(record) => file.push_str(&record.encode()), // and fsync
//!             Output::Ask(_call, _request) => asked += 1, // its answer comes in as Input::Answer
//!             Output::Reply(_ticket, _result) => {}       // to the CNI plugin
//!             Output::Event { .. } | Output::Ledger(_) => {}
//!         }
//!     }
//! }
//! // It asked what it owned before this journal, and creates its first block.
//! assert_eq!(asked, 2);
//! assert!(ipam.poll_timeout().is_some());
//! ```
//!
//! # Shown by
//! The simulation in `src/sim` (many nodes, crashes at every output, lost and late answers, partitions, old views, clocks that jump,
//! machines that die, are fenced and return, disks that are wiped, pools that are edited), its negative controls, and the tests in `tests/`.
#![deny(missing_docs)]

mod block;
mod carve;
mod holdings;
mod ipam;
mod journal;
mod message;
#[cfg(test)]
mod sim;
mod slot;

pub use carve::Carving;
pub use holdings::{Holder, Holdings, OwnedBlock};
pub use ipam::{Inconsistent, Ipam, Settings, hash};
pub use journal::{Corrupt, Journal, Owned, Record, VERSION};
pub use message::{
    Add, Answer, Attachment, BlockObject, Call, Entry, Input, Now, Observation, Output, Refusal, Request,
    Ticket, World,
};
pub use slot::{Kept, Lent, Slot};
