//! BGPPeer: one upstream router, and how to speak with it.
use std::{net::IpAddr, path::PathBuf};

use plainroute_bgp::{AfiSafi, Asn, Families, RouterId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AddPath, ExportRule, GracefulRestart, ImportRule, MaxPrefixes, PeerRole, Resource, TcpAo, Timers, yes,
};
use crate::{
    Kind,
    bounded::{Bounded, Port},
    rules::{Spec, Violations},
    scoped::{ScopedAddress, is_interface_name},
    selector::LabelSelector,
    value::{Cidr, Parsed, refuse_mapped},
};

/// An upstream router.
pub type BgpPeer = Resource<BgpPeerSpec>;

/// An upstream router, and how the nodes speak BGP with it. Nothing is advertised to it without a
/// BGPAdvertisement and nothing is accepted from it without `import` (RFC 8212).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::BGP_PEER))]
pub struct BgpPeerSpec {
    /// The nodes that peer with it, by the labels of the Node. Empty: every node.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub node_selector: LabelSelector,
    /// Our AS number. The Node annotation `plainroute.dev/asn` overrides it. Equal to `peerASN` it makes the session
    /// an internal one (iBGP).
    #[serde(rename = "localASN")]
    pub local_asn: Parsed<Asn>,
    /// The router's AS number. A peer that says another one is refused.
    #[serde(rename = "peerASN")]
    pub peer_asn: Parsed<Asn>,
    /// The router's address; a link-local one with its interface, `fe80::1%eth0`. Exactly one of `peerAddress`,
    /// `interface`, `autoDiscovery` and `listenRange` says where the router is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<Parsed<ScopedAddress>>,
    /// The interface behind which the router is (BGP unnumbered). It is found by its IPv6 router advertisements, and finds
    /// the node by ours; the session runs between the link-local addresses. Another router takes its place once the
    /// session with it is down and it is not heard any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 15, "x-kubernetes-validations" = crate::admission::INTERFACE))]
    pub interface: Option<String>,
    /// How the router's address is to be found. Each that is found is a peer named `NAME@ADDRESS`. It stays one while
    /// nothing else is found, and while its session is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_discovery: Option<AutoDiscovery>,
    /// Whoever connects from within a prefix is such a router (dynamic peers), as a peer named `NAME@ADDRESS`. Needs
    /// `listenPort`; we never connect, so `peerPort` and `passive` mean nothing. A BGPPeer with the very address goes
    /// before a range, a longer range before a shorter one. What is advertised goes to each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_range: Option<ListenRange>,
    /// The TCP port on which the router listens.
    #[serde(default = "bgp_port")]
    pub peer_port: Port,
    /// The address of the node from which it speaks, of the same family as `peerAddress`. Default: the kernel
    /// chooses by its routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<Parsed<IpAddr>>,
    /// Our BGP Identifier. Default: the Node annotation `plainroute.dev/router-id`, then the Node's first internal
    /// IPv4 address, then the first IPv4 address of an interface.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Parsed<RouterId>>,
    /// The TCP port on which we wait for the router. 0: none, we only connect.
    #[serde(default)]
    pub listen_port: u16,
    /// How many hops away an external router may be: the TTL of our packets. Excludes `ttlSecurity`, and means
    /// nothing to an internal one.
    #[serde(default = "one_hop")]
    pub ebgp_multihop: Bounded<u8, 1, 255>,
    /// Take packets only from so many hops away at most (GTSM, RFC 5082). The router must do the same. Absent: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<TtlSecurity>,
    /// Only wait for the router to connect; needs `listenPort`.
    #[serde(default)]
    pub passive: bool,
    /// The Secret with the TCP MD5 password (RFC 2385), in the agent's own namespace. One that cannot be read keeps
    /// the session down. Excludes `authFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<SecretKey>,
    /// The file with the TCP MD5 password (RFC 2385), an absolute path; one line break at its end does not count.
    /// One that cannot be read keeps the session down. Excludes `authSecretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub auth_file: Option<PathBuf>,
    /// TCP-AO (RFC 5925) in place of TCP MD5; needs Linux 6.7 with CONFIG_TCP_AO, without which the session stays down.
    /// Excludes `authSecretRef` and `authFile`.
    #[serde(default, rename = "tcpAO", skip_serializing_if = "Option::is_none")]
    pub tcp_ao: Option<TcpAo>,
    /// The timers of the session (RFC 4271 section 10).
    #[serde(default)]
    pub timers: Timers,
    /// Graceful restart (RFC 4724): the router keeps our routes while the agent restarts, and packets flow on. With `bfd`
    /// on, a NOTIFICATION does not end that either (N bit, RFC 8538).
    #[serde(default)]
    pub graceful_restart: GracefulRestart,
    /// Bidirectional forwarding detection (RFC 5880): a path that fails ends the session within the detection time. Absent:
    /// off. With `ebgpMultihop` or `ttlSecurity.hops` above 1 it runs over several hops (RFC 5883), and so it does with an
    /// internal peer that no subnet of the node's has. A change resets nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,
    /// The address families to exchange. Default: both.
    #[serde(default = "all_families")]
    #[schemars(length(min = 1, max = 4))]
    pub families: Vec<Parsed<AfiSafi>>,
    /// What the node is to the router (RFC 9234), which must be the counterpart: a `Customer` faces a provider. It keeps
    /// routes from leaking by way of the node, and marks those that must not go further up. Default: nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PeerRole")]
    pub role: Option<PeerRole>,
    /// Refuse a router that claims no role of its own. Needs `role`.
    #[serde(default)]
    pub role_required: bool,
    /// Several paths for one prefix (RFC 7911).
    #[serde(default, skip_serializing_if = "AddPath::is_off")]
    pub add_path: AddPath,
    /// Offer IPv6 next hops for IPv4 prefixes (RFC 8950), so that a session over IPv6 carries both families.
    /// Where the router's address is link-local they are always offered.
    #[serde(default)]
    pub extended_next_hop: bool,
    /// Offer to mark the begin and the end of a route refresh (RFC 7313), so that it also finds what was lost.
    #[serde(default = "yes")]
    pub enhanced_refresh: bool,
    /// Offer messages of up to 65535 octets in place of 4096 (RFC 8654).
    #[serde(default = "yes")]
    pub extended_messages: bool,
    /// Ignore routes of an external router whose AS path does not begin with its own AS (RFC 4271 section 6.3). Default:
    /// true, but false with the role `RouteServerClient`, since a route server leaves its AS out of the path.
    #[serde(default, rename = "enforceFirstAS", skip_serializing_if = "Option::is_none")]
    pub enforce_first_as: Option<bool>,
    /// How many prefixes may come in and go out; 0 is no limit.
    #[serde(default)]
    pub max_prefixes: MaxPrefixes,
    /// What is accepted from the router; the first rule that matches a route decides, and what none matches stays out.
    /// Default: nothing. What lies in an IPPool never goes into the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub import: Vec<ImportRule>,
    /// What may go to the router of that which a BGPAdvertisement takes to it: a second net below the first. The first
    /// rule that matches a route decides, and what none matches is held back. Default: all of it may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub export: Option<Vec<ExportRule>>,
}

/// Where the peer is: exactly one of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerTarget<'a> {
    /// At this address.
    Address(IpAddr),
    /// Behind this interface, found by router advertisements (BGP unnumbered).
    Interface(&'a str),
    /// Found so.
    AutoDiscovery(DiscoveryMode),
    /// Wherever somebody connects from within the range.
    ListenRange(ListenRange),
}

/// Where a secret is.
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
    /// The way to find it.
    pub mode: DiscoveryMode,
}

/// From where peers may connect, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenRange {
    /// From where they may connect. All of IPv4 or IPv6 needs a password, and link-local addresses cannot be told
    /// apart.
    pub cidr: Cidr,
    /// How many there may be at a time; those beyond are refused. A peer counts until it has had no session for a
    /// minute and no route of it is kept for its restart.
    #[serde(default = "sixty_four")]
    pub max_peers: Bounded<u16, 1, 4096>,
}

/// The ways to find a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryMode {
    /// The gateways of the node's best default route that is not of our own making, IPv4's or, without one, IPv6's.
    DefaultGateway,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKey {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it whose value is the password.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The generalized TTL security mechanism (RFC 5082).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TtlSecurity {
    /// How many hops away the router may be. 1: on the same link.
    pub hops: Bounded<u8, 1, 254>,
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

impl BgpPeerSpec {
    /// Where the peer is. The rules let exactly one be set.
    pub fn target(&self) -> PeerTarget<'_> {
        if let Some(range) = self.listen_range {
            return PeerTarget::ListenRange(range);
        }
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

impl Spec for BgpPeerSpec {
    const KIND: Kind = Kind::BgpPeer;

    fn check(&self, broken: &mut Violations) {
        self.check_target(broken);
        self.check_security(broken);
        self.check_session(broken);
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
        for (index, rule) in self.export.iter().flatten().enumerate() {
            rule.check(index, broken);
        }
    }
}

impl BgpPeerSpec {
    fn check_target(&self, broken: &mut Violations) {
        const ONE: &str =
            "exactly one of peerAddress, interface, autoDiscovery and listenRange says where the peer is";
        let targets = [
            ("peerAddress", self.peer_address.is_some()),
            ("interface", self.interface.is_some()),
            ("autoDiscovery", self.auto_discovery.is_some()),
            ("listenRange", self.listen_range.is_some()),
        ];
        let mut set = targets.iter().filter(|(_, set)| *set).map(|(field, _)| *field);
        match set.next() {
            None => broken.add("peerAddress", format!("is missing: {ONE}")),
            Some(first) => {
                set.for_each(|field| broken.add(field, format!("stands beside {first}: {ONE}")));
            }
        }
        if let Some(range) = &self.listen_range {
            self.check_range(range, broken);
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
        if let Some(Err(mapped)) = self.local_address.map(|address| refuse_mapped(*address)) {
            broken.add("localAddress", mapped);
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

    fn check_range(&self, range: &ListenRange, broken: &mut Violations) {
        let prefix = range.cidr.prefix();
        if self.listen_port == 0 {
            broken.add("listenRange", "needs listenPort: with 0 nobody listens for the peers");
        }
        if prefix.address().is_multicast() {
            broken.add("listenRange.cidr", format!("{prefix} has no addresses of routers"));
        }
        if matches!(prefix.address(), IpAddr::V6(address) if address.is_unicast_link_local()) {
            broken.add(
                "listenRange.cidr",
                format!("{prefix} is link-local: use interface for the router there"),
            );
        }
        if prefix.is_default() && self.secret().is_none() {
            broken.add(
                "listenRange.cidr",
                format!("{prefix} lets anyone in who knows the AS: set authSecretRef or authFile"),
            );
        }
        if let Some(local) = &self.local_address
            && local.is_ipv4() != prefix.address().is_ipv4()
        {
            broken.add("localAddress", format!("{local} and listenRange {prefix} are of different families"));
        }
        if self.bfd.is_some_and(|bfd| bfd.enabled) {
            broken.add("bfd", "does not run to the peers of a listenRange in this version");
        }
        if self.tcp_ao.is_some() {
            broken
                .add("tcpAO", "cannot sign for a listenRange in this version: use authSecretRef or authFile");
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
            secret.check("authSecretRef", broken);
        }
        if let Some(tcp_ao) = &self.tcp_ao {
            if self.secret().is_some() {
                broken.add("tcpAO", "excludes the TCP MD5 password of authSecretRef or authFile");
            }
            tcp_ao.check(broken);
        }
    }
}

fn sixty_four() -> Bounded<u16, 1, 4096> {
    Bounded::literal(64)
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
