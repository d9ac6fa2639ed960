//! The router restarts, and we help.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plainroute_speaker::{Learned, StopMode};
use plainroute_tests::netns::wait_until;

use super::{Offer, Restarting, graceful_setup};
use crate::node::{GRACEFUL, Node, peers};
use crate::scenario::accept_default;
use crate::{DEADLINE, FAMILIES, Link, Setup, default_route};

/// A node that has a default route of each family from the router, from its configuration or on our word.
fn taught<R: Restarting>(setup: Setup, offer: Offer) -> (Link, R, Node) {
    let link = Link::new();
    let mut router = R::launch_restarting(&link.theirs, setup, offer).unwrap();
    let node = Node::with(
        &link.ours,
        peers::<R>(|config| {
            config.graceful_restart = Some(GRACEFUL);
            accept_default(config);
        }),
    );
    // One that restarts says that it is complete when we have said so (RFC 4724 section 4.1). Where we are to tell it its
    // routes again before that, we wait.
    if R::CONFIGURES_ROUTES {
        node.initial_sync_done();
    }
    crate::scenario::await_established(&node, &router);
    if !setup.default_routes {
        for family in FAMILIES {
            router.announce_default(family, true).unwrap();
        }
    }
    await_learned(&node, "fresh default routes", |learned| all(learned, false));
    // Only one that had said that it is complete may be heard to say it again.
    for family in FAMILIES {
        node.await_status(family, "told everything", |status| {
            status.families.values().all(|family| family.end_of_rib_received || !setup.graceful_restart)
        });
    }
    (link, router, node)
}

/// A default route of each family, all stale or all fresh.
fn all(learned: &Learned, stale: bool) -> bool {
    FAMILIES.iter().all(|family| {
        let paths = learned.get(&default_route(*family).parse().unwrap());
        paths.is_some_and(|paths| paths.iter().all(|path| path.stale == stale))
    })
}

/// Waits until what is for the kernel satisfies a condition.
pub(crate) fn await_learned(node: &Node, what: &str, condition: impl Fn(&Learned) -> bool) {
    let receiver = node.learned();
    wait_until(&format!("{what} to be learned"), DEADLINE, || {
        let learned: Arc<Learned> = receiver.borrow().clone();
        if condition(&learned) { Ok(()) } else { Err(format!("{learned:?}")) }
    })
    .unwrap();
}

/// Counts the changes after which a default route was missing, until the speaker's end.
fn count_gaps(node: &Node) -> JoinHandle<usize> {
    let mut receiver = node.learned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut gaps = 0;
            while receiver.changed().await.is_ok() {
                let learned = receiver.borrow_and_update().clone();
                let there = |family| learned.contains_key(&default_route(family).parse().unwrap());
                gaps += usize::from(!FAMILIES.into_iter().all(there));
            }
            gaps
        })
    })
}

/// It crashes and comes back with its forwarding state: its routes are stale, then fresh, and never missing.
pub(crate) fn its_restart_loses_no_route<R: Restarting>() {
    let setup = Setup { default_routes: R::CONFIGURES_ROUTES, ..graceful_setup() };
    let (_link, mut router, node) = taught::<R>(setup, Offer::default());
    let gaps = count_gaps(&node);
    router.kill();
    await_learned(&node, "stale default routes", |learned| all(learned, true));
    router.recover().unwrap();
    if !setup.default_routes {
        for family in FAMILIES {
            router.announce_default(family, true).unwrap();
        }
    }
    node.initial_sync_done();
    await_learned(&node, "fresh default routes", |learned| all(learned, false));
    node.stop(StopMode::HardReset);
    // The end of the speaker closes the channel; what it last said stands.
    assert_eq!(gaps.join().unwrap(), 0, "a route was missing for a time");
}

/// The negative control: a router that offers no graceful restart.
pub(crate) fn without_graceful_restart_its_routes_go<R: Restarting>() {
    let (_link, mut router, node) =
        taught::<R>(Setup { graceful_restart: false, ..graceful_setup() }, Offer::default());
    let gaps = count_gaps(&node);
    router.kill();
    await_learned(&node, "nothing", Learned::is_empty);
    node.stop(StopMode::HardReset);
    assert!(gaps.join().unwrap() > 0, "the count of gaps sees nothing");
}

/// It comes back without its routes: they go when it says that it is complete, long before its restart time is over.
pub(crate) fn what_it_does_not_tell_again_goes<R: Restarting>() {
    let (_link, mut router, node) = taught::<R>(graceful_setup(), Offer::default());
    router.kill();
    await_learned(&node, "stale default routes", |learned| all(learned, true));
    router.recover().unwrap();
    node.initial_sync_done();
    for family in FAMILIES {
        node.await_received(family, "that nothing is left", <[_]>::is_empty);
        node.await_status(family, "told everything again", |status| {
            status.counters.established == 2
                && status.families.values().all(|family| family.end_of_rib_received)
        });
    }
    await_learned(&node, "nothing", Learned::is_empty);
}

/// It never comes back: its routes stay for as long as it asked, and no longer.
pub(crate) fn its_routes_go_with_its_restart_time<R: Restarting>() {
    let offer = Offer { restart_time: 3, ..Offer::default() };
    let (_link, mut router, node) = taught::<R>(graceful_setup(), offer);
    let killed = Instant::now();
    router.kill();
    await_learned(&node, "stale default routes", |learned| all(learned, true));
    await_learned(&node, "nothing", Learned::is_empty);
    let stayed = killed.elapsed();
    assert!(stayed >= Duration::from_secs(offer.restart_time.into()), "only for {stayed:?}");
}
