//! One node of a lab: its namespaces, held by a first process, and the command that runs in them.
//!
//! All that is in a node ends with its first process: the kernel ends the other processes, and removes mounts, links and
//! namespaces. So there is one thing to end, and one thing that a killed runner must not leave.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::lab::image::Image;
use crate::netns::{checked, spawn_for_life, tail, wait_until};

const SCRIPT: &str = include_str!("node.sh");
const SCRIPT_NAME: &str = "node.sh";

/// How long a node may take to build its root on a busy machine.
const READY: Duration = Duration::from_secs(20);

/// What a command's shell does first: it tells its process id, which is also its group's, and then becomes the command.
const LAUNCH: &str = r#"exec setsid sh -c 'echo $$ >/run/lab.pid; exec "$@"' sh "$@" &"#;

/// A running node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    name: String,
    /// Outside its pid namespace.
    first: Process,
    /// `unshare`, which waits for the first process.
    outer: Process,
    image: Image,
    command: Option<Vec<String>>,
    env: Vec<(String, String)>,
    log: PathBuf,
}

/// A process that cannot be taken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: i32,
    /// Clock ticks since boot.
    started: u64,
}

impl Process {
    fn of(pid: i32) -> Result<Process> {
        Ok(Process { pid, started: start_time(pid).with_context(|| format!("process {pid} is gone"))? })
    }

    /// Whether it still runs.
    fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    fn end(self) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)); none for a zombie, whose namespaces are gone.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok())?
}

/// What a node is started with.
pub(crate) struct Blueprint<'a> {
    pub(crate) name: &'a str,
    pub(crate) image: Image,
    pub(crate) command: Option<Vec<String>>,
    pub(crate) env: Vec<(String, String)>,
    /// `source target options`, sources absolute.
    pub(crate) binds: Vec<String>,
    /// For its log and the place of its root.
    pub(crate) dir: &'a Path,
    /// Whether it ends with this process.
    pub(crate) bound: bool,
}

/// Puts the first processes' script into a lab's state directory, before its nodes start.
pub(crate) fn write_script(dir: &Path) -> Result<()> {
    fs::write(dir.join(SCRIPT_NAME), SCRIPT).with_context(|| format!("write into {}", dir.display()))
}

/// A node whose first process is on its way.
pub(crate) struct Starting {
    outer: i32,
    node: Node,
}

impl Node {
    /// Starts the first process; [`Starting::ready`] waits for it.
    pub(crate) fn start(blueprint: Blueprint<'_>) -> Result<Starting> {
        let Blueprint { name, image, command, env, binds, dir, bound } = blueprint;
        let root = dir.join(format!("{name}.root"));
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--pid", "--uts", "--fork", "--kill-child"]);
        if bound {
            unshare = {
                let mut bound = Command::new("setpriv");
                bound.args(["--pdeathsig", "KILL", "unshare"]).args(unshare.get_args());
                bound
            };
        }
        unshare.arg("sh").arg(dir.join(SCRIPT_NAME)).arg(&root).arg(name);
        unshare.env("BINDS", binds.iter().map(|bind| format!("{bind}\n")).collect::<String>());
        unshare.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
        let child = spawn_for_life(unshare).with_context(|| format!("start node {name}"))?;
        let outer = child.id().cast_signed();
        let nobody = Process { pid: 0, started: 0 };
        let node = Node { name: name.to_owned(), first: nobody, outer: nobody, image, command, env, log };
        Ok(Starting { outer, node })
    }

    /// Its name in the topology.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs in it.
    pub fn image(&self) -> Image {
        self.image
    }

    /// Whether its namespaces still exist.
    pub fn is_alive(&self) -> bool {
        self.first.is_alive()
    }

    /// The process id, outside, of its first process: whom `ip link ... netns PID` means.
    pub fn pid(&self) -> i32 {
        self.first.pid
    }

    /// All that its command has printed.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// A command that will run in all the node's namespaces.
    pub fn command(&self, argv: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.first.pid.to_string(), "-n", "-m", "-u", "-p", "--"]);
        command.args(argv.iter().map(AsRef::as_ref)).envs(self.env.iter().cloned());
        command
    }

    /// Runs a command to its end and gives its standard output; an exit code other than 0 is an error.
    pub fn run(&self, argv: &[impl AsRef<str>]) -> Result<String> {
        let output = checked(&mut self.command(argv)).with_context(|| format!("on node {}", self.name))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a line by a shell, as [`run`](Self::run).
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run(&["sh", "-c", line])
    }

    /// Runs a closure on a thread inside the node's network namespace. A socket that it returns stays there.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/proc/{}/ns/net", self.first.pid);
        let file = File::open(&path).with_context(|| format!("node {} is gone", self.name))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| -> Result<T> {
                nix::sched::setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("enter node {}", self.name))?;
                Ok(f())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts the node's command, if it has one.
    pub fn start_command(&self) -> Result<()> {
        let Some(argv) = &self.command else { return Ok(()) };
        ensure!(self.command_pid().is_none(), "the command of node {} runs already", self.name);
        // Whatever is left there belongs to a command that is gone.
        self.run(&["rm", "-f", "/run/lab.pid"])?;
        let out = File::options().create(true).append(true).open(&self.log)?;
        let mut full = vec!["sh", "-c", LAUNCH, "sh"];
        full.extend(argv.iter().map(String::as_str));
        let mut command = self.command(&full);
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let status = command.status().with_context(|| format!("start the command of node {}", self.name))?;
        ensure!(status.success(), "the command of node {} did not start: {status}", self.name);
        let started = || {
            fs::read_to_string(self.path("/run/lab.pid"))
                .ok()
                .filter(|pid| pid.ends_with('\n'))
                .ok_or("no pid")
        };
        wait_until(&format!("the command of node {}", self.name), Duration::from_secs(5), started).map(drop)
    }

    /// Signals the node's command with all its processes; `and_wait` until they are gone.
    pub fn signal_command(&self, signal: Signal, and_wait: Option<Duration>) -> Result<()> {
        let pid = self
            .command_pid()
            .with_context(|| format!("node {} runs no command; {}", self.name, self.last_words()))?;
        let name = format!("-{}", signal.as_str().trim_start_matches("SIG"));
        self.run(&["kill", &name, "--", &format!("-{pid}")])?;
        let Some(deadline) = and_wait else { return Ok(()) };
        wait_until(&format!("the end of the command of node {} after {signal}", self.name), deadline, || {
            if self.command_pid().is_none() { Ok(()) } else { Err("it runs") }
        })
    }

    /// The process id, inside the node, of its command while any process of its group runs.
    pub fn command_pid(&self) -> Option<i32> {
        let pid: i32 = fs::read_to_string(self.path("/run/lab.pid")).ok()?.trim().parse().ok()?;
        self.run(&["kill", "-0", "--", &format!("-{pid}")]).ok().map(|_| pid)
    }

    /// A file of the node's, from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first.pid))
    }

    /// The end of its log, for messages.
    pub fn last_words(&self) -> String {
        format!("node {} printed last:\n{}", self.name, tail(&self.log(), 20))
    }

    /// Ends the node with all that is in it.
    pub fn end(&self) {
        self.first.end();
        self.outer.end();
    }

    /// Becomes a command inside the node. Returns only if that fails.
    pub fn become_command(&self, argv: &[String]) -> io::Error {
        self.command(argv).exec()
    }
}

impl Starting {
    /// Waits until the root stands.
    pub(crate) fn ready(mut self) -> Result<Node> {
        let what = format!("node {}", self.node.name);
        let children = format!("/proc/{0}/task/{0}/children", self.outer);
        let mut failed = None;
        wait_until(&what, READY, || {
            let log = self.node.log();
            if log.lines().any(|line| line == "ready") {
                return Ok(());
            }
            if start_time(self.outer).is_none() {
                failed = Some(log);
                return Ok(());
            }
            Err(log)
        })?;
        if let Some(log) = failed {
            anyhow::bail!("{what} did not start: {}", log.trim());
        }
        let child = fs::read_to_string(&children).with_context(|| format!("{what}: its first process"))?;
        self.node.outer = Process::of(self.outer)?;
        self.node.first =
            Process::of(child.trim().parse().with_context(|| format!("{what}: children {child}"))?)?;
        Ok(self.node)
    }

    /// Ends what was started, when another node fails.
    pub(crate) fn abandon(self) {
        let _ = kill(Pid::from_raw(self.outer), Signal::SIGKILL);
    }
}
