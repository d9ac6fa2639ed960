//! The proof that a change of what is originated was handed to TCP.
//!
//! Each peer task publishes the highest version of its desired set that is done with: written to the socket, or
//! without a session to write to. A receipt waits for that number on each peer; it holds no task's state.
use tokio::sync::watch;

/// Resolves once a change was handed to TCP on every peer that was Established.
///
/// A peer that is down, goes down or is removed counts as done. There is no deadline in here: a peer that does
/// not read can pin a receipt until its send hold timer expires, so callers put their own around it.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    pub(crate) waits: Vec<(watch::Receiver<u64>, u64)>,
}

impl Receipt {
    /// Waits for the flush. Cancel-safe: a dropped wait can be started again.
    pub async fn flushed(&self) {
        for (flushed, version) in &self.waits {
            // An error means that the peer's task ended: the peer was removed or the speaker stopped.
            let _ = flushed.clone().wait_for(|flushed| flushed >= version).await;
        }
    }

    /// Whether the flush is over already.
    pub fn is_flushed(&self) -> bool {
        self.waits
            .iter()
            .all(|(flushed, version)| *flushed.borrow() >= *version || flushed.has_changed().is_err())
    }
}
