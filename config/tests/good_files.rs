//! What the contract promises is accepted, means what it says, and survives being written and read again.
use std::net::IpAddr;

use plainroute_bgp::{
    AfiSafi, Asn, Families, HoldTime,
    policy::{self, Action, AsPathFilter},
};
use plainroute_config::{
    AdvertisementType, BgpPeerSpec, EgressAddresses, Input, Loaded, Object, PeerRole, PeerTarget, Phase,
    RouteTable, RuleAction, Secret, TcpAoAlgorithm, load, load_inputs,
};

fn good(name: &str) -> Loaded {
    load(&[format!("tests/good/{name}.yaml")]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn peer(loaded: &Loaded) -> BgpPeerSpec {
    let peer = loaded.objects.iter().find_map(|located| match &located.object {
        Object::BgpPeer(peer) => Some(peer.spec.clone()),
        _ => None,
    });
    peer.expect("the file has a peer")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn tcp_ao_keys_keep_their_order() {
    let peer = peer(&good("tcp-ao"));
    let keys = &peer.tcp_ao.as_ref().expect("the file has keys").keys;
    let ids: Vec<_> = keys.iter().map(|key| (key.send_id, key.receive_id, key.algorithm)).collect();
    assert_eq!(ids, [(255, 0, TcpAoAlgorithm::HmacSha256), (1, 2, TcpAoAlgorithm::CmacAes128)]);
    assert!(matches!(keys[0].secret(), Some(Secret::Ref(secret)) if secret.name == "tor"));
    assert!(matches!(keys[1].secret(), Some(Secret::File(path)) if path.ends_with("key")));
    assert_eq!(peer.secret(), None);
}

#[test]
fn the_contracts_sample_is_accepted() {
    let loaded = good("contract");
    let keys: Vec<_> = loaded.objects.iter().map(|located| located.object.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "AgentConfig/agent",
            "BGPPeer/tor-a",
            "BGPAdvertisement/all",
            "IPPool/erp",
            "IPBlock/10-20-0-16-28",
            "Egress/erp",
            "Namespace/erp",
            "Node/node-a",
            "Pod/erp/app-1"
        ]
    );
    assert_eq!(loaded.objects[1].origin.to_string(), "tests/good/contract.yaml:13");
    assert_eq!(loaded.agent_config().unwrap().routing.table, RouteTable::MAIN);

    let peer = peer(&loaded);
    assert_eq!(peer.target(), PeerTarget::Address(ip("172.16.0.254")));
    assert_eq!(
        (*peer.local_asn, *peer.timers.hold_time_seconds),
        (Asn::new(64512).unwrap(), HoldTime::new(9).unwrap())
    );
    assert!(matches!(peer.secret(), Some(Secret::Ref(secret)) if secret.key == "password"));
    let ipv4 = Families::from_iter([AfiSafi::Ipv4Unicast]);
    assert_eq!((peer.role, peer.role_required), (Some(PeerRole::Customer), true));
    assert_eq!((peer.add_path.receive(), peer.enforces_first_as()), (ipv4, true));
    assert_eq!(peer.import[0].lengths(), 0..=0);
    assert_eq!((peer.import[0].action, peer.import[0].as_path), (RuleAction::Accept, None));
    assert_eq!((peer.import[1].lengths(), peer.import[1].local_preference), (8..=24, Some(200)));
    let as_path = AsPathFilter::from(peer.import[1].as_path.unwrap());
    assert_eq!((as_path.originated_by, as_path.max_length), (Asn::new(64601), Some(3)));
    assert_eq!(peer.import[2].action, RuleAction::Reject);
    let [first, second] = &peer.export.as_deref().unwrap() else { panic!("two export rules") };
    let first = policy::ExportRule::try_from(first).unwrap();
    assert_eq!(first.filter.prefixes.to_string(), "10.20.0.0/24 ge 32 le 32");
    assert_eq!(
        (first.filter.communities[0].to_string().as_str(), first.action),
        ("64512:100", Action::Accept)
    );
    let second = policy::ExportRule::try_from(second).unwrap();
    assert_eq!(second.filter.prefixes.to_string(), "2001:db8::/32 ge 128 le 128");
    assert_eq!(second.action, Action::Reject);
}

#[test]
fn what_is_left_out_has_the_contracts_default() {
    let (minimal, full) = (good("minimal"), good("contract"));
    assert_eq!(minimal.objects.len(), 6, "empty documents count for nothing");
    let mut peer = peer(&minimal);
    assert_eq!(*peer.peer_asn, Asn::new(4_200_000_000).unwrap());
    assert_eq!((peer.secret(), peer.bfd, peer.families()), (None, None, Families::ALL));
    assert!(peer.import.is_empty() && peer.export.is_none());
    assert_eq!((peer.role, peer.add_path.receive()), (None, Families::NONE));
    assert_eq!((peer.extended_next_hop, peer.enhanced_refresh, peer.extended_messages), (false, true, true));
    assert!(peer.enforces_first_as());
    let client = BgpPeerSpec { role: Some(PeerRole::RouteServerClient), ..peer.clone() };
    assert!(!client.enforces_first_as(), "a route server leaves its AS out of the path (RFC 7947)");
    assert_eq!((peer.target(), peer.scope()), (PeerTarget::Address(ip("fe80::1")), Some("eth0")));
    // Apart from what names that very peer, and the pause between attempts to connect (docs/adr/0005), the minimal
    // peer is the contract's.
    let whole = self::peer(&full);
    assert_eq!(peer.timers.connect_retry_time_seconds.get(), 1);
    peer.timers.connect_retry_time_seconds = whole.timers.connect_retry_time_seconds;
    peer.timers.keep_alive_time_seconds = whole.timers.keep_alive_time_seconds;
    assert_eq!(
        (peer.timers, peer.graceful_restart, peer.max_prefixes, peer.peer_port, peer.listen_port),
        (whole.timers, whole.graceful_restart, whole.max_prefixes, whole.peer_port, whole.listen_port)
    );
    assert_eq!(full.agent_config().unwrap().admin_socket, minimal.agent_config().unwrap().admin_socket);
    assert_eq!(full.agent_config().unwrap().routing, minimal.agent_config().unwrap().routing);
    assert_eq!(full.agent_config().unwrap().metrics, minimal.agent_config().unwrap().metrics);
    for located in &minimal.objects {
        match &located.object {
            Object::BgpAdvertisement(all) => {
                assert!(all.spec.advertises(AdvertisementType::PodIp) && all.spec.withdraw.terminating);
                assert!(!all.spec.advertises(AdvertisementType::PodBlock) && !all.spec.withdraw.not_ready);
            }
            Object::IpPool(pool) => {
                assert_eq!(pool.spec.block_size(AfiSafi::Ipv4Unicast), 28);
                assert_eq!(pool.spec.block_size(AfiSafi::Ipv6Unicast), 124);
                assert!(pool.spec.contains(ip("10.20.0.0")) && pool.spec.contains(ip("2001:db8:20::1")));
            }
            Object::Egress(egress) => assert_eq!(egress.spec.addresses(), EgressAddresses::Pool("out")),
            Object::Pod(pod) => assert_eq!((pod.namespace(), pod.phase), ("default", Phase::Pending)),
            _ => {}
        }
    }
}

#[test]
fn kubernetes_objects_keep_only_what_is_read() {
    let loaded = good("contract");
    let [.., namespace, node, pod] = &loaded.objects[..] else { panic!("three objects at the end") };
    let Object::Namespace(namespace) = &namespace.object else { panic!("a Namespace") };
    assert_eq!(namespace.labels()["kubernetes.io/metadata.name"], "erp");
    let Object::Node(node) = &node.object else { panic!("a Node") };
    assert_eq!(node.internal_ips().collect::<Vec<_>>(), [ip("172.16.0.1")]);
    assert_eq!(node.addresses.len(), 1, "a host name is no address");
    let Object::Pod(pod) = &pod.object else { panic!("a Pod") };
    assert_eq!(pod.pod_ips, [ip("10.20.0.5"), ip("2001:db8::5")]);
    assert!(pod.ready && pod.is_terminating() && !pod.host_network && pod.phase == Phase::Running);
    assert_eq!(pod.ready_since.unwrap().to_string(), "2026-11-22T11:00:00Z");
    assert_eq!(pod.node_name.as_deref(), Some("node-a"));
}

#[test]
fn what_is_written_reads_back_the_same() {
    for name in ["contract", "minimal"] {
        let loaded = good(name);
        for located in &loaded.objects {
            // JSON is YAML, so this is a config file too.
            let written = serde_json::to_string_pretty(&located.object).unwrap();
            let again = load_inputs(&[Input::Stdin(written.clone().into_bytes())]);
            let again = again.unwrap_or_else(|errors| panic!("{errors}\n{written}"));
            assert_eq!(again.objects[0].object, located.object);
        }
    }
}

#[test]
fn our_kinds_read_from_json_are_checked_whole_too() {
    let json = r#"{"apiVersion":"plainroute.dev/v1alpha1","kind":"BGPPeer","metadata":{"name":"a"},
        "spec":{"localASN":1,"peerASN":2,"peerAddress":"192.0.2.1","interface":"eth0"},"status":{"any":1}}"#;
    let error = serde_json::from_str::<plainroute_config::BgpPeer>(json).unwrap_err().to_string();
    assert!(error.starts_with("spec.interface: stands beside peerAddress"), "{error}");
    let sound = json.replace(r#","interface":"eth0""#, "");
    assert_eq!(serde_json::from_str::<plainroute_config::BgpPeer>(&sound).unwrap().name(), "a");
    let value: serde_json::Value = serde_json::from_str(&sound).unwrap();
    assert!(serde_json::from_value::<plainroute_config::BgpPeer>(value).is_ok());
    let other = sound.replace("BGPPeer", "IPPool");
    let error = serde_json::from_str::<plainroute_config::BgpPeer>(&other).unwrap_err().to_string();
    assert!(error.contains("this is IPPool of plainroute.dev/v1alpha1, not BGPPeer"), "{error}");
}

/// The API server takes only structural schemas: every value has a type, or says that it is a number or a text.
#[test]
fn every_field_of_every_spec_has_a_type_in_its_schema() {
    fn untyped(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        let fields = schema["properties"].as_object().into_iter().flatten();
        let below = fields.map(|(name, field)| (format!("{path}.{name}"), field));
        let items = schema.get("items").map(|items| (format!("{path}[]"), items));
        for (path, field) in below.chain(items) {
            untyped(&path, field, found);
        }
        let one_of =
            schema["oneOf"].as_array().is_some_and(|all| all.iter().all(|one| one["type"] == "string"));
        let option =
            schema["anyOf"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "null"));
        let typed = schema.get("type").is_some() || schema["x-kubernetes-int-or-string"] == true;
        if !typed && !one_of && !option {
            found.push(format!("{path}: {schema}"));
        }
    }
    let settings =
        schemars::generate::SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut generator = settings.into_generator();
    let schemas = [
        ("AgentConfig", generator.root_schema_for::<plainroute_config::AgentConfigSpec>()),
        ("BGPPeer", generator.root_schema_for::<BgpPeerSpec>()),
        ("BGPAdvertisement", generator.root_schema_for::<plainroute_config::BgpAdvertisementSpec>()),
        ("IPPool", generator.root_schema_for::<plainroute_config::IpPoolSpec>()),
        ("Egress", generator.root_schema_for::<plainroute_config::EgressSpec>()),
    ];
    let mut found = Vec::new();
    for (kind, schema) in &schemas {
        assert!(schema.as_value()["properties"].as_object().is_some_and(|fields| fields.len() > 3), "{kind}");
        untyped(kind, schema.as_value(), &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_station_needs_an_address_only() {
    let loaded = good("bmp");
    let stations = &loaded.agent_config().unwrap().bmp;
    assert_eq!(stations[0].address, "192.0.2.9:11019".parse().unwrap());
    assert_eq!(
        (stations[0].statistics_seconds.get(), stations[0].adj_rib_in, stations[0].adj_rib_out),
        (60, true, true)
    );
    assert_eq!(stations[1].address, "[2001:db8::9]:11019".parse().unwrap());
    assert_eq!(
        (stations[1].statistics_seconds.get(), stations[1].adj_rib_in, stations[1].adj_rib_out),
        (0, false, true)
    );
}

#[test]
fn what_a_block_lies_in_need_not_be_written() {
    let load = |spec: &str| {
        let yaml = format!(
            "apiVersion: plainroute.dev/v1alpha1\nkind: IPBlock\nmetadata: {{ name: b }}\nspec: {{ {spec}, node: a, pool: p }}\n"
        );
        load_inputs(&[Input::Stdin(yaml.into_bytes())]).map_err(|errors| errors.to_string())
    };
    for (spec, within) in [
        ("cidr: 10.20.17.16/28", "10.20.16.0/20"),
        ("cidr: 'fd00:20::1234/128'", "fd00:20::1000/116"),
        ("cidr: 10.20.17.16/28, within: 10.20.16.0/20", "10.20.16.0/20"),
    ] {
        let loaded = load(spec).unwrap_or_else(|errors| panic!("{spec}: {errors}"));
        match &loaded.objects[0].object {
            Object::IpBlock(block) => assert_eq!(block.spec.within.to_string(), within, "{spec}"),
            other => panic!("{other:?}"),
        }
    }
    // What is written is not overlooked, and a wrong CIDR is one error.
    let wrong = load("cidr: 10.20.17.16/28, within: 10.20.0.0/20").unwrap_err();
    assert!(wrong.contains("spec.within: 10.20.0.0/20 is not what 10.20.17.16/28 lies in"), "{wrong}");
    for spec in ["cidr: 10.20.17.16/99", "epoch: 1"] {
        let wrong = load(spec).unwrap_err();
        assert!(wrong.contains("spec.cidr") && !wrong.contains("within"), "{spec}: {wrong}");
    }
}
