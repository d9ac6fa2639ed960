//! What a node leaves on the machine: nothing while it runs, and nothing for the next test when its test is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use plainroute_tests::kubenode::{KubeNode, Options, PodAddresses};
use plainroute_tests::netns::{Netns, wait_until};
use plainroute_tests::scratch;

use super::SOON;

/// What the kubelet sets, and to what.
const SYSCTLS: [(&str, &str); 3] = [
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
];
const BOOTED: &str = "the node has booted";

/// Its API server is never there, which a kubelet lives with.
fn lonely_node(netns: &Netns, directory: &Path) -> Result<KubeNode> {
    netns.address("lo", "172.18.0.11/32")?;
    let kubeconfig = directory.join("kubeconfig");
    fs::write(
        &kubeconfig,
        r#"{"apiVersion": "v1", "kind": "Config", "current-context": "none",
            "clusters": [{"name": "none", "cluster": {"server": "http://172.18.0.11:1"}}],
            "users": [{"name": "none", "user": {"token": "none"}}],
            "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}]}"#,
    )?;
    let options = Options {
        name: "lonely",
        address: "172.18.0.11",
        pod_addresses: PodAddresses::Ranges(&["10.20.0.0/24"]),
        kubeconfig: &kubeconfig,
        images: &[],
        pause_image: "none.invalid/none",
    };
    let mut node = KubeNode::start(netns, &options)?;
    let mut ended = Ok(());
    wait_until("the kubelet to set what it sets", SOON, || {
        ended = node.ensure_running();
        if ended.is_err() {
            return Ok(());
        }
        for (path, value) in SYSCTLS {
            let seen = node.run(&["cat", path]).map_err(|error| format!("{error:#}"))?;
            if seen.trim() != value {
                return Err(format!("{path} is {seen} on the node"));
            }
        }
        Ok(())
    })?;
    ended.map(|()| node)
}

/// Not a test by itself: the next one runs it, in a process that it may kill.
#[test]
#[ignore = "the test of killed tests runs it"]
fn a_node_that_waits_for_the_end_of_its_input() -> Result<()> {
    let directory = scratch::directory("lonely")?;
    let netns = Netns::new("lonely")?;
    let _node = lonely_node(&netns, directory.path())?;
    println!("\n{BOOTED}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A test program whose one test has a node.
struct Program {
    process: Child,
    /// What it says after its node has booted.
    output: BufReader<ChildStdout>,
    /// How the names begin that it gives to what it makes.
    mark: String,
}

impl Program {
    /// Returns once its node has booted.
    fn start() -> Result<Program> {
        const TEST: &str = "leftovers::a_node_that_waits_for_the_end_of_its_input";
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--ignored", "--exact", TEST, "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(process.stdout.take().context("its output")?);
        let booted = output.by_ref().lines().map_while(Result::ok).any(|line| line == BOOTED);
        let mark = format!("prt-{}-", process.id());
        if !booted {
            process.kill()?;
            bail!("its node did not boot: {}", process.wait()?);
        }
        Ok(Program { process, output, mark })
    }
}

#[test]
fn a_killed_test_leaves_no_process_and_the_next_removes_its_groups_and_directories() -> Result<()> {
    let sysctls = || SYSCTLS.map(|(path, _)| fs::read_to_string(path).unwrap_or_default());
    let before = sysctls();
    let Program { process: mut killed, mark, .. } = Program::start()?;
    let (running, seen) = (processes(&mark), sysctls());
    let there = [control_groups(&mark), directories(&mark)];
    killed.kill()?;
    killed.wait()?;
    ensure!(seen == before, "what the kubelet set reached the machine: {seen:?}, was {before:?}");
    for program in ["containerd", "kubelet"] {
        ensure!(running.iter().any(|name| name == program), "no {program} ran: {running:?}");
    }
    ensure!(there.iter().all(|paths| !paths.is_empty()), "there is nothing to be left: {there:?}");
    wait_until("the processes of a killed test to be gone", SOON, || match processes(&mark) {
        none if none.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    // The file that stands for a network namespace is a mount; the next run removes it.
    let left: Vec<&str> =
        mounts.lines().filter(|line| line.contains(&mark) && !line.contains(" - nsfs ")).collect();
    ensure!(left.is_empty(), "mounts are left: {left:#?}");

    let Program { process: mut next, mut output, mark: marks_of_next } = Program::start()?;
    let left = [control_groups(&mark), directories(&mark)];
    drop(next.stdin.take());
    let mut said = String::new();
    output.read_to_string(&mut said)?;
    let status = next.wait()?;
    ensure!(left.iter().all(Vec::is_empty), "the next test did not remove {left:?}");
    ensure!(status.success(), "the next test ended with {status}:\n{said}");
    let left = [control_groups(&marks_of_next), directories(&marks_of_next)];
    ensure!(left.iter().all(Vec::is_empty), "a test that ends by itself leaves {left:?}");
    Ok(())
}

/// The names of the processes in control groups with that mark.
fn processes(mark: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|groups| groups.contains(mark))
    });
    let names = ours.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

/// The topmost control groups with that mark.
fn control_groups(mark: &str) -> Vec<PathBuf> {
    fn search(directory: &Path, mark: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(mark) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                search(&entry.path(), mark, found);
            }
        }
    }
    let mut found = Vec::new();
    search(Path::new("/sys/fs/cgroup"), mark, &mut found);
    found
}

/// The directories and network namespaces with that mark.
fn directories(mark: &str) -> Vec<PathBuf> {
    let tops = [std::env::temp_dir(), PathBuf::from("/run/netns")];
    let entries = tops.iter().filter_map(|top| fs::read_dir(top).ok()).flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(mark));
    ours.map(|entry| entry.path()).collect()
}
