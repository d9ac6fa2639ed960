//! The Poll Sequence (RFC 5880 sections 6.5 and 6.8.3): knowing that the peer has heard of new intervals.
//!
//! A Final bit does not say which Poll it answers. So a change that comes while a Poll is out is polled for in a
//! sequence of its own, and no sequence begins until a packet without the Final bit followed the one before, one of
//! the ways that section 6.8.3 offers to keep them apart.

/// Where we are in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Poll {
    /// The peer knows our intervals.
    #[default]
    Idle,
    /// What we send carries the Poll bit.
    Active {
        /// Whether a packet with these intervals and the Poll bit has left.
        sent: bool,
        /// Whether the intervals changed after that.
        again: bool,
    },
    /// The Final bit came; further answers to the same sequence may be on their way.
    Settling {
        /// Whether the intervals changed meanwhile.
        again: bool,
    },
}

impl Poll {
    /// The intervals changed.
    pub(crate) fn request(&mut self) {
        *self = match *self {
            Poll::Idle => Poll::Active { sent: false, again: false },
            Poll::Active { sent, .. } => Poll::Active { sent, again: sent },
            Poll::Settling { .. } => Poll::Settling { again: true },
        }
    }

    /// Whether packets carry the Poll bit.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, Poll::Active { .. })
    }

    /// A packet with the Poll bit leaves.
    pub(crate) fn handle_sent(&mut self) {
        if let Poll::Active { sent, .. } = self {
            *sent = true;
        }
    }

    /// A packet with this Final bit came; gives whether the peer is now known to have heard our present intervals.
    pub(crate) fn handle_received(&mut self, is_final: bool) -> bool {
        let (next, confirmed) = match (*self, is_final) {
            (Poll::Active { sent: true, again }, true) => (Poll::Settling { again }, !again),
            (Poll::Active { sent: false, .. }, true) | (Poll::Active { .. }, false) => (*self, false),
            (Poll::Settling { again: true }, false) => (Poll::Active { sent: false, again: false }, false),
            (Poll::Settling { again: false }, false) => (Poll::Idle, false),
            (Poll::Idle | Poll::Settling { .. }, _) => (*self, false),
        };
        *self = next;
        confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active() -> Poll {
        let mut poll = Poll::Idle;
        poll.request();
        poll.handle_sent();
        poll
    }

    #[test]
    fn the_final_bit_ends_a_sequence_once() {
        let mut poll = active();
        assert!(!poll.handle_received(false) && poll.is_active());
        assert!(poll.handle_received(true) && !poll.is_active());
        assert!(!poll.handle_received(true));
        assert!(!poll.handle_received(false));
        assert_eq!(poll, Poll::Idle);
    }

    #[test]
    fn a_final_bit_before_we_asked_confirms_nothing() {
        let mut poll = Poll::Idle;
        assert!(!poll.handle_received(true));
        poll.request();
        assert!(!poll.handle_received(true) && poll.is_active());
    }

    #[test]
    fn changes_before_the_first_packet_share_a_sequence() {
        let mut poll = Poll::Idle;
        poll.request();
        poll.request();
        poll.handle_sent();
        assert!(poll.handle_received(true));
    }

    #[test]
    fn a_change_during_a_sequence_gets_its_own() {
        let mut poll = active();
        poll.request();
        assert!(!poll.handle_received(true) && !poll.is_active());
        assert!(!poll.handle_received(true) && !poll.is_active(), "a late answer to the first");
        assert!(!poll.handle_received(false) && poll.is_active());
        poll.handle_sent();
        assert!(poll.handle_received(true));
    }

    #[test]
    fn a_change_while_answers_may_be_late_waits() {
        let mut poll = active();
        assert!(poll.handle_received(true));
        poll.request();
        assert!(!poll.is_active());
        assert!(!poll.handle_received(false) && poll.is_active());
    }
}
