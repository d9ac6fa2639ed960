use std::slice::from_ref;

use proptest::prelude::*;

use super::{super::tests::key, *};

/// A connection as the kernel keeps it (net/ipv4/tcp_ao.c), and who is at its other end.
#[derive(Debug)]
struct Connection {
    keys: Vec<TcpAoKey>,
    /// What came signed with each key since the last look.
    heard: Vec<TcpAoKey>,
    current: u8,
    next: u8,
    peer: RemotePeer,
}

/// The other end, by RFC 5925 section 7.5.2: signs with what it was asked for last, if it has that.
#[derive(Debug)]
struct RemotePeer {
    keys: Vec<TcpAoKey>,
    signs_with: TcpAoKey,
    asks_for: TcpAoKey,
}

impl Connection {
    fn new(ours: &[TcpAoKey], theirs: &[TcpAoKey], common: &TcpAoKey) -> Connection {
        let peer = RemotePeer { keys: theirs.to_vec(), signs_with: common.clone(), asks_for: common.clone() };
        let (current, next) = (common.send_id, common.receive_id);
        Connection { keys: ours.to_vec(), heard: vec![common.clone()], current, next, peer }
    }

    fn held(&self) -> Held {
        let held = |key: &TcpAoKey| HeldKey { key: key.clone(), heard: self.heard.contains(key) };
        Held { keys: self.keys.iter().map(held).collect(), current: self.current, next: self.next }
    }

    fn current_key(&self) -> Option<&TcpAoKey> {
        self.keys.iter().find(|key| key.send_id == self.current)
    }

    /// As `tcp_ao_add_cmd`, `tcp_ao_info_cmd` and `tcp_ao_del_cmd` would; an error is one that the kernel gives.
    fn carry_out(&mut self, operation: &Operation) -> Result<(), &'static str> {
        match operation {
            Operation::Add(key) if self.keys.iter().any(|held| held.overlaps(key)) => Err("EEXIST"),
            Operation::Add(key) => {
                self.keys.push(key.clone());
                Ok(())
            }
            Operation::Ask(key) if !self.keys.contains(key) => Err("ENOENT"),
            Operation::Ask(key) => {
                self.next = key.receive_id;
                Ok(())
            }
            Operation::Delete(key) if !self.keys.contains(key) => Err("ENOENT"),
            Operation::Delete(key) if key.send_id == self.current || key.receive_id == self.next => {
                Err("EBUSY")
            }
            Operation::Delete(key) if self.peer.signs_with == *key => Err("the peer still signs with it"),
            Operation::Delete(key) => {
                self.keys.retain(|held| held != key);
                Ok(())
            }
        }
    }

    /// A segment of ours goes there and one comes back. Each side drops what it cannot verify.
    fn exchange(&mut self) -> Result<(), &'static str> {
        let signed = self.current_key().ok_or("we have no key to sign with")?.clone();
        if !self.peer.keys.contains(&signed) {
            return Err("the peer cannot verify us");
        }
        // Two sides that have different secrets for one ID are no matter of the order of things.
        let asked = |key: &&TcpAoKey| key.receive_id == self.next && self.keys.contains(key);
        if let Some(asked) = self.peer.keys.iter().find(asked) {
            self.peer.signs_with = asked.clone();
        }
        if !self.keys.contains(&self.peer.signs_with) {
            return Err("we cannot verify the peer");
        }
        self.heard.push(self.peer.signs_with.clone());
        // An RNextKeyID that we do not know changes nothing.
        if let Some(asked) = self.keys.iter().find(|key| key.send_id == self.peer.asks_for.send_id)
            && *asked == self.peer.asks_for
        {
            self.current = asked.send_id;
        }
        Ok(())
    }

    /// One look at the connection, with all that follows from it.
    fn step(&mut self, wanted: &[TcpAoKey]) -> Result<Then, String> {
        let held = self.held();
        self.heard.clear();
        let roll = plan(&held, wanted);
        for operation in &roll.operations {
            self.carry_out(operation).map_err(|error| format!("{operation:?} of {roll:?}: {error}"))?;
            if self.current_key().is_none() || !self.keys.iter().any(|key| key.receive_id == self.next) {
                return Err(format!("without a key after {operation:?}"));
            }
        }
        Ok(roll.then)
    }
}

fn ids(keys: &[TcpAoKey]) -> Vec<u8> {
    keys.iter().map(|key| key.send_id).collect()
}

#[test]
fn a_new_key_replaces_the_old_one_when_the_peer_has_moved() {
    let (old, new) = (key(1, 1, "old"), key(2, 2, "new"));
    let mut connection = Connection::new(from_ref(&old), from_ref(&old), &old);
    let both = [new.clone(), old.clone()];
    // The peer does not know the new key yet: nothing moves and nothing breaks.
    assert_eq!(connection.step(&both), Ok(Then::Done));
    connection.exchange().unwrap();
    assert_eq!((connection.current, &connection.peer.signs_with), (1, &old));

    connection.peer.keys.push(new.clone());
    connection.exchange().unwrap();
    assert_eq!(connection.peer.signs_with, new);
    // It signs with the new one, but asks us for the old one still: that must stay.
    for _ in 0..3 {
        assert_eq!(connection.step(from_ref(&new)), Ok(Then::LookAgain));
        connection.exchange().unwrap();
    }
    assert_eq!(ids(&connection.keys), [1, 2]);
    connection.peer.asks_for = new.clone();
    connection.exchange().unwrap();
    assert_eq!(connection.step(from_ref(&new)), Ok(Then::Done));
    assert_eq!(connection.keys, [new]);
}

#[test]
fn what_the_peer_signs_with_stays_although_we_sign_with_another() {
    let (old, new) = (key(1, 1, "old"), key(2, 2, "new"));
    let held = |heard: &[bool]| Held {
        keys: vec![
            HeldKey { key: old.clone(), heard: heard[0] },
            HeldKey { key: new.clone(), heard: heard[1] },
        ],
        current: 2,
        next: 2,
    };
    let wanted = [new.clone()];
    let deletes = |held| plan(&held, &wanted).operations == [Operation::Delete(old.clone())];
    assert!(!deletes(held(&[true, false])), "signs with the old one");
    assert!(!deletes(held(&[true, true])), "changed over since the last look, or goes back and forth");
    assert!(!deletes(held(&[false, false])), "silent, so nothing is known");
    assert!(deletes(held(&[false, true])));
}

#[test]
fn a_changed_secret_takes_its_ids_when_they_are_free() {
    let (old, changed, other) = (key(1, 1, "old"), key(1, 1, "changed"), key(2, 2, "other"));
    let mut connection = Connection::new(&[old.clone(), other.clone()], &[old.clone(), other.clone()], &old);
    let wanted = [changed.clone(), other.clone()];
    assert_eq!(connection.step(&wanted), Ok(Then::LookAgain));
    connection.peer.keys = vec![changed.clone(), other.clone(), old.clone()];
    connection.peer.asks_for = other.clone();
    connection.exchange().unwrap();
    assert_eq!(connection.step(&wanted), Ok(Then::Done));
    assert_eq!(connection.keys, [other, changed]);
}

#[test]
fn the_only_key_cannot_change_its_secret_in_place() {
    let (old, changed) = (key(1, 1, "old"), key(1, 1, "changed"));
    let mut connection = Connection::new(from_ref(&old), &[old.clone(), changed.clone()], &old);
    assert_eq!(connection.step(&[changed]), Ok(Then::Impossible));
    assert_eq!(connection.keys, [old]);
}

/// Some keys of a small world, so that IDs and secrets meet often; no two overlap.
fn any_keys() -> impl Strategy<Value = Vec<TcpAoKey>> {
    let one = (0u8..5, 0u8..5, 0u8..3)
        .prop_map(|(send, receive, secret)| key(send, receive, &format!("secret {secret}")));
    prop::collection::vec(one, 1..5).prop_map(|keys| {
        let mut apart: Vec<TcpAoKey> = Vec::new();
        for key in keys {
            if !apart.iter().any(|other| other.overlaps(&key)) {
                apart.push(key);
            }
        }
        apart
    })
}

proptest! {
    /// Whatever the peer knows and when it moves: no operation that the kernel would refuse, no moment without a key
    /// that both know, no key away that either signs with.
    #[test]
    fn a_roll_never_breaks_what_works(
        ours in any_keys(),
        theirs in any_keys(),
        goals in prop::collection::vec((any_keys(), 1usize..4), 1..4),
        asks in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let common = &ours[0];
        let mut known = vec![common.clone()];
        known.extend(theirs.into_iter().filter(|key| !key.overlaps(common)));
        let mut connection = Connection::new(&ours, &known, common);
        let mut asks = asks.iter().cycle();
        for (goal, steps) in &goals {
            for _ in 0..*steps {
                let then = connection.step(goal).map_err(TestCaseError::fail)?;
                prop_assert_eq!(
                    then == Then::Done,
                    ids_sorted(&connection.keys) == ids_sorted(goal) && connection.next == goal[0].receive_id
                );
                let asked = asks.next().expect("cycles").get(&known);
                connection.peer.asks_for = asked.clone();
                connection.exchange().map_err(TestCaseError::fail)?;
            }
        }
    }

    /// A peer that has the same keys and wishes ends with exactly them, whatever was before, unless no key of them can
    /// be held at all.
    #[test]
    fn a_roll_ends_with_exactly_the_wanted_keys(old in any_keys(), new in any_keys()) {
        let mut connection = Connection::new(&old, &old, &old[0]);
        connection.peer.keys.extend(new.iter().filter(|key| !old.contains(key)).cloned());
        let mut last = Then::LookAgain;
        for _ in 0..10 {
            last = connection.step(&new).map_err(TestCaseError::fail)?;
            if last == Then::Impossible {
                break;
            }
            // It does as we do: asks for the first of the new keys that the connection has.
            let mine = new.iter().find(|key| connection.keys.contains(key)).expect("not impossible");
            connection.peer.asks_for = mine.clone();
            connection.exchange().map_err(TestCaseError::fail)?;
            connection.exchange().map_err(TestCaseError::fail)?;
        }
        let keys = |keys: &[TcpAoKey]| super::super::TcpAoKeys::new(keys.to_vec()).expect("apart");
        match last {
            Then::Done => prop_assert_eq!(ids_sorted(&connection.keys), ids_sorted(&new)),
            Then::Impossible => prop_assert!(!keys(&old).can_roll_to(&keys(&new))),
            Then::LookAgain => prop_assert!(false, "stuck: {:?}", connection),
        }
    }
}

fn ids_sorted(keys: &[TcpAoKey]) -> Vec<(u8, u8, String)> {
    let secret = |key: &TcpAoKey| String::from_utf8_lossy(key.secret.octets()).into_owned();
    let mut all: Vec<_> = keys.iter().map(|key| (key.send_id, key.receive_id, secret(key))).collect();
    all.sort();
    all
}
