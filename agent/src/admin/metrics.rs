//! Metrics in the OpenMetrics text format, computed at each scrape from the published state: what is gone from
//! there, such as a removed peer, is gone from the metrics too.
use std::collections::BTreeMap;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use plainroute_speaker::RecorderStatus;

use super::{
    Published, answer,
    view::{Md5FailuresView, PeerView, StationView, TcpAoFailuresView},
};
use crate::{drain::DrainState, ipam::Told};

/// What a scraper must be told the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFamily {
    peer: String,
    family: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeerAndKind {
    peer: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStation {
    station: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSource {
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfEgress {
    egress: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ActiveGateway {
    egress: String,
    address: String,
    gateway: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfInterface {
    interface: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfInterfaceAndReason {
    interface: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithReason {
    reason: String,
}

/// The text of a scrape.
pub(super) fn encode(
    state: &Published,
    peers: &[PeerView],
    stations: &[StationView],
    recording: Option<RecorderStatus>,
    ipam: Option<&Told>,
) -> String {
    let mut registry = Registry::with_prefix("plainroute");
    registry.register(
        "build",
        "The agent's version",
        Info::new([("version", env!("CARGO_PKG_VERSION").to_owned()), ("node", state.node.clone())]),
    );
    sessions(&mut registry, peers);
    monitoring(&mut registry, stations);
    record(&mut registry, recording);
    pods(&mut registry, state);
    without_address(&mut registry, ipam);
    kernel(&mut registry, state);
    sources(&mut registry, state);
    router_advertisements(&mut registry, state);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = text::encode(&mut text, &registry);
    text
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let metric = Gauge::<i64>::default();
    metric.set(value);
    registry.register(name, help, metric);
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn sessions(registry: &mut Registry, peers: &[PeerView]) {
    let of = |peer: &PeerView| OfPeer { peer: peer.name.clone() };
    let up = Family::<OfPeer, Gauge>::default();
    let seconds = Family::<OfPeer, Gauge>::default();
    let [established, lost, sent, received, malformed] =
        std::array::from_fn(|_| Family::<OfPeer, Counter>::default());
    let [originated, advertised, accepted, stale] =
        std::array::from_fn(|_| Family::<OfFamily, Gauge>::default());
    let rejected = Family::<OfFamily, Counter>::default();
    // It starts again with each session, so it is no counter.
    let md5 = Family::<OfPeerAndKind, Gauge>::default();
    let tcp_ao = Family::<OfPeerAndKind, Gauge>::default();
    let (members, refused) = (Family::<OfPeer, Gauge>::default(), Family::<OfPeer, Counter>::default());
    for (peer, range) in peers.iter().filter_map(|peer| Some((peer, peer.range.as_ref()?))) {
        members.get_or_create(&of(peer)).set(count(range.peers));
        refused.get_or_create(&of(peer)).inc_by(range.refused);
    }
    registry.register("bgp_range_peers", "Peers that have connected from within the listenRange", members);
    registry.register("bgp_range_refused", "Connections beyond the maxPeers of the listenRange", refused);
    for peer in peers.iter().filter(|peer| peer.range.is_none()) {
        up.get_or_create(&of(peer)).set(i64::from(peer.is_established()));
        seconds.get_or_create(&of(peer)).set(i64::try_from(peer.seconds_in_state).unwrap_or(i64::MAX));
        for (family, value) in [
            (&established, peer.established_count),
            (&lost, peer.lost_count),
            (&sent, peer.updates_sent),
            (&received, peer.updates_received),
            (&malformed, peer.malformed_updates),
        ] {
            family.get_or_create(&of(peer)).inc_by(value);
        }
        if let Some(Md5FailuresView { not_found, unexpected, failure }) = peer.md5_failures {
            for (kind, value) in [("notFound", not_found), ("unexpected", unexpected), ("failure", failure)] {
                let labels = OfPeerAndKind { peer: peer.name.clone(), kind };
                md5.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        if let Some(TcpAoFailuresView { required, bad, key_not_found }) = peer.tcp_ao_failures {
            for (kind, value) in [("required", required), ("bad", bad), ("keyNotFound", key_not_found)] {
                let labels = OfPeerAndKind { peer: peer.name.clone(), kind };
                tcp_ao.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        for (name, counts) in &peer.families {
            let labels = OfFamily { peer: peer.name.clone(), family: name.clone() };
            originated.get_or_create(&labels).set(count(counts.originated));
            advertised.get_or_create(&labels).set(count(counts.advertised));
            accepted.get_or_create(&labels).set(count(counts.accepted));
            stale.get_or_create(&labels).set(count(counts.stale));
            rejected.get_or_create(&labels).inc_by(counts.rejected);
        }
    }
    registry.register("bgp_session_up", "1 while the session is Established", up);
    registry.register("bgp_session_state_seconds", "Seconds in the present state", seconds);
    registry.register("bgp_session_established", "Times the session became Established", established);
    registry.register("bgp_session_lost", "Times an Established session was lost", lost);
    registry.register("bgp_updates_sent", "UPDATE messages sent", sent);
    registry.register("bgp_updates_received", "UPDATE messages received", received);
    registry.register("bgp_updates_malformed", "UPDATEs mended by RFC 7606, the session went on", malformed);
    registry.register(
        "bgp_session_md5_failures",
        "Segments that the node dropped for their TCP MD5 signature, from whomever, since the session was last Established",
        md5,
    );
    registry.register(
        "bgp_session_tcp_ao_failures",
        "Segments that the node dropped for their TCP-AO, from whomever, since the session was last Established",
        tcp_ao,
    );
    registry.register("bgp_prefixes_originated", "Prefixes to be advertised to the peer", originated);
    registry.register("bgp_prefixes_advertised", "Prefixes that the peer was sent", advertised);
    registry.register("bgp_prefixes_accepted", "Prefixes of the peer that import rules accepted", accepted);
    registry.register(
        "bgp_prefixes_stale",
        "Accepted prefixes that a restarting peer has not confirmed",
        stale,
    );
    registry.register(
        "bgp_prefixes_rejected",
        "Announcements of the peer that import rules refused",
        rejected,
    );
}

fn monitoring(registry: &mut Registry, stations: &[StationView]) {
    let up = Family::<OfStation, Gauge>::default();
    let [connections, overflows, messages, octets] =
        std::array::from_fn(|_| Family::<OfStation, Counter>::default());
    for station in stations {
        let labels = OfStation { station: station.address.to_string() };
        up.get_or_create(&labels).set(i64::from(station.connected));
        for (family, value) in [
            (&connections, station.connections),
            (&overflows, station.overflows),
            (&messages, station.messages_sent),
            (&octets, station.octets_sent),
        ] {
            family.get_or_create(&labels).inc_by(value);
        }
    }
    registry.register("bmp_station_up", "1 while the monitoring station is connected", up);
    registry.register("bmp_station_connections", "Times the connection came about", connections);
    registry.register(
        "bmp_station_overflows",
        "Times it was closed because the station did not read as fast as things happened",
        overflows,
    );
    registry.register("bmp_messages_sent", "BMP messages handed to TCP", messages);
    registry.register("bmp_octets_sent", "Octets of BMP handed to TCP", octets);
}

/// Nothing where nobody asked for a recording.
fn record(registry: &mut Registry, recording: Option<RecorderStatus>) {
    let Some(RecorderStatus { octets, stopped }) = recording else { return };
    let written = Counter::<u64>::default();
    written.inc_by(octets);
    registry.register("record_octets", "Octets of the recording handed to its file", written);
    let text = "Times the recording ended before its time, because the file was too slow or took no more";
    let ended = Counter::<u64>::default();
    ended.inc_by(u64::from(stopped));
    registry.register("record_failures", text, ended);
}

fn pods(registry: &mut Registry, state: &Published) {
    let views = answer::pods(state);
    let advertised = views.iter().filter(|view| view.advertised).count();
    gauge(
        registry,
        "pod_addresses_advertised",
        "Pod addresses advertised to at least one peer",
        count(advertised),
    );
    let refused = Family::<WithReason, Gauge>::default();
    for reason in views.into_iter().filter_map(|view| view.reason) {
        refused.get_or_create(&WithReason { reason }).inc();
    }
    registry.register("pod_addresses_refused", "Pod addresses that are not advertised, by reason", refused);
    pools(registry, state);
    egress(registry, state);
}

/// What leaves by this node, and what does not; nothing where there is no Egress.
fn egress(registry: &mut Registry, state: &Published) {
    let views = super::egress::views(state);
    if views.is_empty() {
        return;
    }
    let [packets, bytes, dropped] = std::array::from_fn(|_| Family::<OfEgress, Counter>::default());
    for (egress, counted) in &state.nat.counters {
        let of = OfEgress { egress: egress.to_string() };
        packets.get_or_create(&of).inc_by(counted.out_packets);
        bytes.get_or_create(&of).inc_by(counted.out_bytes);
        dropped.get_or_create(&of).inc_by(counted.dropped_packets);
    }
    registry.register("egress_packets", "Packets that left by this node under the Egress", packets);
    registry.register("egress_bytes", "Their bytes", bytes);
    registry.register(
        "egress_dropped_packets",
        "Packets dropped because no gateway could be reached",
        dropped,
    );
    let active = Family::<ActiveGateway, Gauge>::default();
    for view in views {
        let (Some(address), Some(gateway)) = (view.address, view.active) else { continue };
        let of = ActiveGateway { egress: view.name, address: address.to_string(), gateway };
        active.get_or_create(&of).set(1);
    }
    registry.register("egress_active", "1 for the gateway that packets of the egress IP leave by", active);
    let counter = |value| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        counter
    };
    let text = "Packets of Pods dropped because they would have left with a wrong source";
    registry.register("egress_stray_packets", text, counter(state.nat.stray_packets));
    let text = "Packets to an egress IP dropped because they belonged to no flow";
    registry.register("egress_unsolicited_packets", text, counter(state.nat.unsolicited_packets));
    registry.register(
        "egress_repairs",
        "Times that the table in nftables was put right",
        counter(state.nat.repairs),
    );
}

/// How many Pods get no address, by why.
fn without_address(registry: &mut Registry, ipam: Option<&Told>) {
    let pods = Family::<OfReason, Gauge>::default();
    // There also where it is none, so that an alert sees it come.
    drop(pods.get_or_create(&OfReason { reason: "PoolExhausted" }));
    for refused in ipam.into_iter().flat_map(|ipam| ipam.refused.values()) {
        pods.get_or_create(&OfReason { reason: refused.reason }).inc();
    }
    registry.register("pods_without_address", "Pods that ask for an address and get none, by reason", pods);
}

/// How much of each pool this node still has to give.
fn pools(registry: &mut Registry, state: &Published) {
    let [blocks, free, size, used] = std::array::from_fn(|_| Family::<OfPool, Gauge>::default());
    for pool in &state.plan.pools {
        let (Some(owned), Some(left)) = (pool.blocks_here, pool.free_here) else { continue };
        let of = OfPool { pool: pool.name.clone() };
        blocks.get_or_create(&of).set(count(owned));
        free.get_or_create(&of).set(count(left));
        size.get_or_create(&of).set(i64::try_from(pool.size()).unwrap_or(i64::MAX));
        used.get_or_create(&of).set(count(pool.used_here));
    }
    registry.register("pool_blocks", "Blocks of the pool that this node owns", blocks);
    registry.register("pool_free_addresses", "Addresses of those blocks that nobody has", free);
    registry.register("pool_addresses", "Addresses of the pool in all", size);
    registry.register("pool_pod_addresses", "Addresses of the pool that Pods of this node have", used);
}

fn kernel(registry: &mut Registry, state: &Published) {
    let installed = state.desired.routes.keys().filter(|key| state.installed.delivers(key)).count();
    gauge(
        registry,
        "kernel_routes_desired",
        "Routes that the kernel should hold",
        count(state.desired.routes.len()),
    );
    gauge(registry, "kernel_routes_installed", "Of those, the ones that packets take", count(installed));
    let in_step = state.installed.synced && state.installed.generation == state.desired.generation;
    gauge(
        registry,
        "kernel_in_step",
        "1 while the kernel has answered to the newest plan",
        i64::from(in_step),
    );
}

fn sources(registry: &mut Registry, state: &Published) {
    let drained = i64::from(state.drain != DrainState::Active);
    gauge(registry, "drained", "1 while the node is drained or being drained", drained);
    gauge(
        registry,
        "ready",
        "1 once every source is in sync and the kernel has answered",
        i64::from(state.is_ready()),
    );
    let stale = Family::<OfSource, Gauge>::default();
    let mut sources: BTreeMap<&str, i64> = BTreeMap::from([("Files", 0)]);
    sources.extend(state.source_problems.keys().map(|source| (source.as_str(), 1)));
    for (source, value) in sources {
        stale.get_or_create(&OfSource { source: source.to_owned() }).set(value);
    }
    registry.register(
        "source_stale",
        "1 while a source cannot be read and its last good state is in force",
        stale,
    );
    if let Some(applied) = state.config_applied {
        let help = "When the objects in force last changed";
        gauge(registry, "config_applied_timestamp_seconds", help, applied.as_second());
    }
}

/// By interface with an unnumbered peer.
fn router_advertisements(registry: &mut Registry, state: &Published) {
    let [sent, received] = std::array::from_fn(|_| Family::<OfInterface, Counter>::default());
    let refused = Family::<OfInterfaceAndReason, Counter>::default();
    for (interface, heard) in state.heard.iter() {
        let of = OfInterface { interface: interface.clone() };
        sent.get_or_create(&of).inc_by(heard.counters.advertisements_sent);
        received.get_or_create(&of).inc_by(heard.counters.advertisements_received);
        for (reason, count) in &heard.counters.refused {
            let of = OfInterfaceAndReason { interface: interface.clone(), reason: reason.name() };
            refused.get_or_create(&of).inc_by(*count);
        }
    }
    registry.register("router_advertisements_sent", "Router advertisements sent", sent);
    registry.register("router_advertisements_received", "Router advertisements believed", received);
    registry.register(
        "router_advertisements_refused",
        "Router advertisements and solicitations not believed, by the rule that they broke",
        refused,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_that_ended_before_its_time_is_counted() {
        for (stopped, count) in [(false, 0), (true, 1)] {
            let mut registry = Registry::with_prefix("plainroute");
            record(&mut registry, Some(RecorderStatus { octets: 4711, stopped }));
            let mut text = String::new();
            text::encode(&mut text, &registry).unwrap();
            assert!(text.contains("plainroute_record_octets_total 4711\n"), "{text}");
            assert!(text.contains(&format!("plainroute_record_failures_total {count}\n")), "{text}");
        }
    }
}
