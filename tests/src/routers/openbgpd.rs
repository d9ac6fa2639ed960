//! OpenBGPD (portable), asked through bgpctl's JSON.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Family, Instance, Router, Table, address, await_ready};
use crate::netns::{Daemon, Netns};

/// One OpenBGPD.
#[derive(Debug)]
pub struct Openbgpd {
    daemon: Daemon,
    instance: Instance,
}

impl Openbgpd {
    /// Starts it from a `bgpd.conf` text, to which the control socket is added; returns when it answers.
    pub fn launch(netns: &Netns, config: &str) -> Result<Openbgpd> {
        // Its unprivileged processes change their root to there.
        fs::create_dir_all("/run/openbgpd").context("create /run/openbgpd")?;
        let instance = Instance::new(netns, "openbgpd")?;
        instance.write("bgpd.conf", &format!("socket \"{}\"\n{config}\n", instance.arg("bgpd.sock")))?;
        // It refuses a configuration that others may read.
        fs::set_permissions(instance.path("bgpd.conf"), fs::Permissions::from_mode(0o600))?;
        let daemon = start(&instance)?;
        Ok(Openbgpd { instance, daemon })
    }

    /// A bgpctl command's output.
    pub fn bgpctl(&self, command: &str) -> Result<String> {
        bgpctl(&self.instance, command)
    }

    /// A bgpctl command of these arguments, some of which may have spaces in them.
    pub fn bgpctl_arguments(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.instance.arg("bgpd.sock");
        self.instance.netns.run(&[&["bgpctl", "-s", &socket], arguments].concat())
    }

    /// A bgpctl command's output as JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.bgpctl(&format!("-j {command}"))?;
        serde_json::from_str(&text).with_context(|| format!("`bgpctl {command}` said: {text}"))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

impl Router for Openbgpd {
    fn name(&self) -> &'static str {
        "OpenBGPD"
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let shown = self.json("show neighbor")?;
        let peers = shown["neighbors"].as_array().into_iter().flatten();
        let peer = peers.into_iter().find(|peer| address(&peer["remote_addr"]) == Some(neighbor));
        Ok(peer.and_then(|peer| peer["state"].as_str()).unwrap_or("none").to_lowercase())
    }

    fn learned(&self, family: Family) -> Result<Table> {
        let mut table = Table::new();
        for path in self.json("show rib")?["rib"].as_array().into_iter().flatten() {
            let (Some(prefix), Some(hop)) = (path["prefix"].as_str(), address(&path["exit_nexthop"])) else {
                continue;
            };
            // Its own networks have the unspecified address as next hop.
            if hop.is_unspecified() || prefix.contains(':') != (family == Family::V6) {
                continue;
            }
            table.entry(prefix.to_owned()).or_default().insert(hop);
        }
        Ok(table)
    }

    fn stop(&mut self) -> Result<()> {
        self.daemon.terminate(Duration::from_secs(10)).map(drop)
    }

    fn kill(&mut self) {
        self.daemon.kill();
    }

    fn start(&mut self) -> Result<()> {
        self.daemon = start(&self.instance)?;
        Ok(())
    }
}

fn start(instance: &Instance) -> Result<Daemon> {
    let _ = fs::remove_file(instance.path("bgpd.sock"));
    let mut daemon =
        instance.spawn(&["/usr/sbin/bgpd", "-d", "-f", &instance.arg("bgpd.conf")], "bgpd.log")?;
    await_ready(&mut daemon, "OpenBGPD", || bgpctl(instance, "show summary").map(drop))?;
    Ok(daemon)
}

fn bgpctl(instance: &Instance, command: &str) -> Result<String> {
    let socket = instance.arg("bgpd.sock");
    let mut argv = vec!["bgpctl", "-s", &socket];
    argv.extend(command.split_whitespace());
    instance.netns.run(&argv)
}
