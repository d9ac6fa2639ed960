//! What an agent costs in a cluster of 5,000 nodes, 100,000 Pods, 2,000 namespaces and 500 pools: memory, and what it asks
//! of the API server. A real kube-apiserver and etcd hold all of that; some nodes run the real agent, each with 110 Pods and
//! a session with BIRD.
//!
//! `make scale` is the whole, with the release build. By default (`PLAINROUTE_SCALE` unset) other nodes and their Pods are
//! fewer: that they do not matter to an agent is what the test shows, by the API server's audit log and by the octets that
//! reach the node.
//!
//! Needs `plainroute` built beside the tests: `cargo build -p plainroute-agent`.

mod agent;
mod content;
mod scene;

use std::time::{Duration, Instant};

use agent::{Agent, processor_seconds};
use anyhow::{Result, ensure};
use content::Size;
use plainroute_tests::netns::wait_until;
use scene::Scene;
use serde_json::json;

/// What an agent may have in memory, in kibibytes, once in sync and after changes that no cluster has: all namespaces at
/// once, again and again. docs/scale.md says how far that is from the goal.
const RELEASE: [u64; 2] = [24 << 10, 40 << 10];
/// The same of the debug build, without the pages of its program.
const DEBUG: [u64; 2] = [16 << 10, 32 << 10];
/// How often everything that an agent watches is changed.
const ROUNDS: u32 = 2;
/// Others' Pods that change while their octets are counted.
const OTHERS: u32 = 2000;
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_agent_costs_what_its_own_node_has() -> Result<()> {
    let full = std::env::var_os("PLAINROUTE_SCALE").is_some_and(|value| value == "full");
    let size = if full { Size::FULL } else { Size::REDUCED };
    let mut scene = Scene::new(size).await?;

    let (begin, before) = (Instant::now(), processor_seconds(scene.api.pid()?)?);
    scene.start_agents()?;
    scene.await_routes(&[])?;
    let spent = processor_seconds(scene.api.pid()?)? - before;
    let agents = f64::from(size.agents);
    println!("all agents at once, until the ToR has every Pod: {:.1} s", begin.elapsed().as_secs_f64());
    println!("API server's processor time for each agent: {:.0} ms", spent / agents * 1e3);
    let received = scene.agents.iter().map(Agent::received).sum::<Result<u64>>()?;
    println!("octets to each agent until then: {}", received / u64::from(size.agents));
    scene.await_kept()?;
    let at_start = report(&scene, "in sync")?;
    println!("requests of an agent: {:?}", scene.requests()?[0]);

    let own = octets_of(&scene, || scene.touch_own_pods(1))?;
    let others = octets_of(&scene, || scene.touch(size.others().take(OTHERS as usize), 1))?;
    println!(
        "octets to each agent when its {} Pods change: {own}; when {OTHERS} of others do: {others}",
        size.pods_of_agent
    );
    ensure!(own > u64::from(size.pods_of_agent) * 1000, "own Pods must be seen");
    ensure!(others * 4 < own, "other nodes' Pods reach the agent");

    let namespaces = octets_of(&scene, || scene.touch_namespaces(1))?;
    println!("octets to each agent when every namespace changes: {namespaces}");
    for round in 2..=ROUNDS {
        scene.touch_own_pods(round)?;
        scene.touch_namespaces(round)?;
    }
    let after = report(&scene, "after all was changed some times")?;
    if full {
        quiet_minute(&scene)?;
    }
    let requests = scene.requests()?;
    println!("requests of an agent in the end: {:?}", requests[0]);
    for (number, of) in requests.iter().enumerate() {
        let lists = of
            .iter()
            .filter(|((verb, of), _)| verb == "list" && ["pods", "namespaces"].contains(&of.as_str()))
            .map(|(_, count)| count)
            .sum::<u32>();
        ensure!(lists <= 4, "agent {number} lists again and again: {of:?}");
    }
    let bounds = if full { RELEASE } else { DEBUG };
    for (of, bound) in [at_start, after].into_iter().zip(bounds) {
        ensure!(of < bound, "an agent has {of} KiB, which is more than {bound}");
    }
    Ok(())
}

/// Prints what the agents have in memory; gives the largest, in kibibytes: of the debug build, which the reduced form runs,
/// without the pages of its program, which are many.
fn report(scene: &Scene, when: &str) -> Result<u64> {
    let mut all = scene.agents.iter().map(Agent::memory).collect::<Result<Vec<_>>>()?;
    all.sort_by_key(|memory| memory.resident);
    let (median, most) = (all[all.len() / 2], all[all.len() - 1]);
    println!(
        "memory {when}, KiB: median {} resident, {} of it anonymous, {} at most; the largest agent {}, {}, {}",
        median.resident, median.anonymous, median.peak, most.resident, most.anonymous, most.peak
    );
    Ok(if scene.size.is_full() { most.resident } else { most.anonymous })
}

/// Octets that reach each agent meanwhile, on average.
fn octets_of(scene: &Scene, change: impl FnOnce() -> Result<()>) -> Result<u64> {
    let sum = || scene.agents.iter().map(Agent::received).sum::<Result<u64>>();
    let before = sum()?;
    change()?;
    Ok((sum()? - before) / u64::from(scene.size.agents))
}

/// What it costs that nothing happens.
fn quiet_minute(scene: &Scene) -> Result<()> {
    let costs = || -> Result<(f64, f64)> {
        let agents = scene.agents.iter().map(Agent::processor).sum::<Result<f64>>()?;
        Ok((processor_seconds(scene.api.pid()?)?, agents))
    };
    let ((api, agents), asked) = (costs()?, total(scene)?);
    let octets = octets_of(scene, || {
        let begin = Instant::now();
        wait_until("a minute to be over", MINUTE * 2, || {
            if begin.elapsed() < MINUTE { Err("not yet") } else { Ok(()) }
        })
    })?;
    let (later, later_asked) = (costs()?, total(scene)?);
    let each = f64::from(scene.size.agents);
    println!(
        "a minute without changes: API server {:.2} s of processor time in all, each agent {:.1} ms, {:.1} requests, \
         {octets} octets",
        later.0 - api,
        (later.1 - agents) / each * 1e3,
        f64::from(later_asked - asked) / each
    );
    Ok(())
}

fn total(scene: &Scene) -> Result<u32> {
    Ok(scene.requests()?.iter().flat_map(|of| of.values()).sum())
}

impl Scene {
    /// Changes Pods, and then one of each agent so that the ToR sees it: by then the agents have seen all before.
    fn touch(&self, pods: impl Iterator<Item = u32> + Send, revision: u32) -> Result<()> {
        let size = self.size;
        self.api.store(pods.map(|pod| size.pod(pod, revision)))?;
        let last: Vec<u32> = (0..size.agents).map(|agent| size.pods_of(agent).end - 1).collect();
        self.api.store(last.iter().map(|pod| {
            let (key, mut object) = size.pod(*pod, revision);
            object["status"]["phase"] = json!("Succeeded");
            (key, object)
        }))?;
        self.await_routes(&last)?;
        self.api.store(last.into_iter().map(|pod| size.pod(pod, revision)))?;
        self.await_routes(&[])
    }

    fn touch_own_pods(&self, revision: u32) -> Result<()> {
        self.touch(0..self.size.agents * self.size.pods_of_agent, revision)
    }

    /// Changes every namespace, and takes that of one Pod of each agent out of its pool for a moment.
    fn touch_namespaces(&self, revision: u32) -> Result<()> {
        let size = self.size;
        self.api.store((0..size.namespaces).map(|number| size.namespace(number, revision)))?;
        let taken: Vec<u32> = (0..size.agents).map(|agent| size.pods_of(agent).start).collect();
        let numbers: Vec<u32> = taken.iter().map(|pod| pod % size.namespaces).collect();
        self.api.store(numbers.iter().map(|number| {
            let (key, mut object) = size.namespace(*number, revision);
            object["metadata"]["labels"]["team"] = json!("none");
            (key, object)
        }))?;
        let gone: Vec<u32> = (0..size.agents * size.pods_of_agent)
            .filter(|pod| numbers.contains(&(pod % size.namespaces)))
            .collect();
        self.await_routes(&gone)?;
        self.api.store(numbers.into_iter().map(|number| size.namespace(number, revision)))?;
        self.await_routes(&[])
    }
}
