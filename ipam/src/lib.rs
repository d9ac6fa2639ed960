//! Addresses for Pods out of the pools of their namespaces, without I/O: no socket, file, clock, task or lock.
//!
//! A node owns blocks of pools, and gives their addresses to Pods. [`Holdings`] is what it owns and who holds what.
#![deny(missing_docs)]

mod holdings;

pub use holdings::{Holder, Holdings, OwnedBlock};
