//! Pods whose readiness comes and goes, without I/O: each loss of readiness counts, what was counted fades, and a Pod that has
//! too much of it is held back until it has calmed down (the figure of merit of RFC 2439, for one Pod in place of a route).
//!
//! Owner of what was counted. A restart forgets it.
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use plainroute_config::Pod;

/// What one loss of readiness counts.
const LOSS: f64 = 1000.0;
/// A Pod is held back from here on: at the third loss within about half a minute.
const HOLD: f64 = 2500.0;
/// And again let go below this.
const RELEASE: f64 = 1000.0;
/// In this time what was counted fades to half.
const HALF_LIFE: SignedDuration = SignedDuration::from_secs(60);
/// Beyond this no loss counts: a Pod that calms down is back after some minutes, whatever it did before.
const MOST: f64 = 32_000.0;

/// Since when a Pod is held back, and until when unless it loses its readiness again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damped {
    /// When its readiness went last.
    pub last_loss: Timestamp,
    /// When it will have calmed down.
    pub until: Timestamp,
}

/// A Pod by namespace, name and UID: one that is made anew starts anew.
pub type PodKey = (String, String, Option<String>);

/// The key of a Pod.
pub fn key(pod: &Pod) -> PodKey {
    (pod.namespace().to_owned(), pod.name().to_owned(), pod.metadata.uid.clone())
}

/// How restless one Pod is.
#[derive(Debug)]
struct Restless {
    ready: bool,
    ready_since: Option<Timestamp>,
    /// What was counted, as of `counted_at`.
    count: f64,
    counted_at: Timestamp,
    held_back: bool,
}

/// How restless Pods are.
#[derive(Debug, Default)]
pub struct Flaps(BTreeMap<PodKey, Restless>);

impl Flaps {
    /// Looks at all Pods of this node.
    pub fn handle_pods<'a>(&mut self, pods: impl Iterator<Item = &'a Pod>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.0);
        for pod in pods {
            let key = key(pod);
            let fresh = || Restless {
                ready: pod.ready,
                ready_since: pod.ready_since,
                count: 0.0,
                counted_at: now,
                held_back: false,
            };
            let mut restless = before.remove(&key).unwrap_or_else(fresh);
            restless.handle(pod, now);
            self.0.insert(key, restless);
        }
    }

    /// The Pods that are held back now.
    pub fn damped(&mut self, now: Timestamp) -> BTreeMap<PodKey, Damped> {
        let restless =
            self.0.iter_mut().filter_map(|(key, restless)| Some((key.clone(), restless.damped(now)?)));
        restless.collect()
    }
}

impl Restless {
    fn handle(&mut self, pod: &Pod, now: Timestamp) {
        // A Pod that was not ready in between, for too short a time to be seen so, has been ready since another time.
        let unseen =
            self.ready && pod.ready && self.ready_since.is_some() && pod.ready_since != self.ready_since;
        let lost = (self.ready && !pod.ready && !pod.is_terminating()) || unseen;
        if lost {
            self.count = (self.faded(now) + LOSS).min(MOST);
            self.counted_at = now;
            self.held_back |= self.count >= HOLD;
        }
        self.ready = pod.ready;
        self.ready_since = pod.ready_since;
    }

    fn faded(&self, now: Timestamp) -> f64 {
        let passed = now.duration_since(self.counted_at).max(SignedDuration::ZERO);
        self.count * (-passed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }

    fn damped(&mut self, now: Timestamp) -> Option<Damped> {
        if !self.held_back {
            return None;
        }
        let calm = HALF_LIFE.as_secs_f64() * (self.count / RELEASE).log2();
        let calm = SignedDuration::try_from_secs_f64(calm.max(0.0)).unwrap_or_default();
        let until = self.counted_at.checked_add(calm).unwrap_or(Timestamp::MAX);
        self.held_back = until > now;
        self.held_back.then_some(Damped { last_loss: self.counted_at, until })
    }
}

#[cfg(test)]
mod tests {
    use plainroute_config::Metadata;
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn pod(uid: &str, ready: bool) -> Pod {
        let metadata = Metadata { uid: Some(uid.to_owned()), ..Metadata::named("web") };
        Pod { metadata, ready, ..Pod::default() }
    }

    fn at(seconds: i64) -> Timestamp {
        START + SignedDuration::from_secs(seconds)
    }

    /// Shows the Pod as it is at each second, and tells since when and until when it is held back at the end.
    fn shown(states: &[(i64, bool)]) -> (Flaps, Option<Damped>) {
        let mut flaps = Flaps::default();
        for (second, ready) in states {
            flaps.handle_pods([pod("u", *ready)].iter(), at(*second));
        }
        let now = states.last().map_or(START, |(second, _)| at(*second));
        let damped = flaps.damped(now).into_values().next();
        (flaps, damped)
    }

    const THREE: [(i64, bool); 6] = [(0, true), (1, false), (2, true), (3, false), (4, true), (5, false)];

    #[test]
    fn a_third_loss_in_short_order_holds_back_until_it_has_faded() {
        assert_eq!(shown(&THREE[..5]).1, None, "two are not enough");
        let (mut flaps, damped) = shown(&THREE);
        let damped = damped.expect("three are");
        assert_eq!(damped.last_loss, at(5));
        // 1000 * (2^(-4/60) + 2^(-2/60) + 1) = 2932, which is 1000 after 93 s.
        assert_eq!(damped.until.duration_since(at(5)).as_secs(), 93);
        assert_eq!(flaps.damped(damped.until - SignedDuration::from_secs(1)).len(), 1);
        assert_eq!(flaps.damped(damped.until).len(), 0);
        flaps.handle_pods([pod("u", true)].iter(), at(100));
        flaps.handle_pods([pod("u", false)].iter(), at(101));
        assert_eq!(flaps.damped(at(101)).len(), 0, "1991 and no more: what was let go is let go");
    }

    #[test]
    fn losses_far_apart_do_not_add_up() {
        let slow: Vec<(i64, bool)> = (0..20).map(|turn| (turn * 60, turn % 2 == 0)).collect();
        assert_eq!(shown(&slow).1, None);
    }

    #[test]
    fn a_loss_that_was_too_short_to_be_seen_counts() {
        let mut flaps = Flaps::default();
        for second in 0..4 {
            let pod = Pod { ready_since: Some(at(second)), ..pod("u", true) };
            flaps.handle_pods([pod].iter(), at(second));
        }
        assert_eq!(flaps.damped(at(4)).len(), 1);
    }

    #[test]
    fn a_pod_that_is_made_anew_or_ends_is_not_restless() {
        let (mut flaps, _) = shown(&THREE);
        flaps.handle_pods([pod("other", true)].iter(), at(6));
        assert_eq!(flaps.damped(at(6)).len(), 0);
        let mut ending = pod("u", false);
        ending.metadata.deletion_timestamp = Some(at(0));
        let mut flaps = Flaps::default();
        for second in 0..20 {
            ending.ready = second % 2 == 0;
            flaps.handle_pods([ending.clone()].iter(), at(second));
        }
        assert_eq!(flaps.damped(at(20)).len(), 0);
    }

    proptest! {
        #[test]
        fn whatever_it_did_a_calm_pod_is_back_within_five_minutes(
            states in prop::collection::vec((0..20_i64, any::<bool>()), 1..200),
        ) {
            let mut second = 0;
            let states: Vec<_> = states.into_iter().map(|(step, ready)| { second += step; (second, ready) }).collect();
            let (mut flaps, damped) = shown(&states);
            if let Some(damped) = damped {
                prop_assert!(damped.until <= at(second + 301));
                prop_assert!(damped.until > at(second));
            }
            prop_assert!(flaps.damped(at(second + 301)).is_empty());
        }
    }
}
