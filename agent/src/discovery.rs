//! Which router each peer without an address is: behind an interface by its router advertisements, or the node's
//! default gateway. [`Discovery`] holds what is seen against what was known; no I/O but its file.
//!
//! Ignorance changes nothing: a router that was found stays until another is seen in its place *and* its own session
//! is down. An advertisement that does not come, a route that goes, a link that is down take no peer away. A file in
//! `stateDir` remembers the routers, so that after a restart the sessions come back before anybody advertises.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use plainroute_ra::Counters;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    fib::{DefaultGateway, Installed},
    plan::Plan,
    state_file,
};

const FILE: &str = "routers";

/// A router that was not heard for so long is not there any more, if another one is: three times the interval at which
/// routers with unnumbered peers advertise (FRR: 10 s).
pub const QUIET: Duration = Duration::from_secs(30);

/// The routers that no BGPPeer names by address, as the plan takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The router behind each interface: its link-local address, or why there is none.
    pub neighbours: BTreeMap<String, Result<Ipv6Addr, String>>,
    /// The node's default gateways.
    pub default_gateways: BTreeSet<Gateway>,
}

/// A default gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The interface that it is behind, only where its address is link-local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

impl From<&DefaultGateway> for Gateway {
    fn from(gateway: &DefaultGateway) -> Gateway {
        let address = gateway.gateway;
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        Gateway { address, interface: link_local.then(|| gateway.interface.clone()) }
    }
}

/// Who advertised itself as a router on an interface since its link came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// When each router was heard last.
    pub routers: BTreeMap<Ipv6Addr, Instant>,
    /// Why nobody can be heard.
    pub problem: Option<String>,
    /// What was sent, heard and refused.
    pub counters: Counters,
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Known {
    neighbours: BTreeMap<String, Ipv6Addr>,
    default_gateways: BTreeSet<Gateway>,
}

/// What the peers of a plan need found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    interfaces: BTreeSet<String>,
    default_gateways: bool,
}

/// What there is to see at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The time.
    pub now: Instant,
    /// Links and default gateways.
    pub installed: &'a Installed,
    /// By interface.
    pub heard: &'a BTreeMap<String, Heard>,
    /// The routers with which a session is Established; link-local ones with their interface.
    pub established: &'a BTreeSet<(IpAddr, Option<String>)>,
}

/// Owned by the agent's main task.
#[derive(Debug)]
pub struct Discovery {
    file: PathBuf,
    wanted: Wanted,
    known: Known,
    found: Found,
    due: Option<Instant>,
}

impl Discovery {
    /// With what the process before this one knew.
    pub fn open(state_dir: &Path) -> Discovery {
        let file = state_dir.join(FILE);
        let known = recall(&file).unwrap_or_else(|error| {
            warn!(file = %file.display(), %error, "the routers found earlier cannot be read; they are found again");
            Known::default()
        });
        let mut discovery =
            Discovery { file, wanted: Wanted::default(), found: Found::default(), due: None, known };
        discovery.found = discovery.tell(None);
        discovery
    }

    /// What is known.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The interfaces on which a router is to be found.
    pub fn interfaces(&self) -> &BTreeSet<String> {
        &self.wanted.interfaces
    }

    /// When [`Discovery::handle_seen`] should be called although nothing was seen.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// What a new plan wants found; the rest is forgotten.
    pub fn handle_plan(&mut self, plan: &Plan) {
        let specs = plan.peers.iter().map(|peer| &peer.spec);
        self.wanted = Wanted {
            interfaces: specs.clone().filter_map(|spec| spec.interface.clone()).collect(),
            default_gateways: specs.clone().any(|spec| spec.auto_discovery.is_some()),
        };
        let before = self.known.clone();
        self.known.neighbours.retain(|interface, _| self.wanted.interfaces.contains(interface));
        if !self.wanted.default_gateways {
            self.known.default_gateways.clear();
        }
        self.remember(&before);
    }

    /// Takes in what is seen; true where that changes what is known.
    pub fn handle_seen(&mut self, seen: &Seen<'_>) -> bool {
        let before = self.known.clone();
        self.due = None;
        for interface in self.wanted.interfaces.clone() {
            self.look_behind(interface, seen);
        }
        if self.wanted.default_gateways {
            self.follow_default_route(seen);
        }
        self.remember(&before);
        let found = self.tell(Some(seen));
        let changed = found != self.found;
        self.found = found;
        changed
    }

    /// The router behind an interface: the first that is heard. Another one takes its place when it is not heard any
    /// more and its session is not up either.
    fn look_behind(&mut self, interface: String, seen: &Seen<'_>) {
        let Some(heard) = seen.heard.get(&interface) else { return };
        let known = self.known.neighbours.get(&interface).copied();
        let others = heard.routers.iter().filter(|(router, _)| Some(**router) != known);
        let Some((other, _)) = others.max_by_key(|(_, at)| **at) else { return };
        if let Some(known) = known {
            if seen.established.contains(&(known.into(), Some(interface.clone()))) {
                return;
            }
            let quiet_at = heard.routers.get(&known).map(|at| *at + QUIET);
            if let Some(at) = quiet_at.filter(|at| *at > seen.now) {
                self.due = self.due.into_iter().chain([at]).min();
                return;
            }
            info!(interface, router = %other, instead_of = %known, "another router answers");
        } else {
            info!(interface, router = %other, "found a router");
        }
        self.known.neighbours.insert(interface, *other);
    }

    /// The gateways of the best default route, IPv4's where there is one. One that the route names no more stays while
    /// its session is up: that a route was changed says nothing of the router. Without any gateway nothing changes.
    fn follow_default_route(&mut self, seen: &Seen<'_>) {
        let known = &self.known.default_gateways;
        let up =
            |gateway: &&Gateway| seen.established.contains(&(gateway.address, gateway.interface.clone()));
        let kept: BTreeSet<Gateway> = known.iter().filter(up).cloned().collect();
        let of_family = |v4: bool| {
            let gateways = seen.installed.default_gateways.iter();
            gateways.map(Gateway::from).filter(move |gateway| gateway.address.is_ipv4() == v4)
        };
        let mut now: BTreeSet<Gateway> = of_family(true).collect();
        // IPv6's do not come in beside an IPv4 session only because the IPv4 route is away for a moment.
        if now.is_empty() && !kept.iter().any(|gateway| gateway.address.is_ipv4()) {
            now = of_family(false).collect();
        }
        if now.is_empty() {
            return;
        }
        now.extend(kept);
        if now != *known {
            let gateways: Vec<String> = now.iter().map(|gateway| gateway.address.to_string()).collect();
            info!(gateways = gateways.join(", "), "found the default gateway");
            self.known.default_gateways = now;
        }
    }

    /// What is known, and of the rest why not.
    fn tell(&self, seen: Option<&Seen<'_>>) -> Found {
        let mut neighbours: BTreeMap<String, Result<Ipv6Addr, String>> = BTreeMap::new();
        if let Some(seen) = seen {
            for interface in &self.wanted.interfaces {
                neighbours.insert(interface.clone(), Err(why_not_found(interface, seen)));
            }
        }
        let known = self.known.neighbours.iter();
        neighbours.extend(known.map(|(interface, router)| (interface.clone(), Ok(*router))));
        Found { neighbours, default_gateways: self.known.default_gateways.clone() }
    }

    /// Writes down what is known, if that is news. Without it a restart only takes longer.
    fn remember(&self, before: &Known) {
        if self.known == *before {
            return;
        }
        let known = serde_json::to_vec(&self.known).map_err(io::Error::from);
        if let Err(error) = known.and_then(|known| state_file::replace(&self.file, &known)) {
            warn!(file = %self.file.display(), %error, "the routers found cannot be remembered for a restart");
        }
    }
}

fn why_not_found(interface: &str, seen: &Seen<'_>) -> String {
    let link_local = |(address, _): &(IpAddr, u8)| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    match seen.installed.interfaces.get(interface) {
        None => format!("there is no interface {interface}"),
        Some(link) if !link.up => format!("interface {interface} is down"),
        Some(link) if !link.addresses.iter().any(link_local) => {
            format!("interface {interface} has no IPv6 link-local address")
        }
        Some(_) => match seen.heard.get(interface).and_then(|heard| heard.problem.as_ref()) {
            Some(problem) => format!("router advertisements on {interface}: {problem}"),
            None => format!("no router advertisement heard on {interface} yet"),
        },
    }
}

fn recall(file: &Path) -> io::Result<Known> {
    match fs::read(file) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Known::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
