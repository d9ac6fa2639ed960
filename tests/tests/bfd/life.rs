//! What survives what: an agent that goes, a set that changes, intervals that change, a planned end, a crash.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plainroute_agent::bfd::protocol::{BfdPath, SessionSpec};
use plainroute_tests::routers::{Bird, Frr};
use serde_json::Value;

use crate::process::{Process, all, await_router, discriminators, of, session};
use crate::sessions::await_frr_up;
use crate::{DEADLINE, Link, OURS, THEIRS, bird_config, frr_config, ip};

const FAST: &str = "receive-interval 100\n  transmit-interval 100\n  detect-multiplier 3";

/// All sessions up, as FRR sees it too.
fn up_with_frr() -> (Link, Frr, Process) {
    let link = Link::new();
    let frr = Frr::launch(&link.theirs, &frr_config(FAST)).unwrap();
    let process = Process::start(&link.ours);
    (link, frr, process)
}

fn shown(frr: &Frr, ours: &str) -> Value {
    frr.bfd(ip(ours)).unwrap().expect("a session")
}

/// Waits until FRR has had so many more packets of ours: at 100 ms each, that is a time, by its own clock.
fn await_packets(frr: &Frr, ours: &str, more: u64) {
    await_counted(frr, ours, "control-packet-input", more);
}

/// Waits until FRR has sent so many more packets to us.
fn await_sent(frr: &Frr, ours: &str, more: u64) {
    await_counted(frr, ours, "control-packet-output", more);
}

fn await_counted(frr: &Frr, ours: &str, counter: &str, more: u64) {
    let count = |shown: &Value| shown[counter].as_u64().unwrap();
    let before = count(&shown(frr, ours));
    await_router("more packets", || {
        let now = count(&shown(frr, ours));
        if now >= before + more { Ok(()) } else { Err(format!("{now} of {before} + {more}")) }
    });
}

#[test]
fn sessions_outlive_the_agent_and_the_next_one_finds_them() {
    let (_link, frr, process) = up_with_frr();
    let mut agent = process.attach();
    agent.want(&all());
    let before = discriminators(&agent.await_up());
    drop(agent);
    await_packets(&frr, OURS[0], 20);
    let mut next = process.attach();
    next.want(&all());
    let told = next.hear().unwrap();
    assert_eq!(discriminators(&told), before);
    for (ours, theirs) in OURS.into_iter().zip(THEIRS) {
        let view = of(&told, theirs);
        assert_eq!((view.path, view.up_count, view.down_count), (BfdPath::Up, 1, 0), "{theirs}");
        let shown = shown(&frr, ours);
        assert_eq!(
            (&shown["status"], &shown["session-up"], &shown["session-down"]),
            (&"up".into(), &1.into(), &0.into())
        );
    }
}

/// The negative control of the one above: the trap of cilium#48251, BFD in the process that is restarted.
#[test]
fn without_the_process_the_router_sees_a_failure() {
    let (link, frr, mut process) = up_with_frr();
    let mut agent = process.attach();
    agent.want(&all());
    agent.await_up();
    process.daemon.kill();
    for ours in OURS {
        await_router("down", || {
            let shown = shown(&frr, ours);
            let failed =
                shown["session-down"] == 1 && shown["diagnostic"] == "control detection time expired";
            if failed { Ok(()) } else { Err(shown.to_string()) }
        });
    }
    process.restart(&link.ours);
    let mut agent = process.attach();
    agent.want(&all());
    agent.await_up();
    await_frr_up(&frr, OURS[0]);
}

#[test]
fn a_set_that_differs_touches_only_what_differs() {
    let (_link, frr, process) = up_with_frr();
    let mut agent = process.attach();
    agent.want(&all());
    let before = discriminators(&agent.await_up());
    agent.want(&all()[..2]);
    let told = agent.await_told("two", |told| told.sessions.len() == 2);
    assert!(discriminators(&told).iter().all(|discriminator| before.contains(discriminator)));
    await_router("the third was taken down on purpose", || {
        let shown = shown(&frr, OURS[2]);
        let said = shown["remote-diagnostic"] == "administratively down" && shown["status"] == "down";
        if said { Ok(()) } else { Err(shown.to_string()) }
    });
    agent.want(&all());
    let told = agent.await_up();
    for (ours, theirs) in OURS.into_iter().zip(THEIRS).take(2) {
        assert_eq!((of(&told, theirs).up_count, of(&told, theirs).down_count), (1, 0));
        assert_eq!(shown(&frr, ours)["session-down"], 0);
    }
}

#[test]
fn other_intervals_are_agreed_on_without_an_interruption() {
    let (_link, frr, process) = up_with_frr();
    let mut agent = process.attach();
    agent.want(&all());
    let before = discriminators(&agent.await_up());
    let slower = THEIRS.map(|peer| session(peer, 400, 300, 5));
    agent.want(&slower);
    for ours in OURS {
        await_router("the new intervals", || {
            let shown = shown(&frr, ours);
            let seen = (&shown["remote-receive-interval"], &shown["remote-transmit-interval"]);
            let right = *seen.0 == 400 && *seen.1 == 300 && shown["remote-detect-multiplier"] == 5;
            if right { Ok(()) } else { Err(shown.to_string()) }
        });
        assert_eq!(shown(&frr, ours)["session-down"], 0);
    }
    let told = agent.await_told("the agreed pace", |told| {
        told.sessions.iter().all(|session| session.status.transmit_interval_microseconds == 300_000)
    });
    assert_eq!(discriminators(&told), before);
    assert!(told.sessions.iter().all(|session| session.status.down_count == 0), "{told:?}");
}

#[test]
fn a_planned_end_is_told_to_frr() {
    let (_link, frr, mut process) = up_with_frr();
    let mut agent = process.attach();
    agent.want(&all());
    agent.await_up();
    let start = Instant::now();
    let status = process.daemon.terminate(DEADLINE).unwrap();
    assert!(status.success() && start.elapsed() < Duration::from_secs(5), "{status} {:?}", start.elapsed());
    for ours in OURS {
        let shown = shown(&frr, ours);
        assert_eq!(shown["remote-diagnostic"], "administratively down", "{shown}");
    }
    assert!(!process.socket().exists());
}

/// Only one in three packets arrives, and still no router takes the end for a failure: AdminDown is said several times.
#[test]
fn a_planned_end_is_told_although_packets_are_lost() {
    let (link, frr, mut process) = up_with_frr();
    let mut agent = process.attach();
    // Patient enough not to fail for the losses themselves.
    agent.want(&THEIRS.map(|peer| session(peer, 100, 100, 20)));
    agent.await_up();
    link.ours
        .exec("nft add table inet lossy { chain out { type filter hook output priority 0 ; udp dport 3784 numgen inc mod 3 lt 2 drop ; } ; }")
        .unwrap();
    process.daemon.terminate(DEADLINE).unwrap();
    for ours in OURS {
        let shown = shown(&frr, ours);
        assert_eq!(shown["remote-diagnostic"], "administratively down", "{shown}");
    }
}

#[test]
fn a_planned_end_is_told_to_bird() {
    let link = Link::new();
    let bird = bird_config("min rx interval 100 ms; min tx interval 100 ms; multiplier 3;");
    let bird =
        Bird::launch(&link.theirs, &bird.replace("protocol bfd {", "protocol bfd { debug all;")).unwrap();
    let mut process = Process::start(&link.ours);
    let mut agent = process.attach();
    agent.want(&all());
    agent.await_up();
    process.daemon.terminate(DEADLINE).unwrap();
    for ours in OURS {
        await_router("down", || match bird.bfd(ip(ours)) {
            Ok(Some((state, ..))) if state == "down" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    // It was told; nothing expired.
    assert!(!bird.log().contains("expired"), "{}", bird.log());
}

#[test]
fn the_socket_is_roots_and_one_process_serves_it() {
    let link = Link::new();
    let process = Process::start(&link.ours);
    let mode = std::fs::metadata(process.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut rival = process.rival(&link.ours);
    assert_eq!(rival.wait(DEADLINE).unwrap().code(), Some(2));
    assert!(rival.log().contains("somebody answers"), "{}", rival.log());
    process.attach().want(&[]);
}

#[test]
fn what_makes_no_sense_ends_the_connection_and_no_session() {
    let (_link, frr, process) = up_with_frr();
    let mut agent = process.attach();
    agent.want(&all());
    let before = discriminators(&agent.await_up());
    for nonsense in ["{", "[]", r#"{"sessions":[{"peerAddress":"nowhere"}]}"#] {
        let mut stranger = process.attach();
        stranger.say(nonsense);
        assert_eq!(stranger.hear(), None, "{nonsense}");
    }
    let told = agent.await_told("the counters", |_| true);
    assert_eq!(discriminators(&told), before);
    assert_eq!(shown(&frr, OURS[0])["session-down"], 0);
}

#[test]
fn a_port_that_is_taken_is_said_and_tried_again() {
    let link = Link::new();
    let taken = link.ours.within(|| std::net::UdpSocket::bind("0.0.0.0:3784")).unwrap();
    let frr = Frr::launch(&link.theirs, &frr_config(FAST)).unwrap();
    let process = Process::start(&link.ours);
    let mut agent = process.attach();
    agent.want(&all()[..1]);
    let told = agent.hear().unwrap();
    let problem = of(&told, THEIRS[0]).problem.unwrap();
    assert!(problem.contains("3784") && problem.contains("another BFD daemon"), "{problem}");
    drop(taken);
    agent.await_up();
    await_frr_up(&frr, OURS[0]);
}

#[test]
fn it_ends_when_it_is_of_no_use_and_only_then() {
    let (link, frr, kept) = up_with_frr();
    drop(kept);
    let mut process = Process::start_with(&link.ours, &["--exit-when-idle", "0.3"]);
    let mut agent = process.attach();
    agent.want(&all());
    agent.await_up();
    // An agent that crashed leaves sessions behind: they are use enough.
    drop(agent);
    await_packets(&frr, OURS[0], 10);
    let mut agent = process.attach();
    let none: [SessionSpec; 0] = [];
    agent.want(&none);
    agent.await_told("nothing", |told| told.sessions.is_empty());
    assert!(process.daemon.is_running());
    drop(agent);
    assert!(process.daemon.wait(DEADLINE).unwrap().success());
}

/// It is stopped for three times its Detection Time. What arrived meanwhile is read before any timer counts, so nothing has
/// failed; FRR is patient enough for this.
#[test]
fn a_process_that_stood_still_reads_before_it_judges() {
    let (_link, frr, process) = up_with_frr();
    let mut agent = process.attach();
    agent.want(&THEIRS.map(|peer| session(peer, 100, 100, 30)));
    let before = agent.await_up();
    assert_eq!(of(&before, THEIRS[0]).detection_time_microseconds, Some(300_000));
    process.daemon.signal(Signal::SIGSTOP).unwrap();
    await_sent(&frr, OURS[0], 9);
    process.daemon.signal(Signal::SIGCONT).unwrap();
    let heard = of(&before, THEIRS[0]).received + 9;
    let told = agent.await_told("what came meanwhile", |told| of(told, THEIRS[0]).received >= heard);
    for (ours, theirs) in OURS.into_iter().zip(THEIRS) {
        assert_eq!((of(&told, theirs).path, of(&told, theirs).down_count), (BfdPath::Up, 0), "{theirs}");
        assert_eq!(shown(&frr, ours)["session-down"], 0);
    }
}
