//! The listener task: one for each TCP port.
//!
//! Owns: the sockets of the port, one for each IP version, and the TCP MD5 and TCP-AO keys and the TTL floor set on
//! them.
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

use crate::{
    PeerName,
    config::{Source, is_link_local},
    signature::{OnListener, Signature},
    socket,
    tcp_ao::TcpAoKey,
};

/// A peer that may connect.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: PeerName,
    pub(crate) signature: Option<Signature>,
    pub(crate) ttl_security: Option<u8>,
    pub(crate) connections: mpsc::Sender<Accepted>,
}

/// A connection that a peer opened.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    /// The TCP-AO keys that it has of the listener.
    pub(crate) keys: Vec<TcpAoKey>,
}

/// Who may connect to a port.
pub(crate) type Callers = Arc<BTreeMap<Source, Caller>>;

/// The sockets of a port and the keys that are set on them.
#[derive(Debug)]
pub(crate) struct Listener {
    port: u16,
    sockets: Vec<TcpListener>,
    signatures: BTreeMap<IpAddr, OnListener>,
}

impl Listener {
    /// Listens on a port, with the keys in place before the first SYN can come.
    pub(crate) fn bind(port: u16, wanted: BTreeMap<IpAddr, Signature>) -> io::Result<Listener> {
        let (mut sockets, mut signatures) = (Vec::new(), BTreeMap::new());
        for any in socket::ANY {
            let socket = match socket::bound(any, port) {
                Ok(socket) => socket,
                // A kernel without IPv6 is no reason not to listen on IPv4.
                Err(error) if any.is_ipv6() && no_such_family(&error) => continue,
                Err(error) => return Err(error),
            };
            for (peer, signature) in wanted.iter().filter(|(peer, _)| peer.is_ipv4() == any.is_ipv4()) {
                let held: &mut OnListener = signatures.entry(*peer).or_default();
                held.set(socket.as_fd(), *peer, Some(signature))?;
            }
            sockets.push(socket::listen(socket)?);
        }
        Ok(Listener { port, sockets, signatures })
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
                    self.set_signatures(&callers);
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
        let nothing = OnListener::Nothing;
        let held = self.signatures.get(&source.address).unwrap_or(&nothing);
        if caller.signature.is_some() && !held.is(caller.signature.as_ref()) {
            warn!(peer = %caller.peer, "refused a connection: its keys are not set on the listener");
            return;
        }
        let accepted = Accepted { stream, keys: held.keys().to_vec() };
        if caller.connections.try_send(accepted).is_err() {
            info!(peer = %caller.peer, "refused a connection: more than the peer's task takes");
        }
    }

    fn set_signatures(&mut self, callers: &Callers) {
        let wanted = signatures(callers);
        let peers: Vec<IpAddr> = self.signatures.keys().chain(wanted.keys()).copied().collect();
        let mut changed = false;
        for peer in peers {
            let signature = wanted.get(&peer);
            let held = self.signatures.entry(peer).or_default();
            if held.is(signature) {
                continue;
            }
            changed = true;
            let of_family = |socket: &&TcpListener| {
                socket.local_addr().is_ok_and(|local| local.is_ipv4() == peer.is_ipv4())
            };
            for socket in self.sockets.iter().filter(of_family) {
                if let Err(error) = held.set(socket.as_fd(), peer, signature) {
                    warn!(port = self.port, %peer, %error, "cannot set the peer's keys as they should be");
                }
            }
        }
        self.signatures.retain(|_, held| *held != OnListener::Nothing);
        if !changed {
            return;
        }
        // What is in the queue came before the keys, so it may be unsigned.
        for socket in &self.sockets {
            let nobody = &mut std::task::Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Ok((_, remote))) = socket.poll_accept(nobody) {
                info!(port = self.port, %remote, "refused a connection: keys have just changed");
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
}

fn signatures(callers: &Callers) -> BTreeMap<IpAddr, Signature> {
    let signature = |(source, caller): (&Source, &Caller)| Some((source.address, caller.signature.clone()?));
    callers.iter().filter_map(signature).collect()
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
