//! The tool's end of a BFD session (RFC 5880, RFC 5881), just enough to come up and then to fall silent.
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::clock::Moment;
use crate::site::{HOST, Site, address};
use crate::wire::Family;

/// The interval of both directions.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);
pub(crate) const MULTIPLIER: u8 = 3;
const PORT: u16 = 3784;
const SOURCE_PORT: u16 = 49_152;
const DISCRIMINATOR: u32 = 0xbe9c_0001;
const LENGTH: usize = 24;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Init,
    Up,
}

impl State {
    fn code(self) -> u8 {
        match self {
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        }
    }

    /// What follows from a packet of the other end (RFC 5880 section 6.8.6).
    fn next(self, remote: u8) -> State {
        match (self, remote) {
            (State::Down, 1) => State::Init,
            (State::Down | State::Init, 2) | (State::Init | State::Up, 3) | (State::Up, 2) => State::Up,
            (State::Init, 1) => State::Init,
            (State::Down, _) | (State::Init | State::Up, _) => State::Down,
        }
    }
}

/// A session that sends until it is told to be silent.
pub(crate) struct Talker {
    up: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Talker {
    /// Starts it from a host of the tool.
    pub(crate) fn start(site: &Site, host: u8) -> Result<Talker> {
        let (receiver, sender) = site.tool.within(|| {
            let receiver = UdpSocket::bind(SocketAddr::new(address(Family::V4, host), PORT))?;
            let sender = UdpSocket::bind(SocketAddr::new(address(Family::V4, host), SOURCE_PORT))?;
            // Others are dropped (RFC 5881 section 5).
            sender.set_ttl(255)?;
            anyhow::Ok((receiver, sender))
        })?;
        let (up, silent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (is_up, be_silent) = (Arc::clone(&up), Arc::clone(&silent));
        let thread = std::thread::spawn(move || talk(&receiver, &sender, &is_up, &be_silent));
        Ok(Talker { up, silent, thread: Some(thread) })
    }

    /// Waits until both ends are up.
    pub(crate) fn await_up(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !self.up.load(Ordering::Acquire) {
            ensure!(Instant::now() < deadline, "BFD is not up after {patience:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Falls silent: nothing leaves after the moment that this gives.
    pub(crate) fn fall_silent(&mut self) -> Moment {
        self.silent.store(true, Ordering::Release);
        Moment::now()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.silent.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // An error of its own was seen as a session that did not come up.
            let _ = thread.join();
        }
    }
}

fn talk(receiver: &UdpSocket, sender: &UdpSocket, up: &AtomicBool, silent: &AtomicBool) -> Result<()> {
    let contestant = SocketAddr::new(address(Family::V4, HOST), PORT);
    let (mut state, mut theirs) = (State::Down, 0_u32);
    let mut next = Instant::now();
    while !silent.load(Ordering::Acquire) {
        if Instant::now() >= next {
            sender.send_to(&packet(state, 0, theirs), contestant)?;
            // A tenth early, as jitter wants it (RFC 5880 section 6.8.7).
            next = Instant::now() + INTERVAL * 9 / 10;
        }
        let left = next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        receiver.set_read_timeout(Some(left))?;
        let mut buffer = [0; 64];
        let Ok((count, from)) = receiver.recv_from(&mut buffer) else { continue };
        if count < LENGTH || from.ip() != contestant.ip() {
            continue;
        }
        theirs = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]);
        let remote = buffer[1] >> 6;
        state = state.next(remote);
        up.store(state == State::Up && remote == State::Up.code(), Ordering::Release);
        if buffer[1] & POLL != 0 && !silent.load(Ordering::Acquire) {
            sender.send_to(&packet(state, FINAL, theirs), contestant)?;
        }
    }
    Ok(())
}

fn packet(state: State, flags: u8, theirs: u32) -> [u8; LENGTH] {
    let interval = u32::try_from(INTERVAL.as_micros()).expect("short").to_be_bytes();
    let mut packet = [0; LENGTH];
    packet[..4].copy_from_slice(&[1 << 5, state.code() << 6 | flags, MULTIPLIER, 24]);
    packet[4..8].copy_from_slice(&DISCRIMINATOR.to_be_bytes());
    packet[8..12].copy_from_slice(&theirs.to_be_bytes());
    packet[12..16].copy_from_slice(&interval);
    packet[16..20].copy_from_slice(&interval);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_tables_and_admin_down_ends_it() {
        assert_eq!(State::Down.next(1), State::Init);
        assert_eq!(State::Init.next(2), State::Up);
        assert_eq!(State::Down.next(2), State::Up);
        assert_eq!(State::Down.next(3), State::Down);
        assert_eq!(State::Up.next(1), State::Down);
        assert_eq!(State::Up.next(0), State::Down);
    }
}
