//! The listener task: one for each TCP port.
//!
//! Owns: the sockets of the port, one for each IP version, and the TCP MD5 and TCP-AO keys and the TTL floor set on
//! them.
//! Inputs: connections; the table of who may connect (`watch`).
//! Outputs: accepted connections to the peers' tasks, or to the registry where they come from within a range (bounded
//! channels; a full one refuses the connection).
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

use plainroute_bgp::Prefix;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tracing::{info, warn};

use crate::{
    PeerName,
    config::{Source, is_link_local},
    signature::{OnListener, Signature},
    socket::{self, tcp_ao::Peers},
    tcp_ao::TcpAoKey,
};

/// A peer that may connect, or a range from within which peers may.
#[derive(Debug)]
pub(crate) struct Caller<T> {
    pub(crate) peer: PeerName,
    pub(crate) signature: Option<Signature>,
    pub(crate) ttl_security: Option<u8>,
    pub(crate) connections: mpsc::Sender<T>,
}

/// A connection from within a range.
#[derive(Debug)]
pub(crate) struct Knock {
    /// The name of the range's configuration.
    pub(crate) range: PeerName,
    pub(crate) address: IpAddr,
    pub(crate) accepted: Accepted,
}

/// A connection that a peer opened.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    /// How it had to be signed to come in; by the time that it is taken up, that may have changed.
    pub(crate) signature: Option<Signature>,
    /// The TCP-AO keys that it has of the listener.
    pub(crate) keys: Vec<TcpAoKey>,
}

/// Who may connect to a port.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    pub(crate) peers: BTreeMap<Source, Caller<Accepted>>,
    pub(crate) ranges: BTreeMap<Prefix, Caller<Knock>>,
}

impl Callers {
    /// Of the ranges that hold an address the longest. A link-local one is in none, as it says nothing by itself.
    fn range(&self, source: &Source) -> Option<(Prefix, &Caller<Knock>)> {
        let within = |(prefix, _): &(&Prefix, &Caller<Knock>)| prefix.contains_address(source.address);
        let ranges = self.ranges.iter().filter(|_| !is_link_local(source.address)).filter(within);
        ranges.max_by_key(|(prefix, _)| prefix.length()).map(|(prefix, caller)| (*prefix, caller))
    }

    fn signatures(&self) -> BTreeMap<Peers, Signature> {
        let peers = self.peers.iter().map(|(source, caller)| (Peers::one(source.address), &caller.signature));
        let ranges = self.ranges.iter().map(|(range, caller)| (Peers::within(*range), &caller.signature));
        peers.chain(ranges).filter_map(|(peers, signature)| Some((peers, signature.clone()?))).collect()
    }

    /// From how far callers of a family may come at most; none where some may from anywhere.
    fn hops(&self, v4: bool) -> Option<u8> {
        let peers = self.peers.iter().map(|(source, caller)| (source.address.is_ipv4(), caller.ttl_security));
        let ranges =
            self.ranges.iter().map(|(range, caller)| (range.address().is_ipv4(), caller.ttl_security));
        let of_family = peers.chain(ranges).filter(|(is_v4, _)| *is_v4 == v4).map(|(_, hops)| hops);
        of_family.reduce(|a, b| Some(a?.max(b?))).flatten()
    }
}

/// The sockets of a port and the keys that are set on them.
#[derive(Debug)]
pub(crate) struct Listener {
    port: u16,
    sockets: Vec<TcpListener>,
    signatures: BTreeMap<Peers, OnListener>,
}

impl Listener {
    /// Listens on a port, with the keys in place before the first SYN can come.
    pub(crate) fn bind(port: u16, wanted: BTreeMap<Peers, Signature>) -> io::Result<Listener> {
        let (mut sockets, mut signatures) = (Vec::new(), BTreeMap::new());
        for any in socket::ANY {
            let socket = match socket::bound(any, port) {
                Ok(socket) => socket,
                // A kernel without IPv6 is no reason not to listen on IPv4.
                Err(error) if any.is_ipv6() && no_such_family(&error) => continue,
                Err(error) => return Err(error),
            };
            for (peer, signature) in wanted.iter().filter(|(peers, _)| peers.is_ipv4() == any.is_ipv4()) {
                let held: &mut OnListener = signatures.entry(*peer).or_default();
                held.set(socket.as_fd(), *peer, Some(signature))?;
            }
            sockets.push(socket::listen(socket)?);
        }
        Ok(Listener { port, sockets, signatures })
    }

    /// Accepts until `callers` has no sender any more.
    pub(crate) async fn run(mut self, mut callers: watch::Receiver<Arc<Callers>>) {
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
        if let Some(caller) = callers.peers.get(&source) {
            self.let_in(caller, Peers::one(source.address), stream, |accepted| accepted);
        } else if let Some((range, caller)) = callers.range(&source) {
            let (name, address) = (caller.peer.clone(), source.address);
            let knock = |accepted| Knock { range: name, address, accepted };
            self.let_in(caller, Peers::within(range), stream, knock);
        } else {
            info!(port = self.port, %source, "refused a connection: no peer has this address");
        }
    }

    fn let_in<T>(
        &self,
        caller: &Caller<T>,
        peers: Peers,
        stream: TcpStream,
        message: impl FnOnce(Accepted) -> T,
    ) {
        let nothing = OnListener::Nothing;
        let held = self.signatures.get(&peers).unwrap_or(&nothing);
        if caller.signature.is_some() && !held.is(caller.signature.as_ref()) {
            warn!(peer = %caller.peer, "refused a connection: its keys are not set on the listener");
            return;
        }
        let signature = caller.signature.clone();
        let accepted = Accepted { stream, signature, keys: held.keys().to_vec() };
        if caller.connections.try_send(message(accepted)).is_err() {
            info!(peer = %caller.peer, "refused a connection: more than the peer's task takes");
        }
    }

    fn set_signatures(&mut self, callers: &Callers) {
        let wanted = callers.signatures();
        let peers: Vec<Peers> = self.signatures.keys().chain(wanted.keys()).copied().collect();
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
            self.empty_queue(socket);
        }
    }

    /// Closes what waits to be accepted. The kernel is asked itself: tokio may not have heard of it yet.
    fn empty_queue(&self, socket: &TcpListener) {
        let socket = socket2::SockRef::from(socket);
        loop {
            match socket.accept() {
                Ok((_, remote)) => {
                    let remote = remote.as_socket().map(|remote| remote.ip());
                    info!(port = self.port, ?remote, "refused a connection: keys have just changed");
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // That one is gone; there may be others.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        return warn!(port = self.port, %error, "cannot look for connections older than the keys");
                    }
                },
            }
        }
    }

    /// Where every caller has TTL security, not even the SYN of a more distant host is taken.
    fn set_ttl_floor(&self, callers: &Callers) {
        for socket in &self.sockets {
            let v4 = socket.local_addr().is_ok_and(|local| local.is_ipv4());
            if let Err(error) = socket::set_ttl_floor(socket.as_fd(), v4, callers.hops(v4)) {
                warn!(port = self.port, %error, "cannot set TTL security on the listener; on connections it is");
            }
        }
    }
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
