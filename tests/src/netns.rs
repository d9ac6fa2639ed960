//! Network namespaces of a test's own, and what runs in them.
//!
//! A [`Netns`] and a [`Daemon`] are guards: dropping one removes the namespace or kills the process, also on panic. If the
//! test process itself is killed, the kernel kills the daemons (parent-death signal) and the next run sweeps the
//! namespaces. Names carry our process id and a counter, so that parallel tests never meet.

use std::fmt::Display;
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, LazyLock, Once, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::scratch::{is_stale, unique_name};

/// How long killed processes may take to end.
const KILLED: Duration = Duration::from_secs(30);
const RUN_NETNS: &str = "/run/netns";

/// A network namespace under `/run/netns`, with loopback up, IPv4 forwarding and IPv6 duplicate address detection off. A clone is the same
/// namespace; it is removed with the last of them.
#[derive(Clone, Debug)]
pub struct Netns {
    name: Arc<Name>,
}

/// The name, and the duty to remove what it names.
#[derive(Debug)]
struct Name(String);

impl Netns {
    /// Makes a namespace. `label` is for the reader of `ip netns`; uniqueness does not depend on it.
    pub fn new(label: &str) -> Result<Netns> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep_stale);
        let name = unique_name(label);
        checked(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = Netns { name: Arc::new(Name(name)) };
        // The kernel copies the machine's, which a container runtime may have switched on.
        netns.sysctl("net.ipv4.ip_forward", "0")?;
        netns.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        netns.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        netns.up("lo")?;
        Ok(netns)
    }

    /// The name that `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.name.0
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(RUN_NETNS).join(self.name())
    }

    /// A command that will run inside, and die when this process dies. The process id is the command's own: the programs
    /// that lead into the namespace replace themselves.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).args(argv);
        command
    }

    /// Runs a command to its end and gives its standard output; an exit code other than 0 is an error that says all.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let output =
            checked(&mut self.command(argv)).with_context(|| format!("in namespace {}", self.name()))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As [`run`](Self::run), for a line split at white space: `ns.exec("ip link set eth0 up")`.
    pub fn exec(&self, line: &str) -> Result<String> {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a command to its end, whatever its exit code.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        output_of(&mut self.command(argv)).with_context(|| format!("in namespace {}", self.name()))
    }

    /// Starts a process that lives as long as the [`Daemon`]; what it prints goes to `log`.
    pub fn spawn(&self, argv: &[&str], log: &Path) -> Result<Daemon> {
        Daemon::spawn(self.command(argv), log).with_context(|| format!("in namespace {}", self.name()))
    }

    /// Sets a sysctl by its dotted name. An interface whose name has a dot is written with slashes throughout.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(if key.contains('/') {
            key.to_owned()
        } else {
            key.replace('.', "/")
        });
        self.within(|| fs::write(&path, value))
            .with_context(|| format!("sysctl {key}={value} in namespace {}", self.name()))
    }

    /// Gives an interface an address with its prefix length, usable at once (no duplicate address detection).
    pub fn address(&self, interface: &str, address: &str) -> Result<()> {
        let mut argv = vec!["ip", "address", "add", address, "dev", interface];
        if address.contains(':') {
            argv.push("nodad");
        }
        self.run(&argv).map(drop)
    }

    /// Sets an interface up.
    pub fn up(&self, interface: &str) -> Result<()> {
        self.run(&["ip", "link", "set", interface, "up"]).map(drop)
    }

    /// Sets an interface down.
    pub fn down(&self, interface: &str) -> Result<()> {
        self.run(&["ip", "link", "set", interface, "down"]).map(drop)
    }

    /// Runs a closure on a thread inside the namespace and waits for it. A socket that it returns stays in the namespace.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        within(&self.path(), f)
    }

    /// Runs a future on a runtime of its own, on a new thread inside the namespace. The future is made there, so it need
    /// not be `Send`. Tasks that it spawns end with it.
    pub fn on_thread<T, F>(&self, make: impl FnOnce() -> F + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let path = self.path();
        std::thread::Builder::new()
            .name(self.name().to_owned())
            .spawn(move || {
                enter(&path);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a tokio runtime").block_on(make())
            })
            .expect("a thread")
    }

    /// As [`on_thread`](Self::on_thread), and waits for the result; a panic inside goes on outside.
    pub fn block_on<T, F>(&self, make: impl FnOnce() -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        self.on_thread(make).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = checked(Command::new("ip").args(["netns", "delete", &self.0])) {
            eprintln!("namespace {} stays behind: {error:#}", self.0);
        }
    }
}

/// [`Netns::within`] for a namespace that somebody else made, by the file that stands for it.
pub fn within<T: Send>(namespace: &Path, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            enter(namespace);
            f()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Lays a cable: a veth pair with one end in each namespace, both up.
pub fn veth((a, a_name): (&Netns, &str), (b, b_name): (&Netns, &str)) -> Result<()> {
    a.run(&["ip", "link", "add", a_name, "type", "veth", "peer", "name", b_name, "netns", b.name()])?;
    a.up(a_name)?;
    b.up(b_name)
}

/// A process of ours. Dropping it kills the process and whatever shares its process group.
#[derive(Debug)]
pub struct Daemon {
    command: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in a process group of its own, its output appended to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Daemon> {
        let described = describe(&command);
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log {}", log.display()))?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
        let child = spawn_for_life(command).with_context(|| format!("start `{described}`"))?;
        Ok(Daemon { command: described, child, log: log.to_owned() })
    }

    /// Its process id, which is also its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// An error with its log if it does not run any more: for readiness loops, so that they do not wait in vain.
    pub fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("`{}` ended with {status}; it printed:\n{}", self.command, tail(&self.log(), 40));
        }
        Ok(())
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(self.group(), signal)
            .with_context(|| format!("{signal} to `{}`", self.command))
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let Daemon { command, child, .. } = self;
        wait_until(&format!("the end of `{command}`"), deadline, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// SIGTERM, then waits for its end.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }

    /// SIGKILL to it and its children; returns when all are gone, and with them their ports. A large one takes a while.
    pub fn kill(&mut self) {
        // Only while it is not reaped is the number surely ours.
        if self.is_running() {
            let _ = killpg(self.group(), Signal::SIGKILL);
            let group = self.group();
            let gone = wait_until("the end of its processes", KILLED, || match living(group) {
                0 => Ok(()),
                left => Err(format!("{left} live")),
            });
            if let Err(error) = gone {
                eprintln!("`{}` was killed: {error}", self.command);
            }
            let _ = self.child.wait();
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- last lines of `{}`\n{}", self.command, tail(&self.log(), 40));
        }
    }
}

/// How many processes of a group have not ended, with all their threads: the first may be gone long before the last,
/// which frees the memory and then closes the sockets.
fn living(group: Pid) -> usize {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let lives = |process: &Path| {
        let of = stat_fields(process).and_then(|fields| fields.get(2).cloned());
        let tasks = || fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        let runs = |task: fs::DirEntry| {
            stat_fields(&task.path()).is_some_and(|fields| !matches!(fields[0].as_str(), "Z" | "X"))
        };
        of.is_some_and(|of| of == group.to_string()) && tasks().any(runs)
    };
    entries.flatten().filter(|entry| lives(&entry.path())).count()
}

/// State, parent, group and so on of a process or thread. Its name may hold anything, also parentheses.
fn stat_fields(directory: &Path) -> Option<Vec<String>> {
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Asks `condition` until it gives `Ok`, or fails with what it last saw once `deadline` is over.
pub fn wait_until<T, S: Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T, S>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() >= deadline => {
                bail!("waited {deadline:?} for {what}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// [`wait_until`] for tasks.
pub async fn wait_until_async<T, S: Display, F: Future<Output = Result<T, S>>>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() >= deadline => {
                bail!("waited {deadline:?} for {what}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs a command to its end; the error of a failure has the command, its exit code and what it printed.
pub fn checked(command: &mut Command) -> Result<Output> {
    let output = output_of(command)?;
    ensure!(
        output.status.success(),
        "`{}` ended with {}: {}{}",
        describe(command),
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
    Ok(output)
}

fn output_of(command: &mut Command) -> Result<Output> {
    let described = describe(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("run `{described}`"))
}

/// The command as one would type it, without the words that only lead into the namespace.
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    line.split_once(" -- ").map_or(line.clone(), |(_, rest)| rest.to_owned())
}

/// Moves this thread, and only it, into the namespace.
fn enter(path: &Path) {
    let file = File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    setns(file, CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| panic!("enter {}: {error}", path.display()));
}

/// Spawns from a thread that lives as long as the process. The parent-death signal is sent when the *thread* that forked
/// ends, so a daemon that a test started on a passing thread would die with it.
pub(crate) fn spawn_for_life(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = mpsc::channel();
    let gone = |_| io::Error::other("the spawning thread is gone");
    SPAWNER.send((command, answer)).map_err(|_| io::Error::other("the spawning thread is gone"))?;
    answered.recv().map_err(gone)?
}

/// Removes namespaces whose maker is dead.
fn sweep_stale() {
    let Ok(entries) = fs::read_dir(RUN_NETNS) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_stale(&name) {
            // Another process may sweep at the same time: that it is gone already is no error.
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_namespaces_share_a_cable_and_nothing_else() {
        let (a, b) = (Netns::new("a").unwrap(), Netns::new("b").unwrap());
        veth((&a, "eth0"), (&b, "eth0")).unwrap();
        a.address("eth0", "10.0.0.1/24").unwrap();
        b.address("eth0", "10.0.0.2/24").unwrap();
        b.address("eth0", "fd00::2/64").unwrap();
        a.exec("ping -c1 -W2 10.0.0.2").unwrap();
        b.sysctl("net.ipv4.ip_forward", "1").unwrap();
        assert_eq!(b.exec("sysctl -n net.ipv4.ip_forward").unwrap().trim(), "1");
        assert_eq!(a.exec("sysctl -n net.ipv4.ip_forward").unwrap().trim(), "0");
    }

    #[test]
    fn killing_a_daemon_waits_for_its_children_too() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & exec sleep 1000"]);
        let mut daemon = Daemon::spawn(command, log.path()).unwrap();
        let group = daemon.group();
        wait_until("both", Duration::from_secs(20), || match living(group) {
            2 => Ok(()),
            other => Err(other),
        })
        .unwrap();
        daemon.kill();
        assert_eq!(living(group), 0);
    }

    #[test]
    fn a_future_in_the_namespace_meets_a_listener_made_there() {
        let ns = Netns::new("async").unwrap();
        let listener = ns.within(|| std::net::TcpListener::bind("127.0.0.1:7")).unwrap();
        ns.block_on(|| async { tokio::net::TcpStream::connect("127.0.0.1:7").await.map(drop) }).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn dropping_removes_the_namespace_and_the_processes_and_their_children() {
        let dir = tempfile::tempdir().unwrap();
        let ns = Netns::new("drop").unwrap();
        let path = ns.path();
        // The shell's child would outlive it if only the shell were killed.
        let daemon = ns.spawn(&["sh", "-c", "sleep 1000 & echo $!; wait"], &dir.path().join("log")).unwrap();
        let grandchild = wait_until("the child's pid", Duration::from_secs(5), || {
            daemon.log().trim().parse::<u32>().map_err(|error| error.to_string())
        })
        .unwrap();
        drop(daemon);
        let stat = format!("/proc/{grandchild}/stat");
        wait_until("the grandchild's end", Duration::from_secs(5), || match fs::read_to_string(&stat) {
            Ok(line) if !line.contains(") Z ") => Err(line),
            _ => Ok(()),
        })
        .unwrap();
        drop(ns);
        assert!(!path.exists());
    }

    #[test]
    fn a_daemon_outlives_the_thread_that_started_it() {
        let dir = tempfile::tempdir().unwrap();
        let ns = Netns::new("thread").unwrap();
        let log = dir.path().join("log");
        let mut daemon =
            std::thread::scope(|scope| scope.spawn(|| ns.spawn(&["sleep", "1000"], &log)).join().unwrap())
                .unwrap();
        assert!(daemon.wait(Duration::from_millis(200)).is_err());
        daemon.terminate(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn errors_tell_the_command_and_what_was_seen() {
        let ns = Netns::new("errors").unwrap();
        let error = format!("{:#}", ns.exec("ip link set nowhere up").unwrap_err());
        assert!(
            error.contains("`ip link set nowhere up`") && error.contains("Cannot find device"),
            "{error}"
        );
        let mut asked = 0;
        let error = wait_until("a miracle", Duration::from_millis(20), || -> Result<(), String> {
            asked += 1;
            Err(format!("answer {asked}"))
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("a miracle") && error.contains(&format!("answer {asked}")), "{error}");
    }

    #[test]
    fn namespaces_of_the_dead_are_swept() {
        let mut short_lived = Command::new("true").spawn().unwrap();
        let name = format!("{}-{}-0-stale", crate::scratch::PREFIX, short_lived.id());
        short_lived.wait().unwrap();
        checked(Command::new("ip").args(["netns", "add", &name])).unwrap();
        sweep_stale();
        assert!(!Path::new(RUN_NETNS).join(&name).exists());
    }
}
