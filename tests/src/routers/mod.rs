//! The routers that others run, started from a configuration text in a namespace, to talk to in tests.
//!
//! Each has its instance directory (configuration, sockets, logs) and dies with its value. All answer the few questions of
//! [`Router`]; what only one of them can do is a method of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::{Daemon, Netns, wait_until};
use crate::scratch;

pub(crate) mod bird;
mod exabgp;
pub(crate) mod frr;
mod gobgp;
mod openbgpd;

pub use bird::Bird;
pub use exabgp::Exabgp;
pub use frr::{Frr, KEEPER as FRR_KEEPER};
pub use gobgp::Gobgp;
pub use openbgpd::Openbgpd;

/// How long a router may take to answer after its start, on a busy machine.
pub const READY: Duration = Duration::from_secs(20);

/// An address family, as the routers' tables are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 unicast.
    V4,
    /// IPv6 unicast.
    V6,
}

/// Prefixes with the next hops they were learned with.
pub type Table = BTreeMap<String, BTreeSet<IpAddr>>;

/// What a test asks of any router.
pub trait Router {
    /// The product, for messages.
    fn name(&self) -> &'static str;

    /// The state of the session with a neighbour, in lower case: `established`, `active`, ...; `none` if it knows no such
    /// neighbour.
    fn state(&self, neighbor: IpAddr) -> Result<String>;

    /// What it has learned over BGP and holds valid, without its own routes.
    fn learned(&self, family: Family) -> Result<Table>;

    /// Stops as an operator's restart does: SIGTERM, and waits.
    fn stop(&mut self) -> Result<()>;

    /// SIGKILL: as a crash.
    fn kill(&mut self);

    /// Starts again after [`stop`](Self::stop) or [`kill`](Self::kill), with the same configuration; returns when it answers.
    fn start(&mut self) -> Result<()>;

    /// Waits until the session with a neighbour is in a state.
    fn await_state(&self, neighbor: IpAddr, state: &str, deadline: Duration) -> Result<()> {
        let what = format!("{} to be {state} with {neighbor}", self.name());
        wait_until(&what, deadline, || match self.state(neighbor) {
            Ok(seen) if seen == state => Ok(()),
            Ok(seen) => Err(seen),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Waits until what it has learned satisfies a condition, and gives that table.
    fn await_learned(
        &self,
        family: Family,
        what: &str,
        deadline: Duration,
        condition: &dyn Fn(&Table) -> bool,
    ) -> Result<Table> {
        wait_until(&format!("{} to have learned {what}", self.name()), deadline, || {
            match self.learned(family) {
                Ok(table) if condition(&table) => Ok(table),
                Ok(table) => Err(format!("{table:?}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
    }
}

/// The directory of one instance and the namespace it runs in. Last in a router's fields: what is dropped before may still
/// read a log there.
#[derive(Debug)]
struct Instance {
    netns: Netns,
    dir: tempfile::TempDir,
}

impl Instance {
    fn new(netns: &Netns, product: &str) -> Result<Instance> {
        Ok(Instance { netns: netns.clone(), dir: scratch::directory(product)? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path of the instance as a command's argument.
    fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        fs::write(self.path(name), content).with_context(|| format!("write {}", self.path(name).display()))
    }

    fn spawn(&self, argv: &[&str], log: &str) -> Result<Daemon> {
        self.netns.spawn(argv, &self.path(log))
    }
}

/// Waits for a readiness question to be answered, and gives up at once when the process has ended.
fn await_ready(daemon: &mut Daemon, what: &str, mut ask: impl FnMut() -> Result<()>) -> Result<()> {
    let mut ended = None;
    wait_until(&format!("{what} to answer"), READY, || match daemon.ensure_running() {
        Ok(()) => ask().map_err(|error| format!("{error:#}")),
        Err(error) => {
            ended = Some(error);
            Ok(())
        }
    })?;
    ended.map_or(Ok(()), Err)
}

/// Reads a JSON value as an address; of a link-local one without the interface.
fn address(value: &serde_json::Value) -> Option<IpAddr> {
    value.as_str()?.split('%').next()?.parse().ok()
}

/// Whether a socket or another file is there.
fn exists(path: &Path) -> Result<()> {
    anyhow::ensure!(path.exists(), "no {} yet", path.display());
    Ok(())
}
