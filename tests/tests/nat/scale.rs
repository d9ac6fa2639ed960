//! Many Pods: what the first table and one more Pod take.
use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use plainroute_agent::nat::Fate;

use crate::node::{Node, everywhere, source};

#[test]
fn twenty_thousand_pods_and_one_more() {
    const PODS: u32 = 20_000;
    const EGRESSES: u32 = 1000;
    let mut node = Node::new("scale");
    node.start();
    let pod = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a14_0000 + number)).into();
    let of = |number: u32| {
        let number = number % EGRESSES;
        source(
            &format!("namespace-{number}"),
            &format!("198.18.{}.{}", number >> 8, number & 255),
            Fate::Here,
        )
    };
    let mut class = everywhere();
    class.sources = (0..PODS).map(|number| (pod(number), of(number))).collect();
    let began = Instant::now();
    let installed = node.want_and_wait(|desired| desired.classes = vec![class]);
    println!("{PODS} Pods of {EGRESSES} Egresses in the table after {:.1?}", began.elapsed());
    assert_eq!(installed.error, None);
    let sources = node.nft("list table inet plainroute").matches(" : goto egress-").count();
    assert_eq!(sources, PODS as usize);

    let mut figures = Vec::new();
    for number in PODS..PODS + 20 {
        let began = Instant::now();
        let installed = node.want_and_wait(|desired| {
            desired.classes[0].sources.insert(pod(number), of(number));
        });
        figures.push(began.elapsed());
        assert_eq!(installed.error, None);
    }
    figures.sort_unstable();
    println!("one more Pod: median {:.1?}, worst {:.1?}", figures[10], figures[19]);
    // Ten times what is promised; what is built for tests is slow by itself.
    assert!(cfg!(debug_assertions) || figures[10] < Duration::from_millis(50));

    node.stop();
    node.start();
    let began = Instant::now();
    let mut class = everywhere();
    class.sources = (0..PODS).map(|number| (pod(number), of(number))).collect();
    node.want_and_wait(|desired| desired.classes = vec![class]);
    println!("adopted by the next process after {:.1?}", began.elapsed());
}
