//! What a peer leaves behind when its session is lost, and how long that stays.
//!
//! First its restart time (RFC 4724 section 4.2), when its routes are as good as before; then, where it asked for
//! that, its long-lived stale time, when they are a last resort (RFC 9494 section 4.2). Each family has its own
//! time. Owns only times: the routes are in the [`AdjRibIn`] that each call is given, and the changes come back.
use std::time::{Duration, Instant};

use super::{DownReason, Negotiated};
use crate::{
    AfiSafi,
    rib::{AdjRibIn, Change},
};

/// What the stale routes of one family wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The peer is to be back, then to have told everything; after that they stay so much longer, or go.
    Restart { until: Instant, then: Option<Duration> },
    /// They go.
    LongLived { until: Instant },
    /// As `Restart`, but it was us who ended the session to build it anew.
    Held { until: Instant },
}

impl Stage {
    fn until(self) -> Instant {
        match self {
            Stage::Restart { until, .. } | Stage::LongLived { until } | Stage::Held { until } => until,
        }
    }
}

/// How long the stale routes of one peer stay.
#[derive(Debug, Default)]
pub struct Retention {
    stages: [Option<Stage>; AfiSafi::ALL.len()],
    /// We end the session ourselves and wait so long for the next: the peer goes on forwarding, whatever it says
    /// of restarts.
    held: Option<Duration>,
    /// Until when the peer is to end a refresh that it began (RFC 7313).
    refreshes: [Option<Instant>; AfiSafi::ALL.len()],
}

impl Retention {
    /// The session is about to be ended to be built anew: everything stays for `patience`, and as long again for
    /// the peer to tell everything.
    pub fn hold(&mut self, now: Instant, patience: Duration, rib: &mut AdjRibIn) -> Vec<Change> {
        self.held = Some(patience);
        self.refreshes = Default::default();
        let mut changes = Vec::new();
        for (family, stage) in AfiSafi::ALL.into_iter().zip(&mut self.stages) {
            changes.extend(rib.mark_stale(family));
            *stage = (rib.stale(family) > 0).then_some(Stage::Held { until: now + patience });
        }
        changes
    }

    /// The session was lost: keeps what may be kept.
    pub fn session_down(
        &mut self,
        now: Instant,
        reason: &DownReason,
        negotiated: &Negotiated,
        rib: &mut AdjRibIn,
    ) -> Vec<Change> {
        self.refreshes = Default::default();
        if self.held.is_some() {
            return Vec::new();
        }
        let retained = negotiated.retained_families();
        let keep = |family| reason.retains_routes(negotiated) && retained.contains(family);
        let mut changes = Vec::new();
        for (family, stage) in AfiSafi::ALL.into_iter().zip(&mut self.stages) {
            changes.extend(if keep(family) { rib.mark_stale(family) } else { rib.clear(family) });
            let until = now + negotiated.restart_time();
            let then = negotiated.long_lived_stale_time(family);
            *stage = (rib.stale(family) > 0).then_some(Stage::Restart { until, then });
        }
        changes
    }

    /// The peer is back. Stale routes wait on where it says that it forwarded all the time, and go where it does
    /// not. The restart time was for coming back; as much again is for telling everything. A long-lived stale
    /// time goes on as it is.
    pub fn session_up(&mut self, now: Instant, negotiated: &Negotiated, rib: &mut AdjRibIn) -> Vec<Change> {
        let restarted = negotiated.retained_families().intersection(negotiated.forwarding_preserved());
        let long_lived = negotiated.long_lived_preserved().intersection(negotiated.retained_families());
        let held = self.held.take();
        let mut changes = Vec::new();
        for (family, stage) in AfiSafi::ALL.into_iter().zip(&mut self.stages) {
            *stage = match (*stage, held) {
                (Some(Stage::Restart { .. }), _) if restarted.contains(family) => {
                    let until = now + negotiated.restart_time();
                    Some(Stage::Restart { until, then: None })
                }
                (Some(Stage::LongLived { until }), _) if long_lived.contains(family) => {
                    Some(Stage::LongLived { until })
                }
                (Some(Stage::Held { .. }), Some(patience)) if negotiated.families.contains(family) => {
                    Some(Stage::Held { until: now + patience })
                }
                (Some(Stage::Restart { .. } | Stage::LongLived { .. } | Stage::Held { .. }) | None, _) => {
                    changes.extend(rib.sweep_stale(family));
                    None
                }
            };
        }
        changes
    }

    /// The peer has told all of `family`: what it did not tell again goes.
    pub fn end_of_rib(&mut self, family: AfiSafi, rib: &mut AdjRibIn) -> Vec<Change> {
        for (other, stage) in AfiSafi::ALL.into_iter().zip(&mut self.stages) {
            if other == family {
                *stage = None;
            }
        }
        rib.sweep_stale(family)
    }

    /// The peer begins to tell all of `family` again (RFC 7313), for which it has `limit`: one that never says the end
    /// would leave for ever what it no longer means (section 4.2 asks for such a bound). A second beginning counts
    /// alone.
    pub fn begin_refresh(&mut self, now: Instant, limit: Duration, family: AfiSafi, rib: &mut AdjRibIn) {
        rib.begin_refresh(family);
        self.refreshes[family.place()] = Some(now + limit);
    }

    /// The peer has told all of `family` again: what it did not tell goes.
    pub fn end_refresh(&mut self, family: AfiSafi, rib: &mut AdjRibIn) -> Vec<Change> {
        self.refreshes[family.place()] = None;
        rib.end_refresh(family)
    }

    /// The peer is another one now, or gone for good.
    pub fn clear(&mut self) {
        *self = Retention::default();
    }

    /// When [`Retention::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stages = self.stages.iter().flatten().map(|stage| stage.until());
        stages.chain(self.refreshes.iter().flatten().copied()).min()
    }

    /// A time may have run out: routes become the last resort, or go. A refresh that is not ended by then is taken for
    /// ended.
    pub fn handle_timeout(&mut self, now: Instant, rib: &mut AdjRibIn) -> Vec<Change> {
        let mut changes = Vec::new();
        for (family, limit) in AfiSafi::ALL.into_iter().zip(&mut self.refreshes) {
            if limit.take_if(|limit| *limit <= now).is_some() {
                changes.extend(rib.end_refresh(family));
            }
        }
        for (family, stage) in AfiSafi::ALL.into_iter().zip(&mut self.stages) {
            let Some(due) = stage.take_if(|stage| stage.until() <= now) else { continue };
            match due {
                Stage::Restart { until, then: Some(longer) } => {
                    changes.extend(rib.mark_long_lived(family));
                    let next = Stage::LongLived { until: until + longer };
                    *stage = (rib.stale(family) > 0).then_some(next);
                }
                Stage::Restart { then: None, .. } | Stage::LongLived { .. } | Stage::Held { .. } => {
                    self.held = None;
                    changes.extend(rib.sweep_stale(family));
                }
            }
        }
        changes
    }
}
