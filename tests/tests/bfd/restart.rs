//! The agent restarts, is killed, is reconfigured, and the routers see no failure of the path; the trap of cilium#48251 and
//! metallb/frr-k8s#217.

use nix::sys::signal::{Signal, kill};
use plainroute_tests::routers::{Family, Router};
use serde_json::Value;

use crate::ip;
use crate::node::{NODE, POD, Setup, TORS, World};
use crate::process::await_router;

const SETUP: Setup = Setup { interval: Some(100), hold_seconds: 90 };

fn shown(world: &World) -> Value {
    world.frr.bfd(ip(NODE[0])).unwrap().expect("a session")
}

fn local_discriminators(world: &World) -> [Value; 2] {
    [0, 1].map(|number| world.peer(number).unwrap()["bfd"]["localDiscriminator"].clone())
}

/// Waits until a new agent has both sessions, and FRR holds nothing that is stale.
fn await_fresh(world: &World) {
    world.await_whole(true);
    await_router("fresh", || {
        let routes = world.frr.json("show bgp ipv4 unicast json").unwrap();
        let paths = routes["routes"][format!("{POD}/32")].as_array().cloned().unwrap_or_default();
        let fresh = !paths.is_empty() && paths.iter().all(|path| path["stale"] != true);
        if fresh { Ok(()) } else { Err(format!("{paths:?}")) }
    });
}

/// The agent crashes, then ends as for an upgrade, while packets run from that ToR to the Pod.
fn a_restart_costs_nothing(tor: usize) {
    let mut world = World::new(SETUP);
    let (before, seen) = (local_discriminators(&world), shown(&world));
    let process = world.bfd_process().expect("the agent started it");
    let probe = world.probe(tor);
    for end in [World::crash_agent, World::stop_agent] {
        end(&mut world);
        world.start_agent();
        await_fresh(&world);
    }
    let count = probe.finish().unwrap();
    // A packet every 5 ms, and two restarts can be over within a third of a second.
    assert!(count.sent > 20 && count.lost == 0, "{count:?}");
    assert_eq!(world.bfd_process(), Some(process));
    assert_eq!(local_discriminators(&world), before);
    for number in [0, 1] {
        let bfd = world.peer(number).unwrap()["bfd"].clone();
        assert_eq!((&bfd["upCount"], &bfd["downCount"]), (&1.into(), &0.into()), "{bfd}");
    }
    let now = shown(&world);
    for field in ["id", "remote-id", "session-up", "session-down"] {
        assert_eq!(now[field], seen[field], "{field}: {now}");
    }
    assert_eq!(now["session-down"], 0);
    let (state, ..) = world.bird.bfd(ip(NODE[1])).unwrap().unwrap();
    assert_eq!(state, "up");
}

#[test]
fn a_restart_of_the_agent_costs_no_packet_and_no_session_with_frr() {
    a_restart_costs_nothing(0);
}

#[test]
fn a_restart_of_the_agent_costs_no_packet_and_no_session_with_bird() {
    a_restart_costs_nothing(1);
}

/// The negative control: BFD that dies with the agent. FRR counts a failure; BIRD gives up its graceful restart for it.
#[test]
fn bfd_that_dies_with_the_agent_is_a_failure_and_takes_the_routes_along() {
    let mut world = World::new(SETUP);
    let probe = world.probe(1);
    world.crash_agent();
    kill(world.bfd_process().expect("the agent started it"), Signal::SIGKILL).unwrap();
    await_router("down", || {
        let shown = shown(&world);
        if shown["session-down"] == 1 { Ok(()) } else { Err(shown.to_string()) }
    });
    await_router("no route", || match world.bird.learned(Family::V4) {
        Ok(table) if table.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    world.start_agent();
    await_fresh(&world);
    let count = probe.finish().unwrap();
    assert!(count.lost > 0, "{count:?}");
}

#[test]
fn a_bfd_process_that_dies_is_started_again() {
    let world = World::new(SETUP);
    let first = world.bfd_process().expect("the agent started it");
    kill(first, Signal::SIGKILL).unwrap();
    let second = await_router("another process", || match world.bfd_process() {
        Some(pid) if pid != first => Ok(pid),
        other => Err(format!("{other:?}")),
    });
    assert_ne!(first, second);
    world.await_whole(true);
}

/// Other intervals are agreed on by a Poll Sequence; BGP does not notice.
#[test]
fn other_intervals_reset_nothing() {
    let world = World::new(SETUP);
    let before = local_discriminators(&world);
    world.reconfigure(Setup { interval: Some(250), ..SETUP });
    for number in [0, 1] {
        let peer =
            world.await_peer(number, "slower", |peer| peer["bfd"]["detectionTimeMicroseconds"] == 750_000);
        assert_eq!((&peer["establishedCount"], &peer["lostCount"]), (&1.into(), &0.into()), "{peer}");
        assert_eq!(peer["bfd"]["downCount"], 0, "{peer}");
    }
    assert_eq!(local_discriminators(&world), before);
    assert_eq!(shown(&world)["session-down"], 0);
}

/// We end no session for a planned end of BFD. FRR 8.4 and BIRD 2.0 do, although RFC 5882 section 4.2 says otherwise; it is
/// they who say the Cease, and everything comes back by itself.
#[test]
fn bfd_that_ends_as_planned_is_told_and_comes_back() {
    let world = World::new(SETUP);
    let process = world.bfd_process().expect("the agent started it");
    kill(process, Signal::SIGTERM).unwrap();
    let ended = world.await_peer(0, "ended by FRR", |peer| peer["lostCount"] == 1);
    assert!(ended["lastError"].as_str().unwrap().starts_with("received NOTIFICATION: Cease"), "{ended}");
    await_router("another process", || match world.bfd_process() {
        Some(pid) if pid != process => Ok(()),
        other => Err(format!("{other:?}")),
    });
    world.await_whole(true);
    assert_eq!(shown(&world)["status"], "up");
}

/// Nobody answers and nobody is to start it: BGP works all the same, and it is said what is missing.
#[test]
fn without_a_process_bgp_works_and_says_what_is_missing() {
    let mut world = World::new(Setup { interval: None, hold_seconds: 90 });
    world.stop_agent();
    let config = std::fs::read_to_string(world.path("config.yaml")).unwrap();
    let config = config
        .replace("bfd.sock }", "bfd.sock, spawn: false }")
        .replace("install: true }]", "install: true }]\n  bfd: {}");
    std::fs::write(world.path("config.yaml"), config).unwrap();
    world.start_agent();
    for (number, tor) in TORS.iter().enumerate() {
        let peer = world.await_peer(number, "said", |peer| {
            peer["state"] == "Established" && peer["bfd"]["problem"].is_string()
        });
        let problem = peer["bfd"]["problem"].as_str().unwrap();
        assert!(problem.contains("spec.bfd.spawn") && problem.contains("plainroute bfd"), "{tor}: {problem}");
    }
    assert_eq!(world.bfd_process(), None);
    let socket = world.path("agent.sock").display().to_string();
    let check = std::process::Command::new(world.path("plainroute"))
        .args(["check", "--socket", &socket])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(1));
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("tor-0: no BFD, the hold timer alone notices a silent peer"), "{said}");
}
