//! FRRouting: zebra and bgpd, asked through vtysh's JSON.
//!
//! Both give up root for the user `frr`, which clears the parent-death signal that would end them with the test. So a shell
//! that keeps root stands beside each and passes signals on.

use std::net::IpAddr;
use std::os::unix::fs::chown;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Family, Instance, Router, Table, address, await_ready, exists};
use crate::netns::{Daemon, Netns};

/// The shell script that stands beside a daemon: it runs its arguments. SIGHUP is what the kernel sends when we die.
pub const KEEPER: &str =
    r#""$@" & pid=$!; trap 'kill -KILL $pid' HUP; trap 'kill -TERM $pid' TERM; wait $pid; wait $pid"#;

/// zebra and bgpd with one configuration.
#[derive(Debug)]
pub struct Frr {
    zebra: Daemon,
    bgpd: Daemon,
    instance: Instance,
}

impl Frr {
    /// Starts both from an `frr.conf` text; returns when bgpd answers.
    pub fn launch(netns: &Netns, config: &str) -> Result<Frr> {
        let instance = Instance::new(netns, "frr")?;
        instance.write("frr.conf", config)?;
        instance.write("vtysh.conf", "")?;
        let user = nix::unistd::User::from_name("frr")?.context("no user frr: is FRR installed?")?;
        chown(instance.dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        let zebra = start_zebra(&instance)?;
        let bgpd = start_bgpd(&instance)?;
        Ok(Frr { instance, zebra, bgpd })
    }

    /// A vtysh command's output.
    pub fn vtysh(&self, command: &str) -> Result<String> {
        vtysh(&self.instance, &[command])
    }

    /// Configuration commands, from `configure terminal` on.
    pub fn configure(&self, commands: &[&str]) -> Result<()> {
        let mut all = vec!["configure terminal"];
        all.extend(commands);
        vtysh(&self.instance, &all).map(drop)
    }

    /// The output of a `show ... json` command.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.vtysh(command)?;
        serde_json::from_str(&text).with_context(|| format!("`{command}` said: {text}"))
    }

    /// What bgpd has logged (`log stdout` in the configuration).
    pub fn log(&self) -> String {
        self.bgpd.log()
    }

    /// Kills bgpd alone: zebra, and with it the kernel's routes, stays.
    pub fn kill_bgpd(&mut self) {
        self.bgpd.kill();
    }

    /// Starts bgpd again.
    pub fn start_bgpd(&mut self) -> Result<()> {
        self.bgpd = start_bgpd(&self.instance)?;
        Ok(())
    }
}

impl Router for Frr {
    fn name(&self) -> &'static str {
        "FRR"
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        state_of(&self.vtysh(&format!("show bgp neighbors {neighbor} json"))?, neighbor)
    }

    fn learned(&self, family: Family) -> Result<Table> {
        parse_routes(&self.vtysh(show_routes(family))?)
    }

    fn stop(&mut self) -> Result<()> {
        self.bgpd.terminate(Duration::from_secs(10))?;
        self.zebra.terminate(Duration::from_secs(10))?;
        Ok(())
    }

    fn kill(&mut self) {
        self.bgpd.kill();
        self.zebra.kill();
    }

    fn start(&mut self) -> Result<()> {
        self.zebra = start_zebra(&self.instance)?;
        self.bgpd = start_bgpd(&self.instance)?;
        Ok(())
    }
}

fn start_zebra(instance: &Instance) -> Result<Daemon> {
    let mut daemon = start(instance, "zebra", &[])?;
    await_ready(&mut daemon, "zebra", || {
        exists(&instance.path("zebra.vty")).and(exists(&instance.path("zserv.api")))
    })?;
    Ok(daemon)
}

fn start_bgpd(instance: &Instance) -> Result<Daemon> {
    let mut daemon = start(instance, "bgpd", &["-p", "179"])?;
    await_ready(&mut daemon, "bgpd", || vtysh(instance, &["show bgp summary json"]).map(drop))?;
    Ok(daemon)
}

fn start(instance: &Instance, name: &str, more: &[&str]) -> Result<Daemon> {
    // A socket left by the daemon before would look like readiness.
    let _ = std::fs::remove_file(instance.path(&format!("{name}.vty")));
    let binary = format!("/usr/lib/frr/{name}");
    let (config, zserv, dir) = (instance.arg("frr.conf"), instance.arg("zserv.api"), instance.arg(""));
    let pid = instance.arg(&format!("{name}.pid"));
    let mut argv = vec!["setpriv", "--pdeathsig", "HUP", "sh", "-c", KEEPER, "sh", &binary];
    argv.extend(["-f", &config, "-z", &zserv, "--vty_socket", &dir, "-i", &pid, "-A", "127.0.0.1"]);
    argv.extend(more);
    instance.spawn(&argv, &format!("{name}.log"))
}

fn vtysh(instance: &Instance, commands: &[&str]) -> Result<String> {
    let dir = instance.arg("");
    let mut argv = vec!["vtysh", "--vty_socket", &dir, "--config_dir", &dir];
    for command in commands {
        argv.extend(["-c", command]);
    }
    instance.netns.run(&argv)
}

/// From `show bgp neighbors ADDRESS json`.
pub(crate) fn state_of(shown: &str, neighbor: IpAddr) -> Result<String> {
    let shown: Value = serde_json::from_str(shown).with_context(|| format!("FRR said: {shown}"))?;
    let state = shown.get(neighbor.to_string()).and_then(|peer| peer.get("bgpState"));
    Ok(state.and_then(Value::as_str).unwrap_or("none").to_lowercase())
}

/// The command whose output [`parse_routes`] reads.
pub(crate) fn show_routes(family: Family) -> &'static str {
    match family {
        Family::V4 => "show bgp ipv4 unicast json",
        Family::V6 => "show bgp ipv6 unicast json",
    }
}

/// From `show bgp FAMILY unicast json`: the valid paths from peers.
pub(crate) fn parse_routes(shown: &str) -> Result<Table> {
    let shown: Value = serde_json::from_str(shown).with_context(|| format!("FRR said: {shown}"))?;
    let mut table = Table::new();
    for (prefix, paths) in shown["routes"].as_object().into_iter().flatten() {
        let paths = paths.as_array().into_iter().flatten();
        // Its own routes have no peer.
        let from_peers = paths.filter(|path| {
            path["valid"].as_bool() == Some(true) && path["peerId"].as_str() != Some("(unspec)")
        });
        let next_hops: Vec<IpAddr> = from_peers
            .flat_map(|path| path["nexthops"].as_array().into_iter().flatten())
            .filter_map(|hop| address(&hop["ip"]))
            .collect();
        if !next_hops.is_empty() {
            table.entry(prefix.clone()).or_default().extend(next_hops);
        }
    }
    Ok(table)
}
