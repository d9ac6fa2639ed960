//! FRRouting: zebra and bgpd, and bfdd where the configuration has a `bfd` section, asked through vtysh's JSON.
//!
//! All give up root for the user `frr`, which clears the parent-death signal that would end them with the test. So a shell
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

/// zebra, bgpd and perhaps bfdd with one configuration.
#[derive(Debug)]
pub struct Frr {
    zebra: Daemon,
    bgpd: Daemon,
    bfdd: Option<Daemon>,
    instance: Instance,
}

impl Frr {
    /// Starts them from an `frr.conf` text; returns when bgpd answers.
    pub fn launch(netns: &Netns, config: &str) -> Result<Frr> {
        let instance = Instance::new(netns, "frr")?;
        instance.write("frr.conf", config)?;
        instance.write("vtysh.conf", "")?;
        let user = nix::unistd::User::from_name("frr")?.context("no user frr: is FRR installed?")?;
        chown(instance.dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        let zebra = start_zebra(&instance)?;
        // First, so that bgpd finds it.
        let bfdd = if has_bfd(config) { Some(start_bfdd(&instance)?) } else { None };
        let bgpd = start_bgpd(&instance)?;
        Ok(Frr { instance, zebra, bgpd, bfdd })
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

    /// What bfdd says of its session with a peer: `show bfd peers json` with the counters of `show bfd peers counters
    /// json`; none where it knows no such peer.
    pub fn bfd(&self, peer: IpAddr) -> Result<Option<Value>> {
        let of = |shown: Value| {
            let peers = shown.as_array().cloned().unwrap_or_default();
            peers.into_iter().find(|session| address(&session["peer"]) == Some(peer))
        };
        let Some(mut session) = of(self.json("show bfd peers json")?) else { return Ok(None) };
        if let (Some(session), Some(Value::Object(counters))) =
            (session.as_object_mut(), of(self.json("show bfd peers counters json")?))
        {
            session.extend(counters);
        }
        Ok(Some(session))
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
        if let Some(mut bfdd) = self.bfdd.take() {
            bfdd.terminate(Duration::from_secs(10))?;
        }
        self.zebra.terminate(Duration::from_secs(10))?;
        Ok(())
    }

    fn kill(&mut self) {
        self.bgpd.kill();
        drop(self.bfdd.take());
        self.zebra.kill();
    }

    fn start(&mut self) -> Result<()> {
        self.zebra = start_zebra(&self.instance)?;
        if has_bfd(&std::fs::read_to_string(self.instance.path("frr.conf"))?) {
            self.bfdd = Some(start_bfdd(&self.instance)?);
        }
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

fn has_bfd(config: &str) -> bool {
    config.lines().any(|line| line.trim_end() == "bfd")
}

fn start_bfdd(instance: &Instance) -> Result<Daemon> {
    let control = instance.arg("bfdd.sock");
    let mut daemon = start(instance, "bfdd", &["--bfdctl", &control])?;
    await_ready(&mut daemon, "bfdd", || vtysh(instance, &["show bfd peers json"]).map(drop))?;
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
