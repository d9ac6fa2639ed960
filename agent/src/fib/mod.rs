//! Kernel routes: makes the kernel hold the routes that are desired, and says what it holds.
//!
//! [`run`] is the one owner task. Input: the latest [`Desired`]. Output: the latest [`Installed`]. It is
//! level-triggered: whatever happened, it compares desired with dumped and applies the difference. Cancelling
//! it leaves the kernel as it is; the next run adopts what it finds.
//!
//! Ours are the routes with our protocol number *and* our metric. Nothing else is ever changed, replaced or
//! removed. The metric is a number that nobody else uses, for two reasons: the kernel tells routes to
//! the same prefix apart by it, so that ours can stand beside a foreign one instead of fighting it; and another
//! daemon that happens to use our protocol number (188 is also what Linux calls `ospf`) stays foreign.
mod delivery;
mod desired;
mod diff;
mod installed;
mod journal;
mod kernel;
mod netlink;
mod rule;
mod status;
mod task;

pub use desired::{Desired, NextHop, RouteKey, TABLE_MAIN, Target};
pub use installed::{Counters, DefaultGateway, Delivery, ForeignRoute, Installed, Interface, RouteStatus};
pub use rule::{Rule, RuleAction};
pub use task::{FibConfig, FibError, run};
