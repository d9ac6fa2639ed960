//! Packets from outside to every Pod through either ToR, all the time, and what became of them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use plainroute_tests::lab::probe::{Count, PORT, Running as Probe};
use plainroute_tests::netns::within;

use super::cluster::Running;
use super::scene::{OUTSIDE_HOST, Scene};

/// A probe for each Pod and ToR, by the Pod's node.
pub(crate) struct Traffic(Vec<(String, Probe)>);

impl Traffic {
    /// Returns once every Pod has answered through both.
    pub(crate) fn start<'a>(scene: &Scene, pods: impl IntoIterator<Item = &'a Running>) -> Result<Traffic> {
        let mut probes = Vec::new();
        for pod in pods {
            let namespace = scene.node(&pod.node)?.pod_netns(&pod.uid)?;
            for (source, port) in OUTSIDE_HOST.into_iter().zip(PORT..) {
                let target = SocketAddr::new(pod.address, port);
                let server = within(&namespace, || UdpSocket::bind(target));
                let client = scene.outside.within(|| UdpSocket::bind((source, 0)));
                let probe = Probe::over(source, client, server, target)
                    .with_context(|| format!("from {source} to {pod:?}"))?;
                probes.push((pod.node.clone(), probe));
            }
        }
        Ok(Traffic(probes))
    }

    /// Stops, and gives what each node's Pods were sent.
    pub(crate) fn finish(self) -> Result<BTreeMap<String, Vec<Count>>> {
        let mut counts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (node, probe) in self.0 {
            counts.entry(node).or_default().push(probe.finish()?);
        }
        Ok(counts)
    }

    /// Stops, and fails where a packet was lost.
    pub(crate) fn finish_without_loss(self, what: &str) -> Result<()> {
        let counts: Vec<Count> = self.finish()?.into_values().flatten().collect();
        let sent: u64 = counts.iter().map(|count| count.sent).sum();
        let lost: Vec<_> = counts.iter().filter(|count| count.lost > 0).collect();
        ensure!(lost.is_empty(), "{what} lost packets: {lost:#?}");
        println!("{what}: {sent} packets over {} paths, none lost", counts.len());
        Ok(())
    }
}
