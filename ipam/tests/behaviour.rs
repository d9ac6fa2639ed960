//! What Pods, people and other nodes see, one sentence a test.
mod common;

use std::time::Duration;

use common::{Cluster, addresses, attachment, pod, pool};
use plainroute_blocks::{Add, Input, Ipam, Refusal, Settings, World};

const SMALL: &str = r#"{"ipRanges":[{"cidr":"10.20.0.0/28"}],"blockSize":29,"ipCooldownSeconds":60}"#;
const ERP_ONLY: &str = r#"{"ipRanges":[{"cidr":"10.20.0.0/28"}],"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"erp"}}}"#;

fn small(nodes: usize) -> Cluster {
    Cluster::new(nodes, vec![pool("small", SMALL)])
}

/// Eight addresses, one block.
fn one_block(nodes: usize) -> Cluster {
    let pools =
        vec![pool("one", r#"{"ipRanges":[{"cidr":"10.20.0.0/29"}],"blockSize":29,"ipCooldownSeconds":1}"#)];
    Cluster::new(nodes, pools)
}

fn of_set(container: &str, name: &str) -> Add {
    Add { name: name.to_owned(), stateful_set: Some("books".to_owned()), ..pod("erp", container) }
}

fn fixed(container: &str, address: &str) -> Add {
    Add { fixed: vec![address.parse().unwrap()], ..pod("erp", container) }
}

#[test]
fn the_same_interface_has_the_same_addresses() {
    let mut cluster = small(1);
    let first = cluster.add(0, pod("erp", "c1"));
    let appended = cluster.appended;
    assert_eq!(cluster.add(0, pod("erp", "c1")), first);
    assert_eq!(cluster.appended, appended, "nothing new is written down");
    assert_ne!(cluster.add(0, pod("erp", "c2")), first);
}

#[test]
fn a_pod_has_an_address_of_each_family_that_its_pools_have() {
    let v6 = r#"{"ipRanges":[{"cidr":"fd00::/120"}]}"#;
    let mut cluster = Cluster::new(1, vec![pool("v4", ERP_ONLY), pool("v6", v6)]);
    let both = cluster.add(0, pod("erp", "c1")).unwrap();
    assert!(both.len() == 2 && both[0].is_ipv4() && both[1].is_ipv6(), "{both:?}");
    let one = cluster.add(0, pod("crm", "c2")).unwrap();
    assert!(one.len() == 1 && one[0].is_ipv6(), "{one:?}");
}

#[test]
fn a_namespace_without_a_pool_is_told_so() {
    let mut cluster = Cluster::new(1, vec![pool("erp", ERP_ONLY)]);
    assert_eq!(cluster.add(0, pod("crm", "c1")), Err(Refusal::NoPool("crm".to_owned())));
    let narrowed = Add { pools: Some(vec!["other".to_owned()]), ..pod("erp", "c2") };
    assert_eq!(cluster.add(0, narrowed), Err(Refusal::NoPool("erp".to_owned())));
    let outside = cluster.add(0, fixed("c3", "10.99.0.1"));
    assert_eq!(outside, Err(Refusal::NotBound("10.99.0.1".parse().unwrap(), "erp".to_owned())));
}

#[test]
fn an_address_rests_before_it_is_given_out_again_and_the_next_one_comes_first() {
    let mut cluster =
        Cluster::new(1, vec![pool("p", r#"{"ipRanges":[{"cidr":"10.20.0.0/30"}],"blockSize":30}"#)]);
    let given: Vec<_> = (0..3).map(|n| cluster.add(0, pod("erp", &format!("c{n}"))).unwrap()[0]).collect();
    cluster.del(0, "c1");
    // The one that never was, not the one that was just freed.
    let next = cluster.add(0, pod("erp", "c3")).unwrap()[0];
    assert!(!given.contains(&next), "{next} of {given:?}");
    let refused = cluster.add(0, pod("erp", "c4"));
    assert_eq!(refused, Err(Refusal::Exhausted(vec!["p".to_owned()])));
    // The rest goes on over a restart.
    cluster.restart(0);
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.add(0, pod("erp", "c5")).is_err());
    cluster.pass(Duration::from_secs(60));
    assert_eq!(cluster.add(0, pod("erp", "c6")), Ok(vec![given[1]]));
}

#[test]
fn a_block_that_is_there_needs_no_server() {
    let mut cluster = small(1);
    cluster.add(0, pod("erp", "c1")).unwrap();
    cluster.server.away = true;
    cluster.add(0, pod("erp", "c2")).unwrap();
    cluster.restart(0);
    // The journal is whole, so the block serves at once after a restart too.
    cluster.add(0, pod("erp", "c3")).unwrap();
    assert_eq!(cluster.nodes[0].holdings().held.len(), 3);
}

#[test]
fn the_first_address_of_a_block_costs_one_write_and_the_next_none() {
    let mut cluster = small(1);
    cluster.add(0, pod("erp", "c1")).unwrap();
    assert_eq!(
        (cluster.server.writes, cluster.server.reads),
        (1, 2),
        "one creation; the own list, the check for overlaps"
    );
    let object = cluster.server.objects.values().next().unwrap();
    assert_eq!(object.spec.allocations[0].container_id.as_deref(), Some("c1"));
}

#[test]
fn without_a_server_a_pod_that_needs_one_is_told() {
    let mut cluster = small(1);
    cluster.server.away = true;
    let refused = cluster.add(0, pod("erp", "c1")).unwrap_err();
    assert!(matches!(refused, Refusal::NoServer(_)) && refused.code() == 11, "{refused}");
}

#[test]
fn when_no_block_is_left_an_address_is_borrowed_and_given_back() {
    let mut cluster = small(3);
    let of_0 = cluster.add(0, pod("erp", "c0")).unwrap();
    let of_1 = cluster.add(1, pod("erp", "c1")).unwrap();
    let of_2 = cluster.add(2, pod("erp", "c2")).unwrap();
    assert!(of_2 != of_0 && of_2 != of_1);
    let holdings = cluster.nodes[2].holdings();
    let (cidr, block) = holdings.blocks.first_key_value().unwrap();
    assert!(cidr.is_host() && block.lender.is_some(), "{holdings:?}");
    let lent = |cluster: &Cluster| -> usize {
        cluster
            .nodes
            .iter()
            .map(|node| node.holdings().blocks.values().map(|one| one.lent.len()).sum::<usize>())
            .sum()
    };
    assert_eq!(lent(&cluster), 1);
    cluster.del(2, "c2");
    cluster.pass(Duration::from_secs(5));
    assert_eq!((lent(&cluster), cluster.nodes[2].holdings().blocks.len()), (0, 0));
}

#[test]
fn two_pods_that_want_one_address_take_turns() {
    let mut cluster = small(2);
    assert_eq!(cluster.add(0, fixed("c1", "10.20.0.5")), addresses(&["10.20.0.5"]));
    for (node, container) in [(0, "c2"), (1, "c3")] {
        let refused = cluster.add(node, fixed(container, "10.20.0.5")).unwrap_err();
        assert!(
            refused.to_string().contains("held by Pod erp/pod-of-c1") && refused.code() == 11,
            "{refused}"
        );
    }
    cluster.del(0, "c1");
    // No rest for an address that is asked for by name.
    assert_eq!(cluster.add(1, fixed("c4", "10.20.0.5")), addresses(&["10.20.0.5"]));
    assert!(cluster.add(0, fixed("c5", "10.20.0.5")).is_err(), "it is lent");
}

#[test]
fn a_fixed_address_that_is_asked_for_in_time_moves_as_soon_as_the_pod_before_is_gone() {
    for size in [29, 32] {
        let spec = format!(
            r#"{{"ipRanges":[{{"cidr":"10.20.0.0/28"}}],"blockSize":{size},"ipCooldownSeconds":60}}"#
        );
        let mut cluster = Cluster::new(2, vec![pool("p", &spec)]);
        cluster.add(0, fixed("c1", "10.20.0.5")).unwrap();
        let ticket = cluster.ticket();
        cluster.feed(1, Input::Add(ticket, fixed("c2", "10.20.0.5")));
        cluster.pass(Duration::from_secs(2));
        assert_eq!(cluster.replies.get(&ticket), None, "refused at once");
        cluster.del(0, "c1");
        cluster.pass(Duration::from_secs(1));
        assert_eq!(cluster.replies.remove(&ticket), Some(addresses(&["10.20.0.5"])), "/{size}");
    }
}

#[test]
fn a_fixed_address_that_its_pool_lost_meanwhile_is_not_asked_for() {
    let mut cluster = small(2);
    cluster.add(0, fixed("c1", "10.20.0.5")).unwrap();
    cluster.server.away = true;
    let ticket = cluster.ticket();
    cluster.feed(1, Input::Add(ticket, fixed("c2", "10.20.0.5")));
    cluster.server.away = false;
    let edited = r#"{"ipRanges":[{"cidr":"10.20.0.0/28"}],"excluded":["10.20.0.5"],"blockSize":29}"#;
    let world = World { pools: vec![pool("small", edited)], ..cluster.world.clone() };
    cluster.feed(1, Input::World(world));
    cluster.pass(Duration::from_secs(2));
    let refused = cluster.replies.remove(&ticket).expect("an answer").unwrap_err();
    assert!(refused.to_string().contains("none of its pools"), "{refused}");
    assert_eq!(cluster.server.objects.len(), 1, "it was asked for: {:?}", cluster.server.objects);
}

#[test]
fn a_single_address_moves_with_its_pod() {
    let mut cluster =
        Cluster::new(2, vec![pool("one", r#"{"ipRanges":[{"cidr":"10.20.0.0/30"}],"blockSize":32}"#)]);
    assert_eq!(cluster.add(0, fixed("c1", "10.20.0.2")), addresses(&["10.20.0.2"]));
    cluster.del(0, "c1");
    assert_eq!(cluster.add(1, fixed("c2", "10.20.0.2")), addresses(&["10.20.0.2"]));
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.nodes[0].holdings().blocks.len(), 0);
    assert_eq!(cluster.server.objects.len(), 1, "{:?}", cluster.server.objects);
}

#[test]
fn a_pod_of_a_stateful_set_keeps_its_address_wherever_it_runs() {
    let mut cluster = small(2);
    let address = cluster.add(0, of_set("c1", "books-0"));
    cluster.del(0, "c1");
    cluster.add(0, pod("erp", "c2")).unwrap();
    assert_eq!(cluster.add(0, of_set("c3", "books-0")), address, "on the same node");
    cluster.del(0, "c3");
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.add(1, of_set("c4", "books-0")), address, "on another");
    cluster.del(1, "c4");
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.add(0, of_set("c5", "books-0")), address, "and back");
}

#[test]
fn what_is_kept_ends_with_its_stateful_set_or_by_a_person() {
    for by_hand in [false, true] {
        let mut cluster = small(1);
        let address = cluster.add(0, of_set("c1", "books-0")).unwrap()[0];
        cluster.del(0, "c1");
        let used = |cluster: &Cluster| {
            cluster.nodes[0].holdings().blocks.values().map(|one| one.used).sum::<usize>()
        };
        cluster.look(0, &[], &[]);
        assert_eq!(used(&cluster), 1, "one look ends nothing");
        if by_hand {
            assert_eq!(cluster.ask(0, |ticket| Input::Release(ticket, address, false)), Ok(vec![address]));
        } else {
            cluster.pass(Duration::from_secs(31));
            cluster.look(0, &[], &[]);
        }
        assert_eq!(used(&cluster), 0);
    }
}

#[test]
fn two_looks_apart_end_what_neither_sees() {
    let mut cluster = small(1);
    cluster.add(0, pod("erp", "c1")).unwrap();
    cluster.add(0, pod("erp", "c2")).unwrap();
    let held = |cluster: &Cluster| cluster.nodes[0].holdings().held.len();
    cluster.look(0, &["c1"], &[]);
    cluster.pass(Duration::from_secs(10));
    cluster.look(0, &["c1"], &[]);
    assert_eq!(held(&cluster), 2, "too soon");
    cluster.pass(Duration::from_secs(25));
    cluster.look(0, &["c1", "c2"], &[]);
    cluster.look(0, &["c1"], &[]);
    assert_eq!(held(&cluster), 2, "it was seen in between");
    cluster.pass(Duration::from_secs(31));
    cluster.look(0, &["c1"], &[]);
    assert_eq!(held(&cluster), 1);
}

#[test]
fn what_a_pod_holds_is_released_by_hand_only_with_a_confirmation() {
    let mut cluster = small(1);
    let address = cluster.add(0, pod("erp", "c1")).unwrap()[0];
    let refused = cluster.ask(0, |ticket| Input::Release(ticket, address, false)).unwrap_err();
    assert!(refused.to_string().contains("erp/pod-of-c1"), "{refused}");
    assert_eq!(cluster.ask(0, |ticket| Input::Release(ticket, address, true)), Ok(vec![address]));
    assert!(cluster.ask(0, |ticket| Input::Check(ticket, attachment("c1"), vec![address])).is_err());
}

#[test]
fn check_compares_and_del_of_the_unknown_succeeds() {
    let mut cluster = small(1);
    let addresses = cluster.add(0, pod("erp", "c1")).unwrap();
    let check = |cluster: &mut Cluster, container: &str, wanted: Vec<_>| {
        cluster.ask(0, |ticket| Input::Check(ticket, attachment(container), wanted))
    };
    assert!(check(&mut cluster, "c1", addresses.clone()).is_ok());
    assert!(check(&mut cluster, "c1", vec!["10.20.0.99".parse().unwrap()]).is_err());
    assert!(check(&mut cluster, "c9", addresses).is_err());
    cluster.del(0, "c9");
    cluster.del(0, "c1");
    cluster.del(0, "c1");
}

#[test]
fn a_block_of_a_fenced_node_goes_to_the_next_with_a_greater_epoch() {
    let mut cluster = small(3);
    let kept = cluster.add(0, of_set("c1", "books-0"));
    cluster.add(1, pod("erp", "c2")).unwrap();
    let refused = cluster.add(2, of_set("c3", "books-0")).unwrap_err();
    assert!(refused.to_string().contains("on node node-0"), "alive, as far as anybody knows: {refused}");
    cluster.fence(2, "node-0");
    assert_eq!(cluster.add(2, of_set("c4", "books-0")), kept);
    let holdings = cluster.nodes[2].holdings();
    let epochs: Vec<_> = holdings.blocks.values().map(|block| block.epoch).collect();
    assert_eq!(epochs, [2]);
    // The one that was fenced learns that it has lost the block, and gives nothing of it out.
    cluster.pass(Duration::from_secs(1));
    assert!(cluster.nodes[0].holdings().blocks.values().all(|block| block.lost));
}

#[test]
fn a_fenced_node_s_block_is_taken_over_by_who_borrows_of_it() {
    let mut cluster = one_block(2);
    cluster.add(0, pod("erp", "c1")).unwrap();
    let borrowed = cluster.add(1, pod("erp", "c2")).unwrap()[0];
    cluster.fence(1, "node-0");
    let given: Vec<_> = (0..6).map(|n| cluster.add(1, pod("erp", &format!("d{n}"))).unwrap()[0]).collect();
    assert!(!given.contains(&borrowed), "{borrowed} has two holders: {given:?}");
    assert_eq!(cluster.server.objects["10-20-0-0-29"].spec.node, "node-1");
}

#[test]
fn what_a_fenced_node_had_is_taken_over_whole_and_given_back_where_nobody_needs_it() {
    let mut cluster = one_block(3);
    cluster.add(0, pod("erp", "c1")).unwrap();
    let borrowed = cluster.add(1, pod("erp", "c2")).unwrap()[0];
    // Who borrowed is fenced: the address goes back to its lender, which knows nothing of it.
    cluster.fence(2, "node-1");
    cluster.feed(2, Input::Inherit("node-1".to_owned(), None));
    cluster.pass(Duration::from_secs(60));
    let given: Vec<_> = (0..7).map(|n| cluster.add(0, pod("erp", &format!("d{n}"))).unwrap()[0]).collect();
    assert!(given.contains(&borrowed), "{borrowed} is lent to a dead node: {given:?}");
    // Then the owner.
    cluster.fence(2, "node-0");
    cluster.feed(2, Input::Inherit("node-0".to_owned(), Some("10.99.0.1".parse().unwrap())));
    assert_eq!(cluster.server.objects["10-20-0-0-29"].spec.node, "node-0", "asked for another address");
    cluster.feed(2, Input::Inherit("node-0".to_owned(), None));
    let taken = &cluster.server.objects["10-20-0-0-29"].spec;
    assert_eq!((&*taken.node, taken.epoch), ("node-2", 2));
    cluster.pass(Duration::from_secs(700));
    assert!(cluster.server.objects.is_empty(), "{:?}", cluster.server.objects);
}

#[test]
fn a_block_of_a_node_that_came_back_before_it_was_heard_of_stays_its_own() {
    let mut cluster = one_block(2);
    cluster.add(0, pod("erp", "c1")).unwrap();
    cluster.fence(1, "node-0");
    cluster.server.fenced.clear();
    cluster.feed(1, Input::Inherit("node-0".to_owned(), None));
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.server.objects["10-20-0-0-29"].spec.node, "node-0");
}

#[test]
fn whose_address_a_pod_needs_is_in_the_way_for_a_while() {
    let mut cluster = one_block(2);
    let address = cluster.add(0, pod("erp", "c1")).unwrap()[0];
    assert_eq!(cluster.nodes[1].in_the_way().count(), 0);
    assert!(cluster.add(1, fixed("c2", &address.to_string())).is_err());
    assert_eq!(cluster.nodes[1].in_the_way().collect::<Vec<_>>(), ["node-0"]);
    cluster.pass(Duration::from_secs(100));
    assert_eq!(cluster.nodes[1].in_the_way().count(), 0);
}

#[test]
fn a_block_taken_over_without_a_journal_lends_on_what_is_lent_of_it() {
    let mut cluster = one_block(3);
    cluster.add(0, pod("erp", "c1")).unwrap();
    let borrowed = cluster.add(1, pod("erp", "c2")).unwrap()[0];
    // Node 0 is fenced. Node 2 makes its block anew, knows nothing of the loan, and loses the answer and its journal.
    cluster.server.hand_over("10-20-0-0-29", "node-2");
    cluster.lose_journal(2);
    cluster.pass(Duration::from_secs(5));
    let early = cluster.add(2, pod("erp", "c3"));
    assert!(early.is_err(), "{early:?} before anybody looked at what runs there");
    cluster.look_at(2, "old", &["10.20.0.5".parse().unwrap()]);
    cluster.pass(Duration::from_secs(2));
    let given: Vec<_> = (0..6).map(|n| cluster.add(2, pod("erp", &format!("d{n}"))).unwrap()[0]).collect();
    assert!(!given.contains(&borrowed), "{borrowed} has two holders: {given:?}");
    assert!(
        !given.contains(&"10.20.0.5".parse().unwrap()),
        "the sandbox that ran on has its address no more"
    );
    assert!(cluster.add(2, pod("erp", "d6")).is_err());
    // It comes back to the new owner.
    cluster.del(1, "c2");
    cluster.pass(Duration::from_secs(120));
    assert_eq!(cluster.add(2, pod("erp", "d7")), Ok(vec![borrowed]));
}

#[test]
fn what_a_node_without_a_journal_had_borrowed_is_not_given_back_under_its_pod() {
    let mut cluster = one_block(2);
    cluster.add(0, pod("erp", "c1")).unwrap();
    let borrowed = cluster.add(1, pod("erp", "c2")).unwrap()[0];
    // Its object is behind: it names nobody yet.
    let name = plainroute_config::IpBlockSpec::name_of(plainroute_bgp::Prefix::host(borrowed));
    cluster.server.objects.get_mut(&name).unwrap().spec.allocations.clear();
    cluster.lose_journal(1);
    cluster.pass(Duration::from_secs(120));
    assert!(cluster.server.objects.contains_key(&name), "it was given back before anybody looked");
    cluster.look_at(1, "c2", &[borrowed]);
    cluster.pass(Duration::from_secs(120));
    assert!(cluster.nodes[1].holdings().held.contains_key(&borrowed));
    let given: Vec<_> = (0..6).map(|n| cluster.add(0, pod("erp", &format!("d{n}"))).unwrap()[0]).collect();
    assert!(!given.contains(&borrowed), "{borrowed} has two holders: {given:?}");
}

#[test]
fn what_nobody_needs_is_given_back() {
    let mut cluster = small(1);
    for n in 0..7 {
        cluster.add(0, pod("erp", &format!("c{n}"))).unwrap();
    }
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.server.objects.len(), 2, "the next block is claimed before the first is full");
    for n in 0..7 {
        cluster.del(0, &format!("c{n}"));
    }
    cluster.pass(Duration::from_secs(700));
    assert_eq!(cluster.server.objects.len(), 0);
}

#[test]
fn blocks_of_files_need_no_server() {
    let settings = || Settings { node: "node-0".to_owned(), boot: "b".to_owned(), has_server: false };
    let mut cluster = small(1);
    (cluster.nodes[0], cluster.journals[0]) = Ipam::recover(settings(), &[]).unwrap();
    cluster.feed(0, Input::World(cluster.world.clone()));
    let block = |cidr: &str| plainroute_config::IpBlockSpec::new(cidr.parse().unwrap(), "node-0", "small");
    let before = cluster.server.writes + cluster.server.reads;
    cluster.feed(0, Input::Documents(vec![block("10.20.0.8/29")]));
    cluster.look(0, &[], &[]);
    assert_eq!(cluster.add(0, pod("erp", "c1")), addresses(&["10.20.0.8"]));
    (cluster.nodes[0], _) = Ipam::recover(settings(), &cluster.journals[0]).unwrap();
    cluster.feed(0, Input::World(cluster.world.clone()));
    assert_eq!(cluster.add(0, pod("erp", "c2")), addresses(&["10.20.0.9"]));
    // What is kept for a Pod of a StatefulSet is kept here or nowhere.
    assert_eq!(cluster.add(0, of_set("c4", "books-0")), addresses(&["10.20.0.10"]));
    cluster.del(0, "c4");
    assert_eq!(cluster.add(0, of_set("c5", "books-0")), addresses(&["10.20.0.10"]));
    cluster.del(0, "c5");
    cluster.feed(0, Input::Documents(Vec::new()));
    assert!(cluster.add(0, pod("erp", "c3")).is_err(), "its document is gone");
    assert_eq!(cluster.nodes[0].holdings().held.len(), 2, "what is held stays");
    assert_eq!(cluster.server.writes + cluster.server.reads, before);
}

#[test]
fn a_journal_of_another_node_is_refused() {
    let cluster = small(2);
    let settings = Settings { node: "node-1".to_owned(), boot: "b".to_owned(), has_server: true };
    let error = Ipam::recover(settings, &cluster.journals[0]).unwrap_err();
    assert!(error.to_string().starts_with("record 1: "), "{error}");
}

#[test]
fn a_short_journal_says_what_the_long_one_said() {
    let mut cluster = small(3);
    for (node, container) in [(0, "c0"), (1, "c1"), (2, "c2"), (0, "c3"), (0, "c4")] {
        cluster.add(node, pod("erp", container)).unwrap();
    }
    cluster.del(0, "c3");
    for node in 0..3 {
        let before = cluster.nodes[node].holdings();
        cluster.journals[node] = cluster.nodes[node].records();
        cluster.restart(node);
        assert_eq!(cluster.nodes[node].holdings(), before);
    }
}
