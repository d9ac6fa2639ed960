//! A busy machine is no failure. By hand, as it takes both cores for as long as it is told to:
//! `PLAINROUTE_LOAD_SECONDS=600 cargo test -p plainroute-tests --test bfd load -- --ignored`.

use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Process, session};
use crate::{Link, OURS, THEIRS};

/// Twice as many threads as cores that do nothing but compute.
fn compute_for(time: Duration) {
    let until = Instant::now() + time;
    let threads = thread::available_parallelism().unwrap().get() * 2;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut sum = 0_u64;
                while Instant::now() < until {
                    (0..10_000_u64).for_each(|number| sum = std::hint::black_box(sum.wrapping_add(number)));
                }
            });
        }
    });
}

#[test]
#[ignore = "takes all cores, a minute or as long as PLAINROUTE_LOAD_SECONDS says"]
fn under_full_load_there_is_no_false_alarm() {
    let seconds = std::env::var("PLAINROUTE_LOAD_SECONDS");
    let seconds: u64 = seconds.map_or(60, |seconds| seconds.parse().expect("a number of seconds"));
    let link = Link::new();
    let ends = [(Process::start(&link.ours), THEIRS), (Process::start(&link.theirs), OURS)];
    let mut agents = ends.each_ref().map(|(process, _)| process.attach());
    for (agent, (_, peers)) in agents.iter_mut().zip(&ends) {
        agent.want(&peers.map(|peer| session(peer, 50, 50, 3)));
    }
    let before = agents.each_mut().map(|agent| agent.await_up());
    compute_for(Duration::from_secs(seconds));
    for ((process, peers), before) in ends.iter().zip(before) {
        let mut agent = process.attach();
        agent.want(&peers.map(|peer| session(peer, 50, 50, 3)));
        let after = agent.hear().unwrap();
        for (old, new) in before.sessions.iter().zip(&after.sessions) {
            let (old, new) = (&old.status, &new.status);
            println!("{}: {} packets sent, {} received", new.local_discriminator, new.sent, new.received);
            assert_eq!((new.down_count, new.up_count), (old.down_count, old.up_count), "{new:?}");
            // The slowest that RFC 5880 section 6.8.7 allows is every 50 ms.
            assert!(new.received - old.received >= seconds * 18, "no such time was spent: {new:?}");
        }
    }
}
