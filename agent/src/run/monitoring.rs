//! The monitoring stations in force: what the AgentConfig says, as the speaker takes it.
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use plainroute_config::BmpStation;
use plainroute_speaker::{Speaker, StationConfig};

/// Applies stations where they differ from those in force.
pub(super) struct Monitoring {
    node: String,
    applied: Vec<BmpStation>,
}

impl Monitoring {
    pub(super) fn new(node: &str) -> Monitoring {
        Monitoring { node: node.to_owned(), applied: Vec::new() }
    }

    pub(super) async fn apply(&mut self, speaker: &Speaker, stations: Vec<BmpStation>) {
        if stations == self.applied {
            return;
        }
        let wanted: BTreeMap<_, _> = stations.iter().map(|station| self.station(station)).collect();
        speaker.apply_stations(wanted).await;
        self.applied = stations;
    }

    fn station(&self, station: &BmpStation) -> (SocketAddr, StationConfig) {
        let seconds = station.statistics_seconds.get();
        let description = concat!("plainroute ", env!("CARGO_PKG_VERSION"));
        let config = StationConfig {
            adj_rib_in: station.adj_rib_in,
            adj_rib_out: station.adj_rib_out,
            statistics: (seconds > 0).then(|| Duration::from_secs(u64::from(seconds))),
            ..StationConfig::new(&self.node, description)
        };
        (station.address, config)
    }
}
