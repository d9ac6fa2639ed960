//! How the keys of a live connection become the wanted ones, without a moment in which either side is without.
//!
//! A pure function from what the connection holds to what may be done now. What must wait, waits for the peer: it
//! follows our RNextKeyID when it knows the key (RFC 5925 section 7.5.2), and says by its own RNextKeyID what we sign
//! with. The kernel has no event for either, so the connection is looked at again until nothing is left to do.
use super::TcpAoKey;

/// A key on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldKey {
    pub(crate) key: TcpAoKey,
    /// The peer has signed with it since the last look, for all that we know.
    pub(crate) heard: bool,
}

/// What a connection holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) keys: Vec<HeldKey>,
    /// The send ID of the key that we sign with.
    pub(crate) current: u8,
    /// The receive ID of the key that we ask the peer to sign with.
    pub(crate) next: u8,
}

/// One operation on a connection's keys, by the kernel's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Holds one more.
    Add(TcpAoKey),
    /// Asks the peer to sign with this one from now on.
    Ask(TcpAoKey),
    /// Holds one less.
    Delete(TcpAoKey),
}

/// What is to be done now, in order, and what comes after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roll {
    pub(crate) operations: Vec<Operation>,
    pub(crate) then: Then,
}

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Exactly the wanted keys are held, and the first is asked for.
    Done,
    /// Something waits for the peer.
    LookAgain,
    /// No wanted key can be held beside what is in use: only another session can have them.
    Impossible,
}

/// The next step from `held` to `wanted`, which is not empty.
pub(crate) fn plan(held: &Held, wanted: &[TcpAoKey]) -> Roll {
    let mut operations = Vec::new();
    let mut keys = held.keys.clone();
    let mut next = held.next;
    let free: Vec<TcpAoKey> =
        keys.iter().filter(|held_key| may_go(held_key, held, wanted)).map(|held| held.key.clone()).collect();

    // What can stand beside all that is held comes first, so that there is never less than before.
    for key in wanted {
        if !keys.iter().any(|held| held.key.overlaps(key)) {
            operations.push(Operation::Add(key.clone()));
            keys.push(HeldKey { key: key.clone(), heard: false });
        }
    }
    for key in free {
        keys.retain(|held| held.key != key);
        operations.push(Operation::Delete(key));
    }
    // What had to wait for those IDs.
    for key in wanted {
        if !keys.iter().any(|held| held.key.overlaps(key)) {
            operations.push(Operation::Add(key.clone()));
            keys.push(HeldKey { key: key.clone(), heard: false });
        }
    }
    let holds = |key: &TcpAoKey| keys.iter().any(|held| held.key == *key);
    let Some(preferred) = wanted.iter().find(|key| holds(key)) else {
        return Roll { operations, then: Then::Impossible };
    };
    if preferred.receive_id != next {
        next = preferred.receive_id;
        operations.push(Operation::Ask(preferred.clone()));
    }
    let done = keys.len() == wanted.len() && wanted.iter().all(holds) && wanted[0].receive_id == next;
    Roll { operations, then: if done { Then::Done } else { Then::LookAgain } }
}

/// Whether an unwanted key is in nobody's use: we do not sign with it, we do not ask for it, and the peer signs with
/// another, which stays because it does.
fn may_go(held_key: &HeldKey, held: &Held, wanted: &[TcpAoKey]) -> bool {
    let HeldKey { key, heard } = held_key;
    let in_use = key.send_id == held.current || key.receive_id == held.next || *heard;
    !wanted.contains(key) && !in_use && held.keys.iter().any(|other| other.heard)
}

/// The keys that are held and not wanted.
pub(crate) fn retiring<'a>(
    held: &'a [TcpAoKey],
    wanted: &'a [TcpAoKey],
) -> impl Iterator<Item = &'a TcpAoKey> {
    held.iter().filter(|key| !wanted.contains(key))
}

#[cfg(test)]
mod tests;
