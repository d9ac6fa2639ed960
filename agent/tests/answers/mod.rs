//! Answers of an agent with every field of every view in them, as the suites of the command line use them.
#![allow(dead_code, reason = "each suite uses its own part")]
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use plainroute_agent::admin::egress::EgressView;
use plainroute_agent::{
    admin::view::{
        AddressExplanation, Against, AuthenticationView, Disagreement, DrainView, Explanation, FamilyView,
        Health, HeldView, KernelRouteView, Md5FailuresView, NegotiatedRestartView, NegotiatedView, PeerView,
        PodView, PoolsCheck, RangeView, RouteView, StationView, Step, TcpAoFailuresView,
    },
    bfd::protocol::{BfdPath, BfdView},
    drain::{AskedBy, DrainState},
    index::HeldReason,
    ledger::{BlockSays, Damage, HolderSource, HolderView, LedgerEvent, LedgerVerdict, Row, Who},
    plan::{Delivery, FoundBy, InterfaceSource},
};
use plainroute_config::{EgressMode, FailurePolicy};

fn time(text: &str) -> jiff::Timestamp {
    text.parse().expect("a time")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn family(advertised: usize, not_advertised: Option<&str>) -> FamilyView {
    FamilyView {
        negotiated: not_advertised.is_none(),
        originated: 3,
        advertised,
        accepted: 1,
        stale: 1,
        rejected: 4,
        not_advertised: not_advertised.map(str::to_owned),
    }
}

/// A session that is up, and has had a hard time.
pub(crate) fn established() -> PeerView {
    PeerView {
        name: "tor-a".to_owned(),
        address: address("172.16.0.254"),
        interface: None,
        found_by: Some(FoundBy::Configuration),
        range: None,
        member_of: None,
        local_asn: 64512,
        peer_asn: 4_200_000_000,
        state: "Established".to_owned(),
        since: time("2026-11-22T12:00:00Z"),
        seconds_in_state: 3_725,
        local_address: Some("172.16.0.1:40123".to_owned()),
        peer_router_id: Some("172.16.0.254".to_owned()),
        hold_time_seconds: Some(9),
        negotiated: Some(NegotiatedView {
            four_octet_asn: true,
            route_refresh: true,
            enhanced_refresh: true,
            extended_next_hop: true,
            longest_sent: 65535,
            longest_received: 65535,
            add_path_receive: texts(&["ipv4-unicast"]),
            role: Some("Customer".to_owned()),
            peer_role: Some("Provider".to_owned()),
            graceful_restart: Some(NegotiatedRestartView {
                restart_time_seconds: 120,
                families: texts(&["ipv4-unicast", "ipv6-unicast"]),
                notification: true,
                long_lived_stale_time_seconds: BTreeMap::from([("ipv4-unicast".to_owned(), 3600)]),
            }),
        }),
        families: BTreeMap::from([("ipv4-unicast".to_owned(), family(3, None))]),
        blocked: None,
        last_error: Some("the peer closed the connection".to_owned()),
        last_error_time: Some(time("2026-11-22T11:59:58Z")),
        established_count: 2,
        lost_count: 1,
        updates_received: 5,
        updates_sent: 7,
        malformed_updates: 1,
        md5_failures: Some(Md5FailuresView { not_found: 1, unexpected: 2, failure: 3 }),
        authentication: AuthenticationView {
            method: "TCP-AO".to_owned(),
            current_key_id: Some(5),
            next_key_id: Some(6),
            retiring_keys: texts(&["1/2"]),
        },
        tcp_ao_failures: Some(TcpAoFailuresView { required: 4, bad: 5, key_not_found: 6 }),
        bfd: Some(bfd()),
    }
}

/// A BFD session that is up and has had a hard time.
fn bfd() -> BfdView {
    BfdView {
        path: BfdPath::Up,
        state: Some("Up".to_owned()),
        since: Some(time("2026-11-22T12:00:00Z")),
        diagnostic: Some("no diagnostic".to_owned()),
        remote_state: Some("Up".to_owned()),
        remote_diagnostic: Some("no diagnostic".to_owned()),
        problem: Some("packets cannot be sent: Operation not permitted (os error 1)".to_owned()),
        control_plane_independent: true,
        multi_hop: false,
        transmit_interval_microseconds: 100_000,
        detection_time_microseconds: Some(300_000),
        local_discriminator: 7,
        remote_discriminator: Some(9),
        up_count: 2,
        down_count: 1,
        received: 100,
        sent: 101,
        send_errors: 1,
        discarded: BTreeMap::from([("hop_limit".to_owned(), 3)]),
    }
}

/// One that is up, one that is not, one that is kept down.
pub(crate) fn peers() -> Vec<PeerView> {
    let down = PeerView {
        name: "tor-b".to_owned(),
        address: address("fe80::1"),
        interface: Some("eth1".to_owned()),
        found_by: Some(FoundBy::RouterAdvertisement),
        state: "Active".to_owned(),
        seconds_in_state: 4,
        local_address: None,
        peer_router_id: None,
        hold_time_seconds: None,
        negotiated: None,
        families: BTreeMap::from([("ipv6-unicast".to_owned(), family(0, Some("the session is down")))]),
        last_error: Some("connection refused".to_owned()),
        bfd: Some(BfdView {
            path: BfdPath::Down,
            state: Some("Down".to_owned()),
            diagnostic: Some("control detection time expired".to_owned()),
            remote_state: None,
            problem: None,
            ..bfd()
        }),
        ..established()
    };
    let blocked = PeerView {
        name: "tor-c".to_owned(),
        address: address("0.0.0.0"),
        found_by: None,
        state: "Idle".to_owned(),
        families: BTreeMap::new(),
        blocked: Some("no router advertisement heard on eth1 yet".to_owned()),
        last_error: None,
        last_error_time: None,
        ..down.clone()
    };
    let range = PeerView {
        name: "tor-d".to_owned(),
        state: "Listening".to_owned(),
        range: Some(RangeView { cidr: "172.16.1.0/24".to_owned(), peers: 1, max_peers: 64, refused: 3 }),
        blocked: None,
        ..blocked.clone()
    };
    let member = PeerView {
        name: "tor-d@172.16.1.5".to_owned(),
        address: address("172.16.1.5"),
        found_by: Some(FoundBy::ListenRange),
        member_of: Some("tor-d".to_owned()),
        ..established()
    };
    vec![established(), down, blocked, range, member]
}

pub(crate) fn advertised() -> Vec<RouteView> {
    let own = RouteView {
        peer: "tor-a".to_owned(),
        prefix: "10.20.0.10/32".to_owned(),
        next_hop: "172.16.0.1".to_owned(),
        as_path: "64512".to_owned(),
        med: Some(0),
        local_preference: Some(100),
        communities: texts(&["64512:100", "no-export"]),
        extended_communities: texts(&["rt:64512:100"]),
        large_communities: texts(&["64512:1:2"]),
        pod: Some("erp/orders".to_owned()),
        install: None,
        stale: None,
    };
    let bare = RouteView {
        prefix: "2001:db8:20::10/128".to_owned(),
        next_hop: "2001:db8::1".to_owned(),
        as_path: String::new(),
        med: None,
        local_preference: None,
        communities: Vec::new(),
        extended_communities: Vec::new(),
        large_communities: Vec::new(),
        pod: None,
        ..own.clone()
    };
    vec![own, bare]
}

pub(crate) fn received() -> Vec<RouteView> {
    let default = RouteView {
        prefix: "0.0.0.0/0".to_owned(),
        next_hop: "172.16.0.254".to_owned(),
        as_path: "4200000000 {64700,64701}".to_owned(),
        pod: None,
        install: Some(true),
        stale: Some(false),
        ..advertised().remove(0)
    };
    vec![default]
}

pub(crate) fn kernel() -> Vec<KernelRouteView> {
    let installed = KernelRouteView {
        prefix: "10.20.0.10/32".to_owned(),
        table: 254,
        target: "dev pod-orders".to_owned(),
        installed: true,
        status: "installed".to_owned(),
        owner: Some("erp/orders".to_owned()),
    };
    let down = KernelRouteView {
        prefix: "10.20.0.11/32".to_owned(),
        table: 1880,
        target: "dev pod-billing".to_owned(),
        installed: false,
        status: "interface pod-billing is down".to_owned(),
        owner: None,
    };
    vec![installed, down]
}

pub(crate) fn pods() -> Vec<PodView> {
    let advertised = PodView {
        namespace: "erp".to_owned(),
        pod: "orders".to_owned(),
        address: Some(address("10.20.0.10")),
        pool: Some("erp".to_owned()),
        delivery: Some(Delivery::Interface {
            interface: "pod-orders".to_owned(),
            source: InterfaceSource::CniCache,
        }),
        delivered: true,
        advertised: true,
        peers: texts(&["tor-a", "tor-b"]),
        reason: None,
        message: None,
    };
    let refused = |namespace: &str, pod: &str, reason: &str, message: &str| PodView {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        delivery: None,
        delivered: false,
        advertised: false,
        peers: Vec::new(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..advertised.clone()
    };
    let foreign = PodView {
        delivery: Some(Delivery::Foreign),
        ..refused("erp", "billing", "NoPeer", "no BGPPeer that the advertisement selects serves this node")
    };
    let elsewhere = PodView {
        address: None,
        pool: None,
        ..refused("crm", "mail", "NotLocal", "the Pod runs on node node-b")
    };
    vec![advertised, foreign, elsewhere]
}

/// A Pod that should be advertised and cannot be.
pub(crate) fn undelivered() -> PodView {
    let message = "this node does not deliver: route 10.20.0.10 dev pod-orders: interface pod-orders is down";
    PodView {
        delivered: false,
        advertised: false,
        peers: Vec::new(),
        reason: Some("NotDelivered".to_owned()),
        message: Some(message.to_owned()),
        ..pods().remove(0)
    }
}

/// Of a Pod with one address that goes out and one that does not.
pub(crate) fn explanation() -> Explanation {
    let step = |ok: bool, text: &str| Step { ok, text: text.to_owned() };
    let out = AddressExplanation {
        pod: "erp/orders".to_owned(),
        address: Some(address("10.20.0.10")),
        advertised: true,
        reason: None,
        steps: vec![
            step(true, "IPPool erp holds 10.20.0.10 and is bound to namespace erp"),
            step(true, "BGPPeer tor-a is Established"),
            step(false, "BGPPeer tor-b is Active"),
        ],
        way_out: vec![step(true, "the gateway is gw-1, 172.16.0.11, which the routers prefer")],
    };
    let kept = AddressExplanation {
        pod: "erp/orders".to_owned(),
        address: Some(address("2001:db8:20::10")),
        advertised: false,
        reason: Some("NoPool".to_owned()),
        steps: vec![step(false, "no IPPool holds the address")],
        way_out: Vec::new(),
    };
    Explanation {
        subject: "erp/orders".to_owned(),
        addresses: vec![out, kept],
        notes: texts(&["the agent is not in sync yet; see `plainroute check`"]),
    }
}

pub(crate) fn sick() -> Health {
    Health {
        ready: false,
        awaited: texts(&["Kubernetes Pod"]),
        problems: texts(&[
            "waiting for the first complete list of Kubernetes Pod",
            "BGPPeer/tor-b is Active",
        ]),
        notes: texts(&[
            "IPPool/erp: Shadowed: the API server has one of this name too; the file's is in force",
        ]),
        stations: vec![StationView {
            address: "192.0.2.9:11019".parse().unwrap(),
            connected: true,
            last_error: Some("it closed the connection".to_owned()),
            connections: 1,
            overflows: 0,
            messages_sent: 254,
            octets_sent: 25_600,
        }],
        ..sound()
    }
}

pub(crate) fn sound() -> Health {
    Health {
        node: "node-a".to_owned(),
        version: "0.1.0".to_owned(),
        started: time("2026-11-22T10:00:00Z"),
        ready: true,
        awaited: Vec::new(),
        problems: Vec::new(),
        notes: Vec::new(),
        stations: Vec::new(),
    }
}

/// Deletions that are held for every reason there is.
pub(crate) fn egresses() -> Vec<EgressView> {
    let well = EgressView {
        name: "ledger".to_owned(),
        mode: EgressMode::Gateway,
        failure_policy: FailurePolicy::Closed,
        address: Some(address("198.51.100.7")),
        armed: texts(&["gw-1", "gw-3"]),
        active: Some("gw-1".to_owned()),
        here: true,
        advertised: true,
        sources: 2,
        out_packets: 1234,
        out_bytes: 98_765,
        dropped_packets: 3,
        refused: None,
    };
    let refused = EgressView {
        name: "erp".to_owned(),
        failure_policy: FailurePolicy::Open,
        active: None,
        here: false,
        advertised: false,
        refused: Some("Egress ledger has the address".to_owned()),
        ..well.clone()
    };
    vec![refused, well]
}

pub(crate) fn held() -> Vec<HeldView> {
    let view = |object: &str, reason: HeldReason| HeldView {
        object: object.to_owned(),
        since: time("2026-11-22T12:00:00Z"),
        reason,
        message: reason.message().to_owned(),
    };
    vec![
        view("BGPPeer/tor-a", HeldReason::KindGone),
        view("IPPool/erp", HeldReason::TooMany),
        view("Pod/erp/app-1", HeldReason::Rewound),
    ]
}

/// A node at every step of a drain.
pub(crate) fn drains() -> Vec<DrainView> {
    vec![
        DrainView {
            state: DrainState::Active,
            asked_by: BTreeSet::new(),
            withdraws_in_seconds: None,
            advertised: 4,
        },
        DrainView {
            state: DrainState::Draining,
            asked_by: [AskedBy::Command].into(),
            withdraws_in_seconds: Some(10),
            advertised: 4,
        },
        DrainView {
            state: DrainState::Drained,
            asked_by: [AskedBy::Node].into(),
            withdraws_in_seconds: None,
            advertised: 0,
        },
    ]
}

/// One holder that is over, from the ledger, and one that the plan knows.
pub(crate) fn who() -> Who {
    let since = time("2026-11-20T08:00:00Z");
    let written = HolderView {
        namespace: "erp".to_owned(),
        pod: "orders-0".to_owned(),
        node: "node-a".to_owned(),
        uid: Some("6c1f".to_owned()),
        pool: Some("erp".to_owned()),
        since: Some(since),
        until: Some(time("2026-11-21T09:30:00Z")),
        source: HolderSource::Ledger,
    };
    let planned = HolderView {
        pod: "orders-1".to_owned(),
        since: None,
        until: None,
        source: HolderSource::Plan,
        ..written.clone()
    };
    Who {
        address: address("10.20.0.10"),
        node: "node-a".to_owned(),
        at: Some(time("2026-11-21T00:00:00Z")),
        holders: vec![
            written.clone(),
            planned,
            HolderView { node: "node-b".to_owned(), source: HolderSource::Block, ..written },
        ],
        known_since: Some(time("2026-10-01T00:00:00Z")),
        blocks: vec![BlockSays {
            block: "10-20-0-0-28".to_owned(),
            node: "node-b".to_owned(),
            pool: "erp".to_owned(),
            says: "lent to node node-c (IPBlock of UID 77)".to_owned(),
            since: Some(since),
        }],
        blocks_unknown: Some("the API server is away".to_owned()),
    }
}

/// A row of each kind.
pub(crate) fn ledger_rows() -> Vec<Row> {
    let row = |number, event| Row {
        number,
        time: time("2026-11-21T09:30:00Z"),
        event,
        address: address("10.20.0.10"),
        since: time("2026-11-20T08:00:00Z"),
        node: "node-a".to_owned(),
        namespace: "erp".to_owned(),
        pod: "orders-0".to_owned(),
        uid: Some("6c1f".to_owned()),
        pool: Some("erp".to_owned()),
        hash: "5e".repeat(32),
    };
    vec![row(7, LedgerEvent::Held), row(8, LedgerEvent::Kept), row(9, LedgerEvent::Freed)]
}

pub(crate) fn damaged_ledger() -> LedgerVerdict {
    let message = "its hash is not that of what it says after the row before it".to_owned();
    LedgerVerdict {
        rows: 6,
        cut: 2,
        last: 8,
        hash: "5e".repeat(32),
        damaged: Some(Damage { row: 9, message }),
    }
}

/// One of each kind.
pub(crate) fn pools_check() -> PoolsCheck {
    let disagreement = |against, subject: &str, mendable| Disagreement {
        subject: subject.to_owned(),
        against,
        journal: "held by Pod erp/app (UID 6c1f, sandbox c1)".to_owned(),
        other: "nobody has it".to_owned(),
        outlook: "it is freed".to_owned(),
        mendable,
    };
    PoolsCheck {
        node: "node-a".to_owned(),
        mended: vec![disagreement(Against::Block, "10.20.0.1", true)],
        disagreements: vec![
            disagreement(Against::Sandbox, "10.20.0.2", true),
            disagreement(Against::Pod, "10.20.0.3", false),
            disagreement(Against::Pool, "10.20.0.0/28", false),
        ],
        unknown: vec!["the IPBlocks of this node could not be read: it is away".to_owned()],
    }
}
