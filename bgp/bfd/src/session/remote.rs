//! What the peer said in its last packet.
use std::{
    num::NonZeroU8,
    time::{Duration, Instant},
};

use crate::{ControlPacket, Diagnostic, Discriminator, Interval, State};

/// What the peer last said (the bfd.Remote variables of RFC 5880 section 6.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// By what it knows the session (bfd.RemoteDiscr).
    pub discriminator: Discriminator,
    /// Its state (bfd.RemoteSessionState).
    pub state: State,
    /// Why its state last changed.
    pub diagnostic: Diagnostic,
    /// Whether it wants no periodic packets while both ends are Up (bfd.RemoteDemandMode).
    pub demand: bool,
    /// Whether its BFD survives its control plane.
    pub control_plane_independent: bool,
    /// How many of its packets in a row we may miss.
    pub detect_multiplier: NonZeroU8,
    /// How fast it would like to send; none where it sent the reserved zero.
    pub desired_min_tx: Option<Interval>,
    /// How fast it can receive; none where it wants no periodic packets (bfd.RemoteMinRxInterval).
    pub required_min_rx: Option<Interval>,
    /// When the packet came.
    pub heard_at: Instant,
}

impl Remote {
    pub(super) fn said(packet: &ControlPacket, heard_at: Instant) -> Remote {
        Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            control_plane_independent: packet.control_plane_independent,
            detect_multiplier: packet.detect_multiplier,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            heard_at,
        }
    }

    /// Its multiplier times the interval at which it sends, which is the slower of what it would like and what we
    /// accept (RFC 5880 section 6.8.4).
    pub(super) fn detection_time(&self, required_min_rx: Interval) -> Duration {
        let agreed = self.desired_min_tx.map_or(required_min_rx, |desired| desired.max(required_min_rx));
        agreed.as_duration() * u32::from(self.detect_multiplier.get())
    }
}
