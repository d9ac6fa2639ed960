//! Every socket option that BGP needs, and the only `unsafe` code of the project.
//!
//! Some options have no safe wrapper: the TCP MD5 key (RFC 2385), the keys of TCP-AO (RFC 5925, in `tcp_ao`) and the
//! smallest TTL that is taken (GTSM, RFC 5082). Each is one `setsockopt` or `getsockopt` with a value of ours whose
//! size is told by its type; see [`set_option`] and [`option`]. Options are set before a connection is opened or a
//! listener listens, so that no packet goes without them.
#![expect(unsafe_code, reason = "setsockopt and getsockopt with options that no crate wraps")]
pub(crate) mod tcp_ao;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use self::tcp_ao::Peers;
use crate::{Password, PeerConfig, config::is_link_local};

/// CS6, the class of network control (RFC 4594 section 3.1).
const NETWORK_CONTROL: u32 = 0xc0;
const BACKLOG: i32 = 32;

/// A socket from which the peer can be connected to. Of several TCP-AO keys it begins with the one at that place.
pub(crate) fn connecting(config: &PeerConfig, begin_with: usize) -> io::Result<(TcpSocket, SocketAddr)> {
    let scope = config.interface.as_deref().filter(|_| is_link_local(config.peer_address));
    let scope = scope.map(interface_index).transpose()?.unwrap_or(0);
    let remote = socket_address(config.peer_address, config.peer_port, scope);
    let socket = new_socket(remote)?;
    // Before binding: the address may be one of the interface only.
    if let Some(interface) = &config.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(local) = config.local_address {
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(socket_address(local, 0, scope)))?;
    }
    set_hops(&socket, config)?;
    set_class(&socket, remote)?;
    socket.set_tcp_nodelay(true)?;
    if config.password.is_some() {
        set_password(socket.as_fd(), Peers::one(config.peer_address), config.password.as_ref())?;
    }
    if let Some(keys) = &config.tcp_ao {
        tcp_ao::prepare(socket.as_fd(), config.peer_address, keys, begin_with)?;
    }
    Ok((TcpSocket::from_std_stream(socket.into()), remote))
}

/// Gives a connection that the peer opened what one that we opened would have. One that is not signed although it
/// should be is an error; the kernel would not have let it in, unless it came before the keys.
pub(crate) fn adopt(stream: &TcpStream, config: &PeerConfig) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    set_hops(&socket, config)?;
    set_class(&socket, stream.peer_addr()?)?;
    socket.set_tcp_nodelay(true)?;
    if config.tcp_ao.is_some() {
        tcp_ao::in_use(stream.as_fd())?;
        tcp_ao::require(stream.as_fd(), None)?;
    }
    Ok(())
}

/// A socket that waits on a port of every address of one family, not listening yet: the keys come first.
pub(crate) fn bound(any: IpAddr, port: u16) -> io::Result<Socket> {
    let address = SocketAddr::new(any, port);
    let socket = new_socket(address)?;
    socket.set_reuse_address(true)?;
    // What answers a SYN takes its TTL from here; a peer with GTSM wants the most (RFC 5082 section 3).
    match any {
        IpAddr::V4(_) => socket.set_ttl_v4(255)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(255)?;
        }
    }
    set_class(&socket, address)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Begins to listen.
pub(crate) fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn socket_address(address: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, port),
        IpAddr::V6(address) => SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope)),
    }
}

pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(name)
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("interface {name}: {error}")))
}

/// The name of an interface.
pub(crate) fn interface_name(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index).ok()?.into_string().ok()
}

/// How far packets go, and from how far they are taken.
fn set_hops(socket: &Socket, config: &PeerConfig) -> io::Result<()> {
    let ttl = match config.ttl_security {
        // RFC 5082 section 3: sent with the most, so that the peer can tell how far they came.
        Some(_) => Some(255),
        None if config.internal() => None,
        None => Some(u32::from(config.ebgp_multihop)),
    };
    let v4 = config.peer_address.is_ipv4();
    match ttl {
        Some(ttl) if v4 => socket.set_ttl_v4(ttl)?,
        Some(ttl) => socket.set_unicast_hops_v6(ttl)?,
        None => {}
    }
    set_ttl_floor(socket.as_fd(), v4, config.ttl_security)
}

/// Takes packets from at most so many hops away, or from anywhere. A connection has its listener's floor first.
pub(crate) fn set_ttl_floor(socket: BorrowedFd<'_>, v4: bool, hops: Option<u8>) -> io::Result<()> {
    // From one hop away 255 is still 255 when it arrives; 0 is no floor.
    let least: libc::c_int = hops.map_or(0, |hops| 256 - libc::c_int::from(hops));
    if v4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least)
    }
}

pub(crate) fn set_class(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_tos_v4(NETWORK_CONTROL),
        SocketAddr::V6(_) => socket.set_tclass_v6(NETWORK_CONTROL),
    }
}

/// `struct tcp_md5sig` of linux/tcp.h. Not libc's: that one is absent for some of its targets.
#[repr(C)]
struct TcpMd5Signature {
    address: SockAddrStorage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface_index: i32,
    key: [u8; Password::MAX_LENGTH],
}

const _: () = assert!(size_of::<TcpMd5Signature>() == 216);

/// `TCP_MD5SIG_EXT`, `TCP_MD5SIG_FLAG_PREFIX` of linux/tcp.h, since 4.13.
const TCP_MD5SIG_EXT: libc::c_int = 32;
const FOR_PREFIX: u8 = 1;

/// Sets the key for segments from and to `peers`, or removes it. On a listener it binds those alone; of several that
/// hold for an address the kernel takes the one of the longest prefix. They must be of the socket's own family.
pub(crate) fn set_password(
    socket: BorrowedFd<'_>,
    peers: Peers,
    password: Option<&Password>,
) -> io::Result<()> {
    let octets = password.map_or(&[][..], Password::octets);
    let mut key = [0; Password::MAX_LENGTH];
    key[..octets.len()].copy_from_slice(octets);
    let signature = TcpMd5Signature {
        address: peers.address(),
        flags: FOR_PREFIX,
        prefix_length: peers.prefix_length(),
        // `Password` is 80 octets at most.
        key_length: octets.len() as u16,
        interface_index: 0,
        key,
    };
    set_option(socket, libc::IPPROTO_TCP, TCP_MD5SIG_EXT, &signature)
}

/// Calls `setsockopt` with the octets of `value`.
fn set_option<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, so it is open for the length of the call. The pointer and the length are
    // those of one live `T`, which the kernel only reads. `T` is `c_int`, the `repr(C)` struct above, whose fields
    // fill it without padding, 128 + 1 + 1 + 2 + 4 + 80 = 216 octets, as asserted; or one of those of `tcp_ao`, of
    // which a test shows the same.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls `getsockopt`, which reads `values` and writes its answer over them. The kernel is told the size of one; how
/// many there are to write, the option says by its own means.
fn option<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    values: &mut [T],
) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open as above. The pointer is that of live values, and the kernel writes no more than
    // is there: one `T` for TCP_AO_INFO, and for TCP_AO_GET_KEYS as many as the first one's `count` says, which
    // `tcp_ao::verified` sets to the number of values. The `T`s are of integers alone, so any octets are valid.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, values.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Every address of the family.
pub(crate) const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
