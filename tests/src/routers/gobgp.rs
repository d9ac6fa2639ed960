//! GoBGP, asked through the gobgp command's JSON.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Family, Instance, Router, Table, address, await_ready};
use crate::netns::{Daemon, Netns};

/// The states as its API numbers them.
const STATES: [&str; 7] = ["none", "idle", "connect", "active", "opensent", "openconfirm", "established"];

/// One gobgpd.
#[derive(Debug)]
pub struct Gobgp {
    daemon: Daemon,
    instance: Instance,
}

impl Gobgp {
    /// Starts it from a TOML configuration; returns when it answers.
    pub fn launch(netns: &Netns, config: &str) -> Result<Gobgp> {
        let instance = Instance::new(netns, "gobgp")?;
        instance.write("gobgpd.toml", config)?;
        let daemon = start(&instance, &[])?;
        Ok(Gobgp { instance, daemon })
    }

    /// Starts again as one that restarts gracefully (RFC 4724: the R bit is set).
    pub fn recover(&mut self) -> Result<()> {
        self.daemon = start(&self.instance, &["-r"])?;
        Ok(())
    }

    /// A gobgp command's output.
    pub fn gobgp(&self, command: &str) -> Result<String> {
        gobgp(&self.instance, command)
    }

    /// A gobgp command's output as JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.gobgp(&format!("-j {command}"))?;
        serde_json::from_str(&text).with_context(|| format!("`gobgp {command}` said: {text}"))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

impl Router for Gobgp {
    fn name(&self) -> &'static str {
        "GoBGP"
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let shown = self.json("neighbor")?;
        let peer = shown
            .as_array()
            .into_iter()
            .flatten()
            .find(|peer| address(&peer["conf"]["neighbor_address"]) == Some(neighbor));
        let number = peer.and_then(|peer| peer["state"]["session_state"].as_u64()).unwrap_or(0);
        Ok(usize::try_from(number)
            .ok()
            .and_then(|number| STATES.get(number))
            .copied()
            .unwrap_or("none")
            .to_owned())
    }

    fn learned(&self, family: Family) -> Result<Table> {
        let family = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        let mut table = Table::new();
        for (prefix, paths) in
            self.json(&format!("global rib -a {family}"))?.as_object().into_iter().flatten()
        {
            let attributes = paths
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|path| path["attrs"].as_array().into_iter().flatten());
            // NEXT_HOP, or the one in MP_REACH_NLRI. Its own routes have the unspecified address there.
            let hops: Vec<IpAddr> = attributes
                .filter_map(|attribute| address(&attribute["nexthop"]))
                .filter(|hop| !hop.is_unspecified())
                .collect();
            if !hops.is_empty() {
                table.entry(prefix.clone()).or_default().extend(hops);
            }
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
        self.daemon = start(&self.instance, &[])?;
        Ok(())
    }
}

fn start(instance: &Instance, more: &[&str]) -> Result<Daemon> {
    let _ = std::fs::remove_file(instance.path("api.sock"));
    let (config, api) = (instance.arg("gobgpd.toml"), format!("unix://{}", instance.arg("api.sock")));
    let mut argv = vec!["gobgpd", "-f", &config, "--api-hosts", &api];
    argv.extend(more);
    let mut daemon = instance.spawn(&argv, "gobgpd.log")?;
    // Asked before the socket is there, the command waits for a second.
    await_ready(&mut daemon, "gobgpd", || {
        super::exists(&instance.path("api.sock"))?;
        gobgp(instance, "neighbor").map(drop)
    })?;
    Ok(daemon)
}

fn gobgp(instance: &Instance, command: &str) -> Result<String> {
    let api = format!("unix://{}", instance.arg("api.sock"));
    let mut argv = vec!["gobgp", "--target", &api];
    argv.extend(command.split_whitespace());
    instance.netns.run(&argv)
}
