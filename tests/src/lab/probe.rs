//! Numbered UDP packets from one node or namespace to another and back, to count what a change loses.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Lab;
use super::expect::Probe;
use crate::netns::{Netns, wait_until};

const EVERY: Duration = Duration::from_millis(5);
/// How often a thread that waits for a packet looks up.
const TICK: Duration = Duration::from_millis(20);
/// How long the last answers may take.
const LAST_CALL: Duration = Duration::from_millis(500);
/// How long a probe that is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the answering socket listens unless it is given.
pub const PORT: u16 = 7;

/// What a probe counted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// Who sent.
    pub from: String,
    /// Where to.
    pub to: IpAddr,
    /// Packets sent.
    pub sent: u64,
    /// Packets without an answer.
    pub lost: u64,
    /// The longest time without an answer.
    pub longest_gap_milliseconds: u64,
}

/// A probe under way: one thread sends, one takes the answers, one at the other end gives them.
#[derive(Debug)]
pub struct Running {
    from: String,
    to: IpAddr,
    stop: Arc<AtomicBool>,
    /// How many answers there are to wait for; 0 while packets are sent.
    awaited: Arc<AtomicU64>,
    so_far: Arc<SoFar>,
    echo: JoinHandle<()>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Answers>,
}

/// What was sent and answered until now.
#[derive(Debug, Default)]
struct SoFar {
    sent: AtomicU64,
    answered: AtomicU64,
}

/// What came back.
#[derive(Debug)]
struct Answers {
    numbers: BTreeSet<u64>,
    longest_gap: Duration,
}

impl Running {
    /// Between two nodes of a lab; returns once the first answer came.
    pub(crate) fn start(lab: &Lab, probe: &Probe) -> Result<Running> {
        let (any, target) = ends(probe.to);
        // Bound to the address itself, so that the answer comes from there.
        let server = lab.node(&probe.at)?.within(|| UdpSocket::bind(target))?;
        let client = lab.node(&probe.from)?.within(|| UdpSocket::bind(any))?;
        Running::over(&probe.from, client, server, target)
    }

    /// From one namespace to an address of another; returns once the first answer came.
    pub fn between(from: &Netns, at: &Netns, to: IpAddr) -> Result<Running> {
        let (any, target) = ends(to);
        let server = at.within(|| UdpSocket::bind(target));
        let client = from.within(|| UdpSocket::bind(any));
        Running::over(from.name(), client, server, target)
    }

    /// Between two sockets that stand where they should: `server` answers at `target`. Returns once the first answer came.
    pub fn over(
        from: &str,
        client: io::Result<UdpSocket>,
        server: io::Result<UdpSocket>,
        target: SocketAddr,
    ) -> Result<Running> {
        let server = server.with_context(|| format!("bind {target}"))?;
        let client = client.context("bind")?;
        server.set_read_timeout(Some(TICK))?;
        client.set_read_timeout(Some(TICK))?;
        wait_until(&format!("the first answer of {target} to {from}"), Duration::from_secs(5), || {
            exchange(&client, &server, target).map_err(|error| error.to_string())
        })?;
        let (stop, awaited) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let so_far = Arc::new(SoFar::default());
        let (sending, receiving) = (so_far.clone(), so_far.clone());
        let answers = client.try_clone()?;
        Ok(Running {
            from: from.to_owned(),
            to: target.ip(),
            stop: stop.clone(),
            awaited: awaited.clone(),
            so_far,
            echo: std::thread::spawn({
                let stop = stop.clone();
                move || echo(&server, &stop)
            }),
            sender: std::thread::spawn(move || send(&client, target, &stop, &sending)),
            receiver: std::thread::spawn(move || receive(&answers, &awaited, &receiving)),
        })
    }

    /// Waits until so many more packets were sent.
    pub fn await_sent(&self, more: u64) -> Result<()> {
        let wanted = self.so_far.sent.load(Ordering::Relaxed) + more;
        wait_until(&format!("{more} more packets to {}", self.to), PATIENCE, || {
            let sent = self.so_far.sent.load(Ordering::Relaxed);
            if sent >= wanted { Ok(()) } else { Err(format!("{sent} of {wanted}")) }
        })
    }

    /// Waits until so many packets are without an answer.
    pub fn await_unanswered(&self, count: u64) -> Result<()> {
        wait_until(&format!("{count} packets to {} without an answer", self.to), PATIENCE, || {
            let answered = self.so_far.answered.load(Ordering::Relaxed);
            let sent = self.so_far.sent.load(Ordering::Relaxed);
            if sent.saturating_sub(answered) >= count { Ok(()) } else { Err(format!("{answered} of {sent}")) }
        })
    }

    /// Stops sending, waits for the last answers, and counts.
    pub fn finish(self) -> Result<Count> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow::anyhow!("the probe panicked");
        let sent = self.sender.join().map_err(panicked)?;
        self.awaited.store(sent, Ordering::Relaxed);
        let Answers { numbers, longest_gap } = self.receiver.join().map_err(panicked)?;
        self.echo.join().map_err(panicked)?;
        Ok(Count {
            from: self.from,
            to: self.to,
            sent,
            lost: sent.saturating_sub(u64::try_from(numbers.len())?),
            longest_gap_milliseconds: u64::try_from(longest_gap.as_millis())?,
        })
    }
}

/// What the asking and the answering socket are bound to.
fn ends(to: IpAddr) -> (SocketAddr, SocketAddr) {
    let any = match to {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    (SocketAddr::new(any, 0), SocketAddr::new(to, PORT))
}

/// One packet there and back: number 0, which is not counted.
fn exchange(client: &UdpSocket, server: &UdpSocket, target: SocketAddr) -> io::Result<()> {
    let mut buffer = [0; 8];
    client.send_to(&0_u64.to_be_bytes(), target)?;
    let (_, from) = server.recv_from(&mut buffer)?;
    server.send_to(&buffer, from)?;
    client.recv_from(&mut buffer).map(drop)
}

fn echo(server: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 8];
    let mut last_packet = Instant::now();
    while !stop.load(Ordering::Relaxed) || last_packet.elapsed() < LAST_CALL {
        // An error is the time-out, or an ICMP error for an earlier answer: that answer is lost and counted so.
        if let Ok((length, from)) = server.recv_from(&mut buffer) {
            last_packet = Instant::now();
            let _ = server.send_to(&buffer[..length], from);
        }
    }
}

/// One packet every few milliseconds, whatever becomes of the others. Gives how many.
fn send(client: &UdpSocket, target: SocketAddr, stop: &AtomicBool, so_far: &SoFar) -> u64 {
    let mut next = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) || sent == 0 {
        sent += 1_u64;
        // No route, or an ICMP error for an earlier packet: this one is lost and counted so.
        let _ = client.send_to(&sent.to_be_bytes(), target);
        so_far.sent.store(sent, Ordering::Relaxed);
        next += EVERY;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sent
}

/// Takes answers until all that are awaited have come, or no more can be expected.
fn receive(client: &UdpSocket, awaited: &AtomicU64, so_far: &SoFar) -> Answers {
    let mut answers = Answers { numbers: BTreeSet::new(), longest_gap: Duration::ZERO };
    let (mut last, mut last_call) = (Instant::now(), None);
    loop {
        let awaited = awaited.load(Ordering::Relaxed);
        if awaited > 0 {
            let all = answers.numbers.len() as u64 == awaited;
            if all || last_call.get_or_insert_with(Instant::now).elapsed() > LAST_CALL {
                if !all {
                    answers.longest_gap = answers.longest_gap.max(last.elapsed());
                }
                return answers;
            }
        }
        let mut buffer = [0; 8];
        // Number 0 is an answer to the first question of all, which came late.
        if client.recv_from(&mut buffer).is_ok() && u64::from_be_bytes(buffer) > 0 {
            answers.numbers.insert(u64::from_be_bytes(buffer));
            so_far.answered.store(answers.numbers.len() as u64, Ordering::Relaxed);
            answers.longest_gap = answers.longest_gap.max(last.elapsed());
            last = Instant::now();
        }
    }
}
