//! Which gateway each egress IP leaves by just now, and what the kernel must hold for that: a state machine without I/O.
//!
//! The plan says who may hold an egress IP; the routers say who is preferred, by the route that they send back, which names
//! its gateway in a large community. What goes out and what comes back so follow one decision. In: the plan, what is
//! followed, what the kernel holds. Out: the tables and rules of [`Desired`](crate::fib::Desired), and [`NatDesired`].
//!
//! *Never a wrong source.* A packet is marked for a gateway only once the rule and the table for the mark stand, and these
//! go only after nftables marks nothing for them any more. A gateway takes packets of other nodes' Pods only for
//! addresses that stand on it. *Ignorance moves nothing.* Without a session that is up, and until the peers have told all
//! after a start, what was chosen last stays chosen.
mod remembered;
mod slots;
mod uplinks;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use plainroute_bgp::{AfiSafi, Prefix, RouterId};
use plainroute_config::{FailurePolicy, PoolUsage};
use plainroute_speaker::{Followed, FollowedPath};

pub use remembered::Remembered;
pub use slots::Slots;

use crate::{
    fib::{Installed, NextHop, RouteKey, Rule, RuleAction, Target},
    nat::{Fate, NatClass, NatDesired, NatInstalled, NatSource},
    plan::{EgressAddressPlan, EgressPlan, GATEWAY_FUNCTION, Plan, prefixes},
};

/// The numbers and exceptions of the AgentConfig.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The first egress table.
    pub table_base: u32,
    /// The bits of the mark that are ours.
    pub mark_mask: u32,
    /// Destinations that no Egress is about.
    pub excluded: BTreeSet<Prefix>,
}

/// The rules' first priority; each slot adds its number.
const PRIORITY: u32 = 1880;
/// The priority of the rules that drop what no gateway's table takes: behind all of those.
const PRIORITY_DROP: u32 = PRIORITY + 256;

/// Where packets of an egress IP's Pods go from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// They leave here.
    Here,
    /// Through that node.
    Gateway {
        /// Its name.
        node: String,
        /// Its address.
        address: IpAddr,
    },
}

/// Everything that the kernel should hold for egress beside nftables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The gateways' tables.
    pub routes: BTreeMap<RouteKey, Target>,
    /// The rules that lead there.
    pub rules: BTreeSet<Rule>,
}

/// What the routers say.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The routes that came back.
    pub followed: Arc<Followed>,
    /// At least one session is up, so that silence means something.
    pub connected: bool,
    /// Each peer has sent all that it has since the start, or had its time for it.
    pub settled: bool,
}

/// Owned by the agent's main task.
#[derive(Debug)]
pub struct Egresses {
    settings: Settings,
    plan: Arc<Plan>,
    heard: Heard,
    /// For each egress IP, as last decided.
    choices: BTreeMap<IpAddr, Choice>,
    slots: Slots,
    nat: Arc<NatDesired>,
    nat_installed: Arc<NatInstalled>,
}

impl Egresses {
    /// Begins with what an earlier process has chosen.
    pub fn new(settings: Settings, remembered: Remembered) -> Egresses {
        Egresses {
            settings,
            plan: Arc::default(),
            heard: Heard::default(),
            choices: remembered.choices,
            slots: Slots::new(remembered.slots),
            nat: Arc::default(),
            nat_installed: Arc::default(),
        }
    }

    /// A new plan.
    pub fn handle_plan(&mut self, plan: Arc<Plan>) {
        self.plan = plan;
        self.decide();
    }

    /// What the routers say now.
    pub fn handle_heard(&mut self, heard: Heard) {
        self.heard = heard;
        self.decide();
    }

    /// What nftables holds now.
    pub fn handle_nat_installed(&mut self, installed: Arc<NatInstalled>) {
        self.slots.handle_installed(installed.generation);
        self.nat_installed = installed;
    }

    /// What nftables holds.
    pub fn nat_installed(&self) -> &Arc<NatInstalled> {
        &self.nat_installed
    }

    /// For each egress IP that anybody holds, where its packets go; nowhere where it is not there.
    pub fn choices(&self) -> &BTreeMap<IpAddr, Choice> {
        &self.choices
    }

    /// What a later process should begin with.
    pub fn remembered(&self) -> Remembered {
        Remembered { choices: self.choices.clone(), slots: self.slots.assigned().clone() }
    }

    /// The tables and rules for every gateway in use.
    pub fn ways(&self) -> Ways {
        let mut ways = Ways::default();
        for (slot, gateway) in self.slots.standing() {
            let family = Prefix::host(*gateway).family();
            let table = self.settings.table_base.saturating_add(u32::from(*slot));
            let next_hops = vec![NextHop { gateway: *gateway, interface: None }];
            let everywhere =
                default_of(family).map(|prefix| (RouteKey { table, prefix }, Target::Via { next_hops }));
            ways.routes.extend(everywhere);
            ways.rules.extend(self.rules(*slot, family));
        }
        ways
    }

    /// What nftables should hold, if it differs from the last time. `standing`: the egress IPs that are this node's own in the
    /// kernel, those included whose withdrawal is not flushed.
    pub fn poll_nat(
        &mut self,
        standing: &BTreeSet<IpAddr>,
        installed: &Installed,
    ) -> Option<Arc<NatDesired>> {
        let next = NatDesired { generation: self.nat.generation, ..self.nat_desired(standing, installed) };
        if next == *self.nat {
            return None;
        }
        let next = NatDesired { generation: next.generation + 1, ..next };
        self.slots.handle_desired(&used_slots(&next), next.generation);
        self.nat = Arc::new(next);
        Some(Arc::clone(&self.nat))
    }

    fn rules(&self, slot: u8, family: AfiSafi) -> [Rule; 2] {
        let mask = self.settings.mark_mask;
        let mark = u32::from(slot) << mask.trailing_zeros();
        let table = self.settings.table_base.saturating_add(u32::from(slot));
        let lookup = Rule {
            family,
            priority: PRIORITY + u32::from(slot),
            mark,
            mask,
            action: RuleAction::Lookup(table),
        };
        [lookup, Rule { priority: PRIORITY_DROP, action: RuleAction::Blackhole, ..lookup }]
    }

    /// Chooses anew for each egress IP.
    fn decide(&mut self) {
        let plan = Arc::clone(&self.plan);
        let addresses = plan.egresses.iter().flat_map(|egress| &egress.addresses);
        let next = addresses.filter(|address| address.refused.is_none()).filter_map(|address| {
            let before = self.choices.get(&address.address);
            let choice = choose(address, &plan.node, &self.heard, before)?;
            Some((address.address, choice))
        });
        self.choices = next.collect();
        let gateways = self.choices.values().filter_map(|choice| match choice {
            Choice::Gateway { address, .. } => Some(*address),
            Choice::Here => None,
        });
        self.slots.assign(gateways.collect());
    }

    fn nat_desired(&self, standing: &BTreeSet<IpAddr>, installed: &Installed) -> NatDesired {
        let plan = &self.plan;
        let mut egresses: Vec<&EgressPlan> =
            plan.egresses.iter().filter(|egress| !egress.addresses.is_empty()).collect();
        if egresses.is_empty() && standing.is_empty() {
            return NatDesired::default();
        }
        // What is said of fewer destinations goes before what is said of more.
        egresses.sort_by_key(|egress| {
            std::cmp::Reverse(egress.to.iter().map(|cidr| cidr.prefix().length()).min())
        });
        let mut classes: Vec<NatClass> = Vec::new();
        for egress in egresses {
            let to: BTreeSet<Prefix> = egress.to.iter().map(|cidr| cidr.prefix()).collect();
            let except: BTreeSet<Prefix> = egress.except.iter().map(|cidr| cidr.prefix()).collect();
            let place = classes.iter().position(|class| class.to == to && class.except == except);
            let place = place.unwrap_or_else(|| {
                classes.push(NatClass { to, except, sources: BTreeMap::new() });
                classes.len() - 1
            });
            let name: Arc<str> = egress.name.as_str().into();
            for source in &egress.sources {
                // Of two Egresses with the same destinations the first by name has a source.
                classes[place].sources.entry(source.cidr.prefix()).or_insert_with(|| NatSource {
                    egress: Arc::clone(&name),
                    address: source.address,
                    local: self.local_fate(egress, source.address, standing, installed),
                    transit: if standing.contains(&source.address) {
                        Fate::Here
                    } else {
                        transit_elsewhere(egress)
                    },
                });
            }
        }
        let pools = plan.pools.iter().filter(|pool| pool.usage == PoolUsage::Pod);
        let ranges = pools.flat_map(|pool| &pool.ip_ranges);
        let pods: BTreeSet<Prefix> = ranges.flat_map(|range| prefixes(range.first(), range.last())).collect();
        let gateways =
            plan.egresses.iter().flat_map(|egress| &egress.addresses).flat_map(|address| &address.gateways);
        let nodes = gateways.map(|gateway| Prefix::host(gateway.address));
        let own = installed.interfaces.values().flat_map(|interface| &interface.addresses);
        let own = own.map(|(address, _)| Prefix::host(*address));
        NatDesired {
            generation: 0,
            inside: pods
                .iter()
                .copied()
                .chain(nodes)
                .chain(own)
                .chain(self.settings.excluded.iter().copied())
                .collect(),
            uplinks: uplinks::uplinks(plan, installed),
            classes,
            addresses: standing.clone(),
            pods,
            mark_mask: self.settings.mark_mask,
        }
    }

    fn local_fate(
        &self,
        egress: &EgressPlan,
        address: IpAddr,
        standing: &BTreeSet<IpAddr>,
        installed: &Installed,
    ) -> Fate {
        let closed = match egress.failure_policy {
            FailurePolicy::Closed => Fate::Drop,
            FailurePolicy::Open => Fate::Leave,
        };
        match self.choices.get(&address) {
            Some(Choice::Here) if standing.contains(&address) => Fate::Here,
            Some(Choice::Gateway { address: gateway, .. }) => match self.slots.of(gateway) {
                Some(slot) if self.stands(slot, gateway, installed) => Fate::Away { slot },
                // A mark without its rule would leave by the main table.
                _ => Fate::Drop,
            },
            Some(Choice::Here) | None => closed,
        }
    }

    /// Whether the kernel has the rules of a slot.
    fn stands(&self, slot: u8, gateway: &IpAddr, installed: &Installed) -> bool {
        let rules = self.rules(slot, Prefix::host(*gateway).family());
        rules.iter().all(|rule| installed.rules.contains(rule))
    }
}

/// A packet of another node's Pod on a node that does not hold its egress IP: whoever sent it here thinks otherwise.
fn transit_elsewhere(egress: &EgressPlan) -> Fate {
    match egress.failure_policy {
        FailurePolicy::Closed => Fate::Drop,
        FailurePolicy::Open => Fate::Leave,
    }
}

fn used_slots(nat: &NatDesired) -> BTreeSet<u8> {
    let sources = nat.classes.iter().flat_map(|class| class.sources.values());
    let fates = sources.flat_map(|source| [source.local, source.transit]);
    fates
        .filter_map(|fate| match fate {
            Fate::Away { slot } => Some(slot),
            Fate::Here | Fate::Drop | Fate::Leave => None,
        })
        .collect()
}

/// Where packets of one egress IP go.
fn choose(address: &EgressAddressPlan, node: &str, heard: &Heard, before: Option<&Choice>) -> Option<Choice> {
    let preferred = heard.followed.get(&Prefix::host(address.address)).and_then(|paths| {
        let named = paths.iter().flat_map(named_gateways).filter_map(|id| address.gateway(id));
        // Routers that disagree are asked in the plan's order.
        named.min_by_key(|gateway| address.gateways.iter().position(|of| of == *gateway))
    });
    match preferred {
        Some(gateway) if gateway.node == node => address.is_here().then_some(Choice::Here),
        Some(gateway) => Some(Choice::Gateway { node: gateway.node.clone(), address: gateway.address }),
        // A router does not send a node its own route back: silence says that it is preferred itself.
        None if heard.connected && heard.settled => address.is_here().then_some(Choice::Here),
        None => before.filter(|choice| is_possible(choice, address, node)).cloned(),
    }
}

fn is_possible(choice: &Choice, address: &EgressAddressPlan, node: &str) -> bool {
    match choice {
        Choice::Here => address.is_here(),
        Choice::Gateway { node: gateway, address: at } => {
            gateway != node && address.gateways.iter().any(|of| of.node == *gateway && of.address == *at)
        }
    }
}

/// The gateways that a route names: one, unless somebody adds to it.
fn named_gateways(path: &FollowedPath) -> impl Iterator<Item = RouterId> {
    let ours =
        path.attributes.large_communities.iter().filter(|community| community.local1 == GATEWAY_FUNCTION);
    ours.filter_map(|community| RouterId::new(community.local2))
}

fn default_of(family: AfiSafi) -> Option<Prefix> {
    let default = match family {
        AfiSafi::Ipv4Unicast => Prefix::v4(Ipv4Addr::UNSPECIFIED, 0),
        AfiSafi::Ipv6Unicast => Prefix::v6(Ipv6Addr::UNSPECIFIED, 0),
    };
    default.ok()
}
