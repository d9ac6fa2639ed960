//! Rows (b) and (e) with Kubernetes: a real API server in the tool's namespace, 250 Pods, and the release agent.
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::kubelab::{ApiServer, Options};
use tokio::runtime::Runtime;

use crate::agent::{Agent, lay_link};
use crate::bench::Bench;
use crate::clock::Moment;
use crate::report::{Goal, OURS, Unit};
use crate::session::Session;
use crate::site::{HOST, Site, address, host};
use crate::stats::percentile;
use crate::wire::{Family, Numbering};

const FAMILY: Family = Family::V4;
const READER: u8 = *host::READERS.start();
const PODS: u32 = 250;
const EVENTS: u32 = 50;
const PATIENCE: Duration = Duration::from_secs(20);
const NODE: &str = "node-a";
const NAMESPACE: &str = "bench";

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let title = "a Pod becomes ready in the API, among 250";
    match Cluster::new().and_then(|mut cluster| cluster.measure(bench, title)) {
        Ok(()) => {}
        Err(error) => bench.failed('b', title, OURS, &error),
    }
    Ok(())
}

/// Fields drop in order: the agent before the API server, both before their namespaces.
struct Cluster {
    session: Session,
    agent: Agent,
    api: ApiServer,
    runtime: Runtime,
    _site: Site,
}

impl Cluster {
    fn new() -> Result<Cluster> {
        let site = Site::new()?;
        lay_link(&site.contestant)?;
        // Somebody else's route, as a CNI plugin leaves it.
        site.contestant.exec("ip route add 10.0.0.0/16 dev pods0")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let options = Options {
            listen: address(FAMILY, host::OBSERVER),
            netns: Some(site.tool.name().to_owned()),
            ..Options::default()
        };
        let api = runtime.block_on(async {
            let api = ApiServer::start_with(options).await?;
            api.create_node(NODE, &[address(FAMILY, HOST)]).await?;
            api.create_namespace(NAMESPACE, &[]).await?;
            for number in 0..PODS {
                api.run_pod(&pod(number)).await?;
            }
            anyhow::Ok(api)
        })?;
        let agent = Agent::in_cluster(&site.contestant, READER, &api.kubeconfig())?;
        let mut session = Session::connect(&site, FAMILY, READER).with_context(|| agent.log())?;
        session
            .receive_until("all Pods", PATIENCE, |counts| counts.announced >= u64::from(PODS))
            .with_context(|| agent.log())?;
        Ok(Cluster { session, agent, api, runtime, _site: site })
    }

    fn measure(&mut self, bench: &mut Bench, title: &str) -> Result<()> {
        let resident = self.agent.usage()?.resident as f64;
        let idle = "with Kubernetes, one peer, 250 Pods: resident";
        bench.report().row('e', idle, Unit::Octets, Goal::AtMost(16e6)).sample(OURS, resident);
        for round in 0..bench.rounds() {
            let first = PODS + u32::try_from(round)? * EVENTS;
            let (mut asked, mut answered) = (Vec::new(), Vec::new());
            for number in first..first + EVENTS {
                let (from_request, from_answer) = self.event(number)?;
                asked.push(from_request);
                answered.push(from_answer);
            }
            for (from, figures, goal) in
                [("request", asked, Goal::None), ("API server's answer", answered, Goal::AtMost(10.0))]
            {
                let title = format!("{title}, from the {from}, p99");
                let row = bench.report().row('b', &title, Unit::Milliseconds, goal);
                percentile(&figures, 99.0).into_iter().for_each(|figure| row.sample(OURS, figure));
            }
        }
        Ok(())
    }

    /// A Pod becomes ready; milliseconds from the request, and from its answer, which may be later than the UPDATE.
    fn event(&mut self, number: u32) -> Result<(f64, f64)> {
        let pod = pod(number);
        self.runtime.block_on(self.api.create_pod(&pod))?;
        let before = self.session.counts().clone();
        let begin = Moment::now();
        let (session, api) = (&mut self.session, &self.api);
        let (answer, end) = std::thread::scope(|scope| {
            let listening = scope.spawn(|| {
                session.receive_until("the Pod", PATIENCE, |counts| counts.announced > before.announced)
            });
            let answer = self.runtime.block_on(api.start_pod(&pod)).map(|()| Moment::now());
            (answer, listening.join().expect("it does not panic"))
        });
        let (answer, end) = (answer?, end?);
        let counts = self.session.counts();
        ensure!(
            counts.checksum.wrapping_sub(before.checksum) == Numbering::Hosts4.checksum(number),
            "another route than Pod {number}'s: {counts:?}"
        );
        self.runtime.block_on(self.api.delete_pod(NAMESPACE, &name(number)))?;
        self.session
            .receive_until("its withdrawal", PATIENCE, |counts| counts.withdrawn > before.withdrawn)?;
        Ok((end.milliseconds_since(begin), end.milliseconds_since(answer)))
    }
}

fn name(number: u32) -> String {
    format!("pod-{number}")
}

fn pod(number: u32) -> TestPod {
    TestPod::new(NAMESPACE, &name(number), NODE).address(IpAddr::from(Numbering::Hosts4.v4(number)))
}
