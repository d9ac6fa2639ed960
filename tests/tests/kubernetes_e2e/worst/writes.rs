//! The API server refuses what the agents write, fails at it, or does not answer, while it goes on to be read.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use plainroute_tests::netns::{wait_until, wait_until_async};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{lost_none, undisturbed};
use crate::cluster::{A, B, Cluster, OWN_NAMESPACE, Scene, TOR, USER, erp_pod};
use crate::node::Node;

/// The name of whatever is put in the way.
const OBSTACLE: &str = "in-the-way";
/// The groups that agents write to.
const WRITTEN: [&str; 3] = ["plainroute.dev", "events.k8s.io", "coordination.k8s.io"];
/// How long it may take until an agent tries again: its wait grows to a minute, and up to as much again is random.
const LATER: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn agents_that_may_write_nothing_route_all_the_same() -> Result<()> {
    let lab = Cluster::start(Scene { status: true, ..Scene::default() }).await?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    lab.await_routes(&[("10.20.0.1", A)])?;
    let probe = lab.probe(&one, "10.20.0.1")?;
    let mark = lab.mark();
    // Without this the test would show nothing.
    await_answer(&lab, "patch", "nodestates", 403)?;
    lab.run_cni_pod(&lab.b, "two", "10.20.0.2").await?;
    lab.await_routes(&[("10.20.0.1", A), ("10.20.0.2", B)])?;
    undisturbed(&lab, &mark)?;
    lost_none("writes refused", probe)?;

    // Control: what the agents may read still counts.
    lab.api.delete_pod("erp", "one").await?;
    lab.await_routes(&[("10.20.0.2", B)])
}

/// What is in the way of an agent's writes, and of nothing else.
enum Obstacle {
    /// A webhook of somebody else's that nobody is behind: each write is answered 500.
    Unreachable,
    /// One write that does not end has the only seat that priority and fairness has for them: 429.
    NoSeat { _listener: TcpListener, endless: JoinHandle<()> },
    /// A webhook that takes the connection and says nothing: no answer in time.
    Silent { _listener: TcpListener },
}

impl Obstacle {
    async fn unreachable(lab: &Cluster) -> Result<Obstacle> {
        webhook(lab, &format!("https://{TOR}:1/"), "true").await?;
        Ok(Obstacle::Unreachable)
    }

    async fn silent(lab: &Cluster) -> Result<Obstacle> {
        let listener = lab.tor_ns.within(|| TcpListener::bind((TOR, 0)))?;
        webhook(lab, &format!("https://{}/", listener.local_addr()?), "true").await?;
        Ok(Obstacle::Silent { _listener: listener })
    }

    async fn no_seat(lab: &Cluster) -> Result<Obstacle> {
        let limited = json!({
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": { "type": "Reject" },
        });
        let level =
            json!({ "metadata": { "name": OBSTACLE }, "spec": { "type": "Limited", "limited": limited } });
        lab.api.create::<PriorityLevelConfiguration>(Api::all(lab.api.client()), level).await?;
        let rule = json!({
            "verbs": ["create", "update", "patch"], "apiGroups": WRITTEN, "resources": ["*"], "namespaces": ["*"],
            "clusterScope": true,
        });
        let subject = json!({ "kind": "User", "user": { "name": USER } });
        let schema = json!({
            "metadata": { "name": OBSTACLE },
            "spec": {
                "matchingPrecedence": 10, "priorityLevelConfiguration": { "name": OBSTACLE },
                "rules": [{ "subjects": [subject], "resourceRules": [rule] }],
            },
        });
        lab.api.create::<FlowSchema>(Api::all(lab.api.client()), schema).await?;
        let listener = lab.tor_ns.within(|| TcpListener::bind((TOR, 0)))?;
        let url = format!("https://{}/", listener.local_addr()?);
        webhook(lab, &url, &format!("object.metadata.name == '{OBSTACLE}'")).await?;
        let client = lab.api.client_of(USER).await?;
        let endless = tokio::spawn(async move {
            let kind = GroupVersionKind::gvk("plainroute.dev", "v1alpha1", "NodeState");
            let resource = ApiResource::from_gvk_with_plural(&kind, "nodestates");
            let states = Api::<DynamicObject>::all_with(client, &resource);
            let state = json!({
                "apiVersion": "plainroute.dev/v1alpha1", "kind": "NodeState", "metadata": { "name": OBSTACLE },
            });
            loop {
                // It fails when its time is over, and is written anew.
                let _ = states.patch(OBSTACLE, &PatchParams::apply(OBSTACLE), &Patch::Apply(&state)).await;
            }
        });
        Ok(Obstacle::NoSeat { _listener: listener, endless })
    }

    async fn remove(self, lab: &Cluster) -> Result<()> {
        let (client, parameters) = (lab.api.client(), DeleteParams::default());
        Api::<ValidatingWebhookConfiguration>::all(client.clone()).delete(OBSTACLE, &parameters).await?;
        match self {
            Obstacle::Unreachable | Obstacle::Silent { .. } => Ok(()),
            Obstacle::NoSeat { endless, .. } => {
                endless.abort();
                Api::<FlowSchema>::all(client.clone()).delete(OBSTACLE, &parameters).await?;
                Api::<PriorityLevelConfiguration>::all(client).delete(OBSTACLE, &parameters).await?;
                Ok(())
            }
        }
    }

    /// What the agent logs of it.
    fn words(&self) -> &'static str {
        match self {
            Obstacle::Unreachable => "is not told: the API server answers 500",
            Obstacle::NoSeat { .. } => "is not told: the API server answers 429",
            Obstacle::Silent { .. } => "is not told: the server does not answer",
        }
    }

    /// What the API server writes down of a write, where it comes to an answer.
    fn code(&self) -> Option<u16> {
        match self {
            Obstacle::Unreachable => Some(500),
            Obstacle::NoSeat { .. } => Some(429),
            Obstacle::Silent { .. } => None,
        }
    }
}

/// Somebody else's admission webhook, asked for those writes of agents that are as the expression says.
async fn webhook(lab: &Cluster, url: &str, of: &str) -> Result<()> {
    let rule = json!({
        "apiGroups": WRITTEN, "apiVersions": ["*"], "resources": ["*/*"], "operations": ["CREATE", "UPDATE"],
    });
    let conditions = [("user", format!("request.userInfo.username == '{USER}'")), ("object", of.to_owned())];
    let conditions = conditions.map(|(name, expression)| json!({ "name": name, "expression": expression }));
    let webhook = json!({
        "name": format!("{OBSTACLE}.example.org"), "clientConfig": { "url": url }, "rules": [rule],
        "matchConditions": conditions, "failurePolicy": "Fail", "timeoutSeconds": 30, "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    });
    let object = json!({ "metadata": { "name": OBSTACLE }, "webhooks": [webhook] });
    lab.api.create::<ValidatingWebhookConfiguration>(Api::all(lab.api.client()), object).await
}

fn await_answer(lab: &Cluster, verb: &str, resource: &str, code: u16) -> Result<()> {
    wait_until(&format!("{verb} {resource} to be answered {code}"), LATER, || {
        match lab.answers(verb, resource, code) {
            Ok(1..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Lets the agents write what they would.
pub(super) async fn allow_writes(lab: &Cluster) -> Result<()> {
    let ours = ["bgppeers", "bgpadvertisements", "ippools", "egresses"];
    let statuses = ours.map(|resource| format!("{resource}/status"));
    let rules = json!([
        { "apiGroups": ["plainroute.dev"], "resources": ["nodestates"], "verbs": ["create", "patch", "list"] },
        { "apiGroups": ["plainroute.dev"], "resources": ["nodestates/status"], "verbs": ["patch"] },
        { "apiGroups": ["plainroute.dev"], "resources": statuses, "verbs": ["patch"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
    ]);
    lab.api.grant("writes", rules, plainroute_tests::kubelab::rights::user(USER)).await
}

/// How many Pods the NodeState of a node says it advertises.
async fn told_pods(lab: &Cluster, node: &Node) -> Result<u64> {
    let state = serde_json::to_value(lab.api.custom("NodeState").get(node.name).await?)?;
    state["status"]["advertised"]["pods"].as_u64().with_context(|| state.to_string())
}

pub(super) async fn await_told_pods(lab: &Cluster, node: &Node, pods: u64) -> Result<()> {
    let what = format!("the NodeState of {} to tell of {pods} Pods", node.name);
    let asked = wait_until_async(&what, LATER, async || match told_pods(lab, node).await {
        Ok(told) if told == pods => Ok(()),
        other => Err(format!("{other:?}")),
    });
    asked.await.with_context(|| node.last_words())
}

/// How many Events there are that a Pod is not advertised.
async fn told_refusals(lab: &Cluster) -> Result<usize> {
    let events = Api::<Event>::all(lab.api.client()).list(&Default::default()).await?;
    Ok(events.items.iter().filter(|event| event.reason.as_deref() == Some("NotAdvertised")).count())
}

async fn await_told_refusals(lab: &Cluster, count: usize) -> Result<()> {
    let what = format!("{count} Events of Pods that are not advertised");
    let asked = wait_until_async(&what, LATER, async || match told_refusals(lab).await {
        Ok(told) if told == count => Ok(()),
        other => Err(format!("{other:?}")),
    });
    asked.await.with_context(|| lab.a.last_words())
}

/// Waits until the holder of the Lease has renewed it once more.
async fn await_renewal(lab: &Cluster) -> Result<()> {
    let renewed = async || {
        let lease = Api::<Lease>::namespaced(lab.api.client(), OWN_NAMESPACE).get("plainroute-status").await;
        lease?.spec.context("an empty Lease")?.renew_time.context("never renewed")
    };
    let before = renewed().await?;
    wait_until_async("the Lease to be renewed", LATER, async || match renewed().await {
        Ok(now) if now > before => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn writes_that_fail_or_are_not_answered_change_no_route_and_are_made_up_for() -> Result<()> {
    let mut lab =
        Cluster::without_agents(Scene { status: true, kinds_in_files: [false; 2], ..Scene::default() })
            .await?;
    lab.apply_kinds().await?;
    allow_writes(&lab).await?;
    lab.a.start_agent()?;
    lab.b.start_agent()?;
    lab.await_sessions()?;
    let one = lab.run_answering_pod(&lab.a, "one", "10.20.0.1").await?;
    let mut routes = vec![("10.20.0.1", A)];
    lab.await_routes(&routes)?;
    // Control: nothing is in the way, and all is told.
    await_told_pods(&lab, &lab.a, 1).await?;
    await_told_pods(&lab, &lab.b, 0).await?;
    ensure!(told_refusals(&lab).await? == 0);
    let probe = lab.probe(&one, "10.20.0.1")?;
    let mark = lab.mark();

    for (before, (pod, address)) in
        [("two", "10.20.0.2"), ("three", "10.20.0.3"), ("four", "10.20.0.4")].into_iter().enumerate()
    {
        let obstacle = match before {
            0 => Obstacle::unreachable(&lab).await?,
            1 => Obstacle::no_seat(&lab).await?,
            _ => Obstacle::silent(&lab).await?,
        };
        if let Some(code) = obstacle.code() {
            await_answer(&lab, "update", "leases", code)?;
        }
        // What there would be to tell: one Pod more on node-b, and one on node-a that breaks a rule.
        lab.run_cni_pod(&lab.b, pod, address).await?;
        let stray = format!("stray-{pod}");
        lab.api.run_pod(&erp_pod(&lab.a, &stray, &format!("10.99.0.{}", before + 1))?).await?;
        routes.push((address, B));
        lab.await_routes(&routes)?;
        for node in [&lab.a, &lab.b] {
            node.await_logged(obstacle.words(), LATER)?;
        }
        if let Some(code) = obstacle.code() {
            await_answer(&lab, "patch", "nodestates", code)?;
        }
        ensure!(told_pods(&lab, &lab.b).await? == before as u64, "it was written all the same");
        ensure!(told_refusals(&lab).await? == before, "it was told all the same");
        undisturbed(&lab, &mark)?;

        obstacle.remove(&lab).await?;
        await_told_pods(&lab, &lab.b, before as u64 + 1).await?;
        await_told_refusals(&lab, before + 1).await?;
        for node in [&lab.a, &lab.b] {
            node.await_check("that it hears the API server", |health| health["ready"] == true)?;
        }
    }
    await_renewal(&lab).await?;
    undisturbed(&lab, &mark)?;
    lost_none("writes answered 500, 429, and not at all", probe)?;

    // Control: what is read counts.
    lab.api.delete_pod("erp", "one").await?;
    lab.await_routes(&routes[1..])
}
