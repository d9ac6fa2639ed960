//! What a listener needs to have of a peer's signature, by whichever of the two ways, before the peer's first segment.
use std::{io, os::fd::BorrowedFd};

use crate::{
    Password, PeerConfig, TcpAoKeys, TcpAoSupport,
    socket::{
        self,
        tcp_ao::{Peers, Role, add_key, delete_key},
    },
    tcp_ao::TcpAoKey,
};

/// How a peer's segments are to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    Md5(Password),
    TcpAo(TcpAoKeys),
}

impl Signature {
    /// Of a peer that the kernel can sign for. One that it cannot is kept down, and has no use for keys.
    pub(crate) fn of(config: &PeerConfig, support: &TcpAoSupport) -> Option<Signature> {
        let keys = config.tcp_ao.clone().filter(|keys| support.refuses(keys).is_none());
        keys.map(Signature::TcpAo).or_else(|| config.password.clone().map(Signature::Md5))
    }

    /// Of TCP MD5.
    pub(crate) fn password(&self) -> Option<&Password> {
        match self {
            Signature::Md5(password) => Some(password),
            Signature::TcpAo(_) => None,
        }
    }
}

/// What a listener holds for a peer, or for a range of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnListener {
    #[default]
    Nothing,
    Md5(Password),
    TcpAo(Vec<TcpAoKey>),
}

impl OnListener {
    /// Whether that is all of it and nothing else.
    pub(crate) fn is(&self, signature: Option<&Signature>) -> bool {
        match (self, signature) {
            (OnListener::Nothing, None) => true,
            (OnListener::Md5(held), Some(Signature::Md5(wanted))) => held == wanted,
            (OnListener::TcpAo(held), Some(Signature::TcpAo(wanted))) => {
                held.len() == wanted.as_slice().len() && wanted.iter().all(|key| held.contains(key))
            }
            (OnListener::Nothing | OnListener::Md5(_) | OnListener::TcpAo(_), _) => false,
        }
    }

    /// The keys that an accepted connection has.
    pub(crate) fn keys(&self) -> &[TcpAoKey] {
        match self {
            OnListener::TcpAo(keys) => keys,
            OnListener::Nothing | OnListener::Md5(_) => &[],
        }
    }

    /// Makes it what is wanted. On an error it tells what stands by then.
    pub(crate) fn set(
        &mut self,
        listener: BorrowedFd<'_>,
        peers: Peers,
        wanted: Option<&Signature>,
    ) -> io::Result<()> {
        // The kernel takes no key of one kind beside one of the other.
        match (&*self, wanted) {
            (OnListener::Md5(_), None | Some(Signature::TcpAo(_))) => {
                socket::set_password(listener, peers, None)?;
                *self = OnListener::Nothing;
            }
            (OnListener::TcpAo(_), None | Some(Signature::Md5(_))) => self.set_keys(listener, peers, &[])?,
            (OnListener::Nothing, _)
            | (OnListener::Md5(_), Some(Signature::Md5(_)))
            | (OnListener::TcpAo(_), Some(Signature::TcpAo(_))) => {}
        }
        match wanted {
            None => Ok(()),
            Some(Signature::Md5(password)) => {
                socket::set_password(listener, peers, Some(password))?;
                *self = OnListener::Md5(password.clone());
                Ok(())
            }
            Some(Signature::TcpAo(keys)) => self.set_keys(listener, peers, keys.as_slice()),
        }
    }

    /// A listener has no key in use: each can go at once, and what comes from then on is judged by the others.
    fn set_keys(&mut self, listener: BorrowedFd<'_>, peers: Peers, wanted: &[TcpAoKey]) -> io::Result<()> {
        let mut held = match std::mem::take(self) {
            OnListener::TcpAo(keys) => keys,
            OnListener::Nothing | OnListener::Md5(_) => Vec::new(),
        };
        let result = change_keys(listener, peers, &mut held, wanted);
        if !held.is_empty() {
            *self = OnListener::TcpAo(held);
        }
        result
    }
}

fn change_keys(
    listener: BorrowedFd<'_>,
    peers: Peers,
    held: &mut Vec<TcpAoKey>,
    wanted: &[TcpAoKey],
) -> io::Result<()> {
    let delete = |held: &mut Vec<TcpAoKey>, key: &TcpAoKey| {
        delete_key(listener, peers, key.ids(), true)?;
        held.retain(|other| other != key);
        io::Result::Ok(())
    };
    // New ones first, so that there is always one; only what has their IDs must make room before.
    for key in wanted.iter().filter(|key| !held.contains(key)).cloned().collect::<Vec<_>>() {
        for old in held.iter().filter(|old| old.overlaps(&key)).cloned().collect::<Vec<_>>() {
            delete(held, &old)?;
        }
        add_key(listener, peers, &key, Role::Other)?;
        held.push(key);
    }
    for old in held.iter().filter(|old| !wanted.contains(old)).cloned().collect::<Vec<_>>() {
        delete(held, &old)?;
    }
    Ok(())
}
