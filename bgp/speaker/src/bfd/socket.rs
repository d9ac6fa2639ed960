//! The UDP sockets: one to receive on for each port and family, one to send from for each session (RFC 5881
//! section 4). Reading allocates nothing: its buffers are kept.
use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::AsRawFd,
    time::{Duration, Instant, SystemTime},
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{Ipv4PacketInfo, Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvPacketInfo, ReceiveTimestampns},
};
use plainroute_bfd::{Datagram, HOP_LIMIT, Hops, SOURCE_PORTS};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::target::Route;
use crate::{config::is_link_local, socket::set_class};

/// Longer than any packet can be, whose Length is one octet.
const LONGEST: usize = 512;
/// Each session has a port; this many are tried before we give up.
const PORT_ATTEMPTS: u16 = 64;

/// What packets of one port and family come in by.
pub(super) struct Receiver {
    socket: UdpSocket,
    hops: Hops,
    buffer: Box<[u8; LONGEST]>,
    control: Vec<u8>,
    /// When it was last found empty: nothing that is read now can have come before that.
    empty_at: Instant,
}

impl Receiver {
    pub(super) fn bind(hops: Hops, v4: bool) -> io::Result<Receiver> {
        let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let address = SocketAddr::new(any, hops.port());
        let socket = datagram_socket(address)?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        if v4 {
            setsockopt(&socket, Ipv4RecvTtl, &true)?;
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        } else {
            socket.set_only_v6(true)?;
            setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        Ok(Receiver {
            socket: UdpSocket::from_std(socket.into())?,
            hops,
            buffer: Box::new([0; LONGEST]),
            control: nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::timespec, nix::libc::c_int),
            empty_at: Instant::now(),
        })
    }

    /// Ready once something may be there to read.
    pub(super) fn poll_ready(&self, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.socket.poll_recv_ready(context).map(|_| ())
    }

    /// Reads one datagram and has it taken, with the moment at which it arrived; false where there is none. Whether
    /// anybody has been told that the socket is readable does not matter.
    pub(super) fn read(&mut self, now: Instant, take: impl FnOnce(Instant, &Datagram<'_>)) -> bool {
        let Receiver { socket, hops, buffer, control, empty_at } = self;
        let mut parts = [IoSliceMut::new(&mut buffer[..])];
        let descriptor = socket.as_raw_fd();
        let mut receive = || {
            let message =
                recvmsg::<SockaddrStorage>(descriptor, &mut parts, Some(control), MsgFlags::empty())?;
            Ok((message.bytes, Envelope::read(&message)))
        };
        // The first forgets that the socket is ready where it is not; the second reads what came unannounced.
        let received = match socket.try_io(Interest::READABLE, &mut receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => receive(),
            other => other,
        };
        let (length, envelope) = match received {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                *empty_at = now;
                return false;
            }
            // An ICMP error, or a signal: the next read goes on.
            Err(_) => return true,
        };
        if let Some(Envelope { source, destination, interface, hop_limit, age }) = envelope {
            let arrived = now.checked_sub(age).map_or(*empty_at, |arrived| arrived.max(*empty_at));
            let payload = buffer.get(..length).unwrap_or_default();
            take(arrived, &Datagram { hops: *hops, source, destination, interface, hop_limit, payload });
        }
        true
    }
}

/// What the kernel says of a datagram.
struct Envelope {
    source: IpAddr,
    destination: IpAddr,
    interface: u32,
    hop_limit: u8,
    age: Duration,
}

impl Envelope {
    /// None where something is not said, which the socket's options rule out.
    fn read(message: &nix::sys::socket::RecvMsg<'_, '_, SockaddrStorage>) -> Option<Envelope> {
        let address = message.address?;
        let source = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (None, Some(v6)) => IpAddr::V6(v6.ip()),
            (None, None) => return None,
        };
        let (mut target, mut hop_limit, mut age) = (None, None, Duration::ZERO);
        for part in message.cmsgs().ok()? {
            match part {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let destination = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    target = Some((IpAddr::V4(destination), u32::try_from(info.ipi_ifindex).ok()?));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    target = Some((Ipv6Addr::from(info.ipi6_addr.s6_addr).into(), info.ipi6_ifindex));
                }
                ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                    hop_limit = u8::try_from(ttl).ok();
                }
                ControlMessageOwned::ScmTimestampns(stamp) => {
                    let arrived = SystemTime::UNIX_EPOCH + Duration::from(stamp);
                    // A clock that was set back meanwhile: as if it had come now.
                    age = SystemTime::now().duration_since(arrived).unwrap_or_default();
                }
                _ => {}
            }
        }
        let (destination, interface) = target?;
        Some(Envelope { source, destination, interface, hop_limit: hop_limit?, age })
    }
}

/// What one session sends from.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    destination: SockAddr,
}

impl Sender {
    /// `draw` chooses among the source ports.
    pub(super) fn bind(route: &Route, draw: u64) -> io::Result<Sender> {
        let remote = route.path.remote();
        let scope = match (&route.path, is_link_local(remote)) {
            (plainroute_bfd::Path::SingleHop { interface, .. }, true) => interface.get(),
            _ => 0,
        };
        let with_scope = |address: IpAddr, port| match address {
            IpAddr::V4(_) => SocketAddr::new(address, port),
            IpAddr::V6(v6) => {
                let scope = if is_link_local(address) { scope } else { 0 };
                SocketAddr::V6(SocketAddrV6::new(v6, port, 0, scope))
            }
        };
        let destination = with_scope(remote, route.path.hops().port());
        let socket = datagram_socket(destination)?;
        match remote {
            IpAddr::V4(_) => socket.set_ttl_v4(u32::from(HOP_LIMIT))?,
            IpAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_unicast_hops_v6(u32::from(HOP_LIMIT))?;
            }
        }
        set_class(&socket, destination)?;
        if let Some(device) = &route.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        let any = match remote {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let (first, last) = (*SOURCE_PORTS.start(), *SOURCE_PORTS.end());
        let ports = u64::from(last - first) + 1;
        let mut attempt = 0;
        loop {
            let port = first + (draw.wrapping_add(u64::from(attempt)) % ports) as u16;
            match socket.bind(&SockAddr::from(with_scope(route.local.unwrap_or(any), port))) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < PORT_ATTEMPTS => {
                    attempt += 1
                }
                bound => break bound?,
            }
        }
        Ok(Sender { socket, destination: SockAddr::from(destination) })
    }

    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.socket.send_to(packet, &self.destination).map(drop)
    }
}

fn datagram_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
