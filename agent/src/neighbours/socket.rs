//! The raw ICMPv6 socket of one interface. The kernel computes and checks the checksums, and a filter in it lets only
//! what routers and those who look for them say through.
use std::{
    io::{self, IoSliceMut},
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
    task::{Context, Poll},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg},
};
use plainroute_ra::{ALL_NODES, ALL_ROUTERS, LinkLayerAddress};
use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

/// The longest packet that is read whole: an Ethernet frame's worth. A longer one is cut, so its options are malformed.
pub(super) const LONGEST: usize = 1500;

/// Classic BPF: the ICMPv6 type, the first octet, is a solicitation (133) or an advertisement (134).
const FILTER: [(u16, u8, u8, u32); 5] =
    [(0x30, 0, 0, 0), (0x15, 1, 0, 133), (0x15, 0, 1, 134), (0x06, 0, 0, u32::MAX), (0x06, 0, 0, 0)];

/// What came in.
pub(super) struct Received {
    pub(super) source: Ipv6Addr,
    pub(super) hop_limit: Option<u8>,
    pub(super) length: usize,
}

pub(super) struct RouterSocket {
    /// Raw, not UDP; what waits for it to be readable is the same, and needs no `unsafe`.
    socket: UdpSocket,
}

impl RouterSocket {
    pub(super) fn open(interface: &str, index: u32) -> io::Result<RouterSocket> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.attach_filter(&FILTER.map(|(code, yes, no, value)| SockFilter::new(code, yes, no, value)))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_recv_hoplimit_v6(true)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&ALL_NODES, index)?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        Ok(RouterSocket { socket: UdpSocket::from_std(socket.into())? })
    }

    /// Sends from the interface's link-local address, which is what the kernel takes for a group of that scope.
    pub(super) fn send(&self, payload: &[u8], group: Ipv6Addr, index: u32) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV6::new(group, 0, 0, index));
        SockRef::from(&self.socket).send_to(payload, &to).map(drop)
    }

    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        // An error shows up again when the socket is read, so here it is readiness.
        self.socket.poll_recv_ready(context).map(drop)
    }

    /// One packet; `WouldBlock` where there is none.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.socket.try_io(Interest::READABLE, || receive(&self.socket, buffer))
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = cmsg_space!(i32);
    let received =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let hop_limit = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6HopLimit(limit) => u8::try_from(limit).ok(),
        _ => None,
    });
    let source = received.address.ok_or(Errno::EBADMSG)?.ip();
    Ok(Received { source, hop_limit, length: received.bytes })
}

/// The interface's Ethernet address; none where it has another kind or cannot be read.
pub(super) fn link_layer_address(interface: &str) -> Option<LinkLayerAddress> {
    let mut entries = nix::ifaddrs::getifaddrs().ok()?.filter(|entry| entry.interface_name == interface);
    let address = entries.find_map(|entry| entry.address?.as_link_addr()?.addr())?;
    (address != [0; 6]).then_some(address)
}
