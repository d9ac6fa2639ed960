//! Whether an expectation holds at this moment, and if not, what is seen instead.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::expect::Expect;
use super::{Image, Lab, Node};
use crate::routers::{Family, Table, bird, frr};

/// How long a TCP connection of a check may take.
const CONNECT: Duration = Duration::from_secs(1);

impl Expect {
    /// Asks once. The error says what is seen instead of what is expected.
    pub(crate) fn check(&self, lab: &Lab) -> Result<()> {
        match self {
            Expect::Bgp { node, neighbor, state } => {
                let seen = session_state(lab.node(node)?, *neighbor)?;
                ensure!(seen == *state, "{seen}");
            }
            Expect::Route { node, prefix, via } => {
                let table = learned(lab.node(node)?, family_of(prefix))?;
                let seen =
                    table.get(prefix).with_context(|| format!("no such prefix among {}", keys(&table)))?;
                // A router shows the link-local next hop of an IPv6 route beside the global one.
                let global: BTreeSet<IpAddr> =
                    seen.iter().copied().filter(|hop| !is_link_local(hop)).collect();
                ensure!(global == *via, "via {}", list(seen));
            }
            Expect::NoRoute { node, prefix } => {
                let table = learned(lab.node(node)?, family_of(prefix))?;
                if let Some(seen) = table.get(prefix) {
                    bail!("it is there, via {}", list(seen));
                }
            }
            Expect::Kernel { node, prefix, by, via, protocol } => {
                let mut routes = kernel_routes(lab.node(node)?, prefix)?;
                let seen = Value::from(routes.clone());
                if let Some(number) = protocol {
                    routes.retain(|route| route["protocol"].as_str() == Some(&number.to_string()));
                }
                ensure!(!routes.is_empty(), "{seen}");
                ensure!(by.as_ref().is_none_or(|by| *by == of_hops(&routes, interface)), "{seen}");
                ensure!(via.as_ref().is_none_or(|via| *via == of_hops(&routes, gateway)), "{seen}");
            }
            Expect::NoKernel { node, prefix } => {
                let routes = kernel_routes(lab.node(node)?, prefix)?;
                ensure!(routes.is_empty(), "{}", Value::from(routes));
            }
            Expect::Ping { from, to } => ensure!(ping(lab.node(from)?, *to)?, "no answer within a second"),
            Expect::NoPing { from, to } => ensure!(!ping(lab.node(from)?, *to)?, "an answer"),
            Expect::Source { from, at, to, is } => {
                let seen = source_seen(lab.node(from)?, lab.node(at)?, *to)?;
                ensure!(seen == *is, "{seen}");
            }
            Expect::Output { node, run, contains, lacks, exit } => {
                let output = lab.node(node)?.command(&["sh", "-c", run]).output().context("run nsenter")?;
                let said = format!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
                ensure!(output.status.code() == Some(*exit), "{}: {said}", output.status);
                for text in contains {
                    ensure!(said.contains(text), "no `{text}` in: {said}");
                }
                for text in lacks {
                    ensure!(!said.contains(text), "`{text}` in: {said}");
                }
            }
        }
        Ok(())
    }
}

/// As a sentence after "expected".
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Bgp { node, neighbor, state } => write!(f, "{node}'s session with {neighbor} is {state}"),
            Expect::Route { node, prefix, via } => write!(f, "{node} has learned {prefix} via {}", list(via)),
            Expect::NoRoute { node, prefix } => write!(f, "{node} has not learned {prefix}"),
            Expect::Kernel { node, prefix, by, via, protocol } => {
                write!(f, "{node}'s kernel has a route to {prefix}")?;
                if let Some(via) = via {
                    write!(f, " via {}", list(via))?;
                }
                if let Some(by) = by {
                    write!(f, " by {}", by.iter().cloned().collect::<Vec<_>>().join(", "))?;
                }
                if let Some(protocol) = protocol {
                    write!(f, " of protocol {protocol}")?;
                }
                Ok(())
            }
            Expect::NoKernel { node, prefix } => write!(f, "{node}'s kernel has no route to {prefix}"),
            Expect::Ping { from, to } => write!(f, "{from} reaches {to}"),
            Expect::NoPing { from, to } => write!(f, "{from} does not reach {to}"),
            Expect::Source { from, at, is, .. } => write!(f, "{at} sees {from} as {is}"),
            Expect::Output { node, run, .. } => write!(f, "`{run}` on {node} answers so"),
        }
    }
}

fn session_state(node: &Node, neighbor: IpAddr) -> Result<String> {
    match node.image() {
        Image::Frr => {
            let command = format!("show bgp neighbors {neighbor} json");
            frr::state_of(&node.run(&["vtysh", "-c", &command])?, neighbor)
        }
        Image::Bird => Ok(bird::state_of(&node.run(&["birdc", "show", "protocols", "all"])?, neighbor)),
        Image::Plainroute => {
            let shown: Value = serde_json::from_str(&node.run(&["plainroute", "peers", "-o", "json"])?)?;
            let peers = shown.as_array().with_context(|| format!("not a list: {shown}"))?;
            let peer = peers.iter().find(|peer| peer["address"].as_str() == Some(&neighbor.to_string()));
            let state = peer.and_then(|peer| peer["state"].as_str()).unwrap_or("none");
            Ok(state.to_lowercase())
        }
        Image::Tools => bail!("no router runs on node {}", node.name()),
    }
}

fn learned(node: &Node, family: Family) -> Result<Table> {
    match node.image() {
        Image::Frr => frr::parse_routes(&node.run(&["vtysh", "-c", frr::show_routes(family)])?),
        Image::Bird => {
            let table = bird::table(family);
            Ok(bird::parse_routes(&node.run(&["birdc", "show", "route", "table", table, "all"])?))
        }
        Image::Plainroute | Image::Tools => {
            bail!("node {} has no table that this check can read", node.name())
        }
    }
}

/// The routes of exactly this prefix in the main table, as `ip` shows them, numbers for names.
fn kernel_routes(node: &Node, prefix: &str) -> Result<Vec<Value>> {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    let output = node.run(&["ip", "-j", "-N", family, "route", "show", "exact", prefix])?;
    if output.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&output).with_context(|| format!("`ip route` said: {output}"))
}

/// What `pick` gives for each next hop of the routes; a route with one next hop carries it itself.
fn of_hops<T: Ord>(routes: &[Value], pick: impl Fn(&Value) -> Option<T>) -> BTreeSet<T> {
    let hops = |route: &Value| route["nexthops"].as_array().cloned().unwrap_or_else(|| vec![route.clone()]);
    routes.iter().flat_map(hops).filter_map(|hop| pick(&hop)).collect()
}

fn gateway(hop: &Value) -> Option<IpAddr> {
    // `via` where the next hop is of the other family (RFC 8950).
    hop["gateway"].as_str().or_else(|| hop["via"]["host"].as_str())?.parse().ok()
}

fn interface(hop: &Value) -> Option<String> {
    hop["dev"].as_str().map(str::to_owned)
}

fn ping(node: &Node, to: IpAddr) -> Result<bool> {
    let status =
        node.command(&["ping", "-nqc1", "-W1", &to.to_string()]).output().context("run ping")?.status;
    Ok(status.success())
}

/// Listens at one node, connects from the other, and gives the address that the listener sees.
fn source_seen(from: &Node, at: &Node, to: IpAddr) -> Result<IpAddr> {
    let listener = at.within(|| TcpListener::bind((to, 0)))?.with_context(|| format!("listen on {to}"))?;
    let target = SocketAddr::new(to, listener.local_addr()?.port());
    let stream = from.within(|| TcpStream::connect_timeout(&target, CONNECT))?;
    stream.with_context(|| format!("{} connects to {target}", from.name()))?;
    // The connection stands in the queue, so this does not wait.
    Ok(listener.accept().context("accept")?.1.ip())
}

fn family_of(prefix: &str) -> Family {
    if prefix.contains(':') { Family::V6 } else { Family::V4 }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn list<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> String {
    let words: Vec<String> = addresses.into_iter().map(IpAddr::to_string).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn keys(table: &Table) -> String {
    table.keys().cloned().collect::<Vec<_>>().join(", ")
}
