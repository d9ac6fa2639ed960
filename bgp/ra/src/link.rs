//! One interface: when we advertise and solicit, and which routers were heard there since its link came up.
//!
//! Sending keeps RFC 4861 sections 6.2.4 (a first few advertisements in quick succession, then at random within an
//! interval), 6.2.6 (a solicitation is answered, but never two advertisements within three seconds) and 6.3.7 (three
//! solicitations at most, until a router is heard). The first of each leaves at once: a session waits for it.
use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use crate::{
    Advertisement, Message, Packet, Refusal,
    packet::{ALL_NODES, ALL_ROUTERS, LinkLayerAddress},
    random::Random,
};

/// MaxRtrAdvInterval; FRR's for unnumbered peers.
const LONGEST: Duration = Duration::from_secs(10);
/// MinRtrAdvInterval, three quarters of it at most.
const SHORTEST: Duration = Duration::from_millis(7500);
/// MAX_INITIAL_RTR_ADVERTISEMENTS.
const INITIAL: u8 = 3;
/// MIN_DELAY_BETWEEN_RAS.
const APART: Duration = Duration::from_secs(3);
/// MAX_RA_DELAY_TIME.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// MAX_RTR_SOLICITATIONS and RTR_SOLICITATION_INTERVAL.
const SOLICITATIONS: u8 = 3;
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);
/// More routers than any link for an unnumbered session has; whoever was silent for longest makes room.
const MOST_ROUTERS: usize = 16;

/// A packet to be sent from our link-local address with a hop limit of 255.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// [`ALL_NODES`] or [`ALL_ROUTERS`].
    pub destination: Ipv6Addr,
    /// From the ICMPv6 type on; the checksum is left to the kernel.
    pub payload: Vec<u8>,
}

/// What was counted since the link was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Advertisements that we sent.
    pub advertisements_sent: u64,
    /// Solicitations that we sent.
    pub solicitations_sent: u64,
    /// Advertisements of others that were believed.
    pub advertisements_received: u64,
    /// Packets that were not, by reason.
    pub refused: BTreeMap<Refusal, u64>,
}

/// One interface. Silent until [`Link::handle_up`].
#[derive(Clone, Debug)]
pub struct Link {
    random: Random,
    own: Option<(Ipv6Addr, Option<LinkLayerAddress>)>,
    advertise_at: Option<Instant>,
    advertised_at: Option<Instant>,
    initial_left: u8,
    solicit_at: Option<Instant>,
    solicitations_left: u8,
    routers: BTreeMap<Ipv6Addr, Instant>,
    counters: Counters,
}

impl Link {
    /// An interface of which nothing is known yet; the seed is for the moments between advertisements.
    pub fn new(seed: u64) -> Link {
        Link {
            random: Random::new(seed),
            own: None,
            advertise_at: None,
            advertised_at: None,
            initial_left: 0,
            solicit_at: None,
            solicitations_left: 0,
            routers: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// The link carries and we have a link-local address there. Asked for again with the same, it does nothing.
    pub fn handle_up(&mut self, now: Instant, address: Ipv6Addr, link_layer: Option<LinkLayerAddress>) {
        if self.own == Some((address, link_layer)) {
            return;
        }
        self.own = Some((address, link_layer));
        self.initial_left = INITIAL;
        self.advertise_at = Some(now);
        self.solicitations_left = SOLICITATIONS;
        self.solicit_at = Some(now);
    }

    /// The link is down, or our address is gone. Who is on it when it comes back is unknown.
    pub fn handle_down(&mut self) {
        self.own = None;
        self.advertise_at = None;
        self.solicit_at = None;
        self.routers.clear();
    }

    /// A packet has come in; the error is why it is not believed.
    pub fn handle_packet(&mut self, now: Instant, packet: &Packet<'_>) -> Result<(), Refusal> {
        let Some((own, _)) = self.own else { return Ok(()) };
        if packet.source == own {
            return Ok(());
        }
        match Message::decode(packet) {
            Ok(None) => {}
            Ok(Some(Message::Solicitation { .. })) => self.answer(now),
            Ok(Some(Message::Advertisement(_))) => {
                self.counters.advertisements_received += 1;
                self.solicit_at = None;
                if self.routers.insert(packet.source, now).is_none() {
                    // It has only just come, or it would have been heard: let it know of us.
                    self.answer(now);
                    self.make_room();
                }
            }
            Err(refusal) => {
                *self.counters.refused.entry(refusal).or_default() += 1;
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// The next packet that is due. Ask until there is none.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let (_, source) = self.own?;
        if self.solicit_at.is_some_and(|at| at <= now) {
            self.solicitations_left = self.solicitations_left.saturating_sub(1);
            self.solicit_at = (self.solicitations_left > 0).then(|| now + SOLICITATION_INTERVAL);
            self.counters.solicitations_sent += 1;
            let payload = Message::Solicitation { source }.encode();
            return Some(Transmit { destination: ALL_ROUTERS, payload });
        }
        if self.advertise_at.is_some_and(|at| at <= now) {
            self.initial_left = self.initial_left.saturating_sub(1);
            let wait = if self.initial_left > 0 { APART } else { self.random.between(SHORTEST, LONGEST) };
            self.advertised_at = Some(now);
            self.advertise_at = Some(now + wait);
            self.counters.advertisements_sent += 1;
            // No default router: hosts on the link shall not send us what they have for the world.
            let payload = Message::Advertisement(Advertisement { router_lifetime: 0, source }).encode();
            return Some(Transmit { destination: ALL_NODES, payload });
        }
        None
    }

    /// When [`Link::poll_transmit`] has something next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.advertise_at.into_iter().chain(self.solicit_at).min()
    }

    /// When each router was heard last, since the link came up.
    pub fn routers(&self) -> &BTreeMap<Ipv6Addr, Instant> {
        &self.routers
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// An advertisement soon, though not too soon after the last one.
    fn answer(&mut self, now: Instant) {
        let soon = now + self.random.between(Duration::ZERO, ANSWER_WITHIN);
        let at = self.advertised_at.map_or(soon, |last| soon.max(last + APART));
        self.advertise_at = Some(self.advertise_at.map_or(at, |planned| planned.min(at)));
    }

    fn make_room(&mut self) {
        if self.routers.len() > MOST_ROUTERS {
            let quietest = self.routers.iter().min_by_key(|(_, at)| **at).map(|(router, _)| *router);
            quietest.map(|router| self.routers.remove(&router));
        }
    }
}
