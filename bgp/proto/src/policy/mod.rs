//! What may enter (RFC 8212: nothing, unless said).
//!
//! A rule matches prefixes; the first rule that matches decides; no rule means no. What may leave is not decided
//! here: the agent's plan gives each session exactly the routes that it is to announce.
mod import;
mod prefix_rule;
mod relation;

pub use import::{Accepted, ImportPolicy, ImportRule};
pub use prefix_rule::{InvalidPrefixRule, PrefixRule};
pub use relation::{Leaked, Relation};
