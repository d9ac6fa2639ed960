//! A node: a network namespace with the real agent in it, a directory that stands for the node's disk, and Pods' links.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use plainroute_tests::agent;
use plainroute_tests::netns::{Daemon, Netns, tail, veth, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::SOON;

/// Gives the agent a `/var/lib` of its own node, where it looks for CNI results, and becomes it.
const OWN_DISK: &str = r#"mount --bind "$0" /var/lib && exec "$@""#;
const CNI_RESULTS: &str = "var-lib/cni/results";

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) address: IpAddr,
    pub(crate) ns: Netns,
    /// The far ends of the Pods' links.
    pods: Netns,
    agent: Option<Daemon>,
    disk: TempDir,
}

impl Node {
    /// A node without an agent. `config` gives the text of its configuration, from its directory.
    pub(crate) fn new(
        name: &'static str,
        address: &str,
        config: impl FnOnce(&Path) -> String,
    ) -> Result<Node> {
        let disk = tempfile::Builder::new().prefix(&format!("prt-{name}-")).tempdir()?;
        std::fs::create_dir_all(disk.path().join(CNI_RESULTS))?;
        std::fs::write(disk.path().join("agent.yaml"), config(disk.path()))?;
        let (ns, pods) = (Netns::new(name)?, Netns::new(&format!("{name}-pods"))?);
        Ok(Node { name, address: address.parse()?, ns, pods, agent: None, disk })
    }

    fn path(&self, name: &str) -> String {
        self.disk.path().join(name).display().to_string()
    }

    /// Starts the agent; it need not be ready when this returns.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        let (disk, config, log) = (self.path("var-lib"), self.path("agent.yaml"), self.path("agent.log"));
        let program = agent::program()?.display().to_string();
        let own_namespace = format!("POD_NAMESPACE={}", super::cluster::OWN_NAMESPACE);
        let own_disk = [
            "env",
            &own_namespace,
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            OWN_DISK,
            &disk,
        ];
        let argv = [&own_disk[..], &[&program, "agent", "--config", &config]].concat();
        self.agent = Some(self.ns.spawn(&argv, Path::new(&log))?);
        Ok(())
    }

    /// From now on what this node sends to one address goes to another.
    pub(crate) fn detour(&self, from: SocketAddr, to: SocketAddr) -> Result<()> {
        self.ns.exec("nft add table ip detour")?;
        self.ns.exec("nft add chain ip detour out { type nat hook output priority -100 ; }")?;
        let (address, port) = (from.ip(), from.port());
        self.ns
            .exec(&format!("nft add rule ip detour out ip daddr {address} tcp dport {port} dnat to {to}"))?;
        Ok(())
    }

    /// Undoes [`Self::detour`] for new connections.
    pub(crate) fn no_detour(&self) -> Result<()> {
        self.ns.exec("nft delete table ip detour").map(drop)
    }

    /// Stops it as an upgrade does.
    pub(crate) fn terminate_agent(&mut self) -> Result<()> {
        let mut agent = self.agent.take().with_context(|| format!("{} runs no agent", self.name))?;
        let status = agent.terminate(Duration::from_secs(10))?;
        ensure!(status.success(), "the agent of {} ended with {status}:\n{}", self.name, agent.log());
        Ok(())
    }

    /// Ends it as a crash does.
    pub(crate) fn kill_agent(&mut self) -> Result<()> {
        let mut agent = self.agent.take().with_context(|| format!("{} runs no agent", self.name))?;
        agent.signal(Signal::SIGKILL)?;
        agent.wait(Duration::from_secs(10)).map(drop)
    }

    /// Waits until the agent has kept what the API server said, with all of these words in it.
    pub(crate) fn await_kept(&self, words: &[&str]) -> Result<()> {
        wait_until("what the API server said to be kept", SOON, || {
            let kept = std::fs::read_to_string(self.path("state/last-good")).unwrap_or_default();
            match words.iter().find(|word| !kept.contains(*word)) {
                None => Ok(()),
                Some(word) => Err(format!("no {word} in {kept:?}")),
            }
        })
    }

    /// Removes it, as a lost disk does.
    pub(crate) fn remove_kept(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path("state/last-good"))?)
    }

    /// Changes one octet of that.
    pub(crate) fn damage_kept(&self) -> Result<()> {
        let path = self.path("state/last-good");
        let mut kept = std::fs::read(&path)?;
        let place = kept.len() / 2;
        kept[place] ^= 1;
        Ok(std::fs::write(path, kept)?)
    }

    /// The end of the agent's log, for messages.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.path("agent.log")).unwrap_or_default();
        format!("the agent of {} logged last:\n{}\n", self.name, tail(&log, 12))
    }

    /// Waits until the agent has logged this.
    pub(crate) fn await_logged(&self, what: &str, patience: Duration) -> Result<()> {
        wait_until(&format!("{what:?} in the log of {}", self.name), patience, || {
            let log = std::fs::read_to_string(self.path("agent.log")).unwrap_or_default();
            if log.contains(what) { Ok(()) } else { Err("not there") }
        })
        .with_context(|| self.last_words())
    }

    /// Asks the agent by a command of its own, `-o json`.
    pub(crate) fn ask(&self, question: &[&str]) -> Result<Value> {
        let socket = self.path("agent.sock");
        let output = Command::new(agent::program()?)
            .args(question)
            .args(["-o", "json", "--socket", &socket])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        // 1 says that something is not healthy, which is an answer.
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "{}: plainroute {question:?}: {said}",
            self.name
        );
        serde_json::from_slice(&output.stdout).with_context(|| format!("plainroute {question:?}: {said}"))
    }

    /// Why the agent says that the address (or NAMESPACE/POD) is not advertised, in a word.
    pub(crate) fn reason(&self, subject: &str) -> Result<String> {
        let explanation = self.ask(&["explain", subject])?;
        Ok(explanation["addresses"][0]["reason"].as_str().unwrap_or("none").to_owned())
    }

    /// Waits until the agent gives this reason.
    pub(crate) fn await_reason(&self, subject: &str, reason: &str) -> Result<()> {
        let what = format!("{} to refuse {subject} for {reason}", self.name);
        wait_until(&what, super::SOON, || match self.reason(subject) {
            Ok(seen) if seen == reason => Ok(()),
            Ok(seen) => Err(seen),
            Err(error) => Err(format!("{error:#}")),
        })
        .with_context(|| self.last_words())
    }

    /// The one session of this node.
    pub(crate) fn session(&self) -> Result<Value> {
        Ok(self.ask(&["peers"])?[0].clone())
    }

    /// Waits for what `plainroute check` says.
    pub(crate) fn await_check(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        self.await_check_within(what, super::SOON, holds)
    }

    /// [`await_check`](Self::await_check) for what takes longer.
    pub(crate) fn await_check_within(
        &self,
        what: &str,
        patience: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let what = format!("`plainroute check` on {} to show {what}", self.name);
        wait_until(&what, patience, || match self.ask(&["check"]) {
            Ok(health) if holds(&health) => Ok(()),
            Ok(health) => Err(health.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
        .with_context(|| self.last_words())
    }

    /// Lays a Pod's link, without a route: the node's side is called as the Pod is.
    pub(crate) fn link(&self, pod: &str) -> Result<()> {
        veth((&self.ns, pod), (&self.pods, pod))
    }

    /// Somebody else's route to a Pod, over a link of its own: what a CNI plugin does that tells nobody.
    pub(crate) fn path_of_others(&self, pod: &str, address: &str) -> Result<()> {
        self.link(pod)?;
        self.ns.run(&["ip", "route", "add", address, "dev", pod]).map(drop)
    }

    /// What libcni leaves after ADD of a plugin like `ptp`, over a link of the Pod's own.
    pub(crate) fn cni_result(&self, namespace: &str, pod: &str, uid: &str, address: &str) -> Result<()> {
        self.link(pod)?;
        self.cni_record(namespace, pod, uid, address)
    }

    /// A Pod's link with a Pod at its end that has the address and answers.
    pub(crate) fn answering_link(&self, pod: &str, address: &str) -> Result<Netns> {
        let inside = Netns::new(&format!("{}-{pod}", self.name))?;
        veth((&self.ns, pod), (&inside, "eth0"))?;
        inside.address("eth0", &format!("{address}/32"))?;
        inside.run(&["ip", "route", "add", "default", "dev", "eth0"])?;
        self.ns.sysctl("net.ipv4.ip_forward", "1")?;
        // The node answers for everybody beyond, at once.
        self.ns.sysctl(&format!("net.ipv4.conf.{pod}.proxy_arp"), "1")?;
        self.ns.sysctl(&format!("net.ipv4.neigh.{pod}.proxy_delay"), "0")?;
        Ok(inside)
    }

    /// What libcni leaves after ADD, over a link that is there.
    pub(crate) fn cni_record(&self, namespace: &str, pod: &str, uid: &str, address: &str) -> Result<()> {
        let record = json!({
            "kind": "cniCacheV1", "containerId": uid, "networkName": "pods", "ifName": "eth0",
            "cniArgs": [
                ["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", pod],
                ["K8S_POD_UID", uid],
            ],
            "result": {
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": pod }, { "name": "eth0", "sandbox": "/run/netns/pod" }],
                "ips": [{ "address": format!("{address}/24"), "interface": 1 }],
            },
        });
        std::fs::write(self.path(&format!("{CNI_RESULTS}/pods-{uid}-eth0")), record.to_string())?;
        Ok(())
    }

    /// The destinations of the agent's own routes in the kernel.
    pub(crate) fn own_routes(&self) -> Result<Vec<String>> {
        let shown = self.ns.exec("ip -4 route show proto 188")?;
        let mut routes: Vec<String> =
            shown.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        routes.sort();
        Ok(routes)
    }

    /// Waits until these are the agent's own routes in the kernel.
    pub(crate) fn await_own_routes(&self, routes: &[&str]) -> Result<()> {
        let what = format!("{} to hold {routes:?} in its kernel", self.name);
        wait_until(&what, super::SOON, || match self.own_routes() {
            Ok(seen) if seen == routes => Ok(()),
            Ok(seen) => Err(format!("{seen:?}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .with_context(|| self.last_words())
    }
}
