//! Which BGPAdvertisement takes which address to which peers, and with which attributes.
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use plainroute_bgp::{Community, ExtendedCommunity, LargeCommunity, Prefix};
use plainroute_config::{
    AdvertisementType, BgpAdvertisement, BgpAdvertisementSpec, Labels, Parsed, Pod, Withdraw,
};
use plainroute_speaker::OriginAttributes;
use serde::{Deserialize, Serialize};

use super::{Local, Reason, peer::Peers};
use crate::flaps;

/// The MED of a claim of the first epoch, where no advertisement says one. A route without one counts as one of 0, which nothing
/// is better than.
const FIRST_MED: u32 = 1_000_000;

/// The attributes of one route to one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteAttributes {
    /// Standard communities.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub communities: BTreeSet<Parsed<Community>>,
    /// Extended communities.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub extended_communities: BTreeSet<Parsed<ExtendedCommunity>>,
    /// Large communities.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub large_communities: BTreeSet<Parsed<LargeCommunity>>,
    /// LOCAL_PREF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// How often our AS is prepended.
    #[serde(skip_serializing_if = "is_zero")]
    pub as_path_prepend: u8,
    /// The Pod is being deleted and advertised all the same: GRACEFUL_SHUTDOWN (RFC 8326), so that whoever else has the
    /// address is preferred.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub graceful_shutdown: bool,
}

fn is_zero(count: &u8) -> bool {
    *count == 0
}

impl RouteAttributes {
    /// Where several advertisements select one route: communities add up, a single value is the first one's by name.
    fn merge(&mut self, advertisement: &BgpAdvertisement) {
        let attributes = &advertisement.spec.attributes;
        self.communities.extend(&attributes.communities);
        self.extended_communities.extend(&attributes.extended_communities);
        self.large_communities.extend(&attributes.large_communities);
        self.local_preference = self.local_preference.or(attributes.local_preference);
        self.med = self.med.or(attributes.med);
        if self.as_path_prepend == 0 {
            self.as_path_prepend = attributes.as_path_prepend.get();
        }
    }

    /// Makes the route better than one of the same prefix with a smaller epoch: that is of an owner before, which was fenced, and
    /// may be advertised still by a node that nobody can tell anything. So each epoch lowers the MED by one.
    fn prefer_by(&mut self, epoch: u64) {
        let first = self.med.unwrap_or(FIRST_MED);
        let later = u32::try_from(epoch.saturating_sub(1)).unwrap_or(u32::MAX);
        self.med = Some(first.saturating_sub(later));
    }
}

/// What asks to be advertised.
pub(super) struct Candidate<'a> {
    pub(super) prefix: Prefix,
    pub(super) pool_labels: &'a Labels,
    /// Of the block of this node that it is or lies in.
    pub(super) epoch: Option<u64>,
    pub(super) of: Of<'a>,
}

/// Whose it is.
pub(super) enum Of<'a> {
    /// A Pod's address.
    Pod {
        pod: &'a Pod,
        namespace_labels: &'a Labels,
        /// The node owns this address and none beside it: a block of one.
        is_block: bool,
    },
    /// A block for Pods of these namespaces.
    Block { namespaces: Vec<&'a Labels> },
    /// An egress IP of these namespaces.
    Egress { namespaces: Vec<&'a Labels> },
}

impl<'a> Candidate<'a> {
    fn pod(&self) -> Option<&'a Pod> {
        match &self.of {
            Of::Pod { pod, .. } => Some(pod),
            Of::Block { .. } | Of::Egress { .. } => None,
        }
    }

    /// Whether the advertisement is for it. A block may have Pods of every namespace that its pool is bound to, so it takes an
    /// advertisement that is for all of them; so does an egress IP of all that its Egress is for.
    fn is_chosen_by(&self, spec: &BgpAdvertisementSpec) -> bool {
        let chosen = match &self.of {
            Of::Pod { pod, namespace_labels, is_block } => {
                let as_block = *is_block && spec.advertises(AdvertisementType::PodBlock);
                (as_block || spec.advertises(AdvertisementType::PodIp))
                    && spec.namespace_selector.matches(namespace_labels)
                    && spec.pod_selector.matches(&pod.metadata.labels)
            }
            Of::Block { namespaces } => takes_all(spec, AdvertisementType::PodBlock, namespaces),
            Of::Egress { namespaces } => takes_all(spec, AdvertisementType::EgressIp, namespaces),
        };
        chosen && spec.pool_selector.matches(self.pool_labels)
    }
}

/// Whether the advertisement is for this type, and for whatever Pods of these namespaces.
fn takes_all(spec: &BgpAdvertisementSpec, of: AdvertisementType, namespaces: &[&Labels]) -> bool {
    spec.advertises(of)
        && spec.pod_selector.is_empty()
        && namespaces.iter().all(|labels| spec.namespace_selector.matches(labels))
}

/// What the advertisements say of one address.
#[derive(Default)]
pub(super) struct Selected {
    pub(super) by: Vec<String>,
    pub(super) routes: BTreeMap<String, RouteAttributes>,
    /// The peers that an advertisement selects and that do not get it, and why.
    pub(super) withheld: BTreeMap<String, Reason>,
    pub(super) refused: Option<Reason>,
    pub(super) next_change: Option<Timestamp>,
}

/// Asks every advertisement, in the order of their names.
pub(super) fn select(
    advertisements: &[&BgpAdvertisement],
    candidate: &Candidate<'_>,
    peers: &Peers<'_>,
    local: &Local,
) -> Selected {
    let mut selected = Selected::default();
    let mut held_back = None;
    for advertisement in advertisements {
        let spec = &advertisement.spec;
        if !candidate.is_chosen_by(spec) {
            continue;
        }
        let held = candidate.pod().and_then(|pod| hold_back(pod, &spec.withdraw, local));
        if let Some((reason, ends)) = held {
            held_back.get_or_insert(reason);
            selected.next_change = selected.next_change.into_iter().chain(ends).min();
            continue;
        }
        selected.by.push(advertisement.name().to_owned());
        for peer in peers.selected(&spec.peer_selector, candidate.prefix.family()) {
            let route = selected.routes.entry(peer.to_owned()).or_default();
            route.merge(advertisement);
            route.graceful_shutdown = candidate.pod().is_some_and(Pod::is_terminating);
        }
    }
    if let Some(epoch) = candidate.epoch {
        selected.routes.values_mut().for_each(|route| route.prefer_by(epoch));
    }
    selected.withhold(candidate.prefix, peers);
    if selected.routes.is_empty() {
        let by_export = selected.withheld.values().next();
        selected.refused = Some(match (held_back, selected.by.is_empty()) {
            (Some(reason), true) => reason,
            (None, true) => Reason::NoAdvertisement,
            (_, false) => by_export.cloned().unwrap_or(Reason::NoPeer),
        });
    }
    selected
}

impl Selected {
    /// Asks the export rules, once it is known which communities all advertisements together give the route.
    fn withhold(&mut self, prefix: Prefix, peers: &Peers<'_>) {
        let refused = self.routes.extract_if(.., |peer, route| {
            let communities: Vec<Community> = route.communities.iter().map(|community| **community).collect();
            let large: Vec<LargeCommunity> =
                route.large_communities.iter().map(|community| **community).collect();
            let policy = peers.export_policy(peer);
            policy.is_some_and(|policy| !policy.permits(prefix, &communities, &large))
        });
        self.withheld = refused.map(|(peer, _)| (peer.clone(), Reason::RefusedByExport { peer })).collect();
    }
}

/// Why the Pod's own state keeps it back, and when that ends by itself.
fn hold_back(pod: &Pod, withdraw: &Withdraw, local: &Local) -> Option<(Reason, Option<Timestamp>)> {
    if withdraw.terminating && pod.is_terminating() {
        return Some((Reason::Terminating, None));
    }
    if !withdraw.not_ready {
        return None;
    }
    if !pod.ready {
        return Some((Reason::NotReady, None));
    }
    if let Some(damped) = local.damped.get(&flaps::key(pod)) {
        let longest = SignedDuration::from_secs(withdraw.max_damped_seconds.get().into());
        let until = damped.last_loss.checked_add(longest).map_or(damped.until, |most| most.min(damped.until));
        if until > local.now {
            return Some((Reason::Restless { until }, Some(until)));
        }
    }
    let seconds = withdraw.min_ready_seconds;
    let due = pod.ready_since?.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()?;
    (due > local.now).then_some((Reason::ReadyTooShort { min_ready_seconds: seconds }, Some(due)))
}

impl From<&RouteAttributes> for OriginAttributes {
    fn from(attributes: &RouteAttributes) -> OriginAttributes {
        OriginAttributes {
            communities: attributes.communities.iter().map(|community| **community).collect(),
            extended_communities: attributes.extended_communities.iter().map(|c| **c).collect(),
            large_communities: attributes.large_communities.iter().map(|community| **community).collect(),
            local_pref: attributes.local_preference,
            med: attributes.med,
            as_path_prepend: attributes.as_path_prepend,
            drain: attributes.graceful_shutdown,
        }
    }
}
