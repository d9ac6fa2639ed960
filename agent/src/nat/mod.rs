//! Egress in nftables: makes table `inet plainroute` do what is desired, and says what it does.
//!
//! [`run`] is the one owner task. Input: the latest [`NatDesired`]. Output: the latest [`NatInstalled`]. It is
//! level-triggered: it compares the table that should be with the table that is and makes the difference one transaction.
//! Cancelling it leaves the table as it is; the next run adopts it.
//!
//! Ours is the table by that name, whole; no other table is read or changed. Where no egress is desired there is no table,
//! and neither nf_tables nor conntrack is loaded on our account.
mod addition;
mod compile;
mod config;
mod counting;
mod desired;
mod diff;
mod failure;
mod flows;
mod installed;
mod intervals;
mod netlink;
mod presence;
mod ruleset;
mod settling;
mod task;

pub use config::{NatConfig, NatError};
pub use desired::{Fate, NatClass, NatDesired, NatSource};
pub use installed::{NatCounters, NatInstalled};
pub use task::run;
