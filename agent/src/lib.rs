//! The Plainroute agent: from Kubernetes objects and files to BGP routes and kernel routes of one node.
//!
//! Data flows one way (docs/architecture.md): `source` -> `index` -> `plan` -> `fib` -> `gate` -> speaker. Each
//! long-lived thing is owned by one task; `run` joins them.

pub mod admin;
pub mod bfd;
pub mod cli;
pub mod discovery;
pub mod drain;
pub mod egress;
pub mod fib;
pub mod flaps;
pub mod gate;
pub mod incarnation;
pub mod index;
mod ipam;
pub mod last_good;
pub mod ledger;
pub mod nat;
pub mod neighbours;
mod peering;
pub mod plan;
mod private_socket;
pub mod run;
pub mod source;
mod state_file;
mod status;
