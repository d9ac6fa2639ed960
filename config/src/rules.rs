//! Rules between fields, which no field type can hold by itself.
//!
//! A spec states its rules in [`Spec::check`]. Every way in (YAML file, API server) runs them, so an object
//! that breaks one is not built; the loader also learns at which field.
use std::fmt::{self, Display};

use crate::Kind;

/// The part of a kind that its user writes.
pub trait Spec {
    /// Whose spec it is.
    const KIND: Kind;

    /// States each broken rule.
    fn check(&self, broken: &mut Violations);
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field from the object's root, like `spec.ipRanges[0].end`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The broken rules of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Adds a broken rule at `field`, a path below `spec`.
    pub fn add(&mut self, field: impl Display, message: impl Into<String>) {
        self.0.push(Violation { field: format!("spec.{field}"), message: message.into() });
    }

    /// Whether no rule is broken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{violation}")?;
        }
        Ok(())
    }
}
