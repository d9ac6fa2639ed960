//! One TCP connection of a peer: its stream, what was read of it and what waits to be written.
//!
//! Owned by the peer's task; nothing here awaits but [`linger`], so no future holds bytes that cancelling it could
//! lose. `output` is what TCP has not taken yet: while it is long, nobody packs more UPDATEs.
use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::tcp_ao::connection::ConnectionKeys;

/// So much is read at a time, so that one busy peer does not keep its task from timers and commands.
const READ_AT_ONCE: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    /// The TCP-AO keys on it, where there are any.
    pub(crate) keys: ConnectionKeys,
}

/// What a connection is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, keys: ConnectionKeys) -> Connection {
        Connection { stream, input: BytesMut::new(), output: BytesMut::new(), keys }
    }

    /// Whether there is something to read, or room to write what waits.
    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Ready> {
        // An error shows up again when the stream is read, so here it is readiness.
        let read = self.stream.poll_read_ready(context).is_ready();
        let write = !self.output.is_empty() && self.stream.poll_write_ready(context).is_ready();
        if read || write { Poll::Ready(Ready { read, write }) } else { Poll::Pending }
    }

    /// Reads what is there; false at the end of the stream.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        let mut taken = 0;
        while taken < READ_AT_ONCE {
            self.input.reserve(4096);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => return Ok(false),
                Ok(length) => taken += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes what TCP takes; true where that was anything.
    pub(crate) fn write(&mut self) -> io::Result<bool> {
        let mut progress = false;
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    self.output.advance(length);
                    progress = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(progress)
    }
}

/// Sees a closed connection off: the last bytes leave, then the end, and what the peer still sends is read, since
/// closing over unread bytes makes TCP reset the connection and lose our NOTIFICATION. Two seconds at most.
pub(crate) async fn linger(connection: Connection) {
    let Connection { mut stream, output, .. } = connection;
    let farewell = async {
        stream.write_all(&output).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // A peer that is gone or does not read gets no more than this; the connection closes either way.
    let _ = timeout(Duration::from_secs(2), farewell).await;
}
