//! The TCP-AO keys of a peer's connections (RFC 5925), as they follow the configuration and the peer.
//!
//! The kernel has no event for a peer that begins to use another key, so while a change waits for that the connections
//! are looked at every second, and else now and then for the status.
use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{Peer, now};
use crate::tcp_ao::roll::Then;

const WHILE_ROLLING: Duration = Duration::from_secs(1);
const FOR_THE_STATUS: Duration = Duration::from_secs(5);

impl Peer {
    /// When to look again.
    pub(super) fn keys_timeout(&self) -> Option<Instant> {
        self.look_at_keys.filter(|_| self.connections.iter().any(|(_, c)| !c.keys.is_empty()))
    }

    /// Looks, if it is time.
    pub(super) fn handle_keys_timeout(&mut self, now: Instant) {
        if self.keys_timeout().is_some_and(|at| at <= now) {
            self.look_at_keys();
        }
    }

    /// Takes each connection as far towards the configured keys as can be now.
    pub(super) fn look_at_keys(&mut self) {
        let Some(wanted) = self.config.tcp_ao.clone() else { return };
        let established = self.session.established().map(|(id, _)| id);
        let (mut interval, mut impossible) = (FOR_THE_STATUS, false);
        for (id, connection) in self.connections.iter_mut().filter(|(_, c)| !c.keys.is_empty()) {
            let look = connection.keys.look(connection.stream.as_fd(), self.config.peer_address, &wanted);
            let look = match look {
                Ok(look) => look,
                Err(error) => {
                    // A connection that is ending says so itself; the keys on it are as good as they were.
                    warn!(peer = %self.name, %error, "cannot change the connection's TCP-AO keys");
                    interval = interval.min(WHILE_ROLLING);
                    continue;
                }
            };
            for done in look.done {
                info!(peer = %self.name, "TCP-AO: {done}");
            }
            match look.then {
                Then::Done => {}
                Then::LookAgain => interval = interval.min(WHILE_ROLLING),
                Then::Impossible => impossible = true,
            }
            if established == Some(*id) {
                self.record.tcp_ao = Some(look.state);
            }
        }
        self.look_at_keys = Some(now() + interval);
        if impossible {
            warn!(peer = %self.name, "no new TCP-AO key can stand beside those in use; the session is built anew");
            self.begin_anew(&["tcpAO.keys"]);
        }
    }

    /// The place of the key with which the next connection begins: another one after each attempt that came to
    /// nothing, since the peer may not know the first yet, or no longer the last. A SYN with a key that the peer does
    /// not have is never answered.
    pub(super) fn begin_with_next_key(&mut self) {
        self.begin_with = self.begin_with.wrapping_add(1);
    }
}
