//! Which session a datagram belongs to (RFC 5880 section 6.3, RFC 5881 section 3, RFC 5883 section 4).
//!
//! It owns the discriminators, since they are what tells sessions apart, and counts what belongs to no session. By
//! RFC 5880 section 6.3 a known discriminator is enough: the source address may change under a session.
use std::{collections::BTreeMap, net::IpAddr};

use crate::{Discard, DiscardCounters, Discriminator, HOP_LIMIT, Hops, Path, ReceivedPacket, jitter::Random};

/// A UDP datagram as it was received on one of the two ports.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Which port it came to.
    pub hops: Hops,
    /// Who sent it.
    pub source: IpAddr,
    /// Which of our addresses it was sent to.
    pub destination: IpAddr,
    /// The index of the interface that it came in by.
    pub interface: u32,
    /// Its TTL or hop limit.
    pub hop_limit: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Another session uses the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("session {by} already runs over this path")]
pub struct PathTaken {
    /// The other session.
    pub by: Discriminator,
}

/// What the first packets of a peer, which does not know our discriminator yet, are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Single { remote: IpAddr, interface: u32 },
    Multi { remote: IpAddr, local: IpAddr },
}

impl Key {
    /// A socket of both families sees IPv4 addresses as mapped ones.
    fn of_path(path: &Path) -> Key {
        match *path {
            Path::SingleHop { remote, interface } => {
                Key::Single { remote: remote.to_canonical(), interface: interface.get() }
            }
            Path::MultiHop { remote, local, .. } => {
                Key::Multi { remote: remote.to_canonical(), local: local.to_canonical() }
            }
        }
    }

    fn of_datagram(datagram: &Datagram<'_>) -> Key {
        let remote = datagram.source.to_canonical();
        match datagram.hops {
            Hops::Single => Key::Single { remote, interface: datagram.interface },
            Hops::Multi => Key::Multi { remote, local: datagram.destination.to_canonical() },
        }
    }
}

/// All sessions of a system, by discriminator and by path.
#[derive(Debug)]
pub struct Demux {
    paths: BTreeMap<Discriminator, Path>,
    discriminators: BTreeMap<Key, Discriminator>,
    random: Random,
    discarded: DiscardCounters,
}

impl Demux {
    /// No sessions yet. Discriminators follow from the seed, which should be hard to guess: whoever knows one can send
    /// packets for its session from elsewhere on the path.
    pub fn new(seed: u64) -> Demux {
        Demux {
            paths: BTreeMap::new(),
            discriminators: BTreeMap::new(),
            random: Random::new(seed),
            discarded: DiscardCounters::default(),
        }
    }

    /// Chooses the discriminator of a new session over a path.
    pub fn insert(&mut self, path: Path) -> Result<Discriminator, PathTaken> {
        let key = Key::of_path(&path);
        if let Some(by) = self.discriminators.get(&key) {
            return Err(PathTaken { by: *by });
        }
        let discriminator = loop {
            let drawn = Discriminator::new((self.random.next() >> 32) as u32);
            if let Some(free) = drawn.filter(|drawn| !self.paths.contains_key(drawn)) {
                break free;
            }
        };
        self.paths.insert(discriminator, path);
        self.discriminators.insert(key, discriminator);
        Ok(discriminator)
    }

    /// Forgets a session; gives the path that it had.
    pub fn remove(&mut self, discriminator: Discriminator) -> Option<Path> {
        let path = self.paths.remove(&discriminator)?;
        self.discriminators.remove(&Key::of_path(&path));
        Some(path)
    }

    /// The path of a session.
    pub fn path(&self, discriminator: Discriminator) -> Option<&Path> {
        self.paths.get(&discriminator)
    }

    /// The session that a datagram is for, and its packet for [`crate::Session::handle_packet`].
    ///
    /// The error says why it is discarded; it is counted.
    pub fn handle_datagram(
        &mut self,
        datagram: &Datagram<'_>,
    ) -> Result<(Discriminator, ReceivedPacket), Discard> {
        let selected = self.select(datagram);
        if let Err(discard) = selected {
            self.discarded.count(discard);
        }
        selected
    }

    /// What was discarded before it reached a session.
    pub fn discarded(&self) -> &DiscardCounters {
        &self.discarded
    }

    fn select(&self, datagram: &Datagram<'_>) -> Result<(Discriminator, ReceivedPacket), Discard> {
        // Cheapest first, and before any octet of a stranger is read (RFC 5881 section 5).
        if datagram.hops == Hops::Single && datagram.hop_limit != HOP_LIMIT {
            return Err(Discard::HopLimit);
        }
        let received = ReceivedPacket::decode(datagram.payload)?;
        let discriminator = match received.control.your_discriminator {
            Some(known) => known,
            None => *self.discriminators.get(&Key::of_datagram(datagram)).ok_or(Discard::NoSession)?,
        };
        let path = self.paths.get(&discriminator).ok_or(Discard::YourDiscriminatorUnknown)?;
        if path.hops() != datagram.hops {
            return Err(Discard::Port);
        }
        if datagram.hop_limit < path.min_hop_limit() {
            return Err(Discard::HopLimit);
        }
        Ok((discriminator, received))
    }
}
