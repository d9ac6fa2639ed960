//! Announces one prefix to one peer until Ctrl-C, then withdraws it:
//!
//! `announce LOCAL_ASN PEER_ASN ROUTER_ID PEER_ADDRESS PREFIX`, e.g. `announce 64512 64600 192.0.2.1 192.0.2.254 10.20.0.0/28`
use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use plainroute_speaker::{
    OriginAttributes, Originated, PeerConfig, PeerName, Speaker, SpeakerConfig, StopMode,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [local_asn, peer_asn, router_id, address, prefix] = &arguments[..] else {
        anyhow::bail!("usage: announce LOCAL_ASN PEER_ASN ROUTER_ID PEER_ADDRESS PREFIX");
    };
    let peer = PeerName::from("peer");
    let config = PeerConfig::new(local_asn.parse()?, peer_asn.parse()?, router_id.parse()?, address.parse()?);
    let route = Originated {
        peer: peer.clone(),
        prefix: prefix.parse()?,
        attributes: Arc::new(OriginAttributes::default()),
    };

    let speaker = Speaker::start(SpeakerConfig::default());
    speaker.originate("example", vec![route]).await;
    speaker.initial_sync_done();
    speaker.apply(BTreeMap::from([(peer, config)])).await?;
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
    speaker.stop(StopMode::Withdraw).await;
    Ok(())
}
