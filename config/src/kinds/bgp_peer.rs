//! BGPPeer: one upstream router, and how to speak with it.
use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf};

use plainroute_bgp::{AfiSafi, Asn, Families, HoldTime, RouterId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resource, yes};
use crate::{
    Kind,
    bounded::{Bounded, Port},
    rules::{Spec, Violations},
    scoped::{ScopedAddress, is_interface_name},
    selector::LabelSelector,
    value::{Cidr, Parsed},
};

/// An upstream router.
pub type BgpPeer = Resource<BgpPeerSpec>;

/// The spec of [`BgpPeer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeerSpec {
    /// Which nodes peer with it; empty: every node.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub node_selector: LabelSelector,
    /// Our AS number. The Node annotation `plainroute.dev/asn` overrides it.
    #[serde(rename = "localASN")]
    pub local_asn: Parsed<Asn>,
    /// Its AS number.
    #[serde(rename = "peerASN")]
    pub peer_asn: Parsed<Asn>,
    /// Its address; see [`BgpPeerSpec::target`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<Parsed<ScopedAddress>>,
    /// The interface behind which it is found by router advertisements; see [`BgpPeerSpec::target`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// How its address is found; see [`BgpPeerSpec::target`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_discovery: Option<AutoDiscovery>,
    /// The TCP port that it listens on.
    #[serde(default = "bgp_port")]
    pub peer_port: Port,
    /// The address that we speak from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<Parsed<IpAddr>>,
    /// Our BGP Identifier. Default: the node's first IPv4 address.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Parsed<RouterId>>,
    /// The TCP port that we listen on; 0: none, we only connect.
    #[serde(default)]
    pub listen_port: u16,
    /// The TTL of our packets to an external peer.
    #[serde(default = "one_hop")]
    pub ebgp_multihop: Bounded<u8, 1, 255>,
    /// Accept packets only from at most so many hops away (RFC 5082).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<TtlSecurity>,
    /// Wait for the peer to connect.
    #[serde(default)]
    pub passive: bool,
    /// The Secret that holds the TCP MD5 password; see [`BgpPeerSpec::secret`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<SecretKey>,
    /// The file that holds the TCP MD5 password; see [`BgpPeerSpec::secret`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub auth_file: Option<PathBuf>,
    /// The session's timers.
    #[serde(default)]
    pub timers: Timers,
    /// Graceful restart (RFC 4724).
    #[serde(default)]
    pub graceful_restart: GracefulRestart,
    /// Bidirectional forwarding detection (RFC 5880); absent: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,
    /// The families to exchange.
    #[serde(default = "all_families")]
    pub families: Vec<Parsed<AfiSafi>>,
    /// How many prefixes may come and go.
    #[serde(default)]
    pub max_prefixes: MaxPrefixes,
    /// What may come in; default: nothing (RFC 8212).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import: Vec<ImportRule>,
}

/// Where the peer is: exactly one of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerTarget<'a> {
    /// At this address.
    Address(IpAddr),
    /// Behind this interface, found by router advertisements (BGP unnumbered).
    Interface(&'a str),
    /// Found so.
    AutoDiscovery(DiscoveryMode),
}

/// Where the TCP MD5 password is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret<'a> {
    /// In this Secret of the agent's namespace.
    Ref(&'a SecretKey),
    /// In this file.
    File(&'a PathBuf),
}

/// How a peer's address is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AutoDiscovery {
    /// The way.
    pub mode: DiscoveryMode,
}

/// The ways to find a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryMode {
    /// The node's default gateway is the peer.
    DefaultGateway,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKey {
    /// The Secret's name.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// The generalized TTL security mechanism (RFC 5082).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TtlSecurity {
    /// How many hops away the peer may be; 1: on the same link.
    pub hops: Bounded<u8, 1, 254>,
}

/// The timers of RFC 4271 section 10, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timers {
    /// The pause between attempts to connect.
    pub connect_retry_time_seconds: Bounded<u16, 1, 65535>,
    /// How long a silent peer is trusted; 0: for ever.
    pub hold_time_seconds: Parsed<HoldTime>,
    /// How often we say that we live; default: a third of the hold time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_time_seconds: Option<Bounded<u16, 1, 21845>>,
}

/// Graceful restart (RFC 4724) and its long-lived form (RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GracefulRestart {
    /// Whether we offer it.
    pub enabled: bool,
    /// How long the peer should wait for us to come back.
    pub restart_time_seconds: Bounded<u16, 0, 4095>,
    /// How long it may keep our routes after that; 0: not at all.
    pub long_lived_stale_time_seconds: Bounded<u32, 0, 0x00ff_ffff>,
}

/// Bidirectional forwarding detection (RFC 5880).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bfd {
    /// Whether it runs.
    pub enabled: bool,
    /// The shortest interval at which we take packets.
    pub receive_interval_milliseconds: Bounded<u32, 10, 60_000>,
    /// The interval at which we want to send packets.
    pub transmit_interval_milliseconds: Bounded<u32, 10, 60_000>,
    /// How many missed packets mean down.
    pub detect_multiplier: Bounded<u8, 1, 255>,
}

/// Limits on prefixes per session; 0: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxPrefixes {
    /// From the peer.
    pub r#in: u32,
    /// To the peer.
    pub out: u32,
}

/// A rule of what may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportRule {
    /// The prefix itself, or what contains the prefixes where `ge` or `le` is set.
    pub cidr: Cidr,
    /// The shortest length, 0: unset; see [`ImportRule::lengths`].
    #[serde(default)]
    pub ge: u8,
    /// The longest length, 0: unset; see [`ImportRule::lengths`].
    #[serde(default)]
    pub le: u8,
    /// Whether the best route goes into the kernel.
    #[serde(default = "yes")]
    pub install: bool,
}

impl BgpPeerSpec {
    /// Where the peer is. The rules let exactly one be set.
    pub fn target(&self) -> PeerTarget<'_> {
        match (&self.peer_address, &self.interface, self.auto_discovery) {
            (Some(address), _, _) => PeerTarget::Address(address.address()),
            (None, Some(interface), _) => PeerTarget::Interface(interface),
            (None, None, Some(discovery)) => PeerTarget::AutoDiscovery(discovery.mode),
            (None, None, None) => PeerTarget::AutoDiscovery(DiscoveryMode::DefaultGateway),
        }
    }

    /// The interface behind which a link-local `peerAddress` is.
    pub fn scope(&self) -> Option<&str> {
        self.peer_address.as_ref().and_then(|address| address.interface())
    }

    /// Where the TCP MD5 password is, if there is to be one. The rules let one be set at most.
    pub fn secret(&self) -> Option<Secret<'_>> {
        let reference = self.auth_secret_ref.as_ref().map(Secret::Ref);
        reference.or_else(|| self.auth_file.as_ref().map(Secret::File))
    }

    /// The families as a set.
    pub fn families(&self) -> Families {
        self.families.iter().map(|family| **family).collect()
    }
}

impl MaxPrefixes {
    /// The limit on prefixes from the peer.
    pub fn limit_in(self) -> Option<u32> {
        (self.r#in != 0).then_some(self.r#in)
    }

    /// The limit on prefixes to the peer.
    pub fn limit_out(self) -> Option<u32> {
        (self.out != 0).then_some(self.out)
    }
}

impl ImportRule {
    /// The prefix lengths that the rule takes: the CIDR's own; with `ge`, from there to the longest; with `le`, up
    /// to there.
    pub fn lengths(&self) -> RangeInclusive<u8> {
        let (length, longest) = (self.cidr.prefix().length(), self.cidr.prefix().family().max_length());
        match (self.ge, self.le) {
            (0, 0) => length..=length,
            (0, le) => length..=le,
            (ge, 0) => ge..=longest,
            (ge, le) => ge..=le,
        }
    }
}

impl Spec for BgpPeerSpec {
    const KIND: Kind = Kind::BgpPeer;

    fn check(&self, broken: &mut Violations) {
        self.check_target(broken);
        self.check_security(broken);
        self.check_timers(broken);
        if self.families.is_empty() {
            broken.add("families", "is empty; leave it out for both families");
        }
        for (index, family) in self.families.iter().enumerate() {
            if self.families[..index].contains(family) {
                broken.add(format_args!("families[{index}]"), format!("{family} is there twice"));
            }
        }
        for (index, rule) in self.import.iter().enumerate() {
            rule.check(index, broken);
        }
    }
}

impl BgpPeerSpec {
    fn check_target(&self, broken: &mut Violations) {
        const ONE: &str = "exactly one of peerAddress, interface and autoDiscovery says where the peer is";
        match (&self.peer_address, &self.interface, self.auto_discovery) {
            (None, None, None) => broken.add("peerAddress", format!("is missing: {ONE}")),
            (Some(_), Some(_), _) => broken.add("interface", format!("stands beside peerAddress: {ONE}")),
            (Some(_), None, Some(_)) => {
                broken.add("autoDiscovery", format!("stands beside peerAddress: {ONE}"))
            }
            (None, Some(_), Some(_)) => {
                broken.add("autoDiscovery", format!("stands beside interface: {ONE}"))
            }
            (Some(_), None, None) | (None, Some(_), None) | (None, None, Some(_)) => {}
        }
        let peer_address = self.peer_address.as_ref().map(|address| address.address());
        if let Some(address) = peer_address
            && (address.is_unspecified() || address.is_multicast())
        {
            broken.add("peerAddress", format!("{address} is not the address of a router"));
        }
        if let Some(name) = &self.interface
            && !is_interface_name(name)
        {
            broken.add(
                "interface",
                format!("`{name}` is not an interface name (1 to 15 characters, no / or space)"),
            );
        }
        if let (Some(peer), Some(local)) = (peer_address, &self.local_address)
            && peer.is_ipv4() != local.is_ipv4()
        {
            broken.add("localAddress", format!("{local} and peerAddress {peer} are of different families"));
        }
        if peer_address.is_some() && self.local_address.map(|address| *address) == peer_address {
            broken.add("localAddress", "is the same as peerAddress");
        }
        if self.passive && self.listen_port == 0 {
            broken.add("passive", "needs listenPort: with 0 nobody listens for the peer");
        }
    }

    fn check_security(&self, broken: &mut Violations) {
        if self.ttl_security.is_some() && self.ebgp_multihop.get() != 1 {
            broken.add("ttlSecurity", "excludes ebgpMultihop: use ttlSecurity.hops alone");
        }
        if *self.local_asn == *self.peer_asn && self.ebgp_multihop.get() != 1 {
            broken.add(
                "ebgpMultihop",
                format!("peer and node are both in AS {}: this is not eBGP", self.peer_asn),
            );
        }
        if self.auth_secret_ref.is_some() && self.auth_file.is_some() {
            broken.add("authFile", "stands beside authSecretRef: only one of them holds the password");
        }
        if let Some(path) = &self.auth_file
            && !path.is_absolute()
        {
            broken.add("authFile", format!("`{}` is not an absolute path", path.display()));
        }
        if let Some(secret) = &self.auth_secret_ref {
            for (field, value) in [("name", &secret.name), ("key", &secret.key)] {
                if value.is_empty() {
                    broken.add(format_args!("authSecretRef.{field}"), "is empty");
                }
            }
        }
    }

    fn check_timers(&self, broken: &mut Violations) {
        let Some(keepalive) = self.timers.keep_alive_time_seconds else { return };
        let hold = self.timers.hold_time_seconds.seconds();
        if hold == 0 {
            broken.add("timers.keepAliveTimeSeconds", "has no meaning with holdTimeSeconds 0");
        } else if keepalive.get() > hold / 3 {
            let most = hold / 3;
            broken.add(
                "timers.keepAliveTimeSeconds",
                format!("{keepalive} is more than a third of holdTimeSeconds {hold}; at most {most}"),
            );
        }
    }
}

impl ImportRule {
    fn check(&self, index: usize, broken: &mut Violations) {
        let (length, longest) = (self.cidr.prefix().length(), self.cidr.prefix().family().max_length());
        for (field, value) in [("ge", self.ge), ("le", self.le)] {
            if value != 0 && !(length..=longest).contains(&value) {
                broken.add(
                    format_args!("import[{index}].{field}"),
                    format!("{value} is outside of {length} to {longest}, the lengths within {}", self.cidr),
                );
            }
        }
        if self.ge != 0 && self.le != 0 && self.ge > self.le {
            broken
                .add(format_args!("import[{index}].ge"), format!("{} is more than le {}", self.ge, self.le));
        }
    }
}

fn bgp_port() -> Port {
    Port::literal(179)
}

fn one_hop() -> Bounded<u8, 1, 255> {
    Bounded::literal(1)
}

fn all_families() -> Vec<Parsed<AfiSafi>> {
    AfiSafi::ALL.into_iter().map(Parsed).collect()
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            connect_retry_time_seconds: Bounded::literal(5),
            hold_time_seconds: Parsed(HoldTime::new(9).unwrap_or(HoldTime::DEFAULT)),
            keep_alive_time_seconds: None,
        }
    }
}

impl Default for GracefulRestart {
    fn default() -> Self {
        GracefulRestart {
            enabled: true,
            restart_time_seconds: Bounded::literal(120),
            long_lived_stale_time_seconds: Bounded::literal(0),
        }
    }
}

impl Default for Bfd {
    fn default() -> Self {
        Bfd {
            enabled: true,
            receive_interval_milliseconds: Bounded::literal(100),
            transmit_interval_milliseconds: Bounded::literal(100),
            detect_multiplier: Bounded::literal(3),
        }
    }
}

impl Default for MaxPrefixes {
    fn default() -> Self {
        MaxPrefixes { r#in: 1000, out: 5000 }
    }
}
