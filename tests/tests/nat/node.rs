//! A node: a namespace with the nat task running in it.
use std::{sync::Arc, thread::JoinHandle, time::Duration};

use plainroute_agent::nat::{self, Fate, NatClass, NatConfig, NatDesired, NatError, NatInstalled, NatSource};
use plainroute_tests::netns::Netns;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// The low byte of the packet mark.
pub(crate) const MASK: u32 = 0xff;

pub(crate) struct Node {
    pub(crate) ns: Netns,
    desired: watch::Sender<Arc<NatDesired>>,
    installed: watch::Receiver<Arc<NatInstalled>>,
    running: Option<(CancellationToken, JoinHandle<Result<(), NatError>>)>,
    config: NatConfig,
}

impl Node {
    /// A namespace; the task is not started yet.
    pub(crate) fn new(label: &str) -> Node {
        Node::within(Netns::new(label).unwrap())
    }

    pub(crate) fn within(ns: Netns) -> Node {
        let config = NatConfig { counters_interval: Duration::from_millis(50), ..NatConfig::default() };
        let (desired, installed) = (watch::Sender::default(), watch::Sender::default().subscribe());
        Node { ns, desired, installed, running: None, config }
    }

    /// Starts the task, like a process that knows nothing yet.
    pub(crate) fn start(&mut self) {
        self.desired = watch::Sender::default();
        let installed = watch::Sender::default();
        self.installed = installed.subscribe();
        let cancel = CancellationToken::new();
        let (config, desired, stop) = (self.config.clone(), self.desired.subscribe(), cancel.clone());
        let thread = self.ns.on_thread(move || nat::run(config, desired, installed, stop));
        self.running = Some((cancel, thread));
    }

    /// Ends the task and nothing else.
    pub(crate) fn stop(&mut self) {
        if let Some((cancel, thread)) = self.running.take() {
            cancel.cancel();
            thread.join().unwrap().unwrap();
        }
    }

    /// Changes what is desired.
    pub(crate) fn want(&self, change: impl FnOnce(&mut NatDesired)) {
        self.desired.send_modify(|desired| {
            let desired = Arc::make_mut(desired);
            desired.mark_mask = MASK;
            change(desired);
            desired.generation += 1;
        });
    }

    /// Changes what is desired and waits until it is so.
    pub(crate) fn want_and_wait(&self, change: impl FnOnce(&mut NatDesired)) -> Arc<NatInstalled> {
        self.want(change);
        let generation = self.desired.borrow().generation;
        self.wait("the desired generation", |installed| installed.generation == generation)
    }

    /// Waits until the task says so.
    pub(crate) fn wait(
        &self,
        what: &str,
        mut condition: impl FnMut(&NatInstalled) -> bool,
    ) -> Arc<NatInstalled> {
        let mut installed = self.installed.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let seen = runtime.block_on(async {
            timeout(DEADLINE, installed.wait_for(|installed| condition(installed)))
                .await
                .map(|seen| seen.unwrap().clone())
        });
        seen.unwrap_or_else(|_| panic!("waited {DEADLINE:?} for {what}; last seen: {:#?}", self.installed()))
    }

    pub(crate) fn installed(&self) -> Arc<NatInstalled> {
        self.installed.borrow().clone()
    }

    pub(crate) fn nft(&self, line: &str) -> String {
        self.ns.exec(&format!("nft {line}")).unwrap()
    }

    /// Our table as `nft` shows it, or nothing.
    pub(crate) fn table(&self) -> String {
        let output = self.ns.output(&["nft", "list", "table", "inet", "plainroute"]).unwrap();
        assert!(output.status.success() || output.status.code() == Some(1), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
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

/// Everywhere, both families.
pub(crate) fn everywhere() -> NatClass {
    NatClass { to: ["0.0.0.0/0", "::/0"].map(|all| all.parse().unwrap()).into(), ..NatClass::default() }
}

/// What becomes of a source, whoever brings it.
pub(crate) fn source(egress: &str, address: &str, fate: Fate) -> NatSource {
    NatSource { egress: egress.into(), address: address.parse().unwrap(), local: fate, transit: fate }
}
