//! `plainroute explain`: every rule that an address meets on its way to the peers, with the answer that it got.
use std::net::IpAddr;

use plainroute_bgp::Prefix;
use plainroute_blocks::{Holdings, OwnedBlock};

use super::{
    Published,
    answer::{Fate, block_of, pod_name, word},
    view::{AddressExplanation, Explanation, PeerView, Step},
};
use crate::{
    fib::{RuleAction, Target},
    plan::{AddressPlan, PodPlan, Reason},
};

/// Explains an address, or a Pod given as NAMESPACE/POD.
pub(super) fn explain(
    state: &Published,
    holdings: &Holdings,
    peers: &[PeerView],
    subject: &str,
) -> Explanation {
    let asked: Option<IpAddr> = subject.parse().ok();
    let about = |pod: &PodPlan| asked.is_none() && pod_name(pod) == subject;
    let mut addresses = Vec::new();
    for pod in &state.plan.pods {
        let of_pod = pod.addresses.iter().filter(|address| about(pod) || asked == Some(address.address));
        addresses.extend(of_pod.map(|address| {
            let mut explained = explain_address(state, peers, pod, address);
            explained.steps.splice(1..1, loan(holdings, address.address));
            explained
        }));
        let meant = about(pod) || asked.is_some_and(|asked| pod.pod_ips.contains(&asked));
        addresses.extend(pod.refused.as_ref().filter(|_| meant).map(|reason| whole(pod, reason, asked)));
    }
    let mut notes = Vec::new();
    match asked {
        Some(address) => {
            notes.extend(about_address(state, address, addresses.is_empty()));
            notes.extend(lent(holdings, address));
        }
        None if addresses.is_empty() => {
            let hint = if subject.contains('/') { "" } else { "; write NAMESPACE/POD or an IP address" };
            notes.push(format!("no Pod {subject} is known to the agent of node {}{hint}", state.node));
        }
        None => {}
    }
    if addresses.iter().any(|address| address.reason.as_deref() == Some("NoPeer")) {
        let kept_down = state.plan.peers.iter().filter_map(|peer| Some((peer, peer.refused.as_ref()?)));
        notes.extend(kept_down.map(|(peer, why)| format!("BGPPeer {}: {why}", peer.name)));
    }
    if !state.is_ready() {
        notes.push("the agent is not in sync yet; see `plainroute check`".to_owned());
    }
    Explanation { subject: subject.to_owned(), addresses, notes }
}

fn whole(pod: &PodPlan, reason: &Reason, asked: Option<IpAddr>) -> AddressExplanation {
    AddressExplanation {
        pod: pod_name(pod),
        address: asked.or_else(|| pod.pod_ips.first().copied()),
        advertised: false,
        reason: Some(word(reason)),
        steps: vec![no(reason.to_string())],
        way_out: Vec::new(),
    }
}

fn explain_address(
    state: &Published,
    peers: &[PeerView],
    pod: &PodPlan,
    address: &AddressPlan,
) -> AddressExplanation {
    let fate = Fate::of(state, address);
    let steps = steps(state, peers, pod, address, &fate);
    AddressExplanation {
        pod: pod_name(pod),
        address: Some(address.address),
        advertised: !fate.peers.is_empty(),
        reason: fate.refusal.map(|(word, _)| word),
        steps,
        way_out: super::egress::way_out(state, address.address),
    }
}

fn steps(
    state: &Published,
    peers: &[PeerView],
    pod: &PodPlan,
    address: &AddressPlan,
    fate: &Fate,
) -> Vec<Step> {
    let mut steps = vec![yes(format!("the Pod runs on this node ({}), in a network of its own", state.node))];
    let Some(pool) = &address.pool else {
        steps.extend(address.refused.as_ref().map(|reason| no(reason.to_string())));
        return steps;
    };
    steps.push(yes(format!(
        "IPPool {pool} holds {} and is bound to namespace {}",
        address.address, pod.namespace
    )));
    let block = block_of(state, address);
    match &address.refused {
        Some(reason) => {
            steps.push(no(reason.to_string()));
            return steps;
        }
        None => {
            let (what, by, to) = match block {
                Some(block) => (
                    format!("{}, the block of this node that it lies in,", block.cidr),
                    &block.advertised_by,
                    &block.advertise,
                ),
                None => ("it".to_owned(), &address.advertised_by, &address.advertise),
            };
            let names: Vec<&str> = to.keys().map(String::as_str).collect();
            steps.push(yes(format!(
                "BGPAdvertisement {} takes {what} to {}",
                by.join(", "),
                names.join(", ")
            )));
            steps.extend(address.withheld.values().map(|reason| no(reason.to_string())));
            if address.advertise.values().any(|route| route.graceful_shutdown) {
                let why =
                    "the Pod is being deleted: the route carries GRACEFUL_SHUTDOWN, any other is preferred";
                steps.push(yes(why.to_owned()));
            }
        }
    }
    steps.push(Step { ok: fate.delivered, text: format!("the kernel's path: {}", fate.path) });
    if fate.delivered {
        let to = block.map_or(&address.advertise, |block| &block.advertise);
        steps.extend(to.keys().map(|name| {
            let peer = peers.iter().find(|peer| peer.name == *name);
            let state = peer.map_or("unknown", |peer| peer.state.as_str());
            if peer.is_some_and(|peer| peer.range.is_some()) {
                let members = || peers.iter().filter(|peer| peer.member_of.as_ref() == Some(name));
                let (up, all) = (members().filter(|peer| peer.is_established()).count(), members().count());
                let text = format!("BGPPeer {name} is {state}: {up} of {all} peers are Established");
                return Step { ok: up > 0 && fate.peers.contains(name), text };
            }
            Step {
                ok: peer.is_some_and(PeerView::is_established) && fate.peers.contains(name),
                text: format!("BGPPeer {name} is {state}"),
            }
        }));
    }
    steps
}

/// Of whom the address is borrowed.
fn loan(holdings: &Holdings, address: IpAddr) -> Option<Step> {
    let block = holdings.blocks.get(&Prefix::host(address))?;
    let (lender, lost) = (block.lender.as_ref()?, block.lost);
    let of = block.lender_node.as_deref().unwrap_or("unknown");
    let text = format!("it is borrowed of IPBlock {lender} of node {of}, which lends it to this node");
    Some(if lost { no(format!("{text}, but the loan is gone")) } else { yes(text) })
}

/// To whom this node lends it.
fn lent(holdings: &Holdings, address: IpAddr) -> Option<String> {
    let lending =
        |(prefix, block): (&Prefix, &OwnedBlock)| Some((*prefix, block.lent.get(&address)?.clone()));
    let (block, node) = holdings.blocks.iter().find_map(lending)?;
    Some(format!("this node lends it, of its block {block}, to node {node}, which advertises it on its own"))
}

/// What is known of an address beside Pods.
fn about_address(state: &Published, address: IpAddr, unclaimed: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let prefix = Prefix::host(address);
    if unclaimed {
        notes.push(format!("no Pod known to the agent of node {} has {address}", state.node));
    }
    let pools = state.plan.pools.iter().filter(|pool| pool.holds(prefix));
    notes.extend(pools.filter(|_| unclaimed).map(|pool| format!("it lies in IPPool {}", pool.name)));
    let egress = super::egress::views(state).into_iter().filter(|view| view.address == Some(address));
    notes.extend(egress.map(|view| {
        let active = view.active.map_or("no gateway".to_owned(), |node| format!("the gateway {node}"));
        format!("it is an egress IP of Egress {}; packets leave by {active}", view.name)
    }));
    let peers = state.plan.peers.iter().filter(|peer| {
        let remote = peer.remote.as_ref();
        remote.is_some_and(|remote| remote.address == address)
    });
    notes.extend(peers.map(|peer| format!("it is the address of BGPPeer {}", peer.name)));
    let routes = state.desired.routes.iter().filter(|(key, target)| {
        let by_mark = state.desired.rules.iter().any(|rule| rule.action == RuleAction::Lookup(key.table));
        unclaimed && !by_mark && key.prefix.contains(prefix) && matches!(target, Target::Via { .. })
    });
    let best = routes.max_by_key(|(key, _)| key.prefix.length());
    notes.extend(
        best.map(|(key, target)| format!("this node reaches it by the learned route {key} {target}")),
    );
    notes
}

fn yes(text: String) -> Step {
    Step { ok: true, text }
}

fn no(text: String) -> Step {
    Step { ok: false, text }
}
