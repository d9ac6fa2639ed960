//! What a client of BFD such as BGP is told (RFC 5882), which is less than the state and more than up or down.
use std::fmt;

use crate::{Diagnostic, State};

/// Which end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This one.
    Local,
    /// The peer.
    Remote,
}

/// What BFD knows of the path. Only [`Liveness::Failed`] is a reason to act (RFC 5882 section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// Nothing, since the session was never Up, or not since one end held it down. The peer may not run BFD at all, so
    /// this is no failure and does not keep BGP from coming up (RFC 5882 sections 3.3 and 4.1).
    #[default]
    Pending,
    /// The path works in both directions.
    Up,
    /// The session was Up and is not any more. It stays failed until it is Up, or AdminDown, again.
    Failed {
        /// Why, in our own words.
        diagnostic: Diagnostic,
        /// Why the peer's session last changed, by its last packet.
        remote_diagnostic: Diagnostic,
        /// Whether both ends said that their BFD does not share the fate of their control plane (the C bit). Then
        /// packets are lost and a graceful restart under way is to be given up; else the failure may be no more than
        /// the restart itself (RFC 5882 section 4.3).
        control_plane_independent: bool,
    },
    /// One end holds the session down on purpose. That says nothing about the path, and clients take no action (RFC
    /// 5882 sections 3.2 and 4.2).
    AdminDown(Side),
}

impl Liveness {
    /// What is known after the session came to `state`, where `failure` is how a failure would be reported.
    pub(crate) fn next(
        self,
        state: State,
        remote: Option<State>,
        failure: impl Fn() -> Liveness,
    ) -> Liveness {
        match (state, remote, self) {
            (State::Up, _, _) => Liveness::Up,
            (State::AdminDown, _, _) => Liveness::AdminDown(Side::Local),
            (State::Down | State::Init, Some(State::AdminDown), _) => Liveness::AdminDown(Side::Remote),
            (State::Down | State::Init, _, Liveness::Up) => failure(),
            (State::Down | State::Init, _, Liveness::Failed { .. }) => self,
            (State::Down | State::Init, _, Liveness::Pending | Liveness::AdminDown(_)) => Liveness::Pending,
        }
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Liveness::Pending => f.write_str("not up yet"),
            Liveness::Up => f.write_str("up"),
            Liveness::Failed { diagnostic, remote_diagnostic, .. } => {
                write!(f, "failed: {diagnostic} (peer: {remote_diagnostic})")
            }
            Liveness::AdminDown(Side::Local) => f.write_str("held down here"),
            Liveness::AdminDown(Side::Remote) => f.write_str("held down by the peer"),
        }
    }
}
