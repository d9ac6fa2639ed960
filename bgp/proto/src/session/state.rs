//! The states of a session.
use std::fmt;

/// The states of RFC 4271 section 8.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is tried: stopped, or holding off after an error.
    #[default]
    Idle,
    /// A TCP connection is being opened.
    Connect,
    /// Waiting for the peer to connect, or for the next try.
    Active,
    /// Our OPEN left; the peer's has not come.
    OpenSent,
    /// Both OPENs were exchanged; the peer's KEEPALIVE has not come.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl State {
    /// Every state, in the order of progress.
    pub const ALL: [State; 6] =
        [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm, State::Established];

    /// The RFC's name of the state.
    pub const fn name(self) -> &'static str {
        match self {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
