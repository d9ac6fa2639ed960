//! TCP-AO (RFC 5925): the keys of a peer, and whether this kernel can sign with them.
//!
//! The kernel does the signing (Linux 6.7 with CONFIG_TCP_AO); what stands here is which keys a peer has, in what
//! order, and the refusal where the kernel cannot. There is no other way to sign a session that asks for TCP-AO: it
//! stays down, it never falls back to TCP MD5 or to nothing. How keys change under a live session is in [`roll`].
use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{Password, socket};

pub(crate) mod connection;
pub(crate) mod roll;

/// How a segment is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpAoAlgorithm {
    /// HMAC-SHA-1-96, which every implementation has (RFC 5926 section 3.2.1).
    HmacSha1,
    /// AES-128-CMAC-96, which every implementation has (RFC 5926 section 3.2.2).
    CmacAes128,
    /// HMAC-SHA-256 with 128 bits of it on the wire: in no RFC, but in routers.
    HmacSha256,
}

impl TcpAoAlgorithm {
    /// All of them.
    pub const ALL: [TcpAoAlgorithm; 3] =
        [TcpAoAlgorithm::HmacSha1, TcpAoAlgorithm::CmacAes128, TcpAoAlgorithm::HmacSha256];

    /// The name by which Linux knows it.
    pub fn name(self) -> &'static str {
        match self {
            TcpAoAlgorithm::HmacSha1 => "hmac(sha1)",
            TcpAoAlgorithm::CmacAes128 => "cmac(aes128)",
            TcpAoAlgorithm::HmacSha256 => "hmac(sha256)",
        }
    }

    /// How many octets of the signature go on the wire.
    pub(crate) fn mac_length(self) -> u8 {
        match self {
            TcpAoAlgorithm::HmacSha1 | TcpAoAlgorithm::CmacAes128 => 12,
            TcpAoAlgorithm::HmacSha256 => 16,
        }
    }
}

impl fmt::Display for TcpAoAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A master key tuple (RFC 5925 section 3.1), less the connection that it is for. The secret is never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpAoKey {
    /// The KeyID in what we send; the peer's `receive_id`.
    pub send_id: u8,
    /// The KeyID in what the peer sends; its `send_id`.
    pub receive_id: u8,
    /// How segments are signed.
    pub algorithm: TcpAoAlgorithm,
    /// The secret, the same on both sides.
    pub secret: Password,
}

impl TcpAoKey {
    /// Its two KeyIDs.
    pub fn ids(&self) -> KeyIds {
        KeyIds { send: self.send_id, receive: self.receive_id }
    }

    /// Whether the kernel cannot hold both at once (RFC 5925 section 3.1: IDs must not overlap).
    pub(crate) fn overlaps(&self, other: &TcpAoKey) -> bool {
        self.send_id == other.send_id || self.receive_id == other.receive_id
    }
}

/// The KeyIDs of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyIds {
    /// In what we send.
    pub send: u8,
    /// In what the peer sends.
    pub receive: u8,
}

impl fmt::Display for KeyIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.send, self.receive)
    }
}

/// The keys of a peer, at least one. The first is the one that we ask the peer to sign with (RNextKeyID); which one
/// we sign with follows what the peer asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct TcpAoKeys(Arc<[TcpAoKey]>);

impl TcpAoKeys {
    /// The keys, unless there is none, or two have an ID in common.
    pub fn new(keys: Vec<TcpAoKey>) -> Result<TcpAoKeys, InvalidTcpAoKeys> {
        if keys.is_empty() {
            return Err(InvalidTcpAoKeys::Empty);
        }
        for (index, key) in keys.iter().enumerate() {
            let before = &keys[..index];
            if before.iter().any(|other| other.send_id == key.send_id) {
                return Err(InvalidTcpAoKeys::SendIdTwice(key.send_id));
            }
            if before.iter().any(|other| other.receive_id == key.receive_id) {
                return Err(InvalidTcpAoKeys::ReceiveIdTwice(key.receive_id));
            }
        }
        Ok(TcpAoKeys(keys.into()))
    }

    /// The keys in order.
    pub fn iter(&self) -> impl Iterator<Item = &TcpAoKey> {
        self.0.iter()
    }

    pub(crate) fn as_slice(&self) -> &[TcpAoKey] {
        &self.0
    }

    /// Whether a session under `self` can go on under `new`: some key of it is in both, or can stand beside all that
    /// there are. Otherwise there would be a moment without a key that either side knows.
    pub(crate) fn can_roll_to(&self, new: &TcpAoKeys) -> bool {
        new.iter().any(|key| self.0.contains(key) || !self.iter().any(|old| old.overlaps(key)))
    }
}

impl fmt::Debug for TcpAoKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Why keys are no keys of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTcpAoKeys {
    /// None would mean an unsigned session; that must be said by leaving TCP-AO out.
    #[error("there is no key")]
    Empty,
    /// RFC 5925 section 3.1.
    #[error("two keys have the send ID {0}")]
    SendIdTwice(u8),
    /// RFC 5925 section 3.1.
    #[error("two keys have the receive ID {0}")]
    ReceiveIdTwice(u8),
}

/// What this host's kernel can do of TCP-AO. The default is nothing, as of a host that was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpAoSupport {
    /// By algorithm: the kernel takes it, or why not.
    answers: BTreeMap<TcpAoAlgorithm, Result<(), String>>,
}

impl TcpAoSupport {
    /// Of a host that was not asked: nothing.
    pub const UNASKED: TcpAoSupport = TcpAoSupport { answers: BTreeMap::new() };

    /// Asks the kernel, by setting a key of each algorithm on a socket that is thrown away.
    pub fn probe() -> TcpAoSupport {
        let answer = |algorithm: TcpAoAlgorithm| (algorithm, socket::tcp_ao::probe(algorithm));
        TcpAoSupport { answers: TcpAoAlgorithm::ALL.into_iter().map(answer).collect() }
    }

    /// Why a session with this algorithm cannot be; none where it can.
    pub fn refusal(&self, algorithm: TcpAoAlgorithm) -> Option<&str> {
        match self.answers.get(&algorithm) {
            None => Some("nobody has asked this host's kernel for TCP-AO"),
            Some(Ok(())) => None,
            Some(Err(reason)) => Some(reason),
        }
    }

    /// Why a session with these keys cannot be; none where it can.
    pub(crate) fn refuses(&self, keys: &TcpAoKeys) -> Option<&str> {
        keys.iter().find_map(|key| self.refusal(key.algorithm))
    }
}

/// How the segments of a session are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all.
    None,
    /// By TCP MD5 (RFC 2385).
    Md5,
    /// By TCP-AO (RFC 5925); with the keys in use while there is a connection.
    TcpAo(Option<TcpAoState>),
}

/// The keys that a connection uses, as its kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpAoState {
    /// The send ID of the key that we sign with.
    pub current: u8,
    /// The receive ID of the key that we ask the peer to sign with.
    pub next: u8,
    /// Keys that the configuration has no more and that are still in use: they go when the peer has moved on.
    pub retiring: Vec<KeyIds>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn key(send_id: u8, receive_id: u8, secret: &str) -> TcpAoKey {
        let secret = Password::new(secret.as_bytes()).unwrap();
        TcpAoKey { send_id, receive_id, algorithm: TcpAoAlgorithm::HmacSha1, secret }
    }

    fn keys(keys: &[TcpAoKey]) -> TcpAoKeys {
        TcpAoKeys::new(keys.to_vec()).unwrap()
    }

    #[test]
    fn keys_that_cannot_stand_beside_each_other_are_refused() {
        use InvalidTcpAoKeys::{Empty, ReceiveIdTwice, SendIdTwice};
        assert_eq!(TcpAoKeys::new(Vec::new()), Err(Empty));
        assert_eq!(TcpAoKeys::new(vec![key(1, 2, "a"), key(1, 3, "b")]), Err(SendIdTwice(1)));
        assert_eq!(TcpAoKeys::new(vec![key(1, 2, "a"), key(3, 2, "b")]), Err(ReceiveIdTwice(2)));
        assert!(TcpAoKeys::new(vec![key(1, 2, "a"), key(2, 1, "a")]).is_ok());
    }

    #[test]
    fn a_secret_is_never_printed() {
        let printed = format!("{:?}", keys(&[key(7, 8, "s3cret")]));
        assert!(printed.contains("send_id: 7") && !printed.contains("s3cret"), "{printed}");
    }

    #[test]
    fn a_roll_needs_one_key_that_both_sides_can_hold_throughout() {
        let old = keys(&[key(1, 1, "a"), key(2, 2, "b")]);
        assert!(old.can_roll_to(&keys(&[key(2, 2, "b")])));
        assert!(old.can_roll_to(&keys(&[key(3, 3, "c")])));
        assert!(old.can_roll_to(&keys(&[key(1, 1, "new"), key(2, 2, "b")])));
        assert!(!old.can_roll_to(&keys(&[key(1, 1, "new")])));
        assert!(!old.can_roll_to(&keys(&[key(3, 1, "a"), key(2, 3, "b")])));
    }

    #[test]
    fn a_kernel_that_was_not_asked_can_nothing() {
        let support = TcpAoSupport::default();
        assert!(support.refuses(&keys(&[key(1, 1, "a")])).is_some());
        let only_sha1 = TcpAoSupport {
            answers: BTreeMap::from([
                (TcpAoAlgorithm::HmacSha1, Ok(())),
                (TcpAoAlgorithm::HmacSha256, Err("no sha256".to_owned())),
            ]),
        };
        assert_eq!(only_sha1.refuses(&keys(&[key(1, 1, "a")])), None);
        let sha256 = TcpAoKey { algorithm: TcpAoAlgorithm::HmacSha256, ..key(2, 2, "b") };
        assert_eq!(only_sha1.refuses(&keys(&[key(1, 1, "a"), sha256])), Some("no sha256"));
    }
}
