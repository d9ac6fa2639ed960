//! What is set for [`run`](super::run), and why it may end.
use std::time::Duration;

/// How patient the task is.
#[derive(Clone, Debug)]
pub struct NatConfig {
    /// How often the table is compared with what is desired although nothing was reported.
    pub audit_interval: Duration,
    /// How often counters are read.
    pub counters_interval: Duration,
    /// Room for others' changes, in bytes. A smaller one only means more reading when there is a storm.
    pub monitor_buffer: usize,
}

impl Default for NatConfig {
    fn default() -> NatConfig {
        NatConfig {
            audit_interval: Duration::from_secs(30),
            counters_interval: Duration::from_secs(5),
            monitor_buffer: 4 << 20,
        }
    }
}

/// Why the task ended; a table that cannot be made is told in [`NatInstalled`](super::NatInstalled) instead.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// The kernel refuses us.
    #[error("the kernel does not let us change nftables: the agent needs CAP_NET_ADMIN")]
    Permission,
}
