//! A socket on which every request is answered.
use std::{io, time::Duration};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBufForce, SndBufForce},
};
use tokio::time::timeout;

use super::wire::{Frame, Head, Writer, frames};

/// The kernel's dumps come in datagrams of up to 32 KiB.
pub(super) const DATAGRAM: usize = 64 << 10;
const RECEIVE_BUFFER: usize = 4 << 20;
/// What the kernel keeps beside a datagram's bytes, and a floor for short ones.
const SEND_ROOM: usize = 64 << 10;
/// The kernel answers when the transaction is made, and a large one takes a while on a busy node.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

pub(super) struct Socket {
    socket: TokioSocket,
    pub(super) port: u32,
    sequence: u32,
    received: Vec<u8>,
}

impl Socket {
    pub(super) fn open() -> io::Result<Socket> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        let port = socket.socket_mut().bind_auto()?.port_number();
        let plain = socket.socket_ref();
        plain.set_ext_ack(true)?;
        plain.set_cap_ack(true)?;
        enlarge(&socket, RECEIVE_BUFFER);
        Ok(Socket { socket, port, sequence: 0, received: Vec::with_capacity(DATAGRAM) })
    }

    pub(super) fn next_sequence(&mut self) -> u32 {
        self.skip(1);
        self.sequence
    }

    pub(super) fn skip(&mut self, count: u32) {
        self.sequence = self.sequence.wrapping_add(count);
    }

    /// Sends a datagram of any length: what is longer than the kernel's buffer is refused with EMSGSIZE.
    pub(super) async fn send(&self, request: &[u8]) -> io::Result<()> {
        let room = request.len() + SEND_ROOM;
        if let Err(error) = setsockopt(self.socket.socket_ref(), SndBufForce, &room) {
            tracing::debug!("netlink send buffer stays at its default: {error}");
        }
        self.socket.send_to(request, &SocketAddr::new(0, 0)).await.map(drop)
    }

    pub(super) async fn receive(&mut self) -> io::Result<()> {
        self.received.clear();
        self.received.reserve(DATAGRAM);
        timeout(ANSWER_DEADLINE, self.socket.recv(&mut self.received)).await?
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        frames(&self.received)
    }

    /// Asks, and takes each answer of a kind with its family and attributes.
    pub(super) async fn ask(
        &mut self,
        head: Head,
        body: impl FnOnce(&mut Writer),
        answer: u16,
        mut each: impl FnMut(u8, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let sequence = self.next_sequence();
        let mut writer = Writer::default();
        writer.message(Head { sequence, ..head }, body);
        self.send(writer.bytes()).await?;
        let mut torn = false;
        loop {
            self.receive().await?;
            for frame in frames(&self.received).filter(|frame| frame.sequence == sequence) {
                torn |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match code(frame.payload) {
                            0 if torn => Err(interrupted()),
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    kind if kind == answer => {
                        if let Some((family, attributes)) = frame.netfilter() {
                            each(family, attributes)?;
                        }
                        if head.flags & NLM_F_DUMP != NLM_F_DUMP {
                            return Ok(());
                        }
                    }
                    other => tracing::debug!("unexpected netlink message of type {other} in an answer"),
                }
            }
        }
    }
}

/// The code of an NLMSG_ERROR or NLMSG_DONE: 0 or a negative errno.
pub(super) fn code(payload: &[u8]) -> i32 {
    payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code))
}

pub(super) fn interrupted() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the table changes faster than it can be read")
}

/// Beyond the system's limit where allowed; without the right the limit holds, and lost events are noticed anyway.
pub(super) fn enlarge(socket: &TokioSocket, size: usize) {
    if let Err(error) = setsockopt(socket.socket_ref(), RcvBufForce, &size) {
        tracing::debug!("netlink receive buffer stays at its default: {error}");
    }
}
