//! Who may speak, from how far, and how much: what keeps a stranger out, and says so.
use std::{
    io,
    sync::{Arc, Mutex},
};

use plainroute_bgp::{AfiSafi, session::State};
use plainroute_speaker::{Effect, ImportRule, Md5Failures, Password, PeerConfig, PeerStatus};

use crate::network::{Node, pair, prefix};

fn with(password: &str, config: PeerConfig) -> PeerConfig {
    PeerConfig { password: Some(Password::new(password.as_bytes()).unwrap()), ..config }
}

fn says(status: &PeerStatus, text: &str) -> bool {
    status.last_error.as_ref().is_some_and(|(error, _)| error.contains(text))
}

fn md5(status: &PeerStatus) -> Md5Failures {
    status.md5_failures.expect("this kernel counts")
}

#[tokio::test]
async fn a_password_that_differs_is_named_on_both_sides() {
    let (a, b) = (Node::new(1), Node::new(2));
    b.peers([(&a, with("right", b.waits_for(&a)))]).await;
    a.peers([(&b, with("wrong", a.towards(&b)))]).await;
    let status = a.status(&b, |status| says(status, "does the password differ there?")).await;
    assert!(says(&status, "no answer from 192.0.2.2:"), "{status:?}");
    assert!(md5(&status).failure > 0 && md5(&status).not_found == 0, "{status:?}");
    // Who waits meets no lack of an answer; the kernel's count alone tells it.
    let waits = b.status(&a, |status| says(status, "does the password differ there?")).await;
    assert!(says(&waits, "no connection from 192.0.2.1 "), "{waits:?}");
    assert_eq!((status.counters.established, waits.counters.established), (0, 0));

    a.peers([(&b, with("right", a.towards(&b)))]).await;
    assert_eq!(md5(&a.established(&b).await), Md5Failures::default(), "counted anew for each session");
    assert_eq!(md5(&b.established(&a).await), Md5Failures::default(), "counted anew for each session");
}

#[tokio::test]
async fn a_password_on_one_side_only_is_told_from_a_wrong_one() {
    let (a, b) = (Node::new(1), Node::new(2));
    let active = |from: &Node, to: &Node| PeerConfig { passive: false, ..from.waits_for(to) };
    a.peers([(&b, with("s3cret", active(&a, &b)))]).await;
    b.peers([(&a, active(&b, &a))]).await;
    let has = a.status(&b, |status| says(status, "has the peer a password?")).await;
    let lacks = b.status(&a, |status| says(status, "does the peer want one?")).await;
    assert_eq!((has.counters.established, lacks.counters.established), (0, 0));
    assert!(md5(&has).not_found > 0 && md5(&has).failure == 0, "{has:?}");
    assert!(md5(&lacks).unexpected > 0, "{lacks:?}");

    a.peers([(&b, active(&a, &b))]).await;
    a.established(&b).await;
    b.established(&a).await;
}

#[tokio::test]
async fn a_password_is_changed_without_touching_another_peer() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    // One listener for both; what B and C connect with is theirs.
    let waits = |password| [(&b, with(password, a.waits_for(&b))), (&c, with("of c", a.waits_for(&c)))];
    let calls = |password| [(&a, with(password, b.towards(&a)))];
    a.peers(waits("old")).await;
    b.peers(calls("old")).await;
    c.peers([(&a, with("of c", c.towards(&a)))]).await;
    a.established(&b).await;
    a.established(&c).await;

    let changed = waits("new").map(|(peer, config)| (peer.name(), config));
    let changes = a.speaker.apply(changed.into()).await.unwrap();
    let effects: Vec<_> = changes.into_iter().map(|change| change.effect).collect();
    assert!(matches!(effects[..], [Effect::Reset { .. }, Effect::Unchanged]), "{effects:?}");
    // The old one is refused by the listener that ran all along.
    let refused = b.status(&a, |status| says(status, "no answer")).await;
    assert_ne!(refused.state, State::Established);
    b.peers(calls("new")).await;
    b.status(&a, |status| status.state == State::Established && status.counters.established == 2).await;

    c.tell(&a, &["10.3.0.0/28"]).await;
    a.learned_prefixes(&["10.3.0.0/28"]).await;
    for status in [a.established(&c).await, c.established(&a).await] {
        assert_eq!((status.counters.established, status.counters.lost), (1, 0), "{status:?}");
    }
}

#[tokio::test]
async fn what_one_peer_teaches_is_told_to_no_other() {
    let (b, c) = pair().await;
    let a = Node::new(3);
    // C learns from B and would take anything of 10.0.0.0/8 on to A, if it passed routes on.
    let ten = ImportRule { le: Some(32), ..ImportRule::new(prefix("10.0.0.0/8")) };
    a.peers([(&c, PeerConfig { import: vec![ten], listen_port: a.port, passive: true, ..a.towards(&c) })])
        .await;
    c.peers([(&b, c.waits_for(&b)), (&a, c.towards(&a))]).await;
    c.established(&a).await;
    b.tell(&c, &["10.1.0.0/28"]).await;
    c.learned_prefixes(&["10.1.0.0/28"]).await;
    // Sent after it, so whatever else C tells A came before.
    c.tell(&a, &["10.9.0.0/28"]).await;
    a.learned_prefixes(&["10.9.0.0/28"]).await;
    let told: Vec<_> = c.speaker.advertised(&a.name()).await.into_iter().map(|route| route.prefix).collect();
    assert_eq!(told, [prefix("10.9.0.0/28")]);
    let status = a.established(&c).await;
    assert_eq!(status.counters.updates_received, 1, "{status:?}");
}

/// What was logged, for this thread alone.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn holds(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(text)
    }
}

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn four_fifths_of_the_prefixes_warn_and_more_than_all_cease() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let (a, b) = (Node::new(1), Node::new(2));
    b.peers([(&a, PeerConfig { max_prefixes_in: Some(5), ..b.waits_for(&a) })]).await;
    a.peers([(&b, a.towards(&b))]).await;
    let all = ["10.1.0.0/28", "10.2.0.0/28", "10.3.0.0/28", "10.4.0.0/28", "10.5.0.0/28", "10.6.0.0/28"];
    let accepted = |status: &PeerStatus| status.families[&AfiSafi::Ipv4Unicast].accepted;
    const WARNING: &str = "80 % of the accepted prefixes are reached";

    a.tell(&b, &all[..3]).await;
    b.status(&a, |status| accepted(status) == 3).await;
    assert!(!log.holds(WARNING));
    a.tell(&b, &all[..4]).await;
    b.status(&a, |status| accepted(status) == 4).await;
    assert!(log.holds(WARNING));
    a.tell(&b, &all[..5]).await;
    let full = b.status(&a, |status| accepted(status) == 5).await;
    assert_eq!((full.state, full.counters.lost), (State::Established, 0));
    a.tell(&b, &all).await;
    // Cease/1 (RFC 4486), by its name.
    a.status(&b, |status| says(status, "Maximum Number of Prefixes")).await;
    assert_eq!(b.status(&a, |status| status.counters.lost == 1).await.state, State::Idle);
    b.learned_prefixes(&[]).await;
}

#[tokio::test]
async fn ttl_security_of_one_hop_keeps_out_who_is_two_away() {
    let (a, b) = (Node::new(1), Node::new(2));
    let within = |hops| PeerConfig { ttl_security: Some(hops), ..b.waits_for(&a) };
    b.peers([(&a, within(1))]).await;
    // What left with 255 arrives so after one router.
    a.peers([(&b, PeerConfig { ebgp_multihop: 254, ..a.towards(&b) })]).await;
    let status = a.status(&b, |status| says(status, "no answer")).await;
    assert_eq!(status.counters.established, 0);
    assert!(!says(&status, "MD5"), "no guess where there is no password: {status:?}");
    b.peers([(&a, within(2))]).await;
    a.established(&b).await;
    b.established(&a).await;
}
