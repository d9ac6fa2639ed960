//! The speaker under test, waiting on loopback for the peers that a test plays.
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use plainroute_bgp::{Asn, Prefix, RouterId, session::State};
use plainroute_speaker::{
    ApplyError, ImportRule, PeerChange, PeerConfig, PeerName, PeerStatus, ReceivedRoute, Speaker,
    SpeakerConfig,
};
use tokio::time::timeout;

/// Far beyond what anything here takes, since the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The AS of the speaker, and of its internal peers.
pub(crate) const LOCAL_ASN: u32 = 65000;
/// The AS of its external peers.
pub(crate) const EXTERNAL_ASN: u32 = 65001;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    External,
    Internal,
}

/// The speaker, its port, and the sort of each peer by number.
pub(crate) struct Site {
    pub(crate) speaker: Speaker,
    pub(crate) port: u16,
    pub(crate) sorts: BTreeMap<u8, Sort>,
}

impl Site {
    /// A speaker that waits for these peers.
    pub(crate) async fn new(peers: impl IntoIterator<Item = (u8, Sort)>) -> Site {
        let speaker = Speaker::start(SpeakerConfig::default());
        let mut site = Site { speaker, port: 0, sorts: peers.into_iter().collect() };
        for _ in 0..10 {
            site.port = free_port();
            match site.apply(site.configs()).await {
                // Somebody was quicker; there are more ports.
                Err(ApplyError::Listen { .. }) => {}
                result => {
                    result.unwrap();
                    return site;
                }
            }
        }
        panic!("no port to listen on");
    }

    pub(crate) fn configs(&self) -> BTreeMap<PeerName, PeerConfig> {
        self.sorts.keys().map(|number| (name(*number), self.config(*number))).collect()
    }

    /// Waits for peer `number` and takes the documentation prefixes from it, not for the kernel.
    pub(crate) fn config(&self, number: u8) -> PeerConfig {
        let rule =
            |text: &str, le| ImportRule { le: Some(le), install: false, ..ImportRule::new(prefix(text)) };
        let local = Asn::new(LOCAL_ASN).unwrap();
        let router_id = RouterId::new(Ipv4Addr::new(10, 0, 0, 1).to_bits()).unwrap();
        PeerConfig {
            passive: true,
            listen_port: self.port,
            // The lengths of RFC 4271 hold; RFC 8654 has its tests in the library.
            extended_messages: false,
            import: vec![rule("192.0.2.0/24", 32), rule("198.51.100.0/24", 32), rule("2001:db8::/32", 128)],
            ..PeerConfig::new(local, asn(self.sorts[&number]), router_id, address(number).ip())
        }
    }

    pub(crate) async fn apply(
        &self,
        peers: BTreeMap<PeerName, PeerConfig>,
    ) -> Result<Vec<PeerChange>, ApplyError> {
        self.speaker.apply(peers).await
    }

    /// The status now.
    pub(crate) fn status(&self, number: u8) -> PeerStatus {
        self.speaker.peers().borrow()[&name(number)].clone()
    }

    /// The status as soon as `met` holds.
    pub(crate) async fn wait(&self, number: u8, met: impl Fn(&PeerStatus) -> bool) -> Result<PeerStatus> {
        let name = name(number);
        let mut peers = self.speaker.peers();
        let last = peers.clone();
        let found = |peers: &Arc<BTreeMap<PeerName, PeerStatus>>| peers.get(&name).is_some_and(&met);
        match timeout(DEADLINE, peers.wait_for(found)).await {
            Ok(peers) => Ok(peers.context("the speaker is gone")?[&name].clone()),
            Err(_) => bail!("did not come true; last: {:#?}", last.borrow().get(&name)),
        }
    }

    /// Waits until so many UPDATEs were taken in without loss of the session.
    pub(crate) async fn taken(&self, number: u8, updates: u64, lost: u64) -> Result<PeerStatus> {
        let gone = |status: &PeerStatus| status.counters.lost > lost || status.state != State::Established;
        let over = |status: &PeerStatus| status.counters.updates_received >= updates || gone(status);
        let status = self.wait(number, over).await?;
        if gone(&status) {
            bail!("the session was lost: {:?}", status.last_error.map(|(error, _)| error));
        }
        Ok(status)
    }

    pub(crate) async fn received(&self, number: u8) -> Vec<ReceivedRoute> {
        self.speaker.received(&name(number)).await
    }

    /// The received route to a prefix.
    pub(crate) async fn route(&self, number: u8, text: &str) -> Option<ReceivedRoute> {
        let wanted = prefix(text);
        self.received(number).await.into_iter().find(|route| route.prefix == wanted)
    }
}

pub(crate) fn asn(sort: Sort) -> Asn {
    Asn::new(if sort == Sort::Internal { LOCAL_ASN } else { EXTERNAL_ASN }).unwrap()
}

pub(crate) fn name(number: u8) -> PeerName {
    PeerName::from(format!("peer-{number}"))
}

/// Where peer `number` comes from.
pub(crate) fn address(number: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), 0))
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
