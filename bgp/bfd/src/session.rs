//! One session: what its peer said, what it says itself, and when (RFC 5880 section 6.8).
//!
//! The state machine proper is `state::step`; here are the timers, the negotiation of intervals, and what follows from
//! a change. Nothing is queued but events: a packet is made from the present values when it is taken.
mod config;
mod remote;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use config::{SessionConfig, Timing};
pub use remote::Remote;

use crate::{
    ControlPacket, Diagnostic, Discard, DiscardCounters, Discriminator, Interval, Liveness, ReceivedPacket,
    State,
    jitter::Random,
    poll::Poll,
    state::{Input, step},
};
use config::Intervals;

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The state changed.
    StateChanged {
        /// Before.
        from: State,
        /// After.
        to: State,
        /// Why.
        diagnostic: Diagnostic,
    },
    /// What clients are to know changed (RFC 5882).
    LivenessChanged(Liveness),
}

/// What a session counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Packets that were received and not discarded.
    pub received: u64,
    /// Packets that were sent.
    pub sent: u64,
    /// How often it came up.
    pub up: u64,
    /// How often it went from Up to Down, for whatever reason.
    pub down: u64,
    /// Packets for this session that were discarded.
    pub discarded: DiscardCounters,
}

/// One BFD session, without I/O.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    state: State,
    diagnostic: Diagnostic,
    /// What the peer said, until it was silent for the Detection Time.
    remote: Option<Remote>,
    /// What the peer last said of itself that a failure is reported with, kept when `remote` is forgotten.
    last_words: (Diagnostic, bool),
    /// What our packets say.
    advertised: Intervals,
    /// What our timers use: as advertised, but for changes that wait for the peer to know of them.
    in_use: Intervals,
    poll: Poll,
    random: Random,
    last_sent: Option<Instant>,
    /// When the next periodic packet is due, and the interval that this was reckoned with.
    next_periodic: Instant,
    reckoned_with: Interval,
    /// A packet is due now.
    send_now: bool,
    /// The answer to a Poll is due now.
    final_now: bool,
    /// Since when we are AdminDown, and until when a peer that hears nothing of it may be waiting.
    admin_down: Option<(Instant, Instant)>,
    liveness: Liveness,
    events: VecDeque<Event>,
    counters: SessionCounters,
}

impl Session {
    /// A session in state Down; its first packet is due now.
    pub fn new(now: Instant, config: SessionConfig) -> Session {
        let state = State::Down;
        let intervals = config.timing.intervals(state);
        Session {
            state,
            diagnostic: Diagnostic::NONE,
            remote: None,
            last_words: (Diagnostic::NONE, false),
            advertised: intervals,
            in_use: intervals,
            poll: Poll::Idle,
            random: Random::new(config.jitter_seed),
            last_sent: None,
            next_periodic: now,
            reckoned_with: intervals.desired_min_tx,
            send_now: true,
            final_now: false,
            admin_down: None,
            liveness: Liveness::Pending,
            events: VecDeque::new(),
            counters: SessionCounters::default(),
            config,
        }
    }

    /// Takes a packet that [`crate::Demux`] chose this session for: the rest of RFC 5880 section 6.8.6.
    ///
    /// `now` is better the time at which it arrived than that at which it was read. The error says why it is discarded;
    /// it is counted.
    pub fn handle_packet(&mut self, now: Instant, received: &ReceivedPacket) -> Result<(), Discard> {
        let taken = self.take_packet(now, received);
        match taken {
            Ok(()) => self.counters.received += 1,
            Err(discard) => self.counters.discarded.count(discard),
        }
        taken
    }

    fn take_packet(&mut self, now: Instant, received: &ReceivedPacket) -> Result<(), Discard> {
        let packet = &received.control;
        if packet.your_discriminator.is_some_and(|yours| yours != self.config.local_discriminator) {
            return Err(Discard::YourDiscriminatorUnknown);
        }
        if received.authentication.is_some() {
            return Err(Discard::AuthenticationNotInUse);
        }
        // Packets may be read out of the order in which they arrived.
        let heard_at = self.remote.map_or(now, |before| before.heard_at.max(now));
        self.remote = Some(Remote::said(packet, heard_at));
        self.last_words = (packet.diagnostic, packet.control_plane_independent);
        if self.poll.handle_received(packet.final_) {
            self.in_use = self.advertised;
        }
        self.reckon_periodic();
        if self.state == State::AdminDown {
            return Err(Discard::AdminDown);
        }
        self.drive(Input::Received(packet.state));
        self.final_now |= packet.poll;
        Ok(())
    }

    /// Timers may have run out.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.detection_deadline().is_some_and(|deadline| deadline <= now) {
            // Section 6.8.1 for the discriminator, 6.8.18 for the interval; the rest is no better known.
            self.remote = None;
            self.drive(Input::DetectionTimeExpired);
            self.reckon_periodic();
        }
        self.send_now |= self.is_periodic() && self.next_periodic <= now;
    }

    /// Holds the session down on purpose (RFC 5880 section 6.8.16). The peer is told, for as long as the session
    /// exists; see [`Session::may_end_at`].
    pub fn handle_admin_down(&mut self, now: Instant) {
        // The peer waits by the intervals that it knows until now.
        let waits =
            self.transmit_interval().as_duration() * u32::from(self.config.timing.detect_multiplier.get());
        self.drive(Input::Disable);
        self.admin_down.get_or_insert((now, now + waits));
    }

    /// No longer holds the session down.
    pub fn handle_admin_up(&mut self) {
        self.admin_down = None;
        self.drive(Input::Enable);
    }

    /// What we forwarded for the peer is lost (RFC 5880 section 6.8.15).
    pub fn handle_forwarding_plane_reset(&mut self) {
        self.drive(Input::ForwardingPlaneReset);
    }

    /// Changes intervals and multiplier without disturbing the state (RFC 5880 sections 6.8.3, 6.8.10 to 6.8.12).
    pub fn handle_timing(&mut self, timing: Timing) {
        self.send_now |= timing.detect_multiplier != self.config.timing.detect_multiplier;
        self.config.timing = timing;
        self.negotiate();
    }

    /// The next packet to send at once, over the path of the session. To be asked until it gives none.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<ControlPacket> {
        if std::mem::take(&mut self.final_now) {
            // Whatever the periodic packets do (section 6.8.7), and never with the P bit (section 6.5).
            self.counters.sent += 1;
            return Some(self.packet(false, true));
        }
        if !std::mem::take(&mut self.send_now) {
            return None;
        }
        self.poll.handle_sent();
        self.last_sent = Some(now);
        self.schedule(now);
        self.counters.sent += 1;
        Some(self.packet(self.poll.is_active(), false))
    }

    /// The next event. To be asked until it gives none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Session::handle_timeout`]; a moment that has passed means now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let periodic = (self.is_periodic() && !self.send_now).then_some(self.next_periodic);
        [periodic, self.detection_deadline()].into_iter().flatten().min()
    }

    /// When a session that is held down may be dropped without its peer taking that for a failure: once the peer said
    /// that it is not Up, at the latest after its Detection Time (RFC 5880 section 6.8.16). None where it is not held
    /// down.
    pub fn may_end_at(&self) -> Option<Instant> {
        let (since, at_last) = self.admin_down?;
        match self.remote.map(|remote| remote.state) {
            Some(State::Up | State::Init) => Some(at_last),
            Some(State::Down | State::AdminDown) | None => Some(since),
        }
    }

    /// The state (bfd.SessionState).
    pub fn state(&self) -> State {
        self.state
    }

    /// Why the state last changed (bfd.LocalDiag).
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// What clients are to know.
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// What the peer last said; none where it was silent for the Detection Time.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// By what the peer is to know the session.
    pub fn local_discriminator(&self) -> Discriminator {
        self.config.local_discriminator
    }

    /// The intervals and multiplier that are asked for.
    pub fn timing(&self) -> Timing {
        self.config.timing
    }

    /// Counts since the session exists.
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    /// The interval at which we send before jitter: what the slower of both ends wants (RFC 5880 section 6.8.7).
    pub fn transmit_interval(&self) -> Interval {
        let accepted = self.remote.and_then(|remote| remote.required_min_rx).unwrap_or(Interval::MIN);
        self.in_use.desired_min_tx.max(accepted)
    }

    /// How long the peer may be silent (RFC 5880 section 6.8.4); none while it is not heard.
    pub fn detection_time(&self) -> Option<Duration> {
        self.remote.map(|remote| remote.detection_time(self.in_use.required_min_rx))
    }

    fn detection_deadline(&self) -> Option<Instant> {
        let remote = self.remote?;
        Some(remote.heard_at + remote.detection_time(self.in_use.required_min_rx))
    }

    /// Moves the state, with all that follows.
    fn drive(&mut self, input: Input) {
        let from = self.state;
        if let Some((to, diagnostic)) = step(from, input) {
            self.state = to;
            self.diagnostic = diagnostic.unwrap_or(self.diagnostic);
            // The content of our packets differs from before: section 6.8.7 wants it told at once.
            self.send_now = true;
            if to != from {
                self.counters.up += u64::from(to == State::Up);
                self.counters.down += u64::from(from == State::Up && to == State::Down);
                self.events.push_back(Event::StateChanged { from, to, diagnostic: self.diagnostic });
            }
        }
        self.negotiate();
        let (remote_diagnostic, theirs) = self.last_words;
        let failure = || Liveness::Failed {
            diagnostic: self.diagnostic,
            remote_diagnostic,
            control_plane_independent: theirs && self.config.control_plane_independent,
        };
        let liveness = self.liveness.next(self.state, self.remote.map(|remote| remote.state), failure);
        if liveness != self.liveness {
            self.liveness = liveness;
            self.events.push_back(Event::LivenessChanged(liveness));
        }
    }

    /// Brings the intervals in line with configuration and state (RFC 5880 section 6.8.3).
    fn negotiate(&mut self) {
        let wanted = self.config.timing.intervals(self.state);
        if wanted != self.advertised {
            self.advertised = wanted;
            self.poll.request();
            self.send_now = true;
        }
        self.in_use = match self.state {
            // To send less often, or to expect more, waits until the peer knows of it.
            State::Up => Intervals {
                desired_min_tx: self.in_use.desired_min_tx.min(wanted.desired_min_tx),
                required_min_rx: self.in_use.required_min_rx.max(wanted.required_min_rx),
            },
            State::AdminDown | State::Down | State::Init => wanted,
        };
        self.reckon_periodic();
    }

    /// Moves the next periodic packet where the interval changed.
    fn reckon_periodic(&mut self) {
        if let Some(last_sent) = self.last_sent
            && self.transmit_interval() != self.reckoned_with
        {
            self.schedule(last_sent);
        }
    }

    fn schedule(&mut self, last_sent: Instant) {
        self.reckoned_with = self.transmit_interval();
        let jittered = self.random.jitter(self.reckoned_with, self.config.timing.detect_multiplier);
        self.next_periodic = last_sent + jittered;
    }

    /// Whether packets are sent periodically (RFC 5880 section 6.8.7): not to a peer that wants none, nor to one in
    /// Demand mode, unless we want to know whether it heard us.
    fn is_periodic(&self) -> bool {
        let Some(remote) = self.remote else { return true };
        let demand_active = remote.demand && self.state == State::Up && remote.state == State::Up;
        remote.required_min_rx.is_some() && (!demand_active || self.poll.is_active())
    }

    fn packet(&self, poll: bool, final_: bool) -> ControlPacket {
        ControlPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            poll,
            final_,
            control_plane_independent: self.config.control_plane_independent,
            demand: false,
            detect_multiplier: self.config.timing.detect_multiplier,
            my_discriminator: self.config.local_discriminator,
            your_discriminator: self.remote.map(|remote| remote.discriminator),
            desired_min_tx: Some(self.advertised.desired_min_tx),
            required_min_rx: Some(self.advertised.required_min_rx),
            required_min_echo_rx: None,
        }
    }
}
