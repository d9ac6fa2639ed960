//! Under which addresses Pods leave: for each Egress its addresses, the gateways of each in their order, and whose packets
//! are meant. The same on every node that knows the same objects; which gateway is in use just now is for
//! [`steer`](crate::egress), who asks the routers.
mod rank;
mod reason;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use plainroute_bgp::{AfiSafi, LargeCommunity, Prefix, RouterId};
use plainroute_config::{
    BgpAdvertisement, Cidr, Egress, EgressAddresses, EgressMode, FailurePolicy, IpPool, Labels, Parsed,
    PoolUsage, Preference, Transport,
};
use serde::{Deserialize, Serialize};

pub use rank::Gateway;
pub use reason::EgressReason;
pub use source::EgressSource;
pub(crate) use source::prefixes;

use super::{
    Local, Reason, RouteAttributes,
    advertisement::{self, Candidate, Of},
    peer::Peers,
    pool::Pools,
};
use crate::index::Snapshot;
use rank::Candidates;

/// The second part of the large community `ASN:188:ROUTER-ID` by which an egress route names the gateway that it comes from.
pub const GATEWAY_FUNCTION: u32 = 188;

/// What becomes of one Egress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressPlan {
    /// The Egress's name.
    pub name: String,
    /// Who holds its addresses.
    pub mode: EgressMode,
    /// What happens where no gateway can be reached.
    pub failure_policy: FailurePolicy,
    /// The destinations that are meant.
    #[serde(rename = "destinationCIDRs")]
    pub to: BTreeSet<Cidr>,
    /// Those that are not.
    #[serde(rename = "excludedCIDRs", default, skip_serializing_if = "BTreeSet::is_empty")]
    pub except: BTreeSet<Cidr>,
    /// The source addresses.
    pub addresses: Vec<EgressAddressPlan>,
    /// Whether Pods are meant that no pool alone tells apart.
    pub names_pods: bool,
    /// Whose packets are meant, and the address of each.
    pub sources: Vec<EgressSource>,
    /// Why nothing of it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<EgressReason>,
}

/// What becomes of one egress IP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressAddressPlan {
    /// The address.
    pub address: IpAddr,
    /// All nodes that may hold it, the preferred one first.
    pub gateways: Vec<Gateway>,
    /// How many of them hold it at once.
    pub armed: usize,
    /// This node's place among those; 0 is the preferred one. None where it is not one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// The BGPAdvertisements that select it, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertised_by: Vec<String>,
    /// To which peers this node should advertise it, with which attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub advertise: BTreeMap<String, RouteAttributes>,
    /// The peers that a BGPAdvertisement selects and that do not get it, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub withheld: BTreeMap<String, Reason>,
    /// Why this node does not advertise it although it holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unadvertised: Option<Reason>,
    /// Why nobody holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<EgressReason>,
}

impl EgressAddressPlan {
    /// Whether this node is to hold it.
    pub fn is_here(&self) -> bool {
        self.rank.is_some()
    }

    /// The gateway of this identity.
    pub fn gateway(&self, id: RouterId) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| *gateway.id == id)
    }
}

/// Every Egress, by name; where two want one address, the first has it.
pub(super) fn plan_egresses(
    snapshot: &Snapshot,
    local: &Local,
    pools: &Pools<'_>,
    peers: &Peers<'_>,
) -> Vec<EgressPlan> {
    if snapshot.egresses().next().is_none() {
        return Vec::new();
    }
    let mut planner = Planner {
        local,
        pools,
        peers,
        advertisements: snapshot.advertisements().map(|(advertisement, _)| advertisement).collect(),
        candidates: Candidates::new(snapshot),
        sources: source::Sources::new(snapshot, local, pools),
        // Who lists an address has it, whatever a pool would give to others.
        listed: snapshot
            .egresses()
            .flat_map(|(egress, _)| egress.spec.egress_ips.iter().map(|ip| **ip))
            .collect(),
        taken: BTreeMap::new(),
    };
    snapshot.egresses().map(|(egress, _)| planner.plan(egress)).collect()
}

struct Planner<'a> {
    local: &'a Local,
    pools: &'a Pools<'a>,
    peers: &'a Peers<'a>,
    advertisements: Vec<&'a BgpAdvertisement>,
    candidates: Candidates<'a>,
    sources: source::Sources<'a>,
    listed: BTreeSet<IpAddr>,
    /// Who has which address.
    taken: BTreeMap<IpAddr, String>,
}

impl<'a> Planner<'a> {
    fn plan(&mut self, egress: &Egress) -> EgressPlan {
        let spec = &egress.spec;
        let addresses = not_supported(egress).map_or_else(|| self.addresses(egress), Err);
        let (addresses, refused) = match addresses {
            Ok(addresses) => (addresses, None),
            Err(refused) => (Vec::new(), Some(refused)),
        };
        let tenants = self.sources.namespaces(&spec.applied_to);
        let addresses: Vec<EgressAddressPlan> =
            addresses.into_iter().map(|address| self.address(egress, address, &tenants)).collect();
        let known: Vec<IpAddr> = addresses.iter().map(|plan| plan.address).collect();
        EgressPlan {
            name: egress.name().to_owned(),
            mode: spec.mode,
            failure_policy: spec.failure_policy,
            to: spec.destination_cidrs.iter().copied().collect(),
            except: spec.excluded_cidrs.iter().copied().collect(),
            names_pods: self.sources.names_pods(&spec.applied_to),
            sources: self.sources.of(&spec.applied_to, &known),
            addresses,
            refused,
        }
    }

    /// The addresses of an Egress: those that it lists, or one of each family that its pool has.
    fn addresses(&self, egress: &Egress) -> Result<Vec<IpAddr>, EgressReason> {
        match egress.spec.addresses() {
            EgressAddresses::Listed(listed) => Ok(listed.iter().map(|address| **address).collect()),
            EgressAddresses::Pool(name) => {
                let pool = self.pools.all().find(|pool| pool.name() == name);
                let pool = pool.ok_or_else(|| EgressReason::NoSuchPool { pool: name.to_owned() })?;
                if pool.spec.usage != PoolUsage::Egress {
                    return Err(EgressReason::NotForEgress { pool: name.to_owned() });
                }
                let found: Vec<IpAddr> = AfiSafi::ALL
                    .into_iter()
                    .filter_map(|family| self.pick(pool, egress.name(), family))
                    .collect();
                match found.is_empty() {
                    true => Err(EgressReason::PoolExhausted { pool: name.to_owned() }),
                    false => Ok(found),
                }
            }
        }
    }

    /// The address of a pool that an Egress of this name has: from a place that its name says, the first that is free.
    fn pick(&self, pool: &IpPool, name: &str, family: AfiSafi) -> Option<IpAddr> {
        let set = pool.spec.addresses();
        let intervals = || set.intervals().filter(|(first, _)| Prefix::host(*first).family() == family);
        let size: u128 =
            intervals().map(|(first, last)| source::span(first, last)).fold(0, u128::saturating_add);
        let from = u128::from(plainroute_blocks::hash(&[pool.name(), name])).checked_rem(size)?;
        // No more are asked than can be taken, so a wide pool costs nothing.
        let tries = size.min(self.taken.len() as u128 + self.listed.len() as u128 + 1);
        let address = |place: u128| {
            let mut place = place % size;
            intervals().find_map(|(first, last)| {
                let span = source::span(first, last);
                let here = (place < span).then(|| source::nth(first, place));
                place = place.saturating_sub(span);
                here
            })
        };
        (0..tries)
            .filter_map(|step| address(from + step))
            .find(|address| !self.taken.contains_key(address) && !self.listed.contains(address))
    }

    fn address(&mut self, egress: &Egress, address: IpAddr, tenants: &[&Labels]) -> EgressAddressPlan {
        let spec = &egress.spec;
        let refused = self.refuse(egress, address);
        let family = Prefix::host(address).family();
        let gateways = match refused {
            Some(_) => Vec::new(),
            None => self.candidates.rank(&spec.node_selector, address),
        };
        let refused = refused.or_else(|| {
            let none = gateways.is_empty();
            none.then(|| self.candidates.refuse(&spec.node_selector, family))
        });
        if refused.is_none() {
            self.taken.insert(address, egress.name().to_owned());
        }
        let armed = gateways.len().min(spec.gateways.get().into());
        let rank = gateways.iter().take(armed).position(|gateway| gateway.node == self.local.node);
        let mut plan = EgressAddressPlan {
            address,
            gateways,
            armed,
            rank,
            advertised_by: Vec::new(),
            advertise: BTreeMap::new(),
            withheld: BTreeMap::new(),
            unadvertised: None,
            refused,
        };
        if let Some(rank) = rank {
            self.advertise(egress, &mut plan, rank, tenants);
        }
        plan
    }

    /// Why nobody may hold an address.
    fn refuse(&self, egress: &Egress, address: IpAddr) -> Option<EgressReason> {
        if let Some(other) = self.taken.get(&address).filter(|other| *other != egress.name()) {
            return Some(EgressReason::TakenByOther { egress: other.clone() });
        }
        let in_pods =
            self.pools.all().find(|pool| pool.spec.usage == PoolUsage::Pod && pool.spec.contains(address));
        if let Some(pool) = in_pods {
            return Some(EgressReason::InPodPool { pool: pool.name().to_owned() });
        }
        self.candidates.node_of(address).map(|node| EgressReason::AddressOfNode { node: node.to_owned() })
    }

    fn advertise(&self, egress: &Egress, plan: &mut EgressAddressPlan, rank: usize, tenants: &[&'a Labels]) {
        let no_labels = Labels::new();
        let pool = self.pools.all().find(|pool| pool.spec.contains(plan.address));
        let candidate = Candidate {
            prefix: Prefix::host(plan.address),
            pool_labels: pool.map_or(&no_labels, |pool| &pool.metadata.labels),
            epoch: None,
            of: Of::Egress { namespaces: tenants.to_vec() },
        };
        let selected = advertisement::select(&self.advertisements, &candidate, self.peers, self.local);
        let id = plan.gateways.get(rank).map(|gateway| *gateway.id);
        plan.advertised_by = selected.by;
        plan.withheld = selected.withheld;
        plan.unadvertised = selected.refused;
        plan.advertise = selected.routes;
        for (peer, attributes) in &mut plan.advertise {
            let asn =
                self.peers.here.iter().find(|planned| planned.name == *peer).map(|peer| *peer.local_asn);
            attributes
                .large_communities
                .extend(asn.zip(id).map(|(asn, id)| gateway_community(asn.number(), id)));
            prefer(attributes, egress.spec.preference, rank);
        }
    }
}

/// What tells who has advertised an egress IP.
fn gateway_community(asn: u32, id: RouterId) -> Parsed<LargeCommunity> {
    Parsed(LargeCommunity { global: asn, local1: GATEWAY_FUNCTION, local2: id.number() })
}

/// The further down in the order, the worse the route.
fn prefer(attributes: &mut RouteAttributes, preference: Preference, rank: usize) {
    let rank = u8::try_from(rank).unwrap_or(u8::MAX);
    // Internal peers see no prepending, and others no LOCAL_PREF.
    let local_preference = attributes.local_preference.unwrap_or(100);
    attributes.local_preference = Some(local_preference.saturating_sub(rank.into()));
    match preference {
        Preference::AsPathPrepend => {
            attributes.as_path_prepend = attributes.as_path_prepend.saturating_add(rank);
        }
        Preference::Med => {
            attributes.med = Some(attributes.med.unwrap_or_default().saturating_add(rank.into()));
        }
    }
}

/// What of an Egress this version cannot do.
pub(crate) fn not_supported(egress: &Egress) -> Option<EgressReason> {
    match (egress.spec.mode, egress.spec.transport) {
        (EgressMode::Local, _) => Some(EgressReason::NotSupported { what: "mode: Local".to_owned() }),
        (_, Transport::Vxlan) => Some(EgressReason::NotSupported { what: "transport: VXLAN".to_owned() }),
        (EgressMode::Gateway, Transport::Direct) => None,
    }
}
