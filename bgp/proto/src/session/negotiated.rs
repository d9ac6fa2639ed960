//! Our OPEN, the checks on the peer's, and what the two amount to (RFC 4271 sections 4.2 and 6.2, RFC 5492).
use std::time::Duration;

use bytes::Bytes;

use super::SessionConfig;
use crate::{
    AfiSafi, Families, HoldTime,
    wire::{
        AddPathFamily, Capability, CodecContext, GracefulRestart, GracefulRestartFamily, LongLivedFamily,
        Notification, Open, Role,
        frame::{MAX_EXTENDED_LENGTH, MAX_LENGTH},
        iana::error,
    },
};

/// What both sides agreed on; computed once, then only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Families that both offered.
    pub families: Families,
    /// What the wire format depends on.
    pub context: CodecContext,
    /// The smaller of both hold times.
    pub hold_time: HoldTime,
    /// Time between our KEEPALIVEs; `None` where the hold time is zero.
    pub keepalive: Option<Duration>,
    /// What the peer said of graceful restart, where both sides offer it.
    pub graceful_restart: Option<GracefulRestart>,
    /// What the peer said of long-lived graceful restart, where both sides offer it (RFC 9494); else empty.
    pub long_lived: Vec<LongLivedFamily>,
    /// The peer understands ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// What we are to the peer (RFC 9234): as configured, and not contradicted by it.
    pub role: Option<Role>,
    /// The longest message that we take: 65535 octets where we offered it (RFC 8654), OPEN and KEEPALIVE apart.
    pub longest_received: usize,
    /// The peer's OPEN.
    pub peer_open: Open,
    /// The peer's OPEN as it came, header and all.
    pub peer_open_octets: Bytes,
    /// Our OPEN.
    pub local_open: Open,
}

impl Negotiated {
    /// Whether our OPEN had the N bit (RFC 8538).
    pub(super) fn local_notification_restart(&self) -> bool {
        self.local_open.graceful_restart().is_some_and(|ours| ours.notification)
    }

    /// Both sides set the N bit: a NOTIFICATION keeps routes, so one that shall not is a Hard Reset (RFC 8538).
    pub fn notification_restart(&self) -> bool {
        self.local_notification_restart()
            && self.graceful_restart.as_ref().is_some_and(|peer| peer.notification)
    }

    /// The families whose routes stay while the peer restarts.
    pub fn retained_families(&self) -> Families {
        let peer = self.graceful_restart.iter().flat_map(|peer| &peer.families);
        peer.map(|family| family.family).collect::<Families>().intersection(self.families)
    }

    /// The families whose stale routes may go on waiting: the peer is back and forwarded all the time (F bit).
    pub fn forwarding_preserved(&self) -> Families {
        let peer = self.graceful_restart.iter().flat_map(|peer| &peer.families);
        peer.filter(|family| family.forwarding_preserved).map(|family| family.family).collect()
    }

    /// How much longer than its restart time the peer's routes of `family` wait for it (RFC 9494 section 4.2).
    pub fn long_lived_stale_time(&self, family: AfiSafi) -> Option<Duration> {
        let said = self.long_lived.iter().find(|said| said.family == family)?;
        let kept = said.stale_time > 0 && self.retained_families().contains(family);
        kept.then(|| Duration::from_secs(u64::from(said.stale_time)))
    }

    /// The families whose long-lived stale routes may go on waiting for a peer that is back (RFC 9494 section
    /// 4.2, F bit).
    pub fn long_lived_preserved(&self) -> Families {
        let said = self.long_lived.iter().filter(|said| said.forwarding_preserved);
        said.map(|said| said.family).collect()
    }

    /// How long the peer's routes wait for it: its restart time.
    pub fn restart_time(&self) -> Duration {
        Duration::from_secs(self.graceful_restart.as_ref().map_or(0, |peer| u64::from(peer.restart_time)))
    }

    /// The peer says that it has restarted (R bit).
    pub fn peer_restarted(&self) -> bool {
        self.graceful_restart.as_ref().is_some_and(|peer| peer.restarting)
    }

    /// Reads the peer's OPEN against ours; the error is the NOTIFICATION that it deserves.
    pub(super) fn new(
        config: &SessionConfig,
        local: &Open,
        peer: Open,
        peer_open_octets: Bytes,
    ) -> Result<Negotiated, Notification> {
        if peer.asn != config.peer_asn {
            return Err(Notification::open(error::BAD_PEER_AS));
        }
        // RFC 6286 section 2.2: within an AS the identifiers must differ; across ASes they may be equal.
        if config.internal() && peer.router_id == config.router_id {
            return Err(Notification::open(error::BAD_BGP_IDENTIFIER));
        }
        let families = peer.families().intersection(config.families);
        if families.is_empty() {
            return Err(no_common_family(config.families));
        }
        let role = agreed_role(config, &peer)?;
        let hold_time = local.hold_time.min(peer.hold_time);
        let longest = hold_time.keepalive_interval();
        let ipv6_next_hop = local.extended_next_hop().intersection(peer.extended_next_hop());
        Ok(Negotiated {
            families,
            context: CodecContext {
                four_octet_asn: peer.four_octet_asn(),
                internal: config.internal(),
                ipv4_over_ipv6: ipv6_next_hop.contains(AfiSafi::Ipv4Unicast),
                // RFC 8654 section 4: each side says what it takes.
                max_message_length: longest_message(&peer),
                add_path_receive: add_path(local, &peer, families),
                add_path_send: add_path(&peer, local, families),
                enhanced_refresh: [local, &peer]
                    .iter()
                    .all(|open| open.has(&Capability::EnhancedRouteRefresh)),
            },
            hold_time,
            keepalive: longest.map(|longest| config.keepalive.map_or(longest, |ours| ours.min(longest))),
            graceful_restart: local.graceful_restart().and(peer.graceful_restart()).cloned(),
            long_lived: local.long_lived().and(peer.long_lived()).unwrap_or_default().to_vec(),
            // RFC 7313 section 3.1: who understands the enhanced form understands the plain one.
            route_refresh: peer.has(&Capability::RouteRefresh) || peer.has(&Capability::EnhancedRouteRefresh),
            role,
            longest_received: longest_message(local),
            local_open: local.clone(),
            peer_open: peer,
            peer_open_octets,
        })
    }
}

/// Our OPEN.
pub(super) fn local_open(config: &SessionConfig) -> Open {
    let mut capabilities: Vec<Capability> = config.families.iter().map(Capability::MultiProtocol).collect();
    capabilities.push(Capability::RouteRefresh);
    if config.enhanced_refresh {
        capabilities.push(Capability::EnhancedRouteRefresh);
    }
    if config.extended_next_hop && config.families.contains(AfiSafi::Ipv4Unicast) {
        capabilities.push(Capability::ExtendedNextHop(vec![AfiSafi::Ipv4Unicast]));
    }
    if config.extended_messages {
        capabilities.push(Capability::ExtendedMessage);
    }
    if let Some(role) = config.role.filter(|_| !config.internal()) {
        capabilities.push(Capability::Role(role));
    }
    let add_path: Vec<AddPathFamily> =
        config.families.iter().filter_map(|f| add_path_of(config, f)).collect();
    if !add_path.is_empty() {
        capabilities.push(Capability::AddPath(add_path));
    }
    if let Some(graceful) = config.graceful_restart {
        let preserved = config.forwarding_preserved;
        let family =
            |family| GracefulRestartFamily { family, forwarding_preserved: preserved.contains(family) };
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting: config.restarting,
            notification: graceful.notification,
            restart_time: graceful.restart_time.min(4095),
            families: config.families.iter().map(family).collect(),
        }));
        // Without a stale time no family is named: we only keep the routes of others (RFC 9494 section 4.1).
        let stale_time = graceful.long_lived_stale_time.min(0x00ff_ffff);
        let family = |family| {
            let forwarding_preserved = preserved.contains(family);
            LongLivedFamily { family, forwarding_preserved, stale_time }
        };
        let offered = config.families.iter().filter(|_| stale_time > 0).map(family).collect();
        capabilities.push(Capability::LongLivedGracefulRestart(offered));
    }
    capabilities.push(Capability::FourOctetAsn(config.local_asn));
    Open { asn: config.local_asn, hold_time: config.hold_time, router_id: config.router_id, capabilities }
}

fn add_path_of(config: &SessionConfig, family: AfiSafi) -> Option<AddPathFamily> {
    let receive = config.add_path_receive.contains(family);
    let send = config.add_path_send.contains(family);
    (receive || send).then_some(AddPathFamily { family, receive, send })
}

/// The families of which `receiver` takes several paths and `sender` gives them (RFC 7911 section 4).
fn add_path(receiver: &Open, sender: &Open, families: Families) -> Families {
    let receives: Families = receiver.add_path().filter(|f| f.receive).map(|f| f.family).collect();
    let sends: Families = sender.add_path().filter(|f| f.send).map(|f| f.family).collect();
    receives.intersection(sends).intersection(families)
}

/// The longest message that the sender of this OPEN takes (RFC 8654 section 4).
fn longest_message(open: &Open) -> usize {
    if open.has(&Capability::ExtendedMessage) { MAX_EXTENDED_LENGTH } else { MAX_LENGTH }
}

/// RFC 9234 section 4.2: both claims must fit, and a peer must not claim two.
fn agreed_role(config: &SessionConfig, peer: &Open) -> Result<Option<Role>, Notification> {
    let Some(ours) = config.role.filter(|_| !config.internal()) else { return Ok(None) };
    let mismatch = Err(Notification::open(error::ROLE_MISMATCH));
    let mut claims = peer.roles();
    match claims.next() {
        None if config.role_required => mismatch,
        None => Ok(Some(ours)),
        Some(first) if claims.any(|other| other != first) => mismatch,
        Some(Some(theirs)) if theirs == ours.counterpart() => Ok(Some(ours)),
        Some(_) => mismatch,
    }
}

/// Unsupported Capability; the data is the capabilities whose absence ends the session (RFC 5492 section 5).
fn no_common_family(wanted: Families) -> Notification {
    let capability = |family: AfiSafi| {
        let [high, low] = family.afi().to_be_bytes();
        [1, 4, high, low, 0, family.safi()]
    };
    let data: Vec<u8> = wanted.iter().flat_map(capability).collect();
    Notification::new(error::OPEN, error::UNSUPPORTED_CAPABILITY, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Asn, RouterId, session::GracefulRestartConfig};

    fn config(local: u32, peer: u32, id: u32) -> SessionConfig {
        SessionConfig::new(Asn::new(local).unwrap(), Asn::new(peer).unwrap(), RouterId::new(id).unwrap())
    }

    fn negotiate(ours: &SessionConfig, theirs: &SessionConfig) -> Result<Negotiated, Notification> {
        Negotiated::new(ours, &local_open(ours), local_open(theirs), Bytes::new())
    }

    fn subcode(result: Result<Negotiated, Notification>) -> (u8, u8) {
        let notification = result.expect_err("the OPEN must be refused");
        (notification.code, notification.subcode)
    }

    #[test]
    fn the_wrong_peer_as_is_refused() {
        assert_eq!(subcode(negotiate(&config(1, 2, 1), &config(3, 1, 2))), (2, 2));
        assert!(negotiate(&config(1, 2, 1), &config(2, 1, 2)).is_ok());
    }

    #[test]
    fn our_own_identifier_is_refused_within_our_as_only() {
        assert_eq!(subcode(negotiate(&config(1, 1, 9), &config(1, 1, 9))), (2, 3));
        assert!(negotiate(&config(1, 2, 9), &config(2, 1, 9)).is_ok());
    }

    #[test]
    fn no_common_family_names_the_families_that_are_wanted() {
        let only = |family| SessionConfig { families: Families::from_iter([family]), ..config(1, 2, 1) };
        let theirs = SessionConfig { local_asn: Asn::new(2).unwrap(), ..only(AfiSafi::Ipv4Unicast) };
        let refused = negotiate(&only(AfiSafi::Ipv6Unicast), &theirs).expect_err("no common family");
        assert_eq!((refused.code, refused.subcode, &refused.data[..]), (2, 7, &[1, 4, 0, 2, 0, 1][..]));
    }

    #[test]
    fn a_peer_without_capabilities_speaks_ipv4_with_two_octet_as_numbers() {
        let ours = config(1, 2, 1);
        let mut open = local_open(&config(2, 1, 2));
        open.capabilities.clear();
        let agreed = Negotiated::new(&ours, &local_open(&ours), open, Bytes::new()).unwrap();
        assert_eq!(agreed.families, Families::from_iter([AfiSafi::Ipv4Unicast]));
        assert!(!agreed.context.four_octet_asn && !agreed.route_refresh);
    }

    #[test]
    fn the_smaller_hold_time_holds_and_bounds_the_keepalive() {
        let ours = SessionConfig {
            hold_time: HoldTime::new(30).unwrap(),
            keepalive: Some(Duration::from_secs(20)),
            ..config(1, 2, 1)
        };
        let theirs = SessionConfig { hold_time: HoldTime::new(9).unwrap(), ..config(2, 1, 2) };
        let agreed = negotiate(&ours, &theirs).unwrap();
        assert_eq!((agreed.hold_time.seconds(), agreed.keepalive), (9, Some(Duration::from_secs(3))));
        let never = SessionConfig { hold_time: HoldTime::NONE, ..theirs };
        assert_eq!(negotiate(&ours, &never).unwrap().keepalive, None);
    }

    #[test]
    fn restart_bits_are_those_of_the_configuration() {
        let graceful =
            GracefulRestartConfig { restart_time: 5000, notification: false, long_lived_stale_time: 0 };
        let only_v6 = Families::from_iter([AfiSafi::Ipv6Unicast]);
        let ours = SessionConfig {
            graceful_restart: Some(graceful),
            restarting: true,
            forwarding_preserved: only_v6,
            ..config(1, 2, 1)
        };
        let said = local_open(&ours).graceful_restart().cloned().unwrap();
        assert!(said.restarting && !said.notification);
        assert_eq!(said.restart_time, 4095, "12 bits");
        let preserved = said.families.iter().filter(|family| family.forwarding_preserved);
        assert_eq!(preserved.map(|family| family.family).collect::<Families>(), only_v6);
    }

    #[test]
    fn graceful_restart_needs_both_sides() {
        let graceful =
            Some(GracefulRestartConfig { restart_time: 60, notification: true, long_lived_stale_time: 0 });
        let with = SessionConfig { graceful_restart: graceful, ..config(1, 2, 1) };
        let without = config(2, 1, 2);
        assert_eq!(negotiate(&with, &without).unwrap().graceful_restart, None);
        let both = SessionConfig { graceful_restart: graceful, ..without };
        let agreed = negotiate(&with, &both).unwrap();
        assert_eq!(agreed.restart_time(), Duration::from_secs(60));
        assert!(agreed.notification_restart());
        assert_eq!(agreed.retained_families(), Families::ALL);
    }
}
