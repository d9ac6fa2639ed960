//! How long a lost peer's routes stay: graceful restart (RFC 4724) and its long-lived kind (RFC 9494).
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_bgp::{
    AfiSafi, Asn, Community, Families, Prefix,
    policy::{Accepted, ImportPolicy, ImportRule, PrefixRule},
    rib::{AdjRibIn, Identity},
    session::{DownReason, GracefulRestartConfig, Negotiated, Retention, SessionConfig},
    wire::{AsPath, LongLivedFamily, NextHop, PathAttributes, Reach, Update},
};

use crate::pair::{A, Pair, config};

const V4: AfiSafi = AfiSafi::Ipv4Unicast;
const RESTART: Duration = Duration::from_secs(120);
const STALE: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

fn graceful(long_lived_stale_time: u32, config: SessionConfig) -> SessionConfig {
    let restart = GracefulRestartConfig { restart_time: 120, notification: false, long_lived_stale_time };
    SessionConfig { graceful_restart: Some(restart), forwarding_preserved: Families::ALL, ..config }
}

/// What A agrees on with a B that offers this long-lived stale time.
fn negotiated(stale_time: u32) -> Negotiated {
    let mut pair = Pair::new(graceful(0, config(1, 2, 10)), graceful(stale_time, config(2, 1, 20)));
    pair.start_both();
    pair.run_until(Duration::from_secs(1), Pair::established);
    Negotiated::clone(pair.sides[A].session.established().expect("established").1)
}

/// A peer's routes: two ordinary ones, and one that asks not to be kept for long.
struct Kept {
    rib: AdjRibIn,
    retention: Retention,
    now: Instant,
    policy: ImportPolicy,
}

const PLAIN: &str = "10.0.0.0/24";
const OTHER: &str = "10.0.1.0/24";
const NOT_LONG: &str = "10.0.2.0/24";

impl Kept {
    fn new() -> Kept {
        let all = PrefixRule::new("0.0.0.0/0".parse().unwrap(), Some(0), None).unwrap();
        let identity =
            Identity { asn: Asn::new(1).unwrap(), router_id: plainroute_bgp::RouterId::new(10).unwrap() };
        #[expect(clippy::disallowed_methods, reason = "the origin of the virtual clock")]
        let now = Instant::now();
        let mut kept = Kept {
            rib: AdjRibIn::new(identity, None),
            retention: Retention::default(),
            now,
            policy: ImportPolicy::new(vec![ImportRule::accept(
                all,
                Accepted { install: true, local_pref: None },
            )]),
        };
        kept.announce(&[PLAIN, OTHER], &[]);
        kept.announce(&[NOT_LONG], &[Community::NO_LLGR]);
        kept
    }

    fn announce(&mut self, prefixes: &[&str], communities: &[Community]) {
        let attributes = PathAttributes {
            as_path: AsPath::sequence([Asn::new(2).unwrap()]),
            communities: communities.to_vec(),
            ..PathAttributes::default()
        };
        let nlri = prefixes.iter().map(|text| text.parse::<Prefix>().unwrap().into()).collect();
        let next_hop = NextHop::V4([192, 0, 2, 1].into());
        let reach = vec![Reach { family: V4, next_hop, nlri }];
        let update = Update { reach, attributes: Arc::new(attributes), ..Update::default() };
        self.rib.apply(&update, &self.policy);
    }

    fn down(&mut self, negotiated: &Negotiated) {
        self.retention.session_down(self.now, &DownReason::ConnectionLost, negotiated, &mut self.rib);
    }

    fn up(&mut self, negotiated: &Negotiated) {
        self.retention.session_up(self.now, negotiated, &mut self.rib);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.retention.handle_timeout(self.now, &mut self.rib);
    }

    /// Each route that is held, with whether it is long-lived stale.
    fn held(&self) -> Vec<(String, bool)> {
        let route = |(nlri, received): (plainroute_bgp::wire::Nlri, plainroute_bgp::rib::Received)| {
            let communities = &received.route.attributes.communities;
            (nlri.prefix.to_string(), communities.contains(&Community::LLGR_STALE))
        };
        self.rib.iter().map(route).collect()
    }

    fn names(&self) -> Vec<String> {
        self.held().into_iter().map(|(prefix, _)| prefix).collect()
    }
}

#[test]
fn without_long_lived_restart_routes_go_after_the_restart_time_rfc_4724() {
    let mut kept = Kept::new();
    kept.down(&negotiated(0));
    kept.pass(RESTART - MOMENT);
    assert_eq!(kept.rib.stale(V4), 3);
    kept.pass(MOMENT);
    assert!(kept.rib.is_empty());
    assert_eq!(kept.retention.poll_timeout(), None);
}

#[test]
fn long_lived_routes_become_the_last_resort_and_go_in_the_end_rfc_9494() {
    let mut kept = Kept::new();
    kept.down(&negotiated(3600));
    kept.pass(RESTART - MOMENT);
    assert!(kept.held().iter().all(|(_, marked)| !marked), "as good as before within the restart time");
    kept.pass(MOMENT);
    // NO_LLGR: gone; the others carry LLGR_STALE.
    assert_eq!(kept.held(), [(PLAIN.to_owned(), true), (OTHER.to_owned(), true)]);
    kept.pass(STALE - MOMENT);
    assert_eq!(kept.names().len(), 2);
    kept.pass(MOMENT);
    assert!(kept.rib.is_empty());
}

#[test]
fn what_the_peer_tells_again_is_fresh_and_the_rest_goes_at_end_of_rib_rfc_9494() {
    let agreed = negotiated(3600);
    let mut kept = Kept::new();
    kept.down(&agreed);
    kept.pass(RESTART + MOMENT);
    kept.up(&agreed);
    kept.announce(&[PLAIN], &[]);
    assert_eq!(kept.held(), [(PLAIN.to_owned(), false), (OTHER.to_owned(), true)]);
    kept.retention.end_of_rib(V4, &mut kept.rib);
    assert_eq!(kept.held(), [(PLAIN.to_owned(), false)]);
    assert_eq!(kept.retention.poll_timeout(), None);
}

#[test]
fn a_peer_back_without_its_forwarding_state_loses_its_long_lived_routes_rfc_9494() {
    for preserved in [true, false] {
        let agreed = negotiated(3600);
        let mut kept = Kept::new();
        kept.down(&agreed);
        kept.pass(RESTART + MOMENT);
        let family = |said: &LongLivedFamily| LongLivedFamily { forwarding_preserved: preserved, ..*said };
        let long_lived = agreed.long_lived.iter().map(family).collect();
        kept.up(&Negotiated { long_lived, ..agreed });
        assert_eq!(kept.names().len(), if preserved { 2 } else { 0 });
    }
}

#[test]
fn a_helper_that_offers_no_time_of_its_own_still_helps_rfc_9494() {
    // A offers no stale time, B does: A keeps B's routes, and B none of A's for longer.
    let agreed = negotiated(3600);
    assert_eq!(agreed.long_lived_stale_time(V4), Some(STALE));
    assert_eq!(agreed.local_open.long_lived(), Some(&[][..]));
    assert_eq!(negotiated(0).long_lived_stale_time(V4), None);
}

#[test]
fn long_lived_restart_means_nothing_without_graceful_restart_rfc_9494() {
    let mut open = negotiated(3600).peer_open;
    assert_eq!(open.long_lived().map(<[_]>::len), Some(2));
    open.capabilities.retain(|c| !matches!(c, plainroute_bgp::wire::Capability::GracefulRestart(_)));
    assert_eq!(open.long_lived(), None);
}

#[test]
fn routes_held_over_a_session_that_we_rebuild_stay_for_a_moment() {
    let moment = Duration::from_secs(10);
    // Even a peer that has not heard of graceful restart.
    let agreed = Negotiated { graceful_restart: None, ..negotiated(0) };
    let mut kept = Kept::new();
    kept.retention.hold(kept.now, moment, &mut kept.rib);
    kept.down(&agreed);
    assert_eq!(kept.rib.stale(V4), 3);
    kept.pass(moment - MOMENT);
    kept.up(&agreed);
    kept.announce(&[PLAIN], &[]);
    kept.pass(moment - MOMENT);
    assert_eq!(kept.names().len(), 3);
    kept.pass(MOMENT);
    assert_eq!(kept.names(), [PLAIN]);
    // The next loss is an ordinary one.
    kept.down(&agreed);
    assert!(kept.rib.is_empty());
}

/// Section 4: an implementation may limit how long a refresh takes; what is not told by then goes as at its end.
#[test]
fn a_refresh_that_is_never_ended_is_over_at_its_limit_rfc_7313() {
    let mut kept = Kept::new();
    let limit = Duration::from_secs(300);
    let before = kept.rib.count(V4);
    kept.retention.begin_refresh(kept.now, limit, V4, &mut kept.rib);
    kept.announce(&[PLAIN], &[]);
    assert_eq!(kept.retention.poll_timeout(), Some(kept.now + limit));
    assert_eq!(kept.retention.handle_timeout(kept.now + limit - MOMENT, &mut kept.rib), []);
    assert_eq!(kept.rib.count(V4), before);
    let gone = kept.retention.handle_timeout(kept.now + limit, &mut kept.rib);
    assert_eq!((gone.len(), kept.rib.count(V4)), (before - 1, 1), "only what was told again stays");
    assert_eq!(kept.retention.poll_timeout(), None);
}

#[test]
fn a_refresh_that_is_ended_or_begun_anew_has_no_limit_or_another_rfc_7313() {
    let mut kept = Kept::new();
    let limit = Duration::from_secs(300);
    kept.retention.begin_refresh(kept.now, limit, V4, &mut kept.rib);
    kept.retention.begin_refresh(kept.now + MOMENT, limit, V4, &mut kept.rib);
    assert_eq!(kept.retention.poll_timeout(), Some(kept.now + MOMENT + limit));
    kept.announce(&[PLAIN], &[]);
    kept.retention.end_refresh(V4, &mut kept.rib);
    assert_eq!((kept.rib.count(V4), kept.retention.poll_timeout()), (1, None));
    // A session that is lost meanwhile takes the limit along: the routes wait for something else then.
    kept.retention.begin_refresh(kept.now, limit, V4, &mut kept.rib);
    let lost = DownReason::ConnectionLost;
    kept.retention.session_down(kept.now, &lost, &negotiated(0), &mut kept.rib);
    assert_eq!(kept.retention.poll_timeout(), Some(kept.now + RESTART));
}
