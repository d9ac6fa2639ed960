//! What may enter (RFC 8212: nothing, unless said), and what may leave.
//!
//! A rule matches prefixes, communities and, on the way in, the AS path; the first rule that matches decides; no
//! rule means no. Which routes leave is the agent's plan, which gives each session exactly those that it is to
//! announce and asks [`ExportPolicy`] while it does so.
mod export;
mod filter;
mod import;
mod prefix_rule;
mod relation;

pub use export::{ExportPolicy, ExportRule};
pub use filter::{Action, AsPathFilter, Filter};
pub use import::{Accepted, ImportPolicy, ImportRule, Verdict};
pub use prefix_rule::{InvalidPrefixRule, PrefixRule};
pub use relation::{Leaked, Relation};
