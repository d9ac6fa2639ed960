//! Both sides connect at once (RFC 4271 section 6.8).
use std::time::Duration;

use plainroute_bgp::session::{DownReason, SessionConfig};

use crate::pair::{A, B, Pair, config};

/// So many first deliveries are tried in every order; after these, packets come by their time.
const DEPTH: usize = 9;

/// Runs `build` once for each order of the first `DEPTH` deliveries, then hands each pair to `check`.
fn in_every_order(build: impl Fn() -> Pair, check: impl Fn(Pair, &[usize])) -> usize {
    let mut choices: Vec<usize> = Vec::new();
    let mut runs = 0;
    loop {
        let mut pair = build();
        let mut widths = Vec::new();
        for depth in 0..DEPTH {
            let heads = pair.heads();
            if heads.is_empty() {
                break;
            }
            if choices.len() == depth {
                choices.push(0);
            }
            widths.push(heads.len());
            let (_, link, side) = heads[choices[depth]];
            pair.deliver(link, side);
        }
        choices.truncate(widths.len());
        check(pair, &choices);
        runs += 1;
        // The next number in the mixed base of the widths.
        loop {
            let Some(last) = choices.pop() else { return runs };
            if last + 1 < widths[choices.len()] {
                choices.push(last + 1);
                break;
            }
        }
    }
}

fn one_session_remains(mut pair: Pair, order: &[usize]) {
    pair.run_until(Duration::from_secs(2), Pair::established);
    pair.run_for(Duration::from_secs(100));
    assert!(pair.established(), "lost again after {order:?}");
    assert_eq!(pair.connections(), 1, "connections left over after {order:?}");
    let settled = [A, B].map(|side| pair.sides[side].connects);
    pair.run_for(Duration::from_secs(20));
    assert_eq!(settled, [A, B].map(|side| pair.sides[side].connects), "still connecting after {order:?}");
}

fn both_started(a: SessionConfig, b: SessionConfig) -> Pair {
    let mut pair = Pair::new(a, b);
    pair.start_both();
    pair
}

#[test]
fn one_session_remains_in_every_order() {
    let runs = in_every_order(|| both_started(config(1, 2, 10), config(2, 1, 20)), one_session_remains);
    assert!(runs > 1000, "only {runs} orders");
}

#[test]
fn one_session_remains_within_an_as_in_every_order() {
    in_every_order(|| both_started(config(1, 1, 0xc000_0001), config(1, 1, 10)), one_session_remains);
}

#[test]
fn equal_router_ids_are_told_apart_by_their_as_in_every_order() {
    in_every_order(|| both_started(config(1, 2, 7), config(2, 1, 7)), one_session_remains);
}

#[test]
fn one_session_remains_on_a_lossy_line() {
    for (latency, loss) in [(1, 30), (20, 60), (150, 10), (400, 0)] {
        let mut pair = Pair::active();
        (pair.latency, pair.loss) = (Duration::from_millis(latency), loss);
        pair.start_both();
        pair.run_until(Duration::from_secs(20), Pair::established);
        pair.run_for(Duration::from_secs(300));
        assert!(pair.established() && pair.connections() == 1, "latency {latency}, loss {loss}");
    }
}

#[test]
fn the_connection_of_the_higher_identifier_stays() {
    for (a, b, opener) in [(10, 20, B), (20, 10, A)] {
        let mut pair = both_started(config(1, 2, a), config(2, 1, b));
        pair.run_until(Duration::from_secs(1), Pair::established);
        assert_eq!(pair.opener(), opener);
    }
}

#[test]
fn a_second_connection_does_not_disturb_an_established_session() {
    let mut pair = both_started(config(1, 2, 10), config(2, 1, 20));
    pair.run_until(Duration::from_secs(1), Pair::established);
    let open = pair.open_of(B);
    pair.accept_stranger(A);
    pair.inject(A, &open);
    pair.run_for(Duration::from_secs(5));
    assert!(pair.established());
    assert_eq!(pair.a().downs(), Vec::<&DownReason>::new());
    assert_eq!(pair.connections(), 1);
}
