use plainroute_config::{Input, load_inputs};

use super::*;
use crate::{
    fib::Interface,
    index::{Index, Moment},
    plan::{Local, plan},
    source::{Change, Feed, SourceName},
};

const OLD: &str = "fe80::a";
const NEW: &str = "fe80::b";

/// What there is to see, to be changed at will.
struct World {
    start: Instant,
    now: Instant,
    installed: Installed,
    heard: BTreeMap<String, Heard>,
    established: BTreeSet<(IpAddr, Option<String>)>,
}

impl World {
    fn new() -> World {
        let link = Interface {
            index: 2,
            up: true,
            loopback: false,
            addresses: vec![("fe80::1".parse().unwrap(), 64)],
        };
        let installed =
            Installed { interfaces: BTreeMap::from([("eth0".to_owned(), link)]), ..Installed::default() };
        let (start, heard) = (Instant::now(), BTreeMap::from([("eth0".to_owned(), Heard::default())]));
        World { start, now: start, installed, heard, established: BTreeSet::new() }
    }

    fn at(&mut self, seconds: u64) -> &mut World {
        self.now = self.start + Duration::from_secs(seconds);
        self
    }

    fn hear(&mut self, router: &str) -> &mut World {
        self.heard.get_mut("eth0").unwrap().routers.insert(router.parse().unwrap(), self.now);
        self
    }

    /// As when the link goes down and comes back.
    fn hear_nobody(&mut self) -> &mut World {
        self.heard.get_mut("eth0").unwrap().routers.clear();
        self
    }

    fn session(&mut self, address: &str, scope: Option<&str>, up: bool) -> &mut World {
        let with = (address.parse().unwrap(), scope.map(str::to_owned));
        if up {
            self.established.insert(with)
        } else {
            self.established.remove(&with)
        };
        self
    }

    fn default_route(&mut self, gateways: &[&str]) -> &mut World {
        let gateway = |address: &&str| DefaultGateway {
            gateway: address.parse().unwrap(),
            interface: "eth0".to_owned(),
        };
        self.installed.default_gateways = gateways.iter().map(gateway).collect();
        self
    }

    fn show(&mut self, discovery: &mut Discovery) -> bool {
        discovery.handle_seen(&Seen {
            now: self.now,
            installed: &self.installed,
            heard: &self.heard,
            established: &self.established,
        })
    }
}

fn planned(specs: &[&str]) -> Plan {
    let peers: String = specs
        .iter()
        .enumerate()
        .map(|(number, spec)| {
            format!(
                "apiVersion: plainroute.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{ name: peer-{number} }}\n\
                 spec: {{ localASN: 64512, peerASN: 64600, {spec} }}\n---\n"
            )
        })
        .collect();
    let loaded = load_inputs(&[Input::Stdin(peers.into())]).unwrap_or_else(|errors| panic!("{errors}"));
    let objects = loaded.objects.into_iter().map(|located| located.object).collect();
    let mut index = Index::new([]);
    let change = Change::Replace { kinds: plainroute_config::Kind::IN_FILES.to_vec(), objects };
    index.handle(Feed { source: SourceName::Files, change }, Moment::now());
    let local = Local {
        holdings: None,
        node: "node-a".to_owned(),
        router_id: None,
        found: Found::default(),
        damped: Default::default(),
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    plan(&index.snapshot().unwrap(), &local)
}

fn unnumbered(state_dir: &Path) -> Discovery {
    let mut discovery = Discovery::open(state_dir);
    discovery.handle_plan(&planned(&["interface: eth0"]));
    discovery
}

fn gateway(state_dir: &Path) -> Discovery {
    let mut discovery = Discovery::open(state_dir);
    discovery.handle_plan(&planned(&["autoDiscovery: { mode: DefaultGateway }"]));
    discovery
}

fn neighbour(discovery: &Discovery) -> Result<String, String> {
    discovery.found().neighbours["eth0"].as_ref().map(ToString::to_string).map_err(Clone::clone)
}

fn gateways(discovery: &Discovery) -> Vec<String> {
    discovery.found().default_gateways.iter().map(|gateway| gateway.address.to_string()).collect()
}

#[test]
fn the_first_router_heard_is_the_peer_and_until_then_it_is_said_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut discovery, mut world) = (unnumbered(directory.path()), World::new());
    assert!(world.show(&mut discovery));
    assert_eq!(neighbour(&discovery), Err("no router advertisement heard on eth0 yet".to_owned()));
    let mut why = |change: &dyn Fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world.show(&mut discovery);
        neighbour(&discovery).unwrap_err()
    };
    assert_eq!(why(&|world| world.installed.interfaces.clear()), "there is no interface eth0");
    let link = |world: &mut World| world.installed.interfaces.get_mut("eth0").unwrap().clone();
    let set = |world: &mut World, link: Interface| {
        world.installed.interfaces.insert("eth0".to_owned(), link);
    };
    assert_eq!(
        why(&|world| {
            let down = Interface { up: false, ..link(world) };
            set(world, down);
        }),
        "interface eth0 is down"
    );
    assert_eq!(
        why(&|world| {
            let bare = Interface { addresses: Vec::new(), ..link(world) };
            set(world, bare);
        }),
        "interface eth0 has no IPv6 link-local address"
    );
    let denied = |world: &mut World| world.heard.get_mut("eth0").unwrap().problem = Some("denied".to_owned());
    assert_eq!(why(&denied), "router advertisements on eth0: denied");

    assert!(world.hear(OLD).show(&mut discovery));
    assert_eq!(neighbour(&discovery), Ok(OLD.to_owned()));
    assert!(!world.at(5).hear(OLD).show(&mut discovery), "nothing new");
}

#[test]
fn silence_takes_no_router_away() {
    let directory = tempfile::tempdir().unwrap();
    let (mut discovery, mut world) = (unnumbered(directory.path()), World::new());
    world.hear(OLD).show(&mut discovery);
    assert!(!world.at(100_000).show(&mut discovery));
    assert!(!world.hear_nobody().show(&mut discovery));
    world.installed.interfaces.clear();
    world.heard.clear();
    assert!(!world.show(&mut discovery));
    assert_eq!(neighbour(&discovery), Ok(OLD.to_owned()));
}

#[test]
fn another_router_waits_until_the_known_one_is_neither_heard_nor_spoken_with() {
    let directory = tempfile::tempdir().unwrap();
    let (mut discovery, mut world) = (unnumbered(directory.path()), World::new());
    world.hear(OLD).session(OLD, Some("eth0"), true).show(&mut discovery);
    // Its session is up: whatever is heard, and however long it is silent.
    assert!(!world.at(1000).hear(NEW).show(&mut discovery));
    // Its session is down, but it was just heard.
    world.hear(OLD).session(OLD, Some("eth0"), false);
    assert!(!world.show(&mut discovery));
    assert_eq!(
        discovery.poll_timeout(),
        Some(world.now + QUIET),
        "looked at again when it has been silent for long"
    );
    // A session on another interface with the same address is another router's.
    world.session(OLD, Some("eth1"), true);
    assert!(!world.at(1029).show(&mut discovery));
    assert!(world.at(1030).show(&mut discovery));
    assert_eq!(neighbour(&discovery), Ok(NEW.to_owned()));
    assert_eq!(discovery.poll_timeout(), None);
}

#[test]
fn after_the_link_was_down_whoever_is_heard_first_is_the_router() {
    let directory = tempfile::tempdir().unwrap();
    let (mut discovery, mut world) = (unnumbered(directory.path()), World::new());
    world.hear(OLD).show(&mut discovery);
    assert!(world.at(1).hear_nobody().hear(NEW).show(&mut discovery));
    assert_eq!(neighbour(&discovery), Ok(NEW.to_owned()));
}

#[test]
fn a_restart_knows_the_routers_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = directory.path().join("state");
    let (mut discovery, mut world) = (unnumbered(&state_dir), World::new());
    world.hear(OLD).show(&mut discovery);
    let mut next = Discovery::open(&state_dir);
    assert_eq!(neighbour(&next), Ok(OLD.to_owned()), "before the first plan");
    next.handle_plan(&planned(&["interface: eth0"]));
    assert!(!World::new().show(&mut next));
    // What no peer asks for is forgotten.
    next.handle_plan(&planned(&["interface: eth1"]));
    assert_eq!(unnumbered(&state_dir).found().neighbours, BTreeMap::new());

    let (mut discovery, mut world) = (gateway(&state_dir), World::new());
    world.default_route(&["172.16.0.254"]).show(&mut discovery);
    assert_eq!(gateways(&Discovery::open(&state_dir)), ["172.16.0.254"]);
    fs::write(state_dir.join(FILE), "{").unwrap();
    assert_eq!(*Discovery::open(&state_dir).found(), Found::default(), "a torn file is as none");
}

#[test]
fn the_default_route_s_gateways_are_found_and_no_absence_takes_them_away() {
    let directory = tempfile::tempdir().unwrap();
    let (mut discovery, mut world) = (gateway(directory.path()), World::new());
    world.show(&mut discovery);
    assert_eq!(gateways(&discovery), Vec::<String>::new());
    // IPv4's, where there is one; several of one route are all peers.
    assert!(world.default_route(&["172.16.0.253", "172.16.0.254", "fe80::1"]).show(&mut discovery));
    assert_eq!(gateways(&discovery), ["172.16.0.253", "172.16.0.254"]);
    assert!(!world.default_route(&[]).show(&mut discovery));
    assert_eq!(gateways(&discovery), ["172.16.0.253", "172.16.0.254"]);
    // Only IPv6 knows one now, and nobody speaks with the others.
    assert!(world.default_route(&["fe80::1"]).show(&mut discovery));
    assert_eq!(gateways(&discovery), ["fe80::1"]);
}

#[test]
fn a_gateway_that_the_route_names_no_more_stays_while_its_session_is_up() {
    let directory = tempfile::tempdir().unwrap();
    let (mut discovery, mut world) = (gateway(directory.path()), World::new());
    world.default_route(&["172.16.0.253"]).show(&mut discovery);
    world.session("172.16.0.253", None, true);
    // The IPv4 route is away: IPv6's gateway is no reason for a second session with, most likely, the same router.
    assert!(!world.default_route(&["fe80::1"]).show(&mut discovery));
    assert!(world.default_route(&["172.16.0.254"]).show(&mut discovery));
    assert_eq!(gateways(&discovery), ["172.16.0.253", "172.16.0.254"]);
    world.session("172.16.0.253", None, false);
    assert!(world.show(&mut discovery));
    assert_eq!(gateways(&discovery), ["172.16.0.254"]);
}

#[test]
fn a_gateway_that_is_now_reached_by_another_interface_is_the_same_where_its_address_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (mut discovery, mut world) = (gateway(directory.path()), World::new());
    world.default_route(&["172.16.0.254"]).show(&mut discovery);
    world.installed.default_gateways[0].interface = "eth1".to_owned();
    assert!(!world.show(&mut discovery));
}

#[test]
fn a_state_directory_that_cannot_be_written_costs_only_the_memory() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = directory.path().join("file");
    fs::write(&state_dir, b"").unwrap();
    let (mut discovery, mut world) = (unnumbered(&state_dir), World::new());
    assert!(world.hear(OLD).show(&mut discovery));
    assert_eq!(neighbour(&discovery), Ok(OLD.to_owned()));
}
