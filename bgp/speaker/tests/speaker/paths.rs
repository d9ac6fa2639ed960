//! What becomes of sessions and routes when something beside BGP says that a path has failed (RFC 5882 section 4).
use std::collections::BTreeMap;

use plainroute_bgp::{AfiSafi, session::State};
use plainroute_speaker::{PathState, StopMode};

use crate::network::{Node, pair};

const ROUTES: [&str; 2] = ["10.1.0.0/28", "10.2.0.0/28"];

/// What the node hears of the path to its peer.
fn hear(node: &Node, peer: &Node, state: PathState) {
    node.speaker.set_paths(BTreeMap::from([(peer.name(), state)]));
}

fn down(control_plane_independent: bool) -> PathState {
    PathState::Down { reason: "control detection time expired".to_owned(), control_plane_independent }
}

/// A and B with two routes of A's at B, both with graceful restart, and the path known to be up at B.
async fn settled() -> (Node, Node) {
    let (a, b) = pair().await;
    a.tell(&b, &ROUTES).await;
    a.speaker.initial_sync_done();
    b.learned_prefixes(&ROUTES).await;
    b.status(&a, |status| status.families[&AfiSafi::Ipv4Unicast].end_of_rib_received).await;
    hear(&b, &a, PathState::Up);
    b.status(&a, |status| status.path == PathState::Up).await;
    (a, b)
}

#[tokio::test]
async fn a_path_that_fails_ends_the_session_and_drops_what_the_peer_taught() {
    for independent in [false, true] {
        let (a, b) = settled().await;
        let mut learned = b.speaker.learned();
        learned.mark_unchanged();
        hear(&b, &a, down(independent));
        learned.changed().await.unwrap();
        assert!(learned.borrow_and_update().is_empty(), "gone at once, not kept as stale");
        let status = b.status(&a, |status| status.state == State::Idle).await;
        assert_eq!(status.last_error.unwrap().0, "BFD: the path is down (control detection time expired)");
        let told = a.status(&b, |status| status.counters.lost == 1).await;
        assert!(told.last_error.unwrap().0.contains("BFD Down"), "RFC 9384");
        // Until the path works, nobody comes in; then at once.
        assert!(b.speaker.peers().borrow()[&a.name()].state == State::Idle);
        hear(&b, &a, PathState::Up);
        b.established(&a).await;
        b.learned_prefixes(&ROUTES).await;
    }
}

#[tokio::test]
async fn a_path_of_which_nothing_is_known_any_more_is_not_waited_for() {
    for state in [PathState::Unknown, PathState::AdminDown] {
        let (a, b) = settled().await;
        hear(&b, &a, down(true));
        b.status(&a, |status| status.state == State::Idle).await;
        hear(&b, &a, state);
        b.established(&a).await;
    }
}

#[tokio::test]
async fn neither_ignorance_nor_intent_ends_a_session() {
    let (a, b) = settled().await;
    for state in [PathState::AdminDown, PathState::Unknown, PathState::Up, PathState::AdminDown] {
        hear(&b, &a, state.clone());
        let status = b.status(&a, |status| status.path == state).await;
        assert_eq!((status.state, status.counters.lost), (State::Established, 0));
    }
    b.learned_prefixes(&ROUTES).await;
}

/// RFC 5882 section 4.3.2: BFD that shares the fate of the peer's control plane goes down because that restarts.
#[tokio::test]
async fn a_peer_that_restarts_may_lose_its_bfd_where_that_shares_its_fate() {
    let (a, b) = settled().await;
    a.speaker.clone().stop(StopMode::Retain).await;
    b.learned(|learned| learned.len() == 2 && learned.values().flatten().all(|path| path.stale)).await;
    hear(&b, &a, down(false));
    b.status(&a, |status| status.path.is_down()).await;
    assert_eq!(b.speaker.learned().borrow().len(), 2, "kept");
    // It is not kept waiting either.
    let a = a.again(Default::default());
    a.peers([(&b, a.towards(&b))]).await;
    b.established(&a).await;
}

#[tokio::test]
async fn a_restart_is_given_up_where_bfd_does_not_share_its_fate() {
    let (a, b) = settled().await;
    a.speaker.clone().stop(StopMode::Retain).await;
    b.learned(|learned| learned.len() == 2 && learned.values().flatten().all(|path| path.stale)).await;
    hear(&b, &a, down(true));
    b.learned_prefixes(&[]).await;
}

#[tokio::test]
async fn a_peer_whose_path_is_down_from_the_start_waits() {
    let (a, b) = (Node::new(1), Node::new(2));
    hear(&b, &a, down(true));
    b.peers([(&a, b.waits_for(&a))]).await;
    a.peers([(&b, a.towards(&b))]).await;
    // It connects, and is not let in.
    a.status(&b, |status| status.last_error.is_some()).await;
    assert_eq!(b.speaker.peers().borrow()[&a.name()].counters.established, 0);
    hear(&b, &a, PathState::Up);
    b.established(&a).await;
}
