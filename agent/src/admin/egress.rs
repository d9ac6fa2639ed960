//! What is told of egress: by which gateway each egress IP leaves this node just now, and what was counted.
use std::net::IpAddr;

use plainroute_bgp::Prefix;
use plainroute_config::{EgressMode, FailurePolicy};
use serde::{Deserialize, Serialize};

use super::{Published, view::Step};
use crate::{
    egress::Choice,
    plan::{EgressAddressPlan, EgressPlan, EgressSource},
};

/// One egress IP, as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressView {
    /// The Egress.
    pub name: String,
    /// Its mode.
    pub mode: EgressMode,
    /// What happens where there is no gateway.
    pub failure_policy: FailurePolicy,
    /// The egress IP; none where the Egress has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The nodes that hold it, the preferred one first.
    pub armed: Vec<String>,
    /// The node by which packets leave, as seen from here; none where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Whether this node holds it, and all that it needs stands in the kernel.
    pub here: bool,
    /// Whether this node advertises it.
    pub advertised: bool,
    /// How many prefixes and single Pods leave under it.
    pub sources: usize,
    /// Packets that left by this node under the Egress.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Packets that this node dropped because there was no gateway.
    pub dropped_packets: u64,
    /// Why it is not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl EgressView {
    /// Whether its packets leave as they should.
    pub fn is_well(&self) -> bool {
        self.refused.is_none() && self.active.is_some()
    }
}

/// Every egress IP, by Egress.
pub(super) fn views(state: &Published) -> Vec<EgressView> {
    let of = |egress: &EgressPlan| -> Vec<EgressView> {
        match egress.addresses.is_empty() {
            true => vec![view(state, egress, None)],
            false => egress.addresses.iter().map(|address| view(state, egress, Some(address))).collect(),
        }
    };
    state.plan.egresses.iter().flat_map(of).collect()
}

fn view(state: &Published, egress: &EgressPlan, plan: Option<&EgressAddressPlan>) -> EgressView {
    let address = plan.map(|plan| plan.address);
    let counted = state.nat.counters.get(egress.name.as_str()).copied().unwrap_or_default();
    let refused = egress.refused.as_ref().or_else(|| plan?.refused.as_ref());
    let armed = plan.map(|plan| &plan.gateways[..plan.armed.min(plan.gateways.len())]).unwrap_or_default();
    let active = address.and_then(|address| state.egress.get(&address)).map(|choice| match choice {
        Choice::Here => state.node.clone(),
        Choice::Gateway { node, .. } => node.clone(),
    });
    let advertised = address.is_some_and(|address| {
        let prefix = Prefix::host(address);
        state.advertised.iter().flat_map(|routes| routes.keys()).any(|(_, of)| *of == prefix)
    });
    EgressView {
        name: egress.name.clone(),
        mode: egress.mode,
        failure_policy: egress.failure_policy,
        address,
        armed: armed.iter().map(|gateway| gateway.node.clone()).collect(),
        active,
        here: address.is_some_and(|address| state.nat.addresses.contains(&address)),
        advertised,
        sources: egress.sources.iter().filter(|source| Some(source.address) == address).count(),
        out_packets: counted.out_packets,
        out_bytes: counted.out_bytes,
        dropped_packets: counted.dropped_packets,
        refused: refused.map(ToString::to_string),
    }
}

/// What is wrong, one line each.
pub(super) fn problems(state: &Published) -> impl Iterator<Item = String> {
    let none = views(state).into_iter().filter_map(|view| {
        let address = view.address.filter(|_| view.refused.is_none() && view.active.is_none())?;
        let what = match view.failure_policy {
            FailurePolicy::Closed => "packets are dropped (failurePolicy: Closed)",
            FailurePolicy::Open => "packets leave without it (failurePolicy: Open)",
        };
        Some(format!("Egress/{}: no gateway for {address}: {what}", view.name))
    });
    let rules = state.installed.refused_rules.iter().map(|(rule, why)| format!("policy rule {rule}: {why}"));
    let rules: Vec<String> = rules.collect();
    none.chain(state.nat.error.clone().map(|error| format!("nftables: {error}"))).chain(rules)
}

/// How packets of this address leave, in sentences; none where no Egress is about it.
pub(super) fn way_out(state: &Published, source: IpAddr) -> Vec<Step> {
    let step = |(ok, text): (bool, String)| Step { ok, text };
    let mut lines = Vec::new();
    for egress in &state.plan.egresses {
        let of = |of: &&EgressSource| of.cidr.prefix().contains_address(source);
        let Some(of) = egress.sources.iter().filter(of).max_by_key(|of| of.cidr.prefix().length()) else {
            continue;
        };
        let by = match (&of.pod, &of.pool) {
            (None, Some(pool)) => format!("as an address of IPPool {pool}"),
            _ => "as this very Pod".to_owned(),
        };
        let to: Vec<String> = egress.to.iter().map(ToString::to_string).collect();
        let except: Vec<String> = egress.except.iter().map(ToString::to_string).collect();
        let except =
            if except.is_empty() { String::new() } else { format!(" but not {}", except.join(", ")) };
        lines.push(step((
            true,
            format!(
                "Egress {} is about it, {by}, towards {}{except}: it leaves as {}",
                egress.name,
                to.join(", "),
                of.address
            ),
        )));
        let refused = egress.refused.as_ref().or_else(|| {
            egress.addresses.iter().find(|address| address.address == of.address)?.refused.as_ref()
        });
        lines.push(step(match (refused, state.egress.get(&of.address)) {
            (Some(refused), _) => (false, format!("{refused}: {}", unreachable(egress))),
            (None, Some(Choice::Here)) => (true, "this node is the gateway".to_owned()),
            (None, Some(Choice::Gateway { node, address })) => {
                (true, format!("the gateway is {node}, {address}, which the routers prefer"))
            }
            (None, None) => (false, format!("no router prefers any gateway: {}", unreachable(egress))),
        }));
    }
    lines
}

fn unreachable(egress: &EgressPlan) -> &'static str {
    match egress.failure_policy {
        FailurePolicy::Closed => "its packets are dropped (failurePolicy: Closed)",
        FailurePolicy::Open => "its packets leave as they are (failurePolicy: Open)",
    }
}
