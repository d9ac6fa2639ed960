//! The result cache that libcni leaves on the node: which host interface leads to which Pod.
use std::net::IpAddr;

/// Which interface of the node leads to a Pod, as the CNI plugin reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub name: String,
    /// The Pod's UID, where the runtime passed it.
    pub uid: Option<String>,
    /// The sandbox that the record is about.
    pub container_id: String,
    /// The node's side of the link (or the bridge that the Pod hangs on).
    pub interface: String,
    /// The Pod's addresses on that link.
    pub addresses: Vec<IpAddr>,
}
