//! Orders of events that nobody thought of: against a model of who has what, and with answers that fit no question.
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use common::{Cluster, attachment, pod, pool};
use plainroute_blocks::{
    Add, Answer, Attachment, BlockObject, Call, Input, Ipam, Now, Observation, Output, Record, Settings,
    Ticket,
};
use plainroute_config::{IpAllocation, IpBlockSpec};
use proptest::prelude::*;

const POOL: &str = r#"{"ipRanges":[{"cidr":"10.20.0.0/28"}],"blockSize":30,"ipCooldownSeconds":5}"#;

/// What a test does to nodes without trouble.
#[derive(Clone, Debug)]
enum Step {
    Add { node: usize, container: u8, fixed: Option<u8>, of_set: bool },
    Del { container: u8 },
    Restart { node: usize },
    Pass { seconds: u8 },
    Looks { node: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let add = (0_usize..3, 0_u8..12, prop::option::weighted(0.2, 0_u8..16), prop::bool::weighted(0.2));
    let add = add.prop_map(|(node, container, fixed, of_set)| Step::Add { node, container, fixed, of_set });
    let step = prop_oneof![
        6 => add,
        4 => (0_u8..12).prop_map(|container| Step::Del { container }),
        1 => (0_usize..3).prop_map(|node| Step::Restart { node }),
        2 => (0_u8..40).prop_map(|seconds| Step::Pass { seconds }),
        1 => (0_usize..3).prop_map(|node| Step::Looks { node }),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// The model: who was told which address and has not given it back. What a node holds is just that, over restarts too.
    #[test]
    fn nodes_hold_what_was_given_and_not_given_back(steps in steps()) {
        let mut cluster = Cluster::new(3, vec![pool("p", POOL)]);
        let mut model: BTreeMap<u8, (usize, IpAddr)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add { node, container, .. } if model.get(&container).is_some_and(|(other, _)| *other != node) => {}
                Step::Add { node, container, fixed, of_set } => {
                    let add = Add {
                        fixed: fixed.map(|host| IpAddr::from([10, 20, 0, host])).into_iter().collect(),
                        stateful_set: of_set.then(|| "set".to_owned()),
                        patience: Duration::from_secs(4),
                        ..pod("erp", &container.to_string())
                    };
                    let reply = cluster.add(node, add);
                    match (model.get(&container), reply) {
                        (Some((_, before)), reply) => prop_assert_eq!(reply, Ok(vec![*before])),
                        (None, Ok(given)) => {
                            prop_assert_eq!(given.len(), 1);
                            if let Some(host) = fixed {
                                prop_assert_eq!(given[0], IpAddr::from([10, 20, 0, host]));
                            }
                            let twice = model.values().any(|(_, address)| *address == given[0]);
                            prop_assert!(!twice, "{} is given twice: {:?}", given[0], model);
                            model.insert(container, (node, given[0]));
                        }
                        (None, Err(refusal)) => prop_assert!([7, 11].contains(&refusal.code()), "{}", refusal),
                    }
                }
                Step::Del { container } => {
                    if let Some((node, _)) = model.remove(&container) {
                        cluster.del(node, &container.to_string());
                    }
                }
                Step::Restart { node } => cluster.restart(node),
                Step::Pass { seconds } => cluster.pass(Duration::from_secs(seconds.into())),
                Step::Looks { node } => {
                    let names: Vec<_> = model.iter().filter(|(_, (on, _))| *on == node).map(|(one, _)| one.to_string()).collect();
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    cluster.look(node, &names, &[("erp", "set")]);
                }
            }
            for node in 0..3 {
                let held: BTreeSet<_> = cluster.nodes[node].holdings().held.keys().copied().collect();
                let wanted: BTreeSet<_> =
                    model.values().filter(|(on, _)| *on == node).map(|(_, address)| *address).collect();
                prop_assert_eq!(held, wanted, "node {}", node);
            }
        }
    }

    /// Whatever comes in whatever order, no input makes it panic, every output follows the journal, and its journal reads back.
    #[test]
    fn no_order_of_inputs_makes_it_panic(inputs in prop::collection::vec(input(), 1..80), intact in any::<bool>()) {
        let settings = || Settings { node: "node-0".to_owned(), boot: "b".to_owned(), has_server: true };
        let begun = Record::Begun { version: plainroute_blocks::VERSION, node: "node-0".to_owned() };
        let mut journal = vec![begun];
        journal.extend(intact.then_some(Record::Whole));
        let (mut ipam, _) = Ipam::recover(settings(), &journal).unwrap();
        let world = Cluster::new(1, vec![pool("p", POOL)]).world;
        let mut uptime = Duration::ZERO;
        let start: jiff::Timestamp = "2026-11-22T11:00:00Z".parse().unwrap();
        for (step, input) in std::iter::once((0, Input::World(world))).chain(inputs) {
            uptime += Duration::from_millis(step);
            let wall = start + jiff::SignedDuration::try_from(uptime).unwrap();
            for output in ipam.handle(Now { wall, uptime }, input) {
                if let Output::Append(record) = output {
                    journal.push(record);
                }
            }
            let _ = ipam.poll_timeout();
        }
        let (again, _) = Ipam::recover(settings(), &journal).unwrap();
        prop_assert_eq!(again.holdings().held, ipam.holdings().held);
    }
}

fn object() -> impl Strategy<Value = BlockObject> {
    let cidrs =
        prop_oneof![Just("10.20.0.0/30"), Just("10.20.0.4/30"), Just("10.20.0.5/32"), Just("10.20.0.0/28")];
    let allocation = (0_u16..4, any::<bool>(), 0_u8..3).prop_map(|(ordinal, lent, who)| IpAllocation {
        ordinal,
        pod_uid: Some("u".to_owned()),
        namespace: Some("erp".to_owned()),
        name: Some(format!("pod-{who}")),
        container_id: (!lent).then(|| format!("{who}")),
        interface: Some("eth0".to_owned()),
        stateful_set: None,
        lent_to: lent.then(|| format!("node-{who}")),
        loan: lent.then(|| format!("uid-{who}")),
        since: jiff::Timestamp::UNIX_EPOCH,
    });
    let allocations = prop::collection::vec(allocation, 0..3);
    (cidrs, 0_u8..3, 0_u8..4, 0_u8..4, any::<[bool; 2]>(), allocations).prop_map(
        |(cidr, node, uid, version, [loan, transfer], allocations)| {
            let mut spec = IpBlockSpec::new(cidr.parse().unwrap(), format!("node-{node}"), "p");
            if loan {
                spec.lender = Some("10-20-0-4-30".to_owned());
                spec.lender_node = Some(format!("node-{}", (node + 1) % 3));
                spec.transfer = transfer;
            }
            spec.allocations = allocations;
            BlockObject { name: spec.name(), uid: format!("uid-{uid}"), version: version.to_string(), spec }
        },
    )
}

fn input() -> impl Strategy<Value = (u64, Input)> {
    let objects = || prop::collection::vec(object(), 0..4);
    let answer = prop_oneof![
        3 => object().prop_map(|object| Answer::Object(Box::new(object))),
        2 => objects().prop_map(Answer::Objects),
        1 => Just(Answer::Deleted),
        1 => Just(Answer::Missing),
        1 => Just(Answer::Exists),
        1 => Just(Answer::Conflict),
        1 => Just(Answer::Refused("no".to_owned())),
        1 => Just(Answer::Failed("lost".to_owned())),
    ];
    let container = || (0_u8..4).prop_map(|container| attachment(&container.to_string()));
    let address = || (0_u8..18).prop_map(|host| IpAddr::from([10, 20, 0, host]));
    let add =
        (container(), prop::option::of(address()), any::<bool>()).prop_map(|(attachment, fixed, of_set)| {
            Add {
                fixed: fixed.into_iter().collect(),
                stateful_set: of_set.then(|| "set".to_owned()),
                patience: Duration::from_secs(3),
                ..pod("erp", &attachment.container_id)
            }
        });
    let ticket = || any::<u8>().prop_map(|ticket| Ticket(ticket.into()));
    let sandboxes = prop::collection::btree_map(container(), prop::collection::vec(address(), 0..2), 0..3);
    let all = |some: BTreeSet<Attachment>| some;
    let input = prop_oneof![
        10 => (0_u64..30, answer).prop_map(|(call, answer)| Input::Answer(Call(call), answer)),
        4 => (ticket(), add).prop_map(|(ticket, add)| Input::Add(ticket, add)),
        2 => (ticket(), container()).prop_map(|(ticket, one)| Input::Del(ticket, one)),
        1 => (ticket(), container(), address()).prop_map(|(ticket, one, address)| Input::Check(ticket, one, vec![address])),
        1 => (ticket(), prop::collection::btree_set(container(), 0..3)).prop_map(move |(ticket, some)| Input::Gc(ticket, all(some))),
        1 => ticket().prop_map(Input::Status),
        1 => (ticket(), address(), any::<bool>()).prop_map(|(ticket, address, confirm)| Input::Release(ticket, address, confirm)),
        2 => objects().prop_map(Input::Owned),
        2 => objects().prop_map(Input::Asked),
        1 => prop::collection::btree_set((0_u8..3).prop_map(|node| format!("node-{node}")), 0..2).prop_map(Input::Fenced),
        1 => ((0_u8..3).prop_map(|node| format!("node-{node}")), prop::option::of(address())).prop_map(|(node, only)| Input::Inherit(node, only)),
        2 => sandboxes.prop_map(|sandboxes| Input::Observed(Observation { sandboxes, stateful_sets: Some(BTreeSet::new()) })),
        2 => Just(Input::Timeout),
    ];
    (0_u64..40_000, input)
}
