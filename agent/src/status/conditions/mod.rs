//! The conditions of BGPPeers, BGPAdvertisements, IPPools and Egresses, written by one agent of the cluster: the one that
//! holds the Lease.
//!
//! Owner of a client of its own and of what it counted last. Inputs: the Lease, the objects, the NodeStates of all nodes,
//! a page at a time. Output: the status of those objects, where it has changed, and an Event where one is accepted no
//! more, or again. Nothing waits for it; when [`run`] is cancelled another agent takes over once the Lease is over.
mod judge;
mod lease;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1;
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
    runtime::events::Recorder,
};
use plainroute_config::{API_VERSION, Kind, NodeState};
use serde_json::json;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{
    events::Reason,
    pace::Bucket,
    server::{Trouble, asked, recorder, reference, told},
};
use crate::source::kubernetes::{self, Settings};
use judge::{Change, Judged, Totals};
use lease::{Candidate, NAME, RENEW, Step};

/// The name under which the API server notes what is ours.
const FIELD_OWNER: &str = "plainroute-status";
/// How many objects are asked for at once.
const PAGE: u32 = 500;
/// How often the objects are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How often the NodeStates are counted.
const COUNT: Duration = Duration::from_secs(30);
/// So many Events at once, and one more in each interval.
const BURST: u32 = 10;
const EVERY: Duration = Duration::from_secs(10);
/// The kinds, and their names in the API's paths.
const KINDS: [(Kind, &str); 4] = [
    (Kind::BgpPeer, "bgppeers"),
    (Kind::BgpAdvertisement, "bgpadvertisements"),
    (Kind::IpPool, "ippools"),
    (Kind::Egress, "egresses"),
];

/// Takes part until it is cancelled. `namespace`: the one that the agents run in.
pub(crate) async fn run(settings: Settings, namespace: String) {
    let mut writer = Writer::new(settings.node.clone(), namespace);
    let mut trouble: Option<String> = None;
    loop {
        let went = match kubernetes::connect(&settings).await {
            Ok((client, _)) => writer.serve(&client, &mut trouble).await,
            Err(error) => Trouble::Away(error.to_string()),
        };
        let said = went.to_string();
        if trouble.as_ref() != Some(&said) {
            warn!("the conditions of objects are not told by this agent: {said}; trying again");
            trouble = Some(said);
        }
        sleep(COUNT.mul_f64(1.0 + fastrand::f64())).await;
    }
}

struct Writer {
    node: String,
    namespace: String,
    candidate: Candidate,
    totals: Totals,
    counted: Option<Instant>,
    looked: Option<Instant>,
    events: Bucket,
}

impl Writer {
    fn new(node: String, namespace: String) -> Writer {
        Writer {
            candidate: Candidate::new(node.clone()),
            node,
            namespace,
            totals: Totals::default(),
            counted: None,
            looked: None,
            events: Bucket::new(BURST, EVERY, Instant::now()),
        }
    }

    /// Takes part until something goes wrong.
    async fn serve(&mut self, client: &Client, trouble: &mut Option<String>) -> Trouble {
        let recorder = recorder(client.clone(), &self.node);
        loop {
            let before = self.candidate.holds();
            match self.step(client, &recorder).await {
                Ok(wait) => {
                    if trouble.take().is_some() {
                        info!("the conditions of objects can be told again");
                    }
                    match (before, self.candidate.holds()) {
                        (false, true) => info!("this agent tells the conditions of objects from now on"),
                        (true, false) => info!("another agent tells the conditions of objects"),
                        (true, true) | (false, false) => {}
                    }
                    sleep(wait).await;
                }
                Err(trouble) => {
                    self.candidate.handle_failure();
                    return trouble;
                }
            }
        }
    }

    /// Does what is due; how long to wait then.
    async fn step(&mut self, client: &Client, recorder: &Recorder) -> Result<Duration, Trouble> {
        if !self.elect(client).await? {
            (self.counted, self.looked) = (None, None);
            return Ok(lease::wait(fastrand::f64()));
        }
        let due = |last: Option<Instant>, every| last.is_none_or(|last: Instant| last.elapsed() >= every);
        if due(self.counted, COUNT) {
            self.totals = count(client).await?;
            self.counted = Some(Instant::now());
            self.looked = None;
        }
        if due(self.looked, LOOK) {
            self.look(client, recorder).await?;
            self.looked = Some(Instant::now());
        }
        Ok(RENEW)
    }

    /// Whether the Lease is ours, after it was renewed or taken.
    async fn elect(&mut self, client: &Client) -> Result<bool, Trouble> {
        let api = Api::<v1::Lease>::namespaced(client.clone(), &self.namespace);
        let found = asked(api.get_opt(NAME)).await?;
        let step =
            self.candidate.handle_lease(found.as_ref().and_then(|lease| lease.spec.as_ref()), Instant::now());
        let spec = match step {
            Step::Wait => return Ok(false),
            Step::Write(spec) => spec,
        };
        let written = match found {
            Some(lease) => {
                // It has the version that was seen, so of two agents that take it only one does.
                let lease = v1::Lease { spec: Some(spec), ..lease };
                asked(api.replace(NAME, &PostParams::default(), &lease)).await
            }
            None => {
                let mut lease = v1::Lease { spec: Some(spec), ..v1::Lease::default() };
                lease.metadata.name = Some(NAME.to_owned());
                asked(api.create(&PostParams::default(), &lease)).await
            }
        };
        match written {
            Ok(_) => self.candidate.handle_written(),
            Err(Trouble::Refused { code: 409, .. }) => self.candidate.handle_failure(),
            Err(trouble) => return Err(trouble),
        }
        Ok(self.candidate.holds())
    }

    /// Writes the status of each object where it is another than it should be.
    async fn look(&mut self, client: &Client, recorder: &Recorder) -> Result<(), Trouble> {
        let mut judged = Judged::new(&self.totals, jiff::Timestamp::now());
        for (kind, plural) in KINDS {
            pages(&objects(client, kind, plural), |object| judged.add(kind, &object)).await?;
        }
        let changes = KINDS.map(|of| (of, judged.changes(of.0)));
        for ((kind, plural), change) in
            changes.into_iter().flat_map(|(of, changes)| changes.into_iter().map(move |change| (of, change)))
        {
            let (name, status) = (&change.name, &change.status);
            let object = json!({
                "apiVersion": API_VERSION, "kind": kind.name(), "metadata": { "name": name }, "status": status,
            });
            let parameters = PatchParams::apply(FIELD_OWNER).force();
            let api = objects(client, kind, plural);
            match asked(api.patch_status(name, &parameters, &Patch::Apply(&object))).await {
                Ok(_) => self.tell_turn(recorder, kind, &change).await,
                // It was deleted meanwhile.
                Err(Trouble::Refused { code: 404, .. }) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }
}

impl Writer {
    /// The Event, where there is one. It is not worth a second try: the condition is written.
    async fn tell_turn(&mut self, recorder: &Recorder, kind: Kind, change: &Change) {
        debug!("told the conditions of {kind}/{}", change.name);
        let Some((accepted, why)) = change.turn.as_ref().filter(|_| self.events.take(Instant::now())) else {
            return;
        };
        let reason = if *accepted { Reason::Accepted } else { Reason::NotAccepted };
        let regarding = reference(kind, &change.name, change.uid.as_deref());
        if let Err(trouble) = asked(recorder.publish(&told(reason, why), &regarding)).await {
            debug!("an Event about {kind}/{} is not told: {trouble}", change.name);
        }
    }
}

/// What all nodes say together.
async fn count(client: &Client) -> Result<Totals, Trouble> {
    let mut totals = Totals::default();
    let api = objects(client, Kind::NodeState, "nodestates");
    pages(&api, |object| {
        // What another version wrote and this one does not understand does not count.
        if let Ok(state) = serde_json::from_value::<NodeState>(object) {
            totals.add(&state.metadata.name, &state.status);
        }
    })
    .await?;
    Ok(totals)
}

fn objects(client: &Client, kind: Kind, plural: &str) -> Api<DynamicObject> {
    let (group, version) = API_VERSION.split_once('/').unwrap_or(("", API_VERSION));
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.name()), plural);
    Api::all_with(client.clone(), &resource)
}

/// Every object, of which a page at most is held at a time.
async fn pages(api: &Api<DynamicObject>, mut each: impl FnMut(serde_json::Value)) -> Result<(), Trouble> {
    let mut next: Option<String> = None;
    loop {
        let mut parameters = ListParams::default().limit(PAGE);
        parameters.continue_token = next.take();
        let page = asked(api.list(&parameters)).await?;
        for object in page.items {
            each(serde_json::to_value(object).unwrap_or_default());
        }
        next = page.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(());
        }
    }
}
