//! A speaker over live TCP sessions against a peer that sends whatever a test wants, right or wrong.
//!
//! Loopback addresses and unprivileged ports suffice: each peer is a 127.0.0.x of its own, each test a speaker with
//! a port of its own. The checks return errors, so that the negative controls can show that they find faults.
mod change;
mod farewell;
mod hostile;
mod messages;
mod opens;
mod peer;
mod replay;
mod site;
mod updates;
