//! The kinds of Plainroute and its config file.
//!
//! [`Object`] is one object of any kind; every way in (YAML file, API server) checks it whole, so one that breaks a
//! rule is not built. [`load`] reads files and directories and refuses them whole, with the place of every error.
#![deny(missing_docs)]

mod admission;
mod bounded;
pub mod crd;
mod kinds;
mod loader;
mod rules;
mod scoped;
mod selector;
mod taint;
mod value;

pub use bounded::{Bounded, Port};
pub use kinds::*;
pub use loader::{ConfigError, ConfigErrors, Input, Loaded, Located, Origin, Reloader, load, load_inputs};
pub use rules::{Spec, Violation, Violations};
pub use scoped::ScopedAddress;
pub use selector::{LabelSelector, Labels, Operator, Requirement};
pub use taint::{Taint, TaintPattern};
pub use value::{AddressOrCidr, Cidr, MarkMask, Parsed, RouteTable, Written};
