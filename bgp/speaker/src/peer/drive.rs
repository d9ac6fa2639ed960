//! The peer's task between two waits: what the session asks for is done, what happened is taken in, and what is
//! pending is packed and written. Nothing in here awaits.
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_bgp::{
    Families,
    record::Input,
    rib::PrefixLimit,
    session::{Action, ConnectionId, DownReason, Event, Negotiated, State, StopReason},
    wire::{CeaseReason, iana::error},
};
use tracing::{debug, info, warn};

use super::{Attempt, Peer, now};
use crate::{
    connection::{Ready, linger},
    next_hop::{interface_addresses, owner},
    socket,
    status::Telling,
};

/// So much waits for TCP at most before more is packed.
const OUTPUT_HIGH: usize = 64 * 1024;
/// How long a peer that sent too many prefixes stays down.
const MAX_PREFIX_PAUSE: Duration = Duration::from_secs(60);

impl Peer {
    /// Does what the session asks for and takes in what happened.
    pub(super) fn drain(&mut self) {
        loop {
            while let Some(action) = self.session.poll_action() {
                match action {
                    Action::Connect(id) => self.connect(id),
                    Action::Send(id, bytes) => {
                        if let Some((_, connection)) =
                            self.connections.iter_mut().find(|(other, _)| *other == id)
                        {
                            connection.output.extend_from_slice(&bytes);
                        }
                    }
                    Action::Close(id) => self.close(id),
                }
            }
            let Some(event) = self.session.poll_event() else { return };
            self.note(event);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.id == id) {
            self.begin_with_next_key();
            let text = format!("no answer from {}{}", attempt.remote, self.why_no_answer());
            if self.record.set_error(text.clone(), Telling::ConnectionOnly) {
                warn!(peer = %self.name, reason = %text, "no session");
            }
        }
        if let Some(place) = self.connections.iter().position(|(other, _)| *other == id) {
            let (_, connection) = self.connections.swap_remove(place);
            self.lingering.spawn(linger(connection));
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::StateChanged { from, to } => {
                self.record.set_state(to, now());
                // An absent peer goes round these for ever; that is no news.
                if from.max(to) < State::OpenSent {
                    debug!(peer = %self.name, %from, %to, "session");
                } else {
                    info!(peer = %self.name, %from, %to, "session");
                }
            }
            Event::Established(id, negotiated) => self.established(id, &negotiated),
            Event::Down(reason) => self.down(&reason),
            Event::Failed(reason) => {
                let connecting = self.connect_error.take().filter(|_| reason == DownReason::ConnectionLost);
                let text = connecting.unwrap_or_else(|| self.describe(&reason));
                // Said once, however often it is tried.
                if self.record.set_error(text.clone(), telling(&reason)) {
                    warn!(peer = %self.name, reason = %text, "no session");
                }
            }
            Event::Update(update, findings) => {
                for finding in findings {
                    warn!(
                        peer = %self.name, attribute = finding.attribute, verdict = ?finding.verdict,
                        reason = finding.reason, "malformed UPDATE"
                    );
                }
                let limit = self.inbound.apply(&update);
                if let Some(family) = update.end_of_rib {
                    self.monitor.received(self.inbound.take_changes());
                    self.monitor.end_of_rib(family);
                }
                match limit {
                    Some(PrefixLimit::Near { count, limit }) => {
                        warn!(peer = %self.name, count, limit, "80 % of the accepted prefixes are reached");
                    }
                    Some(PrefixLimit::Exceeded { limit }) => self.too_many_prefixes(limit),
                    None => {}
                }
            }
            Event::RefreshRequested(family) => {
                info!(peer = %self.name, %family, "the peer asks for all routes again");
                self.outbound.refresh(family);
            }
            Event::RefreshBegan(family) => {
                if let Some((_, negotiated)) = self.session.established() {
                    self.inbound.begin_refresh(now(), family, &self.config, negotiated);
                }
            }
            Event::RefreshEnded(family) => self.inbound.end_refresh(family),
        }
    }

    /// What an operator should read; a number that was configured wrongly is named.
    fn describe(&self, reason: &DownReason) -> String {
        match reason {
            DownReason::NotificationSent(sent)
                if (sent.code, sent.subcode) == (error::OPEN, error::BAD_PEER_AS) =>
            {
                format!("{reason} (the peer is not in AS {}, as peerASN says)", self.config.peer_asn)
            }
            DownReason::NotificationReceived(received)
                if (received.code, received.subcode) == (error::OPEN, error::BAD_PEER_AS) =>
            {
                format!(
                    "{reason} (the peer does not take us for AS {}, as localASN says)",
                    self.config.local_asn
                )
            }
            _ => reason.to_string(),
        }
    }

    fn too_many_prefixes(&mut self, limit: u32) {
        let text = format!("more than {limit} prefixes; down for {} s", MAX_PREFIX_PAUSE.as_secs());
        warn!(peer = %self.name, limit, "the peer sent more prefixes than it may");
        self.input(Input::Stop(StopReason::Cease(CeaseReason::MaxPrefixes, text.clone())));
        self.record.set_error(text, Telling::Cause);
        self.resume_at = Some(now() + MAX_PREFIX_PAUSE);
    }

    fn established(&mut self, id: ConnectionId, negotiated: &Arc<Negotiated>) {
        let connection = self.connections.iter().find(|(other, _)| *other == id);
        let ends =
            connection.and_then(|(_, c)| Some((c.stream.local_addr().ok()?, c.stream.peer_addr().ok()?)));
        self.record.set_established(now(), ends, negotiated);
        self.look_at_keys = Some(now());
        self.inbound.session_up(now(), &self.config, negotiated);
        self.peer_restarts = false;
        // Without its ends the connection is lost already, and the event that says so is next.
        let Some((local, remote)) = ends else { return };
        self.monitor.session_up(negotiated, (local, remote), &self.inbound);
        self.inbound.watch(self.monitor.wants_received());
        let addresses = interface_addresses().unwrap_or_else(|error| {
            warn!(peer = %self.name, %error, "cannot list interface addresses for next hops");
            Vec::new()
        });
        let interface = self.config.interface.clone();
        self.record.interface = interface.or_else(|| owner(local.ip(), &addresses).map(str::to_owned));
        self.outbound.session_up(negotiated, local.ip(), &addresses);
        info!(
            peer = %self.name, %local, %remote, families = ?negotiated.families,
            hold_time = %negotiated.hold_time, "established"
        );
        for family in negotiated.families.iter() {
            if let Some(reason) = self.outbound.not_advertised(family, &self.config) {
                warn!(peer = %self.name, %family, %reason, "not advertised");
            }
        }
    }

    fn down(&mut self, reason: &DownReason) {
        if let Some(negotiated) = self.record.clear_established() {
            self.monitor.received(self.inbound.take_changes());
            self.monitor.session_down(reason, &negotiated);
            self.inbound.watch(false);
            self.inbound.session_down(now(), reason, &negotiated);
            self.note_restart(reason);
        }
        self.outbound.session_down();
        match reason {
            DownReason::Stopped(_) => info!(peer = %self.name, %reason, "session ended"),
            _ => {
                self.record.set_error(self.describe(reason), telling(reason));
                warn!(peer = %self.name, %reason, "session lost");
            }
        }
    }

    /// Packs and writes until TCP is full or there is nothing left to say.
    pub(super) fn flush(&mut self) {
        let established = self.session.established().map(|(id, negotiated)| (id, Arc::clone(negotiated)));
        let mut broken = Vec::new();
        for (id, connection) in &mut self.connections {
            let negotiated =
                established.as_ref().filter(|(other, _)| other == id).map(|(_, negotiated)| negotiated);
            loop {
                if let Some(negotiated) = negotiated {
                    let mut packed = connection.output.len();
                    while packed < OUTPUT_HIGH
                        && self.outbound.poll_update(&self.config, negotiated, &mut connection.output)
                    {
                        self.record.updates_sent += 1;
                        if self.monitor.wants_sent() {
                            self.monitor.sent(&connection.output[packed..]);
                        }
                        packed = connection.output.len();
                    }
                }
                match connection.write() {
                    Ok(true) if negotiated.is_some() => {
                        self.session.handle(now(), Input::Sent);
                    }
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => {
                        broken.push(*id);
                        break;
                    }
                }
            }
        }
        for id in broken {
            // What the peer said last, a NOTIFICATION perhaps, is still to be read.
            self.read(id, Ready { read: true, write: false });
            self.input(Input::Closed(id));
            self.connections.retain(|(other, _)| *other != id);
            self.drain();
        }
        let complete = established.is_some_and(|(_, negotiated)| {
            negotiated.families.iter().all(|family| self.outbound.rib().end_of_rib_sent(family))
        });
        if complete {
            // Every route is told: our start or restart is over (RFC 4724 section 4.1), for later sessions too.
            // The session was built from the same two, so it need not hear it twice.
            let restarting = std::mem::replace(&mut self.speaker.restarting, false);
            let before = std::mem::replace(&mut self.speaker.forwarding_preserved, Families::ALL);
            if restarting || before != Families::ALL {
                self.input(Input::RestartComplete);
            }
        }
    }

    /// Whether everything desired was handed to TCP, or there is no session to hand it to.
    pub(super) fn is_flushed(&self) -> bool {
        self.session.established().is_none_or(|(id, _)| {
            let connection = self.connections.iter().find(|(other, _)| *other == id);
            self.outbound.rib().pending_empty() && connection.is_none_or(|(_, c)| c.output.is_empty())
        })
    }

    fn connect(&mut self, id: ConnectionId) {
        match socket::connecting(&self.config, self.begin_with) {
            Ok((socket, remote)) => {
                let keys = self.config.tcp_ao.iter().flat_map(|keys| keys.iter().cloned()).collect();
                self.attempt = Some(Attempt { id, remote, keys, stream: Box::pin(socket.connect(remote)) });
            }
            Err(error) => self.connect_failed(id, &error),
        }
    }

    pub(super) fn connect_failed(&mut self, id: ConnectionId, error: &io::Error) {
        self.begin_with_next_key();
        let port = self.config.peer_port;
        let hint = if error.kind() == io::ErrorKind::TimedOut { self.why_no_answer() } else { String::new() };
        let text = format!("cannot connect to {} port {port}: {error}{hint}", self.config.source());
        self.connect_error = Some(text);
        self.input(Input::ConnectFailed(id));
    }

    /// What may keep a peer from answering, in brackets. A kernel drops what is signed wrongly without a word.
    fn why_no_answer(&mut self) -> String {
        self.record.md5.look();
        let hint =
            self.record.md5.hint(&self.config).or(match (&self.config.password, &self.config.tcp_ao) {
                (Some(_), _) => Some("is the password the same there?"),
                (None, Some(_)) => Some("are the TCP-AO keys the same there?"),
                (None, None) => None,
            });
        hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
    }

    /// Who only waits for the peer never meets a lack of answer, so the counters alone tell why nobody comes.
    pub(super) fn look_for_signatures(&mut self, now: Instant) {
        if !self.config.is_signed() || !self.record.md5.handle_timeout(now) {
            return;
        }
        let waiting = self.config.passive
            && self.config.refusal(&self.speaker.tcp_ao).is_none()
            && self.session.established().is_none();
        if let Some(hint) = self.record.md5.hint(&self.config).filter(|_| waiting) {
            let text = format!("no connection from {} ({hint})", self.config.source());
            if self.record.set_error(text.clone(), Telling::ConnectionOnly) {
                warn!(peer = %self.name, reason = %text, "no session");
            }
        }
    }
}

/// A lost connection says nothing of its cause; a NOTIFICATION does.
fn telling(reason: &DownReason) -> Telling {
    match reason {
        DownReason::ConnectionLost | DownReason::Collision | DownReason::PeerRestarted => {
            Telling::ConnectionOnly
        }
        DownReason::Stopped(_)
        | DownReason::NotificationSent(_)
        | DownReason::NotificationReceived(_)
        | DownReason::SendHoldTimerExpired => Telling::Cause,
    }
}
