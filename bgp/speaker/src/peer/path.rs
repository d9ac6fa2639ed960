//! The peer's task and the state of the path to the peer (RFC 5882 section 4).
//!
//! A path that fails ends the session at once, and with it what the peer taught: graceful restart is for a control
//! plane that restarts while packets flow, and here none do. The one exception is section 4.3.2's: a peer that is
//! restarting already and whose BFD may share the fate of its control plane loses BFD because it restarts.
//!
//! Then the session waits until the path works again, or until nothing says any more that it does not; else a path
//! that loses packets would have BGP come and go. It does not wait for ever: a peer whose BFD was taken away without a
//! word would otherwise never be asked again.
use std::time::Duration;

use plainroute_bgp::{
    record::Input,
    session::{DownReason, StopReason},
    wire::CeaseReason,
};
use tracing::{info, warn};

use super::{Peer, now};
use crate::{PathState, status::Telling};

/// How long a path that failed keeps BGP from being tried.
const WAIT_FOR_PATH: Duration = Duration::from_secs(30);

impl Peer {
    /// Takes what is said of the path now.
    pub(super) fn take_path(&mut self) {
        let path = self.inputs.paths.borrow_and_update().get(&self.name).cloned().unwrap_or_default();
        let before = std::mem::replace(&mut self.record.path, path);
        match (&before, &self.record.path) {
            (PathState::Down { .. }, PathState::Down { .. }) => {}
            (
                PathState::Unknown | PathState::Up | PathState::AdminDown,
                PathState::Down { reason, control_plane_independent },
            ) => {
                let (reason, independent) = (reason.clone(), *control_plane_independent);
                self.path_failed(&reason, independent);
            }
            (PathState::Down { .. }, PathState::Unknown | PathState::Up | PathState::AdminDown) => {
                self.stop_waiting_for_path();
            }
            (
                PathState::Unknown | PathState::Up | PathState::AdminDown,
                PathState::Unknown | PathState::Up | PathState::AdminDown,
            ) => {}
        }
    }

    fn path_failed(&mut self, reason: &str, independent: bool) {
        if self.leaving.is_some() {
            return;
        }
        if self.session.established().is_none() && self.peer_restarts && !independent {
            info!(peer = %self.name, %reason, "BFD: down, as is to be expected of a peer that restarts; its routes stay");
            return;
        }
        let text = format!("BFD: the path is down ({reason})");
        warn!(peer = %self.name, "{text}");
        self.input(Input::Stop(StopReason::Cease(CeaseReason::BfdDown, text.clone())));
        self.drain();
        self.inbound.clear();
        self.record.set_error(text, Telling::Cause);
        self.path_awaited = Some(now() + WAIT_FOR_PATH);
    }

    /// The path works, or nobody says that it does not, or it was waited for long enough.
    pub(super) fn stop_waiting_for_path(&mut self) {
        if self.path_awaited.take().is_some() && self.resume_at.is_none() {
            self.start();
        }
    }

    /// A session was lost: whether that looks like a restart of the peer, which closes its connection without a word.
    pub(super) fn note_restart(&mut self, reason: &DownReason) {
        self.peer_restarts = match reason {
            DownReason::ConnectionLost | DownReason::PeerRestarted => true,
            DownReason::Stopped(_)
            | DownReason::NotificationSent(_)
            | DownReason::NotificationReceived(_)
            | DownReason::SendHoldTimerExpired
            | DownReason::Collision => false,
        } && self.inbound.is_retaining();
    }
}
