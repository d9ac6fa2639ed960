//! The task of one monitoring station.
//!
//! Owns: the TCP connection to the station, and what it was told of which session.
//! Inputs: what happens to the peers (a bounded queue for each connection, which begins with all that stands); their
//! statuses (`watch`), for statistics; the word to stop.
//! Outputs: octets; its subscription (`watch`), while it is connected; its status (`watch`).
//! Cancelling: the connection closes without a Termination, as at a crash.
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi,
    bmp::{Message, PeerDown, PeerHeader, Rib, Statistic, TerminationReason, Tlv, information},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    Monitored, PeerEvent, StationConfig, StationStatus, Subscription, Subscriptions, What,
    encode::{Pending, end_of_rib, header, route_monitoring},
    stations::see_off,
};
use crate::{PeerName, Peers};

/// Between attempts to connect at first; doubled each time (RFC 7854 section 3.2).
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A station that acknowledges nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// So much is put together before it is written.
const WRITE_AT_ONCE: usize = 64 * 1024;
/// How long what is queued may take to leave when the connection ends on purpose.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Station {
    pub(super) address: SocketAddr,
    pub(super) config: StationConfig,
    pub(super) peers: watch::Receiver<Arc<Peers>>,
    pub(super) subscriptions: watch::Sender<Subscriptions>,
    pub(super) status: watch::Sender<StationStatus>,
    /// The reason to give when it is over; dropped with the speaker.
    pub(super) stop: oneshot::Receiver<TerminationReason>,
    /// The task that this one replaces; it may still be saying goodbye.
    pub(super) predecessor: Option<JoinHandle<()>>,
}

/// Why a connection ends.
enum End {
    Stop,
    Overflow,
    Closed,
    Failed(io::Error),
}

impl Station {
    pub(super) async fn run(mut self) {
        if let Some(predecessor) = self.predecessor.take() {
            see_off([predecessor]).await;
        }
        let mut retry = RETRY;
        loop {
            let connected = tokio::select! {
                connected = timeout(CONNECT_WAIT, connect(self.address)) => {
                    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                }
                _ = &mut self.stop => return,
            };
            let error = match connected {
                Ok(stream) => {
                    let began = Instant::now();
                    let end = self.serve(stream).await;
                    if began.elapsed() >= LONGEST_RETRY {
                        retry = RETRY;
                    }
                    match end {
                        End::Stop => return,
                        End::Overflow => "it did not read as fast as things happened".to_owned(),
                        End::Closed => "it closed the connection".to_owned(),
                        End::Failed(error) => error.to_string(),
                    }
                }
                Err(error) => format!("cannot connect: {error}"),
            };
            self.note_error(error);
            tokio::select! {
                () = tokio::time::sleep(retry) => {}
                _ = &mut self.stop => return,
            }
            retry = (retry * 2).min(LONGEST_RETRY);
        }
    }

    fn note_error(&self, text: String) {
        self.status.send_modify(|status| {
            // Said once, however often it is tried.
            if status.last_error.as_ref().is_none_or(|(last, _)| *last != text)
                || status.connected_since.is_some()
            {
                warn!(station = %self.address, reason = %text, "no connection to the monitoring station");
            }
            status.connected_since = None;
            status.last_error = Some((text, SystemTime::now()));
        });
    }

    /// Tells everything until the connection ends.
    async fn serve(&mut self, stream: TcpStream) -> End {
        info!(station = %self.address, "connected to the monitoring station");
        self.status.send_modify(|status| {
            status.connected_since = Some(SystemTime::now());
            status.connections += 1;
        });
        let overflow = Arc::new(Notify::new());
        let room = Arc::new(Semaphore::new(usize::try_from(self.config.queue).unwrap_or(usize::MAX)));
        let (events_out, events) = mpsc::channel(Subscription::most_events(self.config.queue));
        let subscription = Subscription {
            received: self.config.adj_rib_in,
            sent: self.config.adj_rib_out,
            events: events_out,
            room,
            overflow: Arc::clone(&overflow),
        };
        let _enrolled = Enrolled::new(self.address, subscription, self.subscriptions.clone());
        let (read, write) = stream.into_split();
        let mut connection = Connection {
            write,
            out: BytesMut::new(),
            messages: 0,
            up: BTreeMap::new(),
            overflow,
            status: &self.status,
        };
        let end = connection.serve(read, events, &self.config, &mut self.stop, &mut self.peers).await;
        if let End::Overflow = end {
            self.status.send_modify(|status| status.overflows += 1);
        }
        end
    }
}

/// A subscription that the peers' tasks see, for as long as this lives.
struct Enrolled {
    address: SocketAddr,
    events: mpsc::Sender<PeerEvent>,
    subscriptions: watch::Sender<Subscriptions>,
}

impl Enrolled {
    fn new(
        address: SocketAddr,
        subscription: Subscription,
        subscriptions: watch::Sender<Subscriptions>,
    ) -> Enrolled {
        let events = subscription.events.clone();
        subscriptions.send_modify(|all| {
            Arc::make_mut(all).insert(address, subscription);
        });
        Enrolled { address, events, subscriptions }
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        self.subscriptions.send_if_modified(|all| {
            // Another connection to the same station may have taken the place.
            let ours = all.get(&self.address).is_some_and(|other| other.events.same_channel(&self.events));
            if ours {
                Arc::make_mut(all).remove(&self.address);
            }
            ours
        });
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    let keepalive = TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 6);
    socket.set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// One connection, from Initiation to its end.
struct Connection<'a> {
    write: OwnedWriteHalf,
    out: BytesMut,
    /// How many messages are in `out`.
    messages: u64,
    /// The sessions that the station was told of and that stand.
    up: BTreeMap<PeerName, Arc<Monitored>>,
    overflow: Arc<Notify>,
    status: &'a watch::Sender<StationStatus>,
}

impl Connection<'_> {
    async fn serve(
        &mut self,
        mut read: OwnedReadHalf,
        mut events: mpsc::Receiver<PeerEvent>,
        config: &StationConfig,
        stop: &mut oneshot::Receiver<TerminationReason>,
        peers: &mut watch::Receiver<Arc<Peers>>,
    ) -> End {
        self.put(&Message::Initiation(vec![
            Tlv::text(information::SYS_DESCR, &config.description),
            Tlv::text(information::SYS_NAME, &config.name),
        ]));
        let mut statistics_at = config.statistics.map(|interval| Instant::now() + interval);
        // A station has nothing to say; what it says is read so that its end is seen.
        let mut ignored = [0; 1024];
        loop {
            if let Err(end) = self.flush().await {
                return end;
            }
            let overflow = Arc::clone(&self.overflow);
            tokio::select! {
                reason = &mut *stop => {
                    // Without a speaker that could say why, this one may be back.
                    let reason = reason.unwrap_or(TerminationReason::Closed);
                    // What takes longer is cut off: the connection closes either way.
                    let _ = timeout(FAREWELL, self.farewell(reason, &mut events)).await;
                    return End::Stop;
                }
                () = overflow.notified() => return End::Overflow,
                result = read.read(&mut ignored) => match result {
                    Ok(0) => return End::Closed,
                    Ok(_) => {}
                    Err(error) => return End::Failed(error),
                },
                // The subscription stands beside, so the queue does not end.
                Some(event) = events.recv() => {
                    if let Err(end) = self.tell_all(event, &mut events).await {
                        return end;
                    }
                }
                () = sleep_until(statistics_at) => {
                    statistics_at = config.statistics.map(|interval| Instant::now() + interval);
                    let peers = Arc::clone(&peers.borrow());
                    self.put_statistics(&peers);
                }
            }
        }
    }

    /// What waits already, then the last message.
    async fn farewell(&mut self, reason: TerminationReason, events: &mut mpsc::Receiver<PeerEvent>) {
        while let Ok(event) = events.try_recv() {
            if self.tell(event).await.is_err() {
                return;
            }
        }
        self.put(&Message::Termination(vec![reason.tlv()]));
        if self.flush().await.is_ok() {
            // The end of the stream follows in any case.
            let _ = self.write.shutdown().await;
        }
    }

    async fn tell_all(
        &mut self,
        first: PeerEvent,
        events: &mut mpsc::Receiver<PeerEvent>,
    ) -> Result<(), End> {
        self.tell(first).await?;
        while self.out.len() < WRITE_AT_ONCE
            && let Ok(event) = events.try_recv()
        {
            self.tell(event).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, event: PeerEvent) -> Result<(), End> {
        let at = Some(event.at);
        if let What::Up(standing) = &event.what {
            let session = Arc::clone(&standing.session);
            self.put(&Message::PeerUp { peer: session.header, up: session.up.clone() });
            self.up.insert(event.peer, Arc::clone(&session));
            // How old these routes are is not known.
            let received = header(&session, Rib::InPostPolicy, None);
            self.put_pending(Pending::routes(received, session.received, &standing.received)).await?;
            let sent = header(&session, Rib::OutPostPolicy, None);
            self.put_pending(Pending::routes(sent, session.sent, &standing.sent)).await?;
            for family in session.families.iter().filter(|_| standing.complete) {
                self.put_end_of_rib(received, family);
                self.put_end_of_rib(sent, family);
            }
            return Ok(());
        }
        // Nothing is told of a session before its Peer Up.
        let Some(session) = self.up.get(&event.peer).cloned() else { return Ok(()) };
        match event.what {
            What::Up(_) => {}
            What::Received(changes) => {
                let peer = header(&session, Rib::InPostPolicy, at);
                self.put_pending(Pending::changes(peer, session.received, &changes)).await?;
            }
            What::EndOfRib(family) => self.put_end_of_rib(header(&session, Rib::InPostPolicy, at), family),
            What::Sent(update) => {
                route_monitoring(header(&session, Rib::OutPostPolicy, at), update, &mut self.out);
                self.messages += 1;
            }
            What::Down(reason) => self.put_down(&event.peer, &session, at, reason),
        }
        Ok(())
    }

    fn put_down(&mut self, peer: &PeerName, session: &Monitored, at: Option<Duration>, reason: PeerDown) {
        self.put(&Message::PeerDown { peer: PeerHeader { timestamp: at, ..session.header }, reason });
        self.up.remove(peer);
    }

    fn put_end_of_rib(&mut self, peer: PeerHeader, family: AfiSafi) {
        end_of_rib(peer, family, &mut self.out);
        self.messages += 1;
    }

    async fn put_pending(&mut self, mut pending: Pending) -> Result<(), End> {
        while pending.poll(&mut self.out) {
            self.messages += 1;
            if self.out.len() >= WRITE_AT_ONCE {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// RFC 7854 section 4.8, for each session that stands.
    fn put_statistics(&mut self, peers: &Peers) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut reports = Vec::new();
        for (name, session) in &self.up {
            let Some(status) = peers.get(name) else { continue };
            let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
            let families =
                || session.families.iter().filter_map(|family| Some((family, status.families.get(&family)?)));
            let rejected: u64 = families().map(|(_, counts)| counts.rejected).sum();
            let mut statistics = vec![
                // A counter of 32 bits goes round.
                Statistic::Rejected((rejected & u64::from(u32::MAX)) as u32),
                Statistic::In(families().map(|(_, counts)| count(counts.accepted)).sum()),
                Statistic::Out(families().map(|(_, counts)| count(counts.advertised)).sum()),
            ];
            for (family, counts) in families() {
                statistics.push(Statistic::InOf(family, count(counts.accepted)));
                statistics.push(Statistic::OutOf(family, count(counts.advertised)));
            }
            let peer = PeerHeader { timestamp: Some(now), ..session.header };
            reports.push(Message::Statistics { peer, statistics });
        }
        reports.iter().for_each(|report| self.put(report));
    }

    fn put(&mut self, message: &Message) {
        message.encode(&mut self.out);
        self.messages += 1;
    }

    /// Hands what is put together to TCP. A station that does not read holds up its own task only; when its queue
    /// is full meanwhile, that ends the connection.
    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        tokio::select! {
            result = self.write.write_all(&self.out) => result.map_err(End::Failed)?,
            () = self.overflow.notified() => return Err(End::Overflow),
        }
        let (octets, messages) = (self.out.len() as u64, std::mem::take(&mut self.messages));
        self.out.clear();
        self.status.send_modify(|status| {
            status.octets_sent += octets;
            status.messages_sent += messages;
        });
        Ok(())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
