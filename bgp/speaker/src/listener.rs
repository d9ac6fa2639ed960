//! The listener task: one for each TCP port.
//!
//! Owns: the sockets of the port, one for each IP version, and the TCP MD5 keys and the TTL floor set on them.
//! Inputs: connections; the table of who may connect (`watch`).
//! Outputs: accepted connections to the peers' tasks (bounded channels; a full one refuses the connection).
//! Cancelling: at any await; the sockets close and the kernel refuses connections to the port.
use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tracing::{info, warn};

use crate::{Password, PeerName, config::Source, config::is_link_local, socket};

/// A peer that may connect.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: PeerName,
    pub(crate) password: Option<Password>,
    pub(crate) ttl_security: Option<u8>,
    pub(crate) connections: mpsc::Sender<TcpStream>,
}

/// Who may connect to a port.
pub(crate) type Callers = Arc<BTreeMap<Source, Caller>>;

/// The sockets of a port and the passwords that are set on them.
#[derive(Debug)]
pub(crate) struct Listener {
    port: u16,
    sockets: Vec<TcpListener>,
    passwords: BTreeMap<IpAddr, Password>,
}

impl Listener {
    /// Listens on a port, with the passwords in place before the first SYN can come.
    pub(crate) fn bind(port: u16, passwords: BTreeMap<IpAddr, Password>) -> io::Result<Listener> {
        let mut sockets = Vec::new();
        for any in socket::ANY {
            let socket = match socket::bound(any, port) {
                Ok(socket) => socket,
                // A kernel without IPv6 is no reason not to listen on IPv4.
                Err(error) if any.is_ipv6() && no_such_family(&error) => continue,
                Err(error) => return Err(error),
            };
            for (peer, password) in passwords.iter().filter(|(peer, _)| peer.is_ipv4() == any.is_ipv4()) {
                socket::set_password(socket.as_fd(), *peer, Some(password))?;
            }
            sockets.push(socket::listen(socket)?);
        }
        Ok(Listener { port, sockets, passwords })
    }

    /// Accepts until `callers` has no sender any more.
    pub(crate) async fn run(mut self, mut callers: watch::Receiver<Callers>) {
        loop {
            tokio::select! {
                changed = callers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let callers = Arc::clone(&callers.borrow_and_update());
                    self.set_passwords(&callers);
                    self.set_ttl_floor(&callers);
                }
                accepted = accept(&self.sockets) => match accepted {
                    Ok((stream, remote)) => self.dispatch(stream, remote, &callers.borrow()),
                    Err(error) => {
                        // Out of descriptors, say: the connection waits in the kernel, and so do we for a while.
                        warn!(port = self.port, %error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    fn dispatch(&self, stream: TcpStream, remote: SocketAddr, callers: &Callers) {
        let source = source(remote);
        let Some(caller) = callers.get(&source) else {
            info!(port = self.port, %source, "refused a connection: no peer has this address");
            return;
        };
        if caller.password.is_some() && !self.passwords.contains_key(&source.address) {
            warn!(peer = %caller.peer, "refused a connection: its password is not set on the listener");
            return;
        }
        if caller.connections.try_send(stream).is_err() {
            info!(peer = %caller.peer, "refused a connection: more than the peer's task takes");
        }
    }

    fn set_passwords(&mut self, callers: &Callers) {
        let wanted = passwords(callers);
        if wanted == self.passwords {
            return;
        }
        let old = std::mem::take(&mut self.passwords);
        for (peer, password) in &wanted {
            match self.set_password(*peer, Some(password)) {
                Ok(()) => {
                    self.passwords.insert(*peer, password.clone());
                }
                Err(error) => warn!(port = self.port, %peer, %error, "cannot set the peer's password"),
            }
        }
        for peer in old.keys().filter(|peer| !wanted.contains_key(*peer)) {
            if let Err(error) = self.set_password(*peer, None) {
                warn!(port = self.port, %peer, %error, "cannot remove the peer's password");
            }
        }
        // What is in the queue came before the keys, so it may be unsigned.
        for socket in &self.sockets {
            let nobody = &mut std::task::Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Ok((_, remote))) = socket.poll_accept(nobody) {
                info!(port = self.port, %remote, "refused a connection: passwords have just changed");
            }
        }
    }

    /// Where every caller has TTL security, not even the SYN of a more distant host is taken.
    fn set_ttl_floor(&self, callers: &Callers) {
        for socket in &self.sockets {
            let v4 = socket.local_addr().is_ok_and(|local| local.is_ipv4());
            let of_family = callers.iter().filter(|(source, _)| source.address.is_ipv4() == v4);
            let hops =
                of_family.map(|(_, caller)| caller.ttl_security).reduce(|a, b| Some(a?.max(b?))).flatten();
            if let Err(error) = socket::set_ttl_floor(socket.as_fd(), v4, hops) {
                warn!(port = self.port, %error, "cannot set TTL security on the listener; on connections it is");
            }
        }
    }

    fn set_password(&self, peer: IpAddr, password: Option<&Password>) -> io::Result<()> {
        let of_family =
            |socket: &&TcpListener| socket.local_addr().is_ok_and(|local| local.is_ipv4() == peer.is_ipv4());
        self.sockets
            .iter()
            .filter(of_family)
            .try_for_each(|socket| socket::set_password(socket.as_fd(), peer, password))
    }
}

fn passwords(callers: &Callers) -> BTreeMap<IpAddr, Password> {
    let password = |(source, caller): (&Source, &Caller)| Some((source.address, caller.password.clone()?));
    callers.iter().filter_map(password).collect()
}

fn no_such_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Cancel-safe: a connection is either taken or still in the kernel's queue.
async fn accept(sockets: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        sockets.iter().map(|socket| socket.poll_accept(context)).find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

fn source(remote: SocketAddr) -> Source {
    let interface = match remote {
        SocketAddr::V6(v6) if is_link_local(remote.ip()) => socket::interface_name(v6.scope_id()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    };
    Source { address: remote.ip(), interface }
}
