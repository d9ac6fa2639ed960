//! The kinds that Plainroute understands: its own, and the three of Kubernetes it needs, cut down to what it reads.
mod agent_config;
mod bgp_advertisement;
mod bgp_peer;
mod egress;
mod ip_block;
mod ip_pool;
mod metadata;
mod namespace;
mod node;
mod node_state;
mod object;
mod peer_session;
mod pod;
mod policy;
mod resource;
mod status;
mod tcp_ao;

pub use agent_config::{
    AgentConfig, AgentConfigSpec, BfdProcess, BmpStation, Deletions, Drain, EgressSettings, Ipam,
    KubernetesSource, Ledger, Metrics, Readiness, ReadinessSessions, Routing, Source,
};
pub use bgp_advertisement::{
    AdvertisementType, Attributes, BgpAdvertisement, BgpAdvertisementSpec, Withdraw,
};
pub use bgp_peer::{
    AutoDiscovery, Bfd, BgpPeer, BgpPeerSpec, DiscoveryMode, ListenRange, PeerTarget, Secret, SecretKey,
    TtlSecurity,
};
pub use egress::{
    AppliedTo, Egress, EgressAddresses, EgressMode, EgressSpec, FailurePolicy, Preference, Transport,
};
pub use ip_block::{IpAllocation, IpBlock, IpBlockSpec};
pub use ip_pool::{AddressSet, Allocation, IpPool, IpPoolSpec, IpRange, PoolUsage};
pub use metadata::{Metadata, OwnerReference};
pub use namespace::Namespace;
pub use node::{AddressType, Node, NodeAddress};
pub use node_state::{
    Advertised, DrainPhase, EgressHeld, NodeState, NodeStateStatus, ObjectState, SessionState, SourceState,
};
pub use object::{Kind, Object, ObjectKey};
pub use peer_session::{AddPath, GracefulRestart, MaxPrefixes, PeerRole, Timers};
pub use pod::{Phase, Pod};
pub use policy::{AsPathRule, ExportRule, ImportRule, RuleAction};
pub use resource::Resource;
pub use status::{
    BgpAdvertisementStatus, BgpPeerStatus, Condition, ConditionStatus, EgressAssignment, EgressStatus,
    IpBlockStatus, IpPoolStatus, Status,
};
pub use tcp_ao::{TcpAo, TcpAoAlgorithm, TcpAoKey};

/// The API group and version of our own kinds.
pub const API_VERSION: &str = "plainroute.dev/v1alpha1";

/// Annotations that mean something to us.
pub mod annotation {
    /// On a Namespace or Pod: the pools that it may draw addresses from, separated by commas.
    pub const IP_POOLS: &str = "plainroute.dev/ippools";
    /// On a Pod: its fixed address.
    pub const IP: &str = "plainroute.dev/ip";
    /// On a Pod that comes from a file: the node's side of its link.
    pub const HOST_INTERFACE: &str = "plainroute.dev/host-interface";
    /// On a Node: its AS number.
    pub const ASN: &str = "plainroute.dev/asn";
    /// On the namespace of the agents: deletions that were held until this time are confirmed, on every node.
    pub const DELETIONS_CONFIRMED_UNTIL: &str = "plainroute.dev/deletions-confirmed-until";
    /// On a Node: it is to be drained while this is `true`.
    pub const DRAIN: &str = "plainroute.dev/drain";
    /// On a Node: its router ID.
    pub const ROUTER_ID: &str = "plainroute.dev/router-id";
}

fn yes() -> bool {
    true
}
