//! Every field of a peer, changed while its session stands and another peer's beside it; and the page of the
//! documentation that says what each change costs.
use std::{fmt::Write, fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use plainroute_bgp::{
    AfiSafi, Asn, Families, HoldTime, RouterId, session::GracefulRestartConfig, wire::Role,
};
use plainroute_speaker::{
    Cost, Effect, Field, OriginAttributes, Originated, Password, PeerChange, PeerConfig, TcpAoAlgorithm,
    TcpAoKey, TcpAoKeys, change_costs,
};

use crate::{
    peer::RawPeer,
    site::{Site, Sort, free_port, name, prefix},
};

type Edit = fn(&mut PeerConfig);

/// The peer that is changed, and the one that must not notice.
const SUBJECT: u8 = 2;
const WITNESS: u8 = 3;

/// A change of these needs a session that is signed by TCP-AO, which few kernels can, or a range of peers:
/// `tests/speaker/tcp_ao.rs` and `tests/speaker/dynamic.rs`.
const ELSEWHERE: [Field; 2] = ["listenRange", "tcpAO.keys"];

/// A change of each field that leaves the configuration valid.
const EDITS: [(Field, Edit); 32] = [
    ("localASN", |config| config.local_asn = Asn::new(65010).unwrap()),
    ("peerASN", |config| config.peer_asn = Asn::new(65011).unwrap()),
    ("routerID", |config| config.router_id = RouterId::new(7).unwrap()),
    ("holdTimeSeconds", |config| config.hold_time = HoldTime::new(60).unwrap()),
    ("gracefulRestart", |config| {
        config.graceful_restart =
            Some(GracefulRestartConfig { restart_time: 60, notification: false, long_lived_stale_time: 0 });
    }),
    ("families", |config| config.families = Families::from_iter([AfiSafi::Ipv4Unicast])),
    ("extendedNextHop", |config| config.extended_next_hop = true),
    ("enhancedRefresh", |config| config.enhanced_refresh = false),
    ("extendedMessages", |config| config.extended_messages = true),
    ("role", |config| config.role = Some(Role::Customer)),
    ("roleRequired", |config| config.role_required = true),
    ("addPath.receive", |config| config.add_path_receive = Families::ALL),
    ("peerAddress", |config| config.peer_address = "127.0.0.9".parse().unwrap()),
    ("interface", |config| config.interface = Some("lo".into())),
    ("localAddress", |config| config.local_address = Some("127.0.0.1".parse().unwrap())),
    ("ebgpMultihop", |config| config.ebgp_multihop = 2),
    ("ttlSecurity", |config| config.ttl_security = Some(1)),
    ("password", |config| config.password = Some(Password::new(b"s3cret").unwrap())),
    ("tcpAO", |config| {
        let secret = Password::new(b"s3cret").unwrap();
        let key = TcpAoKey { send_id: 1, receive_id: 1, algorithm: TcpAoAlgorithm::HmacSha1, secret };
        config.tcp_ao = Some(TcpAoKeys::new(vec![key]).unwrap());
    }),
    ("blocked", |config| config.blocked = Some("the secret is missing".into())),
    ("peerPort", |config| config.peer_port = 1790),
    ("listenPort", |config| config.listen_port = free_port()),
    ("passive", |config| config.passive = false),
    ("connectRetryTimeSeconds", |config| config.connect_retry = Duration::from_secs(9)),
    ("keepAliveTimeSeconds", |config| config.keepalive = Some(Duration::from_secs(25))),
    ("maxPrefixes.in", |config| config.max_prefixes_in = Some(1000)),
    ("refreshLimit", |config| config.refresh_limit = Duration::from_secs(9)),
    ("sendHold", |config| config.send_hold = Some(Duration::from_secs(900))),
    ("maxPrefixes.out", |config| config.max_prefixes_out = Some(1)),
    ("import", |config| config.import.truncate(2)),
    ("egressIPs", |config| config.followed = Arc::new(["198.51.100.7/32".parse().unwrap()].into())),
    ("enforceFirstAS", |config| config.enforce_first_as = false),
];

struct Scene {
    site: Site,
    subject: RawPeer,
    witness: RawPeer,
}

impl Scene {
    /// Both peers Established, with two routes told to the subject.
    async fn new() -> Result<Scene> {
        let site = Site::new([(SUBJECT, Sort::External), (WITNESS, Sort::Internal)]).await;
        let route = |text| Originated {
            peer: name(SUBJECT),
            prefix: prefix(text),
            attributes: OriginAttributes::default().into(),
        };
        site.speaker.originate("test", vec![route("10.1.0.0/28"), route("10.2.0.0/28")]).await;
        let subject = establish(&site).await?;
        let witness = RawPeer::establish(&site, WITNESS).await?;
        Ok(Scene { site, subject, witness })
    }

    /// Changes the subject, looks whether that costs what is claimed, and changes it back.
    async fn check(&mut self, field: Field, edit: Edit, claimed: Cost) -> Result<()> {
        let Scene { site, subject, witness } = self;
        let (before, other) = (site.status(SUBJECT), site.status(WITNESS));
        let mut peers = site.configs();
        edit(peers.get_mut(&name(SUBJECT)).context("the subject is configured")?);
        let changes = site.apply(peers).await?;
        let change = |number, effect| PeerChange { peer: name(number), effect };
        let effect = match claimed {
            Cost::Silent => Effect::Silent { fields: vec![field] },
            Cost::Refresh => Effect::Refreshed { fields: vec![field] },
            Cost::Reset => Effect::Reset { fields: vec![field] },
        };
        let wanted = [change(SUBJECT, effect), change(WITNESS, Effect::Unchanged)];
        ensure!(changes == wanted, "answered {changes:?}");
        observe(site, subject, claimed, &before).await?;

        witness.marker_arrives(site).await.context("the other peer")?;
        let after = site.status(WITNESS);
        ensure!((after.since, after.counters.lost) == (other.since, 0), "the other session is another one");
        ensure!(
            after.counters.messages_sent == other.counters.messages_sent,
            "the other peer was told something"
        );

        site.apply(site.configs()).await?;
        if claimed == Cost::Reset {
            *subject = establish(site).await?;
        }
        Ok(())
    }
}

/// What the subject sees, whatever the speaker says.
async fn observe(
    site: &Site,
    subject: &mut RawPeer,
    claimed: Cost,
    before: &plainroute_speaker::PeerStatus,
) -> Result<()> {
    let counters = before.counters;
    match claimed {
        Cost::Reset => {
            let refusal = subject.refusal().await?;
            // Other Configuration Change (RFC 4486).
            ensure!((refusal.code, refusal.subcode) == (6, 6), "{refusal}");
            site.wait(SUBJECT, |status| status.counters.lost == counters.lost + 1).await?;
            return Ok(());
        }
        Cost::Refresh => {
            let told = |status: &plainroute_speaker::PeerStatus| {
                status.counters.messages_sent > counters.messages_sent || status.counters.lost > counters.lost
            };
            site.wait(SUBJECT, told).await?;
        }
        Cost::Silent => {}
    }
    subject.marker_arrives(site).await?;
    let after = site.status(SUBJECT);
    ensure!(
        (after.since, after.counters.lost) == (before.since, counters.lost),
        "the session is another one"
    );
    let more = after.counters.messages_sent - counters.messages_sent;
    ensure!((claimed == Cost::Silent) == (more == 0), "{more} messages were sent");
    Ok(())
}

/// A session with the subject in which its two routes were told. The listener and the peer's task take a change
/// in their own time, so the first connections may be refused.
async fn establish(site: &Site) -> Result<RawPeer> {
    let mut attempt = RawPeer::establish(site, SUBJECT).await;
    for _ in 0..100 {
        if attempt.is_ok() {
            break;
        }
        attempt = RawPeer::establish(site, SUBJECT).await;
    }
    site.wait(SUBJECT, |status| status.families[&AfiSafi::Ipv4Unicast].advertised == 2).await?;
    attempt
}

#[tokio::test]
async fn each_field_costs_what_the_table_says() {
    let mut costs = change_costs();
    costs.retain(|(field, _)| !ELSEWHERE.contains(field));
    assert_eq!(
        EDITS.map(|(field, _)| field).to_vec(),
        costs.iter().map(|(field, _)| *field).collect::<Vec<_>>()
    );
    let mut scene = Scene::new().await.unwrap();
    for ((field, edit), (_, cost)) in EDITS.into_iter().zip(costs) {
        scene.check(field, edit, cost).await.with_context(|| format!("{field}: {cost:?}")).unwrap();
    }
    assert_eq!(scene.site.status(WITNESS).counters.established, 1);
}

/// Negative control: what the subject sees does not fit another cost than the table's.
#[tokio::test]
async fn another_cost_is_found() {
    for (changed, claimed, complaint) in [
        ("holdTimeSeconds", Cost::Silent, "session"),
        ("import", Cost::Silent, "were sent"),
        ("peerPort", Cost::Reset, "without a NOTIFICATION"),
    ] {
        let mut scene = Scene::new().await.unwrap();
        let (field, edit) = EDITS.into_iter().find(|(field, _)| *field == changed).unwrap();
        let answered = scene.check(field, edit, claimed).await.expect_err(field);
        assert!(answered.to_string().contains("answered"), "{answered:#}");

        let mut scene = Scene::new().await.unwrap();
        let before = scene.site.status(SUBJECT);
        let mut peers = scene.site.configs();
        edit(peers.get_mut(&name(SUBJECT)).unwrap());
        scene.site.apply(peers).await.unwrap();
        if claimed == Cost::Reset {
            // The peer says good-bye itself, lest the check wait for what does not come.
            scene.subject.send(&crate::peer::message(crate::peer::NOTIFICATION, &[6, 2])).await.unwrap();
        }
        let seen = observe(&scene.site, &mut scene.subject, claimed, &before).await.expect_err(field);
        assert!(format!("{seen:#}").contains(complaint), "{field}: {seen:#}");
    }
}

/// The fields of a BGPPeer, which of the table's fields each becomes, and what else is to be known.
const BGP_PEER: [(&str, &[Field], &str); 40] = [
    ("nodeSelector", &[], "a node that is no longer selected ceases its session; the others see nothing"),
    ("localASN", &["localASN"], ""),
    ("peerASN", &["peerASN"], ""),
    (
        "peerAddress",
        &["peerAddress", "interface"],
        "a link-local address names its interface, `fe80::1%eth0`",
    ),
    ("interface", &["peerAddress", "interface"], "once another address is found there"),
    ("autoDiscovery", &["peerAddress", "interface"], "once another address is found"),
    (
        "listenRange",
        &["listenRange"],
        "peers that it no longer takes in are ceased; each other field costs each of its peers what it costs one",
    ),
    ("peerPort", &["peerPort"], "the next connection uses it"),
    ("localAddress", &["localAddress"], ""),
    ("routerID", &["routerID"], ""),
    ("listenPort", &["listenPort"], "connections that stand stay"),
    ("ebgpMultihop", &["ebgpMultihop"], ""),
    ("ttlSecurity", &["ttlSecurity"], ""),
    ("passive", &["passive"], ""),
    (
        "authSecretRef",
        &["password", "blocked"],
        "only if the password itself is another one, or cannot be had",
    ),
    ("authFile", &["password", "blocked"], "only if the password itself is another one, or cannot be had"),
    ("tcpAO", &["tcpAO", "blocked"], "to it or away from it, or a secret that cannot be had at the start"),
    (
        "tcpAO.keys",
        &["tcpAO.keys"],
        "a roll: a key that is gone is given up when neither side uses it any more; a reset where no new key can stand \
         beside the old ones, as when the only key has another secret and the same IDs",
    ),
    ("timers.connectRetryTimeSeconds", &["connectRetryTimeSeconds"], ""),
    ("timers.holdTimeSeconds", &["holdTimeSeconds"], "the OPEN says it"),
    ("timers.keepAliveTimeSeconds", &["keepAliveTimeSeconds"], "no more than a third of the hold time"),
    ("gracefulRestart.enabled", &["gracefulRestart"], "the OPEN says it"),
    ("gracefulRestart.restartTimeSeconds", &["gracefulRestart"], "the OPEN says it"),
    ("gracefulRestart.longLivedStaleTimeSeconds", &["gracefulRestart"], "the OPEN says it (RFC 9494)"),
    ("bfd.enabled", &["gracefulRestart"], "the OPEN says it where graceful restart is on (N bit, RFC 8538)"),
    (
        "bfd",
        &[],
        "but for `enabled`: BFD runs beside the BGP session (RFC 5882), and the OPEN says nothing of it",
    ),
    ("families", &["families"], "the OPEN says it"),
    ("maxPrefixes.in", &["maxPrefixes.in"], "holds for what comes from then on"),
    ("role", &["role"], "the OPEN says it (RFC 9234)"),
    ("roleRequired", &["roleRequired"], ""),
    ("addPath.receive", &["addPath.receive"], "the OPEN says it (RFC 7911)"),
    ("extendedNextHop", &["extendedNextHop"], "the OPEN says it (RFC 8950)"),
    ("enhancedRefresh", &["enhancedRefresh"], "the OPEN says it (RFC 7313)"),
    ("extendedMessages", &["extendedMessages"], "the OPEN says it (RFC 8654)"),
    ("enforceFirstAS", &["enforceFirstAS"], "what is held is judged again, the rest asked for (RFC 2918)"),
    (
        "maxPrefixes.out",
        &["maxPrefixes.out"],
        "what is beyond the limit is withdrawn, what is within it sent",
    ),
    ("import", &["import"], "what is held is judged again, the rest asked for (RFC 2918)"),
    ("export", &[], "the plan asks it: what it refuses now is withdrawn, what it permits now sent"),
    ("metadata.labels", &[], "advertisements may select another set of peers: routes are sent or withdrawn"),
    ("metadata.name", &[], "another name is another peer: the one is removed, the other added"),
];

fn page() -> String {
    let costs = change_costs();
    let mut page = "# What a change of a BGPPeer costs\n\n\
        Made from the table by which the speaker decides (`bgp/speaker/src/change.rs`); a test of each line changes the\n\
        field while the session stands (`bgp/speaker/tests/live/change.rs`). Where several fields change at once, the\n\
        dearest decides. No change of one peer touches the session of another.\n\n\
        - **silent**: the session stays and nothing is sent.\n\
        - **soft refresh**: the session stays; routes are sent again, or asked for again.\n\
        - **reset**: Cease / Other Configuration Change (RFC 4486), and the session is built anew at once. Where both sides\n\
          offer graceful restart and AS, identity and addresses stay, TCP is closed without NOTIFICATION instead, so that\n\
          both go on forwarding meanwhile. Where AS, identity, addresses or role change, the Cease is a Hard Reset if both sides\n\
          keep routes over a NOTIFICATION (N bit, RFC 8538).\n\
        - **not the session's**: handled outside of the session, as the last column says.\n\n\
        | field of `spec` | a change is | remarks |\n|---|---|---|\n"
        .to_owned();
    for (field, becomes, remark) in BGP_PEER {
        let cost = becomes.iter().map(|field| cost(&costs, field)).max();
        let word = match cost {
            None => "not the session's",
            Some(Cost::Silent) => "silent",
            Some(Cost::Refresh) => "soft refresh",
            Some(Cost::Reset) => "reset",
        };
        writeln!(page, "| `{field}` | {word} | {remark} |").unwrap();
    }
    page
}

fn cost(costs: &[(Field, Cost)], field: &str) -> Cost {
    let found = costs.iter().find(|(name, _)| *name == field);
    found.unwrap_or_else(|| panic!("the speaker has no field {field}")).1
}

/// The page has a line for each field that the reference of the configuration knows, which is made of its types.
#[test]
fn every_field_of_a_bgp_peer_has_a_line() {
    let reference = include_str!("../../../../docs/reference/config.md");
    let section = reference.split("\n## ").find(|section| section.starts_with("BGPPeer\n")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `spec.")?.split('`').next());
    let rows: Vec<&str> = rows.collect();
    let is_part = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    for row in &rows {
        let has_line = BGP_PEER.iter().any(|(field, ..)| is_part(row, field) || is_part(field, row));
        assert!(has_line, "no line says what a change of spec.{row} costs");
    }
    for (field, ..) in BGP_PEER.iter().filter(|(field, ..)| !field.starts_with("metadata.")) {
        assert!(rows.contains(field), "a BGPPeer has no field spec.{field}");
    }
}

/// What only the embedding program, not a BGPPeer, can say.
const EMBEDDED: [Field; 3] = ["egressIPs", "refreshLimit", "sendHold"];

/// `PLAINROUTE_WRITE_DOCS=1` writes the page.
#[test]
fn the_page_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/live-change.md");
    for (field, _) in change_costs().iter().filter(|(field, _)| !EMBEDDED.contains(field)) {
        assert!(
            BGP_PEER.iter().any(|(_, becomes, _)| becomes.contains(field)),
            "no line says what {field} is"
        );
    }
    if std::env::var_os("PLAINROUTE_WRITE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/reference/live-change.md is stale: run this test with PLAINROUTE_WRITE_DOCS=1"
    );
}
