//! What something beside BGP, such as BFD, says of the paths to peers (RFC 5882).
use std::{collections::BTreeMap, fmt};

use crate::PeerName;

/// What is known of the path to one peer. Only [`PathState::Down`] is acted on: not to know, or one end that holds its
/// BFD down on purpose, is no failure (RFC 5882 sections 3.2, 4.1 and 4.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathState {
    /// Nothing.
    #[default]
    Unknown,
    /// It works.
    Up,
    /// It worked and does not any more.
    Down {
        /// Why, for people.
        reason: String,
        /// Whether that cannot be a restart of the peer's control plane: both ends' BFD outlives it (the C bit).
        control_plane_independent: bool,
    },
    /// Nothing, on purpose.
    AdminDown,
}

impl PathState {
    /// Whether it is [`PathState::Down`].
    pub fn is_down(&self) -> bool {
        matches!(self, PathState::Down { .. })
    }
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathState::Unknown => f.write_str("unknown"),
            PathState::Up => f.write_str("up"),
            PathState::Down { reason, .. } => write!(f, "down: {reason}"),
            PathState::AdminDown => f.write_str("held down on purpose"),
        }
    }
}

/// What is known of the paths to all peers; [`PathState::Unknown`] of those that are not named.
pub type Paths = BTreeMap<PeerName, PathState>;
