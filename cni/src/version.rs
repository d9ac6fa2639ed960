//! The versions of the CNI specification that are spoken, and what differs between them.

/// A version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0 has CHECK.
    V0_4_0,
    /// 1.0.0 takes the family out of each address.
    V1_0_0,
    /// 1.1.0 has GC and STATUS.
    V1_1_0,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Version; 5] =
        [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    /// What is spoken to whoever does not say.
    pub const NEWEST: Version = Version::V1_1_0;

    /// As `cniVersion` has it.
    pub fn text(self) -> &'static str {
        match self {
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The one of that name.
    pub fn named(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.text() == text)
    }

    /// `0.3.0, 0.3.1, ...`, for messages.
    pub fn list() -> String {
        Version::ALL.map(Version::text).join(", ")
    }
}
