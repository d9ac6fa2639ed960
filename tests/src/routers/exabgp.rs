//! ExaBGP, which has no table: it tells each event in JSON to a process of ours, and takes commands from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use super::{Family, Instance, Router, Table, address, await_ready};
use crate::netns::{Daemon, Netns};

/// One ExaBGP and the pipe to command it.
#[derive(Debug)]
pub struct Exabgp {
    /// Closed while ExaBGP is not running, so that a reader of the run before ends.
    commands: Option<File>,
    daemon: Daemon,
    instance: Instance,
}

impl Exabgp {
    /// Starts it from a configuration, to which a process `events` is added. A neighbour that is to be asked about needs
    /// `api { processes [ events ]; neighbor-changes; receive { parsed; update; } }`.
    pub fn launch(netns: &Netns, config: &str) -> Result<Exabgp> {
        let instance = Instance::new(netns, "exabgp")?;
        let process = format!(
            "process events {{\n    run /bin/sh {};\n    encoder json;\n}}\n",
            instance.arg("api.sh")
        );
        instance.write("exabgp.conf", &format!("{process}{config}\n"))?;
        instance.write(
            "api.sh",
            &format!(
                "cat {} &\necho ready >> {1}\nexec cat >> {1}\n",
                instance.arg("commands"),
                instance.arg("events")
            ),
        )?;
        mkfifo(&instance.path("commands"), Mode::S_IRUSR | Mode::S_IWUSR)?;
        let (commands, daemon) = start(&instance)?;
        Ok(Exabgp { instance, commands: Some(commands), daemon })
    }

    /// Sends a command, such as `neighbor 172.16.0.254 announce route 10.20.0.11/32 next-hop self`.
    pub fn command(&mut self, line: &str) -> Result<()> {
        let commands = self.commands.as_mut().context("ExaBGP is not running")?;
        writeln!(commands, "{line}").context("write to ExaBGP")
    }

    /// Every event so far, in order.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.instance.path("events")).context("ExaBGP's events")?;
        // The last line may be half written; answers to commands are no JSON.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

impl Router for Exabgp {
    fn name(&self) -> &'static str {
        "ExaBGP"
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        let events = self.events()?;
        let mut states =
            events.iter().filter(|event| event["type"] == "state" && peer_of(event) == Some(neighbor));
        Ok(match states.next_back().and_then(|event| event["neighbor"]["state"].as_str()) {
            Some("up") => "established",
            Some("connected") => "connect",
            Some(_) => "idle",
            None => "none",
        }
        .to_owned())
    }

    fn learned(&self, family: Family) -> Result<Table> {
        let family = match family {
            Family::V4 => "ipv4 unicast",
            Family::V6 => "ipv6 unicast",
        };
        let mut paths = BTreeMap::<(String, IpAddr), BTreeSet<IpAddr>>::new();
        for event in self.events()? {
            let Some(peer) = peer_of(&event) else { continue };
            if event["type"] == "state" && event["neighbor"]["state"] != "up" {
                paths.retain(|(_, from), _| *from != peer);
            }
            let update = &event["neighbor"]["message"]["update"];
            for withdrawn in update["withdraw"][family].as_array().into_iter().flatten() {
                paths.remove(&(withdrawn["nlri"].as_str().unwrap_or_default().to_owned(), peer));
            }
            // An IPv6 route comes with the global and the link-local next hop, as two entries of one event.
            let mut announced = BTreeMap::<(String, IpAddr), BTreeSet<IpAddr>>::new();
            for (hop, prefixes) in update["announce"][family].as_object().into_iter().flatten() {
                let Ok(hop) = hop.parse() else { continue };
                for prefix in
                    prefixes.as_array().into_iter().flatten().filter_map(|prefix| prefix["nlri"].as_str())
                {
                    announced.entry((prefix.to_owned(), peer)).or_default().insert(hop);
                }
            }
            paths.extend(announced);
        }
        let mut table = Table::new();
        for ((prefix, _), hops) in paths {
            table.entry(prefix).or_default().extend(hops);
        }
        Ok(table)
    }

    fn stop(&mut self) -> Result<()> {
        self.commands = None;
        self.daemon.terminate(Duration::from_secs(10)).map(drop)
    }

    fn kill(&mut self) {
        self.commands = None;
        self.daemon.kill();
    }

    fn start(&mut self) -> Result<()> {
        let (commands, daemon) = start(&self.instance)?;
        (self.commands, self.daemon) = (Some(commands), daemon);
        Ok(())
    }
}

fn peer_of(event: &Value) -> Option<IpAddr> {
    address(&event["neighbor"]["address"]["peer"])
}

fn start(instance: &Instance) -> Result<(File, Daemon)> {
    instance.write("events", "")?;
    // Read and write, so that opening does not wait for the other end.
    let commands = File::options().read(true).write(true).open(instance.path("commands"))?;
    let config = instance.arg("exabgp.conf");
    let argv = ["env", "exabgp.daemon.user=root", "exabgp.api.cli=false", "exabgp", &config];
    let mut daemon = instance.spawn(&argv, "exabgp.log")?;
    await_ready(&mut daemon, "ExaBGP", || {
        let events = fs::read_to_string(instance.path("events"))?;
        anyhow::ensure!(events.starts_with("ready"), "its process is not started yet");
        Ok(())
    })?;
    Ok((commands, daemon))
}
