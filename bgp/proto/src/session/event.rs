//! What goes in and comes out of a session, other than bytes and time.
use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{Negotiated, State, fsm};
use crate::{
    AfiSafi,
    wire::{CeaseReason, Finding, Notification, Update},
};

/// One TCP connection, or the attempt to make one. Never used twice within a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the driver has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a TCP connection to the peer; then `handle_connected` or `handle_connect_failed`.
    Connect(ConnectionId),
    /// Send the bytes after all that was sent before on this connection.
    Send(ConnectionId, Bytes),
    /// Send what is left and close the connection, or give up the attempt. The session has forgotten it already.
    Close(ConnectionId),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The state of the session, the more advanced of both connections.
    StateChanged {
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// Routes may flow over this connection.
    Established(ConnectionId, Arc<Negotiated>),
    /// The Established session is gone; `retains_routes` of the reason says whether its routes may stay.
    Down(DownReason),
    /// A connection ended before it was Established.
    Failed(DownReason),
    /// The peer sent an UPDATE; with what RFC 7606 found in it.
    Update(Update, Vec<Finding>),
    /// The peer asks for all routes of a family again (RFC 2918).
    RefreshRequested(AfiSafi),
    /// The peer begins to send all routes of a family again; what it does not send until the end is gone
    /// (RFC 7313).
    RefreshBegan(AfiSafi),
    /// The peer has sent all routes of a family again.
    RefreshEnded(AfiSafi),
}

/// Why a session is stopped on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Tell the peer: Cease with this reason, and a text for its operator (RFC 9003), 255 octets at most. Whether the
    /// peer keeps our routes where both sides keep them over a NOTIFICATION (RFC 8538) depends on the reason.
    Cease(CeaseReason, String),
    /// The same, and the peer is to drop our routes even where both sides keep them over a NOTIFICATION: then it is
    /// wrapped in a Hard Reset (RFC 8538 section 3).
    HardReset(CeaseReason, String),
    /// Close TCP without NOTIFICATION, so that a peer with graceful restart keeps our routes (RFC 4724).
    Retain,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// We were told to stop.
    Stopped(StopReason),
    /// We sent a NOTIFICATION about an error.
    NotificationSent(Notification),
    /// The peer sent a NOTIFICATION.
    NotificationReceived(Notification),
    /// TCP failed or was closed.
    ConnectionLost,
    /// The peer did not take what we sent for too long (RFC 9687).
    SendHoldTimerExpired,
    /// The other connection to the same peer was kept (RFC 4271 section 6.8).
    Collision,
    /// The peer restarted and is back on a new connection (RFC 4724 section 5).
    PeerRestarted,
}

impl DownReason {
    /// The NOTIFICATION that ended a session with what was `negotiated`, as it was sent or received.
    pub fn notification(&self, negotiated: &Negotiated) -> Option<Notification> {
        match self {
            DownReason::NotificationSent(sent) => Some(sent.clone()),
            DownReason::NotificationReceived(received) => Some(received.clone()),
            DownReason::Stopped(reason) => fsm::farewell(Some(negotiated), reason),
            DownReason::Collision => Some(fsm::collision_cease()),
            DownReason::SendHoldTimerExpired => Some(Notification::send_hold_timer_expired()),
            DownReason::ConnectionLost | DownReason::PeerRestarted => None,
        }
    }

    /// Whether the peer's routes may stay until it is back (RFC 4724 section 4.2, RFC 8538 section 3).
    pub fn retains_routes(&self, negotiated: &Negotiated) -> bool {
        let Some(peer) = &negotiated.graceful_restart else { return false };
        let both_n = peer.notification && negotiated.local_notification_restart();
        match self {
            DownReason::ConnectionLost | DownReason::PeerRestarted | DownReason::SendHoldTimerExpired => true,
            DownReason::NotificationSent(sent) => both_n && !is_hard_reset(sent),
            DownReason::NotificationReceived(received) => both_n && !is_hard_reset(received),
            DownReason::Stopped(_) | DownReason::Collision => false,
        }
    }
}

fn is_hard_reset(notification: &Notification) -> bool {
    notification.cease_reason() == Some(CeaseReason::HardReset)
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Stopped(StopReason::Retain) => f.write_str("closed without NOTIFICATION, to be back"),
            DownReason::Stopped(StopReason::Cease(_, text) | StopReason::HardReset(_, text)) => {
                f.write_str(if text.is_empty() { "stopped" } else { text })
            }
            DownReason::NotificationSent(sent) => write!(f, "sent NOTIFICATION: {sent}"),
            DownReason::NotificationReceived(received) => write!(f, "received NOTIFICATION: {received}"),
            DownReason::ConnectionLost => f.write_str("TCP connection lost"),
            DownReason::SendHoldTimerExpired => {
                f.write_str("send hold timer expired: the peer does not read")
            }
            DownReason::Collision => f.write_str("the other connection to the peer was kept"),
            DownReason::PeerRestarted => f.write_str("the peer restarted"),
        }
    }
}

/// Why an incoming connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The session is stopped.
    #[error("the session is stopped")]
    Stopped,
}
