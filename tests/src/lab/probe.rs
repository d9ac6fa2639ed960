//! Numbered UDP packets from one node to another and back, to count what a change loses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Lab;
use super::expect::Probe;
use crate::netns::wait_until;

const EVERY: Duration = Duration::from_millis(5);
/// How long the last answers may take.
const LAST_CALL: Duration = Duration::from_millis(500);
const PORT: u16 = 7;

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

/// A probe under way.
#[derive(Debug)]
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    echo: JoinHandle<()>,
    probe: JoinHandle<Result<Count>>,
}

impl Running {
    /// Starts both ends; returns once the first answer came.
    pub(crate) fn start(lab: &Lab, probe: &Probe) -> Result<Running> {
        let any = match probe.to {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let target = SocketAddr::new(probe.to, PORT);
        // Bound to the address itself, so that the answer comes from there.
        let server = lab
            .node(&probe.at)?
            .within(|| UdpSocket::bind(target))?
            .with_context(|| format!("bind {target}"))?;
        let client = lab.node(&probe.from)?.within(|| UdpSocket::bind((any, 0)))?.context("bind")?;
        server.set_read_timeout(Some(Duration::from_millis(50)))?;
        client.set_read_timeout(Some(EVERY))?;
        wait_until(
            &format!("the first answer of {target} to {}", probe.from),
            Duration::from_secs(5),
            || exchange(&client, &server, target).map_err(|error| error.to_string()),
        )?;
        let stop = Arc::new(AtomicBool::new(false));
        let echo = {
            let stop = stop.clone();
            std::thread::spawn(move || echo(&server, &stop))
        };
        let asking = {
            let (stop, from) = (stop.clone(), probe.from.clone());
            std::thread::spawn(move || ask(&client, target, from, &stop))
        };
        Ok(Running { stop, echo, probe: asking })
    }

    /// Stops sending, waits for the last answers, and counts.
    pub(crate) fn finish(self) -> Result<Count> {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.probe.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?;
        // The echo ends some milliseconds after the asker, on the same flag.
        self.echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))?;
        count
    }
}

/// One packet there and back: number 0, which is not counted.
fn exchange(client: &UdpSocket, server: &UdpSocket, target: SocketAddr) -> std::io::Result<()> {
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

fn ask(client: &UdpSocket, target: SocketAddr, from: String, stop: &AtomicBool) -> Result<Count> {
    let start = Instant::now();
    let mut outstanding = BTreeSet::new();
    let (mut sent, mut last_answer, mut longest_gap) = (0_u64, start, Duration::ZERO);
    let mut stopped: Option<Instant> = None;
    loop {
        if stop.load(Ordering::Relaxed) && stopped.is_none() {
            stopped = Some(Instant::now());
        }
        match stopped {
            Some(at) if outstanding.is_empty() || at.elapsed() > LAST_CALL => break,
            Some(_) => {}
            None if start.elapsed() >= EVERY * u32::try_from(sent).unwrap_or(u32::MAX) => {
                sent += 1;
                outstanding.insert(sent);
                // No route, or an ICMP error for an earlier packet: this one is lost and counted so.
                let _ = client.send_to(&sent.to_be_bytes(), target);
            }
            None => {}
        }
        let mut buffer = [0; 8];
        if client.recv_from(&mut buffer).is_ok() && outstanding.remove(&u64::from_be_bytes(buffer)) {
            longest_gap = longest_gap.max(last_answer.elapsed());
            last_answer = Instant::now();
        }
    }
    if !outstanding.is_empty() {
        longest_gap = longest_gap.max(last_answer.elapsed());
    }
    Ok(Count {
        from,
        to: target.ip(),
        sent,
        lost: u64::try_from(outstanding.len())?,
        longest_gap_milliseconds: u64::try_from(longest_gap.as_millis())?,
    })
}
