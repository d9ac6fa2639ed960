//! A node: a namespace with the fib task running in it, and an independent witness of what the kernel reports.
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use plainroute_agent::fib::{self, Desired, FibConfig, FibError, Installed, NextHop, RouteKey, Target};
use plainroute_tests::netns::{Netns, wait_until};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct Node {
    pub(crate) ns: Netns,
    desired: watch::Sender<Arc<Desired>>,
    installed: watch::Receiver<Arc<Installed>>,
    running: Option<(CancellationToken, JoinHandle<Result<(), FibError>>)>,
    config: FibConfig,
}

impl Node {
    /// A namespace; the task is not started yet.
    pub(crate) fn new(label: &str) -> Node {
        let config = FibConfig::default();
        let (desired, installed) = (watch::Sender::default(), watch::Sender::default().subscribe());
        Node { ns: Netns::new(label).unwrap(), desired, installed, running: None, config }
    }

    pub(crate) fn with_monitor_buffer(mut self, bytes: usize) -> Node {
        self.config.monitor_buffer = bytes;
        self
    }

    /// Starts the task, like a process that knows nothing yet.
    pub(crate) fn start(&mut self) {
        self.desired = watch::Sender::default();
        let installed = watch::Sender::default();
        self.installed = installed.subscribe();
        let cancel = CancellationToken::new();
        let (config, desired, stop) = (self.config.clone(), self.desired.subscribe(), cancel.clone());
        let thread = self.ns.on_thread(move || fib::run(config, desired, installed, stop));
        self.running = Some((cancel, thread));
        self.wait("the first dump", |installed| installed.synced);
    }

    /// Ends the task and nothing else.
    pub(crate) fn stop(&mut self) {
        if let Some((cancel, thread)) = self.running.take() {
            cancel.cancel();
            thread.join().unwrap().unwrap();
        }
    }

    /// Changes what is desired.
    pub(crate) fn want(&self, change: impl FnOnce(&mut Desired)) {
        self.desired.send_modify(|desired| {
            let desired = Arc::make_mut(desired);
            change(desired);
            desired.generation += 1;
        });
    }

    /// Changes what is desired and waits until the task has tried.
    pub(crate) fn want_and_wait(&self, change: impl FnOnce(&mut Desired)) -> Arc<Installed> {
        self.want(change);
        let generation = self.desired.borrow().generation;
        self.wait("the desired generation", |installed| installed.generation == generation)
    }

    /// Waits until the task says so.
    pub(crate) fn wait(&self, what: &str, mut condition: impl FnMut(&Installed) -> bool) -> Arc<Installed> {
        let mut installed = self.installed.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let seen = runtime.block_on(async {
            timeout(DEADLINE, installed.wait_for(|installed| condition(installed)))
                .await
                .map(|seen| seen.unwrap().clone())
        });
        seen.unwrap_or_else(|_| panic!("waited {DEADLINE:?} for {what}; last seen: {:#?}", self.installed()))
    }

    pub(crate) fn installed(&self) -> Arc<Installed> {
        self.installed.borrow().clone()
    }

    pub(crate) fn ip(&self, line: &str) -> String {
        self.ns.exec(&format!("ip {line}")).unwrap()
    }

    /// A Pod's cable: `name` on the node, its other end in a namespace of its own.
    pub(crate) fn pod(&self, name: &str) -> Netns {
        let pod = Netns::new("pod").unwrap();
        plainroute_tests::netns::veth((&self.ns, name), (&pod, "eth0")).unwrap();
        pod
    }

    /// What the kernel holds for a prefix, one line a route, without the words that only kernels care for.
    pub(crate) fn routes(&self, prefix: &str) -> Vec<String> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let shown =
            self.ns.run(&["ip", "-o", family, "route", "show", "table", "all", "exact", prefix]).unwrap();
        shown.lines().map(plain).collect()
    }

    pub(crate) fn witness(&self) -> Witness {
        Witness::new(&self.ns)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((cancel, thread)) = self.running.take() {
            cancel.cancel();
            // A panic of the task is the test's failure, but not in the middle of another one.
            let ended = thread.join();
            assert!(std::thread::panicking() || matches!(ended, Ok(Ok(()))), "the task ended with {ended:?}");
        }
    }
}

/// `ip -o` separates what would be lines by backslashes, and IPv6 adds its preference.
fn plain(line: &str) -> String {
    let words = line.replace('\\', " ").replace(" pref medium", "");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn host(address: &str) -> RouteKey {
    RouteKey::main(address.parse().unwrap())
}

pub(crate) fn device(interface: &str) -> Target {
    Target::Device { interface: interface.to_owned() }
}

/// `GATEWAY` or `GATEWAY%INTERFACE` each.
pub(crate) fn via(gateways: &[&str]) -> Target {
    let next_hop = |text: &&str| {
        let (gateway, interface) = match text.split_once('%') {
            Some((gateway, interface)) => (gateway, Some(interface.to_owned())),
            None => (*text, None),
        };
        NextHop { gateway: gateway.parse().unwrap(), interface }
    };
    Target::Via { next_hops: gateways.iter().map(next_hop).collect() }
}

/// `ip monitor`: what the kernel reported, each line with the time at which it was read.
pub(crate) struct Witness {
    child: Child,
    lines: mpsc::Receiver<(Instant, String)>,
    ns: Netns,
}

impl Witness {
    fn new(ns: &Netns) -> Witness {
        let mut command = ns.command(&["ip", "-o", "monitor", "label", "route", "address", "link"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), plain(&line))).is_err() {
                    return;
                }
            }
        });
        let witness = Witness { child, lines, ns: ns.clone() };
        witness.fence();
        witness
    }

    /// Waits for a line that has all the words, dropping those before it.
    pub(crate) fn see(&self, words: &[&str]) -> (Instant, String) {
        let deadline = Instant::now() + DEADLINE;
        let mut before = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((at, line)) = self.lines.recv_timeout(left) else {
                panic!("the kernel never reported {words:?}; before:\n{}", before.join("\n"))
            };
            if words.iter().all(|word| line.contains(word)) {
                return (at, line);
            }
            before.push(line);
        }
    }

    /// All that was reported until now: a mark is made in the kernel and waited for.
    pub(crate) fn fence(&self) -> Vec<String> {
        const MARK: &str = "203.0.113.99";
        let mut seen = Vec::new();
        // Again and again: before the witness listens, a mark is made in vain.
        wait_until("the witness", DEADLINE, || {
            self.ns.exec(&format!("ip route add blackhole {MARK} proto static")).unwrap();
            self.ns.exec(&format!("ip route del blackhole {MARK}")).unwrap();
            let until = Instant::now() + Duration::from_millis(100);
            while let Ok((_, line)) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                if line.contains(MARK) && line.contains("Deleted") {
                    return Ok(());
                }
                if !line.contains(MARK) {
                    seen.push(line);
                }
            }
            Err("it has not seen the mark")
        })
        .unwrap();
        seen
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A measured figure, shown by `cargo test -- --nocapture`.
pub(crate) fn report(what: &str, figures: &mut [Duration]) {
    figures.sort_unstable();
    let (median, worst) = (figures[figures.len() / 2], figures[figures.len() - 1]);
    println!("{what}: median {median:.1?}, worst {worst:.1?} of {}", figures.len());
}
