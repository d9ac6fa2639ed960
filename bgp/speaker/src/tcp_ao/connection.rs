//! The TCP-AO keys of one connection: what stands on it, and each look at how far the peer has followed.
//!
//! The kernel is asked for what changes by itself, the key in use and what came signed with each. Which keys there
//! are and with what secrets is remembered here, since only this changes them.
use std::{collections::BTreeMap, io, net::IpAddr, os::fd::BorrowedFd};

use super::{
    KeyIds, TcpAoKey, TcpAoKeys, TcpAoState,
    roll::{Held, HeldKey, Operation, Roll, Then, plan, retiring},
};
use crate::socket::tcp_ao as kernel;

/// The keys on one connection; none on one that is not signed by TCP-AO.
#[derive(Debug, Default)]
pub(crate) struct ConnectionKeys {
    held: Vec<TcpAoKey>,
    /// What each had verified at the last look.
    verified: BTreeMap<KeyIds, u64>,
}

/// What a look found and did.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) then: Then,
    pub(crate) state: TcpAoState,
    /// What was done, in words.
    pub(crate) done: Vec<String>,
}

impl ConnectionKeys {
    pub(crate) fn new(held: Vec<TcpAoKey>) -> ConnectionKeys {
        ConnectionKeys { held, verified: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Asks the kernel how things stand and goes as far towards the wanted keys as can be now.
    pub(crate) fn look(
        &mut self,
        socket: BorrowedFd<'_>,
        peer: IpAddr,
        wanted: &TcpAoKeys,
    ) -> io::Result<Look> {
        let held = self.ask(socket)?;
        let Roll { operations, mut then } = plan(&held, wanted.as_slice());
        let mut done = Vec::new();
        let mut next = held.next;
        for operation in operations {
            match kernel::carry_out(socket, peer, &operation) {
                Ok(()) => {}
                // The peer has gone back to it since we asked.
                Err(error) if is_busy(&error) => {
                    then = Then::LookAgain;
                    break;
                }
                Err(error) => return Err(error),
            }
            done.push(self.note(operation, &mut next));
        }
        let retiring = retiring(&self.held, wanted.as_slice()).map(TcpAoKey::ids).collect();
        Ok(Look { then, state: TcpAoState { current: held.current, next, retiring }, done })
    }

    fn ask(&mut self, socket: BorrowedFd<'_>) -> io::Result<Held> {
        let (current, next) = kernel::in_use(socket)?;
        let verified = kernel::verified(socket)?;
        let verified: BTreeMap<KeyIds, u64> =
            verified.into_iter().map(|key| (key.ids, key.segments)).collect();
        let count = |of: &BTreeMap<KeyIds, u64>, key: &TcpAoKey| of.get(&key.ids()).copied().unwrap_or(0);
        let heard = |key: &TcpAoKey| count(&verified, key) > count(&self.verified, key);
        let keys = self.held.iter().map(|key| HeldKey { key: key.clone(), heard: heard(key) }).collect();
        self.verified = verified;
        Ok(Held { keys, current, next })
    }

    fn note(&mut self, operation: Operation, next: &mut u8) -> String {
        match operation {
            Operation::Add(key) => {
                let done = format!("added key {}", key.ids());
                self.held.push(key);
                done
            }
            Operation::Ask(key) => {
                *next = key.receive_id;
                format!("asked the peer for key {}", key.ids())
            }
            Operation::Delete(key) => {
                self.held.retain(|held| *held != key);
                self.verified.remove(&key.ids());
                format!("deleted key {}", key.ids())
            }
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}
