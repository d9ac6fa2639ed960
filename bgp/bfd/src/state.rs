//! The states of a session, and the state machine proper: one pure function.
use std::fmt;

use crate::Diagnostic;

/// The states of RFC 5880 section 6.2, by their codes of section 4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Held down on purpose. It says nothing about the path.
    AdminDown = 0,
    /// There is no session, or it failed.
    #[default]
    Down = 1,
    /// The peer is heard; whether it hears us is not known yet.
    Init = 2,
    /// Both hear each other.
    Up = 3,
}

impl State {
    /// Every state, by code.
    pub const ALL: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];

    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What stands in the high two bits of the second octet of a packet.
    pub(crate) const fn from_high_bits(octet: u8) -> State {
        match octet & 0xc0 {
            0x00 => State::AdminDown,
            0x40 => State::Down,
            0x80 => State::Init,
            _ => State::Up,
        }
    }

    /// The RFC's name of the state.
    pub const fn name(self) -> &'static str {
        match self {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What can move the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A packet that was not discarded came, with this state in it.
    Received(State),
    /// The peer was silent for the Detection Time.
    DetectionTimeExpired,
    /// The session is held down on purpose.
    Disable,
    /// It is no longer.
    Enable,
    /// The peer can no longer rely on what we forwarded for it.
    ForwardingPlaneReset,
}

/// The next state and the diagnostic that goes with it, or nothing where the input changes neither.
///
/// RFC 5880 leaves the diagnostic alone on the way up. It is cleared only in Up, so that a peer that comes back can
/// read why the session before failed.
pub(crate) fn step(state: State, input: Input) -> Option<(State, Option<Diagnostic>)> {
    use State::{AdminDown, Down, Init, Up};
    match (state, input) {
        // Section 6.8.6: discarded before the state is looked at.
        (AdminDown, Input::Received(AdminDown | Down | Init | Up)) => None,
        (Down, Input::Received(AdminDown)) => None,
        (Init | Up, Input::Received(AdminDown)) => {
            Some((Down, Some(Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN)))
        }
        (Down, Input::Received(Down)) => Some((Init, None)),
        (Down, Input::Received(Init)) => Some((Up, Some(Diagnostic::NONE))),
        // The peer has not noticed yet that the session failed; to go Up on its word would hide that from it.
        (Down, Input::Received(Up)) => None,
        (Init, Input::Received(Down)) => None,
        (Init, Input::Received(Init | Up)) => Some((Up, Some(Diagnostic::NONE))),
        (Up, Input::Received(Down)) => Some((Down, Some(Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN))),
        (Up, Input::Received(Init | Up)) => None,
        // Section 6.8.4.
        (Init | Up, Input::DetectionTimeExpired) => {
            Some((Down, Some(Diagnostic::CONTROL_DETECTION_TIME_EXPIRED)))
        }
        (AdminDown | Down, Input::DetectionTimeExpired) => None,
        // Section 6.8.16.
        (Down | Init | Up, Input::Disable) => Some((AdminDown, Some(Diagnostic::ADMINISTRATIVELY_DOWN))),
        (AdminDown, Input::Disable) => None,
        (AdminDown, Input::Enable) => Some((Down, Some(Diagnostic::NONE))),
        (Down | Init | Up, Input::Enable) => None,
        // Section 6.8.15. What is held down on purpose stays so.
        (Down | Init | Up, Input::ForwardingPlaneReset) => {
            Some((Down, Some(Diagnostic::FORWARDING_PLANE_RESET)))
        }
        (AdminDown, Input::ForwardingPlaneReset) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{AdminDown, Down, Init, Up};

    const NONE: Option<u8> = Some(0);
    const KEPT: Option<u8> = None;

    /// The whole machine, written down from RFC 5880: state, input, next state, diagnostic (`KEPT`: as before).
    const TABLE: [(State, Input, State, Option<u8>); 32] = [
        (AdminDown, Input::Received(AdminDown), AdminDown, KEPT),
        (AdminDown, Input::Received(Down), AdminDown, KEPT),
        (AdminDown, Input::Received(Init), AdminDown, KEPT),
        (AdminDown, Input::Received(Up), AdminDown, KEPT),
        (Down, Input::Received(AdminDown), Down, KEPT),
        (Down, Input::Received(Down), Init, KEPT),
        (Down, Input::Received(Init), Up, NONE),
        (Down, Input::Received(Up), Down, KEPT),
        (Init, Input::Received(AdminDown), Down, Some(3)),
        (Init, Input::Received(Down), Init, KEPT),
        (Init, Input::Received(Init), Up, NONE),
        (Init, Input::Received(Up), Up, NONE),
        (Up, Input::Received(AdminDown), Down, Some(3)),
        (Up, Input::Received(Down), Down, Some(3)),
        (Up, Input::Received(Init), Up, KEPT),
        (Up, Input::Received(Up), Up, KEPT),
        (AdminDown, Input::DetectionTimeExpired, AdminDown, KEPT),
        (Down, Input::DetectionTimeExpired, Down, KEPT),
        (Init, Input::DetectionTimeExpired, Down, Some(1)),
        (Up, Input::DetectionTimeExpired, Down, Some(1)),
        (AdminDown, Input::Disable, AdminDown, KEPT),
        (Down, Input::Disable, AdminDown, Some(7)),
        (Init, Input::Disable, AdminDown, Some(7)),
        (Up, Input::Disable, AdminDown, Some(7)),
        (AdminDown, Input::Enable, Down, NONE),
        (Down, Input::Enable, Down, KEPT),
        (Init, Input::Enable, Init, KEPT),
        (Up, Input::Enable, Up, KEPT),
        (AdminDown, Input::ForwardingPlaneReset, AdminDown, KEPT),
        (Down, Input::ForwardingPlaneReset, Down, Some(4)),
        (Init, Input::ForwardingPlaneReset, Down, Some(4)),
        (Up, Input::ForwardingPlaneReset, Down, Some(4)),
    ];

    #[test]
    fn every_state_and_input_leads_where_the_rfc_says() {
        for (state, input, next, code) in TABLE {
            let diagnostic = code.map(|code| Diagnostic::from_code(code).unwrap());
            let (got, said) = step(state, input).unwrap_or((state, None));
            assert_eq!((got, said), (next, diagnostic), "{state} on {input:?}");
        }
    }

    #[test]
    fn the_table_is_whole() {
        let received = State::ALL.map(Input::Received);
        let others =
            [Input::DetectionTimeExpired, Input::Disable, Input::Enable, Input::ForwardingPlaneReset];
        for state in State::ALL {
            for input in received.iter().chain(&others) {
                let rows = TABLE.iter().filter(|row| (row.0, row.1) == (state, *input)).count();
                assert_eq!(rows, 1, "{state} on {input:?}");
            }
        }
    }

    #[test]
    fn codes_are_those_of_the_wire() {
        for (code, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(state.code()), code);
            assert_eq!(State::from_high_bits(state.code() << 6 | 0x3f), state);
        }
    }
}
