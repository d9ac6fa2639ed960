//! What a platform team does with the cluster, and what is seen of it there and at the ToRs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use plainroute_tests::netns::{wait_until, wait_until_async};
use plainroute_tests::routers::{Family, Router, Table};
use serde_json::{Value, json};

use super::SOON;
use super::manifests::{self, AGENT, AGENT_NAMESPACE, AGENTS, NAMESPACE, OTHER_NAMESPACE};
use super::scene::{self, NODES, OUTSIDE_HOST, Scene};

/// A Pod that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Running {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) address: IpAddr,
}

impl Scene {
    fn all<K: kube::Resource<DynamicType = (), Scope = ClusterResourceScope>>(&self) -> Api<K> {
        Api::all(self.api.client())
    }

    fn of<K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, name: &str) -> Api<K> {
        Api::namespaced(self.api.client(), name)
    }

    /// Waits until both nodes are ready.
    pub(crate) async fn await_nodes(&mut self) -> Result<()> {
        let nodes = self.all::<Node>();
        let mut ended = Ok(());
        wait_until_async("both nodes to be ready", SOON, || {
            ended = self.nodes.iter_mut().try_for_each(|node| node.ensure_running());
            let (nodes, failed) = (nodes.clone(), ended.is_err());
            async move {
                let list = nodes.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
                let ready: Vec<_> =
                    list.iter().filter(|node| is_ready(node)).map(|node| &node.metadata.name).collect();
                if failed || ready.len() == NODES.len() { Ok(()) } else { Err(format!("only {ready:?}")) }
            }
        })
        .await
        .with_context(|| self.last_words())?;
        ended
    }

    /// Makes the namespaces. Without its account no Pod of a namespace is admitted.
    pub(crate) async fn create_namespaces(&self) -> Result<()> {
        for name in [AGENT_NAMESPACE, NAMESPACE, OTHER_NAMESPACE] {
            self.api.create::<Namespace>(self.all(), json!({ "metadata": { "name": name } })).await?;
            let accounts = self.of::<ServiceAccount>(name);
            let what = format!("the ServiceAccount of {name}");
            wait_until_async(&what, SOON, || async { accounts.get("default").await.map(drop) }).await?;
        }
        Ok(())
    }

    /// The agents, ready on both nodes: the chart, installed.
    pub(crate) async fn deploy_agents(&self) -> Result<()> {
        self.release.install(&self.api).await?;
        self.await_rollout().await
    }

    /// Lets the agents ask the API server, as the chart does.
    pub(crate) async fn allow_agents(&self) -> Result<()> {
        let binding = self.release.object("ClusterRoleBinding")?.clone();
        self.api.create::<ClusterRoleBinding>(self.all(), binding).await
    }

    /// Undoes [`allow_agents`](Self::allow_agents).
    pub(crate) async fn forbid_agents(&self) -> Result<()> {
        self.all::<ClusterRoleBinding>().delete(AGENT, &DeleteParams::default()).await?;
        Ok(())
    }

    /// What `kubectl rollout restart daemonset` does; the rollout goes on when this returns.
    pub(crate) async fn restart_agents(&self, why: &str) -> Result<()> {
        let template = json!({ "metadata": { "annotations": { "plainroute.test/restarted-for": why } } });
        let patch = Patch::Merge(json!({ "spec": { "template": template } }));
        self.of::<DaemonSet>(AGENT_NAMESPACE).patch(AGENT, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until the DaemonSet's agents are all of its newest kind, and ready.
    pub(crate) async fn await_rollout(&self) -> Result<()> {
        let sets = self.of::<DaemonSet>(AGENT_NAMESPACE);
        wait_until_async("the rollout of the DaemonSet", SOON, || async {
            let set = sets.get(AGENT).await.map_err(|error| error.to_string())?;
            let status = set.status.unwrap_or_default();
            let done = status.observed_generation == set.metadata.generation
                && status.updated_number_scheduled == Some(2)
                && status.number_ready == 2;
            if done { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await
        .with_context(|| self.last_words())
    }

    /// The agents' Pods that are not on their way out, by node.
    pub(crate) async fn agents(&self) -> Result<BTreeSet<Running>> {
        self.pods(AGENT_NAMESPACE, AGENTS).await
    }

    /// Waits until the kubelet has found this agent not ready several times, and told so.
    pub(crate) async fn await_unready(&self, agent: &Running) -> Result<()> {
        let events = self.of::<Event>(AGENT_NAMESPACE);
        let parameters =
            ListParams::default().fields(&format!("involvedObject.uid={},reason=Unhealthy", agent.uid));
        wait_until_async(&format!("{} to be found not ready", agent.name), SOON, || async {
            let list = events.list(&parameters).await.map_err(|error| error.to_string())?;
            let told: Vec<_> = list.iter().map(|event| (event.count, event.message.clone())).collect();
            if told.iter().any(|(count, _)| *count >= Some(3)) { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await
    }

    /// What an agent answers to a command that is typed in its container, as JSON.
    pub(crate) fn ask(&self, agent: &Running, question: &[&str]) -> Result<Value> {
        let argv = [&["plainroute"], question, &["-o", "json"]].concat();
        let output = self.node(&agent.node)?.exec(&agent.uid, "agent", &argv)?;
        // 1 says that something is not as one would have it, which is an answer.
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 1)), "{}: {argv:?}: {said}", agent.name);
        serde_json::from_slice(&output.stdout).with_context(|| format!("{}: {argv:?}: {said}", agent.name))
    }

    /// A Deployment of Pods that do nothing but have an address, and take so many seconds to end.
    pub(crate) async fn deploy(&self, namespace: &str, name: &str, replicas: u32, grace: u32) -> Result<()> {
        let manifest = manifests::deployment(name, replicas, grace);
        self.api.create::<Deployment>(self.of(namespace), manifest).await?;
        self.await_available(namespace, name, replicas).await
    }

    /// Gives the Deployment another number of Pods, and waits for them.
    pub(crate) async fn scale(&self, name: &str, replicas: u32) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.of::<Deployment>(NAMESPACE).patch(name, &PatchParams::default(), &patch).await?;
        self.await_available(NAMESPACE, name, replicas).await
    }

    /// A StatefulSet of one Pod, running.
    pub(crate) async fn deploy_stateful_set(&self, name: &str) -> Result<()> {
        let sets = self.of::<StatefulSet>(NAMESPACE);
        self.api.create::<StatefulSet>(sets.clone(), manifests::stateful_set(name)).await?;
        wait_until_async(&format!("the Pod of {name}"), SOON, || async {
            let set = sets.get(name).await.map_err(|error| error.to_string())?;
            let status = set.status.unwrap_or_default();
            if status.available_replicas == Some(1) { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await
        .with_context(|| self.last_words())
    }

    /// Deletes a Pod as a user does, or with a time of one's own to end in.
    pub(crate) async fn delete_pod(&self, pod: &Running, grace_seconds: Option<u32>) -> Result<()> {
        let parameters = DeleteParams { grace_period_seconds: grace_seconds, ..DeleteParams::default() };
        self.of::<Pod>(&pod.namespace).delete(&pod.name, &parameters).await?;
        Ok(())
    }

    /// Gives a node a taint that nothing tolerates.
    pub(crate) async fn taint(&self, node: &str, key: &str) -> Result<()> {
        let taint = json!({ "key": key, "value": "true", "effect": "NoExecute" });
        let patch = Patch::Strategic(json!({ "spec": { "taints": [taint] } }));
        self.all::<Node>().patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until that many Pods of the Deployment run.
    pub(crate) async fn await_available(&self, namespace: &str, name: &str, replicas: u32) -> Result<()> {
        let deployments = self.of::<Deployment>(namespace);
        wait_until_async(&format!("{replicas} Pods of {namespace}/{name}"), SOON, || async {
            let deployment = deployments.get(name).await.map_err(|error| error.to_string())?;
            let status = deployment.status.unwrap_or_default();
            let done = status.observed_generation == deployment.metadata.generation
                && u32::try_from(status.available_replicas.unwrap_or(0)) == Ok(replicas);
            if done { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await
        .with_context(|| self.last_words())
    }

    /// The Pods with these labels that are not on their way out.
    pub(crate) async fn pods(&self, namespace: &str, labels: &str) -> Result<BTreeSet<Running>> {
        let parameters = ListParams::default().labels(labels);
        let pods = self.of::<Pod>(namespace).list(&parameters).await?;
        let stay = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        stay.map(running).collect()
    }

    /// What `kubectl cordon` and `kubectl uncordon` do.
    pub(crate) async fn cordon(&self, node: &str, cordoned: bool) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "unschedulable": cordoned } }));
        self.all::<Node>().patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// What `kubectl drain` does to a Pod.
    pub(crate) async fn evict(&self, pod: &Running) -> Result<()> {
        self.of::<Pod>(NAMESPACE).evict(&pod.name, &EvictParams::default()).await?;
        Ok(())
    }

    /// Whether the Pod is on its way out: not there yet, or not any more, is an error.
    pub(crate) async fn is_terminating(&self, pod: &Running) -> Result<bool> {
        let seen = self.of::<Pod>(NAMESPACE).get(&pod.name).await?;
        ensure!(seen.metadata.uid.as_deref() == Some(&pod.uid), "{} is another Pod now", pod.name);
        Ok(seen.metadata.deletion_timestamp.is_some())
    }

    /// Waits until the API does not know the Pod any more.
    pub(crate) async fn await_gone(&self, pod: &Running) -> Result<()> {
        let pods = self.of::<Pod>(NAMESPACE);
        wait_until_async(&format!("{} to be gone", pod.name), SOON, || async {
            match pods.get_opt(&pod.name).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("it is there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Waits until both ToRs know exactly these Pods, each behind its node, and tells how long that took after `cause`.
    pub(crate) fn time_routes(&self, what: &str, cause: Instant, pods: &BTreeSet<Running>) -> Result<()> {
        let tors: [&dyn Router; 2] = [&self.frr, &self.bird];
        for (index, tor) in tors.into_iter().enumerate() {
            let wanted = pods.iter().map(|pod| {
                let node = NODES.iter().find(|(name, ..)| *name == pod.node).context("a node of ours")?;
                Ok((format!("{}/32", pod.address), BTreeSet::from([node.2[index].parse()?])))
            });
            let wanted: Table = wanted.collect::<Result<_>>()?;
            tor.await_learned(Family::V4, &format!("exactly {wanted:?}"), SOON, &|table| *table == wanted)
                .with_context(|| self.last_words())?;
            println!("{what}: {} ms until {} showed it", cause.elapsed().as_millis(), tor.name());
        }
        Ok(())
    }

    /// Waits until neither ToR knows any of these Pods.
    pub(crate) fn await_withdrawn(&self, pods: &BTreeSet<Running>) -> Result<()> {
        let gone: Vec<String> = pods.iter().map(|pod| format!("{}/32", pod.address)).collect();
        let tors: [&dyn Router; 2] = [&self.frr, &self.bird];
        for tor in tors {
            let without = |table: &Table| gone.iter().all(|prefix| !table.contains_key(prefix));
            tor.await_learned(Family::V4, &format!("none of {gone:?}"), SOON, &without)?;
        }
        Ok(())
    }

    /// Takes from both ToRs what they do for peers that restart.
    pub(crate) fn stop_helping(&self) -> Result<()> {
        self.frr.configure(&["router bgp 64600", "bgp graceful-restart-disable"])?;
        self.frr.vtysh("clear bgp *")?;
        let log = self.bird.log().len();
        self.bird.reconfigure(&scene::bird_config(false))?;
        // Until its sessions have come up anew, those of before may still be seen.
        wait_until("BIRD's sessions to start over", SOON, || {
            let log = self.bird.log().split_off(log);
            let up = |(name, ..): &(&str, _, _, _)| {
                log.contains(&format!("{}: State changed to up", name.replace('-', "_")))
            };
            if NODES.iter().all(up) { Ok(()) } else { Err(log) }
        })
    }

    /// Waits until both ToRs have a session with both nodes.
    pub(crate) fn await_sessions(&self) -> Result<()> {
        let tors: [&dyn Router; 2] = [&self.frr, &self.bird];
        for (index, tor) in tors.into_iter().enumerate() {
            for (_, _, uplinks, _) in NODES {
                tor.await_state(uplinks[index].parse()?, "established", SOON)?;
            }
        }
        Ok(())
    }

    /// Waits until both ToRs see BFD up with both nodes, and fails where FRR has seen one go down.
    pub(crate) fn await_bfd(&self) -> Result<()> {
        for (name, _, uplinks, _) in NODES {
            let [at_frr, at_bird] = uplinks.map(str::parse::<IpAddr>);
            let (at_frr, at_bird) = (at_frr?, at_bird?);
            wait_until(&format!("BFD with {name}"), SOON, || {
                let frr = self.frr.bfd(at_frr).map_err(|error| error.to_string())?.unwrap_or_default();
                let bird = self.bird.bfd(at_bird).map_err(|error| error.to_string())?;
                let up = bird.as_ref().is_some_and(|(state, ..)| state == "up");
                if up && frr["status"] == "up" { Ok(()) } else { Err(format!("{frr}, {bird:?}")) }
            })?;
            let frr = self.frr.bfd(at_frr)?.unwrap_or_default();
            ensure!(frr["session-down"] == 0, "FRR has lost BFD with {name}: {frr}");
        }
        Ok(())
    }

    /// Pings a Pod from outside by its own address, through either ToR.
    pub(crate) fn ping(&self, pod: &Running) -> Result<()> {
        let address = pod.address.to_string();
        for source in OUTSIDE_HOST {
            // The ToR's kernel may be behind its own table for a moment.
            wait_until(&format!("{pod:?} to answer {source}"), SOON, || {
                self.outside
                    .run(&["ping", "-c1", "-W1", "-I", source, &address])
                    .map(drop)
                    .map_err(|error| error.to_string())
            })?;
        }
        Ok(())
    }
}

fn is_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn running(pod: &Pod) -> Result<Running> {
    let name = pod.metadata.name.clone().context("a Pod has a name")?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    Ok(Running {
        namespace: pod.metadata.namespace.clone().context("a Pod has a namespace")?,
        uid: pod.metadata.uid.clone().context("a Pod has a UID")?,
        node: node.with_context(|| format!("{name} is not scheduled"))?,
        address: address.with_context(|| format!("{name} has no address"))?.parse()?,
        name,
    })
}
