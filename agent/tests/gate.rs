//! The gate: what is advertised, what the kernel is asked for, and in which order.
mod common;
#[path = "gate/faults.rs"]
mod faults;
#[path = "gate/model.rs"]
mod model;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use model::{Fate, Step, World, address, any_history, gateway, main_table, planned, prefix};
use plainroute_agent::{
    drain::DrainState,
    fib::{Delivery, Desired, Installed, RouteKey, RouteStatus, TABLE_MAIN, Target},
    gate::{Announcement, FLUSH_DEADLINE, Gate},
};
use plainroute_bgp::Prefix;
use plainroute_speaker::{Learned, LearnedPath, PeerName};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

fn gate() -> Gate {
    Gate::new(TABLE_MAIN, TABLE_MAIN)
}

/// A gate with a kernel that answers when it is told to, and a clock that stands still.
struct Bench {
    gate: Gate,
    now: Instant,
}

const BOTH: [bool; 2] = [true, true];
const FIRST: [bool; 2] = [true, false];

impl Bench {
    /// A gate to which the kernel has been read: nothing of ours in it.
    fn new() -> Bench {
        let mut bench = Bench { gate: gate(), now: Instant::now() };
        bench.gate.handle_installed(Arc::new(Installed { synced: true, ..Installed::default() }));
        bench
    }

    /// A gate that advertises the first address over `v-0` to both peers.
    fn advertising() -> Bench {
        let mut bench = Bench::new();
        bench.plan(&[Fate::Interface(0, BOTH, 0)]);
        bench.gate.poll_desired().expect("the path");
        bench.answer();
        assert_eq!(prefixes(&bench.announcement().expect("the first announcement")), [host(0)]);
        bench
    }

    fn plan(&mut self, fates: &[Fate]) {
        self.gate.handle_plan(Arc::new(planned(fates, true)));
    }

    /// The kernel does what was last asked for, and somebody else's routes lead nowhere.
    fn answer(&mut self) {
        self.answer_with(|_| RouteStatus::Installed, &Delivery::NoRoute);
    }

    fn answer_with(&mut self, status: impl Fn(&RouteKey) -> RouteStatus, foreign: &Delivery) {
        let desired = self.gate.desired();
        let installed = Installed {
            generation: desired.generation,
            synced: true,
            routes: desired.routes.keys().map(|key| (*key, status(key))).collect(),
            delivery: desired.verify.iter().map(|address| (*address, foreign.clone())).collect(),
            ..Installed::default()
        };
        self.gate.handle_installed(Arc::new(installed));
    }

    fn announcement(&mut self) -> Option<Announcement> {
        self.gate.poll_announcement(self.now)
    }

    /// The kernel as it should be now: by the newest wish, or by the last one.
    fn desired(&mut self) -> Arc<Desired> {
        self.gate.poll_desired();
        Arc::clone(self.gate.desired())
    }

    fn holds(&mut self, number: usize) -> bool {
        self.desired().routes.contains_key(&main_table(host(number)))
    }
}

fn host(number: usize) -> Prefix {
    Prefix::host(address(number))
}

fn prefixes(announcement: &Announcement) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = announcement.routes.keys().map(|(_, prefix)| *prefix).collect();
    prefixes.dedup();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

fn delivering() -> Delivery {
    Delivery::Via { interface: "cni0".to_owned(), gateway: None }
}

fn via(numbers: &[u8]) -> Target {
    Target::Via { next_hops: numbers.iter().map(|number| gateway(*number)).collect() }
}

fn learned(routes: &[(&str, &[u8])]) -> Arc<Learned> {
    let path = |number: &u8| LearnedPath {
        peer: PeerName::from("tor-a"),
        next_hop: gateway(*number).gateway,
        interface: None,
        stale: false,
    };
    Arc::new(routes.iter().map(|(text, paths)| (prefix(text), paths.iter().map(path).collect())).collect())
}

#[test]
fn a_path_stands_before_its_prefix_is_advertised() {
    let mut bench = Bench::new();
    bench.plan(&[Fate::Interface(0, BOTH, 0)]);
    assert_eq!(bench.announcement(), None);
    let desired = bench.gate.poll_desired().expect("the path");
    let path = Target::Device { interface: "v-0".to_owned() };
    assert_eq!(desired.routes, BTreeMap::from([(main_table(host(0)), path)]));
    assert!(desired.complete && desired.generation == 1);
    assert_eq!(bench.announcement(), None, "asked for is not done");
    bench.answer();
    let announcement = bench.announcement().expect("an announcement");
    assert_eq!((announcement.ticket, prefixes(&announcement)), (1, vec![host(0)]));
    assert_eq!(announcement.routes.len(), 2, "one for each peer");
    assert_eq!(bench.announcement(), None, "once is enough");
    assert_eq!(bench.gate.poll_desired(), None);
}

#[test]
fn an_empty_plan_is_announced_too_once_the_kernel_has_answered() {
    let mut bench = Bench::new();
    bench.plan(&[]);
    assert_eq!((bench.announcement(), bench.gate.advertised()), (None, None));
    bench.desired();
    bench.answer();
    assert_eq!(bench.announcement().map(|announcement| announcement.routes.len()), Some(0));
}

#[test]
fn nothing_is_asked_of_a_kernel_that_was_not_read() {
    let mut gate = gate();
    gate.handle_plan(Arc::new(planned(&[Fate::Interface(0, BOTH, 0)], true)));
    gate.handle_learned(learned(&[("0.0.0.0/0", &[1])]), true);
    assert_eq!(gate.poll_desired(), None);
    gate.handle_installed(Arc::new(Installed::default()));
    assert_eq!(gate.poll_desired(), None);
    gate.handle_installed(Arc::new(Installed { synced: true, ..Installed::default() }));
    assert!(gate.poll_desired().is_some());
}

#[test]
fn a_path_is_removed_after_the_withdrawal_is_flushed() {
    let mut bench = Bench::advertising();
    bench.plan(&[]);
    let withdrawal = bench.announcement().expect("a withdrawal");
    assert_eq!((withdrawal.ticket, withdrawal.routes.len()), (2, 0));
    assert!(bench.holds(0));
    bench.gate.handle_flushed(1);
    assert!(bench.holds(0), "an earlier receipt says nothing of it");
    bench.gate.handle_flushed(2);
    assert!(!bench.holds(0));
    assert_eq!(bench.gate.poll_timeout(), None);
}

#[test]
fn a_peer_that_does_not_take_the_withdrawal_holds_the_path_for_the_deadline_only() {
    let mut bench = Bench::advertising();
    bench.plan(&[]);
    bench.announcement();
    assert_eq!(bench.gate.poll_timeout(), Some(bench.now + FLUSH_DEADLINE));
    let just_before = bench.now + FLUSH_DEADLINE - Duration::from_millis(1);
    assert_eq!(bench.gate.handle_timeout(just_before), Vec::<Prefix>::new());
    assert!(bench.holds(0));
    assert_eq!(bench.gate.handle_timeout(bench.now + FLUSH_DEADLINE), [host(0)]);
    assert!(!bench.holds(0));
}

#[test]
fn a_second_withdrawal_waits_for_its_own_receipt() {
    let mut bench = Bench::advertising();
    bench.plan(&[Fate::Interface(0, FIRST, 0)]);
    assert_eq!(bench.announcement().map(|announcement| announcement.ticket), Some(2));
    bench.now += Duration::from_secs(1);
    bench.plan(&[]);
    assert_eq!(bench.announcement().map(|announcement| announcement.ticket), Some(3));
    bench.gate.handle_flushed(2);
    assert!(bench.holds(0));
    assert_eq!(bench.gate.poll_timeout(), Some(bench.now + FLUSH_DEADLINE));
    bench.gate.handle_flushed(3);
    assert!(!bench.holds(0));
}

#[test]
fn the_path_stays_while_one_peer_is_still_told() {
    let mut bench = Bench::advertising();
    bench.plan(&[Fate::Interface(0, FIRST, 0)]);
    let ticket = bench.announcement().expect("a withdrawal from one").ticket;
    bench.gate.handle_flushed(ticket);
    assert!(bench.holds(0));
}

#[test]
fn a_dead_link_withdraws_and_a_live_one_brings_back() {
    let mut bench = Bench::advertising();
    let down = |_: &RouteKey| RouteStatus::LinkDown { interface: "v-0".to_owned() };
    bench.answer_with(down, &Delivery::NoRoute);
    assert_eq!(bench.announcement().map(|announcement| announcement.routes.len()), Some(0));
    assert!(bench.holds(0), "it is planned, so the route waits for the link");
    bench.answer();
    assert_eq!(bench.announcement().map(|announcement| prefixes(&announcement)), Some(vec![host(0)]));
}

#[test]
fn a_drain_marks_then_withdraws_and_keeps_every_path() {
    let mut bench = Bench::advertising();
    bench.gate.handle_drain(DrainState::Draining);
    let marked = bench.announcement().expect("the same routes, marked");
    assert_eq!((prefixes(&marked), marked.graceful_shutdown), (vec![host(0)], true));
    assert_eq!(bench.announcement(), None, "said once");

    bench.gate.handle_drain(DrainState::Drained);
    let withdrawn = bench.announcement().expect("the withdrawal");
    assert_eq!((prefixes(&withdrawn), withdrawn.graceful_shutdown), (vec![], false));
    bench.gate.handle_flushed(withdrawn.ticket);
    assert!(bench.holds(0), "what is on its way is delivered");

    bench.gate.handle_drain(DrainState::Active);
    assert_eq!(prefixes(&bench.announcement().expect("the routes again")), [host(0)]);
}

#[test]
fn new_attributes_are_no_withdrawal() {
    let mut bench = Bench::advertising();
    bench.plan(&[Fate::Interface(0, BOTH, 7)]);
    let announcement = bench.announcement().expect("an announcement");
    assert!(announcement.routes.values().all(|attributes| attributes.med == Some(7)));
    assert_eq!(bench.gate.poll_timeout(), None);
    assert_eq!(bench.gate.poll_desired(), None);
}

#[test]
fn an_address_that_comes_back_waits_for_the_kernel_again() {
    let mut bench = Bench::advertising();
    bench.plan(&[]);
    bench.announcement();
    bench.gate.handle_flushed(2);
    assert!(!bench.holds(0));
    // The last word of the kernel still has the path, which is just being removed.
    bench.plan(&[Fate::Interface(0, BOTH, 0)]);
    assert_eq!(bench.announcement(), None);
    assert!(bench.holds(0));
    assert_eq!(bench.announcement(), None);
    bench.answer();
    assert!(bench.announcement().is_some());
}

#[test]
fn an_address_that_moves_to_another_interface_is_not_withdrawn() {
    let mut bench = Bench::advertising();
    bench.plan(&[Fate::Interface(1, BOTH, 0)]);
    assert_eq!(bench.announcement(), None);
    let path = Target::Device { interface: "v-1".to_owned() };
    assert_eq!(bench.desired().routes[&main_table(host(0))], path);
    bench.answer();
    assert_eq!(bench.announcement(), None);
}

#[test]
fn a_new_pod_with_the_address_of_a_withdrawn_one_waits_for_its_own_path() {
    let mut bench = Bench::advertising();
    bench.plan(&[]);
    bench.announcement();
    bench.desired();
    // The old one's path stands until its withdrawal is flushed, but it leads to the old one.
    bench.plan(&[Fate::Interface(1, BOTH, 0)]);
    assert_eq!(bench.announcement(), None);
    bench.desired();
    assert_eq!(bench.announcement(), None);
    bench.answer();
    assert!(bench.announcement().is_some());
}

#[test]
fn somebody_elses_route_takes_over_without_a_withdrawal() {
    let mut bench = Bench::advertising();
    bench.plan(&[Fate::Foreign(BOTH)]);
    assert_eq!(bench.announcement(), None, "our path still stands");
    assert!(bench.holds(0));
    assert_eq!(bench.desired().verify, [address(0)].into());
    bench.answer_with(|_| RouteStatus::Installed, &delivering());
    assert_eq!(bench.announcement(), None);
    assert!(!bench.holds(0), "ours would only cover it");
    bench.answer_with(|_| RouteStatus::Installed, &Delivery::OnlyDefault);
    assert_eq!(bench.announcement().map(|announcement| announcement.routes.len()), Some(0));
}

#[test]
fn our_route_takes_over_without_a_withdrawal() {
    let mut bench = Bench::new();
    bench.plan(&[Fate::Foreign(BOTH)]);
    bench.desired();
    bench.answer_with(|_| RouteStatus::Installed, &delivering());
    assert!(bench.announcement().is_some());
    bench.plan(&[Fate::Interface(0, BOTH, 0)]);
    assert_eq!(bench.announcement(), None, "somebody else's still stands");
    assert!(bench.holds(0));
    bench.answer();
    assert_eq!(bench.announcement(), None);
}

#[test]
fn what_somebody_elses_route_does_not_deliver_is_not_advertised() {
    for foreign in [Delivery::NoRoute, Delivery::OnlyDefault, Delivery::Loopback] {
        let mut bench = Bench::new();
        bench.plan(&[Fate::Foreign(BOTH)]);
        bench.desired();
        bench.answer_with(|_| RouteStatus::Installed, &foreign);
        assert_eq!(
            bench.announcement().map(|announcement| announcement.routes.len()),
            Some(0),
            "{foreign:?}"
        );
    }
}

#[test]
fn learned_routes_go_to_their_table_unless_they_lie_in_our_pools() {
    let mut gate = Gate::new(TABLE_MAIN, 200);
    gate.handle_installed(Arc::new(Installed { synced: true, ..Installed::default() }));
    gate.handle_plan(Arc::new(planned(&[Fate::Interface(0, BOTH, 0)], true)));
    let routes: &[(&str, &[u8])] =
        &[("0.0.0.0/0", &[1, 2]), ("10.20.0.1/32", &[1]), ("10.20.0.0/25", &[1]), ("10.0.0.0/8", &[1])];
    gate.handle_learned(learned(routes), true);
    let imported = |text| RouteKey { table: 200, prefix: prefix(text) };
    let path = Target::Device { interface: "v-0".to_owned() };
    let expected = [
        (main_table(host(0)), path),
        (imported("0.0.0.0/0"), via(&[1, 2])),
        (imported("10.0.0.0/8"), via(&[1])),
    ];
    assert_eq!(gate.poll_desired().expect("routes").routes, BTreeMap::from(expected));
}

#[test]
fn gateway_routes_of_an_earlier_process_stay_until_the_peers_have_told_theirs() {
    let mut gate = gate();
    let left = [("0.0.0.0/0", via(&[1])), ("192.0.2.0/24", via(&[2])), ("10.20.0.0/25", via(&[1]))];
    let stale = left.map(|(text, target)| (main_table(prefix(text)), target)).into();
    gate.handle_installed(Arc::new(Installed { synced: true, stale, ..Installed::default() }));
    gate.handle_plan(Arc::new(planned(&[], true)));
    let routes = |gate: &mut Gate| {
        gate.poll_desired();
        gate.desired().routes.iter().map(|(key, target)| format!("{key} {target}")).collect::<Vec<_>>()
    };
    let both = ["0.0.0.0/0 via 172.16.0.1", "192.0.2.0/24 via 172.16.0.2"];
    assert_eq!(routes(&mut gate), both, "but never one within our own pools");
    // They are desired now, so nobody calls them stale any more.
    gate.handle_installed(Arc::new(Installed { synced: true, generation: 1, ..Installed::default() }));
    gate.handle_learned(learned(&[("0.0.0.0/0", &[2])]), false);
    assert_eq!(routes(&mut gate), ["0.0.0.0/0 via 172.16.0.2", "192.0.2.0/24 via 172.16.0.2"]);
    gate.handle_learned(learned(&[("0.0.0.0/0", &[2])]), true);
    assert_eq!(routes(&mut gate), ["0.0.0.0/0 via 172.16.0.2"]);
    gate.handle_learned(learned(&[]), false);
    assert_eq!(routes(&mut gate), Vec::<String>::new(), "what is settled stays settled");
}

/// The route may have been an earlier process's: once a peer has taught it to this one, its going is no ignorance.
#[test]
fn what_a_peer_takes_back_goes_even_before_the_others_have_told_theirs() {
    let mut gate = gate();
    let left = [("0.0.0.0/0", via(&[1])), ("192.0.2.0/24", via(&[2]))];
    let stale: BTreeMap<_, _> = left.map(|(text, target)| (main_table(prefix(text)), target)).into();
    let installed = Installed { synced: true, stale, ..Installed::default() };
    gate.handle_installed(Arc::new(installed.clone()));
    gate.handle_plan(Arc::new(planned(&[], true)));
    let routes = |gate: &mut Gate| {
        gate.poll_desired();
        gate.desired().routes.keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    gate.handle_learned(learned(&[("0.0.0.0/0", &[1]), ("203.0.113.0/24", &[1])]), false);
    assert_eq!(routes(&mut gate), ["0.0.0.0/0", "192.0.2.0/24", "203.0.113.0/24"]);
    gate.handle_learned(learned(&[]), false);
    assert_eq!(routes(&mut gate), ["192.0.2.0/24"]);
    // The kernel's last word may be older.
    gate.handle_installed(Arc::new(installed));
    assert_eq!(routes(&mut gate), ["192.0.2.0/24"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_at_every_step_of_every_history(history in any_history()) {
        prop_assert_eq!(World::new(gate()).run(&history), Ok(()));
    }
}

/// The same random histories each time.
fn histories(count: usize) -> impl Iterator<Item = Vec<Step>> {
    let mut runner = TestRunner::deterministic();
    let histories = any_history();
    (0..count).map(move |_| histories.new_tree(&mut runner).expect("a history").current())
}

#[test]
fn the_random_histories_advertise_and_remove() {
    let (mut announcements, mut removals) = (0, 0);
    for history in histories(100) {
        let mut world = World::new(gate());
        assert_eq!(world.run(&history), Ok(()));
        announcements += world.announcements;
        removals += world.removals;
    }
    assert!(announcements > 200 && removals > 50, "{announcements} announcements, {removals} removals");
}

#[test]
fn each_rule_catches_the_fault_that_it_is_for() {
    for (rule, fault) in faults::ALL {
        let mut broken = histories(400).filter_map(|history| {
            World::new(faults::Faulty::new(gate(), *fault)).run(&history).err().map(|(broken, _)| broken)
        });
        assert!(broken.any(|broken| broken == *rule), "{fault:?} went by {rule:?}");
    }
}
