//! Row (h): an address for a Pod, by the plugin's own process, against `host-local`; and the route to it at the ToR.
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::kubelab::{ApiServer, Options};
use plainroute_tests::netns::{Netns, wait_until};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::agent::{Agent, beside};
use crate::bench::Bench;
use crate::clock::Moment;
use crate::report::{FLOOR, Goal, OURS, Unit};
use crate::session::Session;
use crate::site::{HOST, Site, address, host};
use crate::stats::percentile;
use crate::wire::Family;

const FAMILY: Family = Family::V4;
const READER: u8 = *host::READERS.start();
const NODE: &str = "node-a";
/// The namespace whose Pods find a block that the node has.
const NAMESPACE: &str = "bench";
const PLUGINS: &str = "/usr/lib/cni";
const HOST_LOCAL: &str = "host-local";
/// ADDs a round, one after the other.
const ADDS: usize = 100;
/// First Pods of a namespace, a round.
const FIRSTS: usize = 40;
const AT_ONCE: usize = 200;
const ROUTES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    if let Err(error) = Node::new(bench.rounds()).and_then(|mut node| node.measure(bench)) {
        bench.failed('h', "an address for a Pod", OURS, &error);
    }
    Ok(())
}

/// A plugin and its network configuration.
struct Plugin {
    program: PathBuf,
    network: String,
}

impl Plugin {
    fn new(program: PathBuf, ipam: &str) -> Plugin {
        let network = format!(r#"{{"cniVersion":"1.0.0","name":"pods","type":"ptp","ipam":{ipam}}}"#);
        Plugin { program, network }
    }

    fn command(&self, verb: &str, namespace: &str, container: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", "/run/netns/nobody")
            .env("CNI_PATH", PLUGINS)
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=pod"));
        command
    }

    /// From right before its process is started until that has ended, in milliseconds.
    fn time(&self, verb: &str, namespace: &str, container: &str) -> Result<f64> {
        let mut command = self.command(verb, namespace, container);
        let begin = Moment::now();
        self.finish(&mut command)?;
        Ok(Moment::now().milliseconds_since(begin))
    }

    fn finish(&self, command: &mut Command) -> Result<()> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("its input")?.write_all(self.network.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{}: {said}", self.program.display());
        Ok(())
    }

    /// Milliseconds until the last of many that start together has ended.
    fn time_at_once(&self, verb: &str, prefix: &str) -> Result<f64> {
        let ready = Barrier::new(AT_ONCE + 1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE)
                .map(|number| {
                    let ready = &ready;
                    scope.spawn(move || {
                        let mut command = self.command(verb, NAMESPACE, &format!("{prefix}-{number}"));
                        ready.wait();
                        self.finish(&mut command).map(|()| Moment::now())
                    })
                })
                .collect();
            ready.wait();
            let begin = Moment::now();
            let ends = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
            let ends: Vec<Moment> = ends.collect::<Result<_>>()?;
            Ok(ends.iter().max().map_or(0.0, |last| last.milliseconds_since(begin)))
        })
    }
}

/// Fields drop in order: the agent before the API server, both before their namespaces.
struct Node {
    session: Session,
    agent: Agent,
    _api: ApiServer,
    _runtime: Runtime,
    site: Site,
    /// A node without an API server, whose block its files give it.
    _files: Agent,
    _files_site: Site,
    alone: Plugin,
    ours: Plugin,
    theirs: Plugin,
    /// What it costs to start a process that reads and writes, and does nothing.
    floor: Plugin,
    ptp: Plugin,
    /// The namespaces that nobody has asked for yet.
    fresh: std::ops::Range<usize>,
    _disk: TempDir,
}

impl Node {
    fn new(rounds: usize) -> Result<Node> {
        let site = Site::new()?;
        site.contestant.sysctl("net.ipv4.ip_forward", "1")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let options = Options {
            listen: address(FAMILY, host::OBSERVER),
            netns: Some(site.tool.name().to_owned()),
            ..Options::default()
        };
        let fresh = 0..rounds * FIRSTS;
        let api = runtime.block_on(async {
            let api = ApiServer::start_with(options).await?;
            api.install_crds().await?;
            api.create_node(NODE, &[address(FAMILY, HOST)]).await?;
            for name in std::iter::once(NAMESPACE.to_owned()).chain(fresh.clone().map(namespace)) {
                api.create_namespace(&name, &[]).await?;
                api.create_pod(&TestPod::new(&name, "pod", NODE)).await?;
            }
            anyhow::Ok(api)
        })?;
        let pools: String = fresh.clone().map(pool).collect();
        let agent =
            Agent::giving_addresses(&site.contestant, READER, Some(&api.kubeconfig()), NAMESPACE, &pools)?;
        let files_site = Site::new()?;
        let files = Agent::giving_addresses(&files_site.contestant, READER, None, NAMESPACE, &files())?;
        let session = Session::connect(&site, FAMILY, READER).with_context(|| agent.log())?;
        let disk = tempfile::Builder::new().prefix("plainroute-bench-").tempdir()?;
        let asks = |agent: &Agent| {
            format!(r#"{{"type":"plainroute-ipam","socket":"{}"}}"#, agent.ipam_socket().display())
        };
        let alone = Plugin::new(beside("plainroute-ipam")?, &asks(&files));
        let asks = asks(&agent);
        let keeps = format!(
            r#"{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.0.0.0/20"}}]]}}"#,
            disk.path().display()
        );
        let ours = Plugin::new(beside("plainroute-ipam")?, &asks);
        let node = Node {
            theirs: Plugin::new(Path::new(PLUGINS).join(HOST_LOCAL), &keeps),
            floor: Plugin::new("/bin/cat".into(), &asks),
            ptp: Plugin::new(Path::new(PLUGINS).join("ptp"), &asks),
            ours,
            alone,
            _files: files,
            _files_site: files_site,
            session,
            agent,
            _api: api,
            _runtime: runtime,
            site,
            fresh,
            _disk: disk,
        };
        // Until the agent knows what there is; from here on the node has a block of the namespace.
        wait_until("the first address", PATIENCE, || node.ours.time("ADD", NAMESPACE, "first"))
            .with_context(|| node.agent.log())?;
        wait_until("the first address of files", PATIENCE, || node.alone.time("ADD", NAMESPACE, "first"))?;
        Ok(node)
    }

    fn measure(&mut self, bench: &mut Bench) -> Result<()> {
        let rounds = bench.rounds();
        let (mut alone, mut ours, mut theirs, mut floor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut firsts = Vec::new();
        let (mut ours_at_once, mut theirs_at_once, mut floor_at_once) = (Vec::new(), Vec::new(), Vec::new());
        let (mut late, mut whole) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            for (plugin, figures) in [
                (&self.alone, &mut alone),
                (&self.theirs, &mut theirs),
                (&self.floor, &mut floor),
                (&self.ours, &mut ours),
            ] {
                for number in 0..ADDS {
                    let container = format!("one-{round}-{number}");
                    figures.push(plugin.time("ADD", NAMESPACE, &container)?);
                    plugin.time("DEL", NAMESPACE, &container)?;
                }
            }
            for number in self.fresh.by_ref().take(FIRSTS) {
                firsts.push(self.ours.time("ADD", &namespace(number), &format!("first-{number}"))?);
            }
            for (plugin, figures) in [
                (&self.ours, &mut ours_at_once),
                (&self.theirs, &mut theirs_at_once),
                (&self.floor, &mut floor_at_once),
            ] {
                figures.push(plugin.time_at_once("ADD", &format!("many-{round}"))?);
                plugin.time_at_once("DEL", &format!("many-{round}"))?;
            }
            for number in 0..ROUTES {
                let (after, all) = self.route(&format!("route-{round}-{number}"))?;
                late.push(after);
                whole.push(all);
            }
        }
        let mut tell = |title: &str, percent: f64, goal: Goal, all: &[(&str, &[f64])]| {
            let row = bench.report().row('h', &format!("{title}, p{percent}"), Unit::Milliseconds, goal);
            for (name, figures) in all {
                percentile(figures, percent).into_iter().for_each(|figure| row.sample(name, figure));
            }
        };
        for (percent, goal, of_server) in
            [(50.0, Goal::None, Goal::None), (99.0, Goal::AtMost(3.0), Goal::AtMost(25.0))]
        {
            let all: [(&str, &[f64]); 3] = [(OURS, &alone), (HOST_LOCAL, &theirs), (FLOOR, &floor)];
            tell("CNI ADD to reply, of a block that the node has", percent, goal, &all);
            let title = "the same, and an API server on the same processors is told of it";
            tell(title, percent, Goal::None, &[(OURS, &ours)]);
            let title = "CNI ADD to reply, the first of a namespace: a block is claimed at the API server";
            tell(title, percent, of_server, &[(OURS, &firsts)]);
        }
        tell("ADD by ptp until the ToR has the Pod's route", 50.0, Goal::None, &[(OURS, &whole)]);
        let title = "the ToR has a Pod's route so long after ADD by ptp has returned";
        tell(title, 50.0, Goal::None, &[(OURS, &late)]);
        tell(title, 99.0, Goal::AtMost(5.0), &[(OURS, &late)]);
        let title = format!("{AT_ONCE} CNI ADDs at once: time to the last reply");
        let row = bench.report().row('h', &title, Unit::Milliseconds, Goal::None);
        for (name, figures) in [(OURS, ours_at_once), (HOST_LOCAL, theirs_at_once), (FLOOR, floor_at_once)] {
            figures.into_iter().for_each(|figure| row.sample(name, figure));
        }
        Ok(())
    }

    /// A Pod by the real `ptp`: milliseconds from ADD's return until its route has come, none where that was before; and from the
    /// begin of ADD.
    fn route(&mut self, container: &str) -> Result<(f64, f64)> {
        let sandbox = Netns::new("pod")?;
        let contestant = self.site.contestant.path();
        let directory = self.ours.program.parent().context("a directory")?.display().to_string();
        let command = |verb: &str| {
            let mut command = self.ptp.command(verb, NAMESPACE, container);
            command.env("CNI_NETNS", sandbox.path()).env("CNI_PATH", format!("{PLUGINS}:{directory}"));
            command
        };
        let before = self.session.counts().clone();
        let (session, ptp) = (&mut self.session, &self.ptp);
        let (begin, answer, end) = std::thread::scope(|scope| {
            let listening = scope.spawn(|| {
                session.receive_until("the Pod", PATIENCE, |counts| counts.announced > before.announced)
            });
            // The thread is in the node's namespace already, so that nothing but the plugin is timed.
            let (begin, answer) = plainroute_tests::netns::within(&contestant, || {
                let begin = Moment::now();
                (begin, ptp.finish(&mut command("ADD")).map(|()| Moment::now()))
            });
            (begin, answer, listening.join().expect("it does not panic"))
        });
        let (answer, end) = (answer.with_context(|| self.agent.log())?, end?);
        let before = self.session.counts().withdrawn;
        plainroute_tests::netns::within(&contestant, || self.ptp.finish(&mut command("DEL")))?;
        self.session.receive_until("its withdrawal", PATIENCE, |counts| counts.withdrawn > before)?;
        Ok((end.milliseconds_since(answer), end.milliseconds_since(begin)))
    }
}

/// What the API server would say: a node, its block, a namespace and a Pod.
fn files() -> String {
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{ name: {NODE} }}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  \
         labels: {{ kubernetes.io/metadata.name: {NAMESPACE} }}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{ name: pod, namespace: {NAMESPACE}, uid: pod }}\nspec:\n  \
         nodeName: {NODE}\n  containers: [{{ name: main, image: nothing }}]\n---\n\
         apiVersion: plainroute.dev/v1alpha1\nkind: IPBlock\nmetadata: {{ name: 10-0-0-0-23 }}\nspec:\n  \
         {{ cidr: 10.0.0.0/23, within: 10.0.0.0/20, pool: pods, node: {NODE} }}\n"
    )
}

fn namespace(number: usize) -> String {
    format!("team-{number}")
}

/// A pool of one block for a namespace of its own.
fn pool(number: usize) -> String {
    let first = u32::from(Ipv4Addr::new(10, 1, 0, 0)) + 16 * u32::try_from(number).unwrap_or_default();
    format!(
        "---\napiVersion: plainroute.dev/v1alpha1\nkind: IPPool\nmetadata: {{ name: {name} }}\nspec:\n  \
         ipRanges: [{{ cidr: {range}/28 }}]\n  blockSize: 28\n  \
         namespaceSelector: {{ matchLabels: {{ kubernetes.io/metadata.name: {name} }} }}\n",
        name = namespace(number),
        range = Ipv4Addr::from(first)
    )
}
