//! What an operator chooses for a session.
use std::num::NonZeroU8;

use crate::{Discriminator, Interval, State};

/// The timers of a session, each end's own (RFC 5880 section 6.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How fast we would like to send while Up; otherwise it is at least a second (bfd.DesiredMinTxInterval).
    pub desired_min_tx: Interval,
    /// How fast we are prepared to receive (bfd.RequiredMinRxInterval). Not zero: in asynchronous mode it is what we
    /// receive that tells that the peer lives.
    pub required_min_rx: Interval,
    /// How many of our packets in a row the peer may miss (bfd.DetectMult).
    pub detect_multiplier: NonZeroU8,
}

/// What a session is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// From [`crate::Demux::insert`].
    pub local_discriminator: Discriminator,
    /// Intervals and multiplier.
    pub timing: Timing,
    /// Whether this BFD lives on when the routing protocols are restarted: the C bit (RFC 5882 section 4.3).
    pub control_plane_independent: bool,
    /// Where the jitter begins. Different for each session, so that they do not send in step.
    pub jitter_seed: u64,
}

/// The two intervals that both ends negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intervals {
    pub(super) desired_min_tx: Interval,
    pub(super) required_min_rx: Interval,
}

impl Timing {
    /// What is advertised in a state: not faster than once a second while not Up (RFC 5880 section 6.8.3).
    pub(super) fn intervals(&self, state: State) -> Intervals {
        let desired_min_tx = match state {
            State::Up => self.desired_min_tx,
            State::AdminDown | State::Down | State::Init => self.desired_min_tx.max(Interval::SLOW),
        };
        Intervals { desired_min_tx, required_min_rx: self.required_min_rx }
    }
}
