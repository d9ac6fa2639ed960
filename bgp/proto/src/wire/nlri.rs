//! Network layer reachability information (RFC 4271 section 4.3, RFC 4760 section 5).
use crate::Prefix;

/// One prefix of an UPDATE, with its path identifier where add-path (RFC 7911) was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The prefix.
    pub prefix: Prefix,
    /// The path identifier; `None` without add-path.
    pub path_id: Option<u32>,
}
