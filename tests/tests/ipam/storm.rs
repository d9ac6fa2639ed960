//! What the simulation checks, on real agents and a real API server: many runtimes that ask at once, agents that are killed, an
//! API server that is silent or away, and at no time one address with two containers, or outside the pools of its
//! namespace; in the end none that is still given.
//!
//! `PLAINROUTE_STORM_SEED` repeats the choices of a run, though not its timing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use plainroute_cni::agent::ask;
use plainroute_cni::error::code;
use plainroute_cni::protocol::{self, Command, Reply, Request};
use plainroute_config::IpBlockSpec;
use plainroute_tests::kubelab::ApiServer;
use plainroute_tests::netns::wait_until_async;
use serde_json::json;
use tokio::sync::watch;

use super::checker::{Checker, POOLS, watch_blocks};
use super::scene::{NODES, Scene, attachment};

const COUNT: usize = 5;
/// Runtimes that ask at once, on each node.
const AT_ONCE: usize = 4;
const TROUBLES: usize = 16;
/// How many addresses are to be given out at the least.
const ADDS: usize = 400;
/// What some Pods of `erp` ask for.
const FIXED: [&str; 2] = ["10.20.0.37", "10.20.0.61"];
/// How long a request may go without an answer at all.
const PATIENCE: Duration = Duration::from_secs(25);
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_agents_in_trouble_give_no_address_twice_and_leak_none() -> Result<()> {
    let seed = std::env::var("PLAINROUTE_STORM_SEED").ok().map_or(Ok(7), |seed| seed.parse())?;
    let specs = POOLS.map(|(name, range, size)| {
        format!(
            "{{ ipRanges: [{{ cidr: {range} }}], blockSize: {size}, ipCooldownSeconds: 1, \
             namespaceSelector: {{ matchLabels: {{ team: {name} }} }} }}"
        )
    });
    let pools: Vec<(&str, &str)> =
        POOLS.iter().zip(&specs).map(|((name, ..), spec)| (*name, spec.as_str())).collect();
    let mut scene = Scene::start_with(COUNT, &pools).await?;
    let begun = Instant::now();
    let checker = Arc::new(Checker::default());
    let (over, end) = watch::channel(false);
    let watcher = tokio::spawn(watch_blocks(scene.api.custom("IPBlock"), end.clone()));
    let runtimes: Vec<_> = (0..COUNT * AT_ONCE)
        .map(|number| {
            let runtime = Runtime {
                number,
                node: number % COUNT,
                socket: scene.socket(number % COUNT),
                client: scene.api.client(),
                checker: Arc::clone(&checker),
                dice: Dice::new(seed, number),
            };
            tokio::spawn(runtime.live(end.clone()))
        })
        .collect();
    make_trouble(&mut scene, &checker, Dice::new(seed, usize::MAX)).await?;
    over.send(true)?;
    let mut pods = Vec::new();
    for runtime in runtimes {
        let held = runtime.await?.with_context(|| format!("seed {seed}\n{}", scene.last_words()))?;
        pods.extend(held);
    }
    let looks = watcher.await?.with_context(|| format!("seed {seed}"))?;
    let (adds, refused) = checker.counts();
    println!(
        "{adds} addresses given out, {refused} requests refused or unanswered, {looks} looks at all IPBlocks, {} s",
        begun.elapsed().as_secs()
    );
    ensure!(adds >= ADDS && looks > 10 && !pods.is_empty(), "too little happened");

    // What is told is what is held, and is what is told again by agents that have just been started.
    let held: BTreeSet<(String, IpAddr)> =
        pods.iter().map(|held| (held.name.clone(), held.address)).collect();
    scene.await_allocations(&pairs(&held)).await.with_context(|| format!("seed {seed}"))?;
    (0..COUNT).for_each(|node| scene.kill_agent(node));
    (0..COUNT).try_for_each(|node| scene.start_agent(node))?;
    let node_of = |number: usize| scene.socket(number % COUNT);
    for held in &pods {
        let again = held.add(&node_of(held.runtime)).await?;
        ensure!(again == held.address, "{held:?} has {again} after its agent was killed");
    }
    for held in &pods {
        held.del(&node_of(held.runtime)).await?;
        held.delete_pod(&scene.api).await?;
    }
    scene.await_allocations(&[]).await.with_context(|| format!("seed {seed}: a leak"))?;
    let loans = async || {
        let blocks = scene.blocks().await.map_err(|error| error.to_string())?;
        let loans: Vec<_> = blocks.into_iter().filter(|block| block.lender.is_some()).collect();
        if loans.is_empty() { Ok(()) } else { Err(format!("{loans:?}")) }
    };
    wait_until_async("all loans to be over", SOON, loans).await?;
    // And the ToR knows the way to every block that is left, and to nothing else.
    let blocks = scene.blocks().await?;
    let node = |block: &IpBlockSpec| NODES.iter().position(|name| *name == block.node).context("a node");
    let routes: Vec<(String, usize)> =
        blocks.iter().map(|block| Ok((block.cidr.to_string(), node(block)?))).collect::<Result<_>>()?;
    scene.await_routes(&routes.iter().map(|(cidr, node)| (cidr.as_str(), *node)).collect::<Vec<_>>())
}

fn pairs(held: &BTreeSet<(String, IpAddr)>) -> Vec<(&str, IpAddr)> {
    held.iter().map(|(name, address)| (name.as_str(), *address)).collect()
}

/// One line of work of a node's container runtime: a Pod after another.
struct Runtime {
    number: usize,
    node: usize,
    socket: PathBuf,
    client: kube::Client,
    checker: Arc<Checker>,
    dice: Dice,
}

/// A Pod with its address.
#[derive(Debug)]
struct Held {
    runtime: usize,
    namespace: String,
    name: String,
    container: String,
    address: IpAddr,
}

impl Runtime {
    /// Until `end` says so; what it holds then is its last Pod, if that got an address.
    async fn live(mut self, mut end: watch::Receiver<bool>) -> Result<Option<Held>> {
        for turn in 0.. {
            let namespace = POOLS[self.dice.below(POOLS.len())].0;
            let fixed = (namespace == "erp" && self.dice.below(8) == 0).then(|| self.dice.below(FIXED.len()));
            let name = format!("p-{}-{turn}", self.number);
            self.create_pod(namespace, &name, fixed.map(|index| FIXED[index])).await?;
            let held = self.add(namespace, &name, &mut end).await?;
            if let (Some(held), Some(index)) = (&held, fixed) {
                ensure!(held.address.to_string() == FIXED[index], "{held:?} asked for {}", FIXED[index]);
            }
            let pause = Duration::from_millis(u64::try_from(self.dice.below(600))?);
            // The pause between two Pods, or the end.
            let _ = tokio::time::timeout(pause, end.wait_for(|over| *over)).await;
            if *end.borrow() && held.is_some() {
                return Ok(held);
            }
            if let Some(held) = held {
                // Asked again, as a runtime does that heard nothing.
                if self.dice.below(4) == 0 {
                    let again = held.add(&self.socket).await?;
                    ensure!(again == held.address, "{held:?} has {again} now");
                }
                self.checker.back(held.address);
                for _ in 0..=self.dice.below(2) {
                    held.del(&self.socket).await?;
                }
            }
            self.delete_pod(namespace, &name).await?;
            if *end.borrow() {
                return Ok(None);
            }
        }
        bail!("never")
    }

    async fn create_pod(&self, namespace: &str, name: &str, fixed: Option<&str>) -> Result<()> {
        let pod = json!({
            "metadata": {
                "name": name,
                "annotations": fixed.map(|address| json!({ "plainroute.dev/ip": address })),
            },
            "spec": {
                "nodeName": NODES[self.node],
                "containers": [{ "name": "main", "image": "none.invalid/none" }],
                "tolerations": [{ "operator": "Exists" }],
            },
        });
        let pod: Pod = serde_json::from_value(pod)?;
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let create = async || done(pods.create(&PostParams::default(), &pod).await, 409);
        wait_until_async(&format!("Pod {namespace}/{name} to be made"), SOON, create).await
    }

    async fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let now = DeleteParams::default().grace_period(0);
        let delete = async || done(pods.delete(name, &now).await, 404);
        wait_until_async(&format!("Pod {namespace}/{name} to be gone"), SOON, delete).await
    }

    /// As a kubelet: what fails is undone and tried again in another sandbox, or asked for once more; nothing once it is over.
    async fn add(
        &mut self,
        namespace: &str,
        name: &str,
        end: &mut watch::Receiver<bool>,
    ) -> Result<Option<Held>> {
        let deadline = Instant::now() + SOON;
        for attempt in 0.. {
            let container = format!("{name}.{attempt}");
            let mut held = Held {
                runtime: self.number,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                container,
                address: [0, 0, 0, 0].into(),
            };
            for _ in 0..=self.dice.below(2) {
                match held.ask_once(&self.socket).await? {
                    Some(address) => {
                        held.address = address;
                        self.checker.given(namespace, &held.container, address)?;
                        return Ok(Some(held));
                    }
                    None => self.checker.refused(),
                }
            }
            held.del(&self.socket).await?;
            if *end.borrow() {
                return Ok(None);
            }
            ensure!(Instant::now() < deadline, "{namespace}/{name} got no address within {SOON:?}");
            let pause = Duration::from_millis(u64::try_from(self.dice.below(300))?);
            let _ = tokio::time::timeout(pause, end.wait_for(|over| *over)).await;
        }
        bail!("never")
    }
}

impl Held {
    /// Its address; none where the agent is away or says that it is to be tried again.
    async fn ask_once(&self, socket: &std::path::Path) -> Result<Option<IpAddr>> {
        let pod = protocol::Pod { namespace: self.namespace.clone(), name: self.name.clone(), uid: None };
        let netns = format!("/run/netns/{}", self.container);
        let command = Command::Add { attachment: attachment(&self.container), netns, pod };
        match exchange(socket, command).await? {
            Some(Reply::Addresses(addresses)) => match addresses[..] {
                [address] => Ok(Some(address)),
                _ => bail!("{self:?} was given {addresses:?}"),
            },
            Some(Reply::Refused(failure)) if failure.code == code::TRY_AGAIN => Ok(None),
            Some(Reply::Refused(failure)) => bail!("{self:?}: {failure:?}"),
            None => Ok(None),
        }
    }

    async fn add(&self, socket: &std::path::Path) -> Result<IpAddr> {
        let asked = async || {
            self.ask_once(socket).await.map_err(|error| error.to_string())?.ok_or("no answer".to_owned())
        };
        wait_until_async(&format!("{} to be told its address", self.container), SOON, asked).await
    }

    async fn del(&self, socket: &std::path::Path) -> Result<()> {
        let asked = async || {
            let command = Command::Del { attachment: attachment(&self.container), netns: None, pod: None };
            match exchange(socket, command).await.map_err(|error| error.to_string())? {
                Some(Reply::Addresses(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        wait_until_async(&format!("{} to be taken back", self.container), SOON, asked).await
    }

    async fn delete_pod(&self, api: &ApiServer) -> Result<()> {
        api.delete_pod(&self.namespace, &self.name).await
    }
}

/// Whether it is done, now or, by the code of the answer, before: a busy machine's API server may not answer the first time.
fn done<T>(answer: kube::Result<T>, before: u16) -> Result<(), String> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == before => Ok(()),
        answer => answer.map(drop).map_err(|error| error.to_string()),
    }
}

/// What the agent says; nothing where it is not there, or ends meanwhile.
async fn exchange(socket: &std::path::Path, command: Command) -> Result<Option<Reply>> {
    let (socket, request) = (socket.to_owned(), Request::new("pods", command));
    let reply = tokio::task::spawn_blocking(move || ask(&socket, &request, PATIENCE)).await?;
    Ok(reply.ok())
}

/// Kills agents, and lets the API server be silent or away; goes on until enough addresses were given out.
async fn make_trouble(scene: &mut Scene, checker: &Checker, mut dice: Dice) -> Result<()> {
    let deadline = Instant::now() + 2 * SOON;
    let mut done = 0;
    while done < TROUBLES || checker.counts().0 < ADDS {
        ensure!(Instant::now() < deadline, "only {:?} addresses were given out", checker.counts());
        let before = checker.counts().0;
        let more = usize::from(done < TROUBLES) * dice.below(20);
        let pause = Duration::from_millis(500 + u64::try_from(dice.below(1500))?);
        match dice.below(6) {
            _ if done >= TROUBLES => {}
            0 => {
                scene.api.freeze()?;
                progress(checker, before + more, pause).await;
                scene.api.thaw()?;
            }
            1 => {
                scene.api.kill().await?;
                progress(checker, before + more, pause).await;
                scene.api.restart().await?;
            }
            _ => {
                let node = dice.below(COUNT);
                scene.kill_agent(node);
                progress(checker, before + more / 4, pause / 4).await;
                scene.start_agent(node)?;
            }
        }
        done += 1;
        progress(checker, before + 2 * more, pause).await;
    }
    Ok(())
}

/// Until so many addresses have been given out, or for so long.
async fn progress(checker: &Checker, adds: usize, longest: Duration) {
    let enough = async || if checker.counts().0 >= adds { Ok(()) } else { Err("not yet") };
    drop(wait_until_async("progress", longest, enough).await);
}

/// Random numbers that a seed repeats (SplitMix64).
struct Dice(u64);

impl Dice {
    fn new(seed: u64, of: usize) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::try_from(of).unwrap_or_default())
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap_or(1)).unwrap_or_default()
    }
}
