//! Two sessions joined by TCP connections made of queues, on a virtual clock.
//!
//! Each direction of each connection delivers in order after `latency`; a lost packet is one that comes a
//! retransmission later, as TCP would have it. Nothing here reads a clock but once, for the origin of time.
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    Asn, RouterId,
    session::{Action, ConnectionId, DownReason, Event, Session, SessionConfig, State, StopReason},
    wire::CeaseReason,
};

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
const RETRANSMISSION: Duration = Duration::from_millis(200);

pub(crate) fn config(local: u32, peer: u32, router_id: u32) -> SessionConfig {
    let asn = |number| Asn::new(number).unwrap();
    SessionConfig {
        jitter_seed: u64::from(router_id),
        ..SessionConfig::new(asn(local), asn(peer), RouterId::new(router_id).unwrap())
    }
}

pub(crate) fn shutdown() -> StopReason {
    StopReason::Cease(CeaseReason::AdministrativeShutdown, "maintenance".into())
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Packet {
    Syn,
    SynAck,
    Bytes(Bytes),
    /// FIN or RST: nothing comes after it.
    End,
}

/// One TCP connection; index 0 and 1 are the ends at A and B.
#[derive(Debug)]
struct Link {
    opener: usize,
    ends: [Option<ConnectionId>; 2],
    /// Packets towards A and towards B.
    towards: [VecDeque<(Instant, Packet)>; 2],
}

pub(crate) struct Side {
    pub(crate) session: Session,
    pub(crate) events: Vec<Event>,
    /// Each message that the session wrote.
    pub(crate) sent: Vec<Bytes>,
    /// Whether connections to this side are taken at all.
    pub(crate) listening: bool,
    /// Whether this side reads what comes; packets wait while it does not.
    pub(crate) reading: bool,
    pub(crate) connects: usize,
    buffers: BTreeMap<ConnectionId, BytesMut>,
}

impl Side {
    fn new(config: SessionConfig) -> Side {
        Side {
            session: Session::new(config),
            events: Vec::new(),
            sent: Vec::new(),
            listening: true,
            reading: true,
            connects: 0,
            buffers: BTreeMap::new(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.session.state()
    }

    pub(crate) fn downs(&self) -> Vec<&DownReason> {
        self.events
            .iter()
            .filter_map(|e| if let Event::Down(reason) = e { Some(reason) } else { None })
            .collect()
    }

    pub(crate) fn failures(&self) -> Vec<&DownReason> {
        self.events
            .iter()
            .filter_map(|e| if let Event::Failed(reason) = e { Some(reason) } else { None })
            .collect()
    }
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) sides: [Side; 2],
    pub(crate) latency: Duration,
    /// Of 256 packets, how many are lost at first.
    pub(crate) loss: u8,
    /// Nothing gets through; SYNs are lost, the rest waits.
    pub(crate) cut: bool,
    links: Vec<Link>,
    random: u64,
}

impl Pair {
    pub(crate) fn new(a: SessionConfig, b: SessionConfig) -> Pair {
        #[expect(clippy::disallowed_methods, reason = "the origin of the virtual clock")]
        let start = Instant::now();
        Pair {
            now: start,
            start,
            sides: [Side::new(a), Side::new(b)],
            latency: Duration::from_millis(1),
            loss: 0,
            cut: false,
            links: Vec::new(),
            random: 1,
        }
    }

    /// Both sides active, in different ASes.
    pub(crate) fn active() -> Pair {
        Pair::new(config(1, 2, 10), config(2, 1, 20))
    }

    pub(crate) fn a(&self) -> &Side {
        &self.sides[A]
    }

    pub(crate) fn b(&self) -> &Side {
        &self.sides[B]
    }

    pub(crate) fn start(&mut self, side: usize) {
        self.sides[side].session.handle_start(self.now);
        self.drain(side);
    }

    pub(crate) fn start_both(&mut self) {
        self.start(A);
        self.start(B);
    }

    pub(crate) fn stop(&mut self, side: usize, reason: StopReason) {
        self.sides[side].session.handle_stop(self.now, reason);
        self.drain(side);
    }

    /// The process of `side` dies and another takes its place, not yet started. `fin` is whether its kernel lives
    /// to close the connections.
    pub(crate) fn replace(&mut self, side: usize, config: SessionConfig, fin: bool) {
        for link in 0..self.links.len() {
            if self.links[link].ends[side].take().is_some() && fin {
                self.push(link, 1 - side, Packet::End);
            }
        }
        self.sides[side] = Side::new(config);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// How many TCP connections stand at both ends.
    pub(crate) fn connections(&self) -> usize {
        self.links.iter().filter(|link| link.ends.iter().all(Option::is_some)).count()
    }

    pub(crate) fn established(&self) -> bool {
        let ends = self.sides.each_ref().map(|side| side.session.established().map(|(id, _)| id));
        ends.iter().all(Option::is_some) && self.links.iter().any(|link| link.ends == ends)
    }

    /// Who opened the connection that carries the session.
    pub(crate) fn opener(&self) -> usize {
        let id = self.a().session.established().map(|(id, _)| id);
        let link = self.links.iter().find(|link| id.is_some() && link.ends[A] == id);
        link.expect("an established connection").opener
    }

    /// The OPEN that `side` sent for its present session, as bytes.
    pub(crate) fn open_of(&self, side: usize) -> Vec<u8> {
        let (_, negotiated) = self.sides[side].session.established().expect("established");
        let mut bytes = BytesMut::new();
        negotiated.local_open.encode(&mut bytes);
        bytes.to_vec()
    }

    /// The newest connection of `side`.
    pub(crate) fn connection_of(&self, side: usize) -> ConnectionId {
        self.links.iter().rev().find_map(|link| link.ends[side]).expect("a connection")
    }

    /// Injects bytes as if the other side had sent them on the connection that is furthest along.
    pub(crate) fn inject(&mut self, to: usize, bytes: &[u8]) {
        let link = self.links.iter().rposition(|link| link.ends[to].is_some()).expect("a connection");
        self.push(link, to, Packet::Bytes(Bytes::copy_from_slice(bytes)));
    }

    /// Closes the connections without either session's doing.
    pub(crate) fn reset_connections(&mut self) {
        for link in 0..self.links.len() {
            for side in [A, B] {
                if self.links[link].ends[side].is_some() {
                    self.links[link].towards[side].clear();
                    self.push(link, side, Packet::End);
                }
            }
        }
    }

    /// A side opens a connection that its session knows nothing of; gives the other side's answer in bytes.
    pub(crate) fn accept_stranger(&mut self, at: usize) -> ConnectionId {
        let id = self.sides[at].session.handle_accepted(self.now).expect("accepted");
        let mut ends = [None; 2];
        ends[at] = Some(id);
        self.links.push(Link { opener: 1 - at, ends, towards: Default::default() });
        self.drain(at);
        id
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until the condition holds; the time that took. Panics after `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, condition: impl Fn(&Pair) -> bool) -> Duration {
        let start = self.now;
        while !condition(self) {
            let states = [self.a().state(), self.b().state()];
            assert!(self.step(start + limit), "not within {limit:?}; states {states:?}");
        }
        self.now - start
    }

    /// The next packet or timer, if it is due until `end`.
    fn step(&mut self, end: Instant) -> bool {
        let open = |link: &Link| {
            link.ends.iter().any(Option::is_some) || !link.towards.iter().all(VecDeque::is_empty)
        };
        self.links.retain(open);
        let packet = self.heads().into_iter().min_by_key(|(at, ..)| *at).filter(|_| !self.cut);
        let timer = [A, B]
            .into_iter()
            .filter_map(|side| Some((self.sides[side].session.poll_timeout()?, side)))
            .min();
        let packet_at = packet.map(|(at, ..)| at.max(self.now));
        match (packet_at, timer) {
            (Some(at), timer) if at <= end && timer.is_none_or(|(timeout, _)| at <= timeout) => {
                self.now = at;
                let (_, link, side) = packet.expect("matched");
                self.deliver(link, side);
            }
            (_, Some((at, side))) if at <= end => {
                self.now = self.now.max(at);
                self.sides[side].session.handle_timeout(self.now);
                self.drain(side);
            }
            _ => return false,
        }
        true
    }

    /// The queues that have something for a side that reads, with the time of their first packet.
    pub(crate) fn heads(&self) -> Vec<(Instant, usize, usize)> {
        let mut heads = Vec::new();
        for (index, link) in self.links.iter().enumerate() {
            for side in [A, B].into_iter().filter(|side| self.sides[*side].reading) {
                heads.extend(link.towards[side].front().map(|(at, _)| (*at, index, side)));
            }
        }
        heads
    }

    /// Delivers the first packet of a queue, whatever its time.
    pub(crate) fn deliver(&mut self, link: usize, side: usize) {
        let Some((_, packet)) = self.links[link].towards[side].pop_front() else { return };
        let end = self.links[link].ends[side];
        match (packet, end) {
            (Packet::Syn, _) => {
                let accepted =
                    self.sides[side].listening.then(|| self.sides[side].session.handle_accepted(self.now));
                match accepted {
                    Some(Ok(id)) => {
                        self.links[link].ends[side] = Some(id);
                        self.push(link, 1 - side, Packet::SynAck);
                    }
                    Some(Err(_)) | None => self.push(link, 1 - side, Packet::End),
                }
            }
            (Packet::SynAck, Some(id)) => self.sides[side].session.handle_connected(self.now, id),
            (Packet::Bytes(bytes), Some(id)) => {
                let Side { session, buffers, .. } = &mut self.sides[side];
                let buffer = buffers.entry(id).or_default();
                buffer.extend_from_slice(&bytes);
                session.handle_input(self.now, id, buffer);
            }
            (Packet::End, Some(id)) => {
                self.links[link].ends[side] = None;
                if self.links[link].opener == side && !self.sides[side].buffers.contains_key(&id) {
                    self.sides[side].session.handle_connect_failed(self.now, id);
                } else {
                    self.sides[side].session.handle_closed(self.now, id);
                }
            }
            // The end is closed: TCP answers with RST.
            (Packet::SynAck | Packet::Bytes(_), None) => self.push(link, 1 - side, Packet::End),
            (Packet::End, None) => {}
        }
        self.drain(side);
    }

    fn push(&mut self, link: usize, to: usize, packet: Packet) {
        if self.cut && packet == Packet::Syn {
            return;
        }
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let lost = ((self.random >> 33) as u8) < self.loss;
        let delay = self.latency + if lost { RETRANSMISSION } else { Duration::ZERO };
        let queue = &mut self.links[link].towards[to];
        // In order: what was sent later does not come earlier.
        let at = queue.back().map_or(self.now, |(at, _)| *at).max(self.now + delay);
        queue.push_back((at, packet));
    }

    /// Does what the session of `side` asks for.
    pub(crate) fn drain(&mut self, side: usize) {
        while let Some(action) = self.sides[side].session.poll_action() {
            match action {
                Action::Connect(id) => {
                    self.sides[side].connects += 1;
                    let mut ends = [None; 2];
                    ends[side] = Some(id);
                    self.links.push(Link { opener: side, ends, towards: Default::default() });
                    self.push(self.links.len() - 1, 1 - side, Packet::Syn);
                }
                Action::Send(id, bytes) => {
                    self.sides[side].sent.push(bytes.clone());
                    if let Some(link) = self.link_of(side, id) {
                        self.push(link, 1 - side, Packet::Bytes(bytes));
                        if self.sides[1 - side].reading {
                            self.sides[side].session.handle_sent(self.now);
                        }
                    }
                }
                Action::Close(id) => {
                    if let Some(link) = self.link_of(side, id) {
                        self.links[link].ends[side] = None;
                        self.push(link, 1 - side, Packet::End);
                    }
                }
            }
        }
        while let Some(event) = self.sides[side].session.poll_event() {
            self.sides[side].events.push(event);
        }
    }

    fn link_of(&self, side: usize, id: ConnectionId) -> Option<usize> {
        self.links.iter().position(|link| link.ends[side] == Some(id))
    }
}
