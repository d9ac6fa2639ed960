//! What one peer told us, and what stays of it while the peer restarts (RFC 4724 section 4.2, RFC 9494).
//!
//! Owned by the peer's task. Only what the import rules name is kept; what is kept over a lost session is stale
//! until the peer tells it again, sends End-of-RIB, or its time runs out.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_bgp::{
    AfiSafi, Asn, Families,
    policy::{
        Accepted, Action, Filter, ImportPolicy, ImportRule, InvalidPrefixRule, PrefixRule, Relation, Verdict,
    },
    rib::{AdjRibIn, Change, Identity, PrefixLimit, Received},
    session::{DownReason, Negotiated, Retention},
    wire::{Nlri, Update},
};

use crate::{
    PeerConfig, ReceivedRoute,
    learned::{PeerRoute, PeerRoutes},
};

/// How long the peer's routes stay while we build the session anew, and as long again until it has sent them all.
const HOLD: Duration = Duration::from_secs(10);

pub(crate) struct Inbound {
    rib: AdjRibIn,
    policy: ImportPolicy,
    retention: Retention,
    end_of_rib: Families,
    /// The routes for the kernel. Whoever looks at them holds on to them as they were: the next change makes a copy.
    routes: Arc<PeerRoutes>,
    /// The routes that are followed, likewise.
    followed: Arc<PeerRoutes>,
    /// What changed since it was last taken, where somebody watches.
    watched: Option<Vec<Change>>,
}

impl Inbound {
    pub(crate) fn new(config: &PeerConfig) -> Inbound {
        Inbound {
            rib: AdjRibIn::new(identity(config), config.max_prefixes_in),
            // Refused by `PeerConfig::check` before it gets here.
            policy: policy(config).unwrap_or(ImportPolicy::DENY),
            retention: Retention::default(),
            end_of_rib: Families::NONE,
            routes: Arc::default(),
            followed: Arc::default(),
            watched: None,
        }
    }

    pub(crate) fn rib(&self) -> &AdjRibIn {
        &self.rib
    }

    pub(crate) fn routes(&self) -> Arc<PeerRoutes> {
        Arc::clone(&self.routes)
    }

    pub(crate) fn followed(&self) -> Arc<PeerRoutes> {
        Arc::clone(&self.followed)
    }

    pub(crate) fn end_of_rib_received(&self, family: AfiSafi) -> bool {
        self.end_of_rib.contains(family)
    }

    /// Whether routes of a session that was lost are kept.
    pub(crate) fn is_retaining(&self) -> bool {
        self.retention.poll_timeout().is_some()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retention.poll_timeout()
    }

    /// The session stands. Stale routes wait on where the peer says that it forwarded all the time, and go where
    /// it does not.
    pub(crate) fn session_up(&mut self, now: Instant, config: &PeerConfig, negotiated: &Negotiated) {
        self.rib.session_up(identity(config), config.max_prefixes_in);
        self.end_of_rib = Families::NONE;
        self.rib.set_relation(Some(Relation {
            local_asn: config.local_asn,
            peer_asn: config.peer_asn,
            role: negotiated.role,
        }));
        let changes = self.rib.set_first_as(first_as(config));
        self.note(changes);
        let changes = self.retention.session_up(now, negotiated, &mut self.rib);
        self.note(changes);
    }

    /// The session is about to be built anew at our own wish: what the peer taught stays for a moment, as stale.
    pub(crate) fn hold(&mut self, now: Instant) {
        let changes = self.retention.hold(now, HOLD, &mut self.rib);
        self.note(changes);
    }

    pub(crate) fn session_down(&mut self, now: Instant, reason: &DownReason, negotiated: &Negotiated) {
        let changes = self.retention.session_down(now, reason, negotiated, &mut self.rib);
        self.note(changes);
        self.end_of_rib = Families::NONE;
    }

    /// The peer is another one now, or gone for good.
    pub(crate) fn clear(&mut self) {
        for family in AfiSafi::ALL {
            let changes = self.rib.clear(family);
            self.note(changes);
        }
        self.retention.clear();
    }

    pub(crate) fn apply(&mut self, update: &Update) -> Option<PrefixLimit> {
        let applied = self.rib.apply(update, &self.policy);
        self.note(applied.changes);
        if let Some(family) = update.end_of_rib {
            self.end_of_rib.insert(family);
            let changes = self.retention.end_of_rib(family, &mut self.rib);
            self.note(changes);
        }
        applied.limit
    }

    /// The peer tells all of `family` again (RFC 7313). Before its End-of-RIB that is to be ignored where it does
    /// graceful restart (section 4.1).
    pub(crate) fn begin_refresh(
        &mut self,
        now: Instant,
        family: AfiSafi,
        config: &PeerConfig,
        negotiated: &Negotiated,
    ) {
        if negotiated.graceful_restart.is_none() || self.end_of_rib.contains(family) {
            self.retention.begin_refresh(now, config.refresh_limit, family, &mut self.rib);
        }
    }

    pub(crate) fn end_refresh(&mut self, family: AfiSafi) {
        let changes = self.retention.end_refresh(family, &mut self.rib);
        self.note(changes);
    }

    /// True where stale routes have just gone, or become a last resort, for want of time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let changes = self.retention.handle_timeout(now, &mut self.rib);
        let changed = !changes.is_empty();
        self.note(changes);
        changed
    }

    /// Another limit; it holds for what comes from now on.
    pub(crate) fn set_limit(&mut self, config: &PeerConfig) {
        self.rib.set_max_prefixes(config.max_prefixes_in);
    }

    /// Other import rules, or another word on the first AS: what is held is judged again; what was refused has to be asked for.
    pub(crate) fn set_policy(&mut self, config: &PeerConfig) {
        self.policy = policy(config).unwrap_or(ImportPolicy::DENY);
        let changes = self.rib.reapply(&self.policy);
        self.note(changes);
        let changes = self.rib.set_first_as(first_as(config));
        self.note(changes);
    }

    pub(crate) fn received(&self) -> Vec<ReceivedRoute> {
        let mut received: Vec<(Nlri, Received)> = self.rib.iter().collect();
        received.sort_unstable_by_key(|(nlri, _)| *nlri);
        let route = |(nlri, received): (Nlri, Received)| ReceivedRoute {
            prefix: nlri.prefix,
            next_hop: received.route.next_hop,
            attributes: Arc::clone(received.route.attributes.shared()),
            install: received.install,
            stale: received.stale,
        };
        received.into_iter().map(route).collect()
    }

    /// Whether changes are to be kept for [`Self::take_changes`]; those kept so far are dropped.
    pub(crate) fn watch(&mut self, wanted: bool) {
        self.watched = wanted.then(Vec::new);
    }

    /// What changed since the last time.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        self.watched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn note(&mut self, changes: Vec<Change>) {
        if let Some(watched) = &mut self.watched {
            watched.extend_from_slice(&changes);
        }
        for Change { nlri, route } in changes {
            let follows = self.policy.follows(nlri.prefix);
            let to_kernel = route.as_ref().filter(|received| received.install && !follows);
            keep(&mut self.routes, nlri, to_kernel);
            keep(&mut self.followed, nlri, route.as_ref().filter(|_| follows));
        }
    }
}

fn keep(routes: &mut Arc<PeerRoutes>, nlri: Nlri, received: Option<&Received>) {
    match received {
        Some(Received { route, stale, .. }) => {
            let attributes = Arc::clone(route.attributes.shared());
            let route = PeerRoute { attributes, next_hop: route.next_hop, stale: *stale };
            Arc::make_mut(routes).insert(nlri, route);
        }
        None if routes.contains_key(&nlri) => _ = Arc::make_mut(routes).remove(&nlri),
        None => {}
    }
}

fn identity(config: &PeerConfig) -> Identity {
    Identity { asn: config.local_asn, router_id: config.router_id }
}

/// The AS with which the peer's paths must begin.
fn first_as(config: &PeerConfig) -> Option<Asn> {
    (config.enforce_first_as && !config.internal()).then_some(config.peer_asn)
}

/// The import rules as a policy; nothing else enters (RFC 8212).
pub(crate) fn policy(config: &PeerConfig) -> Result<ImportPolicy, InvalidPrefixRule> {
    let rule = |rule: &crate::ImportRule| {
        let filter = Filter {
            prefixes: PrefixRule::new(rule.prefix, rule.ge, rule.le)?,
            communities: rule.communities.clone(),
            large_communities: rule.large_communities.clone(),
        };
        let verdict = match rule.action {
            Action::Accept => {
                Verdict::Accept(Accepted { install: rule.install, local_pref: rule.local_pref })
            }
            Action::Reject => Verdict::Reject,
        };
        Ok(ImportRule { filter, as_path: rule.as_path, verdict })
    };
    let rules = config.import.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(ImportPolicy::new(rules).following(Arc::clone(&config.followed)))
}
