//! TCP-AO between two speakers. Where the kernel cannot sign, the same tests assert that nothing is set up instead.
use plainroute_bgp::session::State;
use plainroute_speaker::{
    Authentication, Effect, KeyIds, Password, PeerConfig, PeerStatus, SpeakerConfig, TcpAoAlgorithm,
    TcpAoKey, TcpAoKeys, TcpAoState, TcpAoSupport,
};

use crate::network::{Node, wait_for};

const MISSING: &str = "TCP-AO is not in this kernel (needs Linux 6.7 with CONFIG_TCP_AO)";

/// A key as the first of two nodes has it; the second's IDs are the other way round.
#[derive(Clone, Copy)]
struct Key(u8, u8, &'static str);

fn keys(node: &Node, keys: &[Key]) -> Option<TcpAoKeys> {
    let key = |Key(a, b, secret): &Key| {
        let (send_id, receive_id) = if node.number == 1 { (*a, *b) } else { (*b, *a) };
        let secret = Password::new(secret.as_bytes()).unwrap();
        TcpAoKey { send_id, receive_id, algorithm: TcpAoAlgorithm::HmacSha1, secret }
    };
    Some(TcpAoKeys::new(keys.iter().map(key).collect()).unwrap())
}

/// Two nodes that have asked the kernel, and whether it can.
fn nodes() -> (Node, Node, bool) {
    let config = SpeakerConfig { tcp_ao: TcpAoSupport::probe(), ..SpeakerConfig::default() };
    let can = config.tcp_ao.refusal(TcpAoAlgorithm::HmacSha1).is_none();
    (Node::with(1, config.clone()), Node::with(2, config), can)
}

impl Node {
    async fn calls(&self, peer: &Node, tcp_ao: &[Key]) -> Effect {
        self.apply_one(peer, PeerConfig { tcp_ao: keys(self, tcp_ao), ..self.towards(peer) }).await
    }

    async fn waits(&self, peer: &Node, tcp_ao: &[Key]) -> Effect {
        self.apply_one(peer, PeerConfig { tcp_ao: keys(self, tcp_ao), ..self.waits_for(peer) }).await
    }

    async fn apply_one(&self, peer: &Node, config: PeerConfig) -> Effect {
        let changes = self.speaker.apply([(peer.name(), config)].into()).await.unwrap();
        changes.into_iter().next().unwrap().effect
    }

    async fn is_refused(&self, peer: &Node) {
        let status = self.status(peer, |status| status.blocked.is_some()).await;
        assert_eq!(status.blocked.as_deref(), Some(MISSING));
        assert_eq!((status.state, status.counters.messages_sent), (State::Idle, 0));
        assert_eq!(status.authentication, Authentication::TcpAo(None));
    }

    async fn uses(&self, peer: &Node, current: u8, next: u8, retiring: &[KeyIds]) -> PeerStatus {
        let state = TcpAoState { current, next, retiring: retiring.to_vec() };
        self.status(peer, |status| {
            status.state == State::Established
                && status.authentication == Authentication::TcpAo(Some(state.clone()))
        })
        .await
    }
}

/// Refused by name on both sides, without a connection; and the port stays closed to who has no keys, too.
async fn both_are_refused(a: &Node, b: &Node) {
    a.is_refused(b).await;
    b.is_refused(a).await;
    // A third, without keys, gets its session on the same port: only who asks for TCP-AO is kept down.
    let c = Node::new(3);
    let with_keys = PeerConfig { tcp_ao: keys(b, &[Key(1, 2, "s3cret")]), ..b.waits_for(a) };
    b.peers([(a, with_keys), (&c, b.waits_for(&c))]).await;
    c.peers([(b, c.towards(b))]).await;
    c.established(b).await;
    // A knocks unsigned at the port where it ought to sign: nothing comes of it.
    a.peers([(b, a.towards(b))]).await;
    a.status(b, |status| status.last_error.is_some()).await;
    let (caller, refused) = (a.status(b, |_| true).await, b.status(a, |_| true).await);
    assert_eq!((caller.counters.established, refused.counters.established), (0, 0), "{caller:?} {refused:?}");
}

#[tokio::test]
async fn a_session_is_signed_or_refused_by_name() {
    let (a, b, can) = nodes();
    let key = [Key(5, 6, "s3cret")];
    b.waits(&a, &key).await;
    a.calls(&b, &key).await;
    if !can {
        return both_are_refused(&a, &b).await;
    }
    a.uses(&b, 5, 5 + 1, &[]).await;
    b.uses(&a, 6, 5, &[]).await;
    a.tell(&b, &["10.1.0.0/28"]).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;
}

#[tokio::test]
async fn a_wrong_secret_or_none_gets_no_session() {
    let (a, b, can) = nodes();
    b.waits(&a, &[Key(5, 6, "right")]).await;
    a.calls(&b, &[Key(5, 6, "wrong")]).await;
    if !can {
        return both_are_refused(&a, &b).await;
    }
    let says = |status: &PeerStatus, text: &str| {
        status.last_error.as_ref().is_some_and(|(error, _)| error.contains(text))
    };
    let status = a.status(&b, |status| says(status, "does the secret differ there?")).await;
    assert!(status.tcp_ao_failures.is_some_and(|failures| failures.bad > 0), "{status:?}");
    a.peers([(&b, a.towards(&b))]).await;
    let unsigned = b.status(&a, |status| status.tcp_ao_failures.is_some_and(|f| f.required > 0)).await;
    assert_eq!((status.counters.established, unsigned.counters.established), (0, 0));
    a.calls(&b, &[Key(5, 6, "right")]).await;
    a.uses(&b, 5, 6, &[]).await;
}

#[tokio::test]
async fn keys_roll_without_a_new_session() {
    let (a, b, can) = nodes();
    let (old, new) = (Key(1, 2, "old"), Key(3, 4, "new"));
    b.waits(&a, &[old]).await;
    a.calls(&b, &[old]).await;
    if !can {
        return both_are_refused(&a, &b).await;
    }
    a.uses(&b, 1, 2, &[]).await;
    b.uses(&a, 2, 1, &[]).await;
    let silent = Effect::Silent { fields: vec!["tcpAO.keys"] };

    // One side alone: it asks for what the other does not know, so both stay with the old one.
    assert_eq!(a.calls(&b, &[new, old]).await, silent);
    a.uses(&b, 1, 4, &[]).await;
    // Even if it wants to be rid of the old one already.
    assert_eq!(a.calls(&b, &[new]).await, silent);
    a.uses(&b, 1, 4, &[KeyIds { send: 1, receive: 2 }]).await;
    a.tell(&b, &["10.1.0.0/28"]).await;
    b.learned_prefixes(&["10.1.0.0/28"]).await;

    // With the other side both move, and what is not wanted any more goes.
    assert_eq!(b.waits(&a, &[new, old]).await, silent);
    a.uses(&b, 3, 4, &[]).await;
    assert_eq!(b.waits(&a, &[new]).await, silent);
    let (first, second) = (a.uses(&b, 3, 4, &[]).await, b.uses(&a, 4, 3, &[]).await);
    for status in [first, second] {
        assert_eq!((status.counters.established, status.counters.lost), (1, 0), "{status:?}");
    }
    a.tell(&b, &["10.2.0.0/28"]).await;
    b.learned_prefixes(&["10.2.0.0/28"]).await;

    // A new connection has the new key on both sides: the listener forgot the old one.
    a.calls(&b, &[old]).await;
    let status = a.status(&b, |status| status.state == State::Established || status.counters.lost > 0).await;
    assert_eq!(status.counters.established, 1, "{status:?}");
}

#[tokio::test]
async fn a_changed_secret_of_the_only_key_builds_the_session_anew() {
    let (a, b, can) = nodes();
    b.waits(&a, &[Key(1, 2, "one")]).await;
    a.calls(&b, &[Key(1, 2, "one")]).await;
    if !can {
        return both_are_refused(&a, &b).await;
    }
    a.uses(&b, 1, 2, &[]).await;
    let reset = Effect::Reset { fields: vec!["tcpAO", "tcpAO.keys"] };
    assert_eq!(b.waits(&a, &[Key(1, 2, "two")]).await, reset);
    assert_eq!(a.calls(&b, &[Key(1, 2, "two")]).await, reset);
    let back = a.status(&b, |status| status.state == State::Established && status.counters.established == 2);
    assert_eq!(back.await.counters.lost, 1);
}

#[tokio::test]
async fn a_peer_that_knows_only_the_older_key_is_reached_with_that() {
    let (a, b, can) = nodes();
    let (old, new) = (Key(1, 2, "old"), Key(3, 4, "new"));
    b.waits(&a, &[old]).await;
    a.calls(&b, &[new, old]).await;
    if !can {
        return both_are_refused(&a, &b).await;
    }
    a.uses(&b, 1, 4, &[]).await;
}

#[tokio::test]
async fn a_password_and_keys_exclude_each_other() {
    let (a, b, _) = nodes();
    let both = PeerConfig {
        tcp_ao: keys(&a, &[Key(1, 2, "x")]),
        password: Some(Password::new(b"y").unwrap()),
        ..a.towards(&b)
    };
    let error = a.speaker.apply([(b.name(), both)].into()).await.unwrap_err();
    assert!(error.to_string().contains("not by both"), "{error}");
}

/// A speaker that nobody told of the kernel refuses, whatever the kernel can.
#[tokio::test]
async fn what_was_not_asked_for_is_not_there() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.calls(&b, &[Key(1, 2, "x")]).await;
    let peers = wait_for(a.speaker.peers(), |peers| peers.contains_key(&b.name())).await;
    let blocked = peers[&b.name()].blocked.clone().unwrap_or_default();
    assert!(blocked.contains("nobody has asked"), "{blocked}");
}
