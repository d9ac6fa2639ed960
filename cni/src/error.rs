//! What a CNI plugin says when it cannot do what it was asked (CNI specification, section 5, "Error").
use serde_json::json;

use crate::{protocol::Failure, version::Version};

/// The codes of the specification, and ours above 99.
pub mod code {
    /// The network configuration has a version that is not spoken.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// The environment lacks something, or has it wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// What was read is not what it should be.
    pub const DECODE: u32 = 6;
    /// The network configuration is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// The same may succeed later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: no ADD can be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: no ADD can be served, and those that are there may have lost reach.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// CHECK: the addresses that the Pod has are not those that the agent knows of.
    pub const DIFFERENT_ADDRESSES: u32 = 100;
}

/// An error as the runtime gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// One of [`code`].
    pub code: u32,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What else helps; may be empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: u32, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), details: String::new() }
    }

    /// With what else helps.
    pub fn with(mut self, details: impl Into<String>) -> Error {
        self.details = details.into();
        self
    }

    /// What the plugin prints.
    pub fn json(&self, version: Version) -> String {
        let mut document = json!({ "cniVersion": version.text(), "code": self.code, "msg": self.message });
        if !self.details.is_empty() {
            document["details"] = self.details.as_str().into();
        }
        document.to_string()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        let Failure { code, message, details } = failure;
        Error { code, message, details }
    }
}
