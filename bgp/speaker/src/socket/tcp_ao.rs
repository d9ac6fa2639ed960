//! TCP-AO (RFC 5925) by Linux's socket options, since 6.7: include/uapi/linux/tcp.h and net/ipv4/tcp_ao.c.
//!
//! Keys are added and deleted one by one, for segments from and to a prefix of peers. A connection has besides a
//! current key, which we sign with, and a next one, which we ask the peer to sign with; a listener has neither, and
//! gives its keys to what it accepts. The structures are written out with nothing between their fields, as the tests
//! compare with the kernel's own header.
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

use plainroute_bgp::Prefix;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use super::{option, set_option};
use crate::{
    Password,
    tcp_ao::{KeyIds, TcpAoAlgorithm, TcpAoKey, TcpAoKeys, roll::Operation},
};

const TCP_AO_ADD_KEY: libc::c_int = 38;
const TCP_AO_DEL_KEY: libc::c_int = 39;
const TCP_AO_INFO: libc::c_int = 40;
const TCP_AO_GET_KEYS: libc::c_int = 41;

/// The first bits of the structures' bit fields, which C counts from the low end where bytes are so ordered.
const fn bit(number: u32) -> u32 {
    if cfg!(target_endian = "big") { 1 << (31 - number) } else { 1 << number }
}

const fn short_bit(number: u32) -> u16 {
    if cfg!(target_endian = "big") { 1 << (15 - number) } else { 1 << number }
}

const SET_CURRENT: u32 = bit(0);
const SET_NEXT: u32 = bit(1);
/// Of [`DeleteKey`]: do not wait for those who are looking at the key; for listeners alone.
const ASYNCHRONOUS: u32 = bit(2);
/// Of [`Settings`]: an unsigned segment is dropped, wherever it comes from.
const REQUIRED: u32 = bit(2);
/// Of [`KeyEntry`].
const ALL_KEYS: u16 = short_bit(2);

/// `struct tcp_ao_add`.
#[repr(C, align(8))]
struct AddKey {
    address: SockAddrStorage,
    algorithm: [u8; 64],
    interface_index: i32,
    flags: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    mac_length: u8,
    key_flags: u8,
    key_length: u8,
    key: [u8; Password::MAX_LENGTH],
}

/// `struct tcp_ao_del`.
#[repr(C, align(8))]
struct DeleteKey {
    address: SockAddrStorage,
    interface_index: i32,
    flags: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    current: u8,
    next: u8,
    key_flags: u8,
}

/// `struct tcp_ao_info_opt`.
#[derive(Default)]
#[repr(C, align(8))]
struct Settings {
    flags: u32,
    reserved: u16,
    current: u8,
    next: u8,
    good: u64,
    bad: u64,
    key_not_found: u64,
    required: u64,
    dropped_icmp: u64,
}

/// `struct tcp_ao_getsockopt`.
#[repr(C, align(8))]
struct KeyEntry {
    address: SockAddrStorage,
    algorithm: [u8; 64],
    key: [u8; Password::MAX_LENGTH],
    count: u32,
    flags: u16,
    send_id: u8,
    receive_id: u8,
    prefix_length: u8,
    mac_length: u8,
    key_flags: u8,
    key_length: u8,
    interface_index: i32,
    good: u64,
    bad: u64,
}

const _: () = assert!(size_of::<AddKey>() == 288 && align_of::<AddKey>() == 8);
const _: () = assert!(size_of::<DeleteKey>() == 144 && align_of::<DeleteKey>() == 8);
const _: () = assert!(size_of::<Settings>() == 48 && align_of::<Settings>() == 8);
const _: () = assert!(size_of::<KeyEntry>() == 304 && align_of::<KeyEntry>() == 8);

/// Whom a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peers {
    address: IpAddr,
    prefix_length: u8,
}

impl Peers {
    /// One peer alone.
    pub(crate) fn one(address: IpAddr) -> Peers {
        Peers { address, prefix_length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// All of a prefix.
    pub(crate) fn within(prefix: Prefix) -> Peers {
        Peers { address: prefix.address(), prefix_length: prefix.length() }
    }

    pub(crate) fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    pub(super) fn prefix_length(self) -> u8 {
        self.prefix_length
    }

    pub(super) fn address(self) -> SockAddrStorage {
        SockAddr::from(SocketAddr::new(self.address, 0)).as_storage()
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.is_ipv4() { 32 } else { 128 };
        if self.prefix_length == host {
            return self.address.fmt(f);
        }
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

/// What a new key is besides on a connection. A listener's key is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of several.
    Other,
    /// The one that we begin with and ask for.
    CurrentAndNext,
}

/// Takes one more key.
pub(crate) fn add_key(socket: BorrowedFd<'_>, peers: Peers, key: &TcpAoKey, role: Role) -> io::Result<()> {
    let secret = key.secret.octets();
    let mut octets = [0; Password::MAX_LENGTH];
    octets[..secret.len()].copy_from_slice(secret);
    let name = key.algorithm.name().as_bytes();
    let mut algorithm = [0; 64];
    algorithm[..name.len()].copy_from_slice(name);
    let add = AddKey {
        address: peers.address(),
        algorithm,
        interface_index: 0,
        flags: match role {
            Role::Other => 0,
            Role::CurrentAndNext => SET_CURRENT | SET_NEXT,
        },
        reserved: 0,
        prefix_length: peers.prefix_length,
        send_id: key.send_id,
        receive_id: key.receive_id,
        mac_length: key.algorithm.mac_length(),
        key_flags: 0,
        // `Password` is 80 octets at most.
        key_length: secret.len() as u8,
        key: octets,
    };
    set_option(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &add)
}

/// Drops a key. The kernel refuses that of a connection's current or next one.
pub(crate) fn delete_key(socket: BorrowedFd<'_>, peers: Peers, ids: KeyIds, listens: bool) -> io::Result<()> {
    let delete = DeleteKey {
        address: peers.address(),
        interface_index: 0,
        flags: if listens { ASYNCHRONOUS } else { 0 },
        reserved: 0,
        prefix_length: peers.prefix_length,
        send_id: ids.send,
        receive_id: ids.receive,
        current: 0,
        next: 0,
        key_flags: 0,
    };
    set_option(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &delete)
}

/// Refuses whatever is unsigned, besides asking the peer for a key of the connection, if there is one to ask for.
pub(crate) fn require(socket: BorrowedFd<'_>, ask_for: Option<&TcpAoKey>) -> io::Result<()> {
    // One call sets all of it: what is left out here would be switched off.
    let settings = Settings {
        flags: REQUIRED | ask_for.map_or(0, |_| SET_NEXT),
        next: ask_for.map_or(0, |key| key.receive_id),
        ..Settings::default()
    };
    set_option(socket, libc::IPPROTO_TCP, TCP_AO_INFO, &settings)
}

/// Gives a socket that is yet to be connected all keys of the peer, and has it begin with the one at that place. Both
/// directions do: a peer that does not know what it is asked for would not answer the SYN at all.
pub(super) fn prepare(
    socket: BorrowedFd<'_>,
    peer: IpAddr,
    keys: &TcpAoKeys,
    begin_with: usize,
) -> io::Result<()> {
    let first = begin_with % keys.as_slice().len();
    for (place, key) in keys.iter().enumerate() {
        let role = if place == first { Role::CurrentAndNext } else { Role::Other };
        add_key(socket, Peers::one(peer), key, role)?;
    }
    require(socket, None)
}

/// Does to a connection what a roll asks for.
pub(crate) fn carry_out(socket: BorrowedFd<'_>, peer: IpAddr, operation: &Operation) -> io::Result<()> {
    match operation {
        Operation::Add(key) => add_key(socket, Peers::one(peer), key, Role::Other),
        Operation::Ask(key) => require(socket, Some(key)),
        Operation::Delete(key) => delete_key(socket, Peers::one(peer), key.ids(), false),
    }
}

/// How many segments of the peer a key has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) ids: KeyIds,
    pub(crate) segments: u64,
}

/// The current and the next key of a connection, by send ID and by receive ID. An error where it is not signed.
pub(crate) fn in_use(socket: BorrowedFd<'_>) -> io::Result<(u8, u8)> {
    let mut settings = [Settings::default()];
    option(socket, libc::IPPROTO_TCP, TCP_AO_INFO, &mut settings)?;
    let [Settings { flags, current, next, .. }] = settings;
    if flags & SET_CURRENT == 0 || flags & SET_NEXT == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the connection has no TCP-AO key in use"));
    }
    Ok((current, next))
}

/// What each key of a connection has verified.
pub(crate) fn verified(socket: BorrowedFd<'_>) -> io::Result<Vec<Verified>> {
    // A key's IDs are its own on a connection, so there are 256 at most; few have more than two.
    let mut room = 8;
    loop {
        let mut entries: Vec<KeyEntry> = (0..room).map(|_| KeyEntry::empty()).collect();
        entries[0].flags = ALL_KEYS;
        entries[0].count = room;
        option(socket, libc::IPPROTO_TCP, TCP_AO_GET_KEYS, &mut entries)?;
        let count = entries[0].count;
        if count > room {
            room = count;
            continue;
        }
        let of = |entry: &KeyEntry| Verified {
            ids: KeyIds { send: entry.send_id, receive: entry.receive_id },
            segments: entry.good,
        };
        return Ok(entries[..count as usize].iter().map(of).collect());
    }
}

impl KeyEntry {
    fn empty() -> KeyEntry {
        KeyEntry {
            address: SockAddrStorage::zeroed(),
            algorithm: [0; 64],
            key: [0; Password::MAX_LENGTH],
            count: 0,
            flags: 0,
            send_id: 0,
            receive_id: 0,
            prefix_length: 0,
            mac_length: 0,
            key_flags: 0,
            key_length: 0,
            interface_index: 0,
            good: 0,
            bad: 0,
        }
    }
}

/// Tries a key of this algorithm on a socket that goes nowhere; an error says what the kernel lacks.
pub(crate) fn probe(algorithm: TcpAoAlgorithm) -> Result<(), String> {
    let nobody = Peers::one(IpAddr::from([192, 0, 2, 1]));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    let added = socket.and_then(|socket| add_key(socket.as_fd(), nobody, &sample(algorithm), Role::Other));
    added.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => {
            "TCP-AO is not in this kernel (needs Linux 6.7 with CONFIG_TCP_AO)".to_owned()
        }
        Some(libc::ENOENT) => format!("this kernel does not know {algorithm} for TCP-AO"),
        _ => format!("this kernel refuses {algorithm} for TCP-AO: {error}"),
    })
}

fn sample(algorithm: TcpAoAlgorithm) -> TcpAoKey {
    let secret = Password::new(b"probe").expect("five octets are a password");
    TcpAoKey { send_id: 1, receive_id: 1, algorithm, secret }
}

#[cfg(test)]
mod tests;
