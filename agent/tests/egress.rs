//! Egress without I/O: which gateway is chosen, what nftables and the policy rules are asked for, and in which order.
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use common::{local, objects, snapshot};
use plainroute_agent::{
    egress::{Choice, Egresses, Heard, Remembered, Settings},
    fib::{Installed, Interface, RouteStatus, RuleAction, TABLE_MAIN, Target},
    gate::Gate,
    nat::{Fate, NatDesired, NatInstalled},
    plan::{Local, Plan, plan},
};
use plainroute_bgp::{LargeCommunity, Prefix, wire::PathAttributes};
use plainroute_speaker::{Followed, FollowedPath};

/// Three gateways; 198.51.100.7 is ranked gw-b, gw-a, gw-c, two of them armed; the Pods of `ledger` are of one pool.
const OBJECTS: &str = r#"
apiVersion: plainroute.dev/v1alpha1
kind: BGPPeer
metadata: { name: tor }
spec: { localASN: 64512, peerASN: 64600, peerAddress: 172.16.0.254 }
---
apiVersion: plainroute.dev/v1alpha1
kind: BGPAdvertisement
metadata: { name: egress }
spec: { types: [EgressIP] }
---
apiVersion: plainroute.dev/v1alpha1
kind: IPPool
metadata: { name: ledger }
spec: { ipRanges: [{ cidr: 10.20.0.0/28 }], allocation: External }
---
apiVersion: v1
kind: Namespace
metadata: { name: ledger }
---
apiVersion: plainroute.dev/v1alpha1
kind: Egress
metadata: { name: ledger }
spec:
  appliedTo: { namespaceSelector: {} }
  egressIPs: [198.51.100.7]
  nodeSelector: { matchLabels: { gateway: "" } }
---
apiVersion: v1
kind: Node
metadata: { name: node-a, labels: { gateway: "" } }
status: { addresses: [{ type: InternalIP, address: 172.16.0.1 }] }
---
apiVersion: v1
kind: Node
metadata: { name: node-b, labels: { gateway: "" } }
status: { addresses: [{ type: InternalIP, address: 172.16.0.2 }] }
---
apiVersion: v1
kind: Node
metadata: { name: node-c, labels: { gateway: "" } }
status: { addresses: [{ type: InternalIP, address: 172.16.0.3 }] }
---
apiVersion: v1
kind: Node
metadata: { name: worker }
status: { addresses: [{ type: InternalIP, address: 172.16.0.9 }] }
"#;

fn planned(node: &str, yaml: &str) -> Arc<Plan> {
    let local = Local { node: node.to_owned(), ..local() };
    Arc::new(plan(&snapshot(objects(yaml), Vec::new(), Vec::new()), &local))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn egress_ip() -> IpAddr {
    ip("198.51.100.7")
}

fn settings() -> Settings {
    Settings { table_base: 1880, mark_mask: 0x00ff_0000, excluded: BTreeSet::new() }
}

/// What the routers say: the route of this gateway.
fn heard(gateway: Option<&str>) -> Heard {
    let path = |id: &str| {
        let community = LargeCommunity { global: 64512, local1: 188, local2: ip_number(id) };
        let attributes = PathAttributes { large_communities: vec![community], ..PathAttributes::default() };
        vec![FollowedPath { peer: "tor".into(), attributes: Arc::new(attributes), stale: false }]
    };
    let followed: Followed = gateway.into_iter().map(|id| (Prefix::host(egress_ip()), path(id))).collect();
    Heard { followed: Arc::new(followed), connected: true, settled: true }
}

fn ip_number(id: &str) -> u32 {
    id.parse::<std::net::Ipv4Addr>().unwrap().to_bits()
}

struct Bench {
    egress: Egresses,
    kernel: Installed,
    standing: BTreeSet<IpAddr>,
    nat: Arc<NatDesired>,
}

impl Bench {
    fn new(node: &str) -> Bench {
        Bench::with(node, Remembered::default())
    }

    fn with(node: &str, remembered: Remembered) -> Bench {
        let mut egress = Egresses::new(settings(), remembered);
        egress.handle_plan(planned(node, OBJECTS));
        let eth0 = Interface { index: 2, up: true, loopback: false, addresses: vec![(ip("172.16.0.9"), 24)] };
        let pods =
            Interface { index: 3, up: true, loopback: false, addresses: vec![(ip("169.254.1.1"), 32)] };
        let interfaces = [("eth0".to_owned(), eth0), ("pod-x".to_owned(), pods)].into();
        let kernel = Installed { synced: true, interfaces, ..Installed::default() };
        Bench { egress, kernel, standing: BTreeSet::new(), nat: Arc::default() }
    }

    /// The kernel has done what it was asked for.
    fn answer(&mut self) {
        self.kernel.rules = self.egress.ways().rules;
    }

    fn nat(&mut self) -> &NatDesired {
        if let Some(nat) = self.egress.poll_nat(&self.standing, &self.kernel) {
            self.nat = nat;
        }
        &self.nat
    }

    /// nftables has done what it was asked for.
    fn nat_answer(&mut self) {
        let generation = self.nat().generation;
        self.egress.handle_nat_installed(Arc::new(NatInstalled {
            generation,
            synced: true,
            ..NatInstalled::default()
        }));
    }

    /// What becomes of the pool's packets: of local ones and of those in transit.
    fn fates(&mut self) -> (Fate, Fate) {
        let source = &self.nat().classes[0].sources[&"10.20.0.0/28".parse().unwrap()];
        assert_eq!((&*source.egress, source.address), ("ledger", egress_ip()));
        (source.local, source.transit)
    }

    fn choice(&self) -> Option<String> {
        self.egress.choices().get(&egress_ip()).map(|choice| match choice {
            Choice::Here => "here".to_owned(),
            Choice::Gateway { node, .. } => node.clone(),
        })
    }
}

#[test]
fn the_order_is_what_these_tests_take_it_for() {
    let plan = planned("node-a", OBJECTS);
    let address = &plan.egresses[0].addresses[0];
    let nodes: Vec<&str> = address.gateways.iter().map(|gateway| gateway.node.as_str()).collect();
    assert_eq!((nodes, address.armed, address.rank), (vec!["node-b", "node-a", "node-c"], 2, Some(1)));
    assert_eq!(address.advertise["tor"].as_path_prepend, 1);
    assert_eq!(planned("node-b", OBJECTS).egresses[0].addresses[0].advertise["tor"].as_path_prepend, 0);
    assert_eq!(planned("node-c", OBJECTS).egresses[0].addresses[0].rank, None);
    assert!(planned("worker", OBJECTS).egress_here().next().is_none());
}

#[test]
fn a_worker_follows_the_route_and_marks_only_what_its_rules_take() {
    let mut bench = Bench::new("worker");
    bench.egress.handle_heard(heard(Some("172.16.0.2")));
    assert_eq!(bench.choice().as_deref(), Some("node-b"));
    assert_eq!(
        bench.fates(),
        (Fate::Drop, Fate::Drop),
        "a mark without its rule would leave by the main table"
    );
    let ways = bench.egress.ways();
    let (key, target) = ways.routes.first_key_value().unwrap();
    assert_eq!((key.table, key.prefix.to_string()), (1881, "0.0.0.0/0".to_owned()));
    assert!(matches!(target, Target::Via { next_hops } if next_hops[0].gateway == ip("172.16.0.2")));
    let rules: Vec<_> =
        ways.rules.iter().map(|rule| (rule.priority, rule.mark, rule.mask, rule.action)).collect();
    assert_eq!(
        rules,
        [
            (1881, 0x0001_0000, 0x00ff_0000, RuleAction::Lookup(1881)),
            (2136, 0x0001_0000, 0x00ff_0000, RuleAction::Blackhole)
        ]
    );
    bench.answer();
    assert_eq!(bench.fates(), (Fate::Away { slot: 1 }, Fate::Drop));
    assert_eq!(bench.nat().uplinks, ["eth0".to_owned()].into());
    assert!(bench.nat().inside.contains(&"10.20.0.0/28".parse().unwrap()), "between Pods nothing is changed");
    assert!(bench.nat().inside.contains(&"172.16.0.2/32".parse().unwrap()), "nor towards nodes");
    assert!(bench.nat().addresses.is_empty());
}

#[test]
fn another_gateway_gets_a_table_of_its_own_and_the_first_goes_last() {
    let mut bench = Bench::new("worker");
    bench.egress.handle_heard(heard(Some("172.16.0.2")));
    bench.answer();
    bench.nat_answer();
    bench.egress.handle_heard(heard(Some("172.16.0.1")));
    let tables: Vec<u32> = bench.egress.ways().routes.keys().map(|key| key.table).collect();
    assert_eq!(tables, [1881, 1882], "packets are still marked for the first");
    bench.answer();
    assert_eq!(bench.fates().0, Fate::Away { slot: 2 });
    assert_eq!(bench.egress.ways().routes.len(), 2, "until nftables has done it");
    bench.nat_answer();
    let tables: Vec<u32> = bench.egress.ways().routes.keys().map(|key| key.table).collect();
    assert_eq!(tables, [1882]);
}

#[test]
fn silence_means_something_only_from_a_router_that_is_there() {
    let mut bench = Bench::new("worker");
    bench.egress.handle_heard(heard(Some("172.16.0.2")));
    bench.answer();
    // The session is lost: nothing is known, nothing moves.
    bench.egress.handle_heard(Heard { connected: false, ..heard(None) });
    assert_eq!(bench.fates().0, Fate::Away { slot: 1 });
    bench.egress.handle_heard(Heard { settled: false, ..heard(None) });
    assert_eq!(bench.fates().0, Fate::Away { slot: 1 });
    // It is back and knows of no gateway.
    bench.egress.handle_heard(heard(None));
    assert_eq!((bench.choice(), bench.fates().0), (None, Fate::Drop));
    let open = OBJECTS.replace(
        "  nodeSelector: { matchLabels: { gateway",
        "  failurePolicy: Open\n  nodeSelector: { matchLabels: { gateway",
    );
    bench.egress.handle_plan(planned("worker", &open));
    assert_eq!(bench.fates(), (Fate::Leave, Fate::Leave));
}

#[test]
fn an_earlier_process_left_its_choice_and_its_numbers() {
    let gateway = Choice::Gateway { node: "node-b".to_owned(), address: ip("172.16.0.2") };
    let remembered = Remembered {
        choices: [(egress_ip(), gateway.clone())].into(),
        slots: [(7, ip("172.16.0.2"))].into(),
    };
    let mut bench = Bench::with("worker", remembered.clone());
    bench.egress.handle_heard(Heard { connected: false, settled: false, ..heard(None) });
    bench.answer();
    assert_eq!(bench.fates().0, Fate::Away { slot: 7 });
    assert_eq!(bench.egress.remembered(), remembered);
    // One that is no candidate any more is not believed.
    let stranger = Choice::Gateway { node: "node-x".to_owned(), address: ip("172.16.0.77") };
    let mut bench =
        Bench::with("worker", Remembered { choices: [(egress_ip(), stranger)].into(), ..remembered });
    bench.egress.handle_heard(Heard { connected: false, settled: false, ..heard(None) });
    assert_eq!((bench.choice(), bench.fates().0), (None, Fate::Drop));
}

#[test]
fn a_gateway_translates_what_comes_to_it_and_its_own_pods_follow_the_preferred_one() {
    let mut bench = Bench::new("node-a");
    bench.standing = [egress_ip()].into();
    bench.egress.handle_heard(heard(Some("172.16.0.2")));
    bench.answer();
    assert_eq!(bench.fates(), (Fate::Away { slot: 1 }, Fate::Here));
    assert_eq!(bench.nat().addresses, [egress_ip()].into());
    // The preferred one is gone: no router sends a node its own route back.
    bench.egress.handle_heard(heard(None));
    assert_eq!(bench.fates(), (Fate::Here, Fate::Here));
    // A router that does send it back says the same.
    bench.egress.handle_heard(heard(Some("172.16.0.1")));
    assert_eq!(bench.fates(), (Fate::Here, Fate::Here));
    // Withdrawn and flushed: whoever still sends here is wrong.
    bench.standing.clear();
    assert_eq!(bench.fates().1, Fate::Drop);
}

#[test]
fn routes_that_name_no_gateway_of_ours_count_for_nothing() {
    let mut bench = Bench::new("worker");
    bench.egress.handle_heard(heard(Some("172.16.0.77")));
    assert_eq!(bench.choice(), None);
}

#[test]
fn without_an_egress_nftables_is_not_touched() {
    let mut egress = Egresses::new(settings(), Remembered::default());
    egress.handle_plan(planned("worker", "apiVersion: v1\nkind: Namespace\nmetadata: { name: x }\n"));
    egress.handle_heard(heard(None));
    assert_eq!(egress.poll_nat(&BTreeSet::new(), &Installed::default()), None);
    assert_eq!(egress.ways(), Default::default());
}

#[test]
fn fewer_destinations_go_before_more() {
    let narrow = "\n---\napiVersion: plainroute.dev/v1alpha1\nkind: Egress\nmetadata: { name: z-narrow }\nspec:\n  \
        appliedTo: { namespaceSelector: {} }\n  egressIPs: [198.51.100.9]\n  destinationCIDRs: [203.0.113.0/24]\n";
    let mut bench = Bench::new("worker");
    bench.egress.handle_plan(planned("worker", &format!("{}{narrow}", OBJECTS.trim_end())));
    let names: Vec<_> = bench
        .nat()
        .classes
        .iter()
        .map(|class| class.sources.values().next().unwrap().egress.to_string())
        .collect();
    assert_eq!(names, ["z-narrow", "ledger"]);
}

/// The gate's part: first the kernel, then nftables, then the announcement; and backwards.
#[test]
fn an_egress_ip_is_announced_when_it_is_translated_to_and_goes_backwards() {
    let mut gate = Gate::new(TABLE_MAIN, TABLE_MAIN);
    let now = Instant::now();
    gate.handle_installed(Arc::new(Installed { synced: true, ..Installed::default() }));
    gate.handle_plan(planned("node-b", OBJECTS));
    let answer = |gate: &mut Gate| {
        let routes: BTreeMap<_, _> =
            gate.desired().routes.keys().map(|key| (*key, RouteStatus::Installed)).collect();
        let generation = gate.desired().generation;
        gate.handle_installed(Arc::new(Installed {
            generation,
            synced: true,
            routes,
            ..Installed::default()
        }));
    };
    assert_eq!(gate.poll_announcement(now), None);
    let desired = gate.poll_desired().unwrap();
    assert_eq!(desired.routes.values().collect::<Vec<_>>(), [&Target::Local]);
    assert_eq!(gate.standing_egress(), [egress_ip()].into());
    answer(&mut gate);
    assert_eq!(gate.poll_announcement(now), None, "the first announcement must not lack it");
    let translated = |addresses: &[IpAddr]| NatInstalled {
        generation: 1,
        synced: true,
        addresses: addresses.iter().copied().collect(),
        ..NatInstalled::default()
    };
    gate.handle_nat_installed(&translated(&[egress_ip()]));
    let announced = gate.poll_announcement(now).unwrap();
    assert_eq!(announced.routes.len(), 1);
    // The Egress goes: withdrawn, flushed, and only then neither route nor translation is wanted.
    gate.handle_plan(planned("node-b", OBJECTS.split("---\n").next().unwrap()));
    let withdrawn = gate.poll_announcement(now).unwrap();
    assert!(withdrawn.routes.is_empty());
    gate.poll_desired();
    assert_eq!(gate.standing_egress(), [egress_ip()].into());
    gate.handle_flushed(withdrawn.ticket);
    gate.poll_desired();
    assert!(gate.standing_egress().is_empty());
}

#[test]
fn a_kernel_without_nftables_keeps_no_pod_from_being_announced() {
    let mut gate = Gate::new(TABLE_MAIN, TABLE_MAIN);
    gate.handle_installed(Arc::new(Installed { synced: true, ..Installed::default() }));
    gate.handle_plan(planned("node-b", OBJECTS));
    gate.poll_desired();
    let generation = gate.desired().generation;
    gate.handle_installed(Arc::new(Installed { generation, synced: true, ..Installed::default() }));
    assert_eq!(gate.poll_announcement(Instant::now()), None);
    gate.handle_nat_installed(&NatInstalled {
        error: Some("no nf_tables".to_owned()),
        ..NatInstalled::default()
    });
    assert!(
        gate.poll_announcement(Instant::now()).is_some_and(|announcement| announcement.routes.is_empty())
    );
}
