//! BFD on UDP: sockets and one thread that drive `plainroute-bfd`.
//!
//! A [`Driver`] is a handle to a thread of its own, which owns every socket, every session and their timers; it does
//! nothing else, so that neither a busy agent nor a slow reader of its reports makes a session late. What it shall
//! keep is declared whole by [`Driver::apply`], and only what differs is touched. What it knows is a [`Report`],
//! published at each change.
//!
//! Read [`Target`] first (which session, over which path), then [`Driver`] and [`SessionReport`].
mod report;
mod running;
mod socket;
mod target;
mod task;
mod thread;

pub use report::{Report, RunningReport, SessionReport};
pub use target::{Reach, Target};
pub use thread::{Driver, Priority};
