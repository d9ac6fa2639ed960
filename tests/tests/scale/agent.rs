//! A node with a real agent: a network namespace on the rack's subnet, and what that agent costs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plainroute_tests::agent;
use plainroute_tests::netns::{Daemon, Netns, tail, veth};
use tempfile::TempDir;

use super::content::{RANGE, node_address, node_name};

/// Gives the agent a `/var/lib` of its own node, where it looks for CNI results, and becomes it.
const OWN_DISK: &str = r#"mount --bind "$0" /var/lib && exec "$@""#;

pub(crate) struct Agent {
    daemon: Daemon,
    _ns: Netns,
    _pods: Netns,
    disk: TempDir,
}

/// Kibibytes, as the kernel counts them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Of these: what the process itself has written. The rest are pages of its program, shared with whoever runs it too.
    pub(crate) anonymous: u64,
    pub(crate) peak: u64,
}

impl Agent {
    pub(crate) fn start(number: u32, hub: &Netns, kubeconfig: &Path) -> Result<Agent> {
        let name = node_name(number);
        let (ns, pods) = (Netns::new(&name)?, Netns::new(&format!("{name}-pods"))?);
        veth((hub, &name), (&ns, "eth0"))?;
        hub.run(&["ip", "link", "set", &name, "master", "subnet"])?;
        ns.address("eth0", &format!("{}/16", node_address(number)))?;
        // Somebody else's route, as a CNI plugin leaves it.
        veth((&ns, "pods0"), (&pods, "pods0"))?;
        ns.exec(&format!("ip route add {RANGE} dev pods0"))?;
        let disk = tempfile::Builder::new().prefix("prt-scale-").tempdir()?;
        let path = |name: &str| disk.path().join(name);
        fs::create_dir(path("var-lib"))?;
        let config = format!(
            "apiVersion: plainroute.dev/v1alpha1\nkind: AgentConfig\nmetadata: {{ name: default }}\nspec:\n  \
             nodeName: {name}\n  source: {{ kubernetes: {{ kubeconfig: {} }} }}\n  adminSocket: {}\n  stateDir: {}\n",
            kubeconfig.display(),
            path("agent.sock").display(),
            path("state").display()
        );
        fs::write(path("agent.yaml"), config)?;
        let (program, config, own) = (agent::program()?, path("agent.yaml"), path("var-lib"));
        let words = [&own, &program].map(|path| path.display().to_string());
        let unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_DISK];
        let config = config.display().to_string();
        let argv = [&unshare[..], &[&words[0], &words[1], "agent", "--config", &config]].concat();
        let daemon = ns.spawn(&argv, &path("agent.log"))?;
        Ok(Agent { daemon, _ns: ns, _pods: pods, disk })
    }

    /// The end of its log, for messages.
    pub(crate) fn last_words(&self) -> String {
        tail(&self.daemon.log(), 8)
    }

    /// Octets that have reached the node: TLS, BGP and all.
    pub(crate) fn received(&self) -> Result<u64> {
        let table = fs::read_to_string(format!("/proc/{}/net/dev", self.daemon.pid()))?;
        let line =
            table.lines().find_map(|line| line.trim_start().strip_prefix("eth0:")).context("no eth0")?;
        Ok(line.split_whitespace().next().context("no octets")?.parse()?)
    }

    /// Whether it has kept what the API server said.
    pub(crate) fn has_kept(&self) -> bool {
        self.disk.path().join("state/last-good").exists()
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let process = PathBuf::from(format!("/proc/{}", self.daemon.pid()));
        let rollup = fs::read_to_string(process.join("smaps_rollup"))?;
        let status = fs::read_to_string(process.join("status"))?;
        Ok(Memory {
            resident: kibibytes(&rollup, "Rss:")?,
            anonymous: kibibytes(&rollup, "Anonymous:")?,
            peak: kibibytes(&status, "VmHWM:")?,
        })
    }

    pub(crate) fn processor(&self) -> Result<f64> {
        processor_seconds(self.daemon.pid())
    }
}

fn kibibytes(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Seconds that a process has spent on a processor, threads that have ended included, to a hundredth.
pub(crate) fn processor_seconds(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold anything, also parentheses. Of what follows, user time is the twelfth and system time next.
    let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(f64::from(ticks) / 100.0)
}
