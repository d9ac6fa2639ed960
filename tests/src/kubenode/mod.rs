//! A node of a real Kubernetes: containerd and the kubelet, in namespaces of their own on this machine.
//!
//! The network namespace is the test's. Everything else (processes, mounts, `/run`, `/var/lib`, host name, control groups)
//! belongs to one process, the node's first, and ends with it: a dropped [`KubeNode`], or a test that was killed, leaves
//! no shim, no mount and no changed sysctl. What stays after a kill is a directory and empty control groups, which the next
//! run sweeps.

mod cgroup;
mod config;
mod image;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::netns::{Daemon, Netns, checked, tail, wait_until};
use crate::scratch::{self, unique_name};
use cgroup::Cgroups;
pub use image::Image;

const SCRIPT: &str = include_str!("node.sh");
const BOOT: Duration = Duration::from_secs(30);

/// What makes a node.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Its name in the cluster, and its host name.
    pub name: &'a str,
    /// Its `InternalIP`, which its namespace must have.
    pub address: &'a str,
    /// Where Pods get their addresses from.
    pub pod_addresses: PodAddresses<'a>,
    /// How the kubelet logs in: as `system:node:NAME` of the group `system:nodes`.
    pub kubeconfig: &'a Path,
    /// Archives of the images that it has from the start.
    pub images: &'a [PathBuf],
    /// Which of them is the sandbox of each Pod.
    pub pause_image: &'a str,
}

/// What gives Pods their addresses, below the plugin `ptp`.
#[derive(Clone, Copy, Debug)]
pub enum PodAddresses<'a> {
    /// `host-local`: a range of the node's own for each family.
    Ranges(&'a [&'a str]),
    /// `plainroute-ipam`, which is put into [`CNI_BIN`] by whoever brings it.
    Agent,
}

/// Where a node has its CNI plugins, if the agent gives addresses out: a directory of its own, to which more can be added.
pub const CNI_BIN: &str = "/var/lib/cni/bin";

/// A running node. Dropping it ends everything on it.
#[derive(Debug)]
pub struct KubeNode {
    name: String,
    // Dropped in this order: the processes, then what they stood in.
    first: Daemon,
    cgroups: Cgroups,
    disk: Disk,
    _netns: Netns,
}

impl KubeNode {
    /// Starts a node in a namespace; it registers with the API server by itself.
    pub fn start(netns: &Netns, options: &Options<'_>) -> Result<KubeNode> {
        let kubelet = crate::kubelab::programs(&["kubelet"])?.join("kubelet");
        let disk = Disk::create(options.name)?;
        let cgroups = Cgroups::create(options.name)?;
        let groups =
            cgroups.groups().iter().map(|group| format!("{}\n", group.display())).collect::<String>();
        let images = options.images.iter().map(|image| format!("{}\n", image.display())).collect::<String>();
        disk.write("cgroups", &groups)?;
        disk.write("images", &images)?;
        disk.write("node.sh", SCRIPT)?;
        let plugins = match options.pod_addresses {
            PodAddresses::Ranges(_) => config::PLUGINS,
            PodAddresses::Agent => {
                let directory = disk.path("lib/cni/bin");
                fs::create_dir_all(&directory)?;
                for plugin in ["ptp", "loopback"] {
                    fs::copy(Path::new(config::PLUGINS).join(plugin), directory.join(plugin))?;
                }
                CNI_BIN
            }
        };
        disk.write("containerd.toml", &config::containerd(plugins, &disk.path("cni"), options.pause_image))?;
        disk.write("cni/pods.conflist", &config::cni(options).to_string())?;
        disk.write("kubelet.json", &config::kubelet().to_string())?;
        let text = |path: PathBuf| path.display().to_string();
        let (script, directory, kubelet) = (text(disk.path("node.sh")), text(disk.path("")), text(kubelet));
        let arguments = [
            format!("--config={}", disk.path("kubelet.json").display()),
            format!("--kubeconfig={}", options.kubeconfig.display()),
            format!("--hostname-override={}", options.name),
            format!("--node-ip={}", options.address),
        ];
        let mut argv = vec!["bash", &script, "join", &directory, &kubelet];
        argv.extend(arguments.iter().map(String::as_str));
        let first = netns.spawn(&argv, &disk.path("boot.log"))?;
        Ok(KubeNode { name: options.name.to_owned(), first, cgroups, disk, _netns: netns.clone() })
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fails with what it said last when it has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.first.ensure_running().with_context(|| self.last_words())
    }

    /// The end of what its programs logged.
    pub fn last_words(&self) -> String {
        let logs = ["boot.log", "containerd.log", "kubelet.log"].map(|name| {
            let text = fs::read_to_string(self.disk.path(name)).unwrap_or_default();
            format!("--- {} of {}\n{}\n", name, self.name, tail(&text, 25))
        });
        logs.concat()
    }

    /// A command that runs on the node.
    pub fn command(&self, argv: &[&str]) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first_process()?));
        command.args(["--net", "--mount", "--pid", "--uts", "--cgroup", "--"]).args(argv);
        Ok(command)
    }

    /// Runs a command on the node to its end and gives its standard output.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let output = checked(&mut self.command(argv)?).with_context(|| format!("on {}", self.name))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command inside a container of a Pod, as `kubectl exec` does, whatever its exit code.
    pub fn exec(&self, pod_uid: &str, container: &str, argv: &[&str]) -> Result<Output> {
        let filter = format!(
            r#"labels."io.kubernetes.pod.uid"=={pod_uid},labels."io.kubernetes.container.name"=={container}"#
        );
        let ids = self.run(&["ctr", "-n", "k8s.io", "containers", "list", "--quiet", &filter])?;
        let tasks = self.run(&["ctr", "-n", "k8s.io", "tasks", "list"])?;
        let runs = |id: &&str| {
            tasks.lines().any(|line| line.starts_with(id) && line.trim_end().ends_with("RUNNING"))
        };
        let id = ids.lines().find(runs).with_context(|| {
            format!("no container {container} of Pod {pod_uid} runs on {}:\n{tasks}", self.name)
        })?;
        let name = unique_name("exec");
        let mut all = vec!["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", &name, id];
        all.extend(argv);
        Ok(self.command(&all)?.stdin(Stdio::null()).output()?)
    }

    /// The file that stands for a Pod's network namespace, as libcni's results tell it.
    pub fn pod_netns(&self, pod_uid: &str) -> Result<PathBuf> {
        let results = self.disk.path("lib/cni/results");
        for entry in fs::read_dir(&results).with_context(|| results.display().to_string())? {
            let text = fs::read_to_string(entry?.path())?;
            let result: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
            if text.contains(pod_uid)
                && let Some(sandbox) = result["result"]["interfaces"]
                    .as_array()
                    .and_then(|interfaces| interfaces.iter().find_map(|one| one["sandbox"].as_str()))
            {
                // `/var/run` points to `/run` by an absolute path, which would lead out of the node.
                let inside = sandbox.strip_prefix("/var").unwrap_or(sandbox);
                return Ok(PathBuf::from(format!("/proc/{}/root{inside}", self.first_process()?)));
            }
        }
        anyhow::bail!("libcni on {} knows no Pod {pod_uid}", self.name)
    }

    /// The most memory that everything on the node has had, page cache included.
    pub fn peak_memory(&self) -> Option<u64> {
        self.cgroups.peak_memory()
    }

    /// The process id, as we see it, of the node's process 1.
    fn first_process(&self) -> Result<u32> {
        wait_until(&format!("the first process of {}", self.name), BOOT, || {
            let processes = self.cgroups.processes();
            processes.into_iter().find(|process| is_first(*process)).ok_or("none is there")
        })
        .with_context(|| self.last_words())
    }
}

impl Drop for KubeNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        // Its namespaces' other processes die with it, which the control groups wait for.
        self.first.kill();
    }
}

/// Whether a process is number 1 of a namespace right below ours.
fn is_first(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ids.split_whitespace().skip(1).eq(["1"])
}

/// The directory that is the node's disk. Nothing is mounted there but in the node's own namespace.
#[derive(Debug)]
struct Disk {
    directory: TempDir,
    name: String,
}

impl Disk {
    fn create(name: &str) -> Result<Disk> {
        let disk = Disk { directory: scratch::directory("node")?, name: name.to_owned() };
        for directory in ["lib", "log", "cni"] {
            fs::create_dir_all(disk.path(directory))?;
        }
        Ok(disk)
    }

    /// The last part of its own path is the host name.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(&self.name).join(name)
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        fs::write(self.path(name), content).with_context(|| format!("write {}", self.path(name).display()))
    }
}
