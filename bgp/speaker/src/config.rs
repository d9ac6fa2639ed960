//! What a peer is told, and what is refused before it reaches any task.
use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use plainroute_bgp::{
    AfiSafi, Asn, Community, Families, HoldTime, LargeCommunity, Prefix, RouterId,
    policy::{Action, AsPathFilter},
    session::{GracefulRestartConfig, SessionConfig},
    wire::Role,
};

use crate::{Recorder, TcpAoKeys, TcpAoSupport};

/// The name of a peer, as its configuration calls it; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PeerName {
    fn from(name: &str) -> PeerName {
        PeerName(name.into())
    }
}

impl From<String> for PeerName {
    fn from(name: String) -> PeerName {
        PeerName(name.into())
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The password of TCP MD5 (RFC 2385) or the secret of a TCP-AO key (RFC 5925): 1 to 80 octets. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<[u8]>);

impl Password {
    /// The longest that the kernel takes, in octets.
    pub const MAX_LENGTH: usize = 80;

    /// The password, unless it is empty or longer than the kernel takes.
    pub fn new(octets: &[u8]) -> Result<Password, InvalidPassword> {
        match octets.len() {
            0 => Err(InvalidPassword::Empty),
            1..=Self::MAX_LENGTH => Ok(Password(octets.into())),
            length => Err(InvalidPassword::TooLong(length)),
        }
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Why octets are not a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPassword {
    /// An empty one would mean none; that must be said by leaving it out.
    #[error("the password is empty")]
    Empty,
    /// Beyond what the kernel takes.
    #[error("the password has {0} octets; the kernel takes 80 at most")]
    TooLong(usize),
}

/// One rule of what may enter from a peer. The first that matches decides; without one, a route is refused (RFC 8212).
///
/// ```
/// # use plainroute_speaker::ImportRule;
/// let prefix = "10.0.0.0/8".parse().unwrap();
/// let up_to_24 = ImportRule { le: Some(24), local_pref: Some(200), ..ImportRule::new(prefix) };
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImportRule {
    /// The prefix that must contain the route.
    pub prefix: Prefix,
    /// The shortest length that matches; the prefix's own where absent.
    pub ge: Option<u8>,
    /// The longest length that matches; where absent, the longest of the family if there is a `ge`, else the
    /// prefix's own.
    pub le: Option<u8>,
    /// Communities that the route must all carry.
    pub communities: Vec<Community>,
    /// Large communities that the route must all carry.
    pub large_communities: Vec<LargeCommunity>,
    /// What the AS path must be.
    pub as_path: AsPathFilter,
    /// What becomes of a route that matches. The fields below mean something where it is accepted.
    pub action: Action,
    /// LOCAL_PREF in place of what the peer sent, for the choice of the best path.
    pub local_pref: Option<u32>,
    /// Whether the route is for the kernel too, so shows up in [`crate::Learned`].
    pub install: bool,
}

impl ImportRule {
    /// Accepts exactly this prefix, whatever its attributes, for the kernel.
    pub fn new(prefix: Prefix) -> ImportRule {
        ImportRule {
            prefix,
            ge: None,
            le: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
            as_path: AsPathFilter::default(),
            action: Action::Accept,
            local_pref: None,
            install: true,
        }
    }
}

/// What holds for all peers.
#[derive(Clone, Debug, Default)]
pub struct SpeakerConfig {
    /// This process replaces one whose routes the peers may still hold: R bit in the first OPENs (RFC 4724).
    pub restarting: bool,
    /// The families whose forwarding state survived from before this process, so routes of ours still stand in the
    /// kernel: F bits until a peer was told everything. None after a boot of the host.
    pub forwarding_preserved: Families,
    /// What the kernel can do of TCP-AO; a peer that asks for more is kept down.
    pub tcp_ao: TcpAoSupport,
    /// Records what the sessions take in. The recording ends when the speaker stops.
    pub recorder: Option<Recorder>,
}

/// Whoever connects from within a prefix becomes a peer (dynamic peers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenRange {
    /// Where they may come from.
    pub prefix: Prefix,
    /// How many there may be at a time; those beyond are refused.
    pub max_peers: usize,
    /// How long one that has no session, and of which no route is kept, stays a peer.
    pub linger: Duration,
}

impl ListenRange {
    /// How long a peer without a session stays one where nobody says otherwise.
    pub const LINGER: Duration = Duration::from_secs(60);

    /// A range for that many peers.
    pub fn new(prefix: Prefix, max_peers: usize) -> ListenRange {
        ListenRange { prefix, max_peers, linger: Self::LINGER }
    }
}

/// One peer, whole, or what is to hold for each that connects from within a range. Two peers must differ in address, or
/// in interface where the address is link-local; an address of its own goes before a range, a longer prefix before a
/// shorter one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Our AS towards this peer.
    pub local_asn: Asn,
    /// The AS that the peer must be in.
    pub peer_asn: Asn,
    /// The peer's address; of a range all zeros.
    pub peer_address: IpAddr,
    /// In place of one peer, all those who connect from within a range, each by the name `NAME@ADDRESS`. See
    /// [`PeerConfig::listening`].
    pub listen_range: Option<ListenRange>,
    /// The interface over which it is reached; required where the address is link-local.
    pub interface: Option<String>,
    /// The peer's TCP port.
    pub peer_port: u16,
    /// Our end of the connection; the kernel chooses where absent.
    pub local_address: Option<IpAddr>,
    /// Our BGP Identifier towards this peer.
    pub router_id: RouterId,
    /// The TCP port on which we wait for this peer; 0 for none.
    pub listen_port: u16,
    /// Never connect; wait for the peer.
    pub passive: bool,
    /// How many hops away an external peer may be; 1 is directly connected.
    pub ebgp_multihop: u8,
    /// GTSM (RFC 5082): packets must come from at most this many hops away. Excludes `ebgp_multihop`.
    pub ttl_security: Option<u8>,
    /// TCP MD5 (RFC 2385).
    pub password: Option<Password>,
    /// TCP-AO (RFC 5925). Excludes `password`.
    pub tcp_ao: Option<TcpAoKeys>,
    /// Time between connection attempts.
    pub connect_retry: Duration,
    /// The hold time that we propose.
    pub hold_time: HoldTime,
    /// Time between KEEPALIVEs; a third of the negotiated hold time where absent.
    pub keepalive: Option<Duration>,
    /// Offer graceful restart.
    pub graceful_restart: Option<GracefulRestartConfig>,
    /// The families that we offer.
    pub families: Families,
    /// Offer IPv6 next hops for IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// Mark the begin and the end of a refresh (RFC 7313). ExaBGP 4.2 drops the session when it is to do so.
    pub enhanced_refresh: bool,
    /// Take and write messages beyond 4096 octets where both sides can (RFC 8654).
    pub extended_messages: bool,
    /// What we are to an external peer (RFC 9234): guards against route leaks.
    pub role: Option<Role>,
    /// Refuse a peer that claims no role, where we have one.
    pub role_required: bool,
    /// Ignore an external peer's routes whose path does not begin with its AS (RFC 4271 section 6.3). A route server
    /// leaves its own out (RFC 7947 section 2.2.2.1), so there it must be off.
    pub enforce_first_as: bool,
    /// The families of which we take several paths for a prefix (RFC 7911).
    pub add_path_receive: Families,
    /// How long a peer may take to end a refresh that it has begun (RFC 7313); what it has not told again by then goes.
    pub refresh_limit: Duration,
    /// How long the peer may take nothing of what we send (RFC 9687); the larger of eight minutes and twice the hold time
    /// where absent.
    pub send_hold: Option<Duration>,
    /// Accepted prefixes beyond this number reset the session.
    pub max_prefixes_in: Option<u32>,
    /// Prefixes beyond this number are not advertised, and the status says so.
    pub max_prefixes_out: Option<u32>,
    /// What may enter; nothing where empty.
    pub import: Vec<ImportRule>,
    /// Prefixes that nodes of our own AS advertise and whose preferred holder we want to know: they enter before any rule
    /// and with our AS in their path, are told by [`Speaker::followed`](crate::Speaker::followed), and are never for the kernel.
    pub followed: Arc<BTreeSet<Prefix>>,
    /// Why this peer must stay down, e.g. a secret that is missing; shown as its last error.
    pub blocked: Option<String>,
}

impl PeerConfig {
    /// A peer with the defaults: port 179, no listening, both families, nothing imported.
    pub fn new(local_asn: Asn, peer_asn: Asn, router_id: RouterId, peer_address: IpAddr) -> PeerConfig {
        PeerConfig {
            local_asn,
            peer_asn,
            peer_address,
            listen_range: None,
            interface: None,
            peer_port: 179,
            local_address: None,
            router_id,
            listen_port: 0,
            passive: false,
            ebgp_multihop: 1,
            ttl_security: None,
            password: None,
            tcp_ao: None,
            connect_retry: Duration::from_secs(1),
            hold_time: HoldTime::DEFAULT,
            keepalive: None,
            graceful_restart: None,
            families: Families::ALL,
            extended_next_hop: false,
            enhanced_refresh: true,
            extended_messages: true,
            role: None,
            role_required: false,
            enforce_first_as: true,
            add_path_receive: Families::NONE,
            refresh_limit: Duration::from_secs(300),
            send_hold: None,
            max_prefixes_in: None,
            max_prefixes_out: None,
            import: Vec::new(),
            followed: Arc::default(),
            blocked: None,
        }
    }

    /// What holds for each peer that connects from within a range; it needs a `listen_port` yet.
    pub fn listening(local_asn: Asn, peer_asn: Asn, router_id: RouterId, range: ListenRange) -> PeerConfig {
        let nowhere = nowhere(range.prefix.family());
        PeerConfig {
            listen_range: Some(range),
            passive: true,
            ..PeerConfig::new(local_asn, peer_asn, router_id, nowhere)
        }
    }

    /// The configuration of a peer that has connected from within the range.
    pub(crate) fn of_member(&self, address: IpAddr) -> PeerConfig {
        PeerConfig { listen_range: None, peer_address: address, passive: true, ..self.clone() }
    }

    /// Whether the peer is in our AS.
    pub fn internal(&self) -> bool {
        self.local_asn == self.peer_asn
    }

    pub(crate) fn session(&self, speaker: &SpeakerConfig, jitter_seed: u64) -> SessionConfig {
        SessionConfig {
            passive: self.passive,
            hold_time: self.hold_time,
            connect_retry: self.connect_retry,
            keepalive: self.keepalive,
            families: self.families,
            graceful_restart: self.graceful_restart,
            restarting: speaker.restarting,
            forwarding_preserved: speaker.forwarding_preserved,
            extended_next_hop: self.extended_next_hop,
            enhanced_refresh: self.enhanced_refresh,
            extended_messages: self.extended_messages,
            role: self.role,
            role_required: self.role_required,
            add_path_receive: self.add_path_receive,
            send_hold: self.send_hold,
            jitter_seed,
            ..SessionConfig::new(self.local_asn, self.peer_asn, self.router_id)
        }
    }

    /// What no session could be built from.
    pub(crate) fn check(&self, peer: &PeerName) -> Result<(), ApplyError> {
        let refuse = |reason: &str| Err(ApplyError::Peer { peer: peer.clone(), reason: reason.to_owned() });
        if self.ttl_security.is_some() && self.ebgp_multihop > 1 {
            return refuse("ttlSecurity excludes ebgpMultihop above 1");
        }
        if self.ebgp_multihop == 0 || self.ttl_security == Some(0) {
            return refuse("a peer is at least one hop away");
        }
        if is_link_local(self.peer_address) && self.interface.is_none() {
            return refuse("a link-local peer needs an interface");
        }
        if self.local_address.is_some_and(|local| local.is_ipv4() != self.peer_address.is_ipv4()) {
            return refuse("localAddress and peerAddress are of different families");
        }
        if let Some(range) = &self.listen_range {
            self.check_range(range).map_or(Ok(()), refuse)?;
        }
        if self.passive && self.listen_port == 0 {
            return refuse("a passive peer needs a listenPort");
        }
        if let Err(error) = crate::inbound::policy(self) {
            return refuse(&format!("import: {error}"));
        }
        if self.password.is_some() && self.tcp_ao.is_some() {
            return refuse("a session is signed by TCP MD5 or by TCP-AO, not by both");
        }
        if self.families.is_empty() {
            return refuse("no family is left to exchange");
        }
        Ok(())
    }

    /// What is wrong with a range of peers.
    fn check_range(&self, range: &ListenRange) -> Option<&'static str> {
        if self.peer_address != nowhere(range.prefix.family()) || self.interface.is_some() {
            return Some("peerAddress, interface and listenRange exclude each other");
        }
        if is_link_local(range.prefix.address()) {
            return Some("listenRange: link-local addresses say nothing without an interface");
        }
        if self.listen_port == 0 && self.blocked.is_none() {
            return Some("listenRange needs a listenPort");
        }
        if range.max_peers == 0 {
            return Some("listenRange: there is room for at least one peer");
        }
        // A connection has the range's keys, which roll by other rules than those of one peer.
        self.tcp_ao.is_some().then_some("listenRange: its peers are signed by TCP MD5, not by TCP-AO")
    }

    /// Whether segments are to be signed, in either way.
    pub(crate) fn is_signed(&self) -> bool {
        self.password.is_some() || self.tcp_ao.is_some()
    }

    /// Why the peer must stay down; none where it may try.
    pub(crate) fn refusal(&self, support: &TcpAoSupport) -> Option<String> {
        let unsigned = || self.tcp_ao.as_ref().and_then(|keys| support.refuses(keys)).map(str::to_owned);
        self.blocked.clone().or_else(unsigned)
    }

    /// What tells an incoming connection's peer apart.
    pub(crate) fn source(&self) -> Source {
        let scope = if is_link_local(self.peer_address) { self.interface.clone() } else { None };
        Source { address: self.peer_address, interface: scope }
    }
}

/// The address of nobody.
fn nowhere(family: AfiSafi) -> IpAddr {
    match family {
        AfiSafi::Ipv4Unicast => Ipv4Addr::UNSPECIFIED.into(),
        AfiSafi::Ipv6Unicast => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Where a connection comes from: an address, with its interface where the address alone says too little.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source {
    pub(crate) address: IpAddr,
    pub(crate) interface: Option<String>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Whether the address means nothing without an interface.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Why a set of peers was refused. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// One peer makes no sense.
    #[error("peer {peer}: {reason}")]
    Peer {
        /// The peer.
        peer: PeerName,
        /// What is wrong with it.
        reason: String,
    },
    /// A connection from this address could be of either.
    #[error("peers {first} and {second} have the same address {address}")]
    SameAddress {
        /// The one.
        first: PeerName,
        /// The other.
        second: PeerName,
        /// The address, with the interface where it is link-local.
        address: String,
    },
    /// Two ranges are the same.
    #[error("peers {first} and {second} have the same range {range}")]
    SameRange {
        /// The one.
        first: PeerName,
        /// The other.
        second: PeerName,
        /// The range.
        range: Prefix,
    },
    /// A port cannot be listened on.
    #[error("cannot listen on TCP port {port}: {source}{}", missing_capability(*port, source))]
    Listen {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The speaker was stopped.
    #[error("the speaker was stopped")]
    Stopped,
}

fn missing_capability(port: u16, error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied && port < 1024 {
        " (ports below 1024 need the capability CAP_NET_BIND_SERVICE)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_port_names_the_capability() {
        let denied = ApplyError::Listen { port: 179, source: io::ErrorKind::PermissionDenied.into() };
        assert!(denied.to_string().contains("CAP_NET_BIND_SERVICE"), "{denied}");
        let taken = ApplyError::Listen { port: 179, source: io::ErrorKind::AddrInUse.into() };
        assert!(!taken.to_string().contains("CAP_"), "{taken}");
    }

    #[test]
    fn a_password_is_never_printed_and_never_empty() {
        let password = Password::new(b"s3cret").unwrap();
        assert!(!format!("{password:?}").contains("s3cret"));
        assert_eq!(Password::new(b""), Err(InvalidPassword::Empty));
        assert_eq!(Password::new(&[b'x'; 81]), Err(InvalidPassword::TooLong(81)));
    }
}
