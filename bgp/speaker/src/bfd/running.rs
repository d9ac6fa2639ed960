//! One session with the socket that it sends from.
use std::time::{Duration, Instant, SystemTime};

use plainroute_bfd::{ControlPacket, Discriminator, Event, ReceivedPacket, Session, SessionConfig, Timing};

use super::{
    Target,
    report::{RunningReport, SessionReport},
    socket::Sender,
    target::Route,
};

/// A session that is being ended: held down until the peer has noticed (RFC 5880 section 6.8.16).
#[derive(Debug)]
struct Leaving {
    packet: Option<ControlPacket>,
    /// While the peer may not have heard, its packet is repeated at the pace at which it expects packets: an interval
    /// of one second as AdminDown allows would make one lost packet a failure.
    every: Duration,
    next: Instant,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) target: Target,
    pub(super) route: Route,
    session: Session,
    sender: Sender,
    since: SystemTime,
    leaving: Option<Leaving>,
    send_errors: u64,
    /// Why the last packet did not leave.
    send_error: Option<String>,
}

impl Running {
    pub(super) fn new(
        now: Instant,
        target: Target,
        route: Route,
        sender: Sender,
        discriminator: Discriminator,
        timing: Timing,
        jitter_seed: u64,
    ) -> Running {
        let config = SessionConfig {
            local_discriminator: discriminator,
            timing,
            // What drives it shares no process with BGP, or whoever embeds it knows what it does.
            control_plane_independent: true,
            jitter_seed,
        };
        Running {
            target,
            route,
            session: Session::new(now, config),
            sender,
            since: SystemTime::now(),
            leaving: None,
            send_errors: 0,
            send_error: None,
        }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn set_timing(&mut self, timing: Timing) {
        if self.session.timing() != timing {
            self.session.handle_timing(timing);
        }
    }

    /// Holds it down, so that it may end.
    pub(super) fn leave(&mut self, now: Instant) {
        if self.leaving.is_none() {
            let every = self.session.transmit_interval().as_duration();
            self.session.handle_admin_down(now);
            self.leaving = Some(Leaving { packet: None, every, next: now + every });
        }
    }

    /// It is wanted again.
    pub(super) fn stay(&mut self) {
        if self.leaving.take().is_some() {
            self.session.handle_admin_up();
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether it may be forgotten.
    pub(super) fn has_left(&self, now: Instant) -> bool {
        self.is_leaving() && self.session.may_end_at().is_some_and(|at| at <= now)
    }

    pub(super) fn handle_packet(&mut self, arrived: Instant, packet: &ReceivedPacket) {
        // The session counts what it discards.
        let _ = self.session.handle_packet(arrived, packet);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(|leaving| leaving.next);
        let end = self.session.may_end_at();
        [self.session.poll_timeout(), leaving, end].into_iter().flatten().min()
    }

    /// Does what is due; true where its report changed in what clients act on.
    pub(super) fn serve(&mut self, now: Instant) -> bool {
        if self.session.poll_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
        }
        let failing = self.send_error.is_some();
        while let Some(packet) = self.session.poll_transmit(now) {
            self.send(&packet);
            if let Some(leaving) = &mut self.leaving {
                leaving.packet = Some(packet);
                leaving.next = now + leaving.every;
            }
        }
        if let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.next <= now) {
            leaving.next = now + leaving.every;
            if let Some(packet) = leaving.packet {
                self.send(&packet);
            }
        }
        let mut changed = failing != self.send_error.is_some();
        while let Some(event) = self.session.poll_event() {
            changed = true;
            match event {
                Event::StateChanged { .. } => self.since = SystemTime::now(),
                Event::LivenessChanged(_) => {}
            }
        }
        changed
    }

    fn send(&mut self, packet: &ControlPacket) {
        match self.sender.send(&packet.encode()) {
            Ok(()) => self.send_error = None,
            Err(error) => {
                self.send_errors += 1;
                // The text is made once for a row of failures.
                self.send_error.get_or_insert_with(|| error.to_string());
            }
        }
    }

    pub(super) fn report(&self) -> SessionReport {
        let session = &self.session;
        let running = RunningReport {
            local_discriminator: session.local_discriminator(),
            multi_hop: self.route.path.hops() == plainroute_bfd::Hops::Multi,
            state: session.state(),
            diagnostic: session.diagnostic(),
            since: self.since,
            liveness: session.liveness(),
            remote: session.remote().copied(),
            timing: session.timing(),
            transmit_interval: session.transmit_interval().as_duration(),
            detection_time: session.detection_time(),
            counters: *session.counters(),
            send_errors: self.send_errors,
        };
        let problem = self.send_error.as_ref().map(|error| format!("packets cannot be sent: {error}"));
        SessionReport { problem, running: Some(running) }
    }
}
