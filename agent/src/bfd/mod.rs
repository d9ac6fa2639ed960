//! BFD in a process of its own, `plainroute bfd`, so that neither a crash nor a restart of the agent is a failure of the
//! path to any router (docs/adr/0007-bfd-process.md).
//!
//! `server` is that process: it owns the driver of `plainroute-speaker` and serves one Unix socket. `client` is the
//! agent's side: it starts the process where it is to, tells it which sessions there shall be, and tells the speaker
//! and `plainroute peers` what became of them. `protocol` is what the two say, one line of JSON each.
pub mod client;
pub mod protocol;
pub mod server;
