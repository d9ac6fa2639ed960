//! A link under a clock of the test's own: when what is sent, and who counts as heard.
#![expect(clippy::disallowed_methods, reason = "a moment to begin with; the rest is the test's own clock")]
use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use plainroute_ra::{ALL_NODES, ALL_ROUTERS, Advertisement, Link, Message, Packet, Refusal};
use proptest::prelude::*;

const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xa];

fn router(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number)
}

fn advertisement() -> Vec<u8> {
    Message::Advertisement(Advertisement { router_lifetime: 0, source: None }).encode()
}

fn solicitation() -> Vec<u8> {
    Message::Solicitation { source: None }.encode()
}

/// A link and the moments, in milliseconds from its start, at which it sent what.
struct Bench {
    link: Link,
    start: Instant,
    advertised: Vec<u128>,
    solicited: Vec<u128>,
}

impl Bench {
    fn up(seed: u64) -> Bench {
        let start = Instant::now();
        let mut bench = Bench { link: Link::new(seed), start, advertised: Vec::new(), solicited: Vec::new() };
        bench.link.handle_up(start, OWN, Some(MAC));
        bench
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.start + Duration::from_millis(milliseconds)
    }

    /// Lets the time pass until then.
    fn run(&mut self, until: u64) {
        let mut now = self.start;
        loop {
            while let Some(sent) = self.link.poll_transmit(now) {
                let packet = Packet { source: OWN, hop_limit: Some(255), payload: &sent.payload };
                let moment = (now - self.start).as_millis();
                match Message::decode(&packet).unwrap().unwrap() {
                    Message::Advertisement(told) => {
                        assert_eq!((sent.destination, told.router_lifetime), (ALL_NODES, 0));
                        assert_eq!(told.source, Some(MAC));
                        self.advertised.push(moment);
                    }
                    Message::Solicitation { source } => {
                        assert_eq!((sent.destination, source), (ALL_ROUTERS, Some(MAC)));
                        self.solicited.push(moment);
                    }
                }
            }
            match self.link.poll_timeout() {
                Some(next) if next <= self.at(until) => now = now.max(next),
                Some(_) | None => return,
            }
        }
    }

    fn hear(&mut self, at: u64, source: Ipv6Addr, payload: &[u8]) -> Result<(), Refusal> {
        self.run(at);
        self.link.handle_packet(self.at(at), &Packet { source, hop_limit: Some(255), payload })
    }
}

/// RFC 4861 sections 6.2.4 and 6.3.7.
#[test]
fn it_begins_at_once_and_in_quick_succession_then_at_random_within_the_interval() {
    let mut bench = Bench::up(1);
    bench.run(120_000);
    assert_eq!(bench.solicited, [0, 4000, 8000], "nobody answered, so no more than three");
    assert_eq!(bench.advertised[..3], [0, 3000, 6000]);
    let gaps: Vec<u128> = bench.advertised[2..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() >= 10 && gaps.iter().all(|gap| (7500..=10_000).contains(gap)), "{gaps:?}");
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "{gaps:?}");
}

#[test]
fn a_router_that_is_heard_ends_the_asking_and_is_told_of_us_at_once() {
    let mut bench = Bench::up(1);
    bench.run(20_000);
    bench.advertised.clear();
    bench.link.handle_down();
    bench.start = bench.at(30_000);
    bench.solicited.clear();
    bench.link.handle_up(bench.start, OWN, Some(MAC));
    bench.hear(1, router(1), &advertisement()).unwrap();
    bench.run(8000);
    assert_eq!(bench.solicited, [0]);
    assert_eq!(bench.link.routers().keys().collect::<Vec<_>>(), [&router(1)]);
    // Not within three seconds of the one before (section 6.2.6).
    assert_eq!(bench.advertised[0], 0);
    assert!((3000..=3501).contains(&bench.advertised[1]), "{:?}", bench.advertised);
    // Heard again it is no news.
    let before = bench.link.poll_timeout();
    bench.hear(8100, router(1), &advertisement()).unwrap();
    assert_eq!(bench.link.poll_timeout(), before);
    assert_eq!(bench.link.routers()[&router(1)], bench.at(8100));
}

#[test]
fn a_solicitation_is_answered_within_half_a_second_but_never_twice_in_three() {
    let mut bench = Bench::up(5);
    bench.run(6000);
    let last = u64::try_from(*bench.advertised.last().unwrap()).unwrap();
    bench.hear(last + 4000, router(1), &solicitation()).unwrap();
    bench.run(last + 4500);
    assert_eq!(bench.advertised.len(), 4, "{:?}", bench.advertised);
    let answered = u64::try_from(*bench.advertised.last().unwrap()).unwrap();
    for ask in 1..=20 {
        bench.hear(answered + 100 * ask, router(1), &solicitation()).unwrap();
    }
    bench.run(answered + 4000);
    assert_eq!(bench.advertised.len(), 5);
    assert!(bench.advertised[4] - bench.advertised[3] >= 3000);
    assert!(bench.link.routers().is_empty(), "who asks is no router");
}

#[test]
fn a_link_that_goes_down_forgets_who_was_there_and_begins_anew() {
    let mut bench = Bench::up(1);
    bench.hear(10, router(1), &advertisement()).unwrap();
    bench.link.handle_down();
    assert!(bench.link.routers().is_empty());
    assert_eq!((bench.link.poll_timeout(), bench.link.poll_transmit(bench.at(60_000))), (None, None));
    let packet = Packet { source: router(1), hop_limit: Some(255), payload: &advertisement() };
    bench.link.handle_packet(bench.at(11), &packet).unwrap();
    assert!(bench.link.routers().is_empty(), "what is left in the socket is of the time before");
    bench.link.handle_up(bench.at(60_000), OWN, Some(MAC));
    assert_eq!(bench.link.poll_transmit(bench.at(60_000)).unwrap().destination, ALL_ROUTERS);
    bench.link.handle_up(bench.at(60_000), OWN, Some(MAC));
    assert_eq!(bench.link.poll_transmit(bench.at(60_000)).unwrap().destination, ALL_NODES);
    assert_eq!(bench.link.poll_transmit(bench.at(60_000)), None, "up again is no news");
}

#[test]
fn what_is_refused_is_counted_and_makes_nobody_a_router() {
    let mut bench = Bench::up(1);
    let mut bad = advertisement();
    bad[1] = 1;
    assert_eq!(bench.hear(5, router(1), &bad), Err(Refusal::Code));
    assert_eq!(bench.hear(6, "2001:db8::1".parse().unwrap(), &advertisement()), Err(Refusal::Source));
    assert_eq!(bench.hear(7, OWN, &advertisement()), Ok(()), "our own, reflected");
    assert!(bench.link.routers().is_empty());
    let refused = &bench.link.counters().refused;
    assert_eq!((refused[&Refusal::Code], refused[&Refusal::Source], refused.len()), (1, 1, 2));
    bench.hear(8, router(1), &advertisement()).unwrap();
    assert_eq!(bench.link.counters().advertisements_received, 1);
}

#[test]
fn a_flood_of_routers_takes_no_more_room_than_there_is() {
    let mut bench = Bench::up(1);
    for number in 0..100 {
        bench.hear(u64::from(number), router(number), &advertisement()).unwrap();
    }
    assert_eq!(bench.link.routers().len(), 16);
    assert!(bench.link.routers().contains_key(&router(99)));
}

proptest! {
    /// Whatever comes in, two advertisements are three seconds apart, and at most ten.
    #[test]
    fn advertisements_keep_their_distance(
        seed in any::<u64>(),
        mut asks in prop::collection::vec((0..100_000u64, any::<bool>(), 0..4u16), 0..40),
    ) {
        asks.sort_unstable();
        let mut bench = Bench::up(seed);
        for (at, asks, number) in asks {
            let payload = if asks { solicitation() } else { advertisement() };
            bench.hear(at, router(number), &payload).unwrap();
        }
        bench.run(120_000);
        for pair in bench.advertised.windows(2) {
            prop_assert!((3000..=10_000).contains(&(pair[1] - pair[0])), "{:?}", bench.advertised);
        }
        prop_assert!(bench.solicited.len() <= 3);
    }
}
