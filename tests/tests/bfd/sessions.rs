//! Sessions come up with FRR and BIRD, over each kind of path, at the intervals of the slower end.

use std::num::NonZeroU8;

use plainroute_agent::bfd::protocol::{SessionSpec, TargetSpec};
use plainroute_tests::netns::{Netns, veth};
use plainroute_tests::routers::{Bird, Frr};
use serde_json::Value;

use crate::process::{Process, all, await_router, of, session};
use crate::{Link, OURS, THEIRS, bird_config, frr_config, ip};

/// What FRR says of its session with us, once that is up.
pub(crate) fn await_frr_up(frr: &Frr, ours: &str) -> Value {
    await_router(&format!("{ours} up"), || match frr.bfd(ip(ours)) {
        Ok(Some(shown)) if shown["status"] == "up" => Ok(shown),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn with_frr_over_ipv4_ipv6_and_link_local_addresses() {
    let link = Link::new();
    let config = frr_config("receive-interval 150\n  transmit-interval 200\n  detect-multiplier 5");
    let frr = Frr::launch(&link.theirs, &config).unwrap();
    let process = Process::start(&link.ours);
    let mut agent = process.attach();
    agent.want(&THEIRS.map(|peer| session(peer, 100, 300, 4)));
    let told = agent.await_up();
    for (ours, theirs) in OURS.into_iter().zip(THEIRS) {
        let shown = await_frr_up(&frr, ours);
        let view = of(&told, theirs);
        // We send at the slower of our 300 and its 150; it is silent too long after 5 times the slower of 200 and 100.
        assert_eq!(view.transmit_interval_microseconds, 300_000, "{theirs}");
        assert_eq!(view.detection_time_microseconds, Some(1_000_000), "{theirs}");
        assert_eq!(view.remote_state.as_deref(), Some("Up"));
        assert!(!view.multi_hop && view.problem.is_none(), "{view:?}");
        assert_eq!(u64::from(view.local_discriminator), shown["remote-id"], "{shown}");
        assert_eq!(view.remote_discriminator.map(u64::from), shown["id"].as_u64(), "{shown}");
    }
    // What FRR says of us arrived by a Poll Sequence after the session was up.
    for ours in OURS {
        await_router("our intervals", || {
            let shown = frr.bfd(ip(ours)).unwrap().unwrap();
            let seen = (&shown["remote-receive-interval"], &shown["remote-transmit-interval"]);
            let right = *seen.0 == 100 && *seen.1 == 300 && shown["remote-detect-multiplier"] == 4;
            if right { Ok(()) } else { Err(shown.to_string()) }
        });
    }
}

#[test]
fn with_bird_over_ipv4_ipv6_and_link_local_addresses() {
    let link = Link::new();
    let config = bird_config("min rx interval 150 ms; min tx interval 200 ms; multiplier 5;");
    let bird = Bird::launch(&link.theirs, &config).unwrap();
    let process = Process::start(&link.ours);
    let mut agent = process.attach();
    agent.want(&THEIRS.map(|peer| session(peer, 100, 300, 4)));
    let told = agent.await_up();
    for (ours, theirs) in OURS.into_iter().zip(THEIRS) {
        let view = of(&told, theirs);
        assert_eq!(view.transmit_interval_microseconds, 300_000, "{theirs}");
        assert_eq!(view.detection_time_microseconds, Some(1_000_000), "{theirs}");
        // It sends at its own 200 and waits for 4 times the slower of our 300 and its 150.
        await_router("up at the agreed intervals", || match bird.bfd(ip(ours)) {
            Ok(Some((state, interval, timeout))) if state == "up" && interval == 0.2 && timeout == 1.2 => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
fn three_times_fifty_milliseconds_are_agreed_with_both() {
    let link = Link::new();
    let frr = frr_config("receive-interval 50\n  transmit-interval 50\n  detect-multiplier 3");
    let frr = Frr::launch(&link.theirs, &frr).unwrap();
    let process = Process::start(&link.ours);
    let mut agent = process.attach();
    agent.want(&THEIRS.map(|peer| session(peer, 50, 50, 3)));
    let told = agent.await_up();
    for theirs in THEIRS {
        assert_eq!(of(&told, theirs).detection_time_microseconds, Some(150_000));
    }
    drop(frr);
    let bird = bird_config("min rx interval 50 ms; min tx interval 50 ms; multiplier 3;");
    let _bird = Bird::launch(&link.theirs, &bird).unwrap();
    // FRR was killed: down, then up with the other.
    agent.await_told("down", |told| told.sessions.iter().all(|session| session.status.down_count > 0));
    let told = agent.await_up();
    for theirs in THEIRS {
        assert_eq!(of(&told, theirs).detection_time_microseconds, Some(150_000));
    }
}

/// Our address and a router behind another router.
fn two_hops() -> (Netns, Netns, Netns) {
    let (ours, middle, theirs) =
        (Netns::new("node").unwrap(), Netns::new("middle").unwrap(), Netns::new("router").unwrap());
    veth((&ours, "eth0"), (&middle, "eth0")).unwrap();
    veth((&theirs, "eth0"), (&middle, "eth1")).unwrap();
    ours.address("eth0", "10.1.0.2/30").unwrap();
    middle.address("eth0", "10.1.0.1/30").unwrap();
    middle.address("eth1", "10.2.0.1/30").unwrap();
    theirs.address("eth0", "10.2.0.2/30").unwrap();
    middle.sysctl("net.ipv4.ip_forward", "1").unwrap();
    ours.exec("ip route add default via 10.1.0.1").unwrap();
    theirs.exec("ip route add default via 10.2.0.1").unwrap();
    (ours, middle, theirs)
}

/// To 10.2.0.2, at most so many hops away.
fn far(hops: Option<u8>) -> SessionSpec {
    let spec = session("10.2.0.2", 100, 100, 3);
    let hops = hops.map(|hops| NonZeroU8::new(hops).unwrap());
    SessionSpec { target: TargetSpec { hops, ..spec.target }, ..spec }
}

#[test]
fn behind_another_router_with_both() {
    let (ours, _middle, theirs) = two_hops();
    let frr = "hostname router\nlog stdout\nbfd\n peer 10.1.0.2 multihop local-address 10.2.0.2\n  \
        receive-interval 100\n  transmit-interval 100\n  minimum-ttl 254\n exit\nexit\n";
    let frr = Frr::launch(&theirs, frr).unwrap();
    let process = Process::start(&ours);
    let mut agent = process.attach();
    agent.want(&[far(Some(2))]);
    let told = agent.await_up();
    assert!(of(&told, "10.2.0.2").multi_hop);
    assert_eq!(await_frr_up(&frr, "10.1.0.2")["multihop"], true);
    drop(frr);
    agent.await_told("down", |told| told.sessions.iter().all(|session| session.status.down_count > 0));

    let bird = "router id 10.2.0.2;\nprotocol device {}\nprotocol bfd {\n  multihop { min rx interval 100 ms; min tx \
        interval 100 ms; };\n  neighbor 10.1.0.2 local 10.2.0.2 multihop;\n}\n";
    let _bird = Bird::launch(&theirs, bird).unwrap();
    // An internal peer that no subnet of ours holds is taken as one that is further away.
    agent.want(&[far(None)]);
    assert!(of(&agent.await_up(), "10.2.0.2").multi_hop);

    // Negative control: a router more than the path may have.
    agent.want(&[far(Some(1))]);
    let told =
        agent.await_told("another session", |told| told.sessions[0].target.hops == Some(NonZeroU8::MIN));
    assert!(!of(&told, "10.2.0.2").multi_hop && of(&told, "10.2.0.2").up_count == 0);
}

#[test]
fn a_peer_without_a_path_is_named_and_looked_for_again() {
    let link = Link::new();
    let frr = Frr::launch(&link.theirs, &frr_config("detect-multiplier 3")).unwrap();
    link.ours.exec("ip link set eth0 down").unwrap();
    link.ours.exec("ip link set eth0 name later").unwrap();
    let process = Process::start(&link.ours);
    let mut agent = process.attach();
    agent.want(&all());
    let told = agent.await_told("the problem", |told| of(told, "fe80::254").problem.is_some());
    let problem = of(&told, "fe80::254").problem.unwrap();
    assert!(problem.contains("eth0"), "{problem}");
    link.ours.exec("ip link set later name eth0").unwrap();
    link.ours.up("eth0").unwrap();
    for address in ["fd00::1/64", "fe80::1/64"] {
        // Linux forgot them when the link went down.
        let _ = link.ours.address("eth0", address);
    }
    agent.await_up();
    for ours in OURS {
        await_frr_up(&frr, ours);
    }
}
