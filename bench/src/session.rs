//! The tool's end of a BGP session: a blocking socket, the OPEN exchange, and a count of what comes.
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::Moment;
use crate::scan::{Counts, Scanner};
use crate::site::{self, HOST, Site};
use crate::wire::{self, Family};

const BGP_PORT: u16 = 179;
/// How long a contestant may refuse a session after its start.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a contestant may take to read what it is sent.
const UNREAD: Duration = Duration::from_secs(90);

/// Whose KEEPALIVE comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// As BGP does: on the other's OPEN.
    First,
    /// Once the other's is there; so it is our own that makes the other end Established.
    Last,
}

/// An Established session.
pub(crate) struct Session {
    stream: TcpStream,
    scanner: Scanner,
    /// Right before our KEEPALIVE left, the other's being there already; so nothing can come before.
    pub(crate) established: Moment,
}

impl Session {
    /// Connects as a host of the tool, again and again until the contestant takes the session.
    pub(crate) fn connect(site: &Site, family: Family, host: u8) -> Result<Session> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let attempt = site
                .tool
                .within(|| dial(family, host))
                .and_then(|stream| Session::establish(stream, host, family, Turn::Last, &mut |_, _| {}));
            match attempt {
                Ok(session) => return Ok(session),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("no session within {PATIENCE:?}")));
                }
                // A contestant that is not ready yet refuses, or closes at once.
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The OPEN exchange on a connection, whoever made it; `seen` hears what comes along with it.
    pub(crate) fn establish(
        mut stream: TcpStream,
        host: u8,
        family: Family,
        turn: Turn,
        seen: crate::scan::Seen<'_>,
    ) -> Result<Session> {
        let patience = Duration::from_secs(5);
        stream.set_nodelay(true)?;
        stream.write_all(&wire::open(site::asn(host), site::router_id(host), family))?;
        let mut session = Session { stream, scanner: Scanner::new(), established: Moment::now() };
        session.receive_until("OPEN", patience, |counts| counts.opens > 0)?;
        if turn == Turn::First {
            session.stream.write_all(&wire::keepalive())?;
        }
        session.listen_until("KEEPALIVE", patience, seen, |counts| counts.keepalives > 0)?;
        session.established = Moment::now();
        if turn == Turn::Last {
            session.stream.write_all(&wire::keepalive())?;
        }
        Ok(session)
    }

    /// What came so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.scanner.counts
    }

    /// Reads until a condition holds, and says when the read returned that made it so.
    pub(crate) fn receive_until(
        &mut self,
        what: &str,
        patience: Duration,
        done: impl Fn(&Counts) -> bool,
    ) -> Result<Moment> {
        self.listen_until(what, patience, &mut |_, _| {}, done)
    }

    /// As [`receive_until`](Self::receive_until), and tells each announced prefix.
    pub(crate) fn listen_until(
        &mut self,
        what: &str,
        patience: Duration,
        seen: crate::scan::Seen<'_>,
        done: impl Fn(&Counts) -> bool,
    ) -> Result<Moment> {
        let deadline = Instant::now() + patience;
        let mut at = Moment::now();
        while !done(self.counts()) {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "waited {patience:?} for {what}; so far {:?}", self.counts());
            self.stream.set_read_timeout(Some(left))?;
            match self.scanner.read(&mut self.stream, seen) {
                Ok(()) => at = Moment::now(),
                Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                    Some(ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                    _ => return Err(error.context(format!("waiting for {what}; so far {:?}", self.counts()))),
                },
            }
            if let Some((code, subcode)) = self.counts().notification {
                bail!("NOTIFICATION {code}/{subcode} while waiting for {what}");
            }
        }
        Ok(at)
    }

    /// Writes it all; says when the first octet left.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<Moment> {
        let begin = Moment::now();
        let deadline = Instant::now() + UNREAD;
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the contestant left {} octets unread for {UNREAD:?}", rest.len());
            self.stream.set_write_timeout(Some(left))?;
            match self.stream.write(rest) {
                Ok(0) => bail!("the contestant takes no more"),
                Ok(written) => rest = &rest[written..],
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(error).context("write to the contestant"),
                },
            }
        }
        Ok(begin)
    }
}

fn dial(family: Family, host: u8) -> Result<TcpStream> {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(site::address(family, host), 0).into())?;
    let contestant = SocketAddr::new(site::address(family, HOST), BGP_PORT);
    socket.connect_timeout(&contestant.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}
