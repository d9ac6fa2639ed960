//! The main task's part in egress: what the routers say goes in, what nftables shall hold comes out, and what was chosen is left
//! for a later process.
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_bgp::session::State;
use plainroute_config::AgentConfigSpec;
use plainroute_speaker::{Followed, PeerStatus, Peers};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Agent, has_sent_all};
use crate::{
    egress::{Choice, Heard, Remembered, Settings},
    source::kubernetes::Scope,
};

/// After this long a session that does not mark the end of its table has told all of it.
const TELLING: Duration = Duration::from_secs(5);

/// What an earlier process has left; one that cannot be read is as none.
pub(super) fn remembered(state_dir: &Path) -> Remembered {
    Remembered::load(state_dir).unwrap_or_else(|error| {
        let state_dir = state_dir.display();
        warn!(%state_dir, %error, "egress.json cannot be read: the gateways in use are asked of the routers anew");
        Remembered::default()
    })
}

/// The numbers of the AgentConfig.
pub(super) fn settings(config: &AgentConfigSpec) -> Settings {
    Settings {
        table_base: config.routing.egress_table_base.get(),
        mark_mask: config.routing.egress_mark_mask.bits(),
        excluded: config.egress.excluded_cidrs.iter().map(|cidr| cidr.prefix()).collect(),
    }
}

impl Agent {
    pub(super) fn handle_followed(
        &mut self,
        followed: &mut watch::Receiver<Arc<Followed>>,
        peers: &watch::Receiver<Arc<Peers>>,
    ) {
        let peers = Arc::clone(&peers.borrow());
        self.telling_until =
            peers.values().filter(|peer| is_telling(peer)).map(|peer| peer.since + TELLING).min();
        let heard = Heard {
            followed: Arc::clone(&followed.borrow_and_update()),
            connected: peers.values().any(|peer| peer.state == State::Established && !is_telling(peer)),
            settled: self.has_settled(&peers),
        };
        self.egress.handle_heard(heard);
    }

    /// Asks for as much of the cluster as the Egresses need.
    pub(super) fn widen_scope(&self) {
        let (nodes, pods) = (!self.plan.egresses.is_empty(), self.plan.needs_all_pods());
        self.outputs.scope.send_if_modified(|scope| {
            let wider = Scope { nodes: scope.nodes | nodes, pods: scope.pods | pods };
            let modified = *scope != wider;
            *scope = wider;
            modified
        });
    }

    /// When the silence of a session begins to mean something.
    pub(super) fn silence_counts_at(&self) -> Option<Instant> {
        self.telling_until.filter(|at| *at > Instant::now())
    }

    /// Tells nftables what it shall hold, and a later process what was chosen.
    pub(super) fn carry_out_egress(&mut self) {
        // Before the first plan nothing is known, and what an earlier process left stays.
        if !self.planned {
            return;
        }
        if let Some(nat) = self.egress.poll_nat(&self.gate.standing_egress(), self.gate.installed()) {
            self.outputs.nat.send_replace(nat);
        }
        let now = self.egress.remembered();
        if now == self.remembered {
            return;
        }
        for (address, choice) in &now.choices {
            if self.remembered.choices.get(address) != Some(choice) {
                match choice {
                    Choice::Here => info!(%address, "egress: packets leave here"),
                    Choice::Gateway { node, .. } => {
                        info!(%address, gateway = node, "egress: packets leave by this gateway")
                    }
                }
            }
        }
        for address in self.remembered.choices.keys().filter(|address| !now.choices.contains_key(*address)) {
            warn!(%address, "egress: no gateway");
        }
        if let Err(error) = now.save(&self.config.state_dir) {
            let state_dir = self.config.state_dir.display();
            warn!(%state_dir, %error, "which egress gateways are in use cannot be remembered over a restart");
        }
        self.remembered = now;
    }
}

/// Whether a session is up and may not have told all that it has.
fn is_telling(peer: &PeerStatus) -> bool {
    peer.state == State::Established && !has_sent_all(peer) && peer.since.elapsed() < TELLING
}
