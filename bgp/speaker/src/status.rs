//! What an operator asks of a peer: its state, since when, how much it carries, and what went wrong last.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Instant, SystemTime},
};

use plainroute_bgp::{
    AfiSafi, Asn, RouterId,
    session::{Negotiated, Session, SessionCounters, State},
};

use crate::{
    Authentication, ListenRange, Md5Failures, PathState, PeerConfig, PeerName, SpeakerConfig, TcpAoFailures,
    TcpAoState, inbound::Inbound, learned::Teaching, md5::Md5Watch, outbound::Outbound,
};

/// The status of every configured peer.
pub type Peers = BTreeMap<PeerName, PeerStatus>;

/// The status of one peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// Our AS towards it.
    pub local_asn: Asn,
    /// Its AS as configured.
    pub peer_asn: Asn,
    /// Its address as configured.
    pub peer_address: IpAddr,
    /// Its interface as configured.
    pub interface: Option<String>,
    /// What has become of the range, where it stands for all who connect from within one.
    pub listening: Option<Listening>,
    /// The range that it has connected from within, by the name of its configuration.
    pub member_of: Option<PeerName>,
    /// The state of the session.
    pub state: State,
    /// When it entered the state: the basis of the uptime.
    pub since: Instant,
    /// The same by the wall clock, for people.
    pub since_time: SystemTime,
    /// What went wrong last, and when; kept after the session is back.
    pub last_error: Option<(String, SystemTime)>,
    /// Why the peer is kept down, from its configuration or for what the kernel cannot do.
    pub blocked: Option<String>,
    /// How segments are signed.
    pub authentication: Authentication,
    /// What is known of the path beside BGP; see [`crate::Speaker::set_paths`].
    pub path: PathState,
    /// What was agreed with the peer; only while Established.
    pub negotiated: Option<Arc<Negotiated>>,
    /// Our end of the connection; only while Established.
    pub local_address: Option<SocketAddr>,
    /// The peer's end of the connection; only while Established.
    pub remote_address: Option<SocketAddr>,
    /// The routes of each configured family.
    pub families: BTreeMap<AfiSafi, FamilyStatus>,
    /// How the kernel's counters of TCP MD5 failures grew since the peer was last Established, or was given another
    /// configuration that took a new session. They are those of the whole network namespace, not of the peer alone.
    /// Looked at every five seconds where there is a password, else when the peer does not answer. None where the
    /// kernel does not count.
    pub md5_failures: Option<Md5Failures>,
    /// The same of TCP-AO.
    pub tcp_ao_failures: Option<TcpAoFailures>,
    /// What was counted since the peer was added.
    pub counters: Counters,
}

/// A range from within which peers connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The range.
    pub range: ListenRange,
    /// How many peers there are of it now.
    pub peers: usize,
    /// How many connections were refused because there were as many peers as may be.
    pub refused: u64,
}

/// The routes of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyStatus {
    /// Both sides offered the family, in this session.
    pub negotiated: bool,
    /// Prefixes that we want to advertise.
    pub originated: usize,
    /// Prefixes that the peer was sent and not withdrawn.
    pub advertised: usize,
    /// Prefixes of the peer that the import rules accepted.
    pub accepted: usize,
    /// Of those, how many wait for a restarting peer to send them again.
    pub stale: usize,
    /// Announcements of the peer that were refused, in this session.
    pub rejected: u64,
    /// Why some or all of what is originated is not advertised.
    pub not_advertised: Option<String>,
    /// We sent End-of-RIB in this session.
    pub end_of_rib_sent: bool,
    /// The peer sent End-of-RIB in this session.
    pub end_of_rib_received: bool,
}

/// What was counted since the peer was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How often the session became Established.
    pub established: u64,
    /// How often it was lost after that.
    pub lost: u64,
    /// UPDATE messages that came.
    pub updates_received: u64,
    /// UPDATE messages that left.
    pub updates_sent: u64,
    /// Messages of every kind that came.
    pub messages_received: u64,
    /// Messages of every kind that left.
    pub messages_sent: u64,
    /// UPDATEs in which RFC 7606 found something and the session went on.
    pub malformed_updates: u64,
}

/// What a peer's task publishes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PeerView {
    pub(crate) status: PeerStatus,
    pub(crate) teaching: Teaching,
}

impl PeerView {
    /// The view of a peer whose task has not begun.
    pub(crate) fn idle(config: &PeerConfig, speaker: &SpeakerConfig) -> PeerView {
        let session = Session::new(config.session(&SpeakerConfig::default(), 0));
        let (inbound, outbound) = (Inbound::new(config), Outbound::new(config));
        Record::new(Instant::now()).view(config, speaker, &session, &inbound, &outbound)
    }
}

/// How much an error tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// Why there is no session.
    Cause,
    /// Only that TCP did not come about or ended.
    ConnectionOnly,
}

/// What the peer's task remembers for its status.
#[derive(Debug)]
pub(crate) struct Record {
    state: State,
    since: Instant,
    since_time: SystemTime,
    last_error: Option<(String, SystemTime)>,
    error_is_telling: bool,
    session: Option<EstablishedSession>,
    router_id: Option<RouterId>,
    /// Over which the last session ran.
    pub(crate) interface: Option<String>,
    /// Of sessions before the present one.
    former: SessionCounters,
    pub(crate) updates_sent: u64,
    pub(crate) md5: Md5Watch,
    /// The TCP-AO keys that the session uses, as of the last look.
    pub(crate) tcp_ao: Option<TcpAoState>,
    pub(crate) path: PathState,
}

#[derive(Debug)]
struct EstablishedSession {
    negotiated: Arc<Negotiated>,
    /// Ours and the peer's.
    ends: Option<(SocketAddr, SocketAddr)>,
}

impl Record {
    pub(crate) fn new(now: Instant) -> Record {
        Record {
            state: State::Idle,
            since: now,
            since_time: SystemTime::now(),
            last_error: None,
            error_is_telling: false,
            session: None,
            router_id: None,
            interface: None,
            former: SessionCounters::default(),
            updates_sent: 0,
            md5: Md5Watch::new(now),
            tcp_ao: None,
            path: PathState::Unknown,
        }
    }

    pub(crate) fn set_state(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.since_time = SystemTime::now();
    }

    /// Takes what went wrong; true where that is news. A connection that does not come about says less than the
    /// NOTIFICATION before it, which most likely is its cause; so that one stays until the session stands again.
    pub(crate) fn set_error(&mut self, text: String, telling: Telling) -> bool {
        if telling == Telling::ConnectionOnly && self.error_is_telling {
            return false;
        }
        self.error_is_telling = telling == Telling::Cause;
        let new = self.last_error.as_ref().is_none_or(|(last, _)| *last != text);
        self.last_error = Some((text, SystemTime::now()));
        new
    }

    pub(crate) fn set_established(
        &mut self,
        now: Instant,
        ends: Option<(SocketAddr, SocketAddr)>,
        negotiated: &Arc<Negotiated>,
    ) {
        self.router_id = Some(negotiated.peer_open.router_id);
        self.error_is_telling = false;
        self.md5 = Md5Watch::new(now);
        self.session = Some(EstablishedSession { negotiated: Arc::clone(negotiated), ends });
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.ends().map(|(local, _)| local)
    }

    fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.session.as_ref()?.ends
    }

    pub(crate) fn clear_established(&mut self) -> Option<Arc<Negotiated>> {
        self.tcp_ao = None;
        self.session.take().map(|session| session.negotiated)
    }

    fn authentication(&self, config: &PeerConfig) -> Authentication {
        match (&config.password, &config.tcp_ao) {
            (_, Some(_)) => Authentication::TcpAo(self.tcp_ao.clone()),
            (Some(_), None) => Authentication::Md5,
            (None, None) => Authentication::None,
        }
    }

    /// The session is replaced by another; what it counted is kept.
    pub(crate) fn keep_counters(&mut self, counters: SessionCounters) {
        self.former = sum(self.former, counters);
    }

    pub(crate) fn view(
        &self,
        config: &PeerConfig,
        speaker: &SpeakerConfig,
        session: &Session,
        inbound: &Inbound,
        outbound: &Outbound,
    ) -> PeerView {
        let negotiated = self.session.as_ref().map(|session| &session.negotiated);
        let family = |family: AfiSafi| {
            let status = FamilyStatus {
                negotiated: negotiated.is_some_and(|negotiated| negotiated.families.contains(family)),
                originated: outbound.originated(family),
                advertised: outbound.rib().sent(family),
                accepted: inbound.rib().count(family),
                stale: inbound.rib().stale(family),
                rejected: inbound.rib().rejected(family).total(),
                not_advertised: outbound.not_advertised(family, config),
                end_of_rib_sent: outbound.rib().end_of_rib_sent(family),
                end_of_rib_received: inbound.end_of_rib_received(family),
            };
            (family, status)
        };
        let counted = sum(self.former, session.counters());
        let status = PeerStatus {
            local_asn: config.local_asn,
            peer_asn: config.peer_asn,
            peer_address: config.peer_address,
            interface: config.interface.clone(),
            // The registry knows.
            listening: None,
            member_of: None,
            state: self.state,
            since: self.since,
            since_time: self.since_time,
            last_error: self.last_error.clone(),
            blocked: config.refusal(&speaker.tcp_ao),
            authentication: self.authentication(config),
            path: self.path.clone(),
            negotiated: negotiated.cloned(),
            local_address: self.ends().map(|(local, _)| local),
            remote_address: self.ends().map(|(_, remote)| remote),
            families: config.families.iter().map(family).collect(),
            md5_failures: self.md5.growth().md5,
            tcp_ao_failures: self.md5.growth().tcp_ao,
            counters: Counters {
                established: counted.established,
                lost: counted.lost,
                updates_received: counted.updates_received,
                updates_sent: self.updates_sent,
                messages_received: counted.messages_received,
                messages_sent: counted.messages_sent + self.updates_sent,
                malformed_updates: counted.malformed_updates,
            },
        };
        let teaching = Teaching {
            internal: config.internal(),
            asn: config.peer_asn,
            // Only asked for where there are routes, so after a session.
            router_id: self.router_id.unwrap_or(config.router_id),
            address: config.peer_address,
            interface: self.interface.clone(),
            routes: inbound.routes(),
            followed: inbound.followed(),
        };
        PeerView { status, teaching }
    }
}

fn sum(a: SessionCounters, b: SessionCounters) -> SessionCounters {
    SessionCounters {
        established: a.established + b.established,
        lost: a.lost + b.lost,
        messages_received: a.messages_received + b.messages_received,
        messages_sent: a.messages_sent + b.messages_sent,
        updates_received: a.updates_received + b.updates_received,
        malformed_updates: a.malformed_updates + b.malformed_updates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_follows_from_a_cause_does_not_cover_it() {
        let mut record = Record::new(Instant::now());
        let last =
            |record: &Record| record.last_error.as_ref().map(|(text, _)| text.clone()).unwrap_or_default();
        assert!(record.set_error("connection refused".to_owned(), Telling::ConnectionOnly));
        assert!(record.set_error("Bad Peer AS".to_owned(), Telling::Cause));
        assert!(!record.set_error("connection refused".to_owned(), Telling::ConnectionOnly));
        assert_eq!(last(&record), "Bad Peer AS");
        assert!(record.set_error("Unacceptable Hold Time".to_owned(), Telling::Cause));
        assert_eq!(last(&record), "Unacceptable Hold Time");
    }
}
