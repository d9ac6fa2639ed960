//! The CNI IPAM plugin `plainroute-ipam`, and the protocol by which it asks the agent of its node.
//!
//! It decides nothing and keeps nothing. [`plugin::run`] turns what a runtime gives (environment, network configuration) into
//! one [`protocol::Request`], and the agent's [`protocol::Reply`] into the result that the CNI specification wants; the agent
//! uses the same types. The read order: [`protocol`], then [`plugin`].
#![deny(missing_docs)]

pub mod agent;
pub mod environment;
pub mod error;
pub mod install;
pub mod network;
pub mod plugin;
pub mod program;
pub mod protocol;
pub mod result;
pub mod version;
